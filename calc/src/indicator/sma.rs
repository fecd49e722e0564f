//! Simple moving average: the mean of the last `period` values.
//!
//! Lookback `period - 1`. TA-Lib's order of operations (off with the oldest, on with the newest,
//! then divide) within a segment; see the `window` module for the restarts.

use super::{Stream, fill_warm_up};
use crate::params::Span;
use crate::series::{ShapeError, same_length};
use crate::window::{Mean, rolling_means};

/// Simple moving average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sma {
    period: Span,
}

impl Sma {
    /// The average of the last `period` values.
    #[must_use]
    pub const fn new(period: Span) -> Self {
        Self { period }
    }

    /// Bars before the first value.
    #[must_use]
    pub const fn lookback(&self) -> usize {
        self.period.bars() - 1
    }

    /// Writes the average of every bar; fails when `out` is not as long as `input`.
    pub fn batch(&self, input: &[f64], out: &mut [f64]) -> Result<(), ShapeError> {
        same_length("output", out.len(), input.len())?;
        fill_warm_up(out, self.lookback());
        rolling_means(input, self.period.bars(), out);
        Ok(())
    }

    /// The state before the first bar.
    #[must_use]
    pub fn stream(&self) -> SmaStream {
        SmaStream { mean: Mean::new(self.period.bars()) }
    }
}

/// Streaming [`Sma`] over prices; `peek` costs what `push` does.
#[derive(Clone, Debug)]
pub struct SmaStream {
    mean: Mean,
}

impl Stream for SmaStream {
    type Input = f64;
    type Output = f64;

    fn push(&mut self, input: f64) -> f64 {
        self.mean.push(input)
    }

    fn peek(&self, input: f64) -> f64 {
        self.mean.peek(input)
    }
}
