//! The leases of all callers: a bounded table, and who of them wants a call to the store.
//!
//! Like the table of local states it is set-associative, eight slots a set, under the same keys. A caller
//! whose bucket is whole and who holds and owes nothing is indistinguishable from one never seen: his slot is
//! free. One that is not is never taken from its caller: a caller for whom there is no room is judged by this
//! edge alone, and counted. So an attacker with many names changes nothing for callers that are known, and the
//! store's buckets are bounded: one whose slot is free is whole, and expires there.
//!
//! Requests that wait for the store's answer stand in a queue of their bucket, each with what wakes it (`W`); they are
//! registered and decided under the same lock, so no answer passes one by. A bucket has no more of them than it may
//! have requests left.
//!
//! LIMIT: [`LEASES_MAX`] callers by default, 160 bytes each, allocated when edges share; [`WAITERS_MAX`] requests
//! that wait, [`WAITERS_OF_ONE`] of them for one bucket.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::lease::{Ask, Granted, Lease, Outcome, Room, Taken, Terms};
use super::table::{Key, Threshold};
use crate::time::Nanos;

/// Callers at once, unless the shell asks for another number.
pub const LEASES_MAX: usize = 1 << 16;
/// LIMIT: requests that wait for an answer, of all buckets and of one.
pub const WAITERS_MAX: usize = 1 << 14;
/// The same, of one bucket, so that it leaves room for others.
pub const WAITERS_OF_ONE: usize = 1 << 12;
const SHARDS: usize = 64;
const WAYS: usize = 8;
/// Tells the bucket of a `hard` threshold from that of the same caller's other one.
const HARD: u128 = 0x5bd1_e995_9e37_79b9_85eb_ca6b_c2b2_ae35;

/// A bucket's name in the store: the same at every edge, and nobody's.
pub type Name = [u8; 16];

/// A bucket for which a call is wanted, or whose lease is to be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    key: u128,
    /// How it is counted.
    pub terms: Terms,
}

/// A request that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    due: Due,
    number: u64,
}

/// The leases of all callers. `W` wakes a request that waits.
#[derive(Debug)]
pub struct Leases<W = ()> {
    shards: Box<[Mutex<Shard<W>>]>,
    sets: usize,
    due: Mutex<VecDeque<Due>>,
    tickets: AtomicU64,
    waiting: AtomicUsize,
    full: AtomicU64,
}

type Shard<W> = Box<[[Slot<W>; WAYS]]>;

#[derive(Debug)]
struct Slot<W> {
    key: u128,
    name: Name,
    lease: Lease,
    /// As many as the lease says, in its order.
    queue: VecDeque<(u64, W)>,
}

impl<W> Default for Slot<W> {
    fn default() -> Self {
        Self { key: 0, name: Name::default(), lease: Lease::default(), queue: VecDeque::new() }
    }
}

/// What an answer has come to.
#[derive(Debug)]
pub struct Answered<W> {
    /// When what is held now lapses, where nobody watches it yet.
    pub lapses_at: Option<Nanos>,
    /// Those who waited and are decided.
    pub decided: Vec<(W, Taken)>,
}

impl<W> Leases<W> {
    /// Room for at least `callers`.
    pub fn new(callers: usize) -> Self {
        let sets = callers.div_ceil(SHARDS * WAYS).max(1);
        let set = || std::array::from_fn(|_| Slot::default());
        let shard = || Mutex::new(std::iter::repeat_with(set).take(sets).collect());
        let shards = (0..SHARDS).map(|_| shard()).collect();
        let (tickets, waiting, full) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicU64::new(0));
        Self { shards, sets, due: Mutex::default(), tickets, waiting, full }
    }

    /// Decides about one request; `None` where there is no room for its caller. `here` is how many requests of its
    /// bucket the edge's own table would let pass now. `name` makes the bucket's name, once for a caller that is not
    /// known; `wakes` what wakes the request, where it waits. Holds one shard's lock for the time of it.
    #[expect(
        clippy::too_many_arguments,
        reason = "a request, its bucket, and how to make what they seldom need"
    )]
    pub fn take(
        &self,
        key: Key,
        threshold: Threshold,
        terms: &Terms,
        here: u64,
        now: Nanos,
        name: impl FnOnce() -> Name,
        wakes: impl FnOnce(Ticket) -> W,
    ) -> Option<Taken> {
        let key = if threshold == Threshold::Hard { key.bits() ^ HARD } else { key.bits() };
        let (shard, set) = self.place(key);
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let set = &mut shard[set];
        let at = if let Some(at) = set.iter().position(|slot| slot.key == key) {
            at
        } else {
            let Some(free) = set.iter().position(|slot| slot.lease.is_idle(now)) else {
                self.full.fetch_add(1, Relaxed);
                return None;
            };
            set[free] = Slot { key, name: name(), ..Slot::default() };
            free
        };
        let slot = &mut set[at];
        let waits = slot.queue.len() < WAITERS_OF_ONE && self.waiting() < WAITERS_MAX;
        let taken = slot.lease.take(terms, threshold, Room { here, waits }, now);
        let due = Due { key, terms: *terms };
        if taken.outcome == Outcome::Waits {
            let number = self.tickets.fetch_add(1, Relaxed);
            slot.queue.push_back((number, wakes(Ticket { due, number })));
            self.waiting.fetch_add(1, Relaxed);
        }
        drop(shard);
        if taken.asks {
            self.push(due);
        }
        Some(taken)
    }

    /// The buckets for which calls are wanted, the longest waiting first, at most so many.
    pub fn due(&self, most: usize) -> Vec<Due> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let count = most.min(due.len());
        due.drain(..count).collect()
    }

    /// What to ask of the store for one of them, and by which name.
    pub fn ask(&self, due: &Due, now: Nanos) -> Option<(Name, Ask)> {
        self.with(due, |slot| (slot.name, slot.lease.ask(&due.terms, now)))
    }

    /// The store's answer.
    pub fn answer(&self, due: &Due, granted: Granted, now: Nanos) -> Answered<W> {
        let mut decided = Vec::new();
        let lapses_at = self.with(due, |slot| {
            let Slot { lease, queue, .. } = slot;
            let again = lease.answer(&due.terms, granted, now, |taken| {
                decided.extend(queue.pop_front().map(|(_, wakes)| (wakes, taken)));
            });
            if queue.is_empty() {
                *queue = VecDeque::new();
            }
            (again, lease.to_watch())
        });
        self.waiting.fetch_sub(decided.len(), Relaxed);
        if lapses_at.is_some_and(|(again, _)| again) {
            self.push(*due);
        }
        Answered { lapses_at: lapses_at.and_then(|(_, at)| at), decided }
    }

    /// A request waits no longer, and does not pass. What was decided about it meanwhile is counted.
    pub fn leave(&self, ticket: &Ticket) {
        self.with_waiting(ticket, Lease::leave);
    }

    /// A request has waited for too long: it passes, as far as the store is concerned. `None` where it is decided, or
    /// the store is away.
    pub fn late(&self, ticket: &Ticket, now: Nanos) -> Option<Taken> {
        self.with_waiting(ticket, |lease| lease.late(&ticket.due.terms, now))
    }

    /// A request that waited, and was admitted, did not pass for another reason.
    pub fn give_back(&self, ticket: &Ticket, now: Nanos) -> bool {
        let asks = self.with(&ticket.due, |slot| slot.lease.give_back(now)).unwrap_or(false);
        if asks {
            self.push(ticket.due);
        }
        asks
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Looks whether a watched lease has lapsed; what is left of it is given back with the next calls. When to look
    /// again, where something is held.
    pub fn watch(&self, due: &Due, now: Nanos) -> Option<Nanos> {
        let (later, asks) = self.with(due, |slot| slot.lease.look(now))?;
        if asks {
            self.push(*due);
        }
        later
    }

    /// The store is away: nothing is held, owed or asked any more, and nobody waits.
    pub fn forget(&self) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for shard in &self.shards {
            let mut left = Vec::new();
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in shard.iter_mut().flatten() {
                slot.lease.forget();
                left.extend(std::mem::take(&mut slot.queue));
            }
            drop(shard);
            self.waiting.fetch_sub(left.len(), Relaxed);
        }
    }

    /// Requests judged by this edge alone for want of room.
    pub fn full(&self) -> u64 {
        self.full.load(Relaxed)
    }

    /// Callers that are not idle.
    pub fn busy(&self, now: Nanos) -> usize {
        let busy = |shard: &Mutex<Shard<W>>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.iter().flatten().filter(|slot| !slot.lease.is_idle(now)).count()
        };
        self.shards.iter().map(busy).sum()
    }

    /// How many callers fit.
    pub fn capacity(&self) -> usize {
        self.sets * SHARDS * WAYS
    }

    fn push(&self, due: Due) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).push_back(due);
    }

    /// Acts for one that waits, and takes it out of its queue.
    fn with_waiting<T>(&self, ticket: &Ticket, act: impl FnOnce(&mut Lease) -> T) -> Option<T> {
        let found = self.with(&ticket.due, |slot| {
            let at = slot.queue.iter().position(|(number, _)| *number == ticket.number)?;
            let wakes = slot.queue.remove(at);
            Some((act(&mut slot.lease), wakes))
        });
        let (done, _wakes) = found.flatten()?;
        self.waiting.fetch_sub(1, Relaxed);
        Some(done)
    }

    fn with<T>(&self, due: &Due, act: impl FnOnce(&mut Slot<W>) -> T) -> Option<T> {
        let (shard, set) = self.place(due.key);
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        shard[set].iter_mut().find(|slot| slot.key == due.key).map(act)
    }

    fn place(&self, key: u128) -> (usize, usize) {
        ((key >> 64) as usize % SHARDS, ((key >> 70) as u64 % self.sets as u64) as usize)
    }
}
