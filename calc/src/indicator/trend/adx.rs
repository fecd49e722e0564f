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

use crate::entry::{Entry, HIGH_LOW_CLOSE, Param, SINGLE, Value};
use crate::indicator::true_range;
use crate::lanes::Lanes;
use crate::params::{Period, Span};
use crate::recursion::{Recursion, Recursive, Seed};
use crate::series::Column;
use std::sync::Arc;

pub(super) static ADX: Entry = Entry {
    name: "adx",
    aliases: &[],
    summary: "average directional index, 0 to 100",
    columns: HIGH_LOW_CLOSE,
    params: &[Param::bars("period", 2, |_| Value::Number(14.0))],
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Recursion(Adx { period: args.window("period")? }))),
};

/// Directional movement below this share of the true range is rounding that has not yet decayed.
const STILL: f64 = 1e-16;

/// Average directional index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adx {
    pub(super) period: Period,
}

/// High, low and close of the bar before.
pub(super) type Edge<V> = [V; 3];

/// Upward and downward movement and true range, of one bar or smoothed over many.
pub(super) type Moves<V> = [V; 3];

/// The edge, the moves, the index.
type State<V> = [V; 7];

/// What a bar moved beyond the one before. Of the two directions the larger counts.
#[inline(always)]
fn moves<V: Lanes>([high_before, low_before, close_before]: Edge<V>, high: V, low: V) -> Moves<V> {
    let (rise, fall, zero) = (high - high_before, low_before - low, V::splat(0.0));
    let up = V::select(fall.lt(rise), rise, zero);
    let down = V::select(rise.lt(fall), fall, zero);
    [up.positive(), down.positive(), true_range(high, low, close_before)]
}

#[inline(always)]
fn decayed<V: Lanes>(sums: Moves<V>, per_bar: V) -> Moves<V> {
    sums.map(|sum| sum - sum * per_bar)
}

#[inline(always)]
fn plus<V: Lanes>([up, down, range]: Moves<V>, [more_up, more_down, more_range]: Moves<V>) -> Moves<V> {
    [up + more_up, down + more_down, range + more_range]
}

/// The smoothed moves after one more bar.
#[inline(always)]
pub(super) fn smoothed<V: Lanes>(
    per_bar: V,
    edge: Edge<V>,
    sums: Moves<V>,
    [high, low, _]: Edge<V>,
) -> Moves<V> {
    plus(decayed(sums, per_bar), moves(edge, high, low))
}

/// Where there is a direction to speak of, and DX: 0 elsewhere, by a division by infinity.
#[inline(always)]
pub(super) fn one_sidedness<V: Lanes>([up, down, range]: Moves<V>) -> (V::Mask, V) {
    let whole = up + down;
    let moves = (V::splat(STILL) * range).le(whole) & V::splat(0.0).lt(range);
    let divisor = V::select(moves, whole, V::splat(f64::INFINITY));
    (moves, V::splat(100.0) * ((up - down).abs() / divisor))
}

impl Recursive<3, 7, 1, 1> for Adx {
    type Seed = AdxSeed;
    const READS: [Column; 3] = [Column::High, Column::Low, Column::Close];

    fn lookback(&self) -> usize {
        2 * self.period.bars() - 1
    }

    fn coefficients(&self) -> [f64; 1] {
        [1.0 / self.period.count()]
    }

    fn seed(&self) -> AdxSeed {
        AdxSeed { moves: MovesSeed::of(self.period.into()), seen: 0, total: 0.0 }
    }

    #[inline(always)]
    fn step<V: Lanes>([per_bar]: &[V; 1], state: &mut State<V>, [high, low, close]: [V; 3]) -> [V; 1] {
        let [high_before, low_before, close_before, up, down, range, index] = *state;
        let edge = [high_before, low_before, close_before];
        let sums = smoothed(*per_bar, edge, [up, down, range], [high, low, close]);
        let (moves, dx) = one_sidedness(sums);
        // The selection stands beside the recursion, not in it: a step of no length keeps the index.
        let index = index + (dx - index) * V::select(moves, *per_bar, V::splat(0.0));
        let [up, down, range] = sums;
        *state = [high, low, close, up, down, range, index];
        [index]
    }

    fn guess<V: Lanes>([high, low, close]: [V; 3]) -> State<V> {
        let zero = V::splat(0.0);
        [high, low, close, zero, zero, zero, zero]
    }

    fn forgets(&self) -> usize {
        80 * self.period.bars()
    }
}

/// The sums of the first moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct MovesSeed {
    period: Span,
    seen: usize,
    before: Edge<f64>,
    sums: Moves<f64>,
}

impl MovesSeed {
    pub(super) const fn of(period: Span) -> Self {
        Self { period, seen: 0, before: [0.0; 3], sums: [0.0; 3] }
    }

    /// The smoothed moves from bar `period` on.
    pub(super) fn add(&mut self, bar: [f64; 3]) -> Option<Moves<f64>> {
        let (row, [high, low, _]) = (self.seen, bar);
        let before = std::mem::replace(&mut self.before, bar);
        self.seen += 1;
        if row == 0 {
            return None;
        }
        let complete = row >= self.period.bars();
        if complete {
            self.sums = decayed(self.sums, 1.0 / self.period.count());
        }
        self.sums = plus(self.sums, moves(before, high, low));
        complete.then_some(self.sums)
    }
}

/// The sums of the first moves, then of the first DX.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdxSeed {
    moves: MovesSeed,
    /// DX so far.
    seen: usize,
    total: f64,
}

impl Seed<3, 7, 1> for AdxSeed {
    fn push(&mut self, bar: [f64; 3]) -> Option<(State<f64>, [f64; 1])> {
        let sums = self.moves.add(bar)?;
        self.total += one_sidedness(sums).1;
        self.seen += 1;
        if self.seen < self.moves.period.bars() {
            return None;
        }
        let index = self.total / self.moves.period.count();
        let ([high, low, close], [up, down, range]) = (bar, sums);
        Some(([high, low, close, up, down, range, index], [index]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Recursion<Adx, 3, 7, 1, 1> = Recursion(Adx { period: Period::of::<3>() });

    #[test]
    fn a_steady_rise_is_wholly_one_sided() {
        let close: Vec<f64> = (0..20).map(f64::from).collect();
        let high: Vec<f64> = close.iter().map(|close| close + 1.0).collect();
        let mut out = [0.0; 20];
        THREE.run([&high, &close, &close], [&mut out]);
        assert!(out[4].is_nan());
        assert_eq!(out[5..], [100.0; 15]);
    }

    #[test]
    fn a_flat_series_has_no_direction() {
        let mut out = [9.0; 8];
        THREE.run([&[1.0; 8]; 3], [&mut out]);
        assert_eq!(out[5..], [0.0; 3]);
    }
}
