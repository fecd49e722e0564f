//! Health endpoints: `/livez`, `/readyz`, `/health`, `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use prometheus::Registry;
use serde::Serialize;
use sluice_schema::MetricsAccess;
use sluice_telemetry::metric;
use sluice_wire::code::Code;
use sluice_wire::header as names;

use crate::caller::{MaybeCaller, require};
use crate::doors::{Door, Peer};
use crate::reject::Reject;
use crate::stop::Stop;

/// How something is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Healthy,
    /// It serves, with less than it should have.
    Degraded,
    /// It does not serve.
    Unhealthy,
}

/// One part of a role.
#[derive(Debug, Clone, Serialize)]
pub struct Component {
    /// How it is doing.
    pub status: Status,
    /// Public words about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Component {
    /// A part that is well.
    pub const fn healthy() -> Self {
        Self { status: Status::Healthy, detail: None }
    }

    /// A part with a status and words about it.
    pub fn new(status: Status, detail: impl Into<String>) -> Self {
        Self { status, detail: Some(detail.into()) }
    }
}

/// What a role says of itself. Called on requests: it must be quick and must not block.
pub trait HealthSource: Send + Sync {
    /// Whether it can serve. Draining is added by the server.
    fn ready(&self) -> bool;
    /// Its parts by name.
    fn components(&self) -> BTreeMap<String, Component>;
    /// Who may read its metrics now; `None`: as at its start.
    fn metrics(&self) -> Option<MetricsAccess> {
        None
    }
}

pub(crate) struct Health {
    pub(crate) service: &'static str,
    pub(crate) source: Arc<dyn HealthSource>,
    pub(crate) stop: Stop,
    pub(crate) registry: Registry,
    pub(crate) access: MetricsAccess,
}

#[derive(Serialize)]
struct Summary {
    status: Status,
    timestamp: Timestamp,
    service: &'static str,
    version: &'static str,
    components: BTreeMap<String, Component>,
}

pub(crate) fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/health", get(summary))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn readyz(State(health): State<Arc<Health>>) -> Result<&'static str, Reject> {
    if health.stop.is_stopping() {
        return Err(Reject::new(Code::Draining, "this process is ending"));
    }
    if !health.source.ready() {
        return Err(Reject::new(Code::WorkerUnavailable, "this process cannot serve yet"));
    }
    Ok("ok\n")
}

async fn summary(State(health): State<Arc<Health>>) -> Response {
    let components = health.source.components();
    let status = components.values().map(|component| component.status).max().unwrap_or(Status::Healthy);
    let body = Summary {
        status,
        timestamp: Timestamp::now(),
        service: health.service,
        version: env!("CARGO_PKG_VERSION"),
        components,
    };
    let code = if status == Status::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, axum_json(&body)).into_response()
}

async fn metrics(
    State(health): State<Arc<Health>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    MaybeCaller(caller): MaybeCaller,
) -> Result<Response, Reject> {
    let access = health.source.metrics();
    let access = access.as_ref().unwrap_or(&health.access);
    if !access.enabled {
        return Err(Reject::new(Code::NotFound, "metrics are switched off"));
    }
    // A request that a proxy passed on comes from somewhere else than its peer address says.
    let proxied = ["forwarded", names::X_FORWARDED_FOR, "via"].iter().any(|name| headers.contains_key(*name));
    let allowed = |from: SocketAddr| access.allow.iter().any(|net| net.contains(&from.ip().to_canonical()));
    let near = !proxied && peer.address.is_some_and(allowed);
    if !near && peer.door != Door::Internal {
        require(&caller.ok_or_else(Reject::unauthenticated)?, "metrics:read")?;
    }
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(metric::CONTENT_TYPE))];
    Ok((headers, metric::expose(&health.registry)).into_response())
}

/// A JSON answer of a value that always serializes.
fn axum_json(value: &impl Serialize) -> impl IntoResponse {
    let body = serde_json::to_vec(value).expect("plain structs always serialize");
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body)
}
