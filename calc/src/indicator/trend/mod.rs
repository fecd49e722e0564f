//! Whether prices go somewhere.

mod adx;
mod adxr;
mod di;
mod dx;
mod ichimoku;
mod psar;
mod supertrend;

use crate::entry::Entry;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] =
    &[&adx::ADX, &adxr::ADXR, &dx::DX, &di::DI, &psar::PSAR, &supertrend::SUPERTREND, &ichimoku::ICHIMOKU];
