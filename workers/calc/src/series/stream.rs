//! `GET /series/{symbol}/{timeframe}/indicators/stream`: indicators bar by bar, as server-sent events.
//!
//! A subscription goes once over the rows that are stored, on a thread of the pool; from then on each bar costs it one
//! step of each indicator, and an update of the open bar a look that leaves the states as they are. It begins with the
//! newest closed bar. `indicator` events of closed bars have the begin of the bar as their id; behind a `Last-Event-ID`
//! the closed bars since then come first. Those of the open bar have no id, so that who comes back is told how it
//! closed. `gap` says that bars are not told one by one: `too_many` came at a time, the series was `replaced` (its
//! indicators begin anew), or `deleted`, which ends the stream.
//!
//! A slow reader holds nothing up: it is told later, and of the open bar only as it is then.

use std::sync::Arc;

use axum::extract::FromRequestParts as _;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use prometheus::IntGauge;
use serde::Deserialize;
use serde_json::json;
use sluice_calc::{Compat, Outputs};
use sluice_http::{Reject, StrictQuery, sse};
use sluice_wire::code::Code;
use sluice_wire::header::LAST_EVENT_ID;
use sluice_wire::problem::Problem;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::api::unknown;
use super::live::{Subscription, named};
use super::{Candle, SeriesKey, View};
use crate::bounds::{SMALL_ROWS_MAX, STREAM_AHEAD, STREAM_RESUME_MAX, STREAMS_MAX};
use crate::context::Context;
use crate::indicators::compat_named;
use crate::pool::Lane;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    names: String,
    compat: Option<String>,
}

/// One open stream.
struct Stream {
    context: Arc<Context>,
    series: watch::Receiver<Arc<View>>,
    out: mpsc::Sender<Bytes>,
    held: Subscription,
    generation: u64,
    /// The open bar that was told last.
    open: Option<Candle>,
    _place: Place,
}

/// One of the streams that may be open.
struct Place {
    _permit: OwnedSemaphorePermit,
    open: IntGauge,
}

impl Place {
    fn take(context: &Context) -> Result<Self, Reject> {
        let permit = Arc::clone(&context.streams).try_acquire_owned();
        let permit = permit.map_err(|_| busy(format!("{STREAMS_MAX} streams of indicators are open")))?;
        context.streams_open.inc();
        Ok(Self { _permit: permit, open: context.streams_open.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// Why a stream ends.
enum End {
    /// The client has left, or is to leave.
    Left,
    /// The series is there no longer.
    Deleted,
    /// The threads that compute have no room for the rows that came; the client comes back.
    Busy,
}

/// Opens a stream.
pub(super) async fn answer(
    context: &Arc<Context>,
    key: &SeriesKey,
    parts: &mut Parts,
) -> Result<Response, Reject> {
    let StrictQuery(query) = StrictQuery::<Query>::from_request_parts(parts, &()).await?;
    let compat = query.compat.as_deref().map_or(Ok(Compat::TaLib), compat_named)?;
    let held = Subscription::new(named(&query.names, compat)?);
    let after = after(&parts.headers)?;
    let place = Place::take(context)?;
    let mut series = context.series.watch(key).ok_or_else(|| unknown(key))?;
    let view = Arc::clone(&series.borrow_and_update());
    let from = match after {
        Some(after) => view.times().partition_point(|begin| *begin <= after),
        None => view.rows().saturating_sub(1),
    };
    let carried = carry(context, held, &view, from, view.rows()).await;
    let (held, frames) = carried.ok_or_else(|| busy("every computing thread is busy".to_owned()))?;
    let (out, told) = mpsc::channel(STREAM_AHEAD);
    let (context, generation) = (Arc::clone(context), view.generation);
    let stream = Stream { context, series, out, held, generation, open: None, _place: place };
    tokio::spawn(stream.run(frames, view));
    Ok(sse::response(futures_util::stream::unfold(told, async |mut told| {
        let frame = told.recv().await?;
        Some((frame, told))
    })))
}

fn busy(text: String) -> Reject {
    Problem::new(Code::QueueFull).detail(text).retry_after_s(1).into()
}

/// The begin of the last closed bar that the client was told of.
fn after(headers: &HeaderMap) -> Result<Option<i64>, Reject> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let after = value.to_str().ok().and_then(|text| text.parse().ok());
    let wrong = || Reject::new(Code::BadRequest, "Last-Event-ID is the begin of a bar, in milliseconds");
    after.map(Some).ok_or_else(wrong)
}

/// Takes the rows that are new, and tells of those from `from` on; `None` where the pool has no room.
async fn carry(
    context: &Context,
    mut held: Subscription,
    view: &Arc<View>,
    from: usize,
    to_take: usize,
) -> Option<(Subscription, Vec<Bytes>)> {
    if to_take <= AT_ONCE {
        let frames = take(&mut held, view, from);
        return Some((held, frames));
    }
    let (view, lane) = (Arc::clone(view), if to_take <= SMALL_ROWS_MAX { Lane::Small } else { Lane::Large });
    let carried = context.pool.run(lane, move |_| {
        let frames = take(&mut held, &view, from);
        (held, frames)
    });
    carried.await.ok().flatten()
}

/// Rows that are taken on a thread which others wait for.
const AT_ONCE: usize = 64;

fn take(held: &mut Subscription, view: &View, from: usize) -> Vec<Bytes> {
    let missing = view.rows().saturating_sub(from);
    let (from, mut frames) = if missing > STREAM_RESUME_MAX {
        (view.rows() - 1, vec![gap("too_many", Some(missing))])
    } else {
        (from, Vec::new())
    };
    let mut told: Vec<(usize, Vec<Outputs>)> = Vec::new();
    held.advance(view, |row, outputs| {
        if row >= from {
            told.push((row, outputs.to_vec()));
        }
    });
    frames.extend(told.iter().filter_map(|(row, outputs)| {
        let candle = view.candle(*row)?;
        Some(sse::frame(Some(&candle.time_ms.to_string()), "indicator", &data(held, &candle, true, outputs)))
    }));
    frames
}

fn data(held: &Subscription, candle: &Candle, closed: bool, outputs: &[Outputs]) -> String {
    let values = held.by_id(outputs, |number| json!(number));
    json!({"timestamp": candle.time_ms, "closed": closed, "values": values}).to_string()
}

fn gap(reason: &str, bars: Option<usize>) -> Bytes {
    sse::frame(None, "gap", &json!({"reason": reason, "bars": bars}).to_string())
}

impl Stream {
    async fn run(mut self, frames: Vec<Bytes>, view: Arc<View>) {
        if let Err(End::Deleted) = self.follow(frames, view).await {
            // Who has left meanwhile needs to be told nothing.
            drop(self.send(gap("deleted", None)).await);
        }
    }

    async fn follow(&mut self, frames: Vec<Bytes>, mut view: Arc<View>) -> Result<(), End> {
        self.tell(frames, &view).await?;
        loop {
            tokio::select! {
                () = self.out.closed() => return Err(End::Left),
                () = self.context.stop.wait() => return Err(End::Left),
                changed = self.series.changed() => changed.map_err(|_| End::Deleted)?,
            }
            view = Arc::clone(&self.series.borrow_and_update());
            let rows = view.rows();
            let (from, to_take) = if view.generation == self.generation {
                (self.held.rows(), rows.saturating_sub(self.held.rows()))
            } else {
                self.generation = view.generation;
                self.open = None;
                self.send(gap("replaced", None)).await?;
                (rows.saturating_sub(1), rows)
            };
            let held = std::mem::replace(&mut self.held, Subscription::new(Vec::new()));
            let (held, frames) = carry(&self.context, held, &view, from, to_take).await.ok_or(End::Busy)?;
            self.held = held;
            self.tell(frames, &view).await?;
        }
    }

    /// Tells of closed bars, and of the open one if it is another than before.
    async fn tell(&mut self, frames: Vec<Bytes>, view: &View) -> Result<(), End> {
        for frame in frames {
            self.send(frame).await?;
        }
        let before = std::mem::replace(&mut self.open, view.open());
        if let Some(open) = self.open.filter(|open| before != Some(*open)) {
            let outputs = self.held.peek(&open);
            self.send(sse::frame(None, "indicator", &data(&self.held, &open, false, &outputs))).await?;
        }
        Ok(())
    }

    async fn send(&self, frame: Bytes) -> Result<(), End> {
        tokio::select! {
            sent = self.out.send(frame) => sent.map_err(|_| End::Left),
            () = self.context.stop.wait() => Err(End::Left),
        }
    }
}
