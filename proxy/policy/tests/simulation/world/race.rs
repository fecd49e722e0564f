//! A second try beside a silent one, as the edge makes it.

use std::rc::Rc;
use std::time::Duration;

use sluice_policy::Nanos;
use sluice_policy::balance::{Affinity, Ask, Flight};
use sluice_policy::breaker::Outcome as Call;
use sluice_policy::hedge::{self, Came, Late, Next, Race, Try, Watch};
use sluice_schema::{Balance, Hedge};

use super::World;
use super::agenda::Event;
use super::hosts::Conn;
use super::plan::host_of;
use super::request::{Phase, Request};

/// The tries of a request that may be two.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    race: Race,
    /// The connection of the first one.
    first: usize,
    /// The one that is not the request's present one.
    aside: Option<Aside>,
}

/// A try beside the present one.
#[derive(Debug)]
struct Aside {
    conn: usize,
    flight: Flight,
    began: Nanos,
}

impl Request {
    /// Whether a connection is for its try beside the present one.
    pub(crate) fn is_aside(&self, conn: usize) -> bool {
        self.hedged.aside.as_ref().is_some_and(|aside| aside.conn == conn)
    }
}

impl World {
    /// A try has begun on its present connection.
    pub(crate) fn watch_try(&mut self, request: usize, conn: usize) {
        let asks = &mut self.requests[request];
        asks.hedged = Tries { first: conn, ..Tries::default() };
        let conf = &asks.conf.services[asks.service];
        if asks.conf.services[asks.asked].fallback.stale.is_some() {
            // Such answers are kept on the way on which nothing is sent twice.
            return;
        }
        let ask = hedge::Ask {
            method: asks.method,
            has_body: asks.has_body(),
            // What accepts a stream says so.
            wants_stream: asks.streams,
            is_bound: conf.balance == Balance::Sticky,
            tries: asks.tries,
        };
        let latencies = &self.edges[asks.edge].ways[asks.service].latencies;
        if let Watch::After(time) = hedge::watch(conf.retry.hedge, &ask, || latencies.p95()) {
            self.agenda.add(self.now.plus(time), Event::Silent { request, conn });
        }
    }

    /// A first try has had no head for its time.
    pub(crate) fn silent(&mut self, request: usize, conn: usize) {
        let asks = &self.requests[request];
        if asks.phase != Phase::Trying || asks.conn != Some(conn) || asks.tries != 1 {
            return;
        }
        let (at, service) = (asks.edge, asks.service);
        let now = self.edges[at].clock(self.now);
        let (Some(connect), Ok(())) = (asks.deadline.connect(now), self.stopped(request)) else { return };
        let asks = &self.requests[request];
        let rule = &asks.conf.services[service].hash_on;
        let key = Affinity::of(rule, Some(asks.subject()), asks.address(), |_| None).key();
        let ask = Ask { seed: self.chance.word(), key, tried: &asks.tried };
        let conf = Rc::clone(&self.edges[at].conf);
        let conf = &conf.services[service];
        let way = &mut self.edges[at].ways[service];
        let picked = way.pick(&ask, now);
        self.oracle.picked(self.now, (at, service), conf, self.plan.zones, way, &ask, picked, now);
        let instance = picked.and_then(|index| way.table.instances().get(index)).cloned();
        let Some(instance) = instance.filter(|instance| !asks.tried.contains(&instance.id)) else { return };
        let left = asks.deadline.first_byte(now).unwrap_or_default();
        let late = Late { tries: asks.tries, breaker: way.breaker.state(), left };
        if way.budget.hedge(&late, now).is_err() {
            return;
        }
        let stopped = self.is_stopped_naively(asks);
        self.oracle.begins(self.now, request, asks, stopped, now);
        self.oracle.hedged(self.now, (at, service), request, asks, &conf.retry, now);
        let (group, host, pieces) = (asks.conf.group[service], host_of(&instance.url), asks.pieces);
        let conn = self.conns.len();
        self.conns.push(Conn::new(request, (group, host), instance.id, pieces));
        let asks = &mut self.requests[request];
        asks.tries += 1;
        asks.tried.push(instance.id);
        asks.hedged.race.begin_second();
        asks.hedged.aside = Some(Aside { conn, flight: instance.begin(), began: now });
        self.tally.hedges += 1;
        let figures = [("request", request as u64), ("conn", conn as u64), ("host", host as u64)];
        self.trace.note(self.now, "hedges", &figures);
        self.agenda.add(self.now.plus(self.plan.net / 2), Event::Knock { conn });
        self.agenda.add(self.now.plus(connect), Event::ConnectDue { conn });
    }

    /// A try came to something before its request was answered. Says whether that is what the request came to; if
    /// not, its instance has heard of it, and the other one is waited for.
    pub(crate) fn counts(&mut self, request: usize, conn: usize, came: Came) -> bool {
        let asks = &mut self.requests[request];
        let now = self.edges[asks.edge].clock(self.now);
        let one = if conn == asks.hedged.first { Try::First } else { Try::Second };
        let other = asks.hedged.aside.is_some();
        let next = asks.hedged.race.came(one, came);
        self.oracle.raced(self.now, request, came, next, other);
        if asks.is_aside(conn) {
            self.swap(request);
        }
        let asks = &self.requests[request];
        let took = now.since(asks.try_began);
        if one == Try::First && matches!(came, Came::Head(_)) {
            self.note_head(request, took);
        }
        if next == Next::Ends {
            self.give_up(request, now);
            return true;
        }
        let outcome = match came {
            Came::Head(status) => Call::of_status(status),
            Came::Failure => Call::Failure,
        };
        self.judge(request, outcome);
        self.swap(request);
        self.requests[request].hedged.aside = None;
        self.conns[conn].held = false;
        false
    }

    /// The present try and the one beside it change places.
    fn swap(&mut self, request: usize) {
        let asks = &mut self.requests[request];
        let Some(aside) = asks.hedged.aside.as_mut() else { return };
        if let (Some(conn), Some(flight)) = (asks.conn.as_mut(), asks.flight.as_mut()) {
            std::mem::swap(conn, &mut aside.conn);
            std::mem::swap(flight, &mut aside.flight);
            std::mem::swap(&mut asks.try_began, &mut aside.began);
        }
    }

    /// The try beside the present one is given back, where there is one. A first one was overtaken.
    fn give_up(&mut self, request: usize, now: Nanos) {
        let asks = &mut self.requests[request];
        let Some(aside) = asks.hedged.aside.take() else { return };
        self.conns[aside.conn].held = false;
        if aside.conn == asks.hedged.first {
            let took = now.since(aside.began);
            aside.flight.instance().observe(took, now);
            self.note_head(request, took);
        }
    }

    /// All that tries of a request hold beside the present one goes back.
    pub(crate) fn drop_aside(&mut self, request: usize) {
        if let Some(aside) = self.requests[request].hedged.aside.take() {
            self.conns[aside.conn].held = false;
        }
    }

    fn note_head(&mut self, request: usize, took: Duration) {
        let asks = &self.requests[request];
        let kept = asks.conf.services[asks.asked].fallback.stale.is_some();
        let reads = asks.method.is_safe() && !asks.has_body() && !asks.streams && !kept && asks.tries <= 2;
        let conf = &asks.conf.services[asks.service];
        if reads && conf.retry.hedge == Hedge::P95 && conf.balance != Balance::Sticky {
            self.edges[asks.edge].ways[asks.service].latencies.record(took);
        }
    }
}
