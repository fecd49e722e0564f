//! Which series: a symbol and a timeframe, and the name of its file.

use std::cmp::Ordering;

use sluice_wire::symbol::{Symbol, Timeframe, split_path};

/// What the file of a series ends with.
const SUFFIX: &str = ".series";

/// A symbol and a timeframe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeriesKey {
    pub(crate) symbol: Symbol,
    pub(crate) timeframe: Timeframe,
}

impl SeriesKey {
    pub(crate) const fn new(symbol: Symbol, timeframe: Timeframe) -> Self {
        Self { symbol, timeframe }
    }

    /// As it stands in paths: `BTC/USDT/1m`.
    pub(crate) fn text(&self) -> String {
        format!("{}/{}", self.symbol, self.timeframe)
    }

    /// From its text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (symbol, timeframe, rest) = split_path(text).ok()?;
        rest.is_empty().then(|| Self::new(symbol, timeframe))
    }

    /// `BTC~USDT@1m.series`: one name without a slash, so that `..` of a symbol is never a folder. Neither `~` nor `@`
    /// is a letter of symbols.
    pub(crate) fn file_name(&self) -> String {
        format!("{}@{}{SUFFIX}", self.symbol.as_str().replace('/', "~"), self.timeframe)
    }

    /// From the name of its file.
    pub(crate) fn of_file_name(name: &str) -> Option<Self> {
        let (symbol, timeframe) = name.strip_suffix(SUFFIX)?.split_once('@')?;
        let symbol = Symbol::parse(&symbol.replace('~', "/")).ok()?;
        Some(Self::new(symbol, Timeframe::parse(timeframe).ok()?))
    }
}

impl Ord for SeriesKey {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.symbol.as_str(), self.timeframe.as_str())
            .cmp(&(other.symbol.as_str(), other.timeframe.as_str()))
    }
}

impl PartialOrd for SeriesKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_names_and_nothing_else() {
        for text in ["BTC/USDT/1m", "AAPL/1d", "../1m", "../../1m", "./5M", "a.b:c-d_e/x/3w"] {
            let key = SeriesKey::parse(text).unwrap();
            let name = key.file_name();
            assert!(!name.contains('/') && name != "." && name != "..", "{name}");
            assert_eq!(SeriesKey::of_file_name(&name), Some(key.clone()), "{name}");
            assert_eq!(key.text(), text);
        }
        for name in ["", ".series", "@1m.series", "a@1x.series", "a@1m", "a~b~c@1m.series", "a/b@1m.seriesx"]
        {
            assert_eq!(SeriesKey::of_file_name(name), None, "{name}");
        }
        assert_eq!(SeriesKey::parse("BTC/1m/candles"), None);
    }
}
