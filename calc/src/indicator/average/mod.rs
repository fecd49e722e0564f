//! Averages of prices.

pub(crate) mod cascade;
pub(crate) mod ema;
mod sma;
mod wma;

use crate::entry::Entry;
use crate::window::Means;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] =
    &[&sma::SMA, &ema::EMA, &wma::WMA, &cascade::DEMA, &cascade::TEMA, &cascade::T3];

/// The average over one bar, whatever its weights: the value itself, where a recursion or an anchor
/// would round.
const COPY: Means = Means::new(1);
