//! How the workers are: asked over their internal doors, remembered for `/health` and the dashboard.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use http::{HeaderMap, Method};
use serde_json::Value;
use sluice_client::{Client, ClientError};
use sluice_http::Status;
use sluice_wire::role::Role;

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same while one is not well.
const INTERVAL_UNWELL: Duration = Duration::from_millis(100);
/// A worker that takes longer is away.
const TIMEOUT: Duration = Duration::from_secs(2);
/// LIMIT: characters kept of one line about a worker.
const DETAIL_MAX: usize = 200;

/// What a worker last said of itself.
#[derive(Clone, Debug)]
pub(crate) struct WorkerHealth {
    /// How it is.
    pub(crate) status: Status,
    /// One line, where there is something to say.
    pub(crate) detail: Option<String>,
    /// Its health page's components.
    pub(crate) components: Value,
    /// A page of figures of its own: the event stream's, the CA's certificates.
    pub(crate) figures: Value,
}

struct Worker {
    client: Client,
    health: ArcSwapOption<WorkerHealth>,
    pace: Mutex<Pace>,
}

/// How fast a number rises, from looks of the last [`Pace::SPAN`].
#[derive(Debug, Default)]
struct Pace(VecDeque<(Instant, u64)>);

impl Pace {
    /// Rates of the dashboard cover this much.
    const SPAN: Duration = Duration::from_secs(10);
    /// LIMIT: looks remembered.
    const LOOKS_MAX: usize = 128;

    /// Takes a look; by how much it rises a second, once that can be known.
    fn note(&mut self, now: Instant, number: u64) -> Option<f64> {
        if self.0.back().is_some_and(|(_, before)| *before > number) {
            // Counted anew.
            self.0.clear();
        }
        self.0.push_back((now, number));
        let old = |(at, _): &(Instant, u64)| now.saturating_duration_since(*at) > Self::SPAN;
        while self.0.len() > Self::LOOKS_MAX || self.0.len() > 2 && self.0.front().is_some_and(old) {
            self.0.pop_front();
        }
        let (from, first) = *self.0.front()?;
        let seconds = now.saturating_duration_since(from).as_secs_f64();
        (seconds > 0.0).then(|| (number - first) as f64 / seconds)
    }
}

/// Every other role this process can reach.
pub(crate) struct Workers {
    by_role: BTreeMap<Role, Worker>,
}

impl Workers {
    /// Workers behind these doors; `key` is this role's own.
    pub(crate) fn new(sockets: &BTreeMap<Role, PathBuf>, key: &str) -> Self {
        let worker = |socket: &PathBuf| Worker {
            client: Client::internal(socket.clone(), key),
            health: ArcSwapOption::empty(),
            pace: Mutex::default(),
        };
        let others = sockets.iter().filter(|(role, _)| !matches!(role, Role::Edge | Role::Supervisor));
        Self { by_role: others.map(|(role, socket)| (*role, worker(socket))).collect() }
    }

    /// What a worker last said; `None` before it was first asked, or where there is none.
    pub(crate) fn health(&self, role: Role) -> Option<Arc<WorkerHealth>> {
        self.by_role.get(&role)?.health.load_full()
    }

    /// Every worker with what it last said.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Role, Option<Arc<WorkerHealth>>)> {
        self.by_role.iter().map(|(role, worker)| (*role, worker.health.load_full()))
    }

    /// Whether every worker was asked at least once.
    pub(crate) fn are_known(&self) -> bool {
        self.all().all(|(_, health)| health.is_some())
    }

    /// A client of a worker, speaking for this role.
    pub(crate) fn client(&self, role: Role) -> Option<Client> {
        self.by_role.get(&role).map(|worker| worker.client.clone())
    }

    /// Asks every worker once.
    pub(crate) async fn ask(&self) {
        join_all(self.by_role.iter().map(|(role, worker)| worker.ask(*role))).await;
    }

    /// Asks for ever.
    pub(crate) async fn watch(&self) {
        loop {
            self.ask().await;
            let well =
                self.all().all(|(_, health)| health.is_some_and(|health| health.status == Status::Healthy));
            // At start the roles get well within milliseconds of each other; /health should say so.
            tokio::time::sleep(if well { INTERVAL } else { INTERVAL_UNWELL }).await;
        }
    }
}

impl Worker {
    async fn ask(&self, role: Role) {
        let asked = tokio::time::timeout(TIMEOUT, page(&self.client, "/health"));
        let mut health = match asked.await.unwrap_or(Err(ClientError::Timeout(TIMEOUT))) {
            Ok(page) => read(&page),
            Err(error) => WorkerHealth {
                status: Status::Unhealthy,
                detail: Some(error.to_string().chars().take(DETAIL_MAX).collect()),
                components: Value::Null,
                figures: Value::Null,
            },
        };
        if health.components != Value::Null
            && let Ok(Ok(mut figures)) = tokio::time::timeout(TIMEOUT, figures(&self.client, role)).await
        {
            if let Some(seq) = figures["last_seq"].as_u64() {
                let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner).note(Instant::now(), seq);
                figures["events_per_s"] = pace.into();
            }
            health.figures = figures;
        }
        self.health.store(Some(Arc::new(health)));
    }
}

/// What a worker has to show beside its health: the event stream's size and place, the CA's certificates.
async fn figures(client: &Client, role: Role) -> Result<Value, ClientError> {
    match role {
        Role::Events => page(client, "/events/stats").await,
        Role::Vault => page(client, "/internal/certificates").await,
        _ => Ok(Value::Null),
    }
}

/// A JSON page, whatever its status: an unhealthy worker answers 503 with the same shape.
async fn page(client: &Client, path: &str) -> Result<Value, ClientError> {
    let reply = client.call(Method::GET, path, HeaderMap::new(), Vec::new()).await?;
    serde_json::from_slice(&reply.body).map_err(ClientError::Shape)
}

fn read(page: &Value) -> WorkerHealth {
    let status = match page.get("status").and_then(Value::as_str) {
        Some("healthy") => Status::Healthy,
        Some("degraded") => Status::Degraded,
        _ => Status::Unhealthy,
    };
    let components = page.get("components").cloned().unwrap_or(Value::Null);
    let ailing = components.as_object().into_iter().flatten().find(|(_, component)| {
        component.get("status").and_then(Value::as_str).is_some_and(|status| status != "healthy")
    });
    let detail = ailing.map(|(name, component)| {
        let text = component.get("detail").and_then(Value::as_str).unwrap_or("not well");
        format!("{name}: {text}").chars().take(DETAIL_MAX).collect()
    });
    WorkerHealth { status, detail, components, figures: Value::Null }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pace_covers_the_last_seconds() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        assert_eq!(pace.note(at(0), 1_000), None);
        assert_eq!(pace.note(at(1), 1_100), Some(100.0));
        assert_eq!(pace.note(at(2), 1_100), Some(50.0));
        for second in 3..=30 {
            pace.note(at(second), 1_100);
        }
        assert_eq!(pace.note(at(31), 1_100), Some(0.0));
        assert_eq!(pace.note(at(32), 7), None, "another log");
        for look in 0..1_000 {
            pace.note(at(33), 8 + look);
        }
        assert!(pace.0.len() <= Pace::LOOKS_MAX);
    }

    #[test]
    fn the_first_ailing_part_is_the_detail() {
        let health = read(&json!({
            "status": "degraded",
            "components": {"log": {"status": "healthy"}, "store": {"status": "degraded", "detail": "disk nearly full"}},
        }));
        assert_eq!(health.status, Status::Degraded);
        assert_eq!(health.detail.as_deref(), Some("store: disk nearly full"));
        assert_eq!(read(&json!({"code": "sealed"})).status, Status::Unhealthy);
    }
}
