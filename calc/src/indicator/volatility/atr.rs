//! Average true range, in prices or in percent of the close.
//!
//! The true range needs the close before, so it begins at bar 1 and the average at bar `period`;
//! where bar 0 counts with high minus low, the average begins at bar `period - 1`. Wilder's
//! smoothing is seeded by the mean of the first `period` ranges and then is
//! `average * (1 - 1/period) + range / period`, the factors summing to exactly one.

use crate::entry::{Args, CatalogError, Entry, HIGH_LOW_CLOSE, Param, SINGLE, Value};
use crate::indicator::average::ema::MeanSeed;
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs, true_range};
use crate::lanes::Lanes;
use crate::params::{FirstRange, Smoothing, Span};
use crate::recursion::{Recursion, Recursive, Seed};
use crate::series::{Bar, Column};
use crate::window::{Mean, Means};
use std::sync::Arc;

pub(crate) static ATR: Entry = Entry {
    name: "atr",
    aliases: &[],
    summary: "average true range",
    columns: HIGH_LOW_CLOSE,
    params: PARAMS,
    outputs: SINGLE,
    build: averaging::<false>,
};

pub(super) static NATR: Entry = Entry {
    name: "natr",
    aliases: &[],
    summary: "average true range in percent of the close",
    columns: HIGH_LOW_CLOSE,
    params: PARAMS,
    outputs: SINGLE,
    build: averaging::<true>,
};

const PARAMS: &[Param] =
    &[Param::bars("period", 1, |_| Value::Number(14.0)), Param::SMOOTHING, Param::FIRST_RANGE];

fn averaging<const PERCENT: bool>(args: &Args<'_>) -> Result<Arc<dyn Kernel>, CatalogError> {
    Ok(averaged::<PERCENT>(args.window("period")?, args.smoothing()?, args.first_range()?))
}

fn averaged<const PERCENT: bool>(
    period: Span,
    smoothing: Smoothing,
    first_range: FirstRange,
) -> Arc<dyn Kernel> {
    match smoothing {
        Smoothing::Wilder => Arc::new(Recursion(Wilder::<PERCENT> { period, first_range })),
        Smoothing::Sma => Arc::new(Plain::<PERCENT> { period, first_range }),
    }
}

/// The average true range, for what is drawn by it.
pub(super) fn average_range(period: Span, smoothing: Smoothing, first_range: FirstRange) -> Arc<dyn Kernel> {
    averaged::<false>(period, smoothing, first_range)
}

/// What is shown of the average beside a close; of a close of 0 nothing is a percentage, and it is 0.
#[inline(always)]
fn shown<V: Lanes, const PERCENT: bool>(average: V, close: V) -> V {
    if !PERCENT {
        return average;
    }
    let zero = V::splat(0.0);
    let worthless = close.abs().le(zero);
    let share = average / V::select(worthless, V::splat(1.0), close);
    V::select(worthless, zero, V::splat(100.0) * share)
}

/// The first bar that has a range.
pub(super) const fn first_bar(first_range: FirstRange) -> usize {
    match first_range {
        FirstRange::Skip => 1,
        FirstRange::HighLow => 0,
    }
}

/// The range of the first bars: none where bar 0 does not count.
pub(super) fn first_or_true_range(
    first_range: FirstRange,
    before: Option<f64>,
    high: f64,
    low: f64,
) -> Option<f64> {
    match (before, first_range) {
        (Some(before), _) => Some(true_range(high, low, before)),
        (None, FirstRange::HighLow) => Some(high - low),
        (None, FirstRange::Skip) => None,
    }
}

/// Writes the true range of every bar, of bar 0 high minus low.
pub(super) fn true_ranges(rows: &Rows<'_>, ranges: &mut [f64]) {
    let [high, low, close] = [Column::High, Column::Low, Column::Close].map(|column| rows.column(column));
    if let (Some(range), Some(high), Some(low)) = (ranges.first_mut(), high.first(), low.first()) {
        *range = high - low;
    }
    let later = high.iter().zip(low).skip(1);
    for ((range, (&high, &low)), &before) in ranges.iter_mut().skip(1).zip(later).zip(close) {
        *range = true_range(high, low, before);
    }
}

/// The true range, averaged as Wilder does.
#[derive(Clone, Copy, Debug)]
struct Wilder<const PERCENT: bool> {
    period: Span,
    first_range: FirstRange,
}

/// The close before, and the average.
type State<V> = [V; 2];

impl<const PERCENT: bool> Recursive<3, 2, 2, 1> for Wilder<PERCENT> {
    type Seed = WilderSeed<PERCENT>;
    const READS: [Column; 3] = [Column::High, Column::Low, Column::Close];

    fn lookback(&self) -> usize {
        first_bar(self.first_range) + self.period.bars() - 1
    }

    fn coefficients(&self) -> [f64; 2] {
        let keep = (self.period.count() - 1.0) / self.period.count();
        [keep, 1.0 - keep]
    }

    fn seed(&self) -> Self::Seed {
        WilderSeed { first_range: self.first_range, before: None, mean: MeanSeed::of(self.period.bars()) }
    }

    #[inline(always)]
    fn step<V: Lanes>([keep, take]: &[V; 2], state: &mut State<V>, [high, low, close]: [V; 3]) -> [V; 1] {
        let [before, average] = *state;
        let average = *keep * average + *take * true_range(high, low, before);
        *state = [close, average];
        [shown::<V, PERCENT>(average, close)]
    }

    fn guess<V: Lanes>([high, low, close]: [V; 3]) -> State<V> {
        [close, high - low]
    }

    fn forgets(&self) -> usize {
        40 * self.period.bars()
    }
}

/// The mean of the first ranges.
#[derive(Clone, Copy, Debug)]
struct WilderSeed<const PERCENT: bool> {
    first_range: FirstRange,
    before: Option<f64>,
    mean: MeanSeed,
}

impl<const PERCENT: bool> Seed<3, 2, 1> for WilderSeed<PERCENT> {
    fn push(&mut self, [high, low, close]: [f64; 3]) -> Option<(State<f64>, [f64; 1])> {
        let range = first_or_true_range(self.first_range, self.before, high, low);
        self.before = Some(close);
        let average = self.mean.add(range?)?;
        Some(([close, average], [shown::<f64, PERCENT>(average, close)]))
    }
}

/// The true range, averaged plainly.
#[derive(Clone, Copy, Debug)]
struct Plain<const PERCENT: bool> {
    period: Span,
    first_range: FirstRange,
}

impl<const PERCENT: bool> Kernel for Plain<PERCENT> {
    fn lookback(&self) -> usize {
        first_bar(self.first_range) + self.period.bars() - 1
    }

    fn scratch_columns(&self) -> usize {
        1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let ([out], [ranges]) = (outputs(outs), outputs(scratch));
        let first = first_bar(self.first_range).min(rows.len());
        true_ranges(rows, ranges);
        fill_warm_up(out, first);
        Means::new(self.period.bars()).run([&ranges[first..]], [&mut out[first..]]);
        if PERCENT {
            for (value, &close) in out.iter_mut().zip(rows.column(Column::Close)) {
                *value = shown::<f64, PERCENT>(*value, close);
            }
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        let mean = Means::new(self.period.bars()).running();
        Box::new(PlainStream::<PERCENT> { first_range: self.first_range, before: None, mean })
    }
}

#[derive(Clone, Debug)]
struct PlainStream<const PERCENT: bool> {
    first_range: FirstRange,
    before: Option<f64>,
    mean: Mean,
}

impl<const PERCENT: bool> PlainStream<PERCENT> {
    fn range(&self, bar: Bar) -> Option<f64> {
        first_or_true_range(self.first_range, self.before, bar.high, bar.low)
    }
}

impl<const PERCENT: bool> Live for PlainStream<PERCENT> {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let range = self.range(bar);
        self.before = Some(bar.close);
        let average = range.map_or(f64::NAN, |range| self.mean.after([range])[0]);
        outs[0] = shown::<f64, PERCENT>(average, bar.close);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let average = self.range(bar).map_or(f64::NAN, |range| self.mean.glance([range])[0]);
        outs[0] = shown::<f64, PERCENT>(average, bar.close);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_zero_counts_only_where_the_convention_says() {
        let (high, low, close) = ([4.0, 5.0, 9.0], [2.0, 4.0, 6.0], [3.0, 4.0, 8.0]);
        let mut out = [0.0; 3];
        let period = Span::of::<2>();
        Recursion(Wilder::<false> { period, first_range: FirstRange::Skip })
            .run([&high, &low, &close], [&mut out]);
        assert!(out[1].is_nan());
        assert_eq!(out[2], f64::midpoint(2.0, 5.0));
        let mut plain = PlainStream::<false> {
            first_range: FirstRange::HighLow,
            before: None,
            mean: Means::new(2).running(),
        };
        for row in 0..3 {
            let bar = Bar { open: 0.0, high: high[row], low: low[row], close: close[row], volume: 0.0 };
            plain.push(bar, &mut out[row..=row]);
        }
        assert!(out[0].is_nan());
        assert_eq!(out[1..], [2.0, 3.5]);
    }
}
