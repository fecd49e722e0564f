//! The decisions about one usual request, in the order in which the edge takes them, over any number of routes. What
//! a service may ask for beside them is in `rest`: all of it is asked for here.

mod rest;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use sluice_identity::grants::Grants;
use sluice_policy::Nanos;
use sluice_policy::authorize::Access;
use sluice_policy::balance::{self, Field, SharedMemory};
use sluice_policy::breaker::{Breaker, Outcome, Settings};
use sluice_policy::concurrency::Adaptive;
use sluice_policy::deadline::Deadline;
use sluice_policy::framing;
use sluice_policy::gate::{self, Entry, Gate, Lane};
use sluice_policy::headers::{Rules, judge};
use sluice_policy::kill_switch::{self, Scope, Switch, Switches};
use sluice_policy::limit::header::{quoted, write_rate_limit};
use sluice_policy::limit::{self, Keyer, Limit, Who};
use sluice_policy::outlier::Outliers;
use sluice_policy::path::normalise;
use sluice_policy::retry::Budget;
use sluice_policy::route::{Ask, Lookup, Rule, Table, host_name};
use sluice_schema::{Instance, Limits, RateLimit, Service};

use rest::Rest;

/// A client's head, the token left out: who verified it is no decision of this crate.
const HEAD: &[u8] =
    b"GET /s0007/orders/17?full=1 HTTP/1.1\r\nHost: edge.example:8000\r\nUser-Agent: bench\r\n\
    Accept: application/json\r\nAuthorization: Bearer x\r\nX-Request-ID: request-1234\r\n\
    Origin: https://desk.example\r\nX-Request-Deadline-Ms: 5000\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";

/// Every state that a request meets.
pub(crate) struct Chain {
    limits: Limits,
    routes: Table,
    service: Service,
    deny: Vec<IpNet>,
    switches: Switches,
    access: Access,
    grants: Grants,
    limit: Limit,
    callers: limit::Table,
    keyer: Keyer,
    gate: Gate<()>,
    adaptive: Adaptive,
    breaker: Breaker,
    instances: balance::Table,
    field: Field,
    memory: SharedMemory,
    budget: Budget,
    outliers: Outliers,
    quoted: String,
    rate_limit: Vec<u8>,
    rest: Rest,
    seed: u64,
    requests: u32,
}

impl Chain {
    /// A service in use, one of `routes` that differ by their prefixes; somebody else's account is stopped.
    pub(crate) fn new(routes: usize) -> Self {
        let service = Service {
            name: "s0007".to_owned(),
            prefix: "/s0007".to_owned(),
            permissions: [("GET".to_owned(), vec!["read".to_owned()])].into_iter().collect(),
            rate_limit: Some(RateLimit { burst: 1_000_000, ..RateLimit::per_minute(1_000_000_000) }),
            instances: instances(),
            ..Service::default()
        };
        let mut switches = Switches::default();
        let other = Scope::parse("account", Some("mallory")).expect("an account");
        switches.put(other, Switch { cancel_lane_open: true });
        let instances = balance::Table::default().reconcile(&service, "", Nanos::from_secs(1));
        let ids: Vec<u32> = instances.instances().iter().map(|instance| instance.id).collect();
        Self {
            limits: Limits::default(),
            routes: table(routes.max(8)),
            deny: vec!["192.0.2.0/24".parse().expect("a network")],
            switches,
            access: Access::of_service(&service, true),
            grants: ["read"].into_iter().collect(),
            limit: Limit::new(service.rate_limit.as_ref().expect("set above")),
            callers: limit::Table::new(1024),
            keyer: Keyer::new([1, 2]),
            gate: Gate::new([true; 4]),
            adaptive: Adaptive::new(1024, Nanos::from_secs(1)),
            breaker: Breaker::new(Settings::of_service(&service)),
            instances,
            field: Field::default(),
            memory: SharedMemory::default(),
            budget: Budget::new(&service.retry),
            outliers: Outliers::new(service.outlier.clone(), ids),
            quoted: quoted(&service.name),
            rate_limit: Vec::with_capacity(64),
            rest: Rest::new(),
            seed: 1,
            requests: 0,
            service,
        }
    }

    /// Judges the head's bytes and its path.
    pub(crate) fn read(&self) -> bool {
        let Ok(head) = framing::read(HEAD, &self.limits, |_, _| ()) else { return false };
        let host = std::str::from_utf8(head.host).map(host_name);
        normalise(head.target).is_ok_and(|target| target.path().len() > 1) && host.is_ok()
    }

    /// Looks the route up.
    pub(crate) fn route(&self) -> bool {
        let ask = Ask {
            method: sluice_policy::method::Method::Get,
            host: "edge.example",
            path: "/s0007/orders/17",
            headers: &|_, _| false,
        };
        matches!(self.routes.find(&ask), Lookup::Found(_))
    }

    /// Admission behind the route: addresses, switches, permission, rate, fields. The credential is believed.
    pub(crate) fn admit(&mut self, now: Nanos, client: IpAddr) -> bool {
        let lane = self.service.lane;
        let ask =
            kill_switch::Ask { service: &self.service.name, lane, symbols: std::iter::empty::<&[u8]>() };
        let need = self.access.need(sluice_policy::method::Method::Get, false);
        let passes = !self.deny.iter().any(|net| net.contains(&client))
            && self.switches.check(ask).is_ok()
            && self.switches.check_account(lane, "bench").is_ok()
            && need.check(Some(&self.grants)).is_ok();
        let who = Who::of(&self.limit.key, Some("bench"), client, |_| None);
        let key = self.keyer.key(&self.service.name, who);
        let lease = |threshold, here| self.rest.lease(key, threshold, &self.limit, here, now);
        let verdict = self.callers.check_with(key, &self.limit, now, lease);
        self.rate_limit.clear();
        write_rate_limit(&mut self.rate_limit, &self.quoted, &verdict.decision);
        let kept = ["host", "user-agent", "accept", "authorization", "x-request-id"]
            .into_iter()
            .filter(|name| judge(name, Rules::default()).is_none());
        passes && verdict.decision.allowed && kept.count() == 4
    }

    /// Gate, breaker, budget, instance, and all of it given back after `took`.
    pub(crate) fn call(&mut self, now: Nanos, client: IpAddr, took: Duration) -> bool {
        self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let deadline = Deadline::new(now, &self.service.timeouts);
        let who = Who::of(&self.service.fair_key, Some("bench"), client, |_| None);
        let ask = gate::Ask {
            lane: Lane::Query,
            account: self.keyer.short_key("lanes", who),
            queue: self.service.concurrency.queue,
            patience: self.service.concurrency.queue_timeout,
        };
        let Entry::Runs(seat) = self.gate.enter(&ask, self.adaptive.limit(), now, || ()) else {
            return false;
        };
        let Some(deadline) = self.rest.admit(deadline, client) else { return false };
        let Ok(permit) = self.breaker.try_acquire(now, self.seed) else { return false };
        self.budget.request(now);
        if !self.field.holds(&self.instances, now) {
            self.field = self.field.next(&self.instances, now);
        }
        let ask = balance::Ask { seed: self.seed, key: 7, tried: &[] };
        let Some(index) = self.field.pick(&ask, now, &self.memory) else { return false };
        // Before every try: what was let in may be stopped since.
        let stop = kill_switch::Ask {
            service: &self.service.name,
            lane: self.service.lane,
            symbols: std::iter::empty::<&[u8]>(),
        };
        let goes = self.switches.check(stop).is_ok() && self.breaker.stands(&permit, now);
        let instance = &self.instances.instances()[index];
        let flight = instance.begin();
        let connects = goes && deadline.connect(now).is_some() && self.rest.begin(&deadline, now);
        let now = now.plus(took);
        let Some(ending) = self.rest.end(took) else { return false };
        let outcome = ending.for_breaker().unwrap_or(Outcome::Neutral);
        instance.observe(took, now);
        let ejected = self.outliers.record(instance.id, outcome, now, self.seed).is_some();
        self.breaker.record(permit, outcome, took, now, self.seed);
        self.adaptive.ended(seat.lane(), ending.for_gate(), 1, now, self.seed);
        self.gate.leave(seat);
        drop(flight);
        connects && !ejected && self.gate.next(self.adaptive.limit(), now).is_none()
    }

    /// All of it. False where anything was refused.
    pub(crate) fn request(&mut self, now: Nanos) -> bool {
        let client = IpAddr::from([198, 51, 100, 7]);
        self.requests = self.requests.wrapping_add(1);
        if self.requests.is_multiple_of(10) {
            // No request waits for it, and none pays for it.
            allocation_counter::opt_out(|| self.rest.round(now));
        }
        self.read()
            && self.route()
            && self.admit(now, client)
            && self.call(now, client, Duration::from_micros(300))
    }
}

/// A table of so many routes, each with a prefix of its own.
pub(crate) fn table(routes: usize) -> Table {
    Table::for_edge((0..routes).map(rule)).expect("prefixes differ")
}

/// The rule of one of them.
pub(crate) fn rule(number: usize) -> Rule {
    let name = format!("s{number:04}");
    Rule::of_service(number, &Service { prefix: format!("/{name}"), name, ..Service::default() })
}

fn instances() -> Vec<Instance> {
    (0..3)
        .map(|number| Instance {
            url: format!("http://10.0.0.{number}:8080").parse().expect("an address"),
            weight: 100,
            zone: String::new(),
        })
        .collect()
}
