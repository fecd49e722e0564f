//! `sluice kill-switch`: what is stopped by hand, and stopping.

use std::fmt::Write as _;

use http::Method;
use serde_json::{Value, json};

use crate::args::{Format, KillAsked, KillSwitch, KillSwitchCommand, KillTarget};
use crate::exit::{self, Code, Failure};
use crate::{control, say};

const PATH: &str = "/admin/kill-switch";
/// LIMIT: pages of the list that are asked for.
const PAGES_MAX: usize = 32;

/// Runs `sluice kill-switch`: 0 done, 1 it stays on, 2 refused, 4 nobody there.
pub(crate) fn run(args: &KillSwitch) -> Result<Code, Failure> {
    let (shown, text, format) = match &args.command {
        KillSwitchCommand::Status { asked } => {
            let list = list(asked)?;
            let text = status(&list);
            (list, text, asked.format)
        }
        KillSwitchCommand::On { target, reason, close_cancel_lane, asked } => {
            let mut change = change(target, true, reason);
            change["cancel_lane_open"] = (!close_cancel_lane).into();
            let done = post(asked, &change)?;
            warn(&done);
            let text = on(&done);
            (done, text, asked.format)
        }
        KillSwitchCommand::Off { target, reason, asked } => {
            let done = post(asked, &change(target, false, reason))?;
            let text = off(&done);
            (done, text, asked.format)
        }
    };
    match format {
        Format::Json => say::result(&format!("{shown}\n"))?,
        Format::Text => say::result(&text)?,
    }
    Ok(exit::OK)
}

fn change(target: &KillTarget, on: bool, reason: &str) -> Value {
    let named = [("service", &target.service), ("account", &target.account), ("symbol", &target.symbol)];
    let mut change = json!({ "scope": "all", "on": on, "reason": reason });
    if let Some((scope, Some(name))) = named.into_iter().find(|(_, name)| name.is_some()) {
        change["scope"] = scope.into();
        change["target"] = name.as_str().into();
    }
    change
}

fn post(args: &KillAsked, change: &Value) -> Result<Value, Failure> {
    control::json(&control::call(&args.remote, Method::POST, PATH, change)?)
}

/// The whole list, page by page.
fn list(args: &KillAsked) -> Result<Value, Failure> {
    let mut whole = control::json(&control::call(&args.remote, Method::GET, PATH, &Value::Null)?)?;
    for _ in 1..PAGES_MAX {
        let Some(cursor) = whole["next_cursor"].as_str() else { break };
        let path = format!("{PATH}?cursor={}", escaped(cursor));
        let mut page = control::json(&control::call(&args.remote, Method::GET, &path, &Value::Null)?)?;
        whole["next_cursor"] = page["next_cursor"].take();
        let more = page["switches"].as_array_mut().map(std::mem::take).unwrap_or_default();
        if let Some(switches) = whole["switches"].as_array_mut() {
            switches.extend(more);
        }
    }
    Ok(whole)
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _never_fails = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// What holds, and yet is not as it should be.
fn warn(done: &Value) {
    if let Some(warning) = done["warning"].as_str() {
        say::problem(&format!("warning: {warning}\n"));
    }
    if done["persisted"] == false {
        say::problem("warning: it holds, but is not on the disk yet: the edge goes on trying\n");
    }
    if done["broadcast"] == "pending" {
        say::problem("warning: it holds here; the other edges do not know yet: the edge goes on trying\n");
    }
    if done["broadcast"] == "unsigned" {
        say::problem(
            "warning: it holds at this edge alone: others obey it over Redis only with `kill_switch.secret`\n",
        );
    }
}

fn what(switch: &Value) -> String {
    let word = |name: &str| printable(switch[name].as_str().unwrap_or_default());
    match switch["target"].as_str() {
        Some(target) => format!("{} {}", word("scope"), printable(target)),
        None => "everything".to_owned(),
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn on(done: &Value) -> String {
    let cancels = if done["cancel_lane_open"] == true { "cancels pass" } else { "cancels are stopped too" };
    let before = if done["changed"] == false { " already" } else { "" };
    format!("{} is stopped{before}; {cancels}\n", what(done))
}

fn off(done: &Value) -> String {
    if done["changed"] == true {
        format!("{} goes on\n", what(done))
    } else {
        format!("{} was not stopped\n", what(done))
    }
}

fn status(list: &Value) -> String {
    let mut text = String::new();
    for switch in list["switches"].as_array().into_iter().flatten() {
        let word = |name: &str| printable(switch[name].as_str().unwrap_or_default());
        let mut notes = Vec::new();
        if switch["cancel_lane_open"] == false {
            notes.push("cancels too");
        }
        if switch["persisted"] == false {
            notes.push("not on the disk");
        }
        if switch["broadcast"] == "pending" {
            notes.push("other edges not told");
        }
        if switch["broadcast"] == "unsigned" {
            notes.push("at this edge alone");
        }
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
        let since = word("since");
        let since = since.get(..19).unwrap_or(&since);
        let _never_fails =
            writeln!(text, "{}{notes}  since {since}Z by {}: {}", what(switch), word("by"), word("reason"));
    }
    if text.is_empty() {
        text.push_str("nothing is stopped\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stopped_is_told_in_lines() {
        let list = json!({"switches": [
            {"scope": "all", "target": null, "cancel_lane_open": false, "persisted": false, "broadcast": "pending",
             "since": "2026-01-02T03:04:05.678Z", "by": "ops", "reason": "flash\u{1b} crash"},
            {"scope": "symbol", "target": "BTC/USDT", "cancel_lane_open": true, "persisted": true,
             "broadcast": "delivered", "since": "2026-01-02T03:05:05Z", "by": "ops", "reason": "r"},
        ]});
        assert_eq!(
            status(&list),
            "everything (cancels too, not on the disk, other edges not told)  since 2026-01-02T03:04:05Z by ops: \
             flash? crash\nsymbol BTC/USDT  since 2026-01-02T03:05:05Z by ops: r\n"
        );
        assert_eq!(status(&json!({"switches": []})), "nothing is stopped\n");
    }

    #[test]
    fn a_change_names_its_scope() {
        let target = KillTarget { account: Some("alice".into()), ..KillTarget::default() };
        assert_eq!(
            change(&target, true, "r"),
            json!({"scope": "account", "target": "alice", "on": true, "reason": "r"})
        );
        let all = KillTarget { all: true, ..KillTarget::default() };
        assert_eq!(change(&all, false, "r"), json!({"scope": "all", "on": false, "reason": "r"}));
        assert_eq!(escaped("account:a b&c"), "account:a%20b%26c");
    }
}
