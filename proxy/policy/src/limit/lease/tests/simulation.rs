//! Edges that share one limit through a store, by seeds: slow and uneven calls, uneven and changing loads.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sluice_schema::{RateKey, RateLimit};

use super::super::*;
use crate::limit::Limit;
use crate::limit::leases::{Due, Leases, Name};
use crate::limit::table::{Keyer, Table, Threshold, Who};
use crate::random::mix;

/// The store: what the script does, by a clock of its own, microseconds.
#[derive(Default)]
struct Store {
    whole_at_us: BTreeMap<Name, f64>,
    callers: BTreeMap<Name, Callers>,
    calls: u64,
}

/// Who called last and when, and when somebody else did before.
#[derive(Clone, Copy, Default)]
struct Callers {
    last: Option<(usize, f64)>,
    other: Option<f64>,
}

impl Store {
    fn call(&mut self, edge: usize, name: Name, terms: &Terms, ask: Ask, now_us: f64) -> Granted {
        self.calls += 1;
        let callers = self.callers.entry(name).or_default();
        if let Some((_, at)) = callers.last.replace((edge, now_us)).filter(|(last, _)| *last != edge) {
            callers.other = Some(at);
        }
        let shared = callers.other.is_some_and(|at| now_us - at < CROWDED.as_micros() as f64);
        let cost = terms.per_us as f64 / terms.requests as f64;
        let full = terms.capacity as f64 * cost;
        let known = self.whole_at_us.get(&name).copied().unwrap_or(now_us);
        let whole = (known.clamp(now_us, now_us + 4.0 * full) + ask.owed as f64 * cost)
            .clamp(now_us, now_us + 4.0 * full);
        let room = ((now_us + full - whole) / cost + 0.001).floor().max(0.0) as u64;
        let granted = room.min(ask.want);
        let whole = whole + granted as f64 * cost;
        self.whole_at_us.insert(name, whole);
        Granted::new(granted, (whole - now_us).ceil() as u64, shared)
    }
}

struct Edge {
    table: Table,
    leases: Leases,
    keyer: Keyer,
    /// Calls under way: when they are answered, and how.
    flying: Vec<(u64, Due, Granted)>,
    next_round_us: u64,
    watched: Vec<(Nanos, Due)>,
    sent: u64,
    admitted: u64,
    closed: u64,
}

/// Requests a second at each edge.
type Loads = [u64; 3];

struct World {
    limit: Limit,
    store: Store,
    edges: Vec<Edge>,
    seed: u64,
    now_us: u64,
    /// A call takes up to so long.
    slow_us: u64,
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
            next_round_us: 0,
            watched: Vec::new(),
            sent: 0,
            admitted: 0,
            closed: 0,
        };
        let edges = (0..3).map(edge).collect();
        Self { limit: Limit::new(conf), store: Store::default(), edges, seed, now_us: 0, slow_us }
    }

    fn sent(&self) -> u64 {
        self.edges.iter().map(|edge| edge.sent).sum()
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.seed = mix(self.seed);
        self.seed % below.max(1)
    }

    /// Runs from `from_us` for so long; returns what was admitted in it. Requests come at random moments.
    fn run(&mut self, from_us: u64, for_us: u64, loads: Loads) -> u64 {
        let before: u64 = self.edges.iter().map(|edge| edge.admitted).sum();
        let mut next: Vec<u64> = loads.iter().map(|load| from_us + self.gap(*load)).collect();
        loop {
            let (edge, now_us) = next.iter().copied().enumerate().min_by_key(|(_, at)| *at).unwrap();
            if now_us >= from_us + for_us {
                break;
            }
            // What the tasks do between two requests, by milliseconds and as long as there is anything.
            let mut between = self.now_us;
            while between < now_us && (0..3).any(|edge| self.keep(edge, between)) {
                between += 1_000;
            }
            self.now_us = now_us;
            for edge in 0..3 {
                self.keep(edge, now_us);
            }
            self.request(edge, now_us);
            next[edge] = now_us + self.gap(loads[edge]);
        }
        self.edges.iter().map(|edge| edge.admitted).sum::<u64>() - before
    }

    /// As many requests at each edge in each millisecond; returns what was admitted.
    fn flood(&mut self, from_us: u64, for_us: u64, each: [u64; 3]) -> u64 {
        let before: u64 = self.edges.iter().map(|edge| edge.admitted).sum();
        for now_us in (from_us..from_us + for_us).step_by(1_000) {
            self.now_us = now_us;
            for (edge, count) in each.into_iter().enumerate() {
                self.keep(edge, now_us);
                (0..count).for_each(|_| self.request(edge, now_us));
            }
        }
        self.edges.iter().map(|edge| edge.admitted).sum::<u64>() - before
    }

    fn gap(&mut self, load: u64) -> u64 {
        2_000_000_u64.checked_div(load).map_or(u64::MAX / 2, |most| 1 + self.chance(most))
    }

    fn request(&mut self, edge: usize, now_us: u64) {
        let (edge, limit) = (&mut self.edges[edge], &self.limit);
        let (now, key) = (moment(now_us), edge.keyer.key("s", Who::Everybody));
        let verdict = edge.table.check_with(key, limit, now, |threshold| {
            let terms = match threshold {
                Threshold::Soft => limit.soft_terms,
                Threshold::Hard => limit.hard_terms?,
            };
            let name = [u8::from(threshold == Threshold::Hard); 16];
            edge.leases.take(key, threshold, &terms, now, || name)
        });
        edge.sent += 1;
        edge.admitted += u64::from(verdict.decision.allowed);
        edge.closed += u64::from(verdict.close);
        assert!(!(verdict.close && verdict.decision.allowed));
    }

    /// What the task beside the requests does; true while there is more to do soon.
    fn keep(&mut self, at: usize, now_us: u64) -> bool {
        let arrived: Vec<_> = {
            let edge = &mut self.edges[at];
            let (arrived, flying) = edge.flying.drain(..).partition(|(when, ..)| *when <= now_us);
            edge.flying = flying;
            arrived
        };
        for (_, due, granted) in arrived {
            let edge = &mut self.edges[at];
            if let Some(lapses_at) = edge.leases.answer(&due, granted, moment(now_us)) {
                edge.watched.push((lapses_at, due));
            }
        }
        let edge = &mut self.edges[at];
        for (when, due) in std::mem::take(&mut edge.watched) {
            if when > moment(now_us) {
                edge.watched.push((when, due));
            } else if let Some(when) = edge.leases.watch(&due, moment(now_us)) {
                edge.watched.push((when, due));
            }
        }
        if !edge.flying.is_empty() || now_us < edge.next_round_us {
            return true;
        }
        let due = edge.leases.due(512);
        if due.is_empty() {
            return false;
        }
        edge.next_round_us = now_us + 5_000;
        for due in due {
            let took_us = 200 + self.chance(self.slow_us);
            let edge = &mut self.edges[at];
            let Some((name, ask)) = edge.leases.ask(&due, moment(now_us)) else { continue };
            let granted = self.store.call(at, name, &due.terms, ask, now_us as f64);
            edge.flying.push((now_us + took_us, due, granted));
        }
        true
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
        seed in any::<u64>(), slow_us in 1_u64..8_000, asked in 0_usize..8, rounds in 1_u64..4, rest_ms in 50_u64..20_000,
        burst in 30_u64..300,
    ) {
        let conf = conf(burst, Duration::from_secs(1), burst);
        let mut world = World::new(&conf, seed, slow_us);
        let which = [0, 1, 2].map(|edge| (asked >> edge & 1) as u64);
        for round in 0..rounds {
            world.flood(round * 300_000, 1_000, which);
            world.flood(round * 300_000 + 1_000, 299_000, [0; 3]);
        }
        let from_us = rounds * 300_000 + rest_ms * 1_000;
        let admitted = world.flood(from_us, 30_000, [burst; 3]) as f64;
        let exact = allowed(&conf, 0.03);
        // One that has had it to itself just now has all of it; the others begin with their thirds.
        let had_it_alone = which.iter().sum::<u64>() == 1 && rest_ms < 1_000;
        let most = if had_it_alone { exact + 2.0 * (burst as f64 / 3.0).ceil() } else { 1.1 * exact };
        prop_assert!(admitted <= most + 2.0, "{admitted} of {exact} at once");
        prop_assert!(admitted >= 0.9 * exact - 2.0 * 3.0, "{admitted} of {exact} at once");
    }

    #[test]
    fn whoever_stays_below_the_limit_is_never_refused(seed in any::<u64>(), slow_us in 1_u64..8_000) {
        let conf = conf(1_000, Duration::from_secs(1), 1_000);
        let mut world = World::new(&conf, seed, slow_us);
        // 700 a second in all.
        let loads = [[350, 250, 100], [0, 0, 700], [700, 0, 0]];
        let admitted: u64 =
            loads.into_iter().enumerate().map(|(n, loads)| world.run(n as u64 * 2_000_000, 2_000_000, loads)).sum();
        prop_assert_eq!(admitted, world.sent());
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
fn a_slow_store_holds_up_nobody_who_is_within_the_limit() {
    let conf = conf(1_000, Duration::from_secs(1), 1_000);
    let mut world = World::new(&conf, 9, 180_000);
    let admitted = world.run(0, 4_000_000, [200, 200, 200]);
    assert_eq!(admitted, world.sent());
}
