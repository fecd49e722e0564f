//! From events as they are written to the body of one call: an event a line, each with the id under which it may be
//! sent again.

use std::borrow::Cow;
use std::fmt;

use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::{Builder, Uuid};

/// LIMIT: bytes of one call's events. The worker takes twice as much.
pub(super) const BATCH_BYTES_MAX: usize = 4 << 20;

/// What readers are given beside the event, and no publisher sends.
const PLACE: [&str; 3] = ["message_id", "seq", "partition"];

/// Where ids come from for events that have none.
pub(super) enum Ids {
    /// New ones.
    New,
    /// Made of a text and the event's place in the input: the same each time.
    Key(String),
}

impl Ids {
    fn of(&self, ordinal: u64) -> Uuid {
        let Self::Key(key) = self else { return Uuid::now_v7() };
        let mut sha = Context::new(&SHA256);
        sha.update(b"sluice events publish\0");
        sha.update(&(key.len() as u64).to_le_bytes());
        sha.update(key.as_bytes());
        sha.update(&ordinal.to_le_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&sha.finish().as_ref()[..16]);
        Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// Events of one call, in their order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The body.
    pub(super) body: Vec<u8>,
    /// The line in the input of each event of the body.
    pub(super) lines: Vec<u64>,
    /// What is not sent, with its line and why.
    pub(super) unsent: Vec<(u64, String)>,
    /// Bytes of the input up to its end.
    pub(super) taken: u64,
}

impl Batch {
    /// Events, those that are not sent among them.
    pub(super) fn events(&self) -> u64 {
        (self.lines.len() + self.unsent.len()) as u64
    }

    /// Adds an event. One that is no JSON object is noted and not sent.
    pub(super) fn push(&mut self, text: &[u8], line: u64, ordinal: u64, ids: &Ids) {
        let from = self.body.len();
        match serde_json::from_slice::<Members<'_>>(text) {
            Ok(members) => {
                members.write(|| ids.of(ordinal), &mut self.body);
                // White space between tokens alone: no string has a bare line end in it.
                for byte in &mut self.body[from..] {
                    if matches!(byte, b'\n' | b'\r') {
                        *byte = b' ';
                    }
                }
                self.body.push(b'\n');
                self.lines.push(line);
            }
            Err(error) => self.unsent.push((line, error.to_string())),
        }
    }
}

/// The members of an object, in their order; one that is there twice is there twice.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl Members<'_> {
    fn write(&self, id: impl Fn() -> Uuid, out: &mut Vec<u8>) {
        let kept = |name: &str, value: &RawValue| !(PLACE.contains(&name) || is_no_id(name, value));
        let has_id = self.0.iter().any(|(name, value)| name == "event_id" && kept(name, value));
        out.push(b'{');
        if !has_id {
            out.extend_from_slice(b"\"event_id\":\"");
            out.extend_from_slice(id().hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
            out.push(b'"');
        }
        let mut comma = !has_id;
        for (name, value) in self.0.iter().filter(|(name, value)| kept(name, value)) {
            if std::mem::replace(&mut comma, true) {
                out.push(b',');
            }
            out.extend_from_slice(serde_json::Value::from(&**name).to_string().as_bytes());
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        out.push(b'}');
    }
}

fn is_no_id(name: &str, value: &RawValue) -> bool {
    name == "event_id" && value.get() == "null"
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event, which is a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        raw.deserialize_map(Each)
    }
}

/// A name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, ids: &Ids) -> (String, Batch) {
        let mut batch = Batch::default();
        batch.push(text.as_bytes(), 7, 3, ids);
        (String::from_utf8(batch.body.clone()).unwrap(), batch)
    }

    #[test]
    fn an_event_keeps_its_text_and_its_id() {
        let text = r#"{"event_type":"a","event_id":"x","data":{"n":1.00000000000000000001,"s":"\u0041"}}"#;
        let (body, batch) = one(text, &Ids::New);
        assert_eq!(body, format!("{text}\n"));
        assert_eq!((batch.lines, batch.unsent.len()), (vec![7], 0));
    }

    #[test]
    fn an_event_without_an_id_is_given_one() {
        let key = |text: &str| Ids::Key(text.to_owned());
        let (body, _) = one(r#"{"event_type":"a"}"#, &key("k"));
        let (again, _) = one("{\"event_type\":\n\"a\",\"event_id\":null}", &key("k"));
        assert_eq!(body, again);
        let event: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(Uuid::parse_str(event["event_id"].as_str().unwrap()).is_ok());
        assert_ne!(body, one(r#"{"event_type":"a"}"#, &key("l")).0);
        assert_ne!(one("{}", &Ids::New).0, one("{}", &Ids::New).0);
        assert_ne!(key("k").of(1), key("k").of(2));
    }

    #[test]
    fn what_was_read_can_be_published() {
        let read = r#"{"event_id":"x","metadata":{"seq":1},"message_id":"1-0","seq":1,"partition":0}"#;
        assert_eq!(one(read, &Ids::New).0, "{\"event_id\":\"x\",\"metadata\":{\"seq\":1}}\n");
    }

    #[test]
    fn an_event_is_one_line_and_doubles_stay_for_the_worker_to_refuse() {
        let (body, _) = one("{\"event_id\":\"x\",\r\n \"a\": {\n\"b\": \"c\\n\" },\n\"a\":2}", &Ids::New);
        assert_eq!(body, "{\"event_id\":\"x\",\"a\":{ \"b\": \"c\\n\" },\"a\":2}\n");
    }

    #[test]
    fn what_is_no_event_is_not_sent() {
        for text in ["7", "{", "[]", "{]", "{\"a\":1}x", "\"a\""] {
            let (body, batch) = one(text, &Ids::New);
            assert!(body.is_empty() && batch.unsent[0].0 == 7, "{text}");
            assert_eq!(batch.events(), 1);
        }
    }
}
