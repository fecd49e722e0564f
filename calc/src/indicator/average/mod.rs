//! Averages of prices.

pub(crate) mod ema;
mod sma;

use crate::entry::Entry;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] = &[&sma::SMA, &ema::EMA];
