use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::random::{below, mix};

const SETTINGS: Settings =
    Settings { lanes: [true; 4], most: 1024, queue: 8, patience: Duration::from_millis(50) };

fn fill(gate: &mut Gate, lane: Lane, account: u64, limit: u32) -> Vec<Seat> {
    std::iter::from_fn(|| match gate.enter(lane, account, limit, Nanos::ZERO) {
        Entry::Runs(seat) => Some(seat),
        Entry::Waits { ticket, .. } => {
            assert!(gate.abandon(ticket));
            None
        }
        Entry::Shed => None,
    })
    .collect()
}

fn waits(gate: &mut Gate, lane: Lane, account: u64, limit: u32, now: Nanos) -> Ticket {
    match gate.enter(lane, account, limit, now) {
        Entry::Waits { ticket, .. } => ticket,
        other => panic!("{lane:?} {account}: {other:?}"),
    }
}

#[test]
fn a_lane_alone_has_everything_and_shares_are_in_proportion() {
    for (lanes, lane, expected) in [
        ([false, false, true, false], Lane::Query, 100),
        ([false, true, true, false], Lane::Order, 100),
        // A quarter of the 67 of orders stays free.
        ([false, true, true, false], Lane::Query, 100 - 17),
        ([true; 4], Lane::Analytics, 100 - 15 - 8),
    ] {
        let mut gate = Gate::new(Settings { lanes, ..SETTINGS });
        assert_eq!(fill(&mut gate, lane, 1, 100).len(), expected, "{lane:?} of {lanes:?}");
    }
}

#[test]
fn orders_find_a_place_while_queries_fill_the_rest() {
    let mut gate = Gate::new(SETTINGS);
    let queries = fill(&mut gate, Lane::Query, 1, 100);
    let orders = fill(&mut gate, Lane::Order, 2, 100);
    assert_eq!((queries.len(), orders.len()), (85, 15));
    // Each place that comes free is an order's until orders have their share.
    let order = waits(&mut gate, Lane::Order, 2, 100, Nanos::ZERO);
    let query = waits(&mut gate, Lane::Query, 1, 100, Nanos::ZERO);
    gate.leave(queries[0]);
    assert_eq!(gate.next(100, Nanos::ZERO).map(|(ticket, _)| ticket), Some(order));
    assert_eq!(gate.next(100, Nanos::ZERO), None);
    assert!(gate.abandon(query) && !gate.abandon(order));
}

#[test]
fn a_share_is_given_back_to_the_lane_below() {
    let mut gate = Gate::new(SETTINGS);
    let orders = fill(&mut gate, Lane::Order, 1, 100);
    assert_eq!(orders.len(), 100);
    waits(&mut gate, Lane::Order, 1, 100, Nanos::ZERO);
    let query = waits(&mut gate, Lane::Query, 2, 100, Nanos::ZERO);
    gate.leave(orders[0]);
    assert_eq!(gate.next(100, Nanos::ZERO).map(|(ticket, _)| ticket), Some(query));
}

#[test]
fn cancels_flow_while_everything_is_full() {
    let mut gate = Gate::new(SETTINGS);
    fill(&mut gate, Lane::Order, 1, 4);
    for account in 0..8 {
        waits(&mut gate, Lane::Order, account, 4, Nanos::ZERO);
    }
    assert_eq!(gate.enter(Lane::Order, 0, 4, Nanos::ZERO), Entry::Shed);
    assert_eq!(fill(&mut gate, Lane::Cancel, 1, 4).len(), 1024);
    assert_eq!(gate.enter(Lane::Cancel, 1, 4, Nanos::ZERO), Entry::Shed, "but not without bound");
}

#[test]
fn a_full_queue_turns_away_who_waits_with_most() {
    let mut gate = Gate::new(SETTINGS);
    fill(&mut gate, Lane::Order, 1, 4);
    let greedy: Vec<_> = (0..8).map(|_| waits(&mut gate, Lane::Order, 1, 4, Nanos::ZERO)).collect();
    assert_eq!(gate.enter(Lane::Order, 1, 4, Nanos::ZERO), Entry::Shed);
    let Entry::Waits { sheds, .. } = gate.enter(Lane::Order, 2, 4, Nanos::ZERO) else { panic!() };
    assert_eq!(sheds, Some(greedy[7]));
}

#[test]
fn the_newest_query_goes_first_under_lasting_overload_and_orders_keep_their_order() {
    for (lane, expected) in [(Lane::Query, 2), (Lane::Order, 1)] {
        let mut gate = Gate::new(SETTINGS);
        let running = fill(&mut gate, lane, 1, 4);
        let tickets = [0, 30, 60].map(|ms| waits(&mut gate, lane, 2, 4, Nanos::from_millis(ms)));
        gate.leave(running[0]);
        let next = gate.next(4, Nanos::from_millis(70)).map(|(ticket, _)| ticket);
        assert_eq!(next, Some(tickets[expected]), "{lane:?}: the first one is too late");
    }
}

/// An upstream behind a gate: requests take 5 to 15 ms each.
struct Desk {
    gate: Gate,
    now_us: u64,
    started: u64,
    /// End, number, account and arrival of what runs.
    running: BinaryHeap<Reverse<(u64, u64, u64, u64)>>,
    seats: HashMap<u64, Seat>,
    /// Account and arrival of what waits.
    waiting: HashMap<u64, (u64, u64)>,
}

impl Desk {
    const LIMIT: u32 = 20;

    fn new() -> Self {
        let gate = Gate::new(Settings { queue: 64, ..SETTINGS });
        let (running, seats, waiting) = Default::default();
        Self { gate, now_us: 0, started: 0, running, seats, waiting }
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
        match self.gate.enter(Lane::Order, account, Self::LIMIT, self.now()) {
            Entry::Runs(seat) => self.start(seat, account, self.now_us),
            Entry::Waits { ticket, sheds } => {
                self.waiting.insert(ticket.number, (account, self.now_us));
                let shed = sheds.map(|shed| self.waiting.remove(&shed.number).unwrap());
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
        while let Some((ticket, seat)) = self.gate.next(Self::LIMIT, self.now()) {
            let (account, since_us) = self.waiting.remove(&ticket.number).unwrap();
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

/// What the gate must be at any time, whatever came before.
fn check(gate: &Gate, limit: u32, now: Nanos) -> Result<(), TestCaseError> {
    let lanes = [Lane::Cancel, Lane::Order, Lane::Query, Lane::Analytics];
    prop_assert_eq!(gate.running(), lanes.iter().map(|lane| gate.of(*lane).0).sum::<u32>());
    for lane in HELD {
        let (running, waiting) = gate.of(lane);
        prop_assert!(waiting <= gate.settings.queue);
        let patient = gate.queues[lane as usize].has_patient(now, gate.settings.patience);
        let owed = patient && running < gate.share(lane, limit) && gate.running() < limit;
        prop_assert!(!owed, "{:?} waits below its share beside a free place", lane);
    }
    Ok(())
}

proptest! {
    #[test]
    fn nobody_is_lost_and_no_share_withheld(
        lanes: [bool; 4], queue in 0_usize..6, limit in 1_u32..24,
        steps in proptest::collection::vec((0_u8..5, 0_usize..4, 0_u64..5, 0_u64..40), 1..200),
    ) {
        let all = [Lane::Cancel, Lane::Order, Lane::Query, Lane::Analytics];
        let mut gate = Gate::new(Settings { lanes, queue, most: 30, ..SETTINGS });
        let (mut seats, mut tickets) = (VecDeque::new(), Vec::<Ticket>::new());
        let mut now_ms = 0;
        for (what, lane, account, pause_ms) in steps {
            now_ms += pause_ms;
            let now = Nanos::from_millis(now_ms);
            let lane = all[lane];
            match what {
                0..=2 => {
                    let before = gate.running();
                    match gate.enter(lane, account, limit, now) {
                        Entry::Runs(seat) => {
                            prop_assert!(lane == Lane::Cancel || before < limit);
                            seats.push_back(seat);
                        }
                        Entry::Waits { ticket, sheds } => {
                            if let Some(shed) = sheds {
                                let place = tickets.iter().position(|ticket| ticket.number == shed.number);
                                tickets.remove(place.unwrap());
                            }
                            tickets.push(ticket);
                        }
                        Entry::Shed => {
                            let full = gate.of(lane) == if lane == Lane::Cancel { (30, 0) } else { (gate.of(lane).0, queue) };
                            prop_assert!(full);
                        }
                    }
                }
                3 => if let Some(seat) = seats.pop_front() { gate.leave(seat) },
                _ => if !tickets.is_empty() {
                    let ticket = tickets.remove(account as usize % tickets.len());
                    prop_assert!(gate.abandon(ticket));
                },
            }
            while let Some((ticket, seat)) = gate.next(limit, now) {
                prop_assert!(now.since(ticket.since) <= SETTINGS.patience);
                let place = tickets.iter().position(|waiting| waiting.number == ticket.number);
                tickets.remove(place.unwrap());
                seats.push_back(seat);
            }
            check(&gate, limit, now)?;
        }
        prop_assert_eq!(seats.len() as u32, gate.running());
        prop_assert_eq!(tickets.len(), all.iter().map(|lane| gate.of(*lane).1).sum::<usize>());
        for seat in seats { gate.leave(seat); }
        for ticket in tickets { gate.abandon(ticket); }
        prop_assert!(gate.queues.iter().all(Queue::is_forgotten));
    }
}
