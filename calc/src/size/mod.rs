//! How much to buy or sell: a method proposes a quantity, limits cut it down.
//!
//! | method | quantity before the limits |
//! |---|---|
//! | fixed fractional | `equity * risk / (abs(price - stop) * point_value)` |
//! | ATR | the same with a distance of `multiple * atr` |
//! | Kelly | `clamp(fraction * (b p - (1 - p)) / b, 0, 2) * equity / price`, `b` average win over average loss |
//! | risk parity | `target / volatility * equity / price` |
//! | blend | `clamp(0.4 kelly + 0.3 parity + 0.3 score / (1 + volatility), 0, 2) * equity / price`, nothing below a score of 0.6 |
//!
//! Quantities are never negative; the side says which way. Every limit only ever cuts, in one order:
//! risk of the position, exposure to its symbol, gross, net, value at risk of the portfolio, lot.

mod cap;
mod method;

pub use cap::{Book, CAPS, Cap, Cut, Limits, Sized, apply, scale_all};
pub use method::{KELLY_MAX, Method, Odds, Proposal, SCORE_MIN};

use crate::params::RangeError;
use std::fmt;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Long.
    Buy,
    /// Short.
    Sell,
}

impl Side {
    /// 1 or -1.
    #[must_use]
    pub const fn sign(self) -> f64 {
        match self {
            Self::Buy => 1.0,
            Self::Sell => -1.0,
        }
    }
}

/// Why nothing can be sized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SizeError {
    /// A number outside its range.
    Range {
        /// Name on the wire.
        field: &'static str,
        /// The number and the range.
        source: RangeError,
    },
    /// A field that the method or a limit needs.
    Missing(&'static str),
    /// A stop on the wrong side of the price, or at it.
    Stop,
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { field, source } => write!(f, "{field} {source}"),
            Self::Missing(field) => write!(f, "{field} is needed"),
            Self::Stop => f.write_str("stop must be below the price of a purchase and above that of a sale"),
        }
    }
}

// The range is part of the message, as in the catalogue's errors.
impl std::error::Error for SizeError {}

/// Returns `given` when it lies in the range.
fn check(field: &'static str, given: f64, min: f64, max: f64) -> Result<f64, SizeError> {
    crate::params::within(given, min, max).map_err(|source| SizeError::Range { field, source })
}

/// Largest amount of money, price or quantity: their products stay far from overflow.
pub const AMOUNT_MAX: f64 = 1e15;
/// Smallest price or distance that counts as one.
pub const AMOUNT_MIN: f64 = 1e-15;
