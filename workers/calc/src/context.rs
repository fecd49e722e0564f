//! What the handlers share.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge};
use sluice_calc::Cpu;
use sluice_calc::dispatch::BUILD;
use sluice_http::{Component, HealthSource, Start, Status, Stop, TrustCell};
use sluice_telemetry::metric::{self, LATENCY_BUCKETS_S, Name};
use tokio::sync::Semaphore;

use crate::answers::Answers;
use crate::bounds::{BODY_UNITS_MAX, JOBS_WATCHERS_MAX, STREAMS_MAX};
use crate::config::Settings;
use crate::error::CalcError;
use crate::feed::Pulse;
use crate::inbox::Inbox;
use crate::jobs::Jobs;
use crate::negotiate::Format;
use crate::pool::Pool;
use crate::series::Store;
use crate::series::live::Live;
use crate::universe::Kept;

/// State of the calculation worker.
pub struct Context {
    pub(crate) settings: Settings,
    pub(crate) pool: Arc<Pool>,
    pub(crate) jobs: Arc<Jobs>,
    /// Clients that may still watch jobs.
    pub(crate) watchers: Arc<Semaphore>,
    /// The end of the worker, for answers that go on.
    pub(crate) stop: Stop,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) answers: Arc<Answers>,
    /// The stored series.
    pub(crate) series: Arc<Store>,
    /// How their feed does.
    pub(crate) feed: Pulse,
    /// Indicators over them that were asked for.
    pub(crate) live: Live,
    /// Streams of indicators that may still be opened, and those that are.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) streams_open: IntGauge,
    /// Symbols worth looking at.
    pub(crate) universe: Kept,
    /// Requests for discovery that came as events.
    pub(crate) asked: IntCounterVec,
    pub(crate) requests: IntCounterVec,
    pub(crate) seconds: HistogramVec,
    pub(crate) rows: IntCounter,
    pub(crate) rejected: IntCounterVec,
    transport_bytes: IntCounterVec,
    /// Room for bodies: the queue alone would bound their number, not their size.
    pub(crate) room: Arc<Semaphore>,
    trust: TrustCell,
}

impl Context {
    /// The state at start.
    pub(crate) fn new(
        start: &Start,
        settings: Settings,
        series: Arc<Store>,
        universe: Kept,
    ) -> Result<Self, CalcError> {
        let registry = &start.registry;
        let cpu = Cpu::proven()?;
        let waiting = metric::gauge(registry, Name::CalcQueue);
        let cancelled = metric::counter(registry, Name::CalcCancelled);
        let coalesced = metric::counter(registry, Name::CalcCoalesced);
        let seconds = metric::histograms(registry, Name::CalcSeconds, LATENCY_BUCKETS_S);
        let answers = Arc::new(Answers::default());
        let pool = Pool::start(settings.threads, waiting, cancelled.clone(), cpu, &answers);
        let pool = Arc::new(pool.map_err(CalcError::Thread)?);
        let gauge = metric::gauges(registry, Name::CalcJobs);
        let jobs = Jobs::open(start.role_dir().join("jobs"), &pool, gauge, cpu)?;
        let inbox = Inbox::new(
            settings.rows_max,
            Arc::clone(&series),
            coalesced,
            cancelled,
            seconds.with_label_values(&["indicators"]),
        );
        Ok(Self {
            settings,
            pool,
            jobs: Arc::new(jobs),
            watchers: Arc::new(Semaphore::new(JOBS_WATCHERS_MAX)),
            stop: start.stop.clone(),
            inbox: Arc::new(inbox),
            answers,
            series,
            feed: Pulse::new(registry),
            live: Live::default(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            streams_open: metric::gauge(registry, Name::CalcStreams),
            universe,
            seconds,
            asked: metric::counters(registry, Name::CalcAsked),
            requests: metric::counters(registry, Name::CalcRequests),
            rows: metric::counter(registry, Name::CalcRows),
            rejected: metric::counters(registry, Name::CalcRejected),
            transport_bytes: metric::counters(registry, Name::CalcTransportBytes),
            room: Arc::new(Semaphore::new(BODY_UNITS_MAX)),
            trust: start.trust.clone(),
        })
    }
}

impl Context {
    /// Counts the bytes of a body that came in or goes out.
    pub(crate) fn transported(&self, format: Format, direction: &str, bytes: usize) {
        self.transport_bytes.with_label_values(&[format.word(), direction]).inc_by(bytes as u64);
    }
}

impl HealthSource for Context {
    fn ready(&self) -> bool {
        self.trust.load().has_keys()
    }

    fn components(&self) -> BTreeMap<String, Component> {
        let keys = if self.trust.load().has_keys() {
            Component::healthy()
        } else {
            Component::new(Status::Degraded, "no verification keys yet")
        };
        let kernels = Component::new(Status::Healthy, BUILD.name());
        let series = match (self.series.failure(), self.series.damaged()) {
            (Some(text), _) => Component::new(Status::Degraded, format!("not writable: {text}")),
            (None, 0) => Component::healthy(),
            (None, damaged) => {
                Component::new(Status::Degraded, format!("{damaged} files cannot be read and lie aside"))
            }
        };
        BTreeMap::from([
            ("series".to_owned(), series),
            ("feed".to_owned(), self.feed.component()),
            ("pool".to_owned(), Component::healthy()),
            ("keys".to_owned(), keys),
            ("kernels".to_owned(), kernels),
        ])
    }
}
