//! Averages of prices.

pub(crate) mod cascade;
pub(crate) mod ema;
mod hma;
mod kama;
mod sma;
mod trima;
mod vwap;
mod vwma;
mod wma;

use crate::entry::Entry;
use crate::window::Means;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] = &[
    &sma::SMA,
    &ema::EMA,
    &wma::WMA,
    &cascade::DEMA,
    &cascade::TEMA,
    &cascade::T3,
    &trima::TRIMA,
    &hma::HMA,
    &vwap::VWAP,
    &vwma::VWMA,
    &kama::KAMA,
];

/// The average over one bar, whatever its weights: the value itself, where a recursion or an anchor
/// would round.
const COPY: Means = Means::new(1);
