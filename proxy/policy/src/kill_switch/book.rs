//! What every edge has said about the switches, so that all edges agree in whatever order they hear it.
//!
//! Purpose: a switch that is put on anywhere holds everywhere, and nobody takes back what he has not seen.
//!
//! Exact conditions: each change carries the edge that makes it, a number (`epoch`) that grows with every
//! change of that edge, and the newest ON of each edge that it knew of (`seen`). A change takes back exactly
//! those ONs, and no later one; an ON adds itself. A scope is on while any ON of it is left. So an ON that
//! was made while somebody switched off elsewhere stays on (nobody has seen it and decided against it), a
//! repeated or late change does nothing, and no order of arrival matters. Clocks of edges are never compared.
//! Of several ONs the stricter one decides: cancels pass where all let them.
//!
//! An ON that was taken back stays known as such (a tombstone), so that its late copy does not return.
//! LIMIT: [`SWITCHES_MAX`] scopes that an edge puts on, twice as many in all; [`TOMBSTONES_MAX`] scopes that
//! are off, the oldest are forgotten first; [`EDGES_MAX`] edges a scope, the oldest are forgotten first.
//!
//! Recovery: by the edges' own records and the event stream. Cost: nothing in a request's way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use sluice_wire::kill::{BY_BYTES_MAX, Change, EDGES_MAX, EdgeId, REASON_BYTES_MAX};

use super::{SWITCHES_MAX, Scope, Switch, Switches, TooMany};

/// LIMIT: scopes that are off and remembered.
pub const TOMBSTONES_MAX: usize = 10_000;
/// What an operator wants of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// On or off.
    pub on: bool,
    /// Whether cancels pass; says nothing where it is off.
    pub cancel_lane_open: bool,
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// When, milliseconds since the epoch.
    pub at_ms: u64,
}

/// One edge's ON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Number of the change.
    pub epoch: u64,
    /// Whether cancels pass.
    pub cancel_lane_open: bool,
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// When, milliseconds since the epoch.
    pub at_ms: u64,
    /// Since when the scope is on, the same.
    pub since_ms: u64,
}

/// What is known of one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// ONs in force.
    pub holds: BTreeMap<EdgeId, Hold>,
    /// Of each edge the newest ON that was taken back.
    pub undone: BTreeMap<EdgeId, u64>,
}

/// What a change did to its scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing new.
    Known,
    /// It is known now, and `forgotten` no longer is.
    Taken {
        /// A tombstone that made room.
        forgotten: Option<Scope>,
    },
    /// There is no room; what was known holds.
    Full,
}

/// Every switch that is on, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    own: EdgeId,
    last: u64,
    entries: BTreeMap<Scope, Entry>,
    on: usize,
}

impl Entry {
    /// Whether any ON is left.
    pub fn is_on(&self) -> bool {
        !self.holds.is_empty()
    }

    /// How it stops, where it is on.
    pub fn switch(&self) -> Option<Switch> {
        let cancel_lane_open = self.holds.values().all(|hold| hold.cancel_lane_open);
        self.is_on().then_some(Switch { cancel_lane_open })
    }

    /// The youngest ON, with the edge that made it.
    pub fn newest(&self) -> Option<(EdgeId, &Hold)> {
        let (edge, hold) = self.holds.iter().max_by_key(|(edge, hold)| (hold.at_ms, **edge))?;
        Some((*edge, hold))
    }

    /// Since when it is on, milliseconds since the epoch.
    pub fn since_ms(&self) -> Option<u64> {
        self.holds.values().map(|hold| hold.since_ms).min()
    }

    /// Takes in what another copy knows.
    pub fn merge(&mut self, other: &Self) {
        for (edge, epoch) in &other.undone {
            let known = self.undone.entry(*edge).or_default();
            *known = (*known).max(*epoch);
        }
        for (edge, hold) in &other.holds {
            if self.holds.get(edge).is_none_or(|known| known.epoch < hold.epoch) {
                self.holds.insert(*edge, hold.clone());
            }
        }
        let undone = &self.undone;
        self.holds.retain(|edge, hold| undone.get(edge).is_none_or(|epoch| *epoch < hold.epoch));
        while self.undone.len() > EDGES_MAX {
            let Some(oldest) = self.undone.iter().min_by_key(|(_, epoch)| **epoch) else { break };
            let oldest = *oldest.0;
            self.undone.remove(&oldest);
        }
        while self.holds.len() > EDGES_MAX {
            let Some(oldest) = self.holds.iter().min_by_key(|(_, hold)| hold.epoch) else { break };
            let oldest = *oldest.0;
            self.holds.remove(&oldest);
        }
    }

    /// The newest number that is known of an edge here.
    fn last_of(&self, edge: EdgeId) -> u64 {
        let held = self.holds.get(&edge).map_or(0, |hold| hold.epoch);
        held.max(self.undone.get(&edge).copied().unwrap_or_default())
    }
}

impl From<&Change> for Entry {
    /// An entry that knows nothing but this change.
    fn from(change: &Change) -> Self {
        let hold = Hold {
            epoch: change.epoch,
            cancel_lane_open: change.cancel_lane_open,
            reason: change.reason.clone(),
            by: change.by.clone(),
            at_ms: change.at_ms,
            since_ms: if change.since_ms == 0 { change.at_ms } else { change.since_ms },
        };
        let holds = change.on.then_some((change.edge, hold)).into_iter().collect();
        Self { holds, undone: change.seen.clone() }
    }
}

impl Book {
    /// The empty book of an edge.
    pub const fn new(own: EdgeId) -> Self {
        Self { own, last: 0, entries: BTreeMap::new(), on: 0 }
    }

    /// The edge that keeps it.
    pub const fn own(&self) -> EdgeId {
        self.own
    }

    /// Keeps it under another name, as the one that was drawn earlier turns out.
    pub fn rename(&mut self, own: EdgeId) {
        self.own = own;
        self.last = self.entries.values().map(|entry| entry.last_of(own)).max().unwrap_or_default();
    }

    /// What is known of a scope.
    pub fn entry(&self, scope: &Scope) -> Option<&Entry> {
        self.entries.get(scope)
    }

    /// Every scope that is known, the widest first; also those that are off.
    pub fn entries(&self) -> impl Iterator<Item = (&Scope, &Entry)> {
        self.entries.iter()
    }

    /// How many scopes are on.
    pub const fn on(&self) -> usize {
        self.on
    }

    /// What requests are judged by.
    pub fn switches(&self) -> Switches {
        let mut switches = Switches::default();
        for (scope, entry) in &self.entries {
            if let Some(switch) = entry.switch() {
                switches.put(scope.clone(), switch);
            }
        }
        switches
    }

    /// The change by which this edge does what is wanted. `now_us`: wall time, microseconds since the epoch.
    ///
    /// # Errors
    /// [`TooMany`], where it would be one switch too many.
    pub fn make(&self, scope: &Scope, wanted: Wanted, now_us: u64) -> Result<Change, TooMany> {
        let known = self.entries.get(scope);
        let is_on = known.is_some_and(Entry::is_on);
        if wanted.on && !is_on && self.on >= SWITCHES_MAX && *scope != Scope::All {
            return Err(TooMany);
        }
        let held = known.map(|entry| &entry.holds).into_iter().flatten();
        Ok(Change {
            scope: scope.as_str().to_owned(),
            target: scope.target().map(str::to_owned),
            on: wanted.on,
            cancel_lane_open: wanted.cancel_lane_open,
            reason: wanted.reason,
            by: wanted.by,
            at_ms: wanted.at_ms,
            since_ms: known.and_then(Entry::since_ms).unwrap_or(wanted.at_ms),
            edge: self.own,
            epoch: now_us.max(self.last + 1),
            seen: held.map(|(edge, hold)| (*edge, hold.epoch)).collect(),
        })
    }

    /// Takes a change in, whoever made it.
    pub fn apply(&mut self, scope: &Scope, change: &Change) -> Effect {
        if change.edge == self.own {
            self.last = self.last.max(change.epoch);
        }
        self.merge(scope, &Entry::from(change))
    }

    /// Takes in what another copy knows of a scope: a record of the ledger, or a change.
    pub fn merge(&mut self, scope: &Scope, other: &Entry) -> Effect {
        self.last = self.last.max(other.last_of(self.own));
        let known = self.entries.get(scope);
        let mut entry = known.cloned().unwrap_or_default();
        let was_on = entry.is_on();
        entry.merge(other);
        if known.map_or(entry == Entry::default(), |known| *known == entry) {
            return Effect::Known;
        }
        let is_on = entry.is_on();
        if is_on && !was_on && self.on >= 2 * SWITCHES_MAX && *scope != Scope::All {
            return Effect::Full;
        }
        self.on = self.on + usize::from(is_on) - usize::from(was_on);
        self.entries.insert(scope.clone(), entry);
        Effect::Taken { forgotten: self.forget_one() }
    }

    /// Makes room among the tombstones.
    fn forget_one(&mut self) -> Option<Scope> {
        if self.entries.len() - self.on <= TOMBSTONES_MAX {
            return None;
        }
        let off = self.entries.iter().filter(|(_, entry)| !entry.is_on());
        let oldest = off.min_by_key(|(_, entry)| entry.undone.values().max().copied())?.0.clone();
        self.entries.remove(&oldest);
        Some(oldest)
    }

    /// The ON of this edge in a scope, as it was told; for telling it again.
    pub fn own_hold(&self, scope: &Scope) -> Option<Change> {
        let entry = self.entries.get(scope)?;
        let hold = entry.holds.get(&self.own)?;
        Some(Change {
            scope: scope.as_str().to_owned(),
            target: scope.target().map(str::to_owned),
            on: true,
            cancel_lane_open: hold.cancel_lane_open,
            reason: hold.reason.clone(),
            by: hold.by.clone(),
            at_ms: hold.at_ms,
            since_ms: hold.since_ms,
            edge: self.own,
            epoch: hold.epoch,
            seen: entry.undone.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
