//! Which request an upstream works on next, and which has to wait or go.
//!
//! Purpose: a full upstream is kept from drowning, and what room it has goes to what matters most. All
//! services that share an upstream share its gate; each has a lane: cancel, order, query, analytics.
//!
//! Exact conditions:
//! - At most `limit` requests run at once, whoever sets it ([`crate::concurrency`] or the operator).
//!   **Cancels** are not held to it, only to `most`: they free room, and a limit that is too low must not
//!   keep anybody in a position.
//! - Every other lane present has a **share** of the limit: order 60, query 30, analytics 10, in proportion
//!   to what is present. A lane below its share gets the next free place before any lane above its own.
//!   Beyond the shares the higher lane goes first. A quarter of each higher lane's unused share stays free
//!   for it, so that its next request need not wait for a place.
//! - Who finds no place **waits**, at most `patience`, `queue` of them a lane. Places go to the account with
//!   the fewest requests running in the lane, then to who waits longest; so an account that sends fifty
//!   times as much waits for itself and the others hardly notice. A lane of queries or analytics that has
//!   had somebody waiting for longer than `patience` is overloaded: there the newest goes first, whose caller
//!   still listens. Orders keep their order.
//! - A full queue **sheds** the newest request of the account that waits with most.
//!
//! Cold start: empty. Recovery: by itself as requests end; nothing is remembered but who runs and waits.
//! Cost: O(1) a request that finds a place; O(waiting) where there is none. It allocates where an account
//! or a waiting request is more than there ever was.

mod lane;

use std::time::Duration;

use crate::time::Nanos;
use lane::{HELD, Queue, Ranked as _};
pub use sluice_schema::Lane;

/// Bounds of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Lanes of the services behind it; cancel always is.
    pub lanes: [bool; 4],
    /// Cancels at once; also the highest limit.
    pub most: u32,
    /// Waiting requests a lane.
    pub queue: usize,
    /// Longest wait.
    pub patience: Duration,
}

/// What happens to a request that arrives.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// It runs now.
    Runs(Seat),
    /// It waits under this number, until [`Gate::next`] names it or its `patience` ends. Another may have
    /// been turned away in its favour.
    Waits {
        /// Its place in the queue.
        ticket: Ticket,
        /// Who goes in its stead.
        sheds: Option<Ticket>,
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

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Counts up over the gate.
    pub number: u64,
    seat: Seat,
    since: Nanos,
}

/// The gate of one upstream.
#[derive(Debug)]
pub struct Gate {
    settings: Settings,
    running: u32,
    tickets: u64,
    queues: [Queue; 4],
}

impl Gate {
    /// An empty gate.
    pub fn new(settings: Settings) -> Self {
        Self { settings, running: 0, tickets: 0, queues: Default::default() }
    }

    /// Takes changed bounds; who runs and waits stays.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Requests that run.
    pub const fn running(&self) -> u32 {
        self.running
    }

    /// Requests of a lane that run, and that wait.
    pub fn of(&self, lane: Lane) -> (u32, usize) {
        let queue = &self.queues[lane as usize];
        (queue.running, queue.waiting.len())
    }

    /// A request of `account` arrives.
    pub fn enter(&mut self, lane: Lane, account: u64, limit: u32, now: Nanos) -> Entry {
        let seat = Seat { lane, account };
        if self.queues[lane as usize].waiting.is_empty() && self.has_room(lane, limit) {
            return Entry::Runs(self.seat(seat));
        }
        if lane == Lane::Cancel || self.settings.queue == 0 {
            return Entry::Shed;
        }
        let queue = &mut self.queues[lane as usize];
        let mut sheds = None;
        if queue.waiting.len() >= self.settings.queue {
            let Some(place) = queue.hoarder(account) else { return Entry::Shed };
            sheds = Some(queue.remove(place));
        }
        self.tickets += 1;
        let ticket = Ticket { number: self.tickets, seat, since: now };
        queue.push(ticket);
        Entry::Waits { ticket, sheds }
    }

    /// A request has ended. Ask [`Self::next`] who runs now, until nobody does.
    pub fn leave(&mut self, seat: Seat) {
        self.running -= 1;
        self.queues[seat.lane as usize].left(seat.account);
    }

    /// Who waits no longer; false where it had its place already.
    pub fn abandon(&mut self, ticket: Ticket) -> bool {
        let queue = &mut self.queues[ticket.seat.lane as usize];
        let place = queue.waiting.iter().position(|waiting| waiting.number == ticket.number);
        place.map(|place| queue.remove(place)).is_some()
    }

    /// The next that waits and may run.
    pub fn next(&mut self, limit: u32, now: Nanos) -> Option<(Ticket, Seat)> {
        let patience = self.settings.patience;
        let waits = |gate: &Self, lane: Lane| gate.queues[lane as usize].has_patient(now, patience);
        let below = |gate: &Self, lane: Lane| gate.of(lane).0 < gate.share(lane, limit);
        let held = HELD.into_iter();
        let lane = held
            .clone()
            .find(|lane| self.running < limit && below(self, *lane) && waits(self, *lane))
            .or_else(|| held.clone().find(|lane| waits(self, *lane) && self.has_room(*lane, limit)))?;
        let place = self.queues[lane as usize].pick(lane, now, patience)?;
        let ticket = self.queues[lane as usize].remove(place);
        Some((ticket, self.seat(ticket.seat)))
    }

    fn seat(&mut self, seat: Seat) -> Seat {
        self.running += 1;
        self.queues[seat.lane as usize].entered(seat.account);
        seat
    }

    /// Whether one more request of a lane may run now.
    fn has_room(&self, lane: Lane, limit: u32) -> bool {
        if lane == Lane::Cancel {
            return self.of(lane).0 < self.settings.most;
        }
        let kept: u32 = lane.held_above().map(|above| self.kept(above, limit)).sum();
        let owed = |other: Lane| {
            other != lane && self.of(other).1 > 0 && self.of(other).0 < self.share(other, limit)
        };
        self.running + kept < limit
            && (self.of(lane).0 < self.share(lane, limit) || !HELD.into_iter().any(owed))
    }

    /// Places of `limit` that a lane can count on; at least one where it is present.
    fn share(&self, lane: Lane, limit: u32) -> u32 {
        let present = |lane: &Lane| self.settings.lanes[*lane as usize];
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
        share.div_ceil(4).min(share.saturating_sub(self.of(lane).0))
    }
}

#[cfg(test)]
mod tests;
