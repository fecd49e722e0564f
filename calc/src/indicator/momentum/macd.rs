//! Moving average convergence/divergence: fast EMA minus slow EMA, an EMA of that as signal, and
//! their difference as histogram.
//!
//! Seeded by means, the fast average starts from the mean of the `fast` bars that end where the
//! slow seed ends, so early values differ from two averages computed from bar 0; the signal starts
//! from the mean of the first `signal` differences. Lookback `slow - 1 + signal - 1` for all three
//! outputs. Seeded by the first value, everything starts at bar 0. A fast period longer than the
//! slow one is swapped with it.

use crate::entry::{CLOSE, Entry, Param, Value};
use crate::indicator::average::ema::{MeanSeed, forgets, shown, smooth, smoothing};
use crate::lanes::Lanes;
use crate::params::{Period, Seed as Start, Span};
use crate::recursion::{Recursion, Recursive, Seed};
use crate::series::Column;
use std::sync::Arc;

pub(super) static MACD: Entry = Entry {
    name: "macd",
    aliases: &[],
    summary: "moving average convergence/divergence",
    columns: CLOSE,
    params: &[
        Param::bars("fast", 2, |_| Value::Number(12.0)),
        Param::bars("slow", 2, |_| Value::Number(26.0)),
        Param::bars("signal", 1, |_| Value::Number(9.0)),
        Param::SEED,
    ],
    outputs: &["macd", "signal", "histogram"],
    build: |args| {
        let (fast, slow) = (args.window("fast")?, args.window("slow")?);
        Ok(Arc::new(Macd::new(fast, slow, args.window("signal")?, args.seed()?)))
    },
};

/// Moving average convergence/divergence of closes.
pub(crate) type Macd = Recursion<Divergence, 1, 3, 3, 3>;

impl Macd {
    /// The averages over `fast`, `slow` and `signal` bars, started as `start` says.
    pub(crate) fn new(fast: Period, slow: Period, signal: Span, start: Start) -> Self {
        Recursion(Divergence { fast: fast.min(slow), slow: fast.max(slow), signal, start })
    }
}

/// Moving average convergence/divergence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Divergence {
    fast: Period,
    slow: Period,
    signal: Span,
    start: Start,
}

impl Divergence {
    /// How many values each average is seeded with: fast, slow, signal.
    fn seeds(self) -> [usize; 3] {
        match self.start {
            Start::Sma => [self.fast.bars(), self.slow.bars(), self.signal.bars()],
            Start::First => [1; 3],
        }
    }
}

/// The fast, the slow and the signal's average.
type State<V> = [V; 3];

#[inline(always)]
fn point<V: Lanes>([_, _, share]: &[V; 3], [fast, slow, signal]: State<V>) -> [V; 3] {
    let line = fast - slow;
    let signal = shown(*share, signal, line);
    [line, signal, line - signal]
}

impl Recursive<1, 3, 3, 3> for Divergence {
    type Seed = MacdSeed;
    const READS: [Column; 1] = [Column::Close];

    fn lookback(&self) -> usize {
        let [_, slow, signal] = self.seeds();
        slow - 1 + signal - 1
    }

    fn coefficients(&self) -> [f64; 3] {
        [self.fast.into(), self.slow.into(), self.signal].map(smoothing)
    }

    fn seed(&self) -> MacdSeed {
        let [fast, slow, signal] = self.seeds();
        MacdSeed {
            shares: self.coefficients(),
            skip: slow - fast,
            seen: 0,
            fast: MeanSeed::of(fast),
            slow: MeanSeed::of(slow),
            signal: MeanSeed::of(signal),
            averages: None,
        }
    }

    #[inline(always)]
    fn step<V: Lanes>(shares: &[V; 3], state: &mut State<V>, [input]: [V; 1]) -> [V; 3] {
        let [fast, slow, signal] = *state;
        let fast = smooth(shares[0], fast, input);
        let slow = smooth(shares[1], slow, input);
        *state = [fast, slow, smooth(shares[2], signal, fast - slow)];
        point(shares, *state)
    }

    fn guess<V: Lanes>([close]: [V; 1]) -> State<V> {
        [close, close, V::splat(0.0)]
    }

    fn forgets(&self) -> usize {
        forgets(self.slow.into()) + forgets(self.signal)
    }
}

/// The seeds of the three averages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MacdSeed {
    shares: [f64; 3],
    /// Bars before the fast average's first seed.
    skip: usize,
    seen: usize,
    fast: MeanSeed,
    slow: MeanSeed,
    signal: MeanSeed,
    /// The fast and the slow average, once both are seeded.
    averages: Option<(f64, f64)>,
}

impl Seed<1, 3, 3> for MacdSeed {
    fn push(&mut self, [input]: [f64; 1]) -> Option<(State<f64>, [f64; 3])> {
        let [fast_share, slow_share, _] = self.shares;
        self.averages = if let Some((fast, slow)) = self.averages {
            Some((smooth(fast_share, fast, input), smooth(slow_share, slow, input)))
        } else {
            let fast = (self.seen >= self.skip).then(|| self.fast.add(input)).flatten();
            fast.zip(self.slow.add(input))
        };
        self.seen += 1;
        let (fast, slow) = self.averages?;
        let state = [fast, slow, self.signal.add(fast - slow)?];
        Some((state, point(&self.shares, state)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_and_slow_may_be_given_in_either_order() {
        let signal = Span::of::<9>();
        let one = Macd::new(Period::of::<12>(), Period::of::<26>(), signal, Start::Sma);
        let other = Macd::new(Period::of::<26>(), Period::of::<12>(), signal, Start::Sma);
        assert_eq!(one.0, other.0);
        assert_eq!(one.0.lookback(), 33);
        let first = Macd::new(Period::of::<12>(), Period::of::<26>(), signal, Start::First);
        assert_eq!(first.0.lookback(), 0);
    }

    #[test]
    fn a_signal_of_one_bar_is_the_line() {
        let mut state =
            Macd::new(Period::of::<2>(), Period::of::<3>(), Span::of::<1>(), Start::Sma).running();
        for (bar, close) in [3.0, 1.0, 4.0, 1.0, 5.0].into_iter().enumerate() {
            let [line, signal, histogram] = state.after([close]);
            assert!(bar < 2 || (signal == line && histogram == 0.0));
        }
    }
}
