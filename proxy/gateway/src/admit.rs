//! Whether a request may go on, in the order of the contract: route, address, kill switch, credential,
//! permission, rate, body. Everything here is a decision; nothing waits but for the word of a limit that edges share
//! (`limits.rs`). What follows is in `enter`.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue};
use sluice_policy::authorize::{Refused, is_preflight};
use sluice_policy::balance::Affinity;
use sluice_policy::ending::{Sent, outcome};
use sluice_policy::limit::header::{reset_epoch_s, retry_after_s, write_rate_limit};
use sluice_policy::limit::{Decision, Verdict, Who};
use sluice_policy::method::Method;
use sluice_policy::reserved::Reserved;
use sluice_policy::route::{Ask, Lookup, Route, Target as Routed};
use sluice_wire::code::Code;
use sluice_wire::header::X_FORWARDED_PROTO;
use sluice_wire::problem::Problem;
use sluice_wire::role::Role;

use crate::authenticate::authenticate;
use crate::clock;
use crate::conn::{TlsSession, is_within};
use crate::ctx::{Arrival, Exchange, Target};
use crate::digits::push_number;
use crate::due;
use crate::enter::{Turned, Waits};
use crate::fields::name;
use crate::generation::{Generation, RouteLimit, ServiceRoute};
use crate::headers::is_proxied;
use crate::kill;
use crate::limits::{self, Judged, Undecided};
use crate::respond::Answer;
use crate::shape;
use crate::state::Shared;

/// Room for three numbers and what stands between them.
const LIMIT_DIGITS: usize = 48;
/// Where the event worker speaks WebSocket.
const EVENTS_SOCKET: &str = "/events/ws";

/// Runs a request through admission. `Err` is why it does not go on.
pub(crate) async fn admit(shared: &Shared, x: &mut Exchange, client: &mut impl Waits) -> Result<(), Turned> {
    let (reserved, undecided) = arrive(shared, x, client.headers())?;
    if let Some(undecided) = undecided {
        // Boxed, here and below: who need not wait has no room for it.
        Box::pin(wait(shared, x, client, undecided)).await?;
    }
    if let Some(undecided) = identify(shared, x, reserved, client.headers())? {
        Box::pin(wait(shared, x, client, undecided)).await?;
    }
    let headers = client.headers();
    note_affinity(x, headers);
    due::take(x, headers)?;
    Ok(check_body(x)?)
}

/// What is asked of everybody: a fitting connection, a route, at paths of secrets a moderate rate.
fn arrive(
    shared: &Shared,
    x: &mut Exchange,
    headers: &HeaderMap,
) -> Result<(Option<&'static Reserved>, Option<Undecided>), Answer> {
    check_connection(shared, x)?;
    let Some(reserved) = route(x, headers)? else { return Ok((None, None)) };
    require_tls(x, reserved, headers)?;
    Ok((Some(reserved), guard(shared, x, reserved)?))
}

/// Who asks, whether it may, and how often.
fn identify(
    shared: &Shared,
    x: &mut Exchange,
    reserved: Option<&Reserved>,
    headers: &HeaderMap,
) -> Result<Option<Undecided>, Answer> {
    check_address(x)?;
    shape::preflight(x, headers)?;
    kill::check(shared, x, headers)?;
    authenticate(shared, x, reserved, headers)?;
    kill::check_account(shared, x, headers)?;
    authorize(shared, x, headers)?;
    limit_rate(shared, x, headers)
}

/// Waits for the word of a limit that edges share.
async fn wait(
    shared: &Shared,
    x: &mut Exchange,
    client: &mut impl Waits,
    undecided: Undecided,
) -> Result<(), Turned> {
    let (limit, verdict) = limits::wait(shared, x, client, undecided).await?;
    Ok(taken(x, &limit, verdict)?)
}

/// A request belongs on its connection: it asks for a host that the connection's certificate is for, and
/// the client's own certificate still stands. The handshake may be long ago, or was skipped by a resumed
/// session.
fn check_connection(shared: &Shared, x: &mut Exchange) -> Result<(), Answer> {
    let conn = Arc::clone(&x.arrival.conn);
    let Some(tls) = &conn.tls else { return Ok(()) };
    if let Some(sni) = &tls.sni
        && !shared.tls.is_directed(sni, &x.arrival.host)
    {
        let answer = Answer::refuse(Code::Misdirected, "this connection was made to another host");
        return Err(decided(x, "misdirected", answer.closing()));
    }
    let Some(certificate) = &tls.client else { return check_rules(shared, x, tls) };
    let revoked = shared.trust.load().is_certificate_revoked(certificate);
    if !revoked && certificate.is_valid_at(clock::unix_s()) {
        return check_rules(shared, x, tls);
    }
    let decision = if revoked { "certificate_revoked" } else { "certificate_expired" };
    shared.meters.auth_failure(decision);
    Err(decided(x, decision, Answer::unauthenticated().closing()))
}

/// Clients are let in by the present rules, also on connections that were made by earlier ones: another
/// authority, or another `client_auth`.
fn check_rules(shared: &Shared, x: &mut Exchange, tls: &TlsSession) -> Result<(), Answer> {
    if shared.tls.admits(tls) {
        return Ok(());
    }
    let detail = "clients are let in by other rules since this connection was made: connect again";
    Err(decided(x, "client_rules", Answer::refuse(Code::Misdirected, detail).closing()))
}

/// The service that answers a request, where it is one.
pub(crate) fn service_of<'g>(
    generation: &'g Generation,
    arrival: &Arrival,
    headers: &HeaderMap,
) -> Option<&'g Arc<ServiceRoute>> {
    match look_up(generation, arrival, headers) {
        Lookup::Found(route) => match route.target {
            Routed::Service(index) => generation.services.get(index),
            Routed::Worker(_) | Routed::Edge | Routed::Withheld => None,
        },
        Lookup::WrongMethod(_) | Lookup::Missing => None,
    }
}

/// Whether who answers a request may be asked for a WebSocket: every service, and the event worker at its one call
/// for it.
pub(crate) fn may_tunnel(generation: &Generation, arrival: &Arrival, headers: &HeaderMap) -> bool {
    match look_up(generation, arrival, headers) {
        Lookup::Found(route) => match route.target {
            Routed::Service(_) => true,
            Routed::Worker(role) => role == Role::Events && arrival.path == EVENTS_SOCKET,
            Routed::Edge | Routed::Withheld => false,
        },
        Lookup::WrongMethod(_) | Lookup::Missing => false,
    }
}

/// Whether who answers a request speaks HTTP/1.1 in clear text. Notes the route that was found.
pub(crate) fn goes_direct(generation: &Generation, arrival: &mut Arrival, headers: &HeaderMap) -> bool {
    let Lookup::Found(route) = look_up(generation, arrival, headers) else { return false };
    let direct = match route.target {
        Routed::Service(index) => generation.services.get(index).is_some_and(|route| route.is_plain()),
        Routed::Worker(_) => true,
        Routed::Edge | Routed::Withheld => false,
    };
    if direct {
        arrival.route = Some(route.number());
    }
    direct
}

fn look_up<'g>(generation: &'g Generation, arrival: &Arrival, headers: &HeaderMap) -> Lookup<'g> {
    let has = |name: &str, value: Option<&str>| {
        headers
            .get_all(name)
            .iter()
            .any(|field| value.is_none_or(|value| field.as_bytes() == value.as_bytes()))
    };
    let find = |method| {
        let ask = Ask { method, host: &arrival.host, path: &arrival.path, headers: &has };
        generation.table.find(&ask)
    };
    // A preflight asks for the route of the request that is to follow.
    let meant = asked_method(arrival.method, headers).map(find);
    match meant {
        Some(Lookup::Found(route)) if answers_preflight(generation, route) => Lookup::Found(route),
        _ => find(arrival.method),
    }
}

/// The method that a preflight asks for.
fn asked_method(method: Method, headers: &HeaderMap) -> Option<Method> {
    let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    if !is_preflight(method, headers.contains_key(ORIGIN), true) {
        return None;
    }
    Method::parse(asked.as_bytes()).ok()
}

fn answers_preflight(generation: &Generation, route: &Route) -> bool {
    match route.target {
        Routed::Service(index) => {
            generation.services.get(index).is_some_and(|route| shape::takes_preflight(route))
        }
        _ => false,
    }
}

/// Finds who answers. Pages of the edge and workers come with their policy.
fn route(x: &mut Exchange, headers: &HeaderMap) -> Result<Option<&'static Reserved>, Answer> {
    if x.arrival.path == "*" {
        x.enter(Target::Page);
        return Ok(None);
    }
    let generation = Arc::clone(&x.generation);
    let arrival = &x.arrival;
    if !arrival.method.is_known_on(&arrival.path) {
        return Err(decided(
            x,
            "method",
            Answer::refuse(Code::NotImplemented, "method is not implemented").closing(),
        ));
    }
    let found = arrival.route.and_then(|number| generation.table.routes().get(number));
    let route = match found.map_or_else(|| look_up(&generation, arrival, headers), Lookup::Found) {
        Lookup::Found(route) => route,
        Lookup::WrongMethod(allowed) => return Err(decided(x, "method", Answer::wrong_method(allowed))),
        Lookup::Missing => return Err(decided(x, "no_route", no_route())),
    };
    let target = match route.target {
        Routed::Service(index) => generation.services.get(index).map(|route| Target::Service(route.clone())),
        Routed::Worker(role) => generation.worker(role).map(|worker| Target::Worker(worker.clone())),
        Routed::Edge => Some(Target::Page),
        Routed::Withheld => None,
    };
    // What a worker keeps from the edge does not exist here.
    let withheld = route.reserved.is_some_and(|reserved| reserved.prefix == "/falco");
    let Some(target) = target.filter(|_| !withheld) else { return Err(decided(x, "no_route", no_route())) };
    let forward = route.forward_path(&x.arrival.path);
    let forward = (forward != x.arrival.path).then(|| forward.to_owned());
    x.body_bytes_max = match (&target, route.reserved) {
        (Target::Service(route), _) => route.service.body_bytes,
        (_, Some(reserved)) => reserved.body_bytes_max,
        _ => 0,
    };
    x.forward_path = forward;
    if let Target::Service(route) = &target {
        route.shaping.note_origin(&mut x.shape, headers);
    }
    x.enter(target);
    shape::rewrite(x)?;
    Ok(route.reserved)
}

fn no_route() -> Answer {
    Answer::refuse(Code::NoRoute, "no service takes this path")
}

/// Notes what decided an answer.
pub(crate) fn decided(x: &mut Exchange, decision: &'static str, answer: Answer) -> Answer {
    x.decision = decision;
    answer
}

/// Secrets travel in clear text only on this machine, and only where no proxy stands in between.
fn require_tls(x: &mut Exchange, reserved: &Reserved, headers: &HeaderMap) -> Result<(), Answer> {
    if !reserved.tls_required {
        return Ok(());
    }
    let local = x.arrival.conn.peer.ip().to_canonical().is_loopback() && !is_proxied(headers);
    if x.arrival.conn.is_tls() || x.generation.config.edge.plain_secrets {
        return Ok(());
    }
    let secured = x.peer_trusted && headers.get(X_FORWARDED_PROTO).is_some_and(|proto| proto == "https");
    if local || secured {
        return Ok(());
    }
    let answer = Answer::refuse(Code::TlsRequired, "this path is served over TLS, or on the machine itself");
    Err(decided(x, "tls_required", answer))
}

/// The limit of login and token paths, by address.
fn guard(shared: &Shared, x: &mut Exchange, reserved: &Reserved) -> Result<Option<Undecided>, Answer> {
    let generation = Arc::clone(&x.generation);
    match generation.guard(reserved.prefix) {
        Some(limit) => take(shared, x, limit, Who::Address(x.client)),
        None => Ok(None),
    }
}

fn check_address(x: &mut Exchange) -> Result<(), Answer> {
    match &x.target {
        Target::Service(route) if !route.admits(x.client) => {
            let answer = Answer::refuse(Code::AddressDenied, "this address may not call this service");
            Err(decided(x, "address_denied", answer))
        }
        _ => Ok(()),
    }
}

pub(crate) fn preflight(x: &Exchange, headers: &HeaderMap) -> bool {
    let asks = headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    is_preflight(x.arrival.method, headers.contains_key(ORIGIN), asks)
}

/// Every permission that the method needs.
fn authorize(shared: &Shared, x: &mut Exchange, headers: &HeaderMap) -> Result<(), Answer> {
    let Target::Service(route) = &x.target else { return Ok(()) };
    let need = route.access.need(x.arrival.method, preflight(x, headers));
    let answer = match need.check(x.identity.as_ref().map(|identity| &identity.claims.grants)) {
        Ok(()) => return Ok(()),
        Err(Refused::NoIdentity) => Answer::unauthenticated(),
        Err(Refused::Missing(permission)) => Answer::lacking(permission),
    };
    shared.meters.auth_failure("insufficient_scope");
    Err(decided(x, "insufficient_scope", answer))
}

/// Notes what the balancer places a request by, where it does.
fn note_affinity(x: &mut Exchange, headers: &HeaderMap) {
    let Target::Service(asked) = &x.target else { return };
    let arm = shape::arm(x);
    let route = arm.as_ref().unwrap_or(asked);
    if !route.service.balance.is_keyed() {
        return;
    }
    let claims = x.identity.as_ref().map(|identity| &identity.claims);
    let account = claims.map(|claims| claims.account.as_deref().unwrap_or(&claims.sub));
    let header = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    x.affinity = Affinity::of(&route.service.hash_on, account, x.client, header).key();
}

/// The rate limit of a service.
fn limit_rate(shared: &Shared, x: &mut Exchange, headers: &HeaderMap) -> Result<Option<Undecided>, Answer> {
    let Target::Service(route) = &x.target else { return Ok(None) };
    let Some(limit) = route.limit.clone() else { return Ok(None) };
    let identity = x.identity.clone();
    let subject = identity.as_ref().map(|identity| identity.claims.sub.as_str());
    let who =
        Who::of(&limit.limit.key, subject, x.client, |name| headers.get(name).map(HeaderValue::as_bytes));
    take(shared, x, &limit, who)
}

/// Takes one request out of a bucket, where that can be said at once.
fn take(
    shared: &Shared,
    x: &mut Exchange,
    limit: &Arc<RouteLimit>,
    who: Who<'_>,
) -> Result<Option<Undecided>, Answer> {
    match shared.judge(limit, who) {
        Judged::Now(verdict) => taken(x, limit, verdict).map(|()| None),
        Judged::Later(undecided) => Ok(Some(undecided)),
    }
}

/// Notes the headers that tell of a limit.
fn taken(x: &mut Exchange, limit: &RouteLimit, verdict: Verdict) -> Result<(), Answer> {
    let decision = verdict.decision;
    x.limit_headers = limit_fields(limit, &decision);
    if decision.allowed {
        return Ok(());
    }
    x.meters().limited.inc();
    let answer = Answer::refuse(Code::RateLimited, "too many requests")
        .with(RETRY_AFTER, HeaderValue::from(retry_after_s(decision.retry_after)))
        .with_all(std::mem::take(&mut x.limit_headers));
    let answer = if verdict.close { answer.closing() } else { answer };
    Err(decided(x, "rate_limited", answer))
}

/// The fields that tell of a limit. Its numbers are parts of one text.
fn limit_fields(limit: &RouteLimit, decision: &Decision) -> Vec<(HeaderName, HeaderValue)> {
    let mut text = Vec::with_capacity(limit.quoted.len() + LIMIT_DIGITS);
    let remaining = write_rate_limit(&mut text, &limit.quoted, decision);
    let end = text.len();
    push_number(&mut text, reset_epoch_s(clock::unix_s().unsigned_abs(), decision));
    let text = Bytes::from(text);
    let value = |range: Range<usize>| {
        HeaderValue::from_maybe_shared(text.slice(range)).unwrap_or_else(|_| HeaderValue::from_static(""))
    };
    vec![
        (name::RATELIMIT_POLICY, limit.policy.clone()),
        (name::RATELIMIT, value(0..end)),
        (name::RATELIMIT_LIMIT, limit.requests.clone()),
        (name::RATELIMIT_REMAINING, value(remaining)),
        (name::RATELIMIT_RESET, value(end..text.len())),
    ]
}

/// A body that is announced too large is refused before a byte of it is read.
fn check_body(x: &mut Exchange) -> Result<(), Answer> {
    if x.announced().is_none_or(|bytes| bytes <= x.body_bytes_max) {
        return Ok(());
    }
    let answer = too_large(x.body_bytes_max);
    Err(decided(x, "body_too_large", answer))
}

/// 413, for bodies that are announced or turn out too large.
pub(crate) fn too_large(bytes_max: u64) -> Answer {
    Answer::refuse(Code::BodyTooLarge, format!("the body may have {bytes_max} bytes")).closing()
}

/// Adds to a refusal of the edge that nothing was sent, where that matters.
pub(crate) fn not_sent(x: &Exchange, problem: Problem) -> Problem {
    outcome(x.arrival.method, Sent::NOTHING).into_iter().fold(problem, Problem::outcome)
}

/// Whether an address may read without a token: inside `allow`, and the request went through no proxy.
pub(crate) fn is_near(ip: IpAddr, allow: &[ipnet::IpNet], headers: &HeaderMap) -> bool {
    is_within(ip, allow) && !is_proxied(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::header_map as headers;

    #[test]
    fn a_proxied_request_is_not_near() {
        let allow = ["127.0.0.0/8".parse().unwrap()];
        let local = "127.0.0.1".parse().unwrap();
        assert!(is_near(local, &allow, &headers(&[])));
        assert!(is_near("::ffff:127.0.0.1".parse().unwrap(), &allow, &headers(&[])));
        for field in ["forwarded", "x-forwarded-for", "via"] {
            assert!(!is_near(local, &allow, &headers(&[(field, "x")])), "{field}");
        }
        assert!(!is_near("192.0.2.1".parse().unwrap(), &allow, &headers(&[])));
    }
}
