//! Strict JSON: what a hostile body may not do.
//!
//! Refused: nesting deeper than 64, duplicate keys anywhere, numbers outside of f64, trailing
//! bytes. serde_json alone lets a second `"admin"` key win silently in untyped maps; a first pass
//! over the tokens closes that and keeps one rule for typed and untyped bodies. That pass is
//! [`Scanner`]'s; what it does not let pass is judged, and its fault named, by serde_json's own
//! tokens. Cost: the body is scanned twice, a refused one three times.

mod scan;

pub use scan::{Refused, Scanner, Span};

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use crate::code::Code;
use crate::members::Members;
use crate::problem::Problem;

/// Deepest accepted nesting of arrays and objects.
pub const DEPTH_MAX: usize = 64;

/// Why a body is not acceptable JSON.
#[derive(Debug, thiserror::Error)]
#[error("{message} at line {line} column {column}")]
pub struct JsonError {
    /// What is wrong, without the body's content beyond a key name.
    pub message: String,
    /// One-based line.
    pub line: usize,
    /// One-based column.
    pub column: usize,
    /// The JSON is well formed but does not have the expected shape.
    pub shape: bool,
}

/// Parses a body strictly. A list is no struct.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    check(bytes)?;
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    T::deserialize(Members(&mut parser)).map_err(|error| JsonError::from_serde(&error))
}

/// Checks a body's tokens without building anything.
pub fn check(bytes: &[u8]) -> Result<(), JsonError> {
    if passes(bytes).is_ok() { Ok(()) } else { judge(bytes) }
}

fn passes(bytes: &[u8]) -> Result<(), Refused> {
    let mut scanner = Scanner::new(bytes)?;
    scanner.value()?;
    scanner.end()
}

/// Checks token by token, and says what is wrong where.
fn judge(bytes: &[u8]) -> Result<(), JsonError> {
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let checked = Checked { depth: 0 }.deserialize(&mut parser).and_then(|()| parser.end());
    // Depth and duplicates are faults of the JSON itself, whatever shape was expected.
    checked.map_err(|error| JsonError { shape: false, ..JsonError::from_serde(&error) })
}

impl JsonError {
    fn from_serde(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(head, _)| head).to_owned();
        Self { message, line: error.line(), column: error.column(), shape: error.is_data() }
    }
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        Self::new(Code::InvalidJson).detail(error.to_string())
    }
}

struct Checked {
    depth: usize,
}

impl Checked {
    fn deeper<E: de::Error>(&self) -> Result<usize, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(format!("nesting deeper than {DEPTH_MAX}")));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        while seq.next_element_seed(Checked { depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        // std's hasher is keyed at random: chosen keys cannot make it collide.
        let mut seen: HashSet<String> = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                let key: String = key.chars().take(64).collect();
                return Err(de::Error::custom(format!("duplicate key `{}`", key.escape_default())));
            }
            seen.insert(key);
            map.next_value_seed(Checked { depth })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn refuses_what_a_lenient_parser_lets_pass() {
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"[{"x":{"y":1,"y":1}}]"#,
            "1e999",
            "[NaN]",
            "{} {}",
            "",
            "\u{feff}{}",
            r#"{"a":"\ud800"}"#,
        ] {
            assert!(from_slice::<Value>(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(from_slice::<Value>(b"\"\xff\"").is_err());
    }

    #[test]
    fn depth_is_bounded_exactly() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(check(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(check(nested(DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(check("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn error_names_the_place() {
        let error = from_slice::<Value>(b"{\n \"a\":1,\n \"a\":2}").unwrap_err();
        assert_eq!((error.line, error.message.as_str()), (3, "duplicate key `a`"));
    }

    /// Texts that are JSON, or were before somebody changed some bytes.
    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"a\"",
            "\"b\"",
            "\"\"",
            "\"\\u0061\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud800\"",
            "\"\\x\"",
            "\"\u{1}\"",
            "\"a longer text with \u{e4} in it\"",
            "\"\\\"\\\\\"",
            "0",
            "-0",
            "01",
            "-",
            "1.5",
            "1.",
            ".5",
            "1e5",
            "1E+05",
            "1e999",
            "2e-7",
            "123456789012345678901234567890",
            "true",
            "false",
            "null",
            "nul",
            " ",
            "\n\t",
            "\r",
            "\u{b}",
            "{\"a\":1,\"a\":2}",
            "{\"a\": [ ]}",
            "[1, {}]",
        ]);
        let bytes = prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes());
        (bytes, any::<prop::sample::Index>(), any::<Option<u8>>()).prop_map(|(mut bytes, at, change)| {
            if let (Some(byte), false) = (change, bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e90..1e90).prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 60, 30, |inner| {
            let name = "[^\"\\\\\u{0}-\u{1f}]{0,10}";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..10).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..30)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Has it a number whose size only a parser knows: many digits, or an exponent of three and more?
    fn has_long_number(text: &str) -> bool {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        text.char_indices().any(|(at, char)| match char {
            'e' | 'E' => digits(text[at + 1..].trim_start_matches(['+', '-'])) > 2,
            '0'..='9' => digits(&text[at..]) > scan::DIGITS_SURE,
            _ => false,
        })
    }

    #[test]
    fn numbers_near_the_ends_of_f64_take_two_looks() {
        for (number, is_good) in [
            ("2e-701", true),
            ("1e308", true),
            ("1e309", false),
            (&"9".repeat(308), true),
            (&"9".repeat(310), false),
        ] {
            assert_eq!(passes(number.as_bytes()), Err(Refused), "{number}");
            assert_eq!(check(number.as_bytes()).is_ok(), is_good, "{number}");
        }
    }

    #[test]
    fn many_names_are_compared_too() {
        let object = |last: usize| {
            let names: Vec<String> = (0..40).chain([last]).map(|n| format!("\"n{n}\":{n}")).collect();
            format!("{{{}}}", names.join(","))
        };
        assert_eq!(passes(object(40).as_bytes()), Ok(()));
        for repeated in [0, 15, 16, 39] {
            assert!(check(object(repeated).as_bytes()).is_err(), "{repeated}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_at_once_is_what_is_judged_good(text in texts()) {
            let judged = judge(&text);
            if passes(&text).is_ok() {
                prop_assert!(judged.is_ok(), "{judged:?}");
            } else if judged.is_ok() {
                let text = String::from_utf8(text).unwrap();
                let takes_two_looks = text.contains("\\u0061") || has_long_number(&text);
                prop_assert!(takes_two_looks, "only an escaped name or a long number does: {text}");
            }
        }

        #[test]
        fn every_value_passes_at_once(value in values()) {
            prop_assert_eq!(passes(value.to_string().as_bytes()), Ok(()));
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            let mut scanner = Scanner::new(&pretty).unwrap();
            let span = scanner.value().unwrap();
            prop_assert_eq!(span.text.as_bytes(), &pretty[..]);
            prop_assert_eq!(span.is_compact, !pretty.contains(&b'\n'));
            prop_assert_eq!(scanner.end(), Ok(()));
        }

        #[test]
        fn never_panics_and_agrees_with_serde_on_validity(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let strict = check(&bytes).is_ok();
            if strict {
                prop_assert!(serde_json::from_slice::<Value>(&bytes).is_ok());
            }
        }
    }
}
