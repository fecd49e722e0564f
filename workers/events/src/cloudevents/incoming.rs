//! A CloudEvent as an event of the stream. Pure.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use ring::digest::{Context as Sha, SHA256};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sluice_wire::code::Code;
use sluice_wire::json as strict;
use uuid::Uuid;

use super::{KEPT, METADATA, OWN, is_extension, is_json};
use crate::error::Fault;
use crate::incoming::{Incoming, loose, symbol_of};
use crate::json::{self, Members};

/// LIMIT: attributes of one event.
const ATTRIBUTES_MAX: usize = 64;
/// LIMIT: bytes of one attribute.
const ATTRIBUTE_BYTES_MAX: usize = 4 * 1024;
/// LIMIT: bytes of an id.
const ID_BYTES_MAX: usize = 512;

/// A CloudEvent, read.
#[derive(Debug)]
pub(crate) struct Foreign {
    kind: String,
    event_id: String,
    source: String,
    time: Option<Box<RawValue>>,
    data: Box<RawValue>,
    metadata: Box<RawValue>,
}

impl Foreign {
    /// Of an event in the structured mode; the text must have passed the strict check.
    pub(crate) fn of_structured(text: &str) -> Result<Self, Fault> {
        let whole: &RawValue =
            serde_json::from_str(text).map_err(|error| Fault::event("", error.to_string()))?;
        let members = Members::of(whole).ok_or_else(|| Fault::event("", "a CloudEvent is an object"))?;
        let present = |name: &str| members.get(name).filter(|raw| raw.get() != "null");
        let content = match (present("data"), present("data_base64")) {
            (Some(_), Some(_)) => return Err(Fault::event("/data", "both data and data_base64 are there")),
            (None, None) => Content::Absent,
            // As it is written: no number changes its digits.
            (Some(data), None) => Content::Json(data.get().into()),
            (None, Some(raw)) => match json::text(raw.get()) {
                Ok(text) if STANDARD.decode(&*text).is_ok() => Content::Base64(text.into_owned()),
                _ => return Err(Fault::event("/data_base64", "data_base64 is not base64")),
            },
        };
        let mut attributes = Map::new();
        for (name, raw) in &members.0 {
            if name != "data" && name != "data_base64" && raw.get() != "null" {
                let value = serde_json::from_str(raw.get());
                let value = value.map_err(|error| Fault::event("", error.to_string()))?;
                attributes.insert(name.clone().into_owned(), value);
            }
        }
        Self::of(attributes, content)
    }

    /// Of an event in the binary mode: attributes are header fields, the body is the data.
    pub(crate) fn of_binary(headers: &HeaderMap, body: &[u8]) -> Result<Self, Fault> {
        let mut members = Map::new();
        for (name, value) in headers {
            let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
            let text = value.to_str().ok().and_then(decoded);
            let text =
                text.ok_or_else(|| Fault::new(Code::InvalidEvent, format!("ce-{name} is not a text")))?;
            if members.insert(name.to_owned(), Value::from(text)).is_some() {
                return Err(Fault::new(Code::InvalidEvent, format!("ce-{name} is there twice")));
            }
        }
        // In this mode the body's own type says what the data is.
        members.remove("datacontenttype");
        let media_type =
            headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("").to_owned());
        let content = match &media_type {
            _ if body.is_empty() => Content::Absent,
            Some(other) if !is_json(other) => match std::str::from_utf8(body) {
                Ok(text) if other.trim_start().starts_with("text/") => {
                    Content::Json(Value::from(text).to_string().into())
                }
                _ => Content::Base64(STANDARD.encode(body)),
            },
            _ => {
                strict::check(body)?;
                let text = std::str::from_utf8(body);
                Content::Json(text.map_err(|_| Fault::new(Code::InvalidJson, "not UTF-8"))?.trim().into())
            }
        };
        if let Some(media_type) = media_type {
            members.insert("datacontenttype".to_owned(), Value::from(media_type));
        }
        Self::of(members, content)
    }

    fn of(mut members: Map<String, Value>, content: Content<'_>) -> Result<Self, Fault> {
        if members.len() > ATTRIBUTES_MAX {
            return Err(Fault::event("", format!("more than {ATTRIBUTES_MAX} attributes")));
        }
        let version = required(&mut members, "specversion", "/specversion")?;
        if version != "1.0" {
            return Err(Fault::event("/specversion", "specversion is not 1.0"));
        }
        let id = required(&mut members, "id", "/id")?;
        if id.len() > ID_BYTES_MAX {
            return Err(Fault::event("/id", format!("id has more than {ID_BYTES_MAX} bytes")));
        }
        let source = required(&mut members, "source", "/source")?;
        let kind = required(&mut members, "type", "/type")?;
        let time = optional(&mut members, "time", "/time")?.map(|time| raw(&Value::from(time)));
        let mut metadata = match optional(&mut members, METADATA, "/sluicemetadata")? {
            Some(text) => own_metadata(&text)?,
            None => Map::new(),
        };
        let mut kept = Map::new();
        kept.insert("id".to_owned(), Value::from(id.as_str()));
        for (name, pointer) in
            [("subject", "/subject"), ("datacontenttype", "/datacontenttype"), ("dataschema", "/dataschema")]
        {
            if let Some(text) = optional(&mut members, name, pointer)? {
                kept.insert(name.to_owned(), Value::from(text));
            }
        }
        let (data, wrapped) = content.wrapped();
        if let Some(wrapped) = wrapped {
            kept.insert("wrapped".to_owned(), Value::from(wrapped));
        }
        let extensions = extensions(members)?;
        if !extensions.is_empty() {
            kept.insert("extensions".to_owned(), Value::from(extensions));
        }
        metadata.insert(KEPT.to_owned(), Value::from(kept));
        Ok(Self {
            kind,
            event_id: event_id(&source, &id).to_string(),
            source,
            time,
            data: RawValue::from_string(data).map_err(|error| Fault::event("/data", error.to_string()))?,
            metadata: raw(&Value::from(metadata)),
        })
    }

    /// The event to be stored.
    pub(crate) fn incoming(&self) -> Incoming<'_> {
        Incoming {
            event_type: self.kind.as_str().into(),
            event_id: Some(self.event_id.as_str().into()),
            timestamp: self.time.as_deref().map(RawValue::get),
            source: Some(self.source.as_str().into()),
            data: Some(loose(&self.data)),
            metadata: Some(loose(&self.metadata)),
            symbol: symbol_of(self.data.get()),
        }
    }
}

/// The data of a CloudEvent.
enum Content<'a> {
    Absent,
    /// The text of a value.
    Json(Cow<'a, str>),
    Base64(String),
}

impl Content<'_> {
    /// The text of an object, and under which name the data was put into one.
    fn wrapped(self) -> (String, Option<&'static str>) {
        let (name, text) = match self {
            Self::Absent => return ("{}".to_owned(), Some("absent")),
            Self::Json(object) if object.starts_with('{') => return (object.into_owned(), None),
            Self::Json(other) => ("data", other.into_owned()),
            Self::Base64(text) => ("data_base64", Value::from(text).to_string()),
        };
        (format!("{{\"{name}\":{text}}}"), Some(name))
    }
}

/// An id that is a UUID stands for itself. Any other is one only beside its source, as the specification has it.
fn event_id(source: &str, id: &str) -> Uuid {
    if let Ok(id) = Uuid::parse_str(id) {
        return id;
    }
    let mut sha = Sha::new(&SHA256);
    for part in ["sluice cloudevent", source, id] {
        sha.update(&(part.len() as u64).to_le_bytes());
        sha.update(part.as_bytes());
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha.finish().as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn required(members: &mut Map<String, Value>, name: &str, pointer: &'static str) -> Result<String, Fault> {
    let text = optional(members, name, pointer)?.filter(|text| !text.is_empty());
    text.ok_or_else(|| Fault::event(pointer, format!("{name} is missing")))
}

fn optional(
    members: &mut Map<String, Value>,
    name: &str,
    pointer: &'static str,
) -> Result<Option<String>, Fault> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= ATTRIBUTE_BYTES_MAX || name == METADATA => Ok(Some(text)),
        Some(_) => {
            let text = format!("{name} is not a text of at most {ATTRIBUTE_BYTES_MAX} bytes");
            Err(Fault::event(pointer, text))
        }
    }
}

fn own_metadata(text: &str) -> Result<Map<String, Value>, Fault> {
    let wrong = || Fault::event("/sluicemetadata", "sluicemetadata is not a JSON object as text");
    strict::check(text.as_bytes()).map_err(|_| wrong())?;
    serde_json::from_str(text).map_err(|_| wrong())
}

fn extensions(members: Map<String, Value>) -> Result<Map<String, Value>, Fault> {
    let mut kept = Map::new();
    for (name, value) in members {
        if !is_extension(&name) {
            let name: String = name.chars().take(64).collect();
            let text = format!("`{}` is no name of an attribute", name.escape_default());
            return Err(Fault::event("", text));
        }
        let fits = match &value {
            Value::Bool(_) => true,
            Value::Number(number) => number.is_i64(),
            Value::String(text) => text.len() <= ATTRIBUTE_BYTES_MAX,
            _ => false,
        };
        if !fits {
            let text = format!("`{name}` is no text of {ATTRIBUTE_BYTES_MAX} bytes, whole number or boolean");
            return Err(Fault::event("", text));
        }
        if !name.starts_with(OWN) {
            kept.insert(name, value);
        }
    }
    Ok(kept)
}

/// A header value with its percent encoding undone.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        out.push((digit(bytes.next())? * 16 + digit(bytes.next())?) as u8);
    }
    String::from_utf8(out).ok()
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a tree of JSON always serializes")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn structured(value: &Value) -> Result<(Value, Value, String), Fault> {
        let read = Foreign::of_structured(&value.to_string())?;
        let parsed = |raw: &RawValue| serde_json::from_str(raw.get()).unwrap();
        Ok((parsed(&read.data), parsed(&read.metadata), read.event_id))
    }

    fn event(more: Value) -> Value {
        let mut event =
            json!({"specversion": "1.0", "id": "7", "source": "/ml", "type": "com.example.signal"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    }

    #[test]
    fn what_has_no_place_is_kept() {
        let (data, metadata, id) = structured(&event(json!({
            "subject": "BTC", "data": {"a": 1}, "traceparent": "00-1", "hops": 3, "sluiceseq": "9",
            "sluicemetadata": "{\"run\":1,\"cloudevent\":{\"id\":\"forged\"}}",
        })))
        .unwrap();
        assert_eq!(data, json!({"a": 1}));
        let exact = r#"{"specversion":"1.0","id":"7","source":"/ml","type":"x","data":{"a":1.50,"b":123456789012345678901234567890}}"#;
        let read = Foreign::of_structured(exact).unwrap();
        assert_eq!(read.data.get(), r#"{"a":1.50,"b":123456789012345678901234567890}"#);
        let kept = json!({"id": "7", "subject": "BTC", "extensions": {"traceparent": "00-1", "hops": 3}});
        assert_eq!(metadata, json!({"run": 1, "cloudevent": kept}));
        assert_eq!(id, structured(&event(json!({}))).unwrap().2);
        assert_ne!(id, structured(&event(json!({"source": "/other"}))).unwrap().2);
        let uuid = "01920000-0000-7000-8000-000000000001";
        assert_eq!(structured(&event(json!({ "id": uuid }))).unwrap().2, uuid);
    }

    #[test]
    fn any_data_becomes_an_object() {
        for (more, data, wrapped) in [
            (json!({}), json!({}), json!("absent")),
            (json!({"data": {}}), json!({}), Value::Null),
            (json!({"data": [1]}), json!({"data": [1]}), json!("data")),
            (json!({"data_base64": "AAE="}), json!({"data_base64": "AAE="}), json!("data_base64")),
        ] {
            let read = structured(&event(more)).unwrap();
            assert_eq!((read.0, read.1["cloudevent"]["wrapped"].clone()), (data, wrapped));
        }
    }

    #[test]
    fn what_is_no_cloudevent_is_named() {
        for (more, pointer) in [
            (json!({"specversion": "0.3"}), "/specversion"),
            (json!({"id": ""}), "/id"),
            (json!({"id": "x".repeat(513)}), "/id"),
            (json!({"source": 7}), "/source"),
            (json!({"type": null}), "/type"),
            (json!({"data": 1, "data_base64": "AA=="}), "/data"),
            (json!({"data_base64": "?"}), "/data_base64"),
            (json!({"Upper": "x"}), ""),
            (json!({"list": [1]}), ""),
            (json!({"big": 1.5}), ""),
            (json!({"sluicemetadata": "[]"}), "/sluicemetadata"),
        ] {
            let fault = structured(&event(more.clone())).unwrap_err();
            assert_eq!((fault.code, fault.pointer.as_deref()), (Code::InvalidEvent, Some(pointer)), "{more}");
        }
    }

    #[test]
    fn headers_are_attributes() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "7"),
            ("ce-source", "/ml"),
            ("ce-type", "risk_alert"),
            ("ce-note", "Euro%20%E2%82%AC"),
            ("content-type", "text/plain"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let read = Foreign::of_binary(&headers, b"hello").unwrap();
        assert_eq!(read.data.get(), r#"{"data":"hello"}"#);
        let metadata: Value = serde_json::from_str(read.metadata.get()).unwrap();
        assert_eq!(metadata["cloudevent"]["extensions"], json!({"note": "Euro €"}));
        assert_eq!(metadata["cloudevent"]["datacontenttype"], "text/plain");
        headers.insert("ce-note", "%zz".parse().unwrap());
        assert!(Foreign::of_binary(&headers, b"").is_err());
        headers.remove("ce-note");
        headers.insert("content-type", "application/json".parse().unwrap());
        assert_eq!(Foreign::of_binary(&headers, b"{").unwrap_err().code, Code::InvalidJson);
        assert_eq!(Foreign::of_binary(&headers, b"[1]").unwrap().data.get(), r#"{"data":[1]}"#);
    }
}
