//! Publishing one event: the plain call and the three convenience calls. Batches are in [`crate::batch`].

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use hyper::body::Incoming;
use jiff::Timestamp;
use serde_json::value::RawValue;
use sluice_http::{Authenticated, Direct, JsonBytes, Reject, StrictJson};
use sluice_identity::caller::Caller;
use sluice_wire::code::Code;
use sluice_wire::header::IDEMPOTENCY_KEY;
use sluice_wire::problem::{Outcome as Sent, Problem};
use uuid::Uuid;

use crate::batch::{self, BATCH_BYTES_MAX, BatchQuery};
use crate::context::{Context, raw_json};
use crate::convenience::Call;
use crate::engine::Durability;
use crate::error::{Fault, append_problem};
use crate::event::{self, Author, Prepared};
use crate::incoming::{self, EVENT_BYTES_MAX};
use crate::json;
use crate::log::{MessageId, Outcome, Stamp};
use crate::metrics::Kind;

/// LIMIT: bytes of an idempotency key.
const KEY_BYTES_MAX: usize = 255;
const BATCH_PATH: &str = "/events/batch";

/// `POST /events` with an event of the worker's own form; CloudEvents come from [`crate::cloudevents`].
pub(crate) async fn single(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    headers: HeaderMap,
    body: JsonBytes,
) -> Result<Response, Reject> {
    publish(&context, &caller, &headers, |author, key_id| author.prepare(&incoming::read(&body.0)?, key_id))
        .await
}

/// `POST /events` with an event as JSON, which is what most requests are, and `POST /events/batch`, without the router.
pub(crate) struct Directly(pub(crate) Arc<Context>);

impl Direct for Directly {
    fn takes(&self, request: &Request<Incoming>) -> Option<usize> {
        let (headers, uri) = (request.headers(), request.uri());
        if request.method() != Method::POST || uri.query().is_some() {
            return None;
        }
        match uri.path() {
            "/events" => {
                let is_json = headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind == "application/json");
                (is_json && !headers.contains_key("ce-specversion")).then_some(EVENT_BYTES_MAX)
            }
            BATCH_PATH => Some(BATCH_BYTES_MAX),
            _ => None,
        }
    }

    fn answer<'a>(
        &'a self,
        caller: Arc<Caller>,
        head: &'a Parts,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Response, Reject>> {
        Box::pin(async move {
            if head.uri.path() == BATCH_PATH {
                return batch::publish(&self.0, &caller, BatchQuery::default(), &head.headers, &body).await;
            }
            publish(&self.0, &caller, &head.headers, |author, key_id| {
                author.prepare(&incoming::read(&body)?, key_id)
            })
            .await
        })
    }
}

/// `POST /events/market-data`
pub(crate) async fn market_data(
    context: State<Arc<Context>>,
    caller: Authenticated,
    headers: HeaderMap,
    body: StrictJson<Box<RawValue>>,
) -> Result<Response, Reject> {
    convenient(Call::MarketData, context, caller, headers, body).await
}

/// `POST /events/trading-signal`
pub(crate) async fn trading_signal(
    context: State<Arc<Context>>,
    caller: Authenticated,
    headers: HeaderMap,
    body: StrictJson<Box<RawValue>>,
) -> Result<Response, Reject> {
    convenient(Call::TradingSignal, context, caller, headers, body).await
}

/// `POST /events/portfolio-update`
pub(crate) async fn portfolio_update(
    context: State<Arc<Context>>,
    caller: Authenticated,
    headers: HeaderMap,
    body: StrictJson<Box<RawValue>>,
) -> Result<Response, Reject> {
    convenient(Call::PortfolioUpdate, context, caller, headers, body).await
}

async fn convenient(
    call: Call,
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    headers: HeaderMap,
    StrictJson(body): StrictJson<Box<RawValue>>,
) -> Result<Response, Reject> {
    publish(&context, &caller, &headers, |author, key_id| {
        call.read(body.get(), |event| author.prepare(event, key_id))
    })
    .await
}

pub(crate) async fn publish(
    context: &Context,
    caller: &Caller,
    headers: &HeaderMap,
    prepare: impl FnOnce(&Author<'_>, Option<Uuid>) -> Result<Prepared, Fault>,
) -> Result<Response, Reject> {
    let begun = Instant::now();
    let stored = async {
        let key_id = idempotency_key(headers)?.map(|key| event::id_of_key(&caller.subject, key, 0));
        let Prepared { draft, event_id } =
            prepare(&author(context, caller), key_id).map_err(Fault::problem)?;
        context.admit(caller, 1)?;
        let kind = context.metrics.kind(draft.kind());
        let receipt = context.append(vec![draft], false).await.map_err(|error| append_problem(&error))?;
        let Some(outcome) = receipt.outcomes.first() else {
            return Err(Box::new(Problem::new(Code::Internal)));
        };
        context.metrics.answered(receipt.durability, begun.elapsed());
        answer(context, event_id, kind, *outcome, receipt.durability)
    };
    match stored.await {
        Ok(published) => {
            let mut body = Vec::with_capacity(192);
            body.push(b'{');
            published.write(&mut body);
            body.push(b'}');
            Ok(raw_json(body))
        }
        Err(problem) => Err(refuse(context, *problem)),
    }
}

pub(crate) fn author<'a>(context: &'a Context, caller: &'a Caller) -> Author<'a> {
    Author {
        caller,
        dev: context.settings.dev,
        unknown_types: context.settings.unknown_types,
        now: Timestamp::now(),
        mint: &context.mint,
        schemas: &context.schemas,
        last: RefCell::default(),
    }
}

pub(crate) fn refuse(context: &Context, problem: Problem) -> Reject {
    context.metrics.rejected.with_label_values(&[problem.code.word()]).inc();
    let lacking = problem.code == Code::InsufficientScope;
    let reject = Reject::from(problem);
    if !lacking {
        return reject;
    }
    reject.header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"insufficient_scope\""))
}

pub(crate) fn answer(
    context: &Context,
    event_id: Uuid,
    kind: Kind,
    outcome: Outcome,
    durability: Durability,
) -> Result<Published, Box<Problem>> {
    // In the spool it has no place in the stream yet.
    let placed = durability != Durability::Spooled;
    let (stamp, duplicate) = match outcome {
        Outcome::Stored(stamp) => {
            context.metrics.published(kind);
            (stamp, false)
        }
        Outcome::Duplicate(stamp) => {
            context.metrics.dedup_hits.inc();
            (stamp, true)
        }
        Outcome::Conflict(stamp) => return Err(Box::new(conflict(placed.then_some(stamp)))),
        Outcome::Withheld => return Err(Box::new(Problem::new(Code::Conflict).outcome(Sent::NotSent))),
    };
    Ok(Published { id: placed.then_some(stamp.id), event_id, durability, duplicate })
}

/// What became of an event that is stored: [`sluice_wire::event::Published`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    id: Option<MessageId>,
    event_id: Uuid,
    durability: Durability,
    pub(crate) duplicate: bool,
}

impl Published {
    /// Writes its members, without braces: there are half a million a second.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"message_id\":");
        match self.id {
            Some(id) => {
                out.push(b'"');
                json::number(id.ms, out);
                out.push(b'-');
                json::number(u64::from(id.n), out);
                out.push(b'"');
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"event_id\":\"");
        let mut text = Uuid::encode_buffer();
        out.extend_from_slice(self.event_id.hyphenated().encode_lower(&mut text).as_bytes());
        out.extend_from_slice(b"\",\"status\":\"published\",\"durability\":\"");
        out.extend_from_slice(self.durability.as_str().as_bytes());
        out.extend_from_slice(if self.duplicate {
            b"\",\"duplicate\":true"
        } else {
            b"\",\"duplicate\":false"
        });
    }
}

pub(crate) fn conflict(stamp: Option<Stamp>) -> Problem {
    let place = stamp.map_or_else(String::new, |stamp| format!(" as message {}", stamp.id));
    Problem::new(Code::EventIdConflict)
        .detail(format!("this event_id was stored{place} with another content"))
        .pointer("/event_id")
        .outcome(Sent::NotSent)
}

/// The key that makes a publish repeatable, when one is sent.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Box<Problem>> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let text = key.to_str().ok().filter(|text| (1..=KEY_BYTES_MAX).contains(&text.len()));
    match (text, keys.next()) {
        (Some(text), None) => Ok(Some(text)),
        _ => Err(Box::new(
            Problem::new(Code::BadRequest)
                .detail(format!(
                    "Idempotency-Key must be one header of 1 to {KEY_BYTES_MAX} visible characters"
                ))
                .outcome(Sent::NotSent),
        )),
    }
}

#[cfg(test)]
mod tests {
    use sluice_wire::event::Published as Wire;

    use super::*;

    #[test]
    fn an_answer_is_what_clients_read() {
        let event_id = Uuid::from_u128(7);
        for (id, durability, duplicate) in [
            (Some(MessageId { ms: 1_795_255_200_123, n: 42 }), Durability::Fsync, false),
            (Some(MessageId { ms: 0, n: 0 }), Durability::AofEverysec, true),
            (None, Durability::Spooled, false),
        ] {
            let mut text = b"{".to_vec();
            Published { id, event_id, durability, duplicate }.write(&mut text);
            text.push(b'}');
            let wire = Wire {
                message_id: id.map(|id| id.to_string()),
                event_id,
                status: "published".into(),
                durability: durability.as_str().into(),
                duplicate,
            };
            assert_eq!(String::from_utf8(text).unwrap(), serde_json::to_string(&wire).unwrap());
        }
    }
}
