//! Stochastic oscillator: where the close stands between the lowest low and the highest high of
//! `fast_k` bars, 0 to 100, smoothed twice by plain means.
//!
//! `k` is the mean of `slow_k` raw values, `d` the mean of `slow_k`-smoothed values over `slow_d`
//! bars. Both begin at the same bar, after `fast_k - 1 + slow_k - 1 + slow_d - 1`. A range that is
//! nothing but rounding (1e-14 of its own ends) counts as none, and the raw value is 0.

use super::{Ranges, Stream, fill_warm_up};
use crate::params::Span;
use crate::series::{Bar, ShapeError, same_length};
use crate::window::{Highest, Lowest, Mean, Rolling, rolling_means, suffix_extremes};
use std::ops::Range;

/// A range up to this share of its own ends is rounding, not movement.
const FLAT: f64 = 1e-14;

/// Bars whose extremes are worked out together before the raw values are.
const TILE_BARS: usize = 2_048;

/// Stochastic oscillator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stoch {
    fast_k: Span,
    slow_k: Span,
    slow_d: Span,
}

/// The outputs of one bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StochPoint {
    /// Smoothed position of the close.
    pub k: f64,
    /// Average of `k`.
    pub d: f64,
}

impl StochPoint {
    const NONE: Self = Self { k: f64::NAN, d: f64::NAN };
}

impl Stoch {
    /// The position within `fast_k` bars, smoothed over `slow_k` and again over `slow_d`.
    #[must_use]
    pub const fn new(fast_k: Span, slow_k: Span, slow_d: Span) -> Self {
        Self { fast_k, slow_k, slow_d }
    }

    /// Bars before the first value of both outputs.
    #[must_use]
    pub const fn lookback(&self) -> usize {
        self.k_ready() + self.slow_d.bars() - 1
    }

    /// Writes both outputs of every bar; fails when another slice is not as long as `close`.
    pub fn batch(
        &self,
        high: &[f64],
        low: &[f64],
        close: &[f64],
        k: &mut [f64],
        d: &mut [f64],
    ) -> Result<(), ShapeError> {
        let bars = Ranges::new(high, low, close)?;
        same_length("k", k.len(), bars.len())?;
        same_length("d", d.len(), bars.len())?;
        // The two outputs take turns as scratch: raw values in d, then k from d, then d from k.
        self.raw(&bars, k, d);
        let raw_ready = (self.fast_k.bars() - 1).min(bars.len());
        rolling_means(&d[raw_ready..], self.slow_k.bars(), &mut k[raw_ready..]);
        let k_ready = self.k_ready().min(bars.len());
        rolling_means(&k[k_ready..], self.slow_d.bars(), &mut d[k_ready..]);
        fill_warm_up(k, self.lookback());
        fill_warm_up(d, self.lookback());
        Ok(())
    }

    /// The state before the first bar.
    #[must_use]
    pub fn stream(&self) -> StochStream {
        StochStream {
            raw_ready: self.fast_k.bars() - 1,
            k_ready: self.k_ready(),
            seen: 0,
            highest: Rolling::new(self.fast_k.bars()),
            lowest: Rolling::new(self.fast_k.bars()),
            k: Mean::new(self.slow_k.bars()),
            d: Mean::new(self.slow_d.bars()),
            lookback: self.lookback(),
        }
    }

    /// Bars before `k` could begin.
    const fn k_ready(&self) -> usize {
        self.fast_k.bars() - 1 + self.slow_k.bars() - 1
    }

    /// Writes the raw position of every full window to `raw`; `scratch` is overwritten.
    fn raw(&self, bars: &Ranges, scratch: &mut [f64], raw: &mut [f64]) {
        let window = self.fast_k.bars();
        let whole = bars.len() / window;
        let blocks_a_tile = TILE_BARS.div_ceil(window);
        for from in (0..=whole).step_by(blocks_a_tile) {
            let until = whole.min(from + blocks_a_tile);
            suffix_extremes::<Highest>(bars.high, window, from..until, scratch);
            suffix_extremes::<Lowest>(bars.low, window, from..until, raw);
            let start = from * window;
            let end = bars.len().min((from + blocks_a_tile) * window);
            join_extremes(bars, window, start..end, scratch, raw);
            let ready = (window - 1).clamp(start, end);
            positions(&bars.close[ready..end], &scratch[ready..end], &mut raw[ready..end]);
        }
    }
}

/// Turns the suffix extremes of the preceding blocks into window extremes by joining the running
/// extremes of each bar's own block. The first block has nothing before it to join.
fn join_extremes(bars: &Ranges, window: usize, span: Range<usize>, highest: &mut [f64], lowest: &mut [f64]) {
    for start in span.clone().step_by(window).filter(|&start| start > 0) {
        let block = start..span.end.min(start + window);
        let prices = bars.high[block.clone()].iter().zip(&bars.low[block.clone()]);
        let joined = highest[block.clone()].iter_mut().zip(&mut lowest[block]);
        let (mut top, mut bottom) = (f64::NEG_INFINITY, f64::INFINITY);
        for ((&high, &low), (highest, lowest)) in prices.zip(joined) {
            top = if high > top { high } else { top };
            bottom = if low < bottom { low } else { bottom };
            *highest = if top > *highest { top } else { *highest };
            *lowest = if bottom < *lowest { bottom } else { *lowest };
        }
    }
}

/// Writes the position of each close; `lowest_then_raw` holds the lows before.
fn positions(close: &[f64], highest: &[f64], lowest_then_raw: &mut [f64]) {
    for ((out, &highest), &close) in lowest_then_raw.iter_mut().zip(highest).zip(close) {
        *out = position(highest, *out, close);
    }
}

/// Where `close` stands between the extremes, in percent. A zero comes out positive, whichever of
/// several equal zeros was found as the extreme.
#[inline]
fn position(highest: f64, lowest: f64, close: f64) -> f64 {
    let range = highest - lowest;
    // Division by infinity in place of a branch around it: it gives the 0, and four go at once.
    let flat = range <= FLAT * (highest.abs() + lowest.abs());
    let divisor = if flat { f64::INFINITY } else { range };
    (close - lowest) / divisor * 100.0 + 0.0
}

/// Streaming [`Stoch`] over bars; reads high, low and close. `peek` costs what `push` does.
#[derive(Clone, Debug)]
pub struct StochStream {
    raw_ready: usize,
    k_ready: usize,
    lookback: usize,
    /// Bars seen, counted up to the lookback.
    seen: usize,
    highest: Rolling<Highest>,
    lowest: Rolling<Lowest>,
    k: Mean,
    d: Mean,
}

impl Stream for StochStream {
    type Input = Bar;
    type Output = StochPoint;

    fn push(&mut self, bar: Bar) -> StochPoint {
        let at = self.seen;
        self.seen = self.lookback.min(at + 1);
        let (highest, lowest) = (self.highest.push(bar.high), self.lowest.push(bar.low));
        if at < self.raw_ready {
            return StochPoint::NONE;
        }
        let k = self.k.push(position(highest, lowest, bar.close));
        if at < self.k_ready {
            return StochPoint::NONE;
        }
        let d = self.d.push(k);
        if at < self.lookback { StochPoint::NONE } else { StochPoint { k, d } }
    }

    fn peek(&self, bar: Bar) -> StochPoint {
        if self.seen < self.lookback {
            return StochPoint::NONE;
        }
        let (highest, lowest) = (self.highest.peek(bar.high), self.lowest.peek(bar.low));
        let k = self.k.peek(position(highest, lowest, bar.close));
        StochPoint { k, d: self.d.peek(k) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_at_the_low_is_0_and_at_the_high_100() {
        let (high, low) = ([3.0, 4.0, 3.0, 2.0], [1.0, 2.0, 1.0, 2.0]);
        let (mut k, mut d) = ([9.0; 4], [9.0; 4]);
        let one = Span::of::<1>();
        let stoch = Stoch::new(Span::of::<2>(), one, one);
        stoch.batch(&high, &low, &[3.0, 4.0, 1.0, 2.0], &mut k, &mut d).unwrap();
        assert!(k[0].is_nan());
        assert_eq!(k[1..], [100.0, 0.0, 50.0]);
        assert_eq!(d[1..], k[1..]);
    }

    #[test]
    fn a_flat_range_is_0() {
        let flat = [0.1; 6];
        let (mut k, mut d) = ([9.0; 6], [9.0; 6]);
        let two = Span::of::<2>();
        Stoch::new(two, two, two).batch(&flat, &flat, &flat, &mut k, &mut d).unwrap();
        assert_eq!((k[3], d[5]), (0.0, 0.0));
    }
}
