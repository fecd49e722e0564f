//! How often a role may ask for a certificate. Pure: time is an argument.
//!
//! A bucket a role: it starts full, an issue takes one, one comes back every [`PACE`]. So a role that asks in a
//! loop fills neither store nor log, and one that is started again and again is served.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_wire::role::Role;

/// LIMIT: certificates a role gets at once; also those it has in force at a time (see `role`).
pub(super) const BURST: u32 = 128;
/// Pause after which it gets one more.
pub(super) const PACE: Duration = Duration::from_secs(5);

/// The buckets. By role: when its bucket is full again.
#[derive(Debug, Default)]
pub(crate) struct Pace(BTreeMap<Role, Instant>);

impl Pace {
    /// Takes one from a role's bucket; false: it is empty.
    pub(super) fn take(&mut self, role: Role, now: Instant) -> bool {
        let full_at = self.0.get(&role).map_or(now, |at| *at.max(&now));
        let then = full_at + PACE;
        let granted = then <= now + PACE * BURST;
        if granted {
            self.0.insert(role, then);
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
