//! The rolling sum by age: weighted averages and straight lines are made of it.
//!
//! The weight of a value is its place in the window, 1 for the oldest. A step takes the plain sum off
//! the weighted one, which lowers every place by one, then puts the newest value on with the weight of
//! the window's length. What the plain sum has rounded off is so taken off again at every bar: beside a
//! price of a million it would soon show. Values are therefore relative to the anchor of the
//! [`Moments`], and their rule says when the digits left are too few: after a spike has left the
//! window, or when the anchor itself was one.

use super::Moments;
use crate::lanes::Lanes;

/// The sums of a window, out of six words: how many values a fresh window has so far and the weighted
/// sum, before the words of the variance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ramp {
    moments: Moments,
    count: f64,
}

/// The words.
type Words<V> = [V; 6];

impl Ramp {
    pub(crate) fn new(window: usize) -> Self {
        Self { moments: Moments::new(window), count: window as f64 }
    }

    /// Values in the window.
    pub(crate) const fn window(&self) -> usize {
        self.moments.window()
    }

    /// The words of the oldest value alone, which is the anchor.
    #[inline(always)]
    pub(crate) fn open<V: Lanes>(oldest: V) -> Words<V> {
        let [anchor, sum, square, peak] = Moments::open(oldest);
        [V::splat(1.0), V::splat(0.0), anchor, sum, square, peak]
    }

    #[inline(always)]
    pub(crate) fn add<V: Lanes>([count, weighted, moments @ ..]: &mut Words<V>, next: V) {
        *count = *count + V::splat(1.0);
        *weighted = *weighted + *count * (next - moments[0]);
        Moments::add(moments, next);
    }

    #[inline(always)]
    pub(crate) fn slide<V: Lanes>(&self, [_, weighted, moments @ ..]: &mut Words<V>, oldest: V, newest: V) {
        let [anchor, sum, ..] = *moments;
        *weighted = (*weighted - sum) + V::splat(self.count) * (newest - anchor);
        Moments::slide(moments, oldest, newest);
    }

    /// Where too few digits are left.
    #[inline(always)]
    pub(crate) fn distrusts<V: Lanes>(&self, [_, _, moments @ ..]: &Words<V>) -> V::Mask {
        self.moments.distrusts(moments)
    }

    /// The anchor; the sum of the values less it; their sum by age less it, the oldest once, the newest
    /// as many times as there are values.
    #[inline(always)]
    pub(crate) fn sums<V: Lanes>([_, weighted, anchor, sum, ..]: &Words<V>) -> (V, V, V) {
        (*anchor, *sum, *weighted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Column;
    use crate::window::moments::tests::hard_series;
    use crate::window::{Sliding, Windowed};

    /// The mean and the mean by age.
    #[derive(Clone, Copy, Debug)]
    struct Both(Ramp);

    impl Sliding<1, 6, 2> for Both {
        const READS: [Column; 1] = [Column::Close];

        fn window(&self) -> usize {
            self.0.window()
        }

        fn open<V: Lanes>(&self, [oldest]: [V; 1]) -> [V; 6] {
            Ramp::open(oldest)
        }

        fn add<V: Lanes>(&self, sums: &mut [V; 6], [next]: [V; 1]) {
            Ramp::add(sums, next);
        }

        fn slide<V: Lanes>(&self, sums: &mut [V; 6], [oldest]: [V; 1], [newest]: [V; 1]) {
            self.0.slide(sums, oldest, newest);
        }

        fn distrusts<V: Lanes>(&self, sums: &[V; 6]) -> Option<V::Mask> {
            Some(self.0.distrusts(sums))
        }

        fn value<V: Lanes>(&self, sums: &[V; 6], _: [V; 1]) -> [V; 2] {
            let (anchor, sum, weighted) = Ramp::sums(sums);
            let count = V::splat(self.0.count);
            let places = count * (count + V::splat(1.0)) * V::splat(0.5);
            [anchor + sum / count, anchor + weighted / places]
        }
    }

    /// The two means of a window, relative to its own first value, and the largest distance from it.
    fn two_pass(window: &[f64]) -> ([f64; 2], f64) {
        let count = window.len() as f64;
        let relative = || window.iter().map(|value| value - window[0]);
        let by_age = relative().enumerate().map(|(place, value)| (place + 1) as f64 * value);
        let reach = relative().map(f64::abs).fold(0.0, f64::max);
        ([relative().sum::<f64>() / count, by_age.sum::<f64>() / (count * (count + 1.0) / 2.0)], reach)
    }

    #[test]
    fn the_sums_keep_their_digits() {
        for (kind, input) in hard_series().iter().enumerate() {
            for window in [2, 3, 14, 100, 1_500] {
                let mut outs = [vec![0.0; input.len()], vec![0.0; input.len()]];
                let [mean, weighted] = &mut outs;
                Windowed(Both(Ramp::new(window))).run([input], [mean, weighted]);
                for end in window..=input.len() {
                    let seen = &input[end - window..end];
                    let (plain, reach) = two_pass(seen);
                    let largest = seen.iter().copied().map(f64::abs).fold(0.0, f64::max);
                    for (out, plain) in outs.iter().zip(plain) {
                        let error = (out[end - 1] - seen[0] - plain).abs();
                        let allowed = 1e-9 * (plain.abs() + reach) + 4.0 * f64::EPSILON * largest;
                        assert!(
                            error <= allowed,
                            "series {kind}, window {window}, end {end}: off by {error:e}, {allowed:e} allowed"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_flat_window_after_a_spike_has_its_own_value() {
        let mut input = vec![0.1; 60];
        input[20] = 1e9;
        let mut outs = [[0.0; 60]; 2];
        let [mean, weighted] = &mut outs;
        Windowed(Both(Ramp::new(20))).run([&input], [mean, weighted]);
        assert_eq!((&outs[0][40..], &outs[1][40..]), (&[0.1; 20][..], &[0.1; 20][..]));
    }
}
