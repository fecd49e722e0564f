//! The rolling mean.

use super::{Clock, Ring, segment_bars, segment_starts};

/// The sum of a window, and the next fresh sum as it is gathered.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    running: f64,
    fresh: f64,
}

impl Sum {
    /// The sums after `newest` joins and `oldest` leaves. Before the first window is full the
    /// running sum means nothing; the restart overwrites it.
    #[inline]
    fn after(self, clock: &Clock, oldest: f64, newest: f64) -> Self {
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
    rolling_means_by(|at| input[at], window, out);
}

/// As [`rolling_means`], of values worked out from their position, each twice.
pub(crate) fn rolling_means_by(value: impl Fn(usize) -> f64, window: usize, out: &mut [f64]) {
    let segment = segment_bars(window);
    let len = out.len();
    for first in segment_starts(window, len) {
        segment_means(&value, window, first, &mut out[first..len.min(first + segment)]);
    }
}

/// One segment, whose first window ends at `first`.
fn segment_means(value: impl Fn(usize) -> f64, window: usize, first: usize, out: &mut [f64]) {
    let count = window as f64;
    let mut sum = (first + 1 - window..=first).fold(0.0, |sum, at| sum + value(at));
    for (bar, out) in out.iter_mut().enumerate() {
        if bar > 0 {
            sum = slide(sum, value(first + bar - window), value(first + bar));
        }
        *out = sum / count;
    }
}
