//! From HTTP to a call, and from an answer to HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts as _, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use sluice_http::{BodyBytes, Door, Peer, Reject};
use sluice_wire::code::Code;
use sluice_wire::header::{REFUSED_CREDENTIAL, X_INTERNAL_REFUSED, X_VAULT_TOKEN};
use zeroize::Zeroizing;

use super::answer::{Answer, Wire, refusal};
use super::call::{Call, Certified, Fields, Op, seconds};
use super::sys::Step;
use super::{fault, token};
use crate::context::Context;
use crate::error::VaultError;
use crate::request::Act;
use crate::user::Source;

/// LIMIT: bytes of a path below `/v1/`.
const PATH_BYTES_MAX: usize = 1_280;
/// LIMIT: query parameters.
const QUERY_MAX: usize = 16;

const WRAP_TTL: HeaderName = HeaderName::from_static("x-vault-wrap-ttl");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");

/// Every request below `/v1/`.
pub(crate) async fn handle(State(context): State<Arc<Context>>, request: Request) -> Response {
    let head = request.method() == Method::HEAD;
    // Who asks at the API port has only the answer: what it does not say is told to the edge alone.
    let is_internal = request.extensions().get::<Peer>().is_some_and(|peer| peer.door == Door::Internal);
    match answer(&context, request).await {
        Ok((answer, request_id)) => respond(answer.wire(&request_id), head),
        Err(Refused { wire, retry_s, unproved }) => {
            let mut response = respond(wire, head);
            if unproved && is_internal {
                let told = HeaderValue::from_static(REFUSED_CREDENTIAL);
                response.headers_mut().insert(X_INTERNAL_REFUSED, told);
            }
            if let Some(seconds) = retry_s {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
    }
}

async fn answer(context: &Arc<Context>, request: Request) -> Result<(Answer, String), Refused> {
    let (parts, body) = request.into_parts();
    // What the probes of clients and load balancers ask has no caller and is no operation.
    let path = parts.uri.path().strip_prefix("/v1/").unwrap_or_default();
    if let Some(status) = super::sys::unguarded(context, &parts.method, path, parts.uri.query()) {
        return Ok((status, String::new()));
    }
    let mut parts = parts;
    let body = {
        use axum::extract::FromRequest as _;
        let request = Request::from_parts(parts.clone(), body);
        let BodyBytes(body) =
            BodyBytes::from_request(request, context).await.map_err(|reject| worded(&reject))?;
        body
    };
    let act = Act::unproved(&parts, context.trusted());
    let request_id = act.request_id.clone();
    let call = call(&parts, &body, act).map_err(|error| of_error(&error))?;
    let told = |done: Result<Result<Answer, VaultError>, Reject>| match done {
        Ok(Ok(answer)) => Ok((answer, request_id)),
        Ok(Err(error)) => Err(of_error(&error)),
        Err(reject) => Err(worded(&reject)),
    };
    if let Some(done) = super::sys::barrier(context, &call.act, call.op, &call.path, &call.fields).await {
        return told(done);
    }
    if context.barrier.vault().is_none() {
        return Err(of_error(&VaultError::Sealed));
    }
    if let Some(step) =
        Step::of(&call).filter(|_| Step::is_for_the_locked_out(&call.path) && is_local(&parts))
    {
        return told(context.ask(move |barrier| step?.take(barrier, &call.act)).await);
    }
    // Who logs in again shows his former token, which may have ended: what proves him is in the body.
    let (act, token) = if super::auth::is_login(&call.path, call.op) {
        (Act::unproved(&parts, context.trusted()), None)
    } else {
        caller(context, &mut parts).await.map_err(|reject| worded(&reject))?
    };
    let trusted = context.vault().map_err(|reject| worded(&reject))?;
    let source = Source::of(&parts, &trusted.settings.trusted);
    let certified = certified(&parts, &trusted.settings.trust_domain);
    // Asking another vault takes a thread.
    let abroad = trusted.settings.external.is_some() && call.path.starts_with("secret/");
    drop(trusted);
    let step = Step::of(&call).map(|step| (step, act.clone()));
    let call = Call { act, token, certified, source, ..call };
    let done = if call.is_brief() && !abroad {
        context.run_bare_here(|vault| vault.v1_begin(call)).await
    } else {
        context.run_bare(move |vault| vault.v1(call)).await
    };
    match step.filter(|_| matches!(done, Ok(Ok(_)))) {
        Some((step, act)) => {
            drop(done);
            told(context.ask(move |barrier| step?.take(barrier, &act)).await)
        }
        None => told(done),
    }
}

/// The caller: a token of Vault's kind as it is, any other credential verified.
async fn caller(
    context: &Arc<Context>,
    parts: &mut Parts,
) -> Result<(Act, Option<Zeroizing<String>>), Reject> {
    match shown(&parts.headers) {
        Some(token) if token.starts_with(token::PREFIX) => {
            Ok((Act::unproved(parts, context.trusted()), Some(Zeroizing::new(token.to_owned()))))
        }
        _ => Ok((Act::from_request_parts(parts, context).await?, None)),
    }
}

/// Whether it comes from a process of this machine, at the vault's own port.
fn is_local(parts: &Parts) -> bool {
    let peer = parts.extensions.get::<Peer>().and_then(|peer| peer.address);
    peer.is_some_and(|address| address.ip().is_loopback())
}

/// The client's certificate, where it names a service of our own trust domain.
fn certified(parts: &Parts, trust_domain: &str) -> Option<Certified> {
    let client = parts.extensions.get::<Peer>()?.client.as_ref()?;
    let service = client.spiffe.as_ref()?.service_in(trust_domain)?.to_owned();
    Some(Certified { service, serial: client.serial.clone() })
}

/// The one credential in the headers: `X-Vault-Token`, or a bearer.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let mut tokens = headers.get_all(X_VAULT_TOKEN).iter().chain(headers.get_all(header::AUTHORIZATION));
    let (first, None) = (tokens.next()?.to_str().ok()?, tokens.next()) else { return None };
    match first.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(token),
        Some(_) => None,
        None => Some(first),
    }
}

fn call(parts: &Parts, body: &[u8], act: Act) -> Result<Call, VaultError> {
    if parts.headers.get(NAMESPACE).is_some_and(|name| !name.is_empty() && name != "root") {
        return Err(fault(400, "namespaces are not supported"));
    }
    let query = query(parts.uri.query().unwrap_or_default())?;
    let listed = query.get("list").is_some_and(|list| list == "true");
    let op = match parts.method.as_str() {
        "GET" | "HEAD" if listed => Op::List,
        "GET" | "HEAD" => Op::Read,
        "LIST" => Op::List,
        "POST" | "PUT" => Op::Write,
        "PATCH" => Op::Patch,
        "DELETE" => Op::Delete,
        _ => return Err(fault(405, "")),
    };
    let mut fields = Fields::parse(body)?;
    for (name, value) in &query {
        fields.add(name, value);
    }
    let wrap_s = match parts.headers.get(WRAP_TTL).map(|ttl| ttl.to_str().unwrap_or("x")) {
        None | Some("") => None,
        Some(ttl) => Some(seconds(ttl).ok_or_else(|| fault(400, "X-Vault-Wrap-TTL is no duration"))?),
    };
    Ok(Call {
        path: path(parts.uri.path())?,
        op,
        fields,
        token: None,
        wrap_s: wrap_s.filter(|ttl| *ttl > 0),
        certified: None,
        source: Source::default(),
        query,
        act,
    })
}

/// The path below `/v1/`: escapes are decoded once, and none that would make another path of it.
fn path(target: &str) -> Result<String, VaultError> {
    let raw = target.strip_prefix("/v1/").unwrap_or_default();
    let raw = raw.strip_suffix('/').unwrap_or(raw);
    if raw.len() > PATH_BYTES_MAX {
        return Err(fault(400, format!("a path has at most {PATH_BYTES_MAX} bytes")));
    }
    crate::path::canonical(raw).map_err(|_| fault(400, "the path has a segment that is not accepted"))
}

fn query(raw: &str) -> Result<BTreeMap<String, String>, VaultError> {
    let mut query = BTreeMap::new();
    for (name, value) in form(raw) {
        if query.len() == QUERY_MAX || query.insert(name, value).is_some() {
            return Err(fault(400, "too many query parameters, or one of them twice"));
        }
    }
    Ok(query)
}

/// The pairs of a query; an escape that is none stands for itself.
pub(super) fn form(raw: &str) -> impl Iterator<Item = (String, String)> + '_ {
    raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescape(name), unescape(value))
    })
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = (*first == b'%').then(|| tail.get(..2)).flatten();
        let digits = escape.and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn respond((status, content_type, body): Wire, head: bool) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let body = if head { Vec::new() } else { body };
    let mut response = (headers, body).into_response();
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// A call that was not answered.
struct Refused {
    wire: Wire,
    /// Seconds until it may be tried again.
    retry_s: Option<u64>,
    /// Whether a credential was shown that is none.
    unproved: bool,
}

/// An error of an operation.
fn of_error(error: &VaultError) -> Refused {
    let retry_s = match error {
        VaultError::Later(_, _, retry_s) => Some(*retry_s),
        VaultError::Invalid(Code::RateLimited, _) => Some(crate::error::RETRY_S),
        _ => None,
    };
    Refused { wire: wire_of(error), retry_s, unproved: matches!(error, VaultError::Unproved(..)) }
}

fn wire_of(error: &VaultError) -> Wire {
    match error {
        VaultError::Worded(status, text) | VaultError::Unproved(status, text) => refusal(*status, &[text]),
        VaultError::Forbidden(_) | VaultError::Lacking(_) | VaultError::Anonymous => {
            refusal(403, &["1 error occurred:\n\t* permission denied\n\n"])
        }
        VaultError::NotFound(_) => refusal(404, &[]),
        VaultError::Invalid(Code::VersionConflict, _) => {
            refusal(400, &["check-and-set parameter did not match the current version"])
        }
        VaultError::Invalid(code @ (Code::RateLimited | Code::BodyTooLarge), text) => {
            refusal(code.status(), &[text])
        }
        VaultError::Invalid(_, text) => refusal(400, &[text]),
        VaultError::Later(code, text, _) => refusal(code.status(), &[text]),
        VaultError::Integrity(_) => refusal(500, &["a stored record failed its integrity check"]),
        VaultError::Sealed => refusal(503, &["Vault is sealed"]),
        VaultError::Opening(_) => refusal(500, &["the vault does not open"]),
        VaultError::Audit(_) | VaultError::Ended => refusal(503, &["the operation could not be recorded"]),
        // Not reached: those are of other addresses.
        VaultError::Acme(told) => refusal(400, &[&told.to_string()]),
        VaultError::Store(_) | VaultError::Crypto(_) => refusal(500, &["internal error"]),
    }
}

/// A refusal that was made before there was a call.
fn worded(reject: &Reject) -> Refused {
    let problem = reject.problem();
    let wire = match problem.status() {
        401 => refusal(403, &["permission denied"]),
        _ if problem.code == Code::Sealed => refusal(503, &["Vault is sealed"]),
        status => refusal(status, &[problem.detail.as_deref().unwrap_or("")]),
    };
    Refused { wire, retry_s: problem.retry_after_s, unproved: problem.status() == 401 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_refused_not_repaired() {
        assert_eq!(path("/v1/secret/data/a").unwrap(), "secret/data/a");
        assert_eq!(path("/v1/secret/metadata/").unwrap(), "secret/metadata");
        assert_eq!(path("/v1/a%40b").unwrap(), "a@b");
        for bad in ["/v1/", "/v1/a//b", "/v1/a/../b", "/v1/a/%2e%2e/b", "/v1/a%2fb", "/v1/a%00", "/v1/a//"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert!(path(&format!("/v1/{}", "a".repeat(2_000))).is_err());
    }

    #[test]
    fn queries_are_read_once() {
        assert_eq!(query("list=true&a=%41+b").unwrap()["a"], "A b");
        assert!(query("a=1&a=2").is_err());
        assert_eq!(unescape("%zz%4"), "%zz%4");
    }
}
