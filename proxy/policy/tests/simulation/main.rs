//! A seeded simulation of edges, instances and clients, and what must hold in it whatever goes wrong.
//!
//! `SLUICE_SEED=N` runs that seed alone and prints all that happened; `SLUICE_SEEDS=N` runs so many.
//! Ten thousand: `cargo run --release -p sluice-policy --example simulate -- --seeds 10000`.

mod world;

use world::{Report, Tally, run, runs};

/// Seeds of a usual run: a few seconds without optimisation.
const SEEDS: u64 = 600;

#[expect(clippy::disallowed_methods, reason = "who looks for a fault names the seed outside")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn complain(report: &Report) -> String {
    let Report { seed, fault, .. } = report;
    let fault = fault.as_deref().unwrap_or("nothing");
    format!(
        "seed {seed} {fault}\nagain, with all that happened: cargo run --release -p sluice-policy --example simulate \
         -- --seed {seed} --trace\nor: SLUICE_SEED={seed} cargo test -p sluice-policy --test simulation -- --nocapture"
    )
}

#[test]
fn whatever_goes_wrong_what_must_hold_holds() {
    if let Some(seed) = asked("SLUICE_SEED") {
        let report = run(seed, true);
        for line in &report.lines {
            eprintln!("{line}");
        }
        assert!(report.fault.is_none(), "{}", complain(&report));
        return;
    }
    let (tally, failed) = runs(0, asked("SLUICE_SEEDS").unwrap_or(SEEDS));
    assert!(failed.is_none(), "{}", failed.as_ref().map(complain).unwrap_or_default());
    let Tally { requests, executions, retries, budget_stops: stops, .. } = tally;
    let Tally { hedges, stale, handovers, leased, limited, unknown_keys, .. } = tally;
    assert!(
        requests > 10_000 && executions * 5 > requests,
        "{executions} of {requests} requests were executed"
    );
    assert!(hedges > 100 && stale > 100, "{hedges} second tries, {stale} older answers");
    assert!(handovers > 100 && leased > 100, "{handovers} handovers, {leased} requests by leases");
    assert!(limited > 100, "{limited} waited for a shared limit");
    assert!(unknown_keys > 0, "no stream ended with its caller's key");
    assert!(retries > 100 && stops > 0, "{retries} retries, {stops} stopped by the budget");
}

#[test]
fn a_seed_is_a_world() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let (first, second) = (run(seed, false), run(seed, true));
        assert_eq!(first.hash, second.hash, "seed {seed} went two ways");
        assert!(!second.lines.is_empty());
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 10, "different seeds, different worlds");
}
