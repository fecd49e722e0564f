//! Whether prices go somewhere.

mod adx;

use crate::entry::Entry;

/// This family's rows of the catalogue.
pub(crate) static ENTRIES: &[&Entry] = &[&adx::ADX];
