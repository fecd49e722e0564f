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

use crate::lanes::Lanes;

/// Smallest trusted ratio of the variance to the peak mean square. At 1e-4 the twelve digits that
/// a segment's rounding leaves come down to eight in the variance at worst, and in a steady trend
/// the rule first fires after some 29 windows, about where the segment ends anyway.
const TRUST: f64 = 1e-4;

/// The variance of a window, out of four words: the anchor, the sum and the square sum relative to
/// it, and the largest square sum since it was set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    window: usize,
    count: f64,
    /// [`TRUST`] for a spread beside a square sum.
    trust: f64,
}

/// The words.
type Words<V> = [V; 4];

impl Moments {
    pub(crate) fn new(window: usize) -> Self {
        let count = window as f64;
        Self { window, count, trust: TRUST * count }
    }

    /// Bars in the window.
    pub(crate) const fn window(&self) -> usize {
        self.window
    }

    /// The words of the oldest value alone, which is the anchor.
    #[inline(always)]
    pub(crate) fn open<V: Lanes>(oldest: V) -> Words<V> {
        let zero = V::splat(0.0);
        [oldest, zero, zero, zero]
    }

    #[inline(always)]
    pub(crate) fn add<V: Lanes>([anchor, sum, square, peak]: &mut Words<V>, next: V) {
        let newest = next - *anchor;
        *sum = *sum + newest;
        *square = *square + newest * newest;
        *peak = *square;
    }

    #[inline(always)]
    pub(crate) fn slide<V: Lanes>([anchor, sum, square, peak]: &mut Words<V>, oldest: V, newest: V) {
        let (oldest, newest) = (oldest - *anchor, newest - *anchor);
        let change = newest - oldest;
        *sum = *sum + change;
        // The difference of the two squares.
        *square = *square + change * (newest + oldest);
        *peak = square.top(*peak);
    }

    /// The spread: the variance of the population times the square of the window.
    #[inline(always)]
    fn raw<V: Lanes>(&self, [_, sum, square, _]: &Words<V>) -> V {
        *square * V::splat(self.count) - *sum * *sum
    }

    /// The spread of a window. Rounding must not make it negative; `NaN` stays.
    #[inline(always)]
    pub(crate) fn spread<V: Lanes>(&self, words: &Words<V>) -> V {
        V::splat(0.0).top(self.raw(words))
    }

    /// What makes the variance of a spread; `correction` leads from the population's to the wanted one.
    pub(crate) fn share(&self, correction: f64) -> f64 {
        correction / (self.count * self.count)
    }

    /// Where too few digits are left.
    #[inline(always)]
    pub(crate) fn distrusts<V: Lanes>(&self, words: &Words<V>) -> V::Mask {
        self.raw(words).lt(V::splat(self.trust) * words[3])
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::series::Column;
    use crate::window::{Sliding, Windowed};

    /// The variance alone.
    #[derive(Clone, Copy, Debug)]
    struct Variance(Moments);

    impl Sliding<1, 4, 1> for Variance {
        const READS: [Column; 1] = [Column::Close];

        fn window(&self) -> usize {
            self.0.window
        }

        fn open<V: Lanes>(&self, [oldest]: [V; 1]) -> [V; 4] {
            Moments::open(oldest)
        }

        fn add<V: Lanes>(&self, sums: &mut [V; 4], [next]: [V; 1]) {
            Moments::add(sums, next);
        }

        fn slide<V: Lanes>(&self, sums: &mut [V; 4], [oldest]: [V; 1], [newest]: [V; 1]) {
            Moments::slide(sums, oldest, newest);
        }

        fn distrusts<V: Lanes>(&self, sums: &[V; 4]) -> Option<V::Mask> {
            Some(self.0.distrusts(sums))
        }

        fn value<V: Lanes>(&self, sums: &[V; 4], _: [V; 1]) -> [V; 1] {
            [self.0.spread(sums) * V::splat(self.0.share(1.0))]
        }
    }

    /// The variance in two passes, around the window's own first value.
    fn two_pass(window: &[f64]) -> f64 {
        let count = window.len() as f64;
        let mean = window.iter().map(|value| value - window[0]).sum::<f64>() / count;
        window.iter().map(|value| (value - window[0] - mean).powi(2)).sum::<f64>() / count
    }

    /// A walk in the `digit`-th digit of its offset, a steep ramp, spikes of falling size, halts.
    pub(in crate::window) fn hard_series() -> [Vec<f64>; 5] {
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
                Windowed(Variance(Moments::new(window))).run([input], [&mut out]);
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
        Windowed(Variance(Moments::new(20))).run([&input], [&mut out]);
        assert_eq!(out[40..], [0.0; 20]);
        assert!(out[39] > 1e15);
    }
}
