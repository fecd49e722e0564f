//! Live streams: `GET /events/stream` as server-sent events. `GET /events/ws` is in [`crate::ws`].
//!
//! - `mode=all`: every wanted event; with `max_rate=` at most so many a second, so that the stream lags rather
//!   than loses. `mode=conflate`: of each type and symbol the newest, at most `max_rate=` a second (10), each with
//!   `conflated`, the number of older ones it stands for. Events without a symbol are all sent.
//! - `snapshot=true`: the newest market data of each symbol, marked `"snapshot":true` and without an id, then
//!   `event: snapshot` with the id they are valid at, then what came after it. Who comes back with an id gets no
//!   second one.
//! - `on_slow=`: what happens when the ring has passed a subscriber by: `catch_up` from the log, `conflate` until
//!   it has caught up (between `event: slow` and `event: caught_up`), `drop` to the present with a `gap`, or
//!   `disconnect`. A connection that takes no byte for [`STALL_MAX`] is closed.
//! - `Last-Event-ID` (or `last_event_id=` for who cannot set headers) wins over `from`.
//! - The end of the caller's token ends the stream: `event: disconnect` with `expired` or `revoked`.

pub(crate) mod behind;
pub(crate) mod choice;
mod conflate;
pub(crate) mod feed;
pub(crate) mod out;
pub(crate) mod pace;
pub(crate) mod position;
pub(crate) mod sse;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use sluice_http::{Authenticated, Reject, Standing, StrictQuery, TrustCell, take_over};

use crate::access;
use crate::context::Context;
use crate::params::Params;
use choice::Choice;
use feed::Feed;

/// Bytes handed to a connection at once.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;
/// Events looked at before other subscribers have their turn.
pub(crate) const PIECE_LOOKS: usize = 4_096;
/// Longest time that a connection may take nothing while something waits for it.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(60);

/// Calls every subscriber when keys or revocations change, and when the process is to end.
pub(crate) async fn call(context: Arc<Context>, trust: TrustCell) {
    let mut changes = trust.changes();
    while !context.stop.is_stopping() {
        tokio::select! {
            // The cell lives as long as the process does.
            _changed = changes.changed() => {}
            () = context.stop.wait() => {}
        }
        context.hub.bells().call();
    }
}

/// `GET /events/stream`
pub(crate) async fn stream(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    standing: Standing,
    StrictQuery(pairs): StrictQuery<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Reject> {
    access::not_legacy(&caller)?;
    let readable = access::readable(&caller)?;
    let mut params = Params::new(pairs);
    let choice = Choice::parse(&mut params, &headers, readable).map_err(|misfit| misfit.reject)?;
    params.finish()?;
    let feed = Feed::open(&context, choice).await?;
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(take_over(response, move |taken| sse::deliver(feed, taken, standing, STALL_MAX)))
}
