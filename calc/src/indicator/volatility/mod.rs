//! How far prices range.

mod atr;
pub(crate) mod bbands;

use crate::entry::Entry;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] = &[&atr::ATR, &bbands::BBANDS];
