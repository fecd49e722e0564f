//! What no single value shows: order, repetition, conflict.

mod balance;
mod certificates;
mod listeners;
mod matches;
mod retry;
mod shape;
mod tls;

use std::collections::HashMap;

use crate::code::Code;
use crate::kind::show_duration;
use crate::model::{
    Config, EventStore, FalcoAction, FalcoResponse, PartitionBy, Partitions, RateLimit, RateStore, Scheme,
    Service,
};
use crate::reader::Reader;
use crate::report::{Diagnostic, Place, Severity, quote};
use crate::table::Table;

pub(crate) use shape::{cors, fallback, rewrite};

/// Checks one service by itself.
pub(crate) fn service(t: &mut Table<'_, '_>, service: &Service) {
    timeouts(t, service);
    health(t, service);
    permissions(t, service);
    instances(t, service);
    balance::service(t, service);
    retry::service(t, service);
    shape::service(t, service);
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

/// Limits are shared somewhere.
fn rate_store(reader: &mut Reader<'_>, config: &Config) {
    if config.rate_store == RateStore::Local || reader.has_failed("redis.url") {
        return;
    }
    let (message, help) = match &config.redis {
        None => (
            "limits are shared over Redis, and none is configured",
            "set `redis.url` (or REDIS_URL), or `shared = \"local\"`",
        ),
        Some(url) if !url.is_single() => (
            "limits are shared over one Redis, not over a cluster or what sentinels name",
            "make `redis.url` a \"redis://host:port\", or set `shared = \"local\"`",
        ),
        Some(_) => return,
    };
    let wrong = Diagnostic::new(Code::RateOrder, message).at(reader.place("rate_limit.shared"));
    reader.report(wrong.help(help));
}

/// Events are stored somewhere.
fn event_store(reader: &mut Reader<'_>, config: &Config) {
    if config.events.store != Some(EventStore::Redis)
        || config.redis.is_some()
        || reader.has_failed("redis.url")
    {
        return;
    }
    let message = "events are stored in Redis, and none is configured";
    let wrong = Diagnostic::new(Code::MissingKey, message).at(reader.place("events.store"));
    reader.report(wrong.help("set `redis.url` (or REDIS_URL), or `store = \"embedded\"`"));
}

/// Edges obey the vault's kill switch: over Redis by the key that they share.
fn falco_kill(reader: &mut Reader<'_>, config: &Config) {
    let kills = |response: &FalcoResponse| response.action == FalcoAction::KillSwitch && !response.dry_run;
    if config.event_redis().is_none()
        // What it says is not handed to every role that reads this.
        || reader.place("kill_switch.secret").is_some()
        || !config.falco.responses.iter().any(kills)
    {
        return;
    }
    let message =
        "no edge obeys this kill switch: events are stored in Redis, and there is no key for switches";
    let wrong = Diagnostic::new(Code::MissingKey, message).at(reader.place("falco.responses"));
    reader.report(wrong.help("set `kill_switch.secret`, the same for the edges and the vault"));
}

/// An external vault can be reached, is proved to, and hears nothing in the clear.
fn external_vault(reader: &mut Reader<'_>, config: &Config) {
    let external = &config.vault.external;
    if !external.enabled {
        return;
    }
    let place = |reader: &Reader<'_>, key: &str| {
        reader.place(&format!("vault.external.{key}")).or_else(|| reader.place("vault.external"))
    };
    let missing = |reader: &mut Reader<'_>, message: &str, help: &str| {
        let place = place(reader, "enabled");
        reader.report(Diagnostic::new(Code::MissingKey, message).at(place).help(help));
    };
    let failed = |reader: &Reader<'_>, key: &str| reader.has_failed(&format!("vault.external.{key}"));
    if external.url.is_none() && !failed(reader, "url") {
        let help = "set `url` (or VAULT_URL), or unset ENABLE_VAULT: secrets are then kept here";
        missing(reader, "an external vault is asked for, and its address is missing", help);
    }
    let token_wanted = reader.mode.secrets_required && external.token.is_none();
    if token_wanted && !failed(reader, "token") {
        let help = "set VAULT_TOKEN, or `token = \"file:PATH\"`";
        missing(reader, "an external vault is asked for, and the token for it is missing", help);
    }
    let Some(url) = external.url.as_ref().filter(|url| url.scheme == Scheme::Http) else { return };
    if url.host != "localhost" && url.ip().is_none_or(|ip| !ip.is_loopback()) {
        let message = "the token and every secret would travel in the clear";
        let mut open = Diagnostic::new(Code::Url, message).at(place(reader, "url"));
        open.severity = if reader.mode.dev { Severity::Warning } else { open.severity };
        reader.report(open.help("write \"https://\"; without TLS only this machine is spoken to"));
    }
}

/// A token is for somebody.
fn calc_events(reader: &mut Reader<'_>, config: &Config) {
    let calc = &config.calc;
    if calc.events_token_file.is_none() || calc.events_url.is_some() || reader.has_failed("calc.events_url") {
        return;
    }
    let message = "`events_token_file` has no effect: the event worker beside this one asks for none";
    let warning = Diagnostic::new(Code::NoEffect, message).at(reader.place("calc.events_token_file"));
    reader.report(warning.help("set `events_url`, the address of the event worker that it is for"));
}

/// Both keys of the partitions are needed.
fn partitions(reader: &mut Reader<'_>, config: &Config) {
    if reader.has_failed("events.partitions.by") || reader.has_failed("events.partitions.count") {
        return;
    }
    let Partitions { by, count } = config.events.partitions;
    let (key, message, help) = match (by, count) {
        (PartitionBy::None, 2..) => (
            "events.partitions.count",
            "`count` has no effect: nothing divides the events",
            "set `by = \"type\"` or `by = \"symbol\"`",
        ),
        (PartitionBy::Type | PartitionBy::Symbol, ..=1) => {
            ("events.partitions.by", "`by` has no effect: there is one partition", "set `count`, 2 to 64")
        }
        _ => return,
    };
    let idle = Diagnostic::new(Code::NoEffect, message).at(reader.place(key));
    reader.report(idle.help(help));
}

/// Checks everything together.
pub(crate) fn config(reader: &mut Reader<'_>, config: &Config) {
    rate_store(reader, config);
    event_store(reader, config);
    falco_kill(reader, config);
    external_vault(reader, config);
    calc_events(reader, config);
    partitions(reader, config);
    names(reader, config);
    matches::matches(reader, config);
    shape::shapes(reader, config);
    empty_services(reader, config);
    listeners::listeners(reader, config);
    listeners::open_workers(reader, config);
    tls::tls(reader, config);
    balance::zones(reader, config);
    certificates::certificates(reader, config);
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
