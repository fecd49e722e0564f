//! Average true range.
//!
//! The true range needs the close before, so it begins at bar 1 and the average at bar `period`;
//! where bar 0 counts with high minus low, the average begins at bar `period - 1`. Wilder's
//! smoothing is seeded by the mean of the first `period` ranges and then is
//! `average * (1 - 1/period) + range / period`, the factors summing to exactly one.

use super::{Ranges, Stream, fill_warm_up, true_range};
use crate::params::{FirstRange, Smoothing, Span};
use crate::series::{Bar, ShapeError, same_length};
use crate::window::{Mean, rolling_means_by};

/// Bars whose ranges are worked out together before they are averaged.
const BLOCK_BARS: usize = 1_024;

/// Average true range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atr {
    period: Span,
    smoothing: Smoothing,
    first_range: FirstRange,
}

impl Atr {
    /// The average over `period` ranges.
    #[must_use]
    pub const fn new(period: Span, smoothing: Smoothing, first_range: FirstRange) -> Self {
        Self { period, smoothing, first_range }
    }

    /// Bars before the first value.
    #[must_use]
    pub const fn lookback(&self) -> usize {
        self.first_bar() + self.period.bars() - 1
    }

    /// Writes the average of every bar; fails when another slice is not as long as `close`.
    pub fn batch(&self, high: &[f64], low: &[f64], close: &[f64], out: &mut [f64]) -> Result<(), ShapeError> {
        let bars = Ranges::new(high, low, close)?;
        same_length("output", out.len(), bars.len())?;
        fill_warm_up(out, self.lookback());
        if bars.len() > self.lookback() {
            match self.smoothing {
                Smoothing::Wilder => self.wilder(&bars, out),
                Smoothing::Sma => self.means(&bars, out),
            }
        }
        Ok(())
    }

    /// The state before the first bar.
    #[must_use]
    pub fn stream(&self) -> AtrStream {
        let average = match self.smoothing {
            Smoothing::Wilder => Average::Wilder(WilderStream::new(self.period)),
            Smoothing::Sma => Average::Mean(Mean::new(self.period.bars())),
        };
        AtrStream { first_range: self.first_range, close: None, average }
    }

    /// The first bar that has a range.
    const fn first_bar(self) -> usize {
        match self.first_range {
            FirstRange::Skip => 1,
            FirstRange::HighLow => 0,
        }
    }

    fn wilder(self, bars: &Ranges, out: &mut [f64]) {
        let ready = self.lookback();
        let sum = (self.first_bar()..=ready).fold(0.0, |sum, bar| sum + range_at(bars, bar));
        let mut average = sum / self.period.count();
        out[ready] = average;
        let wilder = Wilder::new(self.period);
        for (block, out) in out[ready + 1..].chunks_mut(BLOCK_BARS).enumerate() {
            ranges_from(bars, ready + 1 + block * BLOCK_BARS, out);
            for out in out {
                average = wilder.step(average, *out);
                *out = average;
            }
        }
    }

    fn means(self, bars: &Ranges, out: &mut [f64]) {
        let first = self.first_bar();
        rolling_means_by(|at| range_at(bars, first + at), self.period.bars(), &mut out[first..]);
    }
}

/// The range of one bar, high minus low for bar 0.
fn range_at(bars: &Ranges, bar: usize) -> f64 {
    match bar.checked_sub(1) {
        None => bars.high[0] - bars.low[0],
        Some(before) => true_range(bars.high[bar], bars.low[bar], bars.close[before]),
    }
}

/// Writes the ranges of `out.len()` bars from bar `from` on, which is not bar 0.
fn ranges_from(bars: &Ranges, from: usize, out: &mut [f64]) {
    let span = from..from + out.len();
    let (high, low) = (&bars.high[span.clone()], &bars.low[span]);
    let before = &bars.close[from - 1..];
    for (((out, &high), &low), &before) in out.iter_mut().zip(high).zip(low).zip(before) {
        *out = true_range(high, low, before);
    }
}

/// Wilder's recursion.
#[derive(Clone, Copy, Debug)]
struct Wilder {
    keep: f64,
    take: f64,
}

impl Wilder {
    fn new(period: Span) -> Self {
        let keep = (period.count() - 1.0) / period.count();
        Self { keep, take: 1.0 - keep }
    }

    #[inline]
    fn step(self, average: f64, range: f64) -> f64 {
        self.keep * average + self.take * range
    }
}

#[derive(Clone, Copy, Debug)]
struct WilderStream {
    wilder: Wilder,
    seeding: usize,
    seen: usize,
    /// The sum of the seeding ranges, then the average.
    value: f64,
}

impl WilderStream {
    fn new(period: Span) -> Self {
        Self { wilder: Wilder::new(period), seeding: period.bars(), seen: 0, value: 0.0 }
    }

    fn after(mut self, range: f64) -> (Self, f64) {
        if self.seen >= self.seeding {
            self.value = self.wilder.step(self.value, range);
            return (self, self.value);
        }
        self.seen += 1;
        self.value += range;
        if self.seen < self.seeding {
            return (self, f64::NAN);
        }
        self.value /= self.seeding as f64;
        (self, self.value)
    }
}

#[derive(Clone, Debug)]
enum Average {
    Wilder(WilderStream),
    Mean(Mean),
}

/// Streaming [`Atr`] over bars; reads high, low and close. `peek` costs what `push` does.
#[derive(Clone, Debug)]
pub struct AtrStream {
    first_range: FirstRange,
    close: Option<f64>,
    average: Average,
}

impl AtrStream {
    fn range(&self, bar: Bar) -> Option<f64> {
        match (self.close, self.first_range) {
            (Some(before), _) => Some(true_range(bar.high, bar.low, before)),
            (None, FirstRange::HighLow) => Some(bar.high - bar.low),
            (None, FirstRange::Skip) => None,
        }
    }
}

impl Stream for AtrStream {
    type Input = Bar;
    type Output = f64;

    fn push(&mut self, bar: Bar) -> f64 {
        let range = self.range(bar);
        self.close = Some(bar.close);
        let Some(range) = range else { return f64::NAN };
        match &mut self.average {
            Average::Mean(mean) => mean.push(range),
            Average::Wilder(wilder) => {
                let (next, value) = wilder.after(range);
                *wilder = next;
                value
            }
        }
    }

    fn peek(&self, bar: Bar) -> f64 {
        let Some(range) = self.range(bar) else { return f64::NAN };
        match &self.average {
            Average::Mean(mean) => mean.peek(range),
            Average::Wilder(wilder) => wilder.after(range).1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_zero_counts_only_where_the_convention_says() {
        let (high, low, close) = ([4.0, 5.0, 9.0], [2.0, 4.0, 6.0], [3.0, 4.0, 8.0]);
        let mut out = [0.0; 3];
        let two = Span::of::<2>();
        Atr::new(two, Smoothing::Wilder, FirstRange::Skip).batch(&high, &low, &close, &mut out).unwrap();
        assert!(out[1].is_nan());
        assert_eq!(out[2], f64::midpoint(2.0, 5.0));
        Atr::new(two, Smoothing::Sma, FirstRange::HighLow).batch(&high, &low, &close, &mut out).unwrap();
        assert!(out[0].is_nan());
        assert_eq!(out[1..], [2.0, 3.5]);
    }
}
