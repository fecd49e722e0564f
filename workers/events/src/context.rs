//! What the calls share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;
use sluice_http::{Component, HealthSource, Reject, Status, Stop};
use sluice_identity::caller::Caller;
use sluice_wire::code::Code;
use sluice_wire::id::Mint;
use sluice_wire::problem::{Outcome, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::Settings;
use crate::engine::{AppendError, Condition, Engine, ReadError, Reader, Receipt};
use crate::error::{RunError, read_problem};
use crate::group::Groups;
use crate::hub::Hub;
use crate::log::{Clock, Draft, Log, SystemClock};
use crate::metrics::Metrics;
use crate::rate::Rates;
use crate::replay::Sessions;
use crate::schemas::{Home, Schemas};
use crate::streams::Streams;

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
    pub(crate) groups: Groups,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: Settings,
    pub(crate) stop: Stop,
    pub(crate) subscriptions: Arc<Semaphore>,
    pub(crate) mint: Mint,
    pub(crate) sessions: Sessions,
    pub(crate) streams: Streams,
    pub(crate) schemas: Schemas,
    replaced: watch::Receiver<u64>,
    rates: Option<Mutex<Rates>>,
    reads: Semaphore,
}

impl Context {
    pub(crate) fn new(
        engine: Engine,
        groups: Groups,
        settings: Settings,
        metrics: Arc<Metrics>,
        stop: Stop,
    ) -> Result<Arc<Self>, RunError> {
        let hub = Hub::start(engine.reader(), Arc::clone(&metrics))?;
        let schemas = Schemas::open(
            engine.shared().map_or_else(|| Home::Folder(settings.schemas_dir.clone()), Home::Shared),
            metrics.violations.clone(),
        );
        let schemas = schemas.map_err(|error| RunError::Schemas(Box::new(error)))?;
        let rates = settings.publish_rate.map(|rate| Mutex::new(Rates::new(rate)));
        let streams = Streams::new(
            &settings.stream,
            settings.streams_dir.clone(),
            settings.log_options,
            &settings.at_rest,
            engine.shared(),
        );
        let subscriptions = Arc::new(Semaphore::new(settings.subscriptions));
        let replaced = engine.replaced();
        Ok(Arc::new(Self {
            engine,
            hub,
            groups,
            metrics,
            settings,
            stop,
            subscriptions,
            mint: Mint::default(),
            sessions: Sessions::default(),
            streams,
            schemas,
            replaced,
            rates,
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

    /// Counts events that a caller is about to publish. Roles are not counted: nothing delays a kill switch.
    pub(crate) fn admit(&self, caller: &Caller, events: usize) -> Result<(), Box<Problem>> {
        let Some(rates) = self.rates.as_ref().filter(|_| caller.as_role().is_none()) else { return Ok(()) };
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let mut rates = rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.take(&caller.subject, events, Instant::now()).map_err(|wait| {
            let problem =
                Problem::new(Code::RateLimited).detail("this caller publishes more events than it may");
            Box::new(
                problem.outcome(Outcome::NotSent).index(0).retry_after_s(wait.as_secs_f64().ceil() as u64),
            )
        })
    }

    /// The log of this process, where that is the store.
    #[allow(clippy::unnecessary_wraps, reason = "not every store is a log of this process")]
    pub(crate) fn log(&self) -> Option<Log> {
        match &self.engine {
            Engine::Embedded(log) => Some(log.clone()),
            Engine::Redis(..) => None,
        }
    }

    /// Changes when what was stored turned out to be replaced; counts as changed when it ever did. Its value is the seq
    /// up to which events may be gone.
    pub(crate) fn replaced(&self) -> watch::Receiver<u64> {
        self.replaced.clone()
    }

    /// The data set that is worked on, where it can be replaced.
    pub(crate) fn epoch(&self) -> Option<String> {
        self.engine.epoch()
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
        let reader = self.reader();
        self.read_of(reader, work).await
    }

    /// Reads another stream, with the same turns; the main one where no name is given.
    pub(crate) async fn read_stream<T: Send + 'static>(
        &self,
        name: Option<&str>,
        work: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Reject> {
        let reader = self.engine_of(name).await?.reader();
        self.read_of(reader, work).await
    }

    /// Another stream; the main one where no name is given.
    pub(crate) async fn engine_of(&self, name: Option<&str>) -> Result<Engine, Reject> {
        let other = match name {
            Some(name) => self.streams.named(name).await?,
            None => None,
        };
        Ok(other.unwrap_or_else(|| self.engine.clone()))
    }

    /// A place among the open streams.
    pub(crate) fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Reject> {
        Arc::clone(&self.subscriptions).try_acquire_owned().map_err(|_| {
            let most = self.settings.subscriptions;
            Reject::new(Code::Overloaded, format!("there are {most} subscriptions already"))
        })
    }

    async fn read_of<T: Send + 'static>(
        &self,
        reader: Reader,
        work: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Reject> {
        let turn = tokio::time::timeout(READ_TURN_MAX, self.reads.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Reject::new(Code::Overloaded, "too many reads of the event log are under way"));
        };
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

    /// Takes up the state that was stored before this start, then sets the gauges, for ever.
    pub(crate) async fn observe(self: Arc<Self>) {
        self.metrics.kept_for(self.settings.log_options.retention.age_ms);
        let hub = Arc::clone(&self.hub);
        // A refusal has been logged; symbols are looked up one by one then.
        drop(self.read(move |reader| hub.latest().look_back(reader)).await);
        let mut tick = tokio::time::interval(OBSERVE_PERIOD);
        loop {
            tick.tick().await;
            let own = Arc::clone(&self);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || own.schemas.refresh()).await {
                tracing::debug!(component = "schemas", error = %error, "schemas in Redis were not looked at");
            }
            let stats = self.reader().stats();
            self.metrics.replays.set(self.sessions.expire(tokio::time::Instant::now()) as i64);
            let oldest_s = Self::oldest_age_s(stats.first_id.map(|id| id.ms));
            let left = self.settings.left_behind.as_ref().map_or(0, |left| left.events);
            self.metrics.observe(&stats, oldest_s, self.engine.spooled() + left);
            if let Ok(groups) = self.groups.list(None, usize::MAX).await {
                self.metrics.groups.observe(&groups);
            }
        }
    }

    /// Ends the fan-out.
    pub(crate) fn close(&self) {
        self.hub.close();
    }
}

impl HealthSource for Context {
    fn ready(&self) -> bool {
        matches!(self.engine.condition(), Condition::Well | Condition::Full | Condition::Spooling { .. })
            && self.hub.is_well()
    }

    fn components(&self) -> BTreeMap<String, Component> {
        let store = match self.engine.condition() {
            Condition::Failed => Component::new(Status::Unhealthy, "the event log has failed"),
            Condition::Away(why) => Component::new(Status::Unhealthy, why),
            Condition::Spooling { why, events } => {
                Component::new(Status::Degraded, format!("{events} events wait for Redis: {why}"))
            }
            Condition::Full => Component::new(Status::Degraded, "Redis may take no more memory"),
            Condition::Well if self.metrics.disk_is_full() => {
                Component::new(Status::Degraded, "the disk of the event log is full")
            }
            Condition::Well => Component::healthy(),
        };
        let fanout = if self.hub.is_well() {
            Component::healthy()
        } else {
            Component::new(Status::Unhealthy, "stored events could not be read")
        };
        let mut components = BTreeMap::from([("store".to_owned(), store), ("fanout".to_owned(), fanout)]);
        if let Some(left) = &self.settings.left_behind {
            components.insert("spool".to_owned(), Component::new(Status::Degraded, left.told()));
        }
        components
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

/// An answer of a media type.
pub(crate) fn typed(content_type: &'static str, body: Vec<u8>) -> Response {
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
