//! The highest and the lowest close of `period` bars, the middle between them, and the middle between
//! the highest high and the lowest low.
//!
//! Lookback `period - 1`. A zero is shown positive.

use crate::entry::{CLOSE, Entry, Param, SINGLE, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::lanes::Lanes;
use crate::params::{Period, Span};
use crate::series::{Bar, Column};
use crate::window::{Between, Channel, Highest, Lowest, Rolling, Side, extremes};
use std::marker::PhantomData;
use std::sync::Arc;

pub(super) static MAX: Entry = Entry {
    name: "max",
    aliases: &[],
    summary: "highest value of a window",
    columns: CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(30.0))],
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Extreme::<Highest>::new(args.window("period")?))),
};

pub(super) static MIN: Entry = Entry {
    name: "min",
    aliases: &[],
    summary: "lowest value of a window",
    columns: CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(30.0))],
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Extreme::<Lowest>::new(args.window("period")?))),
};

pub(super) static MIDPOINT: Entry = Entry {
    name: "midpoint",
    aliases: &[],
    summary: "middle between the highest and the lowest value of a window",
    columns: CLOSE,
    params: &[Param::bars("period", 2, |_| Value::Number(14.0))],
    outputs: SINGLE,
    build: |args| {
        let period: Period = args.window("period")?;
        Ok(Arc::new(Channel::<OfCloses, 1>::new(period.bars())))
    },
};

pub(super) static MIDPRICE: Entry = Entry {
    name: "midprice",
    aliases: &[],
    summary: "middle between the highest high and the lowest low of a window",
    columns: &[Column::High, Column::Low],
    params: &[Param::bars("period", 2, |_| Value::Number(14.0))],
    outputs: SINGLE,
    build: |args| {
        let period: Period = args.window("period")?;
        Ok(Arc::new(Channel::<OfRanges, 1>::new(period.bars())))
    },
};

#[inline(always)]
fn middle<V: Lanes>(highest: V, lowest: V) -> [V; 1] {
    [(highest + lowest) / V::splat(2.0) + V::splat(0.0)]
}

#[derive(Clone, Copy, Debug)]
struct OfCloses;

impl Between<1> for OfCloses {
    const READS: [Column; 3] = [Column::Close, Column::Close, Column::Close];

    #[inline(always)]
    fn of<V: Lanes>(highest: V, lowest: V, _: V) -> [V; 1] {
        middle(highest, lowest)
    }
}

#[derive(Clone, Copy, Debug)]
struct OfRanges;

impl Between<1> for OfRanges {
    const READS: [Column; 3] = [Column::High, Column::Low, Column::High];

    #[inline(always)]
    fn of<V: Lanes>(highest: V, lowest: V, _: V) -> [V; 1] {
        middle(highest, lowest)
    }
}

/// One side's extreme of closes.
#[derive(Clone, Copy, Debug)]
struct Extreme<S> {
    window: usize,
    side: PhantomData<S>,
}

impl<S> Extreme<S> {
    const fn new(period: Span) -> Self {
        Self { window: period.bars(), side: PhantomData }
    }
}

impl<S: Side> Kernel for Extreme<S> {
    fn lookback(&self) -> usize {
        self.window - 1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        let [out] = outputs(outs);
        fill_warm_up(out, self.lookback());
        if rows.len() >= self.window {
            extremes::<S>(rows.column(Column::Close), self.window, &mut out[self.lookback()..]);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(ExtremeStream { missing: self.window - 1, extreme: Rolling::<S>::new(self.window) })
    }
}

#[derive(Clone, Debug)]
struct ExtremeStream<S> {
    /// Bars until the window is full.
    missing: usize,
    extreme: Rolling<S>,
}

impl<S: Side> Live for ExtremeStream<S> {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let extreme = self.extreme.push(bar.close) + 0.0;
        outs[0] = if self.missing > 0 { f64::NAN } else { extreme };
        self.missing = self.missing.saturating_sub(1);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let extreme = self.extreme.peek(bar.close) + 0.0;
        outs[0] = if self.missing > 0 { f64::NAN } else { extreme };
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Bars;

    #[test]
    fn the_extreme_is_that_of_the_window_and_no_zero_is_negative() {
        let close = [3.0, -0.0, -0.0, -1.0, 5.0];
        let bars = Bars::from_close(&close);
        let mut out = [9.0; 5];
        Extreme::<Highest>::new(Span::of::<2>()).batch(&Rows::of(&bars), &mut [&mut out], &mut []);
        assert!(out[0].is_nan());
        assert_eq!(
            out[1..].iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
            [3.0_f64, 0.0, 0.0, 5.0].map(f64::to_bits)
        );
        Extreme::<Lowest>::new(Span::of::<9>()).batch(&Rows::of(&bars), &mut [&mut out], &mut []);
        assert!(out.iter().all(|value| value.is_nan()));
    }
}
