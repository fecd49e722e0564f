//! The log against a hostile disk: every single edit, deletion, swap and truncation is found and named.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use jiff::Timestamp;
use proptest::prelude::*;
use sluice_audit::{AuditError, Decision, Entry, FaultKind, Log, OpenError, Query, Since, verify};
use tempfile::TempDir;

fn ts(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn entry(n: u64) -> Entry {
    let actor = if n.is_multiple_of(2) { "even" } else { "odd" };
    Entry::new("secret", "read").path(format!("services/a/{n}")).actor(actor).request("r-1", "127.0.0.1:1")
}

/// A closed log of `count` records.
fn written(count: u64) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("audit/vault.jsonl");
    let log = Log::open(&path, "vault").unwrap();
    let pending: Vec<_> = (1..=count).map(|n| (n, log.submit(entry(n), ts(n as i64)))).collect();
    for (n, pending) in pending {
        assert_eq!(pending.wait().unwrap(), n);
    }
    drop(log);
    (dir, path)
}

fn fault(path: &Path) -> Option<(FaultKind, u64)> {
    let report = verify(path.parent().unwrap()).unwrap();
    assert_eq!(report.logs.len(), 1);
    report.logs[0].fault.as_ref().map(|fault| (fault.kind, fault.seq))
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.split(|byte| *byte == b'\n').count() as u64 - 1
}

fn rewrite(path: &Path, lines: &[String]) {
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{line}").unwrap();
    }
    fs::write(path, text).unwrap();
}

#[test]
fn reopened_log_continues_its_chain_and_is_whole() {
    let (_dir, path) = written(3);
    let log = Log::open(&path, "vault").unwrap();
    assert_eq!(log.head().seq, 3);
    let denied = entry(4).decision(Decision::Deny).anchor(9);
    assert_eq!(log.append_all(vec![denied, entry(5)], ts(9)).unwrap(), 5);
    assert_eq!(log.head().anchor, 9, "an anchor never decreases");
    drop(log);
    assert_eq!(fault(&path), None);
    assert_eq!(Log::open(&path, "vault").unwrap().head().anchor, 9);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn second_writer_is_refused() {
    let (_dir, path) = written(1);
    let _first = Log::open(&path, "vault").unwrap();
    assert!(matches!(Log::open(&path, "vault"), Err(OpenError::Locked { .. })));
}

#[test]
fn log_of_another_role_is_a_fork() {
    let (dir, path) = written(2);
    for extension in ["jsonl", "head"] {
        let other = dir.path().join("audit/edge").with_extension(extension);
        fs::rename(path.with_extension(extension), other).unwrap();
    }
    let edge = dir.path().join("audit/edge.jsonl");
    assert_eq!(fault(&edge), Some((FaultKind::Forked, 1)));
    assert!(matches!(Log::open(&edge, "edge"), Err(OpenError::Broken { .. })));
}

#[test]
fn torn_last_line_is_cut_on_open_and_is_no_fault() {
    let (_dir, path) = written(2);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"seq\":3,\"ts\":\"20");
    fs::write(&path, &bytes).unwrap();
    assert_eq!(fault(&path), None);
    let log = Log::open(&path, "vault").unwrap();
    assert_eq!(log.append(entry(3), ts(3)).unwrap(), 3);
    drop(log);
    assert_eq!(fault(&path), None);
    assert_eq!(lines(&path).len(), 3);
}

#[test]
fn torn_batch_whose_first_page_is_zeros_is_cut_with_all_after_it() {
    let (_dir, path) = written(2);
    let whole = fs::read(&path).unwrap();
    let (_other, longer) = written(40);
    for zeros in [1, 300, 4_096] {
        let mut bytes = fs::read(&longer).unwrap();
        bytes[whole.len()..whole.len() + zeros].fill(0);
        fs::write(&path, &bytes).unwrap();
        let report = verify(path.parent().unwrap()).unwrap();
        assert_eq!(report.logs[0].fault, None, "{zeros} zeros");
        assert_eq!(report.logs[0].torn_bytes, (bytes.len() - whole.len()) as u64);
        drop(Log::open(&path, "vault").unwrap());
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    // Before the head, zeros are damage.
    let mut bytes = whole.clone();
    bytes[whole.len() - 20..whole.len() - 10].fill(0);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(fault(&path), Some((FaultKind::Edited, 2)));
    assert!(matches!(Log::open(&path, "vault"), Err(OpenError::Broken { seq: 2, .. })));
}

#[test]
fn acknowledged_record_cut_in_half_is_a_truncation() {
    let (_dir, path) = written(3);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    assert_eq!(fault(&path), Some((FaultKind::Truncated, 3)));
    assert!(matches!(Log::open(&path, "vault"), Err(OpenError::Broken { seq: 3, .. })));
}

#[test]
fn tail_written_anew_with_a_sound_chain_is_a_fork() {
    let (_dir, path) = written(5);
    let (_other_dir, other) = {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("audit/vault.jsonl");
        let log = Log::open(&path, "vault").unwrap();
        for n in 1..=5 {
            log.append(entry(n + u64::from(n > 3)), ts(n as i64)).unwrap();
        }
        drop(log);
        (dir, path)
    };
    fs::copy(&other, &path).unwrap();
    assert_eq!(fault(&path), Some((FaultKind::Forked, 5)));
    assert!(Log::open(&path, "vault").is_err());
}

#[test]
fn missing_head_or_missing_log_is_named() {
    let (_dir, path) = written(2);
    let head = path.with_extension("head");
    let kept = fs::read(&head).unwrap();
    fs::remove_file(&head).unwrap();
    assert_eq!(fault(&path), Some((FaultKind::Head, 1)));
    assert!(matches!(Log::open(&path, "vault"), Err(OpenError::Broken { .. })));
    fs::write(&head, kept).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(fault(&path), Some((FaultKind::Truncated, 1)));
    assert!(matches!(Log::open(&path, "vault"), Err(OpenError::Broken { .. })));
}

#[test]
fn unlinked_replaced_shortened_or_exposed_log_fails_closed() {
    let tricks: [fn(&Path); 4] = [
        |path| fs::remove_file(path).unwrap(),
        |path| {
            let copy = path.with_extension("copy");
            fs::copy(path, &copy).unwrap();
            fs::rename(&copy, path).unwrap();
        },
        |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(10).unwrap(),
        |path| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap(),
    ];
    for trick in tricks {
        let (_dir, path) = written(2);
        let log = Log::open(&path, "vault").unwrap();
        assert!(log.is_writable());
        trick(&path);
        assert!(matches!(log.append(entry(3), ts(3)), Err(AuditError::Failed(_))));
        assert!(!log.is_writable());
        assert!(matches!(log.append(entry(3), ts(3)), Err(AuditError::Failed(_))), "it stays closed");
    }
}

#[test]
fn exposed_log_is_not_opened() {
    let (_dir, path) = written(1);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Log::open(&path, "vault"), Err(OpenError::Exposed { mode: 0o640, .. })));
}

#[test]
fn unwritable_folder_is_an_error() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("audit");
    fs::write(&file, b"").unwrap();
    assert!(matches!(Log::open(&file.join("vault.jsonl"), "vault"), Err(OpenError::Io { .. })));
}

#[test]
fn many_threads_share_syncs_and_every_record_is_there_once() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("audit/vault.jsonl");
    let log = Log::open(&path, "vault").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let log = &log;
            scope.spawn(move || {
                for n in 0..50 {
                    log.append(entry(thread * 1_000 + n), ts(0)).unwrap();
                }
            });
        }
    });
    drop(log);
    assert_eq!(fault(&path), None);
    let mut paths: Vec<_> = {
        let query = Query { since: Since::Seq(0), actor: None, path: None, limit: 1_000 };
        query.read(&path).unwrap().records.into_iter().map(|record| record.path).collect()
    };
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), 400);
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn pending_is_a_future_any_executor_can_await() {
    let dir = TempDir::new().unwrap();
    let log = Log::open(&dir.path().join("audit/edge.jsonl"), "edge").unwrap();
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut pending = pin!(log.submit(entry(1), ts(1)));
    let seq = loop {
        match pending.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => break outcome.unwrap(),
            Poll::Pending => std::thread::park(),
        }
    };
    assert_eq!(seq, 1);
}

#[test]
fn page_filters_and_continues_from_its_cursor() {
    let (_dir, path) = written(300);
    let query = |since, actor: Option<&str>, below: Option<&str>, limit| {
        let query = Query { since, actor: actor.map(str::to_owned), path: below.map(str::to_owned), limit };
        query.read(&path).unwrap()
    };
    let first = query(Since::Seq(0), Some("even"), Some("services/a"), 100);
    assert_eq!(first.records.len(), 100);
    assert_eq!(first.records[0].seq, 2);
    let second = query(Since::Seq(first.next.unwrap()), Some("even"), None, 100);
    assert_eq!(second.records.len(), 50);
    assert_eq!(second.records[0].seq, 202);
    assert_eq!(second.next, None);
    assert_eq!(query(Since::Time(ts(250)), None, None, 1_000).records[0].seq, 250);
    assert_eq!(query(Since::Seq(0), None, Some("services/a/7"), 1_000).records.len(), 1);
    assert!(query(Since::Seq(300), None, None, 10).records.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_single_byte_edit_is_found_at_its_record(position in any::<prop::sample::Index>(), flip in 1u8..) {
        let (_dir, path) = written(6);
        let mut bytes = fs::read(&path).unwrap();
        let at = position.index(bytes.len());
        let record = newlines(&bytes[..at]) + 1;
        bytes[at] ^= flip;
        fs::write(&path, &bytes).unwrap();
        let (_, seq) = fault(&path).expect("the edit is found");
        prop_assert!(seq == record, "edit in record {record} was reported at {seq}");
    }

    #[test]
    fn any_deleted_run_is_found(from in 0usize..8, count in 1usize..8) {
        let (_dir, path) = written(8);
        let mut lines = lines(&path);
        let to = (from + count).min(lines.len());
        lines.drain(from..to);
        rewrite(&path, &lines);
        let kind = if to == 8 { FaultKind::Truncated } else { FaultKind::Deleted };
        prop_assert_eq!(fault(&path), Some((kind, from as u64 + 1)));
    }

    #[test]
    fn any_swap_is_found(first in 0usize..8, second in 0usize..8) {
        prop_assume!(first != second);
        let (_dir, path) = written(8);
        let mut lines = lines(&path);
        lines.swap(first, second);
        rewrite(&path, &lines);
        prop_assert_eq!(fault(&path), Some((FaultKind::Reordered, first.min(second) as u64 + 1)));
    }

    #[test]
    fn any_truncation_is_found_and_not_reopened(keep in any::<prop::sample::Index>()) {
        let (_dir, path) = written(6);
        let bytes = fs::read(&path).unwrap();
        let keep = keep.index(bytes.len());
        fs::write(&path, &bytes[..keep]).unwrap();
        let whole = newlines(&bytes[..keep]);
        prop_assert_eq!(fault(&path), Some((FaultKind::Truncated, whole + 1)));
        prop_assert!(Log::open(&path, "vault").is_err());
    }

    #[test]
    fn any_inserted_copy_is_found(line in 0usize..6, at in 0usize..=6) {
        let (_dir, path) = written(6);
        let mut lines = lines(&path);
        let copy = lines[line].clone();
        lines.insert(at, copy);
        rewrite(&path, &lines);
        prop_assert!(fault(&path).is_some());
    }
}
