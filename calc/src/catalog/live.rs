//! Any indicator's streaming state.

use super::Indicator;
use crate::indicator::{
    AdxStream, AtrStream, Bands, BbandsStream, EmaStream, MacdPoint, MacdStream, ObvStream, RsiStream,
    SmaStream, StochPoint, StochStream, Stream,
};
use crate::series::Bar;

/// Most outputs any indicator has.
const OUTPUTS_MAX: usize = 3;

/// The outputs of one bar, in the order of [`Indicator::outputs`].
#[derive(Clone, Copy, Debug)]
pub struct Outputs {
    values: [f64; OUTPUTS_MAX],
    len: usize,
}

impl Outputs {
    /// The values, `NaN` until the lookback is over.
    #[must_use]
    pub fn as_slice(&self) -> &[f64] {
        &self.values[..self.len]
    }
}

impl From<f64> for Outputs {
    fn from(value: f64) -> Self {
        Self { values: [value, f64::NAN, f64::NAN], len: 1 }
    }
}

impl From<MacdPoint> for Outputs {
    fn from(point: MacdPoint) -> Self {
        Self { values: [point.macd, point.signal, point.histogram], len: 3 }
    }
}

impl From<Bands> for Outputs {
    fn from(bands: Bands) -> Self {
        Self { values: [bands.upper, bands.middle, bands.lower], len: 3 }
    }
}

impl From<StochPoint> for Outputs {
    fn from(point: StochPoint) -> Self {
        Self { values: [point.k, point.d, f64::NAN], len: 2 }
    }
}

/// The streaming state of an [`Indicator`]: constant work a bar, and the bits of the batch.
#[derive(Clone, Debug)]
pub struct IndicatorStream(State);

#[derive(Clone, Debug)]
enum State {
    Sma(SmaStream),
    Ema(EmaStream),
    Rsi(RsiStream),
    Macd(MacdStream),
    Bbands(BbandsStream),
    Atr(AtrStream),
    Stoch(StochStream),
    Adx(AdxStream),
    Obv(ObvStream),
}

impl IndicatorStream {
    pub(super) fn new(indicator: &Indicator) -> Self {
        Self(match indicator {
            Indicator::Sma(sma) => State::Sma(sma.stream()),
            Indicator::Ema(ema) => State::Ema(ema.stream()),
            Indicator::Rsi(rsi) => State::Rsi(rsi.stream()),
            Indicator::Macd(macd) => State::Macd(macd.stream()),
            Indicator::Bbands(bbands) => State::Bbands(bbands.stream()),
            Indicator::Atr(atr) => State::Atr(atr.stream()),
            Indicator::Stoch(stoch) => State::Stoch(stoch.stream()),
            Indicator::Adx(adx) => State::Adx(adx.stream()),
            Indicator::Obv(obv) => State::Obv(obv.stream()),
        })
    }
}

impl Stream for IndicatorStream {
    type Input = Bar;
    type Output = Outputs;

    fn push(&mut self, bar: Bar) -> Outputs {
        match &mut self.0 {
            State::Sma(sma) => sma.push(bar.close).into(),
            State::Ema(ema) => ema.push(bar.close).into(),
            State::Rsi(rsi) => rsi.push(bar.close).into(),
            State::Macd(macd) => macd.push(bar.close).into(),
            State::Bbands(bbands) => bbands.push(bar.close).into(),
            State::Atr(atr) => atr.push(bar).into(),
            State::Stoch(stoch) => stoch.push(bar).into(),
            State::Adx(adx) => adx.push(bar).into(),
            State::Obv(obv) => obv.push(bar).into(),
        }
    }

    fn peek(&self, bar: Bar) -> Outputs {
        match &self.0 {
            State::Sma(sma) => sma.peek(bar.close).into(),
            State::Ema(ema) => ema.peek(bar.close).into(),
            State::Rsi(rsi) => rsi.peek(bar.close).into(),
            State::Macd(macd) => macd.peek(bar.close).into(),
            State::Bbands(bbands) => bbands.peek(bar.close).into(),
            State::Atr(atr) => atr.peek(bar).into(),
            State::Stoch(stoch) => stoch.peek(bar).into(),
            State::Adx(adx) => adx.peek(bar).into(),
            State::Obv(obv) => obv.peek(bar).into(),
        }
    }
}
