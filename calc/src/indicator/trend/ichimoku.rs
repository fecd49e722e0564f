//! Ichimoku: middles of the range over three windows.
//!
//! `tenkan`, `kijun` and `senkou_b` are half way between highest high and lowest low of their
//! windows, `senkou_a` half way between the first two. Values stand at the bar that they are made of;
//! a chart draws both spans `kijun` bars later, which [`shift`](Kernel::shift) says.

use crate::entry::{Entry, Param, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::params::Period;
use crate::series::{Bar, Column};
use crate::window::{Highest, Lowest, Rolling, extremes};
use std::sync::Arc;

pub(super) static ICHIMOKU: Entry = Entry {
    name: "ichimoku",
    aliases: &[],
    summary: "middles of the range over three windows, not shifted",
    columns: &[Column::High, Column::Low],
    params: &[
        Param::bars("tenkan", 2, |_| Value::Number(9.0)),
        Param::bars("kijun", 2, |_| Value::Number(26.0)),
        Param::bars("senkou", 2, |_| Value::Number(52.0)),
    ],
    outputs: &["tenkan", "kijun", "senkou_a", "senkou_b"],
    build: |args| {
        let windows = [args.window("tenkan")?, args.window("kijun")?, args.window("senkou")?];
        Ok(Arc::new(Ichimoku { windows }))
    },
};

#[derive(Clone, Copy, Debug)]
struct Ichimoku {
    /// Of tenkan, kijun and the second span.
    windows: [Period; 3],
}

/// Half way between two prices.
#[inline]
fn middle(upper: f64, lower: f64) -> f64 {
    (upper + lower) * 0.5
}

impl Kernel for Ichimoku {
    fn lookback(&self) -> usize {
        self.windows.map(Period::bars).into_iter().fold(0, usize::max) - 1
    }

    fn shift(&self, output: usize) -> isize {
        if output < 2 { 0 } else { self.windows[1].bars() as isize }
    }

    fn scratch_columns(&self) -> usize {
        1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let ([tenkan, kijun, first_span, second_span], [lows]) = (outputs(outs), outputs(scratch));
        let [high, low] = [Column::High, Column::Low].map(|column| rows.column(column));
        let lines = [&mut *tenkan, &mut *kijun, &mut *second_span];
        for (line, window) in lines.into_iter().zip(self.windows) {
            let full = (window.bars() - 1).min(line.len());
            extremes::<Highest>(high, window.bars(), &mut line[full..]);
            extremes::<Lowest>(low, window.bars(), &mut lows[full..]);
            let from = self.lookback().min(line.len());
            for (line, &low) in line[from..].iter_mut().zip(&lows[from..]) {
                *line = middle(*line, low);
            }
            fill_warm_up(line, from);
        }
        for ((span, &tenkan), &kijun) in first_span.iter_mut().zip(&*tenkan).zip(&*kijun) {
            *span = middle(tenkan, kijun);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(IchimokuStream {
            left: self.lookback(),
            highest: self.windows.map(|window| Rolling::new(window.bars())),
            lowest: self.windows.map(|window| Rolling::new(window.bars())),
        })
    }
}

#[derive(Clone, Debug)]
struct IchimokuStream {
    /// Bars still without a value.
    left: usize,
    highest: [Rolling<Highest>; 3],
    lowest: [Rolling<Lowest>; 3],
}

/// Writes what the ends of the three windows make.
fn write(left: usize, highest: [f64; 3], lowest: [f64; 3], outs: &mut [f64]) {
    if left > 0 {
        return outs.fill(f64::NAN);
    }
    let [tenkan, kijun, span] = std::array::from_fn(|at| middle(highest[at], lowest[at]));
    outs.copy_from_slice(&[tenkan, kijun, middle(tenkan, kijun), span]);
}

impl Live for IchimokuStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let highest = self.highest.each_mut().map(|rolling| rolling.push(bar.high));
        let lowest = self.lowest.each_mut().map(|rolling| rolling.push(bar.low));
        write(self.left, highest, lowest, outs);
        self.left = self.left.saturating_sub(1);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let highest = self.highest.each_ref().map(|rolling| rolling.peek(bar.high));
        let lowest = self.lowest.each_ref().map(|rolling| rolling.peek(bar.low));
        write(self.left, highest, lowest, outs);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
