//! How many requests an upstream takes at once before they queue inside it.
//!
//! Purpose: a limit that follows the upstream by itself. More requests than it can work on at once do not
//! end sooner, they only wait where nobody can order them. The latency tells: it stays at its floor until
//! the upstream is full and grows from there.
//!
//! Exact conditions: successful requests are sampled in windows of 100 ms with 20 samples (of 1 s where
//! fewer come; never shorter than the latency), lane by lane, since an order and an analysis take different
//! times. At the end of each, with `floor` the least 90th percentile of a lane's window in the last minute, a
//! lane's gradient is `1.25 × floor / p90`, between 0.5 and 1, where less than 8 ms counts as 8 ms; that of all is their mean, weighted by samples.
//! The limit goes half way to `gradient × limit + √limit`. A window in which a tenth of the requests failed
//! (timeouts, resets, refusals) takes a tenth off instead; failures that are quick would otherwise look like a
//! fast upstream.
//!
//! It grows, and turns requests away, only where they are **crowded**, where at least half of it was used in a
//! window. Where it is not used it may fall, to twice what was, so that it is near when it is needed.
//!
//! A fall is **tried, not believed**: where the limit has halved and the latency has not fallen by a fifth
//! with it, the upstream was not full, its work has become longer: the fall is taken back, the floor set to what it
//! takes now, and for 10 s, then twice as long up to 60 s, latency makes no limit fall.
//!
//! The floor ages: after a minute in which every window was crowded, all that is known is how long a full
//! upstream takes. The limit is then halved for two windows, the second of which sets the floor anew; where that is
//! lower by a fifth, half the limit is kept and halved again. At its equilibrium the limit is less than twice what
//! the upstream works on at once, so half of it shows the true floor.
//!
//! Cold start: [`START`], as nothing tells yet that it is too much. The first time that it is crowded half of it is
//! tried, and half of that, while it is of use; so an upstream that is flooded from the first moment is found out
//! within seconds. One that is overfull below half of [`START`] is found out when its load first varies.
//! Cost: O(1) a request, a selection among at most 512 samples a lane and window, no allocation once a lane has
//! been sampled.

use std::time::Duration;

use sluice_schema::Lane;

use crate::random::{below, jitter};
use crate::time::Nanos;

/// Limit before anything is known.
pub const START: u32 = 1024;
/// The limit never falls below: a few dozen requests are no crowd worth a queue, and in front of a fast upstream a
/// queue turns a moment in which this process stood still into refusals.
pub const LEAST: u32 = 40;

const WINDOW: Duration = Duration::from_millis(100);
const WINDOW_MAX: Duration = Duration::from_secs(1);
const WINDOW_SAMPLES: usize = 20;
/// However long requests take, a window is not longer.
const PACE_MAX: Duration = Duration::from_secs(10);
/// LIMIT: samples kept of a lane's window; of more, an even choice.
const SAMPLES_MAX: usize = 512;
/// By how much the latency may exceed its floor without a smaller limit.
const TOLERANCE: f64 = 1.25;
/// Latencies below count as this long. Where a fast upstream, or this process in front of it, takes up to 10 ms
/// instead of a fraction of one, nobody is harmed who would not be harmed more by a refusal.
const HARMLESS_US: u32 = 8_000;
/// Part of the latency that is left at most where half the limit shows that the upstream was full.
const RELIEF: f64 = 0.8;
/// How long latency makes no limit fall after it did so without use: at first, and at most.
const TRUCE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];
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
    floors: [Floor; 4],
    /// When the floors must be measured with half the limit, unless an idle window comes first.
    stale_at: Nanos,
    dip: Option<Dip>,
    /// Half of it was tried once.
    proven: bool,
    fall: Option<Fall>,
    truce: Duration,
    truce_until: Nanos,
}

/// A time with half the limit.
#[derive(Clone, Copy, Debug)]
struct Dip {
    /// Windows left.
    left: u8,
    /// The floors when it began.
    floors_us: [Option<u32>; 4],
}

/// A limit on its way down.
#[derive(Clone, Copy, Debug)]
struct Fall {
    /// Requests that ran at once when it began.
    from: f64,
    /// The floors then.
    floors_us: [Option<u32>; 4],
    /// Latency over them, the most since.
    worst: f64,
    /// It has come as far as is to be tried, and shows its effect in the present window.
    held: bool,
}

/// What a window showed of a lane that was sampled.
#[derive(Clone, Copy, Debug)]
struct Shown {
    lane: usize,
    samples: f64,
    p90_us: u32,
}

#[derive(Clone, Debug)]
struct Window {
    started: Nanos,
    answered: u64,
    failed: u64,
    /// Most requests that ran at once.
    peak: u32,
    /// It lasts at least so long.
    pace: Duration,
    samples_us: [Vec<u32>; 4],
}

/// Least percentile of the last minute, of one lane.
#[derive(Clone, Debug, Default)]
struct Floor {
    step: u64,
    least_us: [Option<u32>; FLOORS],
}

impl Adaptive {
    /// At most `most` at once.
    pub fn new(most: u32, now: Nanos) -> Self {
        let most = f64::from(most.max(1));
        Self {
            most,
            limit: f64::from(START).min(most),
            window: Window::new(now),
            floors: Default::default(),
            stale_at: Nanos::ZERO,
            dip: None,
            proven: false,
            fall: None,
            truce: TRUCE[0],
            truce_until: Nanos::ZERO,
        }
    }

    /// Takes a changed bound; what is known stays.
    pub fn configure(&mut self, most: u32) {
        self.most = f64::from(most.max(1));
        self.set(self.limit);
    }

    /// Goes on from a limit that was found before.
    pub fn resume(&mut self, limit: u32) {
        self.proven = true;
        self.set(f64::from(limit));
    }

    /// The limit now.
    pub fn limit(&self) -> u32 {
        let limit = if self.dip.is_some() { self.limit / 2.0 } else { self.limit };
        (limit as u32).max(LEAST.min(self.most as u32))
    }

    /// Counts the end of a request; `running` is how many ran, this one included.
    pub fn ended(&mut self, lane: Lane, ended: Ended, running: u32, now: Nanos, seed: u64) {
        self.window.peak = self.window.peak.max(running);
        match ended {
            Ended::Answered(took) => self.window.sample(lane, took, seed),
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
        let peak = f64::from(window.peak);
        let crowded = peak * 2.0 >= self.limit;
        let overloaded = window.failed * 10 >= window.failed + window.answered;
        let shown = window.shown();
        window.restart(now, shown.iter().flatten().map(|shown| shown.p90_us).max());
        if (self.proven && !crowded) || self.dip.is_some_and(|dip| dip.left == 1) {
            self.stale_at = stale_at(now, seed);
        }
        for shown in shown.iter().flatten() {
            self.floors[shown.lane].lower(shown.p90_us, now);
        }
        if let Some(dip) = self.dip.take() {
            self.dipped(dip, &shown, now);
        } else if overloaded {
            if crowded {
                self.set(self.limit * 0.9);
            }
        } else if shown.iter().any(Option::is_some) {
            self.follow(&shown, peak, now, seed);
            if self.proven && crowded && now >= self.stale_at {
                self.dip = Some(Dip { left: 2, floors_us: self.floors_us() });
            }
        }
    }

    /// The end of a window with half the limit. Where requests take less by a fifth, so much was too much.
    fn dipped(&mut self, dip: Dip, shown: &[Option<Shown>; 4], now: Nanos) {
        if dip.left > 1 {
            self.dip = Some(Dip { left: dip.left - 1, ..dip });
        } else if stretch(shown, &dip.floors_us) < RELIEF {
            self.set(self.limit / 2.0);
            self.stale_at = now;
        }
    }

    /// Moves the limit by what a window showed in which at most `peak` ran.
    fn follow(&mut self, shown: &[Option<Shown>; 4], peak: f64, now: Nanos, seed: u64) {
        let crowded = peak * 2.0 >= self.limit;
        let stretch = stretch(shown, &self.floors_us());
        // What nobody has tried yet is tried.
        let tries = crowded && !self.proven;
        let gradient = if tries { 0.5 } else { (TOLERANCE / stretch).clamp(0.5, 1.0) };
        let aim = f64::midpoint(self.limit, gradient.mul_add(self.limit, self.limit.sqrt()));
        if gradient >= 1.0 {
            self.fall = None;
            if crowded {
                self.set(aim);
            }
        } else if now < self.truce_until || (!crowded && aim > self.limit) {
            self.fall = None;
        } else if !crowded {
            self.fall = None;
            self.set(aim.max(peak * 2.0));
        } else if !self.fall(shown, aim, peak) {
            shown.iter().flatten().for_each(|shown| self.floors[shown.lane].set(shown.p90_us, now));
            if !std::mem::replace(&mut self.proven, true) {
                self.stale_at = stale_at(now, seed);
                return;
            }
            self.truce_until = now.plus(self.truce);
            self.truce = (self.truce * 2).min(TRUCE[1]);
        }
    }

    /// Goes on with a fall of the limit; false where half of it was of no use, and it is taken back.
    fn fall(&mut self, shown: &[Option<Shown>; 4], aim: f64, peak: f64) -> bool {
        let begins =
            Fall { from: self.limit.min(peak), floors_us: self.floors_us(), worst: 0.0, held: false };
        let fall = self.fall.get_or_insert(begins);
        let stretch = stretch(shown, &fall.floors_us);
        fall.worst = fall.worst.max(stretch);
        let Fall { from, worst, held, .. } = *fall;
        let least = f64::from(LEAST).min(self.most);
        let at_bottom = self.limit <= least;
        if self.limit * 2.0 > from && !at_bottom {
            self.set(aim);
            return true;
        }
        if !held {
            // One window more: what ends now began with more beside it.
            fall.held = true;
            return true;
        }
        self.fall = None;
        // Half way to what a full upstream would show.
        let has_use = stretch <= worst * f64::midpoint(1.0, self.limit / from).max(RELIEF);
        self.set(if has_use { aim } else { from });
        if has_use {
            self.truce = TRUCE[0];
        }
        // At the bottom there is nothing more to try.
        has_use && (self.proven || !at_bottom)
    }

    fn floors_us(&self) -> [Option<u32>; 4] {
        self.floors.each_ref().map(Floor::least)
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(f64::from(LEAST).min(self.most), self.most);
    }
}

/// Latency over its floor, the mean of the lanes, weighted by samples.
fn stretch(shown: &[Option<Shown>; 4], floors_us: &[Option<u32>; 4]) -> f64 {
    let (mut sum, mut samples) = (0.0, 0.0);
    for shown in shown.iter().flatten() {
        let floor = floors_us[shown.lane].unwrap_or(shown.p90_us).max(HARMLESS_US);
        sum += shown.samples * f64::from(shown.p90_us.max(HARMLESS_US)) / f64::from(floor);
        samples += shown.samples;
    }
    if samples > 0.0 { sum / samples } else { 1.0 }
}

/// The floors are measured now; the next time comes before this one is forgotten.
fn stale_at(now: Nanos, seed: u64) -> Nanos {
    now.plus(jitter(FLOOR_STEP * (FLOORS as u32 - 1), 10, seed))
}

impl Window {
    fn new(now: Nanos) -> Self {
        Self { started: now, answered: 0, failed: 0, peak: 0, pace: WINDOW, samples_us: Default::default() }
    }

    /// Begins anew, for as long as requests took at least, so that it shows what its limit does.
    fn restart(&mut self, now: Nanos, took_us: Option<u32>) {
        let mut samples_us = std::mem::take(&mut self.samples_us);
        samples_us.iter_mut().for_each(Vec::clear);
        let took = took_us.map_or(self.pace, |us| Duration::from_micros(us.into()));
        let pace = took.clamp(WINDOW, PACE_MAX);
        *self = Self { started: now, answered: 0, failed: 0, peak: 0, pace, samples_us };
    }

    fn sample(&mut self, lane: Lane, took: Duration, seed: u64) {
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        self.answered += 1;
        let samples_us = &mut self.samples_us[lane as usize];
        if samples_us.len() < SAMPLES_MAX {
            if samples_us.capacity() == 0 {
                samples_us.reserve_exact(SAMPLES_MAX);
            }
            return samples_us.push(us);
        }
        let place = below(self.answered, seed) as usize;
        if let Some(kept) = samples_us.get_mut(place) {
            *kept = us;
        }
    }

    fn is_over(&self, now: Nanos) -> bool {
        let age = now.since(self.started);
        let samples: usize = self.samples_us.iter().map(Vec::len).sum();
        age >= self.pace && (samples >= WINDOW_SAMPLES || age >= WINDOW_MAX)
    }

    fn shown(&mut self) -> [Option<Shown>; 4] {
        let mut lane = 0..4;
        self.samples_us.each_mut().map(|samples_us| {
            let lane = lane.next()?;
            let place = (samples_us.len() * 9 / 10).min(samples_us.len().checked_sub(1)?);
            let p90_us = *samples_us.select_nth_unstable(place).1;
            Some(Shown { lane, samples: samples_us.len() as f64, p90_us })
        })
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

    /// Forgets what was lower.
    fn set(&mut self, us: u32, now: Nanos) {
        self.least_us = [None; FLOORS];
        self.lower(us, now);
    }
}

#[cfg(test)]
mod tests;
