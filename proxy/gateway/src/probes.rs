//! Active health checks: one task for all instances of all services.
//!
//! Each instance is asked `GET health.path` at its interval, moved by jitter so that many are not asked in
//! step; thresholds are sluice-policy's. A probe is made as a request would be: same scheme, TLS, client
//! certificate and addresses, over a connection of its own. Of several addresses one that answers is
//! enough; the addresses of registered services are judged before each connection.
//!
//! Of the answer the head is read and nothing else; a redirect is not followed and no good answer. An instance in
//! maintenance is not asked.
//!
//! LIMIT: [`AT_ONCE`] probes at once, [`INTERIM_MAX`] interim answers, [`DETAIL_MAX`] characters kept of
//! what went wrong.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri};
use pingora::connectors::ConnectorOptions;
use pingora::http::RequestHeader;
use pingora::{ErrorType, OrErr as _};
use sluice_http::TrustCell;
use sluice_policy::balance::Hold;
use sluice_policy::health::{Change, Health, first_probe, is_good, next_probe};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::endpoint::{Endpoint, Probe};
use crate::generation::{Generation, ServiceRoute};
use crate::state::Shared;
use crate::{clock, ids, shortage};

/// How finely probes are timed.
const TICK: Duration = Duration::from_millis(50);
/// LIMIT: probes under way.
const AT_ONCE: usize = 256;
/// LIMIT: interim answers before the real one.
const INTERIM_MAX: usize = 4;
/// LIMIT: characters kept of what went wrong.
const DETAIL_MAX: usize = 200;

type Connector = pingora::connectors::http::Connector<()>;

/// A service's name and its instance's number.
type Key = (String, u32);

/// One instance and when to ask it next.
struct Plan {
    route: Arc<ServiceRoute>,
    endpoint: Arc<Endpoint>,
    health: Health,
    due: Instant,
    under_way: bool,
}

/// Probes for ever.
pub(crate) async fn run(shared: Arc<Shared>) -> Infallible {
    let mut plans: HashMap<Key, Plan> = HashMap::new();
    let mut planned: Option<Arc<Generation>> = None;
    let mut probing: JoinSet<(Key, Option<Probe>)> = JoinSet::new();
    let connector = Arc::new(connector());
    loop {
        let soon = tokio::time::sleep(TICK);
        tokio::pin!(soon);
        loop {
            tokio::select! {
                () = &mut soon => break,
                Some(done) = probing.join_next() => {
                    if let Ok((key, probe)) = done {
                        judge(&mut plans, &key, probe);
                    }
                }
            }
        }
        let generation = shared.generation();
        if !planned.as_ref().is_some_and(|known| Arc::ptr_eq(known, &generation)) {
            plans = plan(plans, &generation);
            planned = Some(generation);
        }
        start_due(&connector, &shared.trust, &mut plans, &mut probing);
    }
}

/// The plans of a generation; instances already known keep theirs.
fn plan(mut known: HashMap<Key, Plan>, generation: &Generation) -> HashMap<Key, Plan> {
    let now = Instant::now();
    let mut plans = HashMap::new();
    for route in &generation.services {
        for endpoint in route.upstream.roster().endpoints() {
            let key = (route.service.name.clone(), endpoint.instance.id);
            let wait = || first_probe(&route.service.health, ids::random());
            let (health, due, under_way) = match known.remove(&key) {
                Some(plan) => {
                    (plan.health, plan.due.min(now + route.service.health.interval), plan.under_way)
                }
                None => (Health::default(), now + wait(), false),
            };
            let (route, endpoint) = (Arc::clone(route), Arc::clone(endpoint));
            plans.insert(key, Plan { route, endpoint, health, due, under_way });
        }
    }
    plans
}

fn start_due(
    connector: &Arc<Connector>,
    trust: &TrustCell,
    plans: &mut HashMap<Key, Plan>,
    probing: &mut JoinSet<(Key, Option<Probe>)>,
) {
    let now = Instant::now();
    let due =
        |plan: &Plan| !plan.under_way && plan.due <= now && plan.endpoint.instance.held() != Hold::Maint;
    for (key, plan) in plans.iter_mut().filter(|(_, plan)| due(plan)) {
        if probing.len() >= AT_ONCE {
            return;
        }
        plan.under_way = true;
        plan.due = now + next_probe(&plan.route.service.health, ids::random());
        let (key, connector) = (key.clone(), Arc::clone(connector));
        let (route, endpoint) = (Arc::clone(&plan.route), Arc::clone(&plan.endpoint));
        let trust = trust.clone();
        probing.spawn(async move { (key, probe(&route, &endpoint, &connector, &trust).await) });
    }
}

/// Takes what a probe found; `None`: it could not be made for a reason of our own.
fn judge(plans: &mut HashMap<Key, Plan>, key: &Key, probe: Option<Probe>) {
    let Some(plan) = plans.get_mut(key) else { return };
    plan.under_way = false;
    let Some(probe) = probe else { return };
    if plan.health.is_healthy() != plan.endpoint.instance.is_healthy() {
        // A predecessor knew better.
        plan.health = Health::starting(plan.endpoint.instance.is_healthy());
    }
    let (settings, now) = (&plan.route.service.health, clock::now());
    let change = plan.health.probed(probe.ok, settings);
    plan.endpoint.instance.mark_healthy(plan.health.is_healthy(), now);
    plan.route.upstream.probed(&plan.endpoint, probe.ok, probe.began, settings.healthy);
    let detail = probe.detail.clone();
    plan.endpoint.keep_probe(probe);
    let Some(change) = change else { return };
    plan.route.upstream.publish_health();
    let (service, instance) = (key.0.as_str(), plan.endpoint.label.as_str());
    match change {
        Change::BecameHealthy => {
            tracing::info!(component = "probe", service, instance, "instance is healthy again");
        }
        Change::BecameUnhealthy => {
            tracing::warn!(component = "probe", service, instance, detail, "instance is unhealthy");
        }
    }
}

async fn probe(
    route: &ServiceRoute,
    endpoint: &Endpoint,
    connector: &Connector,
    trust: &TrustCell,
) -> Option<Probe> {
    let settings = &route.service.health;
    let (begun, began) = (std::time::Instant::now(), clock::now());
    endpoint.looked_up(settings.timeout).await;
    let asked = tokio::time::timeout(settings.timeout, ask(route, endpoint, connector, trust));
    let outcome = asked.await.unwrap_or_else(|_| Err(Unwell::Instance("timed out".to_owned())));
    let took = begun.elapsed();
    let at = clock::now();
    match outcome {
        Ok(status) => {
            Some(Probe { began, at, ok: is_good(status), took: Some(took), detail: status.to_string() })
        }
        Err(Unwell::Instance(detail)) => Some(Probe { began, at, ok: false, took: None, detail }),
        Err(Unwell::Edge) => None,
    }
}

/// Why a probe came to nothing.
enum Unwell {
    /// The instance, in a few words.
    Instance(String),
    /// This process has no descriptors or memory left: that says nothing about the instance.
    Edge,
}

impl Unwell {
    fn of(error: &pingora::Error) -> Self {
        if shortage::is_own(error) { Self::Edge } else { Self::Instance(reason(error)) }
    }
}

/// Asks once, at the first address that takes the connection; the status of the answer.
async fn ask(
    route: &ServiceRoute,
    endpoint: &Endpoint,
    connector: &Connector,
    trust: &TrustCell,
) -> Result<u16, Unwell> {
    let mut tried = Vec::new();
    let (mut session, tls) = loop {
        let mut peer =
            endpoint.reach(route, &mut tried).map_err(|reason| Unwell::Instance(reason.to_string()))?.peer();
        // One stream a connection: nothing of a probe is kept for the next one.
        peer.options.max_h2_streams = 1;
        peer.options.connection_timeout = Some(route.service.timeouts.connect);
        match connector.get_http_session(&peer).await {
            Ok((session, _)) => {
                let shown = session.digest().and_then(|digest| digest.ssl_digest.as_deref());
                if !endpoint.believes(&peer, shown, trust) {
                    return Err(Unwell::Instance("its certificate was revoked".to_owned()));
                }
                break (session, peer.is_tls());
            }
            Err(error) => {
                if shortage::is_own(&error) || !endpoint.connect_failed(&tried) {
                    return Err(Unwell::of(&error));
                }
            }
        }
    };
    endpoint.connect_succeeded(&tried);
    let http2_scheme = session.as_http2().map(|_| if tls { "https" } else { "http" });
    let request = question(&route.service.health.path, &endpoint.host, http2_scheme);
    let broke = |error: Box<pingora::Error>| Unwell::of(&error);
    session.write_request_header(request.map_err(broke)?).await.map_err(broke)?;
    session.finish_request_body().await.map_err(broke)?;
    for _ in 0..=INTERIM_MAX {
        session.read_response_header().await.map_err(broke)?;
        let status = session.response_header().map(|head| head.status);
        match status {
            Some(status) if status.is_informational() => {}
            Some(status) => return Ok(status.as_u16()),
            None => break,
        }
    }
    Err(Unwell::Instance("no HTTP answer".to_owned()))
}

/// The request of a probe. Over HTTP/2 scheme and host are part of its target, and there is no `Host`: a
/// strict server refuses a request without them.
fn question(
    path: &str,
    host: &HeaderValue,
    http2_scheme: Option<&str>,
) -> pingora::Result<Box<RequestHeader>> {
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(4))?;
    request.insert_header("user-agent", "sluice-probe")?;
    request.insert_header("accept", "*/*")?;
    if let Some(scheme) = http2_scheme {
        let target = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(path).build();
        request.set_uri(target.or_err(ErrorType::InvalidHTTPHeader, "target of a probe")?);
    } else {
        request.insert_header("host", host.clone())?;
        request.insert_header("connection", "close")?;
    }
    Ok(Box::new(request))
}

/// What went wrong, in a few words.
fn reason(error: &pingora::Error) -> String {
    let text = match error.etype() {
        ErrorType::ConnectRefused => "connect refused".to_owned(),
        ErrorType::ConnectTimedout => "connect timed out".to_owned(),
        ErrorType::ConnectNoRoute => "no route".to_owned(),
        ErrorType::InvalidHTTPHeader => "no HTTP answer".to_owned(),
        ErrorType::ConnectionClosed => "connection broke".to_owned(),
        kind => {
            let context = error.context.as_ref().map(|context| context.as_str().to_owned());
            let root = error.root_cause().to_string();
            format!("{}: {}", kind.as_str(), context.unwrap_or(root))
        }
    };
    text.chars().take(DETAIL_MAX).collect()
}

/// A connector that keeps no connections.
fn connector() -> Connector {
    let mut options = ConnectorOptions::new(1);
    // Roots come with each service; none are those of the machine.
    options.ca_file = Some("/dev/null".to_owned());
    Connector::new(Some(options))
}
