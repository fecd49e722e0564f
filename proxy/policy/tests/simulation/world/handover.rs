//! An edge gives way to its successor: what is under way ends in the old process, which answers for its keys through
//! the new one; what it has learnt goes along, by name.

use std::sync::Arc;

use sluice_policy::Nanos;
use sluice_policy::balance::Instance;
use sluice_policy::breaker::{Force, State};
use sluice_policy::concurrency::Adaptive;
use sluice_policy::idempotency::{End, Owner};
use sluice_policy::limit::Keyer;

use super::World;
use super::agenda::Event;
use super::edge::{Crossing, Edge, Way};
use super::keys::Id;
use super::plan::{Plan, SERVICES};
use super::request::Phase;

impl Edge {
    /// The process that takes the place of this one.
    fn successor(&self, run: u64, plan: &Plan, now: Nanos) -> Self {
        let mut next = Self::start(self.home, run, plan, &self.conf, now);
        next.skew_ms = self.skew_ms;
        next.adopted = self.adopted.iter().copied().chain([self.run]).collect();
        next.keyer = Keyer::new(self.keyer.seed());
        let (then, since) = (self.clock(now), next.clock(now));
        next.limiter.take(&self.limiter.debts(then), since);
        next.book = self.book.clone();
        next.switches = next.book.switches();
        for (gate, known) in next.gates.iter_mut().zip(&self.gates) {
            known.found().into_iter().for_each(|limit| gate.resume(limit));
        }
        for (way, known) in next.ways.iter_mut().zip(&self.ways) {
            way.recall(known, then, since);
        }
        next
    }
}

impl Way {
    /// Takes what a predecessor knew of the service: `then` by its clock, `now` by ours.
    fn recall(&mut self, known: &Self, then: Nanos, now: Nanos) {
        if let Some(opened) = known.breaker.opened(then) {
            self.breaker.reopen(&opened, now);
        }
        for instance in self.table.instances() {
            let same = |other: &&Arc<Instance>| other.url == instance.url;
            let Some(other) = known.table.instances().iter().find(same) else { continue };
            instance.mark_healthy(other.is_healthy() && instance.is_healthy(), now);
            if instance.ewma().is_zero() && !other.ewma().is_zero() {
                instance.average(other.ewma());
            }
            let (left, counted) = known.outliers.ejection(other.id, then);
            if let Some(until) = self.outliers.restore(instance.id, left, counted, now) {
                instance.eject_until(until);
            }
        }
    }
}

impl Crossing {
    fn found(&self) -> Option<u32> {
        self.adaptive().map(Adaptive::limit)
    }
}

/// How an operator holds a breaker.
fn forced(state: State) -> Option<Force> {
    match state {
        State::ForcedOpen => Some(Force::Open),
        State::ForcedClosed => Some(Force::Closed),
        State::Disabled => Some(Force::Disabled),
        State::Closed | State::Open | State::HalfOpen => None,
    }
}

impl World {
    /// The processes that end beside the one of a seat.
    pub(crate) fn retiring(&self, home: usize) -> Vec<usize> {
        let beside = self.plan.edges..self.edges.len();
        beside.filter(|at| self.edges[*at].home == home && self.edges[*at].up).collect()
    }

    fn is_under_way(&self, request: usize, edge: usize, run: u64) -> bool {
        let asks = &self.requests[request];
        asks.edge == edge && asks.run == run && !matches!(asks.phase, Phase::New | Phase::Over)
    }

    /// A successor takes the place of an edge.
    pub(crate) fn upgrade(&mut self, edge: usize) {
        if !self.edges[edge].up {
            return;
        }
        self.redis_sees_trouble();
        (self.runs, self.tally.handovers) = (self.runs + 1, self.tally.handovers + 1);
        let next = self.edges[edge].successor(self.runs, &self.plan, self.now);
        let old = std::mem::replace(&mut self.edges[edge], next);
        let at = self.edges.len();
        self.trace.note(
            self.now,
            "hands_over",
            &[("edge", edge as u64), ("run", self.runs), ("old", at as u64)],
        );
        // Its books are closed: whatever was to be written is.
        self.close_books(edge);
        for request in 0..self.requests.len() {
            if self.is_under_way(request, edge, old.run) {
                self.requests[request].edge = at;
            }
        }
        self.edges.push(old);
        self.heard.push(self.heard[edge].clone());
        self.oracle.handed_over(edge, at);
        for service in 0..SERVICES {
            let old = &self.edges[at].ways[service].breaker;
            if let Some(force) = forced(old.state()) {
                self.handle_breaker(edge, service, Some(force));
            } else if let Some(opened) = old.opened(self.edges[at].clock(self.now)) {
                let now = self.edges[edge].clock(self.now);
                let breaker = &self.edges[edge].ways[service].breaker;
                self.oracle.resumed(self.now, (edge, service), breaker, &opened, now);
            }
        }
        self.plan_probes(edge);
        self.join(edge);
        let drain = self.chance.ms(50, 1200);
        self.agenda.add(self.now.plus(drain), Event::Retire { edge: at });
    }

    /// The time of an old process is over.
    pub(crate) fn retire(&mut self, edge: usize) {
        let (home, run) = (self.edges[edge].home, self.edges[edge].run);
        let live: Vec<usize> =
            (0..self.requests.len()).filter(|request| self.is_under_way(*request, edge, run)).collect();
        if live.is_empty() {
            let left = self.left_over(edge);
            if !left.is_empty() {
                self.oracle.fail(self.now, format!("an edge that has ended keeps {}", left.join(", ")));
            }
        }
        for request in live {
            self.vanish(request);
        }
        self.trace.note(self.now, "retires", &[("edge", edge as u64), ("run", run)]);
        self.edges[edge].up = false;
        self.oracle.crashed(edge);
        // What it has said is on its way, and then its end is seen.
        self.agenda.add(self.now.plus(self.plan.net), Event::Gone { edge: home, run });
    }

    /// A successor sees that a process it answers for has ended.
    pub(crate) fn gone(&mut self, edge: usize, run: u64) {
        self.edges[edge].adopted.retain(|known| *known != run);
    }

    /// An old process tells its successor how a request ended. Whoever is no longer there hears nothing.
    pub(crate) fn relayed(&mut self, edge: usize, id: Id, owner: Owner, end: End) {
        if let Some(place) = self.relaying.iter().position(|known| *known == id) {
            self.relaying.swap_remove(place);
        }
        let process = &self.edges[edge];
        if !process.up || !process.adopted.contains(&owner.run) {
            return;
        }
        let run = process.run;
        if let Some(number) = self.conclude(edge, id, owner, end) {
            let at = self.now.plus(self.plan.commit);
            self.agenda.add(at, Event::Saved { edge, run, number });
        }
    }
}
