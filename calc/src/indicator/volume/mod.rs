//! Prices weighed by what was traded.

mod obv;

use crate::entry::Entry;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] = &[&obv::OBV];
