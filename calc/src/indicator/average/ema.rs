//! Exponential moving average: `y += (x - y) * k` with `k = 2 / (period + 1)`.
//!
//! Seeded by the plain mean of the first `period` values (lookback `period - 1`) or by the first
//! value (lookback 0). A period of 1 copies its input. The step is written as TA-Lib up to 0.8.1
//! writes it, with separate rounding of product and sum.

use crate::entry::{CLOSE, Entry, Param, SINGLE, Value};
use crate::lanes::Lanes;
use crate::params::{Seed as Start, Span};
use crate::recursion::{Recursion, Recursive, Seed};
use crate::series::Column;
use std::sync::Arc;

pub(crate) static EMA: Entry = Entry {
    name: "ema",
    aliases: &[],
    summary: "exponential moving average",
    columns: CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(30.0)), Param::SEED],
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Ema::new(args.window("period")?, args.seed()?))),
};

/// The share of the newest value.
pub(crate) fn smoothing(period: Span) -> f64 {
    2.0 / (period.count() + 1.0)
}

/// One step of the recursion.
#[inline(always)]
pub(crate) fn smooth<V: Lanes>(share: V, average: V, input: V) -> V {
    (input - average) * share + average
}

/// What is shown of the average: at a share of 1 the sum rounds where the value itself is exact. It
/// is chosen beside the recursion, whose every operation the next bar waits for.
#[inline(always)]
pub(crate) fn shown<V: Lanes>(share: V, average: V, input: V) -> V {
    V::select(share.lt(V::splat(1.0)), average, input)
}

/// Bars after which the average over `period` has forgotten where it started, to the last bit.
pub(crate) const fn forgets(period: Span) -> usize {
    20 * period.bars()
}

/// Exponential moving average of closes.
pub(crate) type Ema = Recursion<Exponential, 1, 1, 1, 1>;

impl Ema {
    /// The average with smoothing `2 / (period + 1)`, started as `start` says.
    pub(crate) const fn new(period: Span, start: Start) -> Self {
        Recursion(Exponential { period, start })
    }
}

/// Exponential moving average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exponential {
    period: Span,
    start: Start,
}

impl Exponential {
    /// How many values it is seeded with.
    const fn seeds(self) -> usize {
        match self.start {
            Start::Sma => self.period.bars(),
            Start::First => 1,
        }
    }
}

impl Recursive<1, 1, 1, 1> for Exponential {
    type Seed = MeanSeed;
    const READS: [Column; 1] = [Column::Close];

    fn lookback(&self) -> usize {
        self.seeds() - 1
    }

    fn coefficients(&self) -> [f64; 1] {
        [smoothing(self.period)]
    }

    fn seed(&self) -> MeanSeed {
        MeanSeed::of(self.seeds())
    }

    #[inline(always)]
    fn step<V: Lanes>([share]: &[V; 1], [average]: &mut [V; 1], [input]: [V; 1]) -> [V; 1] {
        *average = smooth(*share, *average, input);
        [shown(*share, *average, input)]
    }

    fn guess<V: Lanes>(bar: [V; 1]) -> [V; 1] {
        bar
    }

    fn forgets(&self) -> usize {
        forgets(self.period)
    }
}

/// The plain mean of the first values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MeanSeed {
    count: usize,
    seen: usize,
    sum: f64,
}

impl MeanSeed {
    pub(crate) const fn of(count: usize) -> Self {
        Self { count, seen: 0, sum: 0.0 }
    }

    /// The mean when `input` is the last of its values.
    pub(crate) fn add(&mut self, input: f64) -> Option<f64> {
        self.seen += 1;
        self.sum += input;
        (self.seen == self.count).then(|| self.sum / self.count as f64)
    }
}

impl Seed<1, 1, 1> for MeanSeed {
    fn push(&mut self, [input]: [f64; 1]) -> Option<([f64; 1], [f64; 1])> {
        self.add(input).map(|mean| ([mean], [mean]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_the_first_value() {
        let input = [1.0, 2.0, 6.0, 8.0];
        let mut out = [0.0; 4];
        Ema::new(Span::of::<3>(), Start::Sma).run([&input], [&mut out]);
        assert!(out[1].is_nan());
        assert_eq!(out[2..], [3.0, 5.5]);
        Ema::new(Span::of::<3>(), Start::First).run([&input], [&mut out]);
        assert_eq!(out, [1.0, 1.5, 3.75, 5.875]);
    }

    #[test]
    fn a_period_of_one_copies() {
        let input = [0.1, 1e9, 0.3];
        let mut out = [0.0; 3];
        Ema::new(Span::of::<1>(), Start::Sma).run([&input], [&mut out]);
        assert_eq!(out, input);
    }
}
