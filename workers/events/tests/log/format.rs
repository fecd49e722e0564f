//! The format on disk, version 1: the same events always give the same bytes, and those of the fixture open.
//!
//! `SLUICE_BLESS=1` writes the fixture; only a new format version may need that, in a new folder.

use std::fs;
use std::path::PathBuf;

use crate::world::{all, draft, ground, open, options};

const SEGMENT_BYTES: u64 = 2_048;
const EVENTS: u128 = 40;

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/log-v1")
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(fixture())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn version_1_is_written_as_it_always_was() {
    let home = tempfile::tempdir().unwrap();
    let (_, _, ground) = ground();
    let log = open(home.path(), &options(SEGMENT_BYTES), &ground);
    for id in 0..EVENTS {
        log.append_blocking(vec![draft(id, 5, (id * 17 % 90) as usize)], false).unwrap();
    }
    drop(log);
    fs::remove_file(home.path().join("lock")).unwrap();
    if std::env::var_os("SLUICE_BLESS").is_some() {
        fs::create_dir_all(fixture()).unwrap();
        for entry in fs::read_dir(home.path()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, fixture().join(path.file_name().unwrap())).unwrap();
        }
    }
    assert!(names().len() >= 4);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), names().len());
    for name in names() {
        let (then, now) =
            (fs::read(fixture().join(&name)).unwrap(), fs::read(home.path().join(&name)).unwrap());
        assert!(then == now, "{name} is written in another way than in version 1");
    }
}

#[test]
fn version_1_opens() {
    let home = tempfile::tempdir().unwrap();
    for name in names() {
        fs::copy(fixture().join(&name), home.path().join(&name)).unwrap();
    }
    let (_, _, ground) = ground();
    let log = open(home.path(), &options(SEGMENT_BYTES), &ground);
    assert_eq!(log.recovered().reindexed, 0);
    let found = all(&log.reader());
    assert_eq!(found.len() as u128, EVENTS);
    for (id, record) in (0_u128..).zip(&found) {
        assert_eq!((record.stamp.seq, record.stamp.id.ms, record.event_id), (id as u64 + 1, 1_000, id));
        assert_eq!((record.symbol(), record.source()), (["BTC/USDT", "ETH/USDT"][(id % 2) as usize], "test"));
    }
}
