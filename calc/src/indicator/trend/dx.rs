//! Directional movement index: how one-sided the widening of the range is, 0 to 100, before the
//! [`adx`](super::adx) averages it.
//!
//! Lookback `period`. Where nothing moves the index keeps its value; before the first move it is 0.

use super::adx::{MovesSeed, one_sidedness, smoothed};
use crate::entry::{Entry, HIGH_LOW_CLOSE, Param, SINGLE, Value};
use crate::lanes::Lanes;
use crate::params::Period;
use crate::recursion::{Recursion, Recursive, Seed};
use crate::series::Column;
use std::sync::Arc;

pub(super) static DX: Entry = Entry {
    name: "dx",
    aliases: &[],
    summary: "directional movement index, 0 to 100",
    columns: HIGH_LOW_CLOSE,
    params: &[Param::bars("period", 2, |_| Value::Number(14.0))],
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Recursion(Dx { period: args.window("period")? }))),
};

#[derive(Clone, Copy, Debug)]
struct Dx {
    period: Period,
}

/// The edge, the moves, the index.
type State<V> = [V; 7];

impl Recursive<3, 7, 1, 1> for Dx {
    type Seed = DxSeed;
    const READS: [Column; 3] = [Column::High, Column::Low, Column::Close];

    fn lookback(&self) -> usize {
        self.period.bars()
    }

    fn coefficients(&self) -> [f64; 1] {
        [1.0 / self.period.count()]
    }

    fn seed(&self) -> DxSeed {
        DxSeed(MovesSeed::of(self.period.into()))
    }

    #[inline(always)]
    fn step<V: Lanes>([per_bar]: &[V; 1], state: &mut State<V>, bar: [V; 3]) -> [V; 1] {
        let [high, low, close, up, down, range, index] = *state;
        let sums = smoothed(*per_bar, [high, low, close], [up, down, range], bar);
        let (moves, dx) = one_sidedness(sums);
        let index = V::select(moves, dx, index);
        let ([high, low, close], [up, down, range]) = (bar, sums);
        *state = [high, low, close, up, down, range, index];
        [index]
    }

    fn guess<V: Lanes>([high, low, close]: [V; 3]) -> State<V> {
        let zero = V::splat(0.0);
        [high, low, close, zero, zero, zero, zero]
    }

    fn forgets(&self) -> usize {
        40 * self.period.bars()
    }
}

#[derive(Clone, Copy, Debug)]
struct DxSeed(MovesSeed);

impl Seed<3, 7, 1> for DxSeed {
    fn push(&mut self, bar: [f64; 3]) -> Option<(State<f64>, [f64; 1])> {
        let sums = self.0.add(bar)?;
        let index = one_sidedness(sums).1;
        let ([high, low, close], [up, down, range]) = (bar, sums);
        Some(([high, low, close, up, down, range, index], [index]))
    }
}
