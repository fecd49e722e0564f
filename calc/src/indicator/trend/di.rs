//! Directional indicators: how much of the range is upward and how much downward movement, 0 to 100.
//!
//! Lookback `period`. Over one bar both are plain shares, 0 to 1, as TA-Lib has them. Where there is no
//! range both are 0.

use super::adx::{Moves, MovesSeed, smoothed};
use crate::entry::{Entry, HIGH_LOW_CLOSE, Param, Value};
use crate::lanes::Lanes;
use crate::params::Span;
use crate::recursion::{Recursion, Recursive, Seed};
use crate::series::Column;
use std::sync::Arc;

pub(super) static DI: Entry = Entry {
    name: "di",
    aliases: &[],
    summary: "directional indicators, 0 to 100",
    columns: HIGH_LOW_CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(14.0))],
    outputs: &["plus", "minus"],
    build: |args| Ok(Arc::new(Recursion(Di { period: args.window("period")? }))),
};

#[derive(Clone, Copy, Debug)]
struct Di {
    period: Span,
}

/// The edge, the moves.
type State<V> = [V; 6];

#[inline(always)]
fn shares<V: Lanes>(whole: V, [up, down, range]: Moves<V>) -> [V; 2] {
    let zero = V::splat(0.0);
    // Division by infinity in place of a branch around it: it gives the 0.
    let range = V::select(zero.lt(range), range, V::splat(f64::INFINITY));
    [whole * (up / range), whole * (down / range)]
}

impl Recursive<3, 6, 2, 2> for Di {
    type Seed = DiSeed;
    const READS: [Column; 3] = [Column::High, Column::Low, Column::Close];

    fn lookback(&self) -> usize {
        self.period.bars()
    }

    fn coefficients(&self) -> [f64; 2] {
        [1.0 / self.period.count(), if self.period.bars() == 1 { 1.0 } else { 100.0 }]
    }

    fn seed(&self) -> DiSeed {
        DiSeed { moves: MovesSeed::of(self.period), whole: self.coefficients()[1] }
    }

    #[inline(always)]
    fn step<V: Lanes>([per_bar, whole]: &[V; 2], state: &mut State<V>, bar: [V; 3]) -> [V; 2] {
        let [high, low, close, up, down, range] = *state;
        let sums = smoothed(*per_bar, [high, low, close], [up, down, range], bar);
        let ([high, low, close], [up, down, range]) = (bar, sums);
        *state = [high, low, close, up, down, range];
        shares(*whole, sums)
    }

    fn guess<V: Lanes>([high, low, close]: [V; 3]) -> State<V> {
        let zero = V::splat(0.0);
        [high, low, close, zero, zero, zero]
    }

    fn forgets(&self) -> usize {
        40 * self.period.bars()
    }
}

#[derive(Clone, Copy, Debug)]
struct DiSeed {
    moves: MovesSeed,
    whole: f64,
}

impl Seed<3, 6, 2> for DiSeed {
    fn push(&mut self, bar: [f64; 3]) -> Option<(State<f64>, [f64; 2])> {
        let sums = self.moves.add(bar)?;
        let ([high, low, close], [up, down, range]) = (bar, sums);
        Some(([high, low, close, up, down, range], shares(self.whole, sums)))
    }
}
