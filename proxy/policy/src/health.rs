//! Whether an instance is well, as its probes tell.
//!
//! Purpose: active probes with thresholds, so that one lost probe flips nothing. Exact conditions: a
//! healthy instance becomes unhealthy after `unhealthy` bad probes in a row, an unhealthy one healthy
//! after `healthy` good ones. Cold start: healthy until the probes say otherwise; the first bad ones
//! count like any other. Probes of one instance are `interval` apart, moved by ±10 %, and the first
//! comes within a tenth of it, so that instances are not probed in step.

use std::time::Duration;

use crate::random::{between, jitter};

/// Share by which an interval is moved, in percent.
pub const JITTER_PERCENT: u32 = 10;

/// The probes of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    healthy: bool,
    /// Probes in a row that contradict `healthy`.
    against: u32,
}

/// A verdict that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is well again.
    BecameHealthy,
    /// It is not well any more.
    BecameUnhealthy,
}

impl Default for Health {
    fn default() -> Self {
        Self { healthy: true, against: 0 }
    }
}

impl Health {
    /// Of an instance about which something is known.
    pub const fn starting(healthy: bool) -> Self {
        Self { healthy, against: 0 }
    }

    /// Counts one probe.
    pub fn probed(&mut self, good: bool, settings: &sluice_schema::Health) -> Option<Change> {
        if good == self.healthy {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if good { settings.healthy } else { settings.unhealthy };
        if self.against < needed.max(1) {
            return None;
        }
        *self = Self { healthy: good, against: 0 };
        Some(if good { Change::BecameHealthy } else { Change::BecameUnhealthy })
    }

    /// The verdict.
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }
}

/// Whether a probe's status is a good one: 200 to 299.
pub const fn is_good(status: u16) -> bool {
    matches!(status, 200..=299)
}

/// When a new instance is probed first, from now.
pub fn first_probe(settings: &sluice_schema::Health, seed: u64) -> Duration {
    between(Duration::ZERO, settings.interval / 10, seed)
}

/// When the next probe starts, from the start of the last.
pub fn next_probe(settings: &sluice_schema::Health, seed: u64) -> Duration {
    jitter(settings.interval, JITTER_PERCENT, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn healthy_until_three_bad_probes_in_a_row() {
        let settings = sluice_schema::Health::default();
        let mut health = Health::default();
        let changes: Vec<_> = [false, false, true, false, false, false, true, false, true, true]
            .map(|good| health.probed(good, &settings))
            .into_iter()
            .enumerate()
            .filter_map(|(n, change)| change.map(|change| (n, change)))
            .collect();
        assert_eq!(changes, [(5, Change::BecameUnhealthy), (9, Change::BecameHealthy)]);
        assert!(is_good(204) && !is_good(302) && !is_good(503));
    }

    proptest! {
        #[test]
        fn agrees_with_the_last_probes(probes in proptest::collection::vec(any::<bool>(), 0..60), up in 1_u32..4, down in 1_u32..4) {
            let settings = sluice_schema::Health { healthy: up, unhealthy: down, ..sluice_schema::Health::default() };
            let (mut health, mut model) = (Health::default(), true);
            for end in 1..=probes.len() {
                let before = model;
                let needed = if model { down } else { up } as usize;
                let row = probes[..end].iter().rev().take_while(|good| **good != model).count();
                model ^= row >= needed;
                let change = health.probed(probes[end - 1], &settings);
                prop_assert_eq!(health.is_healthy(), model);
                prop_assert_eq!(change.is_some(), before != model);
            }
        }

        #[test]
        fn probes_are_spread(seed: u64) {
            let settings = sluice_schema::Health::default();
            prop_assert!(first_probe(&settings, seed) <= Duration::from_secs(3));
            prop_assert!((Duration::from_secs(27)..=Duration::from_secs(33)).contains(&next_probe(&settings, seed)));
        }
    }
}
