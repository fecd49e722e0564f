//! What the edge answers itself on the public port: health, metrics, services, registration.

mod registration;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use pingora::proxy::Session;
use serde_json::{Value, json};
use sluice_http::Status;
use sluice_policy::balance::Instance;
use sluice_policy::kill_switch::Switches;
use sluice_policy::method::{Method, MethodSet};
use sluice_schema::{RateKey, Source};
use sluice_telemetry::metric;
use sluice_wire::code::Code;
use sluice_wire::problem::Problem;
use sluice_wire::role::Role;

use crate::admit::is_near;
use crate::authenticate::verify;
use crate::clock;
use crate::ctx::Exchange;
use crate::generation::{Generation, ServiceRoute, WORKERS};
use crate::jwt_cache::Verified;
use crate::respond::Answer;
use crate::state::Shared;

/// Why the edge is not ready where TLS is configured and nothing is there to be shown.
const NO_CERTIFICATE: &str = "no certificate for the TLS listener yet";
/// Names no file: the page is public.
const REFUSED_FILES: &str = "changed certificate files cannot be used, the old ones stay; the log says why";

/// The answer to a request for one of the edge's own paths.
pub(crate) async fn answer(shared: &Shared, session: &mut Session, x: &mut Exchange) -> Answer {
    let path = x.arrival.path.clone();
    let method = x.arrival.method;
    match path.trim_end_matches('/') {
        "*" => Answer::no_content(MethodSet::EVERYWHERE),
        "/health" => get(method, || health(shared)),
        "/livez" => get(method, || Answer::bytes(200, "text/plain", "ok\n")),
        "/readyz" => get(method, || readyz(shared)),
        "/metrics" => get(method, || metrics(shared, session, x)),
        "/services" | "/api/services" => get(method, || Answer::json(200, &services(&shared.generation()))),
        rest => match rest.strip_prefix("/api/register") {
            Some(rest) => registration::answer(shared, session, x, rest).await,
            None => Answer::refuse(Code::NotFound, "there is nothing at this path"),
        },
    }
}

fn get(method: Method, page: impl FnOnce() -> Answer) -> Answer {
    match method {
        Method::Get | Method::Head => page(),
        _ => Answer::wrong_method(MethodSet::EMPTY.with(Method::Get)),
    }
}

fn readyz(shared: &Shared) -> Answer {
    if shared.drain.has_begun() {
        return Answer::refuse(Code::Draining, "this process is ending");
    }
    if !shared.has_keys() {
        return Answer::problem(
            Problem::new(Code::AuthUnavailable).detail("no verification keys yet").retry_after_s(1),
        );
    }
    if awaits_certificate(shared) {
        let problem = Problem::new(Code::AuthUnavailable).detail(NO_CERTIFICATE);
        return Answer::problem(problem.retry_after_s(1));
    }
    Answer::bytes(200, "text/plain", "ok\n")
}

/// Whether clients over TLS still wait for what is shown to them.
fn awaits_certificate(shared: &Shared) -> bool {
    shared.generation.load().config.edge.tls.is_some() && !shared.tls.is_ready()
}

/// The components of `/health` with their status, the edge first.
pub(crate) fn components(shared: &Shared) -> BTreeMap<&'static str, (Status, Option<String>)> {
    let mut components = BTreeMap::from([(Role::Edge.as_str(), own_status(shared))]);
    if let Some(status) = redis(shared) {
        components.insert("redis", status);
    }
    for role in WORKERS {
        let status = match shared.workers.health(role) {
            Some(health) => (health.status, health.detail.clone()),
            None => (Status::Unhealthy, Some("not reached yet".to_owned())),
        };
        components.insert(role.as_str(), status);
    }
    components
}

/// The store that edges share, by what it is asked for.
fn redis(shared: &Shared) -> Option<(Status, Option<String>)> {
    let (keys, limits) = (shared.keys.is_shared_well(), shared.joint.is_well());
    let asked = keys.or(limits).is_some();
    let missed = [
        (keys == Some(false)).then_some("requests with idempotency keys get 503"),
        (limits == Some(false)).then_some("each edge counts rates alone"),
    ];
    let missed: Vec<_> = missed.into_iter().flatten().collect();
    asked.then(|| match missed.as_slice() {
        [] => (Status::Healthy, None),
        missed => (Status::Degraded, Some(format!("does not answer; {}", missed.join(", ")))),
    })
}

/// How the edge itself is, and whether an operator has stopped something: that is no fault, but nobody should
/// look for another reason.
pub(crate) fn own_status(shared: &Shared) -> (Status, Option<String>) {
    let (status, fault) = own_fault(shared);
    let Some(switches) = shared.kill.switches() else { return (status, fault) };
    let stopped = stopped(&switches);
    let detail = match fault {
        Some(fault) => format!("{stopped}; {fault}"),
        None => stopped,
    };
    (status.max(Status::Degraded), Some(detail))
}

/// What is stopped, without names: the page is public.
fn stopped(switches: &Switches) -> String {
    let [(_, all), named @ ..] = switches.counts();
    if all > 0 {
        return "kill switch: everything is stopped".to_owned();
    }
    let named: Vec<String> = named
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(scope, count)| format!("{count} {scope}{}", if count == 1 { "" } else { "s" }))
        .collect();
    format!("kill switch: {} stopped", named.join(", "))
}

/// What is wrong with the edge itself.
pub(crate) fn own_fault(shared: &Shared) -> (Status, Option<String>) {
    let max_age = shared.generation.load().config.auth.feed_max_age;
    let last = shared.reload.last();
    if shared.drain.has_begun() {
        return (Status::Degraded, Some("draining".to_owned()));
    }
    if !shared.has_keys() {
        return (Status::Degraded, Some("no verification keys yet".to_owned()));
    }
    if awaits_certificate(shared) {
        return (Status::Degraded, Some(NO_CERTIFICATE.to_owned()));
    }
    if shared.tls.refused.is_any() {
        return (Status::Degraded, Some(REFUSED_FILES.to_owned()));
    }
    match shared.trust.age_ms() {
        Some(age_ms) if u128::from(age_ms) <= max_age.as_millis() => {}
        Some(age_ms) => {
            return (Status::Degraded, Some(format!("feed of the vault is {} s old", age_ms / 1000)));
        }
        None => return (Status::Degraded, Some("feed of the vault not heard since the start".to_owned())),
    }
    match last.error {
        Some(_) => (Status::Degraded, Some("the last configuration was refused".to_owned())),
        None => (Status::Healthy, None),
    }
}

fn health(shared: &Shared) -> Answer {
    let generation = shared.generation();
    let components = components(shared);
    // A part that is down leaves the edge serving the rest: degraded, not unhealthy.
    let worst = components.values().map(|(status, _)| *status).max().unwrap_or(Status::Healthy);
    let status = worst.min(Status::Degraded);
    let component = |(status, detail): &(Status, Option<String>)| match detail {
        Some(detail) => json!({ "status": status, "detail": detail }),
        None => json!({ "status": status }),
    };
    let components: BTreeMap<_, Value> =
        components.iter().map(|(name, state)| (*name, component(state))).collect();
    let services: BTreeMap<&str, Value> = generation
        .services
        .iter()
        .map(|route| (route.service.name.as_str(), service_health(route)))
        .collect();
    Answer::json(
        200,
        &json!({
            "status": status,
            "timestamp": Timestamp::now(),
            "service": "edge",
            "version": env!("CARGO_PKG_VERSION"),
            "components": components,
            "services": services,
            "config": {
                "generation": generation.number,
                "hash": generation.hash,
                "last_reload": shared.reload.last().public(),
            },
        }),
    )
}

fn service_health(route: &ServiceRoute) -> Value {
    let roster = route.upstream.roster();
    let total = roster.endpoints().len();
    let healthy = roster.endpoints().iter().filter(|endpoint| endpoint.serves()).count();
    let status = match healthy {
        0 => Status::Unhealthy,
        some if some < total => Status::Degraded,
        _ => Status::Healthy,
    };
    json!({ "total_instances": total, "healthy_instances": healthy, "status": status })
}

fn metrics(shared: &Shared, session: &Session, x: &mut Exchange) -> Answer {
    let access = shared.generation.load().config.metrics.clone();
    if !access.enabled {
        return Answer::refuse(Code::NotFound, "metrics are switched off");
    }
    let headers = &session.req_header().headers;
    if !is_near(x.arrival.conn.peer.ip(), &access.allow, headers)
        && let Err(refusal) = caller(shared, session, x, "metrics:read")
    {
        return refusal;
    }
    shared.refresh_gauges();
    Answer::bytes(200, metric::CONTENT_TYPE, metric::expose(&shared.registry))
}

/// The verified caller, where it holds a permission.
fn caller(
    shared: &Shared,
    session: &Session,
    x: &mut Exchange,
    permission: &str,
) -> Result<Arc<Verified>, Answer> {
    let identity = verify(shared, x, &session.req_header().headers)?.ok_or_else(|| {
        shared.meters.auth_failure("missing");
        Answer::unauthenticated()
    })?;
    x.identity = Some(Arc::clone(&identity));
    if identity.claims.grants.covers(permission) {
        return Ok(identity);
    }
    shared.meters.auth_failure("insufficient_scope");
    Err(Answer::lacking(permission))
}

fn services(generation: &Generation) -> Value {
    let services: Vec<Value> = generation.services.iter().map(|route| service(route)).collect();
    json!({ "count": services.len(), "services": services })
}

fn service(route: &ServiceRoute) -> Value {
    let now = clock::now();
    let roster = route.upstream.roster();
    let instances = roster.endpoints().iter().map(|endpoint| {
        let instance = &endpoint.instance;
        json!({
            "url": endpoint.label,
            "weight": instance.weight(),
            "state": instance.state(now).as_str(),
            "in_flight": instance.in_flight(),
            "ewma_ms": ewma_ms(instance),
        })
    });
    json!({
        "name": route.service.name,
        "path_prefix": route.service.prefix,
        "instances": instances.collect::<Vec<_>>(),
        "rate_limit": rate_limit(route),
        "auth_required": route.service.auth_required,
        "lane": route.service.lane.as_str(),
        "breaker": route.upstream.breaker().state().as_str(),
        "mirror": Some(&route.service.mirror).filter(|mirror| !mirror.is_empty()),
        "split": route.service.split.iter().map(|arm| json!({ "service": arm.service, "weight": arm.weight }))
            .collect::<Vec<_>>(),
        "source": match route.service.source {
            Source::File { .. } => "file",
            Source::Api => "api",
        },
    })
}

/// Average latency of an instance in milliseconds; `None` before its first answer.
pub(crate) fn ewma_ms(instance: &Instance) -> Option<f64> {
    let ewma = instance.ewma();
    (!ewma.is_zero()).then_some(ewma.as_secs_f64() * 1000.0)
}

/// A limit as it is written: a number where it is one a minute and client.
fn rate_limit(route: &ServiceRoute) -> Value {
    let Some(limit) = &route.service.rate_limit else { return Value::Null };
    let plain = sluice_schema::RateLimit::per_minute(limit.requests);
    if *limit == plain {
        return limit.requests.into();
    }
    let key = match &limit.key {
        RateKey::Client => "client".to_owned(),
        RateKey::Ip => "ip".to_owned(),
        RateKey::Service => "service".to_owned(),
        RateKey::Subject => "sub".to_owned(),
        RateKey::Header(name) => format!("header:{name}"),
    };
    json!({
        "requests": limit.requests,
        "per_s": limit.per.as_secs_f64(),
        "burst": limit.burst,
        "key": key,
        "hard": limit.hard,
    })
}
