//! How fast prices move, and how far.

mod macd;
mod mfi;
pub(crate) mod rsi;
mod stoch;

use crate::entry::Entry;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] = &[&macd::MACD, &rsi::RSI, &stoch::STOCH, &mfi::MFI];
