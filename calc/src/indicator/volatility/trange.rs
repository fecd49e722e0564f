//! True range: the farthest apart of today's high, today's low and yesterday's close.
//!
//! It needs the close before and begins at bar 1, or at bar 0 with high minus low where that counts.

use super::atr::{first_bar, first_or_true_range, true_ranges};
use crate::entry::{Entry, HIGH_LOW_CLOSE, Param, SINGLE};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::params::FirstRange;
use crate::series::Bar;
use std::sync::Arc;

pub(super) static TRANGE: Entry = Entry {
    name: "trange",
    aliases: &[],
    summary: "true range",
    columns: HIGH_LOW_CLOSE,
    params: &[Param::FIRST_RANGE],
    outputs: SINGLE,
    build: |args| Ok(Arc::new(TrueRange { first_range: args.first_range()? })),
};

#[derive(Clone, Copy, Debug)]
struct TrueRange {
    first_range: FirstRange,
}

impl Kernel for TrueRange {
    fn lookback(&self) -> usize {
        first_bar(self.first_range)
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        let [out] = outputs(outs);
        true_ranges(rows, out);
        fill_warm_up(out, self.lookback());
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(TrueRangeStream { first_range: self.first_range, before: None })
    }
}

#[derive(Clone, Debug)]
struct TrueRangeStream {
    first_range: FirstRange,
    before: Option<f64>,
}

impl Live for TrueRangeStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        self.peek(bar, outs);
        self.before = Some(bar.close);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let range = first_or_true_range(self.first_range, self.before, bar.high, bar.low);
        outs[0] = range.unwrap_or(f64::NAN);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
