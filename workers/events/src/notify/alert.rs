//! What an event means to somebody who is to be woken: nothing, or an alert.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::log::MessageId;

/// The types that may be alerts. Whatever else is published wakes nobody.
pub(crate) const TYPES: &[&str] = &[
    "circuit_breaker_state",
    "config_changed",
    "dead_letter",
    "kill_switch",
    "risk_alert",
    "security_alert",
    "security_event",
    "stream_gap",
];
/// LIMIT: characters of a title and of a text that come out of an event.
const TITLE_CHARS_MAX: usize = 160;
const TEXT_CHARS_MAX: usize = 1_000;

/// How urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Good to know.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody must look now.
    Critical,
}

/// Whether something began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It is so.
    Firing,
    /// It is over.
    Resolved,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Alert {
    /// What it is about, the same when it begins, repeats and ends: `breaker/orders`.
    pub(crate) key: String,
    /// Name of the rule in the manner of Prometheus: `BreakerOpen`.
    pub(crate) name: &'static str,
    pub(crate) level: Level,
    pub(crate) state: State,
    /// One line.
    pub(crate) title: String,
    /// More, perhaps empty.
    pub(crate) text: String,
    pub(crate) event_type: String,
    pub(crate) event_id: String,
    pub(crate) message_id: String,
    pub(crate) timestamp: Timestamp,
    /// Its end will be told too.
    #[serde(skip)]
    pub(crate) ends: bool,
    /// Said by a role of this system of the system; what applications say waits behind it.
    #[serde(skip)]
    pub(crate) by_system: bool,
}

/// An event as it is stored, with what it is about.
#[derive(Debug, Deserialize)]
struct Stored {
    event_type: String,
    event_id: String,
    #[serde(default)]
    timestamp: Value,
    #[serde(default)]
    data: Map<String, Value>,
    #[serde(default)]
    metadata: Map<String, Value>,
}

/// The alert that a stored event is, if it is one.
pub(crate) fn alert(message_id: MessageId, json: &[u8]) -> Option<Alert> {
    let event: Stored = serde_json::from_slice(json).ok()?;
    let data = Data(&event.data);
    let found = match event.event_type.as_str() {
        "circuit_breaker_state" => breaker(data)?,
        "config_changed" => config(data)?,
        "dead_letter" => dead_letter(data)?,
        "kill_switch" => kill_switch(data),
        "risk_alert" => risk(data),
        "security_alert" => security(data),
        "security_event" => certificate(data)?,
        "stream_gap" => gap(data),
        _ => return None,
    };
    let stored = || Timestamp::from_millisecond(message_id.ms as i64).unwrap_or(Timestamp::MAX);
    let timestamp = event.timestamp.as_str().and_then(|text| text.parse().ok());
    Some(Alert {
        key: cut(&found.key, TITLE_CHARS_MAX),
        name: found.name,
        ends: matches!(found.name, "BreakerOpen" | "KillSwitch" | "ReloadFailed"),
        by_system: event.event_type != "risk_alert" && event.metadata.contains_key("role"),
        level: found.level,
        state: found.state,
        title: cut(&found.title, TITLE_CHARS_MAX),
        text: cut(&found.text, TEXT_CHARS_MAX),
        event_type: event.event_type,
        event_id: event.event_id,
        message_id: message_id.to_string(),
        timestamp: timestamp.unwrap_or_else(stored),
    })
}

/// The part of an alert that the type of the event decides.
struct Found {
    key: String,
    name: &'static str,
    level: Level,
    state: State,
    title: String,
    text: String,
}

#[derive(Clone, Copy)]
struct Data<'a>(&'a Map<String, Value>);

impl Data<'_> {
    /// A member as text; empty when it is not there.
    fn text(self, name: &str) -> String {
        match self.0.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }

    /// The first of some members that says something.
    fn first(self, names: &[&str]) -> String {
        names.iter().map(|name| self.text(name)).find(|text| !text.is_empty()).unwrap_or_default()
    }
}

fn breaker(data: Data<'_>) -> Option<Found> {
    let (service, reason) = (data.text("service"), data.text("reason"));
    let (level, state, word) = match data.text("state").as_str() {
        "open" => (Level::Critical, State::Firing, "open"),
        "forced_open" => (Level::Critical, State::Firing, "held open"),
        "closed" => (Level::Info, State::Resolved, "closed"),
        // Probing is on the way to one of them.
        _ => return None,
    };
    Some(Found {
        key: format!("breaker/{service}"),
        name: "BreakerOpen",
        level,
        state,
        title: format!("Circuit breaker of {service} is {word}"),
        text: reason,
    })
}

fn config(data: Data<'_>) -> Option<Found> {
    let (level, state, word) = match data.text("result").as_str() {
        "refused" => (Level::Warning, State::Firing, "was refused"),
        "applied" => (Level::Info, State::Resolved, "is in force"),
        _ => return None,
    };
    let edge = data.text("edge");
    Some(Found {
        key: format!("config/{edge}"),
        name: "ReloadFailed",
        level,
        state,
        title: format!("A changed configuration {word}"),
        text: data.first(&["error", "detail", "hash"]),
    })
}

fn dead_letter(data: Data<'_>) -> Option<Found> {
    let group = data.text("group");
    // What this group could not deliver would be told by what could not be delivered.
    if group == super::GROUP {
        return None;
    }
    Some(Found {
        key: format!("dead_letter/{group}"),
        name: "DeadLetters",
        level: Level::Warning,
        state: State::Firing,
        title: format!("Consumer group {group} gave a message up"),
        text: data.first(&["cause", "detail"]),
    })
}

fn kill_switch(data: Data<'_>) -> Found {
    let on = data.0.get("on").and_then(Value::as_bool).unwrap_or(true);
    let what = [data.text("scope"), data.text("target")].join(" ").trim().to_owned();
    let (level, state, word) =
        if on { (Level::Critical, State::Firing, "on") } else { (Level::Info, State::Resolved, "off") };
    Found {
        key: format!("kill_switch/{what}"),
        name: "KillSwitch",
        level,
        state,
        title: format!("Kill switch ({what}) is {word}"),
        text: data.text("reason"),
    }
}

fn risk(data: Data<'_>) -> Found {
    let what = data.first(&["alert", "rule", "risk_type", "type", "kind"]);
    Found {
        key: format!("risk/{what}/{}", data.first(&["symbol", "account", "service"])),
        name: "RiskAlert",
        level: level_of(&data.first(&["level", "severity", "priority"]), Level::Critical),
        state: State::Firing,
        title: format!(
            "Risk alert: {}",
            data.first(&["title", "message", "alert", "rule", "risk_type", "type"])
        ),
        text: data.first(&["message", "detail", "description", "output"]),
    }
}

fn security(data: Data<'_>) -> Found {
    let rule = data.first(&["rule", "kind", "alert"]);
    Found {
        key: format!("security/{rule}/{}", data.first(&["service", "host", "hostname", "container"])),
        name: "SecurityAlert",
        level: level_of(&data.first(&["priority", "level", "severity"]), Level::Critical),
        state: State::Firing,
        title: format!("Security alert: {rule}"),
        text: data.first(&["output", "message", "detail", "description"]),
    }
}

/// Of the vault's events, those that wait for somebody: a certificate that is about to expire.
fn certificate(data: Data<'_>) -> Option<Found> {
    let (level, state, word) = match data.text("kind").as_str() {
        "certificate_expiring" => (Level::Warning, State::Firing, "expires soon"),
        "certificate_expired" => (Level::Critical, State::Firing, "has expired"),
        _ => return None,
    };
    let name = data.first(&["name", "service", "subject", "serial"]);
    Some(Found {
        key: format!("certificate/{name}"),
        name: "CertificateExpiry",
        level,
        state,
        title: format!("Certificate {name} {word}"),
        text: data.first(&["not_after", "expires_at", "left"]),
    })
}

fn gap(data: Data<'_>) -> Found {
    Found {
        key: format!("gap/{}", data.text("stream")),
        name: "StreamGap",
        level: Level::Critical,
        state: State::Firing,
        title: "The event stream has a gap".to_owned(),
        text: data.text("reason"),
    }
}

/// A level by the words of Falco, of syslog and of the older platforms.
fn level_of(word: &str, otherwise: Level) -> Level {
    match word.to_ascii_lowercase().as_str() {
        "emergency" | "alert" | "critical" | "fatal" | "high" => Level::Critical,
        "error" | "warning" | "warn" | "medium" => Level::Warning,
        "notice" | "informational" | "info" | "debug" | "low" => Level::Info,
        _ => otherwise,
    }
}

/// A text on one line, bounded, without control characters: it goes into headers and terminals.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut out: String = text.chars().take(chars_max).map(clean).collect();
    if text.chars().nth(chars_max).is_some() {
        out.pop();
        out.push('…');
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn of(kind: &str, data: &Value) -> Option<Alert> {
        let event = json!({
            "event_type": kind, "event_id": "0192a3b4-0000-7000-8000-00000000000a",
            "timestamp": "2026-11-21T10:00:00Z", "source": "edge", "data": data, "metadata": {"role": "edge"},
        });
        alert(MessageId { ms: 5, n: 1 }, event.to_string().as_bytes())
    }

    /// An alert of a role with a key and a message id of one's own.
    pub(crate) fn numbered(key: &str, level: Level, state: State, n: u64) -> Alert {
        let data = json!({"rule": key, "priority": "critical"});
        let alert = of("security_alert", &data).unwrap();
        Alert { key: key.to_owned(), level, state, message_id: format!("{n}-0"), ..alert }
    }

    #[test]
    fn a_breaker_fires_when_it_opens_and_resolves_when_it_closes() {
        let open =
            of("circuit_breaker_state", &json!({"service":"orders","state":"open","reason":"failure_rate"}));
        let open = open.unwrap();
        assert_eq!((open.level, open.state, open.name), (Level::Critical, State::Firing, "BreakerOpen"));
        assert_eq!(
            (open.title.as_str(), open.text.as_str()),
            ("Circuit breaker of orders is open", "failure_rate")
        );
        let closed = of("circuit_breaker_state", &json!({"service":"orders","state":"closed"})).unwrap();
        assert_eq!((closed.key, closed.state), (open.key, State::Resolved));
        assert_eq!(of("circuit_breaker_state", &json!({"service":"orders","state":"half_open"})), None);
    }

    #[test]
    fn each_type_has_its_level() {
        for (kind, data, level, state) in [
            ("config_changed", json!({"result":"refused","error":"E0101"}), Level::Warning, State::Firing),
            ("config_changed", json!({"result":"applied"}), Level::Info, State::Resolved),
            ("dead_letter", json!({"group":"billing"}), Level::Warning, State::Firing),
            ("kill_switch", json!({"scope":"all","on":true}), Level::Critical, State::Firing),
            ("kill_switch", json!({"scope":"all","on":false}), Level::Info, State::Resolved),
            ("risk_alert", json!({"type":"drawdown","severity":"medium"}), Level::Warning, State::Firing),
            ("risk_alert", json!({}), Level::Critical, State::Firing),
            (
                "security_alert",
                json!({"rule":"Shell in container","priority":"Notice"}),
                Level::Info,
                State::Firing,
            ),
            (
                "security_event",
                json!({"kind":"certificate_expiring","name":"edge"}),
                Level::Warning,
                State::Firing,
            ),
            ("stream_gap", json!({"reason":"failover"}), Level::Critical, State::Firing),
        ] {
            let alert = of(kind, &data).unwrap_or_else(|| panic!("{kind} {data}"));
            assert_eq!((alert.level, alert.state), (level, state), "{kind} {data}");
        }
    }

    #[test]
    fn most_events_wake_nobody() {
        for (kind, data) in [
            ("trading_signal", json!({})),
            ("security_event", json!({"kind":"token_revoked"})),
            ("config_changed", json!({})),
            ("dead_letter", json!({"group": super::super::GROUP})),
        ] {
            assert_eq!(of(kind, &data), None, "{kind}");
        }
        assert_eq!(alert(MessageId::default(), b"{}"), None);
    }

    #[test]
    fn a_time_that_is_none_is_that_of_storing() {
        let event = json!({"event_type": "stream_gap", "event_id": "a", "timestamp": 7});
        let alert = alert(MessageId { ms: 1_000, n: 0 }, event.to_string().as_bytes()).unwrap();
        assert_eq!((alert.timestamp, alert.by_system), (Timestamp::from_second(1).unwrap(), false));
    }

    #[test]
    fn texts_of_events_are_cut_and_lose_their_control_characters() {
        let rule = format!("a\r\nBcc: x\u{7}{}", "é".repeat(3_000));
        let alert = of("security_alert", &json!({"rule": rule, "output": rule})).unwrap();
        assert_eq!(alert.title.chars().count(), TITLE_CHARS_MAX);
        assert_eq!(alert.text.chars().count(), TEXT_CHARS_MAX);
        assert!(alert.title.ends_with('…') && !alert.title.chars().any(char::is_control), "{}", alert.title);
    }
}
