//! Pivot points of the floor: levels for a bar, made of the bar before.
//!
//! `pivot = (high + low + close) / 3`; the first resistance and support lie as far beyond it as the
//! other end of the bar, the second a whole range, the third twice as far from that end as the pivot.

use crate::entry::{Entry, HIGH_LOW_CLOSE};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::series::{Bar, Column};
use std::sync::Arc;

pub(super) static PIVOT: Entry = Entry {
    name: "pivot",
    aliases: &[],
    summary: "pivot point of the bar before, with three resistances and supports",
    columns: HIGH_LOW_CLOSE,
    params: &[],
    outputs: &["pivot", "r1", "s1", "r2", "s2", "r3", "s3"],
    build: |_| Ok(Arc::new(Pivot)),
};

#[derive(Clone, Copy, Debug)]
struct Pivot;

/// The levels that a bar makes for the next.
#[inline]
fn levels(high: f64, low: f64, close: f64) -> [f64; 7] {
    let pivot = (high + low + close) / 3.0;
    let range = high - low;
    [
        pivot,
        2.0 * pivot - low,
        2.0 * pivot - high,
        pivot + range,
        pivot - range,
        high + 2.0 * (pivot - low),
        low - 2.0 * (high - pivot),
    ]
}

impl Kernel for Pivot {
    fn lookback(&self) -> usize {
        1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        let mut outs: [&mut [f64]; 7] = outputs(outs);
        for out in &mut outs {
            fill_warm_up(out, 1);
        }
        let [high, low, close] = [Column::High, Column::Low, Column::Close].map(|column| rows.column(column));
        for row in 1..high.len().min(low.len()).min(close.len()) {
            for (out, level) in outs.iter_mut().zip(levels(high[row - 1], low[row - 1], close[row - 1])) {
                out[row] = level;
            }
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(Yesterday([f64::NAN; 7]))
    }
}

/// The levels of the next bar.
#[derive(Clone, Copy, Debug)]
struct Yesterday([f64; 7]);

impl Live for Yesterday {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        self.peek(bar, outs);
        self.0 = levels(bar.high, bar.low, bar.close);
    }

    fn peek(&self, _: Bar, outs: &mut [f64]) {
        outs.copy_from_slice(&self.0);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_levels_lie_around_the_pivot() {
        assert_eq!(levels(12.0, 6.0, 9.0), [9.0, 12.0, 6.0, 15.0, 3.0, 18.0, 0.0]);
    }
}
