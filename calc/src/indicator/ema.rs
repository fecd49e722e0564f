//! Exponential moving average: `y += (x - y) * k` with `k = 2 / (period + 1)`.
//!
//! Seeded by the plain mean of the first `period` values (lookback `period - 1`) or by the first
//! value (lookback 0). A period of 1 copies its input. The step is written as TA-Lib up to 0.8.1
//! writes it, with separate rounding of product and sum.

use super::{Stream, fill_warm_up};
use crate::params::{Seed, Span};
use crate::series::{ShapeError, same_length};

/// The recursion alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Smoother {
    k: f64,
}

impl Smoother {
    pub(super) fn new(period: Span) -> Self {
        Self { k: 2.0 / (period.count() + 1.0) }
    }

    /// The average after `input`.
    #[inline]
    pub(super) fn step(self, average: f64, input: f64) -> f64 {
        // At k = 1 the sum rounds; the value itself is exact.
        if self.k == 1.0 { input } else { (input - average) * self.k + average }
    }
}

/// Exponential moving average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ema {
    period: Span,
    seed: Seed,
}

impl Ema {
    /// The average with smoothing `2 / (period + 1)`, started as `seed` says.
    #[must_use]
    pub const fn new(period: Span, seed: Seed) -> Self {
        Self { period, seed }
    }

    /// Bars before the first value.
    #[must_use]
    pub const fn lookback(&self) -> usize {
        match self.seed {
            Seed::Sma => self.period.bars() - 1,
            Seed::First => 0,
        }
    }

    /// Writes the average of every bar; fails when `out` is not as long as `input`.
    pub fn batch(&self, input: &[f64], out: &mut [f64]) -> Result<(), ShapeError> {
        same_length("output", out.len(), input.len())?;
        let ready = self.lookback();
        fill_warm_up(out, ready);
        if input.len() <= ready {
            return Ok(());
        }
        let smoother = Smoother::new(self.period);
        let (seeds, later) = input.split_at(ready + 1);
        let mut average = seeds.iter().fold(0.0, |sum, value| sum + value) / seeds.len() as f64;
        out[ready] = average;
        for (out, &input) in out[ready + 1..].iter_mut().zip(later) {
            average = smoother.step(average, input);
            *out = average;
        }
        Ok(())
    }

    /// The state before the first bar.
    #[must_use]
    pub fn stream(&self) -> EmaStream {
        EmaStream { smoother: Smoother::new(self.period), seeding: self.lookback() + 1, seen: 0, value: 0.0 }
    }
}

/// Streaming [`Ema`] over prices.
#[derive(Clone, Copy, Debug)]
pub struct EmaStream {
    smoother: Smoother,
    seeding: usize,
    seen: usize,
    /// The sum of the seeds, then the average.
    value: f64,
}

impl Stream for EmaStream {
    type Input = f64;
    type Output = f64;

    #[inline]
    fn push(&mut self, input: f64) -> f64 {
        if self.seen >= self.seeding {
            self.value = self.smoother.step(self.value, input);
            return self.value;
        }
        self.seen += 1;
        self.value += input;
        if self.seen < self.seeding {
            return f64::NAN;
        }
        self.value /= self.seeding as f64;
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_the_first_value() {
        let input = [1.0, 2.0, 6.0, 8.0];
        let mut out = [0.0; 4];
        Ema::new(Span::of::<3>(), Seed::Sma).batch(&input, &mut out).unwrap();
        assert!(out[1].is_nan());
        assert_eq!(out[2..], [3.0, 5.5]);
        Ema::new(Span::of::<3>(), Seed::First).batch(&input, &mut out).unwrap();
        assert_eq!(out, [1.0, 1.5, 3.75, 5.875]);
    }

    #[test]
    fn a_period_of_one_copies() {
        let input = [0.1, 1e9, 0.3];
        let mut out = [0.0; 3];
        Ema::new(Span::of::<1>(), Seed::Sma).batch(&input, &mut out).unwrap();
        assert_eq!(out, input);
    }
}
