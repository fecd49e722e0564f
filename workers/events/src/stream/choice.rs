//! What a subscriber asks for: which events, from where, how many, and what becomes of it when it is slow.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use sluice_http::Reject;

use super::position::Start;
use crate::log::{Filter, Record};
use crate::params::{Params, bad};
use crate::state;

/// LIMIT: symbols named by one subscription.
const SYMBOLS_MAX: usize = 256;
/// LIMIT: sources named by one subscription.
const SOURCES_MAX: usize = 64;
/// Updates a second of each type and symbol where `mode=conflate` names none.
const CONFLATE_RATE: f64 = 10.0;
/// LIMIT: updates a second of each type and symbol.
const CONFLATE_RATES: std::ops::RangeInclusive<f64> = 0.1..=1_000.0;
/// LIMIT: events a second of a stream of all events.
const ALL_RATES: std::ops::RangeInclusive<f64> = 0.1..=100_000.0;

/// What is wrong with what was asked for, and where.
#[derive(Debug)]
pub(crate) struct Misfit {
    /// The member, for who asked in JSON.
    pub(crate) pointer: &'static str,
    /// What is wrong.
    pub(crate) reject: Reject,
}

impl Misfit {
    /// Names the member of what is refused.
    pub(crate) fn at(pointer: &'static str) -> impl Fn(Reject) -> Self {
        move |reject| Self { pointer, reject }
    }
}

/// Which events are wanted.
#[derive(Debug)]
pub(crate) struct Selector {
    /// What the log can select by itself.
    pub(crate) filter: Filter,
    /// When more than one is named: any of them, sorted.
    symbols: Vec<Box<str>>,
    /// When more than one is named: any of them, sorted.
    sources: Vec<Box<str>>,
}

impl Selector {
    /// Takes the names of `GET /events`; `symbol` and `source` may be repeated.
    pub(crate) fn parse(params: &mut Params, granted: Filter) -> Result<Self, Misfit> {
        let symbols = names(params, "symbol", SYMBOLS_MAX).map_err(Misfit::at("/symbol"))?;
        let sources = names(params, "source", SOURCES_MAX).map_err(Misfit::at("/source"))?;
        let mut filter = params.filter(granted).map_err(Misfit::at("/event_type"))?;
        let (symbol, symbols) = only(symbols);
        let (source, sources) = only(sources);
        (filter.symbol, filter.source) = (symbol, source);
        Ok(Self { filter, symbols, sources })
    }

    /// The symbols that are named; none: any.
    pub(crate) fn symbols(&self) -> &[Box<str>] {
        self.filter.symbol.as_ref().map_or(&self.symbols, std::slice::from_ref)
    }

    /// Whether an event is wanted.
    pub(crate) fn admits(&self, record: &Record) -> bool {
        self.admits_read(record) && self.filter.admits(record)
    }

    /// Whether an event is wanted that the log's own filter let through.
    pub(crate) fn admits_read(&self, record: &Record) -> bool {
        among(&self.symbols, record.symbol()) && among(&self.sources, record.source())
    }
}

fn among(names: &[Box<str>], name: &str) -> bool {
    names.is_empty() || names.binary_search_by(|known| (**known).cmp(name)).is_ok()
}

fn names(params: &mut Params, name: &str, most: usize) -> Result<Vec<Box<str>>, Reject> {
    let mut names: Vec<Box<str>> = params.all(name).into_iter().map(Into::into).collect();
    if names.len() > most {
        return Err(bad(format!("at most {most} of `{name}` can be named")));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn only(mut names: Vec<Box<str>>) -> (Option<Box<str>>, Vec<Box<str>>) {
    if names.len() == 1 { (names.pop(), names) } else { (None, names) }
}

/// How events go out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    /// Each of them, at most so many a second.
    All {
        /// Events a second; `None` as fast as the connection takes them.
        rate: Option<f64>,
    },
    /// The newest of each type and symbol.
    Conflate {
        /// Between two of one type and symbol.
        every: Duration,
    },
}

/// What becomes of a subscriber that has fallen out of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnSlow {
    /// It gets everything from the log, at its own pace.
    CatchUp,
    /// It gets the newest of each type and symbol until it has caught up.
    Conflate,
    /// It goes on with the present, and is told of the gap.
    Drop,
    /// It is told so and closed.
    Disconnect,
}

/// All that a subscription is made of.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) selector: Arc<Selector>,
    pub(crate) start: Start,
    pub(crate) mode: Mode,
    pub(crate) on_slow: OnSlow,
    pub(crate) snapshot: bool,
}

impl Choice {
    /// Takes everything a subscription can name; the rest stays for the caller to look at.
    pub(crate) fn parse(params: &mut Params, headers: &HeaderMap, granted: Filter) -> Result<Self, Misfit> {
        let start = Start::parse(params, headers)?;
        let mode = mode(params)?;
        let on_slow = on_slow(params).map_err(Misfit::at("/on_slow"))?;
        let snapshot = match params.one("snapshot").map_err(Misfit::at("/snapshot"))?.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Misfit::at("/snapshot")(bad("snapshot is `true` or `false`"))),
        };
        let selector = Arc::new(Selector::parse(params, granted)?);
        if snapshot {
            check_snapshot(&selector, start).map_err(Misfit::at("/snapshot"))?;
        }
        Ok(Self { selector, start, mode, on_slow, snapshot })
    }
}

/// A snapshot is of the present and of market data. Whoever comes back with an id has had one.
fn check_snapshot(selector: &Selector, start: Start) -> Result<(), Reject> {
    if matches!(start, Start::Earliest | Start::Time { .. }) {
        return Err(bad("a snapshot is of the present: it goes with from=now alone"));
    }
    if !selector.filter.admits_type(state::KIND) {
        return Err(bad(format!("a snapshot is of `{}`, which is not among the types", state::KIND)));
    }
    Ok(())
}

fn mode(params: &mut Params) -> Result<Mode, Misfit> {
    let mode = params.one("mode").map_err(Misfit::at("/mode"))?;
    let rate = params.one("max_rate").map_err(Misfit::at("/max_rate"))?;
    let rate = |allowed: std::ops::RangeInclusive<f64>| match &rate {
        None => Ok(None),
        Some(text) => {
            let rate = text.parse().ok().filter(|rate| allowed.contains(rate));
            let (least, most) = (allowed.start(), allowed.end());
            let misfit = || bad(format!("max_rate is a number from {least} to {most} a second in this mode"));
            rate.map(Some).ok_or_else(misfit).map_err(Misfit::at("/max_rate"))
        }
    };
    match mode.as_deref() {
        None | Some("all") => Ok(Mode::All { rate: rate(ALL_RATES)? }),
        Some("conflate") => {
            let rate = rate(CONFLATE_RATES)?.unwrap_or(CONFLATE_RATE);
            Ok(Mode::Conflate { every: Duration::from_secs_f64(1.0 / rate) })
        }
        Some(_) => Err(Misfit::at("/mode")(bad("mode is `all` or `conflate`"))),
    }
}

fn on_slow(params: &mut Params) -> Result<OnSlow, Reject> {
    match params.one("on_slow")?.as_deref() {
        None | Some("catch_up") => Ok(OnSlow::CatchUp),
        Some("conflate") => Ok(OnSlow::Conflate),
        Some("drop") => Ok(OnSlow::Drop),
        Some("disconnect") => Ok(OnSlow::Disconnect),
        Some(_) => Err(bad("on_slow is `catch_up`, `conflate`, `drop` or `disconnect`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::record;

    fn choice(pairs: &[(&str, &str)]) -> Result<Choice, Misfit> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut params = Params::new(pairs);
        let choice = Choice::parse(&mut params, &HeaderMap::new(), Filter::default())?;
        params.finish().map_err(Misfit::at(""))?;
        Ok(choice)
    }

    #[test]
    fn a_choice_is_put_together() {
        let plain = choice(&[]).unwrap();
        assert_eq!((plain.mode, plain.on_slow), (Mode::All { rate: None }, OnSlow::CatchUp));
        let full = choice(&[
            ("mode", "conflate"),
            ("max_rate", "4"),
            ("on_slow", "drop"),
            ("snapshot", "true"),
            ("symbol", "ETH/USDT"),
            ("symbol", "BTC/USDT"),
            ("source", "test"),
        ])
        .unwrap();
        assert_eq!(full.mode, Mode::Conflate { every: Duration::from_millis(250) });
        assert!(full.snapshot && full.on_slow == OnSlow::Drop);
        assert!(full.selector.admits(&record(1, "market_data_update")));
        let other = choice(&[("symbol", "ETH/USDT"), ("symbol", "SOL/USDT")]).unwrap();
        assert!(!other.selector.admits(&record(1, "market_data_update")));
        assert_eq!(choice(&[("max_rate", "50")]).unwrap().mode, Mode::All { rate: Some(50.0) });
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        for (pairs, pointer) in [
            (&[("mode", "some")][..], "/mode"),
            (&[("mode", "conflate"), ("max_rate", "1001")], "/max_rate"),
            (&[("max_rate", "0")], "/max_rate"),
            (&[("max_rate", "NaN")], "/max_rate"),
            (&[("on_slow", "wait")], "/on_slow"),
            (&[("snapshot", "yes")], "/snapshot"),
            (&[("snapshot", "true"), ("from", "earliest")], "/snapshot"),
            (&[("snapshot", "true"), ("event_type", "risk_alert")], "/snapshot"),
            (&[("event_type", "a b")], "/event_type"),
            (&[("from", "x")], "/from"),
            (&[("colour", "red")], ""),
        ] {
            assert_eq!(choice(pairs).unwrap_err().pointer, pointer, "{pairs:?}");
        }
        let many: Vec<(String, String)> =
            (0..=SYMBOLS_MAX).map(|n| ("symbol".into(), n.to_string())).collect();
        let refused = Selector::parse(&mut Params::new(many), Filter::default()).unwrap_err();
        assert_eq!(refused.pointer, "/symbol");
    }
}
