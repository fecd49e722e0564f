//! How often somebody may ask for a certificate. Pure: time is an argument.
//!
//! A bucket a role, or an account of ACME: it starts full, an issue takes one, one comes back every pause. So a role
//! that asks in a loop fills neither store nor log, and one that is started again and again is served.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_wire::role::Role;

/// LIMIT: certificates a role gets at once; also those it has in force at a time (see `role`).
pub(super) const BURST: u32 = 128;
/// Pause after which it gets one more.
pub(super) const PACE: Duration = Duration::from_secs(5);

/// LIMIT: buckets that are looked at one by one; beyond, the full ones are forgotten.
const BUCKETS_MAX: usize = 10_000;

/// The buckets.
#[derive(Debug)]
pub(crate) struct Pace<K = Role> {
    burst: u32,
    pause: Duration,
    /// When each bucket is full again.
    full_at: BTreeMap<K, Instant>,
}

/// Those of the roles.
impl Default for Pace {
    fn default() -> Self {
        Self::new(BURST, PACE)
    }
}

impl<K: Ord> Pace<K> {
    /// Full buckets of `burst`; one comes back every `pause`.
    pub(crate) const fn new(burst: u32, pause: Duration) -> Self {
        Self { burst, pause, full_at: BTreeMap::new() }
    }

    /// Takes one from a bucket; false: it is empty.
    pub(crate) fn take(&mut self, whose: K, now: Instant) -> bool {
        if self.full_at.len() >= BUCKETS_MAX {
            self.full_at.retain(|_, at| *at > now);
        }
        let full_at = self.full_at.get(&whose).map_or(now, |at| *at.max(&now));
        let then = full_at + self.pause;
        let granted = then <= now + self.pause * self.burst;
        if granted {
            self.full_at.insert(whose, then);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn roles_have_buckets_of_their_own() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!((0..BURST).all(|_| pace.take(Role::Edge, now)));
        assert!(!pace.take(Role::Edge, now) && pace.take(Role::Demo, now));
        assert!(!pace.take(Role::Edge, now + PACE / 2));
        assert!(pace.take(Role::Edge, now + PACE) && !pace.take(Role::Edge, now + PACE));
    }

    proptest! {
        #[test]
        fn never_more_than_the_bucket_and_what_came_back(steps in proptest::collection::vec(0u64..20_000, 1..400)) {
            let (mut pace, start) = (Pace::default(), Instant::now());
            let (mut now, mut left) = (start, f64::from(BURST));
            for step in steps {
                let pause = Duration::from_millis(step);
                now += pause;
                left = (left + pause.as_secs_f64() / PACE.as_secs_f64()).min(f64::from(BURST));
                let granted = pace.take(Role::Calc, now);
                // The naive bucket counts in fractions: at the very edge it may round either way.
                if (left - 1.0).abs() > 1e-6 {
                    prop_assert_eq!(granted, left >= 1.0);
                }
                if granted {
                    left -= 1.0;
                }
            }
        }
    }
}
