//! Triangular moving average: the plain mean of plain means, which weighs the middle of the window most.
//!
//! Over an odd `period` both windows have `(period + 1) / 2` bars, over an even one the first has half
//! and the second one more. Lookback `period - 1`; a period of 1 copies its input.

use super::COPY;
use crate::entry::{CLOSE, Entry, Param, SINGLE, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::params::Span;
use crate::series::{Bar, Column};
use crate::window::{Mean, Means};
use std::sync::Arc;

pub(super) static TRIMA: Entry = Entry {
    name: "trima",
    aliases: &[],
    summary: "triangular moving average, the middle weighing most",
    columns: CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(30.0))],
    outputs: SINGLE,
    build: |args| {
        let period: Span = args.window("period")?;
        Ok(match period.bars() {
            1 => Arc::new(COPY),
            bars => Arc::new(Triangular::new(bars)),
        })
    },
};

#[derive(Clone, Copy, Debug)]
struct Triangular {
    /// Bars before the first mean.
    inner_ready: usize,
    inner: Means,
    outer: Means,
    lookback: usize,
}

impl Triangular {
    const fn new(period: usize) -> Self {
        let inner = period.div_ceil(2);
        // The longer window of an even period is the outer one.
        let (inner, outer) = if period.is_multiple_of(2) { (inner, inner + 1) } else { (inner, inner) };
        Self {
            inner_ready: inner - 1,
            inner: Means::new(inner),
            outer: Means::new(outer),
            lookback: period - 1,
        }
    }
}

impl Kernel for Triangular {
    fn lookback(&self) -> usize {
        self.lookback
    }

    fn scratch_columns(&self) -> usize {
        1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let ([out], [means]) = (outputs(outs), outputs(scratch));
        self.inner.run([rows.column(Column::Close)], [&mut *means]);
        let ready = self.inner_ready.min(rows.len());
        fill_warm_up(out, ready);
        self.outer.run([&means[ready..]], [&mut out[ready..]]);
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(TriangularStream {
            left: self.inner_ready,
            inner: self.inner.running(),
            outer: self.outer.running(),
        })
    }
}

#[derive(Clone, Debug)]
struct TriangularStream {
    /// Bars before the first mean.
    left: usize,
    inner: Mean,
    outer: Mean,
}

impl Live for TriangularStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let mean = self.inner.after([bar.close]);
        let ready = self.left == 0;
        outs[0] = if ready { self.outer.after(mean)[0] } else { f64::NAN };
        self.left = self.left.saturating_sub(1);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let ready = self.left == 0;
        outs[0] = if ready { self.outer.glance(self.inner.glance([bar.close]))[0] } else { f64::NAN };
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
