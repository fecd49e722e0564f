//! What no single value shows: order, repetition, conflict.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use crate::code::Code;
use crate::kind::show_duration;
use crate::model::{Config, METHODS, RateLimit, Service};
use crate::reader::Reader;
use crate::report::{Diagnostic, Place, Severity, quote};
use crate::table::Table;

/// Checks one service by itself.
pub(crate) fn service(t: &mut Table<'_, '_>, service: &Service) {
    timeouts(t, service);
    health(t, service);
    permissions(t, service);
    instances(t, service);
}

fn timeouts(t: &mut Table<'_, '_>, service: &Service) {
    let timeouts = &service.timeouts;
    let nested =
        [("connect", timeouts.connect), ("first_byte", timeouts.first_byte), ("total", timeouts.total)];
    for pair in nested.windows(2) {
        let ((inner, short), (outer, long)) = (pair[0], pair[1]);
        let (inner, outer) = (format!("timeouts.{inner}"), format!("timeouts.{outer}"));
        if short <= long || t.failed(&inner) || t.failed(&outer) {
            continue;
        }
        let message = format!(
            "{} ({}) is longer than {} ({})",
            quote(&inner),
            show_duration(short),
            quote(&outer),
            show_duration(long)
        );
        let place = t.written(&[&inner, &outer, "timeouts"]);
        let wrong = Diagnostic::new(Code::TimeoutOrder, message).at(place);
        t.reader.report(wrong.help("`connect` is part of `first_byte`, and that of `total`"));
    }
}

fn health(t: &mut Table<'_, '_>, service: &Service) {
    let health = &service.health;
    if health.timeout < health.interval || t.failed("health.timeout") || t.failed("health.interval") {
        return;
    }
    let message = format!(
        "a probe may take {}, but the next one starts after {}",
        show_duration(health.timeout),
        show_duration(health.interval)
    );
    let place = t.written(&["health.timeout", "health.interval", "health"]);
    let wrong = Diagnostic::new(Code::HealthOrder, message).at(place);
    t.reader.report(wrong.help("make `timeout` shorter than `interval`"));
}

fn permissions(t: &mut Table<'_, '_>, service: &Service) {
    if service.permissions.is_empty() || t.failed("permissions") {
        return;
    }
    let place = t.written(&["permissions"]);
    if !service.auth_required && !t.failed("auth_required") {
        let message = "these permissions are never checked: `auth_required` is false";
        t.reader.report(Diagnostic::new(Code::DeadPermission, message).at(place));
        return;
    }
    if service.methods.is_empty() || t.failed("methods") {
        return;
    }
    for method in service.permissions.keys().filter(|method| !service.methods.contains(method)) {
        let message = format!("the service never gets {method}: `methods` does not name it");
        t.reader.report(Diagnostic::new(Code::DeadPermission, message).at(place.clone()));
    }
}

fn instances(t: &mut Table<'_, '_>, service: &Service) {
    let mut seen = HashMap::new();
    for (index, instance) in service.instances.iter().enumerate() {
        let key = format!("instance[{index}].url");
        let place = t.place(&key);
        if instance.url.is_nowhere() {
            continue; // Reported as missing or malformed already.
        }
        if let Some(first) = seen.insert(&instance.url, place.clone()) {
            let message = format!("the instance {} is listed twice", instance.url);
            let twice = Diagnostic::new(Code::DuplicateInstance, message).at(place);
            t.reader.report(twice.related(first, "first here").help("raise its `weight` instead"));
        }
    }
}

/// Checks a rate limit by itself.
pub(crate) fn rate_limit(t: &mut Table<'_, '_>, limit: &RateLimit) {
    let Some(hard) = limit.hard.filter(|hard| *hard < limit.requests) else { return };
    if t.failed("requests") {
        return;
    }
    let message = format!("`hard` ({hard}) is below `requests` ({})", limit.requests);
    let place = t.written(&["hard"]);
    let wrong = Diagnostic::new(Code::RateOrder, message).at(place);
    t.reader.report(wrong.help("past `requests` the answer is 429; past `hard` the connection closes"));
}

/// Checks everything together.
pub(crate) fn config(reader: &mut Reader<'_>, config: &Config) {
    names(reader, config);
    matches(reader, config);
    empty_services(reader, config);
    listeners(reader, config);
    open_workers(reader, config);
}

fn place(reader: &Reader<'_>, index: usize, key: &str) -> Option<Place> {
    reader.place(&format!("service[{index}].{key}")).or_else(|| reader.place(&format!("service[{index}]")))
}

fn names(reader: &mut Reader<'_>, config: &Config) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (index, service) in config.services.iter().enumerate().filter(|(_, service)| !service.name.is_empty())
    {
        if let Some(first) = seen.get(service.name.as_str()) {
            let message = format!("there is a service {} already", quote(&service.name));
            let twice = Diagnostic::new(Code::DuplicateService, message).at(place(reader, index, "name"));
            let first = place(reader, *first, "name");
            reader.report(twice.related(first, "first here"));
        } else {
            seen.insert(&service.name, index);
        }
    }
}

/// What a request must have to tie: prefix, host, method; empty where the service names none.
type Match<'a> = (&'a str, &'a str, &'a str);

fn matches(reader: &mut Reader<'_>, config: &Config) {
    let mut owners: HashMap<Match<'_>, usize> = HashMap::new();
    let mut tied: HashSet<(usize, usize)> = HashSet::new();
    let routing = |(_, service): &(usize, &Service)| service.enabled && !service.prefix.is_empty();
    for (index, service) in config.services.iter().enumerate().filter(routing) {
        for key in each_match(service) {
            let first = *owners.entry(key).or_insert(index);
            if first != index && tied.insert((first, index)) {
                equal_match(reader, config, (first, index), key);
            }
        }
    }
    for (index, service) in config.services.iter().enumerate().filter(routing) {
        shadowed(reader, config, index, service, &owners);
    }
}

/// Every match of a service: its hosts times its methods.
fn each_match(service: &Service) -> impl Iterator<Item = Match<'_>> {
    any_or(&service.hosts).flat_map(move |host| {
        any_or(&service.methods).map(move |method| (service.prefix.as_str(), host, method))
    })
}

/// The words, or the one empty word that stands for all.
fn any_or(words: &[String]) -> impl Iterator<Item = &str> {
    words.iter().map(String::as_str).chain(words.is_empty().then_some(""))
}

fn equal_match(reader: &mut Reader<'_>, config: &Config, (first, second): (usize, usize), key: Match<'_>) {
    let (prefix, host, method) = key;
    let mut what = format!("{} {prefix}", if method.is_empty() { "every method of" } else { method });
    if !host.is_empty() {
        what = format!("{what} on {host}");
    }
    let (one, other) = (&config.services[first].name, &config.services[second].name);
    let message = format!("{} and {} both match {what}", quote(one), quote(other));
    let tie = Diagnostic::new(Code::EqualMatch, message).at(place(reader, second, "prefix"));
    let related = place(reader, first, "prefix");
    let help = "give one of them another `prefix`, or other `hosts` or `methods`";
    reader.report(tie.related(related, "the other service").help(help));
}

/// A service for every method is shadowed where others take each method of each of its hosts.
fn shadowed(
    reader: &mut Reader<'_>,
    config: &Config,
    index: usize,
    service: &Service,
    owners: &HashMap<Match<'_>, usize>,
) {
    if !service.methods.is_empty() {
        return;
    }
    let mut takers = BTreeSet::new();
    for host in any_or(&service.hosts) {
        for method in METHODS {
            match owners.get(&(service.prefix.as_str(), host, method)) {
                Some(owner) => takers.insert(*owner),
                None => return,
            };
        }
    }
    let names: Vec<_> = takers.iter().map(|owner| quote(&config.services[*owner].name)).collect();
    let message =
        format!("no request reaches {}: {} take every method", quote(&service.name), names.join(", "));
    let shadowed = Diagnostic::new(Code::Shadowed, message).at(place(reader, index, "prefix"));
    let related = takers.iter().next().and_then(|owner| place(reader, *owner, "prefix"));
    reader.report(
        shadowed.related(related, "this one is asked first").help("remove it, or set `enabled = false`"),
    );
}

fn empty_services(reader: &mut Reader<'_>, config: &Config) {
    for (index, service) in config.services.iter().enumerate() {
        let named = !service.name.is_empty();
        if named && service.enabled && service.instances.is_empty() {
            let message = format!("the service {} has no instances: it answers 503", quote(&service.name));
            let empty = Diagnostic::new(Code::NoInstances, message).at(place(reader, index, "name"));
            reader.report(empty.help("add a `[[service.instance]]` with a `url`, or set `enabled = false`"));
        }
    }
}

fn listeners(reader: &mut Reader<'_>, config: &Config) {
    let listeners = config.listeners();
    for (at, (key, address)) in listeners.iter().enumerate() {
        let Some((other, _)) = listeners[..at].iter().find(|(_, earlier)| collide(*earlier, *address)) else {
            continue;
        };
        let message = format!("{} and {} both listen on {address}", quote(other), quote(key));
        // Blame the one that somebody wrote.
        let (blamed, related) = match (reader.place(key), reader.place(other)) {
            (Some(place), related) => (Some(place), related),
            (None, place) => (place, None),
        };
        let twice = Diagnostic::new(Code::DuplicateListener, message).at(blamed);
        reader.report(twice.related(related, "the other listener"));
    }
}

/// True where the second of two listeners could not be opened. Port 0 is any free port.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = |address: SocketAddr| address.ip().is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || everywhere(one) || everywhere(other))
}

fn open_workers(reader: &mut Reader<'_>, config: &Config) {
    for (key, address) in config.listeners() {
        let worker = ["events.", "vault.", "calc."].iter().any(|section| key.starts_with(section));
        if !worker || address.ip().is_loopback() {
            continue;
        }
        let message = format!("{} would serve {address} without TLS, which this version lacks", quote(key));
        let mut open = Diagnostic::new(Code::OpenWorker, message)
            .at(reader.place(key))
            .help("listen on 127.0.0.1; other machines reach the worker through the edge");
        if reader.mode.dev {
            open.severity = Severity::Warning;
        }
        reader.report(open);
    }
}
