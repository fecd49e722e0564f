//! Averages of averages: exponential averages in cascade, and what is blended of their stages.
//!
//! Every stage is an exponential average over the same period of what the stage before shows. Seeded by
//! means, a stage starts from the mean of the first `period` values of the one before, so the first
//! value of `n` stages stands at bar `n * (period - 1)`; seeded by the first value, all start at bar 0.
//! A period of 1 copies its input.

use super::COPY;
use super::ema::{MeanSeed, forgets, smooth, smoothing};
use crate::entry::{Args, CLOSE, CatalogError, Entry, Param, SINGLE, Value};
use crate::indicator::Kernel;
use crate::lanes::Lanes;
use crate::params::{Seed as Start, Span};
use crate::recursion::{Recursion, Recursive, Seed};
use crate::series::Column;
use std::array::from_fn;
use std::fmt::Debug;
use std::sync::Arc;

const PARAMS: &[Param] = &[Param::bars("period", 1, |_| Value::Number(30.0)), Param::SEED];

pub(super) static DEMA: Entry = Entry {
    name: "dema",
    aliases: &[],
    summary: "double exponential moving average, the lag of one taken off",
    columns: CLOSE,
    params: PARAMS,
    outputs: SINGLE,
    build: |args| averaging(args, Double),
};

pub(super) static TEMA: Entry = Entry {
    name: "tema",
    aliases: &[],
    summary: "triple exponential moving average, the lag of two taken off",
    columns: CLOSE,
    params: PARAMS,
    outputs: SINGLE,
    build: |args| averaging(args, Triple),
};

pub(super) static T3: Entry = Entry {
    name: "t3",
    aliases: &[],
    summary: "Tillson's average of six exponential averages",
    columns: CLOSE,
    params: &[
        Param::bars("period", 1, |_| Value::Number(5.0)),
        Param::real("volume_factor", 0.0, 1.0, |_| Value::Number(0.7)),
        Param::SEED,
    ],
    outputs: SINGLE,
    build: |args| averaging(args, Tillson::new(args.number("volume_factor")?)),
};

/// An average made of a cascade; over one bar it is the value itself.
fn averaging<B: Blend<N, K>, const N: usize, const K: usize>(
    args: &Args<'_>,
    blend: B,
) -> Result<Arc<dyn Kernel>, CatalogError> {
    let period: Span = args.window("period")?;
    let start = args.seed()?;
    Ok(if period.bars() == 1 { Arc::new(COPY) } else { Arc::new(Cascade::of(period, start, blend)) })
}

/// What is made of the stages of a cascade.
pub(crate) trait Blend<const N: usize, const K: usize>: Copy + Debug + Send + Sync + 'static {
    /// 1 where the stages of the bar before are needed too, and the output begins a bar later.
    const BARS_MORE: usize = 0;

    /// The share of the newest value, before whatever else the blend works with.
    fn coefficients(&self, share: f64) -> [f64; K];

    /// The output, given the stages of the bar before and of this one.
    fn blend<V: Lanes>(k: &[V; K], before: &[V; N], stages: &[V; N]) -> V;
}

/// The recursion of `N` stages, blended by `B`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cascade<B, const N: usize, const K: usize> {
    period: Span,
    start: Start,
    blend: B,
}

impl<B: Blend<N, K>, const N: usize, const K: usize> Cascade<B, N, K> {
    pub(crate) fn of(period: Span, start: Start, blend: B) -> Recursion<Self, 1, N, K, 1> {
        Recursion(Self { period, start, blend })
    }

    /// How many values each stage is seeded with.
    const fn seeds(&self) -> usize {
        match self.start {
            Start::Sma => self.period.bars(),
            Start::First => 1,
        }
    }
}

impl<B: Blend<N, K>, const N: usize, const K: usize> Recursive<1, N, K, 1> for Cascade<B, N, K> {
    type Seed = CascadeSeed<B, N, K>;
    const READS: [Column; 1] = [Column::Close];

    fn lookback(&self) -> usize {
        N * (self.seeds() - 1) + B::BARS_MORE
    }

    fn coefficients(&self) -> [f64; K] {
        self.blend.coefficients(smoothing(self.period))
    }

    fn seed(&self) -> Self::Seed {
        let seeds = [MeanSeed::of(self.seeds()); N];
        CascadeSeed { rule: *self, seeds, stages: [None; N] }
    }

    #[inline(always)]
    fn step<V: Lanes>(k: &[V; K], stages: &mut [V; N], [input]: [V; 1]) -> [V; 1] {
        let before = *stages;
        let mut value = input;
        for stage in stages.iter_mut() {
            *stage = smooth(k[0], *stage, value);
            value = *stage;
        }
        [B::blend(k, &before, stages)]
    }

    fn guess<V: Lanes>([close]: [V; 1]) -> [V; N] {
        [close; N]
    }

    fn forgets(&self) -> usize {
        N * forgets(self.period)
    }
}

/// The seeds of the stages, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CascadeSeed<B, const N: usize, const K: usize> {
    rule: Cascade<B, N, K>,
    seeds: [MeanSeed; N],
    stages: [Option<f64>; N],
}

impl<B: Blend<N, K>, const N: usize, const K: usize> Seed<1, N, 1> for CascadeSeed<B, N, K> {
    fn push(&mut self, [input]: [f64; 1]) -> Option<([f64; N], [f64; 1])> {
        let k = self.rule.coefficients();
        let before = self.stages;
        let mut value = input;
        for (stage, seed) in self.stages.iter_mut().zip(&mut self.seeds) {
            *stage = stage.map_or_else(|| seed.add(value), |average| Some(smooth(k[0], average, value)));
            value = (*stage)?;
        }
        let stages = from_fn(|stage| self.stages[stage].unwrap_or(value));
        if before[N - 1].is_none() && B::BARS_MORE > 0 {
            return None;
        }
        let before = from_fn(|stage| before[stage].unwrap_or(stages[stage]));
        Some((stages, [B::blend(&k, &before, &stages)]))
    }
}

#[derive(Clone, Copy, Debug)]
struct Double;

impl Blend<2, 1> for Double {
    fn coefficients(&self, share: f64) -> [f64; 1] {
        [share]
    }

    #[inline(always)]
    fn blend<V: Lanes>(_: &[V; 1], _: &[V; 2], [once, twice]: &[V; 2]) -> V {
        V::splat(2.0) * *once - *twice
    }
}

#[derive(Clone, Copy, Debug)]
struct Triple;

impl Blend<3, 1> for Triple {
    fn coefficients(&self, share: f64) -> [f64; 1] {
        [share]
    }

    #[inline(always)]
    fn blend<V: Lanes>(_: &[V; 1], _: &[V; 3], [once, twice, thrice]: &[V; 3]) -> V {
        let three = V::splat(3.0);
        *thrice + (three * *once - three * *twice)
    }
}

/// Tillson's weights of the last four stages, the sixth first.
#[derive(Clone, Copy, Debug)]
struct Tillson([f64; 4]);

impl Tillson {
    fn new(factor: f64) -> Self {
        let square = factor * factor;
        let cube = square * factor;
        let third = -6.0 * square - 3.0 * (factor + cube);
        Self([-cube, 3.0 * (square + cube), third, 1.0 + 3.0 * factor + cube + 3.0 * square])
    }
}

impl Blend<6, 5> for Tillson {
    fn coefficients(&self, share: f64) -> [f64; 5] {
        let [sixth, fifth, fourth, third] = self.0;
        [share, sixth, fifth, fourth, third]
    }

    #[inline(always)]
    fn blend<V: Lanes>(k: &[V; 5], _: &[V; 6], stages: &[V; 6]) -> V {
        let [_, sixth, fifth, fourth, third] = *k;
        ((sixth * stages[5] + fifth * stages[4]) + fourth * stages[3]) + third * stages[2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_is_seeded_by_the_mean_of_the_one_before() {
        let input = [1.0, 3.0, 5.0, 7.0];
        let mut out = [0.0; 4];
        Cascade::of(Span::of::<2>(), Start::Sma, Double).run([&input], [&mut out]);
        // The first stage: 2, 4, 6 from bar 1 on; the second: 3, 5 from bar 2 on.
        assert!(out[1].is_nan());
        assert!((out[2] - 5.0).abs() < 1e-12 && (out[3] - 7.0).abs() < 1e-12, "{out:?}");
    }

    #[test]
    fn a_steady_slope_is_followed_without_lag_once_the_seeds_are_forgotten() {
        let input: Vec<f64> = (0..400).map(f64::from).collect();
        let mut out = vec![0.0; 400];
        Cascade::of(Span::of::<5>(), Start::First, Triple).run([&input], [&mut out]);
        assert!((out[399] - 399.0).abs() < 1e-9, "{}", out[399]);
        assert_eq!(out[0], 0.0);
    }
}
