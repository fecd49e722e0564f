//! Momentum and rate of change: the close against that of `period` bars before, as a difference or in
//! percent.
//!
//! Lookback `period`. Where the close before is 0 there is no rate, and it is 0.

use crate::entry::{CLOSE, Entry, Param, SINGLE, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::params::Span;
use crate::series::{Bar, Column};
use crate::window::Ring;
use std::sync::Arc;

pub(super) static MOM: Entry = Entry {
    name: "mom",
    aliases: &["momentum"],
    summary: "momentum: the close less that of some bars before",
    columns: CLOSE,
    params: PARAMS,
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Change::<false> { period: args.window("period")? })),
};

pub(super) static ROC: Entry = Entry {
    name: "roc",
    aliases: &[],
    summary: "rate of change of the close in percent",
    columns: CLOSE,
    params: PARAMS,
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Change::<true> { period: args.window("period")? })),
};

const PARAMS: &[Param] = &[Param::bars("period", 1, |_| Value::Number(10.0))];

/// The change over `period` bars.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<const PERCENT: bool> {
    pub(super) period: Span,
}

#[inline]
fn changed<const PERCENT: bool>(before: f64, close: f64) -> f64 {
    if !PERCENT {
        return close - before;
    }
    // Division by one in place of a branch around it: four go at once.
    let rate = (close / if before == 0.0 { 1.0 } else { before } - 1.0) * 100.0;
    if before == 0.0 { 0.0 } else { rate }
}

impl<const PERCENT: bool> Kernel for Change<PERCENT> {
    fn lookback(&self) -> usize {
        self.period.bars()
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        let ([out], close) = (outputs(outs), rows.column(Column::Close));
        fill_warm_up(out, self.lookback());
        let lookback = self.lookback().min(close.len());
        for ((value, before), close) in out[lookback..].iter_mut().zip(close).zip(&close[lookback..]) {
            *value = changed::<PERCENT>(*before, *close);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(ChangeStream::<PERCENT> { closes: Ring::new(self.period.bars()), left: self.period.bars() })
    }
}

#[derive(Clone, Debug)]
struct ChangeStream<const PERCENT: bool> {
    closes: Ring,
    /// Bars before the first value.
    left: usize,
}

impl<const PERCENT: bool> Live for ChangeStream<PERCENT> {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        self.peek(bar, outs);
        self.closes.push(bar.close);
        self.left = self.left.saturating_sub(1);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let ready = self.left == 0;
        outs[0] = if ready { changed::<PERCENT>(self.closes.oldest(), bar.close) } else { f64::NAN };
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
