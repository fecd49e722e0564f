//! The control port: breakers, dashboard, alerts, administration.
//!
//! Who may: reading takes the scope `control:read`, or an address in `[control] read_allow` whose request
//! went through no proxy; a change takes a token with `control:write`, is POST or PUT, and is written to the
//! edge's audit chain before it is made. `Host` must be loopback or in `[control] hosts`, so that a web page
//! elsewhere cannot reach the port through a name of its own. The page's files are public.

mod access;
mod admin;
mod alerts;
mod breakers;
mod config;
mod console;
mod dashboard;
mod kill;
mod relay;
mod snapshot;
mod tap;
mod upstreams;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post, put};
use bytes::Bytes;
use http::header::HOST;
use sluice_http::{Asset, Component, HealthSource, Peer, Reject, Start};
use sluice_policy::route::host_name;
use sluice_schema::MetricsAccess;
use sluice_wire::code::Code;
use tokio::sync::{Semaphore, watch};

use crate::books::Chain;
use crate::headers::is_proxied;
use crate::pages::components;
use crate::state::Shared;

pub(crate) use snapshot::run as run_snapshots;

/// Finds a file of the dashboard by its path below `/dashboard/`.
pub(crate) type Assets = fn(&str) -> Option<Asset>;

/// LIMIT: dashboards that follow the figures.
const VIEWERS_MAX: usize = 256;
/// LIMIT: calls relayed to workers at once, streams included.
const RELAYS_MAX: usize = 256;

/// What the control port works on.
pub(crate) struct Control {
    /// The edge.
    pub(crate) shared: Arc<Shared>,
    audit: Arc<Chain>,
    assets: Assets,
    frames: watch::Sender<Bytes>,
    viewers: Arc<Semaphore>,
    relays: Arc<Semaphore>,
    alerts: alerts::Alerts,
}

impl Control {
    /// A control port of an edge.
    pub(crate) fn new(shared: Arc<Shared>, audit: Arc<Chain>, assets: Assets) -> Arc<Self> {
        Arc::new(Self {
            shared,
            audit,
            assets,
            frames: watch::Sender::new(Bytes::new()),
            viewers: Arc::new(Semaphore::new(VIEWERS_MAX)),
            relays: Arc::new(Semaphore::new(RELAYS_MAX)),
            alerts: alerts::Alerts::default(),
        })
    }

    /// Its routes, complete.
    pub(crate) fn router(self: &Arc<Self>, start: &Start) -> Router {
        let routes = Router::new()
            .route("/", get(|| async { Redirect::to("/dashboard") }))
            .route("/circuit-breakers", get(breakers::list))
            .route("/circuit-breakers/reset-all", post(breakers::reset_all))
            .route("/circuit-breakers/{name}", get(breakers::show))
            .route("/circuit-breakers/{name}/metrics", get(breakers::metrics))
            .route("/circuit-breakers/{name}/state", get(breakers::state))
            .route("/circuit-breakers/{name}/reset", post(breakers::reset))
            .route("/circuit-breakers/{name}/force", post(breakers::force))
            .route("/circuit-breakers/{name}/config", put(breakers::configure))
            .route("/dashboard", get(dashboard::show))
            .route("/dashboard/stream", get(dashboard::stream))
            .route("/dashboard/{*path}", get(console::file))
            .route("/alerts", get(alerts::list))
            .route("/admin", get(admin::index))
            .route("/admin/config", get(config::show))
            .route("/admin/reload", post(config::reload))
            .route("/admin/rollback", post(config::rollback))
            .route("/admin/kill-switch", get(kill::list).post(kill::switch))
            .route("/admin/tap", get(tap::follow))
            .route("/admin/upstreams", get(upstreams::list))
            .route("/admin/upstreams/{service}/{instance}/{hold}", post(upstreams::hold))
            .route("/admin/log-level", put(admin::log_level))
            .route("/events", get(relay::events))
            .route("/events/{*rest}", get(relay::events))
            .route("/series/{*rest}", get(relay::series))
            .route("/calculations/{*rest}", post(relay::calculations))
            .with_state(Arc::clone(self));
        let source = Arc::new(Source(Arc::clone(&self.shared)));
        sluice_http::wrap(start, routes, source).layer(from_fn_with_state(Arc::clone(self), gate))
    }
}

/// Before everything else: the host asked for, and whether the peer's address may count.
async fn gate(State(control): State<Arc<Control>>, mut request: Request, next: Next) -> Response {
    let mut asked =
        request.headers().get_all(HOST).iter().filter_map(|host| host.to_str().ok()).map(host_name);
    let alone = asked.next().filter(|_| request.headers().get_all(HOST).iter().count() == 1);
    let generation = control.shared.generation();
    let hosts = &generation.config.control.hosts;
    // An absolute target names a host too.
    let target = request.uri().host().is_none_or(|host| is_served(host, hosts));
    if !target || !alone.is_some_and(|host| is_served(host, hosts)) {
        return Reject::new(Code::Misdirected, "this host is not served here").into_response();
    }
    if is_proxied(request.headers())
        && let Some(peer) = request.extensions_mut().get_mut::<Peer>()
    {
        // Behind a proxy the peer's address is the proxy's and opens nothing.
        peer.address = None;
    }
    next.run(request).await
}

fn is_served(host: &str, hosts: &[String]) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    address.is_ok_and(|ip| ip.is_loopback())
        || host.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
}

struct Source(Arc<Shared>);

impl HealthSource for Source {
    fn ready(&self) -> bool {
        self.0.has_keys()
    }

    fn metrics(&self) -> Option<MetricsAccess> {
        // They are about to be read.
        self.0.refresh_gauges();
        Some(self.0.generation.load().config.metrics.clone())
    }

    fn components(&self) -> BTreeMap<String, Component> {
        self.0.refresh_gauges();
        components(&self.0)
            .into_iter()
            .map(|(name, (status, detail))| {
                // A worker that is down leaves the edge serving the rest.
                let status = status.min(sluice_http::Status::Degraded);
                (name.to_owned(), Component { status, detail })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::is_served;

    #[test]
    fn only_loopback_and_listed_hosts_are_served() {
        let hosts = ["control.example".to_owned()];
        for good in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "[::1]", "control.example"] {
            assert!(is_served(good, &hosts), "{good}");
        }
        for bad in ["", "evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]"] {
            assert!(!is_served(bad, &hosts), "{bad}");
        }
    }
}
