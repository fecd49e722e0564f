//! A replay that is one answer: the events of a window, sent as they are due.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, header};
use serde_json::json;
use sluice_http::sse;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::clock::{Due, MarketClock};
use super::request::Speed;
use super::window::Window;
use crate::context::{Context, NDJSON};
use crate::frame;
use crate::log::Record;

/// What the events are sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Sse,
    Lines,
}

/// Sends the events of a window.
pub(super) fn sent(
    context: Arc<Context>,
    permit: OwnedSemaphorePermit,
    window: Window,
    form: Form,
    speed: Speed,
) -> Response {
    let player = Player {
        context,
        window,
        form,
        clock: MarketClock::new(speed, false),
        next: 0,
        waiting: VecDeque::new(),
        replayed: 0,
        ended: false,
        _permit: permit,
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
    window: Window,
    form: Form,
    clock: MarketClock,
    next: u64,
    waiting: VecDeque<Record>,
    replayed: u64,
    ended: bool,
    _permit: OwnedSemaphorePermit,
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
            if self.next > self.window.upto {
                return self.complete();
            }
            if self.context.stop.is_stopping() {
                return Some(self.break_off("draining"));
            }
            let (from, window) = (self.next, self.window.clone());
            match self.context.read(move |reader| window.read(reader, from)).await {
                Ok(piece) if piece.trimmed.is_some() => return Some(self.break_off("trimmed")),
                Ok(piece) => {
                    self.waiting = piece.records.into();
                    self.next = piece.next;
                }
                Err(_) => return Some(self.break_off("unreadable")),
            }
        }
        let mut out = Vec::new();
        while let Some(record) = self.waiting.front() {
            if let Due::In(wait) = self.clock.due(record.time_us, Instant::now()) {
                if !out.is_empty() {
                    break;
                }
                let stop = self.context.stop.clone();
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.wait() => return Some(self.break_off("draining")),
                }
                continue;
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
