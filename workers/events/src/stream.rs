//! Live streams: `GET /events/stream` as server-sent events.
//!
//! A subscriber is a place in the stream and a filter. At its place it finds frames in the ring; when it has fallen
//! behind the ring it reads the log itself, at the pace at which its connection takes bytes; when retention has
//! passed it by it is told so by a `gap`. One that takes nothing for [`STALL_MAX`] while there was something to
//! take gets `disconnect` and is closed. Nothing here is waited for by a publisher.
//!
//! `Last-Event-ID` (or `last_event_id=` for who cannot set headers) wins over `from`. Positions are message ids:
//! resuming begins with the first event after one, so nothing is lost and nothing comes twice.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use serde_json::{Value, json};
use sluice_http::{Authenticated, Reject, StrictQuery, sse};
use sluice_wire::code::Code;
use sluice_wire::header::LAST_EVENT_ID;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::access;
use crate::context::Context;
use crate::engine::{ReadError, Reader};
use crate::frame;
use crate::log::{Filter, MessageId, Record};
use crate::params::{Params, bad, time};
use crate::ring::{Taken, joined};

/// LIMIT: streams open at a time.
pub(crate) const SUBSCRIBERS_MAX: usize = 4_096;
/// Bytes handed to a connection at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Events looked at before other subscribers have their turn.
const PIECE_LOOKS: usize = 4_096;
/// Events read from the log at once by a subscriber that is behind.
const CATCH_UP_SCAN_MAX: u64 = 20_000;
/// Longest time that a connection may take nothing while events wait for it.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(60);
/// Span of the pauses that clients are told at drain, so that they do not all come back at once.
const RETRY_MS: std::ops::Range<u64> = 500..5_000;

/// `GET /events/stream`
pub(crate) async fn stream(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    StrictQuery(pairs): StrictQuery<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Reject> {
    access::not_legacy(&caller)?;
    let readable = access::readable(&caller)?;
    let mut params = Params::new(pairs);
    let start = Start::parse(&mut params, &headers)?;
    not_available(&mut params)?;
    let filter = params.filter(readable)?;
    params.finish()?;
    let permit = context.stream_permit()?;
    let (next, lost) = context.read(move |reader| start.place(reader)).await?;
    let subscriber = Subscriber::new(context, permit, filter, next, lost);
    Ok(sse::response(stream::unfold(subscriber, |mut subscriber| async move {
        let piece = subscriber.piece().await?;
        subscriber.yielded = Some(Instant::now());
        Some((piece, subscriber))
    })))
}

/// Parts of the contract that later versions have are refused by name, so that nobody believes they work.
fn not_available(params: &mut Params) -> Result<(), Reject> {
    if params.one("mode")?.is_some_and(|mode| mode != "all") {
        return Err(Reject::new(Code::NotAvailable, "only mode=all is available in this version"));
    }
    for name in ["max_rate", "snapshot"] {
        if params.one(name)?.is_some() {
            return Err(Reject::new(
                Code::NotAvailable,
                format!("`{name}` is not available in this version"),
            ));
        }
    }
    Ok(())
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Now,
    Earliest,
    /// With the first event that was stored at this time or later.
    Time {
        ms: u64,
    },
    /// Behind the event with this id, which the subscriber has had.
    After(MessageId),
}

impl Start {
    fn parse(params: &mut Params, headers: &HeaderMap) -> Result<Self, Reject> {
        let from = params.one("from")?;
        let header = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
        let header = header.map(|value| value.to_str().map(str::to_owned).unwrap_or_default());
        let last = header.or(params.one("last_event_id")?);
        if let Some(last) = last {
            return last.parse().map(Self::After).map_err(|error| bad(format!("last event id: {error}")));
        }
        match from.as_deref() {
            None | Some("now") => Ok(Self::Now),
            Some("earliest") => Ok(Self::Earliest),
            Some(text) => {
                if let Ok(id) = text.parse() {
                    return Ok(Self::After(id));
                }
                let ms = time("from", text)?.as_millisecond();
                Ok(Self::Time { ms: u64::try_from(ms).unwrap_or(0) })
            }
        }
    }

    /// The first seq, and the gap when the position is not of this stream.
    fn place(self, reader: &Reader) -> Result<(u64, Option<Bytes>), ReadError> {
        let newest = reader.durable_seq();
        match self {
            Self::Now => Ok((newest + 1, None)),
            Self::Earliest => Ok((reader.first_seq(), None)),
            Self::Time { ms } => Ok((reader.seq_at(MessageId { ms, n: 0 })?, None)),
            Self::After(id) => {
                let stats = reader.stats();
                let newest_id = stats.last_id.unwrap_or_default();
                if id > newest_id {
                    // The log was replaced by another one, or the id was never given.
                    let got = stats.last_id.map_or(Value::Null, |id| id.to_string().into());
                    return Ok((
                        newest + 1,
                        Some(frame::gap(&id.to_string().into(), &got, "unknown_position")),
                    ));
                }
                let next = reader.seq_after(id)?;
                let trimmed =
                    stats.first_id.is_none_or(|first| id < first) && next == reader.first_seq() && next > 1;
                let expected = json!(id.to_string());
                Ok((next, trimmed.then(|| frame::gap(&expected, &json!(next), "trimmed"))))
            }
        }
    }
}

/// The first bytes: they open the stream at the client before there is an event.
fn greeting(lost: Option<Bytes>) -> Bytes {
    let opening = Bytes::from_static(b": stream open\n\n");
    lost.map_or(opening.clone(), |gap| [opening, gap].concat().into())
}

/// One open stream.
pub(crate) struct Subscriber {
    context: Arc<Context>,
    filter: Filter,
    /// Seq of the next event it has not had.
    next: u64,
    heads: watch::Receiver<u64>,
    greeting: Option<Bytes>,
    /// It has been in the ring: leaving it is an overrun.
    live: bool,
    /// When the last piece was handed over; asked for more much later means that the connection took none.
    pub(crate) yielded: Option<Instant>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.context.metrics.subscribers.dec();
    }
}

impl Subscriber {
    pub(crate) fn new(
        context: Arc<Context>,
        permit: OwnedSemaphorePermit,
        filter: Filter,
        next: u64,
        lost: Option<Bytes>,
    ) -> Self {
        context.metrics.subscribers.inc();
        context.metrics.gaps.inc_by(u64::from(lost.is_some()));
        Self {
            heads: context.hub.heads(),
            greeting: Some(greeting(lost)),
            live: false,
            yielded: None,
            ended: false,
            _permit: permit,
            context,
            filter,
            next,
        }
    }

    /// The next bytes, when there are some; `None` at the end.
    pub(crate) async fn piece(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        if self.has_stalled() {
            return Some(self.end(frame::notice("disconnect", &json!({ "reason": "too_slow" }))));
        }
        loop {
            if self.context.stop.is_stopping() {
                return Some(self.end(retry()));
            }
            let taken = self.context.hub.take(self.next, &self.filter, PIECE_BYTES, PIECE_LOOKS);
            match taken {
                Taken::Some { frames, next } => {
                    self.live = true;
                    self.next = next;
                    if !frames.is_empty() {
                        for frame in &frames {
                            self.context.metrics.consumed(frame.record.kind());
                        }
                        return Some(joined(&frames));
                    }
                    // Nothing wanted among many: let others have their turn.
                    tokio::task::yield_now().await;
                }
                Taken::Nothing => {
                    self.live = true;
                    self.wait().await;
                }
                Taken::Behind => match self.catch_up().await {
                    Ok(Some(piece)) => return Some(piece),
                    Ok(None) => {}
                    Err(_) => {
                        let last = frame::notice("disconnect", &json!({ "reason": "unreadable" }));
                        return Some(self.end(last));
                    }
                },
            }
        }
    }

    fn end(&mut self, last: Bytes) -> Bytes {
        self.ended = true;
        last
    }

    fn has_stalled(&self) -> bool {
        self.yielded.is_some_and(|at| at.elapsed() > STALL_MAX) && self.next <= self.context.hub.head()
    }

    async fn wait(&mut self) {
        let (stop, next) = (self.context.stop.clone(), self.next);
        tokio::select! {
            // An error means that the hub is gone, which happens only at the end.
            _newer = self.heads.wait_for(|head| *head >= next) => {}
            () = stop.wait() => {}
        }
    }

    /// Reads the next events from the log; `None` when there was nothing wanted among them.
    async fn catch_up(&mut self) -> Result<Option<Bytes>, Reject> {
        if std::mem::take(&mut self.live) {
            self.context.metrics.overruns.inc();
        }
        let (from, filter) = (self.next, self.filter.clone());
        let read = self.context.read(move |reader| read_piece(reader, from, filter)).await?;
        self.next = read.next;
        let mut piece = read.bytes;
        for record in &read.records {
            self.context.metrics.consumed(record.kind());
        }
        if let Some(gap) = read.gap {
            self.context.metrics.gaps.inc();
            piece = [gap, piece.into()].concat();
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }
}

/// What a subscriber that is behind read.
struct Piece {
    records: Vec<Record>,
    bytes: Vec<u8>,
    gap: Option<Bytes>,
    next: u64,
}

fn read_piece(reader: &Reader, from: u64, filter: Filter) -> Result<Piece, ReadError> {
    let mut scan = reader.forward(from, filter).pausing_after(CATCH_UP_SCAN_MAX);
    let mut piece = Piece { records: Vec::new(), bytes: Vec::new(), gap: None, next: from };
    while piece.bytes.len() < PIECE_BYTES
        && let Some(record) = scan.next()?
    {
        frame::write_sse(&record, false, &mut piece.bytes);
        piece.records.push(record);
    }
    let trimmed = scan.trimmed();
    piece.gap = trimmed.map(|lost| frame::gap(&json!(lost.expected), &json!(lost.got), "trimmed"));
    piece.next = scan.position();
    Ok(piece)
}

/// Tells the client when to come back.
fn retry() -> Bytes {
    let span = RETRY_MS.end - RETRY_MS.start;
    let pause = RETRY_MS.start + Uuid::new_v4().as_u64_pair().1 % span;
    Bytes::from(format!("retry: {pause}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(pairs: &[(&str, &str)], last: Option<&str>) -> Result<Start, Reject> {
        let mut headers = HeaderMap::new();
        if let Some(last) = last {
            headers.insert(LAST_EVENT_ID, last.parse().unwrap());
        }
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Start::parse(&mut Params::new(pairs), &headers)
    }

    #[test]
    fn the_last_event_id_wins_over_from() {
        let id = MessageId { ms: 17, n: 2 };
        assert_eq!(start(&[], None).unwrap(), Start::Now);
        assert_eq!(start(&[("from", "earliest")], None).unwrap(), Start::Earliest);
        assert_eq!(start(&[("from", "17-2")], None).unwrap(), Start::After(id));
        assert_eq!(start(&[("from", "1970-01-01T00:00:02Z")], None).unwrap(), Start::Time { ms: 2_000 });
        assert_eq!(start(&[("from", "earliest")], Some("17-2")).unwrap(), Start::After(id));
        assert_eq!(start(&[("last_event_id", "17-2")], None).unwrap(), Start::After(id));
        assert_eq!(start(&[], Some("")).unwrap(), Start::Now);
        assert!(start(&[], Some("seventeen")).is_err());
        assert!(start(&[("from", "someday")], None).is_err());
    }

    #[test]
    fn pauses_at_drain_differ() {
        let pauses: std::collections::BTreeSet<Bytes> = (0..20).map(|_| retry()).collect();
        assert!(pauses.len() > 10);
    }
}
