//! The indicators: each a checked parameter set with its lookback, a batch over one series and a
//! streaming state.
//!
//! Inputs must be finite ([`Bars::first_fault`](crate::Bars::first_fault) tells): after a value
//! that is not, the outputs are unspecified from that bar on, though nothing panics.

mod adx;
mod atr;
mod bbands;
mod ema;
mod macd;
mod obv;
mod rsi;
mod sma;
mod stoch;

pub use adx::{Adx, AdxStream};
pub use atr::{Atr, AtrStream};
pub use bbands::{Bands, Bbands, BbandsStream};
pub use ema::{Ema, EmaStream};
pub use macd::{Macd, MacdPoint, MacdStream};
pub use obv::{Obv, ObvStream};
pub use rsi::{Rsi, RsiStream};
pub use sma::{Sma, SmaStream};
pub use stoch::{Stoch, StochPoint, StochStream};

use crate::series::{ShapeError, same_length};

/// A streaming indicator: constant work a bar, and the bits of the batch.
pub trait Stream: Clone {
    /// What a bar brings: a price, or a whole [`Bar`](crate::Bar).
    type Input: Copy;
    /// What a bar yields, `NaN` until the lookback is over.
    type Output: Copy;

    /// Takes a closed bar and returns its output.
    fn push(&mut self, input: Self::Input) -> Self::Output;

    /// Returns what [`push`](Self::push) would, and keeps the state: for the bar still forming.
    fn peek(&self, input: Self::Input) -> Self::Output {
        self.clone().push(input)
    }
}

/// High, low and close of equal length.
#[derive(Clone, Copy)]
struct Ranges<'a> {
    high: &'a [f64],
    low: &'a [f64],
    close: &'a [f64],
}

impl<'a> Ranges<'a> {
    fn new(high: &'a [f64], low: &'a [f64], close: &'a [f64]) -> Result<Self, ShapeError> {
        same_length("high", high.len(), close.len())?;
        same_length("low", low.len(), close.len())?;
        Ok(Self { high, low, close })
    }

    fn len(&self) -> usize {
        self.close.len()
    }
}

/// The true range: the farthest apart of today's high, today's low and yesterday's close.
#[inline]
fn true_range(high: f64, low: f64, close_before: f64) -> f64 {
    let above = (high - close_before).abs();
    let below = (low - close_before).abs();
    let range = high - low;
    let range = if above > range { above } else { range };
    if below > range { below } else { range }
}

/// Marks the warm-up: the first `lookback` values, or all when there are fewer.
fn fill_warm_up(out: &mut [f64], lookback: usize) {
    let warm_up = lookback.min(out.len());
    out[..warm_up].fill(f64::NAN);
}
