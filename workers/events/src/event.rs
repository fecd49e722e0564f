//! From a request's JSON to what the log stores.
//!
//! The stored text has its members in a fixed order, the content as it came but on one line:
//! `{"event_type":…,"event_id":…,"timestamp":…,"source":…,"data":{…},"metadata":{…}}`. `metadata` is last, so that
//! a replay can mark it without parsing ([`crate::frame`]).

use std::cell::RefCell;
use std::fmt::Write as _;

use jiff::Timestamp;
use ring::digest::{Context as Sha, SHA256};
use sluice_identity::caller::Caller;
use sluice_wire::code::Code;
use sluice_wire::event::{EventType, parse_time};
use sluice_wire::id::Mint;
use sluice_wire::json::Span;
use uuid::Uuid;

use crate::access;
use crate::error::Fault;
use crate::fingerprint::Fingerprint;
use crate::incoming::Incoming;
use crate::json::{self, Members};
use crate::log::{Body, Draft, DraftError, Labels};
use crate::schemas::{Held, Schemas};

/// Who publishes, and under which rules.
#[derive(Debug)]
pub(crate) struct Author<'a> {
    pub(crate) caller: &'a Caller,
    /// Any source may be named.
    pub(crate) dev: bool,
    /// Types outside the catalogue are taken.
    pub(crate) unknown_types: bool,
    /// The time of arrival.
    pub(crate) now: Timestamp,
    /// Makes ids for events that come without one.
    pub(crate) mint: &'a Mint,
    /// What the data of some types must be.
    pub(crate) schemas: &'a Schemas,
    /// What was found last: events of a batch are often alike.
    pub(crate) last: RefCell<Last>,
}

/// What the events of one author may have in common.
#[derive(Debug, Default)]
pub(crate) struct Last {
    /// A type as it was written, which the caller may publish.
    kind: Option<(Box<str>, EventType)>,
    /// A time and its text.
    time: Option<(i64, String)>,
    schemas: Held,
}

/// An event ready to be stored.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) draft: Draft,
    pub(crate) event_id: Uuid,
}

/// The event id that an idempotency key stands for: the same key of the same caller gives the same id.
pub(crate) fn id_of_key(subject: &str, key: &str, index: usize) -> Uuid {
    let mut sha = Sha::new(&SHA256);
    for part in [b"sluice event key".as_slice(), subject.as_bytes(), key.as_bytes()] {
        sha.update(&(part.len() as u64).to_le_bytes());
        sha.update(part);
    }
    sha.update(&(index as u64).to_le_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha.finish().as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

impl Author<'_> {
    /// Checks an event and writes its stored form. `key_id` is its id when it names none itself.
    pub(crate) fn prepare(&self, event: &Incoming<'_>, key_id: Option<Uuid>) -> Result<Prepared, Fault> {
        let last = &mut *self.last.borrow_mut();
        let kind = self.kind(&event.event_type, &mut last.kind)?;
        let source = access::source(self.caller, event.source.as_deref(), self.dev)?;
        let named = match &event.event_id {
            Some(text) => {
                let id = Uuid::parse_str(text);
                Some(id.map_err(|_| Fault::event("/event_id", "event_id is not a UUID"))?)
            }
            None => key_id,
        };
        let event_id = named.unwrap_or_else(|| self.mint.id(self.now.as_millisecond() as u64));
        let given = event.timestamp.map(time_us).transpose()?;
        let now_us = self.now.as_microsecond();
        let time_us = given.unwrap_or(now_us);

        let labels = Labels { kind: kind.as_str(), symbol: &event.symbol, source };
        let room =
            [event.data, event.metadata].iter().flatten().map(|span| span.text.len()).sum::<usize>() + 256;
        let mut body = Body::begin(labels, room).map_err(too_large)?;
        let text = body.json();
        text.extend_from_slice(b"{\"event_type\":\"");
        text.extend_from_slice(kind.as_str().as_bytes());
        text.extend_from_slice(b"\",\"event_id\":\"");
        text.extend_from_slice(event_id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        text.extend_from_slice(b"\",\"timestamp\":\"");
        write_time(time_us, &mut last.time, text)?;
        text.extend_from_slice(b"\",\"source\":");
        json::string(source, text);
        text.extend_from_slice(b",\"data\":");
        let data = text.len();
        object("/data", event.data, text)?;
        let data = data..text.len();
        self.schemas.check(&mut last.schemas, kind.as_str(), &text[data.clone()])?;
        text.extend_from_slice(b",\"metadata\":");
        let metadata = text.len();
        self.metadata(event.metadata, text)?;
        let metadata = metadata..text.len();
        text.push(b'}');

        // The time of arrival is no content: a repeated event without a timestamp is the same event.
        let fingerprint = Fingerprint::new()
            .part(kind.as_str().as_bytes())
            .part(source.as_bytes())
            .part(&given.unwrap_or(i64::MIN).to_le_bytes())
            .part(&text[data])
            .part(&text[metadata])
            .value();
        let mut draft = body.finish(time_us, event_id.as_u128(), fingerprint).map_err(too_large)?;
        draft.is_fresh = named.is_none();
        Ok(Prepared { draft, event_id })
    }

    /// The type of an event that the caller may publish.
    fn kind<'l>(
        &self,
        text: &str,
        last: &'l mut Option<(Box<str>, EventType)>,
    ) -> Result<&'l EventType, Fault> {
        if last.as_ref().is_none_or(|(known, _)| **known != *text) {
            let kind = self.permitted(text)?;
            *last = Some((text.into(), kind));
        }
        // It was set here, or before.
        last.as_ref().map(|(_, kind)| kind).ok_or_else(|| Fault::new(Code::Internal, "no type"))
    }

    fn permitted(&self, text: &str) -> Result<EventType, Fault> {
        let kind = EventType::parse(text).map_err(|error| Fault::event("/event_type", error.to_string()))?;
        if !self.unknown_types && !kind.is_catalogued() {
            return Err(Fault::event("/event_type", format!("`{kind}` is not a known event type")));
        }
        access::may_publish(self.caller, &kind)?;
        Ok(kind)
    }

    /// Writes the metadata, with `role` set by the worker alone.
    fn metadata(&self, given: Option<Span<'_>>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let role = self.caller.as_role();
        let raw = given.map_or("{}", |span| span.text);
        // A key may be written with escapes.
        let may_name_role = || raw.contains("\"role\"") || raw.contains('\\');
        if role.is_none() && !(given.is_some() && may_name_role()) {
            return object("/metadata", given, out);
        }
        let members: Members<'_> =
            serde_json::from_str(raw).map_err(|_| Fault::event("/metadata", "metadata is not an object"))?;
        out.push(b'{');
        let first = members.write_without(&["role"], true, out);
        if let Some(role) = role {
            if !first {
                out.push(b',');
            }
            out.extend_from_slice(b"\"role\":");
            json::string(role.as_str(), out);
        }
        out.push(b'}');
        Ok(())
    }
}

fn too_large(error: DraftError) -> Fault {
    Fault::new(Code::BodyTooLarge, error.to_string())
}

/// Writes an event's time. Events of a batch without one all have the same, that of arrival.
fn write_time(time_us: i64, last: &mut Option<(i64, String)>, out: &mut Vec<u8>) -> Result<(), Fault> {
    if let Some((_, text)) = last.as_ref().filter(|(known, _)| *known == time_us) {
        out.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    let time = Timestamp::from_microsecond(time_us)
        .map_err(|_| Fault::event("/timestamp", "timestamp is out of range"))?;
    let (_, text) = last.insert((time_us, String::with_capacity(32)));
    write!(text, "{time}").expect("memory takes it");
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Writes an object without white space; an empty one where none is given.
fn object(pointer: &'static str, given: Option<Span<'_>>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let Some(given) = given else {
        out.extend_from_slice(b"{}");
        return Ok(());
    };
    if !given.text.starts_with('{') {
        return Err(Fault::event(pointer, format!("{} is not an object", &pointer[1..])));
    }
    if given.is_compact {
        out.extend_from_slice(given.text.as_bytes());
    } else {
        json::compact(given.text, out);
    }
    Ok(())
}

/// An event's time: ISO 8601, with or without zone (then UTC), or milliseconds since 1970.
fn time_us(text: &str) -> Result<i64, Fault> {
    let time = if text.starts_with('"') {
        json::text(text).ok().and_then(|text| parse_time(&text))
    } else {
        text.parse().ok().and_then(|ms| Timestamp::from_millisecond(ms).ok())
    };
    time.map(Timestamp::as_microsecond).ok_or_else(|| {
        Fault::event("/timestamp", "timestamp is neither ISO 8601 nor whole milliseconds since 1970")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use sluice_wire::role::Role;

    use super::*;
    use crate::incoming::{EVENT_BYTES_MAX, parse};

    fn author(caller: &Caller) -> Author<'_> {
        let now = Timestamp::from_microsecond(1_795_255_200_123_456).unwrap();
        Author {
            caller,
            dev: false,
            unknown_types: true,
            now,
            mint: Box::leak(Box::default()),
            schemas: Box::leak(Box::default()),
            last: RefCell::default(),
        }
    }

    fn alice() -> Caller {
        Caller::forwarded("alice".to_owned(), None, "write".parse().unwrap_or_default(), false)
    }

    fn stored(text: &str, caller: &Caller) -> Result<(Value, Prepared), Fault> {
        let prepared = author(caller).prepare(&parse(text)?, None)?;
        let bytes = prepared.draft.json().to_vec();
        Ok((serde_json::from_slice(&bytes).unwrap(), prepared))
    }

    #[test]
    fn what_is_missing_is_filled_in() {
        let (event, prepared) =
            stored(r#"{"event_type":"TRADING_SIGNAL","data":{"symbol":"X/Y"}}"#, &alice()).unwrap();
        assert_eq!(event["event_type"], "trading_signal");
        assert_eq!(event["timestamp"], "2026-11-21T10:00:00.123456Z");
        assert_eq!(event["source"], "alice");
        assert_eq!(event["metadata"], serde_json::json!({}));
        assert_eq!(event["event_id"], prepared.event_id.to_string());
        assert_eq!(prepared.event_id.get_version_num(), 7);
    }

    #[test]
    fn content_is_kept_as_written() {
        let text = r#"{"event_type":"x","event_id":"0192A3B4-0000-7000-8000-00000000000A",
            "timestamp":1795255200000,"data":{"z": 1.50, "a": 12345678901234567890123, "s": " \u00e9 "}}"#;
        let prepared = author(&alice()).prepare(&parse(text).unwrap(), None).unwrap();
        let expected = concat!(
            r#"{"event_type":"x","event_id":"0192a3b4-0000-7000-8000-00000000000a","#,
            r#""timestamp":"2026-11-21T10:00:00Z","source":"alice","#,
            r#""data":{"z":1.50,"a":12345678901234567890123,"s":" \u00e9 "},"metadata":{}}"#,
        );
        assert_eq!(String::from_utf8(prepared.draft.json().to_vec()).unwrap(), expected);
    }

    #[test]
    fn the_role_is_set_by_the_worker_alone() {
        let text = r#"{"event_type":"x","metadata":{"a":1,"role":"edge","\u0072ole":"edge"}}"#;
        let (event, _) = stored(text, &alice()).unwrap();
        assert_eq!(event["metadata"], serde_json::json!({"a": 1}));
        let (event, _) = stored(r#"{"event_type":"kill_switch"}"#, &Caller::role(Role::Edge)).unwrap();
        assert_eq!(event["metadata"], serde_json::json!({"role": "edge"}));
        let (event, _) =
            stored(r#"{"event_type":"x","metadata":{"b":{}}}"#, &Caller::role(Role::Vault)).unwrap();
        assert_eq!(event["metadata"], serde_json::json!({"b": {}, "role": "vault"}));
    }

    #[test]
    fn the_same_content_has_the_same_fingerprint() {
        let print = |text: &str| stored(text, &alice()).unwrap().1.draft.fingerprint;
        let first = print(r#"{"event_type":"x","data":{"a":1}}"#);
        assert_eq!(first, print(r#"{ "data" : { "a" : 1 }, "event_type":"x", "source":"alice" }"#));
        for other in [
            r#"{"event_type":"y","data":{"a":1}}"#,
            r#"{"event_type":"x","data":{"a":2}}"#,
            r#"{"event_type":"x","data":{"a":1},"metadata":{"b":1}}"#,
            r#"{"event_type":"x","data":{"a":1},"timestamp":1}"#,
        ] {
            assert_ne!(first, print(other), "{other}");
        }
    }

    #[test]
    fn what_is_no_event_is_named() {
        for (text, pointer) in [
            (r#"{"event_type":"a b"}"#, Some("/event_type")),
            (r#"{"event_type":"x","event_id":"7"}"#, Some("/event_id")),
            (r#"{"event_type":"x","timestamp":"yesterday"}"#, Some("/timestamp")),
            (r#"{"event_type":"x","timestamp":1.5}"#, Some("/timestamp")),
            (r#"{"event_type":"x","timestamp":99999999999999999}"#, Some("/timestamp")),
            (r#"{"event_type":"x","data":[]}"#, Some("/data")),
            (r#"{"event_type":"x","metadata":3}"#, Some("/metadata")),
            (r#"{"event_type":"x","payload":{}}"#, None),
            (r#"{"data":{}}"#, None),
            (r#"{"event_type":5}"#, None),
            ("[]", None),
            (r#"["x"]"#, None),
        ] {
            let fault = stored(text, &alice()).unwrap_err();
            assert_eq!((fault.code, fault.pointer.as_deref()), (Code::InvalidEvent, pointer), "{text}");
        }
        let known_only = Author { unknown_types: false, ..author(&alice()) }
            .prepare(&parse(r#"{"event_type":"x"}"#).unwrap(), None)
            .unwrap_err();
        assert_eq!(known_only.pointer.as_deref(), Some("/event_type"));
        let large = format!(r#"{{"event_type":"x","data":{{"a":"{}"}}}}"#, "x".repeat(EVENT_BYTES_MAX));
        assert_eq!(stored(&large, &alice()).unwrap_err().code, Code::BodyTooLarge);
    }

    #[test]
    fn a_key_stands_for_one_id_of_one_caller() {
        let id = id_of_key("alice", "k", 0);
        assert_eq!(id, id_of_key("alice", "k", 0));
        assert_ne!(id, id_of_key("bob", "k", 0));
        assert_ne!(id, id_of_key("alice", "k", 1));
        assert_ne!(id_of_key("al", "icek", 0), id_of_key("alice", "k", 0));
        assert_eq!(id.get_version_num(), 8);
    }
}
