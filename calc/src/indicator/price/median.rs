//! The middle of the last `period` closes by size; of an even number, the mean of the two middle ones.
//!
//! Lookback `period - 1`. The window is kept sorted: a bar takes the oldest value out and puts the
//! newest in where it belongs, which moves half of the window, so `period` is 10,000 at most. A zero
//! is shown positive.

use crate::entry::{CLOSE, Entry, Param, SINGLE, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::params::Span;
use crate::series::{Bar, Column};
use crate::window::Ring;
use std::sync::Arc;

pub(super) static MEDIAN: Entry = Entry {
    name: "median",
    aliases: &[],
    summary: "middle value of a window",
    columns: CLOSE,
    params: &[Param::whole("period", 1, 10_000, |_| Value::Number(30.0))],
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Median { period: args.window("period")? })),
};

#[derive(Clone, Copy, Debug)]
struct Median {
    period: Span,
}

/// Where a value goes out of sorted ones, and where another comes in instead.
#[derive(Clone, Copy, Debug)]
struct Turn {
    out: usize,
    into: usize,
}

impl Turn {
    /// Of values among which `oldest` is; where none is equal to it, some other one goes.
    fn of(sorted: &[f64], oldest: f64, newest: f64) -> Self {
        let out = sorted.partition_point(|&value| value < oldest).min(sorted.len() - 1);
        let into = sorted.partition_point(|&value| value < newest);
        Self { out, into: if into > out { into - 1 } else { into } }
    }

    /// The value at a place after the turn.
    fn at(self, sorted: &[f64], place: usize, newest: f64) -> f64 {
        match place {
            place if place == self.into => newest,
            place if (self.out..self.into).contains(&place) => sorted[place + 1],
            place if place > self.into && place <= self.out => sorted[place - 1],
            place => sorted[place],
        }
    }

    fn take(self, sorted: &mut [f64], newest: f64) {
        if self.into > self.out {
            sorted.copy_within(self.out + 1..=self.into, self.out);
        } else {
            sorted.copy_within(self.into..self.out, self.into + 1);
        }
        sorted[self.into] = newest;
    }
}

/// The middle of `len` values in order of size.
fn middle(len: usize, at: impl Fn(usize) -> f64) -> f64 {
    let upper = at(len / 2);
    if len % 2 == 1 {
        return upper + 0.0;
    }
    f64::midpoint(at(len / 2 - 1), upper) + 0.0
}

impl Kernel for Median {
    fn lookback(&self) -> usize {
        self.period.bars() - 1
    }

    fn scratch_columns(&self) -> usize {
        1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let ([out], [sorted]) = (outputs(outs), outputs(scratch));
        fill_warm_up(out, self.lookback());
        let (close, bars) = (rows.column(Column::Close), self.period.bars());
        let Some(sorted) = sorted.get_mut(..bars) else { return };
        // As the stream begins: with zeros, which go as the first values come.
        sorted.fill(0.0);
        for (row, &newest) in close.iter().enumerate() {
            let oldest = if row < bars { 0.0 } else { close[row - bars] };
            Turn::of(sorted, oldest, newest).take(sorted, newest);
            if row + 1 >= bars {
                out[row] = middle(bars, |place| sorted[place]);
            }
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        let bars = self.period.bars();
        Box::new(MedianStream {
            missing: bars - 1,
            values: Ring::new(bars),
            sorted: vec![0.0; bars].into_boxed_slice(),
        })
    }
}

#[derive(Clone, Debug)]
struct MedianStream {
    /// Bars until the window is full.
    missing: usize,
    values: Ring,
    sorted: Box<[f64]>,
}

impl Live for MedianStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        Turn::of(&self.sorted, self.values.oldest(), bar.close).take(&mut self.sorted, bar.close);
        self.values.push(bar.close);
        outs[0] =
            if self.missing > 0 { f64::NAN } else { middle(self.sorted.len(), |place| self.sorted[place]) };
        self.missing = self.missing.saturating_sub(1);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let turn = Turn::of(&self.sorted, self.values.oldest(), bar.close);
        let at = |place| turn.at(&self.sorted, place, bar.close);
        outs[0] = if self.missing > 0 { f64::NAN } else { middle(self.sorted.len(), at) };
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Bars;

    #[test]
    fn the_middle_of_odd_and_even_windows() {
        let close = [5.0, 1.0, 3.0, -2.0, 9.0];
        let bars = Bars::from_close(&close);
        for (period, expected) in [(Span::of::<3>(), [3.0, 1.0, 3.0]), (Span::of::<2>(), [2.0, 0.5, 3.5])] {
            let (mut out, mut sorted) = ([0.0; 5], [0.0; 5]);
            Median { period }.batch(&Rows::of(&bars), &mut [&mut out], &mut [&mut sorted]);
            assert_eq!(out[2..], expected);
        }
    }
}
