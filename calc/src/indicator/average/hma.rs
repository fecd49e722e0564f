//! Hull's moving average: the weighted average over half the window, twice, less that over the whole,
//! smoothed by a weighted average over the root of the window.
//!
//! Halves and roots are rounded down. Lookback `period - 1` and the root less one; a period of 1 copies
//! its input.

use super::COPY;
use super::wma::{Weighted, Wma};
use crate::entry::{CLOSE, Entry, Param, SINGLE, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::params::Span;
use crate::series::{Bar, Column};
use crate::window::Window;
use std::sync::Arc;

pub(super) static HMA: Entry = Entry {
    name: "hma",
    aliases: &[],
    summary: "Hull's moving average, weighted and quick to turn",
    columns: CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(20.0))],
    outputs: SINGLE,
    build: |args| {
        let period: Span = args.window("period")?;
        Ok(match period.bars() {
            1 => Arc::new(COPY),
            bars => Arc::new(Hull::new(bars)),
        })
    },
};

#[derive(Clone, Copy, Debug)]
struct Hull {
    half: Wma,
    whole: Wma,
    smooth: Wma,
}

/// What is smoothed: ahead of the whole window's average by as much as the half's is.
#[inline]
fn ahead(half: f64, whole: f64) -> f64 {
    2.0 * half - whole
}

impl Hull {
    fn new(period: usize) -> Self {
        Self { half: Wma::new(period / 2), whole: Wma::new(period), smooth: Wma::new(period.isqrt()) }
    }
}

impl Kernel for Hull {
    fn lookback(&self) -> usize {
        self.whole.lookback() + self.smooth.lookback()
    }

    fn scratch_columns(&self) -> usize {
        1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let ([out], [line]) = (outputs(outs), outputs(scratch));
        let close = rows.column(Column::Close);
        self.half.run([close], [&mut *out]);
        self.whole.run([close], [&mut *line]);
        let ready = self.whole.lookback().min(rows.len());
        for (whole, &half) in line[ready..].iter_mut().zip(&out[ready..]) {
            *whole = ahead(half, *whole);
        }
        fill_warm_up(out, ready);
        self.smooth.run([&line[ready..]], [&mut out[ready..]]);
    }

    fn stream(&self) -> Box<dyn Live> {
        let [half, whole, smooth] = [self.half, self.whole, self.smooth].map(|average| average.running());
        Box::new(HullStream { left: self.whole.lookback(), half, whole, smooth })
    }
}

type WeightedStream = Window<Weighted, 1, 6, 1>;

#[derive(Clone, Debug)]
struct HullStream {
    /// Bars before the average over the whole window.
    left: usize,
    half: WeightedStream,
    whole: WeightedStream,
    smooth: WeightedStream,
}

impl Live for HullStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let ([half], [whole]) = (self.half.after([bar.close]), self.whole.after([bar.close]));
        let ready = self.left == 0;
        outs[0] = if ready { self.smooth.after([ahead(half, whole)])[0] } else { f64::NAN };
        self.left = self.left.saturating_sub(1);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let ([half], [whole]) = (self.half.glance([bar.close]), self.whole.glance([bar.close]));
        let ready = self.left == 0;
        outs[0] = if ready { self.smooth.glance([ahead(half, whole)])[0] } else { f64::NAN };
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
