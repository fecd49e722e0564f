//! Shapes of the last few candles: 100 or -100 where one is seen, 80 or -80 where it is less
//! clear, else 0.
//!
//! What is long, short or near is a share of the mean of the candles before the one that is judged;
//! the mean is summed afresh for every bar, oldest first. TA-Lib keeps running totals instead, whose
//! rounding depends on where the series began: at the very edge of a condition the two may differ.

mod average;
mod one;
mod pattern;
mod three;
mod two;

use crate::entry::Entry;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] = &[
    &one::DOJI,
    &one::DRAGONFLY_DOJI,
    &one::MARUBOZU,
    &two::HAMMER,
    &two::INVERTED_HAMMER,
    &two::HANGING_MAN,
    &two::SHOOTING_STAR,
    &two::ENGULFING,
    &two::HARAMI,
    &two::PIERCING,
    &two::DARK_CLOUD_COVER,
    &three::MORNING_STAR,
    &three::EVENING_STAR,
    &three::WHITE_SOLDIERS,
    &three::BLACK_CROWS,
];
