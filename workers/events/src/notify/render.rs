//! An alert in the form that each kind of target takes.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::alert::{Alert, Level, State};

/// LIMIT: Discord takes 2,000 characters, Telegram 4,096; a text has at most this many.
const MESSAGE_CHARS_MAX: usize = 1_900;

/// An Alertmanager takes what is not told again for over after some minutes: what has an end of its own is said to
/// last this long, unless the end is told before.
const LASTS: SignedDuration = SignedDuration::from_hours(24);

/// The line that says how urgent it is, and what it is.
pub(crate) fn headline(alert: &Alert) -> String {
    let word = match (alert.state, alert.level) {
        (State::Resolved, _) => "RESOLVED",
        (State::Firing, Level::Critical) => "CRITICAL",
        (State::Firing, Level::Warning) => "WARNING",
        (State::Firing, Level::Info) => "INFO",
    };
    format!("[{word}] {}", alert.title)
}

/// The message for people, as plain text.
pub(crate) fn text(alert: &Alert, left_out: u64) -> String {
    let mut out = headline(alert);
    if !alert.text.is_empty() {
        out.push('\n');
        out.push_str(&alert.text);
    }
    out.push_str(&format!("\n{} · {} · {}", alert.timestamp, alert.event_type, alert.message_id));
    if left_out > 0 {
        out.push_str(&format!("\n{left_out} more alerts were left out since the last message"));
    }
    out.chars().take(MESSAGE_CHARS_MAX).collect()
}

/// The body for Slack: the three characters that its markup begins with are written as it asks.
pub(crate) fn slack(alert: &Alert, left_out: u64) -> Value {
    let text = text(alert, left_out).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({ "text": text })
}

/// The body for Discord: nobody is called by what an event says.
pub(crate) fn discord(alert: &Alert, left_out: u64) -> Value {
    json!({ "content": text(alert, left_out), "allowed_mentions": { "parse": [] } })
}

/// The body for Telegram's `sendMessage`; the address names the bot, `chat_id` may stand in its query.
pub(crate) fn telegram(alert: &Alert, left_out: u64, chat_id: Option<&str>) -> Value {
    let mut body = json!({ "text": text(alert, left_out), "link_preview_options": { "is_disabled": true } });
    if let Some(chat_id) = chat_id {
        body["chat_id"] = chat_id.into();
    }
    body
}

/// The body for Alertmanager's `/api/v2/alerts`. Its labels are what it groups by: no ids are among them.
pub(crate) fn alertmanager(alert: &Alert) -> Value {
    let level = json!(alert.level);
    let mut one = json!({
        "labels": { "alertname": alert.name, "severity": level, "instance": alert.key, "job": "sluice" },
        "annotations": {
            "summary": alert.title, "description": alert.text,
            "event_type": alert.event_type, "message_id": alert.message_id,
        },
        "startsAt": alert.timestamp.to_string(),
    });
    let last = alert.timestamp.checked_add(LASTS);
    if let Some(last) = last.ok().filter(|_| alert.ends) {
        one["endsAt"] = last.to_string().into();
    }
    if alert.state == State::Resolved {
        // The severity is a label of what began, which ends only under the same labels.
        one["labels"]["severity"] = json!(firing_level(alert));
        one["endsAt"] = alert.timestamp.to_string().into();
    }
    json!([one])
}

/// The level that the alert had when it began.
fn firing_level(alert: &Alert) -> Level {
    match alert.name {
        "BreakerOpen" | "KillSwitch" => Level::Critical,
        _ => Level::Warning,
    }
}

/// The body for any other receiver: everything.
pub(crate) fn webhook(alert: &Alert, left_out: u64) -> Value {
    let mut body = json!(alert);
    body["left_out"] = left_out.into();
    body
}

#[cfg(test)]
mod tests {
    use super::super::alert::tests::of;
    use super::*;

    fn alert() -> Alert {
        let data = json!({"rule": "<!channel> & @everyone", "output": "line", "priority": "Critical"});
        of("security_alert", &data).unwrap()
    }

    #[test]
    fn people_read_what_it_is_and_when() {
        let expected = "[CRITICAL] Security alert: <!channel> & @everyone\nline\n\
                        2026-11-21T10:00:00Z · security_alert · 5-1\n3 more alerts were left out since the last message";
        assert_eq!(text(&alert(), 3), expected);
        assert!(text(&alert(), 0).ends_with("5-1"));
    }

    #[test]
    fn nothing_in_an_event_calls_a_channel() {
        let slack = slack(&alert(), 0)["text"].as_str().unwrap().to_owned();
        assert!(slack.contains("&lt;!channel&gt; &amp; @everyone"), "{slack}");
        assert_eq!(discord(&alert(), 0)["allowed_mentions"], json!({"parse": []}));
        assert_eq!(telegram(&alert(), 0, Some("-5"))["chat_id"], "-5");
        assert_eq!(telegram(&alert(), 0, None).get("parse_mode"), None);
    }

    #[test]
    fn alertmanager_ends_what_it_began_under_the_same_labels() {
        let open = of("circuit_breaker_state", &json!({"service":"orders","state":"open"})).unwrap();
        let closed = of("circuit_breaker_state", &json!({"service":"orders","state":"closed"})).unwrap();
        let (open, closed) = (alertmanager(&open), alertmanager(&closed));
        assert_eq!(open[0]["labels"], closed[0]["labels"]);
        assert_eq!(open[0]["labels"]["alertname"], "BreakerOpen");
        assert_eq!(
            (open[0]["endsAt"].as_str(), closed[0]["endsAt"].as_str()),
            (Some("2026-11-22T10:00:00Z"), Some("2026-11-21T10:00:00Z"))
        );
        // What has no end of its own is over when it is not told again.
        assert_eq!(alertmanager(&alert())[0].get("endsAt"), None);
    }

    #[test]
    fn a_webhook_gets_everything() {
        let body = webhook(&alert(), 2);
        assert_eq!(
            (&body["state"], &body["level"], &body["left_out"]),
            (&json!("firing"), &json!("critical"), &json!(2))
        );
        assert_eq!((&body["message_id"], &body["name"]), (&json!("5-1"), &json!("SecurityAlert")));
    }
}
