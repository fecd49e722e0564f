//! Volume-weighted average price since the first bar: what was paid, by what was traded.
//!
//! Lookback 0; a session's is that of the session's bars. A bar's price is the mean of its high, low and
//! close. Before anything was traded there is no weight, and it is the bar's own price, where TA-Lib
//! answers 0.

use crate::entry::{Entry, SINGLE};
use crate::indicator::{Kernel, Live, Rows, outputs};
use crate::series::{Bar, Column};
use std::sync::Arc;

pub(super) static VWAP: Entry = Entry {
    name: "vwap",
    aliases: &[],
    summary: "volume-weighted average price since the first bar",
    columns: &READS,
    params: &[],
    outputs: SINGLE,
    build: |_| Ok(Arc::new(Vwap)),
};

#[derive(Clone, Copy, Debug)]
struct Vwap;

/// What was paid and what was traded so far.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    paid: f64,
    traded: f64,
}

impl Totals {
    #[inline]
    fn next(&mut self, [high, low, close, volume]: [f64; 4]) -> f64 {
        let price = (high + low + close) / 3.0;
        self.paid += price * volume;
        self.traded += volume;
        if self.traded > 0.0 { self.paid / self.traded } else { price }
    }
}

impl Kernel for Vwap {
    fn lookback(&self) -> usize {
        0
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        let [out] = outputs(outs);
        let [high, low, close, volume] = READS.map(|column| &rows.column(column)[..out.len()]);
        let mut totals = Totals::default();
        for (row, value) in out.iter_mut().enumerate() {
            *value = totals.next([high[row], low[row], close[row], volume[row]]);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(Totals::default())
    }
}

const READS: [Column; 4] = [Column::High, Column::Low, Column::Close, Column::Volume];

impl Live for Totals {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        outs[0] = self.next(READS.map(|column| bar.value(column)));
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        outs[0] = { *self }.next(READS.map(|column| bar.value(column)));
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(*self)
    }
}
