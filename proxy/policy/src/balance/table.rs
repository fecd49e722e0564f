//! The instances of a service in one configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sluice_schema::{Balance, Service};

use super::instance::Instance;
use crate::time::Nanos;

/// The instances of one service in one configuration generation, in file order, and how they are picked.
#[derive(Clone, Debug)]
pub struct Table {
    instances: Vec<Arc<Instance>>,
    pub(super) balance: Balance,
    pub(super) panic_threshold: f64,
    pub(super) slow_start: Duration,
    pub(super) version: u64,
    next_id: u32,
    /// Changes of what can be picked, over all versions.
    changes: Arc<AtomicU64>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            instances: Vec::new(),
            balance: Balance::default(),
            panic_threshold: 0.0,
            slow_start: Duration::ZERO,
            version: 0,
            next_id: 0,
            changes: Arc::default(),
        }
    }
}

impl Table {
    /// The table of the next configuration generation, seen from an edge in `zone` (empty: none): an address
    /// already known keeps its state, its weight is replaced; a new one starts healthy, and slowly unless the
    /// whole service is new; requests on a removed one end by themselves.
    #[must_use]
    pub fn reconcile(&self, service: &Service, zone: &str, now: Nanos) -> Self {
        let mut next_id = self.next_id;
        let back_since = if self.version == 0 { Nanos::ZERO } else { Nanos(now.0.max(1)) };
        let instances = service.instances.iter().map(|want| {
            let known = self.instances.iter().find(|known| known.url == want.url);
            let instance = if let Some(known) = known {
                Arc::clone(known)
            } else {
                next_id += 1;
                Arc::new(Instance::new(next_id, want, back_since, Arc::clone(&self.changes)))
            };
            instance.configure(want.weight, !zone.is_empty() && want.zone == zone);
            instance
        });
        Self {
            instances: instances.collect(),
            balance: service.balance,
            panic_threshold: service.panic_threshold,
            slow_start: service.slow_start,
            version: self.version + 1,
            next_id,
            changes: Arc::clone(&self.changes),
        }
    }

    /// The instances, in file order.
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// How often anything changed that decides what can be picked.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }
}
