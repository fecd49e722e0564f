//! What the configuration means for this worker.

use std::path::PathBuf;

use sluice_http::Start;
use sluice_schema::{Config, Events, Fsync as ConfiguredFsync, OnRedisDown, PartitionBy, UnknownTypes};
use sluice_wire::symbol::Timeframe;

use crate::candles::{Frame, Rules};
use crate::engine::LeftBehind;
use crate::log::{AtRest, By, Fsync, Options, Partitions, Retention};
use crate::redis;

/// The settings in force.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Any source may be named.
    pub(crate) dev: bool,
    /// Types outside the catalogue are taken.
    pub(crate) unknown_types: bool,
    /// Name of the stream.
    pub(crate) stream: String,
    /// The folder of the log: one a stream.
    pub(crate) log_dir: PathBuf,
    /// The folder of the streams beside the main one.
    pub(crate) streams_dir: PathBuf,
    /// How events are divided; `None`: not at all.
    pub(crate) partitions: Option<Partitions>,
    /// Events a second that one caller may publish.
    pub(crate) publish_rate: Option<u64>,
    pub(crate) subscriptions: usize,
    /// The folder of the schemas.
    pub(crate) schemas_dir: PathBuf,
    /// The folder of what is kept of the groups.
    pub(crate) groups_dir: PathBuf,
    /// How the log is kept.
    pub(crate) log_options: Options,
    /// Which candles are made; `None`: none.
    pub(crate) candles: Option<Rules>,
    /// How its files are written, once the keys are there.
    pub(crate) at_rest: AtRest,
    /// The folder of what waits for Redis.
    pub(crate) spool_dir: PathBuf,
    /// Events wait there while Redis takes none.
    pub(crate) spools: bool,
    /// What an earlier configuration left for a Redis.
    pub(crate) left_behind: Option<LeftBehind>,
    /// The stream in Redis, where events are stored there.
    pub(crate) redis: Option<redis::Options>,
}

impl Settings {
    pub(crate) fn new(start: &Start) -> Self {
        let events = &start.config.events;
        Self {
            dev: start.dev,
            unknown_types: events.unknown_types == UnknownTypes::Accept,
            stream: events.stream.clone(),
            // The extension keeps names such as `..` from being a way out.
            log_dir: start.role_dir().join(format!("{}.log", events.stream)),
            partitions: partitions(events),
            publish_rate: events.publish_rate,
            subscriptions: events.subscriptions,
            schemas_dir: start.role_dir().join("schemas"),
            streams_dir: start.role_dir().join("streams"),
            groups_dir: start.role_dir().join(format!("{}.groups.log", events.stream)),
            spool_dir: start.role_dir().join(format!("{}.spool.log", events.stream)),
            spools: events.on_redis_down == OnRedisDown::Spool,
            log_options: log_options(events),
            candles: candles(events),
            at_rest: at_rest(events),
            left_behind: None,
            redis: redis_options(&start.config),
        }
    }
}

fn candles(events: &Events) -> Option<Rules> {
    let of = |timeframe: &Timeframe| Frame { name: timeframe.as_str().into(), ms: timeframe.millis() as i64 };
    let frames: Vec<Frame> = events.candles.timeframes.iter().map(of).collect();
    let grace_ms = events.candles.lateness.as_millis() as i64;
    (!frames.is_empty()).then_some(Rules { frames, grace_ms })
}

fn at_rest(events: &Events) -> AtRest {
    AtRest {
        keys: None,
        encrypt: events.encrypt,
        compress: events.compress,
        // One folder a stream, as in the data directory.
        archive: events.archive_dir.as_ref().map(|dir| dir.join(format!("{}.log", events.stream))),
    }
}

fn redis_options(config: &Config) -> Option<redis::Options> {
    let events = &config.events;
    let log = log_options(events);
    let url = config.event_redis()?;
    Some(redis::Options {
        url,
        stream: events.stream.clone(),
        group: events.group.clone(),
        retention: log.retention,
        dedup_window_ms: log.dedup_window_ms,
        partitions: log.partitions,
    })
}

fn log_options(events: &Events) -> Options {
    Options {
        fsync: match events.fsync {
            ConfiguredFsync::Always => Fsync::Always,
            ConfiguredFsync::Interval(interval) => Fsync::Interval(interval),
        },
        retention: Retention {
            age_ms: events.retention.age.map(|age| age.as_millis() as u64),
            bytes: events.retention.bytes,
            count: events.retention.count,
        },
        dedup_window_ms: events.dedup_window.as_millis() as u64,
        segment_bytes: events.segment_bytes,
        partitions: partitions(events),
    }
}

/// One partition is no division, whatever it is made by.
fn partitions(events: &Events) -> Option<Partitions> {
    let by = match events.partitions.by {
        PartitionBy::None => return None,
        PartitionBy::Type => By::Type,
        PartitionBy::Symbol => By::Symbol,
    };
    Partitions::new(by, events.partitions.count)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_key_is_carried_over() {
        let mut events = Events::default();
        assert_eq!(log_options(&events).fsync, Fsync::Always);
        assert_eq!(log_options(&events).dedup_window_ms, 600_000);
        events.fsync = ConfiguredFsync::Interval(Duration::from_millis(50));
        events.dedup_window = Duration::from_secs(7);
        events.segment_bytes = 1 << 20;
        events.retention.age = Some(Duration::from_secs(3_600));
        events.retention.bytes = Some(9);
        events.retention.count = Some(10);
        let options = log_options(&events);
        assert_eq!(options.fsync, Fsync::Interval(Duration::from_millis(50)));
        assert_eq!((options.dedup_window_ms, options.segment_bytes), (7_000, 1 << 20));
        let all = Retention { age_ms: Some(3_600_000), bytes: Some(9), count: Some(10) };
        assert_eq!((options.retention, options.partitions), (all, None));
        events.partitions.by = PartitionBy::Symbol;
        assert_eq!(log_options(&events).partitions, None, "one partition is none");
        events.partitions.count = 4;
        assert_eq!(log_options(&events).partitions, Partitions::new(By::Symbol, 4));
    }
}
