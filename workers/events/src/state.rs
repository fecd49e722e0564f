//! The latest market data of each symbol, and the calls that ask for it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sluice_http::{Authenticated, Reject, StrictQuery};
use sluice_wire::code::Code;
use sluice_wire::symbol::Symbol;

use crate::access;
use crate::context::{Context, json_response};
use crate::engine::{ReadError, Reader};
use crate::log::{Filter, Record};

/// The type whose newest event is a symbol's state.
const KIND: &str = "market_data_update";
/// LIMIT: symbols held in memory; those beyond it are looked up in the log.
const SYMBOLS_MAX: usize = 10_000;
/// LIMIT: events looked at for a symbol that is not held in memory.
const LOOKBACK_EVENTS_MAX: u64 = 500_000;
/// How long a call waits until what was acknowledged before it is counted in.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// The newest market data event of each symbol.
#[derive(Debug, Default)]
pub(crate) struct Latest(RwLock<BTreeMap<Box<str>, Record>>);

impl Latest {
    /// Takes up the next events of the log, in their order.
    pub(crate) fn take<'a>(&self, records: impl DoubleEndedIterator<Item = &'a Record>) {
        // The newest first: of many events of one symbol, one is copied.
        let news = records.rev().filter(|record| record.kind() == KIND && !record.symbol().is_empty());
        let mut news = news.peekable();
        if news.peek().is_none() {
            return;
        }
        let mut latest = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for record in news {
            if let Some(known) = latest.get_mut(record.symbol()) {
                if known.stamp.seq < record.stamp.seq {
                    *known = record.detached();
                }
            } else if latest.len() < SYMBOLS_MAX {
                latest.insert(record.symbol().into(), record.detached());
            }
        }
    }

    fn of(&self, symbol: &str) -> Option<Record> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(symbol).cloned()
    }
}

/// Query of the state calls. `at` is part of the contract but not of this version: it is refused by name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    symbol: Option<String>,
    at: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    symbol: &'a str,
    /// Seq of the event that this state comes from.
    seq: u64,
    message_id: String,
    /// Seq up to which the stream was looked at: the state is valid there.
    valid_at_seq: u64,
    timestamp: &'a str,
    source: &'a str,
    market_data: &'a RawValue,
}

#[derive(Deserialize)]
struct Stored<'a> {
    timestamp: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// `GET /state?symbol=`
pub(crate) async fn by_query(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    StrictQuery(query): StrictQuery<Query>,
) -> Result<Response, Reject> {
    let symbol = query.symbol.ok_or_else(|| Reject::new(Code::BadQuery, "parameter `symbol` is missing"))?;
    answer(&context, &caller, &symbol, query.at.is_some()).await
}

/// `GET /state/{symbol}`; a symbol may span two segments.
pub(crate) async fn by_path(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(symbol): Path<String>,
    StrictQuery(query): StrictQuery<Query>,
) -> Result<Response, Reject> {
    if query.symbol.is_some() {
        return Err(Reject::new(Code::BadQuery, "the symbol is named by the path"));
    }
    answer(&context, &caller, &symbol, query.at.is_some()).await
}

async fn answer(
    context: &Arc<Context>,
    caller: &sluice_identity::caller::Caller,
    symbol: &str,
    at: bool,
) -> Result<Response, Reject> {
    access::not_legacy(caller)?;
    if !access::readable(caller)?.admits_type(KIND) {
        return Err(Reject::lacking(&format!("events:read:{KIND}")));
    }
    if at {
        return Err(Reject::new(Code::NotAvailable, "`at` is not available in this version"));
    }
    let symbol = Symbol::parse(symbol).map_err(|error| Reject::new(Code::BadQuery, error.to_string()))?;
    let symbol = symbol.as_str();
    // What was acknowledged before this call belongs into its answer.
    context.hub.caught_up(context.reader().durable_seq(), CATCH_UP_MAX).await;
    let valid_at_seq = context.hub.head();
    let found = if let Some(found) = context.hub.latest().of(symbol) {
        Some(found)
    } else {
        let wanted = symbol.to_owned();
        context.read(move |reader| look_back(reader, &wanted)).await?
    };
    let record =
        found.ok_or_else(|| Reject::new(Code::NotFound, "no market data of this symbol is stored"))?;
    let stored: Stored<'_> = serde_json::from_slice(record.json())
        .map_err(|_| Reject::new(Code::Integrity, "the stored event is not of the stored form"))?;
    json_response(&Answer {
        symbol,
        seq: record.stamp.seq,
        message_id: record.stamp.id.to_string(),
        valid_at_seq: valid_at_seq.max(record.stamp.seq),
        timestamp: stored.timestamp,
        source: record.source(),
        market_data: stored.data,
    })
}

fn look_back(reader: &Reader, symbol: &str) -> Result<Option<Record>, ReadError> {
    let filter = Filter { kinds: vec![KIND.into()], symbol: Some(symbol.into()), ..Filter::default() };
    reader.backward(u64::MAX, filter).pausing_after(LOOKBACK_EVENTS_MAX).next()
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
        assert!(latest.of("ETH/USDT").is_none());
    }
}
