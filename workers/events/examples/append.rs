//! How fast the log stores: events a second and the time of one sync, by events a commit.
//!
//! `cargo run --release -p sluice-events --example append [DIR]`. One thread submits batches of the given size and
//! waits for each; then 128 threads submit single events, as 128 connections would, and 16 submit a hundred each. Every
//! row comes three times: as it is, encrypted, and encrypted and compressed.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement that prints its table")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sluice_events::log::{
    AtRest, Commit, Draft, Fsync, Ground, Keyring, Labels, Log, Observer, Options, Retention,
};

const TIME: Duration = Duration::from_secs(2);
const PAYLOAD_BYTES: usize = 200;

#[derive(Default)]
struct Times {
    syncs: Mutex<Vec<Duration>>,
    sizes: AtomicU64,
}

impl Observer for Times {
    fn committed(&self, commit: &Commit) {
        self.syncs.lock().unwrap().push(commit.sync_time);
        self.sizes.fetch_add(commit.records as u64, Ordering::Relaxed);
    }
}

fn drafts(next: &AtomicU64, count: u64) -> Vec<Draft> {
    let first = next.fetch_add(count, Ordering::Relaxed);
    let json = format!(r#"{{"event_type":"market_data_update","pad":"{}"}}"#, "x".repeat(PAYLOAD_BYTES - 45));
    let labels = Labels { kind: "market_data_update", symbol: "BTC/USDT", source: "bench" };
    let draft = |id: u64| Draft::new(labels, id as i64, u128::from(id), id, json.as_bytes()).unwrap();
    (first..first + count).map(draft).collect()
}

/// How the files are written, by the word in the table.
fn forms() -> [(&'static str, AtRest); 3] {
    let keys = Some(Arc::new(Keyring::new(1, [(1, &[7; 32])]).unwrap()));
    let encrypted = AtRest { keys, encrypt: true, ..AtRest::default() };
    let packed = AtRest { compress: true, ..encrypted.clone() };
    [("plain", AtRest::default()), ("encrypted", encrypted), ("compressed", packed)]
}

fn run(dir: &std::path::Path, threads: u64, batch: u64, word: &str, at_rest: AtRest) {
    let times = Arc::new(Times::default());
    let observer = Arc::clone(&times) as Arc<dyn Observer>;
    let ground = Ground { observer, at_rest, ..Ground::default() };
    let options = Options {
        fsync: Fsync::Always,
        retention: Retention { bytes: Some(2 << 30), ..Retention::default() },
        dedup_window_ms: 600_000,
        segment_bytes: 64 << 20,
        partitions: None,
    };
    let log = Log::open(&dir.join(format!("{threads}-{batch}-{word}")), &options, ground).unwrap();
    let next = AtomicU64::new(1);
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while begun.elapsed() < TIME {
                    log.append_blocking(drafts(&next, batch), false).unwrap();
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let mut syncs = times.syncs.lock().unwrap();
    syncs.sort_unstable();
    let ms = |share: f64| syncs[((syncs.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let events = times.sizes.load(Ordering::Relaxed) as f64;
    println!(
        "{threads:>7} {batch:>6} {word:<10} {:>12.0} {:>10.1} {:>9.3} {:>9.3}",
        events / seconds,
        events / syncs.len() as f64,
        ms(0.5),
        ms(0.99)
    );
}

fn main() {
    let home = tempfile::tempdir().unwrap();
    let dir = std::env::args_os().nth(1).map_or_else(|| home.path().to_owned(), PathBuf::from);
    println!("threads  batch form           events/s  a commit  sync p50  p99 (ms)");
    for (threads, batch) in [(1, 1), (1, 64), (1, 1000), (128, 1), (16, 100)] {
        for (word, at_rest) in forms() {
            run(&dir, threads, batch, word, at_rest);
        }
    }
}
