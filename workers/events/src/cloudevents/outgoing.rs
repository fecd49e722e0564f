//! A stored event as a CloudEvent in the structured mode. Pure.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{KEPT, METADATA, OWN, is_extension};
use crate::json;
use crate::log::Lane;

/// What of the stored text is told.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    event_type: &'a RawValue,
    event_id: &'a str,
    timestamp: &'a str,
    source: String,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    metadata: Map<String, Value>,
}

/// Appends a stored event as a CloudEvent, its place in the stream as extensions; nothing where the text is not of
/// the stored form.
pub(crate) fn write(stored: &[u8], message_id: &str, lane: Lane, out: &mut Vec<u8>) {
    let Ok(mut stored) = serde_json::from_slice::<Stored<'_>>(stored) else { return };
    let kept = match stored.metadata.remove(KEPT) {
        Some(Value::Object(kept)) => kept,
        _ => Map::new(),
    };
    let text = |name: &str| kept.get(name).and_then(Value::as_str);
    out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":");
    json::string(text("id").unwrap_or(stored.event_id), out);
    out.extend_from_slice(b",\"source\":");
    json::string(&uri_reference(&stored.source), out);
    out.extend_from_slice(b",\"type\":");
    out.extend_from_slice(stored.event_type.get().as_bytes());
    member("time", stored.timestamp, out);
    if let Some(subject) = text("subject") {
        member("subject", subject, out);
    }
    let wrapped = text("wrapped");
    if wrapped != Some("absent") {
        member("datacontenttype", text("datacontenttype").unwrap_or("application/json"), out);
    }
    if let Some(schema) = text("dataschema") {
        member("dataschema", schema, out);
    }
    if let Some(Value::Object(extensions)) = kept.get("extensions") {
        // A publisher can have written anything there: what is no extension is not told as one.
        let told = |name: &str, value: &Value| {
            is_extension(name)
                && !name.starts_with(OWN)
                && (value.is_string() || value.is_boolean() || value.is_i64())
        };
        for (name, value) in extensions.iter().filter(|(name, value)| told(name, value)) {
            out.extend_from_slice(format!(",\"{name}\":{value}").as_bytes());
        }
    }
    member("sluicemessageid", message_id, out);
    let Lane { partition, seq } = lane;
    out.extend_from_slice(format!(",\"sluiceseq\":\"{seq}\",\"sluicepartition\":{partition}").as_bytes());
    if !stored.metadata.is_empty() {
        member(METADATA, &Value::from(stored.metadata).to_string(), out);
    }
    data(stored.data, wrapped, out);
    out.push(b'}');
}

fn member(name: &str, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!(",\"{name}\":").as_bytes());
    json::string(text, out);
}

/// The data as it came; as it is stored, where it is not what it was wrapped as.
fn data(stored: &RawValue, wrapped: Option<&str>, out: &mut Vec<u8>) {
    let name = match wrapped {
        Some("absent") if stored.get() == "{}" => return,
        Some(name @ ("data" | "data_base64")) => name,
        _ => "",
    };
    let members = json::Members::of(stored);
    let inner = members.as_ref().and_then(|members| members.get(name));
    let (name, value) = match inner {
        Some(inner) => (name, inner),
        None => ("data", stored),
    };
    out.extend_from_slice(format!(",\"{name}\":").as_bytes());
    out.extend_from_slice(value.get().as_bytes());
}

/// A source with what no URI reference holds percent-encoded.
fn uri_reference(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    for byte in source.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _written = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::Foreign;
    use super::*;

    fn told(stored: &Value) -> Value {
        let mut out = Vec::new();
        write(stored.to_string().as_bytes(), "17-2", Lane { partition: 0, seq: 9 }, &mut out);
        serde_json::from_slice(&out)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
    }

    /// What the worker would store of a CloudEvent.
    fn stored(event: &Value) -> Value {
        let read = Foreign::of_structured(&event.to_string()).unwrap();
        let incoming = read.incoming();
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        json!({
            "event_type": incoming.event_type, "event_id": incoming.event_id,
            "timestamp": incoming.timestamp.map_or(json!("1970-01-01T00:00:00Z"), parsed),
            "source": incoming.source, "data": parsed(incoming.data.unwrap().text),
            "metadata": parsed(incoming.metadata.unwrap().text),
        })
    }

    #[test]
    fn an_event_of_ours_is_a_cloudevent() {
        let event = told(&json!({
            "event_type": "risk_alert", "event_id": "01920000-0000-7000-8000-000000000001",
            "timestamp": "2026-11-21T10:00:00.123456Z", "source": "my service", "data": {"a": 1.50},
            "metadata": {"role": "edge", "cloudevent": {"extensions": {"id": "x", "sluiceseq": "1", "ok": true}}},
        }));
        assert_eq!(
            event,
            json!({
                "specversion": "1.0", "id": "01920000-0000-7000-8000-000000000001", "source": "my%20service",
                "type": "risk_alert", "time": "2026-11-21T10:00:00.123456Z",
                "datacontenttype": "application/json", "ok": true, "sluicemessageid": "17-2",
                "sluiceseq": "9", "sluicepartition": 0, "sluicemetadata": "{\"role\":\"edge\"}",
                "data": {"a": 1.5},
            })
        );
    }

    fn content() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!({})),
            any::<i32>().prop_map(|n| json!({"data": {"n": n, "data": [n]}})),
            ".{0,8}".prop_map(|text| json!({ "data": text })),
            Just(json!({"data": [1, null]})),
            Just(json!({"data_base64": "AAEC"})),
            Just(json!({"data": {"data_base64": "AAEC"}})),
        ]
    }

    proptest! {
        /// What went in comes out, with the place added.
        #[test]
        fn a_cloudevent_comes_back_as_it_was(
            id in ".{1,20}",
            subject in proptest::option::of("[ -~]{1,10}"),
            extension in proptest::option::of(".{0,10}"),
            content in content(),
        ) {
            let mut event = json!({
                "specversion": "1.0", "id": id, "source": "/ml", "type": "a.b", "time": "2026-11-21T10:00:00Z",
            });
            let members = event.as_object_mut().unwrap();
            members.extend(subject.map(|text| ("subject".to_owned(), json!(text))));
            members.extend(extension.map(|text| ("comexampleext1".to_owned(), json!(text))));
            members.extend(content.as_object().unwrap().clone());
            let mut back = told(&stored(&event));
            for own in ["sluicemessageid", "sluiceseq", "sluicepartition", "datacontenttype"] {
                back.as_object_mut().unwrap().remove(own);
            }
            prop_assert_eq!(back, event);
        }
    }
}
