//! What the calls answer when the disk does not do its part: the handlers on a log that stands on a faulty disk.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use prometheus::Registry;
use sluice_http::{Authenticated, HealthSource as _, JsonBytes, Reject, Standing, Status, Stopper, Taken};
use sluice_identity::caller::Caller;
use sluice_wire::code::Code;
use sluice_wire::problem::Outcome;

use crate::bell::{Bell, Wants};
use crate::config::Settings;
use crate::context::Context;
use crate::engine::Engine;
use crate::group::{Groups, Journal, Limits};
use crate::log::{Disk, Filter, Fsync, Ground, Log, Medium, Options, Retention};
use crate::metrics::Metrics;
use crate::params::Params;
use crate::publish;
use crate::ring::Seen;
use crate::stream::choice::Choice;
use crate::stream::feed::Feed;
use crate::stream::sse::deliver;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(10);

/// A disk that is full, broken or slow when told so.
#[derive(Default)]
struct Faulty {
    full: AtomicBool,
    broken: AtomicBool,
    held: Mutex<bool>,
    released: Condvar,
}

impl Faulty {
    fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.released.notify_all();
    }
}

impl Medium for Faulty {
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Disk.write_all_at(file, bytes, offset)
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        let held = self.held.lock().unwrap();
        drop(self.released.wait_while(held, |held| *held).unwrap());
        if self.broken.load(Ordering::SeqCst) { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

struct World {
    disk: Arc<Faulty>,
    context: Arc<Context>,
    log: Log,
    _dir: tempfile::TempDir,
    _stopper: Stopper,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let metrics = Arc::new(Metrics::new(&Registry::new()));
    let options = Options {
        fsync: Fsync::Always,
        retention: Retention::default(),
        dedup_window_ms: 600_000,
        segment_bytes: 64 << 20,
        partitions: None,
    };
    let ground = Ground {
        medium: Arc::clone(&disk) as Arc<dyn Medium>,
        observer: Arc::clone(&metrics) as _,
        ..Ground::default()
    };
    let log = Log::open(dir.path(), &options, ground).unwrap();
    let settings = Settings {
        partitions: None,
        spool_dir: dir.path().join("spool.log"),
        spools: false,
        dev: true,
        unknown_types: true,
        stream: "s".to_owned(),
        log_dir: dir.path().to_owned(),
        candles: None,
        publish_rate: None,
        subscriptions: 10,
        schemas_dir: dir.path().join("schemas"),
        streams_dir: dir.path().join("streams"),
        groups_dir: dir.path().join("groups.log"),
        log_options: options,
        at_rest: crate::log::AtRest::default(),
        left_behind: None,
        redis: None,
    };
    let (stopper, stop) = Stopper::new();
    let journal = Log::open(&dir.path().join("groups.log"), &options, Ground::default()).unwrap();
    let engine = Engine::Embedded(log.clone());
    let (groups, _) = Groups::open(engine.reader(), Journal::new(journal), Limits::default()).unwrap();
    let context = Context::new(engine, groups, settings, metrics, stop).unwrap();
    World { disk, context, log, _dir: dir, _stopper: stopper }
}

impl World {
    async fn post(&self, body: &str) -> Result<Response, Reject> {
        let caller = Caller::forwarded("alice".to_owned(), None, "write".parse().unwrap_or_default(), false);
        let body = JsonBytes(body.to_owned().into());
        let headers = HeaderMap::new();
        publish::single(State(Arc::clone(&self.context)), Authenticated(caller), headers, body).await
    }

    fn store(&self) -> Status {
        self.context.components()["store"].status
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.disk.hold(false);
        self.context.close();
    }
}

#[tokio::test]
async fn a_full_disk_is_507_until_there_is_room() {
    let world = world();
    world.post(r#"{"event_type":"x"}"#).await.unwrap();
    world.disk.full.store(true, Ordering::SeqCst);
    let refused = world.post(r#"{"event_type":"x"}"#).await.unwrap_err();
    assert_eq!((refused.problem().code, refused.problem().status()), (Code::StoreFull, 507));
    assert_eq!(refused.problem().outcome, Some(Outcome::NotSent));
    assert_eq!(world.store(), Status::Degraded);
    assert!(world.context.ready());
    world.disk.full.store(false, Ordering::SeqCst);
    world.post(r#"{"event_type":"x"}"#).await.unwrap();
    assert_eq!(world.store(), Status::Healthy);
    assert_eq!(world.context.reader().stats().length, 2);
}

#[tokio::test]
async fn after_a_failed_sync_the_outcome_is_unknown_and_the_worker_ends() {
    let world = world();
    world.disk.broken.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let refused = world.post(r#"{"event_type":"x"}"#).await.unwrap_err();
        assert_eq!((refused.problem().code, refused.problem().status()), (Code::WorkerUnavailable, 503));
        assert_eq!(refused.problem().outcome, Some(Outcome::Unknown));
    }
    tokio::time::timeout(Duration::from_secs(5), world.log.failed()).await.unwrap();
    assert_eq!(world.store(), Status::Unhealthy);
    assert!(!world.context.ready());
}

#[tokio::test]
async fn what_nobody_wants_passes_and_what_somebody_wants_is_kept() {
    let world = world();
    let hub = &world.context.hub;
    let looks = |from, bell: &Bell| {
        let mut seqs = Vec::new();
        let seen = hub.see(from, bell, 10, |frame| {
            seqs.push(frame.record.stamp.seq);
            true
        });
        (seen, seqs)
    };
    let publish = async |seqs: std::ops::RangeInclusive<u64>, kind: &str| {
        for seq in seqs {
            world
                .post(&format!(r#"{{"event_type":"{kind}","data":{{"symbol":"BTC/USDT"}}}}"#))
                .await
                .unwrap();
            hub.caught_up(seq, LIMIT).await;
        }
    };
    let nobody = Bell::new();
    publish(1..=2, "x").await;
    assert_eq!(
        (hub.head(), looks(1, &nobody), looks(2, &nobody)),
        (2, (Seen::Behind, vec![]), (Seen::Behind, vec![]))
    );
    assert_eq!(looks(3, &nobody), (Seen::Nothing, vec![]));
    let (of_y, all) = (Bell::new(), Bell::new());
    let kinds = ["y".into()];
    hub.bells().hang(&of_y, Wants::Types(&kinds));
    assert_eq!((of_y.since(), looks(1, &of_y)), (3, (Seen::Passed, vec![])));
    publish(3..=4, "x").await;
    publish(5..=5, "y").await;
    assert_eq!((hub.head(), looks(3, &of_y)), (5, (Seen::Upto(6), vec![5])));
    hub.bells().hang(&all, Wants::Events);
    assert_eq!((looks(3, &all), looks(5, &all)), ((Seen::Passed, vec![]), (Seen::Upto(6), vec![5])));
    publish(6..=6, "x").await;
    assert_eq!((looks(6, &all), looks(3, &of_y)), ((Seen::Upto(7), vec![6]), (Seen::Upto(7), vec![5, 6])));
    hub.bells().take_down(&all, Wants::Events);
    hub.bells().take_down(&of_y, Wants::Types(&kinds));
    publish(7..=7, "y").await;
    assert_eq!((looks(6, &nobody), looks(8, &nobody)), ((Seen::Behind, vec![]), (Seen::Nothing, vec![])));
}

#[tokio::test]
async fn a_full_queue_is_429() {
    let world = world();
    world.disk.hold(true);
    let mut waiting = Vec::new();
    let refused = loop {
        let draft = crate::event::Author {
            caller: &Caller::forwarded("alice".to_owned(), None, "write".parse().unwrap_or_default(), false),
            dev: true,
            unknown_types: true,
            now: jiff::Timestamp::now(),
            mint: &world.context.mint,
            schemas: &world.context.schemas,
            last: std::cell::RefCell::default(),
        }
        .prepare(&crate::incoming::parse(r#"{"event_type":"x"}"#).unwrap(), None)
        .unwrap()
        .draft;
        match world.log.submit(vec![draft], false) {
            Ok(answer) => waiting.push(answer),
            Err(_) => break world.post(r#"{"event_type":"x"}"#).await.unwrap_err(),
        }
        assert!(waiting.len() < 100_000);
    };
    assert_eq!((refused.problem().code, refused.problem().status()), (Code::QueueFull, 429));
    assert_eq!(refused.problem().retry_after_s, Some(1));
    world.disk.hold(false);
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_subscriber_that_takes_nothing_is_let_go() {
    let world = world();
    let params = vec![("from".to_owned(), "earliest".to_owned())];
    let choice = Choice::parse(&mut Params::new(params), &HeaderMap::new(), Filter::default()).unwrap();
    let feed = Feed::open(&world.context, choice).await.unwrap();
    let (io, stuck) = tokio::io::duplex(64);
    let taken = Taken { io: Box::new(io), early: bytes::Bytes::new(), chunked: true };
    let stall = Duration::from_millis(300);
    let delivering = tokio::spawn(deliver(feed, taken, Standing::default(), stall));
    world.post(r#"{"event_type":"x"}"#).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), delivering).await.unwrap().unwrap();
    assert_eq!(world.context.metrics.subscribers.get(), 0);
    drop(stuck);
}
