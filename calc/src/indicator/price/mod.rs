//! Where prices stand: lines through them, their extremes and middles.

mod extremes;
mod fractal;
mod median;
mod pivot;
mod regression;

use crate::entry::Entry;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] = &[
    &extremes::MAX,
    &extremes::MIN,
    &extremes::MIDPOINT,
    &extremes::MIDPRICE,
    &regression::LINEARREG,
    &regression::SLOPE,
    &regression::INTERCEPT,
    &regression::ANGLE,
    &regression::TSF,
    &pivot::PIVOT,
    &fractal::FRACTAL,
    &median::MEDIAN,
];
