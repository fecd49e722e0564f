//! What readers get of an event: its text with its place in the log, as JSON or as an SSE frame.

use std::io::Write as _;

use bytes::Bytes;
use serde_json::Value;

use crate::log::{Lane, Record};

const MEMORY_TAKES_IT: &str = "memory takes what is written to it";

/// Appends the event's JSON, place included, on one line.
pub(crate) fn write_json(record: &Record, out: &mut Vec<u8>) {
    write_placed(record, record.json(), out);
}

/// The same, marked as a replay.
pub(crate) fn write_replayed(record: &Record, out: &mut Vec<u8>) {
    write_placed(record, &replayed(record.json()), out);
}

/// Appends an SSE frame.
pub(crate) fn write_sse(record: &Record, replay: bool, out: &mut Vec<u8>) {
    write_fields(record, out);
    if replay {
        write_replayed(record, out);
    } else {
        write_json(record, out);
    }
    out.extend_from_slice(b"\n\n");
}

/// Appends an SSE frame; where in it the JSON begins.
pub(crate) fn encode(record: &Record, out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    write_fields(record, out);
    let json_at = out.len() - begin;
    write_json(record, out);
    out.extend_from_slice(b"\n\n");
    json_at
}

fn write_fields(record: &Record, out: &mut Vec<u8>) {
    write!(out, "id: {}\nevent: {}\ndata: ", record.stamp.id, record.kind()).expect(MEMORY_TAKES_IT);
}

/// An SSE frame that is no event of the stream: it has no id, so a client resumes behind the last real one.
pub(crate) fn notice(name: &str, data: &Value) -> Bytes {
    sluice_http::sse::frame(None, name, &data.to_string())
}

/// What a subscriber missed.
pub(crate) fn gap(expected: &Value, got: &Value, reason: &str) -> Bytes {
    notice("gap", &serde_json::json!({ "expected": expected, "got": got, "reason": reason }))
}

fn write_placed(record: &Record, json: &[u8], out: &mut Vec<u8>) {
    let open = json.strip_suffix(b"}").unwrap_or(json);
    out.reserve(open.len() + 96);
    out.extend_from_slice(open);
    let (id, Lane { partition, seq }) = (record.stamp.id, record.lane);
    write!(out, ",\"message_id\":\"{id}\",\"seq\":{seq},\"partition\":{partition}}}").expect(MEMORY_TAKES_IT);
}

/// The event with `metadata.replay` set. Metadata is the last member of what is stored.
pub(crate) fn replayed(json: &[u8]) -> Vec<u8> {
    let has_replay = json.windows(8).any(|window| window == b"\"replay\"") || json.contains(&b'\\');
    if !has_replay && let Some(open) = json.strip_suffix(b"}}") {
        let comma: &[u8] = if open.ends_with(b"{") { b"" } else { b"," };
        return [open, comma, b"\"replay\":true}}"].concat();
    }
    match serde_json::from_slice::<Value>(json) {
        Ok(mut event) => {
            event["metadata"]["replay"] = Value::Bool(true);
            event.to_string().into_bytes()
        }
        Err(_) => json.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &str) {
        assert_eq!(String::from_utf8(replayed(json.as_bytes())).unwrap(), expected);
    }

    #[test]
    fn a_replay_is_marked_once() {
        check(r#"{"a":1,"metadata":{}}"#, r#"{"a":1,"metadata":{"replay":true}}"#);
        check(r#"{"a":1,"metadata":{"b":{}}}"#, r#"{"a":1,"metadata":{"b":{},"replay":true}}"#);
        check(r#"{"a":1,"metadata":{"replay":false}}"#, r#"{"a":1,"metadata":{"replay":true}}"#);
        check(r#"{"a":1,"metadata":{"\u0072eplay":false}}"#, r#"{"a":1,"metadata":{"replay":true}}"#);
    }
}
