//! The keeper turn by turn, over a real log: bounds, full disks, what it writes and reads back.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::engine::Engine;
use crate::log::{
    Disk, Draft, Filter, Fsync, Ground, Labels, Log, Medium, MessageId, Options, Outcome, Retention,
};

use super::command::{Answer, Ask, Command, How, Lease, LetterPage, Notice, Redrive, Settle, Settled, Start};
use super::error::GroupError;
use super::journal::Journal;
use super::keeper::Keeper;
use super::settings::{OrderKey, Selector, Settings};
use super::{Limits, Report};

/// A disk that is full when told so.
#[derive(Default)]
struct Full(AtomicBool);

impl Medium for Full {
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Disk.write_all_at(file, bytes, offset)
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

struct World {
    keeper: Keeper,
    log: Log,
    disk: Arc<Full>,
    limits: Limits,
    floor: u64,
    told: mpsc::Receiver<Notice>,
    dir: tempfile::TempDir,
    next: u64,
}

fn options(segment_bytes: u64) -> Options {
    let retention = Retention::default();
    Options { fsync: Fsync::Always, retention, dedup_window_ms: 0, segment_bytes, partitions: None }
}

fn keeper(
    log: &Log,
    dir: &Path,
    disk: &Arc<Full>,
    limits: Limits,
    floor: u64,
) -> (Keeper, mpsc::Receiver<Notice>) {
    let ground = Ground { medium: Arc::clone(disk) as _, ..Ground::default() };
    let journal = Journal::new(Log::open(&dir.join("groups"), &options(floor / 4), ground).unwrap());
    let (notices, told) = mpsc::channel(64);
    let reader = Engine::Embedded(log.clone()).reader();
    let keeper = Keeper::open(reader, journal.with_floor(floor), limits, notices, Arc::default()).unwrap();
    (keeper, told)
}

impl World {
    fn new(limits: Limits) -> Self {
        Self::with_floor(limits, 1 << 20)
    }

    fn with_floor(limits: Limits, floor: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Full::default());
        let log = Log::open(&dir.path().join("events"), &options(4 << 20), Ground::default()).unwrap();
        let (keeper, told) = keeper(&log, dir.path(), &disk, limits, floor);
        Self { keeper, log, disk, limits, floor, told, dir, next: 1 }
    }

    /// The same after the process was killed.
    fn killed(self) -> Self {
        let Self { keeper: before, log, disk, limits, floor, dir, next, .. } = self;
        drop(before);
        let (keeper, told) = keeper(&log, dir.path(), &disk, limits, floor);
        Self { keeper, log, disk, limits, floor, told, dir, next }
    }

    fn publish(&mut self, count: usize, symbol: &str) -> Vec<MessageId> {
        let mut all = Vec::new();
        for part in (0..count).collect::<Vec<_>>().chunks(1_000) {
            let drafts = part
                .iter()
                .map(|_| {
                    let json =
                        format!(r#"{{"event_type":"x","data":{{"n":{}}},"metadata":{{}}}}"#, self.next);
                    self.next += 1;
                    let labels = Labels { kind: "x", symbol, source: "test" };
                    Draft::new(labels, 0, u128::from(self.next), 0, json.as_bytes()).unwrap()
                })
                .collect();
            let receipt = self.log.append_blocking(drafts, true).unwrap();
            all.extend(receipt.outcomes.into_iter().map(|outcome| match outcome {
                Outcome::Stored(stamp) => stamp.id,
                other => panic!("{other:?}"),
            }));
        }
        all
    }

    /// One call, answered while there is something to do at once.
    fn ask<T>(&mut self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, GroupError> {
        let (answer, mut answered) = oneshot::channel();
        self.keeper.take(command(answer));
        loop {
            let more = self.keeper.turn();
            match answered.try_recv() {
                Ok(answer) => return answer,
                Err(_) => assert!(more, "an answer without a pause"),
            }
        }
    }

    fn put(&mut self, settings: Settings) -> Result<bool, GroupError> {
        self.put_named("desk", settings)
    }

    fn put_named(&mut self, group: &str, settings: Settings) -> Result<bool, GroupError> {
        let put =
            self.ask(|answer| Command::Put { group: group.into(), settings, start: Start::Earliest, answer });
        put.map(|put| put.created)
    }

    fn lease(&mut self, consumer: &str, max: usize) -> Result<Vec<MessageId>, GroupError> {
        let found = self.ask(|answer| lease(consumer, max, Duration::ZERO, answer))?;
        Ok(found.messages.iter().map(|message| message.id).collect())
    }

    fn settle(&mut self, consumer: &str, ids: &[MessageId], how: How) -> Result<Settled, GroupError> {
        let settle =
            Settle { consumer: consumer.into(), ids: ids.to_vec(), how, readable: Filter::default() };
        self.ask(|answer| Command::Settle { group: "desk".into(), settle, answer })
    }

    fn fail(&mut self, consumer: &str, ids: &[MessageId]) {
        let how = How::Nack { delay_ms: None, reason: Some("no".into()) };
        assert_eq!(self.settle(consumer, ids, how).unwrap().known, ids.len());
        self.keeper.turn();
    }

    fn report(&mut self) -> Report {
        self.ask(|answer| Command::Report { group: "desk".into(), answer }).unwrap()
    }

    fn letters(&mut self) -> Vec<String> {
        let page = LetterPage { after: None, limit: 1_000, filter: Filter::default() };
        let found = self.ask(|answer| Command::Letters { group: "desk".into(), page, answer }).unwrap();
        found.records.iter().map(|record| String::from_utf8(record.json().to_vec()).unwrap()).collect()
    }
}

fn lease(consumer: &str, max: usize, wait: Duration, answer: Answer<Lease>) -> Command {
    let (consumer, until) = (consumer.into(), Instant::now() + wait);
    Command::Lease {
        group: "desk".into(),
        ask: Ask { consumer, max, until, readable: Filter::default(), answer },
    }
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn dying() -> Settings {
    Settings { max_deliver: 1, ..Settings::default() }
}

fn by_symbol() -> Settings {
    Settings { order_key: OrderKey::Symbol, ..Settings::default() }
}

#[test]
fn the_number_of_groups_is_bounded() {
    let mut world = World::new(limits(|limits| limits.groups = 2));
    assert!(world.put_named("a", dying()).unwrap() && world.put_named("b", dying()).unwrap());
    assert!(matches!(world.put_named("c", dying()), Err(GroupError::Limit(_))));
    // One that is there can be changed.
    assert!(!world.put_named("b", by_symbol()).unwrap());
}

#[test]
fn messages_under_way_are_bounded() {
    let mut world = World::new(limits(|limits| limits.pending = 3));
    world.put(Settings::default()).unwrap();
    let all = world.publish(5, "");
    assert_eq!(world.lease("a", 10).unwrap(), all[..3]);
    assert!(matches!(world.lease("a", 10), Err(GroupError::Busy(_))));
    world.settle("a", &all[..1], How::Ack).unwrap();
    assert_eq!(world.lease("b", 10).unwrap(), all[3..4]);
    assert_eq!(world.report().pending, 3);
}

#[test]
fn messages_held_aside_are_bounded() {
    let mut world = World::new(limits(|limits| limits.waiting = 4));
    world.put(by_symbol()).unwrap();
    let stuck = world.publish(10, "BTC");
    let free = world.publish(1, "ETH");
    assert_eq!(world.lease("a", 10).unwrap(), stuck[..1]);
    for _ in 0..5 {
        assert_eq!(world.lease("b", 10).unwrap(), []);
    }
    assert_eq!(world.report().waiting, 4);
    // The group goes on when the symbol does.
    let mut seen = Vec::new();
    let mut held = stuck[..1].to_vec();
    while seen.len() < 11 {
        assert!(!held.is_empty(), "{seen:?}");
        world.settle("a", &held, How::Ack).unwrap();
        seen.extend(held);
        held = world.lease("a", 10).unwrap();
    }
    assert!(seen.contains(&free[0]));
}

#[test]
fn messages_of_all_groups_are_bounded_together() {
    let mut world = World::new(limits(|limits| limits.held = 6));
    world.put_named("other", Settings::default()).unwrap();
    world.put(Settings::default()).unwrap();
    world.publish(10, "");
    let other = world.ask(|answer| {
        let Command::Lease { ask, .. } = lease("a", 4, Duration::ZERO, answer) else { unreachable!() };
        Command::Lease { group: "other".into(), ask }
    });
    assert_eq!(other.unwrap().messages.len(), 4);
    assert_eq!(world.lease("a", 10).unwrap().len(), 2);
}

#[test]
fn consumers_and_waiting_leases_are_bounded() {
    let mut world = World::new(limits(|limits| (limits.consumers, limits.waiters) = (2, 1)));
    world.put(Settings::default()).unwrap();
    world.lease("a", 1).unwrap();
    world.lease("b", 1).unwrap();
    assert!(matches!(world.lease("c", 1), Err(GroupError::Limit(_))));
    let (answer, waiting) = oneshot::channel();
    world.keeper.take(lease("a", 1, Duration::from_secs(60), answer));
    world.keeper.turn();
    assert!(matches!(world.lease("b", 1), Err(GroupError::Busy(_))));
    drop(waiting);
    world.keeper.turn();
    assert_eq!(world.lease("b", 1).unwrap(), []);
}

#[test]
fn dead_letters_are_bounded_and_nothing_is_dropped_for_it() {
    let mut world = World::new(limits(|limits| limits.letters = 1));
    world.put(dying()).unwrap();
    let all = world.publish(2, "BTC");
    world.lease("a", 2).unwrap();
    world.fail("a", &all);
    let report = world.report();
    assert_eq!((report.dead, report.pending), (1, 1));
    assert_eq!(world.lease("a", 2).unwrap(), [], "it has had its last delivery");
    let mut world = world.killed();
    world.keeper.turn();
    let report = world.report();
    assert_eq!((report.dead, report.pending), (1, 1));
    assert_eq!(world.ask(|answer| Command::Purge { group: "desk".into(), answer }).unwrap(), 1);
    let begun = Instant::now();
    while world.report().pending > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    assert!(world.letters()[0].contains(r#""cause":"no""#), "{:?}", world.letters());
}

#[test]
fn dead_letters_of_all_groups_are_bounded_in_bytes() {
    let mut world = World::new(limits(|limits| limits.letters_bytes = 1));
    world.put(dying()).unwrap();
    let all = world.publish(2, "");
    world.lease("a", 2).unwrap();
    world.fail("a", &all);
    assert_eq!((world.report().dead, world.report().pending), (1, 1));
}

#[test]
fn an_empty_answer_means_that_there_is_nothing() {
    let mut world = World::new(Limits::default());
    // Of two symbols, so that each event is looked at.
    let filter = Selector { symbols: vec!["BTC".into(), "SOL".into()], ..Selector::default() };
    world.put(Settings { filter, ..Settings::default() }).unwrap();
    world.publish(20_500, "ETH");
    let wanted = world.publish(1, "BTC");
    let (answer, mut answered) = oneshot::channel();
    world.keeper.take(lease("a", 1, Duration::ZERO, answer));
    assert!(world.keeper.turn() && answered.try_recv().is_err(), "one step does not reach it");
    while world.keeper.turn() {}
    assert_eq!(answered.try_recv().unwrap().unwrap().messages[0].id, wanted[0]);
    assert_eq!(world.lease("b", 1).unwrap(), []);
}

#[test]
fn a_full_disk_changes_nothing() {
    let mut world = World::new(Limits::default());
    world.put(Settings::default()).unwrap();
    let all = world.publish(4, "");
    assert_eq!(world.lease("a", 2).unwrap(), all[..2]);
    world.disk.0.store(true, Ordering::SeqCst);
    assert!(matches!(world.settle("a", &all[..2], How::Ack), Err(GroupError::Full)));
    assert!(matches!(world.lease("b", 2), Err(GroupError::Full)));
    assert!(matches!(world.put_named("new", dying()), Err(GroupError::Full)));
    let (answer, mut waiting) = oneshot::channel();
    world.disk.0.store(false, Ordering::SeqCst);
    let report = world.report();
    assert_eq!((report.pending, report.totals.acked, report.totals.delivered), (2, 0, 2));
    assert_eq!(world.settle("a", &all[..2], How::Ack).unwrap().known, 2);
    assert_eq!(world.lease("b", 4).unwrap(), all[2..]);
    // Who waits goes on waiting over it.
    world.keeper.take(lease("c", 1, Duration::from_secs(60), answer));
    world.keeper.turn();
    world.disk.0.store(true, Ordering::SeqCst);
    assert!(world.settle("b", &all[2..], How::Ack).is_err());
    world.disk.0.store(false, Ordering::SeqCst);
    let more = world.publish(1, "");
    world.keeper.turn();
    assert_eq!(waiting.try_recv().unwrap().unwrap().messages[0].id, more[0]);
}

#[test]
fn a_lease_that_reached_nobody_is_taken_back() {
    let mut world = World::new(Limits::default());
    world.put(Settings::default()).unwrap();
    let all = world.publish(1, "");
    let (answer, gone) = oneshot::channel();
    world.keeper.take(lease("a", 1, Duration::ZERO, answer));
    // It leaves after messages were found for it, and before it is answered.
    world.keeper.tend("desk");
    drop(gone);
    assert!(world.keeper.flush());
    world.keeper.turn();
    assert_eq!(world.report().totals.delivered, 0);
    assert_eq!(world.lease("b", 1).unwrap(), all);
}

#[test]
fn the_journal_is_cleaned_and_loses_nothing_that_counts() {
    const FLOOR: u64 = 64 * 1024;
    let mut world = World::with_floor(Limits::default(), FLOOR);
    world.put(dying()).unwrap();
    let dead = world.publish(3, "BTC");
    world.lease("a", 3).unwrap();
    world.fail("a", &dead);
    let redrive = Redrive { filter: Selector::default(), max: 1, per_s: None };
    world.ask(|answer| Command::Redrive { group: "desk".into(), redrive, answer }).unwrap();
    world.keeper.turn();
    assert_eq!(world.lease("long", 1).unwrap(), dead[..1]);
    let mut most = 0;
    for _ in 0..60 {
        let all = world.publish(100, "ETH");
        assert_eq!(world.lease("a", 100).unwrap(), all);
        assert_eq!(world.settle("a", &all, How::Ack).unwrap().known, 100);
        while world.keeper.turn() {}
        most = most.max(world.keeper.journal.bytes().0);
    }
    let (bytes, live) = world.keeper.journal.bytes();
    assert!(most < 3 * FLOOR && live < bytes, "{most} bytes at most, {bytes} of which {live} count");
    let before = world.report();
    let mut world = world.killed();
    let after = world.report();
    assert_eq!(after.totals, before.totals);
    assert_eq!((after.pending, after.dead, after.place), (1, 2, before.place));
    let letters = world.letters();
    assert!(letters.len() == 2 && letters.iter().all(|letter| letter.contains(r#""n":"#)), "{letters:?}");
    // The redriven one is still somebody's, and its event still there.
    world.fail("long", &dead[..1]);
    assert_eq!(world.letters().len(), 3);
    assert!(world.letters()[0].contains(r#""attempts":2"#), "{:?}", world.letters());
}

#[test]
fn young_dead_letters_are_told_again_after_a_start() {
    let mut world = World::new(Limits::default());
    world.put(dying()).unwrap();
    let all = world.publish(1, "BTC");
    world.lease("a", 1).unwrap();
    world.fail("a", &all);
    let told = world.told.try_recv().unwrap();
    assert_eq!((told.id, &*told.kind, &*told.symbol, &*told.cause), (all[0], "x", "BTC", "no"));
    let mut world = world.killed();
    assert_eq!(world.told.try_recv().unwrap(), told);
}

/// What deciding and writing cost, without the disk's sync:
/// `cargo test --release -p sluice-events --lib -- --ignored --nocapture cost_at_100k_pending`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "it prints its table")]
fn cost_at_100k_pending() {
    let mut world = World::with_floor(Limits::default(), 16 << 20);
    let settings = Settings { ack_wait_ms: 3_600_000, ..Settings::default() };
    world.put(settings).unwrap();
    world.publish(140_000, "BTC");
    let mut held = Vec::new();
    while held.len() < 99_000 {
        held.extend(world.lease("a", 1_000).unwrap());
    }
    let mut row = |what: &str, rounds: usize, size: usize, mut work: Box<dyn FnMut(&mut World)>| {
        let begun = Instant::now();
        for _ in 0..rounds {
            work(&mut world);
        }
        let us = begun.elapsed().as_micros() as f64 / rounds as f64;
        println!("{what:>20} {size:>6} {us:>10.1} us a call {:>10.2} us a message", us / size as f64);
    };
    for size in [1, 10, 100] {
        row(
            "lease + ack",
            200,
            size,
            Box::new(move |world| {
                let found = world.lease("b", size).unwrap();
                assert_eq!(world.settle("b", &found, How::Ack).unwrap().known, size);
            }),
        );
    }
    let oldest = held.clone();
    let mut at = 0;
    row(
        "ack of the oldest",
        100,
        100,
        Box::new(move |world| {
            at += 100;
            assert_eq!(world.settle("a", &oldest[at - 100..at], How::Ack).unwrap().known, 100);
        }),
    );
    let begun = Instant::now();
    let mut world = world.killed();
    println!("{:>20} {:>6} {:>10.1} ms", "open", world.report().pending, begun.elapsed().as_secs_f64() * 1e3);
}
