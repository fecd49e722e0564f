//! What surrounds every handler: request id, caller, panics, problems, figures.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::CONNECTION;
use http::{HeaderName, HeaderValue};
use prometheus::IntCounterVec;
use sluice_telemetry::metric::{self, Name};
use sluice_wire::code::Code;
use sluice_wire::header as names;
use sluice_wire::id::RequestId;
use sluice_wire::problem::Problem;

use crate::caller::{Known, Resolved, resolve};
use crate::doors::{Door, Peer};
use crate::health::{self, Health, HealthSource};
use crate::reject::{Reject, render};
use crate::start::Start;

/// The id of the request being handled; in the request's extensions.
#[derive(Debug, Clone)]
pub struct RequestIdExt(pub RequestId);

struct Outer {
    known: Known,
    requests: IntCounterVec,
}

/// Puts health endpoints beside a role's routes and the common layers around all of them. Once a
/// process: it registers metrics.
pub fn wrap(start: &Start, routes: Router, source: Arc<dyn HealthSource>) -> Router {
    let health = Health {
        service: start.role.as_str(),
        source,
        stop: start.stop.clone(),
        registry: start.registry.clone(),
        access: start.config.metrics.clone(),
    };
    let outer = Outer {
        known: Known { keys: start.keys.clone(), trust: start.trust.clone(), config: start.config.clone() },
        requests: metric::counters(&start.registry, Name::HttpRequests),
    };
    health::router(Arc::new(health))
        .merge(routes)
        .fallback(|| async { Reject::new(Code::NotFound, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Reject::new(Code::MethodNotAllowed, "this path does not take this method")
        })
        .layer(from_fn_with_state(Arc::new(outer), surround))
}

async fn surround(State(outer): State<Arc<Outer>>, mut request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(names::X_REQUEST_ID)
        .and_then(|value| RequestId::parse(value.to_str().ok()?))
        .unwrap_or_else(RequestId::mint);
    let path = request.uri().path().to_owned();
    let unknown = || Peer { door: Door::Api, address: None, client: None };
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_else(unknown);
    let resolved = resolve(&peer, request.headers(), &outer.known);
    let unproven = matches!(resolved, Resolved::Unproven);
    request.extensions_mut().insert(resolved);
    request.extensions_mut().insert(RequestIdExt(id.clone()));
    let response = if unproven {
        // Whoever's certificate no longer holds shakes hands anew, with another one.
        let reject = Reject::unauthenticated().header(CONNECTION, HeaderValue::from_static("close"));
        reject.into_response()
    } else {
        handle(request, next, &id).await
    };
    // A hop that both ends have proved is counted apart.
    let door = if peer.client.is_some() { "mtls" } else { peer.door.as_str() };
    outer.requests.with_label_values(&[door, class(response.status().as_u16())]).inc();
    finish(response, &id, path)
}

/// A handler's panic is one 500; the process lives.
async fn handle(request: Request, next: Next, id: &RequestId) -> Response {
    if let Ok(response) = AssertUnwindSafe(next.run(request)).catch_unwind().await {
        return response;
    }
    tracing::error!(component = "http", request_id = id.as_str(), "a handler panicked");
    Reject::from(Problem::new(Code::Internal)).into_response()
}

fn finish(mut response: Response, id: &RequestId, path: String) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Box<Problem>>() {
        let mut problem = *problem;
        problem.instance = Some(path);
        problem.request_id = Some(id.to_string());
        let mut whole = render(&problem);
        for (name, value) in response.headers() {
            whole.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        whole.headers_mut().remove(http::header::CONTENT_LENGTH);
        response = whole;
    }
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(HeaderName::from_static(names::X_REQUEST_ID), value);
    }
    response
}

const fn class(status: u16) -> &'static str {
    match status {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}
