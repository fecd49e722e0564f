//! The world that a seed describes: services, instances, accounts, and how they are configured.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use sluice_policy::api_key::{Digest, Keys};
use sluice_policy::authorize::Access;
use sluice_policy::limit::Limit;
use sluice_policy::split::Split;
use sluice_schema::{
    Arm, Balance, Breaker, Concurrency, ConcurrencyLimit, Fallback, HashOn, Health, Hedge, Idempotency,
    Instance, InstanceUrl, Lane, Outlier, RateKey, RateLimit, Retry, RetryCause, Scheme, Service, Timeouts,
};

use super::chance::Chance;
use super::request::subject;

pub(crate) const ORDERS: usize = 0;
pub(crate) const CANCELS: usize = 1;
pub(crate) const QUOTES: usize = 2;
pub(crate) const REPORTS: usize = 3;
/// Answers a part of [`QUOTES`], where that is split; has no route of its own.
pub(crate) const CANARY: usize = 4;
pub(crate) const SERVICES: usize = 5;
/// The most tries of a request that any service allows.
pub(crate) const ATTEMPTS_MAX: u64 = 4;
const NAMES: [&str; SERVICES] = ["orders", "cancels", "quotes", "reports", "quotes_v2"];
const LANES: [Lane; SERVICES] = [Lane::Order, Lane::Cancel, Lane::Query, Lane::Analytics, Lane::Query];
/// Who watches until all are well; never limited by what the others did.
pub(crate) const MONITOR: usize = 0;
/// Reads, and may not order.
pub(crate) const READER: usize = 1;

/// What stays as it is for a run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) edges: usize,
    /// One store of keys for all edges, as Redis is; else each has its own.
    pub(crate) shared: bool,
    pub(crate) ttl: Duration,
    /// The longest that a write takes to the disk.
    pub(crate) commit: Duration,
    /// The longest way of a message.
    pub(crate) net: Duration,
    /// How long things go wrong.
    pub(crate) length: Duration,
    /// Instances of each group that there ever are; services of a group share them.
    pub(crate) hosts: Vec<usize>,
    pub(crate) accounts: usize,
    /// Edges share their limits.
    pub(crate) joint: bool,
    /// Who shows an API key in place of a token.
    pub(crate) keyed: Option<usize>,
    /// Zones of the edges are told apart.
    pub(crate) zones: bool,
}

/// One generation of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Conf {
    pub(crate) number: u64,
    pub(crate) services: Vec<Service>,
    pub(crate) limits: Vec<Option<Limit>>,
    pub(crate) access: Vec<Access>,
    pub(crate) splits: Vec<Split>,
    /// Which instances a service has.
    pub(crate) group: [usize; SERVICES],
    /// The one API key that there is, and the table that finds it.
    pub(crate) key: Option<ApiKey>,
    pub(crate) keys: Keys<ApiKey>,
}

/// An API key, whose account it is, and what that may do by it: nothing where it is not in the file, read, trade.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ApiKey {
    pub(crate) account: usize,
    pub(crate) rights: u8,
}

/// What stands for the digest of an account's key.
pub(crate) fn digest(shown: &[u8]) -> Digest {
    std::array::from_fn(|at| shown.get(at).copied().unwrap_or_default())
}

impl Plan {
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let accounts = chance.between(3, 6) as usize;
        Self {
            edges: chance.of(&[1, 1, 2, 3]),
            shared: chance.is(40),
            ttl: Duration::from_secs(chance.of(&[2, 30, 3600])),
            commit: chance.ms(0, 8),
            net: chance.ms(1, 4),
            length: chance.ms(2500, 4500),
            hosts: (0..3).map(|_| chance.between(1, 5) as usize).collect(),
            accounts,
            joint: chance.is(40),
            keyed: chance.is(60).then_some(accounts - 1),
            zones: chance.is(25),
        }
    }
}

pub(crate) fn lane(service: usize) -> Lane {
    LANES[service]
}

pub(crate) fn url(group: usize, host: usize) -> InstanceUrl {
    let host_name = format!("10.0.{group}.{}", host + 1);
    InstanceUrl { scheme: Scheme::Http, host: host_name, port: 80, path: String::new() }
}

/// The instance that stands at an address.
pub(crate) fn host_of(url: &InstanceUrl) -> usize {
    let last = url.host.rsplit('.').next().and_then(|digits| digits.parse::<usize>().ok());
    last.expect("addresses are made by `url`") - 1
}

impl Conf {
    /// The first generation.
    pub(crate) fn draw(plan: &Plan, chance: &mut Chance) -> Rc<Self> {
        let shared_quotes = chance.is(60);
        let group = [0, 0, usize::from(!shared_quotes), 1, 2];
        let split = chance.is(50).then(|| chance.between(10, 60) as u32);
        let concurrency: Vec<Concurrency> = (0..3).map(|_| draw_concurrency(chance)).collect();
        let services = (0..SERVICES).map(|service| {
            let mut drawn = draw_service(service, group[service], plan, chance);
            drawn.concurrency = concurrency[group[service]].clone();
            if let Some(weight) = split.filter(|_| service == QUOTES) {
                drawn.split = vec![Arm { service: NAMES[CANARY].to_owned(), weight }];
            }
            drawn
        });
        let services = services.collect();
        let key = plan.keyed.map(|account| ApiKey { account, rights: chance.of(&[1, 2, 2]) });
        Rc::new(Self::of(0, services, group, key))
    }

    fn of(number: u64, services: Vec<Service>, group: [usize; SERVICES], key: Option<ApiKey>) -> Self {
        let limits = services.iter().map(|service| service.rate_limit.as_ref().map(Limit::new)).collect();
        let access = services.iter().map(|service| Access::of_service(service, true)).collect();
        let split = |service: &Service| Split::new(&service.name, service.split.iter().map(|arm| arm.weight));
        let splits = services.iter().map(split).collect();
        let listed = key.iter().filter(|key| key.rights > 0);
        let keys = listed.map(|key| (digest(subject(key.account).as_bytes()), *key)).collect();
        Self { number, services, limits, access, splits, group, key, keys }
    }

    /// The key of an account that shows one.
    pub(crate) fn key_of(&self, account: usize) -> Option<ApiKey> {
        self.key.filter(|key| key.account == account)
    }

    /// The next one: an operator has changed something of one service.
    pub(crate) fn changed(&self, plan: &Plan, chance: &mut Chance) -> Rc<Self> {
        let mut services = self.services.clone();
        let at = chance.below(SERVICES as u64) as usize;
        let drawn = draw_service(at, self.group[at], plan, chance);
        let service = &mut services[at];
        match chance.below(6) {
            0 => service.rate_limit = drawn.rate_limit,
            1 => service.breaker = drawn.breaker,
            2 => service.outlier = drawn.outlier,
            3 => service.retry = drawn.retry,
            4 => service.instances = drawn.instances,
            _ => service.panic_threshold = drawn.panic_threshold,
        }
        if at == QUOTES && chance.is(50) {
            for arm in &mut service.split {
                arm.weight = chance.between(5, 70) as u32;
            }
        }
        let mut key = self.key;
        if let Some(key) = key.as_mut().filter(|_| chance.is(30)) {
            key.rights = chance.of(&[0, 1, 2]);
        }
        Rc::new(Self::of(self.number + 1, services, self.group, key))
    }
}

fn draw_service(at: usize, group: usize, plan: &Plan, chance: &mut Chance) -> Service {
    let balance = chance.of(&[
        Balance::RoundRobin,
        Balance::Weighted,
        Balance::LeastConnections,
        Balance::PeakEwma,
        Balance::Hash,
        Balance::Sticky,
    ]);
    let first_byte = chance.ms(150, 400);
    let writes = ["trade".to_owned()];
    Service {
        name: NAMES[at].to_owned(),
        prefix: if at == CANARY { String::new() } else { format!("/{}", NAMES[at]) },
        permissions: BTreeMap::from([
            ("GET".to_owned(), Vec::new()),
            ("POST".to_owned(), writes.to_vec()),
            ("DELETE".to_owned(), writes.to_vec()),
        ]),
        balance,
        hash_on: HashOn::Subject,
        slow_start: chance.of(&[Duration::ZERO, Duration::from_millis(300)]),
        rate_limit: chance.is(60).then(|| draw_rate(chance)),
        lane: LANES[at],
        fair_key: RateKey::Subject,
        timeouts: Timeouts {
            connect: chance.ms(30, 60),
            first_byte,
            total: first_byte + chance.ms(50, 400),
            idle: Duration::from_secs(60),
        },
        retry: Retry {
            attempts: chance.between(1, ATTEMPTS_MAX) as u32,
            budget: chance.of(&[0.0, 0.1, 0.2, 0.5]),
            min_per_second: chance.of(&[0, 1, 3]),
            on: vec![
                RetryCause::Connect,
                RetryCause::Reset,
                RetryCause::Status(502),
                RetryCause::Status(503),
                RetryCause::Status(504),
            ],
            hedge: match chance.below(4) {
                0 | 1 => Hedge::Off,
                2 => Hedge::P95,
                _ => Hedge::After(chance.ms(5, 60)),
            },
        },
        breaker: Breaker {
            failure_threshold: chance.between(2, 6) as u32,
            failure_rate: chance.of(&[0.3, 0.5, 1.0]),
            slow_call: chance.ms(80, 140),
            slow_rate: chance.of(&[0.5, 0.8]),
            window: Duration::from_secs(chance.between(1, 10)),
            min_calls: chance.between(3, 20) as u32,
            recovery_timeout: chance.ms(100, 800),
            success_threshold: chance.between(1, 3) as u32,
            half_open_max: chance.between(1, 3) as u32,
        },
        outlier: Outlier {
            consecutive: chance.between(2, 6) as u32,
            base_ejection: chance.ms(100, 600),
            max_ejected: chance.of(&[0.0, 0.3, 0.5, 1.0]),
        },
        health: Health {
            interval: chance.ms(300, 600),
            timeout: chance.ms(40, 100),
            healthy: chance.between(1, 2) as u32,
            unhealthy: chance.between(2, 3) as u32,
            ..Health::default()
        },
        idempotency: match at {
            ORDERS => chance.of(&[Idempotency::Optional, Idempotency::Optional, Idempotency::Required]),
            _ => Idempotency::Off,
        },
        fallback: Fallback {
            stale: (matches!(at, QUOTES | REPORTS) && chance.is(30)).then(|| chance.ms(100, 2000)),
            ..Fallback::default()
        },
        panic_threshold: chance.of(&[0.0, 0.5, 0.5]),
        instances: draw_instances(group, plan, chance),
        ..Service::default()
    }
}

/// Some of the instances of a group, at least one.
fn draw_instances(group: usize, plan: &Plan, chance: &mut Chance) -> Vec<Instance> {
    let all = plan.hosts[group];
    let left_out = if all > 1 && chance.is(30) { Some(chance.below(all as u64) as usize) } else { None };
    let listed = (0..all).filter(|host| Some(*host) != left_out);
    let zone = |host: usize| if plan.zones { ["a", "b"][host % 2] } else { "" };
    let one = |host| Instance {
        url: url(group, host),
        weight: chance.between(1, 4) as u32,
        zone: zone(host).to_owned(),
    };
    listed.map(one).collect()
}

fn draw_rate(chance: &mut Chance) -> RateLimit {
    let requests = chance.between(10, 80);
    RateLimit {
        requests,
        per: Duration::from_secs(chance.between(1, 2)),
        burst: chance.between(1, 30),
        key: [RateKey::Client, RateKey::Subject, RateKey::Ip][chance.below(3) as usize].clone(),
        hard: chance.is(20).then(|| requests * 2),
    }
}

fn draw_concurrency(chance: &mut Chance) -> Concurrency {
    let adaptive = chance.is(30);
    Concurrency {
        limit: if adaptive {
            ConcurrencyLimit::Adaptive
        } else {
            ConcurrencyLimit::Fixed(chance.between(3, 24) as u32)
        },
        max: chance.between(8, 64) as u32,
        queue: chance.of(&[0, 4, 16]),
        queue_timeout: chance.ms(10, 80),
    }
}
