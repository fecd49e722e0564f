//! The rolling variance.
//!
//! The variance is the difference of two sums that grow with the square of the price, so prices are
//! taken relative to an anchor: the oldest price of the window that started the segment. When the
//! variance falls below [`TRUST`] of the largest mean square since the anchor was set, the digits
//! left are too few: the window is summed again around its own oldest price. That price lies in the
//! window, so the fresh variance is at least `1 / window` of the fresh mean square and the rule does
//! not fire twice for one cause. A flat window gives exactly zero.
//!
//! Cost: restarts are gathered bar by bar. Summing again costs one window, and only a fall of the
//! spread by two orders of magnitude, which takes about a window of bars, brings it about.

use super::lanes::{LANES, each_bar};
use super::mean::Sum;
use super::{Clock, Ring, segment_bars};
use wide::f64x8;

/// Smallest trusted ratio of the variance to the peak mean square. At 1e-4 the twelve digits that
/// a segment's rounding leaves come down to eight in the variance at worst, and in a steady trend
/// the rule first fires after some 29 windows, about where the segment ends anyway.
const TRUST: f64 = 1e-4;

/// Sum and square sum of a window, relative to an anchor.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    anchor: f64,
    sum: f64,
    square: f64,
    peak: f64,
}

impl Moments {
    /// No value yet, relative to `anchor`.
    #[inline]
    fn around(anchor: f64) -> Self {
        Self { anchor, ..Self::default() }
    }

    #[inline]
    fn add(&mut self, value: f64) {
        let newest = value - self.anchor;
        self.sum += newest;
        self.square += newest * newest;
        self.peak = self.square;
    }

    #[inline]
    fn slide(&mut self, oldest: f64, newest: f64) {
        let (oldest, newest) = (oldest - self.anchor, newest - self.anchor);
        self.sum = (self.sum - oldest) + newest;
        self.square = (self.square - oldest * oldest) + newest * newest;
        self.peak = if self.square > self.peak { self.square } else { self.peak };
    }

    /// The moments of a whole window around its oldest value.
    fn over(mut window: impl Iterator<Item = f64>) -> Self {
        let oldest = window.next().unwrap_or_default();
        let mut moments = Self::around(oldest);
        moments.add(oldest);
        window.for_each(|value| moments.add(value));
        moments
    }

    /// The population variance; `per_bar` is one over the window. Rounding may leave it negative.
    #[inline]
    fn variance(&self, per_bar: f64) -> f64 {
        let mean = self.sum * per_bar;
        self.square * per_bar - mean * mean
    }

    #[inline]
    fn distrusts(&self, variance: f64, per_bar: f64) -> bool {
        variance < TRUST * (self.peak * per_bar)
    }
}

/// Rounding must not make a variance negative; `NaN` stays.
#[inline]
fn not_negative(variance: f64) -> f64 {
    if variance < 0.0 { 0.0 } else { variance }
}

/// The streaming rolling mean and population variance; `NaN` until the window is full.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    ring: Ring,
    clock: Clock,
    sum: Sum,
    running: Moments,
    fresh: Moments,
    count: f64,
    per_bar: f64,
}

/// A streaming window's sums after a bar.
type Sums = (Sum, Moments, Moments);

impl Spread {
    pub(crate) fn new(window: usize) -> Self {
        Self {
            ring: Ring::new(window),
            clock: Clock::new(window),
            sum: Sum::default(),
            running: Moments::default(),
            fresh: Moments::default(),
            count: window as f64,
            per_bar: 1.0 / window as f64,
        }
    }

    fn after(&self, newest: f64) -> (Sums, (f64, f64)) {
        let oldest = self.ring.oldest();
        let sum = self.sum.after(&self.clock, oldest, newest);
        let mut fresh = if self.clock.opens() { Moments::around(newest) } else { self.fresh };
        fresh.add(newest);
        if !self.clock.full() {
            return ((sum, self.running, fresh), (f64::NAN, f64::NAN));
        }
        let mut running = self.running;
        if self.clock.restarts() {
            running = fresh;
        } else {
            running.slide(oldest, newest);
            if running.distrusts(running.variance(self.per_bar), self.per_bar) {
                running = Moments::over(self.ring.window_with(newest));
            }
        }
        let variance = not_negative(running.variance(self.per_bar));
        ((sum, running, fresh), (sum.running / self.count, variance))
    }

    pub(crate) fn push(&mut self, newest: f64) -> (f64, f64) {
        let (sums, mean_and_variance) = self.after(newest);
        (self.sum, self.running, self.fresh) = sums;
        self.ring.push(newest);
        self.clock.tick();
        mean_and_variance
    }

    pub(crate) fn peek(&self, newest: f64) -> (f64, f64) {
        self.after(newest).1
    }
}

/// Writes the population variance of `input[i + 1 - window..=i]` to `out[i]` for every full window;
/// leaves the first `window - 1` values of `out` as they are. Both slices have one length.
pub(crate) fn rolling_variances(input: &[f64], window: usize, out: &mut [f64]) {
    let segment = segment_bars(window);
    let ready = (window - 1).min(out.len());
    let mut groups = out[ready..].chunks_exact_mut(LANES * segment);
    let mut from = 0;
    for out in &mut groups {
        let distrusted = group_variances(&input[from..], window, out);
        for (lane, out) in out.chunks_exact_mut(segment).enumerate() {
            if distrusted & (1 << lane) != 0 {
                segment_variances(&input[from + lane * segment..], window, out);
            }
        }
        from += LANES * segment;
    }
    for out in groups.into_remainder().chunks_mut(segment) {
        segment_variances(&input[from..], window, out);
        from += segment;
    }
}

/// One segment: `input` begins with the first window.
fn segment_variances(input: &[f64], window: usize, out: &mut [f64]) {
    let per_bar = 1.0 / window as f64;
    let mut moments = Moments::over(input[..window].iter().copied());
    out[0] = not_negative(moments.variance(per_bar));
    for (bar, out) in out.iter_mut().enumerate().skip(1) {
        moments.slide(input[bar - 1], input[bar + window - 1]);
        let mut variance = moments.variance(per_bar);
        if moments.distrusts(variance, per_bar) {
            moments = Moments::over(input[bar..bar + window].iter().copied());
            variance = moments.variance(per_bar);
        }
        *out = not_negative(variance);
    }
}

/// [`LANES`] segments as [`segment_variances`] does them, but without summing any window again:
/// returns a bit for every lane that would have had to, whose values are then not to be used.
fn group_variances(input: &[f64], window: usize, out: &mut [f64]) -> u32 {
    let segment = out.len() / LANES;
    let per_bar = 1.0 / window as f64;
    let fresh: [Moments; LANES] =
        std::array::from_fn(|lane| Moments::over(input[lane * segment..][..window].iter().copied()));
    for (lane, moments) in fresh.iter().enumerate() {
        out[lane * segment] = not_negative(moments.variance(per_bar));
    }
    let anchor = f64x8::new(fresh.map(|moments| moments.anchor));
    let mut sum = f64x8::new(fresh.map(|moments| moments.sum));
    let mut square = f64x8::new(fresh.map(|moments| moments.square));
    let mut peak = square;
    let mut distrusted = f64x8::ZERO;
    let (per_bar, trust) = (f64x8::splat(per_bar), f64x8::splat(TRUST));
    each_bar(input, window, out, |oldest, newest| {
        let (oldest, newest) = (oldest - anchor, newest - anchor);
        sum = (sum - oldest) + newest;
        square = (square - oldest * oldest) + newest * newest;
        peak = square.fast_max(peak);
        let mean = sum * per_bar;
        let variance = square * per_bar - mean * mean;
        distrusted |= variance.simd_lt(trust * (peak * per_bar));
        variance
    });
    distrusted.to_bitmask()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variance in two passes, around the window's own first value.
    fn two_pass(window: &[f64]) -> f64 {
        let count = window.len() as f64;
        let mean = window.iter().map(|value| value - window[0]).sum::<f64>() / count;
        window.iter().map(|value| (value - window[0] - mean).powi(2)).sum::<f64>() / count
    }

    /// A walk in the `digit`-th digit of its offset, a steep ramp, spikes of falling size, halts.
    fn hard_series() -> [Vec<f64>; 5] {
        let mut state = 1_u64;
        let mut roll = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / 16_777_216.0 - 0.5
        };
        let mut walk = |offset: f64, step: f64| {
            let mut value = offset;
            (0..6_000).map(|_| (value += roll() * step, value).1).collect::<Vec<f64>>()
        };
        let mut spikes = walk(100.0, 0.1);
        for at in 0..600 {
            spikes[at * 10] *= [1e9, 1e6, 1e3, 10.0, 1.0][at % 5];
        }
        let mut halts = walk(100.0, 1.0);
        for at in (0..6_000).filter(|at| at % 200 > 60) {
            halts[at] = halts[at - 1];
        }
        let ramp = (0..6_000).map(|at| f64::from(at) * 0.25 + 1e4);
        [walk(1e6, 1e-3), walk(1e-9, 1e-12), ramp.collect(), spikes, halts]
    }

    #[test]
    fn the_variance_keeps_its_digits() {
        for (kind, input) in hard_series().iter().enumerate() {
            for window in [2, 3, 20, 100, 1_500] {
                let mut out = vec![0.0; input.len()];
                rolling_variances(input, window, &mut out);
                for end in window..=input.len() {
                    let (ours, plain) = (out[end - 1], two_pass(&input[end - window..end]));
                    let close = (ours - plain).abs() <= 2e-9 * plain;
                    assert!(close, "series {kind}, window {window}, end {end}: {ours:e} for {plain:e}");
                }
            }
        }
    }

    #[test]
    fn a_flat_window_after_a_spike_has_no_variance() {
        let mut input = vec![0.1; 60];
        input[20] = 1e9;
        let mut out = vec![f64::NAN; input.len()];
        rolling_variances(&input, 20, &mut out);
        assert_eq!(out[40..], [0.0; 20]);
        assert!(out[39] > 1e15);
    }
}
