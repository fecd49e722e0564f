//! A log of many files: the chain goes on, the oldest go, and what is missing is named.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sluice_audit::{Entry, Fault, FaultKind, Limits, Log, OpenError, Query, Since, WhenFull, verify};
use tempfile::TempDir;

const SMALL: Limits = Limits { file: 2_000, keep: 1 << 40, age: None, when_full: WhenFull::Retire };

fn ts(second: u64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second as i64).unwrap()
}

fn write(path: &Path, limits: Limits, from: u64, to: u64) {
    let log = Log::open_with(path, "vault", limits).unwrap();
    for n in from..=to {
        log.append(Entry::new("secret", "read").path(format!("services/a/{n}")).anchor(n), ts(n)).unwrap();
    }
}

fn written(limits: Limits, count: u64) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("audit/vault.jsonl");
    write(&path, limits, 1, count);
    (dir, path)
}

/// The files of the log, oldest first, the one that is written last.
fn files(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|file| file != path && file.extension().unwrap() == "jsonl").collect();
    files.sort_unstable();
    files.push(path.to_owned());
    files
}

fn fault(path: &Path) -> Option<Fault> {
    let report = verify(path.parent().unwrap()).unwrap();
    assert_eq!(report.logs.len(), 1, "{report:?}");
    report.logs[0].fault.clone()
}

fn named(path: &Path) -> Option<(FaultKind, u64)> {
    fault(path).map(|fault| (fault.kind, fault.seq))
}

fn query(since: Since, limit: usize) -> Query {
    Query { since, actor: None, path: None, limit }
}

#[test]
fn chain_goes_on_from_file_to_file_and_over_restarts() {
    let (_dir, path) = written(SMALL, 40);
    assert!(files(&path).len() > 4, "{:?}", files(&path));
    for file in files(&path) {
        assert!(fs::metadata(file).unwrap().len() < SMALL.file + 500);
    }
    assert_eq!(fault(&path), None);
    for n in 41..=60 {
        write(&path, SMALL, n, n);
    }
    assert_eq!(fault(&path), None);
    let log = Log::open_with(&path, "vault", SMALL).unwrap();
    assert_eq!((log.head().seq, log.head().anchor), (60, 60));
    drop(log);
    // A log whose limit was raised opens just so.
    assert_eq!(Log::open(&path, "vault").unwrap().head().seq, 60);
}

#[test]
fn pages_are_found_across_files_from_any_record_and_time() {
    let (_dir, path) = written(SMALL, 60);
    for seq in 0..=60 {
        let page = query(Since::Seq(seq), 7).read(&path).unwrap();
        let seqs: Vec<u64> = page.records.iter().map(|record| record.seq).collect();
        assert_eq!(seqs, (seq + 1..=60).take(7).collect::<Vec<_>>());
        let page = query(Since::Time(ts(seq)), 1_000).read(&path).unwrap();
        assert_eq!(page.records.first().unwrap().seq, seq.max(1));
        assert_eq!(page.records.last().unwrap().seq, 60);
    }
    let (mut since, mut seen) = (Some(0), Vec::new());
    while let Some(seq) = since {
        let page = query(Since::Seq(seq), 7).read(&path).unwrap();
        seen.extend(page.records.iter().map(|record| record.seq));
        since = page.next;
    }
    assert_eq!(seen, (1..=60).collect::<Vec<_>>());
}

#[test]
fn oldest_files_go_after_a_record_says_so() {
    let limits = Limits { keep: 5_000, ..SMALL };
    let (_dir, path) = written(limits, 80);
    let first = files(&path)[0].clone();
    assert!(!first.to_str().unwrap().ends_with("00000000000000000001.jsonl"), "{first:?}");
    let total: u64 = files(&path).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(total < limits.keep + 3 * limits.file, "{total}");
    assert_eq!(fault(&path), None);
    let records = query(Since::Seq(0), 1_000).read(&path).unwrap().records;
    let retired: Vec<_> = records.iter().filter(|record| record.op == "retire").collect();
    assert!(retired.iter().any(|record| record.path.starts_with(&format!("to {} ", records[0].seq - 1))));
    write(&path, limits, 81, 81);
    // Who removes one more file leaves no record that says so. (The record before may have retired the first one.)
    fs::remove_file(&files(&path)[0]).unwrap();
    assert_eq!(named(&path), Some((FaultKind::Deleted, 1)));
}

type Edit = fn(&Path);

#[test]
fn meddling_with_an_earlier_file_is_named() {
    let edits: [(Edit, FaultKind); 4] = [
        (|file| fs::remove_file(file).unwrap(), FaultKind::Deleted),
        (
            |file| {
                fs::write(file, fs::read_to_string(file).unwrap().replacen("services/a", "services/b", 1))
                    .unwrap();
            },
            FaultKind::Edited,
        ),
        (
            |file| fs::OpenOptions::new().write(true).open(file).unwrap().set_len(100).unwrap(),
            FaultKind::Truncated,
        ),
        (
            |file| {
                let text = fs::read_to_string(file).unwrap();
                let mut lines: Vec<_> = text.lines().collect();
                lines.swap(1, 2);
                fs::write(file, lines.join("\n") + "\n").unwrap();
            },
            FaultKind::Reordered,
        ),
    ];
    for (edit, kind) in edits {
        let (_dir, path) = written(SMALL, 40);
        edit(&files(&path)[2]);
        let found = fault(&path).unwrap();
        assert_eq!(found.kind, kind, "{found:?}");
        assert!(found.seq > 1 && found.seq < 40);
    }
    let (_dir, path) = written(SMALL, 40);
    fs::remove_file(&files(&path)[0]).unwrap();
    assert_eq!(named(&path), Some((FaultKind::Deleted, 1)));
}

#[test]
fn crash_between_two_files_is_gone_on_from() {
    let (_dir, path) = written(Limits::default(), 12);
    let full = path.with_extension(format!("{:020}.jsonl", 1));
    // Renamed, and nothing more.
    fs::rename(&path, &full).unwrap();
    assert_eq!(fault(&path), None);
    assert_eq!(Log::open(&path, "vault").unwrap().head().seq, 12);
    assert_eq!(fault(&path), None);
    write(&path, Limits::default(), 13, 14);
    assert_eq!((fault(&path), files(&path).len()), (None, 2));
    // The earlier file lacks what the head names.
    let (_dir, path) = written(Limits::default(), 12);
    let full = path.with_extension(format!("{:020}.jsonl", 1));
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&full, text.lines().take(11).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    assert!(matches!(Log::open(&path, "vault"), Err(OpenError::Broken { .. })));
    assert_eq!(named(&path), Some((FaultKind::Truncated, 12)));
}

#[test]
fn cut_in_a_later_file_is_not_reopened() {
    let (_dir, path) = written(SMALL, 40);
    let count = fs::read_to_string(&path).unwrap().lines().count() as u64;
    fs::write(&path, b"").unwrap();
    assert_eq!(named(&path), Some((FaultKind::Truncated, 41 - count)));
    assert!(matches!(Log::open(&path, "vault"), Err(OpenError::Broken { .. })));
    fs::remove_file(&path).unwrap();
    assert!(Log::open(&path, "vault").is_err());
}

#[test]
fn a_full_log_that_must_not_forget_takes_nothing_until_it_has_more_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vault.jsonl");
    let limits = Limits { keep: 5_000, when_full: WhenFull::Refuse, ..SMALL };
    let log = Log::open_with(&path, "vault", limits).unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let write = |log: &Log| log.append(Entry::new("secret", "read").path("a".repeat(100)), now);
    let mut taken = 0;
    let refused = loop {
        match write(&log) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1_000, "it never refuses");
    };
    assert!(refused.to_string().contains("as much as it may keep"), "{refused}");
    assert!(!log.is_writable() && write(&log).is_err());
    let (bytes, keep) = log.fill();
    assert!(bytes >= keep && bytes < keep + 2_500, "{bytes} of {keep}");
    drop(log);
    let log = Log::open_with(&path, "vault", Limits { keep: 50_000, ..limits }).unwrap();
    assert_eq!(write(&log).unwrap(), taken + 1);
    drop(log);
    assert!(verify(dir.path()).unwrap().is_whole());
}

#[test]
fn what_is_older_than_is_kept_goes_whatever_room_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vault.jsonl");
    let limits = Limits { age: Some(jiff::SignedDuration::from_hours(24)), ..SMALL };
    let log = Log::open_with(&path, "vault", limits).unwrap();
    let at = |hours: i64| Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(hours);
    for hour in 0..100 {
        log.append(Entry::new("secret", "read").path("a".repeat(100)), at(hour)).unwrap();
    }
    drop(log);
    let report = verify(dir.path()).unwrap();
    assert!(report.is_whole(), "{report:?}");
    let text = fs::read_dir(dir.path()).unwrap();
    let texts = text.map(|file| fs::read_to_string(file.unwrap().path()).unwrap_or_default());
    let records: usize = texts.map(|text| text.matches("\"op\":\"read\"").count()).sum();
    assert!((24..60).contains(&records), "{records}");
}
