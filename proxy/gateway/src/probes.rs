//! Active health checks: one task for all instances of all services.
//!
//! Each instance is asked `GET health.path` at its interval, moved by jitter so that many are not asked in
//! step; thresholds are sluice-policy's. A name is resolved anew at each probe and keeps its last good
//! address; the addresses of registered services are judged each time. LIMIT: [`AT_ONCE`] probes at once,
//! [`STATUS_BYTES`] read of an answer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_policy::health::{Change, Health, first_probe, is_good, next_probe};
use sluice_schema::Source;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::generation::{Generation, ServiceRoute};
use crate::register::resolve;
use crate::state::Shared;
use crate::upstream::{Endpoint, Probe};
use crate::{clock, ids};

/// How finely probes are timed.
const TICK: Duration = Duration::from_millis(50);
/// LIMIT: probes under way.
const AT_ONCE: usize = 256;
/// LIMIT: bytes read for the status line.
const STATUS_BYTES: usize = 256;

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
    let mut probing: JoinSet<(Key, Probe)> = JoinSet::new();
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
        start_due(&shared, &mut plans, &mut probing);
    }
}

/// The plans of a generation; instances already known keep theirs.
fn plan(mut known: HashMap<Key, Plan>, generation: &Generation) -> HashMap<Key, Plan> {
    let now = Instant::now();
    let mut plans = HashMap::new();
    for route in &generation.services {
        for endpoint in route.upstream.roster().endpoints() {
            let key = (route.service.name.clone(), endpoint.instance.id);
            // A name without an address yet cannot wait.
            let wait = || match endpoint.address() {
                Some(_) => first_probe(&route.service.health, ids::random()),
                None => Duration::ZERO,
            };
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

fn start_due(shared: &Arc<Shared>, plans: &mut HashMap<Key, Plan>, probing: &mut JoinSet<(Key, Probe)>) {
    let now = Instant::now();
    for (key, plan) in plans.iter_mut().filter(|(_, plan)| !plan.under_way && plan.due <= now) {
        if probing.len() >= AT_ONCE {
            return;
        }
        plan.under_way = true;
        plan.due = now + next_probe(&plan.route.service.health, ids::random());
        let (key, shared) = (key.clone(), Arc::clone(shared));
        let (route, endpoint) = (Arc::clone(&plan.route), Arc::clone(&plan.endpoint));
        probing.spawn(async move { (key, probe(&shared, &route, &endpoint).await) });
    }
}

fn judge(plans: &mut HashMap<Key, Plan>, key: &Key, probe: Probe) {
    let Some(plan) = plans.get_mut(key) else { return };
    plan.under_way = false;
    let change = plan.health.probed(probe.ok, &plan.route.service.health);
    plan.endpoint.instance.mark_healthy(plan.health.is_healthy());
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

async fn probe(shared: &Shared, route: &ServiceRoute, endpoint: &Endpoint) -> Probe {
    let settings = &route.service.health;
    let begun = std::time::Instant::now();
    let asked = tokio::time::timeout(settings.timeout, async {
        let address = address(shared, route, endpoint).await?;
        ask(address, &settings.path, &endpoint.instance.url.authority()).await
    });
    let outcome = asked.await.unwrap_or_else(|_| Err("timed out".to_owned()));
    let took = begun.elapsed();
    let at = clock::now();
    match outcome {
        Ok(status) => Probe { at, ok: is_good(status), took: Some(took), detail: status.to_string() },
        Err(detail) => Probe { at, ok: false, took: None, detail },
    }
}

/// The address to ask; for names the one they resolve to now, which requests then use too.
async fn address(shared: &Shared, route: &ServiceRoute, endpoint: &Endpoint) -> Result<SocketAddr, String> {
    let url = &endpoint.instance.url;
    if let Some(ip) = url.ip() {
        return Ok(SocketAddr::new(ip, url.port));
    }
    let found = resolve(url).await.unwrap_or_default();
    let allowed: Vec<SocketAddr> = match route.service.source {
        Source::File { .. } => found,
        Source::Api => {
            let rules = shared.registrations.rules(&shared.generation().config);
            found.into_iter().filter(|address| rules.check(*address).is_ok()).collect()
        }
    };
    // The address in use stays while the name still has it; the last good one while it does not resolve.
    let present = endpoint.address();
    match present
        .filter(|present| allowed.is_empty() || allowed.contains(present))
        .or(allowed.first().copied())
    {
        Some(address) => {
            endpoint.resolve_to(address, &route.service.timeouts);
            Ok(address)
        }
        None => Err("name does not resolve to an allowed address".to_owned()),
    }
}

/// Asks once over a connection of its own; the status of the answer.
async fn ask(address: SocketAddr, path: &str, host: &str) -> Result<u16, String> {
    let mut socket = TcpStream::connect(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect refused".to_owned(),
        kind => format!("connect failed: {kind}"),
    })?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: sluice-probe\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    let broke = |error: std::io::Error| format!("connection broke: {}", error.kind());
    socket.write_all(request.as_bytes()).await.map_err(broke)?;
    let mut answer = [0; STATUS_BYTES];
    let mut filled = 0;
    while filled < answer.len() && !answer[..filled].contains(&b'\n') {
        match socket.read(&mut answer[filled..]).await.map_err(broke)? {
            0 => break,
            count => filled += count,
        }
    }
    status(&answer[..filled]).ok_or_else(|| "no HTTP answer".to_owned())
}

fn status(line: &[u8]) -> Option<u16> {
    let line = line.strip_prefix(b"HTTP/1.")?;
    let digits = line.get(2..5).filter(|_| line.get(1) == Some(&b' '))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_counts() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        for bad in [&b"HTTP/2 200 OK"[..], b"HTTP/1.1 2", b"SSH-2.0-x", b"", b"HTTP/1.1x200"] {
            assert_eq!(status(bad), None);
        }
    }
}
