//! What the handlers share.

use std::collections::BTreeMap;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, Registry};
use sluice_http::{Component, HealthSource};
use sluice_telemetry::metric::{self, LATENCY_BUCKETS_S, Name};

use crate::bounds::QUEUE_MAX;
use crate::config::Settings;
use crate::error::CalcError;
use crate::pool::Pool;

/// State of the calculation worker.
pub struct Context {
    pub(crate) settings: Settings,
    pub(crate) pool: Pool,
    pub(crate) requests: IntCounterVec,
    pub(crate) seconds: HistogramVec,
    pub(crate) rows: IntCounter,
    pub(crate) rejected: IntCounterVec,
}

impl Context {
    /// The state at start.
    pub fn new(registry: &Registry, settings: Settings) -> Result<Self, CalcError> {
        let waiting = metric::gauge(registry, Name::CalcQueue);
        Ok(Self {
            settings,
            pool: Pool::start(settings.threads, QUEUE_MAX, waiting).map_err(CalcError::Thread)?,
            requests: metric::counters(registry, Name::CalcRequests),
            seconds: metric::histograms(registry, Name::CalcSeconds, LATENCY_BUCKETS_S),
            rows: metric::counter(registry, Name::CalcRows),
            rejected: metric::counters(registry, Name::CalcRejected),
        })
    }
}

impl HealthSource for Context {
    fn ready(&self) -> bool {
        true
    }

    fn components(&self) -> BTreeMap<String, Component> {
        BTreeMap::from([("pool".to_owned(), Component::healthy())])
    }
}
