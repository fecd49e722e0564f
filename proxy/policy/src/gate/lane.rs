//! One lane of a gate: who runs in it, who waits.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use sluice_schema::Lane;

use super::Ticket;
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

/// Who runs and waits in a lane.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) running: u32,
    /// In order of arrival.
    pub(super) waiting: Vec<Ticket>,
    /// Since when somebody has been waiting.
    busy_since: Nanos,
    accounts: HashMap<u64, Account, BuildHasherDefault<AsIs>>,
}

impl Queue {
    pub(super) fn entered(&mut self, account: u64) {
        self.running += 1;
        self.accounts.entry(account).or_default().running += 1;
    }

    pub(super) fn left(&mut self, account: u64) {
        self.running -= 1;
        self.change(account, |account| account.running -= 1);
    }

    pub(super) fn push(&mut self, ticket: Ticket) {
        if self.waiting.is_empty() {
            self.busy_since = ticket.since;
        }
        self.waiting.push(ticket);
        self.accounts.entry(ticket.seat.account).or_default().waiting += 1;
    }

    pub(super) fn remove(&mut self, place: usize) -> Ticket {
        let ticket = self.waiting.remove(place);
        self.change(ticket.seat.account, |account| account.waiting -= 1);
        ticket
    }

    fn change(&mut self, key: u64, change: impl FnOnce(&mut Account)) {
        if let Some(account) = self.accounts.get_mut(&key) {
            change(account);
            if account.running == 0 && account.waiting == 0 {
                self.accounts.remove(&key);
            }
        }
    }

    /// The newest request of the account that waits with most; `None` where nobody waits with more than
    /// `account` would.
    pub(super) fn hoarder(&self, account: u64) -> Option<usize> {
        let waiting = |key| self.accounts.get(&key).map_or(0, |account| account.waiting);
        let most = self.waiting.iter().map(|ticket| waiting(ticket.seat.account)).max()?;
        let place = || self.waiting.iter().rposition(|ticket| waiting(ticket.seat.account) == most);
        if most > waiting(account) + 1 { place() } else { None }
    }

    /// Whether somebody waits who is not too late.
    pub(super) fn has_patient(&self, now: Nanos, patience: Duration) -> bool {
        self.waiting.iter().rev().any(|ticket| now.since(ticket.since) <= patience)
    }

    /// Whose turn it is.
    pub(super) fn pick(&self, lane: Lane, now: Nanos, patience: Duration) -> Option<usize> {
        let running = |ticket: &Ticket| self.accounts.get(&ticket.seat.account).map_or(0, |a| a.running);
        let patient = |ticket: &Ticket| now.since(ticket.since) <= patience;
        let places = self.waiting.iter().enumerate().filter(|(_, ticket)| patient(ticket));
        let newest_first = !lane.keeps_order() && now.since(self.busy_since) > patience;
        let order = |place: usize| if newest_first { self.waiting.len() - place } else { place };
        places.min_by_key(|(place, ticket)| (running(ticket), order(*place))).map(|(place, _)| place)
    }
}

#[cfg(test)]
impl Queue {
    /// Nothing is kept of who is gone.
    pub(super) fn is_forgotten(&self) -> bool {
        self.running == 0 && self.waiting.is_empty() && self.accounts.is_empty()
    }
}
