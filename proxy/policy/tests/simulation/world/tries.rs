//! Tries at an upstream, and the end of a request: what is given back, what the client is told.

use std::sync::Arc;
use std::time::Duration;

use sluice_policy::balance::{Affinity, Ask, Instance};
use sluice_policy::breaker::{Breaker, Outcome as Call};
use sluice_policy::ending::{self, Failure};
use sluice_policy::fallback::is_failed_status;
use sluice_policy::hedge::Came;
use sluice_policy::idempotency::{Answer, End};
use sluice_policy::retry::{Failed, Stop, Verdict};
use sluice_schema::RetryCause;
use sluice_wire::code::Code;
use sluice_wire::problem::Outcome;

use super::World;
use super::admit::stop_code;
use super::agenda::Event;
use super::hosts::Conn;
use super::plan::host_of;
use super::request::{Phase, Told};

impl World {
    /// Does something to a breaker, and tells of a change of its state.
    pub(crate) fn with_breaker<T>(
        &mut self,
        edge: usize,
        service: usize,
        act: impl FnOnce(&mut Breaker) -> T,
    ) -> T {
        let process = &mut self.edges[edge];
        let now = process.clock(self.now);
        let breaker = &mut process.ways[service].breaker;
        let result = act(breaker);
        if let Some(moved) = breaker.take_transition() {
            let figures =
                [("edge", edge as u64), ("service", service as u64), ("state", moved.to.gauge().into())];
            self.trace.note(self.now, "breaker", &figures);
            let metrics = breaker.metrics(now);
            self.oracle.moved(self.now, (edge, service), moved, &metrics, &breaker.settings().conf);
            if self.oracle.is_clean {
                self.recovery_due = self.recovery_due.max(self.recovery_due());
            }
        }
        result
    }

    /// The next try begins, where there is time, an instance, and nobody has stopped it meanwhile.
    pub(crate) fn begin_try(&mut self, request: usize) {
        let asks = &self.requests[request];
        if asks.phase == Phase::Over {
            return;
        }
        let (at, service) = (asks.edge, asks.service);
        let edge = &mut self.edges[at];
        let now = edge.clock(self.now);
        if let Some(permit) = &asks.permit
            && !edge.ways[service].breaker.stands(permit, now)
        {
            return self.refuse_try(request, Code::BreakerOpen);
        }
        let Some(connect) = asks.deadline.connect(now) else {
            return self.refuse_try(request, Code::UpstreamTimeout);
        };
        let rule = &asks.conf.services[service].hash_on;
        let key = Affinity::of(rule, Some(asks.subject()), asks.address(), |_| None).key();
        let ask = Ask { seed: self.chance.word(), key, tried: &asks.tried };
        let way = &mut edge.ways[service];
        let picked = way.pick(&ask, now);
        let conf = &edge.conf.services[service];
        self.oracle.picked(self.now, (at, service), conf, self.plan.zones, way, &ask, picked, now);
        let instance = picked.and_then(|index| way.table.instances().get(index)).cloned();
        let Some(instance) = instance else { return self.refuse_try(request, Code::NoHealthyInstance) };
        if let Err(stopped) = self.stopped(request) {
            return self.refuse_try(request, stop_code(stopped));
        }
        let group = asks.conf.group[service];
        let (host, pieces) = (host_of(&instance.url), asks.pieces);
        let stopped = self.is_stopped_naively(asks);
        self.oracle.begins(self.now, request, asks, stopped, now);
        let conn = self.conns.len();
        self.conns.push(Conn::new(request, (group, host), instance.id, pieces));
        let asks = &mut self.requests[request];
        asks.tries += 1;
        if !asks.tried.contains(&instance.id) {
            asks.tried.push(instance.id);
        }
        (asks.flight, asks.conn, asks.try_began) = (Some(instance.begin()), Some(conn), now);
        (asks.sent, asks.handed, asks.phase) = (false, false, Phase::Trying);
        let figures = [
            ("request", request as u64),
            ("conn", conn as u64),
            ("group", group as u64),
            ("host", host as u64),
        ];
        self.trace.note(self.now, "tries", &figures);
        self.watch_try(request, conn);
        self.agenda.add(self.now.plus(self.plan.net / 2), Event::Knock { conn });
        self.agenda.add(self.now.plus(connect), Event::ConnectDue { conn });
    }

    /// The request that a connection is made for, where that still is so.
    fn tried_by(&self, conn: usize) -> Option<usize> {
        let request = self.conns[conn].request;
        let asks = &self.requests[request];
        (asks.conn == Some(conn) || asks.is_aside(conn)).then_some(request)
    }

    pub(crate) fn connected(&mut self, conn: usize) {
        if self.tried_by(conn).is_some() {
            self.conns[conn].stands = true;
            self.send(conn, 0);
        }
    }

    pub(crate) fn connect_failed(&mut self, conn: usize, late: bool) {
        if late && self.conns[conn].stands {
            return;
        }
        let Some(request) = self.tried_by(conn) else { return };
        if !self.counts(request, conn, Came::Failure) {
            return;
        }
        let code = if late { Code::UpstreamTimeout } else { Code::UpstreamRefused };
        self.try_failed(request, code, RetryCause::Connect);
    }

    /// A piece is handed to the instance.
    pub(crate) fn send(&mut self, conn: usize, step: u8) {
        let Some(request) = self.tried_by(conn) else { return };
        let asks = &mut self.requests[request];
        asks.sent = true;
        self.agenda.add(self.now.plus(self.plan.net / 2), Event::Gets { conn, step });
        if step + 1 < asks.pieces {
            let gap = if asks.holds_key { self.chance.ms(0, 3) } else { asks.piece_gap };
            return self.agenda.add(self.now.plus(gap), Event::Send { conn, step: step + 1 });
        }
        asks.handed = true;
        let edge = &self.edges[asks.edge];
        let now = edge.clock(self.now);
        asks.received_at.get_or_insert(now);
        let timeouts = &asks.conf.services[asks.service].timeouts;
        let left = if asks.has_body() {
            timeouts.first_byte.min(asks.deadline.total(now).ok().flatten().unwrap_or_default())
        } else {
            asks.deadline.first_byte(now).unwrap_or_default()
        };
        self.agenda.add(self.now.plus(left), Event::FirstByteDue { request, conn });
    }

    pub(crate) fn first_byte_due(&mut self, request: usize, conn: usize) {
        let asks = &self.requests[request];
        if asks.conn == Some(conn) && asks.phase == Phase::Trying {
            self.try_failed(request, Code::UpstreamTimeout, RetryCause::Status(504));
        }
    }

    pub(crate) fn total_due(&mut self, request: usize) {
        let asks = &self.requests[request];
        match asks.phase {
            Phase::Trying if asks.has_body() && !asks.handed && asks.sent && !asks.holds_key => {
                self.end(request, Told::Refused(Code::RequestTimeout, None));
            }
            Phase::Trying => self.try_failed(request, Code::UpstreamTimeout, RetryCause::Status(504)),
            Phase::Answering if !asks.streams => {
                self.blame(request, Code::UpstreamTimeout);
                let status = self.requests[request].status.unwrap_or_default();
                self.end(request, Told::Answer(status, None));
            }
            _ => {}
        }
    }

    pub(crate) fn broke(&mut self, conn: usize) {
        let Some(request) = self.tried_by(conn) else { return };
        let asks = &self.requests[request];
        if asks.phase == Phase::Answering {
            let status = asks.status.unwrap_or_default();
            self.blame(request, Code::UpstreamRefused);
            return self.end(request, Told::Answer(status, None));
        }
        if self.counts(request, conn, Came::Failure) {
            self.try_failed(request, Code::UpstreamRefused, RetryCause::Reset);
        }
    }

    /// A try has failed: its instance is to blame.
    fn blame(&mut self, request: usize, code: Code) {
        self.requests[request].failure = Some(Failure { code, counts: true });
        self.judge(request, Call::Failure);
    }

    /// The instance of the present try hears how it ended.
    pub(crate) fn judge(&mut self, request: usize, outcome: Call) {
        let asks = &self.requests[request];
        let Some(conn) = asks.conn else { return };
        let (at, service, id) = (asks.edge, asks.service, self.conns[conn].id);
        let now = self.edges[at].clock(self.now);
        let (took, seed) = (now.since(asks.try_began), self.chance.word());
        let edge = &mut self.edges[at];
        let way = &mut edge.ways[service];
        let ejected = |one: &&Arc<Instance>| one.is_ejected(now);
        let before = way.table.instances().iter().filter(ejected);
        let was = (before.clone().count(), before.clone().any(|one| one.id == id));
        let ejection = way.judge(id, outcome, took, now, seed);
        if ejection.is_some() {
            self.trace.note(
                self.now,
                "ejected",
                &[("edge", at as u64), ("service", service as u64), ("id", id.into())],
            );
        }
        let settings = &edge.conf.services[service].outlier;
        self.oracle.judged(self.now, (at, service), id, outcome, was, ejection, way, settings);
    }

    fn try_failed(&mut self, request: usize, code: Code, cause: RetryCause) {
        self.blame(request, code);
        if !self.retries(request, cause) {
            let outcome = self.outcome(request);
            self.end(request, Told::Refused(code, outcome));
        }
    }

    /// Whether another try is made.
    fn retries(&mut self, request: usize, cause: RetryCause) -> bool {
        let asks = &self.requests[request];
        let (at, service) = (asks.edge, asks.service);
        let now = self.edges[at].clock(self.now);
        let failed = Failed {
            method: asks.method,
            tries: asks.tries,
            cause,
            sent: asks.sent,
            keyed_part: asks.is_part(),
            replayable: !asks.has_body() || asks.holds_key || !asks.sent,
            left: Some(asks.deadline.first_byte(now).unwrap_or_default()),
            retry_after: None,
        };
        let way = &mut self.edges[at].ways[service];
        if let Some(permit) = &asks.permit
            && !way.breaker.stands(permit, now)
        {
            return false;
        }
        let verdict = way.budget.decide(&failed, now, self.chance.word());
        // A budget has the settings of the present configuration, whatever the request came under.
        let retry = &self.edges[at].conf.services[service].retry;
        self.oracle.decided(self.now, (at, service), request, asks, &failed, verdict, retry, now);
        let Verdict::Again(delay) = verdict else {
            self.tally.budget_stops += u64::from(verdict == Verdict::Stop(Stop::Budget));
            return false;
        };
        self.tally.retries += 1;
        self.drop_try(request);
        let asks = &mut self.requests[request];
        asks.parted |= failed.sent && asks.holds_key;
        asks.phase = Phase::Pausing;
        self.agenda.add(self.now.plus(delay), Event::Try { request });
        true
    }

    fn drop_try(&mut self, request: usize) {
        self.drop_aside(request);
        let asks = &mut self.requests[request];
        asks.flight = None;
        if let Some(conn) = asks.conn.take() {
            self.conns[conn].held = false;
        }
    }

    /// The head of an answer.
    pub(crate) fn head(&mut self, conn: usize, status: u16) {
        let Some(request) = self.tried_by(conn) else { return };
        if !self.counts(request, conn, Came::Head(status)) {
            return;
        }
        let asks = &mut self.requests[request];
        let now = self.edges[asks.edge].clock(self.now);
        asks.failure = None;
        asks.first_byte = now.since(asks.try_began);
        let received = asks.received_at.map(|at| now.since(at));
        asks.worked = ending::worked(asks.has_body(), asks.first_byte, received);
        self.trace.note(self.now, "head", &[("request", request as u64), ("status", status.into())]);
        self.judge(request, Call::of_status(status));
        if status >= 500 && self.retries(request, RetryCause::Status(status)) {
            return;
        }
        let older = self.older(request).filter(|_| is_failed_status(status));
        let asks = &mut self.requests[request];
        (asks.status, asks.phase) = (Some(status), Phase::Answering);
        if let Some(tag) = older {
            self.tally.stale += 1;
            return self.end(request, Told::Stale(tag));
        }
        if asks.streams {
            self.settle(request);
            if self.is_forgotten(&self.requests[request]) {
                self.end(request, Told::Nothing);
            }
        }
    }

    /// The end of an answer.
    pub(crate) fn tail(&mut self, conn: usize) {
        let Some(request) = self.tried_by(conn) else { return };
        let asks = &mut self.requests[request];
        if std::mem::take(&mut asks.streams) {
            asks.went_on = true;
            let at = self.now.plus(self.chance.ms(100, 1200));
            return self.agenda.add(at, Event::Tail { conn });
        }
        let (status, tag) = (asks.status.unwrap_or_default(), self.conns[conn].tag);
        if asks.went_on {
            let conf = &self.edges[asks.edge].conf;
            self.oracle.went_on(self.now, request, asks, conf);
        }
        let body = tag.map_or_else(Vec::new, |tag| tag.to_be_bytes().to_vec());
        self.keep_answer(request, status, tag);
        self.release(request, End::Answered(Answer::Whole { status, fields: Vec::new(), body }));
        self.end(request, Told::Answer(status, tag));
    }

    /// For methods with effects: whether an instance may have acted.
    fn outcome(&self, request: usize) -> Option<Outcome> {
        let asks = &self.requests[request];
        ending::outcome(asks.method, asks.what_was_sent())
    }

    /// No other try: the failure of the one before it still counts, this refusal is nobody's fault.
    fn refuse_try(&mut self, request: usize, code: Code) {
        let asks = &mut self.requests[request];
        asks.failure = Some(Failure::refused(asks.failure, code));
        let outcome = self.outcome(request);
        self.end(request, Told::Refused(code, outcome));
    }

    /// Gate and breaker hear how the call ended.
    fn settle(&mut self, request: usize) {
        let asks = &mut self.requests[request];
        let (edge, service, group) = (asks.edge, asks.service, asks.conf.group[asks.service]);
        let now = self.edges[edge].clock(self.now);
        let ending = asks.ending();
        if let Some(seat) = asks.seat.take() {
            let seed = self.chance.word();
            self.oracle.left(self.now, (edge, group), request);
            self.edges[edge].gates[group].leave(seat, ending.for_gate(), now, seed);
            self.wake((edge, group));
        }
        let asks = &mut self.requests[request];
        let Some(permit) = asks.permit.take() else { return };
        let (latency, seed) = (asks.first_byte, self.chance.word());
        let call = ending.for_breaker();
        self.oracle.settled((edge, service), request, call.unwrap_or(Call::Neutral), now);
        self.with_breaker(edge, service, |breaker| match call {
            None => breaker.cancel(permit, now),
            Some(call) => breaker.record(permit, call, latency, now, seed),
        });
        self.oracle.after_settled(self.now, (edge, service), &self.edges[edge].ways[service].breaker);
    }

    /// It is over: everything is given back, then its client is told.
    pub(crate) fn end(&mut self, request: usize, told: Told) {
        self.abandon(request);
        self.leave_lease(request);
        let told = self.stand_in(request, told);
        let asks = &self.requests[request];
        let end = End::without_answer(asks.status, asks.what_was_sent().may_have_acted());
        self.release(request, end);
        self.settle(request);
        self.drop_try(request);
        let asks = &mut self.requests[request];
        asks.phase = Phase::Over;
        self.hears(request, told);
    }

    /// Nobody is there any more: its process is gone with all it held.
    pub(crate) fn vanish(&mut self, request: usize) {
        self.leave_lease(request);
        self.drop_try(request);
        let asks = &mut self.requests[request];
        asks.phase = Phase::Over;
        (asks.ticket, asks.seat, asks.permit, asks.holds_key) = (None, None, None, false);
        self.hears(request, Told::Nothing);
    }

    /// A little later: the way of a message.
    pub(crate) fn later(&mut self, event: Event) {
        let way = Duration::from_micros(self.chance.between(50, self.plan.net.as_micros() as u64));
        self.agenda.add(self.now.plus(way), event);
    }
}
