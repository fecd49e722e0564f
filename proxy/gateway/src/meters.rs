//! The edge's metrics, prepared so that a request looks none of them up by label.

mod forget;
mod limits;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};
use sluice_policy::gate::Lane;
use sluice_policy::method::Method;
use sluice_telemetry::metric::{self, LATENCY_BUCKETS_S, Name};

use crate::clock;
use crate::traffic::Traffic;

pub(crate) use limits::LimitMeters;

/// LIMIT: pairs of method and status that are counted apart for one route; what an upstream makes up beyond them
/// counts by the class of its status alone.
const PREPARED_MAX: usize = 64;

/// Versions of HTTP that requests come in, and what they become.
const PROTOCOLS: [&str; 4] = ["http/1.1", "http/1.0", "h2", "ws"];
/// Versions of TLS that clients use.
const TLS_VERSIONS: [&str; 3] = ["none", "TLSv1.2", "TLSv1.3"];

/// Every metric of the edge.
pub(crate) struct Meters {
    requests: IntCounterVec,
    duration: HistogramVec,
    limited: IntCounterVec,
    auth_failures: IntCounterVec,
    retries: IntCounterVec,
    retry_budget: IntCounterVec,
    hedges: IntCounterVec,
    ejections: IntCounterVec,
    mirrored: IntCounterVec,
    stood_in: IntCounterVec,
    squeezed: IntCounterVec,
    breaker_requests: IntCounterVec,
    breaker_failures: IntCounterVec,
    breaker_rejected: IntCounterVec,
    breaker_transitions: IntCounterVec,
    breaker_state: IntGaugeVec,
    service_health: IntGaugeVec,
    lane_running: IntGaugeVec,
    lane_waiting: IntGaugeVec,
    lane_shed: IntCounterVec,
    lane_wait: HistogramVec,
    concurrency_limit: IntGaugeVec,
    framing_refused: IntCounterVec,
    h2_floods: IntCounterVec,
    connections_refused: IntCounterVec,
    handshakes: IntCounterVec,
    certificate_end: IntGauge,
    reloads: IntCounterVec,
    kill_on: IntGaugeVec,
    kill_refused: IntCounterVec,
    kill_pending: IntGaugeVec,
    /// By [`PROTOCOLS`] and [`TLS_VERSIONS`].
    spoken: [[IntCounter; TLS_VERSIONS.len()]; PROTOCOLS.len()],
    /// Time from the first byte of a request to the end of its head.
    pub(crate) head_seconds: Histogram,
    /// Time to a new upstream connection.
    pub(crate) connect_seconds: Histogram,
    /// Time in admission.
    pub(crate) admit_seconds: Histogram,
    /// Time from the last attempt's start to the upstream's head.
    pub(crate) upstream_seconds: Histogram,
    /// Open client connections.
    pub(crate) connections: IntGauge,
    /// Open WebSockets.
    pub(crate) tunnels: IntGauge,
    /// Bytes of WebSockets: from clients, from upstreams.
    pub(crate) tunnel_bytes: [IntCounter; 2],
    /// Tokens found in the cache.
    pub(crate) token_hits: IntCounter,
    /// Tokens whose signature had to be checked.
    pub(crate) token_misses: IntCounter,
    /// Events that tell of switches and are not obeyed, by reason.
    pub(crate) kill_passed_over: IntCounterVec,
    /// What goes on for long and was ended by a kill switch.
    pub(crate) kill_ended: IntCounter,
    /// Number of the configuration in force.
    pub(crate) generation: IntGauge,
    /// 1 when the last reload was accepted.
    pub(crate) reload_ok: IntGauge,
    /// Age of the feed.
    pub(crate) feed_age: Gauge,
    /// How full the edge's audit log is.
    pub(crate) audit_fill: Gauge,
    /// Keys evicted from it.
    pub(crate) limiter_evicted: IntCounter,
    /// Rates that edges share.
    pub(crate) limits: LimitMeters,
    /// Access log lines dropped.
    pub(crate) access_dropped: IntCounter,
    /// Viewers of live traffic.
    pub(crate) tap_viewers: IntGauge,
    /// Lines that a viewer was too slow for.
    pub(crate) tap_lost: IntCounter,
    /// Spans that the collector took.
    pub(crate) spans_exported: IntCounter,
    /// Spans that it did not take.
    pub(crate) spans_failed: IntCounter,
    /// Spans for which there was no room.
    pub(crate) spans_dropped: IntCounter,
    /// Events not handed to the event worker.
    pub(crate) events_dropped: IntCounter,
    idempotency: IntCounterVec,
    /// Time to claim an idempotency key.
    pub(crate) idempotency_seconds: Histogram,
    /// Idempotency keys in the edge's own store.
    pub(crate) idempotency_records: IntGauge,
}

impl Meters {
    /// Registers them all. Once a registry.
    pub(crate) fn new(registry: &Registry) -> Self {
        let stages = metric::histograms(registry, Name::EdgeStage, LATENCY_BUCKETS_S);
        let tokens = metric::counters(registry, Name::EdgeTokenCache);
        let tunnelled = metric::counters(registry, Name::EdgeTunnelBytes);
        let spoken = metric::counters(registry, Name::EdgeSpoken);
        let spans = metric::counters(registry, Name::OtlpSpans);
        Self {
            requests: metric::counters(registry, Name::GatewayRequests),
            duration: metric::histograms(registry, Name::GatewayDuration, LATENCY_BUCKETS_S),
            limited: metric::counters(registry, Name::GatewayLimited),
            auth_failures: metric::counters(registry, Name::GatewayAuthFailures),
            retries: metric::counters(registry, Name::EdgeRetries),
            retry_budget: metric::counters(registry, Name::EdgeRetryBudget),
            hedges: metric::counters(registry, Name::EdgeHedges),
            ejections: metric::counters(registry, Name::EdgeEjections),
            mirrored: metric::counters(registry, Name::EdgeMirrored),
            stood_in: metric::counters(registry, Name::EdgeFallbacks),
            squeezed: metric::counters(registry, Name::EdgeCompressed),
            breaker_requests: metric::counters(registry, Name::BreakerRequests),
            breaker_failures: metric::counters(registry, Name::BreakerFailures),
            breaker_rejected: metric::counters(registry, Name::BreakerRejected),
            breaker_transitions: metric::counters(registry, Name::BreakerTransitions),
            breaker_state: metric::gauges(registry, Name::BreakerState),
            service_health: metric::gauges(registry, Name::GatewayHealth),
            lane_running: metric::gauges(registry, Name::LaneRunning),
            lane_waiting: metric::gauges(registry, Name::LaneWaiting),
            lane_shed: metric::counters(registry, Name::LaneShed),
            lane_wait: metric::histograms(registry, Name::LaneWait, LATENCY_BUCKETS_S),
            concurrency_limit: metric::gauges(registry, Name::ConcurrencyLimit),
            framing_refused: metric::counters(registry, Name::EdgeFramingRefused),
            h2_floods: metric::counters(registry, Name::EdgeH2Floods),
            connections_refused: metric::counters(registry, Name::EdgeRefused),
            handshakes: metric::counters(registry, Name::EdgeHandshakes),
            certificate_end: metric::gauge(registry, Name::EdgeCertificateEnd),
            reloads: metric::counters(registry, Name::EdgeReloads),
            kill_on: metric::gauges(registry, Name::KillOn),
            kill_refused: metric::counters(registry, Name::KillRefused),
            kill_pending: metric::gauges(registry, Name::KillPending),
            kill_passed_over: metric::counters(registry, Name::KillPassedOver),
            kill_ended: metric::counter(registry, Name::KillEnded),
            spoken: PROTOCOLS
                .map(|protocol| TLS_VERSIONS.map(|tls| spoken.with_label_values(&[protocol, tls]))),
            head_seconds: stages.with_label_values(&["head"]),
            connect_seconds: stages.with_label_values(&["connect"]),
            admit_seconds: stages.with_label_values(&["admit"]),
            upstream_seconds: stages.with_label_values(&["upstream"]),
            connections: metric::gauge(registry, Name::GatewayConnections),
            tunnels: metric::gauge(registry, Name::EdgeTunnels),
            tunnel_bytes: ["in", "out"].map(|direction| tunnelled.with_label_values(&[direction])),
            token_hits: tokens.with_label_values(&["hit"]),
            token_misses: tokens.with_label_values(&["miss"]),
            generation: metric::gauge(registry, Name::EdgeGeneration),
            reload_ok: metric::gauge(registry, Name::EdgeReloadOk),
            feed_age: metric::gauge_f64(registry, Name::EdgeFeedAge),
            audit_fill: metric::gauge_f64(registry, Name::EdgeAuditFill),
            limiter_evicted: metric::counter(registry, Name::EdgeLimiterEvicted),
            limits: LimitMeters::new(registry),
            access_dropped: metric::counter(registry, Name::EdgeAccessDropped),
            tap_viewers: metric::gauge(registry, Name::TapViewers),
            tap_lost: metric::counter(registry, Name::TapLost),
            spans_exported: spans.with_label_values(&["exported"]),
            spans_failed: spans.with_label_values(&["failed"]),
            spans_dropped: spans.with_label_values(&["dropped"]),
            events_dropped: metric::counter(registry, Name::EdgeEventsDropped),
            idempotency: metric::counters(registry, Name::EdgeIdempotency),
            idempotency_seconds: metric::histogram(registry, Name::EdgeIdempotencySeconds, LATENCY_BUCKETS_S),
            idempotency_records: metric::gauge(registry, Name::EdgeIdempotencyRecords),
        }
    }

    /// A refused credential.
    pub(crate) fn auth_failure(&self, reason: &str) {
        self.auth_failures.with_label_values(&[reason]).inc();
    }

    /// A copy of a request for a mirror, and what became of it: answered, failed or dropped.
    pub(crate) fn mirrored(&self, service: &str, result: &str) {
        self.mirrored.with_label_values(&[service, result]).inc();
    }

    /// An answer in place of the one that a service did not give: stale or fixed.
    pub(crate) fn stood_in(&self, service: &str, kind: &str) {
        self.stood_in.with_label_values(&[service, kind]).inc();
    }

    /// Bytes of a service's answers before and behind compression.
    pub(crate) fn squeezed(&self, service: &str, taken: usize, given: usize) {
        self.squeezed.with_label_values(&[service, "in"]).inc_by(taken as u64);
        self.squeezed.with_label_values(&[service, "out"]).inc_by(given as u64);
    }

    /// A request with an idempotency key and what became of it.
    pub(crate) fn idempotency(&self, service: &str, result: &str) {
        self.idempotency.with_label_values(&[service, result]).inc();
    }

    /// A request that came in this protocol, over this version of TLS.
    pub(crate) fn spoken(&self, protocol: &str, tls: Option<&str>) {
        let at = |words: &[&str], word: &str| words.iter().position(|known| *known == word).unwrap_or(0);
        self.spoken[at(&PROTOCOLS, protocol)][at(&TLS_VERSIONS, tls.unwrap_or("none"))].inc();
    }

    /// A request refused before routing.
    pub(crate) fn framing_refused(&self, reason: &str) {
        self.framing_refused.with_label_values(&[reason]).inc();
    }

    /// A TLS handshake with a client and what became of it.
    pub(crate) fn handshake(&self, result: &str) {
        self.handshakes.with_label_values(&[result]).inc();
    }

    /// When the first certificate of the TLS listener ends, unix seconds.
    pub(crate) fn certificate_ends(&self, at_s: i64) {
        self.certificate_end.set(at_s);
    }

    /// A connection ended for what its client sent too much of.
    pub(crate) fn h2_flood(&self, kind: &str) {
        self.h2_floods.with_label_values(&[kind]).inc();
    }

    /// A connection closed before its first request.
    pub(crate) fn connection_refused(&self, reason: &str) {
        self.connections_refused.with_label_values(&[reason]).inc();
    }

    /// A request refused by a switch of this scope, or for want of a symbol.
    pub(crate) fn kill_refused(&self, scope: &str) {
        self.kill_refused.with_label_values(&[scope]).inc();
    }

    /// So many switches of this scope are on.
    pub(crate) fn kill_on(&self, scope: &str, count: usize) {
        self.kill_on.with_label_values(&[scope]).set(count as i64);
    }

    /// So many switches wait for the ledger, the audit log or the event stream.
    pub(crate) fn kill_pending(&self, what: &str, count: usize) {
        self.kill_pending.with_label_values(&[what]).set(count as i64);
    }

    /// A reload, taken or refused.
    pub(crate) fn reload(&self, accepted: bool) {
        self.reloads.with_label_values(&[if accepted { "accepted" } else { "refused" }]).inc();
        self.reload_ok.set(i64::from(accepted));
    }

    /// The metrics of a route's lane.
    pub(crate) fn lane(&self, service: &str, lane: Lane) -> LaneMeters {
        let label = &[service, lane.as_str()];
        let shed = |reason| self.lane_shed.with_label_values(&[service, lane.as_str(), reason]);
        LaneMeters {
            running: self.lane_running.with_label_values(label),
            waiting: self.lane_waiting.with_label_values(label),
            full: shed("full"),
            late: shed("timeout"),
            wait_seconds: self.lane_wait.with_label_values(label),
            limit: self.concurrency_limit.with_label_values(&[service]),
        }
    }

    /// The metrics of a route. `service` is a name from the configuration or of a worker.
    pub(crate) fn route(&self, service: &str) -> Arc<RouteMeters> {
        let label = &[service];
        let by_state = |state| self.breaker_requests.with_label_values(&[service, state]);
        Arc::new(RouteMeters {
            name: service.to_owned(),
            requests: self.requests.clone(),
            prepared: ArcSwap::default(),
            duration: self.duration.with_label_values(label),
            limited: self.limited.with_label_values(label),
            retries: self.retries.clone(),
            hedges: self.hedges.clone(),
            retry_budget: self.retry_budget.with_label_values(label),
            ejections: self.ejections.with_label_values(label),
            breaker_requests: [by_state("closed"), by_state("open"), by_state("half_open")],
            breaker_failures: self.breaker_failures.with_label_values(label),
            breaker_rejected: self.breaker_rejected.with_label_values(label),
            breaker_state: self.breaker_state.with_label_values(label),
            breaker_transitions: self.breaker_transitions.clone(),
            health: self.service_health.with_label_values(label),
            traffic: Traffic::default(),
            in_flight: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
        })
    }
}

/// The metrics of a route's lane.
#[derive(Clone)]
pub(crate) struct LaneMeters {
    /// Requests at the upstream, streams apart.
    pub(crate) running: IntGauge,
    /// Requests that wait for their turn.
    pub(crate) waiting: IntGauge,
    /// Requests turned away because too many wait.
    pub(crate) full: IntCounter,
    /// Requests turned away because they waited too long.
    pub(crate) late: IntCounter,
    /// Time that requests waited, of those that had to.
    pub(crate) wait_seconds: Histogram,
    /// Requests that its instances get at once.
    pub(crate) limit: IntGauge,
}

/// The metrics of one route.
pub(crate) struct RouteMeters {
    name: String,
    requests: IntCounterVec,
    prepared: ArcSwap<Vec<(Method, u16, IntCounter)>>,
    duration: Histogram,
    retries: IntCounterVec,
    hedges: IntCounterVec,
    breaker_transitions: IntCounterVec,
    in_flight: AtomicUsize,
    answered: AtomicU64,
    /// Requests refused by its rate limit.
    pub(crate) limited: IntCounter,
    /// Retries not made because the budget was spent.
    pub(crate) retry_budget: IntCounter,
    /// Instances left alone because their requests failed.
    pub(crate) ejections: IntCounter,
    /// Requests seen by its breaker, by state: closed, open, half open.
    pub(crate) breaker_requests: [IntCounter; 3],
    /// Failures its breaker counted.
    pub(crate) breaker_failures: IntCounter,
    /// Requests its breaker refused.
    pub(crate) breaker_rejected: IntCounter,
    /// 0 closed, 1 open, 2 half open.
    pub(crate) breaker_state: IntGauge,
    /// 1 when at least one instance is healthy.
    pub(crate) health: IntGauge,
    /// Recent traffic, for the dashboard.
    pub(crate) traffic: Traffic,
}

impl RouteMeters {
    /// Requests under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests answered since the start.
    pub(crate) fn answered_total(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Counts a request as under way until the guard drops.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, method: Method, status: u16, seconds: f64) {
        self.observe(status, seconds);
        let prepared = self.prepared.load();
        match prepared.iter().find(|(of, with, _)| *of == method && *with == status) {
            Some((_, _, counter)) => counter.inc(),
            None => self.prepare(method, status).inc(),
        }
    }

    /// Counts a request that was refused before its method was known.
    pub(crate) fn refused(&self, status: u16, seconds: f64) {
        self.observe(status, seconds);
        self.requests.with_label_values(&[self.name.as_str(), "-", &status.to_string()]).inc();
    }

    fn observe(&self, status: u16, seconds: f64) {
        self.duration.observe(seconds);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.traffic.record(clock::now().0 / 1_000_000_000, status, (seconds * 1e6) as u64);
    }

    /// Counts a retry.
    pub(crate) fn retried(&self, reason: &str) {
        self.retries.with_label_values(&[self.name.as_str(), reason]).inc();
    }

    /// Counts a second try beside a silent one, by what became of it.
    pub(crate) fn hedged(&self, result: &str) {
        self.hedges.with_label_values(&[self.name.as_str(), result]).inc();
    }

    /// Counts a state change of the breaker.
    pub(crate) fn breaker_moved(&self, to: &str) {
        self.breaker_transitions.with_label_values(&[self.name.as_str(), to]).inc();
    }

    fn prepare(&self, method: Method, status: u16) -> IntCounter {
        if self.prepared.load().len() >= PREPARED_MAX {
            return self.requests.with_label_values(&[
                self.name.as_str(),
                "other",
                &format!("{}xx", status / 100),
            ]);
        }
        let text = status.to_string();
        let counter = self.requests.with_label_values(&[self.name.as_str(), method.as_str(), &text]);
        self.prepared.rcu(|known| {
            let mut known = Vec::clone(known);
            if known.len() < PREPARED_MAX
                && !known.iter().any(|(of, with, _)| *of == method && *with == status)
            {
                known.push((method, status, counter.clone()));
            }
            known
        });
        counter
    }
}

/// A request under way.
pub(crate) struct InFlight(Arc<RouteMeters>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_route_counts_by_method_and_status_and_is_forgotten() {
        let registry = Registry::new();
        let meters = Meters::new(&registry);
        let route = meters.route("orders");
        for status in [200, 200, 503] {
            route.answered(Method::Get, status, 0.002);
        }
        let text = String::from_utf8(metric::expose(&registry)).unwrap();
        assert!(text.contains(r#"api_gateway_requests_total{method="GET",service="orders",status="200"} 2"#));
        assert!(text.contains(r#"api_gateway_requests_total{method="GET",service="orders",status="503"} 1"#));
        route.retried("refused");
        route.breaker_moved("open");
        meters.route("orders_v2").retried("refused");
        meters.forget(&BTreeSet::from(["orders"]));
        let text = String::from_utf8(metric::expose(&registry)).unwrap();
        assert!(!text.contains(r#""orders""#), "{text}");
        assert!(text.contains(r#"reason="refused",service="orders_v2""#), "{text}");
    }

    #[test]
    fn what_an_upstream_makes_up_is_counted_together() {
        let registry = Registry::new();
        let meters = Meters::new(&registry);
        let route = meters.route("odd");
        for status in (200..264).chain(500..600) {
            route.answered(Method::Get, status, 0.001);
        }
        let text = String::from_utf8(metric::expose(&registry)).unwrap();
        let series = text.lines().filter(|line| line.starts_with("api_gateway_requests_total{"));
        assert_eq!(series.count(), PREPARED_MAX + 1);
        let others = r#"api_gateway_requests_total{method="other",service="odd",status="5xx"} 100"#;
        assert!(text.contains(others), "{text}");
        meters.forget(&BTreeSet::from(["odd"]));
        assert!(!String::from_utf8(metric::expose(&registry)).unwrap().contains(r#""odd""#));
    }

    #[test]
    fn requests_under_way_come_back() {
        let route = Meters::new(&Registry::new()).route("data");
        let guard = route.enter();
        assert_eq!(route.in_flight(), 1);
        drop(guard);
        assert_eq!(route.in_flight(), 0);
    }
}
