//! The log against a vector: the same appends, reopenings, readings and trimmings, the same answers.

use std::sync::atomic::Ordering;

use proptest::collection::vec;
use proptest::prelude::*;
use sluice_events::log::{
    By, Draft, Filter, Fsync, Lane, Log, MessageId, OpenError, Options, Outcome, Partitions, Retention, Stamp,
};

use crate::world::{all, draft, ground, open, options};

#[derive(Clone, Debug)]
enum Step {
    Append { events: Vec<(u8, u8, u16)>, atomic: bool },
    Clock(u16, bool),
    Reopen,
    Crash,
    Retain,
    Read { from: u8, kind: Option<u8>, times: Option<(u8, u8)> },
    Find(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (vec((any::<u8>(), 0..2_u8, 0..700_u16), 1..12), any::<bool>())
            .prop_map(|(events, atomic)| Step::Append { events, atomic }),
        2 => (0..6_000_u16, any::<bool>()).prop_map(|(by, back)| Step::Clock(by, back)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => Just(Step::Retain),
        3 => (any::<u8>(), proptest::option::of(0..4_u8), proptest::option::of((any::<u8>(), any::<u8>())))
            .prop_map(|(from, kind, times)| Step::Read { from, kind, times }),
        2 => any::<u8>().prop_map(Step::Find),
    ]
}

/// What was stored, in order, and what was taken away at the front.
#[derive(Default)]
struct Model {
    events: Vec<(Stamp, Draft)>,
    trimmed: usize,
    now_ms: u64,
    last: MessageId,
    window_ms: u64,
    partitions: Option<Partitions>,
}

impl Model {
    fn append(&mut self, drafts: &[Draft], atomic: bool) -> Vec<Outcome> {
        let (events, last) = (self.events.len(), self.last);
        let mut outcomes: Vec<Outcome> = drafts.iter().map(|draft| self.append_one(draft)).collect();
        if atomic && outcomes.iter().any(|outcome| matches!(outcome, Outcome::Conflict(_))) {
            self.events.truncate(events);
            self.last = last;
            for outcome in &mut outcomes {
                let undone = match outcome {
                    Outcome::Stored(_) => true,
                    Outcome::Duplicate(stamp) => stamp.seq > events as u64,
                    _ => false,
                };
                if undone {
                    *outcome = Outcome::Withheld;
                }
            }
        }
        outcomes
    }

    fn append_one(&mut self, draft: &Draft) -> Outcome {
        let begin_ms = self.now_ms.max(self.last.ms).saturating_sub(self.window_ms);
        let kept = &self.events[self.trimmed..];
        let known = kept.iter().rev().find(|(_, other)| other.event_id == draft.event_id);
        match known.filter(|(stamp, _)| stamp.id.ms >= begin_ms) {
            Some((stamp, other)) if other.fingerprint == draft.fingerprint => Outcome::Duplicate(*stamp),
            Some((stamp, _)) => Outcome::Conflict(*stamp),
            None => {
                self.last = self.last.next(self.now_ms);
                let stamp = Stamp { seq: self.events.len() as u64 + 1, id: self.last };
                self.events.push((stamp, draft.clone()));
                Outcome::Stored(stamp)
            }
        }
    }

    /// The places in the partitions, of everything that was ever stored.
    fn lanes(&self) -> Vec<Lane> {
        let mut heads = [0_u64; 64];
        let lane = |(stamp, draft): &(Stamp, Draft)| match self.partitions {
            None => Lane { partition: 0, seq: stamp.seq },
            Some(partitions) => {
                let partition = partitions.of(draft.labels());
                heads[usize::from(partition)] += 1;
                Lane { partition, seq: heads[usize::from(partition)] }
            }
        };
        self.events.iter().map(lane).collect()
    }

    fn kept(&self) -> &[(Stamp, Draft)] {
        &self.events[self.trimmed..]
    }
}

fn check_all(log: &Log, model: &Model) {
    let reader = log.reader();
    let found = all(&reader);
    assert_eq!(found.len(), model.kept().len());
    let lanes = model.lanes();
    for ((record, (stamp, draft)), lane) in found.iter().zip(model.kept()).zip(&lanes[model.trimmed..]) {
        assert_eq!(record.lane, *lane);
        assert_eq!(
            (record.stamp, record.event_id, record.fingerprint),
            (*stamp, draft.event_id, draft.fingerprint)
        );
        assert_eq!((record.kind(), record.time_us), (draft.kind(), draft.time_us));
        assert!(record.json().ends_with(b"\"}"));
    }
    let stats = reader.stats();
    assert_eq!(stats.length, model.kept().len() as u64);
    assert_eq!(stats.types.values().sum::<u64>(), stats.length);
    assert_eq!(stats.first_id, model.kept().first().map(|(stamp, _)| stamp.id));
    assert_eq!(stats.last_id, model.kept().last().map(|(stamp, _)| stamp.id));
}

fn check_read(log: &Log, model: &Model, from: u8, kind: Option<u8>, times: Option<(u8, u8)>) {
    let reader = log.reader();
    let mut filter = Filter::default();
    if let Some(kind) = kind {
        let kinds = ["trading_signal", "market_data_update", "order_executed", "never_seen"];
        filter.kinds.push(kinds[usize::from(kind)].into());
    }
    if let Some((a, b)) = times {
        (filter.from_us, filter.to_us) = (Some(i64::from(a.min(b))), Some(i64::from(a.max(b))));
    }
    let wanted = |draft: &Draft| {
        (kind.is_none() || filter.kinds[0].as_ref() == draft.kind())
            && filter.from_us.is_none_or(|from| draft.time_us >= from)
            && filter.to_us.is_none_or(|to| draft.time_us <= to)
    };
    let place = usize::from(from) * (model.events.len() + 1) / 256;
    let (after, seq) = match place.checked_sub(1).and_then(|at| model.events.get(at)) {
        Some((stamp, _)) => (stamp.id, stamp.seq + 1),
        None => (MessageId::default(), 1),
    };
    let begin = reader.seq_after(after).unwrap();
    assert_eq!(begin, seq.max(model.trimmed as u64 + 1));

    let mut expected = model.kept().iter().filter(|(stamp, draft)| stamp.seq >= seq && wanted(draft));
    let mut scan = reader.forward(begin, filter.clone());
    while let Some(record) = scan.next().unwrap() {
        assert_eq!(Some(record.stamp), expected.next().map(|(stamp, _)| *stamp));
    }
    assert!(expected.next().is_none());

    let mut expected = model.kept().iter().rev().filter(|(stamp, draft)| stamp.seq < seq && wanted(draft));
    let mut scan = reader.backward(seq, filter.clone());
    while let Some(record) = scan.next().unwrap() {
        assert_eq!(Some(record.stamp), expected.next().map(|(stamp, _)| *stamp));
    }
    assert!(expected.next().is_none());
}

fn check_find(log: &Log, model: &Model, id: u8) {
    let reader = log.reader();
    let event_id = u128::from(id % 64);
    let newest = model.kept().iter().rev().find(|(_, draft)| draft.event_id == event_id);
    let found = reader.by_event_id(event_id).unwrap();
    assert_eq!(found.map(|record| record.stamp), newest.map(|(stamp, _)| *stamp));
    let at = usize::from(id) * model.events.len() / 256;
    if let Some((stamp, _)) = model.events.get(at) {
        let found = reader.by_message_id(stamp.id).unwrap().map(|record| record.stamp);
        assert_eq!(found, (at >= model.trimmed).then_some(*stamp));
        let absent = MessageId { ms: stamp.id.ms, n: stamp.id.n + 1_000_000 };
        assert!(reader.by_message_id(absent).unwrap().is_none());
    }
}

fn run(steps: Vec<Step>, options: &Options) {
    let mut home = tempfile::tempdir().unwrap();
    let (clock, _, ground) = ground();
    let mut log = open(home.path(), options, &ground);
    let mut model = Model { now_ms: 1_000, window_ms: options.dedup_window_ms, ..Model::default() };
    model.partitions = options.partitions;
    for step in steps {
        match step {
            Step::Append { events, atomic } => {
                let drafts: Vec<Draft> = events
                    .iter()
                    .map(|(id, print, pad)| draft(u128::from(id % 64), u64::from(*print), usize::from(*pad)))
                    .collect();
                let receipt = log.append_blocking(drafts.clone(), atomic).unwrap();
                assert_eq!(receipt.outcomes, model.append(&drafts, atomic));
            }
            Step::Clock(by, back) => {
                let by = u64::from(by);
                model.now_ms = if back { model.now_ms.saturating_sub(by / 4) } else { model.now_ms + by };
                clock.0.store(model.now_ms, Ordering::SeqCst);
            }
            Step::Reopen => {
                drop(log);
                log = open(home.path(), options, &ground);
                assert_eq!(log.recovered().torn_bytes, 0);
            }
            Step::Crash => {
                // What lies on the disk now is what a killed process leaves.
                let copy = tempfile::tempdir().unwrap();
                for entry in std::fs::read_dir(home.path()).unwrap() {
                    let path = entry.unwrap().path();
                    // A file that goes while it is copied is one that the housekeeper renames.
                    drop(std::fs::copy(&path, copy.path().join(path.file_name().unwrap())));
                }
                drop(log);
                home = copy;
                log = open(home.path(), options, &ground);
            }
            Step::Retain => {
                log.retain();
                model.trimmed = log.reader().first_seq() as usize - 1;
                let keep = options.retention;
                if let Some(count) = keep.count {
                    assert!(model.kept().len() as u64 >= count.min(model.events.len() as u64));
                }
            }
            Step::Read { from, kind, times } => check_read(&log, &model, from, kind, times),
            Step::Find(id) => check_find(&log, &model, id),
        }
        // The housekeeper may trim at any time.
        if options.retention != Retention::default() {
            model.trimmed = log.reader().first_seq() as usize - 1;
        }
    }
    check_all(&log, &model);
    drop(log);
    check_all(&open(home.path(), options, &ground), &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_vector_that_survives(steps in vec(step(), 1..40)) {
        run(steps, &options(3_000));
    }

    #[test]
    fn divided_it_counts_in_each_partition(steps in vec(step(), 1..30), by_type in any::<bool>()) {
        let by = if by_type { By::Type } else { By::Symbol };
        run(steps, &Options { partitions: Partitions::new(by, 5), ..options(3_000) });
    }

    #[test]
    fn in_one_segment_too(steps in vec(step(), 1..20)) {
        run(steps, &options(64 * 1024 * 1024));
    }
}

/// The clock is set back by a millisecond just after a start at the end of the window.
#[test]
fn a_clock_set_back_after_a_start_finds_no_id_forgotten() {
    let once = |id| Step::Append { events: vec![(id, 0, 0)], atomic: false };
    let window = u16::try_from(options(3_000).dedup_window_ms).unwrap();
    run(
        vec![once(56), Step::Clock(window + 1, false), Step::Reopen, Step::Clock(4, true), once(56)],
        &options(3_000),
    );
}

fn divided(count: u8) -> Options {
    let retention = Retention { count: Some(40), ..Retention::default() };
    Options { partitions: Partitions::new(By::Symbol, count), retention, ..options(64 * 1024) }
}

#[test]
fn a_log_keeps_its_partitions() {
    let home = tempfile::tempdir().unwrap();
    let (_, _, ground) = ground();
    // What holds nothing can still be divided.
    drop(open(home.path(), &options(4_096), &ground));
    let log = open(home.path(), &divided(4), &ground);
    log.append_blocking(vec![draft(1, 0, 0)], false).unwrap();
    drop(log);
    for other in [options(4_096), divided(5)] {
        let refused = Log::open(home.path(), &other, ground.clone()).unwrap_err();
        assert!(matches!(&refused, OpenError::Partitions { found, .. } if found == "symbol:4"), "{refused}");
    }
    open(home.path(), &divided(4), &ground);
}

/// The numbers of a partition whose events retention took are in a file; without it they go on behind all that can
/// have been given.
#[test]
fn numbers_outlive_retention() {
    for keeps in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let (_, _, ground) = ground();
        let options = divided(64);
        let log = open(home.path(), &options, &ground);
        // Three of ETH/USDT, then only BTC/USDT until those are gone.
        for id in [1, 3, 5].into_iter().chain((0..200).map(|n| 1_000 + n * 2)) {
            log.append_blocking(vec![draft(id, 0, 10)], false).unwrap();
        }
        log.retain();
        assert!(log.reader().first_seq() > 3);
        let first = log.reader().first_seq();
        drop(log);
        if !keeps {
            std::fs::remove_file(home.path().join("heads")).unwrap();
        }
        let log = open(home.path(), &options, &ground);
        log.append_blocking(vec![draft(7, 0, 0), draft(2, 0, 0)], false).unwrap();
        let found = all(&log.reader());
        let [.., eth, btc] = &found[..] else { panic!() };
        assert_eq!((eth.lane.seq, btc.lane.seq), (if keeps { 4 } else { first }, 201));
        assert_ne!(eth.lane.partition, btc.lane.partition);
    }
}

#[test]
fn retention_removes_whole_segments_from_the_front() {
    let home = tempfile::tempdir().unwrap();
    let (_, _, ground) = ground();
    let retention = Retention { count: Some(40), ..Retention::default() };
    let options = Options { retention, ..options(64 * 1024) };
    let log = open(home.path(), &options, &ground);
    for id in 0..200 {
        log.append_blocking(vec![draft(id, 0, 10)], false).unwrap();
    }
    log.retain();
    let stats = log.reader().stats();
    assert!((40..=46).contains(&stats.length), "{stats:?}");
    let found = all(&log.reader());
    assert_eq!(found.last().unwrap().stamp.seq, 200);
    assert_eq!(found.len() as u64, stats.length);
    // A scan that wanted what is gone is told so.
    let mut scan = log.reader().forward(1, Filter::default());
    scan.next().unwrap();
    let trimmed = scan.trimmed().unwrap();
    assert_eq!((trimmed.expected, trimmed.got), (1, stats.first_seq));
    // Ids go on rising over a restart.
    drop(log);
    let log = open(home.path(), &options, &ground);
    let receipt = log.append_blocking(vec![draft(999, 0, 0)], false).unwrap();
    assert_eq!(receipt.outcomes, [Outcome::Stored(Stamp { seq: 201, id: MessageId { ms: 1_000, n: 200 } })]);
}

#[test]
fn age_empties_the_log_and_ids_still_rise() {
    let home = tempfile::tempdir().unwrap();
    let (clock, _, ground) = ground();
    let retention = Retention { age_ms: Some(80), ..Retention::default() };
    let options = Options { retention, dedup_window_ms: 0, ..options(64 * 1024) };
    let log = open(home.path(), &options, &ground);
    log.append_blocking(vec![draft(1, 0, 0)], false).unwrap();
    clock.0.store(5_000, Ordering::SeqCst);
    log.append_blocking(vec![draft(2, 0, 0)], false).unwrap();
    log.retain();
    assert_eq!(all(&log.reader()).iter().map(|record| record.stamp.seq).collect::<Vec<_>>(), [2]);
    drop(log);
    clock.0.store(2, Ordering::SeqCst);
    let log = open(home.path(), &options, &ground);
    let receipt = log.append_blocking(vec![draft(3, 0, 0)], false).unwrap();
    assert_eq!(receipt.outcomes, [Outcome::Stored(Stamp { seq: 3, id: MessageId { ms: 5_000, n: 1 } })]);
}

#[test]
fn interval_mode_says_memory_and_shows_what_is_synced() {
    let home = tempfile::tempdir().unwrap();
    let (_, _, ground) = ground();
    let fsync = Fsync::Interval(std::time::Duration::from_millis(5));
    let options = Options { fsync, ..options(3_000) };
    let log = open(home.path(), &options, &ground);
    for id in 0..50 {
        let receipt = log.append_blocking(vec![draft(id, 0, 100)], false).unwrap();
        assert_eq!(receipt.durability.as_str(), "memory");
    }
    let receipt = log.append_blocking(vec![draft(49, 0, 100)], false).unwrap();
    assert!(matches!(receipt.outcomes[0], Outcome::Duplicate(Stamp { seq: 50, .. })));
    assert!(log.reader().wait_beyond(49, std::time::Duration::from_secs(5)));
    assert_eq!(all(&log.reader()).len(), 50);
    drop(log);
    assert_eq!(all(&open(home.path(), &options, &ground).reader()).len(), 50);
}

#[test]
fn a_directory_belongs_to_one_process() {
    let home = tempfile::tempdir().unwrap();
    let (_, _, ground) = ground();
    let log = open(home.path(), &options(4_096), &ground);
    let second = Log::open(home.path(), &options(4_096), ground.clone());
    assert!(second.unwrap_err().to_string().contains("in use by another process"));
    drop(log);
    open(home.path(), &options(4_096), &ground);
}
