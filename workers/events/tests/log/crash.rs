//! kill -9, again and again: what was acknowledged is there, where it was.
//!
//! The test starts itself as a child that appends on the real disk and notes each answer in a file; the child is
//! killed at a random moment. The log must then open, hold everything noted under the noted ids, and begin with
//! exactly what it held after the kill before. The log is encrypted, and full segments are compressed meanwhile, so
//! kills meet that too. `SLUICE_LONG=1` kills 200 times.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sluice_events::log::{Fsync, Ground, Log, Options, Outcome, Retention};

use crate::world::{all, draft, encrypted};

const HOME: &str = "SLUICE_TEST_CRASH_HOME";
const ROUNDS: u64 = 24;
const ROUNDS_LONG: u64 = 200;
const THREADS: u64 = 8;

fn options() -> Options {
    Options {
        fsync: Fsync::Always,
        retention: Retention::default(),
        dedup_window_ms: 600_000,
        segment_bytes: 128 * 1024,
        partitions: None,
    }
}

fn ground() -> Ground {
    Ground { at_rest: encrypted(), ..Ground::default() }
}

/// Not a test of its own: the child of the test below.
#[test]
fn child_that_is_killed() {
    let Some(home) = std::env::var_os(HOME).map(PathBuf::from) else { return };
    let log = Log::open(&home.join("log"), &options(), ground()).unwrap();
    let acks = OpenOptions::new().append(true).create(true).open(home.join("acks")).unwrap();
    let next = Arc::new(AtomicU64::new(log.reader().durable_seq() * 1_000));
    let until = Instant::now() + Duration::from_secs(20);
    thread::scope(|scope| {
        for lane in 0..THREADS {
            let (log, next, mut acks) = (log.clone(), Arc::clone(&next), acks.try_clone().unwrap());
            scope.spawn(move || {
                while Instant::now() < until {
                    publish(&log, &next, &mut acks, lane);
                }
            });
        }
    });
}

fn publish(log: &Log, next: &AtomicU64, acks: &mut File, lane: u64) {
    let count = if lane == 0 { 40 } else { 1 + lane % 3 };
    let first = next.fetch_add(count, Ordering::SeqCst);
    let ids = first..first + count;
    let drafts = ids.clone().map(|id| draft(u128::from(id), id, (id * 7 % 400) as usize)).collect();
    let receipt = log.append_blocking(drafts, lane == 0).unwrap();
    let mut lines = Vec::new();
    for (id, outcome) in ids.zip(receipt.outcomes) {
        let Outcome::Stored(stamp) = outcome else { panic!("{outcome:?}") };
        writeln!(lines, "{id} {} {}", stamp.seq, stamp.id).unwrap();
    }
    // One write, so that a kill leaves whole lines or none.
    acks.write_all(&lines).unwrap();
}

fn start(home: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_that_is_killed", "--nocapture"])
        .env(HOME, home)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the child has noted so many bytes more, or fails.
fn wait_for_acks(path: &Path, child: &mut Child, bytes: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let len = fs::metadata(path).map_or(0, |meta| meta.len());
        if len >= bytes {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        assert!(Instant::now() < deadline, "{len} of {bytes} bytes noted");
        thread::yield_now();
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let home = tempfile::tempdir().unwrap();
    let acks = home.path().join("acks");
    let mut before: Vec<(u64, String, u128)> = Vec::new();
    let mut random = 0x9e37_79b9_u64;
    let rounds = if std::env::var_os("SLUICE_LONG").is_some() { ROUNDS_LONG } else { ROUNDS };
    for round in 0..rounds {
        let noted = fs::metadata(&acks).map_or(0, |meta| meta.len());
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round | 1);
        let mut child = start(home.path());
        wait_for_acks(&acks, &mut child, noted + random % 6_000);
        child.kill().unwrap();
        child.wait().unwrap();
        // Every few rounds the log is read; in between the next child opens what the kill left.
        if round % 8 == 7 || round + 1 == rounds {
            before = check(home.path(), &acks, &before);
        }
    }
    assert!(before.len() > 1_000, "only {} events were written", before.len());
}

fn check(home: &Path, acks: &Path, before: &[(u64, String, u128)]) -> Vec<(u64, String, u128)> {
    let log = Log::open(&home.join("log"), &options(), ground()).unwrap();
    let records = all(&log.reader());
    let found: Vec<(u64, String, u128)> = records
        .iter()
        .map(|record| (record.stamp.seq, record.stamp.id.to_string(), record.event_id))
        .collect();
    assert_eq!(&found[..before.len()], before, "what was there has changed");
    for (at, pair) in records.windows(2).enumerate() {
        assert_eq!(pair[0].stamp.seq, at as u64 + 1);
        assert!(pair[0].stamp.id < pair[1].stamp.id);
    }
    for line in fs::read_to_string(acks).unwrap().lines() {
        let mut words = line.split(' ');
        let (id, seq, message_id) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let seq: usize = seq.parse().unwrap();
        let stored = found.get(seq - 1).unwrap_or_else(|| panic!("lost: {line}"));
        assert_eq!((stored.1.as_str(), stored.2.to_string().as_str()), (message_id, id), "moved: {line}");
    }
    found
}
