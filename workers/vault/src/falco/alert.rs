//! An alert as Falco's `http_output` and falcosidekick write it, within bounds.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sluice_http::Reject;
use sluice_wire::code::Code;
use sluice_wire::event::parse_time;
use sluice_wire::problem::Problem;

use super::watch::{Key, Priority};

/// LIMIT: a request, bytes.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;
/// LIMIT: alerts of one request.
pub(super) const ALERTS_MAX: usize = 256;
/// LIMIT: a rule's name, bytes.
const RULE_BYTES_MAX: usize = 256;
/// LIMIT: what is kept of an output, characters; Falco's own outputs are cut, not refused.
const OUTPUT_CHARS_MAX: usize = 2_048;
/// LIMIT: what is kept of a field's text, characters (falcosidekick cuts there too).
const FIELD_CHARS_MAX: usize = 512;
/// LIMIT: fields and tags of an alert that are kept.
const FIELDS_MAX: usize = 64;
const TAGS_MAX: usize = 32;

/// A checked alert.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alert {
    pub(super) rule: String,
    pub(super) priority: Priority,
    pub(super) at: Timestamp,
    pub(super) output: String,
    source: String,
    tags: Vec<String>,
    fields: Map<String, Value>,
}

/// Unknown members are passed over: each version of Falco adds some.
#[derive(Deserialize)]
struct Raw {
    rule: String,
    priority: String,
    time: String,
    #[serde(default)]
    output: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    output_fields: Option<Map<String, Value>>,
}

impl Alert {
    /// What makes it the same as another from the same host.
    pub(super) fn key(&self, host: &str) -> Key {
        let field = |name: &str| match self.fields.get(name) {
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        };
        Key {
            rule: self.rule.clone(),
            host: host.to_owned(),
            container: field("container.id"),
            process: field("proc.name"),
        }
    }

    /// What events say of it. `host` is who sent it, whatever name it gives itself.
    pub(super) fn data(&self, host: &str) -> Map<String, Value> {
        let mut data = Map::new();
        data.insert("kind".to_owned(), "falco".into());
        data.insert("rule".to_owned(), self.rule.clone().into());
        data.insert("priority".to_owned(), self.priority.as_str().into());
        data.insert("host".to_owned(), host.into());
        data.insert("time".to_owned(), self.at.to_string().into());
        data.insert("message".to_owned(), self.output.clone().into());
        data.insert("falco_source".to_owned(), self.source.clone().into());
        data.insert("tags".to_owned(), self.tags.clone().into());
        data.insert("fields".to_owned(), self.fields.clone().into());
        data
    }

    fn of(raw: Raw) -> Result<Self, String> {
        let is_name =
            |text: &str| (1..=RULE_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if !is_name(&raw.rule) {
            return Err("rule is 1 to 256 bytes without control characters".to_owned());
        }
        let priority = raw.priority.parse().map_err(|()| "priority is none of Falco's".to_owned())?;
        let at = parse_time(&raw.time).ok_or("time is not an RFC 3339 time")?;
        let fields = raw.output_fields.unwrap_or_default().into_iter().take(FIELDS_MAX);
        Ok(Self {
            rule: raw.rule,
            priority,
            at,
            output: cut(&raw.output, OUTPUT_CHARS_MAX),
            source: cut(&raw.source, FIELD_CHARS_MAX),
            tags: raw.tags.unwrap_or_default().iter().take(TAGS_MAX).map(|tag| cut(tag, 64)).collect(),
            fields: fields.map(|(name, value)| (cut(&name, 128), scalar(value))).collect(),
        })
    }
}

/// The first characters of a text, control characters made visible: it is shown on terminals and in chats.
fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn scalar(value: Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
        Value::String(text) => cut(&text, FIELD_CHARS_MAX).into(),
        // Lists of Falco's fields come as text; anything else is no field of Falco's.
        nested => cut(&nested.to_string(), FIELD_CHARS_MAX).into(),
    }
}

/// The alerts of a body: one object, a list of them, or one after the other (NDJSON). All of them or none.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Alert>, Reject> {
    let body = body.trim_ascii();
    let raws: Vec<&RawValue> = if body.first() == Some(&b'[') {
        serde_json::from_slice(body).map_err(|error| malformed(&error))?
    } else {
        let values = serde_json::Deserializer::from_slice(body).into_iter();
        values.take(ALERTS_MAX + 1).collect::<Result<_, _>>().map_err(|error| malformed(&error))?
    };
    if raws.is_empty() {
        return Err(Reject::new(Code::BadRequest, "there is no alert"));
    }
    if raws.len() > ALERTS_MAX {
        return Err(Reject::new(Code::BodyTooLarge, "a request has at most 256 alerts"));
    }
    let checked = |(index, raw): (usize, &RawValue)| {
        let faulty = |mut problem: Problem| {
            problem.index = Some(index);
            Reject::from(problem)
        };
        let raw: Raw =
            sluice_wire::json::from_slice(raw.get().as_bytes()).map_err(|error| faulty(error.into()))?;
        Alert::of(raw).map_err(|detail| faulty(Problem::new(Code::BadRequest).detail(detail)))
    };
    raws.into_iter().enumerate().map(checked).collect()
}

fn malformed(error: &serde_json::Error) -> Reject {
    Reject::new(Code::InvalidJson, format!("line {}: not JSON", error.line()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"uuid":"x","hostname":"liar","time":"2026-11-22T11:00:00.123456789Z","rule":"Shell","priority":
        "Critical","source":"syscall","output":"a\u001b[2Jb","tags":["t"],"output_fields":{"proc.name":"sh",
        "container.id":"c1","evt.time":1,"x":null,"deep":{"a":[1]}}}"#;

    fn fault(body: &str) -> (Code, Option<usize>) {
        let reject = parse(body.as_bytes()).unwrap_err();
        (reject.problem().code, reject.problem().index)
    }

    #[test]
    fn one_a_list_and_lines_are_the_same() {
        let one = parse(ONE.as_bytes()).unwrap();
        let line = ONE.replace('\n', " ");
        for body in [format!("[{ONE}]"), format!("\n{line}\n"), ONE.to_owned()] {
            assert_eq!(parse(body.as_bytes()).unwrap(), one);
        }
        for body in [format!("[{ONE},{ONE}]"), format!("{line}\n\n{line}")] {
            assert_eq!(parse(body.as_bytes()).unwrap().len(), 2);
        }
        let alert = &one[0];
        assert_eq!(alert.output, "a\u{fffd}[2Jb", "no control character reaches a terminal");
        assert_eq!(alert.fields["deep"], r#"{"a":[1]}"#);
        let key = alert.key("node-1");
        assert_eq!((key.host.as_str(), key.container.as_str(), key.process.as_str()), ("node-1", "c1", "sh"));
        assert_eq!(alert.data("node-1")["host"], "node-1", "the sender's name, not what the alert says");
    }

    #[test]
    fn faults_are_told_with_their_place() {
        let bad = |from: &str, to: &str| format!("[{ONE},{}]", ONE.replace(from, to));
        assert_eq!(fault(&bad("\"Critical\"", "\"Fatal\"")), (Code::BadRequest, Some(1)));
        assert_eq!(fault(&bad("2026-11-22T11", "2026")), (Code::BadRequest, Some(1)));
        assert_eq!(fault(&bad("\"Shell\"", "\"\"")), (Code::BadRequest, Some(1)));
        assert_eq!(fault(&bad("\"Shell\"", "\"a\\nb\"")), (Code::BadRequest, Some(1)));
        assert_eq!(fault(&bad("\"uuid\":\"x\"", "\"rule\":\"x\"")), (Code::InvalidJson, Some(1)));
        assert_eq!(fault(&bad("\"Shell\"", "7")).1, Some(1));
        assert_eq!(fault(&bad("{\"a\":[1]}", &"[".repeat(2_000))).0, Code::InvalidJson);
        for body in ["", "[]", "  \n"] {
            assert_eq!(fault(body), (Code::BadRequest, None));
        }
        for body in ["plain text", "{", "[{}", "{}}", "\u{feff}{}"] {
            assert_eq!(fault(body).0, Code::InvalidJson, "{body}");
        }
        assert_eq!(fault(&ONE.repeat(ALERTS_MAX + 1)).0, Code::BodyTooLarge);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = "x".repeat(10_000);
        let fields: Map<String, Value> =
            (0..200).map(|n| (format!("f{n}"), Value::from(long.as_str()))).collect();
        let body = serde_json::json!({"time": "2026-11-22T11:00:00Z", "rule": "r", "priority": "info", "output": long,
            "tags": vec![long.as_str(); 100], "output_fields": fields});
        let alert = parse(body.to_string().as_bytes()).unwrap().remove(0);
        assert_eq!((alert.output.len(), alert.fields.len(), alert.tags.len()), (2_048, 64, 32));
        assert!(serde_json::to_string(&alert.data("h")).unwrap().len() < 64 * 1_024);
    }
}
