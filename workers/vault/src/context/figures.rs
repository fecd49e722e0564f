//! The vault's metrics.

use prometheus::{Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, Registry};
use sluice_telemetry::metric::{self, LATENCY_BUCKETS_S, Name};

/// The vault's metrics.
#[derive(Clone)]
pub(crate) struct Figures {
    pub(crate) tokens: IntCounter,
    pub(crate) validations: IntCounterVec,
    pub(crate) logins: IntCounterVec,
    pub(crate) certificates: IntCounter,
    pub(crate) revocations: IntCounterVec,
    pub(crate) secret_ops: IntCounterVec,
    pub(crate) audit_seconds: Histogram,
    pub(crate) audit_fill: Gauge,
    pub(crate) sealed: IntGauge,
    pub(crate) followers: IntGauge,
    pub(crate) outbox: IntGauge,
    pub(crate) certificate_left: GaugeVec,
    pub(crate) falco_alerts: IntCounterVec,
}

impl Figures {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            tokens: metric::counter(registry, Name::VaultTokens),
            validations: metric::counters(registry, Name::VaultValidations),
            logins: metric::counters(registry, Name::VaultLogins),
            certificates: metric::counter(registry, Name::VaultCertificates),
            revocations: metric::counters(registry, Name::VaultRevocations),
            secret_ops: metric::counters(registry, Name::VaultSecretOps),
            audit_seconds: metric::histogram(registry, Name::VaultAuditSeconds, LATENCY_BUCKETS_S),
            audit_fill: metric::gauge_f64(registry, Name::VaultAuditFill),
            sealed: metric::gauge(registry, Name::VaultSealed),
            followers: metric::gauge(registry, Name::VaultFeedFollowers),
            outbox: metric::gauge(registry, Name::VaultOutbox),
            certificate_left: metric::gauges_f64(registry, Name::VaultCertificateLeft),
            falco_alerts: metric::counters(registry, Name::FalcoAlerts),
        }
    }
}
