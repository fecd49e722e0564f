//! Stochastic oscillators: where the close stands between the lowest low and the highest high of
//! `fast_k` bars, 0 to 100, smoothed by plain means.
//!
//! The fast one shows the raw value and its mean over `fast_d` bars, from bar `fast_k - 1 +
//! fast_d - 1` on. The slow one shows `k`, the mean of `slow_k` raw values, and `d`, the mean of `k`
//! over `slow_d` bars, from bar `fast_k - 1 + slow_k - 1 + slow_d - 1` on. A range that is nothing but
//! rounding (1e-14 of its own ends) counts as none, and the raw value is 0.

use crate::entry::{Entry, HIGH_LOW_CLOSE, Param, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::lanes::Lanes;
use crate::params::Span;
use crate::series::{Bar, Column};
use crate::window::{Between, Channel, ChannelStream, Mean, Means};
use std::ops::Range;
use std::sync::Arc;

pub(super) static STOCH: Entry = Entry {
    name: "stoch",
    aliases: &["stochastic"],
    summary: "slow stochastic oscillator, 0 to 100",
    columns: HIGH_LOW_CLOSE,
    params: &[
        Param::bars("fast_k", 1, |compat| Value::Number(compat.fast_k().count())),
        Param::bars("slow_k", 1, |_| Value::Number(3.0)),
        Param::bars("slow_d", 1, |_| Value::Number(3.0)),
    ],
    outputs: &["k", "d"],
    build: |args| {
        let (slow_k, slow_d) = (args.window("slow_k")?, args.window("slow_d")?);
        Ok(Arc::new(Stoch { fast_k: args.window("fast_k")?, slow_k, slow_d }))
    },
};

pub(super) static STOCHF: Entry = Entry {
    name: "stochf",
    aliases: &[],
    summary: "fast stochastic oscillator, 0 to 100",
    columns: HIGH_LOW_CLOSE,
    params: &[
        Param::bars("fast_k", 1, |compat| Value::Number(compat.fast_k().count())),
        Param::bars("fast_d", 1, |_| Value::Number(3.0)),
    ],
    outputs: &["fastk", "fastd"],
    build: |args| Ok(Arc::new(Stoch::fast(args.window("fast_k")?, args.window("fast_d")?))),
};

/// A range up to this share of its own ends is rounding, not movement.
pub(super) const FLAT: f64 = 1e-14;

/// Bars of a tile, which stay in the second cache until `d` is made of them.
const TILE: usize = 4_096;

/// Where the close stands, in percent. A zero comes out positive, whichever of several equal zeros
/// was found as the extreme.
#[derive(Clone, Copy, Debug)]
struct Position;

impl Between<1> for Position {
    const READS: [Column; 3] = [Column::High, Column::Low, Column::Close];

    #[inline(always)]
    fn of<V: Lanes>(highest: V, lowest: V, close: V) -> [V; 1] {
        let range = highest - lowest;
        // Division by infinity in place of a branch around it.
        let flat = range.le(V::splat(FLAT) * (highest.abs() + lowest.abs()));
        let divisor = V::select(flat, V::splat(f64::INFINITY), range);
        [(close - lowest) / divisor * V::splat(100.0) + V::splat(0.0)]
    }
}

/// The fast oscillator is the slow one whose `slow_k` is 1: the mean of one value is that value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stoch {
    fast_k: Span,
    slow_k: Span,
    slow_d: Span,
}

impl Kernel for Stoch {
    fn lookback(&self) -> usize {
        self.k_ready() + self.slow_d.bars() - 1
    }

    fn scratch_columns(&self) -> usize {
        2
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let [k, d] = outputs(outs);
        let raw_ready = self.fast_k.bars() - 1;
        let input = Position::READS.map(|column| rows.column(column));
        let bars = rows.len().saturating_sub(raw_ready);
        let mut done = Done::default();
        for from in (0..bars).step_by(TILE) {
            let until = bars.min(from + TILE);
            self.tile(input, from..until, until == bars, &mut done, [&mut *k, &mut *d], outputs(scratch));
        }
        fill_warm_up(k, self.lookback());
        fill_warm_up(d, self.lookback());
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(self.running())
    }
}

/// Windows of `k` and of `d` that are done.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    k: usize,
    d: usize,
}

impl Stoch {
    /// Some raw values, and what of `k` and `d` follows from all so far. Raw values lie in `d`, or in `k` where
    /// they stay as they are: `d` keeps a distance from those that `k` still needs.
    fn tile(
        &self,
        input: [&[f64]; 3],
        raw: Range<usize>,
        last: bool,
        done: &mut Done,
        [k, d]: [&mut [f64]; 2],
        scratch: [&mut [f64]; 2],
    ) {
        let (raw_ready, k_ready) = (self.fast_k.bars() - 1, self.k_ready());
        let (smooth, slow) = (Means::new(self.slow_k.bars()), Means::new(self.slow_d.bars()));
        let smoothed = self.slow_k.bars() > 1;
        let out = &mut (if smoothed { &mut *d } else { &mut *k })[raw_ready..][raw.clone()];
        let input = input.map(|column| &column[raw.start..raw.end + raw_ready]);
        Channel::<Position, 1>::new(raw_ready + 1).full(input, [out], scratch);
        let seen = (raw.end + 1).saturating_sub(self.slow_k.bars());
        let until = if last || !smoothed { seen } else { smooth.whole(seen) };
        if smoothed && until > done.k {
            smooth.full([&d[raw_ready + done.k..]], [&mut k[k_ready..][done.k..until]]);
        }
        done.k = until;
        let distance = if last { 0 } else { self.slow_k.bars() - 1 };
        let seen = (until + 1).saturating_sub(self.slow_d.bars() + distance);
        let until = if last { seen } else { slow.whole(seen) };
        if until > done.d {
            slow.full([&k[k_ready + done.d..]], [&mut d[self.lookback()..][done.d..until]]);
        }
        done.d = until;
    }

    /// The oscillator that shows its raw values, and their mean.
    pub(super) const fn fast(fast_k: Span, fast_d: Span) -> Self {
        Self { fast_k, slow_k: Span::of::<1>(), slow_d: fast_d }
    }

    /// The state before the first bar.
    pub(super) fn running(&self) -> StochStream {
        StochStream {
            raw: Channel::new(self.fast_k.bars()).running(),
            smoothing: self.slow_k.bars() - 1,
            missing: self.lookback(),
            k: Means::new(self.slow_k.bars()).running(),
            d: Means::new(self.slow_d.bars()).running(),
        }
    }

    /// Bars before `k` could begin.
    const fn k_ready(&self) -> usize {
        self.fast_k.bars() - 1 + self.slow_k.bars() - 1
    }
}

/// The streaming state; a look costs what a bar does.
#[derive(Clone, Debug)]
pub(super) struct StochStream {
    raw: ChannelStream<Position, 1>,
    /// Raw values still missing before `k` begins.
    smoothing: usize,
    /// Bars still missing before both are shown.
    missing: usize,
    k: Mean,
    d: Mean,
}

impl Live for StochStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        outs.fill(f64::NAN);
        let shown = self.missing == 0;
        self.missing = self.missing.saturating_sub(1);
        let Some(raw) = self.raw.after(bar) else { return };
        let [k] = self.k.after(raw);
        if self.smoothing > 0 {
            self.smoothing -= 1;
            return;
        }
        let [d] = self.d.after([k]);
        if shown {
            outs.copy_from_slice(&[k, d]);
        }
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let Some(raw) = self.raw.glance(bar).filter(|_| self.missing == 0) else {
            return outs.fill(f64::NAN);
        };
        let [k] = self.k.glance(raw);
        outs.copy_from_slice(&[k, self.d.glance([k])[0]]);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{Bars, Columns};

    fn compute(stoch: Stoch, high: &[f64], low: &[f64], close: &[f64]) -> [Vec<f64>; 2] {
        let columns = Columns { high: Some(high), low: Some(low), close, ..Columns::default() };
        let mut outs = [vec![9.0; close.len()], vec![9.0; close.len()]];
        let [k, d] = &mut outs;
        let mut scratch = [vec![0.0; close.len()], vec![0.0; close.len()]];
        let mut scratch = scratch.each_mut().map(Vec::as_mut_slice);
        stoch.batch(&Rows::of(&Bars::new(columns).unwrap()), &mut [k, d], &mut scratch);
        outs
    }

    #[test]
    fn a_close_at_the_low_is_0_and_at_the_high_100() {
        let (high, low) = ([3.0, 4.0, 3.0, 2.0], [1.0, 2.0, 1.0, 2.0]);
        let one = Span::of::<1>();
        let stoch = Stoch { fast_k: Span::of::<2>(), slow_k: one, slow_d: one };
        let [k, d] = compute(stoch, &high, &low, &[3.0, 4.0, 1.0, 2.0]);
        assert!(k[0].is_nan());
        assert_eq!(k[1..], [100.0, 0.0, 50.0]);
        assert_eq!(d[1..], k[1..]);
    }

    #[test]
    fn a_flat_range_is_0() {
        let flat = [0.1; 6];
        let two = Span::of::<2>();
        let [k, d] = compute(Stoch { fast_k: two, slow_k: two, slow_d: two }, &flat, &flat, &flat);
        assert_eq!((k[3], d[5]), (0.0, 0.0));
    }
}
