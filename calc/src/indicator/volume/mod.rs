//! Prices weighed by what was traded.

mod ad;
mod cmf;
mod obv;

use crate::entry::Entry;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] = &[&obv::OBV, &ad::AD, &ad::ADOSC, &cmf::CMF];
