//! Edges, instances and clients in one simulated world: a clock that jumps from event to event, a network with delays,
//! everything drawn from one seed. The decisions are those of the policy crate; what the edge does around them (the
//! order of a request, what is given back when) is put together here as the gateway does it.

mod admit;
mod agenda;
mod chance;
mod clients;
mod edge;
mod handover;
mod hosts;
mod joint;
mod keys;
mod oracle;
mod plan;
mod race;
mod request;
mod runs;
mod stale;
mod switches;
mod trace;
mod tries;
mod trouble;

use std::rc::Rc;
use std::time::Duration;

use sluice_policy::Nanos;
use sluice_policy::breaker::State;

use agenda::{Agenda, Event};
use chance::Chance;
use clients::Client;
use edge::Edge;
use hosts::{Conn, Host};
use joint::Redis;
use keys::{Id, Store};
use oracle::Oracle;
use plan::{Conf, Plan, READER, SERVICES};
use request::{Phase, Request};
pub(crate) use runs::runs;
use switches::{Heard, Thrown};
use trace::Trace;

/// From the end of all troubles until nothing of them is left in any request.
const CLEAN_AFTER: Duration = Duration::from_millis(1600);
/// More events than any run has.
const EVENTS_MAX: u64 = 2_000_000;

/// How much a run has seen, so that nobody believes a simulation of nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) executions: u64,
    pub(crate) retries: u64,
    pub(crate) budget_stops: u64,
    pub(crate) hedges: u64,
    pub(crate) stale: u64,
    pub(crate) handovers: u64,
    pub(crate) leased: u64,
    /// Requests that waited for the store of shared limits.
    pub(crate) limited: u64,
    pub(crate) unknown_keys: u64,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    /// Of everything that happened.
    pub(crate) hash: u64,
    pub(crate) tally: Tally,
    /// What should not have happened, and when.
    pub(crate) fault: Option<String>,
    /// Everything that happened, where it was asked for.
    pub(crate) lines: Vec<String>,
}

#[derive(Debug)]
struct World {
    now: Nanos,
    agenda: Agenda,
    chance: Chance,
    plan: Plan,
    /// The configuration that the next process starts with.
    conf: Rc<Conf>,
    /// The present process of each seat, then those that have handed over.
    edges: Vec<Edge>,
    hosts: Vec<Vec<Host>>,
    conns: Vec<Conn>,
    requests: Vec<Request>,
    clients: Vec<Client>,
    stores: Vec<Store>,
    /// Keys about which a process that has handed over tells its successor at the moment.
    relaying: Vec<Id>,
    /// Where limits are counted that edges share.
    redis: Option<Redis>,
    thrown: Vec<Thrown>,
    heard: Vec<Heard>,
    oracle: Oracle,
    trace: Trace,
    tally: Tally,
    runs: u64,
    tickets: u64,
    is_healed: bool,
    /// Nobody asks and nothing is probed any more.
    is_over: bool,
    recovery_due: Nanos,
}

/// Runs the world of a seed to its end.
pub(crate) fn run(seed: u64, readable: bool) -> Report {
    let mut world = World::new(seed, readable);
    while let Some((at, event)) = world.agenda.next() {
        world.now = world.now.max(at);
        world.happens(event);
        if world.oracle.fault.is_some() {
            break;
        }
        if world.trace.events > EVENTS_MAX {
            world.oracle.fail(at, "it goes on for ever".to_owned());
        }
    }
    let World { oracle, trace, mut tally, requests, .. } = world;
    tally.requests = requests.len() as u64;
    tally.executions = oracle.executions();
    let fault = oracle.fault.map(|(at, what)| format!("at {:.6} s: {what}", at.0 as f64 / 1e9));
    Report { seed, hash: trace.hash, tally, fault, lines: trace.lines.unwrap_or_default() }
}

impl World {
    fn new(seed: u64, readable: bool) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(&mut chance);
        let conf = Conf::draw(&plan, &mut chance);
        let edges =
            (0..plan.edges).map(|id| Edge::start(id, id as u64 + 1, &plan, &conf, Nanos::ZERO)).collect();
        let mut host = |_| Host::new(chance.ms(1, 10), chance.between(2, 8) as u32);
        let hosts = plan.hosts.iter().map(|count| (0..*count).map(&mut host).collect()).collect();
        let clients =
            (READER..plan.accounts).map(|account| Client::new(account, chance.ms(30, 100))).collect();
        let count = plan.edges;
        let mut world = Self {
            now: Nanos::ZERO,
            agenda: Agenda::default(),
            chance,
            plan,
            conf,
            edges,
            hosts,
            conns: Vec::new(),
            requests: Vec::new(),
            clients,
            stores: (0..count).map(|_| Store::default()).collect(),
            relaying: Vec::new(),
            redis: None,
            thrown: Vec::new(),
            heard: (0..count).map(|_| Heard::default()).collect(),
            oracle: Oracle::default(),
            trace: Trace::new(readable),
            tally: Tally::default(),
            runs: count as u64,
            tickets: 0,
            is_healed: false,
            is_over: false,
            recovery_due: Nanos(u64::MAX),
        };
        world.redis = world.plan.joint.then(Redis::new);
        world.begin();
        world
    }

    fn begin(&mut self) {
        let length = self.plan.length;
        if self.chance.is(50) {
            let from = Nanos::ZERO.plus(self.chance.ms(0, 2000));
            let client = self.chance.below(self.clients.len() as u64) as usize;
            self.clients[client].flood = Some((from, from.plus(self.chance.ms(100, 300))));
        }
        for client in 0..self.clients.len() {
            let at = Nanos::ZERO.plus(self.chance.ms(0, 100));
            self.agenda.add(at, Event::Ask { client });
        }
        for (at, trouble) in trouble::draw(&self.plan, &mut self.chance) {
            self.agenda.add(at, Event::Trouble(trouble));
        }
        for edge in 0..self.plan.edges {
            self.plan_probes(edge);
            self.join(edge);
        }
        let healed = Nanos::ZERO.plus(length);
        self.agenda.add(healed, Event::Heal);
        self.agenda.add(healed.plus(Duration::from_millis(200)), Event::SwitchesOff);
        self.agenda.add(healed.plus(CLEAN_AFTER), Event::Clean);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Ask { client } => self.ask(client),
            Event::Again { request } => self.again(request),
            Event::Arrive { request } => self.arrive(request),
            Event::Judge { request } => self.judge_key(request),
            Event::Judged { request } => self.judged(request),
            Event::Conclude { store, id, owner, end } => drop(self.conclude(store, id, owner, end)),
            Event::Relay { edge, id, owner, end } => self.relayed(edge, id, owner, end),
            Event::Retire { edge } => self.retire(edge),
            Event::Gone { edge, run } => self.gone(edge, run),
            Event::Join { edge, run } => self.joins(edge, run),
            Event::Joined { edge, run, well } => self.joined(edge, run, well),
            Event::Round { edge, run } => self.round(edge, run),
            Event::Count { edge, run, round, calls } => self.count(edge, run, round, calls),
            Event::Counted { edge, run, round, granted } => self.counted(edge, run, round, granted),
            Event::RoundDue { edge, run, round } => self.round_due(edge, run, round),
            Event::Lapses { edge, run } => self.lapses(edge, run),
            Event::LimitDue { request, ticket } => self.limit_due(request, ticket),
            Event::Saved { edge, run, number } => self.saved(edge, run, number),
            Event::Impatient { request, ticket } => self.impatient(request, ticket),
            Event::Try { request } => self.begin_try(request),
            Event::Silent { request, conn } => self.silent(request, conn),
            Event::ConnectDue { conn } => self.connect_failed(conn, true),
            Event::Knock { conn } => self.knock(conn),
            Event::Connected { conn } => self.connected(conn),
            Event::Refused { conn } => self.connect_failed(conn, false),
            Event::Send { conn, step } => self.send(conn, step),
            Event::Gets { conn, step } => self.gets(conn, step),
            Event::Worked { conn, epoch } => self.worked(conn, epoch),
            Event::Head { conn, status } => self.head(conn, status),
            Event::Tail { conn } => self.tail(conn),
            Event::Broke { conn } => self.broke(conn),
            Event::FirstByteDue { request, conn } => self.first_byte_due(request, conn),
            Event::TotalDue { request } => self.total_due(request),
            Event::Leave { request } => self.leaves(request),
            Event::Probe { edge, run, service, id } => self.probe(edge, run, service, id),
            Event::Probed { edge, run, service, id, good, began } => {
                self.probed(edge, run, service, id, good, began);
            }
            Event::Trouble(trouble) => {
                if !self.is_healed {
                    self.trouble(trouble);
                }
            }
            Event::SwitchTold { edge, change } => self.switch_told(edge, change),
            Event::SwitchSaved { edge, run, scope, entry, changes } => {
                self.switch_saved(edge, run, scope, entry, &changes);
            }
            Event::Heal => self.heal(),
            Event::SwitchesOff => self.switches_off(),
            Event::Clean => {
                self.oracle.is_clean = true;
                self.recovery_due = self.recovery_due();
                self.monitor();
            }
            Event::Monitor => self.monitor(),
            Event::Quiet => self.check_quiet(),
        }
    }

    /// Whether every breaker that somebody's requests reach has closed.
    fn is_quiet(&mut self) -> bool {
        let visited: Vec<usize> = (0..SERVICES).filter(|service| self.visitor(*service).is_some()).collect();
        let closed = |edge: &Edge| visited.iter().all(|at| edge.ways[*at].breaker.state() == State::Closed);
        let quiet = self.edges[..self.plan.edges].iter().all(closed);
        if !quiet && self.now > self.recovery_due {
            self.oracle.fail(self.now, "a breaker has not recovered by itself".to_owned());
        }
        quiet
    }

    /// Everything that was taken was given back.
    fn check_quiet(&mut self) {
        let mut left = Vec::new();
        for at in 0..self.plan.edges {
            left.extend(self.left_over(at));
            let (edge, joins) = (&self.edges[at], self.redis.is_some());
            left.extend((!edge.switches.is_empty()).then(|| format!("a switch at edge {at}")));
            left.extend((joins != edge.joint.shares).then(|| format!("edge {at} that counts alone")));
            for way in &edge.ways {
                let ejected = way.outliers.ejected(edge.clock(self.now));
                left.extend(
                    (ejected > 0).then(|| format!("{ejected} ejected at edge {at}, half a minute later")),
                );
                let sick = way.table.instances().iter().filter(|one| !one.is_healthy());
                left.extend(sick.map(|one| format!("{} at edge {at} is not healthy again", one.url)));
            }
        }
        let over = |request: &&Request| request.phase != Phase::Over;
        left.extend(
            self.requests.iter().find(over).map(|request| format!("a request that is {:?}", request.phase)),
        );
        left.extend((!self.oracle.gates_are_empty()).then(|| "somebody at a gate".to_owned()));
        if !left.is_empty() {
            self.oracle.fail(self.now, format!("left over: {}", left.join(", ")));
        }
    }
    /// What an edge without requests still holds of them.
    fn left_over(&self, at: usize) -> Vec<String> {
        let edge = &self.edges[at];
        let now = edge.clock(self.now);
        let full = edge.gates.iter().filter(|gate| !gate.is_empty());
        let mut left: Vec<String> = full.map(|_| format!("a place at edge {at}")).collect();
        for way in &edge.ways {
            let busy = way.table.instances().iter().filter(|one| one.in_flight() > 0);
            left.extend(busy.map(|one| format!("{} requests at {} of edge {at}", one.in_flight(), one.url)));
            left.extend((way.breaker.metrics(now).probes > 0).then(|| format!("a probe of edge {at}")));
        }
        left
    }
}
