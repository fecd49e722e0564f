//! One picture of the whole system, taken four to five times a second while somebody looks, encoded once
//! and shared by all viewers. Its shape is the console's `snapshot.js`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_http::{Status, sse};
use sluice_wire::role::Role;

use super::breakers::{forced, word};
use super::{Control, dashboard, upstreams};
use crate::clock;
use crate::endpoint::Probe;
use crate::generation::{Generation, ServiceRoute, WorkerRoute};
use crate::holds::Holds;
use crate::kill;
use crate::lanes::Approach;
use crate::meters::RouteMeters;
use crate::pages::{ewma_ms, own_status};
use crate::state::Shared;
use crate::traffic::Sums;

/// Between two pictures.
const INTERVAL: Duration = Duration::from_millis(220);
/// LIMIT: routes in a picture, busiest first.
const ROUTES_MAX: usize = 256;
/// LIMIT: instances of a route.
const INSTANCES_MAX: usize = 64;
/// LIMIT: gates.
const GATES_MAX: usize = 32;
/// LIMIT: kill switches listed.
const SWITCHES_MAX: usize = 32;
/// LIMIT: consumer groups.
const GROUPS_MAX: usize = 16;
/// LIMIT: certificates.
const CERTIFICATES_MAX: usize = 64;

/// Takes pictures for ever.
pub(crate) async fn run(control: Arc<Control>) -> Infallible {
    loop {
        tokio::time::sleep(INTERVAL).await;
        control.shared.refresh_gauges();
        if control.frames.receiver_count() == 0 {
            continue;
        }
        let picture = take(&control).to_string();
        control.frames.send_replace(sse::frame(None, "snapshot", &picture));
    }
}

/// A certificate that the vault watches.
pub(super) struct Certificate {
    pub(super) name: String,
    pub(super) days_left: f64,
    pub(super) is_ca: bool,
    serial: String,
    not_after: Timestamp,
}

/// The certificates in force, soonest to expire first.
pub(super) fn certificates(shared: &Shared) -> Vec<Certificate> {
    let Some(health) = shared.workers.health(Role::Vault) else { return Vec::new() };
    let listed = health.figures.get("certificates").and_then(Value::as_array);
    let now = Timestamp::now();
    let mut certificates: Vec<Certificate> = listed
        .into_iter()
        .flatten()
        .filter_map(|one| {
            let text = |name: &str| one.get(name).and_then(Value::as_str);
            let not_after: Timestamp = text("not_after")?.parse().ok()?;
            Some(Certificate {
                name: text("name")?.to_owned(),
                days_left: not_after.duration_since(now).as_secs_f64() / 86_400.0,
                is_ca: text("kind") != Some("leaf"),
                serial: text("serial")?.to_owned(),
                not_after,
            })
        })
        .collect();
    certificates.sort_by_key(|certificate| certificate.not_after);
    certificates.truncate(CERTIFICATES_MAX);
    certificates
}

fn take(control: &Control) -> Value {
    let shared = &control.shared;
    let generation = shared.generation();
    let second = clock::now().0 / 1_000_000_000;
    let mut totals = generation.pages.traffic.sums(second);
    let mut in_flight = generation.pages.in_flight();
    let mut routes: Vec<(f64, Value)> = Vec::new();
    for route in &generation.services {
        let sums = route.upstream.meters.traffic.sums(second);
        routes.push((sums.rps(), service(&shared.upstreams.holds, route, &sums, second)));
        totals.merge(&sums);
        in_flight += route.upstream.meters.in_flight();
    }
    for route in generation.workers() {
        let sums = route.meters.traffic.sums(second);
        routes.push((sums.rps(), worker_route(shared, route, &sums, second)));
        totals.merge(&sums);
        in_flight += route.meters.in_flight();
    }
    let routes_total = routes.len();
    routes.sort_by(|a, b| b.0.total_cmp(&a.0));
    routes.truncate(ROUTES_MAX);
    let draining = shared.drain.has_begun();
    let workers = workers(shared);
    let worst = workers.iter().map(|(_, status, _)| *status).max().unwrap_or(Status::Healthy);
    let state = if draining { json!("draining") } else { json!(worst.min(Status::Degraded)) };
    let last = shared.reload.last();
    json!({
        "at": Timestamp::now(),
        "state": state,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": Timestamp::now().duration_since(shared.started).as_secs_f64(),
        "dev": shared.dev,
        "generation": {
            "number": generation.number,
            "hash": generation.hash,
            "loaded_at": generation.loaded_at,
            "last_error": last.error,
        },
        "totals": {
            "rps": totals.rps(),
            "error_pct": totals.error_pct(),
            "p50_ms": totals.latency_ms(0.5),
            "p99_ms": totals.latency_ms(0.99),
            "p999_ms": totals.latency_ms(0.999),
            "limited_per_s": totals.limited_per_s(),
            "in_flight": in_flight,
            "connections": shared.connections.open(),
            "requests_total": requests_total(&generation),
        },
        "feed": feed(shared),
        "store": store(shared),
        "certificates": certificates(shared).iter().map(certificate).collect::<Vec<_>>(),
        "workers": workers.iter().map(|(role, status, detail)| {
            json!({ "role": role, "status": if draining && *role == Role::Edge { json!("draining") } else { json!(status) }, "detail": detail })
        }).collect::<Vec<_>>(),
        "routes": routes.into_iter().map(|(_, route)| route).collect::<Vec<_>>(),
        "routes_total": routes_total,
        "gates": dashboard::gates(&generation, GATES_MAX),
        "kill_switch": kill_switches(shared),
        "alerts": control.alerts.now(shared),
    })
}

fn kill_switches(shared: &Shared) -> Value {
    let (views, count, _) = kill::views(shared, None, SWITCHES_MAX);
    let switches: Vec<Value> = views.iter().map(|view| super::kill::shown(shared, view)).collect();
    json!({ "count": count, "switches": switches })
}

fn requests_total(generation: &Generation) -> u64 {
    let services = generation.services.iter().map(|route| route.upstream.meters.answered_total());
    let workers = generation.workers().map(|route| route.meters.answered_total());
    services.chain(workers).sum::<u64>() + generation.pages.answered_total()
}

fn workers(shared: &Shared) -> Vec<(Role, Status, Option<String>)> {
    let (status, detail) = own_status(shared);
    let others = shared.workers.all().map(|(role, health)| match health {
        Some(health) => (role, health.status, health.detail.clone()),
        None => (role, Status::Unhealthy, Some("not reached yet".to_owned())),
    });
    std::iter::once((Role::Edge, status, detail)).chain(others).collect()
}

fn feed(shared: &Shared) -> Value {
    let trust = shared.trust.load();
    let (epoch, _) = trust.version();
    json!({
        "age_s": shared.trust.age_ms().map(|ms| ms as f64 / 1000.0),
        "epoch": (!epoch.is_empty()).then_some(epoch),
    })
}

/// The event store, as the event worker's figures tell.
fn store(shared: &Shared) -> Value {
    let health = shared.workers.health(Role::Events);
    let figures = health.as_ref().map(|health| &health.figures).filter(|figures| figures.is_object());
    let figure = |name: &str| figures.and_then(|figures| figures.get(name)).cloned();
    json!({
        "kind": figure("store"),
        "stream_length": figure("stream_length"),
        "last_seq": figure("last_seq"),
        "events_per_s": figure("events_per_s"),
        "oldest_age_s": figure("oldest_age_seconds"),
        "groups": groups(figures),
        "groups_total": figure("consumer_groups"),
        "dead_letters": figures.map(|figures| {
            listed(figures).filter_map(|group| group["dlq_depth"].as_u64()).sum::<u64>()
        }),
    })
}

fn listed(figures: &Value) -> impl Iterator<Item = &Value> {
    figures["groups"].as_array().into_iter().flatten()
}

/// The consumer groups that need a look first: with dead letters, then those furthest behind.
fn groups(figures: Option<&Value>) -> Vec<Value> {
    let mut groups: Vec<&Value> = figures.map(|figures| listed(figures).collect()).unwrap_or_default();
    let rank = |group: &Value| {
        let figure = |name: &str| group[name].as_u64().unwrap_or_default();
        (figure("dlq_depth"), figure("lag"), figure("pending"))
    };
    groups.sort_by_key(|group| std::cmp::Reverse(rank(group)));
    let told = |group: &&Value| {
        json!({
            "name": group["name"],
            "lag": group["lag"],
            "lag_s": group["lag_seconds"],
            "pending": group["pending"],
            "dead_letters": group["dlq_depth"],
        })
    };
    groups.iter().take(GROUPS_MAX).map(told).collect()
}

fn certificate(certificate: &Certificate) -> Value {
    json!({
        "name": certificate.name,
        "serial": certificate.serial,
        "not_after": certificate.not_after,
        "days_left": certificate.days_left,
    })
}

fn common(name: &str, prefix: &str, meters: &RouteMeters, sums: &Sums, second: u64) -> Value {
    json!({
        "name": name,
        "prefix": prefix,
        "rps": sums.rps(),
        "error_pct": sums.error_pct(),
        "p50_ms": sums.latency_ms(0.5),
        "p99_ms": sums.latency_ms(0.99),
        "in_flight": meters.in_flight(),
        "limited_per_s": sums.limited_per_s(),
        "spark": meters.traffic.spark(second),
        "lane": null,
        "concurrency": null,
    })
}

fn service(holds: &Holds, route: &ServiceRoute, sums: &Sums, second: u64) -> Value {
    let now = clock::now();
    let metrics = route.upstream.breaker().metrics(now);
    let roster = route.upstream.roster();
    let instances = roster.endpoints().iter().take(INSTANCES_MAX).map(|endpoint| {
        let instance = &endpoint.instance;
        json!({
            "url": endpoint.label,
            "weight": instance.weight(),
            "state": instance.state(now).as_str(),
            "in_flight": instance.in_flight(),
            "ewma_ms": ewma_ms(instance),
            "last_probe": endpoint.last_probe().map(|probe| self::probe(&probe)),
            "held": holds.of(&route.service.name, &endpoint.label).map(|held| upstreams::told(&held)),
        })
    });
    let mut value = common(&route.service.name, &route.service.prefix, &route.upstream.meters, sums, second);
    value["breaker"] = json!({
        "state": word(metrics.state),
        "failures": metrics.window_failures,
        "retry_at": metrics.retry_at.map(clock::wall),
        "forced": forced(metrics.state),
    });
    value["auth_required"] = route.service.auth_required.into();
    laned(&mut value, &route.approach);
    value["instances"] = instances.collect();
    value
}

fn worker_route(shared: &Shared, route: &WorkerRoute, sums: &Sums, second: u64) -> Value {
    let (name, prefix) = match route.role {
        Role::Events => ("events", "/events"),
        Role::Vault => ("vault", "/secrets"),
        _ => ("calc", "/calculations"),
    };
    let health = shared.workers.health(route.role);
    let state = match health.as_ref().map(|health| health.status) {
        Some(Status::Healthy | Status::Degraded) => "healthy",
        _ => "unhealthy",
    };
    let mut value = common(name, prefix, &route.meters, sums, second);
    route.approach.iter().for_each(|approach| laned(&mut value, approach));
    value["breaker"] = Value::Null;
    value["auth_required"] = true.into();
    value["instances"] = json!([{
        "url": format!("unix:run/{name}.sock"),
        "weight": 1,
        "state": state,
        "in_flight": route.meters.in_flight(),
        "ewma_ms": null,
        "last_probe": null,
        "held": null,
    }]);
    value
}

/// A route's lane, and how full its upstream is.
fn laned(value: &mut Value, approach: &Approach) {
    let (shown, meters) = (approach.crossing.shown(), &approach.meters);
    value["lane"] = approach.lane.as_str().into();
    value["concurrency"] = json!({
        "limit": shown.limit,
        "adaptive": shown.adaptive,
        "running": meters.running.get(),
        "waiting": meters.waiting.get(),
        "shed": meters.full.get() + meters.late.get(),
    });
}

fn probe(probe: &Probe) -> Value {
    json!({
        "at": clock::wall(probe.at),
        "ok": probe.ok,
        "ms": probe.took.map(|took| took.as_secs_f64() * 1000.0),
        "detail": probe.detail,
    })
}
