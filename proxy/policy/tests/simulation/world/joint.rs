//! Limits that the edges share: each holds leases, and one task beside its requests makes the calls that they ask
//! for. The store is slow at times, or away; then each edge counts alone.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_policy::Nanos;
use sluice_policy::deadline::USEFUL_MIN;
use sluice_policy::limit::lease::{Ask, Granted, LATE, Outcome, Taken, Terms};
use sluice_policy::limit::leases::{Due, Leases, Name, Ticket};
use sluice_policy::limit::{Key, Threshold};

use super::World;
use super::agenda::Event;
use super::request::Phase;

/// Between the starts of two rounds, for the answers to one, between two tries to reach the store: as at the edge.
const ROUND: Duration = Duration::from_millis(5);
const HURRIED: Duration = Duration::from_millis(1);
const ROUND_WITHIN: Duration = Duration::from_millis(200);
const PAUSE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// A call: which bucket, and what is asked.
type Call = (Due, Name, Ask);

/// The store of buckets.
#[derive(Debug, Default)]
pub(crate) struct Redis {
    /// Microseconds by its own clock, at which each is whole.
    whole_at_us: BTreeMap<Name, f64>,
    pub(crate) mode: Mode,
    /// It was never away and never slow, and every edge has lived since the beginning.
    pub(crate) was_well: bool,
}

/// How the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Mode {
    #[default]
    Well,
    /// Every answer takes so many milliseconds.
    Slow(u64),
    /// Connections are refused.
    Away,
    /// Nobody answers.
    Dark,
}

/// What an edge holds of shared limits.
#[derive(Debug)]
pub(crate) struct Joint {
    leases: Leases<usize>,
    pub(crate) shares: bool,
    /// A round is under way; its number.
    busy: bool,
    round: u64,
    began: Nanos,
    pause: Duration,
    watched: Vec<(Nanos, Due)>,
}

impl Default for Joint {
    fn default() -> Self {
        Self {
            leases: Leases::new(64),
            shares: false,
            busy: false,
            round: 0,
            began: Nanos::ZERO,
            pause: PAUSE[0],
            watched: Vec::new(),
        }
    }
}

impl Redis {
    pub(crate) fn new() -> Self {
        Self { was_well: true, ..Self::default() }
    }

    /// What the edges' script does.
    fn count(&mut self, name: Name, terms: &Terms, ask: Ask, now_us: f64) -> Granted {
        let cost = terms.per_us as f64 / terms.requests as f64;
        let full = terms.capacity as f64 * cost;
        let known = self.whole_at_us.get(&name).copied().unwrap_or(now_us);
        let whole = known.clamp(now_us, now_us + 4.0 * full) + ask.owed as f64 * cost;
        let whole = whole.clamp(now_us, now_us + 4.0 * full);
        let room = ((now_us + full - whole) / cost + 0.001).floor().max(0.0) as u64;
        let granted = room.min(ask.want);
        let whole = whole + granted as f64 * cost;
        self.whole_at_us.insert(name, whole);
        Granted::new(granted, (whole - now_us).ceil() as u64)
    }
}

impl World {
    /// The store is otherwise from now on.
    pub(crate) fn set_redis(&mut self, mode: Mode) {
        if let Some(redis) = &mut self.redis {
            redis.was_well &= mode == Mode::Well;
            redis.mode = mode;
        }
    }

    /// An edge has forgotten what it held, or counts by other terms: what edges admit together is exact no more.
    pub(crate) fn redis_sees_trouble(&mut self) {
        if let Some(redis) = &mut self.redis {
            redis.was_well = false;
        }
    }

    /// An edge tries to share its limits, where there is a store for them.
    pub(crate) fn join(&mut self, edge: usize) {
        if self.redis.is_none() {
            return;
        }
        let run = self.edges[edge].run;
        self.agenda.add(self.now, Event::Join { edge, run });
    }

    fn lives(&self, edge: usize, run: u64) -> bool {
        self.edges[edge].up && self.edges[edge].run == run
    }

    /// A call that writes, and its answer.
    pub(crate) fn joins(&mut self, edge: usize, run: u64) {
        let Some(redis) = self.redis.as_ref().filter(|_| self.lives(edge, run)) else { return };
        let event = match redis.mode {
            Mode::Well | Mode::Slow(_) => Event::Joined { edge, run, well: true },
            Mode::Away | Mode::Dark => Event::Joined { edge, run, well: false },
        };
        self.later(event);
    }

    pub(crate) fn joined(&mut self, edge: usize, run: u64, well: bool) {
        if !self.lives(edge, run) {
            return;
        }
        self.trace.note(self.now, "joins", &[("edge", edge as u64), ("well", well.into())]);
        if !well {
            return self.parts(edge);
        }
        let joint = &mut self.edges[edge].joint;
        joint.leases.forget();
        (joint.shares, joint.busy) = (true, false);
    }

    /// A round has failed: from here on this edge counts alone, until it tries again.
    fn parts(&mut self, edge: usize) {
        let joint = &mut self.edges[edge].joint;
        joint.leases.forget();
        joint.watched.clear();
        (joint.shares, joint.busy) = (false, true);
        joint.round += 1;
        let pause = joint.pause;
        joint.pause = (2 * pause).min(PAUSE[1]);
        let (run, chance) = (self.edges[edge].run, self.chance.below(256) as u32);
        let pause = pause.saturating_sub(pause / 4 * chance / 256);
        self.agenda.add(self.now.plus(pause), Event::Join { edge, run });
        // Who waits is judged by this edge alone.
        for request in 0..self.requests.len() {
            let asks = &self.requests[request];
            if asks.phase == Phase::Limiting && (asks.edge, asks.run) == (edge, run) {
                self.settle_limit(request, None);
            }
        }
    }

    /// Takes one request out of a bucket that edges share; whether its lease lets it pass, where there is one.
    pub(crate) fn take_lease(
        &mut self,
        request: usize,
        key: Key,
        terms: &Terms,
        here: u64,
        name: Name,
    ) -> Option<Taken> {
        let edge = self.requests[request].edge;
        let process = &mut self.edges[edge];
        if !process.joint.shares {
            return None;
        }
        let (now, mut waits) = (process.clock(self.now), None);
        let wakes = |ticket| {
            waits = Some(ticket);
            request
        };
        let leases = &process.joint.leases;
        let taken = leases.take(key, Threshold::Soft, terms, here, now, || name, wakes)?;
        if let Some(ticket) = waits {
            self.wait_for_lease(request, ticket);
        }
        self.lent(edge, name, terms, &taken);
        if taken.asks {
            self.begin_round(edge);
        }
        Some(taken)
    }

    /// It waits for the store: for as long as anybody does, or as its client is willing to. Timers are late.
    fn wait_for_lease(&mut self, request: usize, ticket: Ticket) {
        let asks = &mut self.requests[request];
        (asks.phase, asks.lease) = (Phase::Limiting, Some(ticket));
        let most = asks.patience.map_or(LATE, |patience| patience.min(LATE));
        self.tally.limited += 1;
        self.trace.note(self.now, "waits_for_limit", &[("request", request as u64)]);
        let at = self.now.plus(most + self.chance.ms(0, 2));
        self.agenda.add(at, Event::LimitDue { request, ticket });
    }

    fn lent(&mut self, edge: usize, name: Name, terms: &Terms, taken: &Taken) {
        if self.redis.as_ref().is_some_and(|redis| redis.was_well) {
            self.oracle.lent(self.now, edge, name, terms, taken.outcome);
        }
        self.tally.leased += u64::from(taken.outcome == Outcome::Leased);
    }

    /// It has waited long enough.
    pub(crate) fn limit_due(&mut self, request: usize, ticket: Ticket) {
        let asks = &self.requests[request];
        if asks.lease != Some(ticket) {
            return;
        }
        let edge = asks.edge;
        let now = self.edges[edge].clock(self.now);
        if asks.patience.is_some_and(|patience| patience.saturating_sub(now.since(asks.arrived)) < USEFUL_MIN)
        {
            // Its end takes it out of the queue.
            return self.refuse(request, sluice_wire::code::Code::UpstreamTimeout);
        }
        let taken = self.edges[edge].joint.leases.late(&ticket, now);
        if taken.is_some() {
            self.redis_sees_trouble();
        }
        self.settle_limit(request, taken.as_ref());
    }

    /// It waits no longer, where it does.
    pub(crate) fn leave_lease(&mut self, request: usize) {
        let asks = &mut self.requests[request];
        if let Some(ticket) = asks.lease.take() {
            self.oracle.limit_waits(&self.requests[request], false);
            self.edges[self.requests[request].edge].joint.leases.leave(&ticket);
        }
    }

    /// One was admitted for nothing.
    pub(crate) fn return_lease(&mut self, edge: usize, ticket: &Ticket, name: Name) {
        let process = &self.edges[edge];
        let asks = process.joint.leases.give_back(ticket, process.clock(self.now));
        self.oracle.lease_returns(edge, name);
        if asks {
            self.begin_round(edge);
        }
    }

    /// The task is woken, where it is not at work.
    fn begin_round(&mut self, edge: usize) {
        let process = &mut self.edges[edge];
        if std::mem::replace(&mut process.joint.busy, true) {
            return;
        }
        let run = process.run;
        self.agenda.add(self.now, Event::Round { edge, run });
    }

    pub(crate) fn round(&mut self, edge: usize, run: u64) {
        if !self.lives(edge, run) || !self.edges[edge].joint.shares {
            return;
        }
        let process = &mut self.edges[edge];
        let now = process.clock(self.now);
        let joint = &mut process.joint;
        for (lapses_at, due) in std::mem::take(&mut joint.watched) {
            let later = if lapses_at > now { Some(lapses_at) } else { joint.leases.watch(&due, now) };
            joint.watched.extend(later.map(|at| (at, due)));
        }
        let ask = |due: Due| joint.leases.ask(&due, now).map(|(name, ask)| (due, name, ask));
        let calls: Vec<Call> = joint.leases.due(512).into_iter().filter_map(ask).collect();
        if self.redis.as_ref().is_some_and(|redis| redis.was_well) {
            for (_, name, ask) in &calls {
                self.oracle.lease_asks(self.now, edge, *name, ask.owed);
            }
        }
        if calls.is_empty() {
            joint.busy = false;
            let next = joint.watched.iter().map(|(at, _)| *at).min();
            if let Some(at) = next.map(|at| process.world(at)) {
                self.agenda.add(at.max(self.now.plus(Duration::from_micros(1))), Event::Lapses { edge, run });
            }
            return;
        }
        joint.round += 1;
        joint.began = self.now;
        let round = joint.round;
        self.later(Event::Count { edge, run, round, calls });
        self.agenda.add(self.now.plus(ROUND_WITHIN), Event::RoundDue { edge, run, round });
    }

    /// A lease may have lapsed.
    pub(crate) fn lapses(&mut self, edge: usize, run: u64) {
        if self.lives(edge, run) && self.edges[edge].joint.shares {
            self.begin_round(edge);
        }
    }

    /// The calls of a round reach the store.
    pub(crate) fn count(&mut self, edge: usize, run: u64, round: u64, calls: Vec<Call>) {
        let now_us = self.now.0 as f64 / 1e3;
        let Some(redis) = &mut self.redis else { return };
        let slow = match redis.mode {
            Mode::Well => Duration::ZERO,
            Mode::Slow(ms) => Duration::from_millis(ms),
            Mode::Away => return self.later(Event::RoundDue { edge, run, round }),
            Mode::Dark => return,
        };
        let mut granted = Vec::with_capacity(calls.len());
        for (due, name, ask) in calls {
            let answer = redis.count(name, &due.terms, ask, now_us);
            if redis.was_well {
                self.oracle.lease_counts(self.now, edge, name, &due.terms, answer.granted);
            }
            granted.push((due, name, answer));
        }
        let way = Duration::from_micros(self.chance.between(50, self.plan.net.as_micros() as u64));
        self.agenda.add(self.now.plus(way + slow), Event::Counted { edge, run, round, granted });
    }

    /// The answers to it.
    pub(crate) fn counted(&mut self, edge: usize, run: u64, round: u64, granted: Vec<(Due, Name, Granted)>) {
        if !self.lives(edge, run) || self.edges[edge].joint.round != round {
            return;
        }
        let now = self.edges[edge].clock(self.now);
        for (due, name, granted) in granted {
            self.oracle.lease_told(edge, name);
            let joint = &mut self.edges[edge].joint;
            let answered = joint.leases.answer(&due, granted, now);
            joint.watched.extend(answered.lapses_at.map(|at| (at, due)));
            for (_, taken) in &answered.decided {
                self.lent(edge, name, &due.terms, taken);
            }
            for (request, taken) in answered.decided {
                self.settle_limit(request, Some(&taken));
            }
        }
        let joint = &mut self.edges[edge].joint;
        joint.round += 1;
        let pause = if joint.leases.waiting() > 0 { HURRIED } else { ROUND };
        let at = joint.began.plus(pause).max(self.now);
        self.agenda.add(at, Event::Round { edge, run });
    }

    /// No answer within its time.
    pub(crate) fn round_due(&mut self, edge: usize, run: u64, round: u64) {
        if self.lives(edge, run) && self.edges[edge].joint.round == round && self.edges[edge].joint.shares {
            self.trace.note(self.now, "counts_alone", &[("edge", edge as u64)]);
            self.parts(edge);
        }
    }
}
