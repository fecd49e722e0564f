//! The rolling mean.

use super::lanes::{LANES, each_bar};
use super::{Clock, Ring, segment_bars};
use wide::f64x8;

/// The sum of a window, and the next fresh sum as it is gathered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) running: f64,
    fresh: f64,
}

impl Sum {
    /// The sums after `newest` joins and `oldest` leaves. Before the first window is full the
    /// running sum means nothing; the restart overwrites it.
    #[inline]
    pub(super) fn after(self, clock: &Clock, oldest: f64, newest: f64) -> Self {
        let fresh = if clock.opens() { 0.0 } else { self.fresh } + newest;
        let running = if clock.restarts() { fresh } else { slide(self.running, oldest, newest) };
        Self { running, fresh }
    }
}

/// One step of a running sum: off with the oldest, on with the newest.
#[inline]
fn slide(sum: f64, oldest: f64, newest: f64) -> f64 {
    (sum - oldest) + newest
}

/// The streaming rolling mean; `NaN` until the window is full.
#[derive(Clone, Debug)]
pub(crate) struct Mean {
    ring: Ring,
    clock: Clock,
    sum: Sum,
    count: f64,
}

impl Mean {
    pub(crate) fn new(window: usize) -> Self {
        Self { ring: Ring::new(window), clock: Clock::new(window), sum: Sum::default(), count: window as f64 }
    }

    fn after(&self, newest: f64) -> (Sum, f64) {
        let sum = self.sum.after(&self.clock, self.ring.oldest(), newest);
        let mean = if self.clock.full() { sum.running / self.count } else { f64::NAN };
        (sum, mean)
    }

    pub(crate) fn push(&mut self, newest: f64) -> f64 {
        let (sum, mean) = self.after(newest);
        self.sum = sum;
        self.ring.push(newest);
        self.clock.tick();
        mean
    }

    pub(crate) fn peek(&self, newest: f64) -> f64 {
        self.after(newest).1
    }
}

/// Writes the mean of `input[i + 1 - window..=i]` to `out[i]` for every full window; leaves the
/// first `window - 1` values of `out` as they are. Both slices have one length.
pub(crate) fn rolling_means(input: &[f64], window: usize, out: &mut [f64]) {
    let group = LANES * segment_bars(window);
    let ready = (window - 1).min(out.len());
    let mut groups = out[ready..].chunks_exact_mut(group);
    let mut from = 0;
    for out in &mut groups {
        group_means(&input[from..], window, out);
        from += group;
    }
    let rest = groups.into_remainder();
    means_by(|at| input[from + at], window, rest);
}

/// As [`rolling_means`], of values worked out from their position, each twice.
pub(crate) fn rolling_means_by(value: impl Fn(usize) -> f64, window: usize, out: &mut [f64]) {
    let ready = (window - 1).min(out.len());
    means_by(value, window, &mut out[ready..]);
}

/// The means of every segment in `out`, whose first window ends at its first bar and begins at
/// position 0 of `value`.
fn means_by(value: impl Fn(usize) -> f64, window: usize, out: &mut [f64]) {
    let count = window as f64;
    let segment = segment_bars(window);
    for (index, out) in out.chunks_mut(segment).enumerate() {
        let from = index * segment;
        let mut sum = (from..from + window).fold(0.0, |sum, at| sum + value(at));
        out[0] = sum / count;
        for (bar, out) in out.iter_mut().enumerate().skip(1) {
            sum = slide(sum, value(from + bar - 1), value(from + bar + window - 1));
            *out = sum / count;
        }
    }
}

/// As [`means_by`], for exactly [`LANES`] segments.
fn group_means(input: &[f64], window: usize, out: &mut [f64]) {
    let segment = out.len() / LANES;
    let fresh: [f64; LANES] = std::array::from_fn(|lane| {
        let first = &input[lane * segment..][..window];
        first.iter().fold(0.0, |sum, value| sum + value)
    });
    for (lane, sum) in fresh.into_iter().enumerate() {
        out[lane * segment] = sum / window as f64;
    }
    let count = f64x8::splat(window as f64);
    let mut sum = f64x8::new(fresh);
    each_bar(input, window, out, |oldest, newest| {
        sum = (sum - oldest) + newest;
        sum / count
    });
}
