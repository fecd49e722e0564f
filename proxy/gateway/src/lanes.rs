//! The gates of the upstreams: who goes to one now, who waits, who is turned away.
//!
//! `sluice_policy::gate` decides; here is its lock, the clock and how a request waits. Services with the same
//! instances share a gate, whatever their names. A place is a guard: it is given back when the upstream has
//! done its part, or when whoever held it is dropped. A request that waits holds the receiving end of a
//! channel; whoever gives a place back sends it there, after the lock. So no lock is held over an await, and
//! a waiter that left meanwhile gives what was sent to it back by dropping it.

mod gates;
mod lent;
mod route;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_policy::concurrency::{Adaptive, Ended};
use sluice_policy::gate::{Ask, Entry, Gate, Lane, Load, Seat, Ticket};
use tokio::sync::oneshot;

use crate::{clock, ids};

pub(crate) use gates::Gates;
pub(crate) use lent::Lent;
pub(crate) use route::{Approach, Came, Pass, Refused, Waiting};

/// What a request that waits is woken by.
type Wake = oneshot::Sender<Place>;

/// The gate of one upstream.
pub(crate) struct Crossing {
    state: Mutex<State>,
    shed: [AtomicU64; 4],
}

struct State {
    gate: Gate<Wake>,
    limit: Limit,
}

/// How many requests run at once.
enum Limit {
    Fixed(u32),
    Adaptive(Box<Adaptive>),
}

/// What a gate is to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Lanes of the routes behind it.
    pub(crate) lanes: [bool; 4],
    /// A limit that is set; `None` where it follows the latency.
    pub(crate) fixed: Option<u32>,
    /// Bound of one that follows.
    pub(crate) most: u32,
}

/// What a gate shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    /// Requests at once.
    pub(crate) limit: u32,
    /// Whether the limit follows the latency.
    pub(crate) adaptive: bool,
    /// Of every lane: how full it is, and how many it has turned away.
    pub(crate) lanes: [(Load, u64); 4],
}

impl Limit {
    fn now(&self) -> u32 {
        match self {
            Self::Fixed(limit) => *limit,
            Self::Adaptive(adaptive) => adaptive.limit(),
        }
    }

    fn configure(&mut self, bounds: &Bounds) {
        match (self, bounds.fixed) {
            (Self::Adaptive(adaptive), None) => adaptive.configure(bounds.most),
            (limit, _) => *limit = Self::new(bounds),
        }
    }

    fn new(bounds: &Bounds) -> Self {
        match bounds.fixed {
            Some(limit) => Self::Fixed(limit),
            None => Self::Adaptive(Box::new(Adaptive::new(bounds.most, clock::now()))),
        }
    }
}

/// What became of a request at the gate.
enum Entered {
    Runs(Place),
    Waits(Ticket, oneshot::Receiver<Place>),
    Shed,
}

impl Crossing {
    fn new(bounds: &Bounds) -> Arc<Self> {
        let state = State { gate: Gate::new(bounds.lanes), limit: Limit::new(bounds) };
        Arc::new(Self { state: Mutex::new(state), shed: Default::default() })
    }

    /// Takes changed bounds; who runs and waits stays, and who may run now does.
    fn configure(self: &Arc<Self>, bounds: &Bounds) {
        let mut state = self.lock();
        state.gate.configure(bounds.lanes);
        state.limit.configure(bounds);
        let woken = state.woken();
        drop(state);
        self.wake(woken);
    }

    /// Goes on from a limit that a predecessor found.
    pub(crate) fn resume(&self, limit: u32) {
        if let Limit::Adaptive(adaptive) = &mut self.lock().limit {
            adaptive.resume(limit);
        }
    }

    /// The limit, where it was found and not set.
    pub(crate) fn found(&self) -> Option<u32> {
        match &self.lock().limit {
            Limit::Adaptive(adaptive) => Some(adaptive.limit()),
            Limit::Fixed(_) => None,
        }
    }

    /// The gate as it is.
    pub(crate) fn shown(&self) -> Shown {
        let state = self.lock();
        let lane = |lane: Lane| (state.gate.load(lane), self.shed[lane as usize].load(Ordering::Relaxed));
        Shown {
            limit: state.limit.now(),
            adaptive: matches!(state.limit, Limit::Adaptive(_)),
            lanes: Lane::ALL.map(lane),
        }
    }

    fn enter(self: &Arc<Self>, ask: &Ask) -> Entered {
        let now = clock::now();
        let mut receiver = None;
        let waiter = || {
            let (wake, woken) = oneshot::channel();
            receiver = Some(woken);
            wake
        };
        let mut state = self.lock();
        let limit = state.limit.now();
        let entry = state.gate.enter(ask, limit, now, waiter);
        let woken = if matches!(entry, Entry::Waits { .. }) { state.woken() } else { Vec::new() };
        drop(state);
        self.wake(woken);
        match (entry, receiver) {
            (Entry::Runs(seat), _) => Entered::Runs(Place { crossing: Arc::clone(self), seat: Some(seat) }),
            // Whose channel is dropped with `sheds` learns that it was turned away.
            (Entry::Waits { ticket, .. }, Some(woken)) => Entered::Waits(ticket, woken),
            _ => Entered::Shed,
        }
    }

    fn leave(self: &Arc<Self>, seat: Seat, ended: Ended) {
        let mut state = self.lock();
        let running = state.gate.running();
        if let Limit::Adaptive(adaptive) = &mut state.limit {
            adaptive.ended(seat.lane(), ended, running, clock::now(), ids::random());
        }
        state.gate.leave(seat);
        let woken = state.woken();
        drop(state);
        self.wake(woken);
    }

    /// Who waits no longer; false where a place is on its way to it, or it was turned away.
    fn abandon(self: &Arc<Self>, ticket: Ticket) -> bool {
        let mut state = self.lock();
        let waited = state.gate.abandon(ticket);
        // Others may have waited for this one to go first.
        let woken = state.woken();
        drop(state);
        self.wake(woken);
        waited
    }

    /// Sends places to those whose turn it is. Who is no longer there drops what is sent to it.
    fn wake(self: &Arc<Self>, woken: Vec<(Wake, Seat)>) {
        for (wake, seat) in woken {
            drop(wake.send(Place { crossing: Arc::clone(self), seat: Some(seat) }));
        }
    }

    fn count_shed(&self, lane: Lane) {
        self.shed[lane as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Those whose turn it is. No allocation where nobody waits.
    fn woken(&mut self) -> Vec<(Wake, Seat)> {
        let (limit, now) = (self.limit.now(), clock::now());
        std::iter::from_fn(|| self.gate.next(limit, now)).collect()
    }
}

/// A place at an upstream. Dropped without a word of how it ended, it tells the limit nothing.
struct Place {
    crossing: Arc<Crossing>,
    seat: Option<Seat>,
}

impl Place {
    fn left(mut self, ended: Ended) {
        if let Some(seat) = self.seat.take() {
            self.crossing.leave(seat, ended);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            self.crossing.leave(seat, Ended::Unknown);
        }
    }
}
