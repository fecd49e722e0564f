//! Commodity channel index: how far the typical price stands from its mean of `period` bars, in
//! hundredths of one and a half mean deviations.
//!
//! The mean and the mean deviation are summed afresh at every bar, oldest first, so a bar costs its
//! window and `period` is 10,000 at most. A distance or a deviation within 1e-14 of the mean is
//! rounding, and the index is 0. Lookback `period - 1`.

use crate::entry::{Entry, HIGH_LOW_CLOSE, Param, SINGLE, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::lanes::{Lanes, Wide};
use crate::params::Period;
use crate::series::{Bar, Column};
use crate::window::{Derived, Doubled};
use std::array::from_fn;
use std::sync::Arc;

pub(super) static CCI: Entry = Entry {
    name: "cci",
    aliases: &[],
    summary: "commodity channel index",
    columns: HIGH_LOW_CLOSE,
    params: &[Param::whole("period", 2, 10_000, |_| Value::Number(14.0))],
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Cci { period: args.window("period")? })),
};

/// A distance up to this share of the mean is rounding, not movement.
const FLAT: f64 = 1e-14;

/// Vectors of windows that are summed at a time: their means and deviations fit into sixteen registers.
const ABREAST: usize = 3;

/// Windows of a tile, where they are short.
const TILE: usize = 1_000;

/// The typical price of a bar.
#[derive(Clone, Copy, Debug)]
struct Typical;

impl Derived<3, 1> for Typical {
    const READS: [Column; 3] = [Column::High, Column::Low, Column::Close];
    const LATE: bool = false;

    #[inline(always)]
    fn of<V: Lanes>(_: [V; 2], [high, low, close]: [V; 3]) -> [V; 1] {
        [(high + low + close) / V::splat(3.0)]
    }
}

#[derive(Clone, Copy, Debug)]
struct Cci {
    period: Period,
}

impl Cci {
    /// The index of a window, oldest first.
    #[inline(always)]
    fn of(self, window: &[f64]) -> f64 {
        let mean = window.iter().fold(0.0, |sum, value| sum + value) / self.period.count();
        let distances = window.iter().fold(0.0, |sum, value| sum + (value - mean).abs());
        self.shown(window[window.len() - 1], mean, distances)
    }

    /// The indices of all full windows of some typical prices.
    fn tile(self, prices: &[f64], out: &mut [f64]) {
        let bars = self.period.bars();
        let step = ABREAST * Wide::WIDTH;
        let whole = out.len() / step * step;
        for at in (0..whole).step_by(step) {
            self.abreast(&prices[at..at + bars + step - 1], &mut out[at..]);
        }
        for at in whole..out.len() {
            out[at] = self.of(&prices[at..at + bars]);
        }
    }

    /// The indices of the [`ABREAST`] times eight windows that begin with the first bars of `seen`.
    fn abreast(self, seen: &[f64], out: &mut [f64]) {
        let (zero, count) = (Wide::splat(0.0), Wide::splat(self.period.count()));
        let newest = seen.len() - ABREAST * Wide::WIDTH;
        let at = |bars: &[f64], side: usize| Wide::load(&bars[side * Wide::WIDTH..][..Wide::WIDTH]);
        // One bar of every window at a time, oldest first: additions of different windows do not wait for one another.
        let windows = || seen.windows(ABREAST * Wide::WIDTH);
        let mut means = [zero; ABREAST];
        for bars in windows() {
            means = from_fn(|side| means[side] + at(bars, side));
        }
        let means = means.map(|sum| sum / count);
        let mut distances = [zero; ABREAST];
        for bars in windows() {
            distances = from_fn(|side| distances[side] + (at(bars, side) - means[side]).abs());
        }
        for side in 0..ABREAST {
            let value = self.shown(at(&seen[newest..], side), means[side], distances[side]);
            value.store(&mut out[side * Wide::WIDTH..][..Wide::WIDTH]);
        }
    }

    /// The index of a window with this mean and this sum of distances from it.
    #[inline(always)]
    fn shown<V: Lanes>(self, newest: V, mean: V, distances: V) -> V {
        let (zero, count) = (V::splat(0.0), self.period.count());
        let (distance, unit) = (newest - mean, distances * V::splat(0.015 / count));
        let rounding = V::splat(FLAT) * mean.abs();
        let still = distance.abs().le(rounding) | distances.le(rounding * V::splat(count)) | unit.le(zero);
        V::select(still, zero, distance / V::select(still, V::splat(1.0), unit))
    }
}

impl Kernel for Cci {
    fn lookback(&self) -> usize {
        self.period.bars() - 1
    }

    fn scratch_columns(&self) -> usize {
        1
    }

    /// In tiles, whose typical prices stay in the nearest cache.
    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let ([out], [prices]) = (outputs(outs), outputs(scratch));
        let input = Typical::READS.map(|column| rows.column(column));
        fill_warm_up(out, self.lookback());
        let out = out.get_mut(self.lookback()..).unwrap_or_default();
        let bars = self.period.bars();
        let tile = (TILE / ABREAST / Wide::WIDTH).max(bars) * ABREAST * Wide::WIDTH;
        for (at, out) in out.chunks_mut(tile).enumerate() {
            let input = input.map(|column| &column[at * tile..][..out.len() + bars - 1]);
            let prices = &mut prices[..out.len() + bars - 1];
            Typical::fill(input, [&mut *prices]);
            self.tile(prices, out);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(CciStream { cci: *self, missing: self.lookback(), prices: Doubled::new(self.period.bars()) })
    }
}

/// The streaming state. A push sums the window twice, as a bar of the batch does.
#[derive(Clone, Debug)]
struct CciStream {
    cci: Cci,
    /// Bars until the window is full.
    missing: usize,
    prices: Doubled,
}

impl Live for CciStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let [price] = Typical::of([0.0; 2], Typical::READS.map(|column| bar.value(column)));
        self.prices.push(price);
        outs[0] = f64::NAN;
        if self.missing > 0 {
            self.missing -= 1;
        } else {
            outs[0] = self.cci.of(self.prices.window());
        }
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        // A copy of the window is the lesser part of summing it.
        self.clone().push(bar, outs);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
