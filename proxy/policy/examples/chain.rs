//! Prints what the policy takes of a usual request, stage by stage, and how a look-up and the building of a table
//! go with the number of routes: one thread, best of several runs. Fails where all of it takes longer than it may.
//! `cargo run --release -p sluice-policy --example chain`.
#![allow(clippy::print_stdout, reason = "a table on standard output is its purpose")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

#[path = "../tests/chain/mod.rs"]
mod chain;

use std::hint::black_box;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chain::{Chain, table};
use sluice_policy::Nanos;

const REQUESTS: u32 = 20_000;
const RUNS: usize = 15;
/// What all of it may take, ns.
const MOST_NS: u128 = 3_000;
const TOOK: Duration = Duration::from_micros(300);

fn main() -> ExitCode {
    let client = IpAddr::from([198, 51, 100, 7]);
    let mut chain = Chain::new(1000);
    let mut now = Nanos::from_secs(10);
    let mut next = || {
        now = now.plus(Duration::from_micros(500));
        now
    };
    println!("ns a request (best of {RUNS} runs of {REQUESTS})");
    // Warm: slow starts are over.
    for _ in 0..100_000 {
        black_box(chain.request(next()));
    }
    println!("{:<28} {:>8}", "head and path", best(|| chain.read()));
    println!("{:<28} {:>8}", "route, of 1,000", best(|| chain.route()));
    println!("{:<28} {:>8}", "admission", best(|| chain.admit(next(), client)));
    println!("{:<28} {:>8}", "gate, breaker, instance", best(|| chain.call(next(), client, TOOK)));
    let all = best(|| chain.request(next()));
    println!("{:<28} {all:>8} of {MOST_NS}", "all of it");
    println!("\n{:<10} {:>14} {:>14}", "routes", "look-up, ns", "build, ms");
    for routes in [10, 100, 1000, 10_000] {
        let chain = Chain::new(routes);
        let build = (0..RUNS)
            .map(|_| {
                let started = Instant::now();
                black_box(table(routes));
                started.elapsed()
            })
            .min()
            .unwrap_or_default();
        println!("{routes:<10} {:>14} {:>14.2}", best(|| chain.route()), build.as_secs_f64() * 1e3);
    }
    if all > MOST_NS { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Nanoseconds of one run of `work`, in the best of several rounds.
fn best(mut work: impl FnMut() -> bool) -> u128 {
    let round = |work: &mut dyn FnMut() -> bool| {
        let started = Instant::now();
        for _ in 0..REQUESTS {
            assert!(black_box(work()), "a usual request passes");
        }
        started.elapsed()
    };
    let best = (0..RUNS).map(|_| round(&mut work)).min().unwrap_or_default();
    best.as_nanos() / u128::from(REQUESTS)
}
