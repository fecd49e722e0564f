//! Live events over a WebSocket: `GET /events/ws`.
//!
//! The caller is verified at the upgrade, by `Authorization: Bearer` as at every other call; a page in a browser,
//! which cannot set it on a WebSocket, reads `/events/stream` with `fetch`, which can. Text messages are JSON:
//!
//! - from the client `{"op":"subscribe","sub":"a",…}` with the names of `/events/stream` (lists where they may be
//!   repeated) and `credit`; `{"op":"unsubscribe","sub"}`; `{"op":"seek","sub","to"}`;
//!   `{"op":"credit","sub","n"}`: so many events more; `{"op":"ack","sub","id"}`: everything up to `id` is
//!   handled, so as many may come again. Without `credit` the connection alone sets the pace;
//! - to the client `{"op":"event","sub","event":{…}}` with the envelope of the stream, and `subscribed`,
//!   `unsubscribed`, `sought`, `acked`, `gap`, `snapshot`, `slow`, `caught_up`, `disconnect` (one subscription
//!   ended), `error` with `code`, `detail` and `pointer`.
//!
//! Close codes: 1002, 1003, 1007, 1009 as RFC 6455 has them; 1008 `expired`, `revoked` or `too_many_messages`;
//! 1012 `draining; retry_ms=N`; 4408 `no_pong`.

pub(crate) mod codec;
pub(crate) mod credit;
mod handshake;
mod ops;
mod session;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use sluice_http::{Authenticated, Reject, Standing, StrictQuery, take_over};

use crate::access;
use crate::context::Context;
use crate::params::Params;
use crate::stream::STALL_MAX;
use session::Session;

/// `GET /events/ws`
pub(crate) async fn open(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    standing: Standing,
    StrictQuery(pairs): StrictQuery<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Reject> {
    access::not_legacy(&caller)?;
    let readable = access::readable(&caller)?;
    Params::new(pairs).finish()?;
    let response = handshake::answer(&headers)?;
    Ok(take_over(response, move |taken| Session::new(context, taken, readable, STALL_MAX).run(standing)))
}
