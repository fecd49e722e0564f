//! What the calls share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;
use sluice_http::{Component, HealthSource, Reject, Status, Stop};
use sluice_wire::code::Code;
use tokio::sync::Semaphore;

use crate::config::Settings;
use crate::engine::{AppendError, Condition, Engine, ReadError, Reader, Receipt};
use crate::error::{RunError, read_problem};
use crate::hub::Hub;
use crate::log::{Clock, Draft, SystemClock};
use crate::metrics::Metrics;
use crate::mint::Mint;
use crate::stream::SUBSCRIBERS_MAX;

/// LIMIT: reads of the log at a time; more wait.
const READS_MAX: usize = 8;
/// How long a read waits for its turn.
const READ_TURN_MAX: Duration = Duration::from_secs(10);
/// How often the gauges are set.
const OBSERVE_PERIOD: Duration = Duration::from_secs(1);

/// The state of the worker.
pub(crate) struct Context {
    engine: Engine,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: Settings,
    pub(crate) stop: Stop,
    pub(crate) subscriptions: Arc<Semaphore>,
    pub(crate) mint: Mint,
    reads: Semaphore,
}

impl Context {
    pub(crate) fn new(
        engine: Engine,
        settings: Settings,
        metrics: Arc<Metrics>,
        stop: Stop,
    ) -> Result<Arc<Self>, RunError> {
        let hub = Hub::start(engine.reader())?;
        Ok(Arc::new(Self {
            engine,
            hub,
            metrics,
            settings,
            stop,
            subscriptions: Arc::new(Semaphore::new(SUBSCRIBERS_MAX)),
            mint: Mint::default(),
            reads: Semaphore::new(READS_MAX),
        }))
    }

    pub(crate) fn reader(&self) -> Reader {
        self.engine.reader()
    }

    /// Stores events and waits for the answer.
    pub(crate) async fn append(&self, drafts: Vec<Draft>, atomic: bool) -> Result<Receipt, AppendError> {
        self.engine.append(drafts, atomic).await
    }

    /// Where events are stored, in a word.
    pub(crate) fn store(&self) -> &'static str {
        self.engine.name()
    }

    /// Reads the log on a thread that may block. Reads take turns, so that scans cannot take every thread.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Reject> {
        let turn = tokio::time::timeout(READ_TURN_MAX, self.reads.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Reject::new(Code::Overloaded, "too many reads of the event log are under way"));
        };
        let reader = self.reader();
        match tokio::task::spawn_blocking(move || work(&reader)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(read_problem(&error).into()),
            Err(_) => Err(Reject::new(Code::Internal, "reading the event log broke off")),
        }
    }

    /// Seconds since the oldest stored event was stored; 0 without one.
    pub(crate) fn oldest_age_s(first_ms: Option<u64>) -> f64 {
        first_ms.map_or(0.0, |ms| SystemClock.now_ms().saturating_sub(ms) as f64 / 1e3)
    }

    /// Sets the gauges, for ever.
    pub(crate) async fn observe(self: Arc<Self>) {
        let mut tick = tokio::time::interval(OBSERVE_PERIOD);
        loop {
            tick.tick().await;
            let stats = self.reader().stats();
            self.metrics.observe(&stats, Self::oldest_age_s(stats.first_id.map(|id| id.ms)));
        }
    }

    /// Ends the fan-out.
    pub(crate) fn close(&self) {
        self.hub.close();
    }
}

impl HealthSource for Context {
    fn ready(&self) -> bool {
        self.engine.condition() == Condition::Well && self.hub.is_well()
    }

    fn components(&self) -> BTreeMap<String, Component> {
        let store = if self.engine.condition() == Condition::Failed {
            Component::new(Status::Unhealthy, "the event log has failed")
        } else if self.metrics.disk_is_full() {
            Component::new(Status::Degraded, "the disk of the event log is full")
        } else {
            Component::healthy()
        };
        let fanout = if self.hub.is_well() {
            Component::healthy()
        } else {
            Component::new(Status::Unhealthy, "stored events could not be read")
        };
        BTreeMap::from([("store".to_owned(), store), ("fanout".to_owned(), fanout)])
    }
}

/// A JSON answer.
pub(crate) fn json_response(value: &impl Serialize) -> Result<Response, Reject> {
    let body =
        serde_json::to_vec(value).map_err(|_| Reject::new(Code::Internal, "the answer has no JSON form"))?;
    Ok(raw_json(body))
}

/// An answer whose JSON is already written.
pub(crate) fn raw_json(body: Vec<u8>) -> Response {
    typed("application/json", body)
}

/// An answer of newline-delimited JSON.
pub(crate) fn ndjson(body: Vec<u8>) -> Response {
    typed(NDJSON, body)
}

/// The content type of newline-delimited JSON.
pub(crate) const NDJSON: &str = "application/x-ndjson";

fn typed(content_type: &'static str, body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}

/// Whether the request asks for a media type by name.
pub(crate) fn accepts(headers: &http::HeaderMap, media_type: &str) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|one| one.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type))
}
