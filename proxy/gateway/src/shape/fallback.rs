//! What a client gets in place of an answer that its service did not give.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_LENGTH, COOKIE, DATE, RANGE, SET_COOKIE, TRANSFER_ENCODING, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use pingora::http::ResponseHeader;
use sluice_policy::fallback::{
    KEPT_BYTES_MAX, SHELF_BYTES_MAX, SHELF_ITEMS_MAX, Shelf, has_stand_in, is_failed_status, is_failure,
    may_keep, may_keep_for, varies_by,
};
use sluice_policy::headers::is_credential;
use sluice_policy::method::Method;
use sluice_schema::{Fallback, Service};

use crate::clock;
use crate::ctx::{Exchange, Target};
use crate::forward::dress;
use crate::generation::ServiceRoute;
use crate::respond::Answer;
use crate::state::Shared;

/// LIMIT: bytes of answers that are being collected to be kept, all together.
const COLLECTED_BYTES_MAX: usize = 32 << 20;

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const STALE: HeaderValue = HeaderValue::from_static("STALE");

/// The fixed answer of a service.
pub(super) struct Fixed {
    status: u16,
    kind: &'static str,
    body: Bytes,
}

/// Answers kept to be shown again.
pub(super) struct Kept {
    shelf: Mutex<Shelf<Arc<Older>>>,
    collected: Arc<AtomicUsize>,
}

/// An answer that was given once.
struct Older {
    fields: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    /// Fields of the request that it was given for.
    varies: Vec<(HeaderName, Vec<u8>)>,
    /// Its age when it came, in seconds.
    age_s: u64,
}

/// An answer on its way that is kept when it is whole.
pub(super) struct Collected {
    key: Vec<u8>,
    fields: Vec<(HeaderName, HeaderValue)>,
    varies: Vec<(HeaderName, Vec<u8>)>,
    age_s: u64,
    body: Vec<u8>,
    room: Room,
}

/// Room for an answer among those that are collected; given back when dropped.
struct Room {
    taken: usize,
    of: Arc<AtomicUsize>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.of.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

impl Fixed {
    pub(super) fn new(service: &Service) -> Option<Self> {
        let Fallback { status, body, .. } = &service.fallback;
        let body = body.as_ref()?;
        let is_json = serde_json::from_str::<serde_json::Value>(body)
            .is_ok_and(|value| value.is_object() || value.is_array());
        let kind = if is_json { "application/json" } else { "text/plain; charset=utf-8" };
        Some(Self { status: *status, kind, body: Bytes::from(body.clone()) })
    }
}

impl Kept {
    pub(super) fn new() -> Self {
        Self { shelf: Mutex::new(Shelf::new(SHELF_BYTES_MAX, SHELF_ITEMS_MAX)), collected: Arc::default() }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<Arc<Older>>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self, bytes: usize) -> Option<Room> {
        let before = self.collected.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { taken: bytes, of: Arc::clone(&self.collected) };
        (before + bytes <= COLLECTED_BYTES_MAX).then_some(room)
    }
}

fn route(x: &Exchange) -> Option<&Arc<ServiceRoute>> {
    match &x.target {
        Target::Service(route) if has_stand_in(x.arrival.method) && !x.call => Some(route),
        _ => None,
    }
}

/// What the client gets in place of a refusal, where that tells of the upstream's failure.
pub(crate) fn stand_in(shared: &Shared, x: &mut Exchange, asked: &HeaderMap, answer: Answer) -> Answer {
    if !answer.as_problem().is_some_and(|problem| is_failure(problem.code)) {
        return answer;
    }
    match other(shared, x, asked) {
        Some(other) => other.in_place_of(answer),
        None => answer,
    }
}

/// What the client gets in place of an upstream's own answer that tells of its failure.
pub(crate) fn replacement(
    shared: &Shared,
    x: &mut Exchange,
    asked: &HeaderMap,
    status: u16,
) -> Option<Answer> {
    if is_failed_status(status) { other(shared, x, asked) } else { None }
}

/// An older answer to the same question, else the fixed one.
fn other(shared: &Shared, x: &mut Exchange, asked: &HeaderMap) -> Option<Answer> {
    let route = Arc::clone(route(x)?);
    let (answer, kind) = if let Some(answer) = older(shared, x, &route, asked) {
        (answer, "stale")
    } else {
        let fixed = route.shaping.fixed.as_ref()?;
        (Answer::bytes(fixed.status, fixed.kind, fixed.body.clone()), "fixed")
    };
    shared.meters.stood_in(&route.service.name, kind);
    x.decision = if kind == "stale" { "stale" } else { "fallback" };
    Some(answer)
}

fn older(shared: &Shared, x: &mut Exchange, route: &ServiceRoute, asked: &HeaderMap) -> Option<Answer> {
    let within = route.service.fallback.stale?;
    if !matches!(x.arrival.method, Method::Get | Method::Head) || !is_known_caller(x, asked) {
        return None;
    }
    let shelf = shared.shaped.kept.shelf();
    let (older, age) =
        shelf.find(&key(x, route), within, clock::now()).map(|(older, age)| (Arc::clone(older), age))?;
    drop(shelf);
    let age_s = age.as_secs() + older.age_s;
    if age_s > within.as_secs() + older.age_s
        || older.varies.iter().any(|(name, value)| joined(asked, name) != *value)
    {
        return None;
    }
    let mut head = ResponseHeader::build(200, Some(older.fields.len() + 4)).ok()?;
    for (name, value) in &older.fields {
        head.append_header(name.clone(), value.clone()).ok()?;
    }
    dress(x, &mut head).ok()?;
    head.insert_header(AGE, HeaderValue::from(age_s)).ok()?;
    head.insert_header(X_CACHE, STALE).ok()?;
    Some(Answer::given(&head.headers, older.body.clone()))
}

/// Whether the edge knows for whom an answer is: nothing names a caller to the upstream beside what it has verified.
fn is_known_caller(x: &Exchange, asked: &HeaderMap) -> bool {
    let shows = x.keeps_credentials && asked.keys().any(|name| is_credential(name.as_str()));
    let directives = asked.get_all(CACHE_CONTROL).iter();
    !shows
        && !asked.contains_key(COOKIE)
        && directives.into_iter().all(|value| may_keep_for(value.as_bytes()))
}

/// The question that an answer is to: each part with its length before it, so that none reads as another.
fn key(x: &Exchange, route: &ServiceRoute) -> Vec<u8> {
    let mut key = Vec::with_capacity(256);
    let mut part = |bytes: &[u8]| {
        key.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        key.extend_from_slice(bytes);
    };
    part(route.service.name.as_bytes());
    part(x.arrival.host.as_bytes());
    part(x.arrival.path.as_bytes());
    part(x.arrival.query.as_ref().map_or(&b""[..], |query| query.as_bytes()));
    part(&[u8::from(x.arrival.query.is_some()), u8::from(x.identity.is_some())]);
    if let Some(identity) = &x.identity {
        part(identity.claims.sub.as_bytes());
        part(identity.user.as_bytes());
        part(identity.permissions.as_bytes());
        part(identity.account.as_ref().map_or(&b""[..], HeaderValue::as_bytes));
        part(identity.method.as_bytes());
    }
    key
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    values.join(&b", "[..])
}

/// Begins to collect an answer that may be shown again. `version` is the one the upstream spoke.
pub(crate) fn collect(
    shared: &Shared,
    x: &mut Exchange,
    asked: &HeaderMap,
    response: &ResponseHeader,
    version: Version,
) {
    x.shape.collected = None;
    let Some(route) = route(x) else { return };
    let wanted = route.service.fallback.stale.is_some() && x.arrival.method == Method::Get && !x.streaming;
    if !wanted || response.status != 200 || asked.contains_key(RANGE) || !is_known_caller(x, asked) {
        return;
    }
    let headers = &response.headers;
    let keeps = headers.get_all(CACHE_CONTROL).iter().all(|value| may_keep(value.as_bytes()));
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // A body that ends with its connection may have been cut short.
    let ends = length.is_some() || headers.contains_key(TRANSFER_ENCODING) || version == Version::HTTP_2;
    let varies = varies_by(headers.get_all(VARY).iter().map(HeaderValue::as_bytes));
    let Some(varies) = varies.filter(|_| keeps && ends && !headers.contains_key(SET_COOKIE)) else { return };
    let reserve = length.unwrap_or(KEPT_BYTES_MAX);
    if reserve > KEPT_BYTES_MAX {
        return;
    }
    let Some(room) = shared.shaped.kept.room(reserve) else { return };
    let varies = varies.iter().filter_map(|name| HeaderName::try_from(name.as_str()).ok());
    x.shape.collected = Some(Box::new(Collected {
        key: key(x, route),
        fields: kept_fields(headers),
        varies: varies.map(|name| (name.clone(), joined(asked, &name))).collect(),
        age_s: headers.get(AGE).and_then(|age| age.to_str().ok()?.parse().ok()).unwrap_or(0),
        body: Vec::with_capacity(length.unwrap_or(0)),
        room,
    }));
}

/// What of an answer's head is shown again: not its framing, nor what was said of its age.
fn kept_fields(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let own = [CONTENT_LENGTH, TRANSFER_ENCODING, CACHE_CONTROL, AGE, DATE];
    let kept = headers.iter().filter(|(name, _)| !own.contains(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A piece of an answer that is collected; the last one makes it whole.
pub(crate) fn follow(shared: &Shared, x: &mut Exchange, piece: Option<&Bytes>, end: bool) {
    let Some(collected) = &mut x.shape.collected else { return };
    let piece = piece.map_or(&b""[..], |piece| &piece[..]);
    if collected.body.len() + piece.len() > collected.room.taken {
        x.shape.collected = None;
        return;
    }
    collected.body.extend_from_slice(piece);
    if !end {
        return;
    }
    if let Some(collected) = x.shape.collected.take() {
        let Collected { key, fields, varies, age_s, body, room } = *collected;
        let head: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        let bytes = head + body.len() + key.len();
        if bytes <= KEPT_BYTES_MAX {
            let older = Older { fields, body: Bytes::from(body), varies, age_s };
            shared.shaped.kept.shelf().keep(&key, bytes, Arc::new(older), clock::now());
        }
        drop(room);
    }
}
