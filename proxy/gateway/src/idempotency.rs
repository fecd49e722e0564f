//! Requests that carry an `Idempotency-Key`: executed once, answered alike however often they are sent.
//!
//! A request whose route honours its key is read whole, its key is claimed, and only then an upstream is chosen. What
//! the upstream answers is kept while it passes and recorded when its end passes. From the claim on its client may
//! leave: the answer is waited for all the same, or nobody would know what became of the order.
//!
//! The claim is a guard in the exchange. However the request ends, it tells the store what is known: free where
//! nothing was sent (shed, breaker open, refused connection), unknown where something was and no answer came.

mod capture;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora::Result;
use pingora::proxy::Session;
use ring::digest::{Context, SHA256};
use sluice_ledger::{Claim, Claimed, KeysError, Wanted};
use sluice_policy::idempotency::{
    Answer as Kept, BODY_BYTES_MAX, Fingerprint, KeyFault, KeyId, honours, key,
};
use sluice_schema::Idempotency;
use sluice_wire::code::Code;
use sluice_wire::header::IDEMPOTENCY_KEY;
use sluice_wire::problem::{Outcome, Problem};

use crate::admit::{decided, not_sent, too_large};
use crate::clock;
use crate::ctx::{Exchange, Target};
use crate::fields::Fields;
use crate::respond::{Answer, go_on};
use crate::state::Shared;
use capture::Capture;

/// Tells a client that its answer is that of an earlier copy of its request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// What is added to a request's time until its key no longer counts as in flight.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// The time of a request that has no end of its own.
const LEASE_LONGEST: Duration = Duration::from_secs(3600);

/// A key that a request holds, and what its answer is so far.
pub(crate) struct Held {
    claim: Claim,
    capture: Option<Capture>,
    /// Whether there is a body, and all of it was handed to the present try.
    has_body: bool,
    handed: bool,
    /// Whether an earlier try left a part of the request at an upstream.
    parted: bool,
}

/// Calls of gRPC have no key that could be honoured: where one is required they are refused.
pub(crate) fn check_call(x: &mut Exchange) -> std::result::Result<(), Answer> {
    let Target::Service(route) = &x.target else { return Ok(()) };
    if !x.call || route.service.idempotency != Idempotency::Required {
        return Ok(());
    }
    let detail = "this route needs an Idempotency-Key, which a call of gRPC cannot have";
    Err(decided(x, Code::IdempotencyKeyMissing.word(), Answer::refuse(Code::IdempotencyKeyMissing, detail)))
}

/// A request whose body is read whole before its upstream is chosen.
pub(crate) trait Whole {
    /// Its fields.
    fn fields(&self) -> &HeaderMap;

    /// Its body, which stays at hand for the upstream; `None` where it has more than `most` bytes.
    fn body(&mut self, x: &mut Exchange, most: u64) -> impl Future<Output = Result<Option<Bytes>>> + Send;
}

impl Whole for Session {
    fn fields(&self) -> &HeaderMap {
        &self.req_header().headers
    }

    async fn body(&mut self, x: &mut Exchange, most: u64) -> Result<Option<Bytes>> {
        go_on(self, x.arrival.body).await?;
        x.await_body_of_request();
        self.as_mut().enable_retry_buffering();
        let mut whole = BytesMut::new();
        while let Some(piece) = self.as_mut().read_request_body().await? {
            x.body_bytes += piece.len() as u64;
            if x.body_bytes > most {
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole.freeze()))
    }
}

/// Whether the route of an admitted request honours a key that it may have.
pub(crate) fn honoured(x: &Exchange) -> bool {
    matches!(&x.target, Target::Service(route) if honours(route.service.idempotency, x.arrival.method, x.call))
}

/// Claims the key of an admitted request, where it has one that its route honours. The inner `Err` is the answer that
/// takes the place of an upstream's; the outer one a body that did not come.
pub(crate) async fn claim(
    shared: &Shared,
    request: &mut impl Whole,
    x: &mut Exchange,
) -> Result<std::result::Result<(), Answer>> {
    let Target::Service(route) = &x.target else { return Ok(Ok(())) };
    let (rule, service) = (route.service.idempotency, Arc::clone(route));
    if !honoured(x) {
        return Ok(Ok(()));
    }
    let values = request.fields().get_all(IDEMPOTENCY_KEY);
    let key = match key(rule, values.iter().map(HeaderValue::as_bytes)) {
        Ok(Some(key)) => key,
        Ok(None) => return Ok(Ok(())),
        Err(fault) => return Ok(Err(faulty(x, fault))),
    };
    let most = x.body_bytes_max.min(BODY_BYTES_MAX);
    let fits = x.announced().is_none_or(|bytes| bytes <= most);
    let body = if fits { request.body(x, most).await? } else { None };
    let Some(body) = body else {
        return Ok(Err(decided(x, "body_too_large", too_large(most))));
    };
    x.note_received();
    let wanted = Wanted {
        id: key_id(x, &service.service.name, &key),
        fingerprint: fingerprint(x, request.fields().get(CONTENT_TYPE), &body),
        until_ms: clock::unix_ms() + ms(x.left().unwrap_or(LEASE_LONGEST) + LEASE_MARGIN),
        ttl: x.generation.config.keys.ttl,
    };
    let asked = Instant::now();
    let claimed = shared.keys.claim(wanted).await;
    shared.meters.idempotency_seconds.observe(asked.elapsed().as_secs_f64());
    let (word, answer) = match claimed {
        Ok(Claimed::Held(claim)) => {
            let has_body = !body.is_empty();
            x.arrival.link.set_stays(true);
            x.key = Some(Box::new(Held { claim, capture: None, has_body, handed: false, parted: false }));
            shared.meters.idempotency(&service.service.name, "claimed");
            return Ok(Ok(()));
        }
        Ok(Claimed::Replay(kept)) => ("replayed", replay(x, kept)),
        Ok(Claimed::InFlight) => ("in_flight", in_flight(x)),
        Ok(Claimed::Unknown) => ("unknown", unknown(x)),
        Ok(Claimed::Mismatch) => ("mismatch", mismatch(x)),
        Err(error) => ("unavailable", unavailable(x, &error)),
    };
    shared.meters.idempotency(&service.service.name, word);
    Ok(Err(answer))
}

/// Caller, route and key. Callers without identity share the keys of a route: an order that comes again from another
/// address must not be executed twice.
fn key_id(x: &Exchange, service: &str, key: &str) -> KeyId {
    let subject = x.identity.as_ref().map(|identity| identity.claims.sub.as_str());
    let parts = [&[u8::from(subject.is_some())], subject.unwrap_or_default().as_bytes(), service.as_bytes()];
    hash(parts.into_iter().chain([key.as_bytes()]))
}

fn fingerprint(x: &Exchange, content_type: Option<&HeaderValue>, body: &[u8]) -> Fingerprint {
    let query = x.arrival.query.as_deref();
    hash([
        x.arrival.method.as_str().as_bytes(),
        x.arrival.path.as_bytes(),
        &[u8::from(query.is_some())],
        query.unwrap_or_default().as_bytes(),
        content_type.map_or(&b""[..], HeaderValue::as_bytes),
        body,
    ])
}

/// SHA-256 of parts, each with its length before it, so that no two lists of parts read alike.
fn hash<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn faulty(x: &mut Exchange, fault: KeyFault) -> Answer {
    let code =
        if fault == KeyFault::Missing { Code::IdempotencyKeyMissing } else { Code::IdempotencyKeyInvalid };
    decided(x, code.word(), Answer::refuse(code, fault.to_string()))
}

fn in_flight(x: &mut Exchange) -> Answer {
    let problem = Problem::new(Code::IdempotencyInFlight)
        .detail("a request with this key is under way; ask again for its answer")
        .retry_after_s(1);
    decided(x, problem.code.word(), Answer::problem(problem))
}

fn unknown(x: &mut Exchange) -> Answer {
    let problem = Problem::new(Code::OutcomeUnknown)
        .detail("a request with this key was sent and its answer was lost; it is not sent again: look at the account")
        .outcome(Outcome::Unknown);
    decided(x, problem.code.word(), Answer::problem(problem))
}

fn mismatch(x: &mut Exchange) -> Answer {
    let detail = "this key was used for another request: same method, path, query, type and body are needed";
    decided(x, Code::IdempotencyKeyReused.word(), Answer::refuse(Code::IdempotencyKeyReused, detail))
}

fn unavailable(x: &mut Exchange, error: &KeysError) -> Answer {
    tracing::warn!(
        component = "idempotency",
        error = error as &dyn std::error::Error,
        request_id = x.request_id.as_str(),
        "key not claimed, request not sent"
    );
    let problem = Problem::new(Code::IdempotencyUnavailable)
        .detail("the key cannot be recorded now, so nothing was sent")
        .retry_after_s(1);
    decided(x, problem.code.word(), Answer::problem(not_sent(x, problem)))
}

/// The answer that an earlier copy got.
fn replay(x: &mut Exchange, kept: Kept) -> Answer {
    let replayed = (REPLAYED, HeaderValue::from_static("true"));
    let answer = match kept {
        Kept::Whole { status, fields, body } => {
            let fields = fields.iter().filter_map(|(name, value)| {
                Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
            });
            Answer::kept(status, fields.collect(), body.into())
        }
        Kept::Status(status) => Answer::problem(
            Problem::new(Code::ResponseNotKept)
                .with_status(status)
                .detail("the request was executed and answered with this status; the rest was not kept"),
        ),
    };
    decided(x, "idempotency_replayed", answer.with(replayed.0, replayed.1))
}

/// A byte of the request may reach an upstream from here on.
pub(crate) fn is_sent(x: &mut Exchange) {
    if let Some(key) = &mut x.key {
        key.claim.set_sent(true);
    }
}

/// The upstream says that it did nothing with the request.
pub(crate) fn was_not_processed(x: &mut Exchange) {
    if let Some(key) = &mut x.key {
        key.claim.set_sent(key.parted);
    }
}

/// Another try begins.
pub(crate) fn begins_again(x: &mut Exchange) {
    if let Some(key) = &mut x.key {
        key.handed = false;
    }
}

/// The whole body was handed to the present try.
pub(crate) fn is_handed(x: &mut Exchange) {
    if let Some(key) = &mut x.key {
        key.handed = true;
    }
}

/// Whether its last byte cannot have left: it has a body, which was not handed over.
pub(crate) fn is_part(x: &Exchange) -> bool {
    x.key.as_ref().is_some_and(|key| key.has_body && !key.handed)
}

/// A part of the request stays at an upstream while it is tried again.
pub(crate) fn leaves_part(x: &mut Exchange) {
    if let Some(key) = &mut x.key {
        key.parted = true;
    }
}

/// Whether an earlier try left a part of it at an upstream.
pub(crate) fn has_left_part(x: &Exchange) -> bool {
    x.key.as_ref().is_some_and(|key| key.parted)
}

/// The head of the answer goes to the client, as it is now. `last`: nothing follows it.
pub(crate) fn head_goes(x: &mut Exchange, status: StatusCode, fields: &impl Fields, last: bool) {
    let streams = x.streaming;
    let Some(key) = &mut x.key else { return };
    let status = status.as_u16();
    key.claim.set_status(status);
    if streams {
        // It has no end that could be waited for.
        x.key = None;
        return;
    }
    key.capture = Some(Capture::of(status, fields));
    if last {
        answer_ends(x);
    }
}

/// A piece of its body goes to the client.
pub(crate) fn piece_goes(key: &mut Option<Box<Held>>, piece: &[u8]) {
    if let Some(Held { capture: Some(capture), .. }) = key.as_deref_mut() {
        capture.add(piece);
    }
}

/// The end of it goes to the client: whoever asks again from here on gets the same.
pub(crate) fn answer_ends(x: &mut Exchange) {
    if let Some(key) = x.key.take() {
        let Held { claim, capture, .. } = *key;
        if let Some(capture) = capture {
            claim.finish(capture.into_answer());
        }
    }
}

/// The request has come to another end than an upstream's answer. Told before its client is, which may ask again at
/// once.
pub(crate) fn release(x: &mut Exchange) {
    x.key = None;
}
