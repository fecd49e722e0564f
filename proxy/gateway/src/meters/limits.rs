//! Metrics of rates that edges share.

use prometheus::{Histogram, IntCounter, IntGauge, Registry};
use sluice_telemetry::metric::{self, LATENCY_BUCKETS_S, Name};

/// How rates are shared with other edges.
#[derive(Clone)]
pub(crate) struct LimitMeters {
    /// 1 while they are.
    pub(crate) shared: IntGauge,
    /// Calls to the store that were answered.
    pub(crate) answered: IntCounter,
    /// Calls that failed.
    pub(crate) failed: IntCounter,
    /// Requests judged alone while the store was away.
    pub(crate) away: IntCounter,
    /// Requests judged alone because its answer was late.
    pub(crate) late: IntCounter,
    /// Requests judged alone because as many waited as may.
    pub(crate) crowded: IntCounter,
    /// Requests judged alone for want of room.
    pub(crate) full: IntCounter,
    /// How long requests waited for the store.
    pub(crate) wait_seconds: Histogram,
}

impl LimitMeters {
    pub(super) fn new(registry: &Registry) -> Self {
        let calls = metric::counters(registry, Name::EdgeLimiterCalls);
        let alone = metric::counters(registry, Name::EdgeLimiterAlone);
        Self {
            shared: metric::gauge(registry, Name::EdgeLimiterShared),
            answered: calls.with_label_values(&["answered"]),
            failed: calls.with_label_values(&["failed"]),
            away: alone.with_label_values(&["away"]),
            late: alone.with_label_values(&["late"]),
            crowded: alone.with_label_values(&["crowded"]),
            full: alone.with_label_values(&["full"]),
            wait_seconds: metric::histogram(registry, Name::EdgeLimiterWait, LATENCY_BUCKETS_S),
        }
    }
}
