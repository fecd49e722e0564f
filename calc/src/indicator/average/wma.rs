//! Weighted moving average: the newest value counts `period` times, the oldest once.
//!
//! Lookback `period - 1`. The weighted sum runs around an anchor, see the `window` module's ramp; a
//! period of 1 copies its input.

use super::COPY;
use crate::entry::{CLOSE, Entry, Param, SINGLE, Value};
use crate::lanes::Lanes;
use crate::params::Span;
use crate::series::Column;
use crate::window::{Ramp, Sliding, Windowed};
use std::sync::Arc;

pub(super) static WMA: Entry = Entry {
    name: "wma",
    aliases: &[],
    summary: "weighted moving average, the newest value weighing most",
    columns: CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(30.0))],
    outputs: SINGLE,
    build: |args| {
        let period: Span = args.window("period")?;
        Ok(match period.bars() {
            1 => Arc::new(COPY),
            bars => Arc::new(Wma::new(bars)),
        })
    },
};

/// Weighted moving average of closes, or of whatever column it is run over.
pub(super) type Wma = Windowed<Weighted, 1, 6, 1>;

impl Wma {
    pub(super) fn new(window: usize) -> Self {
        let count = window as f64;
        Windowed(Weighted { ramp: Ramp::new(window), weights: count * (count + 1.0) / 2.0 })
    }
}

/// Weighted moving average.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighted {
    ramp: Ramp,
    /// The sum of the weights.
    weights: f64,
}

impl Sliding<1, 6, 1> for Weighted {
    const READS: [Column; 1] = [Column::Close];

    fn window(&self) -> usize {
        self.ramp.window()
    }

    #[inline(always)]
    fn open<V: Lanes>(&self, [oldest]: [V; 1]) -> [V; 6] {
        Ramp::open(oldest)
    }

    #[inline(always)]
    fn add<V: Lanes>(&self, sums: &mut [V; 6], [next]: [V; 1]) {
        Ramp::add(sums, next);
    }

    #[inline(always)]
    fn slide<V: Lanes>(&self, sums: &mut [V; 6], [oldest]: [V; 1], [newest]: [V; 1]) {
        self.ramp.slide(sums, oldest, newest);
    }

    #[inline(always)]
    fn distrusts<V: Lanes>(&self, sums: &[V; 6]) -> Option<V::Mask> {
        Some(self.ramp.distrusts(sums))
    }

    #[inline(always)]
    fn value<V: Lanes>(&self, sums: &[V; 6], _: [V; 1]) -> [V; 1] {
        let (anchor, _, weighted) = Ramp::sums(sums);
        [anchor + weighted / V::splat(self.weights)]
    }
}
