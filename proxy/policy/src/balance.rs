//! Which instance of a service takes the next request.
//!
//! Purpose: a stable table of instances whose state outlives a configuration change, and the choice
//! among them. [`Table`] and [`Instance`] are shared and hold atomics; [`Picker`] is the small state
//! of one chooser (an edge thread's own, or one behind the shell's mutex).
//!
//! Exact conditions: an instance is available when its probes say healthy and it is not ejected. While
//! fewer than `panic_threshold` of all instances are available, every instance is used: sending to a
//! suspect beats overloading the few, and probes that fail for a reason of their own (a wrong path)
//! must not take a service down. With threshold 0 there is no panic; with nothing available there is
//! then nothing to pick.
//!
//! Instances already tried for this request are avoided while another one can be picked.
//!
//! - `round_robin`: smooth weighted round robin. In every run of sum-of-weights picks each available
//!   instance comes up exactly `weight` times, as evenly spaced as the weights allow.
//! - `weighted`: random by weight; no state.
//! - `least_connections`: least `(in flight + 1) / weight`; ties by chance, so that idle upstreams do
//!   not all get their load on the first instance.
//!
//! Cold start: a new instance counts as healthy until its probes say otherwise and starts with no
//! credit, so it gets no burst. Cost: one pass over the instances, no allocation but once after a
//! change of the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sluice_schema::{Balance, InstanceUrl};

use crate::random::below;
use crate::time::Nanos;

/// One instance and its state. Shared by every generation of the table that lists its address.
#[derive(Debug)]
pub struct Instance {
    /// Number within its service, never reused.
    pub id: u32,
    /// Where it listens.
    pub url: InstanceUrl,
    weight: AtomicU32,
    unhealthy: AtomicBool,
    ejected_until: AtomicU64,
    in_flight: AtomicU32,
    ewma_us: AtomicU64,
}

/// What an operator reads about an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// In use.
    Healthy,
    /// Its probes fail.
    Unhealthy,
    /// Its requests failed; left alone for a while.
    Ejected,
}

/// The instances of one service in one configuration generation, in file order.
#[derive(Clone, Debug, Default)]
pub struct Table {
    instances: Vec<Arc<Instance>>,
    version: u64,
    next_id: u32,
}

/// A request under way on an instance; dropping it ends it.
#[derive(Debug)]
#[must_use = "dropping it ends the request's count at once"]
pub struct Flight(Arc<Instance>);

/// Chooses among the instances of one service.
#[derive(Debug)]
pub struct Picker {
    balance: Balance,
    panic_threshold: f64,
    version: u64,
    /// Instance id and its credit, in the order of the table of that version.
    credits: Vec<(u32, i64)>,
}

/// The choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Index in [`Table::instances`].
    pub index: usize,
    /// Too few were available, so all of them were candidates.
    pub panicking: bool,
}

impl Instance {
    fn new(id: u32, url: InstanceUrl, weight: u32) -> Self {
        Self {
            id,
            url,
            weight: AtomicU32::new(weight),
            unhealthy: AtomicBool::new(false),
            ejected_until: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            ewma_us: AtomicU64::new(0),
        }
    }

    /// Share of requests relative to its siblings.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Records what its probes say.
    pub fn mark_healthy(&self, healthy: bool) {
        self.unhealthy.store(!healthy, Relaxed);
    }

    /// Whether its probes say healthy.
    pub fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Relaxed)
    }

    /// Leaves it alone until then.
    pub fn eject_until(&self, until: Nanos) {
        self.ejected_until.store(until.0, Relaxed);
    }

    /// Whether it is left alone now.
    pub fn is_ejected(&self, now: Nanos) -> bool {
        now.0 < self.ejected_until.load(Relaxed)
    }

    /// Whether it may take requests outside of a panic.
    pub fn is_available(&self, now: Nanos) -> bool {
        self.is_healthy() && !self.is_ejected(now)
    }

    /// The state an operator reads.
    pub fn state(&self, now: Nanos) -> InstanceState {
        match (self.is_healthy(), self.is_ejected(now)) {
            (false, _) => InstanceState::Unhealthy,
            (true, true) => InstanceState::Ejected,
            (true, false) => InstanceState::Healthy,
        }
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Counts a request until the returned value is dropped.
    pub fn begin(self: &Arc<Self>) -> Flight {
        self.in_flight.fetch_add(1, Relaxed);
        Flight(Arc::clone(self))
    }

    /// Adds a latency to the moving average (weight 1/8). Two threads at once may lose one sample.
    pub fn observe(&self, latency: Duration) {
        let sample = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX >> 4).min(u64::MAX >> 4);
        let old = self.ewma_us.load(Relaxed);
        let new = if old == 0 { sample } else { (old * 7 + sample) / 8 };
        self.ewma_us.store(new.max(1), Relaxed);
    }

    /// Moving average of its latencies; zero before the first.
    pub fn ewma(&self) -> Duration {
        Duration::from_micros(self.ewma_us.load(Relaxed))
    }
}

impl InstanceState {
    /// The word in `/services`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
        }
    }
}

impl Flight {
    /// The instance it runs on.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.0
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Table {
    /// The first table of a service.
    pub fn new(wanted: &[sluice_schema::Instance]) -> Self {
        Self::default().reconcile(wanted)
    }

    /// The table of the next configuration generation: an address already known keeps its state, its
    /// weight is replaced; a new one starts healthy; requests on a removed one end by themselves.
    #[must_use]
    pub fn reconcile(&self, wanted: &[sluice_schema::Instance]) -> Self {
        let mut next_id = self.next_id;
        let instances = wanted
            .iter()
            .map(|want| {
                if let Some(known) = self.instances.iter().find(|known| known.url == want.url) {
                    known.weight.store(want.weight, Relaxed);
                    return Arc::clone(known);
                }
                next_id += 1;
                Arc::new(Instance::new(next_id, want.url.clone(), want.weight))
            })
            .collect();
        Self { instances, version: self.version + 1, next_id }
    }

    /// The instances, in file order.
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// How many are available now.
    pub fn available(&self, now: Nanos) -> usize {
        self.instances.iter().filter(|instance| instance.is_available(now)).count()
    }
}

impl Picker {
    /// A chooser without credit.
    pub fn new(balance: Balance, panic_threshold: f64) -> Self {
        Self { balance, panic_threshold, version: 0, credits: Vec::new() }
    }

    /// Takes changed settings; credit stays.
    pub fn configure(&mut self, balance: Balance, panic_threshold: f64) {
        self.balance = balance;
        self.panic_threshold = panic_threshold;
    }

    /// Picks an instance; `tried` lists the ids already used for this request.
    /// `None`: nothing is available and `panic_threshold` is 0, or there are no instances.
    pub fn pick(&mut self, table: &Table, now: Nanos, seed: u64, tried: &[u32]) -> Option<Pick> {
        let instances = table.instances();
        let available = table.available(now);
        let panicking = (available as f64) < self.panic_threshold * instances.len() as f64;
        let usable = |instance: &Instance| panicking || instance.is_available(now);
        let fresh = |instance: &Instance| usable(instance) && !tried.contains(&instance.id);
        let index = if tried.is_empty() || !instances.iter().any(|instance| fresh(instance)) {
            self.choose(table, seed, usable)?
        } else {
            self.choose(table, seed, fresh)?
        };
        Some(Pick { index, panicking })
    }

    fn choose(&mut self, table: &Table, seed: u64, usable: impl Fn(&Instance) -> bool) -> Option<usize> {
        match self.balance {
            Balance::RoundRobin => self.smooth(table, usable),
            Balance::Weighted => by_weight(table.instances(), seed, usable),
            Balance::LeastConnections => least_connections(table.instances(), seed, usable),
        }
    }

    /// Every usable instance earns its weight; the richest is picked and pays what all earned.
    fn smooth(&mut self, table: &Table, usable: impl Fn(&Instance) -> bool) -> Option<usize> {
        self.follow(table);
        let (mut total, mut best) = (0, None);
        for (index, instance) in table.instances().iter().enumerate().filter(|(_, i)| usable(i)) {
            let weight = i64::from(instance.weight());
            total += weight;
            self.credits[index].1 += weight;
            if best.is_none_or(|best: usize| self.credits[index].1 > self.credits[best].1) {
                best = Some(index);
            }
        }
        self.credits[best?].1 -= total;
        best
    }

    /// Carries credit over to a changed table. Allocates, once a change.
    fn follow(&mut self, table: &Table) {
        if self.version == table.version && self.credits.len() == table.instances.len() {
            return;
        }
        let old = std::mem::take(&mut self.credits);
        let credit = |id| old.iter().find(|(known, _)| *known == id).map_or(0, |(_, credit)| *credit);
        self.credits = table.instances.iter().map(|instance| (instance.id, credit(instance.id))).collect();
        self.version = table.version;
    }
}

fn by_weight(instances: &[Arc<Instance>], seed: u64, usable: impl Fn(&Instance) -> bool) -> Option<usize> {
    let weight = |instance: &Instance| if usable(instance) { u64::from(instance.weight()) } else { 0 };
    let total = instances.iter().map(|instance| weight(instance)).sum();
    let mut ticket = below(total, seed);
    instances.iter().position(|instance| {
        let weight = weight(instance);
        let hit = ticket < weight;
        ticket = ticket.saturating_sub(weight);
        hit
    })
}

fn least_connections(
    instances: &[Arc<Instance>],
    seed: u64,
    usable: impl Fn(&Instance) -> bool,
) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    let mut ties = 0;
    for (index, instance) in instances.iter().enumerate().filter(|(_, i)| usable(i)) {
        let (load, weight) = (u64::from(instance.in_flight()) + 1, u64::from(instance.weight()));
        let order = best.map(|(_, best_load, best_weight)| (load * best_weight).cmp(&(best_load * weight)));
        match order {
            None | Some(std::cmp::Ordering::Less) => {
                ties = 1;
                best = Some((index, load, weight));
            }
            Some(std::cmp::Ordering::Equal) => {
                ties += 1;
                if below(ties, seed ^ index as u64) == 0 {
                    best = Some((index, load, weight));
                }
            }
            Some(std::cmp::Ordering::Greater) => {}
        }
    }
    best.map(|(index, ..)| index)
}

#[cfg(test)]
mod tests;
