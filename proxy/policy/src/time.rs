//! Monotonic time as a number.
//!
//! Every decision takes `now` as an argument, so that a test can be at any moment. The shell reads
//! its clock once a phase and passes the same value to every decision of that phase.

use std::time::Duration;

/// Nanoseconds since the process started, monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The start of the process.
    pub const ZERO: Self = Self(0);

    /// This many whole seconds after the start.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// This many whole milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Later by `by`; stops at the end of time.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }

    /// Time passed since `earlier`; zero where that lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Nanos {
    fn from(since_start: Duration) -> Self {
        Self(nanos(since_start))
    }
}

/// A duration in nanoseconds; 584 years at most.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
