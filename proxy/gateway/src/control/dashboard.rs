//! The dashboard: a page for browsers, figures for programs, and their stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::ACCEPT;
use serde_json::{Map, Value, json};
use sluice_http::{Reject, sse};
use sluice_policy::breaker::State as BreakerState;
use sluice_policy::gate::{Lane, Load};
use sluice_wire::code::Code;

use super::access::Access;
use super::breakers::{whole, word};
use super::{Control, console};
use crate::clock;
use crate::generation::Generation;
use crate::lanes::{Crossing, Shown};

/// LIMIT: gates in the figures.
const GATES_MAX: usize = 256;

/// The page for a browser, JSON for everybody else.
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
    access: Access,
) -> Result<Response, Reject> {
    let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    if accepts.split(',').any(|kind| kind.trim().starts_with("text/html")) {
        return console::page(&control, &headers);
    }
    access.read()?;
    Ok(Json(summary(&control)).into_response())
}

fn summary(control: &Control) -> Value {
    let generation = control.shared.generation();
    let now = clock::now();
    let metrics: Vec<_> =
        generation.services.iter().map(|route| route.upstream.breaker().metrics(now)).collect();
    let sum = |field: fn(&sluice_policy::breaker::Metrics) -> u64| metrics.iter().map(field).sum::<u64>();
    let with = |wanted: &str| metrics.iter().filter(|metrics| word(metrics.state) == wanted).count();
    let (failures, successes) = (sum(|m| m.failures), sum(|m| m.successes));
    let counted = failures + successes;
    let breakers: Vec<Value> = generation.services.iter().map(|route| whole(&route.upstream)).collect();
    json!({
        "summary": {
            "total_breakers": metrics.len(),
            "open_breakers": with(word(BreakerState::Open)),
            "half_open_breakers": with(word(BreakerState::HalfOpen)),
            "closed_breakers": with(word(BreakerState::Closed)),
            "total_requests": sum(|m| m.requests),
            "total_failures": failures,
            "total_successes": successes,
            "failure_rate": if counted == 0 { 0.0 } else { failures as f64 / counted as f64 },
        },
        "breakers": breakers,
        "gates": gates(&generation, GATES_MAX),
    })
}

/// What each upstream takes at once, and which services share it: the one that most wait for first, then by name.
pub(super) fn gates(generation: &Generation, most: usize) -> Vec<Value> {
    let services =
        generation.services.iter().map(|route| (route.service.name.as_str(), Some(&route.approach)));
    let workers = generation.workers().map(|route| (route.role.as_str(), route.approach.as_ref()));
    let mut gates: BTreeMap<*const Crossing, (&Crossing, Vec<&str>)> = BTreeMap::new();
    for (name, approach) in services.chain(workers) {
        let Some(approach) = approach else { continue };
        let gate = gates.entry(Arc::as_ptr(&approach.crossing));
        gate.or_insert_with(|| (approach.crossing.as_ref(), Vec::new())).1.push(name);
    }
    let mut gates: Vec<(Shown, Vec<&str>)> =
        gates.into_values().map(|(crossing, names)| (crossing.shown(), names)).collect();
    gates.sort_by(|(a, names), (b, others)| waiting(b).cmp(&waiting(a)).then_with(|| names.cmp(others)));
    gates.truncate(most);
    gates.iter().map(|(shown, names)| gate(shown, names)).collect()
}

fn waiting(shown: &Shown) -> usize {
    shown.lanes.iter().map(|(load, _)| load.waiting).sum()
}

fn gate(shown: &Shown, names: &[&str]) -> Value {
    let lane = |(lane, (load, shed)): (Lane, &(Load, u64))| {
        let Load { running, waiting } = load;
        (lane.as_str().to_owned(), json!({ "running": running, "waiting": waiting, "shed": shed }))
    };
    let lanes: Map<String, Value> = Lane::ALL.into_iter().zip(&shown.lanes).map(lane).collect();
    json!({
        "services": names,
        "limit": shown.limit,
        "adaptive": shown.adaptive,
        "running": shown.lanes.iter().map(|(load, _)| load.running).sum::<u32>(),
        "waiting": waiting(shown),
        "lanes": lanes,
    })
}

/// The figures as they change: every viewer gets the same encoded frame.
pub(super) async fn stream(State(control): State<Arc<Control>>, access: Access) -> Result<Response, Reject> {
    access.read()?;
    let Ok(place) = Arc::clone(&control.viewers).try_acquire_owned() else {
        return Err(Reject::new(Code::Overloaded, "too many dashboards are open"));
    };
    let mut frames = control.frames.subscribe();
    frames.mark_changed();
    let shared = Arc::clone(&control.shared);
    let following = stream::unfold((frames, shared, place), |(mut frames, shared, place)| async move {
        loop {
            let mut phase = shared.drain.phase();
            let ending = phase.wait_for(|phase| matches!(phase, crate::drain::Phase::Closing { .. }));
            tokio::select! {
                changed = frames.changed() => changed.ok()?,
                _ = ending => return None,
            }
            let frame: Bytes = frames.borrow_and_update().clone();
            if !frame.is_empty() {
                drop(phase);
                return Some((frame, (frames, shared, place)));
            }
        }
    });
    Ok(sse::response(following))
}
