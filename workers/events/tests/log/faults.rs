//! A disk that is full, a sync that fails: what is answered, and what is there afterwards.

use std::sync::atomic::Ordering;

use sluice_events::log::{AppendError, Outcome, Stamp};

use crate::world::{all, draft, ground, open, options};

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
