//! Many seeds, on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Report, Tally, run};

/// Runs seeds from one on; what they have seen together, and of those that failed the one with the least number.
pub(crate) fn runs(from: u64, count: u64) -> (Tally, Option<Report>) {
    let (next, end) = (AtomicU64::new(from), from + count);
    let found: Mutex<(Tally, Option<Report>)> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= end {
                return;
            }
            let report = run(seed, false);
            let mut found = found.lock().expect("nobody panics with it");
            found.0.add(report.tally);
            if report.fault.is_some() {
                next.store(end, Relaxed);
                if found.1.as_ref().is_none_or(|known| known.seed > seed) {
                    found.1 = Some(report);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    found.into_inner().expect("nobody panics with it")
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.executions += other.executions;
        self.retries += other.retries;
        self.budget_stops += other.budget_stops;
        self.hedges += other.hedges;
        self.stale += other.stale;
        self.handovers += other.handovers;
        self.leased += other.leased;
        self.limited += other.limited;
        self.unknown_keys += other.unknown_keys;
    }
}
