//! Encryption, compression and archive of a log: switched on and off, keys that change, files that are moved about.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sluice_events::log::{AtRest, Filter, Ground, Log, OpenError, Retention};

use crate::world::{all, draft, encrypted, files, ground, keys, open, options};

const SEGMENT_BYTES: u64 = 4_096;

/// Appends events with these ids, each alone.
fn append(log: &Log, ids: std::ops::Range<u128>) {
    for id in ids {
        log.append_blocking(vec![draft(id, 7, 150)], false).unwrap();
    }
}

fn ids(log: &Log) -> Vec<u128> {
    all(&log.reader()).iter().map(|record| record.event_id).collect()
}

fn expect(log: &Log, until: u128) {
    assert_eq!(ids(log), (0..until).collect::<Vec<_>>());
    for id in 0..until {
        assert!(log.reader().by_event_id(id).unwrap().is_some(), "{id}");
    }
}

#[test]
fn what_is_switched_between_starts_leaves_one_log() {
    let home = tempfile::tempdir().unwrap();
    let (_, _, ground) = ground();
    let plain = AtRest::default();
    let forms = [
        plain.clone(),
        encrypted(),
        AtRest { compress: false, ..encrypted() },
        AtRest { encrypt: false, ..encrypted() },
        AtRest { keys: Some(keys(2)), ..encrypted() },
        AtRest { keys: Some(keys(3)), ..encrypted() },
        AtRest { compress: true, keys: Some(keys(3)), ..plain },
    ];
    let mut until = 0;
    for at_rest in forms {
        let ground = Ground { at_rest, ..ground.clone() };
        let log = open(home.path(), &options(SEGMENT_BYTES), &ground);
        append(&log, until..until + 40);
        until += 40;
        expect(&log, until);
        log.pack();
        expect(&log, until);
        drop(log);
        expect(&open(home.path(), &options(SEGMENT_BYTES), &ground), until);
    }
    // The newest keys open all of it; without the oldest it does not open, and says which is missing.
    let newest = sluice_events::log::Keyring::new(3, [(2, &[2; 32]), (3, &[3; 32])]).unwrap();
    let ground = Ground { at_rest: AtRest { keys: Some(Arc::new(newest)), ..encrypted() }, ..ground };
    let refused = Log::open(home.path(), &options(SEGMENT_BYTES), ground);
    assert!(matches!(refused, Err(OpenError::Key { id: 1, other: false, .. })), "{refused:?}");
}

#[test]
fn a_full_segment_is_compressed_under_its_readers() {
    let home = tempfile::tempdir().unwrap();
    let (_, _, ground) = ground();
    let closed = Ground { at_rest: AtRest { compress: false, ..encrypted() }, ..ground.clone() };
    append(&open(home.path(), &options(64 * 1024), &closed), 0..1_200);
    let before: u64 = sizes(home.path());
    let log = open(home.path(), &options(64 * 1024), &ground);
    let mut scan = log.reader().forward(1, Filter::default());
    for seq in 1..=10 {
        assert_eq!(scan.next().unwrap().unwrap().stamp.seq, seq);
    }
    // The housekeeper may have been quicker with some of them.
    log.pack();
    for seq in 11..=1_200 {
        assert_eq!(scan.next().unwrap().unwrap().stamp.seq, seq);
    }
    expect(&log, 1_200);
    drop((scan, log));
    assert!(sizes(home.path()) * 2 < before, "{} of {before}", sizes(home.path()));
    let log = open(home.path(), &options(64 * 1024), &ground);
    assert_eq!(log.recovered().reindexed, 0);
    expect(&log, 1_200);
}

fn sizes(dir: &Path) -> u64 {
    files(dir, "seg").iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn a_segment_that_cannot_be_compressed_stays() {
    let home = tempfile::tempdir().unwrap();
    let (_, disk, ground) = ground();
    let closed = Ground { at_rest: AtRest { compress: false, ..encrypted() }, ..ground.clone() };
    append(&open(home.path(), &options(SEGMENT_BYTES), &closed), 0..60);
    disk.fail_create.store(true, Ordering::SeqCst);
    let log = open(home.path(), &options(SEGMENT_BYTES), &ground);
    assert_eq!(log.pack(), 0);
    expect(&log, 60);
    disk.fail_create.store(false, Ordering::SeqCst);
    append(&log, 60..70);
    expect(&log, 70);
    drop(log);
    expect(&open(home.path(), &options(SEGMENT_BYTES), &ground), 70);
}

#[test]
fn segments_and_blocks_that_were_moved_are_noticed() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, _, ground) = ground();
    for dir in [&home, &other] {
        append(&open(dir.path(), &options(SEGMENT_BYTES), &ground), 0..60);
    }
    let (own, foreign) = (files(home.path(), "seg"), files(other.path(), "seg"));
    assert_eq!(own.len(), foreign.len());
    let copy = |from: &Path, to: &Path| {
        let kept = fs::read(to).unwrap();
        fs::copy(from, to).unwrap();
        drop(fs::remove_file(to.with_extension("idx")));
        kept
    };
    let refused = || {
        let opened = Log::open(home.path(), &options(SEGMENT_BYTES), ground.clone());
        match opened {
            Err(OpenError::Corrupt { .. }) => true,
            Err(error) => panic!("{error}"),
            Ok(log) => {
                let mut scan = log.reader().forward(0, Filter::default());
                loop {
                    match scan.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => break false,
                        Err(_) => break true,
                    }
                }
            }
        }
    };
    assert!(!refused());
    // The same segment of another log with the same keys; another segment of this one; one that is missing.
    let kept = copy(&foreign[1], &own[1]);
    assert!(refused());
    fs::write(&own[1], kept).unwrap();
    assert!(!refused());
    let kept = copy(&own[2], &own[1]);
    assert!(refused());
    fs::write(&own[1], kept).unwrap();
    let kept = fs::read(&own[1]).unwrap();
    fs::write(&own[1], &kept[..kept.len() - 8]).unwrap();
    drop(fs::remove_file(own[1].with_extension("idx")));
    assert!(refused());
}

/// The same disk after a cut and after a full one: what is written again is written under other nonces.
#[test]
fn what_is_written_again_is_never_encrypted_alike() {
    let home = tempfile::tempdir().unwrap();
    let (_, disk, ground) = ground();
    let ground = Ground { at_rest: AtRest { compress: false, ..encrypted() }, ..ground };
    drop(open(home.path(), &options(1 << 20), &ground));
    let path = files(home.path(), "seg").pop().unwrap();
    let mut seen = std::collections::HashSet::new();
    for round in 0..8 {
        let log = open(home.path(), &options(1 << 20), &ground);
        if round % 2 == 1 {
            // Half of the commit reaches the disk, and is taken back.
            disk.room.store(64 + 300, Ordering::SeqCst);
            log.append_blocking(vec![draft(1, 7, 400)], false).unwrap_err();
            disk.room.store(u64::MAX, Ordering::SeqCst);
        }
        log.append_blocking(vec![draft(1, 7, 400)], false).unwrap();
        let mut frame = [0; 64];
        fs::File::open(&path).unwrap().read_exact_at(&mut frame, 64).unwrap();
        assert!(seen.insert((frame[16..24].to_vec(), frame[40..56].to_vec())), "epoch and nonce came again");
        drop(log);
        // As a start that finds the commit torn.
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(64 + 100).unwrap();
    }
}

fn archiving(at_rest: AtRest, dir: &Path) -> AtRest {
    AtRest { archive: Some(dir.to_owned()), ..at_rest }
}

#[test]
fn an_archive_opens_as_a_log_and_is_added_to() {
    let (home, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = archive.path().join("s.log");
    let ground = Ground { at_rest: archiving(encrypted(), &dir), ..ground().2 };
    let log = open(home.path(), &options(SEGMENT_BYTES), &ground);
    assert!(log.archive().unwrap().copied.is_empty(), "an empty segment is not closed");
    append(&log, 0..50);
    let first = log.archive().unwrap();
    assert_eq!(first.copied.iter().map(|segment| segment.events).sum::<u64>(), 50);
    append(&log, 50..60);
    // A copy that a crash cut short, and one without its note, are made again.
    fs::write(dir.join(&first.copied[0].file), b"half").unwrap();
    fs::remove_file(dir.join(&first.copied[1].file).with_extension("json")).unwrap();
    fs::write(dir.join("00000000000000000001.tmp"), b"rest").unwrap();
    let second = log.archive().unwrap();
    let begins: Vec<u64> = second.copied.iter().map(|segment| segment.first_seq).collect();
    assert_eq!(begins, [first.copied[0].first_seq, first.copied[1].first_seq, 51]);
    assert_eq!(second.held, first.copied.len() as u64 - 2);
    assert!(log.archive().unwrap().copied.is_empty());
    for note in second.copied.iter().chain(&first.copied[2..]) {
        let bytes = fs::read(dir.join(&note.file)).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        let sha256: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((bytes.len() as u64, &sha256), (note.bytes, &note.sha256));
    }
    drop(log);
    expect(&open(&dir, &options(SEGMENT_BYTES), &Ground { at_rest: encrypted(), ..ground }), 60);
}

#[test]
fn retention_drops_what_is_archived_and_nothing_else() {
    let (home, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, _, ground) = ground();
    // No folder can be made where a file is.
    let blocked = archive.path().join("blocked");
    fs::write(&blocked, b"").unwrap();
    let options = sluice_events::log::Options {
        retention: Retention { count: Some(16), ..Retention::default() },
        ..options(SEGMENT_BYTES)
    };
    let stuck = Ground { at_rest: archiving(encrypted(), &blocked.join("s.log")), ..ground.clone() };
    let log = open(home.path(), &options, &stuck);
    append(&log, 0..60);
    assert_eq!(log.retain(), 0);
    assert!(log.archive().is_err());
    expect(&log, 60);
    drop(log);
    let dir = archive.path().join("s.log");
    let log =
        open(home.path(), &options, &Ground { at_rest: archiving(encrypted(), &dir), ..ground.clone() });
    log.retain();
    let kept = ids(&log);
    assert!((16..=18).contains(&kept.len()), "{kept:?}");
    drop(log);
    let archived = ids(&open(&dir, &options_without_bound(), &ground));
    assert_eq!([archived, kept].concat(), (0..60).collect::<Vec<_>>());
}

#[test]
fn the_archive_is_another_folder_than_the_log() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("s.log");
    let at_rest = archiving(encrypted(), &home.path().join("x/../s.log"));
    fs::create_dir_all(home.path().join("x")).unwrap();
    let refused = Log::open(&dir, &options(SEGMENT_BYTES), Ground { at_rest, ..ground().2 });
    assert!(matches!(refused, Err(OpenError::Archive(_))), "{refused:?}");
}

fn options_without_bound() -> sluice_events::log::Options {
    options(SEGMENT_BYTES)
}
