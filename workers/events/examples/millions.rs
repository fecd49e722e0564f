//! A log of ten million events: how long it takes to open, how fast it is read, and in how much memory.
//!
//! `cargo run --release -p sluice-events --example millions [EVENTS [DIR]]`. The log is encrypted and compressed; it
//! is written through the log itself, so the folder needs some 4 GB for a moment.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement that prints its table")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_events::log::{AtRest, Draft, Filter, Fsync, Ground, Keyring, Labels, Log, Options, Retention};

const BATCH: u64 = 1_000;

fn draft(id: u64) -> Draft {
    let symbol = ["BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"][(id % 4) as usize];
    let kind = if id.is_multiple_of(10) { "trading_signal" } else { "market_data_update" };
    let price = 50_000.0 + ((id * 7_919) % 10_000) as f64 / 100.0;
    let json = format!(
        r#"{{"event_type":"{kind}","data":{{"symbol":"{symbol}","price":{price},"volume":{}}},"metadata":{{"n":{id}}}}}"#,
        id % 977
    );
    let event_id = u128::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Draft::new(Labels { kind, symbol, source: "bench" }, id as i64, event_id, id, json.as_bytes()).unwrap()
}

/// Resident memory in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4.0 / 1024.0
}

fn open(dir: &std::path::Path) -> Log {
    let keys = Some(Arc::new(Keyring::new(1, [(1, &[7; 32])]).unwrap()));
    let at_rest = AtRest { keys, encrypt: true, compress: true, archive: None };
    let options = Options {
        fsync: Fsync::Always,
        retention: Retention::default(),
        dedup_window_ms: 600_000,
        segment_bytes: 64 << 20,
        partitions: None,
    };
    Log::open(dir, &options, Ground { at_rest, ..Ground::default() }).unwrap()
}

fn scan(log: &Log, what: &str, filter: Filter) {
    let (begun, mut found, mut most) = (Instant::now(), 0_u64, 0.0_f64);
    let mut scan = log.reader().forward(1, filter);
    while scan.next().unwrap().is_some() {
        found += 1;
        if found % 100_000 == 1 {
            most = most.max(resident());
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let looked_at = log.reader().durable_seq() as f64;
    println!("{what}: {found} found, {:.0} looked at a second, {most:.0} MiB at most", looked_at / seconds);
}

fn main() {
    let home = tempfile::tempdir().unwrap();
    let events: u64 = std::env::args().nth(1).map_or(10_000_000, |count| count.parse().unwrap());
    let dir = std::env::args_os().nth(2).map_or_else(|| home.path().to_owned(), PathBuf::from);
    let log = open(&dir);
    let begun = Instant::now();
    for first in (log.reader().durable_seq()..events).step_by(BATCH as usize) {
        log.append_blocking((first..first + BATCH).map(draft).collect(), false).unwrap();
    }
    println!("written in {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    while log.pack() > 0 {}
    println!("last segments compressed in {:.1} s", begun.elapsed().as_secs_f64());
    drop(log);
    for _ in 0..3 {
        let begun = Instant::now();
        let log = open(&dir);
        let took: Duration = begun.elapsed();
        let stats = log.reader().stats();
        println!(
            "opened in {:.3} s: {} events in {} segments, {:.0} MiB, {} ids remembered, {:.0} MiB resident",
            took.as_secs_f64(),
            stats.length,
            stats.segments,
            stats.bytes as f64 / f64::from(1 << 20),
            log.recovered().remembered,
            resident()
        );
    }
    let log = open(&dir);
    scan(&log, "all", Filter::default());
    let signals =
        Filter { kinds: vec!["trading_signal".into()], symbol: Some("BTC/USDT".into()), ..Filter::default() };
    scan(&log, "one type and symbol", signals);
    println!("at the end {:.0} MiB resident", resident());
}
