//! How many requests an upstream takes at once before they queue inside it.
//!
//! Purpose: a limit that follows the upstream by itself. More requests than it can work on at once do not
//! end sooner, they only wait where nobody can order them. The latency tells: it stays at its floor until
//! the upstream is full and grows from there.
//!
//! Exact conditions: successful requests are sampled in windows of 100 ms with 20 samples (of 1 s where
//! fewer come). At the end of each, with `floor` the least 90th percentile of a window in the last minute:
//! `gradient = 1.25 × floor / p90`, between 0.5 and 1, and the limit goes half way to
//! `gradient × limit + √limit`. It grows only where at least half of it was used: an idle upstream proves
//! nothing. A window in which a tenth of the requests failed (timeouts, resets, refusals) takes a tenth off
//! instead; failures that are quick would otherwise look like a fast upstream.
//!
//! The floor ages: after a minute in which every window was crowded, all that is known is how long a full
//! upstream takes. The limit is then halved for two windows, the second of which sets the floor anew. At
//! its equilibrium the limit is less than twice what the upstream works on at once, so half of it shows the
//! true floor.
//!
//! Cold start: [`START`]; the first window only sets the floor. Cost: O(1) a request, a selection among at
//! most 512 samples a window, no allocation.

use std::time::Duration;

use crate::random::{below, jitter};
use crate::time::Nanos;

/// Limit before anything is known.
pub const START: u32 = 32;
/// The limit never falls below.
pub const LEAST: u32 = 8;

const WINDOW: Duration = Duration::from_millis(100);
const WINDOW_MAX: Duration = Duration::from_secs(1);
const WINDOW_SAMPLES: usize = 20;
/// LIMIT: samples kept of a window; of more, an even choice.
const SAMPLES_MAX: usize = 512;
/// By how much the latency may exceed its floor without a smaller limit.
const TOLERANCE: f64 = 1.25;
/// How long a floor counts: [`FLOORS`] times this.
const FLOOR_STEP: Duration = Duration::from_secs(10);
const FLOORS: usize = 6;

/// How a request ended, for the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The upstream answered after this time.
    Answered(Duration),
    /// It failed as an overloaded upstream does.
    Failed,
    /// It says nothing: the client left, a stream without end.
    Unknown,
}

/// The limit of one upstream.
#[derive(Clone, Debug)]
pub struct Adaptive {
    most: f64,
    limit: f64,
    window: Window,
    floor: Floor,
    /// Windows left with half the limit.
    dip: u8,
}

#[derive(Clone, Debug)]
struct Window {
    started: Nanos,
    answered: u64,
    failed: u64,
    /// Most requests that ran at once.
    peak: u32,
    samples_us: Vec<u32>,
}

/// Least percentile of the last minute.
#[derive(Clone, Debug)]
struct Floor {
    step: u64,
    least_us: [Option<u32>; FLOORS],
    /// When it must be measured with half the limit, unless an idle window comes first.
    stale_at: Nanos,
}

impl Adaptive {
    /// At most `most` at once.
    pub fn new(most: u32, now: Nanos, seed: u64) -> Self {
        let most = f64::from(most.max(1));
        let mut floor = Floor { step: 0, least_us: [None; FLOORS], stale_at: Nanos::ZERO };
        floor.confirm(now, seed);
        Self { most, limit: f64::from(START).min(most), window: Window::new(now), floor, dip: 0 }
    }

    /// Takes a changed bound; what is known stays.
    pub fn configure(&mut self, most: u32) {
        self.most = f64::from(most.max(1));
        self.limit = self.limit.min(self.most);
    }

    /// The limit now.
    pub fn limit(&self) -> u32 {
        let limit = if self.dip > 0 { self.limit / 2.0 } else { self.limit };
        (limit as u32).max(LEAST.min(self.most as u32))
    }

    /// Latency of the upstream while it is not full, as far as known.
    pub fn floor(&self) -> Option<Duration> {
        self.floor.least().map(|us| Duration::from_micros(u64::from(us)))
    }

    /// Counts the end of a request; `running` is how many ran, this one included.
    pub fn ended(&mut self, ended: Ended, running: u32, now: Nanos, seed: u64) {
        self.window.peak = self.window.peak.max(running);
        match ended {
            Ended::Answered(took) => self.window.sample(took, seed),
            Ended::Failed => self.window.failed += 1,
            Ended::Unknown => {}
        }
        if self.window.is_over(now) {
            self.turn(now, seed);
        }
    }

    /// The end of a window.
    fn turn(&mut self, now: Nanos, seed: u64) {
        let window = &mut self.window;
        let crowded = f64::from(window.peak) * 2.0 >= self.limit;
        let overloaded = window.failed * 10 >= window.failed + window.answered;
        let p90 = window.p90();
        window.restart(now);
        if !crowded || self.dip == 1 {
            self.floor.confirm(now, seed);
        }
        if let Some(p90) = p90 {
            self.floor.lower(p90, now);
        }
        if self.dip > 0 {
            self.dip -= 1;
        } else if overloaded {
            self.set(self.limit * 0.9);
        } else if let (Some(p90), Some(floor)) = (p90, self.floor.least()) {
            let gradient = (TOLERANCE * f64::from(floor) / f64::from(p90)).clamp(0.5, 1.0);
            let aim = gradient.mul_add(self.limit, self.limit.sqrt());
            if aim < self.limit || crowded {
                self.set(f64::midpoint(self.limit, aim));
            }
            if now >= self.floor.stale_at {
                self.dip = 2;
            }
        }
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(f64::from(LEAST).min(self.most), self.most);
    }
}

impl Window {
    fn new(now: Nanos) -> Self {
        let samples_us = Vec::with_capacity(SAMPLES_MAX);
        Self { started: now, answered: 0, failed: 0, peak: 0, samples_us }
    }

    fn restart(&mut self, now: Nanos) {
        let mut samples_us = std::mem::take(&mut self.samples_us);
        samples_us.clear();
        *self = Self { started: now, answered: 0, failed: 0, peak: 0, samples_us };
    }

    fn sample(&mut self, took: Duration, seed: u64) {
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        self.answered += 1;
        if self.samples_us.len() < SAMPLES_MAX {
            return self.samples_us.push(us);
        }
        let place = below(self.answered, seed) as usize;
        if let Some(kept) = self.samples_us.get_mut(place) {
            *kept = us;
        }
    }

    fn is_over(&self, now: Nanos) -> bool {
        let age = now.since(self.started);
        age >= WINDOW && (self.samples_us.len() >= WINDOW_SAMPLES || age >= WINDOW_MAX)
    }

    fn p90(&mut self) -> Option<u32> {
        let place = (self.samples_us.len() * 9 / 10).min(self.samples_us.len().checked_sub(1)?);
        Some(*self.samples_us.select_nth_unstable(place).1)
    }
}

impl Floor {
    fn least(&self) -> Option<u32> {
        self.least_us.iter().flatten().min().copied()
    }

    fn lower(&mut self, us: u32, now: Nanos) {
        let step = now.0 / Nanos::from(FLOOR_STEP).0;
        for gone in (self.step + 1..=step).rev().take(FLOORS) {
            self.least_us[gone as usize % FLOORS] = None;
        }
        self.step = self.step.max(step);
        let least = &mut self.least_us[self.step as usize % FLOORS];
        *least = Some(least.map_or(us, |least| least.min(us)));
    }

    /// It is measured now; the next time comes before this one is forgotten.
    fn confirm(&mut self, now: Nanos, seed: u64) {
        self.stale_at = now.plus(jitter(FLOOR_STEP * (FLOORS as u32 - 1), 10, seed));
    }
}

#[cfg(test)]
mod tests;
