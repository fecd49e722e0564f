//! Checked parameters: a value of these types is in range, so no kernel checks again.

use std::fmt;

/// Longest window any indicator takes, in bars.
pub const PERIOD_MAX: u32 = 100_000;

/// Widest Bollinger band, in standard deviations.
pub const DEVIATIONS_MAX: f64 = 1_000.0;

/// A number outside the range its parameter allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangeError {
    /// The refused number.
    pub given: f64,
    /// Smallest allowed number.
    pub min: f64,
    /// Largest allowed number.
    pub max: f64,
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be between {} and {}, not {}", self.min, self.max, self.given)
    }
}

impl std::error::Error for RangeError {}

/// Returns `given` when it lies in `min..=max`; `NaN` never does.
pub(crate) fn within(given: f64, min: f64, max: f64) -> Result<f64, RangeError> {
    if given >= min && given <= max { Ok(given) } else { Err(RangeError { given, min, max }) }
}

/// A window length in bars, `MIN..=`[`PERIOD_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window<const MIN: u32>(u32);

/// A window of at least two bars.
pub type Period = Window<2>;

/// A window of at least one bar.
pub type Span = Window<1>;

impl<const MIN: u32> Window<MIN> {
    /// Checks a length that is known only at run time; the error names the allowed range.
    pub fn new(bars: u32) -> Result<Self, RangeError> {
        if (MIN..=PERIOD_MAX).contains(&bars) {
            return Ok(Self(bars));
        }
        Err(RangeError { given: f64::from(bars), min: f64::from(MIN), max: f64::from(PERIOD_MAX) })
    }

    /// A length that is known, and checked, at compile time.
    #[must_use]
    pub const fn of<const BARS: u32>() -> Self {
        const { assert!(BARS >= MIN && BARS <= PERIOD_MAX, "window length out of range") }
        Self(BARS)
    }

    /// The length in bars.
    #[must_use]
    pub const fn bars(self) -> usize {
        self.0 as usize
    }

    /// The length in bars as a divisor.
    pub(crate) fn count(self) -> f64 {
        f64::from(self.0)
    }
}

impl From<Period> for Span {
    fn from(period: Period) -> Self {
        Window(period.0)
    }
}

/// Width of a Bollinger band in standard deviations, `0..=`[`DEVIATIONS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Deviations(f64);

impl Deviations {
    /// The customary two standard deviations.
    pub const TWO: Self = Self(2.0);

    /// Checks a width; the error names the allowed range.
    pub fn new(width: f64) -> Result<Self, RangeError> {
        within(width, 0.0, DEVIATIONS_MAX).map(Self)
    }

    /// The width in standard deviations.
    #[must_use]
    pub const fn width(self) -> f64 {
        self.0
    }
}

/// What an exponential average starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seed {
    /// The plain mean of the first window; the first value stands at bar `period - 1`.
    Sma,
    /// The first input; the first value stands at bar 0.
    First,
}

/// Delta degrees of freedom of a standard deviation: the divisor is `n - ddof`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ddof {
    /// Divides by `n`.
    Population,
    /// Divides by `n - 1`.
    Sample,
}

impl Ddof {
    /// What turns a population variance over `period` values into the wanted one.
    pub(crate) fn correction<const MIN: u32>(self, period: Window<MIN>) -> f64 {
        match self {
            Self::Population => 1.0,
            Self::Sample => period.count() / (period.count() - 1.0),
        }
    }
}

/// How the average true range averages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Smoothing {
    /// Wilder: `(previous * (period - 1) + range) / period`, seeded by the mean of the first window.
    Wilder,
    /// The plain mean of the last `period` ranges.
    Sma,
}

/// Whether bar 0, which has no previous close, has a true range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FirstRange {
    /// It has none: ranges begin at bar 1, the first average stands at bar `period`.
    Skip,
    /// Its range is high minus low: the first average stands at bar `period - 1`.
    HighLow,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_outside_the_range_names_the_range() {
        let error = Period::new(1).unwrap_err();
        assert_eq!(error.to_string(), "must be between 2 and 100000, not 1");
        assert!(Period::new(PERIOD_MAX + 1).is_err());
        assert!(Span::new(0).is_err());
        assert_eq!(Period::new(PERIOD_MAX).unwrap().bars(), 100_000);
        assert_eq!(Span::new(1).unwrap(), Span::of::<1>());
    }

    #[test]
    fn a_deviation_is_finite_and_not_negative() {
        assert!(Deviations::new(f64::NAN).is_err());
        assert!(Deviations::new(-0.1).is_err());
        assert!(Deviations::new(f64::INFINITY).is_err());
        assert_eq!(Deviations::new(2.0).unwrap(), Deviations::TWO);
    }
}
