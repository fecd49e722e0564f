//! What stored series cost: adding, reading, computing over them, and carrying indicators on.
//!
//! `cargo run --release -p sluice-calc-worker --example series [FOLDER]`: the median of several runs. FOLDER decides what
//! a sync costs; on a `tmpfs` it costs nothing, and what is left is the worker's own.

#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use sluice_calc_worker::timing;
use sluice_calc_worker::timing::series::Stored;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 1_000_000;
/// Rows of a piece of an import.
const PIECE: usize = 50_000;
/// Series that get a candle at a time.
const SERIES: usize = 256;
const NAMES: &str = "sma,rsi,atr,macd,bbands";

/// Candles as an exchange sends them: milliseconds, prices of two decimals, a volume of five.
fn candles(first: usize, count: usize) -> Vec<[f64; 6]> {
    let cents = |value: f64| (value * 100.0).round() / 100.0;
    let one = |at: usize| {
        let mid = 42_000.0 + 900.0 * (at as f64 / 300.0).sin() + (at * 7_919 % 1_013) as f64 / 10.0;
        let volume = (at * 104_729 % 1_000_003) as f64 / 1e5;
        [1_500_000_000_000.0 + at as f64 * 60_000.0, mid, mid + 9.75, mid - 8.25, mid + 1.5, volume]
    };
    (first..first + count).map(|at| one(at).map(cents)).collect()
}

/// The median of some runs, each with its number.
fn median(runs: usize, mut run: impl FnMut(usize)) -> Duration {
    let mut times: Vec<Duration> = (0..runs)
        .map(|number| {
            let began = Instant::now();
            run(number);
            began.elapsed()
        })
        .collect();
    times.sort();
    times[runs / 2]
}

fn say(what: &str, time: Duration, count: usize) {
    let each = time.as_secs_f64() / count as f64;
    println!("{what:52} {:10.1} us {:12.0} a second", time.as_secs_f64() * 1e6, 1.0 / each);
}

fn appending(stored: &Stored) {
    let many = candles(0, 400_000);
    say("append of 1 candle", median(200, |run| assert_eq!(stored.append("ONE/1m", &many[run..=run]), 1)), 1);
    let thousand = |run: usize| {
        let added = stored.append("MANY/1m", &many[run * 1_000..(run + 1) * 1_000]);
        assert_eq!(added, 1_000);
    };
    say("append of 1,000 candles", median(200, thousand), 1_000);
    let series: Vec<String> = (0..SERIES).map(|number| format!("S{number}/1m")).collect();
    stored.append_each(&series, &many[0]);
    let each = |run: usize| assert_eq!(stored.append_each(&series, &many[run + 1]), SERIES);
    say("append of 1 candle to each of 256 series", median(100, each), SERIES);
}

fn importing(stored: &Stored) {
    for form in ["csv", "arrow", "json rows"] {
        let name = format!("{}/1m", form[..3].to_uppercase());
        let bodies: Vec<bytes::Bytes> = (0..ROWS / PIECE)
            .map(|piece| {
                let all = timing::bodies(&candles(piece * PIECE, PIECE));
                let body = all.into_iter().find(|(known, _)| *known == form).map(|(_, body)| body);
                body.unwrap_or_default().into()
            })
            .collect();
        let piece = |run: usize| assert_eq!(stored.import(&name, form, &bodies[run]), PIECE);
        say(&format!("import of 50,000 candles, {form}"), median(bodies.len(), piece), PIECE);
    }
    let data: Vec<Map<String, Value>> = candles(0, 1_000).iter().map(event).collect();
    say("feed: 1,000 events read", median(50, |_| assert_eq!(timing::series::bars(&data), 1_000)), 1_000);
}

/// The data of a closed candle.
fn event([time, open, high, low, close, volume]: &[f64; 6]) -> Map<String, Value> {
    let data = json!({"symbol": "BTC/USDT", "timeframe": "1m", "timestamp": time, "open": open, "high": high,
        "low": low, "close": close, "volume": volume, "trades": 17});
    data.as_object().cloned().unwrap_or_default()
}

fn computing(stored: &mut Stored) {
    let names: Vec<&str> = NAMES.split(',').collect();
    let series = "CSV/1m";
    say("GET of 1,000 rows, JSON", median(200, |_| assert!(stored.read(series, 1_000) > 30_000)), 1_000);
    let compute = median(15, |_| assert!(stored.calculate(series, &names) > 100));
    say("5 indicators over a million rows, in place", compute, ROWS);
    say("the copy and check that this spares", median(15, |_| assert_eq!(stored.copy(series), ROWS)), ROWS);
    let mut carried = Stored::carry(NAMES);
    say(
        "states of 5 indicators, begun",
        median(1, |_| assert_eq!(stored.follow(series, &mut carried, 0), ROWS)),
        ROWS,
    );
    let last = |stored: &mut Stored, carried: &mut _| assert_eq!(stored.follow(series, carried, 100), 900);
    say("their last 100 bars, the first time", median(1, |_| last(stored, &mut carried)), 1);
    say("their last 100 bars, again", median(200, |_| last(stored, &mut carried)), 1);
    let more = candles(ROWS, 5_000);
    let mut taken = Duration::ZERO;
    for candle in &more {
        stored.append(series, std::slice::from_ref(candle));
        let began = Instant::now();
        stored.follow(series, &mut carried, 0);
        taken += began.elapsed();
    }
    say("a bar more for 5 indicators", taken / more.len() as u32, 1);
}

fn main() {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("sluice-series-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let mut stored = Stored::open(&folder);
    appending(&stored);
    importing(&stored);
    computing(&mut stored);
    drop(stored);
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}
