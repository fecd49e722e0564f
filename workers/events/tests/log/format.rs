//! The formats on disk: what was written by older versions opens, and what this one writes without a key is always the
//! same bytes. (An encrypted file never is: its fixture opens.)
//!
//! `SLUICE_BLESS=1` writes the fixtures of the present version; only a new one may need that, in new folders.

use std::fs;
use std::path::{Path, PathBuf};

use sluice_events::log::{AtRest, By, Ground, OpenError, Options, Partitions, Record};

use crate::world::{all, draft, encrypted, files, ground, keys, open, options};

const SEGMENT_BYTES: u64 = 2_048;
const EVENTS: u128 = 40;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The ground of these tests with the files written so.
fn so(at_rest: AtRest) -> Ground {
    Ground { at_rest, ..ground().2 }
}

/// The options that a fixture was written with.
fn of_fixture(name: &str) -> Options {
    let partitions = if name.starts_with("log-v3") { Partitions::new(By::Symbol, 4) } else { None };
    Options { partitions, ..options(SEGMENT_BYTES) }
}

/// Writes the events of the fixtures; `name` is where they go when fixtures are written.
fn write(dir: &Path, at_rest: AtRest, name: &str) {
    let log = open(dir, &of_fixture(name), &so(at_rest));
    for id in 0..EVENTS {
        log.append_blocking(vec![draft(id, 5, (id * 17 % 90) as usize)], false).unwrap();
    }
    log.pack();
    drop(log);
    fs::remove_file(dir.join("lock")).unwrap();
    if std::env::var_os("SLUICE_BLESS").is_some() {
        copy(dir, &fixture(name));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn check(found: &[Record]) {
    assert_eq!(found.len() as u128, EVENTS);
    for (id, record) in (0_u128..).zip(found) {
        assert_eq!((record.stamp.seq, record.stamp.id.ms, record.event_id), (id as u64 + 1, 1_000, id));
        assert_eq!((record.symbol(), record.source()), (["BTC/USDT", "ETH/USDT"][(id % 2) as usize], "test"));
        assert!(record.json().ends_with(b"\"}"));
    }
}

/// Opens a copy of a fixture and looks at every event in it.
fn opens(name: &str, at_rest: AtRest) {
    let home = tempfile::tempdir().unwrap();
    copy(&fixture(name), home.path());
    let segments = files(home.path(), "seg").len();
    let log = open(home.path(), &of_fixture(name), &so(at_rest));
    assert_eq!(log.recovered().reindexed, 0, "its indexes are read too");
    assert!(segments > 2);
    check(&all(&log.reader()));
    for id in 0..EVENTS {
        assert!(log.reader().by_event_id(id).unwrap().is_some());
    }
}

#[test]
fn version_1_opens_and_is_gone_on_with() {
    opens("log-v1", AtRest::default());
    // Encryption is switched on: what was there stays, what comes is encrypted, and all is one log.
    let home = tempfile::tempdir().unwrap();
    copy(&fixture("log-v1"), home.path());
    let before = files(home.path(), "seg").len();
    for round in 0..2 {
        let log = open(home.path(), &options(SEGMENT_BYTES), &so(encrypted()));
        log.append_blocking(vec![draft(100 + round, 5, 0)], false).unwrap();
        let found = all(&log.reader());
        check(&found[..EVENTS as usize]);
        assert_eq!(u128::from(found.last().unwrap().stamp.seq), EVENTS + round + 1);
    }
    assert_eq!(files(home.path(), "seg").len(), before + 1, "a restart goes on in the same segment");
}

fn is_written_as_it_always_was(name: &str) {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), AtRest::default(), name);
    assert!(names(&fixture(name)).len() >= 4);
    assert_eq!(names(home.path()), names(&fixture(name)));
    for file in names(home.path()) {
        let (then, now) =
            (fs::read(fixture(name).join(&file)).unwrap(), fs::read(home.path().join(&file)).unwrap());
        assert!(then == now, "{file} is written in another way than it was");
    }
    opens(name, AtRest::default());
}

#[test]
fn version_2_is_written_as_it_always_was() {
    is_written_as_it_always_was("log-v2");
}

#[test]
fn version_3_is_version_2_divided_into_partitions() {
    is_written_as_it_always_was("log-v3");
    let home = tempfile::tempdir().unwrap();
    copy(&fixture("log-v3"), home.path());
    let found = all(&open(home.path(), &of_fixture("log-v3"), &so(AtRest::default())).reader());
    let mut next = std::collections::BTreeMap::new();
    for record in found {
        let expected = next.entry(record.lane.partition).or_insert(1);
        assert_eq!(record.lane.seq, *expected);
        *expected += 1;
    }
    // Each symbol has half of the events, wherever they go.
    assert_eq!(next.values().sum::<u64>() - next.len() as u64, EVENTS as u64);
}

/// Its bytes are the compressor's affair; that they are read back is ours.
#[test]
fn version_2_compressed_opens() {
    if std::env::var_os("SLUICE_BLESS").is_some() {
        let at_rest = AtRest { compress: true, ..AtRest::default() };
        write(tempfile::tempdir().unwrap().path(), at_rest, "log-v2-compressed");
    }
    opens("log-v2-compressed", AtRest::default());
}

#[test]
fn version_2_encrypted_opens_with_its_key_alone() {
    if std::env::var_os("SLUICE_BLESS").is_some() {
        write(tempfile::tempdir().unwrap().path(), encrypted(), "log-v2-encrypted");
    }
    opens("log-v2-encrypted", encrypted());
    opens("log-v2-encrypted", AtRest { encrypt: false, ..encrypted() });
    opens("log-v2-encrypted", AtRest { keys: Some(keys(3)), ..encrypted() });
    let other = sluice_events::log::Keyring::new(1, [(1, &[9; 32])]).unwrap();
    for (keys, is_other) in [(None, false), (Some(std::sync::Arc::new(other)), true)] {
        let at_rest = AtRest { keys, encrypt: false, ..AtRest::default() };
        let home = tempfile::tempdir().unwrap();
        copy(&fixture("log-v2-encrypted"), home.path());
        let refused = sluice_events::log::Log::open(home.path(), &options(SEGMENT_BYTES), so(at_rest));
        let Err(OpenError::Key { id: 1, other, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(other, is_other);
        fs::remove_file(home.path().join("lock")).unwrap();
        assert_eq!(names(home.path()), names(&fixture("log-v2-encrypted")), "nothing was changed");
    }
}

#[test]
fn nothing_of_an_event_lies_in_the_clear() {
    for name in names(&fixture("log-v2-encrypted")) {
        let bytes = fs::read(fixture("log-v2-encrypted").join(&name)).unwrap();
        for word in ["trading", "market", "USDT", "pad", "test"] {
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "{word} in {name}");
        }
    }
}
