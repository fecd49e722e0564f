//! Query parameters: each known one once (`event_type` repeatedly), every other one refused by name.

use jiff::Timestamp;
use sluice_http::Reject;
use sluice_wire::code::Code;
use sluice_wire::event::{EventType, parse_time};

use crate::log::Filter;

/// LIMIT: event types named in one query.
const TYPES_MAX: usize = 64;

/// The pairs of a query string, taken out one by one.
#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// Takes a parameter that may be there once.
    pub(crate) fn one(&mut self, name: &str) -> Result<Option<String>, Reject> {
        let mut found = self.all(name);
        let value = found.pop();
        if found.is_empty() {
            Ok(value)
        } else {
            Err(bad(format!("parameter `{name}` is given more than once")))
        }
    }

    /// Takes a parameter that may be repeated.
    pub(crate) fn all(&mut self, name: &str) -> Vec<String> {
        self.0.extract_if(.., |(key, _)| key == name).map(|(_, value)| value).collect()
    }

    /// Refuses what was not taken.
    pub(crate) fn finish(self) -> Result<(), Reject> {
        match self.0.first() {
            Some((key, _)) => {
                let key: String = key.chars().take(64).collect();
                Err(bad(format!("unknown parameter `{}`", key.escape_default())))
            }
            None => Ok(()),
        }
    }

    /// Takes what selects events: types, source, symbol and the window of event time.
    pub(crate) fn filter(&mut self, granted: Filter) -> Result<Filter, Reject> {
        Selection {
            event_type: self.all("event_type"),
            source: self.one("source")?,
            symbol: self.one("symbol")?,
            start_time: self.one("start_time")?.map(|text| time("start_time", &text)).transpose()?,
            end_time: self.one("end_time")?.map(|text| time("end_time", &text)).transpose()?,
        }
        .filter(granted)
    }
}

/// What selects events, from a query or a body.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(crate) event_type: Vec<String>,
    pub(crate) source: Option<String>,
    pub(crate) symbol: Option<String>,
    pub(crate) start_time: Option<Timestamp>,
    pub(crate) end_time: Option<Timestamp>,
}

impl Selection {
    /// The filter, narrowed to what the caller may read.
    pub(crate) fn filter(self, granted: Filter) -> Result<Filter, Reject> {
        if self.event_type.len() > TYPES_MAX {
            return Err(bad(format!("at most {TYPES_MAX} event types can be named")));
        }
        let mut filter = granted;
        for text in &self.event_type {
            let kind = EventType::parse(text).map_err(|error| bad(format!("event_type: {error}")))?;
            filter.kinds.push(kind.as_str().into());
        }
        filter.source = self.source.map(Into::into);
        filter.symbol = self.symbol.map(Into::into);
        filter.from_us = self.start_time.map(Timestamp::as_microsecond);
        filter.to_us = self.end_time.map(Timestamp::as_microsecond);
        Ok(filter)
    }
}

/// A time of a query: ISO 8601, without zone UTC, or milliseconds since 1970.
pub(crate) fn time(name: &str, text: &str) -> Result<Timestamp, Reject> {
    parse_time(text).ok_or_else(|| bad(format!("{name} is neither ISO 8601 nor milliseconds since 1970")))
}

/// A query that cannot be answered.
pub(crate) fn bad(detail: impl Into<String>) -> Reject {
    Reject::new(Code::BadQuery, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_filter_is_put_together() {
        let mut params = params(&[
            ("event_type", "TRADING_SIGNAL"),
            ("event_type", "backtest_complete"),
            ("symbol", "BTC/USDT"),
            ("start_time", "1970-01-01T00:00:01"),
            ("end_time", "2000"),
        ]);
        let filter = params.filter(Filter::default()).unwrap();
        assert_eq!(filter.kinds, ["trading_signal", "backtest_completed"].map(Box::<str>::from));
        assert_eq!((filter.from_us, filter.to_us), (Some(1_000_000), Some(2_000_000)));
        assert_eq!(filter.symbol.as_deref(), Some("BTC/USDT"));
        params.finish().unwrap();
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        for pairs in [
            &[("start_time", "yesterday")][..],
            &[("event_type", "a b")],
            &[("source", "a"), ("source", "b")],
            &[("end_time", "")],
        ] {
            let reject = params(pairs).filter(Filter::default()).unwrap_err();
            assert_eq!(reject.problem().code, Code::BadQuery, "{pairs:?}");
        }
        let many = vec![("event_type", "x"); TYPES_MAX + 1];
        assert!(params(&many).filter(Filter::default()).is_err());
        let reject = params(&[("colour", "red")]).finish().unwrap_err();
        assert!(reject.problem().detail.as_deref().unwrap().contains("`colour`"));
    }
}
