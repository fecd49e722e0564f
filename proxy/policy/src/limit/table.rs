//! The callers' states: a bounded table that forgets idle callers by itself.
//!
//! A caller whose TAT has passed is indistinguishable from one never seen, so its slot is free: idle
//! keys cost nothing to evict and eviction of them changes no decision. The table is set-associative,
//! as a processor's cache is: a key may lie in one of eight slots of its set. A new key takes a free
//! slot of its set, else the slot of the caller closest to idle, which then starts anew with a full
//! burst; `evicted` counts these. So every request costs at most eight comparisons and one short
//! lock, whatever the number of callers, and nothing is ever swept.
//!
//! Keys are 128-bit keyed hashes (twice SipHash under the process's seed): a caller can neither choose
//! its set nor find another caller's key; two callers meet by chance once in 2^64 pairs.
//!
//! LIMIT: [`KEYS_MAX`] callers by default, 48 bytes each, allocated at the start.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use sluice_schema::RateKey;

use super::lease::{Outcome, Taken};
use super::{AHEAD_MAX, Decision, Limit, ticks};
use crate::time::Nanos;

/// Callers remembered at once, unless the shell asks for another number.
pub const KEYS_MAX: usize = 1 << 17;
const SHARDS: usize = 64;
const WAYS: usize = 8;

/// Whose bucket a request takes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// The verified subject.
    Subject(&'a str),
    /// The client's address; IPv6 counts by /64.
    Address(IpAddr),
    /// The value of the configured header.
    Header(&'a [u8]),
    /// One bucket for all.
    Everybody,
}

/// Makes keys. The seed comes from the shell and is drawn anew at each start.
#[derive(Clone, Copy, Debug)]
pub struct Keyer {
    seed: [u64; 2],
}

/// One caller at one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u128);

/// A caller that is not idle, on its way to another process. Times are ticks from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debt {
    /// Its key.
    pub key: u128,
    /// Until the soft limit's burst is whole again.
    pub soft: u64,
    /// Until the hard limit's is.
    pub hard: u64,
}

impl Key {
    /// All of it.
    pub(super) const fn bits(self) -> u128 {
        self.0
    }
}

/// Which of a limit's two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// Past it requests are refused.
    Soft,
    /// Past it the connection closes.
    Hard,
}

/// What the table says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The limiter's decision; never allowed past `hard`.
    pub decision: Decision,
    /// The caller is past `hard`: answer, then close.
    pub close: bool,
    /// Others decide later: the request was not taken from this table, [`Table::settle`] does it then.
    pub waits: bool,
}

/// The states of all callers.
#[derive(Debug)]
pub struct Table {
    shards: Box<[Mutex<Shard>]>,
    sets: usize,
    evicted: AtomicU64,
}

type Shard = Box<[[Slot; WAYS]]>;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u128,
    tat: u64,
    hard_tat: u64,
    /// What a request cost under the limits that made them; 0: not known.
    cost: u64,
    hard_cost: u64,
}

impl<'a> Who<'a> {
    /// Whose bucket a rule names, from what is known about the request. `header` is the value of the
    /// configured header and is asked for only where the rule names one.
    pub fn of(
        rule: &RateKey,
        subject: Option<&'a str>,
        address: IpAddr,
        header: impl FnOnce(&str) -> Option<&'a [u8]>,
    ) -> Self {
        match rule {
            RateKey::Client => subject.map_or(Self::Address(address), Self::Subject),
            RateKey::Ip => Self::Address(address),
            RateKey::Service => Self::Everybody,
            RateKey::Subject => subject.map_or(Self::Everybody, Self::Subject),
            RateKey::Header(name) => header(name).map_or(Self::Everybody, Self::Header),
        }
    }
}

impl Who<'_> {
    /// Writes what a caller's bucket is called by every edge: the same bytes for the same caller of a scope, and for
    /// nobody else. They name the caller in clear.
    pub fn name(self, scope: &str, threshold: Threshold, mut write: impl FnMut(&[u8])) {
        write(&(scope.len() as u64).to_be_bytes());
        write(scope.as_bytes());
        let hard = u8::from(threshold == Threshold::Hard);
        match self {
            Who::Subject(subject) => [&[hard, 1][..], subject.as_bytes()].into_iter().for_each(write),
            Who::Address(address) => {
                let (is_v6, network) = network(address);
                [&[hard, 2, u8::from(is_v6)][..], &network.to_be_bytes()].into_iter().for_each(write);
            }
            Who::Header(value) => [&[hard, 3][..], value].into_iter().for_each(write),
            Who::Everybody => write(&[hard, 4]),
        }
    }
}

impl Keyer {
    /// Takes two random words.
    pub const fn new(seed: [u64; 2]) -> Self {
        Self { seed }
    }

    /// The words it was made with.
    pub const fn seed(&self) -> [u64; 2] {
        self.seed
    }

    /// The key of a caller at a service (or other scope). No allocation.
    pub fn key(&self, scope: &str, who: Who<'_>) -> Key {
        let [high, low] = self.seed.map(|seed| hash(seed, scope, who));
        Key(u128::from(high) << 64 | u128::from(low))
    }

    /// Half of that key, where few callers are told apart at once, at half its cost.
    pub fn short_key(&self, scope: &str, who: Who<'_>) -> u64 {
        hash(self.seed[1], scope, who)
    }
}

fn hash(seed: u64, scope: &str, who: Who<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    scope.hash(&mut hasher);
    match who {
        Who::Subject(subject) => (1_u8, subject).hash(&mut hasher),
        Who::Address(address) => (2_u8, network(address)).hash(&mut hasher),
        Who::Header(value) => (3_u8, value).hash(&mut hasher),
        Who::Everybody => 4_u8.hash(&mut hasher),
    }
    hasher.finish()
}

impl Slot {
    /// What a limit says of a request, and the state that it leaves.
    fn check(&mut self, limit: &Limit, now: Nanos) -> (Decision, u64) {
        self.tat = limit.soft.take_over(now, self.tat, self.cost);
        self.cost = limit.soft.cost;
        limit.soft.check(now, self.tat)
    }

    /// Keeps that state, unless others keep the request from passing.
    const fn keep(&mut self, passes_here: bool, passes: bool, tat: u64) {
        if passes || !passes_here {
            self.tat = tat;
        }
    }
}

impl Table {
    /// Room for at least `keys` callers.
    pub fn new(keys: usize) -> Self {
        let sets = keys.div_ceil(SHARDS * WAYS).max(1);
        let shard = || Mutex::new(vec![[Slot::default(); WAYS]; sets].into_boxed_slice());
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), sets, evicted: AtomicU64::new(0) }
    }

    /// Everybody who is not idle. Holds one shard's lock at a time.
    pub fn debts(&self, now: Nanos) -> Vec<Debt> {
        let now = ticks(now);
        let mut debts = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let owing = shard.iter().flatten().filter(|slot| slot.tat.max(slot.hard_tat) > now);
            debts.extend(owing.map(|slot| Debt {
                key: slot.key,
                soft: slot.tat.saturating_sub(now),
                hard: slot.hard_tat.saturating_sub(now),
            }));
        }
        debts
    }

    /// Takes over what another process's table knew, by a keyer of the same seed.
    pub fn take(&self, debts: &[Debt], now: Nanos) {
        let at = |ahead: u64| if ahead == 0 { 0 } else { ticks(now).saturating_add(ahead.min(AHEAD_MAX)) };
        for debt in debts {
            let (shard, set) = self.place(Key(debt.key));
            let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
            let slot = self.slot(&mut shard[set], Key(debt.key), now);
            (slot.tat, slot.hard_tat) = (slot.tat.max(at(debt.soft)), slot.hard_tat.max(at(debt.hard)));
        }
    }

    fn place(&self, key: Key) -> (usize, usize) {
        ((key.0 >> 64) as usize % SHARDS, ((key.0 >> 70) as u64 % self.sets as u64) as usize)
    }

    /// Decides about one request and remembers it. Holds one shard's lock for the time of it.
    pub fn check(&self, key: Key, limit: &Limit, now: Nanos) -> Verdict {
        self.check_with(key, limit, now, |_, _| None)
    }

    /// The same where others have a say: `shared` is asked once for each threshold that a request passes here, with how
    /// many would pass here at present, and may refuse it, or have it wait. What is refused by one counts for none but
    /// `hard`, which counts every request that it lets pass.
    pub fn check_with(
        &self,
        key: Key,
        limit: &Limit,
        now: Nanos,
        mut shared: impl FnMut(Threshold, u64) -> Option<Taken>,
    ) -> Verdict {
        let mut ask = |threshold, decision: &mut Decision| {
            let taken = decision.allowed.then(|| shared(threshold, decision.remaining + 1)).flatten();
            taken.inspect(|taken| taken.narrow(decision)).is_some_and(|taken| taken.outcome == Outcome::Waits)
        };
        let (shard, set) = self.place(key);
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let slot = self.slot(&mut shard[set], key, now);
        let (mut decision, tat) = slot.check(limit, now);
        let passes_here = decision.allowed;
        let mut close = false;
        if let Some(hard) = limit.hard {
            slot.hard_tat = hard.take_over(now, slot.hard_tat, slot.hard_cost);
            slot.hard_cost = hard.cost;
            let (mut past, hard_tat) = hard.check(now, slot.hard_tat);
            ask(Threshold::Hard, &mut past);
            if past.allowed {
                slot.hard_tat = hard_tat;
            }
            close = !past.allowed;
            decision.allowed &= past.allowed;
            decision.retry_after = decision.retry_after.max(past.retry_after);
        }
        let waits = ask(Threshold::Soft, &mut decision);
        slot.keep(passes_here, decision.allowed && !waits, tat);
        if !decision.allowed {
            decision.remaining = 0;
        }
        Verdict { decision, close, waits }
    }

    /// Decides about a request for which others made it wait, by what they say now: its turn at this table. The second
    /// is whether they admitted it for nothing, because it does not pass here any more.
    pub fn settle(&self, key: Key, limit: &Limit, now: Nanos, taken: Option<&Taken>) -> (Verdict, bool) {
        let (shard, set) = self.place(key);
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let slot = self.slot(&mut shard[set], key, now);
        let (mut decision, tat) = slot.check(limit, now);
        let passes_here = decision.allowed;
        if let Some(taken) = taken.filter(|_| passes_here) {
            taken.narrow(&mut decision);
        }
        slot.keep(passes_here, decision.allowed, tat);
        let unused = !passes_here && taken.is_some_and(|taken| !matches!(taken.outcome, Outcome::Refused(_)));
        (Verdict { decision, close: false, waits: false }, unused)
    }

    /// How many callers that were not idle have been forgotten for want of room.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// How many callers fit.
    pub fn capacity(&self) -> usize {
        self.sets * SHARDS * WAYS
    }

    fn slot<'s>(&self, set: &'s mut [Slot; WAYS], key: Key, now: Nanos) -> &'s mut Slot {
        let at = set.iter().position(|slot| slot.key == key.0).unwrap_or_else(|| {
            let busy_until = |slot: &Slot| slot.tat.max(slot.hard_tat);
            let least = (0..WAYS).min_by_key(|at| busy_until(&set[*at])).unwrap_or(0);
            if busy_until(&set[least]) > ticks(now) {
                self.evicted.fetch_add(1, Relaxed);
            }
            set[least] = Slot { key: key.0, ..Slot::default() };
            least
        });
        &mut set[at]
    }
}

/// IPv4 whole (also as an IPv4-mapped IPv6 address), IPv6 by /64: what one subscriber is given.
pub(crate) fn network(address: IpAddr) -> (bool, u64) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (false, u64::from(u32::from(v4))),
        IpAddr::V6(v6) => (true, (u128::from(v6) >> 64) as u64),
    }
}
