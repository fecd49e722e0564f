//! Symbols and timeframes as they stand in paths: `/series/BTC/USDT/1m/candles`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest accepted symbol, bytes.
pub const SYMBOL_BYTES_MAX: usize = 64;

/// A symbol: one or two segments of `[A-Za-z0-9._:-]+`, none of the form of a timeframe.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Symbol(String);

/// A timeframe: `[1-9][0-9]*(s|m|h|d|w|M)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timeframe(String);

/// The text is not a symbol or not a timeframe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// Not a symbol.
    #[error("a symbol is one or two segments of letters, digits and `._:-`, at most 64 bytes")]
    Symbol,
    /// Not a timeframe.
    #[error("a timeframe is a number followed by s, m, h, d, w or M, like `1m`")]
    Timeframe,
}

impl Symbol {
    /// Parses the text of a symbol.
    pub fn parse(text: &str) -> Result<Self, SymbolError> {
        let segments = text.split('/');
        let fits = text.len() <= SYMBOL_BYTES_MAX
            && segments.clone().count() <= 2
            && segments.clone().all(|segment| is_segment(segment) && !is_timeframe(segment));
        if fits { Ok(Self(text.to_owned())) } else { Err(SymbolError::Symbol) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Timeframe {
    /// Parses the text of a timeframe.
    pub fn parse(text: &str) -> Result<Self, SymbolError> {
        if is_timeframe(text) { Ok(Self(text.to_owned())) } else { Err(SymbolError::Timeframe) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its length in milliseconds; a month counts as 30 days.
    pub fn millis(&self) -> u64 {
        let (number, unit) = self.0.split_at(self.0.len() - 1);
        let unit_ms = match unit {
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => 2_592_000_000,
        };
        number.parse::<u64>().unwrap_or(1).saturating_mul(unit_ms)
    }
}

/// Splits `BTC/USDT/1m/candles` into symbol, timeframe and the rest; the timeframe is the last
/// segment of its form.
pub fn split_path(path: &str) -> Result<(Symbol, Timeframe, &str), SymbolError> {
    let mut found = None;
    let mut start = 0;
    for segment in path.split('/') {
        if is_timeframe(segment) {
            found = Some((start, start + segment.len()));
        }
        start += segment.len() + 1;
    }
    let (from, to) = found.ok_or(SymbolError::Timeframe)?;
    let symbol = Symbol::parse(path[..from].strip_suffix('/').ok_or(SymbolError::Symbol)?)?;
    Ok((symbol, Timeframe::parse(&path[from..to])?, path[to..].trim_start_matches('/')))
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
}

fn is_timeframe(text: &str) -> bool {
    let Some((last, digits)) = text.as_bytes().split_last() else { return false };
    b"smhdwM".contains(last)
        && (1..=9).contains(&digits.len())
        && digits[0] != b'0'
        && digits.iter().all(u8::is_ascii_digit)
}

macro_rules! text_type {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = SymbolError;
            fn try_from(text: String) -> Result<Self, SymbolError> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}
text_type!(Symbol);
text_type!(Timeframe);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_splits_at_the_last_timeframe() {
        let (symbol, timeframe, rest) = split_path("BTC/USDT/1m/candles").unwrap();
        assert_eq!((symbol.as_str(), timeframe.as_str(), rest), ("BTC/USDT", "1m", "candles"));
        let (symbol, timeframe, rest) = split_path("AAPL/1d").unwrap();
        assert_eq!((symbol.as_str(), timeframe.as_str(), rest), ("AAPL", "1d", ""));
        assert!(split_path("BTC/USDT/candles").is_err());
        assert!(split_path("1m/candles").is_err());
        assert!(split_path("a/b/c/1m").is_err());
    }

    #[test]
    fn symbols_have_one_form() {
        for good in ["BTC/USDT", "BRK.B", "ES:2026-12", "a"] {
            assert!(Symbol::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a//b", "a/b/c", "1m", "a/1d", "a b", "ä", "../x/", &"x".repeat(65)] {
            assert!(Symbol::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Timeframe::parse("15m").unwrap().millis(), 900_000);
        assert!(Timeframe::parse("0m").is_err());
    }
}
