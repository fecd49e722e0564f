//! One instance and its state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sluice_schema::InstanceUrl;

use super::ewma::Peak;
use super::rendezvous::stable_hash;
use crate::time::{Nanos, nanos};

/// One instance and its state. Shared by every generation of the table that lists its address.
#[derive(Debug)]
pub struct Instance {
    /// Number within its service, never reused, from 1.
    pub id: u32,
    /// Where it listens.
    pub url: InstanceUrl,
    /// What stands for it where keys are placed: the same in every process.
    pub(super) seat: u64,
    weight: AtomicU32,
    near: AtomicBool,
    unhealthy: AtomicBool,
    hold: AtomicU8,
    ejected_until: AtomicU64,
    /// Since when it takes up its share; 0: since ever.
    back_since: AtomicU64,
    in_flight: AtomicU32,
    ewma_us: AtomicU64,
    pub(super) peak: Peak,
    /// Counts changes of what can be picked, for its whole table.
    changes: Arc<AtomicU64>,
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
    /// An operator lets it run empty.
    Draining,
    /// An operator has taken it out.
    Maint,
}

/// What an operator wants of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// To be used.
    #[default]
    Ready,
    /// To take no new callers; requests under way and callers bound to it go on.
    Drain,
    /// To take nothing, and to be probed no more.
    Maint,
}

/// A request under way on an instance; dropping it ends it.
#[derive(Debug)]
#[must_use = "dropping it ends the request's count at once"]
pub struct Flight(Arc<Instance>);

impl Instance {
    pub(super) fn new(
        id: u32,
        want: &sluice_schema::Instance,
        back_since: Nanos,
        changes: Arc<AtomicU64>,
    ) -> Self {
        Self {
            id,
            seat: stable_hash(want.url.to_string().as_bytes()),
            url: want.url.clone(),
            weight: AtomicU32::new(want.weight),
            near: AtomicBool::new(false),
            unhealthy: AtomicBool::new(false),
            hold: AtomicU8::new(Hold::Ready as u8),
            ejected_until: AtomicU64::new(0),
            back_since: AtomicU64::new(back_since.0),
            in_flight: AtomicU32::new(0),
            ewma_us: AtomicU64::new(0),
            peak: Peak::default(),
            changes,
        }
    }

    pub(super) fn configure(&self, weight: u32, near: bool) {
        self.weight.store(weight, Relaxed);
        self.near.store(near, Relaxed);
    }

    /// Share of requests relative to its siblings.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Whether it is in the edge's own zone.
    pub fn is_near(&self) -> bool {
        self.near.load(Relaxed)
    }

    /// Records what its probes say. Back from a time of bad ones it takes up its share slowly.
    pub fn mark_healthy(&self, healthy: bool, now: Nanos) {
        let was_healthy = !self.unhealthy.swap(!healthy, Relaxed);
        if was_healthy != healthy {
            self.came_or_went(healthy, now);
        }
    }

    /// Whether its probes say healthy.
    pub fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Relaxed)
    }

    /// Leaves it alone until then; a moment that is past takes it back.
    pub fn eject_until(&self, until: Nanos) {
        self.ejected_until.store(until.0, Relaxed);
        self.changes.fetch_add(1, Relaxed);
    }

    /// Until when it is left alone; a moment that is past where it is not.
    pub fn ejected_until(&self) -> Nanos {
        Nanos(self.ejected_until.load(Relaxed))
    }

    /// Whether it is left alone now.
    pub fn is_ejected(&self, now: Nanos) -> bool {
        now < self.ejected_until()
    }

    /// Does as an operator says. Ready again, it takes up its share slowly.
    pub fn hold(&self, hold: Hold, now: Nanos) {
        let was = self.hold.swap(hold as u8, Relaxed);
        if was != hold as u8 {
            self.came_or_went(hold == Hold::Ready, now);
        }
    }

    /// What an operator wants of it.
    pub fn held(&self) -> Hold {
        match self.hold.load(Relaxed) {
            1 => Hold::Drain,
            2 => Hold::Maint,
            _ => Hold::Ready,
        }
    }

    /// Whether it is well: its probes say so and it is not ejected.
    pub fn is_well(&self, now: Nanos) -> bool {
        self.is_healthy() && !self.is_ejected(now)
    }

    /// Whether it may take any request outside of a panic.
    pub fn is_available(&self, now: Nanos) -> bool {
        self.held() == Hold::Ready && self.is_well(now)
    }

    /// The state an operator reads.
    pub fn state(&self, now: Nanos) -> InstanceState {
        match (self.held(), self.is_healthy(), self.is_ejected(now)) {
            (Hold::Maint, ..) => InstanceState::Maint,
            (Hold::Drain, ..) => InstanceState::Draining,
            (Hold::Ready, false, _) => InstanceState::Unhealthy,
            (Hold::Ready, true, true) => InstanceState::Ejected,
            (Hold::Ready, true, false) => InstanceState::Healthy,
        }
    }

    /// How long it has been taking up its share; `None` where it never was away.
    pub(super) fn back_for(&self, now: Nanos) -> Option<Duration> {
        let since = self.back_since.load(Relaxed).max(self.ejected_until.load(Relaxed));
        (since > 0).then(|| now.since(Nanos(since)))
    }

    fn came_or_went(&self, came: bool, now: Nanos) {
        if came {
            // 0 means never away.
            self.back_since.store(now.0.max(1), Relaxed);
        }
        self.changes.fetch_add(1, Relaxed);
    }

    /// Requests under way, streams and tunnels included.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Counts a request until the returned value is dropped.
    pub fn begin(self: &Arc<Self>) -> Flight {
        self.in_flight.fetch_add(1, Relaxed);
        Flight(Arc::clone(self))
    }

    /// Adds a latency to the moving average (weight 1/8) and to the cost. Two threads at once may lose one
    /// sample.
    pub fn observe(&self, latency: Duration, now: Nanos) {
        self.average(latency);
        self.peak.observe(latency, now);
    }

    /// A try at it failed after this time: that is as dear as an answer after [`super::FAILURE_COST`] at least,
    /// or an instance that refuses quickly would draw all requests.
    pub fn observe_failure(&self, took: Duration, now: Nanos) {
        self.peak.observe(took.max(super::FAILURE_COST), now);
    }

    /// Takes over an average that another process made.
    pub fn average(&self, latency: Duration) {
        let sample = (nanos(latency) / 1000).min(u64::MAX >> 4);
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
            Self::Draining => "draining",
            Self::Maint => "maint",
        }
    }
}

impl Hold {
    /// The word in the path of the call that asks for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// What a word asks for.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Ready, Self::Drain, Self::Maint].into_iter().find(|hold| hold.as_str() == word)
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
