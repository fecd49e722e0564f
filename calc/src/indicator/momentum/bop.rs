//! Balance of power: how much of the range the bar went from open to close, -1 to 1.
//!
//! Lookback 0. A bar without a range has no balance, and it is 0.

use crate::entry::{Entry, SINGLE};
use crate::indicator::{Kernel, Live, Rows, outputs};
use crate::series::{Bar, Column};
use std::sync::Arc;

pub(super) static BOP: Entry = Entry {
    name: "bop",
    aliases: &[],
    summary: "balance of power, -1 to 1",
    columns: &READS,
    params: &[],
    outputs: SINGLE,
    build: |_| Ok(Arc::new(Balance)),
};

const READS: [Column; 4] = [Column::Open, Column::High, Column::Low, Column::Close];

#[derive(Clone, Copy, Debug)]
struct Balance;

#[inline]
fn balance([open, high, low, close]: [f64; 4]) -> f64 {
    let range = high - low;
    // Division by one in place of a branch around it: four go at once.
    let share = (close - open) / if range <= 0.0 { 1.0 } else { range };
    if range <= 0.0 { 0.0 } else { share }
}

impl Kernel for Balance {
    fn lookback(&self) -> usize {
        0
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        let [out] = outputs(outs);
        let [open, high, low, close] = READS.map(|column| &rows.column(column)[..out.len()]);
        for (row, value) in out.iter_mut().enumerate() {
            *value = balance([open[row], high[row], low[row], close[row]]);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(*self)
    }
}

impl Live for Balance {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        self.peek(bar, outs);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        outs[0] = balance(READS.map(|column| bar.value(column)));
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(*self)
    }
}
