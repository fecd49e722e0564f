//! Risk and performance of a series of simple returns, one a period, oldest first.
//!
//! Every figure is a [`Figure`]: a finite number, or the reason why there is none. Let `r` be the
//! returns, `N` their number, `A` the periods a year, `rf` the risk-free return a period.
//!
//! | figure | definition |
//! |---|---|
//! | volatility | `std(r, ddof 1) * sqrt(A)` |
//! | close-to-close volatility | `std(ln(C / C before), ddof 1) * sqrt(A)` |
//! | Sharpe | `mean(r - rf) / std(r - rf, ddof 1) * sqrt(A)` |
//! | Sortino | `mean(r - t) / sqrt(mean(min(r - t, 0)^2)) * sqrt(A)` over all `N`, `t` the required return |
//! | drawdown | `E / peak - 1` with `E` the product of `1 + r` from 1, the start counting as a peak |
//! | value at risk | the `alpha` quantile of `r`, interpolated linearly (`(N - 1) * alpha`) |
//! | conditional value at risk | the mean of the `floor((N - 1) * alpha) + 1` smallest `r` |
//!
//! Value at risk and its conditional form are returns, so losses are negative.

mod drawdown;
mod ratio;
mod returns;
mod tail;

pub use drawdown::{Drawdown, drawdown_of_equity, drawdown_of_returns};
pub use ratio::{close_to_close_volatility, sharpe, sortino, volatility};
pub use returns::returns_of_prices;
pub use tail::{Tail, tail};

use crate::params::{RangeError, within};
use crate::series::ShapeError;
use std::fmt;

/// A figure, or why there is none.
pub type Figure = Result<f64, Undefined>;

/// Why a figure does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Undefined {
    /// There are fewer periods than the definition needs.
    TooFewPeriods,
    /// An input, or the figure itself, is not a finite number.
    NotFinite,
    /// The returns do not vary, beyond rounding: nothing to divide by.
    NoVariation,
    /// No return is below the required one: nothing to divide by.
    NoDownside,
    /// A price or the equity is zero or negative, or a return is below -1.
    NotPositive,
}

impl Undefined {
    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooFewPeriods => "too_few_periods",
            Self::NotFinite => "not_finite",
            Self::NoVariation => "no_variation",
            Self::NoDownside => "no_downside",
            Self::NotPositive => "not_positive",
        }
    }
}

impl fmt::Display for Undefined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooFewPeriods => "there are too few periods",
            Self::NotFinite => "a value is not finite",
            Self::NoVariation => "the returns do not vary",
            Self::NoDownside => "no return is below the required one",
            Self::NotPositive => "a price or the equity is not positive",
        })
    }
}

impl std::error::Error for Undefined {}

/// How the figures are to be taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    periods_per_year: f64,
    risk_free: f64,
    required_return: f64,
    alpha: f64,
}

/// A setting outside its range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SettingsError {
    /// Name of the setting on the wire.
    pub setting: &'static str,
    /// The number and the range.
    pub source: RangeError,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.setting, self.source)
    }
}

// The range is part of the message, as in the catalogue's errors.
impl std::error::Error for SettingsError {}

impl Settings {
    /// Trading days of a stock exchange a year.
    pub const PERIODS_PER_YEAR: f64 = 252.0;
    /// Shortest allowed year, in periods.
    pub const PERIODS_PER_YEAR_MIN: f64 = 1.0;
    /// Longest allowed year, in periods: one a millisecond, rounded up.
    pub const PERIODS_PER_YEAR_MAX: f64 = 31_622_400_000.0;
    /// Smallest tail of the value at risk.
    pub const ALPHA_MIN: f64 = 1e-6;
    /// Largest tail of the value at risk.
    pub const ALPHA_MAX: f64 = 0.5;
    /// The customary tail.
    pub const ALPHA: f64 = 0.05;

    /// Checks the periods a year (1 to 31 622 400 000), the risk-free return a period (-1 to 1) and
    /// the tail (0.000001 to 0.5). The return the Sortino ratio requires is the risk-free one.
    pub fn new(periods_per_year: f64, risk_free: f64, alpha: f64) -> Result<Self, SettingsError> {
        let check = |setting, given, min, max| {
            within(given, min, max).map_err(|source| SettingsError { setting, source })
        };
        let years = (Self::PERIODS_PER_YEAR_MIN, Self::PERIODS_PER_YEAR_MAX);
        let risk_free = check("rf", risk_free, -1.0, 1.0)?;
        Ok(Self {
            periods_per_year: check("periods_per_year", periods_per_year, years.0, years.1)?,
            risk_free,
            required_return: risk_free,
            alpha: check("alpha", alpha, Self::ALPHA_MIN, Self::ALPHA_MAX)?,
        })
    }

    /// The same with another required return a period, -1 to 1.
    pub fn with_required_return(self, required_return: f64) -> Result<Self, SettingsError> {
        let required_return = within(required_return, -1.0, 1.0)
            .map_err(|source| SettingsError { setting: "required_return", source })?;
        Ok(Self { required_return, ..self })
    }

    /// Periods a year.
    #[must_use]
    pub const fn periods_per_year(&self) -> f64 {
        self.periods_per_year
    }

    /// Tail of the value at risk.
    #[must_use]
    pub const fn alpha(&self) -> f64 {
        self.alpha
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            periods_per_year: Self::PERIODS_PER_YEAR,
            risk_free: 0.0,
            required_return: 0.0,
            alpha: Self::ALPHA,
        }
    }
}

/// Every figure of a return series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Standard deviation a year.
    pub volatility: Figure,
    /// Sharpe ratio a year.
    pub sharpe: Figure,
    /// Sortino ratio a year.
    pub sortino: Figure,
    /// Deepest drawdown and its length.
    pub drawdown: Result<Drawdown, Undefined>,
    /// Value at risk and conditional value at risk.
    pub tail: Result<Tail, Undefined>,
}

/// Computes every figure; `scratch` holds at least as many values as `returns` and is overwritten.
pub fn summary(returns: &[f64], settings: &Settings, scratch: &mut [f64]) -> Result<Summary, ShapeError> {
    Ok(Summary {
        volatility: volatility(returns, settings),
        sharpe: sharpe(returns, settings),
        sortino: sortino(returns, settings),
        drawdown: drawdown_of_returns(returns),
        tail: tail(returns, settings, scratch)?,
    })
}

/// A figure must be finite.
fn finite(figure: f64) -> Figure {
    if figure.is_finite() { Ok(figure) } else { Err(Undefined::NotFinite) }
}

/// Fails unless there are at least `least` values and all are finite.
fn usable(values: &[f64], least: usize) -> Result<(), Undefined> {
    if values.len() < least {
        return Err(Undefined::TooFewPeriods);
    }
    if values.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(Undefined::NotFinite) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_their_range() {
        let error = Settings::new(0.0, 0.0, 0.05).unwrap_err();
        assert_eq!(error.to_string(), "periods_per_year must be between 1 and 31622400000, not 0");
        assert_eq!(Settings::new(252.0, 2.0, 0.05).unwrap_err().setting, "rf");
        assert_eq!(Settings::new(252.0, 0.0, 0.0).unwrap_err().setting, "alpha");
        assert!(Settings::new(f64::NAN, 0.0, 0.05).is_err());
        assert!(Settings::default().with_required_return(f64::INFINITY).is_err());
    }

    #[test]
    fn an_empty_series_has_no_figure() {
        let summary = summary(&[], &Settings::default(), &mut []).unwrap();
        let few = Undefined::TooFewPeriods;
        assert_eq!((summary.volatility, summary.sharpe, summary.sortino), (Err(few), Err(few), Err(few)));
        assert_eq!((summary.drawdown, summary.tail), (Err(few), Err(few)));
    }

    #[test]
    fn a_figure_is_never_infinite() {
        let huge = [1e308, -1e308, 1e308];
        let summary = summary(&huge, &Settings::default(), &mut [0.0; 3]).unwrap();
        assert_eq!(summary.volatility, Err(Undefined::NotFinite));
        assert_eq!(summary.sharpe, Err(Undefined::NotFinite));
        assert_eq!(summary.drawdown, Err(Undefined::NotPositive));
        assert_eq!(summary.tail, Err(Undefined::NotFinite));
    }
}
