//! Durations ("250ms") and sizes ("1MiB"): numbers that say their unit.

use std::ops::RangeInclusive;
use std::time;

use schemars::{Schema, json_schema};
use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::{Fault, Kind, Parsed, text};
use crate::code::Code;
use crate::report::quote;

/// Units of time in nanoseconds, largest first.
const TIME_UNITS: [(&str, u64); 8] = [
    ("w", 604_800_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of size in bytes, largest first.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A duration in a range: numbers with units, such as "250ms", "1.5s", "1h30m".
pub(crate) struct Duration(pub(crate) RangeInclusive<time::Duration>);

impl Kind for Duration {
    type Out = time::Duration;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<time::Duration> {
        let written = text("a duration such as \"250ms\"", value).map_err(|faults| {
            faults.into_iter().map(|fault| fault.help(unit_help(value, "s"))).collect::<Vec<_>>()
        })?;
        let parsed = parse_duration(written).ok_or_else(|| {
            vec![
                Fault::new(Code::Duration, format!("{} is not a duration", quote(written)), value.span())
                    .help("write a number with its unit (ms, s, m, h, d), such as \"250ms\" or \"1h30m\""),
            ]
        })?;
        if self.0.contains(&parsed) {
            return Ok(parsed);
        }
        let bounds = format!("{} to {}", show_duration(*self.0.start()), show_duration(*self.0.end()));
        let message = format!("the duration must be from {bounds}");
        Err(vec![Fault::new(Code::Duration, message, value.span()).label("out of range")])
    }

    fn show(&self, value: &time::Duration) -> Value {
        Value::from(show_duration(*value))
    }

    fn schema(&self) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^([0-9]+(\.[0-9]+)?(w|d|h|m|s|ms|us|ns))+$",
        })
    }
}

/// A size in a range: a number with a unit, such as "64KiB" (1024) or "1MB" (1000).
pub(crate) struct Size(pub(crate) RangeInclusive<u64>);

impl Kind for Size {
    type Out = u64;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<u64> {
        let written = text("a size such as \"1MiB\"", value).map_err(|faults| {
            faults.into_iter().map(|fault| fault.help(unit_help(value, "B"))).collect::<Vec<_>>()
        })?;
        let parsed = parse_size(written).ok_or_else(|| {
            vec![
                Fault::new(Code::Size, format!("{} is not a size", quote(written)), value.span())
                    .help("write a number with its unit (B, KiB, MiB, GiB, kB, MB, GB), such as \"64KiB\""),
            ]
        })?;
        if self.0.contains(&parsed) {
            return Ok(parsed);
        }
        let message =
            format!("the size must be from {} to {}", show_size(*self.0.start()), show_size(*self.0.end()));
        Err(vec![Fault::new(Code::Size, message, value.span()).label("out of range")])
    }

    fn show(&self, value: &u64) -> Value {
        Value::from(show_size(*value))
    }

    fn schema(&self) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(TiB|GiB|MiB|KiB|GB|MB|kB|B)$" })
    }
}

/// For a bare number: the same number with a unit.
fn unit_help(value: &Spanned<DeValue<'_>>, unit: &str) -> String {
    match value.get_ref() {
        DeValue::Integer(digits) if digits.radix() == 10 && digits.as_str().len() < 20 => {
            format!("write the number with its unit: \"{}{unit}\"", digits.as_str())
        }
        _ => "write a number with its unit in quotes".to_owned(),
    }
}

/// The duration a text says; `None` where it says none.
pub(crate) fn parse_duration(text: &str) -> Option<time::Duration> {
    let mut rest = text.trim();
    let mut nanos: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let scale = TIME_UNITS.iter().find(|unit| unit.0 == &after[..unit_len])?.1;
        nanos = nanos.checked_add(scaled(number, scale)?)?;
        rest = &after[unit_len..];
    }
    Some(time::Duration::from_nanos(nanos))
}

/// The bytes a text says; `None` where it says none.
fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim())?;
    let scale = SIZE_UNITS.iter().find(|known| known.0 == unit.trim_start())?.1;
    scaled(number, scale)
}

/// Leading decimal digits with at most one point, and what follows.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let digits =
        number.starts_with(|c: char| c.is_ascii_digit()) && number.ends_with(|c: char| c.is_ascii_digit());
    (digits && number.len() <= 20).then_some((number, rest))
}

/// `number × scale`, exact; `None` on overflow, a second point, or a fraction finer than one.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let unit = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale);
    let part = (part % unit == 0).then_some(part / unit)?;
    whole.checked_add(u64::try_from(part).ok()?)
}

/// The shortest way to write a duration: the largest unit that divides it.
pub(crate) fn show_duration(duration: time::Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".to_owned();
    }
    // Days and weeks read worse than hours: a token lives "24h".
    show_scaled(nanos, TIME_UNITS[2..].iter())
}

fn show_size(bytes: u64) -> String {
    show_scaled(bytes, SIZE_UNITS[..4].iter().chain(&SIZE_UNITS[7..]))
}

fn show_scaled<'a>(number: u64, units: impl Iterator<Item = &'a (&'static str, u64)>) -> String {
    units
        .filter(|(_, scale)| number.is_multiple_of(*scale))
        .map(|(unit, scale)| format!("{}{unit}", number / scale))
        .find(|shown| !shown.starts_with('0'))
        .unwrap_or_else(|| number.to_string() + "B")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        let cases = [
            ("250ms", Some(Duration::from_millis(250))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("1h30m", Some(Duration::from_secs(5400))),
            ("0s", Some(Duration::ZERO)),
            ("7d", Some(Duration::from_secs(604_800))),
            ("", None),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("1 s", None),
            ("1.2.3s", None),
            ("0.3ns", None),
            ("1S", None),
            ("99999999999999999999w", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_duration(text), want, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        let cases = [
            ("1MiB", Some(1 << 20)),
            ("1.5KiB", Some(1536)),
            ("2 MB", Some(2_000_000)),
            ("7B", Some(7)),
            ("7", None),
            ("1mib", None),
            ("20000000TiB", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_size(text), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_reads_back(nanos in 0..u64::MAX / 2, shift in 0_u32..60) {
            let nanos = nanos >> shift;
            let duration = Duration::from_nanos(nanos);
            proptest::prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
            proptest::prop_assert_eq!(parse_size(&show_size(nanos)), Some(nanos));
        }
    }
}
