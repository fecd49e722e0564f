//! Moving average convergence/divergence: fast EMA minus slow EMA, an EMA of that as signal, and
//! their difference as histogram.
//!
//! Seeded by means, the fast average starts from the mean of the `fast` bars that end where the
//! slow seed ends, so early values differ from two averages computed from bar 0; the signal starts
//! from the mean of the first `signal` differences. Lookback `slow - 1 + signal - 1` for all three
//! outputs. Seeded by the first value, everything starts at bar 0. A fast period longer than the
//! slow one is swapped with it.

use super::ema::Smoother;
use super::{Stream, fill_warm_up};
use crate::params::{Period, Seed, Span};
use crate::series::{ShapeError, same_length};

/// Moving average convergence/divergence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Macd {
    fast: Period,
    slow: Period,
    signal: Span,
    seed: Seed,
}

/// The outputs of one bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MacdPoint {
    /// Fast average minus slow average.
    pub macd: f64,
    /// Average of `macd`.
    pub signal: f64,
    /// `macd` minus `signal`.
    pub histogram: f64,
}

impl MacdPoint {
    const NONE: Self = Self { macd: f64::NAN, signal: f64::NAN, histogram: f64::NAN };
}

impl Macd {
    /// The averages over `fast`, `slow` and `signal` bars, started as `seed` says.
    #[must_use]
    pub fn new(fast: Period, slow: Period, signal: Span, seed: Seed) -> Self {
        Self { fast: fast.min(slow), slow: fast.max(slow), signal, seed }
    }

    /// Bars before the first value of every output.
    #[must_use]
    pub fn lookback(&self) -> usize {
        self.seeds().slow - 1 + self.seeds().signal - 1
    }

    /// Writes the three outputs of every bar; fails when one is not as long as `input`.
    pub fn batch(
        &self,
        input: &[f64],
        macd: &mut [f64],
        signal: &mut [f64],
        histogram: &mut [f64],
    ) -> Result<(), ShapeError> {
        same_length("macd", macd.len(), input.len())?;
        same_length("signal", signal.len(), input.len())?;
        same_length("histogram", histogram.len(), input.len())?;
        let warm_up = self.lookback().min(input.len());
        for out in [&mut *macd, &mut *signal, &mut *histogram] {
            fill_warm_up(out, warm_up);
        }
        let (seeding, later) = input.split_at(warm_up);
        let mut state = self.stream();
        for &input in seeding {
            state.seed(input);
        }
        let outs = macd[warm_up..].iter_mut().zip(&mut signal[warm_up..]).zip(&mut histogram[warm_up..]);
        let mut inputs = outs.zip(later);
        if let Some((((macd, signal), histogram), &input)) = inputs.next() {
            MacdPoint { macd: *macd, signal: *signal, histogram: *histogram } = state.seed(input);
        }
        let mut averages = state.averages;
        for (((macd, signal), histogram), &input) in inputs {
            averages = state.smoothers.step(averages, input);
            MacdPoint { macd: *macd, signal: *signal, histogram: *histogram } = averages.point();
        }
        Ok(())
    }

    /// The state before the first bar.
    #[must_use]
    pub fn stream(&self) -> MacdStream {
        MacdStream {
            smoothers: Smoothers {
                fast: Smoother::new(self.fast.into()),
                slow: Smoother::new(self.slow.into()),
                signal: Smoother::new(self.signal),
            },
            seeds: self.seeds(),
            seen: 0,
            averages: Averages::default(),
        }
    }

    /// How many values each average is seeded with.
    fn seeds(&self) -> Seeds {
        match self.seed {
            Seed::Sma => Seeds { fast: self.fast.bars(), slow: self.slow.bars(), signal: self.signal.bars() },
            Seed::First => Seeds { fast: 1, slow: 1, signal: 1 },
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Seeds {
    fast: usize,
    slow: usize,
    signal: usize,
}

#[derive(Clone, Copy, Debug)]
struct Smoothers {
    fast: Smoother,
    slow: Smoother,
    signal: Smoother,
}

impl Smoothers {
    #[inline]
    fn step(&self, averages: Averages, input: f64) -> Averages {
        let fast = self.fast.step(averages.fast, input);
        let slow = self.slow.step(averages.slow, input);
        Averages { fast, slow, signal: self.signal.step(averages.signal, fast - slow) }
    }
}

/// The three averages; while one is seeded, the sum of its seeds.
#[derive(Clone, Copy, Debug, Default)]
struct Averages {
    fast: f64,
    slow: f64,
    signal: f64,
}

impl Averages {
    #[inline]
    fn point(self) -> MacdPoint {
        let macd = self.fast - self.slow;
        MacdPoint { macd, signal: self.signal, histogram: macd - self.signal }
    }
}

/// Streaming [`Macd`] over prices.
#[derive(Clone, Copy, Debug)]
pub struct MacdStream {
    smoothers: Smoothers,
    seeds: Seeds,
    /// Prices seen, counted up to the end of the seeding.
    seen: usize,
    averages: Averages,
}

impl MacdStream {
    /// Takes a price while an average is still being seeded.
    fn seed(&mut self, input: f64) -> MacdPoint {
        let bar = self.seen;
        self.seen += 1;
        let Seeds { fast, slow, signal } = self.seeds;
        let averages = &mut self.averages;
        if bar < slow {
            averages.slow += input;
            if bar >= slow - fast {
                averages.fast += input;
            }
            if bar + 1 < slow {
                return MacdPoint::NONE;
            }
            averages.slow /= slow as f64;
            averages.fast /= fast as f64;
        } else {
            averages.fast = self.smoothers.fast.step(averages.fast, input);
            averages.slow = self.smoothers.slow.step(averages.slow, input);
        }
        averages.signal += averages.fast - averages.slow;
        if bar + 2 < slow + signal {
            return MacdPoint::NONE;
        }
        averages.signal /= signal as f64;
        averages.point()
    }
}

impl Stream for MacdStream {
    type Input = f64;
    type Output = MacdPoint;

    #[inline]
    fn push(&mut self, input: f64) -> MacdPoint {
        if self.seen + 1 < self.seeds.slow + self.seeds.signal {
            return self.seed(input);
        }
        self.averages = self.smoothers.step(self.averages, input);
        self.averages.point()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_and_slow_may_be_given_in_either_order() {
        let signal = Span::of::<9>();
        let one = Macd::new(Period::of::<12>(), Period::of::<26>(), signal, Seed::Sma);
        let other = Macd::new(Period::of::<26>(), Period::of::<12>(), signal, Seed::Sma);
        assert_eq!(one, other);
        assert_eq!(one.lookback(), 33);
        let first = Macd::new(Period::of::<12>(), Period::of::<26>(), signal, Seed::First);
        assert_eq!(first.lookback(), 0);
    }

    #[test]
    fn a_signal_of_one_bar_is_the_line() {
        let macd = Macd::new(Period::of::<2>(), Period::of::<3>(), Span::of::<1>(), Seed::Sma);
        let mut state = macd.stream();
        for (bar, close) in [3.0, 1.0, 4.0, 1.0, 5.0].into_iter().enumerate() {
            let point = state.push(close);
            assert!(bar < 2 || (point.signal == point.macd && point.histogram == 0.0));
        }
    }
}
