//! Runs seeds of the simulation: `--seeds N [--from M]` as many as asked, on all cores; `--seed N [--trace]` one.

#[path = "../tests/simulation/world/mod.rs"]
mod world;

use std::io::Write as _;
use std::process::ExitCode;

use world::{Report, run, runs};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1)?.parse::<u64>().ok()
    };
    let trace = words.iter().any(|word| word == "--trace");
    match (number("--seed"), number("--seeds")) {
        (Some(seed), _) => one(seed, trace),
        (None, Some(count)) => many(number("--from").unwrap_or(0), count),
        (None, None) => {
            say("usage: simulate --seed N [--trace] | --seeds N [--from M]");
            ExitCode::from(2)
        }
    }
}

fn say(line: &str) {
    // Nobody is left to tell where this fails.
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let report = run(seed, trace);
    for line in &report.lines {
        say(line);
    }
    say(&format!("seed {seed}: hash {:016x}, {:?}", report.hash, report.tally));
    judge(&report)
}

fn judge(report: &Report) -> ExitCode {
    let Some(fault) = &report.fault else { return ExitCode::SUCCESS };
    let seed = report.seed;
    say(&format!("seed {seed} {fault}"));
    say(&format!("again: cargo run --release -p sluice-policy --example simulate -- --seed {seed} --trace"));
    ExitCode::FAILURE
}

#[expect(clippy::disallowed_methods, reason = "measures itself")]
fn many(from: u64, count: u64) -> ExitCode {
    let began = std::time::Instant::now();
    let (tally, failed) = runs(from, count);
    say(&format!("{count} seeds, {:.1} s: {tally:?}", began.elapsed().as_secs_f64()));
    failed.map_or(ExitCode::SUCCESS, |report| judge(&report))
}
