//! A disk that is full, a sync that fails: what is answered, and what is there afterwards.

use std::process::Command;
use std::sync::atomic::Ordering;

use sluice_events::log::{AppendError, AtRest, Ground, Outcome, Stamp};

use crate::world::{all, draft, encrypted, ground, open, options};

fn stored(outcome: &Outcome) -> Stamp {
    match outcome {
        Outcome::Stored(stamp) => *stamp,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_disk_refuses_and_then_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let (_, disk, ground) = ground();
    let log = open(home.path(), &options(1024 * 1024), &ground);
    let first = log.append_blocking(vec![draft(1, 0, 100)], false).unwrap();
    disk.room.store(2_000, Ordering::SeqCst);
    // Drop what was reserved before the disk filled up.
    drop(log);
    let log = open(home.path(), &options(1024 * 1024), &ground);
    for _ in 0..3 {
        let refused = log.append_blocking(vec![draft(2, 0, 5_000)], false);
        assert!(matches!(refused, Err(AppendError::Full)), "{refused:?}");
    }
    // What is small enough still fits, and a known event is still known.
    let small = log.append_blocking(vec![draft(3, 0, 10)], false).unwrap();
    assert_eq!(stored(&small.outcomes[0]).seq, stored(&first.outcomes[0]).seq + 1);
    let again = log.append_blocking(vec![draft(1, 0, 100)], false).unwrap();
    assert_eq!(again.outcomes, [Outcome::Duplicate(stored(&first.outcomes[0]))]);
    disk.room.store(u64::MAX, Ordering::SeqCst);
    let large = log.append_blocking(vec![draft(2, 0, 5_000)], false).unwrap();
    assert_eq!(stored(&large.outcomes[0]).seq, 3);
    drop(log);
    let log = open(home.path(), &options(1024 * 1024), &ground);
    assert_eq!(all(&log.reader()).iter().map(|record| record.event_id).collect::<Vec<_>>(), [1, 3, 2]);
}

#[test]
fn a_segment_that_cannot_begin_refuses_and_then_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let (_, disk, ground) = ground();
    let log = open(home.path(), &options(1_000), &ground);
    log.append_blocking(vec![draft(1, 0, 900)], false).unwrap();
    disk.fail_create.store(true, Ordering::SeqCst);
    let refused = log.append_blocking(vec![draft(2, 0, 900)], false);
    assert!(matches!(refused, Err(AppendError::Full)));
    disk.fail_create.store(false, Ordering::SeqCst);
    log.append_blocking(vec![draft(2, 0, 900)], false).unwrap();
    drop(log);
    assert_eq!(all(&open(home.path(), &options(1_000), &ground).reader()).len(), 2);
}

#[test]
fn a_failed_sync_is_the_end_and_never_an_answer() {
    let home = tempfile::tempdir().unwrap();
    let (_, disk, ground) = ground();
    let log = open(home.path(), &options(1024 * 1024), &ground);
    log.append_blocking(vec![draft(1, 0, 0)], false).unwrap();
    disk.fail_sync.store(true, Ordering::SeqCst);
    let failed = log.append_blocking(vec![draft(2, 0, 0)], false);
    assert!(matches!(failed, Err(AppendError::Failed(_))), "{failed:?}");
    disk.fail_sync.store(false, Ordering::SeqCst);
    // The disk is well again: still nothing is taken, and what was not durable is not shown.
    let after = log.append_blocking(vec![draft(3, 0, 0)], false);
    assert!(matches!(after, Err(AppendError::Failed(_))), "{after:?}");
    assert!(log.fatal().unwrap().to_string().contains("sync of"));
    assert_eq!(all(&log.reader()).len(), 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(log.failed());
}

#[test]
fn a_failed_write_is_the_end_too() {
    let home = tempfile::tempdir().unwrap();
    let (_, disk, ground) = ground();
    let log = open(home.path(), &options(1024 * 1024), &ground);
    disk.fail_write.store(true, Ordering::SeqCst);
    let failed = log.append_blocking(vec![draft(2, 0, 0)], false);
    assert!(matches!(failed, Err(AppendError::Failed(_))), "{failed:?}");
    assert!(log.fatal().is_some());
}

/// A file system of its own, gone with the test.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None` where this user may not mount one; the faulty disk of the other tests then has to do.
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes},mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir.path()).output();
        mounted.is_ok_and(|done| done.status.success()).then_some(Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0.path()).output());
    }
}

#[test]
fn a_real_disk_that_is_full_refuses_and_takes_events_again_without_a_restart() {
    let Some(disk) = Tmpfs::mount(1 << 20) else { return };
    // Compressing would make room while the test looks at a full disk.
    let ground = Ground { at_rest: AtRest { compress: false, ..encrypted() }, ..Ground::default() };
    let dir = disk.0.path().join("log");
    let ballast = disk.0.path().join("ballast");
    let log = open(&dir, &options(200_000), &ground);
    std::fs::write(&ballast, vec![1; 300_000]).unwrap();
    let mut acknowledged = Vec::new();
    let mut id = 0;
    let fill = |acknowledged: &mut Vec<u128>, id: &mut u128| loop {
        let drafts = (0..4).map(|i| draft(*id + i, 0, 700)).collect();
        match log.append_blocking(drafts, true) {
            Ok(_) => acknowledged.extend(*id..*id + 4),
            Err(AppendError::Full) => break,
            Err(error) => panic!("{error}"),
        }
        *id += 4;
        assert!(*id < 100_000, "the disk does not fill up");
    };
    fill(&mut acknowledged, &mut id);
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    for _ in 0..3 {
        let refused = log.append_blocking(vec![draft(id, 0, 60_000)], false);
        assert!(matches!(refused, Err(AppendError::Full)), "{refused:?}");
    }
    let found = |log: &sluice_events::log::Log| -> Vec<u128> {
        all(&log.reader()).iter().map(|record| record.event_id).collect()
    };
    assert_eq!(found(&log), acknowledged, "nothing refused is stored");
    std::fs::remove_file(&ballast).unwrap();
    log.append_blocking(vec![draft(id, 0, 60_000)], false).unwrap();
    acknowledged.push(id);
    id += 1;
    fill(&mut acknowledged, &mut id);
    assert_eq!(found(&log), acknowledged);
    drop(log);
    assert_eq!(found(&open(&dir, &options(200_000), &ground)), acknowledged);
}
