//! What is wrong with a set of routes.

use thiserror::Error;

use super::{FIELDS_MAX, PEERS_MAX, ROUTES_MAX, SEGMENTS_MAX};

/// Why a table cannot be built; one for each fault found.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RouteFault {
    /// Two routes that no request tells apart.
    #[error("`{first}` and `{second}` both take {prefix}")]
    Tie {
        /// The earlier route.
        first: String,
        /// The later one.
        second: String,
        /// Their prefix.
        prefix: String,
    },
    /// The prefix belongs to Sluice.
    #[error("`{name}`: {prefix} lies in the reserved {reserved}")]
    Reserved {
        /// The route.
        name: String,
        /// Its prefix.
        prefix: String,
        /// The reserved prefix.
        reserved: &'static str,
    },
    /// Not absolute, or a segment that is empty, a dot segment or has other characters.
    #[error("`{name}`: {prefix:?} is no prefix: it takes `/` and segments of A-Z a-z 0-9 - . _ ~")]
    Prefix {
        /// The route.
        name: String,
        /// Its prefix.
        prefix: String,
    },
    /// More than [`SEGMENTS_MAX`] segments.
    #[error("`{name}`: {prefix} has more than {SEGMENTS_MAX} segments")]
    Deep {
        /// The route.
        name: String,
        /// Its prefix.
        prefix: String,
    },
    /// More than [`FIELDS_MAX`] header fields.
    #[error("`{name}` asks for more than {FIELDS_MAX} header fields")]
    ManyFields {
        /// The route.
        name: String,
    },
    /// More than [`PEERS_MAX`] routes of one prefix and host.
    #[error("`{name}`: {prefix} has {PEERS_MAX} routes of one host already")]
    Crowded {
        /// The route.
        name: String,
        /// Its prefix.
        prefix: String,
    },
    /// More than [`ROUTES_MAX`] routes.
    #[error("{count} routes; {ROUTES_MAX} are possible")]
    Many {
        /// How many there are.
        count: usize,
    },
}
