//! The indicators by name: their parameters with ranges and defaults, their outputs, and how to
//! compute them without knowing which one it is.
//!
//! ```
//! use sluice_calc::{Bars, Compat, Indicator, Value};
//!
//! let close = [1.0, 2.0, 4.0];
//! let ema = Indicator::parse("ema", Compat::TaLib, &[("period", Value::Number(2.0))])?;
//! assert_eq!((ema.outputs(), ema.lookback()), (["value"].as_slice(), 1));
//! let mut value = [0.0; 3];
//! ema.compute(&Bars::from_close(&close), &mut [&mut value])?;
//! assert_eq!(value[1..], [1.5, 3.1666666666666665]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod args;
mod live;
mod table;

pub(crate) use args::Args;
pub use args::{CatalogError, Param, Range, Value};
pub use live::{IndicatorStream, Outputs};
pub use table::{ENTRIES, Entry, find};

use crate::compat::Compat;
use crate::indicator::{Adx, Atr, Bbands, Ema, Macd, Obv, Rsi, Sma, Stoch};
use crate::series::{Bars, Column, ShapeError};
use std::fmt;
use table::{ADX, ATR, BBANDS, EMA, MACD, OBV, RSI, SMA, STOCH};

/// An indicator with checked parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Indicator {
    /// Simple moving average.
    Sma(Sma),
    /// Exponential moving average.
    Ema(Ema),
    /// Relative strength index.
    Rsi(Rsi),
    /// Moving average convergence/divergence.
    Macd(Macd),
    /// Bollinger bands.
    Bbands(Bbands),
    /// Average true range.
    Atr(Atr),
    /// Stochastic oscillator.
    Stoch(Stoch),
    /// Average directional index.
    Adx(Adx),
    /// On-balance volume.
    Obv(Obv),
}

impl Indicator {
    /// Checks a name and the parameters given for it; what is left out takes its default under
    /// `compat`. The error names the parameter and its allowed range.
    pub fn parse(name: &str, compat: Compat, given: &[(&str, Value<'_>)]) -> Result<Self, CatalogError> {
        let entry = find(name).ok_or_else(|| CatalogError::UnknownName { name: name.to_owned() })?;
        let args = Args::new(entry.name, entry.params, compat, given)?;
        (entry.build)(&args)
    }

    /// The catalogue's description of this indicator.
    #[must_use]
    pub fn entry(&self) -> &'static Entry {
        match self {
            Self::Sma(_) => &SMA,
            Self::Ema(_) => &EMA,
            Self::Rsi(_) => &RSI,
            Self::Macd(_) => &MACD,
            Self::Bbands(_) => &BBANDS,
            Self::Atr(_) => &ATR,
            Self::Stoch(_) => &STOCH,
            Self::Adx(_) => &ADX,
            Self::Obv(_) => &OBV,
        }
    }

    /// Names of the outputs, in the order in which they are computed.
    #[must_use]
    pub fn outputs(&self) -> &'static [&'static str] {
        self.entry().outputs
    }

    /// Bars before the first value of every output.
    #[must_use]
    pub fn lookback(&self) -> usize {
        match self {
            Self::Sma(sma) => sma.lookback(),
            Self::Ema(ema) => ema.lookback(),
            Self::Rsi(rsi) => rsi.lookback(),
            Self::Macd(macd) => macd.lookback(),
            Self::Bbands(bbands) => bbands.lookback(),
            Self::Atr(atr) => atr.lookback(),
            Self::Stoch(stoch) => stoch.lookback(),
            Self::Adx(adx) => adx.lookback(),
            Self::Obv(obv) => obv.lookback(),
        }
    }

    /// Writes every output of every bar into `outs`, one buffer an output, each as long as `bars`,
    /// `NaN` for the first [`lookback`](Self::lookback) bars. Fails when the series lacks a column,
    /// or a buffer is missing or of another length; `outs` is then untouched or partly written.
    pub fn compute(&self, bars: &Bars<'_>, outs: &mut [&mut [f64]]) -> Result<(), ComputeError> {
        let outputs = self.outputs();
        let wrong_count = ComputeError::OutputCount { found: outs.len(), expected: outputs.len() };
        let close = bars.close();
        let column = |column| {
            bars.column(column).ok_or(ComputeError::MissingColumn { indicator: self.entry().name, column })
        };
        let high_low = || Ok::<_, ComputeError>((column(Column::High)?, column(Column::Low)?));
        match (self, outs) {
            (Self::Sma(sma), [value]) => sma.batch(close, value)?,
            (Self::Ema(ema), [value]) => ema.batch(close, value)?,
            (Self::Rsi(rsi), [value]) => rsi.batch(close, value)?,
            (Self::Macd(macd), [line, signal, histogram]) => macd.batch(close, line, signal, histogram)?,
            (Self::Bbands(bands), [upper, middle, lower]) => bands.batch(close, upper, middle, lower)?,
            (Self::Atr(atr), [value]) => {
                let (high, low) = high_low()?;
                atr.batch(high, low, close, value)?;
            }
            (Self::Stoch(stoch), [k, d]) => {
                let (high, low) = high_low()?;
                stoch.batch(high, low, close, k, d)?;
            }
            (Self::Adx(adx), [value]) => {
                let (high, low) = high_low()?;
                adx.batch(high, low, close, value)?;
            }
            (Self::Obv(obv), [value]) => obv.batch(close, column(Column::Volume)?, value)?,
            _ => return Err(wrong_count),
        }
        Ok(())
    }

    /// The streaming state before the first bar.
    #[must_use]
    pub fn stream(&self) -> IndicatorStream {
        IndicatorStream::new(self)
    }
}

/// A computation that could not be done as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComputeError {
    /// The indicator reads a column that the series lacks.
    MissingColumn {
        /// Name of the indicator.
        indicator: &'static str,
        /// The column.
        column: Column,
    },
    /// More or fewer output buffers than outputs.
    OutputCount {
        /// Buffers given.
        found: usize,
        /// Outputs of the indicator.
        expected: usize,
    },
    /// An output buffer is not as long as the series.
    Shape(ShapeError),
}

impl fmt::Display for ComputeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingColumn { indicator, column } => {
                write!(f, "{indicator} needs the column {}", column.name())
            }
            Self::OutputCount { found, expected } => {
                write!(f, "{found} output buffers were given where {expected} are needed")
            }
            Self::Shape(_) => f.write_str("an output buffer has the wrong length"),
        }
    }
}

impl std::error::Error for ComputeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Shape(source) => Some(source),
            _ => None,
        }
    }
}

impl From<ShapeError> for ComputeError {
    fn from(source: ShapeError) -> Self {
        Self::Shape(source)
    }
}
