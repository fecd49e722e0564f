//! A process is killed while it registers. In a binary of its own: a child inherits open files for a
//! moment, and with them the lock of a ledger that another test holds.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use sluice_ledger::Ledger;
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
