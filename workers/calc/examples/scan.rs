//! What a candle costs on its way in, in each transport.
//!
//! `cargo run --release -p sluice-calc-worker --example scan [NAME]`: best of several runs over 100,000 candles.

#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::time::Instant;

/// As the program has it: what the kernel takes for fresh pages would else be a third of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CANDLES: usize = 100_000;
const RUNS: usize = 15;

/// Candles as an exchange sends them: milliseconds, prices of two decimals, a volume of five.
fn candles() -> Vec<[f64; 6]> {
    let mut price = 42_000.0_f64;
    let mut state = 7_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1_u32 << 31)
    };
    let cents = |value: f64| (value * 100.0).round() / 100.0;
    (0..CANDLES)
        .map(|at| {
            let open = cents(price);
            price += (random() - 0.5) * 40.0;
            let close = cents(price);
            let (high, low) =
                (cents(open.max(close) + random() * 9.0), cents(open.min(close) - random() * 9.0));
            let volume = (random() * 250.0 * 1e5).round() / 1e5;
            [1_700_000_000_000.0 + at as f64 * 60_000.0, open, high, low, close, volume]
        })
        .collect()
}

fn main() {
    let candles = candles();
    let only = std::env::args().nth(1);
    for (name, body) in sluice_calc_worker::timing::bodies(&candles) {
        let body = bytes::Bytes::from(body);
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let best = (0..RUNS).map(|_| {
            let began = Instant::now();
            let rows = sluice_calc_worker::timing::read(name, std::hint::black_box(&body));
            assert_eq!(rows, CANDLES);
            began.elapsed()
        });
        let best = best.min().unwrap_or_default();
        let (each, bytes) = (best.as_secs_f64() * 1e9 / CANDLES as f64, body.len() as f64 / CANDLES as f64);
        println!("{name:24} {each:7.1} ns a candle of {bytes:5.1} bytes");
    }
}
