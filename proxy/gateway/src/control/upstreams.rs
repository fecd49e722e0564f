//! Instances: how they are, and holding them back.
//!
//! `drain` gives an instance no new callers: requests under way end, and with `sticky` callers that are bound to it
//! stay. `maint` gives it nothing and stops its probes. `ready` takes it back, slowly. Each is audited, kept in the
//! ledger, and in force over reloads and restarts until it is taken back.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_http::Reject;
use sluice_ledger::{HOLDS_MAX, Held};
use sluice_policy::balance::Hold;
use sluice_wire::code::Code;

use super::Control;
use super::access::Access;
use super::admin::Answer;
use crate::clock;
use crate::endpoint::Endpoint;
use crate::generation::{Generation, ServiceRoute};
use crate::holds::Holds;
use crate::pages::ewma_ms;

/// LIMIT: bytes of a reason.
const REASON_BYTES: usize = 512;

pub(super) async fn list(State(control): State<Arc<Control>>, access: Access) -> Answer {
    access.read()?;
    let generation = control.shared.generation();
    let holds = &control.shared.upstreams.holds;
    let services: Vec<Value> = generation.services.iter().map(|route| service(holds, route)).collect();
    let absent =
        holds.all().into_iter().filter(|held| find(&generation, &held.service, &held.instance).is_err());
    Ok(Json(json!({
        "zone": generation.config.edge.zone,
        "count": services.len(),
        "services": services,
        // What is held and not there now: it would come back as it was left.
        "absent": absent.map(|held| json!({
            "service": held.service, "instance": held.instance, "held": told(&held),
        })).collect::<Vec<_>>(),
    })))
}

fn service(holds: &Holds, route: &ServiceRoute) -> Value {
    let roster = route.upstream.roster();
    let instances: Vec<Value> =
        roster.endpoints().iter().map(|endpoint| instance(holds, route, endpoint)).collect();
    json!({
        "name": route.service.name,
        "balance": route.service.balance.as_str(),
        "instances": instances,
    })
}

fn instance(holds: &Holds, route: &ServiceRoute, endpoint: &Endpoint) -> Value {
    let (one, now) = (&endpoint.instance, clock::now());
    let zone = route.service.instances.iter().find(|known| known.url == one.url).map(|known| &known.zone);
    json!({
        "url": endpoint.label,
        "zone": zone,
        "weight": one.weight(),
        "state": one.state(now).as_str(),
        "in_flight": one.in_flight(),
        "ewma_ms": ewma_ms(one),
        "ejected_until": one.is_ejected(now).then(|| clock::wall(one.ejected_until())),
        "held": holds.of(&route.service.name, &endpoint.label).map(|held| told(&held)),
    })
}

/// Who holds an instance, as what and why.
pub(super) fn told(held: &Held) -> Value {
    let since = jiff::Timestamp::from_millisecond(held.since_ms as i64).ok();
    json!({ "as": held.hold.as_str(), "reason": held.reason, "by": held.by, "since": since })
}

/// The instance of a service by its address as it is shown, or by host and port alone.
fn find(generation: &Generation, service: &str, instance: &str) -> Result<Arc<Endpoint>, Reject> {
    let missing = |what| Reject::new(Code::NotFound, what);
    let route = generation.service(service).ok_or_else(|| missing("no service of this name"))?;
    let roster = route.upstream.roster();
    let mut named = roster.endpoints().iter().filter(|endpoint| {
        endpoint.label == instance
            || endpoint.label.split_once("://").is_some_and(|(_, host)| host == instance)
    });
    let one = named.next().ok_or_else(|| missing("the service has no instance of this address"))?;
    match named.next() {
        None => Ok(Arc::clone(one)),
        Some(_) => {
            Err(Reject::new(Code::Conflict, "several instances have this host and port: name the scheme too"))
        }
    }
}

/// The body, where there is one.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    #[serde(default)]
    reason: String,
}

impl Why {
    fn read(body: &Bytes) -> Result<Self, Reject> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let why: Self = serde_json::from_slice(body)
            .map_err(|error| Reject::new(Code::InvalidJson, error.to_string()))?;
        let reason = why.reason.trim().to_owned();
        if reason.len() > REASON_BYTES || reason.contains(char::is_control) {
            let detail = format!("`reason` takes up to {REASON_BYTES} bytes on one line");
            return Err(Reject::new(Code::Unprocessable, detail));
        }
        Ok(Self { reason })
    }
}

pub(super) async fn hold(
    State(control): State<Arc<Control>>,
    Path((service, instance, word)): Path<(String, String, String)>,
    access: Access,
    body: Bytes,
) -> Answer {
    let (hold, op) = match Hold::parse(&word) {
        Some(hold @ Hold::Ready) => (hold, "upstream_ready"),
        Some(hold @ Hold::Drain) => (hold, "upstream_drain"),
        Some(hold @ Hold::Maint) => (hold, "upstream_maint"),
        None => return Err(Reject::new(Code::NotFound, "an instance can be held as drain, maint or ready")),
    };
    let why = Why::read(&body)?;
    let shared = &control.shared;
    let generation = shared.generation();
    let endpoint = find(&generation, &service, &instance)?;
    let path = match why.reason.as_str() {
        "" => format!("{service} {}", endpoint.label),
        reason => format!("{service} {}: {reason}", endpoint.label),
    };
    let by = access.change(op, &path).await?.subject.clone();
    // Nobody makes another change in between, and no successor opens the ledger.
    let _one_at_a_time = shared.registrations.change.lock().await;
    let held = Held {
        service: service.clone(),
        instance: endpoint.label.clone(),
        hold,
        reason: why.reason,
        by,
        since_ms: clock::unix_ms(),
    };
    match shared.upstreams.holds.put(shared.registrations.ledger(), held).await {
        Ok(true) => {}
        Ok(false) => {
            let detail = format!("{HOLDS_MAX} instances are held back already");
            return Err(Reject::new(Code::Conflict, detail));
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(component = "upstream", error, "what holds an instance is not written");
            let detail = "the ledger cannot be written; nothing was changed";
            return Err(Reject::new(Code::LedgerUnavailable, detail));
        }
    }
    if let Some(route) = generation.service(&service) {
        shared.upstreams.holds.apply(&route.upstream);
    }
    let (label, state) = (endpoint.label.as_str(), endpoint.instance.state(clock::now()).as_str());
    tracing::info!(component = "upstream", service, instance = label, state, "an operator holds an instance");
    let in_flight = endpoint.instance.in_flight();
    Ok(Json(json!({
        "status": "success", "service": service, "instance": label, "state": state, "in_flight": in_flight,
    })))
}
