//! Relative strength index: `100 * gain / (gain + loss)`, both Wilder averages of closing changes.
//!
//! Lookback `period`: the averages are seeded by the mean of the first `period` changes. Where
//! nothing has moved there is neither gain nor loss and the index is 0, as TA-Lib has it up to
//! 0.8.1 (0.8.3 answers 50); a signal must not read that 0 as oversold, see
//! [`signal`](crate::signal).

use super::{Stream, fill_warm_up};
use crate::params::Period;
use crate::series::{ShapeError, same_length};

/// Relative strength index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rsi {
    period: Period,
}

impl Rsi {
    /// The index over `period` changes.
    #[must_use]
    pub const fn new(period: Period) -> Self {
        Self { period }
    }

    /// Bars before the first value.
    #[must_use]
    pub const fn lookback(&self) -> usize {
        self.period.bars()
    }

    /// Writes the index of every bar, 0 to 100; fails when `out` is not as long as `input`.
    pub fn batch(&self, input: &[f64], out: &mut [f64]) -> Result<(), ShapeError> {
        same_length("output", out.len(), input.len())?;
        let ready = self.lookback();
        fill_warm_up(out, ready);
        if input.len() <= ready {
            return Ok(());
        }
        let wilder = Wilder::new(self.period);
        let mut moved = Moved::default();
        for pair in input[..=ready].windows(2) {
            moved = moved.plus(Moved::of(pair[1] - pair[0]));
        }
        moved = moved.scaled(wilder.per_bar);
        out[ready] = moved.strength();
        for (out, pair) in out[ready + 1..].iter_mut().zip(input[ready..].windows(2)) {
            moved = wilder.step(moved, pair[1] - pair[0]);
            *out = moved.strength();
        }
        Ok(())
    }

    /// The state before the first bar.
    #[must_use]
    pub fn stream(&self) -> RsiStream {
        let wilder = Wilder::new(self.period);
        RsiStream { wilder, seeding: self.period.bars(), seen: 0, close: 0.0, moved: Moved::default() }
    }
}

/// Upward and downward movement, neither negative.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    gain: f64,
    loss: f64,
}

impl Moved {
    #[inline]
    fn of(change: f64) -> Self {
        let gain = if change > 0.0 { change } else { 0.0 };
        // Exact, and spares a second comparison.
        Self { gain, loss: gain - change }
    }

    #[inline]
    fn plus(self, other: Self) -> Self {
        Self { gain: self.gain + other.gain, loss: self.loss + other.loss }
    }

    #[inline]
    fn scaled(self, factor: f64) -> Self {
        Self { gain: self.gain * factor, loss: self.loss * factor }
    }

    #[inline]
    fn strength(self) -> f64 {
        let total = self.gain + self.loss;
        // Exact test: a threshold would be a price, and zero the index of a cheap instrument.
        if total == 0.0 { 0.0 } else { 100.0 * (self.gain / total) }
    }
}

/// Wilder's average: all but one share of the old, one share of the new.
#[derive(Clone, Copy, Debug)]
struct Wilder {
    others: f64,
    per_bar: f64,
}

impl Wilder {
    fn new(period: Period) -> Self {
        Self { others: period.count() - 1.0, per_bar: 1.0 / period.count() }
    }

    #[inline]
    fn step(self, moved: Moved, change: f64) -> Moved {
        moved.scaled(self.others).plus(Moved::of(change)).scaled(self.per_bar)
    }
}

/// Streaming [`Rsi`] over prices.
#[derive(Clone, Copy, Debug)]
pub struct RsiStream {
    wilder: Wilder,
    seeding: usize,
    /// Prices seen, counted up to the end of the seeding.
    seen: usize,
    close: f64,
    /// The sum of the seeding movements, then their average.
    moved: Moved,
}

impl Stream for RsiStream {
    type Input = f64;
    type Output = f64;

    #[inline]
    fn push(&mut self, input: f64) -> f64 {
        let change = input - self.close;
        self.close = input;
        if self.seen > self.seeding {
            self.moved = self.wilder.step(self.moved, change);
            return self.moved.strength();
        }
        self.seen += 1;
        if self.seen > 1 {
            self.moved = self.moved.plus(Moved::of(change));
        }
        if self.seen <= self.seeding {
            return f64::NAN;
        }
        self.moved = self.moved.scaled(self.wilder.per_bar);
        self.moved.strength()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(input: &[f64]) -> f64 {
        let mut out = vec![0.0; input.len()];
        Rsi::new(Period::of::<2>()).batch(input, &mut out).unwrap();
        out[input.len() - 1]
    }

    #[test]
    fn one_sided_and_flat_series_have_fixed_values() {
        assert_eq!(last(&[1.0, 2.0, 3.0, 4.0]), 100.0);
        assert_eq!(last(&[4.0, 3.0, 2.0, 1.0]), 0.0);
        assert_eq!(last(&[2.0, 2.0, 2.0, 2.0]), 0.0);
        assert_eq!(last(&[1e-9, 2e-9, 1e-9]), 50.0);
    }
}
