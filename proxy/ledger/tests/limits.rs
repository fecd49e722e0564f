//! Rate limits that edges share in one real Redis, which is killed, stopped, started again, and fails in other ways,
//! also while requests wait for it.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod server;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use sluice_ledger::limits::{SharedLimits, Told, Waiting, Watch};
use sluice_ledger::redis::RedisError;
use sluice_policy::limit::Terms;
use sluice_policy::limit::lease::{LATE, Outcome, SHARE, Taken};
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

    /// One request; what it waits for, where it does.
    fn ask(&self, caller: u8, terms: &Terms) -> Option<(Taken, Option<Waiting>)> {
        let name = || [caller; 16];
        self.limits.take(self.key(caller), Threshold::Soft, terms, u64::MAX, now(), name)
    }

    /// The same, with what became of it in the end; `None` where this edge judges alone.
    fn told(&self, caller: u8, terms: &Terms) -> Option<Outcome> {
        match self.ask(caller, terms)? {
            (taken, None) => Some(taken.outcome),
            (_, Some(waiting)) => told(waiting, None).map(|taken| taken.outcome),
        }
    }

    fn take(&self, caller: u8, terms: &Terms) -> Option<bool> {
        Some(!matches!(self.told(caller, terms)?, Outcome::Refused(_)))
    }

    /// Until what was admitted is counted: a request that is refused by what the store said.
    fn until_dry(&self, caller: u8, terms: &Terms) -> usize {
        let (mut admitted, end) = (0, Instant::now() + PATIENCE);
        loop {
            match self.told(caller, terms).expect("it shares") {
                Outcome::Refused(wait) if wait > Duration::from_secs(1) => return admitted,
                Outcome::Refused(_) => std::thread::yield_now(),
                _ => admitted += 1,
            }
            assert!(Instant::now() < end, "it goes on for ever");
        }
    }

    /// So many requests in one moment; how many of them pass.
    fn flood(&self, caller: u8, terms: &Terms, count: usize) -> usize {
        let asked: Vec<_> = (0..count).map(|_| self.ask(caller, terms).expect("it shares")).collect();
        let passes = |outcome| !matches!(outcome, Outcome::Refused(_));
        let outcomes = asked.into_iter().map(|(taken, waiting)| match waiting {
            None => taken.outcome,
            Some(waiting) => told(waiting, None).expect("it shares").outcome,
        });
        outcomes.filter(|outcome| passes(*outcome)).count()
    }
}

/// What a request that waits is told.
fn told(mut waiting: Waiting, patience: Option<Duration>) -> Option<Taken> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    match runtime.block_on(waiting.told(patience)) {
        Told::Taken(taken) => Some(taken),
        Told::Alone => None,
        Told::Over => panic!("it had patience"),
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
        // The second is asked first when the bucket is empty: it has its credit, and no more.
        assert!((burst..=burst + burst / SHARE).contains(&first), "{first} of {burst}");
        assert!(second <= burst / SHARE, "{first} + {second} of {burst}");
        // And it is counted: none of it is given for nothing.
        let name = format!("PTTL sluice:limit:3:{}", format!("{caller:02x}").repeat(16));
        let counted = || server.ask(&name)[1..].trim().parse::<f64>().unwrap() / 3.6e6 * burst as f64;
        until("all are counted", || (counted() - (first + second) as f64).abs() < 1.0);
    }
    assert_eq!(one.counts.failed.load(Ordering::Relaxed), 0);
    // Nobody is named, and nothing outlives its bucket.
    let names = server.ask("KEYS *");
    assert_eq!(names.matches("sluice:limit:3:").count(), names.matches("sluice").count());
    assert!(names.contains(&format!("sluice:limit:3:{}", "03".repeat(16))), "{names}");
}

#[test]
fn three_edges_flooded_in_one_moment_after_a_rest_admit_one_bucket() {
    let (server, runtime) = (RedisServer::start(), runtime());
    let edges = [1, 2, 3].map(|seed| Edge::join(&server, &runtime, seed));
    for (caller, burst) in [(1, 5), (2, 60), (3, 300)] {
        let terms = Terms::new(burst, HOUR, burst);
        let admitted: usize = std::thread::scope(|scope| {
            let each =
                edges.each_ref().map(|edge| scope.spawn(move || edge.flood(caller, &terms, burst as usize)));
            each.into_iter().map(|flood| flood.join().unwrap()).sum()
        });
        // What is left over of chunks is at hand.
        let (least, most) = (burst - 3 * (burst / SHARE), burst + 3 * (burst / SHARE));
        assert!((least..=most).contains(&(admitted as u64)), "{admitted} of {burst}");
    }
}

#[test]
fn a_request_waits_for_one_answer_and_no_longer_than_it_has_patience() {
    let (server, runtime) = (RedisServer::start(), runtime());
    let edge = Edge::join(&server, &runtime, 1);
    let terms = Terms::new(5, HOUR, 5);
    let (taken, waiting) = edge.ask(1, &terms).unwrap();
    assert_eq!(taken.outcome, Outcome::Waits);
    assert_eq!(told(waiting.unwrap(), None).unwrap().outcome, Outcome::Leased);
    server.signal("-STOP");
    let (_, waiting) = edge.ask(2, &terms).unwrap();
    let alone = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let over = alone.block_on(waiting.unwrap().told(Some(Duration::from_millis(5))));
    assert_eq!(over, Told::Over);
    // One that leaves waits no more, and gets nothing that others miss.
    drop(edge.ask(3, &terms).unwrap().1.unwrap());
    server.signal("-CONT");
    until("it shares", || edge.limits.shares());
    for caller in [2, 3] {
        assert_eq!(edge.until_dry(caller, &terms), 5, "nothing was counted for {caller}");
    }
}

#[test]
fn who_waits_when_redis_dies_or_stands_still_is_judged_by_this_edge() {
    let (mut server, runtime) = (RedisServer::start(), runtime());
    let edge = Edge::join(&server, &runtime, 1);
    let terms = Terms::new(5, HOUR, 5);
    server.signal("-STOP");
    let waiting: Vec<Waiting> = (0..3).map(|_| edge.ask(1, &terms).unwrap().1.unwrap()).collect();
    let (asked, runtime) = (Instant::now(), &runtime);
    for waiting in waiting {
        let taken = told(waiting, None);
        // On a machine that stands still itself the round has failed before.
        assert!(taken.is_none_or(|taken| taken.outcome == Outcome::Late), "{taken:?}");
    }
    assert!(asked.elapsed() >= LATE, "nobody said anything");
    until("the failure is seen", || edge.ask(2, &terms).is_none());
    server.signal("-CONT");
    until("it shares again", || edge.limits.shares());
    let two = Edge::join(&server, runtime, 2);
    server.signal("-STOP");
    let waiting = two.ask(3, &terms).unwrap().1.unwrap();
    server.kill();
    let asked = Instant::now();
    let taken = told(waiting, None);
    assert!(taken.is_none_or(|taken| taken.outcome == Outcome::Late), "{taken:?}");
    assert!(asked.elapsed() < Duration::from_secs(2), "it hung: {:?}", asked.elapsed());
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
    let name = format!("PTTL sluice:limit:3:{}", "01".repeat(16));
    // Each request costs 27 s; what one holds beyond what it used is counted until it lapses.
    let counted = || server.ask(&name)[1..].trim().parse::<f64>().unwrap() / 27_000.0;
    until("what it holds was given back", || (counted() - used as f64).abs() < 3.0);
    let rest = two.until_dry(1, &terms);
    let most = 3_200 - used + 3_200 / SHARE as usize;
    assert!((3_200 - used - 4..=most).contains(&rest), "{used} + {rest}");
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
    assert!(edge.ask(1, &terms).is_some());
    // What was counted before its death is counted still: it was on the disk.
    let more = edge.until_dry(1, &terms);
    assert!(more <= 2, "{more}");
}

#[test]
fn a_redis_that_stands_still_holds_nobody_up_for_long() {
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
    assert!(longest < LATE + Duration::from_millis(150), "{longest:?}");
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
