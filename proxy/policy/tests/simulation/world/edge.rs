//! One edge: the decisions of the policy crate and their state, put together as the edge does it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use sluice_policy::Nanos;
use sluice_policy::balance::{Ask, Field, SharedMemory, Table};
use sluice_policy::breaker::{Breaker, Outcome, Settings};
use sluice_policy::concurrency::{Adaptive, Ended};
use sluice_policy::fallback::Shelf;
use sluice_policy::gate::{Gate, Lane, Load, Seat};
use sluice_policy::health::Health;
use sluice_policy::hedge::Latencies;
use sluice_policy::kill_switch::Switches;
use sluice_policy::kill_switch::book::{Book, EdgeId};
use sluice_policy::limit::{Keyer, Table as Limiter};
use sluice_policy::outlier::{Ejection, Outliers};
use sluice_policy::retry::Budget;
use sluice_policy::route::{Rule, Table as Routes};
use sluice_schema::{ConcurrencyLimit, Service};

use super::joint::Joint;
use super::plan::{Conf, Plan, SERVICES};

/// Wall time at which the world begins, milliseconds since the epoch.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// One edge, as one process after the other.
#[derive(Debug)]
pub(crate) struct Edge {
    /// The seat that this process has, or had before it handed over.
    pub(crate) home: usize,
    pub(crate) run: u64,
    pub(crate) up: bool,
    /// Processes that have handed over to this one and still have requests.
    pub(crate) adopted: Vec<u64>,
    started: Nanos,
    /// By how much its wall clock is off.
    pub(crate) skew_ms: i64,
    zone: &'static str,
    pub(crate) conf: Rc<Conf>,
    pub(crate) routes: Rc<Routes>,
    pub(crate) ways: Vec<Way>,
    pub(crate) gates: Vec<Crossing>,
    pub(crate) limiter: Limiter,
    pub(crate) keyer: Keyer,
    pub(crate) joint: Joint,
    /// Older answers, by whose execution.
    pub(crate) shelf: Shelf<u64>,
    pub(crate) book: Book,
    pub(crate) switches: Switches,
}

/// What an edge keeps of one service.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) breaker: Breaker,
    pub(crate) budget: Budget,
    pub(crate) outliers: Outliers,
    pub(crate) latencies: Latencies,
    pub(crate) table: Table,
    pub(crate) field: Field,
    memory: SharedMemory,
    pub(crate) health: BTreeMap<u32, Health>,
}

/// The gate of a group of instances.
#[derive(Debug)]
pub(crate) struct Crossing {
    pub(crate) gate: Gate<usize>,
    cap: Cap,
}

#[derive(Debug)]
enum Cap {
    Fixed(u32),
    Adaptive(Box<Adaptive>),
}

/// The routes of a configuration.
pub(crate) fn routes(conf: &Conf) -> Rc<Routes> {
    let routed = conf.services.iter().enumerate().filter(|(_, service)| !service.prefix.is_empty());
    let table = Routes::for_edge(routed.map(|(index, service)| Rule::of_service(index, service)));
    Rc::new(table.expect("the services' prefixes differ"))
}

impl Edge {
    /// A process that has just started.
    pub(crate) fn start(id: usize, run: u64, plan: &Plan, conf: &Rc<Conf>, now: Nanos) -> Self {
        let zone = if plan.zones { ["a", "b"][id % 2] } else { "" };
        let mut edge = Self {
            home: id,
            run,
            up: true,
            adopted: Vec::new(),
            started: now,
            skew_ms: 0,
            zone,
            conf: Rc::clone(conf),
            routes: routes(conf),
            ways: conf.services.iter().map(Way::new).collect(),
            gates: (0..3).map(|group| Crossing::new(conf, group)).collect(),
            limiter: Limiter::new(64),
            keyer: Keyer::new([run, 7]),
            joint: Joint::default(),
            shelf: Shelf::new(1 << 10, 16),
            book: Book::new(EdgeId(id as u64 + 1)),
            switches: Switches::default(),
        };
        edge.configure(conf, now);
        edge
    }

    /// Takes another configuration; state stays.
    pub(crate) fn configure(&mut self, conf: &Rc<Conf>, now: Nanos) {
        let now = self.clock(now);
        self.conf = Rc::clone(conf);
        self.routes = routes(conf);
        for (way, service) in self.ways.iter_mut().zip(&conf.services) {
            way.configure(service, self.zone, now);
        }
    }

    /// Its monotonic clock: begins with the process, whatever the wall clock does.
    pub(crate) fn clock(&self, now: Nanos) -> Nanos {
        Nanos(now.0.saturating_sub(self.started.0))
    }

    /// A moment of its clock, as the world counts.
    pub(crate) fn world(&self, moment: Nanos) -> Nanos {
        Nanos(moment.0.saturating_add(self.started.0))
    }

    /// Its wall clock, milliseconds since the epoch.
    pub(crate) fn wall_ms(&self, now: Nanos) -> u64 {
        (EPOCH_MS + now.0 / 1_000_000).saturating_add_signed(self.skew_ms)
    }
}

impl Way {
    fn new(service: &Service) -> Self {
        Self {
            breaker: Breaker::new(Settings::of_service(service)),
            budget: Budget::new(&service.retry),
            outliers: Outliers::new(service.outlier.clone(), []),
            latencies: Latencies::default(),
            table: Table::default(),
            field: Field::default(),
            memory: SharedMemory::default(),
            health: BTreeMap::new(),
        }
    }

    fn configure(&mut self, service: &Service, zone: &str, now: Nanos) {
        self.breaker.configure(Settings::of_service(service));
        self.budget.configure(&service.retry);
        self.table = self.table.reconcile(service, zone, now);
        let ids = || self.table.instances().iter().map(|instance| instance.id);
        self.outliers.configure(&service.outlier);
        self.outliers.reconcile(ids());
        let mut known = std::mem::take(&mut self.health);
        self.health = ids().map(|id| (id, known.remove(&id).unwrap_or_default())).collect();
    }

    /// Brings what can be picked up to date and picks; the index in the table.
    pub(crate) fn pick(&mut self, ask: &Ask<'_>, now: Nanos) -> Option<usize> {
        if !self.field.holds(&self.table, now) {
            self.field = self.field.next(&self.table, now);
        }
        self.field.pick(ask, now, &self.memory)
    }

    /// How a try at an instance ended.
    pub(crate) fn judge(
        &mut self,
        id: u32,
        outcome: Outcome,
        took: Duration,
        now: Nanos,
        seed: u64,
    ) -> Option<Ejection> {
        let instance = self.table.instances().iter().find(|instance| instance.id == id)?;
        match outcome {
            Outcome::Failure => instance.observe_failure(took, now),
            Outcome::Success | Outcome::Neutral => instance.observe(took, now),
        }
        let ejection = self.outliers.record(id, outcome, now, seed)?;
        instance.eject_until(ejection.until);
        Some(ejection)
    }
}

impl Crossing {
    fn new(conf: &Conf, group: usize) -> Self {
        let mut lanes = [false; 4];
        let of_group = |service: &usize| conf.group[*service] == group;
        for service in (0..SERVICES).filter(of_group) {
            lanes[conf.services[service].lane as usize] = true;
        }
        let service = (0..SERVICES).find(of_group).unwrap_or(0);
        let concurrency = &conf.services[service].concurrency;
        let cap = match concurrency.limit {
            ConcurrencyLimit::Fixed(limit) => Cap::Fixed(limit),
            ConcurrencyLimit::Adaptive => {
                Cap::Adaptive(Box::new(Adaptive::new(concurrency.max, Nanos::ZERO)))
            }
        };
        Self { gate: Gate::new(lanes), cap }
    }

    /// Its limit, where that follows the latency.
    pub(crate) fn adaptive(&self) -> Option<&Adaptive> {
        match &self.cap {
            Cap::Fixed(_) => None,
            Cap::Adaptive(adaptive) => Some(adaptive),
        }
    }

    /// Goes on from a limit that was found before.
    pub(crate) fn resume(&mut self, limit: u32) {
        if let Cap::Adaptive(adaptive) = &mut self.cap {
            adaptive.resume(limit);
        }
    }

    pub(crate) fn limit(&self) -> u32 {
        match &self.cap {
            Cap::Fixed(limit) => *limit,
            Cap::Adaptive(adaptive) => adaptive.limit(),
        }
    }

    /// A place is given back.
    pub(crate) fn leave(&mut self, seat: Seat, ended: Ended, now: Nanos, seed: u64) {
        let running = self.gate.running();
        if let Cap::Adaptive(adaptive) = &mut self.cap {
            adaptive.ended(seat.lane(), ended, running, now, seed);
        }
        self.gate.leave(seat);
    }

    /// Nobody runs and nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.gate.running() == 0 && Lane::ALL.iter().all(|lane| self.gate.load(*lane) == Load::default())
    }
}
