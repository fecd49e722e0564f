//! How the figures are to be taken.

use crate::params::{RangeError, within};
use std::fmt;

/// How the figures are to be taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub(super) periods_per_year: f64,
    pub(super) risk_free: f64,
    pub(super) required_return: f64,
    pub(super) omega_threshold: f64,
    pub(super) alpha: f64,
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

fn check(setting: &'static str, given: f64, min: f64, max: f64) -> Result<f64, SettingsError> {
    within(given, min, max).map_err(|source| SettingsError { setting, source })
}

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
    /// Largest return a year that the Omega ratio may require.
    pub const REQUIRED_A_YEAR_MAX: f64 = 100.0;

    /// Checks the periods a year (1 to 31 622 400 000), the risk-free return a period (-1 to 1) and
    /// the tail (0.000001 to 0.5). The return the Sortino ratio requires is the risk-free one, the
    /// Omega ratio's is 0.
    pub fn new(periods_per_year: f64, risk_free: f64, alpha: f64) -> Result<Self, SettingsError> {
        let years = (Self::PERIODS_PER_YEAR_MIN, Self::PERIODS_PER_YEAR_MAX);
        let risk_free = check("rf", risk_free, -1.0, 1.0)?;
        Ok(Self {
            periods_per_year: check("periods_per_year", periods_per_year, years.0, years.1)?,
            risk_free,
            required_return: risk_free,
            omega_threshold: 0.0,
            alpha: check("alpha", alpha, Self::ALPHA_MIN, Self::ALPHA_MAX)?,
        })
    }

    /// The same with another required return a period, -1 to 1, for the Sortino ratio.
    pub fn with_required_return(self, required_return: f64) -> Result<Self, SettingsError> {
        Ok(Self { required_return: check("required_return", required_return, -1.0, 1.0)?, ..self })
    }

    /// The same with a return a year, -1 to 100, that the Omega ratio requires:
    /// `(1 + R)^(1 / A) - 1` a period.
    pub fn with_required_a_year(self, required: f64) -> Result<Self, SettingsError> {
        let required = check("required_return", required, -1.0, Self::REQUIRED_A_YEAR_MAX)?;
        let omega_threshold = (required.ln_1p() / self.periods_per_year).exp_m1();
        Ok(Self { omega_threshold, ..self })
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
            omega_threshold: 0.0,
            alpha: Self::ALPHA,
        }
    }
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
        assert_eq!(Settings::default().with_required_a_year(-1.5).unwrap_err().setting, "required_return");
        let total = Settings::default().with_required_a_year(-1.0).unwrap();
        assert_eq!(total.omega_threshold, -1.0);
    }
}
