//! The share that one rolling sum has of another.
//!
//! Both sums slide, and what a large term rounded off stays after it has left: a volume of a billion
//! takes nine digits of every volume beside it. So the whole, whose terms are never negative, is
//! watched: where it falls below [`TRUST`] of its largest value since it was last summed afresh,
//! both are summed again over the window. That covers the window whose terms are all zero as well:
//! the rest of rounding that stands there in place of zero is such a fall, and the fresh sum is
//! exactly zero.

use super::rolling::Sliding;
use crate::lanes::Lanes;
use crate::series::Column;
use std::fmt::Debug;
use std::marker::PhantomData;

/// Smallest trusted ratio of the whole to its peak. At 1e-4 the twelve to thirteen digits that a
/// segment's rounding leaves come down to eight or nine at worst.
const TRUST: f64 = 1e-4;

/// A sum of terms that are not negative, in two words: the sum, and its largest value since it was
/// summed afresh.
pub(crate) struct Mass;

impl Mass {
    /// The words of the oldest term alone.
    #[inline(always)]
    pub(crate) fn open<V: Lanes>(oldest: V) -> [V; 2] {
        let sum = V::splat(0.0) + oldest;
        [sum, sum]
    }

    #[inline(always)]
    pub(crate) fn add<V: Lanes>([sum, peak]: &mut [V; 2], next: V) {
        *sum = *sum + next;
        *peak = *sum;
    }

    #[inline(always)]
    pub(crate) fn slide<V: Lanes>([sum, peak]: &mut [V; 2], oldest: V, newest: V) {
        *sum = (*sum - oldest) + newest;
        *peak = sum.top(*peak);
    }

    /// Where too few digits are left.
    #[inline(always)]
    pub(crate) fn distrusts<V: Lanes>([sum, peak]: &[V; 2]) -> V::Mask {
        sum.lt(V::splat(TRUST) * *peak)
    }
}

/// A part beside the whole, in three words: the part, then the [`Mass`] of the whole. A term of the
/// part may have either sign; what it rounds off counts little where it is no larger than the term
/// of the whole beside it.
pub(crate) struct Share;

impl Share {
    /// The words of the oldest terms alone.
    #[inline(always)]
    pub(crate) fn open<V: Lanes>([part, whole]: [V; 2]) -> [V; 3] {
        let [sum, peak] = Mass::open(whole);
        [V::splat(0.0) + part, sum, peak]
    }

    #[inline(always)]
    pub(crate) fn add<V: Lanes>([part, mass @ ..]: &mut [V; 3], next: [V; 2]) {
        *part = *part + next[0];
        Mass::add(mass, next[1]);
    }

    #[inline(always)]
    pub(crate) fn slide<V: Lanes>([part, mass @ ..]: &mut [V; 3], oldest: [V; 2], newest: [V; 2]) {
        *part = (*part - oldest[0]) + newest[0];
        Mass::slide(mass, oldest[1], newest[1]);
    }

    /// Where too few digits are left.
    #[inline(always)]
    pub(crate) fn distrusts<V: Lanes>([_, mass @ ..]: &[V; 3]) -> V::Mask {
        Mass::distrusts(mass)
    }

    /// The part divided by the whole; 0 where the whole is nothing.
    #[inline(always)]
    pub(crate) fn ratio<V: Lanes>([part, whole, _]: &[V; 3]) -> V {
        let zero = V::splat(0.0);
        V::select(zero.lt(*whole), *part / *whole, zero)
    }
}

/// What is shown of a share.
pub(crate) trait Shown: Copy + Debug + Send + Sync + 'static {
    fn of<V: Lanes>(share: V) -> V;
}

/// The share itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Itself;

impl Shown for Itself {
    #[inline(always)]
    fn of<V: Lanes>(share: V) -> V {
        share
    }
}

/// A [`Share`] of two columns over a window: an indicator's body, or one of its terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio<F> {
    window: usize,
    shown: PhantomData<F>,
}

impl<F> Ratio<F> {
    pub(crate) const fn new(window: usize) -> Self {
        Self { window, shown: PhantomData }
    }
}

impl<F: Shown> Sliding<2, 3, 1> for Ratio<F> {
    /// It is run over derived columns only; these stand for the type's sake.
    const READS: [Column; 2] = [Column::Close, Column::Volume];

    fn window(&self) -> usize {
        self.window
    }

    #[inline(always)]
    fn open<V: Lanes>(&self, oldest: [V; 2]) -> [V; 3] {
        Share::open(oldest)
    }

    #[inline(always)]
    fn add<V: Lanes>(&self, sums: &mut [V; 3], next: [V; 2]) {
        Share::add(sums, next);
    }

    #[inline(always)]
    fn slide<V: Lanes>(&self, sums: &mut [V; 3], oldest: [V; 2], newest: [V; 2]) {
        Share::slide(sums, oldest, newest);
    }

    #[inline(always)]
    fn distrusts<V: Lanes>(&self, sums: &[V; 3]) -> Option<V::Mask> {
        Some(Share::distrusts(sums))
    }

    #[inline(always)]
    fn value<V: Lanes>(&self, sums: &[V; 3], _: [V; 2]) -> [V; 1] {
        [F::of(Share::ratio(sums))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Windowed;

    /// Parts within their wholes: ordinary ones, a billionfold now and then, long zero stretches.
    fn terms(len: usize) -> [Vec<f64>; 2] {
        let mut state = 7_u64;
        let mut roll = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / 16_777_216.0
        };
        let whole: Vec<f64> = (0..len)
            .map(|at| match at % 331 {
                50 => 1e9 * (1.0 + roll()),
                200..=300 => 0.0,
                _ => roll(),
            })
            .collect();
        [whole.iter().map(|whole| whole * (2.0 * roll() - 1.0)).collect(), whole]
    }

    #[test]
    fn a_share_keeps_its_digits_and_is_exactly_zero_over_nothing() {
        let [part, whole] = terms(20_000);
        for window in [1, 2, 14, 60, 150, 1_500] {
            let mut out = vec![0.0; part.len()];
            Windowed(Ratio::<Itself>::new(window)).run([&part, &whole], [&mut out]);
            for end in window..=part.len() {
                let seen = end - window..end;
                let (parts, wholes): (f64, f64) =
                    (part[seen.clone()].iter().sum(), whole[seen.clone()].iter().sum());
                let ours = out[end - 1];
                let plain = if wholes > 0.0 { parts / wholes } else { 0.0 };
                assert!((ours - plain).abs() <= 1e-9, "window {window}, end {end}: {ours:e} for {plain:e}");
                assert!(wholes > 0.0 || ours.to_bits() == 0, "window {window}, end {end}: {ours:e}");
            }
        }
    }

    #[test]
    fn a_stream_has_the_bits_of_the_batch_over_spikes_and_zeros() {
        let [part, whole] = terms(20_000);
        for window in [1, 14, 60] {
            let mut out = vec![0.0; part.len()];
            let ratio = Windowed(Ratio::<Itself>::new(window));
            ratio.run([&part, &whole], [&mut out]);
            let mut stream = ratio.running();
            for (at, batch) in out.iter().enumerate() {
                let [live] = stream.after([part[at], whole[at]]);
                assert!(live.to_bits() == batch.to_bits() || (live.is_nan() && batch.is_nan()), "{at}");
            }
        }
    }
}
