//! Rate limits that edges share in one real Redis, which is killed, stopped, started again, and fails in other ways.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod server;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use sluice_ledger::limits::{SharedLimits, Watch};
use sluice_ledger::redis::RedisError;
use sluice_policy::limit::Terms;
use sluice_policy::limit::lease::Outcome;
use sluice_policy::limit::table::{Key, Keyer, Threshold, Who};
use sluice_policy::time::Nanos;
use sluice_schema::{Mode, check};
use tokio::runtime::Runtime;

use server::RedisServer;

const PATIENCE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now() -> Nanos {
    Nanos::from(START.elapsed())
}

#[derive(Default)]
struct Counts {
    answered: AtomicUsize,
    failed: AtomicUsize,
    left: AtomicUsize,
}

impl Watch for Counts {
    fn shares(&self, why_not: Option<&RedisError>) {
        self.left.fetch_add(usize::from(why_not.is_some()), Ordering::Relaxed);
    }

    fn called(&self, calls: usize, answered: bool) {
        let count = if answered { &self.answered } else { &self.failed };
        count.fetch_add(calls, Ordering::Relaxed);
    }
}

struct Edge {
    limits: SharedLimits,
    counts: Arc<Counts>,
    keyer: Keyer,
}

impl Edge {
    fn join(server: &RedisServer, runtime: &Runtime, seed: u64) -> Self {
        let url = BTreeMap::from([("REDIS_URL".to_owned(), server.url())]);
        let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let config = check(&[], &url, Mode::default(), &none).unwrap().config;
        let counts = Arc::new(Counts::default());
        let url = config.redis.as_ref().unwrap();
        let limits = SharedLimits::join(url, runtime.handle(), now, Arc::<Counts>::clone(&counts)).unwrap();
        let edge = Self { limits, counts, keyer: Keyer::new([seed, seed]) };
        until("it shares", || edge.limits.shares());
        edge
    }

    fn key(&self, caller: u8) -> Key {
        self.keyer.key("s", Who::Subject(&caller.to_string()))
    }

    fn take(&self, caller: u8, terms: &Terms) -> Option<bool> {
        let name = || [caller; 16];
        let taken = self.limits.take(self.key(caller), Threshold::Soft, terms, now(), name)?;
        Some(!matches!(taken.outcome, Outcome::Refused(_)))
    }

    /// Until what was admitted is counted: a request that is refused by what the store said.
    fn until_dry(&self, caller: u8, terms: &Terms) -> usize {
        let (mut admitted, end) = (0, Instant::now() + PATIENCE);
        loop {
            let taken = self.limits.take(self.key(caller), Threshold::Soft, terms, now(), || [caller; 16]);
            match taken.expect("it shares").outcome {
                Outcome::Refused(wait) if wait > Duration::from_secs(1) => return admitted,
                Outcome::Refused(_) => std::thread::yield_now(),
                _ => admitted += 1,
            }
            assert!(Instant::now() < end, "it goes on for ever");
        }
    }
}

fn until(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn edges_together_admit_what_one_would() {
    let (server, runtime) = (RedisServer::start(), runtime());
    let (one, two) = (Edge::join(&server, &runtime, 1), Edge::join(&server, &runtime, 2));
    for (caller, burst) in [(1, 5), (2, 100), (3, 1000)] {
        let terms = Terms::new(burst, HOUR, burst);
        let first = one.until_dry(caller, &terms) as u64;
        let second = two.until_dry(caller, &terms) as u64;
        // The second learns with its first answer; a client as fast as this one uses its credit up until then.
        let most = burst + burst.div_ceil(3) + 2;
        assert!((burst..=most).contains(&(first + second)), "{first} + {second} of {burst}");
        // And it is counted: none of it is given for nothing.
        let name = format!("PTTL sluice:limit:2:{}", format!("{caller:02x}").repeat(16));
        let counted = || server.ask(&name)[1..].trim().parse::<f64>().unwrap() / 3.6e6 * burst as f64;
        until("all are counted", || (counted() - (first + second) as f64).abs() < 1.0);
    }
    assert_eq!(one.counts.failed.load(Ordering::Relaxed), 0);
    // Nobody is named, and nothing outlives its bucket.
    let names = server.ask("KEYS *");
    assert_eq!(names.matches("sluice:limit:2:").count(), names.matches("sluice").count());
    assert!(names.contains(&format!("sluice:limit:2:{}", "03".repeat(16))), "{names}");
}

#[test]
fn at_a_high_rate_redis_is_asked_for_chunks() {
    let (server, runtime) = (RedisServer::start(), runtime());
    let edge = Edge::join(&server, &runtime, 1);
    let terms = Terms::new(1_000_000, Duration::from_secs(1), 1_000_000);
    let (started, mut admitted) = (Instant::now(), 0_usize);
    while started.elapsed() < Duration::from_millis(500) {
        admitted += usize::from(edge.take(1, &terms).unwrap());
    }
    let calls = edge.counts.answered.load(Ordering::Relaxed);
    assert!(admitted > 20 * calls && calls < 120, "{calls} calls for {admitted} requests");
}

#[test]
fn what_is_not_used_goes_back() {
    let (server, runtime) = (RedisServer::start(), runtime());
    let (one, two) = (Edge::join(&server, &runtime, 1), Edge::join(&server, &runtime, 2));
    let terms = Terms::new(3_200, 24 * HOUR, 3_200);
    let (mut used, started) = (0, Instant::now());
    while used < 600 && started.elapsed() < PATIENCE {
        used += usize::from(one.take(1, &terms).unwrap());
        std::thread::sleep(Duration::from_micros(100));
    }
    let name = format!("PTTL sluice:limit:2:{}", "01".repeat(16));
    // Each request costs 27 s; what one holds beyond what it used is counted until it lapses.
    let counted = || server.ask(&name)[1..].trim().parse::<f64>().unwrap() / 27_000.0;
    until("what it holds was given back", || (counted() - used as f64).abs() < 3.0);
    let rest = two.until_dry(1, &terms);
    assert!((3_200 - used - 4..=3_200 - used + 5).contains(&rest), "{used} + {rest}");
}

#[test]
fn without_redis_each_edge_judges_alone_until_it_is_back() {
    let (mut server, runtime) = (RedisServer::start(), runtime());
    let edge = Edge::join(&server, &runtime, 1);
    let terms = Terms::new(5, HOUR, 5);
    assert!(edge.until_dry(1, &terms) >= 5);
    server.kill();
    until("the failure is seen", || edge.take(2, &terms).is_none());
    assert!(edge.counts.failed.load(Ordering::Relaxed) > 0);
    server.again();
    until("it shares again", || edge.limits.shares());
    assert!(edge.limits.take(edge.key(1), Threshold::Soft, &terms, now(), || [1; 16]).is_some());
    // What was counted before its death is counted still: it was on the disk.
    let more = edge.until_dry(1, &terms);
    assert!(more <= 2, "{more}");
}

#[test]
fn a_redis_that_stands_still_holds_nobody_up() {
    let (server, runtime) = (RedisServer::start(), runtime());
    let edge = Edge::join(&server, &runtime, 1);
    let terms = Terms::new(1000, HOUR, 1000);
    assert_eq!(edge.take(1, &terms), Some(true));
    server.signal("-STOP");
    let started = Instant::now();
    let mut longest = Duration::ZERO;
    loop {
        let before = Instant::now();
        let taken = edge.take(2, &terms);
        longest = longest.max(before.elapsed());
        if taken.is_none() {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "it still waits");
        std::thread::sleep(Duration::from_micros(200));
    }
    assert!(longest < Duration::from_millis(150), "{longest:?}");
    server.signal("-CONT");
    until("it shares again", || edge.limits.shares());
}

#[test]
fn a_redis_that_answers_with_errors_is_left_alone() {
    let (server, runtime) = (RedisServer::start(), runtime());
    let edge = Edge::join(&server, &runtime, 1);
    let terms = Terms::new(1000, HOUR, 1000);
    let ways =
        [("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"), ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")];
    for (caller, (breaks, mends)) in ways.into_iter().enumerate() {
        assert!(server.ask(breaks).starts_with('+'), "{breaks}");
        until(breaks, || edge.take(caller as u8, &terms).is_none());
        assert!(server.ask(mends).starts_with('+'), "{mends}");
        until(mends, || edge.limits.shares());
    }
    // A script that is not known any more is told again, and nothing is noticed.
    let left = edge.counts.left.load(Ordering::Relaxed);
    for caller in 10..20 {
        assert!(server.ask("SCRIPT FLUSH").starts_with('+'));
        let answered = edge.counts.answered.load(Ordering::Relaxed);
        assert_eq!(edge.take(caller, &terms), Some(true));
        until("it was asked", || edge.counts.answered.load(Ordering::Relaxed) > answered);
    }
    assert_eq!(edge.counts.left.load(Ordering::Relaxed), left);
}
