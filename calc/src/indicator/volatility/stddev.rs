//! The spread of the last `period` closes: their variance, their standard deviation, and how many
//! deviations the newest stands from their mean.
//!
//! Lookback `period - 1`. The variance is that of the `window` module, divided by `n - ddof`; over a
//! flat window all three are 0. The distance from the mean is taken around the variance's anchor, so
//! that a score keeps its digits where the price is a million times its moves.

use crate::entry::{CLOSE, CatalogError, Entry, Param, SINGLE, Value};
use crate::lanes::Lanes;
use crate::params::{DEVIATIONS_MAX, Ddof, Period, Span};
use crate::series::Column;
use crate::window::{Moments, Sliding, Windowed};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

pub(super) static STDDEV: Entry = Entry {
    name: "stddev",
    aliases: &[],
    summary: "standard deviation",
    columns: CLOSE,
    params: &[
        Param::bars("period", 2, |_| Value::Number(5.0)),
        Param::real("deviations", 0.0, DEVIATIONS_MAX, |_| Value::Number(1.0)),
        Param::DDOF,
    ],
    outputs: SINGLE,
    build: |args| {
        let (period, width): (Period, _) = (args.window("period")?, args.deviations("deviations")?);
        Ok(Arc::new(Windowed(Spread::<Deviation>::new(period.into(), args.ddof()?, width.width()))))
    },
};

pub(super) static VAR: Entry = Entry {
    name: "var",
    aliases: &[],
    summary: "variance",
    columns: CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(5.0)), Param::DDOF],
    outputs: SINGLE,
    build: |args| {
        let (period, ddof): (Span, _) = (args.window("period")?, args.ddof()?);
        if period.bars() == 1 && ddof == Ddof::Sample {
            let rule = "one value has no variance of a sample: period must be 2 or more with ddof 1";
            return Err(CatalogError::Contradiction { owner: args.owner, rule });
        }
        Ok(Arc::new(Windowed(Spread::<Variance>::new(period, ddof, 1.0))))
    },
};

pub(super) static ZSCORE: Entry = Entry {
    name: "zscore",
    aliases: &[],
    summary: "distance from the mean in standard deviations",
    columns: CLOSE,
    params: &[Param::bars("period", 2, |_| Value::Number(20.0)), Param::DDOF],
    outputs: SINGLE,
    build: |args| {
        let period: Period = args.window("period")?;
        Ok(Arc::new(Windowed(Spread::<Score>::new(period.into(), args.ddof()?, 1.0))))
    },
};

/// What is made of a variance.
trait Figure: Copy + Debug + Send + Sync + 'static {
    /// What a spread is multiplied by for it, or its root: `share` makes a variance of a spread.
    fn unit(share: f64, width: f64) -> f64;

    /// Of the spread; `distance` is how far the newest value stands from the mean.
    fn of<V: Lanes>(spread: V, distance: V, unit: V) -> V;
}

#[derive(Clone, Copy, Debug)]
struct Variance;

impl Figure for Variance {
    fn unit(share: f64, _: f64) -> f64 {
        share
    }

    #[inline(always)]
    fn of<V: Lanes>(spread: V, _: V, unit: V) -> V {
        spread * unit
    }
}

#[derive(Clone, Copy, Debug)]
struct Deviation;

impl Figure for Deviation {
    fn unit(share: f64, width: f64) -> f64 {
        share.sqrt() * width
    }

    #[inline(always)]
    fn of<V: Lanes>(spread: V, _: V, unit: V) -> V {
        spread.sqrt() * unit
    }
}

#[derive(Clone, Copy, Debug)]
struct Score;

impl Figure for Score {
    fn unit(share: f64, _: f64) -> f64 {
        share.sqrt()
    }

    #[inline(always)]
    fn of<V: Lanes>(spread: V, distance: V, unit: V) -> V {
        let (zero, deviation) = (V::splat(0.0), spread.sqrt() * unit);
        V::select(zero.lt(deviation), distance / deviation, zero)
    }
}

#[derive(Clone, Copy, Debug)]
struct Spread<F> {
    moments: Moments,
    per_bar: f64,
    unit: f64,
    figure: PhantomData<F>,
}

impl<F: Figure> Spread<F> {
    fn new(period: Span, ddof: Ddof, width: f64) -> Self {
        let moments = Moments::new(period.bars());
        let unit = F::unit(moments.share(ddof.correction(period)), width);
        Self { moments, per_bar: 1.0 / period.count(), unit, figure: PhantomData }
    }
}

impl<F: Figure> Sliding<1, 4, 1> for Spread<F> {
    const READS: [Column; 1] = [Column::Close];

    fn window(&self) -> usize {
        self.moments.window()
    }

    #[inline(always)]
    fn open<V: Lanes>(&self, [oldest]: [V; 1]) -> [V; 4] {
        Moments::open(oldest)
    }

    #[inline(always)]
    fn add<V: Lanes>(&self, words: &mut [V; 4], [next]: [V; 1]) {
        Moments::add(words, next);
    }

    #[inline(always)]
    fn slide<V: Lanes>(&self, words: &mut [V; 4], [oldest]: [V; 1], [newest]: [V; 1]) {
        Moments::slide(words, oldest, newest);
    }

    #[inline(always)]
    fn distrusts<V: Lanes>(&self, words: &[V; 4]) -> Option<V::Mask> {
        Some(self.moments.distrusts(words))
    }

    #[inline(always)]
    fn value<V: Lanes>(&self, words: &[V; 4], [newest]: [V; 1]) -> [V; 1] {
        let [anchor, sum, ..] = *words;
        let distance = (newest - anchor) - sum * V::splat(self.per_bar);
        [F::of(self.moments.spread(words), distance, V::splat(self.unit))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compat, Indicator};

    #[test]
    fn figures_of_two_values() {
        let last = |figure: Windowed<Spread<Score>, 1, 4, 1>| {
            let mut stream = figure.running();
            stream.after([1.0]);
            stream.after([3.0])
        };
        assert_eq!(last(Windowed(Spread::new(Span::of::<2>(), Ddof::Population, 1.0))), [1.0]);
        assert_eq!(last(Windowed(Spread::new(Span::of::<2>(), Ddof::Sample, 1.0))), [1.0 / 2.0_f64.sqrt()]);
    }

    #[test]
    fn one_value_has_no_variance_of_a_sample() {
        let given = [("period", Value::Number(1.0)), ("ddof", Value::Number(1.0))];
        let error = Indicator::parse("var", Compat::TaLib, &given).unwrap_err();
        assert!(error.to_string().contains("period must be 2 or more"), "{error}");
    }
}
