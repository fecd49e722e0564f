//! Edges that share one limit through a store, by seeds: slow and uneven calls, uneven and changing loads,
//! requests that leave while they wait. What passes is held to the bound at every moment, for every span of time.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sluice_schema::{RateKey, RateLimit};

use super::super::*;
use crate::limit::Limit;
use crate::limit::leases::{Due, Leases, Name, Ticket};
use crate::limit::table::{Keyer, Table, Threshold, Verdict, Who};
use crate::random::mix;

/// The store: what the script does, by a clock of its own, microseconds.
#[derive(Default)]
struct Store {
    whole_at_us: BTreeMap<Name, f64>,
    calls: u64,
}

impl Store {
    fn call(&mut self, name: Name, terms: &Terms, ask: Ask, now_us: f64) -> Granted {
        self.calls += 1;
        let cost = terms.per_us as f64 / terms.requests as f64;
        let full = terms.capacity as f64 * cost;
        let known = self.whole_at_us.get(&name).copied().unwrap_or(now_us);
        let whole = (known.clamp(now_us, now_us + 4.0 * full) + ask.owed as f64 * cost)
            .clamp(now_us, now_us + 4.0 * full);
        let room = ((now_us + full - whole) / cost + 0.001).floor().max(0.0) as u64;
        let granted = room.min(ask.want);
        let whole = whole + granted as f64 * cost;
        self.whole_at_us.insert(name, whole);
        Granted::new(granted, (whole - now_us).ceil() as u64)
    }
}

/// A call on its way to the store, or back.
enum Flight {
    Out(Name, Ask),
    Back(Granted),
}

struct Edge {
    table: Table,
    leases: Leases<u64>,
    keyer: Keyer,
    /// Calls under way, and when they arrive where they go.
    flying: Vec<(u64, Due, Flight)>,
    last_round_us: u64,
    watched: Vec<(Nanos, Due)>,
    /// Requests that wait, by number, and when they came.
    waiting: BTreeMap<u64, (Ticket, u64)>,
    sent: u64,
    admitted: u64,
    closed: u64,
    late: u64,
    waited_us: u64,
}

/// What passed: with `n` the number of one and `t` its moment, `n - rate * t` exceeds its least value by what passed
/// beyond the rate in the worst span that ends then.
#[derive(Default)]
struct Passed {
    count: u64,
    least: Option<f64>,
    worst: f64,
}

/// Requests a second at each edge.
type Loads = [u64; 3];

struct World {
    limit: Limit,
    store: Store,
    edges: Vec<Edge>,
    passed: Passed,
    seed: u64,
    now_us: u64,
    /// A call takes up to so long.
    slow_us: u64,
    /// One in so many of those who wait leaves; 0: nobody.
    leaving: u64,
}

fn moment(us: u64) -> Nanos {
    Nanos(1_000_000_000_000 + us * 1_000)
}

impl World {
    fn new(conf: &RateLimit, seed: u64, slow_us: u64) -> Self {
        let edge = |n| Edge {
            table: Table::new(64),
            leases: Leases::new(64),
            keyer: Keyer::new([seed, n]),
            flying: Vec::new(),
            last_round_us: 0,
            watched: Vec::new(),
            waiting: BTreeMap::new(),
            sent: 0,
            admitted: 0,
            closed: 0,
            late: 0,
            waited_us: 0,
        };
        let edges = (0..3).map(edge).collect();
        let (limit, store, passed) = (Limit::new(conf), Store::default(), Passed::default());
        Self { limit, store, edges, passed, seed, now_us: 0, slow_us, leaving: 0 }
    }

    fn sent(&self) -> u64 {
        self.edges.iter().map(|edge| edge.sent).sum()
    }

    fn admitted(&self) -> u64 {
        self.edges.iter().map(|edge| edge.admitted).sum()
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.seed = mix(self.seed);
        self.seed % below.max(1)
    }

    /// Beyond the bucket, in the worst span of time, less what the store regained while an answer was on its way.
    fn beyond(&self) -> f64 {
        let way = self.limit.soft_terms.requests as f64 / self.limit.soft_terms.per_us as f64;
        self.passed.worst - self.limit.soft_terms.capacity as f64 - way * (self.slow_us + 200) as f64
    }

    /// What edges hold back from the store and have on credit, at most, and one.
    fn bound(&self) -> f64 {
        (3 * (self.limit.soft_terms.capacity / SHARE) + 1) as f64
    }

    /// Runs from `from_us` for so long; returns what was admitted in it. Requests come at random moments.
    fn run(&mut self, from_us: u64, for_us: u64, loads: Loads) -> u64 {
        let before = self.admitted();
        let mut next: Vec<u64> = loads.iter().map(|load| from_us + self.gap(*load)).collect();
        loop {
            let (edge, now_us) = next.iter().copied().enumerate().min_by_key(|(_, at)| *at).unwrap();
            if now_us >= from_us + for_us {
                break;
            }
            self.pass(now_us);
            self.request(edge, now_us);
            next[edge] = now_us + self.gap(loads[edge]);
        }
        self.pass(from_us + for_us);
        self.admitted() - before
    }

    /// As many requests at each edge in each millisecond; returns what was admitted.
    fn flood(&mut self, from_us: u64, for_us: u64, each: [u64; 3]) -> u64 {
        let before = self.admitted();
        for now_us in (from_us..from_us + for_us).step_by(1_000) {
            self.pass(now_us);
            for (edge, count) in each.into_iter().enumerate() {
                (0..count).for_each(|_| self.request(edge, now_us));
            }
        }
        self.pass(from_us + for_us);
        self.admitted() - before
    }

    /// What the tasks do until then, by halves of a millisecond and as long as there is anything.
    fn pass(&mut self, until_us: u64) {
        while self.now_us < until_us && (0..3).fold(false, |busy, edge| self.keep(edge) | busy) {
            self.now_us += 500;
        }
        self.now_us = until_us;
        for edge in 0..3 {
            self.keep(edge);
        }
    }

    fn gap(&mut self, load: u64) -> u64 {
        2_000_000_u64.checked_div(load).map_or(u64::MAX / 2, |most| 1 + self.chance(most))
    }

    fn request(&mut self, at: usize, now_us: u64) {
        let (edge, limit) = (&mut self.edges[at], &self.limit);
        let (now, key) = (moment(now_us), edge.keyer.key("s", Who::Everybody));
        edge.sent += 1;
        let (number, mut ticket) = (edge.sent, None);
        let verdict = edge.table.check_with(key, limit, now, |threshold, here| {
            let terms = match threshold {
                Threshold::Soft => limit.soft_terms,
                Threshold::Hard => limit.hard_terms?,
            };
            let name = [u8::from(threshold == Threshold::Hard); 16];
            let wakes = |given| {
                ticket = Some(given);
                number
            };
            let taken = edge.leases.take(key, threshold, &terms, here, now, || name, wakes)?;
            edge.late += u64::from(matches!(taken.outcome, Outcome::Late | Outcome::Crowded));
            Some(taken)
        });
        assert_eq!(verdict.waits, ticket.is_some());
        match ticket {
            Some(ticket) => {
                edge.waiting.insert(number, (ticket, now_us));
            }
            None => self.done(at, verdict, now_us),
        }
    }

    /// One that waited is decided.
    fn settle(&mut self, at: usize, number: u64, taken: &Taken, now_us: u64) {
        let edge = &mut self.edges[at];
        let Some((ticket, since_us)) = edge.waiting.remove(&number) else { return };
        edge.waited_us = edge.waited_us.max(now_us - since_us);
        let key = edge.keyer.key("s", Who::Everybody);
        let (verdict, unused) = edge.table.settle(key, &self.limit, moment(now_us), Some(taken));
        if unused {
            edge.leases.give_back(&ticket, moment(now_us));
        }
        self.done(at, verdict, now_us);
    }

    fn done(&mut self, at: usize, verdict: Verdict, now_us: u64) {
        let edge = &mut self.edges[at];
        edge.closed += u64::from(verdict.close);
        assert!(!(verdict.close && verdict.decision.allowed));
        if !verdict.decision.allowed {
            return;
        }
        edge.admitted += 1;
        let passed = &mut self.passed;
        let regained = now_us as f64 * self.limit.soft_terms.requests as f64;
        let place = passed.count as f64 - regained / self.limit.soft_terms.per_us as f64;
        let least = passed.least.map_or(place, |least| least.min(place));
        passed.worst = passed.worst.max(place - least + 1.0);
        (passed.count, passed.least) = (passed.count + 1, Some(least));
    }

    /// What the task beside the requests does; true while there is more to do soon.
    fn keep(&mut self, at: usize) -> bool {
        let now_us = self.now_us;
        self.arrivals(at, now_us);
        self.impatient(at, now_us);
        let edge = &mut self.edges[at];
        for (when, due) in std::mem::take(&mut edge.watched) {
            if when > moment(now_us) {
                edge.watched.push((when, due));
            } else if let Some(when) = edge.leases.watch(&due, moment(now_us)) {
                edge.watched.push((when, due));
            }
        }
        let pause_us = if edge.leases.waiting() > 0 { 1_000 } else { 5_000 };
        if !edge.flying.is_empty() || now_us < edge.last_round_us + pause_us {
            return true;
        }
        let due = edge.leases.due(512);
        if due.is_empty() {
            return !edge.watched.is_empty() || !edge.waiting.is_empty();
        }
        edge.last_round_us = now_us;
        for due in due {
            let way_us = 100 + self.chance(self.slow_us / 2 + 1);
            let edge = &mut self.edges[at];
            let Some((name, ask)) = edge.leases.ask(&due, moment(now_us)) else { continue };
            edge.flying.push((now_us + way_us, due, Flight::Out(name, ask)));
        }
        true
    }

    fn arrivals(&mut self, at: usize, now_us: u64) {
        for (when, due, flight) in std::mem::take(&mut self.edges[at].flying) {
            match flight {
                flight if when > now_us => self.edges[at].flying.push((when, due, flight)),
                Flight::Out(name, ask) => {
                    let granted = self.store.call(name, &due.terms, ask, when as f64);
                    let back_us = when + 100 + self.chance(self.slow_us / 2 + 1);
                    self.edges[at].flying.push((back_us, due, Flight::Back(granted)));
                }
                Flight::Back(granted) => {
                    let edge = &mut self.edges[at];
                    let answered = edge.leases.answer(&due, granted, moment(now_us));
                    edge.watched.extend(answered.lapses_at.map(|at| (at, due)));
                    for (number, taken) in answered.decided {
                        self.settle(at, number, &taken, now_us);
                    }
                }
            }
        }
    }

    /// Those who have waited for as long as anybody does, and those who leave.
    fn impatient(&mut self, at: usize, now_us: u64) {
        let late_us = LATE.as_micros() as u64;
        while let Some((number, (ticket, since_us))) = self.edges[at].waiting.first_key_value()
            && now_us - since_us >= late_us
        {
            let (number, ticket) = (*number, *ticket);
            let taken = self.edges[at].leases.late(&ticket, moment(now_us)).expect("it waits");
            self.edges[at].late += 1;
            self.settle(at, number, &taken, now_us);
        }
        if self.leaving > 0 && self.chance(self.leaving) == 0 {
            let edge = &mut self.edges[at];
            if let Some((_, (ticket, _))) = edge.waiting.pop_last() {
                edge.leases.leave(&ticket);
            }
        }
    }
}

fn conf(requests: u64, per: Duration, burst: u64) -> RateLimit {
    RateLimit { requests, per, burst, key: RateKey::Service, hard: None }
}

/// What one edge alone would have to admit.
fn allowed(conf: &RateLimit, seconds: f64) -> f64 {
    conf.burst as f64 + conf.requests as f64 / conf.per.as_secs_f64() * seconds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn three_edges_together_admit_the_limit_within_a_tenth(
        seed in any::<u64>(), slow_us in 1_u64..8_000,
        (requests, per_s, burst_share) in prop_oneof![
            Just((5_u64, 60_u64, 100_u64)), Just((100, 60, 100)), Just((1000, 60, 100)), Just((50, 1, 20)), Just((300, 1, 100)),
        ],
        loads in prop_oneof![Just([1, 1, 1]), Just([8, 1, 1]), Just([1, 0, 0]), Just([20, 1, 0]), Just([3, 2, 1])],
    ) {
        let conf = conf(requests, Duration::from_secs(per_s), (requests * burst_share / 100).max(1));
        let mut world = World::new(&conf, seed, slow_us);
        let rate = requests as f64 / per_s as f64;
        // Long enough that the burst is not all there is, and four times as many as may pass.
        let seconds = (2.0 * conf.burst as f64 / rate).clamp(2.0, 12.0);
        let want = 4.0 * allowed(&conf, seconds) / seconds;
        let sum: u64 = loads.iter().sum();
        let loads = loads.map(|load| if load == 0 { 0 } else { ((load as f64 / sum as f64 * want).ceil() as u64).max(2) });
        let admitted = world.run(0, (seconds * 1e6) as u64, loads) as f64;
        let exact = allowed(&conf, seconds);
        prop_assert!(admitted <= 1.1 * exact + 2.0, "{admitted} of {exact}: {conf:?} {loads:?}");
        prop_assert!(admitted >= 0.9 * exact - 2.0, "{admitted} of {exact}: {conf:?} {loads:?}");
        // And once the burst is gone it is the rate.
        let more = world.run((seconds * 1e6) as u64, (seconds * 1e6) as u64, loads) as f64;
        let exact = rate * seconds;
        prop_assert!(more <= 1.1 * exact + 2.0 && more >= 0.9 * exact - 2.0, "then {more} of {exact}: {conf:?} {loads:?}");
    }

    #[test]
    fn a_load_that_moves_from_edge_to_edge_gets_the_limit_and_no_more(seed in any::<u64>(), slow_us in 1_u64..8_000) {
        let conf = conf(600, Duration::from_secs(60), 600);
        let mut world = World::new(&conf, seed, slow_us);
        let mut admitted = 0;
        for second in 0..24 {
            let mut loads = [0; 3];
            loads[second as usize / 2 % 3] = 200;
            admitted += world.run(second * 1_000_000, 1_000_000, loads);
        }
        let exact = allowed(&conf, 24.0);
        prop_assert!((admitted as f64) <= 1.1 * exact && admitted as f64 >= 0.9 * exact, "{admitted} of {exact}");
    }

    /// Some have been asked before, as by whoever looks whether they are up; then they rest, or not.
    #[test]
    fn edges_that_are_flooded_in_one_moment_admit_one_bucket(
        seed in any::<u64>(), slow_us in 1_u64..8_000, asked in 0_usize..8, rounds in 1_u64..4, rest_ms in 1_u64..20_000,
        burst in 5_u64..300,
    ) {
        let conf = conf(burst, Duration::from_secs(1), burst);
        let mut world = World::new(&conf, seed, slow_us);
        let which = [0, 1, 2].map(|edge| (asked >> edge & 1) as u64);
        for round in 0..rounds {
            world.flood(round * 300_000, 1_000, which);
            world.flood(round * 300_000 + 1_000, 299_000, [0; 3]);
        }
        let from_us = rounds * 300_000 + rest_ms * 1_000;
        let admitted = world.flood(from_us, 60_000, [burst; 3]) as f64;
        let exact = allowed(&conf, 0.06);
        prop_assert!(admitted <= 1.1 * exact + 1.0, "{admitted} of {exact} at once");
        prop_assert!(admitted >= 0.9 * exact - 3.0, "{admitted} of {exact} at once");
        prop_assert!(world.beyond() <= world.bound(), "{} beyond", world.beyond());
    }

    /// The others have emptied the bucket; so the newcomer gets nothing of it but its credit.
    #[test]
    fn an_edge_that_is_asked_first_when_others_have_had_the_bucket_gets_none_of_it(
        seed in any::<u64>(), slow_us in 1_u64..8_000, burst in 5_u64..300, each in 1_u64..40,
    ) {
        let conf = conf(burst, Duration::from_secs(3600), burst);
        let mut world = World::new(&conf, seed, slow_us);
        let first = world.flood(0, 700_000, [each, each, 0]);
        prop_assert!(first >= burst, "{first} of {burst}");
        let more = world.flood(700_000, 100_000, [0, 0, 40]);
        prop_assert!(more <= burst / SHARE, "{more} of {burst}");
        prop_assert!((first + more) as f64 <= 1.1 * burst as f64 + 1.0, "{first} + {more} of {burst}");
    }

    /// Floods and rests of any length at any edge, and some who wait leave.
    #[test]
    fn no_span_of_time_has_more_than_the_bound(
        seed in any::<u64>(), slow_us in 1_u64..8_000, leaving in 0_u64..4,
        (requests, per_ms, burst) in (1_u64..2_000, 100_u64..60_000, 1_u64..2_000),
        phases in prop::collection::vec((1_u64..250, [0_u64..6, 0_u64..6, 0_u64..6]), 1..10),
    ) {
        let conf = conf(requests, Duration::from_millis(per_ms), burst);
        let mut world = World::new(&conf, seed, slow_us);
        world.leaving = leaving;
        let mut at_us = 0;
        for (for_ms, loads) in phases {
            // Now and then a hundredfold, and nobody.
            let times = [0, 1, 1, 100][world.chance(4) as usize];
            world.flood(at_us, for_ms * 1_000, loads.map(|load| load * times));
            at_us += for_ms * 1_000;
        }
        prop_assert!(world.beyond() <= world.bound(), "{} beyond: {:?}", world.beyond(), world.limit);
        prop_assert!(world.edges.iter().all(|edge| edge.late == 0 && edge.waited_us < 60_000));
    }

    #[test]
    fn whoever_stays_below_the_limit_is_never_refused(seed in any::<u64>(), slow_us in 1_u64..8_000) {
        let conf = conf(1_000, Duration::from_secs(1), 1_000);
        let mut world = World::new(&conf, seed, slow_us);
        // 700 a second in all.
        let loads = [[350, 250, 100], [0, 0, 700], [700, 0, 0]];
        for (n, loads) in loads.into_iter().enumerate() {
            world.run(n as u64 * 2_000_000, 2_000_000, loads);
        }
        // Until nobody waits.
        world.flood(6_000_000, 100_000, [0; 3]);
        prop_assert_eq!(world.admitted(), world.sent());
    }

    #[test]
    fn the_hard_threshold_is_shared_too(seed in any::<u64>()) {
        let conf = RateLimit { hard: Some(300), ..conf(100, Duration::from_secs(10), 100) };
        let mut world = World::new(&conf, seed, 2_000);
        let admitted = world.run(0, 5_000_000, [200, 200, 200]) as f64;
        let exact = allowed(&conf, 5.0);
        prop_assert!(admitted <= 1.1 * exact + 2.0 && admitted >= 0.9 * exact - 2.0, "{admitted} of {exact}");
        // 3,000 came, 300 + 150 of them may stay on their connections.
        let closed: u64 = world.edges.iter().map(|edge| edge.closed).sum();
        prop_assert!((2_350..=2_700).contains(&closed), "{closed}");
    }
}

#[test]
fn a_million_a_second_needs_few_calls() {
    let conf = conf(1_000_000, Duration::from_secs(1), 10_000);
    let mut world = World::new(&conf, 7, 1_000);
    let admitted = world.run(0, 250_000, [400_000, 300_000, 100_000]);
    assert!(admitted as f64 > 0.99 * world.sent() as f64 && admitted > 150_000, "{admitted}");
    assert!(world.store.calls < 200, "{} calls", world.store.calls);
}

#[test]
fn a_store_that_is_late_keeps_nobody_for_longer_than_that() {
    let conf = conf(60, Duration::from_secs(60), 60);
    let mut world = World::new(&conf, 3, 1_000_000);
    world.flood(0, 400_000, [1, 1, 1]);
    assert!(world.edges.iter().all(|edge| edge.waited_us <= 101_000 && edge.late > 0));
    assert!(world.admitted() >= 60);
}

#[test]
fn a_slow_store_holds_up_nobody_who_is_within_the_limit() {
    let conf = conf(1_000, Duration::from_secs(1), 1_000);
    let mut world = World::new(&conf, 9, 180_000);
    world.run(0, 4_000_000, [200, 200, 200]);
    world.flood(4_000_000, 200_000, [0; 3]);
    assert_eq!(world.admitted(), world.sent());
}
