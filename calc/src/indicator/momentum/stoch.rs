//! Stochastic oscillator: where the close stands between the lowest low and the highest high of
//! `fast_k` bars, 0 to 100, smoothed twice by plain means.
//!
//! `k` is the mean of `slow_k` raw values, `d` the mean of `slow_k`-smoothed values over `slow_d`
//! bars. Both begin at the same bar, after `fast_k - 1 + slow_k - 1 + slow_d - 1`. A range that is
//! nothing but rounding (1e-14 of its own ends) counts as none, and the raw value is 0.

use crate::entry::{Entry, HIGH_LOW_CLOSE, Param, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::params::Span;
use crate::series::{Bar, Column};
use crate::window::{Highest, Lowest, Mean, Means, Rolling, suffix_extremes};
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

/// A range up to this share of its own ends is rounding, not movement.
const FLAT: f64 = 1e-14;

/// Bars whose extremes are worked out together before the raw values are.
const TILE_BARS: usize = 2_048;

#[derive(Clone, Copy, Debug)]
struct Stoch {
    fast_k: Span,
    slow_k: Span,
    slow_d: Span,
}

impl Kernel for Stoch {
    fn lookback(&self) -> usize {
        self.k_ready() + self.slow_d.bars() - 1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        let [k, d] = outputs(outs);
        let [high, low, close] = [Column::High, Column::Low, Column::Close].map(|column| rows.column(column));
        let bars = Ranges { high, low, close };
        // The two outputs take turns as scratch: raw values in d, then k from d, then d from k.
        self.raw(&bars, k, d);
        let raw_ready = (self.fast_k.bars() - 1).min(rows.len());
        Means::new(self.slow_k.bars()).run([&d[raw_ready..]], [&mut k[raw_ready..]]);
        let k_ready = self.k_ready().min(rows.len());
        Means::new(self.slow_d.bars()).run([&k[k_ready..]], [&mut d[k_ready..]]);
        fill_warm_up(k, self.lookback());
        fill_warm_up(d, self.lookback());
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(StochStream {
            raw_ready: self.fast_k.bars() - 1,
            k_ready: self.k_ready(),
            seen: 0,
            highest: Rolling::new(self.fast_k.bars()),
            lowest: Rolling::new(self.fast_k.bars()),
            k: Means::new(self.slow_k.bars()).running(),
            d: Means::new(self.slow_d.bars()).running(),
            lookback: self.lookback(),
        })
    }
}

impl Stoch {
    /// Bars before `k` could begin.
    const fn k_ready(&self) -> usize {
        self.fast_k.bars() - 1 + self.slow_k.bars() - 1
    }

    /// Writes the raw position of every full window to `raw`; `scratch` is overwritten.
    fn raw(&self, bars: &Ranges<'_>, scratch: &mut [f64], raw: &mut [f64]) {
        let window = self.fast_k.bars();
        let whole = bars.close.len() / window;
        let blocks_a_tile = TILE_BARS.div_ceil(window);
        for from in (0..=whole).step_by(blocks_a_tile) {
            let until = whole.min(from + blocks_a_tile);
            suffix_extremes::<Highest>(bars.high, window, from..until, scratch);
            suffix_extremes::<Lowest>(bars.low, window, from..until, raw);
            let start = from * window;
            let end = bars.close.len().min((from + blocks_a_tile) * window);
            join_extremes(bars, window, start..end, scratch, raw);
            let ready = (window - 1).clamp(start, end);
            positions(&bars.close[ready..end], &scratch[ready..end], &mut raw[ready..end]);
        }
    }
}

/// High, low and close of equal length.
#[derive(Clone, Copy)]
struct Ranges<'a> {
    high: &'a [f64],
    low: &'a [f64],
    close: &'a [f64],
}

/// Turns the suffix extremes of the preceding blocks into window extremes by joining the running
/// extremes of each bar's own block. The first block has nothing before it to join.
fn join_extremes(
    bars: &Ranges<'_>,
    window: usize,
    span: Range<usize>,
    highest: &mut [f64],
    lowest: &mut [f64],
) {
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

/// The streaming state; a look costs what a bar does.
#[derive(Clone, Debug)]
struct StochStream {
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

impl Live for StochStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        outs.fill(f64::NAN);
        let at = self.seen;
        self.seen = self.lookback.min(at + 1);
        let (highest, lowest) = (self.highest.push(bar.high), self.lowest.push(bar.low));
        if at < self.raw_ready {
            return;
        }
        let [k] = self.k.after([position(highest, lowest, bar.close)]);
        if at < self.k_ready {
            return;
        }
        let [d] = self.d.after([k]);
        if at >= self.lookback {
            outs.copy_from_slice(&[k, d]);
        }
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        if self.seen < self.lookback {
            return outs.fill(f64::NAN);
        }
        let (highest, lowest) = (self.highest.peek(bar.high), self.lowest.peek(bar.low));
        let [k] = self.k.glance([position(highest, lowest, bar.close)]);
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
        stoch.batch(&Rows::of(&Bars::new(columns).unwrap()), &mut [k, d], &mut []);
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
