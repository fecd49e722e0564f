//! An event as a client sends it: from JSON text to its members, in one pass.
//!
//! The pass of the strict check notes where the members stand, and nothing is looked at twice. What it does not
//! understand at once (a member that no event has, one of another kind, names with escapes) is read again by
//! [`parse`], which says what is wrong with it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use sluice_wire::code::Code;
use sluice_wire::json::{self as strict, Refused, Scanner, Span};

use crate::error::Fault;
use crate::json;
use crate::log::LABEL_BYTES_MAX;

/// LIMIT: one event as received.
pub(crate) const EVENT_BYTES_MAX: usize = 256 * 1024;

/// An event's members; what is JSON in them is text of values that are known to be good.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Incoming<'a> {
    pub(crate) event_type: Cow<'a, str>,
    pub(crate) event_id: Option<Cow<'a, str>>,
    pub(crate) timestamp: Option<&'a str>,
    pub(crate) source: Option<Cow<'a, str>>,
    pub(crate) data: Option<Span<'a>>,
    pub(crate) metadata: Option<Span<'a>>,
    /// What the event can be found under: [`symbol_of`] its data.
    pub(crate) symbol: Cow<'a, str>,
}

/// The same for serde; members that no event has are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow, default)]
    event_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

/// Reads the event that a body is.
pub(crate) fn read(body: &[u8]) -> Result<Incoming<'_>, Fault> {
    if let Ok(mut scanner) = Scanner::new(body)
        && let Ok((text, Some(event))) = scan(&mut scanner)
        && scanner.end().is_ok()
    {
        fits(text)?;
        return Ok(event);
    }
    strict::check(body)?;
    parse(std::str::from_utf8(body).map_err(|_| Fault::new(Code::InvalidJson, "not UTF-8"))?)
}

/// Reads an event's JSON. The text must have passed the strict check.
pub(crate) fn parse(text: &str) -> Result<Incoming<'_>, Fault> {
    fits(text)?;
    if !text.trim_start().starts_with('{') {
        // serde takes an array of a struct's members too.
        return Err(Fault::new(Code::InvalidEvent, "an event is an object"));
    }
    let raw: Raw<'_> =
        serde_json::from_str(text).map_err(|error| Fault::new(Code::InvalidEvent, error.to_string()))?;
    Ok(Incoming {
        event_type: raw.event_type,
        event_id: raw.event_id,
        timestamp: raw.timestamp.map(RawValue::get),
        source: raw.source,
        data: raw.data.map(loose),
        metadata: raw.metadata.map(loose),
        symbol: raw.data.map_or(Cow::Borrowed(""), |data| symbol_of(data.get())),
    })
}

/// Passes an event: its text, and its members where they were understood.
pub(crate) fn scan<'a>(scanner: &mut Scanner<'a>) -> Result<(&'a str, Option<Incoming<'a>>), Refused> {
    let mut found = Found { is_odd: scanner.peek() != Some(b'{'), ..Found::default() };
    let whole = scanner.span(|scanner| {
        if found.is_odd {
            return scanner.value().map(|_| ());
        }
        scanner.object(|scanner, name| found.member(scanner, name))
    })?;
    Ok((whole.text, found.event()))
}

/// Refuses an event that is too large.
pub(crate) fn fits(text: &str) -> Result<(), Fault> {
    if text.len() <= EVENT_BYTES_MAX {
        return Ok(());
    }
    let detail = format!("the event has {} bytes, at most {EVENT_BYTES_MAX} are allowed", text.len());
    Err(Fault::new(Code::BodyTooLarge, detail))
}

/// A value that may have white space between its tokens.
pub(crate) fn loose(raw: &RawValue) -> Span<'_> {
    Span { text: raw.get(), is_compact: false }
}

/// The symbol an event can be found under: `data.symbol` when it is a text that a label can hold.
pub(crate) fn symbol_of(data: &str) -> Cow<'_, str> {
    #[derive(Deserialize)]
    struct Probe<'a> {
        #[serde(borrow, default)]
        symbol: Option<&'a RawValue>,
    }
    let probe = serde_json::from_str(data).unwrap_or(Probe { symbol: None });
    probe.symbol.map_or(Cow::Borrowed(""), |raw| label(raw.get()))
}

/// A value as a label: empty when it is no text, or too long.
fn label(value: &str) -> Cow<'_, str> {
    let text = if value.starts_with('"') { json::text(value).ok() } else { None };
    text.filter(|text| text.len() <= LABEL_BYTES_MAX).unwrap_or_default()
}

/// What a pass over an event has found.
#[derive(Default)]
struct Found<'a> {
    event_type: Option<&'a str>,
    event_id: Option<&'a str>,
    timestamp: Option<&'a str>,
    source: Option<&'a str>,
    data: Option<Span<'a>>,
    metadata: Option<Span<'a>>,
    symbol: Option<&'a str>,
    /// There is something that takes another look.
    is_odd: bool,
}

impl<'a> Found<'a> {
    /// Passes a member's value.
    fn member(&mut self, scanner: &mut Scanner<'a>, name: &str) -> Result<(), Refused> {
        let slot = match name {
            "event_type" => &mut self.event_type,
            "event_id" => &mut self.event_id,
            "timestamp" => &mut self.timestamp,
            "source" => &mut self.source,
            "data" => return self.data(scanner),
            "metadata" => {
                self.metadata = Some(scanner.value()?);
                return Ok(());
            }
            _ => {
                self.is_odd = true;
                return scanner.value().map(|_| ());
            }
        };
        *slot = Some(scanner.value()?.text);
        Ok(())
    }

    fn data(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Refused> {
        if scanner.peek() != Some(b'{') {
            self.data = Some(scanner.value()?);
            return Ok(());
        }
        let symbol = &mut self.symbol;
        let data = scanner.span(|scanner| {
            scanner.object(|scanner, name| {
                let value = scanner.value()?;
                if name == "symbol" {
                    *symbol = Some(value.text);
                }
                Ok(())
            })
        })?;
        self.data = Some(data);
        Ok(())
    }

    /// `None` for what takes another look.
    fn event(self) -> Option<Incoming<'a>> {
        if self.is_odd {
            return None;
        }
        let given = |value: &Span<'_>| value.text != "null";
        Some(Incoming {
            event_type: plain(self.event_type?)?.into(),
            event_id: optional(self.event_id).ok()?,
            timestamp: self.timestamp.filter(|value| *value != "null"),
            source: optional(self.source).ok()?,
            data: self.data.filter(given),
            metadata: self.metadata.filter(given),
            symbol: self.symbol.map_or(Cow::Borrowed(""), label),
        })
    }
}

/// The text of a string without escapes.
fn plain(value: &str) -> Option<&str> {
    let text = value.strip_prefix('"')?.strip_suffix('"')?;
    (!text.contains('\\')).then_some(text)
}

/// The same where `null` stands for nothing; refused is what takes another look.
fn optional(value: Option<&str>) -> Result<Option<Cow<'_, str>>, Refused> {
    match value {
        None | Some("null") => Ok(None),
        Some(value) => plain(value).map(|text| Some(text.into())).ok_or(Refused),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_found_in_the_data() {
        assert_eq!(symbol_of(r#"{"a":{"symbol":"no"},"symbol":"BTC/USDT"}"#), "BTC/USDT");
        assert_eq!(symbol_of(r#"{"symbol":7}"#), "");
        assert_eq!(symbol_of(&format!(r#"{{"symbol":"{}"}}"#, "x".repeat(300))), "");
    }

    /// What both ways make of a text, with the spans' own notes left out.
    fn both(text: &str) -> (Option<Incoming<'_>>, Result<Incoming<'_>, Fault>) {
        let mut scanner = Scanner::new(text.as_bytes()).unwrap();
        let mut event = scan(&mut scanner).unwrap().1;
        if let Some(event) = &mut event {
            for span in [&mut event.data, &mut event.metadata].into_iter().flatten() {
                span.is_compact = false;
            }
        }
        (event, parse(text))
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_two_find(
            members in prop::collection::btree_map(
                prop::sample::select(vec![
                    "event_type", "event_id", "timestamp", "source", "data", "metadata", "payload", "even\\u0074_id",
                ]),
                prop::sample::select(vec![
                    "null", "1", "\"x\"", "\"a\\u0062\"", "\"\"", "[1]", "{}", "{ \"symbol\" : \"B\" }",
                    "{\"symbol\":\"\\\"q\"}", "{\"symbol\":3,\"a\":{\"symbol\":\"x\"}}", "{\"role\":\"edge\"}",
                ]),
                0..7,
            ),
        ) {
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("\"{name}\" : {value}")).collect();
            let text = format!("{{{}}}", members.join(", "));
            if text.contains("even\\u") {
                match strict::check(text.as_bytes()) {
                    Ok(()) => prop_assert_eq!(read(text.as_bytes()), parse(&text)),
                    Err(error) => prop_assert_eq!(read(text.as_bytes()), Err(error.into())),
                }
                return Ok(());
            }
            let (at_once, looked_at) = both(&text);
            if let Some(event) = at_once {
                prop_assert_eq!(Ok(event), looked_at);
            } else if looked_at.is_ok() {
                prop_assert!(text.contains("a\\u0062"), "only an escaped text takes two looks: {}", text);
            }
        }
    }
}
