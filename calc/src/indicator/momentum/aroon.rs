//! Aroon: how fresh the lowest low and the highest high of the last `period + 1` bars are, 100 at the
//! newest bar, 0 at the oldest; and its oscillator, the freshness of the high less that of the low.
//!
//! Lookback `period`. Of equal extremes the newest counts.

use crate::entry::{Entry, Param, SINGLE, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::params::Period;
use crate::series::{Bar, Column};
use crate::window::{Highest, Lowest, Place};
use std::sync::Arc;

const HIGH_LOW: &[Column] = &[Column::High, Column::Low];
const PARAMS: &[Param] = &[Param::bars("period", 2, |_| Value::Number(14.0))];

pub(super) static AROON: Entry = Entry {
    name: "aroon",
    aliases: &[],
    summary: "freshness of the lowest low and the highest high, 0 to 100",
    columns: HIGH_LOW,
    params: PARAMS,
    outputs: &["down", "up"],
    build: |args| Ok(Arc::new(Aroon::<2> { period: args.window("period")? })),
};

pub(super) static AROONOSC: Entry = Entry {
    name: "aroonosc",
    aliases: &[],
    summary: "freshness of the highest high less that of the lowest low, -100 to 100",
    columns: HIGH_LOW,
    params: PARAMS,
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Aroon::<1> { period: args.window("period")? })),
};

/// Two outputs are the freshness of both sides, one is their difference.
#[derive(Clone, Copy, Debug)]
struct Aroon<const O: usize> {
    period: Period,
}

impl<const O: usize> Aroon<O> {
    fn places<B: AsRef<[f64]> + AsMut<[f64]>>(self, low: [B; 2], high: [B; 2]) -> Places<B, O> {
        let count = self.period.count();
        let (lowest, highest) = (Place::new(low), Place::new(high));
        Places { missing: self.period.bars(), count, share: 100.0 / count, lowest, highest }
    }
}

impl<const O: usize> Kernel for Aroon<O> {
    fn lookback(&self) -> usize {
        self.period.bars()
    }

    fn scratch_columns(&self) -> usize {
        4
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let (mut outs, slots): ([_; O], [_; 4]) = (outputs(outs), outputs(scratch));
        for out in &mut outs {
            fill_warm_up(out, self.lookback());
        }
        if rows.len() <= self.lookback() {
            return;
        }
        let [low, low_bars, high, high_bars] = slots.map(|slot| &mut slot[..=self.period.bars()]);
        let mut places = self.places([low, low_bars], [high, high_bars]);
        for (row, (&high, &low)) in rows.column(Column::High).iter().zip(rows.column(Column::Low)).enumerate()
        {
            let values = places.after(high, low);
            for (out, value) in outs.iter_mut().zip(values) {
                out[row] = value;
            }
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        let slots = || [(); 2].map(|()| vec![0.0; self.period.bars() + 1].into_boxed_slice());
        Box::new(self.places(slots(), slots()))
    }
}

#[derive(Clone, Debug)]
struct Places<B, const O: usize> {
    /// Bars until the window is full.
    missing: usize,
    count: f64,
    /// A bar's freshness.
    share: f64,
    lowest: Place<Lowest, B>,
    highest: Place<Highest, B>,
}

impl<B: AsRef<[f64]> + AsMut<[f64]>, const O: usize> Places<B, O> {
    #[inline]
    fn after(&mut self, high: f64, low: f64) -> [f64; O] {
        let since = [self.lowest.after(low), self.highest.after(high)];
        let values = self.shown(since);
        self.missing = self.missing.saturating_sub(1);
        values
    }

    /// The outputs, by the bars since the lowest and since the highest.
    #[inline]
    fn shown(&self, [lowest, highest]: [f64; 2]) -> [f64; O] {
        if self.missing > 0 {
            return [f64::NAN; O];
        }
        if O == 1 {
            return [self.share * (lowest - highest); O];
        }
        let sides = [self.share * (self.count - lowest), self.share * (self.count - highest)];
        std::array::from_fn(|side| sides[side])
    }
}

impl<const O: usize> Live for Places<Box<[f64]>, O> {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        outs.copy_from_slice(&self.after(bar.high, bar.low));
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        outs.copy_from_slice(&self.shown([self.lowest.glance(bar.low), self.highest.glance(bar.high)]));
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
