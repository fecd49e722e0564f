//! Why a figure does not exist.

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
    /// Nothing was lost: nothing to divide by.
    NoLosses,
    /// The equity never fell: nothing to divide by.
    NoDrawdown,
    /// It compares with a benchmark, and there is none.
    NoBenchmark,
    /// There is no trade that won or lost.
    NoTrades,
    /// The expansion turns back on itself for this skewness and kurtosis.
    NotMonotone,
    /// A return below -1 lost more than there was; nothing compounds after that.
    TotalLoss,
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
            Self::NoLosses => "no_losses",
            Self::NoDrawdown => "no_drawdown",
            Self::NoBenchmark => "no_benchmark",
            Self::NoTrades => "no_trades",
            Self::NotMonotone => "not_monotone",
            Self::TotalLoss => "total_loss",
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
            Self::NoLosses => "nothing was lost",
            Self::NoDrawdown => "the equity never fell",
            Self::NoBenchmark => "there is no benchmark",
            Self::NoTrades => "there is no trade that won or lost",
            Self::NotMonotone => "the expansion is not monotone for this skewness and kurtosis",
            Self::TotalLoss => "more was lost than there was",
        })
    }
}

impl std::error::Error for Undefined {}

/// A figure must be finite.
pub(super) fn finite(figure: f64) -> Figure {
    if figure.is_finite() { Ok(figure) } else { Err(Undefined::NotFinite) }
}

/// Fails unless there are at least `least` values and all are finite.
pub(super) fn usable(values: &[f64], least: usize) -> Result<(), Undefined> {
    if values.len() < least {
        return Err(Undefined::TooFewPeriods);
    }
    if values.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(Undefined::NotFinite) }
}
