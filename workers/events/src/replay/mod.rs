//! Replay: `POST /events/replay` counts the events of a window, sends them as fast as they are read or at a multiple
//! of the speed at which they happened, stores them in another stream, or begins a session whose clock can be set.

mod calls;
mod clock;
mod into;
mod player;
mod request;
mod session;
mod window;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde_json::json;
use sluice_http::{Authenticated, BodyBytes, Reject, StrictQuery};
use sluice_identity::caller::Caller;
use sluice_wire::code::Code;

use crate::access;
use crate::context::{Context, NDJSON, accepts, json_response};
use player::Form;
use request::{Request, Speed};
use window::Window;

pub(crate) use calls::{change, delete, told, watch_session};
pub(crate) use session::Sessions;

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
    let (speed, into, session) = (request.speed, request.into.clone(), request.session == Some(true));
    let form = if accepts(&headers, "text/event-stream") {
        Some(Form::Sse)
    } else {
        accepts(&headers, NDJSON).then_some(Form::Lines)
    };
    let window = Window { filter: request.filter(readable)?, upto: context.reader().durable_seq() };
    if session {
        access::not_legacy(&caller)?;
        if into.is_some() {
            return Err(Reject::new(Code::BadRequest, "a session is watched: `into` does not go with it"));
        }
        return calls::begin(&context, &caller, window, speed.unwrap_or(Speed::Max));
    }
    match (form, speed, into) {
        (None, None, Some(into)) => republished(&context, &caller, window, &into).await,
        (_, _, Some(_)) => Err(Reject::new(
            Code::BadRequest,
            "`into` stores the events at once: it goes neither with `speed` nor with an answer of events",
        )),
        (Some(form), speed, None) => {
            let permit = context.stream_permit()?;
            Ok(player::sent(context, permit, window, form, speed.unwrap_or(Speed::Max)))
        }
        (None, None, None) => counted(&context, window).await,
        (None, Some(_), None) => Err(Reject::new(
            Code::BadRequest,
            format!("speed needs `Accept: text/event-stream`, `Accept: {NDJSON}` or `session`"),
        )),
    }
}

/// Counts the events of the window.
async fn counted(context: &Context, window: Window) -> Result<Response, Reject> {
    let (mut next, mut events_replayed) = (0, 0_u64);
    while next <= window.upto {
        let window = window.clone();
        let (counted, position) = context.read(move |reader| window.count(reader, next)).await?;
        events_replayed += counted;
        next = position;
    }
    json_response(&json!({
        "status": "replay_complete",
        "events_replayed": events_replayed,
        "republished_to": null,
    }))
}

/// Sends the events of the window elsewhere.
async fn republished(
    context: &Context,
    caller: &Caller,
    window: Window,
    into: &str,
) -> Result<Response, Reject> {
    access::not_legacy(caller)?;
    if into.starts_with(into::GROUP) {
        // Others are handed these messages, as with a redrive.
        access::may_administer(caller)?;
    } else if !(caller.grants.covers("events:publish") || caller.grants.covers("write")) {
        return Err(Reject::lacking("events:publish"));
    }
    let done = into::republish(context, window, into).await?;
    json_response(&json!({
        "status": "replay_complete",
        "events_replayed": done.events,
        "republished_to": into,
        "duplicates": done.duplicates,
    }))
}
