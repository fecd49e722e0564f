//! Which services could take one request, and which never get any.
//!
//! Two services tie where a request can match both and nothing says which is asked first: prefix and
//! host are equal, their methods overlap, and they ask for as many header fields with as many exact
//! values. Fields of one name with other values tell requests apart, since a name is sent once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::place;
use crate::code::Code;
use crate::model::{Config, METHODS, PREFIX_SHARED_MAX, Service};
use crate::reader::Reader;
use crate::report::{Diagnostic, quote};

/// Services by what all their requests share: prefix and host, the host empty where they name none.
type Groups<'a> = HashMap<(&'a str, &'a str), Vec<usize>>;

/// Refuses services that tie, and those that others shadow.
pub(super) fn matches(reader: &mut Reader<'_>, config: &Config) {
    let groups = groups(reader, config);
    let mut tied: HashSet<(usize, usize)> = HashSet::new();
    let mut order: Vec<_> = groups.iter().collect();
    order.sort_unstable();
    for ((prefix, host), members) in order {
        if let Some(one_more) = members.get(PREFIX_SHARED_MAX) {
            crowded(reader, config, *one_more, prefix);
        }
        let members = &members[..members.len().min(PREFIX_SHARED_MAX)];
        for (at, second) in members.iter().enumerate() {
            for first in &members[..at] {
                let method = tie(&config.services[*first], &config.services[*second]);
                if let Some(method) = method.filter(|_| tied.insert((*first, *second))) {
                    equal_match(reader, config, (*first, *second), (prefix, host, method));
                }
            }
        }
    }
    for (index, service) in config.services.iter().enumerate().filter(|(_, service)| routes(service)) {
        shadowed(reader, config, index, service, &groups);
    }
}

fn routes(service: &Service) -> bool {
    service.enabled && !service.prefix.is_empty()
}

fn groups<'a>(reader: &Reader<'_>, config: &'a Config) -> Groups<'a> {
    let mut groups = Groups::new();
    for (index, service) in config.services.iter().enumerate().filter(|(_, service)| routes(service)) {
        // What a service asks for is not known where it is written wrong.
        let unknown = |key: &&str| reader.has_failed(&format!("service[{index}].{key}"));
        if ["hosts", "methods", "headers"].iter().any(unknown) {
            continue;
        }
        for host in any_or(&service.hosts) {
            groups.entry((service.prefix.as_str(), host)).or_default().push(index);
        }
    }
    groups
}

/// The words, or the one empty word that stands for all.
fn any_or(words: &[String]) -> impl Iterator<Item = &str> {
    words.iter().map(String::as_str).chain(words.is_empty().then_some(""))
}

/// The method (empty for all of them) of which two services of one prefix and host could both take a request.
fn tie<'a>(one: &'a Service, other: &Service) -> Option<&'a str> {
    let method = any_or(&one.methods).find(|method| any_or(&other.methods).any(|taken| taken == *method))?;
    let alike = rank(&one.headers) == rank(&other.headers) && !tell_apart(&one.headers, &other.headers);
    alike.then_some(method)
}

/// How particular header fields are: their number, and the exact values among them.
fn rank(headers: &BTreeMap<String, String>) -> (usize, usize) {
    (headers.len(), headers.values().filter(|value| *value != "*").count())
}

fn tell_apart(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> bool {
    let exact = |value: &str| value != "*";
    one.iter().any(|(name, value)| {
        other.get(name).is_some_and(|found| found != value && exact(found) && exact(value))
    })
}

fn equal_match(
    reader: &mut Reader<'_>,
    config: &Config,
    (first, second): (usize, usize),
    (prefix, host, method): (&str, &str, &str),
) {
    let mut what = format!("{} {prefix}", if method.is_empty() { "every method of" } else { method });
    if !host.is_empty() {
        what = format!("{what} on {host}");
    }
    let (one, other) = (&config.services[first], &config.services[second]);
    if !one.headers.is_empty() {
        // Values may be secrets: the names alone are told.
        let names: BTreeSet<&String> = one.headers.keys().chain(other.headers.keys()).collect();
        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
        what = format!("{what} of a request with {}", names.join(", "));
    }
    let message = format!("{} and {} both match {what}", quote(&one.name), quote(&other.name));
    let tie = Diagnostic::new(Code::EqualMatch, message).at(place(reader, second, "prefix"));
    let related = place(reader, first, "prefix");
    let help = "give one of them another `prefix`, or other `hosts`, `methods` or `headers`";
    reader.report(tie.related(related, "the other service").help(help));
}

fn crowded(reader: &mut Reader<'_>, config: &Config, index: usize, prefix: &str) {
    let name = quote(&config.services[index].name);
    let message = format!("{name} is one too many: {PREFIX_SHARED_MAX} services share {prefix} on one host");
    let crowded = Diagnostic::new(Code::SharedPrefix, message).at(place(reader, index, "prefix"));
    reader.report(crowded.help("tell them apart by `prefix` or `hosts`: a request asks each in turn"));
}

/// A service for every method is shadowed where others take each method of each of its hosts.
fn shadowed(reader: &mut Reader<'_>, config: &Config, index: usize, service: &Service, groups: &Groups<'_>) {
    if !service.methods.is_empty() || reader.has_failed(&format!("service[{index}].methods")) {
        return;
    }
    let mut takers = BTreeSet::new();
    for host in any_or(&service.hosts) {
        let Some(members) = groups.get(&(service.prefix.as_str(), host)) else { return };
        // More of them are refused anyway, and each would be asked for each.
        let members = &members[..members.len().min(PREFIX_SHARED_MAX)];
        for method in METHODS {
            let takes = |member: &&usize| {
                let other = &config.services[**member];
                other.headers == service.headers && other.methods.iter().any(|taken| taken == method)
            };
            let Some(taker) = members.iter().find(takes) else { return };
            takers.insert(*taker);
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
