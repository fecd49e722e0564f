//! Replay: `POST /events/replay` counts the events of a window, or sends them, as fast as they are read or at a
//! multiple of the speed at which they happened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use sluice_http::{Authenticated, BodyBytes, Reject, StrictQuery, sse};
use sluice_wire::code::Code;
use sluice_wire::event::parse_time;
use sluice_wire::json as strict;
use sluice_wire::problem::Problem;
use tokio::time::Instant;

use crate::access;
use crate::context::{Context, NDJSON, accepts, json_response};
use crate::frame;
use crate::json::OneOrMany;
use crate::log::{Filter, ReadError, Reader, Record};
use crate::params::{Params, Selection, bad, time};

/// Events read at once.
const PIECE_EVENTS: usize = 1_000;
/// Bytes read at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Events looked at before others have their turn to read.
const PIECE_SCAN_MAX: u64 = 100_000;

/// How fast a replay goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Speed {
    /// As fast as events are read and taken.
    Max,
    /// Market time divided by this, 0.1 to 1000.
    Times(f64),
}

impl Speed {
    fn new(times: f64) -> Option<Self> {
        (0.1..=1_000.0).contains(&times).then_some(Self::Times(times))
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "max" { Some(Self::Max) } else { text.parse().ok().and_then(Self::new) }
    }
}

/// What is asked for, from the query or the body.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Request {
    event_type: OneOrMany,
    source: Option<String>,
    symbol: Option<String>,
    #[serde(deserialize_with = "loose_time")]
    start_time: Option<jiff::Timestamp>,
    #[serde(deserialize_with = "loose_time")]
    end_time: Option<jiff::Timestamp>,
    #[serde(deserialize_with = "speed")]
    speed: Option<Speed>,
    into: Option<String>,
    session: Option<bool>,
}

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

impl Request {
    /// From the body when there is one, else from the query; both at once would leave open which one wins.
    fn read(pairs: Vec<(String, String)>, headers: &HeaderMap, body: &[u8]) -> Result<Self, Reject> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Self::from_query(Params::new(pairs));
        }
        if !pairs.is_empty() {
            return Err(bad("name the window in the query or in the body, not in both"));
        }
        let kind = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or(""));
        let is_json = kind.is_none_or(|kind| {
            kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json")
        });
        if !is_json {
            return Err(Reject::new(Code::UnsupportedMediaType, "the body must be application/json"));
        }
        strict::from_slice(body).map_err(|error| {
            let code = if error.shape { Code::BadRequest } else { Code::InvalidJson };
            Problem::new(code).detail(error.to_string()).into()
        })
    }

    fn from_query(mut params: Params) -> Result<Self, Reject> {
        let request = Self {
            event_type: OneOrMany(params.all("event_type")),
            source: params.one("source")?,
            symbol: params.one("symbol")?,
            start_time: params.one("start_time")?.map(|text| time("start_time", &text)).transpose()?,
            end_time: params.one("end_time")?.map(|text| time("end_time", &text)).transpose()?,
            speed: match params.one("speed")? {
                Some(text) => Some(Speed::parse(&text).ok_or_else(|| bad("speed is 0.1 to 1000, or `max`"))?),
                None => None,
            },
            into: params.one("into")?,
            session: match params.one("session")?.as_deref() {
                None => None,
                Some("true") => Some(true),
                Some("false") => Some(false),
                Some(_) => return Err(bad("session is `true` or `false`")),
            },
        };
        params.finish()?;
        Ok(request)
    }

    fn filter(self, granted: Filter) -> Result<Filter, Reject> {
        Selection {
            event_type: self.event_type.0,
            source: self.source,
            symbol: self.symbol,
            start_time: self.start_time,
            end_time: self.end_time,
        }
        .filter(granted)
    }
}

fn loose_time<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<jiff::Timestamp>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Raw {
        Millis(i64),
        Text(String),
    }
    let time = match Option::<Raw>::deserialize(raw)? {
        None => return Ok(None),
        Some(Raw::Millis(ms)) => jiff::Timestamp::from_millisecond(ms).ok(),
        Some(Raw::Text(text)) => parse_time(&text),
    };
    time.map(Some)
        .ok_or_else(|| serde::de::Error::custom("a time is ISO 8601 or whole milliseconds since 1970"))
}

fn speed<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<Speed>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Raw {
        Times(f64),
        Text(String),
    }
    let speed = match Option::<Raw>::deserialize(raw)? {
        None => return Ok(None),
        Some(Raw::Times(times)) => Speed::new(times),
        Some(Raw::Text(text)) => Speed::parse(&text),
    };
    speed.map(Some).ok_or_else(|| serde::de::Error::custom("speed is 0.1 to 1000, or \"max\""))
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
    fn speed_is_bounded() {
        assert_eq!(Speed::parse("max"), Some(Speed::Max));
        assert_eq!(Speed::parse("2.5"), Some(Speed::Times(2.5)));
        for bad in ["0", "0.09", "1001", "-1", "nan", "inf", "fast", ""] {
            assert_eq!(Speed::parse(bad), None, "{bad}");
        }
    }

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

    #[test]
    fn a_body_or_a_query_but_not_both() {
        let pairs = || vec![("event_type".to_owned(), "a".to_owned())];
        let headers = HeaderMap::new();
        assert_eq!(Request::read(pairs(), &headers, b"").unwrap().event_type.0, ["a"]);
        let body =
            br#"{"event_type":["a","b"],"start_time":1000,"end_time":"1970-01-01T00:00:02","speed":"max"}"#;
        let request = Request::read(Vec::new(), &headers, body).unwrap();
        assert_eq!((request.event_type.0.len(), request.speed), (2, Some(Speed::Max)));
        assert!(Request::read(pairs(), &headers, body).is_err());
        for bad in [&br#"{"colour":1}"#[..], br#"{"speed":0}"#, br#"{"start_time":"x"}"#, b"[", b"7"] {
            assert!(Request::read(Vec::new(), &headers, bad).is_err());
        }
    }
}
