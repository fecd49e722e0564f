//! `sluice upstream`: how instances are, and holding them back.

use std::fmt::Write as _;
use std::io::Write as _;

use http::Method;
use serde_json::{Value, json};

use crate::args::{Format, Upstream, UpstreamCommand, UpstreamHold};
use crate::control;
use crate::exit::{self, Code, Failure};

/// Runs `sluice upstream …`: 0 done, 2 refused, 4 nobody there.
pub(crate) fn run(args: &Upstream) -> Result<Code, Failure> {
    match &args.command {
        UpstreamCommand::List { remote, format } => {
            let reply = control::call(remote, Method::GET, "/admin/upstreams", &Value::Null)?;
            print(&control::json(&reply)?, *format, listed)
        }
        UpstreamCommand::Drain(hold) => send(hold, "drain"),
        UpstreamCommand::Maint(hold) => send(hold, "maint"),
        UpstreamCommand::Ready(hold) => send(hold, "ready"),
    }
}

fn send(hold: &UpstreamHold, word: &str) -> Result<Code, Failure> {
    let (service, instance) = (escaped(&hold.service), escaped(&hold.instance));
    let path = format!("/admin/upstreams/{service}/{instance}/{word}");
    let body = hold.reason.as_ref().map_or(Value::Null, |reason| json!({ "reason": reason }));
    let reply = control::call(&hold.remote, Method::POST, &path, &body)?;
    print(&control::json(&reply)?, hold.format, held)
}

fn print(told: &Value, format: Format, words: fn(&Value) -> String) -> Result<Code, Failure> {
    let text = match format {
        Format::Json => format!("{told}\n"),
        Format::Text => words(told),
    };
    std::io::stdout().lock().write_all(text.as_bytes()).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

fn held(told: &Value) -> String {
    let (instance, service, state) = (text(told, "instance"), text(told, "service"), text(told, "state"));
    format!("{instance} of {service} is {state}, {} request(s) in flight\n", told["in_flight"])
}

/// One line an instance, then what is held and not there.
fn listed(told: &Value) -> String {
    let mut lines = String::new();
    let each = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    for service in each(told, "services") {
        for one in each(&service, "instances") {
            let _never_fails = writeln!(
                lines,
                "{:<24} {:<36} {:<10} weight {}, {} in flight{}",
                text(&service, "name"),
                text(&one, "url"),
                text(&one, "state"),
                one["weight"],
                one["in_flight"],
                why(&one["held"]),
            );
        }
    }
    for one in each(told, "absent") {
        let (service, instance) = (text(&one, "service"), text(&one, "instance"));
        let state = text(&one["held"], "as");
        let _never_fails =
            writeln!(lines, "{service:<24} {instance:<36} {state:<10} not there now{}", why(&one["held"]));
    }
    if lines.is_empty() {
        lines.push_str("no service has an instance\n");
    }
    lines
}

fn why(held: &Value) -> String {
    match (text(held, "by"), text(held, "reason")) {
        ("", _) => String::new(),
        (by, "") => format!(", by {by}"),
        (by, reason) => format!(", by {by}: {reason}"),
    }
}

/// One segment of a path.
fn escaped(segment: &str) -> String {
    let mut escaped = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            let _never_fails = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_segment() {
        assert_eq!(escaped("http://[::1]:80"), "http%3A%2F%2F%5B%3A%3A1%5D%3A80");
        assert_eq!(escaped("unix:/run/a b.sock"), "unix%3A%2Frun%2Fa%20b.sock");
    }

    #[test]
    fn instances_are_listed_with_who_holds_them() {
        let held = json!({"as": "maint", "by": "operator", "reason": "a new kernel"});
        let told = json!({
            "services": [{"name": "api", "instances": [
                {"url": "http://127.0.0.1:1", "state": "maint", "weight": 2, "in_flight": 1, "held": held},
                {"url": "http://127.0.0.1:2", "state": "healthy", "weight": 1, "in_flight": 0, "held": null},
            ]}],
            "absent": [{"service": "old", "instance": "http://127.0.0.1:3", "held": held}],
        });
        let lines: Vec<String> =
            listed(&told).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "api http://127.0.0.1:1 maint weight 2, 1 in flight, by operator: a new kernel",
                "api http://127.0.0.1:2 healthy weight 1, 0 in flight",
                "old http://127.0.0.1:3 maint not there now, by operator: a new kernel",
            ]
        );
        assert_eq!(listed(&json!({})), "no service has an instance\n");
    }
}
