//! The dashboard: a page for browsers, figures for programs, and their stream.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::ACCEPT;
use serde_json::{Value, json};
use sluice_http::{Reject, sse};
use sluice_policy::breaker::State as BreakerState;
use sluice_wire::code::Code;

use super::access::Access;
use super::breakers::{whole, word};
use super::{Control, console};
use crate::clock;

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
