//! JSON text without building trees: an event's content is stored as it came, on one line.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

/// Appends valid JSON text without the white space between its tokens.
pub(crate) fn compact(raw: &str, out: &mut Vec<u8>) {
    let bytes = raw.as_bytes();
    let (mut kept, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                out.extend_from_slice(&bytes[kept..at]);
                at += 1;
                kept = at;
            }
            b'"' => at = string_end(bytes, at),
            _ => at += 1,
        }
    }
    out.extend_from_slice(&bytes[kept..]);
}

/// Offset after the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() {
        match bytes[end] {
            b'\\' => end += 2,
            b'"' => return end + 1,
            _ => end += 1,
        }
    }
    bytes.len()
}

/// Appends a string with its quotes.
pub(crate) fn string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string always serializes, and memory takes it");
}

/// Appends a whole number.
pub(crate) fn number(mut value: u64, out: &mut Vec<u8>) {
    let (mut digits, mut at) = ([0; 20], 20);
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

/// The members of an object in their order, values as text.
#[derive(Debug, Default)]
pub(crate) struct Members<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The members of an object's text; `None` when it is not an object.
    pub(crate) fn of(raw: &'a RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }

    /// The value of a member.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// Appends the members but those named, without braces; whether there was one.
    pub(crate) fn write_without(&self, names: &[&str], mut first: bool, out: &mut Vec<u8>) -> bool {
        for (key, value) in self.0.iter().filter(|(key, _)| !names.contains(&&**key)) {
            if !first {
                out.push(b',');
            }
            first = false;
            string(key, out);
            out.push(b':');
            compact(value.get(), out);
        }
        first
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(Key(key)) = map.next_key()? {
                    members.push((key, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A key, borrowed when it holds no escapes. serde's own `Cow` always copies.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The elements of an array as text, no more than `N`; the number of all of them.
#[derive(Debug)]
pub(crate) struct Capped<'a, const N: usize> {
    /// The first elements.
    pub(crate) first: Vec<&'a RawValue>,
    /// How many there are.
    pub(crate) count: usize,
}

impl<'de: 'a, 'a, const N: usize> Deserialize<'de> for Capped<'a, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<const N: usize>;
        impl<'de, const N: usize> Visitor<'de> for Reader<N> {
            type Value = Capped<'de, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Capped<'de, N>, A::Error> {
                let mut first = Vec::new();
                while first.len() < N {
                    match seq.next_element()? {
                        Some(element) => first.push(element),
                        None => return Ok(Capped { count: first.len(), first }),
                    }
                }
                let mut count = N;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Capped { first, count })
            }
        }
        deserializer.deserialize_seq(Reader::<N>)
    }
}

/// A JSON string as text, or what is wrong with it.
pub(crate) fn text(value: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    let Key(text) = serde_json::from_str(value)?;
    Ok(text)
}

/// One string or a list of strings.
#[derive(Debug, Default)]
pub(crate) struct OneOrMany(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = seq.next_element()? {
                    all.push(text);
                }
                Ok(OneOrMany(all))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn compacted(raw: &str) -> String {
        let mut out = Vec::new();
        compact(raw, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn white_space_goes_between_tokens_and_stays_in_strings() {
        let raw = "{ \"a b\" : [ 1 ,\n 2.50 ], \"q\\\" \\\\\" : \" x \" ,\t\"n\":null }";
        assert_eq!(compacted(raw), r#"{"a b":[1,2.50],"q\" \\":" x ","n":null}"#);
    }

    proptest! {
        #[test]
        fn compact_text_means_the_same(keys in proptest::collection::vec(".{0,12}", 0..6), number in any::<f64>()) {
            let value: Value = keys.iter().map(|key| (key.clone(), serde_json::json!([key, number]))).collect();
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compacted(&pretty), value.to_string());
        }
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_by_fmt(value in prop_oneof![any::<u64>(), 0_u64..2_000, Just(u64::MAX)]) {
            let mut out = Vec::new();
            number(value, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }

    #[test]
    fn members_keep_order_and_numbers_as_written() {
        let raw: Box<RawValue> = serde_json::from_str(r#"{"z":1.50,"\u0072ole":"x","a":{"b":[ ]}}"#).unwrap();
        let members = Members::of(&raw).unwrap();
        let mut out = Vec::new();
        members.write_without(&["role"], true, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), r#""z":1.50,"a":{"b":[]}"#);
        assert_eq!(members.get("z").unwrap().get(), "1.50");
    }

    #[test]
    fn long_arrays_are_counted_but_not_kept() {
        let capped: Capped<'_, 2> = serde_json::from_str("[1,{},3,4]").unwrap();
        assert_eq!((capped.first.len(), capped.count), (2, 4));
        let capped: Capped<'_, 2> = serde_json::from_str("[1]").unwrap();
        assert_eq!((capped.first.len(), capped.count), (1, 1));
    }
}
