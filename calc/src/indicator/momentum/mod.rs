//! How fast prices move, and how far.

mod change;
mod macd;
mod mfi;
pub(crate) mod rsi;
mod stoch;
mod trix;
mod willr;

use crate::entry::Entry;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] = &[
    &macd::MACD,
    &rsi::RSI,
    &stoch::STOCH,
    &mfi::MFI,
    &rsi::CMO,
    &trix::TRIX,
    &change::MOM,
    &change::ROC,
    &stoch::STOCHF,
    &willr::WILLR,
];
