//! The catalogue of metrics. A metric exists here or not at all: dashboards, alerts and tests
//! compare with this table. Labels are bounded words from configuration, never paths or clients.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

macro_rules! catalogue {
    ($($variant:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// Name of a metric.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Name {
            $(#[doc = $help] $variant,)*
        }

        impl Name {
            /// Every metric, for documentation and coverage checks.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in the exposition.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The help text.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }

            /// The label names, in the order of label values.
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*],)* }
            }
        }
    };
}

catalogue! {
    // Edge: the names that the platforms' dashboards already use.
    GatewayRequests "api_gateway_requests_total" ["service", "method", "status"] "Requests answered, by service, method and status";
    GatewayDuration "api_gateway_request_duration_seconds" ["service"] "Time from the request head to the last response byte";
    GatewayConnections "api_gateway_active_connections" [] "Open client connections";
    GatewayHealth "api_gateway_service_health_status" ["service"] "1 when at least one instance of the service is healthy";
    GatewayLimited "api_gateway_rate_limit_exceeded_total" ["service"] "Requests refused by a rate limit";
    GatewayAuthFailures "api_gateway_auth_failures_total" ["reason"] "Requests refused by authentication or authorization";
    BreakerState "circuit_breaker_state" ["service"] "0 closed, 1 open, 2 half open";
    BreakerRequests "circuit_breaker_requests_total" ["service", "state"] "Requests seen by a breaker, by its state";
    BreakerFailures "circuit_breaker_failures_total" ["service"] "Failures counted by a breaker";
    BreakerTransitions "circuit_breaker_transitions_total" ["service", "to"] "State changes of a breaker";
    BreakerRejected "circuit_breaker_rejected_total" ["service"] "Requests refused by an open breaker";
    EdgeStage "sluice_edge_stage_seconds" ["stage"] "Time a request spends in one stage of the edge";
    EdgeAuditFill "sluice_edge_audit_fill_ratio" [] "Bytes of the edge's audit log over those that are kept";
    EdgeRetries "sluice_edge_retries_total" ["service", "reason"] "Attempts repeated on another instance";
    EdgeRetryBudget "sluice_edge_retry_budget_exhausted_total" ["service"] "Retries not made because the budget was spent";
    EdgeHedges "sluice_edge_hedges_total" ["service", "result"] "Second tries beside a silent one: won, lost, failed, or unanswered like the first";
    EdgeEjections "sluice_edge_ejections_total" ["service"] "Instances ejected by outlier detection";
    EdgeFallbacks "sluice_edge_fallbacks_total" ["service", "kind"] "Answers given where the service gave none: stale or fixed";
    EdgeMirrored "sluice_edge_mirrored_total" ["service", "result"] "Copies of requests for a mirror: answered, failed, or dropped for want of room or of an instance";
    EdgeCompressed "sluice_edge_compressed_bytes_total" ["service", "side"] "Bytes of compressed answers, in before and out after";
    EdgeTokenCache "sluice_edge_token_cache_total" ["result"] "Lookups in the verified-token cache";
    EdgeFramingRefused "sluice_edge_framing_refused_total" ["reason"] "Requests refused before routing";
    EdgeH2Floods "sluice_h2_floods_total" ["kind"] "HTTP/2 connections ended because the client sent too much of one kind";
    EdgeRefused "sluice_edge_connections_refused_total" ["reason"] "Connections closed before their first request";
    EdgeHandshakes "sluice_edge_tls_handshakes_total" ["result"] "TLS handshakes with clients, by what became of them";
    EdgeCertificateEnd "sluice_edge_certificate_not_after_seconds" [] "When the first certificate of the TLS listener ends, unix seconds";
    EdgeTunnels "sluice_tunnels" [] "Open WebSockets";
    EdgeTunnelBytes "sluice_tunnel_bytes_total" ["direction"] "Bytes of WebSockets: in from clients, out to them";
    KillOn "sluice_kill_switches" ["scope"] "Kill switches that are on";
    KillRefused "sluice_kill_switch_refused_total" ["scope"] "Requests refused by a kill switch, and orders without the symbol that it needs";
    KillEnded "sluice_kill_switch_ended_total" [] "Streams, calls and WebSockets ended by a kill switch";
    KillPassedOver "sluice_kill_switch_events_ignored_total" ["reason"] "Events that tell of kill switches and are not obeyed: of neither edge nor vault, not theirs to tell, not signed with the shared key, malformed";
    KillPending "sluice_kill_switch_pending" ["what"] "Switches that wait for the ledger, for the audit log, for the event stream";
    EdgeReloads "sluice_config_reloads_total" ["result"] "Configuration reloads";
    EdgeGeneration "sluice_config_generation" [] "Number of the configuration in force";
    EdgeReloadOk "sluice_config_last_reload_success" [] "1 when the last reload was accepted";
    EdgeFeedAge "sluice_feed_age_seconds" [] "Time since the vault's feed was last heard";
    EdgeLimiterEvicted "sluice_limiter_evictions_total" [] "Keys evicted from the rate limiter at its bound";
    EdgeLimiterShared "sluice_limiter_shared" [] "1 while edges count rates together over Redis, 0 while this one counts alone";
    EdgeLimiterCalls "sluice_limiter_lease_calls_total" ["result"] "Calls to Redis about shared rates: answered, or failed";
    EdgeLimiterAlone "sluice_limiter_alone_total" ["reason"] "Requests of shared limits that this edge judged alone: Redis was away, or its answer late, or as many waited as may (crowded), or there was no room for the caller (full)";
    EdgeLimiterWait "sluice_limiter_wait_seconds" [] "Time that requests of shared limits waited for the answer of Redis, of those that had to";
    EdgeAccessDropped "sluice_access_log_dropped_total" [] "Access log lines dropped because the writer was behind";
    EdgeSpoken "sluice_edge_protocol_requests_total" ["protocol", "tls"] "Requests by version of HTTP and of TLS";
    TapViewers "sluice_tap_viewers" [] "Viewers that follow live traffic";
    TapLost "sluice_tap_lost_total" [] "Lines of live traffic that a viewer was too slow for";
    OtlpSpans "sluice_otlp_spans_total" ["result"] "Spans exported, failed at the collector, or dropped for want of room";
    LaneRunning "sluice_lane_running" ["service", "lane"] "Requests at an upstream, streams apart";
    LaneWaiting "sluice_lane_waiting" ["service", "lane"] "Requests that wait for their turn at an upstream";
    LaneShed "sluice_lane_shed_total" ["service", "lane", "reason"] "Requests turned away: the queue was full, or they waited too long";
    LaneWait "sluice_lane_wait_seconds" ["service", "lane"] "Time that requests waited for their turn, of those that had to";
    ConcurrencyLimit "sluice_concurrency_limit" ["service"] "Requests that the instances of a service get at once";
    EdgeIdempotency "sluice_idempotency_requests_total" ["service", "result"] "Requests with an idempotency key: claimed, replayed, in_flight, unknown, mismatch, unavailable";
    EdgeIdempotencySeconds "sluice_idempotency_store_seconds" [] "Time to claim an idempotency key";
    EdgeIdempotencyRecords "sluice_idempotency_records" [] "Idempotency keys in the edge's own store";
    EdgeEventsDropped "sluice_edge_events_dropped_total" [] "Events the edge could not hand to the event worker";

    // Events.
    EventsPublished "event_service_events_published_total" ["event_type"] "Events stored, by type (catalogued types, else `other`)";
    EventsConsumed "event_service_events_consumed_total" ["event_type"] "Events delivered to subscribers, by type";
    EventsSubscribers "event_service_active_subscribers" [] "Open event streams";
    EventsLength "event_service_stream_length" [] "Events in the stream";
    EventsPublishSeconds "sluice_events_publish_seconds" ["durability"] "Time from a publish request to its ack";
    EventsBatch "sluice_events_batch_size" [] "Events per commit";
    EventsFsyncSeconds "sluice_events_fsync_seconds" [] "Time of one fdatasync";
    EventsDedup "sluice_events_dedup_hits_total" [] "Publishes answered from the dedup window";
    EventsOverruns "sluice_events_ring_overruns_total" [] "Times a subscriber fell out of the ring";
    EventsGaps "sluice_events_gaps_total" [] "Gap events sent to subscribers";
    EventsConflated "sluice_events_conflated_total" [] "Events that a newer one of their type and symbol stood for";
    EventsDropped "sluice_events_dropped_total" ["reason"] "Events passed over for slow subscribers (`gap`), and streams the worker ended (any other reason)";
    EventsViolations "sluice_events_schema_violations_total" ["mode"] "Events that did not follow the schema of their type, by what was done";
    EventsReplays "sluice_events_replay_sessions" [] "Replay sessions held";
    EventsBytes "sluice_events_store_bytes" [] "Bytes of the log on disk";
    EventsSpooled "sluice_events_spooled" [] "Events kept in the worker's files until Redis takes them";
    EventsOldest "sluice_events_oldest_age_seconds" [] "Age of the oldest stored event";
    EventsRetention "sluice_events_retention_seconds" [] "Age at which retention drops events; 0 where none is set";
    EventsCandleTrades "sluice_events_candle_trades_total" ["result"] "Market data events seen by the candles: counted, repeated, late, refused or no_trade";
    EventsGroupLag "sluice_events_group_lag_events" ["group"] "Events a consumer group has not looked at (64 groups by name, else `other`)";
    EventsGroupLagSeconds "sluice_events_group_lag_seconds" ["group"] "Age of the oldest event that a consumer group has not settled";
    EventsGroupPending "sluice_events_group_pending" ["group"] "Messages of a consumer group handed out and not settled";
    EventsRedeliveries "sluice_events_redeliveries_total" ["group"] "Deliveries of a consumer group that were not the first";
    EventsDlqDepth "sluice_events_dlq_depth" ["group"] "Dead letters of a consumer group";
    EventsNotify "sluice_events_notify_total" ["kind", "result"] "Alerts by kind of target: delivered, repeated, superseded by a newer one, below_level, left_out (too many), failed (a try), refused for good, gave_up after an hour";
    EventsNotifyFollowing "sluice_events_notify_following" [] "1 while alerts are followed for the targets of `notify`, 0 while their consumer group cannot be asked or where no target is configured";
    EventsNotifyWaiting "sluice_events_notify_waiting" [] "Alerts that a target has not taken yet";
    EventsRejected "sluice_events_rejected_total" ["reason"] "Publishes refused";

    // Vault.
    VaultTokens "sluice_vault_tokens_issued_total" [] "Tokens issued";
    VaultValidations "sluice_vault_validations_total" ["result"] "Token validations";
    VaultLogins "sluice_vault_logins_total" ["outcome"] "Tries of a user's password";
    VaultCertificates "sluice_vault_certificates_issued_total" [] "Certificates issued";
    VaultRevocations "sluice_vault_revocations_total" ["kind"] "Tokens, subjects and certificates revoked";
    VaultSecretOps "sluice_vault_secret_operations_total" ["operation", "decision"] "Secret operations";
    VaultAuditSeconds "sluice_vault_audit_seconds" [] "Time to write an audit record durably";
    VaultAuditFill "sluice_vault_audit_fill_ratio" [] "Bytes of the audit log over those that are kept";
    VaultSealed "sluice_vault_sealed" [] "1 while the vault is sealed";
    VaultFeedFollowers "sluice_vault_feed_followers" [] "Roles following the feed";
    VaultOutbox "sluice_vault_outbox_depth" [] "Events waiting for the event worker";
    FalcoAlerts "falco_alerts_total" ["priority", "rule"] "Alerts of Falco; rules that are neither shipped nor configured are `other`";
    VaultCertificateLeft "sluice_vault_certificate_left_seconds" ["name"] "Time until a CA certificate expires";

    // Calc.
    CalcRequests "sluice_calc_requests_total" ["call", "result"] "Calculations answered";
    CalcSeconds "sluice_calc_seconds" ["call"] "Time of one calculation in the pool";
    CalcRows "sluice_calc_rows_total" [] "Bars computed over";
    CalcQueue "sluice_calc_queue_depth" [] "Calculations waiting for a thread";
    CalcRejected "sluice_calc_rejected_total" ["reason"] "Calculations refused";
    CalcCancelled "sluice_calc_cancelled_total" [] "Calculations whose client left before the answer";
    CalcCoalesced "sluice_calc_coalesced_total" [] "Small calculations that were computed beside another of their kind";
    CalcSeries "sluice_calc_series" [] "Stored series";
    CalcCandles "sluice_calc_candles_total" ["result"] "Candles that came for stored series: applied, repeated, updated_open, conflict, late";
    CalcStreams "sluice_calc_streams" [] "Streams of indicators that are open";
    CalcFeedFollowing "sluice_calc_feed_following" [] "1 while closed candles of the event worker are followed, 0 while it cannot be asked or there is none";
    CalcFeedCandles "sluice_calc_feed_candles_total" ["result"] "Closed candles of the event worker by what became of them: applied, repeated, conflict, late";
    CalcFeedLag "sluice_calc_feed_lag_seconds" [] "Age of the oldest closed candle that is not stored yet; while the event worker cannot be asked, the time goes on";
    CalcFeedLast "sluice_calc_feed_last_timestamp_seconds" [] "When a closed candle of the event worker was last stored, seconds since 1970";
    CalcFeedDropped "sluice_calc_feed_dropped_total" [] "Closed candles of the event worker that could not be stored: no bar, or beyond the limits of the store";
    CalcAsked "sluice_calc_discovery_events_total" ["result"] "Requests for discovery that came as events: served, refused";
    CalcJobs "sluice_calc_jobs" ["state"] "Jobs that are known, by their state";
    CalcTransportBytes "sluice_calc_transport_bytes_total" ["format", "direction"] "Bytes of series taken and answered, by their form";

    // Demo.
    DemoEvents "sluice_demo_events_published_total" ["event_type"] "Events published by the tape and the pipeline";

    // Every role.
    HttpRequests "sluice_http_requests_total" ["door", "status"] "Requests answered by a worker, by door and status class";
    LogDropped "sluice_log_dropped_total" [] "Log lines dropped because the writer was behind";
    BuildInfo "sluice_build_info" ["version", "role"] "Always 1; labels name the build";
}

fn opts(name: Name) -> Opts {
    Opts::new(name.as_str(), name.help())
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $function:ident -> $kind:ty, $($vec:literal)?;)*) => {
        $($(#[$doc])*
        pub fn $function(registry: &Registry, name: Name) -> $kind {
            let metric = constructors!(@make $kind, name, $($vec)?);
            registry.register(Box::new(metric.clone())).expect("each metric is registered once per registry");
            metric
        })*
    };
    (@make $kind:ty, $name:expr, ) => {
        <$kind>::with_opts(opts($name).into()).expect("catalogue names are valid")
    };
    (@make $kind:ty, $name:expr, $vec:literal) => {
        <$kind>::new(opts($name).into(), $name.labels()).expect("catalogue names are valid")
    };
}

constructors! {
    /// Registers a counter of whole numbers.
    counter -> IntCounter, ;
    /// Registers a counter of seconds or other fractions.
    counter_f64 -> Counter, ;
    /// Registers a gauge of whole numbers.
    gauge -> IntGauge, ;
    /// Registers a gauge of fractions.
    gauge_f64 -> Gauge, ;
    /// Registers a labelled counter.
    counters -> IntCounterVec, true;
    /// Registers a labelled gauge.
    gauges -> IntGaugeVec, true;
    /// Registers a labelled gauge of fractions.
    gauges_f64 -> GaugeVec, true;
}

/// Bucket bounds for latencies, seconds: 50 µs to 30 s.
pub const LATENCY_BUCKETS_S: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];
/// Bucket bounds for sizes of batches.
pub const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Registers a histogram.
pub fn histogram(registry: &Registry, name: Name, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts { common_opts: opts(name), buckets: buckets.to_vec() };
    let metric = Histogram::with_opts(options).expect("catalogue names are valid");
    registry.register(Box::new(metric.clone())).expect("each metric is registered once per registry");
    metric
}

/// Registers a labelled histogram.
pub fn histograms(registry: &Registry, name: Name, buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts { common_opts: opts(name), buckets: buckets.to_vec() };
    let metric = HistogramVec::new(options, name.labels()).expect("catalogue names are valid");
    registry.register(Box::new(metric.clone())).expect("each metric is registered once per registry");
    metric
}

/// A counter that somebody else counts: read when the exposition is made.
struct Pulled<F> {
    counter: IntCounter,
    read: F,
}

impl<F: Fn() -> u64 + Send + Sync> Collector for Pulled<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.counter.inc_by((self.read)().saturating_sub(self.counter.get()));
        self.counter.collect()
    }
}

/// Registers a counter whose value is read when it is asked for.
pub fn pulled(registry: &Registry, name: Name, read: impl Fn() -> u64 + Send + Sync + 'static) {
    let counter = IntCounter::with_opts(opts(name)).expect("catalogue names are valid");
    let collector = Box::new(Pulled { counter, read });
    registry.register(collector).expect("each metric is registered once per registry");
}

/// A registry with the process figures (memory, descriptors, CPU) and the build label.
pub fn registry(role: &str) -> Registry {
    let registry = Registry::new();
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(process)).expect("a fresh registry has no process collector");
    gauges(&registry, Name::BuildInfo).with_label_values(&[env!("CARGO_PKG_VERSION"), role]).set(1);
    registry
}

/// Content type of the exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The exposition of a registry as text.
pub fn expose(registry: &Registry) -> Vec<u8> {
    let mut text = Vec::with_capacity(16 * 1024);
    TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .expect("writing to memory does not fail and names are valid");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_have_help() {
        let names: BTreeSet<_> = Name::ALL.iter().map(|name| name.as_str()).collect();
        assert_eq!(names.len(), Name::ALL.len());
        assert!(Name::ALL.iter().all(|name| name.help().len() > 10));
    }

    #[test]
    fn exposition_has_process_and_build() {
        let registry = registry("edge");
        pulled(&registry, Name::LogDropped, || 7);
        counters(&registry, Name::GatewayLimited).with_label_values(&["orders"]).inc();
        let text = String::from_utf8(expose(&registry)).unwrap();
        assert!(text.contains("api_gateway_rate_limit_exceeded_total{service=\"orders\"} 1"), "{text}");
        assert!(text.contains("sluice_log_dropped_total 7"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
        assert!(text.contains("sluice_build_info{role=\"edge\""), "{text}");
    }
}
