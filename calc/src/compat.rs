//! Whose conventions fill the parameters a caller leaves out.
//!
//! Only seeds, degrees of freedom, smoothing and one default length differ; every formula is the
//! same, and a parameter that is given always wins.
//!
//! | | seed of exponential averages | Bollinger ddof | ATR, NATR smoothing | range of bar 0 | stochastic `fast_k` |
//! |---|---|---|---|---|---|
//! | `talib` | mean of the first window | 0 | Wilder | skipped | 5 |
//! | `tradpal` | first close | 1 | plain mean | high − low | 14 |
//! | `tradingview` | first close | 0 | Wilder | high − low | 14 |

use crate::params::{Ddof, FirstRange, Seed, Smoothing, Span};

/// A set of conventions, named for the platform that uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compat {
    /// TA-Lib.
    #[default]
    TaLib,
    /// TradPal's calculation service.
    TradPal,
    /// TradingView's built-in `ta` functions.
    TradingView,
}

impl Compat {
    /// Every set, in the order in which it is documented.
    pub const ALL: [Self; 3] = [Self::TaLib, Self::TradPal, Self::TradingView];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TaLib => "talib",
            Self::TradPal => "tradpal",
            Self::TradingView => "tradingview",
        }
    }

    /// The set of that wire name, if there is one.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compat| compat.name() == name)
    }

    /// What an exponential average starts from.
    #[must_use]
    pub const fn seed(self) -> Seed {
        match self {
            Self::TaLib => Seed::Sma,
            Self::TradPal | Self::TradingView => Seed::First,
        }
    }

    /// The divisor of a Bollinger band's deviation.
    #[must_use]
    pub const fn ddof(self) -> Ddof {
        match self {
            Self::TradPal => Ddof::Sample,
            Self::TaLib | Self::TradingView => Ddof::Population,
        }
    }

    /// How the average true range averages.
    #[must_use]
    pub const fn smoothing(self) -> Smoothing {
        match self {
            Self::TradPal => Smoothing::Sma,
            Self::TaLib | Self::TradingView => Smoothing::Wilder,
        }
    }

    /// The stochastic oscillator's window where none is given, in bars.
    #[must_use]
    pub const fn fast_k(self) -> Span {
        match self {
            Self::TaLib => Span::of::<5>(),
            Self::TradPal | Self::TradingView => Span::of::<14>(),
        }
    }

    /// The price that Keltner channels average.
    #[must_use]
    pub const fn keltner_source(self) -> &'static str {
        match self {
            Self::TaLib | Self::TradPal => "typical",
            Self::TradingView => "close",
        }
    }

    /// Whether bar 0 has a true range.
    #[must_use]
    pub const fn first_range(self) -> FirstRange {
        match self {
            Self::TaLib => FirstRange::Skip,
            Self::TradPal | Self::TradingView => FirstRange::HighLow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_found_by_its_name() {
        for compat in Compat::ALL {
            assert_eq!(Compat::find(compat.name()), Some(compat));
        }
        assert_eq!(Compat::find("TALIB"), None);
    }
}
