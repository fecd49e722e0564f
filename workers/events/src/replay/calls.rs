//! The calls of a replay session: its stream, its settings, its end.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use sluice_http::{Authenticated, BodyBytes, Reject, StrictQuery, sse};
use sluice_identity::caller::Caller;
use sluice_wire::code::Code;
use sluice_wire::event::parse_time;
use sluice_wire::header::LAST_EVENT_ID;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::clock::Due;
use super::request::{Speed, given_speed};
use super::session::{Seat, Session, Turn};
use super::window::{Sought, Window};
use crate::access;
use crate::body::document;
use crate::context::{Context, json_response};
use crate::frame;
use crate::log::{Filter, MessageId, Record};
use crate::params::{Params, bad};

/// Bytes handed to a connection at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Begins a session.
pub(super) fn begin(
    context: &Context,
    caller: &Caller,
    window: Window,
    speed: Speed,
) -> Result<Response, Reject> {
    let first = context.reader().first_seq();
    let session = context.sessions.begin(&caller.subject, window, first, speed)?;
    let mut response = json_response(&session.told(Instant::now()))?;
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// `GET /events/replay/{id}`
pub(crate) async fn told(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
) -> Result<Response, Reject> {
    json_response(&own(&context, &caller, &id)?.told(Instant::now()))
}

/// `DELETE /events/replay/{id}`
pub(crate) async fn delete(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
) -> Result<Response, Reject> {
    let session = own(&context, &caller, &id)?;
    context.sessions.remove(session.id);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What of a session is to be otherwise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    #[serde(default, deserialize_with = "given_speed")]
    speed: Option<Speed>,
    #[serde(default)]
    paused: Option<bool>,
    /// An event time, or a message id: the first event there or after it is the next one.
    #[serde(default)]
    seek: Option<Place>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Place {
    Millis(i64),
    Text(String),
}

/// `PATCH /events/replay/{id}`
pub(crate) async fn change(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    headers: HeaderMap,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    let session = own(&context, &caller, &id)?;
    let change: Change = document(&headers, &body)?;
    let next = match change.seek {
        Some(place) => Some(find(&context, &session, place).await?),
        None => None,
    };
    session.set(change.speed, change.paused, next, Instant::now());
    json_response(&session.told(Instant::now()))
}

async fn find(context: &Context, session: &Session, place: Place) -> Result<u64, Reject> {
    let time = match place {
        Place::Millis(ms) => jiff::Timestamp::from_millisecond(ms).ok(),
        Place::Text(text) => {
            if let Ok(id) = text.parse::<MessageId>() {
                return context.read(move |reader| reader.seq_at(id)).await;
            }
            parse_time(&text)
        }
    };
    let time_us =
        time.ok_or_else(|| Reject::new(Code::BadRequest, "seek is a time or a message id"))?.as_microsecond();
    let mut from = session.first;
    loop {
        let window = session.window.clone();
        match context.read(move |reader| window.seek(reader, from, time_us)).await? {
            Sought::At(seq) => return Ok(seq),
            Sought::Further(seq) => from = seq,
        }
    }
}

/// A session of the caller's, or any for who may administer; those of others do not exist for it.
fn own(context: &Context, caller: &Caller, id: &str) -> Result<Arc<Session>, Reject> {
    access::not_legacy(caller)?;
    let found = Uuid::parse_str(id).ok().and_then(|id| context.sessions.find(id));
    found
        .filter(|session| session.owner == caller.subject || caller.grants.covers("events:admin"))
        .ok_or_else(|| Reject::new(Code::NotFound, "there is no replay session with this id"))
}

/// `GET /events/replay/{id}/stream`: the one viewer of the session.
pub(crate) async fn watch_session(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    StrictQuery(pairs): StrictQuery<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Reject> {
    let readable = access::readable(&caller)?;
    let session = own(&context, &caller, &id)?;
    let last = last_event_id(Params::new(pairs), &headers)?;
    let from = match last {
        Some(id) => Some(context.read(move |reader| reader.seq_after(id)).await?),
        None => None,
    };
    let permit = context.stream_permit()?;
    let Some(seat) = session.watch(from, Instant::now()) else {
        // What makes an `EventSource` not come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let viewer = Viewer {
        changes: session.changes(),
        read_from: seat.next,
        last: seat.next.saturating_sub(1),
        context,
        session,
        seat,
        readable,
        waiting: VecDeque::new(),
        replayed: 0,
        opened: false,
        ended: false,
        _permit: permit,
    };
    Ok(sse::response(stream::unfold(viewer, |mut viewer| async move {
        let piece = viewer.piece().await?;
        Some((piece, viewer))
    })))
}

fn last_event_id(mut params: Params, headers: &HeaderMap) -> Result<Option<MessageId>, Reject> {
    let header = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
    let header = header.map(|value| value.to_str().map(str::to_owned).unwrap_or_default());
    let last = header.or(params.one("last_event_id")?);
    params.finish()?;
    last.map(|last| last.parse().map_err(|error| bad(format!("last event id: {error}")))).transpose()
}

/// The open stream of a session.
struct Viewer {
    context: Arc<Context>,
    session: Arc<Session>,
    seat: Seat,
    changes: watch::Receiver<()>,
    /// What this caller may read, which may be less than what the session's owner may.
    readable: Filter,
    /// Where reading goes on, behind what waits.
    read_from: u64,
    /// The newest event of the window so far, also one that this caller may not read.
    last: u64,
    waiting: VecDeque<Record>,
    replayed: u64,
    opened: bool,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.session.leave(&self.seat, Instant::now());
    }
}

impl Viewer {
    /// The next bytes; `None` at the end.
    async fn piece(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !std::mem::replace(&mut self.opened, true) {
            // Opens the stream at the client before there is an event.
            return Some(Bytes::from_static(b": replay open\n\n"));
        }
        loop {
            // What changes from here on wakes the waits below.
            self.changes.mark_unchanged();
            match self.session.turn(&mut self.seat) {
                Turn::On => {}
                Turn::Elsewhere => {
                    self.waiting.clear();
                    self.read_from = self.seat.next;
                    self.last = self.seat.next.saturating_sub(1);
                }
                Turn::End(reason) => return Some(self.end(reason)),
            }
            if self.context.stop.is_stopping() {
                return Some(self.end("draining"));
            }
            if self.waiting.is_empty() {
                if self.read_from > self.session.window.upto {
                    if !self.session.complete(&self.seat, self.last) {
                        continue;
                    }
                    self.ended = true;
                    let words = json!({ "events_replayed": self.replayed });
                    return Some(frame::notice("replay_complete", &words));
                }
                match self.refill().await {
                    Ok(None) => continue,
                    Ok(Some(gap)) => return Some(gap),
                    Err(_) => return Some(self.end("unreadable")),
                }
            }
            match self.due() {
                Ok(bytes) => return Some(bytes),
                Err(Due::Now) => {}
                Err(Due::In(wait)) => self.wait(Some(wait)).await,
                Err(Due::Paused) => self.wait(None).await,
            }
        }
    }

    fn end(&mut self, reason: &str) -> Bytes {
        self.ended = true;
        frame::notice("disconnect", &json!({ "reason": reason }))
    }

    /// Reads ahead; the gap, when retention took away what was to come.
    async fn refill(&mut self) -> Result<Option<Bytes>, Reject> {
        let (window, from) = (self.session.window.clone(), self.read_from);
        let piece = self.context.read(move |reader| window.read(reader, from)).await?;
        self.read_from = piece.next;
        if let Some(newest) = piece.records.last() {
            self.last = newest.stamp.seq;
        }
        self.waiting = piece.records.into_iter().filter(|record| self.readable.admits(record)).collect();
        Ok(piece.trimmed.map(|lost| {
            self.context.metrics.gaps.inc();
            frame::gap(&json!(lost.expected), &json!(lost.got), "trimmed")
        }))
    }

    /// The frames of what is due now, or what to wait for.
    fn due(&mut self) -> Result<Bytes, Due> {
        let (mut out, now) = (Vec::new(), Instant::now());
        while let Some(record) = self.waiting.front()
            && out.len() < PIECE_BYTES
        {
            match self.session.due(&self.seat, record, now) {
                Some(Due::Now) => {}
                _ if !out.is_empty() => break,
                // Changed between two looks: look again.
                other => return Err(other.unwrap_or(Due::Now)),
            }
            frame::write_sse(record, true, &mut out);
            self.replayed += 1;
            self.waiting.pop_front();
        }
        Ok(out.into())
    }

    async fn wait(&mut self, limit: Option<std::time::Duration>) {
        let stop = self.context.stop.clone();
        let until = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = until => {}
            // The session is held by this viewer, so its sender is there.
            _changed = self.changes.changed() => {}
            () = stop.wait() => {}
        }
    }
}
