//! What shapes a service's traffic, against itself and against the other services.

use std::collections::{BTreeMap, BTreeSet};

use super::place;
use crate::code::Code;
use crate::kind::did_you_mean;
use crate::model::{Config, Cors, Fallback, Lane, Rewrite, Service, rewrite_pattern, rewrite_pieces};
use crate::reader::Reader;
use crate::report::{Diagnostic, Place, quote};
use crate::table::Table;

/// Checks a rewrite by itself.
pub(crate) fn rewrite(t: &mut Table<'_, '_>, rewrite: &Rewrite) {
    if t.failed("match") || t.failed("replace") {
        return;
    }
    if !rewrite.is_on() {
        if !rewrite.replace.is_empty() {
            let message = "nothing is replaced: `match` is not set";
            let place = t.written(&["replace"]);
            t.reader.report(Diagnostic::new(Code::NoEffect, message).at(place));
        }
        return;
    }
    let checked =
        rewrite_pattern(&rewrite.pattern).and_then(|pattern| rewrite_pieces(&rewrite.replace, &pattern));
    if let Err(fault) = checked {
        let place = t.written(&["replace", "match"]);
        t.reader.report(Diagnostic::new(Code::Pattern, fault.to_string()).at(place));
    }
}

/// Checks the pages that may call a service by themselves.
pub(crate) fn cors(t: &mut Table<'_, '_>, cors: &Cors) {
    if t.failed("origins") || t.failed("credentials") {
        return;
    }
    let any = cors.origins.iter().any(|origin| origin == "*");
    if any && cors.credentials {
        let message = "`*` with `credentials` would open the service to every page on the web";
        let place = t.written(&["credentials", "origins"]);
        let wrong = Diagnostic::new(Code::CorsConflict, message).at(place);
        t.reader.report(wrong.help("list the origins, or leave `credentials` out"));
    } else if any && cors.origins.len() > 1 {
        let place = t.written(&["origins"]);
        let wrong =
            Diagnostic::new(Code::CorsConflict, "`*` allows every origin: the others mean nothing").at(place);
        t.reader.report(wrong.help("write \"*\" alone, or the origins alone"));
    } else if cors.origins.is_empty() && cors.credentials {
        let place = t.written(&["credentials"]);
        let message = "no page is allowed: `origins` is empty";
        t.reader.report(Diagnostic::new(Code::NoEffect, message).at(place));
    }
}

/// Checks what is given in place of an answer by itself.
pub(crate) fn fallback(t: &mut Table<'_, '_>, fallback: &Fallback) {
    if t.failed("status") || t.failed("body") {
        return;
    }
    let place = t.written(&["status"]);
    if matches!(fallback.status, 204 | 205 | 300..=399) {
        let message = format!("a fixed answer cannot have the status {}", fallback.status);
        let wrong = Diagnostic::new(Code::BadFallback, message).at(place);
        t.reader.report(
            wrong.help("write 200 to 299 but 204 and 205, or 400 to 599: it has a body and no other fields"),
        );
    } else if fallback.body.is_none() && fallback.status != Fallback::default().status {
        let message = "there is no fixed answer: `body` is not set";
        t.reader.report(Diagnostic::new(Code::NoEffect, message).at(place));
    }
}

/// Keys about clients, which a service without a prefix has none of.
const OF_CLIENTS: [&str; 17] = [
    "hosts",
    "methods",
    "headers",
    "strip_prefix",
    "auth_required",
    "permissions",
    "allow",
    "deny",
    "rate_limit",
    "lane",
    "body_bytes",
    "response_headers",
    "cors",
    "rewrite",
    "compress",
    "fallback",
    "mirror",
];

/// Checks what shapes a service against its other keys.
pub(super) fn service(t: &mut Table<'_, '_>, service: &Service) {
    if service.prefix.is_empty() && !t.failed("prefix") && t.written(&["prefix"]) != t.header() {
        for key in OF_CLIENTS {
            let place = t.written(&[key]);
            if place != t.header() {
                let message = format!("`{key}` has no effect: this service has no prefix");
                let idle = Diagnostic::new(Code::NoEffect, message).at(place);
                t.reader
                    .report(idle.help("who names it in `split` or `mirror` says what holds for its clients"));
            }
        }
    }
    let stands_in = service.fallback.body.is_some() || service.fallback.stale.is_some();
    let failed = ["fallback", "lane", "methods", "mirror"].iter().any(|key| t.failed(key));
    if failed {
        return;
    }
    if stands_in && service.lane <= Lane::Order {
        let message = format!("a service of the lane `{}` has no fallback", service.lane.as_str());
        let place = t.written(&["fallback"]);
        let wrong = Diagnostic::new(Code::BadFallback, message).at(place);
        t.reader.report(wrong.help("what became of an order nobody can know but its service"));
        return;
    }
    let reads = service.methods.is_empty() || service.methods.iter().any(|method| method == "GET");
    let idle = [("fallback", stands_in), ("mirror", !service.mirror.is_empty())];
    for (key, _) in idle.into_iter().filter(|(_, set)| *set && !reads) {
        let message = format!("`{key}` is for GET, and `methods` does not name it");
        let place = t.written(&[key]);
        t.reader.report(Diagnostic::new(Code::NoEffect, message).at(place));
    }
}

/// Checks what services say of one another.
pub(super) fn shapes(reader: &mut Reader<'_>, config: &Config) {
    let by_name: BTreeMap<&str, &Service> =
        config.services.iter().map(|service| (service.name.as_str(), service)).collect();
    for (index, service) in config.services.iter().enumerate().filter(|(_, service)| service.enabled) {
        split(reader, &by_name, index, service);
        mirror(reader, &by_name, index, service);
    }
    unreached(reader, config);
}

fn split(reader: &mut Reader<'_>, by_name: &BTreeMap<&str, &Service>, index: usize, service: &Service) {
    if reader.has_failed(&format!("service[{index}].split")) {
        return;
    }
    let total: u32 = service.split.iter().map(|arm| arm.weight).sum();
    if total > 100 {
        let message = format!("the arms of {} have {total} percent together", quote(&service.name));
        let wrong = Diagnostic::new(Code::BadSplit, message).at(place(reader, index, "split"));
        reader.report(wrong.help("what is left of 100 goes to the service itself"));
    }
    let mut seen = BTreeSet::new();
    for (at, arm) in service.split.iter().enumerate() {
        let place = value_place(reader, index, &format!("split[{at}].service"), "split");
        if !seen.insert(arm.service.as_str()) {
            let message = format!("the split names {} twice", quote(&arm.service));
            reader.report(Diagnostic::new(Code::BadSplit, message).at(place));
            continue;
        }
        let Some(target) =
            target(reader, by_name, service, (&arm.service, "split"), Code::BadSplit, place.clone())
        else {
            continue;
        };
        if !target.split.is_empty() {
            let message = format!("{} has a split of its own: a caller is placed once", quote(&target.name));
            reader.report(Diagnostic::new(Code::BadSplit, message).at(place));
        }
    }
}

fn mirror(reader: &mut Reader<'_>, by_name: &BTreeMap<&str, &Service>, index: usize, service: &Service) {
    if !service.mirror.is_empty() && !reader.has_failed(&format!("service[{index}].mirror")) {
        let place = place(reader, index, "mirror");
        target(reader, by_name, service, (&service.mirror, "mirror"), Code::BadMirror, place);
    }
}

/// The service that another one names; says what is wrong where it cannot be taken.
fn target<'a>(
    reader: &mut Reader<'_>,
    by_name: &BTreeMap<&str, &'a Service>,
    service: &Service,
    (name, key): (&str, &str),
    code: Code,
    place: Option<Place>,
) -> Option<&'a Service> {
    let wrong = |message: String| Diagnostic::new(code, message).at(place);
    if name == service.name {
        reader.report(wrong(format!("the {key} of {} names itself", quote(name))));
        return None;
    }
    let Some(target) = by_name.get(name) else {
        let message = format!("there is no service {}", quote(name));
        let near = did_you_mean(name, by_name.keys().copied().filter(|known| *known != service.name));
        let wrong = wrong(message);
        reader.report(match near {
            Some(help) => wrong.help(help),
            None => wrong,
        });
        return None;
    };
    if !target.enabled {
        reader.report(wrong(format!("the service {} is not enabled", quote(name))));
        return None;
    }
    Some(target)
}

/// A service without a prefix is there for others, and somebody must name it.
fn unreached(reader: &mut Reader<'_>, config: &Config) {
    let named: BTreeSet<&str> = config.services.iter().flat_map(targets).collect();
    for (index, service) in config.services.iter().enumerate() {
        let empty = service.prefix.is_empty() && reader.place(&format!("service[{index}].prefix")).is_some();
        if !empty
            || named.contains(service.name.as_str())
            || reader.has_failed(&format!("service[{index}].prefix"))
        {
            continue;
        }
        let message = format!("{} has no prefix, and no split or mirror names it", quote(&service.name));
        let wrong = Diagnostic::new(Code::Prefix, message).at(place(reader, index, "prefix"));
        reader.report(
            wrong.help("an empty prefix is for services that another one's `split` or `mirror` names"),
        );
    }
}

fn targets(service: &Service) -> impl Iterator<Item = &str> {
    service.split.iter().map(|arm| arm.service.as_str()).chain([service.mirror.as_str()])
}

fn value_place(reader: &Reader<'_>, index: usize, value: &str, key: &str) -> Option<Place> {
    let value = format!("service[{index}].{value}");
    reader.place_of_value(&format!("service[{index}].{key}"), &[&value]).or_else(|| place(reader, index, key))
}
