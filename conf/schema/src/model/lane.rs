//! How much the requests of a service matter, and what its instances take at once.

use std::time::Duration;

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

/// What the instances of a service take at once. Services with the same instances share it: the smallest
/// limit counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// Requests at once.
    pub limit: ConcurrencyLimit,
    /// Bound of an adaptive limit, 1 to 100,000.
    pub max: u32,
    /// Requests that may wait in a lane, 0 to 1024.
    pub queue: usize,
    /// How long one waits, 1 ms to 10 s.
    pub queue_timeout: Duration,
}

/// How many requests run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConcurrencyLimit {
    /// As many as the latency allows.
    Adaptive,
    /// So many, 1 to 100,000.
    Fixed(u32),
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            limit: ConcurrencyLimit::Adaptive,
            max: 1024,
            queue: 64,
            queue_timeout: Duration::from_millis(50),
        }
    }
}
