//! Secrets: versions under a path.
//!
//! A path has one head row (which versions there are and in what state) and one row a version (its value).
//! Writing makes the next version; one more than are kept makes the oldest go. A deleted version can be undeleted, a
//! destroyed one is gone: its row, and with it its key, no longer exist. The head is the truth: a version it
//! lists whose row is missing, or a row without a head, is damage and never "not found".

mod body;
mod ops;
pub(crate) mod rows;

pub(crate) use body::{NewValue, VersionList, parse_body};
pub(crate) use ops::Fate;

/// Versions kept of a secret of which nothing else was said; also the most that one query names.
const VERSIONS_DEFAULT: usize = 10;
/// LIMIT: versions kept of one secret, whatever was said of it.
pub(crate) const VERSIONS_MAX: u64 = 100;
