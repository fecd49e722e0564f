//! Average directional index rating: the mean of the index and its value `period - 1` bars before.
//!
//! Lookback `3 * period - 2`.

use super::adx::Adx;
use crate::entry::{Entry, HIGH_LOW_CLOSE, Param, SINGLE, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::params::Period;
use crate::recursion::{Recursion, Recursive, Running};
use crate::series::Bar;
use crate::window::Ring;
use std::sync::Arc;

pub(super) static ADXR: Entry = Entry {
    name: "adxr",
    aliases: &[],
    summary: "average directional index rating, 0 to 100",
    columns: HIGH_LOW_CLOSE,
    params: &[Param::bars("period", 2, |_| Value::Number(14.0))],
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Rating { period: args.window("period")? })),
};

#[derive(Clone, Copy, Debug)]
struct Rating {
    period: Period,
}

#[inline]
fn rating(index: f64, earlier: f64) -> f64 {
    (index + earlier) * 0.5
}

impl Rating {
    const fn index(self) -> Recursion<Adx, 3, 7, 1, 1> {
        Recursion(Adx { period: self.period })
    }

    /// How many bars lie between the two that are averaged.
    const fn distance(self) -> usize {
        self.period.bars() - 1
    }
}

impl Kernel for Rating {
    fn lookback(&self) -> usize {
        self.index().lookback() + self.distance()
    }

    fn scratch_columns(&self) -> usize {
        1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let ([out], [index]) = (outputs(outs), outputs(scratch));
        self.index().run(Adx::READS.map(|column| rows.column(column)), [&mut *index]);
        fill_warm_up(out, self.lookback());
        let distance = self.distance().min(rows.len());
        let pairs = index[distance..].iter().zip(&*index);
        let first = self.lookback().min(rows.len());
        let pairs = pairs.skip(first - distance);
        for (value, (&index, &earlier)) in out[first..].iter_mut().zip(pairs) {
            *value = rating(index, earlier);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(RatingStream { index: self.index().running(), earlier: Ring::new(self.distance()) })
    }
}

#[derive(Clone, Debug)]
struct RatingStream {
    index: Running<Adx, 3, 7, 1, 1>,
    /// The index of the last bars; `NaN` while it has none.
    earlier: Ring,
}

impl Live for RatingStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let [index] = self.index.after(Adx::READS.map(|column| bar.value(column)));
        outs[0] = rating(index, self.earlier.oldest());
        self.earlier.push(index);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let [index] = self.index.glance(Adx::READS.map(|column| bar.value(column)));
        outs[0] = rating(index, self.earlier.oldest());
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
