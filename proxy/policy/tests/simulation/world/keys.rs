//! The stores of idempotency keys: what an edge's disk has kept, what it had in memory, how long a write takes.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_policy::Nanos;
use sluice_policy::idempotency::{Change, End, Owner, Record, Verdict, conclude, judge};

use super::World;
use super::agenda::Event;
use super::request::{Phase, Request};

/// Account, service and key.
pub(crate) type Id = (usize, usize, u64);

/// What is added to a request's time until its key no longer counts as in flight, as at the edge.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// One store of keys.
#[derive(Debug, Default)]
pub(crate) struct Store {
    records: BTreeMap<Id, Record>,
    disk: BTreeMap<Id, Record>,
    writing: BTreeMap<u64, (Id, Option<Record>)>,
    written: u64,
    /// Of a shared store: when its own clock forgets a key, whatever the edges' clocks say.
    gone: BTreeMap<Id, Nanos>,
    /// It takes nothing at the moment.
    pub(crate) failing: bool,
}

/// What a store said about a request's key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    Unavailable,
    Said(Verdict),
}

impl Store {
    fn put(&mut self, id: Id, record: Option<Record>) -> u64 {
        match &record {
            Some(record) => drop(self.records.insert(id, record.clone())),
            None => drop(self.records.remove(&id)),
        }
        self.written += 1;
        self.writing.insert(self.written, (id, record));
        self.written
    }

    /// A write is on the disk.
    fn saved(&mut self, number: u64) {
        if let Some((id, record)) = self.writing.remove(&number) {
            match record {
                Some(record) => drop(self.disk.insert(id, record)),
                None => drop(self.disk.remove(&id)),
            }
        }
    }

    /// Its process is gone.
    fn crash(&mut self) {
        self.records = self.disk.clone();
        self.writing.clear();
    }
}

impl World {
    /// A request asks for its key.
    pub(crate) fn claim(&mut self, request: usize) {
        if self.plan.shared {
            self.later(Event::Judge { request });
        } else {
            self.judge_key(request);
        }
    }

    fn store_of(&self, edge: usize) -> usize {
        if self.plan.shared { 0 } else { self.edges[edge].home }
    }

    /// The store judges. A claim that arrives after its edge has died is made all the same; one of a process that has
    /// handed over goes to its successor.
    pub(crate) fn judge_key(&mut self, request: usize) {
        let asks = &self.requests[request];
        let (id, run) = (asks.key_id(), asks.run);
        let edge = if self.plan.shared { asks.edge } else { self.edges[asks.edge].home };
        let fingerprint = [asks.variant; 32];
        let process = &self.edges[edge];
        if edge != asks.edge && !process.up {
            self.requests[request].word = Some(Word::Unavailable);
            return self.later(Event::Judged { request });
        }
        let writer = process.run;
        let (now_ms, shared) = (process.wall_ms(self.now), self.plan.shared);
        // Those that it answers for: itself, and whoever has handed over to it and still has requests.
        let answers: Vec<u64> = process.adopted.iter().copied().chain([process.run]).collect();
        let left = asks.deadline.total(process.clock(self.now)).ok().flatten().unwrap_or_default();
        let at = self.store_of(edge);
        let store = &mut self.stores[at];
        if store.failing {
            self.requests[request].word = Some(Word::Unavailable);
            return self.later(Event::Judged { request });
        }
        if shared && store.gone.get(&id).is_some_and(|gone| *gone <= self.now) {
            store.records.remove(&id);
        }
        let mut verdict =
            judge(store.records.get(&id), &fingerprint, now_ms, |run| shared || answers.contains(&run));
        if shared && verdict == Verdict::Claim && store.records.contains_key(&id) {
            // Over by the edge's clock and not by the store's.
            verdict = Verdict::InFlight;
        }
        let lives = |other: &Request| {
            answers.contains(&other.run)
                && other.key_id() == id
                && (other.holds_key || other.phase == Phase::Claiming)
        };
        let own = request;
        let others = self.requests.iter().enumerate().filter(|(other, _)| *other != own);
        // Of a process that has just ended its successor hears a moment later.
        let unheard = self.relaying.contains(&id)
            || self.edges.iter().any(|edge| !edge.up && answers.contains(&edge.run));
        if verdict == Verdict::InFlight && !shared && !unheard && !others.map(|(_, other)| other).any(lives) {
            self.oracle.fail(self.now, format!("request {request} meets a key in flight that nobody holds"));
        }
        let mut number = 0;
        if verdict == Verdict::Claim {
            let until_ms = now_ms + (left + LEASE_MARGIN).as_millis() as u64;
            let expires_at_ms = now_ms + self.plan.ttl.as_millis() as u64;
            let owner = Owner { run, request: request as u64 };
            number = store.put(id, Some(Record::claimed(fingerprint, owner, until_ms, expires_at_ms)));
            store.gone.insert(id, self.now.plus(self.plan.ttl.max(left + LEASE_MARGIN)));
            let (by, until) = if shared {
                let now = self.now.0 / 1_000_000;
                (now, now + self.plan.ttl.as_millis() as u64)
            } else {
                (now_ms, expires_at_ms)
            };
            self.oracle.claimed(at, request, id, by, until);
        }
        self.requests[request].word = Some(Word::Said(verdict));
        if shared {
            self.stores[at].saved(number);
            self.later(Event::Judged { request });
        } else {
            // The write first, then the word about it.
            let at = self.now.plus(self.plan.commit);
            self.agenda.add(at, Event::Saved { edge, run: writer, number });
            self.agenda.add(at, Event::Judged { request });
        }
    }

    pub(crate) fn saved(&mut self, edge: usize, run: u64, number: u64) {
        if self.edges[edge].run == run && self.edges[edge].up {
            self.stores[edge].saved(number);
        }
    }

    /// The request that holds a key has ended. The edge does not wait for the disk.
    pub(crate) fn release(&mut self, request: usize, end: End) {
        let asks = &mut self.requests[request];
        if !std::mem::take(&mut asks.holds_key) {
            return;
        }
        let (edge, run, id) = (asks.edge, asks.run, asks.key_id());
        let owner = Owner { run, request: request as u64 };
        let store = self.store_of(edge);
        self.trace.note(self.now, "key_ends", &[("request", request as u64), ("end", word_of(&end))]);
        if self.plan.shared {
            return self.later(Event::Conclude { store, id, owner, end });
        }
        if edge >= self.plan.edges {
            self.relaying.push(id);
            return self.later(Event::Relay { edge: store, id, owner, end });
        }
        if let Some(number) = self.conclude(store, id, owner, end) {
            let at = self.now.plus(self.plan.commit);
            self.agenda.add(at, Event::Saved { edge, run, number });
        }
    }

    /// An end reaches its store.
    pub(crate) fn conclude(&mut self, store: usize, id: Id, owner: Owner, end: End) -> Option<u64> {
        let store = &mut self.stores[store];
        let number = match conclude(store.records.get(&id), owner, end) {
            Change::Keep => return None,
            Change::Remove => store.put(id, None),
            Change::Put(record) => store.put(id, Some(record)),
        };
        if self.plan.shared {
            store.saved(number);
        }
        Some(number)
    }

    /// All that an edge was to write, it has written.
    pub(crate) fn close_books(&mut self, edge: usize) {
        if !self.plan.shared {
            let store = &mut self.stores[edge];
            store.disk = store.records.clone();
            store.writing.clear();
        }
        self.save_switches(edge);
    }

    pub(crate) fn crash_store(&mut self, edge: usize) {
        if !self.plan.shared {
            self.stores[edge].crash();
        }
    }
}

const fn word_of(end: &End) -> u64 {
    match end {
        End::NotSent => 0,
        End::Unknown => 1,
        End::Answered(_) => 2,
    }
}
