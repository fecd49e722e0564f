//! Which request an upstream works on next, and which has to wait or go.
//!
//! Purpose: a full upstream is kept from drowning, and what room it has goes to what matters most. All
//! services that share an upstream share its gate; each has a lane: cancel, order, query, analytics.
//!
//! Exact conditions:
//! - At most `limit` requests run at once, whoever sets it ([`crate::concurrency`] or the operator).
//!   **Cancels** are not held to it, never wait and are never shed: they free room, and a limit that is too
//!   low must not keep anybody in a position. They count, so that less room is left for the others.
//! - Every other lane present has a **share** of the limit: order 60, query 30, analytics 10, in proportion
//!   to what is present. While a lane below its share waits, no lane takes a place beyond its own; of
//!   several below, and of several beyond, the higher goes first. A quarter of each higher lane's unused
//!   share stays free of what a lower one takes beyond its own, so that the next order need not wait.
//! - The last eighth of the limit is for **accounts that have nothing running** in the lane: whoever holds
//!   places for long, as a client that sends its body slowly, leaves others a way through.
//! - Who finds no place **waits**, at most `patience`, with `queue` in the lane. Places go to the account
//!   with the fewest requests running in the lane, then to who waits longest; so an account that sends fifty
//!   times as much waits for itself and the others hardly notice. A lane of queries or analytics in which
//!   somebody has waited for more than half of it is overloaded: there the newest goes first, which can still be
//!   in time. Orders keep their order.
//! - A full queue **sheds** the newest request of the account that waits with most.
//!
//! A limit below the number of lanes present is too small to be shared: each place goes to the highest lane
//! that waits, and those below may wait in vain.
//!
//! Cold start: empty. Recovery: by itself as requests end; nothing is remembered but who runs and waits.
//! Cost: O(1) a request that finds a place; O(waiting) where there is none. It allocates where an account
//! or a waiting request is more than there ever was.

mod lane;

use std::time::Duration;

use crate::time::Nanos;
use lane::{HELD, Queue, Ranked as _, Waiter};
pub use sluice_schema::Lane;

/// A request at the gate.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Its lane.
    pub lane: Lane,
    /// Its account, as a keyed hash.
    pub account: u64,
    /// How many may wait in the lane for this one to wait too.
    pub queue: usize,
    /// How long it waits.
    pub patience: Duration,
}

/// What happens to a request that arrives.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<W> {
    /// It runs now.
    Runs(Seat),
    /// It waits, until [`Gate::next`] names it or its `patience` ends.
    Waits {
        /// Its place in the queue.
        ticket: Ticket,
        /// Who is turned away in its favour.
        sheds: Option<W>,
    },
    /// It goes.
    Shed,
}

/// A request that runs; give it back to [`Gate::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a seat that is not given back stays taken"]
pub struct Seat {
    lane: Lane,
    account: u64,
}

impl Seat {
    /// The lane it runs in.
    pub const fn lane(self) -> Lane {
        self.lane
    }
}

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    lane: Lane,
    /// Counts up over the gate.
    number: u64,
}

/// How full a lane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that run.
    pub running: u32,
    /// Requests that wait.
    pub waiting: usize,
}

/// The gate of one upstream. A request that waits leaves a `W` to be woken by.
#[derive(Debug)]
pub struct Gate<W> {
    lanes: [bool; 4],
    running: u32,
    tickets: u64,
    queues: [Queue<W>; 4],
}

impl<W> Gate<W> {
    /// An empty gate for these lanes; cancel always is one.
    pub fn new(lanes: [bool; 4]) -> Self {
        Self { lanes, running: 0, tickets: 0, queues: Default::default() }
    }

    /// Takes changed lanes; who runs and waits stays.
    pub fn configure(&mut self, lanes: [bool; 4]) {
        self.lanes = lanes;
    }

    /// Requests that run.
    pub const fn running(&self) -> u32 {
        self.running
    }

    /// How full a lane is.
    pub fn load(&self, lane: Lane) -> Load {
        let queue = &self.queues[lane as usize];
        Load { running: queue.running, waiting: queue.waiting.len() }
    }

    /// A request arrives. `waiter` is made where it has to wait; then ask [`Self::next`] too, as it may have
    /// come behind others who are too late by now.
    pub fn enter(&mut self, ask: &Ask, limit: u32, now: Nanos, waiter: impl FnOnce() -> W) -> Entry<W> {
        let Ask { lane, account, queue: places, patience } = *ask;
        let queue = &self.queues[lane as usize];
        let first = lane == Lane::Cancel || !queue.has_patient(now);
        if first && self.may_run(lane, queue.runs(account), limit, now) {
            return Entry::Runs(self.seat(lane, account));
        }
        let queue = &mut self.queues[lane as usize];
        let mut sheds = None;
        if queue.waiting.len() >= places {
            let Some(place) = queue.hoarder(account).filter(|_| places > 0) else { return Entry::Shed };
            sheds = Some(queue.remove(place).wake);
        }
        self.tickets += 1;
        let number = self.tickets;
        queue.push(Waiter { number, account, since: now, patience, wake: waiter() });
        Entry::Waits { ticket: Ticket { lane, number }, sheds }
    }

    /// A request has ended. Ask [`Self::next`] who runs now, until nobody does.
    pub fn leave(&mut self, seat: Seat) {
        self.running -= 1;
        self.queues[seat.lane as usize].left(seat.account);
    }

    /// Who waits no longer; false where it was named or shed already.
    pub fn abandon(&mut self, ticket: Ticket) -> bool {
        let queue = &mut self.queues[ticket.lane as usize];
        let place = queue.waiting.binary_search_by_key(&ticket.number, |waiter| waiter.number);
        place.map(|place| queue.remove(place)).is_ok()
    }

    /// The next that waits and may run.
    pub fn next(&mut self, limit: u32, now: Nanos) -> Option<(W, Seat)> {
        let (lane, place) = HELD.into_iter().find_map(|lane| {
            let queue = &self.queues[lane as usize];
            let (place, running) = queue.pick(lane, now)?;
            self.may_run(lane, running > 0, limit, now).then_some((lane, place))
        })?;
        let waiter = self.queues[lane as usize].remove(place);
        Some((waiter.wake, self.seat(lane, waiter.account)))
    }

    fn seat(&mut self, lane: Lane, account: u64) -> Seat {
        self.running += 1;
        self.queues[lane as usize].entered(account);
        Seat { lane, account }
    }

    /// Whether one more request of a lane may run now; `runs`: its account has one already.
    fn may_run(&self, lane: Lane, runs: bool, limit: u32, now: Nanos) -> bool {
        if lane == Lane::Cancel {
            return true;
        }
        let free = limit.saturating_sub(self.running).saturating_sub(if runs { limit / 8 } else { 0 });
        if self.is_below(lane, limit) {
            return free > 0 && !lane.held_above().any(|above| self.is_owed(above, limit, now));
        }
        let kept: u32 = lane.held_above().map(|above| self.kept(above, limit)).sum();
        free > kept && !HELD.into_iter().any(|other| other != lane && self.is_owed(other, limit, now))
    }

    fn is_below(&self, lane: Lane, limit: u32) -> bool {
        self.queues[lane as usize].running < self.share(lane, limit)
    }

    /// Whether a lane waits that has not its share.
    fn is_owed(&self, lane: Lane, limit: u32, now: Nanos) -> bool {
        self.queues[lane as usize].has_patient(now) && self.is_below(lane, limit)
    }

    /// Places of `limit` that a lane can count on; at least one where it is present.
    fn share(&self, lane: Lane, limit: u32) -> u32 {
        let present = |lane: &Lane| self.lanes[*lane as usize];
        let all: u32 = HELD.iter().filter(|lane| present(lane)).map(|lane| lane.weight()).sum();
        if !present(&lane) || all == 0 {
            return 0;
        }
        let share = u64::from(limit) * u64::from(lane.weight()) / u64::from(all);
        (share as u32).max(1)
    }

    /// Places kept free for a lane: of a quarter of its share what it does not use.
    fn kept(&self, lane: Lane, limit: u32) -> u32 {
        let share = self.share(lane, limit);
        (share / 4).min(share.saturating_sub(self.queues[lane as usize].running))
    }
}

#[cfg(test)]
mod tests;
