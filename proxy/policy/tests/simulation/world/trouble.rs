//! What goes wrong, when, and for how long.

use std::time::Duration;

use sluice_policy::Nanos;
use sluice_policy::balance::Hold;
use sluice_policy::breaker::{Force, State};

use super::World;
use super::agenda::Event;
use super::chance::Chance;
use super::edge::{Edge, routes};
use super::hosts::Mode;
use super::joint;
use super::plan::{Plan, SERVICES};
use super::request::Phase;

/// One thing that goes wrong, or is well again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    Host { group: usize, host: usize, mode: Mode },
    Restart { group: usize, host: usize },
    Crash { edge: usize },
    Start { edge: usize },
    Upgrade { edge: usize },
    Redis { mode: joint::Mode },
    Reload,
    Clock { edge: usize, by_ms: i64 },
    Store { edge: usize, failing: bool },
    Hold { edge: usize, service: usize, hold: Hold },
    Force { edge: usize, service: usize, force: Option<Force> },
    Switch { edge: usize, on: bool },
}

/// Draws one trouble of a moment, and its end.
type Draw<'d> = dyn FnMut(&mut Chance, u64, &mut Vec<(u64, Trouble)>) + 'd;

/// All troubles of a run.
pub(crate) fn draw(plan: &Plan, chance: &mut Chance) -> Vec<(Nanos, Trouble)> {
    let end = plan.length.as_micros() as u64;
    let mut all = Vec::new();
    for (group, hosts) in plan.hosts.iter().enumerate() {
        for host in 0..*hosts {
            for _ in 0..chance.below(4) {
                let at = chance.between(0, end * 8 / 10);
                let mode = draw_mode(chance);
                let until = at + chance.between(50_000, 1_500_000);
                all.push((at, Trouble::Host { group, host, mode }));
                all.push((until, Trouble::Host { group, host, mode: Mode::Well }));
                if chance.is(30) {
                    all.push((chance.between(at, until), Trouble::Restart { group, host }));
                }
            }
        }
    }
    let mut some = |most: u64, draw: &mut Draw<'_>| {
        for _ in 0..chance.below(most + 1) {
            let at = chance.between(0, end * 9 / 10);
            draw(chance, at, &mut all);
        }
    };
    let edges = plan.edges as u64;
    some(2, &mut |chance, at, all| {
        let edge = chance.below(edges) as usize;
        all.push((at, Trouble::Crash { edge }));
        all.push((at + chance.between(10_000, 400_000), Trouble::Start { edge }));
    });
    some(2, &mut |chance, at, all| {
        all.push((at, Trouble::Upgrade { edge: chance.below(edges) as usize }));
    });
    some(1, &mut |chance, at, all| {
        let mode = match chance.below(4) {
            0 | 1 => joint::Mode::Slow(chance.between(20, 300)),
            2 => joint::Mode::Away,
            _ => joint::Mode::Dark,
        };
        all.push((at, Trouble::Redis { mode }));
        all.push((at + chance.between(20_000, 1_500_000), Trouble::Redis { mode: joint::Mode::Well }));
    });
    some(3, &mut |_, at, all| all.push((at, Trouble::Reload)));
    some(3, &mut |chance, at, all| {
        let by_ms = chance.of(&[-30_000, -1_500, -40, 40, 1_500, 30_000]);
        all.push((at, Trouble::Clock { edge: chance.below(edges) as usize, by_ms }));
    });
    some(1, &mut |chance, at, all| {
        let edge = chance.below(edges) as usize;
        all.push((at, Trouble::Store { edge, failing: true }));
        all.push((at + chance.between(20_000, 500_000), Trouble::Store { edge, failing: false }));
    });
    some(2, &mut |chance, at, all| {
        let (edge, service) = (chance.below(edges) as usize, chance.below(SERVICES as u64) as usize);
        let hold = chance.of(&[Hold::Drain, Hold::Maint]);
        all.push((at, Trouble::Hold { edge, service, hold }));
        all.push((at + chance.between(50_000, 800_000), Trouble::Hold { edge, service, hold: Hold::Ready }));
    });
    some(1, &mut |chance, at, all| {
        let (edge, service) = (chance.below(edges) as usize, chance.below(SERVICES as u64) as usize);
        let force = chance.of(&[Force::Open, Force::Closed, Force::Disabled]);
        all.push((at, Trouble::Force { edge, service, force: Some(force) }));
        all.push((at + chance.between(50_000, 500_000), Trouble::Force { edge, service, force: None }));
    });
    some(4, &mut |chance, at, all| {
        all.push((at, Trouble::Switch { edge: chance.below(edges) as usize, on: true }));
        if chance.is(90) {
            let until = at + chance.between(20_000, 300_000);
            all.push((until, Trouble::Switch { edge: chance.below(edges) as usize, on: false }));
        }
    });
    all.into_iter().filter(|(at, _)| *at < end).map(|(at, trouble)| (Nanos(at * 1000), trouble)).collect()
}

fn draw_mode(chance: &mut Chance) -> Mode {
    let percent = chance.of(&[20, 50, 100]);
    match chance.below(8) {
        0 => Mode::Down,
        1 => Mode::Dark,
        2 | 3 => Mode::Breaks(chance.below(6) as u8, percent),
        4 => Mode::Hangs(percent),
        5 => Mode::Slow(chance.between(5, 40) as u32),
        6 => Mode::Fails(chance.of(&[500, 502, 503, 504]), percent),
        _ => Mode::Sick(percent),
    }
}

impl World {
    pub(crate) fn trouble(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Host { group, host, mode } => {
                self.trace.note(
                    self.now,
                    "host",
                    &[
                        ("group", group as u64),
                        ("host", host as u64),
                        ("well", u64::from(mode == Mode::Well)),
                    ],
                );
                let is_down = mode == Mode::Down;
                self.hosts[group][host].mode = mode;
                if is_down {
                    self.restart_host(group, host);
                }
            }
            Trouble::Restart { group, host } => self.restart_host(group, host),
            Trouble::Crash { edge } => self.crash(edge),
            Trouble::Start { edge } => self.start(edge),
            Trouble::Upgrade { edge } => self.upgrade(edge),
            Trouble::Redis { mode } => self.set_redis(mode),
            Trouble::Reload => self.reload(),
            Trouble::Clock { edge, by_ms } => {
                self.trace.note(self.now, "clock", &[("edge", edge as u64), ("by", by_ms as u64)]);
                self.edges[edge].skew_ms += by_ms;
            }
            Trouble::Store { edge, failing } => {
                let at = if self.plan.shared { 0 } else { edge };
                self.stores[at].failing = failing;
            }
            // Nobody is there to be asked.
            Trouble::Hold { edge, .. } | Trouble::Force { edge, .. } if !self.edges[edge].up => {}
            Trouble::Hold { edge, service, hold } => {
                let process = &mut self.edges[edge];
                let now = process.clock(self.now);
                if let Some(instance) = process.ways[service].table.instances().first() {
                    instance.hold(hold, now);
                }
            }
            Trouble::Force { edge, service, force } => {
                self.handle_breaker(edge, service, force);
            }
            Trouble::Switch { edge, on } if on => self.throw_switch(edge),
            Trouble::Switch { edge, .. } => self.let_go(edge),
        }
    }

    /// An operator forces a breaker, or lets it go.
    pub(crate) fn handle_breaker(&mut self, edge: usize, service: usize, force: Option<Force>) {
        let now = self.edges[edge].clock(self.now);
        self.with_breaker(edge, service, |breaker| match force {
            Some(force) => breaker.force(force, now),
            None => breaker.reset(now),
        });
        let state = self.edges[edge].ways[service].breaker.state();
        self.oracle.handled((edge, service), state);
    }

    /// The process of an edge dies, and with it all that it had in memory.
    fn crash(&mut self, edge: usize) {
        if !self.edges[edge].up {
            return;
        }
        self.redis_sees_trouble();
        self.trace.note(self.now, "crash", &[("edge", edge as u64)]);
        self.edges[edge].up = false;
        self.oracle.crashed(edge);
        self.crash_store(edge);
        self.crash_switches(edge);
        let run = self.edges[edge].run;
        for request in 0..self.requests.len() {
            let asks = &self.requests[request];
            if asks.edge == edge && asks.run == run && !matches!(asks.phase, Phase::New | Phase::Over) {
                self.vanish(request);
            }
        }
    }

    /// The next process of an edge.
    pub(crate) fn start(&mut self, edge: usize) {
        if self.edges[edge].up {
            return;
        }
        self.runs += 1;
        let skew_ms = self.edges[edge].skew_ms;
        let mut process = Edge::start(edge, self.runs, &self.plan, &self.conf, self.now);
        process.skew_ms = skew_ms;
        self.edges[edge] = process;
        self.trace.note(self.now, "start", &[("edge", edge as u64), ("run", self.runs)]);
        self.read_switches(edge);
        self.plan_probes(edge);
        self.join(edge);
    }

    /// Probes of all instances of an edge's services.
    pub(crate) fn plan_probes(&mut self, edge: usize) {
        let process = &self.edges[edge];
        let run = process.run;
        for (service, way) in process.ways.iter().enumerate() {
            for instance in way.table.instances() {
                let health = &process.conf.services[service].health;
                let first = sluice_policy::health::first_probe(health, self.chance.word());
                let probe = Event::Probe { edge, run, service, id: instance.id };
                self.agenda.add(self.now.plus(first), probe);
            }
        }
    }

    pub(crate) fn probed(
        &mut self,
        edge: usize,
        run: u64,
        service: usize,
        id: u32,
        good: bool,
        began: Nanos,
    ) {
        let process = &mut self.edges[edge];
        if !process.up || process.run != run {
            return;
        }
        let now = process.clock(self.now);
        let settings = &process.conf.services[service].health;
        let way = &mut process.ways[service];
        let Some(health) = way.health.get_mut(&id) else { return };
        let change = health.probed(good, settings);
        let is_healthy = health.is_healthy();
        let back = way.outliers.probed(id, good, began, settings.healthy, now);
        let Some(instance) = way.table.instances().iter().find(|instance| instance.id == id) else { return };
        instance.mark_healthy(is_healthy, now);
        if back {
            instance.eject_until(now);
        }
        self.oracle.probed(self.now, (edge, run, service, id), good, change, settings);
    }

    /// Every edge takes the next configuration.
    fn reload(&mut self) {
        self.conf = self.conf.changed(&self.plan, &mut self.chance);
        self.redis_sees_trouble();
        self.trace.note(self.now, "reload", &[("number", self.conf.number)]);
        debug_assert_eq!(routes(&self.conf).routes().len(), routes(&self.edges[0].conf).routes().len());
        for edge in 0..self.plan.edges {
            if !self.edges[edge].up {
                continue;
            }
            let known: Vec<Vec<u32>> =
                self.edges[edge].ways.iter().map(|way| way.health.keys().copied().collect()).collect();
            self.edges[edge].configure(&self.conf, self.now);
            self.oracle.reloaded(edge);
            self.end_forgotten(edge);
            let process = &self.edges[edge];
            for (service, way) in process.ways.iter().enumerate() {
                for id in way.health.keys().filter(|id| !known[service].contains(id)) {
                    let probe = Event::Probe { edge, run: process.run, service, id: *id };
                    self.agenda.add(self.now.plus(Duration::from_millis(5)), probe);
                }
            }
        }
    }

    /// Everything is well from now on.
    pub(crate) fn heal(&mut self) {
        self.is_healed = true;
        self.trace.note(self.now, "heal", &[]);
        for group in 0..self.hosts.len() {
            for host in 0..self.hosts[group].len() {
                self.restart_host(group, host);
                self.hosts[group][host].mode = Mode::Well;
            }
        }
        for store in &mut self.stores {
            store.failing = false;
        }
        self.set_redis(joint::Mode::Well);
        for edge in 0..self.plan.edges {
            self.start(edge);
            let now = self.edges[edge].clock(self.now);
            for service in 0..SERVICES {
                for instance in self.edges[edge].ways[service].table.instances() {
                    instance.hold(Hold::Ready, now);
                }
                let state = self.edges[edge].ways[service].breaker.state();
                if matches!(state, State::ForcedOpen | State::ForcedClosed | State::Disabled) {
                    self.handle_breaker(edge, service, None);
                }
            }
        }
    }
}
