//! Price oscillators: a fast average less a slow one, in prices or in percent of the slow one.
//!
//! The averages are exponential or plain. Each is seeded by its own first bars, unlike those of the
//! [`macd`](super::macd), whose seeds end together. Lookback that of the slow average, 0 where
//! exponential ones start from the first value. A fast period longer than the slow one is swapped with
//! it. Where the slow average is nothing beside the fast one there is no percentage, and it is 0.

use crate::entry::{Args, CLOSE, CatalogError, Entry, Param, SINGLE, Value};
use crate::indicator::average::ema::{MeanSeed, forgets, smooth, smoothing};
use crate::indicator::{Kernel, Live, Rows, outputs};
use crate::lanes::Lanes;
use crate::params::{Period, Seed as Start};
use crate::recursion::{Recursion, Recursive, Seed};
use crate::series::{Bar, Column};
use crate::window::{Mean, Means};
use std::sync::Arc;

pub(super) static APO: Entry = Entry {
    name: "apo",
    aliases: &[],
    summary: "absolute price oscillator: fast average less slow average",
    columns: CLOSE,
    params: PARAMS,
    outputs: SINGLE,
    build: oscillator::<false>,
};

pub(super) static PPO: Entry = Entry {
    name: "ppo",
    aliases: &[],
    summary: "percentage price oscillator: fast average less slow average in percent of the slow",
    columns: CLOSE,
    params: PARAMS,
    outputs: SINGLE,
    build: oscillator::<true>,
};

const PARAMS: &[Param] = &[
    Param::bars("fast", 2, |_| Value::Number(12.0)),
    Param::bars("slow", 2, |_| Value::Number(26.0)),
    Param::words("ma", &["ema", "sma"], |_| Value::Word("ema")),
    Param::SEED,
];

fn oscillator<const PERCENT: bool>(args: &Args<'_>) -> Result<Arc<dyn Kernel>, CatalogError> {
    let (one, other): (Period, Period) = (args.window("fast")?, args.window("slow")?);
    let (fast, slow, start) = (one.min(other), one.max(other), args.seed()?);
    Ok(match args.word("ma")? {
        "ema" => Arc::new(Recursion(Exponential::<PERCENT> { fast, slow, start })),
        _ => Arc::new(Plain::<PERCENT> { fast, slow }),
    })
}

/// A slow average up to this share of the fast one is nothing.
const NOTHING: f64 = 1e-14;

#[inline(always)]
fn gap<V: Lanes, const PERCENT: bool>(fast: V, slow: V) -> V {
    let gap = fast - slow;
    if !PERCENT {
        return gap;
    }
    let nothing = slow.abs().le(V::splat(NOTHING) * fast.abs());
    let share = gap / V::select(nothing, V::splat(1.0), slow);
    V::select(nothing, V::splat(0.0), share * V::splat(100.0))
}

/// Of exponential averages.
#[derive(Clone, Copy, Debug)]
struct Exponential<const PERCENT: bool> {
    fast: Period,
    slow: Period,
    start: Start,
}

impl<const PERCENT: bool> Exponential<PERCENT> {
    /// How many values each average is seeded with: fast, slow.
    const fn seeds(self) -> [usize; 2] {
        match self.start {
            Start::Sma => [self.fast.bars(), self.slow.bars()],
            Start::First => [1; 2],
        }
    }
}

impl<const PERCENT: bool> Recursive<1, 2, 2, 1> for Exponential<PERCENT> {
    type Seed = GapSeed<PERCENT>;
    const READS: [Column; 1] = [Column::Close];

    fn lookback(&self) -> usize {
        self.seeds()[1] - 1
    }

    fn coefficients(&self) -> [f64; 2] {
        [self.fast, self.slow].map(|period| smoothing(period.into()))
    }

    fn seed(&self) -> GapSeed<PERCENT> {
        let [fast, slow] = self.seeds().map(MeanSeed::of);
        GapSeed { share: self.coefficients()[0], fast, slow, average: None }
    }

    #[inline(always)]
    fn step<V: Lanes>(shares: &[V; 2], state: &mut [V; 2], [input]: [V; 1]) -> [V; 1] {
        let [fast, slow] = *state;
        *state = [smooth(shares[0], fast, input), smooth(shares[1], slow, input)];
        [gap::<V, PERCENT>(state[0], state[1])]
    }

    fn guess<V: Lanes>([close]: [V; 1]) -> [V; 2] {
        [close; 2]
    }

    fn forgets(&self) -> usize {
        forgets(self.slow.into())
    }
}

#[derive(Clone, Copy, Debug)]
struct GapSeed<const PERCENT: bool> {
    /// The fast average's share of the newest value.
    share: f64,
    fast: MeanSeed,
    slow: MeanSeed,
    /// The fast average, once it is seeded.
    average: Option<f64>,
}

impl<const PERCENT: bool> Seed<1, 2, 1> for GapSeed<PERCENT> {
    fn push(&mut self, [input]: [f64; 1]) -> Option<([f64; 2], [f64; 1])> {
        self.average = match self.average {
            Some(average) => Some(smooth(self.share, average, input)),
            None => self.fast.add(input),
        };
        let slow = self.slow.add(input)?;
        let fast = self.average?;
        Some(([fast, slow], [gap::<f64, PERCENT>(fast, slow)]))
    }
}

/// Of plain means.
#[derive(Clone, Copy, Debug)]
struct Plain<const PERCENT: bool> {
    fast: Period,
    slow: Period,
}

impl<const PERCENT: bool> Kernel for Plain<PERCENT> {
    fn lookback(&self) -> usize {
        self.slow.bars() - 1
    }

    fn scratch_columns(&self) -> usize {
        1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let ([out], [fast]) = (outputs(outs), outputs(scratch));
        let close = rows.column(Column::Close);
        Means::new(self.fast.bars()).run([close], [&mut *fast]);
        Means::new(self.slow.bars()).run([close], [&mut *out]);
        for (slow, &fast) in out.iter_mut().zip(&*fast) {
            *slow = gap::<f64, PERCENT>(fast, *slow);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        let [fast, slow] = [self.fast, self.slow].map(|period| Means::new(period.bars()).running());
        Box::new(PlainStream::<PERCENT> { fast, slow })
    }
}

#[derive(Clone, Debug)]
struct PlainStream<const PERCENT: bool> {
    fast: Mean,
    slow: Mean,
}

impl<const PERCENT: bool> Live for PlainStream<PERCENT> {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let ([fast], [slow]) = (self.fast.after([bar.close]), self.slow.after([bar.close]));
        outs[0] = gap::<f64, PERCENT>(fast, slow);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let ([fast], [slow]) = (self.fast.glance([bar.close]), self.slow.glance([bar.close]));
        outs[0] = gap::<f64, PERCENT>(fast, slow);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_average_of_nothing_gives_no_percentage() {
        assert_eq!(gap::<f64, true>(1.0, 0.0), 0.0);
        assert_eq!(gap::<f64, true>(0.0, 0.0), 0.0);
        assert_eq!(gap::<f64, true>(3.0 * f64::MIN_POSITIVE, 2.0 * f64::MIN_POSITIVE), 50.0);
        assert!(gap::<f64, true>(f64::NAN, f64::NAN).is_nan());
    }
}
