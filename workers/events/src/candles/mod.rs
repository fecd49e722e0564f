//! Candles: trades among the market data become `candle_closed` events, one a symbol, timeframe and span.
//!
//! The component is a reader of the log like any other, and its only memory is the log itself: each candle's
//! `metadata.resume_seq` says from which trade on reading begins again after a restart. What is read twice gives the
//! same candle with the same event id, so nothing is missing and nothing comes twice.

mod book;
mod shelf;
mod trade;

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use ring::digest::{Context as Sha, SHA256};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use sluice_identity::caller::Caller;
use sluice_wire::role::Role;
use uuid::Uuid;

use crate::context::Context;
use crate::engine::{AppendError, ReadError, Reader};
use crate::error::Fault;
use crate::event::Author;
use crate::incoming::{Incoming, loose};
use crate::log::{Clock as _, Draft, Filter, Outcome, SystemClock};
pub(crate) use book::Frame;
use book::{Book, Closed, Place, Taken, Trade};
use shelf::Shelf;

/// The type that is read, and the type that is published.
const TRADES: &str = "market_data_update";
const CANDLES: &str = "candle_closed";
/// Source of the candles: this role.
const SOURCE: &str = "events";
/// Trades read at once.
const PIECE_EVENTS: usize = 5_000;
/// Events looked at before others have their turn to read.
const PIECE_SCAN_MAX: u64 = 100_000;
/// Candles stored at once.
const PUBLISH_MAX: usize = 500;
/// Pause between two reads of new trades: many small reads cost more than a candle gains.
const PAUSE: Duration = Duration::from_millis(25);
/// What the log may have taken in but not shown yet: the clock closes a candle so much later.
const COMMIT_MARGIN_MS: i64 = 250;
/// Pause after a failure: a full disk, a full queue, a store that is away.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// A candle that ended so long ago may have left the dedup window: the log is asked for it.
const LOOK_UP_AFTER_MS: i64 = 60_000;

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Lengths of candles; none: no candles.
    pub(crate) frames: Vec<Frame>,
    /// How much later than its span a trade may come.
    pub(crate) grace_ms: i64,
}

/// Follows the log until the process is to end.
pub(crate) async fn run(context: Arc<Context>, rules: Rules) {
    let mut maker = Maker {
        caller: Caller::role(Role::Events),
        book: Book::new(rules.frames, rules.grace_ms),
        next: 1,
        closed: Vec::new(),
        shelf: Arc::default(),
        context,
    };
    while !maker.context.stop.is_stopping() {
        match maker.context.read(begin).await {
            Ok((next, shelf)) => {
                (maker.next, maker.shelf) = (next, Arc::new(Mutex::new(shelf)));
                tracing::info!(component = "candles", resume_seq = next, "candles go on");
                break;
            }
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
        }
    }
    while !maker.context.stop.is_stopping() {
        maker.step().await;
    }
}

/// The component's state.
struct Maker {
    context: Arc<Context>,
    caller: Caller,
    book: Book,
    /// Seq of the next event to look at.
    next: u64,
    /// Closed, but not stored yet.
    closed: Vec<Closed>,
    /// Which candles are stored; `None` where the store knows by itself.
    shelf: Arc<Mutex<Option<Shelf>>>,
}

/// Trades in their order, each with its place.
struct Piece {
    trades: Vec<(Trade, Place)>,
    /// Events that told of no trade.
    others: u64,
    next: u64,
    /// Nothing was behind it.
    at_end: bool,
}

impl Maker {
    /// Reads a piece, closes what is due, stores it, waits for more.
    async fn step(&mut self) {
        let (from, before_ms) = (self.next, SystemClock.now_ms() as i64);
        let Ok(piece) = self.context.read(move |reader| read_piece(reader, from)).await else {
            return self.pause(RETRY_AFTER).await;
        };
        let metrics = &self.context.metrics.candles;
        metrics.ignored.inc_by(piece.others);
        for (trade, place) in &piece.trades {
            match self.book.take(trade, *place, &mut self.closed) {
                Taken::Counted => metrics.counted.inc(),
                Taken::Repeated => metrics.repeated.inc(),
                Taken::Late => metrics.late.inc(),
                Taken::Refused => metrics.refused.inc(),
            }
        }
        self.next = piece.next;
        if piece.at_end {
            self.book.close_due(before_ms - COMMIT_MARGIN_MS, &mut self.closed);
        }
        // A candle that is not stored is not let go: reading goes on once it is.
        while !self.closed.is_empty() && !self.context.stop.is_stopping() {
            if let Err(error) = self.store().await {
                tracing::warn!(
                    component = "candles",
                    error = &error as &dyn std::error::Error,
                    "candles wait"
                );
                self.pause(RETRY_AFTER).await;
            }
        }
        if piece.at_end {
            self.wait().await;
        }
    }

    /// Stores the next closed candles.
    async fn store(&mut self) -> Result<(), StoreError> {
        let count = self.closed.len().min(PUBLISH_MAX);
        // Those in hand are not stored yet: reading would begin again with their trades.
        let in_hand = self.closed.iter().map(|closed| closed.candle.first_seq).min();
        let resume_seq = self.book.resume_seq(self.next).min(in_hand.unwrap_or(u64::MAX));
        let now_ms = SystemClock.now_ms() as i64;
        let mut drafts = Vec::with_capacity(count);
        let mut doubtful = Vec::new();
        for closed in &self.closed[..count] {
            let frame = &self.book.frames()[closed.frame];
            let (draft, event_id) = self.draft(closed, frame, resume_seq)?;
            if now_ms - (closed.start_ms + frame.ms) > LOOK_UP_AFTER_MS {
                doubtful.push((event_id.as_u128(), closed.start_ms));
            }
            drafts.push(draft);
        }
        let stored = self.stored(doubtful).await?;
        drafts.retain(|draft| !stored.contains(&draft.event_id));
        if !drafts.is_empty() {
            let receipt = self.context.append(drafts, false).await?;
            for outcome in receipt.outcomes {
                if matches!(outcome, Outcome::Stored(_)) {
                    let metrics = &self.context.metrics;
                    metrics.published(metrics.kind(CANDLES));
                }
            }
        }
        self.closed.drain(..count);
        Ok(())
    }

    /// Which of these candles are stored.
    async fn stored(&self, doubtful: Vec<(u128, i64)>) -> Result<Vec<u128>, StoreError> {
        loop {
            let (shelf, doubtful) = (Arc::clone(&self.shelf), doubtful.clone());
            let found = self.context.read(move |reader| stored(reader, &shelf, &doubtful)).await;
            if let Some(found) = found.map_err(|_| StoreError::Unreadable)? {
                return Ok(found);
            }
        }
    }

    fn draft(&self, closed: &Closed, frame: &Frame, resume_seq: u64) -> Result<(Draft, Uuid), StoreError> {
        let Closed { symbol, start_ms, candle, .. } = closed;
        let event_id = event_id(symbol, frame, *start_ms);
        let end = Timestamp::from_millisecond(start_ms + frame.ms).unwrap_or(Timestamp::MAX);
        let raw = |value: serde_json::Value| {
            RawValue::from_string(value.to_string()).map_err(|_| StoreError::Shape)
        };
        let data = raw(json!({
            "symbol": symbol, "timeframe": frame.name, "timestamp": start_ms,
            "open": candle.open, "high": candle.high, "low": candle.low, "close": candle.close,
            "volume": candle.volume, "trades": candle.trades,
        }))?;
        let metadata = raw(json!({ "resume_seq": resume_seq }))?;
        let timestamp = raw(json!(end.to_string()))?;
        let author = Author {
            caller: &self.caller,
            dev: false,
            unknown_types: true,
            now: end,
            mint: &self.context.mint,
            schemas: &self.context.schemas,
            last: RefCell::default(),
        };
        let prepared = author.prepare(
            &Incoming {
                event_type: CANDLES.into(),
                event_id: Some(event_id.to_string().into()),
                timestamp: Some(timestamp.get()),
                source: Some(SOURCE.into()),
                data: Some(loose(&data)),
                metadata: Some(loose(&metadata)),
                symbol: (&**symbol).into(),
            },
            None,
        )?;
        Ok((prepared.draft, event_id))
    }

    /// Until there is something new, or a candle may be due.
    async fn wait(&self) {
        self.pause(PAUSE).await;
        let mut heads = self.context.hub.heads();
        let due = async {
            match self.book.next_due_ms() {
                Some(at) => {
                    let left = at + COMMIT_MARGIN_MS + 1 - SystemClock.now_ms() as i64;
                    tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap_or(0))).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // An error means that the hub is gone, which happens only at the end.
            _newer = heads.wait_for(|head| *head >= self.next) => {}
            () = due => {}
            () = self.context.stop.wait() => {}
        }
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.context.stop.wait() => {}
        }
    }
}

/// Why candles could not be stored now.
#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("the log cannot be read")]
    Unreadable,
    #[error("a candle has no JSON form")]
    Shape,
    #[error("a candle is no event: {0}")]
    Fault(String),
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault.detail)
    }
}

/// Where reading begins, and what is needed to know which candles are stored.
fn begin(reader: &Reader) -> Result<(u64, Option<Shelf>), ReadError> {
    let next = resume_seq(reader)?;
    Ok((next, (!reader.finds_every_id()).then(|| Shelf::new(reader, next))))
}

/// Which of these candles are stored, each with when its trades begin; `None` while there is more to look at.
fn stored(
    reader: &Reader,
    shelf: &Mutex<Option<Shelf>>,
    doubtful: &[(u128, i64)],
) -> Result<Option<Vec<u128>>, ReadError> {
    let mut found = Vec::new();
    let Some(begin_ms) = doubtful.iter().map(|(_, begin_ms)| *begin_ms).min() else {
        return Ok(Some(found));
    };
    let ids = doubtful.iter().map(|(id, _)| *id);
    if let Some(shelf) = &mut *shelf.lock().unwrap_or_else(PoisonError::into_inner) {
        if shelf.look(reader)? || shelf.reach(reader, begin_ms)? {
            return Ok(None);
        }
        found.extend(ids.filter(|id| shelf.has(*id)));
        return Ok(Some(found));
    }
    for id in ids {
        if reader.by_event_id(id)?.is_some() {
            found.push(id);
        }
    }
    Ok(Some(found))
}

/// The seq from which on trades are read: what the newest candle says, or the oldest event.
fn resume_seq(reader: &Reader) -> Result<u64, ReadError> {
    #[derive(Deserialize)]
    struct Event {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        resume_seq: u64,
    }
    let wanted = Filter { kinds: vec![CANDLES.into()], source: Some(SOURCE.into()), ..Filter::default() };
    let newest = reader.backward(u64::MAX, wanted).next()?;
    let told = newest.and_then(|record| serde_json::from_slice::<Event>(record.json()).ok());
    let first = reader.first_seq();
    Ok(told.map_or(first, |event| event.metadata.resume_seq.max(first)))
}

fn read_piece(reader: &Reader, from: u64) -> Result<Piece, ReadError> {
    let wanted = Filter { kinds: vec![TRADES.into()], ..Filter::default() };
    // Of a busy stream this is the closest reader: what it wants is still in memory.
    let mut scan = reader.forward(from, wanted).following().pausing_after(PIECE_SCAN_MAX);
    let (mut trades, mut others) = (Vec::new(), 0);
    while trades.len() < PIECE_EVENTS {
        let Some(record) = scan.next()? else {
            return Ok(Piece { trades, others, next: scan.position(), at_end: !scan.paused() });
        };
        let place = Place { seq: record.stamp.seq, stored_ms: record.stamp.id.ms as i64 };
        match trade::trade(record.symbol(), record.time_us, record.json()) {
            Some(trade) => trades.push((trade, place)),
            None => others += 1,
        }
    }
    Ok(Piece { trades, others, next: scan.position(), at_end: false })
}

/// One candle has one id, whenever it is made.
fn event_id(symbol: &str, frame: &Frame, start_ms: i64) -> Uuid {
    let mut sha = Sha::new(&SHA256);
    for part in
        [b"sluice candle".as_slice(), symbol.as_bytes(), frame.name.as_bytes(), &start_ms.to_le_bytes()]
    {
        sha.update(&(part.len() as u64).to_le_bytes());
        sha.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha.finish().as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
