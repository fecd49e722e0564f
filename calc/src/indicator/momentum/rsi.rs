//! Relative strength index: `100 * gain / (gain + loss)`, both Wilder averages of closing changes; and
//! Chande's momentum oscillator, `100 * (gain - loss) / (gain + loss)` of the same averages.
//!
//! Lookback `period`: the averages are seeded by the mean of the first `period` changes. Where
//! nothing has moved there is neither gain nor loss and the index is 0, as TA-Lib has it up to
//! 0.8.1 (0.8.3 answers 50); a signal must not read that 0 as oversold, see
//! [`signal`](crate::signal).

use crate::entry::{CLOSE, Entry, Param, SINGLE, Value};
use crate::lanes::Lanes;
use crate::params::Period;
use crate::recursion::{Recursion, Recursive, Seed};
use crate::series::Column;
use std::sync::Arc;

pub(super) static RSI: Entry = Entry {
    name: "rsi",
    aliases: &[],
    summary: "relative strength index, 0 to 100",
    columns: CLOSE,
    params: &[Param::bars("period", 2, |_| Value::Number(14.0))],
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Rsi::new(args.window("period")?))),
};

pub(super) static CMO: Entry = Entry {
    name: "cmo",
    aliases: &[],
    summary: "Chande's momentum oscillator, -100 to 100",
    columns: CLOSE,
    params: &[Param::bars("period", 2, |_| Value::Number(14.0))],
    outputs: SINGLE,
    build: |args| Ok(Arc::new(Recursion(RelativeStrength::<true> { period: args.window("period")? }))),
};

/// Relative strength index of closes.
pub(crate) type Rsi = Recursion<RelativeStrength<false>, 1, 3, 2, 1>;

impl Rsi {
    /// The index over `period` changes.
    pub(crate) const fn new(period: Period) -> Self {
        Recursion(RelativeStrength { period })
    }
}

/// Relative strength index, or with losses as numbers below zero, Chande's oscillator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RelativeStrength<const SIGNED: bool> {
    period: Period,
}

/// The close before, and the averages of gains and losses.
type State<V> = [V; 3];

/// The gain and the loss of a change, neither negative.
#[inline(always)]
fn moved<V: Lanes>(change: V) -> (V, V) {
    let gain = change.positive();
    // Exact, and spares a second comparison.
    (gain, gain - change)
}

#[inline(always)]
fn strength<V: Lanes, const SIGNED: bool>([_, gain, loss]: State<V>) -> V {
    let (zero, total) = (V::splat(0.0), gain + loss);
    let share = if SIGNED { gain - loss } else { gain };
    // Exact test: a threshold would be a price, and zero the index of a cheap instrument. The
    // inner selection keeps a division by zero out of the lanes that are not chosen.
    let still = total.le(zero);
    V::select(still, zero, V::splat(100.0) * (share / V::select(still, V::splat(1.0), total)))
}

impl<const SIGNED: bool> Recursive<1, 3, 2, 1> for RelativeStrength<SIGNED> {
    type Seed = RsiSeed<SIGNED>;
    const READS: [Column; 1] = [Column::Close];

    fn lookback(&self) -> usize {
        self.period.bars()
    }

    fn coefficients(&self) -> [f64; 2] {
        [self.period.count() - 1.0, 1.0 / self.period.count()]
    }

    fn seed(&self) -> RsiSeed<SIGNED> {
        RsiSeed { period: self.period, seen: 0, state: [0.0; 3] }
    }

    #[inline(always)]
    fn step<V: Lanes>([others, per_bar]: &[V; 2], state: &mut State<V>, [input]: [V; 1]) -> [V; 1] {
        let [close, gain, loss] = *state;
        let (up, down) = moved(input - close);
        *state = [input, (gain * *others + up) * *per_bar, (loss * *others + down) * *per_bar];
        [strength::<V, SIGNED>(*state)]
    }

    fn guess<V: Lanes>([close]: [V; 1]) -> State<V> {
        [close, V::splat(0.0), V::splat(0.0)]
    }

    fn forgets(&self) -> usize {
        40 * self.period.bars()
    }
}

/// The sums of the first `period` movements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RsiSeed<const SIGNED: bool> {
    period: Period,
    seen: usize,
    state: State<f64>,
}

impl<const SIGNED: bool> Seed<1, 3, 1> for RsiSeed<SIGNED> {
    fn push(&mut self, [input]: [f64; 1]) -> Option<(State<f64>, [f64; 1])> {
        let [close, gain, loss] = self.state;
        let (up, down) = if self.seen == 0 { (0.0, 0.0) } else { moved(input - close) };
        self.state = [input, gain + up, loss + down];
        self.seen += 1;
        if self.seen <= self.period.bars() {
            return None;
        }
        let per_bar = 1.0 / self.period.count();
        let [close, gain, loss] = self.state;
        let state = [close, gain * per_bar, loss * per_bar];
        Some((state, [strength::<f64, SIGNED>(state)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(input: &[f64]) -> f64 {
        let mut out = vec![0.0; input.len()];
        Rsi::new(Period::of::<2>()).run([input], [&mut out]);
        out[input.len() - 1]
    }

    #[test]
    fn one_sided_and_flat_series_have_fixed_values() {
        assert_eq!(last(&[1.0, 2.0, 3.0, 4.0]), 100.0);
        assert_eq!(last(&[4.0, 3.0, 2.0, 1.0]), 0.0);
        assert_eq!(last(&[2.0, 2.0, 2.0, 2.0]), 0.0);
        assert_eq!(last(&[1e-9, 2e-9, 1e-9]), 50.0);
    }
}
