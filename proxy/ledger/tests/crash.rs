//! A process is killed while it registers. In a binary of its own: a child inherits open files for a
//! moment, and with them the lock of a ledger that another test holds.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sluice_ledger::{Claimed, Keys, Ledger, Wanted};
use sluice_policy::idempotency::Answer;
use sluice_policy::registry::Registration;
use sluice_schema::Config;

const NOW: u64 = 1_700_000_000_000;
const FOLDER: &str = "LEDGER_CRASH_DIR";

fn names(folder: &Path) -> Vec<String> {
    let ledger = Ledger::open(folder).expect("the ledger opens after a crash");
    let listing = ledger.list(NOW).expect("the ledger is readable");
    assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
    listing.entries.into_iter().map(|entry| entry.registration.name).collect()
}

/// The process that is killed, when the other test starts it; else nothing.
#[test]
fn writer() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let first = names(Path::new(&folder)).len();
    let ledger = Ledger::open(Path::new(&folder)).unwrap();
    for n in first.. {
        let body = format!(r#"{{"name":"s{n:05}","prefix":"/api/s{n:05}","url":"http://127.0.0.1:9000"}}"#);
        let registration: Registration = serde_json::from_str(&body).unwrap();
        ledger.register(&registration, &Config::default(), "ops", NOW).unwrap();
        println!("acknowledged {n}");
    }
}

#[test]
fn acknowledged_registrations_survive_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        for ack in lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<usize>().ok()) {
            acknowledged = ack + 1;
            if acknowledged >= round * 15 {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let found = names(folder.path());
        assert!(
            acknowledged >= round * 15 && found.len() >= acknowledged,
            "{} of {acknowledged}",
            found.len()
        );
        assert!(found.iter().enumerate().all(|(n, name)| *name == format!("s{n:05}")), "a gap in {found:?}");
    }
}

fn key(n: u64) -> Wanted {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&n.to_be_bytes());
    Wanted { id, fingerprint: [1; 32], until_ms: NOW + 60_000, ttl: Duration::from_secs(3600) }
}

fn keys(folder: &Path, run: u64, runtime: &tokio::runtime::Runtime) -> (Arc<Ledger>, Keys) {
    let ledger = Arc::new(Ledger::open(folder).expect("the ledger opens after a crash"));
    let keys = Keys::start(Arc::clone(&ledger), run, || NOW, runtime.handle().clone()).unwrap();
    (ledger, keys)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// The process that is killed while requests hold keys: every other one is answered.
#[test]
fn claimer() {
    let (Ok(folder), Ok(first)) = (std::env::var(FOLDER), std::env::var("LEDGER_CRASH_FIRST")) else {
        return;
    };
    let (first, runtime): (u64, _) = (first.parse().unwrap(), runtime());
    let (_ledger, keys) = keys(Path::new(&folder), first + 1, &runtime);
    for n in first.. {
        let Ok(Claimed::Held(mut claim)) = runtime.block_on(keys.claim(key(n))) else {
            panic!("{n} is not free")
        };
        println!("acknowledged {n}");
        claim.set_sent(true);
        if n % 2 == 0 {
            claim.finish(Answer::Status(201));
        } else {
            std::mem::forget(claim);
        }
    }
}

fn killed_after(child: &mut Child, from: u64, count: u64) -> u64 {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (mut next, mut alive) = (from, true);
    // Read to the end: it may have gone on before it died.
    for ack in lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok()) {
        next = ack + 1;
        if alive && next >= from + count {
            child.kill().unwrap();
            alive = false;
        }
    }
    child.wait().unwrap();
    next
}

#[test]
fn keys_that_were_held_survive_kill_9_and_are_never_free() {
    let (folder, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let (mut first, mut gaps) = (0, Vec::new());
    for _ in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "claimer", "--nocapture"])
            .env(FOLDER, folder.path())
            .env("LEDGER_CRASH_FIRST", first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let next = killed_after(&mut child, first, 20);
        assert!(next >= first + 20, "{next}");
        let (ledger, keys) = keys(folder.path(), 1_000_000 + first, &runtime);
        for n in (0..next).filter(|n| !gaps.contains(n)) {
            let found = runtime.block_on(keys.claim(key(n))).unwrap();
            // A result is written in its turn: the one before the last claim is on the disk.
            let expected = match found {
                Claimed::Replay(Answer::Status(201)) => n % 2 == 0,
                Claimed::Unknown => n % 2 == 1 || n + 1 >= next,
                _ => false,
            };
            assert!(expected, "{n} of {next}: {found:?}");
        }
        // A claim may have been written that nobody heard of.
        gaps.extend([next - 1, next]);
        first = next + 1;
        // Its thread ends in a moment; the file is the next process's now.
        ledger.close();
    }
}
