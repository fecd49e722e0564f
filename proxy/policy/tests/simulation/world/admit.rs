//! A request's way to its upstream, in the order of the contract: route, kill switch, permission, rate, key, arm of a
//! split, turn at the gate, breaker.

use std::rc::Rc;

use sluice_policy::deadline::{Deadline, USEFUL_MIN};
use sluice_policy::gate::{Ask as Turn, Entry};
use sluice_policy::idempotency::{Answer, Verdict, honours, key};
use sluice_policy::kill_switch::{Ask as Stop, Stopped};
use sluice_policy::limit::lease::{Outcome as Leased, Taken};
use sluice_policy::limit::leases::Name;
use sluice_policy::limit::{Key, Limit, Table as Limiter, Verdict as Said, Who};
use sluice_policy::route::{Ask as Way, Lookup, Target};
use sluice_policy::split::caller;
use sluice_wire::code::Code;
use sluice_wire::problem::Outcome;

use super::World;
use super::agenda::Event;
use super::keys::Word;
use super::plan::CANARY;
use super::request::{Phase, Told};

impl World {
    /// It arrives at its edge.
    pub(crate) fn arrive(&mut self, request: usize) {
        let asks = &mut self.requests[request];
        let (at, account, asked) = (asks.edge, asks.account, asks.asked);
        let figures = [
            ("request", request as u64),
            ("edge", at as u64),
            ("account", account as u64),
            ("service", asked as u64),
            ("post", u64::from(!asks.method.is_idempotent())),
            ("key", asks.key.unwrap_or(0) % 10_000),
        ];
        self.trace.note(self.now, "arrives", &figures);
        let edge = &mut self.edges[at];
        if !edge.up {
            asks.phase = Phase::Over;
            return self.hears(request, Told::Nothing);
        }
        asks.run = edge.run;
        asks.arrived = edge.clock(self.now);
        asks.conf = Rc::clone(&edge.conf);
        asks.deadline = Deadline::new(asks.arrived, &asks.conf.services[asked].timeouts);
        let path = format!("/{}/x", asks.conf.services[asked].name);
        let none = |_: &str, _: Option<&str>| false;
        let way = Way { method: asks.method, host: "sluice", path: &path, headers: &none };
        let routed = match edge.routes.find(&way) {
            Lookup::Found(route) => route.target,
            Lookup::WrongMethod(_) | Lookup::Missing => Target::Withheld,
        };
        self.oracle.routed(asked, routed);
        if let Err(stopped) = self.stopped(request) {
            return self.refuse(request, stop_code(stopped));
        }
        let asks = &self.requests[request];
        let Some(held) = asks.grants() else { return self.refuse(request, Code::InvalidToken) };
        if asks.conf.access[asked].need(asks.method, false).check(Some(&held)).is_err() {
            return self.refuse(request, Code::InsufficientScope);
        }
        if let Some(allowed) = self.within_rate(request) {
            self.rated(request, allowed);
        }
    }

    /// Its rate is known.
    pub(crate) fn rated(&mut self, request: usize, allowed: bool) {
        if !allowed {
            return self.refuse(request, Code::RateLimited);
        }
        let asks = &self.requests[request];
        let waited = self.edges[asks.edge].clock(self.now).since(asks.arrived);
        if asks.patience.is_some_and(|patience| patience.saturating_sub(waited) < USEFUL_MIN) {
            return self.refuse(request, Code::UpstreamTimeout);
        }
        self.ask_key(request);
    }

    /// Whether a switch covers it, as its edge knows them.
    pub(crate) fn stopped(&self, request: usize) -> Result<(), Stopped> {
        let asks = &self.requests[request];
        let switches = &self.edges[asks.edge].switches;
        if switches.is_empty() {
            return Ok(());
        }
        let lane = asks.conf.services[asks.asked].lane;
        for service in [asks.service, asks.asked] {
            let symbols = asks.symbol.iter().map(|symbol| symbol.as_bytes());
            switches.check(Stop { service: &asks.conf.services[service].name, lane, symbols })?;
        }
        switches.check_account(lane, asks.subject())
    }

    /// `None` where it waits for the store.
    fn within_rate(&mut self, request: usize) -> Option<bool> {
        let asks = &self.requests[request];
        let Some(limit) = &asks.conf.limits[asks.asked] else { return Some(true) };
        let (at, account) = (asks.edge, asks.account);
        let limiter_key = self.limiter_key(request, limit);
        let now = self.edges[at].clock(self.now);
        if !self.edges[at].joint.shares || limit.hard.is_some() {
            let verdict = self.edges[at].limiter.check(limiter_key, limit, now);
            self.oracle.limited(self.now, &self.requests[request], limit, verdict, false);
            return Some(verdict.decision.allowed);
        }
        // The table holds its own lock while it asks; here it is lent for as long.
        let (limit, name) = (limit.clone(), name(asks.asked, account));
        let table = std::mem::replace(&mut self.edges[at].limiter, Limiter::new(1));
        let mut refused = false;
        let verdict = table.check_with(limiter_key, &limit, now, |_, here| {
            let taken = self.take_lease(request, limiter_key, &limit.soft_terms, here, name);
            refused = matches!(taken, Some(Taken { outcome: Leased::Refused(_), .. }));
            taken
        });
        self.edges[at].limiter = table;
        if verdict.waits {
            self.oracle.limit_waits(&self.requests[request], true);
            return None;
        }
        self.limited(request, &limit, verdict, refused);
        Some(verdict.decision.allowed)
    }

    /// What the store of shared limits says of one that waited for it; nothing where its edge counts alone from now on.
    pub(crate) fn settle_limit(&mut self, request: usize, taken: Option<&Taken>) {
        let asks = &mut self.requests[request];
        let Some(ticket) = asks.lease.take() else { return };
        let asks = &self.requests[request];
        let Some(limit) = asks.conf.limits[asks.asked].clone() else { return };
        let (at, key) = (asks.edge, self.limiter_key(request, &limit));
        let name = name(asks.asked, asks.account);
        let edge = &self.edges[at];
        let now = edge.clock(self.now);
        let (verdict, unused) = edge.limiter.settle(key, &limit, now, taken);
        if unused {
            self.return_lease(at, &ticket, name);
        }
        self.oracle.limit_waits(&self.requests[request], false);
        let refused = matches!(taken, Some(Taken { outcome: Leased::Refused(_), .. }));
        // One that was asked under a limit that is gone counts on as what callers owe by it.
        if Rc::ptr_eq(&self.requests[request].conf, &self.edges[at].conf) {
            self.limited(request, &limit, verdict, refused);
        }
        self.rated(request, verdict.decision.allowed);
    }

    fn limited(&mut self, request: usize, limit: &Limit, verdict: Said, refused: bool) {
        let asks = &self.requests[request];
        self.oracle.limited(self.now, asks, limit, verdict, refused);
        if self.redis.as_ref().is_some_and(|redis| redis.was_well) {
            self.oracle.limited_by_all(self.now, asks, limit, verdict, refused);
        }
    }

    fn limiter_key(&self, request: usize, limit: &Limit) -> Key {
        let asks = &self.requests[request];
        let who = Who::of(&limit.key, Some(asks.subject()), asks.address(), |_| None);
        self.edges[asks.edge].keyer.key(&asks.conf.services[asks.asked].name, who)
    }

    fn ask_key(&mut self, request: usize) {
        let asks = &mut self.requests[request];
        let rule = asks.conf.services[asks.asked].idempotency;
        if !honours(rule, asks.method, false) {
            return self.enter(request);
        }
        let value = asks.key.map(|number| format!("\"{number:x}\""));
        match key(rule, value.iter().map(String::as_bytes)) {
            Ok(Some(_)) => {
                asks.phase = Phase::Claiming;
                // Its body is read whole first.
                asks.received_at = Some(self.edges[asks.edge].clock(self.now));
                self.claim(request);
            }
            Ok(None) => self.enter(request),
            Err(_) => self.refuse(request, Code::IdempotencyKeyMissing),
        }
    }

    /// The store's word about its key is here.
    pub(crate) fn judged(&mut self, request: usize) {
        let asks = &mut self.requests[request];
        if asks.phase != Phase::Claiming {
            return;
        }
        let refused = match asks.word.take() {
            Some(Word::Said(Verdict::Claim)) => {
                asks.holds_key = true;
                return self.enter(request);
            }
            Some(Word::Said(Verdict::Replay(answer))) => {
                let tag = match &answer {
                    Answer::Whole { body, .. } => body.as_slice().try_into().ok().map(u64::from_be_bytes),
                    Answer::Status(_) => None,
                };
                return self.end(request, Told::Replay(answer.status(), tag));
            }
            Some(Word::Said(Verdict::InFlight)) => Told::Refused(Code::IdempotencyInFlight, None),
            Some(Word::Said(Verdict::Unknown)) => Told::Refused(Code::OutcomeUnknown, Some(Outcome::Unknown)),
            Some(Word::Said(Verdict::Mismatch)) => Told::Refused(Code::IdempotencyKeyReused, None),
            Some(Word::Unavailable) | None => {
                Told::Refused(Code::IdempotencyUnavailable, Some(Outcome::NotSent))
            }
        };
        self.end(request, refused);
    }

    /// Its arm, then its turn.
    fn enter(&mut self, request: usize) {
        let asks = &mut self.requests[request];
        let arm = asks.conf.splits[asks.asked].arm(caller(Some(asks.subject()), asks.address()));
        if arm.is_some() {
            asks.service = CANARY;
        }
        let deadline = Deadline::new(asks.arrived, &asks.conf.services[asks.service].timeouts);
        asks.deadline = asks.patience.map_or(deadline, |patience| deadline.within(patience));
        self.oracle.placed(asks, arm);
        let service = &asks.conf.services[asks.service];
        let edge = &mut self.edges[asks.edge];
        let now = edge.clock(self.now);
        let left = asks.deadline.total(now).ok().flatten().unwrap_or_default();
        let turn = Turn {
            lane: asks.conf.services[asks.asked].lane,
            account: asks.account as u64,
            queue: service.concurrency.queue,
            patience: service.concurrency.queue_timeout.min(left),
        };
        let crossing = &mut edge.gates[asks.conf.group[asks.service]];
        let limit = crossing.limit();
        let entry = crossing.gate.enter(&turn, limit, now, || request);
        let group = (asks.edge, asks.conf.group[asks.service]);
        match entry {
            Entry::Runs(seat) => {
                self.oracle.runs(self.now, group, request, &turn, limit, now);
                asks.seat = Some(seat);
                self.ask_breaker(request);
            }
            Entry::Waits { ticket, sheds } => {
                self.tickets += 1;
                (asks.phase, asks.ticket, asks.waits_since) =
                    (Phase::Waiting, Some((self.tickets, ticket)), now);
                self.oracle.waits(self.now, group, request, &turn, sheds, now);
                self.trace.note(self.now, "waits", &[("request", request as u64)]);
                let ticket = self.tickets;
                // Timers are late.
                let at = self.now.plus(turn.patience + self.chance.ms(0, 2));
                self.agenda.add(at, Event::Impatient { request, ticket });
                if let Some(shed) = sheds {
                    self.requests[shed].ticket = None;
                    self.refuse(shed, Code::Overloaded);
                }
                self.wake(group);
            }
            Entry::Shed => {
                self.oracle.shed(self.now, group, &turn);
                self.refuse(request, Code::Overloaded);
            }
        }
    }

    /// Those whose turn it is go on.
    pub(crate) fn wake(&mut self, group: (usize, usize)) {
        let (edge, gate) = group;
        loop {
            let process = &mut self.edges[edge];
            let now = process.clock(self.now);
            let crossing = &mut process.gates[gate];
            let limit = crossing.limit();
            let Some((request, seat)) = crossing.gate.next(limit, now) else { return };
            self.oracle.named(self.now, group, request, limit, now);
            let asks = &mut self.requests[request];
            (asks.ticket, asks.seat) = (None, Some(seat));
            self.ask_breaker(request);
        }
    }

    /// It has waited for as long as it may.
    pub(crate) fn impatient(&mut self, request: usize, number: u64) {
        if self.requests[request].ticket.is_some_and(|(known, _)| known == number) {
            self.refuse(request, Code::Overloaded);
        }
    }

    /// It leaves the queue, where it is in it.
    pub(crate) fn abandon(&mut self, request: usize) {
        let asks = &mut self.requests[request];
        let Some((_, ticket)) = asks.ticket.take() else { return };
        let group = (asks.edge, asks.conf.group[asks.service]);
        let waited = self.edges[group.0].gates[group.1].gate.abandon(ticket);
        self.oracle.abandoned(self.now, group, request, waited);
        self.wake(group);
    }

    fn ask_breaker(&mut self, request: usize) {
        let asks = &self.requests[request];
        let (edge, service) = (asks.edge, asks.service);
        let now = self.edges[edge].clock(self.now);
        let seed = self.chance.word();
        let granted = self.with_breaker(edge, service, |breaker| breaker.try_acquire(now, seed));
        match granted {
            Ok(permit) => {
                let breaker = &self.edges[edge].ways[service].breaker;
                self.oracle.permitted(self.now, (edge, service), request, &permit, breaker, now);
                let asks = &mut self.requests[request];
                asks.permit = Some(permit);
                self.edges[edge].ways[service].budget.request(now);
                self.oracle.budget_request(now, edge, service);
                let total = asks.conf.services[service].timeouts.total;
                let total = asks.patience.map_or(total, |patience| patience.min(total));
                let due = self.edges[edge].world(asks.arrived.plus(total));
                self.agenda.add(due, Event::TotalDue { request });
                self.begin_try(request);
            }
            Err(rejected) => {
                let breaker = &self.edges[edge].ways[service].breaker;
                self.oracle.rejected(self.now, (edge, service), rejected, breaker, now);
                self.refuse(request, Code::BreakerOpen);
            }
        }
    }

    /// The edge's own word, before anything was sent.
    pub(crate) fn refuse(&mut self, request: usize, code: Code) {
        let outcome = (!self.requests[request].method.is_idempotent()).then_some(Outcome::NotSent);
        self.end(request, Told::Refused(code, outcome));
    }
}

/// What a caller's bucket is called in the store: the same at every edge.
fn name(service: usize, account: usize) -> Name {
    let mut name = Name::default();
    (name[0], name[1], name[2]) = (1, service as u8, account as u8);
    name
}

/// The code of a stopped request.
pub(crate) const fn stop_code(stopped: Stopped) -> Code {
    match stopped {
        Stopped::By(_) => Code::KillSwitch,
        Stopped::SymbolRequired => Code::SymbolRequired,
    }
}
