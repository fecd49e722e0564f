//! How far prices range.

pub(crate) mod atr;
pub(crate) mod bbands;
mod donchian;
mod keltner;
mod stddev;
mod trange;

use crate::entry::Entry;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] = &[
    &atr::ATR,
    &atr::NATR,
    &trange::TRANGE,
    &bbands::BBANDS,
    &donchian::DONCHIAN,
    &keltner::KELTNER,
    &stddev::STDDEV,
    &stddev::VAR,
    &stddev::ZSCORE,
];
