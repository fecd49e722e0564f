//! Kill switches: thrown at one edge, told to the others in any order and more than once, kept on each disk a little
//! later; and a naive reading of what is on, to judge by.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_policy::kill_switch::Scope;
use sluice_policy::kill_switch::book::{Change, Entry, Wanted};
use sluice_schema::Lane;

use super::World;
use super::agenda::Event;
use super::clients::SYMBOLS;
use super::plan::digest;
use super::request::{Phase, Request, Told, subject};

/// What somebody did to a switch.
#[derive(Debug)]
pub(crate) struct Thrown {
    scope: Scope,
    change: Change,
}

/// What each edge has heard of, in memory and on its disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    now: BTreeSet<usize>,
    disk: BTreeSet<usize>,
    entries: BTreeMap<Scope, Entry>,
}

impl World {
    /// An operator throws a switch at an edge.
    pub(crate) fn throw_switch(&mut self, edge: usize) {
        if !self.edges[edge].up {
            return;
        }
        let scope = match self.chance.below(5) {
            0 => Scope::All,
            1 => Scope::Service(self.conf.services[self.chance.below(4) as usize].name.clone()),
            2 | 3 => Scope::Symbol(self.chance.of(&SYMBOLS).to_owned()),
            _ => Scope::Account(
                subject(self.chance.between(1, self.plan.accounts as u64 - 1) as usize).to_owned(),
            ),
        };
        let open = self.chance.is(80);
        self.change_switch(edge, scope, true, open);
    }

    fn change_switch(&mut self, edge: usize, scope: Scope, on: bool, cancel_lane_open: bool) {
        let process = &mut self.edges[edge];
        let at_ms = process.wall_ms(self.now);
        let wanted = Wanted { on, cancel_lane_open, reason: String::new(), by: String::new(), at_ms };
        let Ok(change) = process.book.make(&scope, wanted, at_ms * 1000) else { return };
        self.trace.note(
            self.now,
            "switch",
            &[("edge", edge as u64), ("on", on.into()), ("epoch", change.epoch % 1_000_000)],
        );
        let number = self.thrown.len();
        self.thrown.push(Thrown { scope, change });
        self.switch_told(edge, number);
        for other in 0..self.plan.edges {
            for _ in 0..=u64::from(self.chance.is(30)) {
                if other != edge {
                    let at = self.now.plus(self.chance.ms(1, 60));
                    self.agenda.add(at, Event::SwitchTold { edge: other, change: number });
                }
            }
        }
    }

    /// An edge hears of a change.
    pub(crate) fn switch_told(&mut self, edge: usize, number: usize) {
        let process = &mut self.edges[edge];
        if !process.up {
            // It reads on in the stream once it is back.
            return self
                .agenda
                .add(self.now.plus(Duration::from_millis(20)), Event::SwitchTold { edge, change: number });
        }
        let Thrown { scope, change } = &self.thrown[number];
        process.book.apply(scope, change);
        process.switches = process.book.switches();
        self.heard[edge].now.insert(number);
        let entry = process.book.entry(scope).cloned().unwrap_or_default();
        let changes =
            self.heard[edge].now.iter().copied().filter(|known| self.thrown[*known].scope == *scope);
        let saved = Event::SwitchSaved {
            edge,
            run: process.run,
            scope: scope.clone(),
            entry,
            changes: changes.collect(),
        };
        self.agenda.add(self.now.plus(self.plan.commit), saved);
        self.end_stopped_tries(edge);
        for old in self.retiring(edge) {
            let Thrown { scope, change } = &self.thrown[number];
            let process = &mut self.edges[old];
            process.book.apply(scope, change);
            process.switches = process.book.switches();
            self.heard[old].now.insert(number);
            self.end_stopped_tries(old);
        }
    }

    /// All that an edge has heard of is on its disk.
    pub(crate) fn save_switches(&mut self, edge: usize) {
        let book = &self.edges[edge].book;
        let entries = book.entries().map(|(scope, entry)| (scope.clone(), entry.clone()));
        let heard = &mut self.heard[edge];
        heard.entries = entries.collect();
        heard.disk.clone_from(&heard.now);
    }

    pub(crate) fn switch_saved(
        &mut self,
        edge: usize,
        run: u64,
        scope: Scope,
        entry: Entry,
        changes: &[usize],
    ) {
        if self.edges[edge].up && self.edges[edge].run == run {
            self.heard[edge].entries.insert(scope, entry);
            self.heard[edge].disk.extend(changes);
        }
    }

    pub(crate) fn crash_switches(&mut self, edge: usize) {
        self.heard[edge].now = self.heard[edge].disk.clone();
    }

    /// What is on the disk of an edge holds from its start; then it reads the stream anew.
    pub(crate) fn read_switches(&mut self, edge: usize) {
        let process = &mut self.edges[edge];
        for (scope, entry) in &self.heard[edge].entries {
            process.book.merge(scope, entry);
        }
        process.switches = process.book.switches();
        for number in 0..self.thrown.len() {
            let at = self.now.plus(self.chance.ms(5, 60));
            self.agenda.add(at, Event::SwitchTold { edge, change: number });
        }
    }

    /// Streams that a switch covers are ended.
    fn end_stopped_tries(&mut self, edge: usize) {
        for request in 0..self.requests.len() {
            let asks = &self.requests[request];
            let streams = asks.streams
                && asks.status.is_some()
                && asks.edge == edge
                && asks.run == self.edges[edge].run;
            if streams && asks.phase == Phase::Answering && self.stopped(request).is_err() {
                self.end(request, Told::Nothing);
            }
        }
    }

    /// Whether its caller came by a key that is gone at its edge, or gives other rights now.
    pub(crate) fn is_forgotten(&self, asks: &Request) -> bool {
        let present = &self.edges[asks.edge].conf.keys;
        let shown = digest(asks.subject().as_bytes());
        asks.conf.key_of(asks.account).is_some_and(|key| present.forgot(&shown, |now| *now == key))
    }

    /// Streams end whose callers' keys do.
    pub(crate) fn end_forgotten(&mut self, edge: usize) {
        let run = self.edges[edge].run;
        for request in 0..self.requests.len() {
            let asks = &self.requests[request];
            let goes_on = asks.phase == Phase::Answering && (asks.streams || asks.went_on);
            if goes_on && asks.edge == edge && asks.run == run && self.is_forgotten(asks) {
                self.tally.unknown_keys += 1;
                self.end(request, Told::Nothing);
            }
        }
    }

    /// Operators let everything go on, at each edge what is still on there.
    pub(crate) fn switches_off(&mut self) {
        for edge in 0..self.plan.edges {
            self.let_go(edge);
        }
    }

    /// An operator lets go what is on at one edge.
    pub(crate) fn let_go(&mut self, edge: usize) {
        if !self.edges[edge].up {
            return;
        }
        let on = self.edges[edge].book.entries().filter(|(_, entry)| entry.is_on());
        let scopes: Vec<Scope> = on.map(|(scope, _)| scope.clone()).collect();
        for scope in scopes {
            self.change_switch(edge, scope, false, true);
        }
    }

    /// Whether an edge has heard of a switch that covers a request, by all that was said, read one by one.
    pub(crate) fn is_stopped_naively(&self, asks: &Request) -> bool {
        let heard: Vec<&Thrown> =
            self.heard[asks.edge].now.iter().map(|number| &self.thrown[*number]).collect();
        let in_force = |on: &&&Thrown| {
            let (edge, epoch) = (on.change.edge, on.change.epoch);
            let undoes = |other: &&Thrown| {
                let seen = other.change.seen.get(&edge).is_some_and(|seen| *seen >= epoch);
                let replaced = other.change.on && other.change.edge == edge && other.change.epoch > epoch;
                other.scope == on.scope && (seen || replaced)
            };
            on.change.on && !heard.iter().any(undoes)
        };
        let on: Vec<&Thrown> = heard.iter().filter(in_force).copied().collect();
        let lane = super::plan::lane(asks.asked);
        let services = [asks.service, asks.asked].map(|service| asks.conf.services[service].name.as_str());
        let covers = |thrown: &&Thrown| {
            let passes = lane == Lane::Cancel
                && on
                    .iter()
                    .filter(|other| other.scope == thrown.scope)
                    .all(|other| other.change.cancel_lane_open);
            !passes
                && match &thrown.scope {
                    Scope::All => true,
                    Scope::Service(name) => services.contains(&name.as_str()),
                    Scope::Account(name) => name == asks.subject(),
                    Scope::Symbol(name) => match asks.symbol {
                        Some(symbol) => symbol == name,
                        None => lane == Lane::Order,
                    },
                }
        };
        on.iter().any(covers)
    }
}
