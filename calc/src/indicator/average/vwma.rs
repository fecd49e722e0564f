//! Volume-weighted moving average: the mean of the last `period` closes, weighed by what was traded.
//!
//! Lookback `period - 1`. Where nothing was traded in the window there is no weight, and it is the plain
//! mean, where TA-Lib divides 0 by 0. The weighted sum and the weights are each watched for what large
//! terms have rounded off, see the `window` module's share. A period of 1 copies its input.

use super::COPY;
use crate::entry::{Entry, Param, SINGLE, Value};
use crate::lanes::Lanes;
use crate::params::Span;
use crate::series::Column;
use crate::window::{Mass, Sliding, Windowed};
use std::sync::Arc;

pub(super) static VWMA: Entry = Entry {
    name: "vwma",
    aliases: &[],
    summary: "volume-weighted moving average",
    columns: &[Column::Close, Column::Volume],
    params: &[Param::bars("period", 1, |_| Value::Number(30.0))],
    outputs: SINGLE,
    build: |args| {
        let period: Span = args.window("period")?;
        Ok(match period.bars() {
            1 => Arc::new(COPY),
            window => Arc::new(Windowed(Traded { window })),
        })
    },
};

/// Words: the closes' plain sum and their weighted one, the latter's sizes and the weights.
#[derive(Clone, Copy, Debug)]
struct Traded {
    window: usize,
}

impl Sliding<2, 6, 1> for Traded {
    const READS: [Column; 2] = [Column::Close, Column::Volume];

    fn window(&self) -> usize {
        self.window
    }

    #[inline(always)]
    fn open<V: Lanes>(&self, [close, volume]: [V; 2]) -> [V; 6] {
        let (zero, paid) = (V::splat(0.0), close * volume);
        let ([size, size_peak], [weight, weight_peak]) = (Mass::open(paid.abs()), Mass::open(volume));
        [zero + close, zero + paid, size, size_peak, weight, weight_peak]
    }

    #[inline(always)]
    fn add<V: Lanes>(&self, sums: &mut [V; 6], [close, volume]: [V; 2]) {
        let [plain, weighted, size, size_peak, weight, weight_peak] = *sums;
        let (paid, mut sizes, mut weights) = (close * volume, [size, size_peak], [weight, weight_peak]);
        Mass::add(&mut sizes, paid.abs());
        Mass::add(&mut weights, volume);
        *sums = [plain + close, weighted + paid, sizes[0], sizes[1], weights[0], weights[1]];
    }

    #[inline(always)]
    fn slide<V: Lanes>(&self, sums: &mut [V; 6], oldest: [V; 2], newest: [V; 2]) {
        let [plain, weighted, size, size_peak, weight, weight_peak] = *sums;
        let (mut sizes, mut weights) = ([size, size_peak], [weight, weight_peak]);
        let (off, on) = (oldest[0] * oldest[1], newest[0] * newest[1]);
        Mass::slide(&mut sizes, off.abs(), on.abs());
        Mass::slide(&mut weights, oldest[1], newest[1]);
        let (plain, weighted) = ((plain - oldest[0]) + newest[0], (weighted - off) + on);
        *sums = [plain, weighted, sizes[0], sizes[1], weights[0], weights[1]];
    }

    #[inline(always)]
    fn distrusts<V: Lanes>(&self, [_, _, size, size_peak, weight, weight_peak]: &[V; 6]) -> Option<V::Mask> {
        Some(Mass::distrusts(&[*size, *size_peak]) | Mass::distrusts(&[*weight, *weight_peak]))
    }

    #[inline(always)]
    fn value<V: Lanes>(&self, [plain, weighted, _, _, weight, _]: &[V; 6], _: [V; 2]) -> [V; 1] {
        let traded = V::splat(0.0).lt(*weight);
        let sum = V::select(traded, *weighted, *plain);
        [sum / V::select(traded, *weight, V::splat(self.window as f64))]
    }
}
