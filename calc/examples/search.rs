//! Speed of the parameter search: `cargo run --release -p sluice-calc --example search`.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a measurement prints times")]

use std::time::Instant;

use sluice_calc::search::{Genetic, Rank, Space, Task, Terms, Trials, find};
use sluice_calc::{Bars, Cpu, Workspace};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const BARS: usize = 10_000;
    let mut seed = 42_u64;
    let mut price = 100.0_f64;
    let close: Vec<f64> = (0..BARS)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            price *= 1.0 + ((seed >> 40) as f64 / 16_777_216.0 - 0.5) * 0.02;
            price
        })
        .collect();
    let terms = Terms { short: false, cost: 0.001, periods_per_year: 252.0 };
    let windows: Vec<f64> = (2..=448).map(f64::from).collect();
    let rule = find("sma_crossover").ok_or("no rule")?;
    let space = Space::new(rule, &[("fast", &windows), ("slow", &windows)])?;
    let task = Task::new(&space, Bars::from_close(&close), terms, Rank::Sharpe, 5)?;
    let work = || Cpu::proven().map(Workspace::new);
    let mut calls = 0_u64;
    let began = Instant::now();
    let mut watch = |_: u64, _: &[_]| {
        calls += 1;
        true
    };
    let best = task.grid(work()?, 0..space.size(), 0..BARS, &mut watch)?;
    let took = began.elapsed().as_secs_f64();
    let combinations = windows.len() * (windows.len() - 1) / 2;
    println!(
        "grid    {combinations} combinations of {BARS} bars in {took:.2} s: {:.0} a second, {:.2} ns a bar and combination; best {:?}",
        combinations as f64 / took,
        took * 1e9 / (combinations * BARS) as f64,
        best.found()[0]
    );
    let how = Genetic { seed: 1, ..Genetic::default() };
    let began = Instant::now();
    let (found, tried) = Trials::new(&task, work()?).genetic(&how, 0..BARS, &mut |_, _| true)?;
    println!(
        "genetic {tried} of {} tried in {:.1} ms; best {:?}",
        space.size(),
        began.elapsed().as_secs_f64() * 1e3,
        found.found()[0]
    );
    Ok(())
}
