//! Stochastic of the relative strength index: where the index stands between its own extremes of the
//! last `fast_k` bars, 0 to 100, and the plain mean of that over `fast_d` bars.
//!
//! Both outputs begin after `period + fast_k - 1 + fast_d - 1`. Where the index has not moved within the
//! window the position is 0.

use super::rsi::{RelativeStrength, Rsi};
use super::stoch::{Stoch, StochStream};
use crate::entry::{CLOSE, Entry, Param, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::params::Period;
use crate::recursion::Running;
use crate::series::{Bar, Column};
use std::sync::Arc;

pub(super) static STOCHRSI: Entry = Entry {
    name: "stochrsi",
    aliases: &[],
    summary: "stochastic oscillator of the relative strength index, 0 to 100",
    columns: CLOSE,
    params: &[
        Param::bars("period", 2, |_| Value::Number(14.0)),
        Param::bars("fast_k", 1, |compat| Value::Number(compat.fast_k().count())),
        Param::bars("fast_d", 1, |_| Value::Number(3.0)),
    ],
    outputs: &["fastk", "fastd"],
    build: |args| {
        let places = Stoch::fast(args.window("fast_k")?, args.window("fast_d")?);
        Ok(Arc::new(StochRsi { period: args.window("period")?, places }))
    },
};

/// The fast stochastic oscillator of bars whose prices all are the index.
#[derive(Clone, Copy, Debug)]
struct StochRsi {
    period: Period,
    places: Stoch,
}

impl StochRsi {
    const fn strength(self) -> Rsi {
        Rsi::new(self.period)
    }
}

impl Kernel for StochRsi {
    fn lookback(&self) -> usize {
        self.period.bars() + self.places.lookback()
    }

    fn scratch_columns(&self) -> usize {
        1 + self.places.scratch_columns()
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let (index, scratch) = scratch.split_at_mut(1);
        let ([k, d], [index]) = (outputs(outs), outputs(index));
        self.strength().run([rows.column(Column::Close)], [&mut *index]);
        let first = self.period.bars().min(rows.len());
        let indices = Rows { columns: [&index[first..]; Column::ALL.len()] };
        let mut scratch: [&mut [f64]; 2] = outputs(scratch).map(|column: &mut [f64]| &mut column[first..]);
        self.places.batch(&indices, &mut [&mut k[first..], &mut d[first..]], &mut scratch);
        fill_warm_up(k, first);
        fill_warm_up(d, first);
    }

    fn stream(&self) -> Box<dyn Live> {
        let (strength, places) = (self.strength().running(), self.places.running());
        Box::new(StochRsiStream { unseeded: self.period.bars(), strength, places })
    }
}

#[derive(Clone, Debug)]
struct StochRsiStream {
    /// Bars before the index's first value.
    unseeded: usize,
    strength: Running<RelativeStrength<false>, 1, 3, 2, 1>,
    places: StochStream,
}

/// A bar that never left the index.
const fn still(index: f64) -> Bar {
    Bar { open: index, high: index, low: index, close: index, volume: 0.0 }
}

impl Live for StochRsiStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let [index] = self.strength.after([bar.close]);
        if self.unseeded > 0 {
            self.unseeded -= 1;
            return outs.fill(f64::NAN);
        }
        self.places.push(still(index), outs);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let [index] = self.strength.glance([bar.close]);
        if self.unseeded > 0 {
            return outs.fill(f64::NAN);
        }
        self.places.peek(still(index), outs);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
