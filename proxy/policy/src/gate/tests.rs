mod model;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::*;
use crate::random::{below, mix};

const PATIENCE: Duration = Duration::from_millis(50);

fn ask(lane: Lane, account: u64) -> Ask {
    Ask { lane, account, queue: 8, patience: PATIENCE }
}

/// Requests of one account until one has to wait.
fn fill(gate: &mut Gate<u64>, lane: Lane, account: u64, limit: u32) -> Vec<Seat> {
    let most = limit as usize * 2;
    let next = || match gate.enter(&ask(lane, account), limit, Nanos::ZERO, || 0) {
        Entry::Runs(seat) => Some(seat),
        Entry::Waits { ticket, .. } => {
            assert!(gate.abandon(ticket));
            None
        }
        Entry::Shed => None,
    };
    std::iter::from_fn(next).take(most).collect()
}

/// Requests of a new account each until one has to wait.
fn crowd(gate: &mut Gate<u64>, lane: Lane, limit: u32) -> Vec<Seat> {
    let mut seats = Vec::new();
    for account in 1_000.. {
        match gate.enter(&ask(lane, account), limit, Nanos::ZERO, || 0) {
            Entry::Runs(seat) => seats.push(seat),
            Entry::Waits { ticket, .. } => {
                assert!(gate.abandon(ticket));
                break;
            }
            Entry::Shed => break,
        }
    }
    seats
}

fn waits(gate: &mut Gate<u64>, lane: Lane, account: u64, limit: u32, now: Nanos, wake: u64) -> Ticket {
    match gate.enter(&ask(lane, account), limit, now, || wake) {
        Entry::Waits { ticket, .. } => ticket,
        other => panic!("{lane:?} {account}: {other:?}"),
    }
}

fn next(gate: &mut Gate<u64>, limit: u32, now: Nanos) -> Option<u64> {
    gate.next(limit, now).map(|(wake, _)| wake)
}

#[test]
fn a_lane_alone_has_everything_and_shares_are_in_proportion() {
    for (lanes, lane, expected) in [
        ([false, false, true, false], Lane::Query, 100),
        ([false, true, true, false], Lane::Order, 100),
        // A quarter of the 66 of orders stays free.
        ([false, true, true, false], Lane::Query, 100 - 16),
        ([true; 4], Lane::Analytics, 100 - 15 - 7),
    ] {
        let mut gate = Gate::new(lanes);
        assert_eq!(crowd(&mut gate, lane, 100).len(), expected, "{lane:?} of {lanes:?}");
    }
}

#[test]
fn the_last_eighth_is_for_accounts_that_have_nothing_running() {
    let mut gate = Gate::new([false, false, true, false]);
    assert_eq!(fill(&mut gate, Lane::Query, 1, 40).len(), 35);
    assert_eq!(crowd(&mut gate, Lane::Query, 40).len(), 5);
    assert_eq!(gate.load(Lane::Query), Load { running: 40, waiting: 0 });
}

#[test]
fn orders_find_a_place_while_queries_fill_the_rest() {
    let mut gate = Gate::new([true; 4]);
    let queries = crowd(&mut gate, Lane::Query, 100);
    let orders = crowd(&mut gate, Lane::Order, 100);
    assert_eq!((queries.len(), orders.len()), (85, 15));
    // Each place that comes free is an order's until orders have their share.
    let order = waits(&mut gate, Lane::Order, 2, 100, Nanos::ZERO, 1);
    let query = waits(&mut gate, Lane::Query, 1, 100, Nanos::ZERO, 2);
    gate.leave(queries[0]);
    assert_eq!(next(&mut gate, 100, Nanos::ZERO), Some(1));
    assert_eq!(next(&mut gate, 100, Nanos::ZERO), None);
    assert!(gate.abandon(query) && !gate.abandon(order));
}

#[test]
fn a_share_is_given_back_to_the_lane_below() {
    let mut gate = Gate::new([true; 4]);
    let orders = crowd(&mut gate, Lane::Order, 100);
    assert_eq!(orders.len(), 100);
    waits(&mut gate, Lane::Order, 1, 100, Nanos::ZERO, 1);
    waits(&mut gate, Lane::Query, 2, 100, Nanos::ZERO, 2);
    gate.leave(orders[0]);
    assert_eq!(next(&mut gate, 100, Nanos::ZERO), Some(2));
}

#[test]
fn a_limit_too_small_to_share_still_lets_every_lane_through() {
    for limit in 1..8 {
        for lane in HELD {
            let mut gate = Gate::new([true; 4]);
            assert!(!fill(&mut gate, lane, 1, limit).is_empty(), "{lane:?} of {limit}");
        }
    }
}

#[test]
fn cancels_flow_while_everything_is_full() {
    let mut gate = Gate::new([true; 4]);
    crowd(&mut gate, Lane::Order, 4);
    for account in 0..8 {
        waits(&mut gate, Lane::Order, account, 4, Nanos::ZERO, account);
    }
    assert_eq!(gate.enter(&ask(Lane::Order, 0), 4, Nanos::ZERO, || 9), Entry::Shed);
    let none = Ask { queue: 0, ..ask(Lane::Cancel, 1) };
    for _ in 0..5_000 {
        assert!(matches!(gate.enter(&none, 4, Nanos::ZERO, || 0), Entry::Runs(_)));
    }
}

#[test]
fn a_full_queue_turns_away_who_waits_with_most() {
    let mut gate = Gate::new([true; 4]);
    crowd(&mut gate, Lane::Order, 4);
    for wake in 0..8 {
        waits(&mut gate, Lane::Order, 1, 4, Nanos::ZERO, wake);
    }
    assert_eq!(gate.enter(&ask(Lane::Order, 1), 4, Nanos::ZERO, || 8), Entry::Shed);
    let Entry::Waits { sheds, .. } = gate.enter(&ask(Lane::Order, 2), 4, Nanos::ZERO, || 9) else { panic!() };
    assert_eq!(sheds, Some(7));
}

#[test]
fn the_newest_query_goes_first_under_lasting_overload_and_orders_keep_their_order() {
    for (lane, expected) in [(Lane::Query, 60), (Lane::Order, 30)] {
        let mut gate = Gate::new([true; 4]);
        let running = crowd(&mut gate, lane, 4);
        for ms in [0, 30, 60] {
            waits(&mut gate, lane, 2, 4, Nanos::from_millis(ms), ms);
        }
        gate.leave(running[0]);
        let woken = next(&mut gate, 4, Nanos::from_millis(70));
        assert_eq!(woken, Some(expected), "{lane:?}: the first one is too late");
    }
}

/// An upstream behind a gate: requests take 5 to 15 ms each.
struct Desk {
    gate: Gate<u64>,
    now_us: u64,
    started: u64,
    arrived: u64,
    /// End, number, account and arrival of what runs.
    running: BinaryHeap<Reverse<(u64, u64, u64, u64)>>,
    seats: HashMap<u64, Seat>,
    /// Account and arrival of what waits.
    waiting: HashMap<u64, (u64, u64)>,
}

impl Desk {
    const LIMIT: u32 = 20;

    fn new() -> Self {
        let (running, seats, waiting) = Default::default();
        Self { gate: Gate::new([true; 4]), now_us: 0, started: 0, arrived: 0, running, seats, waiting }
    }

    const fn now(&self) -> Nanos {
        Nanos(self.now_us * 1000)
    }

    fn start(&mut self, seat: Seat, account: u64, since_us: u64) {
        self.started += 1;
        let end_us = self.now_us + 5_000 + below(10_000, self.started);
        self.seats.insert(self.started, seat);
        self.running.push(Reverse((end_us, self.started, account, since_us)));
    }

    fn arrive(&mut self, account: u64) {
        self.arrived += 1;
        let number = self.arrived;
        let ask = Ask { queue: 64, ..ask(Lane::Order, account) };
        match self.gate.enter(&ask, Self::LIMIT, self.now(), || number) {
            Entry::Runs(seat) => self.start(seat, account, self.now_us),
            Entry::Waits { sheds, .. } => {
                self.waiting.insert(number, (account, self.now_us));
                let shed = sheds.map(|shed| self.waiting.remove(&shed).unwrap());
                assert!(shed.is_none_or(|(account, _)| account == 0), "only the greedy one is shed");
            }
            Entry::Shed => assert_eq!(account, 0, "only the greedy one is shed"),
        }
    }

    /// Ends what is due and starts what may; latencies in µs of the light accounts go to `latencies`.
    fn turn(&mut self, latencies: &mut Vec<u64>) {
        while self.running.peek().is_some_and(|end| end.0.0 <= self.now_us) {
            let Reverse((end_us, number, account, since_us)) = self.running.pop().unwrap();
            self.gate.leave(self.seats.remove(&number).unwrap());
            if account != 0 {
                latencies.push(end_us - since_us);
            }
        }
        while let Some((number, seat)) = self.gate.next(Self::LIMIT, self.now()) {
            let (account, since_us) = self.waiting.remove(&number).unwrap();
            self.start(seat, account, since_us);
        }
    }
}

/// Latencies in µs, sorted, of 19 light accounts beside a greedy one that sends `times` as much.
fn light_latencies(times: u64, mut seed: u64) -> Vec<u64> {
    let (mut desk, mut latencies) = (Desk::new(), Vec::new());
    for step in 0..200_000 {
        desk.now_us = step * 50;
        for account in 0..20 {
            seed = mix(seed);
            // Each light account sends 40 a second.
            if below(1_000_000, seed) < 2_000 * if account == 0 { times } else { 1 } {
                desk.arrive(account);
            }
        }
        desk.turn(&mut latencies);
    }
    latencies.sort_unstable();
    latencies
}

#[test]
fn an_account_at_fifty_times_the_load_leaves_the_others_alone() {
    let p99 = |latencies: &[u64]| latencies[latencies.len() * 99 / 100];
    for seed in 0..3 {
        let (calm, greedy) = (light_latencies(1, seed), light_latencies(50, seed));
        assert!(greedy.len() * 100 > calm.len() * 95, "{} of {}", greedy.len(), calm.len());
        assert!(p99(&greedy) * 10 <= p99(&calm) * 15, "{} against {} µs", p99(&greedy), p99(&calm));
    }
}
