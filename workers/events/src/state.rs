//! The latest market data of each symbol, now or as of a time, and the calls that ask for it.
//!
//! The state as of a time is what the events up to that event time make of it, in the order of the log: the one that
//! was stored last of those counts.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sluice_http::{Authenticated, Reject, StrictQuery};
use sluice_identity::caller::Caller;
use sluice_wire::code::Code;
use sluice_wire::symbol::Symbol;
use tokio::sync::watch;

use crate::access;
use crate::context::{Context, json_response};
use crate::engine::{ReadError, Reader};
use crate::log::{Filter, Record, Stamp};
use crate::params::{bad, time};

/// The type whose newest event is a symbol's state.
pub(crate) const KIND: &str = "market_data_update";
/// LIMIT: symbols held in memory; those beyond it are looked up in the log.
const SYMBOLS_MAX: usize = 10_000;
/// LIMIT: events looked at for what is not held in memory.
const LOOKBACK_EVENTS_MAX: u64 = 500_000;
/// How long a snapshot waits until the log was looked at.
const LOOK_BACK_MAX: Duration = Duration::from_secs(5);
/// How long a call waits until what was acknowledged before it is counted in.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);
/// LIMIT: symbols of a page.
const PAGE_MAX: usize = 1_000;
const PAGE_DEFAULT: usize = 100;
/// LIMIT: bytes of a page's events; it ends before, with a cursor.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The newest market data event of each symbol.
#[derive(Debug)]
pub(crate) struct Latest {
    of: RwLock<Held>,
    /// Every event from this seq on was taken up.
    since: AtomicU64,
    /// Whether what was stored before the start was looked at.
    looked: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Held {
    by_symbol: BTreeMap<Box<str>, Record>,
    /// The newest event counted in.
    upto: Option<Stamp>,
}

/// Every symbol's newest market data at one event.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// By symbol.
    pub(crate) records: Vec<Record>,
    /// The newest event counted in.
    pub(crate) upto: Option<Stamp>,
    /// No symbol is missing.
    pub(crate) complete: bool,
}

impl Default for Latest {
    fn default() -> Self {
        Self { of: RwLock::default(), since: AtomicU64::new(u64::MAX), looked: watch::Sender::new(false) }
    }
}

impl Latest {
    /// Holds nothing yet, at the end of a log.
    pub(crate) fn beginning(reader: &Reader) -> Self {
        let stats = reader.stats();
        let upto = stats.last_id.map(|id| Stamp { seq: stats.last_seq, id });
        Self { of: RwLock::new(Held { upto, ..Held::default() }), ..Self::default() }
    }

    /// Takes up the next events of the log, in their order, `last` being the newest.
    pub(crate) fn follow<'a>(&self, records: impl DoubleEndedIterator<Item = &'a Record>, last: Stamp) {
        let mut held = self.of.write().unwrap_or_else(PoisonError::into_inner);
        held.take(records);
        held.upto = Some(last);
    }

    /// Takes up events found later, in their order.
    fn take<'a>(&self, records: impl DoubleEndedIterator<Item = &'a Record>) {
        self.of.write().unwrap_or_else(PoisonError::into_inner).take(records);
    }

    /// Takes up what was stored before the worker began to follow the log, as far back as is looked.
    pub(crate) fn look_back(&self, reader: &Reader) -> Result<(), ReadError> {
        let folded = fold(reader, None).map(|(found, since)| {
            let found: Vec<Record> = found.into_values().collect();
            self.take(found.iter());
            self.since.store(since, Ordering::Relaxed);
        });
        self.looked.send_replace(true);
        folded
    }

    fn of(&self, symbol: &str) -> Option<Record> {
        self.of.read().unwrap_or_else(PoisonError::into_inner).by_symbol.get(symbol).cloned()
    }

    /// Every symbol that is wanted, at one event: what follows it has not been counted in.
    pub(crate) async fn snapshot(&self, wanted: impl Fn(&Record) -> bool) -> Snapshot {
        let mut looked = self.looked.subscribe();
        // Late is not wrong: the snapshot says that it is not complete.
        drop(tokio::time::timeout(LOOK_BACK_MAX, looked.wait_for(|looked| *looked)).await);
        let held = self.of.read().unwrap_or_else(PoisonError::into_inner);
        // The look back may have seen more than the fan-out has: then it has seen everything up to there.
        let newest = held.by_symbol.values().map(|record| record.stamp);
        let upto = newest.chain(held.upto).max_by_key(|stamp| stamp.seq);
        Snapshot {
            records: held.by_symbol.values().filter(|record| wanted(record)).cloned().collect(),
            upto,
            complete: self.since.load(Ordering::Relaxed) == 0 && held.by_symbol.len() < SYMBOLS_MAX,
        }
    }
}

impl Held {
    fn take<'a>(&mut self, records: impl DoubleEndedIterator<Item = &'a Record>) {
        // The newest first: of many events of one symbol, one is copied.
        for record in records.rev().filter(|record| record.has_symbol() && record.is_kind(KIND)) {
            if let Some(known) = self.by_symbol.get_mut(record.symbol()) {
                if known.stamp.seq < record.stamp.seq {
                    *known = record.detached();
                }
            } else if self.by_symbol.len() < SYMBOLS_MAX {
                self.by_symbol.insert(record.symbol().into(), record.detached());
            }
        }
    }
}

/// The last market data event of each symbol up to an event time, and the seq from which on every event was
/// looked at.
fn fold(reader: &Reader, to_us: Option<i64>) -> Result<(BTreeMap<Box<str>, Record>, u64), ReadError> {
    let filter = Filter { kinds: vec![KIND.into()], to_us, ..Filter::default() };
    let mut scan = reader.backward(u64::MAX, filter).pausing_after(LOOKBACK_EVENTS_MAX);
    let mut found = BTreeMap::<Box<str>, Record>::new();
    while let Some(record) = scan.next()? {
        if !record.symbol().is_empty() && found.len() < SYMBOLS_MAX && !found.contains_key(record.symbol()) {
            found.insert(record.symbol().into(), record.detached());
        }
    }
    // Kept in memory whole or looked up: beyond the bound the list is not complete.
    let whole = !scan.paused() && found.len() < SYMBOLS_MAX;
    Ok((found, if whole { 0 } else { scan.position() }))
}

/// Query of the state calls.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    symbol: Option<String>,
    at: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    symbol: &'a str,
    /// Seq of the event that this state comes from, in its partition.
    seq: u64,
    partition: u8,
    message_id: String,
    /// Seq up to which the stream was looked at, over all partitions: the state is valid there.
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_at_seq: Option<u64>,
    timestamp: &'a str,
    source: &'a str,
    market_data: &'a RawValue,
}

#[derive(Serialize)]
struct Page<'a> {
    states: Vec<Answer<'a>>,
    count: usize,
    next_cursor: Option<&'a str>,
    valid_at_seq: u64,
    /// Whether every stored event was looked at; `false`: older symbols may be missing.
    complete: bool,
}

#[derive(Deserialize)]
struct Stored<'a> {
    timestamp: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// `GET /state?symbol=`; without a symbol, all of them in pages.
pub(crate) async fn by_query(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    StrictQuery(query): StrictQuery<Query>,
) -> Result<Response, Reject> {
    may_read(&caller)?;
    let at_us = query.at_us()?;
    match &query.symbol {
        Some(_) if query.limit.is_some() || query.cursor.is_some() => {
            Err(bad("limit and cursor belong to the list of all symbols"))
        }
        Some(symbol) => one(&context, symbol, at_us).await,
        None => all(&context, &query, at_us).await,
    }
}

/// `GET /state/{symbol}`; a symbol may span two segments.
pub(crate) async fn by_path(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(symbol): Path<String>,
    StrictQuery(query): StrictQuery<Query>,
) -> Result<Response, Reject> {
    may_read(&caller)?;
    if query.symbol.is_some() || query.limit.is_some() || query.cursor.is_some() {
        return Err(bad("the symbol is named by the path"));
    }
    one(&context, &symbol, query.at_us()?).await
}

fn may_read(caller: &Caller) -> Result<(), Reject> {
    access::not_legacy(caller)?;
    if access::readable(caller)?.admits_type(KIND) {
        Ok(())
    } else {
        Err(Reject::lacking(&format!("events:read:{KIND}")))
    }
}

impl Query {
    fn at_us(&self) -> Result<Option<i64>, Reject> {
        self.at.as_deref().map(|text| time("at", text).map(Timestamp::as_microsecond)).transpose()
    }

    fn limit(&self) -> Result<usize, Reject> {
        let limit = self.limit.unwrap_or(PAGE_DEFAULT);
        if (1..=PAGE_MAX).contains(&limit) {
            Ok(limit)
        } else {
            Err(bad(format!("limit is a number from 1 to {PAGE_MAX}")))
        }
    }
}

/// The seq up to which an answer holds: what was acknowledged before the call belongs into it.
async fn caught_up(context: &Context) -> u64 {
    context.hub.caught_up(context.reader().durable_seq(), CATCH_UP_MAX).await;
    context.hub.head()
}

async fn one(context: &Context, symbol: &str, at_us: Option<i64>) -> Result<Response, Reject> {
    let symbol = Symbol::parse(symbol).map_err(|error| bad(error.to_string()))?;
    let valid_at_seq = caught_up(context).await;
    let held = if at_us.is_none() { context.hub.latest().of(symbol.as_str()) } else { None };
    let (found, whole) = if held.is_some() {
        (held, true)
    } else {
        let wanted = symbol.as_str().to_owned();
        context.read(move |reader| look_for(reader, &wanted, at_us)).await?
    };
    let record = found.ok_or_else(|| {
        let text = if whole {
            "no market data of this symbol is stored".to_owned()
        } else {
            format!("no market data of this symbol is among the {LOOKBACK_EVENTS_MAX} events looked at")
        };
        Reject::new(Code::NotFound, text)
    })?;
    let mut answer = told(&record)?;
    answer.valid_at_seq = Some(valid_at_seq.max(record.stamp.seq));
    json_response(&answer)
}

/// The last event of a symbol up to a time, and whether every event was looked at.
fn look_for(reader: &Reader, symbol: &str, to_us: Option<i64>) -> Result<(Option<Record>, bool), ReadError> {
    let filter = Filter { kinds: vec![KIND.into()], symbol: Some(symbol.into()), to_us, ..Filter::default() };
    let mut scan = reader.backward(u64::MAX, filter).pausing_after(LOOKBACK_EVENTS_MAX);
    let found = scan.next()?;
    Ok((found, !scan.paused()))
}

async fn all(context: &Context, query: &Query, at_us: Option<i64>) -> Result<Response, Reject> {
    let (limit, after) = (query.limit()?, query.cursor.as_deref());
    let valid_at_seq = caught_up(context).await;
    let (records, more, complete) = if at_us.is_some() {
        let (found, since) = context.read(move |reader| fold(reader, at_us)).await?;
        let (records, more) = page(&found, after, limit);
        (records, more, since == 0)
    } else {
        let latest = context.hub.latest();
        let known = latest.of.read().unwrap_or_else(PoisonError::into_inner);
        let (records, more) = page(&known.by_symbol, after, limit);
        let whole = known.by_symbol.len() < SYMBOLS_MAX && latest.since.load(Ordering::Relaxed) == 0;
        (records, more, whole)
    };
    let states = records.iter().map(told).collect::<Result<Vec<_>, _>>()?;
    let next_cursor = if more { records.last().map(Record::symbol) } else { None };
    json_response(&Page { count: states.len(), states, next_cursor, valid_at_seq, complete })
}

/// The symbols after one, in the order of their names, and whether there are more.
fn page(known: &BTreeMap<Box<str>, Record>, after: Option<&str>, limit: usize) -> (Vec<Record>, bool) {
    let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
    let (mut records, mut bytes) = (Vec::new(), 0);
    for record in known.range::<str, _>((begin, Bound::Unbounded)).map(|(_, record)| record) {
        if records.len() == limit || bytes >= PAGE_BYTES_MAX {
            return (records, true);
        }
        bytes += record.json().len();
        records.push(record.clone());
    }
    (records, false)
}

fn told(record: &Record) -> Result<Answer<'_>, Reject> {
    let stored: Stored<'_> = serde_json::from_slice(record.json())
        .map_err(|_| Reject::new(Code::Integrity, "the stored event is not of the stored form"))?;
    Ok(Answer {
        symbol: record.symbol(),
        seq: record.lane.seq,
        partition: record.lane.partition,
        message_id: record.stamp.id.to_string(),
        valid_at_seq: None,
        timestamp: stored.timestamp,
        source: record.source(),
        market_data: stored.data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::record;

    #[test]
    fn the_newest_market_data_counts() {
        let latest = Latest::default();
        let events = [record(1, KIND), record(2, KIND), record(3, "trading_signal")];
        latest.take(events.iter());
        assert_eq!(latest.of("BTC/USDT").unwrap().stamp.seq, 2);
        latest.take(events[..1].iter());
        assert_eq!(latest.of("BTC/USDT").unwrap().stamp.seq, 2, "older ones found later change nothing");
        assert!(latest.of("ETH/USDT").is_none());
    }

    #[test]
    fn pages_follow_the_names() {
        let known: BTreeMap<Box<str>, Record> =
            ["A", "B", "C"].into_iter().map(|name| (name.into(), record(1, KIND))).collect();
        assert_eq!((page(&known, None, 2).0.len(), page(&known, None, 2).1), (2, true));
        assert_eq!((page(&known, Some("B"), 2).0.len(), page(&known, Some("B"), 2).1), (1, false));
        assert_eq!(page(&known, Some("C"), 2).0.len(), 0);
    }
}
