//! What a request carries to its upstream and an answer back, whichever way the bytes take: through
//! Pingora, through a tunnel, or as a call.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, TE};
use http::{HeaderValue, StatusCode, Version};
use pingora::http::RequestHeader;
use pingora::{Error, Result};
use sluice_policy::breaker::Outcome;
use sluice_policy::ending::{Ending, worked};
use sluice_policy::event_stream::Events;
use sluice_policy::framing::BodyFraming;
use sluice_policy::headers::Rules;
use sluice_policy::method::Method;

use crate::admit::too_large;
use crate::authenticate::judged;
use crate::backlog::counted;
use crate::clock;
use crate::ctx::{Exchange, Target};
use crate::due;
use crate::enter;
use crate::fields::{Fields, name};
use crate::h2::grpc;
use crate::headers::{Introduction, STAY_ENCRYPTED, clean_response, introduce, strip_request};
use crate::idempotency;
use crate::peer::{REFUSED, host};
use crate::shape;
use crate::standing::Place;
use crate::state::Shared;

/// An answer of this length leaves as one piece; a longer one can be kept waiting by its client.
const LONG_BYTES: u64 = 4 << 10;

/// Makes a client's head the one that the upstream of the present try gets.
pub(crate) fn prepare(shared: &Shared, x: &mut Exchange, request: &mut RequestHeader) -> Result<()> {
    prepare_fields(shared, x, request)?;
    if request.version == Version::HTTP_2 && is_grpc(request) {
        // It ends at each hop, so the edge asks for trailers itself; some servers refuse gRPC without it.
        request.insert_header(TE, HeaderValue::from_static("trailers"))?;
    }
    let path = x.forward_path.as_deref().unwrap_or(&x.arrival.path);
    let target = sluice_policy::path::target(path, x.arrival.query.as_deref());
    if target.as_bytes() != request.raw_path() {
        request.set_raw_path(target.as_bytes())?;
    }
    is_sent(x);
    Ok(())
}

/// Makes a client's fields those that the upstream of the present try gets.
pub(crate) fn prepare_fields(shared: &Shared, x: &Exchange, fields: &mut impl Fields) -> Result<()> {
    let rules = Rules { trusted_peer: x.peer_trusted, forward_credentials: x.keeps_credentials };
    strip_request(fields, rules)?;
    introduce(
        fields,
        &Introduction {
            host: host(x),
            peer: &x.arrival.conn.peer_address,
            scheme: if x.arrival.conn.is_tls() { "https" } else { "http" },
            peer_trusted: x.peer_trusted,
            identity: x.identity.as_deref(),
            request_id: x.request_id.as_str(),
            trace: &x.trace,
            span: x.attempt.as_ref().map_or(x.trace.span(), |attempt| attempt.span),
        },
    )?;
    due::tell(x, fields)?;
    match &x.target {
        Target::Service(route) => route.request_edits.apply(fields),
        Target::Worker(_) => {
            if let Some(proof) = x.identity.as_ref().and_then(|identity| identity.proof.clone()) {
                fields.set(name::PROOF, proof)?;
            }
            fields.set(name::INTERNAL_KEY, shared.internal_key.clone())
        }
        Target::Page => Ok(()),
    }
}

/// A byte of the request may reach the upstream from here on.
pub(crate) fn is_sent(x: &mut Exchange) {
    if let Some(attempt) = &mut x.attempt {
        attempt.sent = true;
    }
    idempotency::is_sent(x);
}

fn is_grpc(request: &RequestHeader) -> bool {
    request.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The upstream's final head is here: averages and ejection learn of it.
pub(crate) fn head_came(x: &mut Exchange, status: u16) {
    x.failure = None;
    let took = x.attempt.as_ref().map(|attempt| clock::instant() - attempt.started).unwrap_or_default();
    x.first_byte = Some(took);
    let has_body = x.arrival.body != BodyFraming::None;
    x.worked = worked(has_body, took, x.received_at.map(|at| clock::instant() - at));
    x.upstream_status = Some(status);
    let idle = x.timeouts().map(|timeouts| timeouts.idle);
    x.arrival.link.backlog().set_patience(idle.filter(|_| !x.call));
    if let Some(attempt) = &mut x.attempt {
        attempt.status = Some(status);
    }
    if let (Target::Service(route), Some(attempt)) = (&x.target, &x.attempt)
        && let Some(endpoint) = &attempt.endpoint
    {
        route.upstream.judge(endpoint, Outcome::of_status(status), took);
    }
}

/// A piece of a request's body on its way to the upstream: counted, and no more than the route takes. `end`:
/// nothing follows.
pub(crate) fn request_piece(x: &mut Exchange, piece: &mut Option<Bytes>, end: bool) -> Result<()> {
    x.body_bytes += piece.as_ref().map_or(0, |piece| piece.len() as u64);
    if x.body_bytes > x.body_bytes_max {
        x.refusal = Some(too_large(x.body_bytes_max));
        x.decision = "body_too_large";
        return Err(Error::new_down(REFUSED));
    }
    if end {
        x.note_received();
        idempotency::is_handed(x);
    }
    if !end && let Some(bytes) = piece.take_if(|piece| !piece.is_empty()) {
        *piece = Some(counted(&x.arrival.link, bytes));
    }
    if x.streaming && !x.answered {
        // What a call sends while its answer goes on shows that it is alive.
        x.await_answer();
    } else if end && x.upstream_status.is_none() {
        x.await_head();
    }
    Ok(())
}

/// The upstream's final head is the answer: no other try follows.
pub(crate) fn answer_begins(
    shared: &Arc<Shared>,
    x: &mut Exchange,
    status: StatusCode,
    response: &impl Fields,
) {
    judged(shared, x, status, response);
    let stream = is_stream(response);
    x.streaming = stream || answers_call(x, response);
    if x.streaming {
        // A call cannot be ended as if its instance had: that would take its status.
        x.arrival.link.set_streams(stream);
        x.events = events(response);
        x.standing = Place::take(shared, x);
        tell_breaker(x);
    }
    x.await_answer();
    if x.streaming {
        return;
    }
    if has_no_body(x, status, response) {
        settle(x);
        x.end_answer();
    } else if is_long(response) {
        enter::lend(x);
    }
}

/// Whether an answer may be more than leaves the edge at once.
fn is_long(response: &impl Fields) -> bool {
    let length = response.first(&CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_none_or(|length: u64| length > LONG_BYTES)
}

/// A piece of the answer on its way to the client. `end`: it is the last.
pub(crate) fn answer_piece(x: &mut Exchange, piece: Option<&Bytes>, end: bool) {
    if let Some(piece) = piece {
        x.answer_bytes += piece.len() as u64;
        idempotency::piece_goes(&mut x.key, piece);
        if let Some(events) = &mut x.events {
            events.follow(piece);
        }
    }
    x.await_answer();
    if end {
        idempotency::answer_ends(x);
        settle(x);
        x.end_answer();
    }
}

/// Makes an upstream's final head the one that the client gets.
pub(crate) fn dress(x: &mut Exchange, response: &mut impl Fields) -> Result<()> {
    clean_response(response, x.request_id.as_str())?;
    if x.arrival.conn.is_tls() && !response.has(&STAY_ENCRYPTED.0) {
        response.set(STAY_ENCRYPTED.0, STAY_ENCRYPTED.1)?;
    }
    if let Target::Service(route) = &x.target {
        route.response_edits.apply(response)?;
    }
    for (name, value) in x.limit_headers.drain(..) {
        response.set(name, value)?;
    }
    shape::decorate(x, response)
}

/// The upstream has done its part. It is told before the client sees the end of the answer, so that the
/// client's next request meets the state that its last one left.
pub(crate) fn settle(x: &mut Exchange) {
    tell_breaker(x);
    if let Some(attempt) = &mut x.attempt {
        attempt.is_over();
    }
}

/// Tells gate and breaker how the call ended: by what the upstream did, never by what the client did. A stream has
/// ended for them with its head: how long it lasts says nothing of the upstream, and a lane full of subscribers
/// would serve nobody else.
pub(crate) fn tell_breaker(x: &mut Exchange) {
    enter::leave(x);
    let Some(leave) = x.leave.take() else { return };
    match ending(x).for_breaker() {
        Some(outcome) => leave.record(outcome, x.first_byte.unwrap_or_default()),
        None => drop(leave),
    }
}

/// How the request ended at its upstream, as far as it has.
pub(crate) fn ending(x: &Exchange) -> Ending {
    Ending { failure: x.failure, status: x.upstream_status, streams: x.streaming, worked: x.worked }
}

/// `Retry-After` of an upstream, where it is in seconds.
pub(crate) fn retry_after(response: &impl Fields) -> Option<Duration> {
    let value = response.first(&RETRY_AFTER)?.to_str().ok()?;
    value.parse().ok().map(Duration::from_secs)
}

/// Where the events of an answer end, where it consists of events as they are.
fn events(response: &impl Fields) -> Option<Events> {
    let kind = response.first(&CONTENT_TYPE)?.as_bytes();
    let plain = !response.has(&CONTENT_ENCODING);
    let is_events = kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
    (plain && is_events).then(Events::default)
}

/// Whether an answer goes on without end: no total deadline applies.
pub(crate) fn is_stream(response: &impl Fields) -> bool {
    let kind = response.first(&CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let starts =
        |prefix: &[u8]| kind.len() >= prefix.len() && kind[..prefix.len()].eq_ignore_ascii_case(prefix);
    !response.has(&CONTENT_LENGTH) && (starts(b"text/event-stream") || starts(b"application/x-ndjson"))
}

/// Whether an answer is that of a gRPC call. From its head on both sides may talk as long as they
/// like; what the caller is willing to wait still counts.
fn answers_call(x: &Exchange, response: &impl Fields) -> bool {
    x.call && response.first(&CONTENT_TYPE).is_some_and(grpc::is_kind) && !response.has(&CONTENT_LENGTH)
}

/// Whether an answer ends with its head.
pub(crate) fn has_no_body(x: &Exchange, status: StatusCode, response: &impl Fields) -> bool {
    x.arrival.method == Method::Head
        || matches!(status.as_u16(), 204 | 304)
        || response.first(&CONTENT_LENGTH).is_some_and(|length| length == "0")
}
