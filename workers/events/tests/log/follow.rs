//! Who follows the log closely: what was just written comes from memory, and is what the files hold.

use std::fs;

use sluice_events::log::{Filter, Forward, Record};

use crate::world::{all, draft, files, ground, open, options};

fn drain(scan: &mut Forward) -> Vec<Record> {
    scan.extend();
    std::iter::from_fn(|| scan.next().unwrap()).collect()
}

#[test]
fn a_follower_sees_every_event_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &options(4_096), &ground().2);
    let mut close = log.reader().follow(1);
    let mut late = log.reader().follow(1);
    let mut seen = Vec::new();
    for id in 0..300 {
        // Commits of one and of several, and segments that end in between.
        let drafts = (0..=id % 4).map(|n| draft(id * 10 + n, 7, (id * 31 % 300) as usize)).collect();
        log.append_blocking(drafts, false).unwrap();
        if id % 3 > 0 {
            seen.extend(drain(&mut close));
        }
    }
    seen.extend(drain(&mut close));
    let written = all(&log.reader());
    assert!(files(dir.path(), "seg").len() > 5);
    for found in [seen, drain(&mut late)] {
        assert_eq!(found.len(), written.len());
        assert!(found.iter().zip(&written).all(|(left, right)| left.stamp == right.stamp
            && (left.kind(), left.json()) == (right.kind(), right.json())));
    }
}

#[test]
fn what_was_just_written_is_not_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &options(1 << 20), &ground().2);
    log.append_blocking((0..3).map(|id| draft(id, 7, 50)).collect(), false).unwrap();
    let path = &files(dir.path(), "seg")[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[200] ^= 1;
    fs::write(path, bytes).unwrap();
    assert_eq!(drain(&mut log.reader().follow(1)).len(), 3);
    assert!(log.reader().forward(1, Filter::default()).next().is_err(), "a read of the disk is checked");
}
