//! One lane of a gate: who runs in it, who waits.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use sluice_schema::Lane;

use crate::time::Nanos;

/// Those that are held to the limit, the most important first.
pub(super) const HELD: [Lane; 3] = [Lane::Order, Lane::Query, Lane::Analytics];

/// What a gate knows of each lane.
pub(super) trait Ranked: Sized {
    /// Its part of the limit, relative to the others present.
    fn weight(self) -> u32;

    /// The lanes above that are held to the limit.
    fn held_above(self) -> impl Iterator<Item = Lane>;

    /// Whether the order of requests matters more than who is still listening.
    fn keeps_order(self) -> bool;
}

impl Ranked for Lane {
    fn weight(self) -> u32 {
        match self {
            Self::Cancel => 0,
            Self::Order => 60,
            Self::Query => 30,
            Self::Analytics => 10,
        }
    }

    fn held_above(self) -> impl Iterator<Item = Lane> {
        HELD.into_iter().take_while(move |lane| *lane < self)
    }

    fn keeps_order(self) -> bool {
        matches!(self, Self::Cancel | Self::Order)
    }
}

/// Accounts come as keyed hashes already.
#[derive(Debug, Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    running: u32,
    waiting: u32,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiter<W> {
    pub(super) number: u64,
    pub(super) account: u64,
    pub(super) since: Nanos,
    pub(super) patience: Duration,
    pub(super) wake: W,
}

impl<W> Waiter<W> {
    fn is_patient(&self, now: Nanos) -> bool {
        now.since(self.since) <= self.patience
    }
}

/// Who runs and waits in a lane.
#[derive(Debug)]
pub(super) struct Queue<W> {
    pub(super) running: u32,
    /// In order of arrival, and so of their numbers.
    pub(super) waiting: Vec<Waiter<W>>,
    accounts: HashMap<u64, Account, BuildHasherDefault<AsIs>>,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self { running: 0, waiting: Vec::new(), accounts: HashMap::default() }
    }
}

impl<W> Queue<W> {
    pub(super) fn entered(&mut self, account: u64) {
        self.running += 1;
        self.accounts.entry(account).or_default().running += 1;
    }

    pub(super) fn left(&mut self, account: u64) {
        self.running -= 1;
        self.change(account, |account| account.running -= 1);
    }

    pub(super) fn push(&mut self, waiter: Waiter<W>) {
        self.accounts.entry(waiter.account).or_default().waiting += 1;
        self.waiting.push(waiter);
    }

    pub(super) fn remove(&mut self, place: usize) -> Waiter<W> {
        let waiter = self.waiting.remove(place);
        self.change(waiter.account, |account| account.waiting -= 1);
        waiter
    }

    fn change(&mut self, key: u64, change: impl FnOnce(&mut Account)) {
        if let Some(account) = self.accounts.get_mut(&key) {
            change(account);
            if account.running == 0 && account.waiting == 0 {
                self.accounts.remove(&key);
            }
        }
    }

    /// Whether an account has a request running.
    pub(super) fn runs(&self, account: u64) -> bool {
        self.accounts.get(&account).is_some_and(|account| account.running > 0)
    }

    /// The newest request of the account that waits with most; `None` where nobody waits with more than
    /// `account` would.
    pub(super) fn hoarder(&self, account: u64) -> Option<usize> {
        let waiting = |key| self.accounts.get(&key).map_or(0, |account| account.waiting);
        let most = self.waiting.iter().map(|waiter| waiting(waiter.account)).max()?;
        let place = || self.waiting.iter().rposition(|waiter| waiting(waiter.account) == most);
        if most > waiting(account) + 1 { place() } else { None }
    }

    /// Whether somebody waits who is not too late.
    pub(super) fn has_patient(&self, now: Nanos) -> bool {
        self.waiting.iter().rev().any(|waiter| waiter.is_patient(now))
    }

    /// Whose turn it is, and how many requests of its account run.
    pub(super) fn pick(&self, lane: Lane, now: Nanos) -> Option<(usize, u32)> {
        let oldest = self.waiting.iter().find(|waiter| waiter.is_patient(now))?;
        let newest_first = !lane.keeps_order() && now.since(oldest.since) * 2 > oldest.patience;
        let running = |waiter: &Waiter<W>| self.accounts.get(&waiter.account).map_or(0, |a| a.running);
        let order = |place: usize| if newest_first { self.waiting.len() - place } else { place };
        let waiting = self.waiting.iter().enumerate();
        waiting
            .filter(|(_, waiter)| waiter.is_patient(now))
            .map(|(place, waiter)| (place, running(waiter)))
            .min_by_key(|(place, running)| (*running, order(*place)))
    }
}

#[cfg(test)]
impl<W> Queue<W> {
    /// Nothing is kept of who is gone.
    pub(super) fn is_forgotten(&self) -> bool {
        self.running == 0 && self.waiting.is_empty() && self.accounts.is_empty()
    }
}
