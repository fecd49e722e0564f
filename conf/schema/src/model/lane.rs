//! How much the requests of a service matter, and what its instances take at once.

/// How much a request matters, the most first. A full upstream takes them in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Takes risk away.
    Cancel,
    /// Changes positions.
    Order,
    /// Reads.
    #[default]
    Query,
    /// Works long.
    Analytics,
}

impl Lane {
    /// Every lane, the most important first.
    pub const ALL: [Self; 4] = [Self::Cancel, Self::Order, Self::Query, Self::Analytics];

    /// The word in configuration, log and metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Order => "order",
            Self::Query => "query",
            Self::Analytics => "analytics",
        }
    }
}
