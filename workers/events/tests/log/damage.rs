//! Damaged files: named and refused, never served, and never a reason to lose the events of other files.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use sluice_events::log::{Filter, Ground, Log, OpenError, Record};

use crate::world::{all, draft, files, ground, open, options};

const SEGMENT_BYTES: u64 = 4_096;

/// A closed log of several segments; its events.
fn filled(dir: &Path, ground: &Ground, events: u128) -> Vec<Record> {
    let log = open(dir, &options(SEGMENT_BYTES), ground);
    for id in 0..events {
        log.append_blocking(vec![draft(id, 7, (id * 31 % 200) as usize)], false).unwrap();
    }
    all(&log.reader())
}

fn flip(path: &Path, bit: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
}

fn same(left: &Record, right: &Record) -> bool {
    left.stamp == right.stamp && left.json() == right.json() && left.event_id == right.event_id
}

/// Whether damage was noticed: at open, or at the first read that meets it; and that nothing wrong was served.
fn noticed(dir: &Path, ground: &Ground, written: &[Record]) -> bool {
    let log = match Log::open(dir, &options(SEGMENT_BYTES), ground.clone()) {
        Ok(log) => log,
        Err(OpenError::Corrupt { .. } | OpenError::Version { .. } | OpenError::Tail(_)) => return true,
        Err(other) => panic!("{other}"),
    };
    let mut scan = log.reader().forward(0, Filter::default());
    for wanted in written {
        match scan.next() {
            Ok(Some(record)) => assert!(same(&record, wanted), "served what was not written"),
            Ok(None) => panic!("lost {:?} without a word", wanted.stamp),
            Err(error) => {
                assert!(error.to_string().contains(".seg"), "{error}");
                return true;
            }
        }
    }
    false
}

/// The files of version 1, which nothing writes any longer.
fn version_1(dir: &Path) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log-v1");
    for entry in fs::read_dir(fixture).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_in_a_segment_is_noticed(file in 0.0..1.0_f64, place in 0.0..1.0_f64) {
        let home = tempfile::tempdir().unwrap();
        let (_, _, ground) = ground();
        let written = filled(home.path(), &ground, 60);
        let segments = files(home.path(), "seg");
        prop_assert!(segments.len() > 3);
        let path = &segments[(file * segments.len() as f64) as usize];
        let bits = fs::metadata(path).unwrap().len() as f64 * 8.0;
        flip(path, (place * bits) as usize);
        prop_assert!(noticed(home.path(), &ground, &written));
    }

    #[test]
    fn a_flipped_bit_in_a_segment_of_version_1_is_noticed(file in 0.0..1.0_f64, place in 0.0..1.0_f64) {
        let home = tempfile::tempdir().unwrap();
        let (_, _, ground) = ground();
        version_1(home.path());
        let written = all(&open(home.path(), &options(SEGMENT_BYTES), &ground).reader());
        version_1(home.path());
        // The last one is the new version's, and empty.
        let mut segments = files(home.path(), "seg");
        segments.pop();
        let path = &segments[(file * segments.len() as f64) as usize];
        let bits = fs::metadata(path).unwrap().len() as f64 * 8.0;
        flip(path, (place * bits) as usize);
        prop_assert!(noticed(home.path(), &ground, &written));
    }

    #[test]
    fn a_flipped_bit_in_an_index_costs_nothing(file in 0.0..1.0_f64, place in 0.0..1.0_f64) {
        let home = tempfile::tempdir().unwrap();
        let (_, _, ground) = ground();
        let written = filled(home.path(), &ground, 60);
        let indexes = files(home.path(), "idx");
        let path = &indexes[(file * indexes.len() as f64) as usize];
        flip(path, (place * fs::metadata(path).unwrap().len() as f64 * 8.0) as usize);
        prop_assert!(!noticed(home.path(), &ground, &written));
        let log = open(home.path(), &options(SEGMENT_BYTES), &ground);
        for record in &written {
            prop_assert!(log.reader().by_event_id(record.event_id).unwrap().is_some());
        }
    }
}

#[test]
fn a_lost_index_is_made_again() {
    let home = tempfile::tempdir().unwrap();
    let (_, _, ground) = ground();
    let written = filled(home.path(), &ground, 60);
    let indexes = files(home.path(), "idx");
    for path in &indexes {
        fs::remove_file(path).unwrap();
    }
    let log = open(home.path(), &options(SEGMENT_BYTES), &ground);
    assert_eq!(log.recovered().reindexed, indexes.len() as u64);
    assert!(all(&log.reader()).iter().zip(&written).all(|(left, right)| same(left, right)));
    drop(log);
    assert_eq!(open(home.path(), &options(SEGMENT_BYTES), &ground).recovered().reindexed, 0);
    assert_eq!(files(home.path(), "idx"), indexes);
}

#[test]
fn a_lost_segment_is_named() {
    let home = tempfile::tempdir().unwrap();
    let (_, _, ground) = ground();
    filled(home.path(), &ground, 60);
    let segments = files(home.path(), "seg");
    fs::remove_file(&segments[1]).unwrap();
    let error = Log::open(home.path(), &options(SEGMENT_BYTES), ground.clone()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(segments[2].file_name().unwrap().to_str().unwrap()), "{text}");
}

#[test]
fn the_last_record_torn_at_any_byte_is_cut_off_and_the_rest_stands() {
    let home = tempfile::tempdir().unwrap();
    let (_, _, ground) = ground();
    let written = filled(home.path(), &ground, 12);
    // The last one holds several: the segments are not full.
    let path = files(home.path(), "seg").pop().unwrap();
    let whole = fs::read(&path).unwrap();
    // One record a frame: the last frame is the last record's.
    let mut begin = 64;
    loop {
        let len = u32::from_le_bytes(whole[begin..begin + 4].try_into().unwrap()) as usize;
        if begin + len.next_multiple_of(8) >= whole.len() {
            break;
        }
        begin += len.next_multiple_of(8);
    }
    for cut in begin..whole.len() {
        for reserved in [0, 4_096] {
            let mut torn = whole[..cut].to_vec();
            if reserved > 0 {
                torn.resize(whole.len() + reserved, 0);
            }
            if torn.starts_with(&whole) {
                continue;
            }
            fs::write(&path, &torn).unwrap();
            let log = open(home.path(), &options(SEGMENT_BYTES), &ground);
            let found = all(&log.reader());
            assert_eq!(found.len() + 1, written.len(), "cut at {cut}");
            assert!(found.iter().zip(&written).all(|(left, right)| same(left, right)));
        }
    }
}

#[test]
fn what_an_interrupted_step_left_behind_is_removed() {
    let home = tempfile::tempdir().unwrap();
    let (_, _, ground) = ground();
    filled(home.path(), &ground, 5);
    for name in ["00000000000000000099.tmp", "00000000000000000099.idx", "00000000000000000001.idx.tmp"] {
        fs::write(home.path().join(name), b"rest").unwrap();
    }
    drop(open(home.path(), &options(SEGMENT_BYTES), &ground));
    assert!(files(home.path(), "tmp").is_empty());
    assert!(!home.path().join("00000000000000000099.idx").exists());
}
