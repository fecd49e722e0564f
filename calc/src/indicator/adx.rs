//! Average directional index: how one-sided the widening of the range is, 0 to 100.
//!
//! Of a bar's upward and downward move only the larger counts, if positive. The moves and the true
//! range are summed over the first `period - 1` bars, then follow `S = S - S/period + new`. From bar
//! `period` on `DX = 100 * |up - down| / (up + down)`; the first index is the mean of `period` such
//! values, at bar `2 * period - 1` (the lookback), then
//! `ADX += (DX - ADX) / period`. Where nothing moves there is no DX: the index keeps its value.
//!
//! The sums of the true range cancel from DX (both directional indicators are divided by it), so it
//! takes one division a bar, not three; the range still decides whether anything moves.

use super::{Ranges, Stream, fill_warm_up, true_range};
use crate::params::Period;
use crate::series::{Bar, ShapeError, same_length};

/// Directional movement below this share of the true range is rounding that has not yet decayed.
const STILL: f64 = 1e-16;

/// Bars whose moves are worked out together before they are smoothed.
const BLOCK_BARS: usize = 128;

/// Average directional index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adx {
    period: Period,
}

impl Adx {
    /// The index over `period` bars.
    #[must_use]
    pub const fn new(period: Period) -> Self {
        Self { period }
    }

    /// Bars before the first value.
    #[must_use]
    pub const fn lookback(&self) -> usize {
        2 * self.period.bars() - 1
    }

    /// Writes the index of every bar; fails when another slice is not as long as `close`.
    pub fn batch(&self, high: &[f64], low: &[f64], close: &[f64], out: &mut [f64]) -> Result<(), ShapeError> {
        let bars = Ranges::new(high, low, close)?;
        same_length("output", out.len(), bars.len())?;
        fill_warm_up(out, self.lookback());
        let ready = self.lookback();
        if bars.len() <= ready {
            return Ok(());
        }
        let mut state = self.stream();
        for bar in 0..=ready {
            out[ready] = state.seed(bars.edge(bar));
        }
        let AdxStream { mut sums, mut index, per_bar, .. } = state;
        let mut block = Block::new();
        for (at, out) in out[ready + 1..].chunks_mut(BLOCK_BARS).enumerate() {
            block.fill(&bars, ready + 1 + at * BLOCK_BARS, out.len());
            for (out, moves) in out.iter_mut().zip(block.iter()) {
                sums = sums.decayed(per_bar).plus(moves);
                index = sums.index(index, per_bar);
                *out = index;
            }
        }
        Ok(())
    }

    /// The state before the first bar.
    #[must_use]
    pub fn stream(&self) -> AdxStream {
        AdxStream {
            period: self.period.bars(),
            per_bar: 1.0 / self.period.count(),
            seen: 0,
            last: Edge { high: 0.0, low: 0.0, close: 0.0 },
            sums: Sums::default(),
            index: 0.0,
        }
    }
}

impl Ranges<'_> {
    fn edge(&self, bar: usize) -> Edge {
        Edge { high: self.high[bar], low: self.low[bar], close: self.close[bar] }
    }
}

/// The moves of some bars, column by column so that four are worked out at once.
struct Block {
    up: [f64; BLOCK_BARS],
    down: [f64; BLOCK_BARS],
    range: [f64; BLOCK_BARS],
}

impl Block {
    const fn new() -> Self {
        Self { up: [0.0; BLOCK_BARS], down: [0.0; BLOCK_BARS], range: [0.0; BLOCK_BARS] }
    }

    /// Works out `len` bars from bar `from` on, which is not bar 0.
    fn fill(&mut self, bars: &Ranges, from: usize, len: usize) {
        let (high, low) = (&bars.high[from - 1..from + len], &bars.low[from - 1..from + len]);
        let before = high.iter().zip(low).zip(&bars.close[from - 1..]);
        let after = high[1..].iter().zip(&low[1..]);
        let out = self.up.iter_mut().zip(&mut self.down).zip(&mut self.range);
        for ((((up, down), range), ((&high, &low), &close)), (&high_after, &low_after)) in
            out.zip(before).zip(after)
        {
            let moves = Sums::of(Edge { high, low, close }, high_after, low_after);
            (*up, *down, *range) = (moves.up, moves.down, moves.range);
        }
    }

    fn iter(&self) -> impl Iterator<Item = Sums> {
        let columns = self.up.iter().zip(&self.down).zip(&self.range);
        columns.map(|((&up, &down), &range)| Sums { up, down, range })
    }
}

/// What the next bar is measured against.
#[derive(Clone, Copy, Debug)]
struct Edge {
    high: f64,
    low: f64,
    close: f64,
}

/// Directional movement and true range, of one bar or smoothed over many.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    up: f64,
    down: f64,
    range: f64,
}

impl Sums {
    #[inline]
    fn of(before: Edge, high: f64, low: f64) -> Self {
        let rise = high - before.high;
        let fall = before.low - low;
        // Selections in this order stay selections; a branch on the direction would mispredict.
        let up = if rise > fall { rise } else { 0.0 };
        let down = if fall > rise { fall } else { 0.0 };
        Self {
            up: if rise > 0.0 { up } else { 0.0 },
            down: if fall > 0.0 { down } else { 0.0 },
            range: true_range(high, low, before.close),
        }
    }

    #[inline]
    fn decayed(self, per_bar: f64) -> Self {
        Self {
            up: self.up - self.up * per_bar,
            down: self.down - self.down * per_bar,
            range: self.range - self.range * per_bar,
        }
    }

    #[inline]
    fn plus(self, other: Self) -> Self {
        Self { up: self.up + other.up, down: self.down + other.down, range: self.range + other.range }
    }

    /// Whether there is a direction to speak of.
    #[inline]
    fn moves(self) -> bool {
        self.up + self.down >= STILL * self.range && self.range > 0.0
    }

    /// DX, or 0 where nothing moves: there the division is by infinity.
    #[inline]
    fn one_sidedness(self, moves: bool) -> f64 {
        let whole = if moves { self.up + self.down } else { f64::INFINITY };
        100.0 * ((self.up - self.down).abs() / whole)
    }

    /// The index after these sums. The selections stand beside the recursion, not in it: where
    /// nothing moves, a step of no length keeps the index.
    #[inline]
    fn index(self, index: f64, per_bar: f64) -> f64 {
        let moves = self.moves();
        let rate = if moves { per_bar } else { 0.0 };
        index + (self.one_sidedness(moves) - index) * rate
    }
}

/// Streaming [`Adx`] over bars; reads high, low and close.
#[derive(Clone, Copy, Debug)]
pub struct AdxStream {
    period: usize,
    per_bar: f64,
    /// Bars seen, counted up to the end of the seeding.
    seen: usize,
    last: Edge,
    sums: Sums,
    /// The sum of the seeding DX, then the index.
    index: f64,
}

impl AdxStream {
    /// Takes a bar while the index is still being seeded.
    fn seed(&mut self, edge: Edge) -> f64 {
        let bar = self.seen;
        let before = std::mem::replace(&mut self.last, edge);
        self.seen += 1;
        if bar == 0 {
            return f64::NAN;
        }
        if bar >= self.period {
            self.sums = self.sums.decayed(self.per_bar);
        }
        self.sums = self.sums.plus(Sums::of(before, edge.high, edge.low));
        if bar >= self.period {
            self.index += self.sums.one_sidedness(self.sums.moves());
        }
        if self.seen < 2 * self.period {
            return f64::NAN;
        }
        self.index /= self.period as f64;
        self.index
    }
}

impl Stream for AdxStream {
    type Input = Bar;
    type Output = f64;

    fn push(&mut self, bar: Bar) -> f64 {
        let edge = Edge { high: bar.high, low: bar.low, close: bar.close };
        if self.seen < 2 * self.period {
            return self.seed(edge);
        }
        let before = std::mem::replace(&mut self.last, edge);
        self.sums = self.sums.decayed(self.per_bar).plus(Sums::of(before, edge.high, edge.low));
        self.index = self.sums.index(self.index, self.per_bar);
        self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rise_is_wholly_one_sided() {
        let close: Vec<f64> = (0..20).map(f64::from).collect();
        let high: Vec<f64> = close.iter().map(|close| close + 1.0).collect();
        let mut out = [0.0; 20];
        Adx::new(Period::of::<3>()).batch(&high, &close, &close, &mut out).unwrap();
        assert!(out[4].is_nan());
        assert_eq!(out[5..], [100.0; 15]);
    }

    #[test]
    fn a_flat_series_has_no_direction() {
        let mut out = [9.0; 8];
        Adx::new(Period::of::<3>()).batch(&[1.0; 8], &[1.0; 8], &[1.0; 8], &mut out).unwrap();
        assert_eq!(out[5..], [0.0; 3]);
    }
}
