//! The leases of all callers: a bounded table, and who of them wants a call to the store.
//!
//! Like the table of local states it is set-associative, eight slots a set, under the same keys. A caller
//! whose bucket is whole and who holds and owes nothing is indistinguishable from one never seen: his slot is
//! free. One that is not is never taken from its caller: a caller for whom there is no room is judged by this
//! edge alone, and counted. So an attacker with many names changes nothing for callers that are known, and the
//! store's buckets are bounded: one whose slot is free is whole, and expires there within
//! [`CROWDED`](super::lease::CROWDED).
//!
//! LIMIT: [`LEASES_MAX`] callers by default, 160 bytes each, allocated when edges share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::lease::{Ask, Granted, Lease, Taken, Terms};
use super::table::{Key, Threshold};
use crate::time::Nanos;

/// Callers at once, unless the shell asks for another number.
pub const LEASES_MAX: usize = 1 << 16;
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

/// The leases of all callers.
#[derive(Debug)]
pub struct Leases {
    shards: Box<[Mutex<Shard>]>,
    sets: usize,
    due: Mutex<VecDeque<Due>>,
    full: AtomicU64,
}

type Shard = Box<[[Slot; WAYS]]>;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u128,
    name: Name,
    lease: Lease,
}

impl Leases {
    /// Room for at least `callers`.
    pub fn new(callers: usize) -> Self {
        let sets = callers.div_ceil(SHARDS * WAYS).max(1);
        let shard = || Mutex::new(vec![[Slot::default(); WAYS]; sets].into_boxed_slice());
        let shards = (0..SHARDS).map(|_| shard()).collect();
        Self { shards, sets, due: Mutex::default(), full: AtomicU64::new(0) }
    }

    /// Decides about one request; `None` where there is no room for its caller. `name` makes the bucket's name,
    /// once for a caller that is not known. Holds one shard's lock for the time of it.
    pub fn take(
        &self,
        key: Key,
        threshold: Threshold,
        terms: &Terms,
        now: Nanos,
        name: impl FnOnce() -> Name,
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
            set[free] = Slot { key, name: name(), lease: Lease::default() };
            free
        };
        let taken = set[at].lease.take(terms, threshold, now);
        drop(shard);
        if taken.asks {
            self.push(Due { key, terms: *terms });
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

    /// The store's answer; when what is held now lapses, where nobody watches it yet.
    pub fn answer(&self, due: &Due, granted: Granted, now: Nanos) -> Option<Nanos> {
        let (again, lapses_at) =
            self.with(due, |slot| (slot.lease.answer(&due.terms, granted, now), slot.lease.to_watch()))?;
        if again {
            self.push(*due);
        }
        lapses_at
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

    /// The store is away: nothing is held, owed or asked any more.
    pub fn forget(&self) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.iter_mut().flatten().for_each(|slot| slot.lease.forget());
        }
    }

    /// Requests judged by this edge alone for want of room.
    pub fn full(&self) -> u64 {
        self.full.load(Relaxed)
    }

    /// Callers that are not idle.
    pub fn busy(&self, now: Nanos) -> usize {
        let busy = |shard: &Mutex<Shard>| {
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

    fn with<T>(&self, due: &Due, act: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let (shard, set) = self.place(due.key);
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        shard[set].iter_mut().find(|slot| slot.key == due.key).map(act)
    }

    fn place(&self, key: u128) -> (usize, usize) {
        ((key >> 64) as usize % SHARDS, ((key >> 70) as u64 % self.sets as u64) as usize)
    }
}
