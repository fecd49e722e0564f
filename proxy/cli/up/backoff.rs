//! When a role that died is started again: a pure rule.
//!
//! Died after it was ready: at once, however often; its port stays open in the supervisor, so each
//! death costs the requests in flight and nothing else. Died before it was ready: something is
//! wrong with its surroundings, and starting in a loop would burn the machine: the pause doubles
//! from [`PAUSE_MIN`] to [`PAUSE_MAX`], less up to half of it by chance so that roles that failed
//! together do not come back together. Recovery: one ready start clears the count.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Pause after the first death before ready.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Starts that failed in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The role got ready.
    pub(crate) fn ready(&mut self) {
        self.failures = 0;
    }

    /// The role died; returns the pause before the next start. `chance` is any random number.
    pub(crate) fn died(&mut self, was_ready: bool, chance: u64) -> Duration {
        if was_ready {
            self.failures = 0;
            return Duration::ZERO;
        }
        let whole = PAUSE_MIN.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        let part = u32::try_from(chance % 1_000).unwrap_or(0);
        half + half * part / 1_000
    }

    /// Starts that failed in a row.
    pub(crate) const fn failures(self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_was_ready_comes_back_at_once_every_time() {
        let mut backoff = Backoff::default();
        for chance in 0..100 {
            assert_eq!(backoff.died(true, chance), Duration::ZERO);
        }
    }

    #[test]
    fn failed_starts_wait_longer_up_to_the_bound() {
        for chance in [0, 1, 500, 999, u64::MAX] {
            let mut backoff = Backoff::default();
            let pauses: Vec<_> = (0..40).map(|_| backoff.died(false, chance)).collect();
            assert!(pauses[0] >= PAUSE_MIN / 2 && pauses[0] <= PAUSE_MIN);
            assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
            assert!(pauses[39] >= PAUSE_MAX / 2 && pauses[39] <= PAUSE_MAX);
            backoff.ready();
            assert!(backoff.died(false, chance) <= PAUSE_MIN);
        }
    }
}
