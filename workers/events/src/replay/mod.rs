//! Replay: `POST /events/replay` counts the events of a window, or sends them, as fast as they are read or at a
//! multiple of the speed at which they happened.

mod request;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use sluice_http::{Authenticated, BodyBytes, Reject, StrictQuery, sse};
use sluice_wire::code::Code;
use tokio::time::Instant;

use crate::access;
use crate::context::{Context, NDJSON, accepts, json_response};
use crate::engine::{ReadError, Reader};
use crate::frame;
use crate::log::{Filter, Record};
use request::{Request, Speed};

/// Events read at once.
const PIECE_EVENTS: usize = 1_000;
/// Bytes read at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Events looked at before others have their turn to read.
const PIECE_SCAN_MAX: u64 = 100_000;

/// What the events are sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Sse,
    Lines,
}

/// `POST /events/replay`
pub(crate) async fn replay(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    StrictQuery(pairs): StrictQuery<Vec<(String, String)>>,
    headers: HeaderMap,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    let readable = access::readable(&caller)?;
    let request = Request::read(pairs, &headers, &body)?;
    if request.session == Some(true) {
        return Err(Reject::new(Code::NotAvailable, "replay sessions are not available in this version"));
    }
    if request.into.is_some() {
        return Err(Reject::new(Code::NotAvailable, "`into` is not available in this version"));
    }
    let form = if accepts(&headers, "text/event-stream") {
        Some(Form::Sse)
    } else {
        accepts(&headers, NDJSON).then_some(Form::Lines)
    };
    let speed = request.speed;
    let filter = request.filter(readable)?;
    match (form, speed) {
        (Some(form), speed) => Ok(sent(context, filter, form, speed.unwrap_or(Speed::Max))),
        (None, None) => counted(&context, filter).await,
        (None, Some(_)) => Err(Reject::new(
            Code::BadRequest,
            format!("speed needs `Accept: text/event-stream` or `Accept: {NDJSON}`"),
        )),
    }
}

/// Counts the events of the window.
async fn counted(context: &Context, filter: Filter) -> Result<Response, Reject> {
    let upto = context.reader().durable_seq();
    let (mut next, mut events_replayed) = (0, 0_u64);
    while next <= upto {
        let filter = filter.clone();
        let (counted, position) = context.read(move |reader| count_piece(reader, next, upto, filter)).await?;
        events_replayed += counted;
        next = position;
    }
    json_response(&json!({
        "status": "replay_complete",
        "events_replayed": events_replayed,
        "republished_to": null,
    }))
}

fn count_piece(reader: &Reader, from: u64, upto: u64, filter: Filter) -> Result<(u64, u64), ReadError> {
    let mut scan = reader.forward(from, filter).pausing_after(PIECE_SCAN_MAX);
    let mut counted = 0;
    while counted < PIECE_SCAN_MAX {
        match scan.next()? {
            Some(record) if record.stamp.seq > upto => return Ok((counted, upto + 1)),
            Some(_) => counted += 1,
            None => break,
        }
    }
    Ok((counted, scan.position()))
}

/// Sends the events of the window.
fn sent(context: Arc<Context>, filter: Filter, form: Form, speed: Speed) -> Response {
    let upto = context.reader().durable_seq();
    let player = Player {
        context,
        filter,
        form,
        pace: Pace { speed, begun: None },
        next: 0,
        upto,
        waiting: VecDeque::new(),
        replayed: 0,
        ended: false,
    };
    let pieces = player.into_stream();
    match form {
        Form::Sse => sse::response(pieces.filter_map(|piece| std::future::ready(piece.ok()))),
        Form::Lines => {
            ([(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON))], Body::from_stream(pieces))
                .into_response()
        }
    }
}

/// A replay ended before its end: the answer is broken off, so that it cannot be taken for a whole one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the replay was broken off")]
struct BrokenOff;

/// A replay under way.
struct Player {
    context: Arc<Context>,
    filter: Filter,
    form: Form,
    pace: Pace,
    next: u64,
    /// Newest event when the replay began: it ends there.
    upto: u64,
    waiting: VecDeque<Record>,
    replayed: u64,
    ended: bool,
}

/// When which event is due.
struct Pace {
    speed: Speed,
    /// When the first event was sent, and its event time.
    begun: Option<(Instant, i64)>,
}

impl Pace {
    /// How long after now an event is due. Events are sent in the order of the log: one that happened before the
    /// one in front of it is due at once.
    fn due(&mut self, time_us: i64, now: Instant) -> Duration {
        let Speed::Times(times) = self.speed else { return Duration::ZERO };
        let (begun, first_us) = *self.begun.get_or_insert((now, time_us));
        let market = Duration::from_micros(u64::try_from(time_us.saturating_sub(first_us)).unwrap_or(0));
        // A century at a tenth of the speed is as good as never.
        let wall = market.as_secs_f64() / times;
        (begun + Duration::from_secs_f64(wall.min(1e9))).saturating_duration_since(now)
    }
}

impl Player {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, BrokenOff>> + Send + 'static {
        stream::unfold(self, |mut player| async move {
            let piece = player.piece().await?;
            Some((piece, player))
        })
    }

    /// The next bytes; `None` at the end.
    async fn piece(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        if self.ended {
            return None;
        }
        while self.waiting.is_empty() {
            if self.next > self.upto {
                return self.complete();
            }
            if self.context.stop.is_stopping() {
                return Some(self.break_off("draining"));
            }
            let (from, upto, filter) = (self.next, self.upto, self.filter.clone());
            match self.context.read(move |reader| read_piece(reader, from, upto, filter)).await {
                Ok((records, next)) => {
                    self.waiting = records.into();
                    self.next = next;
                }
                Err(_) => return Some(self.break_off("unreadable")),
            }
        }
        let mut out = Vec::new();
        while let Some(record) = self.waiting.front() {
            let wait = self.pace.due(record.time_us, Instant::now());
            if !wait.is_zero() {
                if !out.is_empty() {
                    break;
                }
                let stop = self.context.stop.clone();
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.wait() => return Some(self.break_off("draining")),
                }
            }
            match self.form {
                Form::Sse => frame::write_sse(record, true, &mut out),
                Form::Lines => {
                    frame::write_replayed(record, &mut out);
                    out.push(b'\n');
                }
            }
            self.replayed += 1;
            self.waiting.pop_front();
        }
        Some(Ok(out.into()))
    }

    /// The last words of an SSE replay; lines are complete when their answer is.
    fn complete(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        self.ended = true;
        let words = json!({ "events_replayed": self.replayed });
        (self.form == Form::Sse).then(|| Ok(frame::notice("replay_complete", &words)))
    }

    fn break_off(&mut self, reason: &str) -> Result<Bytes, BrokenOff> {
        self.ended = true;
        match self.form {
            Form::Sse => Ok(frame::notice("disconnect", &json!({ "reason": reason }))),
            Form::Lines => Err(BrokenOff),
        }
    }
}

fn read_piece(
    reader: &Reader,
    from: u64,
    upto: u64,
    filter: Filter,
) -> Result<(Vec<Record>, u64), ReadError> {
    let mut scan = reader.forward(from, filter).pausing_after(PIECE_SCAN_MAX);
    let (mut records, mut bytes) = (Vec::new(), 0);
    while records.len() < PIECE_EVENTS && bytes < PIECE_BYTES {
        match scan.next()? {
            Some(record) if record.stamp.seq > upto => return Ok((records, upto + 1)),
            Some(record) => {
                bytes += record.json().len();
                records.push(record);
            }
            None => break,
        }
    }
    Ok((records, scan.position()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_when_market_time_says() {
        let mut pace = Pace { speed: Speed::Times(10.0), begun: None };
        let now = Instant::now();
        assert_eq!(pace.due(1_000_000, now), Duration::ZERO);
        assert_eq!(pace.due(2_000_000, now), Duration::from_millis(100));
        assert_eq!(pace.due(2_000_000, now + Duration::from_millis(60)), Duration::from_millis(40));
        assert_eq!(pace.due(500_000, now), Duration::ZERO, "out of order");
        let mut pace = Pace { speed: Speed::Max, begun: None };
        assert_eq!(pace.due(i64::MAX, now), Duration::ZERO);
    }
}
