//! Peak-EWMA with the power of two choices.
//!
//! Purpose: send to the instance that would answer soonest, without all edge threads running to the same one.
//! Two candidates are drawn by weight, and the one with the lower cost is taken: latency × (in flight + 1) / weight.
//!
//! The latency is a moving average that jumps up at once to a higher sample and comes down over [`TAU`]; without
//! samples it decays as well, so that an instance that was slow is tried again, with one request at first. A failed
//! try counts as an answer after [`FAILURE_COST`] at least. Cold start: before an instance's first answer the two are
//! compared by requests in flight for their weight alone.
//!
//! While hardly anything is in flight the cheapest instances get nearly everything: weights are kept under load.
//!
//! Cost: two draws, two exponentials, no lock. The cell is one word, microseconds (71 minutes at most) beside
//! milliseconds (compared over 24 days).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::field::Candidate;
use super::least::by_load;
use super::weighted::by_weight;
use crate::random::mix;
use crate::time::Nanos;

/// Time in which an average comes down to a third.
const TAU: Duration = Duration::from_secs(10);
/// What a failed try costs at least.
pub const FAILURE_COST: Duration = Duration::from_secs(1);

/// A latency that jumps up and comes down slowly. Two threads at once may lose one sample.
#[derive(Debug, Default)]
pub(super) struct Peak(AtomicU64);

impl Peak {
    pub(super) fn observe(&self, sample: Duration, now: Nanos) {
        let sample = sample.as_secs_f64() * 1e6;
        let cell = self.0.load(Relaxed);
        let peak = match read(cell) {
            Some((peak, at)) if sample < peak => {
                let kept = kept(at, now);
                peak * kept + sample * (1.0 - kept)
            }
            _ => sample,
        };
        self.0.store(
            u64::from(peak.clamp(1.0, f64::from(u32::MAX)) as u32) << 32 | u64::from(millis(now)),
            Relaxed,
        );
    }

    /// In microseconds; `None` before the first sample.
    pub(super) fn latency(&self, now: Nanos) -> Option<f64> {
        let (peak, at) = read(self.0.load(Relaxed))?;
        Some(peak * kept(at, now))
    }
}

/// Latency in microseconds and its moment; `None` of an empty cell.
fn read(cell: u64) -> Option<(f64, u32)> {
    (cell != 0).then_some(((cell >> 32) as f64, cell as u32))
}

fn millis(now: Nanos) -> u32 {
    (now.0 / 1_000_000) as u32
}

/// What is left of an average of that moment.
fn kept(at: u32, now: Nanos) -> f64 {
    // A moment of another thread may lie a little ahead.
    let passed = millis(now).wrapping_sub(at) as i32;
    (-f64::from(passed.max(0)) / 1e3 / TAU.as_secs_f64()).exp()
}

/// The cheaper of two.
pub(super) fn cheaper<'f>(one: &'f Candidate, other: &'f Candidate, seed: u64, now: Nanos) -> &'f Candidate {
    let latency = |candidate: &Candidate| candidate.instance.peak.latency(now);
    let order = match (latency(one), latency(other)) {
        (Some(here), Some(there)) => cost(one, here).total_cmp(&cost(other, there)),
        _ => by_load(one, other),
    };
    let first = order.is_lt() || order.is_eq() && mix(seed) & 1 == 0;
    if first { one } else { other }
}

fn cost(candidate: &Candidate, latency_us: f64) -> f64 {
    latency_us * (f64::from(candidate.instance.in_flight()) + 1.0) / candidate.weight as f64
}

/// The cheaper of two usable candidates; the only one where there is one.
pub(super) fn of_two(
    side: &[Candidate],
    seed: u64,
    now: Nanos,
    usable: impl Fn(&Candidate) -> bool,
) -> Option<&Candidate> {
    let one = by_weight(side, seed, &usable)?;
    let others = |candidate: &Candidate| usable(candidate) && candidate.index != one.index;
    let other = by_weight(side, mix(seed), others);
    Some(other.map_or(one, |other| cheaper(one, other, seed, now)))
}
