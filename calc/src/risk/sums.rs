//! Sums in eight lanes, always in the same order: for speed, for an eighth of the rounding error,
//! and for the same bits on every build.

use crate::lanes::{Lanes, Wide};

/// So many sums side by side.
const LANES: usize = Wide::WIDTH;

/// What is summed of each value.
pub(super) trait Term<const K: usize> {
    /// The terms of a value, or of several side by side.
    fn of<V: Lanes>(&self, value: V) -> [V; K];
}

/// `K` sums under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums<const K: usize>([[f64; LANES]; K]);

impl<const K: usize> Sums<K> {
    pub(super) const ZERO: Self = Self([[0.0; LANES]; K]);

    /// The sums over one slice.
    pub(super) fn over(values: &[f64], term: &impl Term<K>) -> [f64; K] {
        let mut sums = Self::ZERO;
        sums.add(values, term);
        sums.finish()
    }

    /// Adds the terms of more values; every slice but the last holds a multiple of eight.
    pub(super) fn add(&mut self, values: &[f64], term: &impl Term<K>) {
        let (chunks, rest) = values.as_chunks::<LANES>();
        let mut lanes = self.0.each_ref().map(|sum| Wide::load(sum));
        for chunk in chunks {
            let terms = term.of(Wide::load(chunk));
            for (lane, term) in lanes.iter_mut().zip(terms) {
                *lane = *lane + term;
            }
        }
        for (sum, lane) in self.0.iter_mut().zip(lanes) {
            lane.store(sum);
        }
        for (at, &value) in rest.iter().enumerate() {
            for (sum, term) in self.0.iter_mut().zip(term.of(value)) {
                sum[at] += term;
            }
        }
    }

    pub(super) fn finish(&self) -> [f64; K] {
        self.0.each_ref().map(|lanes| lanes.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;

    impl Term<2> for Plain {
        fn of<V: Lanes>(&self, value: V) -> [V; 2] {
            [value, value * value]
        }
    }

    #[test]
    fn every_value_counts_once() {
        for len in 0..40_u32 {
            let values: Vec<f64> = (1..=len).map(f64::from).collect();
            let n = f64::from(len);
            let expected = [n * (n + 1.0) / 2.0, n * (n + 1.0) * (2.0 * n + 1.0) / 6.0];
            assert_eq!(Sums::over(&values, &Plain), expected);
            let mut parts = Sums::ZERO;
            let (first, second) = values.split_at(values.len().min(16));
            parts.add(first, &Plain);
            parts.add(second, &Plain);
            assert_eq!(parts.finish(), expected);
        }
    }
}
