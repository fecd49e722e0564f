//! Services that register themselves: `/api/register`.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderValue;
use http::header::LOCATION;
use jiff::Timestamp;
use pingora::proxy::Session;
use serde_json::{Value, json};
use sluice_audit::{Decision, Entry};
use sluice_ledger::Entry as Registered;
use sluice_policy::method::{Method, MethodSet};
use sluice_policy::registry::{Effect, Raw, Registration, RegistrationFault};
use sluice_wire::code::Code;
use sluice_wire::json;
use sluice_wire::problem::Problem;

use super::caller;
use crate::admit::too_large;
use crate::clock;
use crate::ctx::Exchange;
use crate::jwt_cache::Verified;
use crate::link::Fault;
use crate::register::RegisterError;
use crate::respond::{Answer, go_on};
use crate::state::Shared;

/// LIMIT: bytes of a registration.
const REGISTRATION_BYTES: usize = 64 << 10;
/// How long a body may take that the edge itself reads.
const BODY_WITHIN: Duration = Duration::from_secs(15);

/// The answer to a request; `rest` is its path behind `/api/register`.
pub(super) async fn answer(shared: &Shared, session: &mut Session, x: &mut Exchange, rest: &str) -> Answer {
    let method = x.arrival.method;
    let only = |allowed: Method| Err(Answer::wrong_method(MethodSet::EMPTY.with(allowed)));
    let parts: Vec<&str> = rest.split('/').collect();
    let answered = match (&parts[..], method) {
        ([""], Method::Post) => register(shared, session, x).await,
        ([""], _) => only(Method::Post),
        (["", name, "heartbeat"], Method::Put) if !name.is_empty() => {
            heartbeat(shared, session, x, name).await
        }
        (["", name, "heartbeat"], _) if !name.is_empty() => only(Method::Put),
        (["", name], Method::Delete) if !name.is_empty() => deregister(shared, session, x, name).await,
        (["", name], _) if !name.is_empty() => only(Method::Delete),
        _ => Err(Answer::refuse(Code::NotFound, "there is nothing at this path")),
    };
    answered.unwrap_or_else(|refusal| refusal)
}

async fn register(shared: &Shared, session: &mut Session, x: &mut Exchange) -> Result<Answer, Answer> {
    let by = caller(shared, session, x, "registry:write")?;
    let body = body(session, x).await?;
    let raw: Raw = json::from_slice(&body).map_err(|error| Answer::problem(Problem::from(error)))?;
    let registration =
        Registration::try_from(raw).map_err(|fault| Answer::refuse(fault.code(), fault.to_string()))?;
    let present = shared.generation();
    let fault = |fault: RegistrationFault| refused(fault.into());
    // Judged before any name is looked up, so that a refused caller cannot make the edge resolve.
    shared.registrations.judge(&registration, &present.config).map_err(fault)?;
    shared.registrations.check_addresses(&registration, &present.config).await.map_err(refused)?;
    let _one_at_a_time = shared.registrations.change.lock().await;
    let config = Arc::clone(&shared.generation().config);
    let effect = shared.registrations.judge(&registration, &config).map_err(fault)?;
    if effect != Effect::Renews {
        audit(shared, x, &by, ("register", &registration.name)).await?;
    }
    let (effect, entry) =
        shared.registrations.put(registration, &config, &by.claims.sub).await.map_err(refused)?;
    shared.rebuild().map_err(|error| Answer::refuse(Code::Conflict, error.to_string()))?;
    tracing::info!(
        component = "registry",
        request_id = x.request_id.as_str(),
        service = entry.registration.name.as_str(),
        prefix = entry.registration.prefix.as_str(),
        by = by.claims.sub.as_str(),
        "service registered"
    );
    let status = match effect {
        Effect::Adds => "registered",
        Effect::Replaces => "replaced",
        Effect::Renews => "renewed",
    };
    if effect != Effect::Renews {
        let (edge, by) = (shared.kill.edge(), by.claims.sub.as_str());
        shared.announcer.registered(edge, status, by, &entry.registration);
    }
    let place = format!("/api/register/{}", entry.registration.name);
    let answer = Answer::json(201, &receipt(status, &entry));
    Ok(match HeaderValue::try_from(place) {
        Ok(place) => answer.with(LOCATION, place),
        Err(_) => answer,
    })
}

/// Writes down a change before it is made; one that cannot be written down is not made.
async fn audit(
    shared: &Shared,
    x: &Exchange,
    by: &Verified,
    (op, name): (&'static str, &str),
) -> Result<(), Answer> {
    let entry = Entry::new("registry", op)
        .path(name)
        .actor(by.claims.sub.as_str())
        .decision(Decision::Allow)
        .request(x.request_id.as_str(), x.client.to_string());
    shared.chain.submit(entry, Timestamp::now()).await.map(|_| ()).map_err(|error| {
        tracing::error!(
            component = "audit",
            error = &error as &dyn std::error::Error,
            "audit record not written"
        );
        let refusal = Problem::new(Code::AuditUnavailable)
            .detail("the audit log cannot be written; nothing was changed")
            .retry_after_s(1);
        Answer::problem(refusal)
    })
}

fn receipt(status: &str, entry: &Registered) -> Value {
    let expires = entry.expires_at_ms.and_then(|ms| Timestamp::from_millisecond(ms as i64).ok());
    let mut receipt = serde_json::to_value(&entry.registration).unwrap_or_default();
    if let Some(members) = receipt.as_object_mut() {
        members.insert("status".to_owned(), status.into());
        members.insert("service_name".to_owned(), entry.registration.name.clone().into());
        members.insert("expires_at".to_owned(), expires.map_or(Value::Null, |at| at.to_string().into()));
    }
    receipt
}

fn refused(error: RegisterError) -> Answer {
    match error {
        RegisterError::Refused(fault) => Answer::refuse(fault.code(), fault.to_string()),
        unresolved @ RegisterError::Unresolved(_) => {
            Answer::refuse(Code::Unprocessable, unresolved.to_string())
        }
        RegisterError::Ledger(error) => ledger_failed(&error),
    }
}

fn ledger_failed(error: &sluice_ledger::LedgerError) -> Answer {
    tracing::error!(
        component = "registry",
        error = error as &dyn std::error::Error,
        "ledger cannot be written"
    );
    Answer::problem(
        Problem::new(Code::LedgerUnavailable).detail("the registry cannot be written now").retry_after_s(1),
    )
}

async fn heartbeat(
    shared: &Shared,
    session: &Session,
    x: &mut Exchange,
    name: &str,
) -> Result<Answer, Answer> {
    caller(shared, session, x, "registry:write")?;
    let _one_at_a_time = shared.registrations.change.lock().await;
    let config = Arc::clone(&shared.generation().config);
    let renewed = shared.registrations.renew(name, &config).await.map_err(|error| ledger_failed(&error))?;
    match renewed {
        Some(entry) => Ok(Answer::json(200, &receipt("renewed", &entry))),
        None => Err(Answer::refuse(Code::NotFound, "no service of this name is registered")),
    }
}

async fn deregister(
    shared: &Shared,
    session: &Session,
    x: &mut Exchange,
    name: &str,
) -> Result<Answer, Answer> {
    let by = caller(shared, session, x, "registry:write")?;
    let _one_at_a_time = shared.registrations.change.lock().await;
    if shared.registrations.has(name) {
        audit(shared, x, &by, ("deregister", name)).await?;
    }
    let removed = shared.registrations.remove(name).await.map_err(|error| ledger_failed(&error))?;
    if !removed {
        return Err(Answer::refuse(Code::NotFound, "no service of this name is registered"));
    }
    shared.rebuild().map_err(|error| Answer::refuse(Code::Conflict, error.to_string()))?;
    tracing::info!(
        component = "registry",
        request_id = x.request_id.as_str(),
        service = name,
        by = by.claims.sub.as_str(),
        "service deregistered"
    );
    shared.announcer.deregistered(shared.kill.edge(), name, Some(by.claims.sub.as_str()));
    Ok(Answer::json(200, &json!({ "status": "deregistered", "name": name })))
}

/// The whole body, bounded.
async fn body(session: &mut Session, x: &mut Exchange) -> Result<BytesMut, Answer> {
    if go_on(session, x.arrival.body).await.is_err() {
        return Err(Answer::refuse(Code::BadRequest, "the body broke off").closing());
    }
    x.arrival.link.set_deadline(Some(clock::now().plus(BODY_WITHIN)));
    let mut whole = BytesMut::new();
    loop {
        match session.read_request_body().await {
            Ok(None) => return Ok(whole),
            Ok(Some(piece)) => {
                x.body_bytes += piece.len() as u64;
                if whole.len() + piece.len() > REGISTRATION_BYTES {
                    return Err(too_large(REGISTRATION_BYTES as u64));
                }
                whole.extend_from_slice(&piece);
            }
            Err(_) if matches!(x.arrival.link.fault(), Fault::Deadline | Fault::BodyTimeout) => {
                let late = Answer::refuse(Code::RequestTimeout, "the body did not arrive in time");
                return Err(late.closing());
            }
            Err(_) => return Err(Answer::refuse(Code::BadFraming, "the body is not well framed").closing()),
        }
    }
}
