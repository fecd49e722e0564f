//! The worker's figures.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::{HashMap, HashMapExt};
use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, Registry};
use sluice_telemetry::metric::{self, BATCH_BUCKETS, LATENCY_BUCKETS_S, Name};
use sluice_wire::event::CATALOGUE;

use crate::engine::Durability;
use crate::group::Gauges;
use crate::log::{self, Commit, Observer, Stats};

/// Every metric of this worker, and what the log told last.
pub(crate) struct Metrics {
    published: ByType,
    consumed: ByType,
    pub(crate) subscribers: IntGauge,
    pub(crate) dedup_hits: IntCounter,
    pub(crate) overruns: IntCounter,
    pub(crate) gaps: IntCounter,
    pub(crate) conflated: IntCounter,
    dropped: IntCounterVec,
    pub(crate) rejected: IntCounterVec,
    pub(crate) candles: CandleTrades,
    pub(crate) replays: IntGauge,
    pub(crate) violations: IntCounterVec,
    pub(crate) groups: Gauges,
    pub(crate) notify: Notified,
    length: IntGauge,
    bytes: IntGauge,
    spooled: IntGauge,
    oldest_s: Gauge,
    retention_s: Gauge,
    batch: Histogram,
    fsync_s: Histogram,
    /// In the order of [`Durability::ALL`].
    publish_s: [Histogram; Durability::ALL.len()],
    disk_full: AtomicBool,
}

/// What became of alerts.
pub(crate) struct Notified {
    pub(crate) results: IntCounterVec,
    pub(crate) following: IntGauge,
    pub(crate) waiting: IntGauge,
}

/// What the candles saw of the market data.
pub(crate) struct CandleTrades {
    pub(crate) counted: IntCounter,
    pub(crate) repeated: IntCounter,
    pub(crate) late: IntCounter,
    pub(crate) refused: IntCounter,
    pub(crate) ignored: IntCounter,
}

impl CandleTrades {
    fn new(registry: &Registry) -> Self {
        let trades = metric::counters(registry, Name::EventsCandleTrades);
        let of = |result| trades.with_label_values(&[result]);
        Self {
            counted: of("counted"),
            repeated: of("repeated"),
            late: of("late"),
            refused: of("refused"),
            ignored: of("no_trade"),
        }
    }
}

/// What an event is counted as; the default stands for all types that are not catalogued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kind(usize);

/// A counter a catalogued type, looked up without the registry's lock; all others share the first one.
struct ByType {
    known: HashMap<&'static str, usize>,
    counters: Vec<IntCounter>,
}

impl ByType {
    fn new(counters: &IntCounterVec) -> Self {
        let mut all = vec![counters.with_label_values(&["other"])];
        let mut known = HashMap::with_capacity(CATALOGUE.len());
        for name in CATALOGUE {
            known.insert(*name, all.len());
            all.push(counters.with_label_values(&[*name]));
        }
        Self { known, counters: all }
    }

    fn kind(&self, kind: &str) -> Kind {
        Kind(self.known.get(kind).copied().unwrap_or_default())
    }

    fn of(&self, kind: &str) -> &IntCounter {
        &self.counters[self.kind(kind).0]
    }
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let publish_s = metric::histograms(registry, Name::EventsPublishSeconds, LATENCY_BUCKETS_S);
        Self {
            published: ByType::new(&metric::counters(registry, Name::EventsPublished)),
            consumed: ByType::new(&metric::counters(registry, Name::EventsConsumed)),
            subscribers: metric::gauge(registry, Name::EventsSubscribers),
            dedup_hits: metric::counter(registry, Name::EventsDedup),
            overruns: metric::counter(registry, Name::EventsOverruns),
            gaps: metric::counter(registry, Name::EventsGaps),
            conflated: metric::counter(registry, Name::EventsConflated),
            dropped: metric::counters(registry, Name::EventsDropped),
            rejected: metric::counters(registry, Name::EventsRejected),
            candles: CandleTrades::new(registry),
            violations: metric::counters(registry, Name::EventsViolations),
            replays: metric::gauge(registry, Name::EventsReplays),
            groups: Gauges::new(registry),
            notify: Notified {
                results: metric::counters(registry, Name::EventsNotify),
                following: metric::gauge(registry, Name::EventsNotifyFollowing),
                waiting: metric::gauge(registry, Name::EventsNotifyWaiting),
            },
            length: metric::gauge(registry, Name::EventsLength),
            bytes: metric::gauge(registry, Name::EventsBytes),
            spooled: metric::gauge(registry, Name::EventsSpooled),
            oldest_s: metric::gauge_f64(registry, Name::EventsOldest),
            retention_s: metric::gauge_f64(registry, Name::EventsRetention),
            batch: metric::histogram(registry, Name::EventsBatch, BATCH_BUCKETS),
            fsync_s: metric::histogram(registry, Name::EventsFsyncSeconds, LATENCY_BUCKETS_S),
            publish_s: Durability::ALL.map(|word| publish_s.with_label_values(&[word.as_str()])),
            disk_full: AtomicBool::new(false),
        }
    }

    /// An event was stored.
    pub(crate) fn published(&self, kind: Kind) {
        self.published.counters[kind.0].inc();
    }

    /// An event was handed to a consumer.
    pub(crate) fn consumed(&self, kind: &str) {
        self.consumed.of(kind).inc();
    }

    /// What events of a type are counted as.
    pub(crate) fn kind(&self, kind: &str) -> Kind {
        self.consumed.kind(kind)
    }

    /// So many events were handed to a subscriber.
    pub(crate) fn consumed_many(&self, kind: Kind, count: u64) {
        self.consumed.counters[kind.0].inc_by(count);
    }

    /// Events were not given to a slow subscriber (`gap`), or a subscriber was let go (`too_slow`, …).
    pub(crate) fn dropped(&self, reason: &str, count: u64) {
        self.dropped.with_label_values(&[reason]).inc_by(count);
    }

    /// A publish was answered.
    pub(crate) fn answered(&self, durability: Durability, time: Duration) {
        if let Some(at) = Durability::ALL.iter().position(|word| *word == durability) {
            self.publish_s[at].observe(time.as_secs_f64());
        }
    }

    /// How long events are kept at most.
    pub(crate) fn kept_for(&self, age_ms: Option<u64>) {
        self.retention_s.set(age_ms.unwrap_or_default() as f64 / 1e3);
    }

    /// What the log holds now.
    pub(crate) fn observe(&self, stats: &Stats, oldest_s: f64, spooled: u64) {
        self.spooled.set(spooled as i64);
        self.length.set(stats.length as i64);
        self.bytes.set(stats.bytes as i64);
        self.oldest_s.set(oldest_s);
    }

    /// Whether the last commit found no room.
    pub(crate) fn disk_is_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }
}

impl Observer for Metrics {
    fn committed(&self, commit: &Commit) {
        if commit.records == 0 {
            return;
        }
        self.disk_full.store(false, Ordering::Relaxed);
        self.batch.observe(commit.records as f64);
        if commit.durability == log::Durability::Fsync {
            self.fsync_s.observe(commit.sync_time.as_secs_f64());
        }
    }

    fn synced(&self, time: Duration) {
        self.fsync_s.observe(time.as_secs_f64());
    }

    fn full(&self) {
        if !self.disk_full.swap(true, Ordering::Relaxed) {
            tracing::error!(component = "log", "the disk of the event log is full");
        }
    }

    fn trouble(&self, what: &str, error: &io::Error) {
        tracing::warn!(
            component = "log",
            what,
            error = error as &dyn std::error::Error,
            "event log in trouble"
        );
    }
}
