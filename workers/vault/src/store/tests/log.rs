//! The store and its audit log: a log that takes nothing for a while, a log that was written anew.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sluice_audit::{AuditError, Entry, Log, Query, Since};
use tempfile::TempDir;

use super::{Files, put, read};
use crate::error::VaultError;
use crate::seal::Shape;
use crate::store::{Store, StoreError};

/// A store whose log takes no record while the switch is on.
fn open_on_a_disk_that_fills(files: &Files) -> (Store, Arc<Log>, Arc<AtomicBool>) {
    let log = Arc::new(Log::open(&files.dir.path().join("audit/vault.jsonl"), "vault").unwrap());
    let idle =
        Store::open(&files.store(), &files.root, Shape::File, Arc::clone(&log), Timestamp::now()).unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let (medium, is_full) = (Arc::clone(&log), Arc::clone(&full));
    let append = move |entries, ts| {
        if is_full.load(Ordering::SeqCst) {
            let error = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(AuditError::Write(Arc::new(error)));
        }
        medium.append_all(entries, ts).map(|_| ())
    };
    (idle.start_with(Box::new(|_| ()), Box::new(append)).unwrap(), log, full)
}

#[test]
fn commit_the_log_did_not_take_holds_everything_until_it_does() {
    let files = Files::with_rows(&[("a", "1")]);
    let (store, log, full) = open_on_a_disk_that_fills(&files);
    full.store(true, Ordering::SeqCst);
    for key in ["held", "refused", "refused"] {
        assert!(matches!(put(&store, key, "1"), Err(VaultError::Audit(_))));
        assert!(store.arrears().is_some());
    }
    assert_eq!(read(&store, "refused").unwrap(), None, "no commit runs ahead of the log by two");
    full.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(10);
    while store.arrears().is_some() {
        assert!(Instant::now() < deadline, "the writer does not try again by itself");
        std::thread::yield_now();
    }
    put(&store, "later", "1").unwrap();
    let text = fs::read_to_string(log.path()).unwrap();
    assert_eq!(text.matches("\"path\":\"held\"").count(), 1, "{text}");
    assert!(!text.contains("refused"), "{text}");
    full.store(true, Ordering::SeqCst);
    assert!(put(&store, "held too", "1").is_err());
    full.store(false, Ordering::SeqCst);
    put(&store, "goes on", "1").unwrap();
    drop((store, log));
    let (store, _log) = files.open().unwrap();
    for key in ["held", "later", "held too", "goes on"] {
        assert_eq!(read(&store, key).unwrap().as_deref(), Some("1"), "{key}");
    }
    assert!(sluice_audit::verify(&files.dir.path().join("audit")).unwrap().is_whole());
}

#[test]
fn restart_on_a_full_disk_records_the_held_commit() {
    let files = Files::with_rows(&[("a", "1")]);
    let (store, log, full) = open_on_a_disk_that_fills(&files);
    full.store(true, Ordering::SeqCst);
    for key in ["held", "refused", "refused"] {
        assert!(put(&store, key, "1").is_err());
    }
    // The switch stays on: ending appends nothing, as kill -9 would not.
    drop((store, log));
    let (store, log) = files.open().unwrap();
    assert_eq!(read(&store, "held").unwrap().as_deref(), Some("1"));
    let text = fs::read_to_string(log.path()).unwrap();
    assert!(text.contains("\"path\":\"held\"") && text.contains("\"op\":\"recover\""), "{text}");
    put(&store, "later", "1").unwrap();
}

#[test]
fn records_that_a_torn_write_lost_are_recorded_at_the_next_start() {
    let files = Files::with_rows(&[("a", "1")]);
    let path = files.dir.path().join("audit/vault.jsonl");
    let (store, log) = files.open().unwrap();
    let before = fs::read(path.with_extension("head")).unwrap();
    // Many at a time, so that a commit has several records.
    std::thread::scope(|scope| {
        for n in 0..24 {
            let store = &store;
            scope.spawn(move || put(store, &format!("many/{n}"), "1").unwrap());
        }
    });
    drop((store, log));
    let all = Query { since: Since::Seq(0), actor: None, path: None, limit: 1_000 };
    let records = all.read(&path).unwrap().records;
    let last = records.last().unwrap().clone();
    let of_last = records.iter().filter(|record| record.anchor == last.anchor).count();
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // The head from before, and of the last commit's records all but so many and half a line.
    for lost in 1..=of_last {
        let kept = lines.len() - lost;
        let torn = format!("{}\n{}", lines[..kept].join("\n"), &lines[kept][..20]);
        fs::write(&path, torn).unwrap();
        fs::write(path.with_extension("head"), &before).unwrap();
        drop(files.open().unwrap());
        let text = fs::read_to_string(&path).unwrap();
        for n in 0..24 {
            assert_eq!(
                text.matches(&format!("\"path\":\"many/{n}\"")).count(),
                1,
                "{lost} of {of_last} lost"
            );
        }
        assert!(sluice_audit::verify(&files.dir.path().join("audit")).unwrap().is_whole());
    }
}

#[test]
fn log_whose_old_record_was_edited_and_chained_anew_is_refused() {
    let files = Files::with_rows(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let path = files.dir.path().join("audit/vault.jsonl");
    let all = Query { since: Since::Seq(0), actor: None, path: None, limit: 1_000 };
    let records = all.read(&path).unwrap().records;
    let forge = |edit: bool| {
        let elsewhere = TempDir::new().unwrap();
        let forged = elsewhere.path().join("vault.jsonl");
        let log = Log::open(&forged, "vault").unwrap();
        for record in records.clone() {
            let named = if edit && record.path == "a" { "innocent".to_owned() } else { record.path };
            let entry = Entry::new(record.kind, record.op).path(named).actor(record.actor);
            log.append(entry.decision(record.decision).anchor(record.anchor), record.ts).unwrap();
        }
        drop(log);
        for extension in ["jsonl", "head"] {
            fs::copy(forged.with_extension(extension), path.with_extension(extension)).unwrap();
        }
    };
    forge(true);
    assert!(sluice_audit::verify(&files.dir.path().join("audit")).unwrap().is_whole(), "a sound chain");
    assert!(matches!(files.open(), Err(StoreError::AuditRewritten { .. })));
    forge(false);
    assert!(files.open().is_ok(), "the edit, not the copying, is what was found");
}
