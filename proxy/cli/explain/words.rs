//! The facts about a request as lines of text.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The facts in the order in which a request meets them.
const ORDER: [&str; 19] = [
    "verdict",
    "stage",
    "status",
    "code",
    "reason",
    "allowed_methods",
    "method",
    "path",
    "route",
    "transport",
    "allow",
    "deny",
    "authentication",
    "permissions",
    "api_keys",
    "caller",
    "rate_limit",
    "rate_counted",
    "lane",
];

/// One line a fact.
pub(super) fn words(facts: &Map<String, Value>) -> String {
    let known = ORDER.iter().filter_map(|name| Some(((*name).to_owned(), facts.get(*name)?)));
    let last = ["upstream", "forwarded"];
    let is_listed = |name: &str| ORDER.contains(&name) || last.contains(&name);
    let others = facts.iter().filter(|(name, _)| !is_listed(name)).map(|(name, value)| (name.clone(), value));
    let ends = last.iter().filter_map(|name| Some(((*name).to_owned(), facts.get(*name)?)));
    let mut text = String::new();
    for (name, value) in known.chain(others).chain(ends) {
        let value = match name.as_str() {
            "route" => route_words(value),
            "upstream" => upstream_words(value),
            _ => plain(value),
        };
        let _never_fails = writeln!(text, "{name:<22} {value}");
    }
    text
}

/// `data_service (service, conf/services.d/data_service.toml:2), match prefix /api/data`.
fn route_words(route: &Value) -> String {
    let text = |name: &str| route[name].as_str().unwrap_or_default();
    let place = if text("place").is_empty() { String::new() } else { format!(", {}", text("place")) };
    format!("{} ({}{place}), match {}", text("name"), text("kind"), plain(&route["match"]))
}

/// `round_robin over http://127.0.0.1:8001 (weight 1)`.
fn upstream_words(upstream: &Value) -> String {
    let instances = upstream["instances"].as_array().into_iter().flatten();
    let instances: Vec<String> = instances
        .map(|one| format!("{} (weight {})", one["url"].as_str().unwrap_or_default(), one["weight"]))
        .collect();
    let balance = upstream["balance"].as_str().unwrap_or_default();
    match instances.as_slice() {
        [] => "no instance: it answers 503".to_owned(),
        some => match upstream["hash_on"].as_str() {
            Some(key) => format!("{balance} on {key} over {}", some.join(", ")),
            None => format!("{balance} over {}", some.join(", ")),
        },
    }
}

/// A value on one line, without the punctuation of JSON where that is not needed.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| match value {
                Value::Object(_) => format!("{name} {{{}}}", plain(value)),
                _ => format!("{name} {}", plain(value)),
            });
            members.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
