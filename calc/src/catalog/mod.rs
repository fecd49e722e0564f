//! The indicators by name: their parameters with ranges and defaults, their outputs, and how to
//! compute them without knowing which one it is.
//!
//! ```
//! use sluice_calc::{Bars, Compat, Cpu, Indicator, Value, Workspace};
//!
//! let close = [1.0, 2.0, 4.0];
//! let ema = Indicator::parse("ema", Compat::TaLib, &[("period", Value::Number(2.0))])?;
//! assert_eq!((ema.outputs(), ema.lookback()), (["value"].as_slice(), 1));
//! let mut value = [0.0; 3];
//! let mut work = Workspace::new(Cpu::proven()?);
//! ema.compute(&mut work, &Bars::from_close(&close), &mut [&mut value])?;
//! assert_eq!(value[1..], [1.5, 3.1666666666666665]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod several;
mod stream;
mod workspace;

pub use several::{Job, compute_all};
pub use stream::{IndicatorStream, Outputs};
pub use workspace::Workspace;

use crate::compat::Compat;
use crate::entry::{Args, CatalogError, Entry, Value};
use crate::indicator::{Kernel, Rows, average, candle, momentum, price, trend, volatility, volume};
use crate::series::{Bars, Column, ShapeError, same_length};
use std::fmt;
use std::sync::Arc;

/// Every family's rows.
static FAMILIES: [&[&Entry]; 7] = [
    average::ENTRIES,
    momentum::ENTRIES,
    trend::ENTRIES,
    volatility::ENTRIES,
    volume::ENTRIES,
    price::ENTRIES,
    candle::ENTRIES,
];

/// Every indicator, family by family.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    FAMILIES.into_iter().flatten().copied()
}

/// The entry of that name or alias, if there is one.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    entries().find(|entry| entry.name == name || entry.aliases.contains(&name))
}

/// An indicator with checked parameters.
#[derive(Clone, Debug)]
pub struct Indicator {
    entry: &'static Entry,
    kernel: Arc<dyn Kernel>,
}

impl Indicator {
    /// Checks a name and the parameters given for it; what is left out takes its default under
    /// `compat`. The error names the parameter and its allowed range.
    pub fn parse(name: &str, compat: Compat, given: &[(&str, Value<'_>)]) -> Result<Self, CatalogError> {
        let entry = find(name).ok_or_else(|| CatalogError::UnknownName { name: name.to_owned() })?;
        let args = Args::new(entry.name, entry.params, compat, given)?;
        Ok(Self { entry, kernel: (entry.build)(&args)? })
    }

    /// The catalogue's description of this indicator.
    #[must_use]
    pub const fn entry(&self) -> &'static Entry {
        self.entry
    }

    /// Names of the outputs, in the order in which they are computed.
    #[must_use]
    pub const fn outputs(&self) -> &'static [&'static str] {
        self.entry.outputs
    }

    /// Bars before the first value of every output.
    #[must_use]
    pub fn lookback(&self) -> usize {
        self.kernel.lookback()
    }

    /// Bars by which a chart draws that output later than the bar at which it stands, or earlier
    /// where negative: values are always given at the bar that makes them known.
    #[must_use]
    pub fn shift(&self, output: usize) -> isize {
        self.kernel.shift(output)
    }

    /// Writes every output of every bar into `outs`, one buffer an output, each as long as `bars`,
    /// `NaN` for the first [`lookback`](Self::lookback) bars. Fails when the series lacks a column,
    /// or a buffer is missing or of another length; `outs` is then untouched.
    pub fn compute(
        &self,
        work: &mut Workspace,
        bars: &Bars<'_>,
        outs: &mut [&mut [f64]],
    ) -> Result<(), ComputeError> {
        self.check(bars, outs)?;
        work.with_columns(self.kernel.scratch_columns(), bars.len(), |scratch| {
            self.kernel.batch(&Rows::of(bars), outs, scratch);
        });
        Ok(())
    }

    /// Whether these bars have what it reads, and these buffers take what it writes.
    fn check(&self, bars: &Bars<'_>, outs: &[&mut [f64]]) -> Result<(), ComputeError> {
        let (found, expected) = (outs.len(), self.outputs().len());
        if found != expected {
            return Err(ComputeError::OutputCount { found, expected });
        }
        for &column in self.entry.columns {
            if bars.column(column).is_none() {
                return Err(ComputeError::MissingColumn { indicator: self.entry.name, column });
            }
        }
        for (name, out) in self.outputs().iter().zip(outs.iter()) {
            same_length(name, out.len(), bars.len())?;
        }
        Ok(())
    }

    /// The streaming state before the first bar.
    #[must_use]
    pub fn stream(&self) -> IndicatorStream {
        IndicatorStream::new(self.kernel.stream(), self.outputs().len())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Cpu;
    use stream::OUTPUTS_MAX;
    use workspace::COLUMNS_MAX;

    #[test]
    fn every_entry_builds_from_its_defaults_and_has_a_name_of_its_own() {
        let mut names: Vec<&str> = Vec::new();
        for entry in entries() {
            names.extend([entry.name].iter().chain(entry.aliases));
            assert!(!entry.columns.is_empty() && !entry.summary.is_empty());
            assert!((1..=OUTPUTS_MAX).contains(&entry.outputs.len()), "{}", entry.name);
            for compat in Compat::ALL {
                let indicator = Indicator::parse(entry.name, compat, &[]).unwrap();
                assert!(indicator.kernel.scratch_columns() <= COLUMNS_MAX, "{}", entry.name);
            }
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
    }

    #[test]
    fn seed_names_are_found() {
        assert_eq!(find("bb").unwrap().name, "bbands");
        assert_eq!(find("stochastic").unwrap().name, "stoch");
        assert!(find("RSI").is_none());
    }

    #[test]
    fn compat_changes_only_conventions() {
        let lookback = |name, compat| Indicator::parse(name, compat, &[]).unwrap().lookback();
        assert_eq!(lookback("ema", Compat::TaLib), 29);
        assert_eq!(lookback("ema", Compat::TradPal), 0);
        assert_eq!(lookback("atr", Compat::TaLib), 14);
        assert_eq!(lookback("atr", Compat::TradingView), 13);
        assert_eq!(lookback("macd", Compat::TaLib), 33);
        assert_eq!(lookback("stoch", Compat::TaLib), 8);
        assert_eq!(lookback("stoch", Compat::TradPal), 17);
        assert_eq!(lookback("adx", Compat::TradPal), 27);
    }

    #[test]
    fn compute_says_what_is_missing() {
        let close = [1.0; 4];
        let bars = Bars::from_close(&close);
        let mut work = Workspace::new(Cpu::proven().unwrap());
        let atr = Indicator::parse("atr", Compat::TaLib, &[]).unwrap();
        let mut out = [0.0; 4];
        let error = atr.compute(&mut work, &bars, &mut [&mut out]).unwrap_err();
        assert_eq!(error.to_string(), "atr needs the column high");
        let error = atr.compute(&mut work, &bars, &mut []).unwrap_err();
        assert_eq!(error.to_string(), "0 output buffers were given where 1 are needed");
        let sma = Indicator::parse("sma", Compat::TaLib, &[]).unwrap();
        let error = sma.compute(&mut work, &bars, &mut [&mut out[1..]]).unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "value has 3 values where 4 are needed");
    }
}
