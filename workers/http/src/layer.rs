//! What surrounds every handler: request id, caller, panics, problems, figures.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue};
use prometheus::{IntCounter, IntCounterVec};
use sluice_telemetry::metric::{self, Name};
use sluice_wire::code::Code;
use sluice_wire::header as names;
use sluice_wire::id::RequestId;
use sluice_wire::problem::Problem;

use crate::caller::{Known, resolve};
use crate::doors::{Door, Peer};
use crate::health::{self, Health, HealthSource};
use crate::reject::{Reject, render};
use crate::start::Start;

/// The id of the request being handled; in the request's extensions.
#[derive(Debug, Clone)]
pub struct RequestIdExt(pub RequestId);

/// What surrounds every handler of a process.
pub(crate) struct Outer {
    pub(crate) known: Known,
    requests: Requests,
}

/// Answers by door and class of status. A series begins with its first answer, and is looked up once.
struct Requests {
    counters: IntCounterVec,
    of: [[OnceLock<IntCounter>; CLASSES.len()]; DOORS.len()],
}

const DOORS: [&str; 3] = ["api", "internal", "mtls"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Requests {
    fn count(&self, door: usize, status: u16) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        let labels = || self.counters.with_label_values(&[DOORS[door], CLASSES[class]]);
        self.of[door][class].get_or_init(labels).inc();
    }
}

/// Puts health endpoints beside a role's routes and the common layers around all of them. Once a
/// process: it registers metrics.
pub fn wrap(start: &Start, routes: Router, source: Arc<dyn HealthSource>) -> Router {
    around(&Arc::new(Outer::new(start)), start, routes, source)
}

/// The same with layers that are there already.
pub(crate) fn around(
    outer: &Arc<Outer>,
    start: &Start,
    routes: Router,
    source: Arc<dyn HealthSource>,
) -> Router {
    let health = Health {
        service: start.role.as_str(),
        source,
        stop: start.stop.clone(),
        registry: start.registry.clone(),
        access: start.config.metrics.clone(),
    };
    health::router(Arc::new(health))
        .merge(routes)
        .fallback(|| async { Reject::new(Code::NotFound, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Reject::new(Code::MethodNotAllowed, "this path does not take this method")
        })
        .layer(from_fn_with_state(Arc::clone(outer), surround))
}

async fn surround(State(outer): State<Arc<Outer>>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let path = request.uri().path().to_owned();
    let unknown = || Peer { door: Door::Api, address: None, client: None };
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_else(unknown);
    let resolved = resolve(&peer, request.headers(), &outer.known, None);
    let is_unproven = resolved.is_unproven();
    request.extensions_mut().insert(resolved);
    request.extensions_mut().insert(RequestIdExt(id.clone()));
    let response = if is_unproven { unproven() } else { caught(next.run(request), &id).await };
    outer.finish(&peer, response, &id, &path)
}

/// The id that a request came with, when it is well formed, or a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> RequestId {
    headers
        .get(names::X_REQUEST_ID)
        .and_then(|value| RequestId::parse(value.to_str().ok()?))
        .unwrap_or_else(RequestId::mint)
}

/// Whoever's certificate no longer holds shakes hands anew, with another one.
pub(crate) fn unproven() -> Response {
    Reject::unauthenticated().header(CONNECTION, HeaderValue::from_static("close")).into_response()
}

/// A handler's panic is one 500; the process lives.
pub(crate) async fn caught(answer: impl Future<Output = Response>, id: &RequestId) -> Response {
    if let Ok(response) = AssertUnwindSafe(answer).catch_unwind().await {
        return response;
    }
    tracing::error!(component = "http", request_id = id.as_str(), "a handler panicked");
    Reject::from(Problem::new(Code::Internal)).into_response()
}

impl Outer {
    /// Registers metrics: once a process.
    pub(crate) fn new(start: &Start) -> Self {
        let requests = Requests {
            counters: metric::counters(&start.registry, Name::HttpRequests),
            of: Default::default(),
        };
        let known =
            Known { keys: start.keys.clone(), trust: start.trust.clone(), config: start.config.clone() };
        Self { known, requests }
    }

    /// Counts an answer, and adds what every answer has.
    pub(crate) fn finish(&self, peer: &Peer, response: Response, id: &RequestId, path: &str) -> Response {
        // A hop that both ends have proved is counted apart.
        let door = match (&peer.client, peer.door) {
            (Some(_), _) => 2,
            (None, Door::Internal) => 1,
            (None, Door::Api) => 0,
        };
        self.requests.count(door, response.status().as_u16());
        finish(response, id, path)
    }
}

fn finish(mut response: Response, id: &RequestId, path: &str) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Box<Problem>>() {
        let mut problem = problem.instance(path);
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
