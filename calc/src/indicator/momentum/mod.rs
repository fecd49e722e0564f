//! How fast prices move, and how far.

mod aroon;
mod bop;
mod cci;
mod change;
mod macd;
mod mfi;
mod osc;
pub(crate) mod rsi;
mod stoch;
mod stochrsi;
mod trix;
mod ultosc;
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
    &osc::APO,
    &osc::PPO,
    &bop::BOP,
    &stochrsi::STOCHRSI,
    &ultosc::ULTOSC,
    &aroon::AROON,
    &aroon::AROONOSC,
    &cci::CCI,
];
