//! The limit against a simulated upstream: `servers` at once, everything else queues inside it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::random::mix;

/// An upstream that works on `servers` requests at once, each for about `work_us`.
struct Upstream {
    free_at_us: BinaryHeap<Reverse<u64>>,
    work_us: u64,
}

impl Upstream {
    fn new(servers: usize, work_us: u64) -> Self {
        Self { free_at_us: (0..servers).map(|_| Reverse(0)).collect(), work_us }
    }

    /// When a request that arrives now ends.
    fn end_us(&mut self, now_us: u64, seed: u64) -> u64 {
        let Reverse(free) = self.free_at_us.pop().unwrap();
        let end = free.max(now_us) + self.work_us * (80 + below(41, seed)) / 100;
        self.free_at_us.push(Reverse(end));
        end
    }
}

/// What a run showed in its last second.
#[derive(Debug)]
struct Shown {
    limit: u32,
    done: u64,
    /// Mean latency in µs.
    took_us: u64,
}

struct World {
    adaptive: Adaptive,
    upstream: Upstream,
    running: BinaryHeap<Reverse<(u64, u64)>>,
    now_us: u64,
    seed: u64,
    /// Most requests at once that anybody sends.
    clients: Option<usize>,
}

impl World {
    fn new(servers: usize, work_us: u64, seed: u64) -> Self {
        let adaptive = Adaptive::new(1024, Nanos::ZERO);
        Self {
            adaptive,
            upstream: Upstream::new(servers, work_us),
            running: BinaryHeap::new(),
            now_us: 0,
            seed,
            clients: None,
        }
    }

    fn end_due(&mut self, tally: &mut (u64, u64)) {
        while let Some(Reverse((end, began))) =
            self.running.peek().copied().filter(|due| due.0.0 <= self.now_us)
        {
            let running = self.running.len() as u32;
            self.running.pop();
            self.seed = mix(self.seed);
            let took = Ended::Answered(Duration::from_micros(end - began));
            self.adaptive.ended(Lane::Query, took, running, Nanos(end * 1000), self.seed);
            *tally = (tally.0 + 1, tally.1 + end - began);
        }
    }

    /// Requests arrive `every_us` for so long; who finds the limit reached goes.
    fn run(&mut self, seconds: u64, every_us: u64) -> Shown {
        let end = self.now_us + seconds * 1_000_000;
        let mut tally = (0, 0);
        while self.now_us < end {
            if self.now_us + 1_000_000 >= end && self.now_us + 1_000_000 - every_us < end {
                tally = (0, 0);
            }
            self.end_due(&mut tally);
            let free = self.clients.is_none_or(|clients| self.running.len() < clients);
            if free && (self.running.len() as u32) < self.adaptive.limit() {
                self.seed = mix(self.seed);
                let end = self.upstream.end_us(self.now_us, self.seed);
                self.running.push(Reverse((end, self.now_us)));
            }
            self.now_us += every_us;
        }
        Shown { limit: self.adaptive.limit(), done: tally.0, took_us: tally.1 / tally.0.max(1) }
    }
}

#[test]
fn overload_is_found_and_what_the_upstream_can_do_is_used() {
    let mut world = World::new(80, 10_000, 7);
    // 80 servers for 10 ms are 8,000 a second; 24,000 come, for three minutes.
    for minute in 0..3 {
        let shown = world.run(60, 42);
        assert!((80..=240).contains(&shown.limit), "minute {minute}: {shown:?}");
        assert!(shown.done > 6_800, "minute {minute}: {shown:?}");
        assert!(shown.took_us < 25_000, "minute {minute}: {shown:?}");
    }
}

#[test]
fn a_crowd_that_a_fast_upstream_serves_within_milliseconds_is_not_turned_away() {
    // One at a time for 33 µs: with 256 callers each waits 8 ms, two hundred times the least.
    let mut world = World::new(1, 33, 3);
    world.clients = Some(1);
    world.run(5, 20);
    world.clients = Some(256);
    let shown = world.run(90, 20);
    assert!(shown.limit >= 256, "{shown:?}");
    // A thousand callers wait 33 ms: that is a crowd, which is cut to what waits some milliseconds.
    world.clients = None;
    let shown = world.run(90, 20);
    assert!(shown.limit < 700 && shown.took_us < 20_000, "{shown:?}");
}

#[test]
fn an_upstream_that_grows_is_followed() {
    let mut world = World::new(20, 10_000, 9);
    world.run(20, 167);
    world.upstream = Upstream::new(200, 10_000);
    let shown = world.run(20, 60);
    assert!(shown.limit > 150 && shown.done > 13_000, "{shown:?}");
}

#[test]
fn an_upstream_that_slows_down_is_learnt_anew_within_seconds() {
    let mut world = World::new(200, 10_000, 5);
    world.run(30, 17);
    world.upstream.work_us = 50_000;
    for (seconds, part) in [(5, "spared"), (130, "learnt")] {
        let shown = world.run(seconds, 17);
        assert!((150..=600).contains(&shown.limit), "{part}: {shown:?}");
        // Two hundred servers for 50 ms are 4,000 a second.
        assert!(shown.done > 3_300 && shown.took_us < 125_000, "{part}: {shown:?}");
    }
}

#[test]
fn longer_work_of_an_upstream_with_room_is_no_overload() {
    let mut world = World::new(500, 2_000, 11);
    // Quick answers set the floor, then each takes fifty times as long, beside plenty of free servers.
    world.run(20, 100);
    world.upstream.work_us = 100_000;
    let shown = world.run(20, 2_000);
    assert!(shown.limit >= 45 && shown.done > 400, "{shown:?}");
}

#[test]
fn a_lane_of_long_work_does_not_make_another_look_slow() {
    let mut adaptive = Adaptive::new(1024, Nanos::ZERO);
    for ms in 1..20_000_u64 {
        // Analyses come and go; each lane takes the time it always takes.
        let long = ms / 500 % 2 == 0 && ms % 2 == 0;
        let (lane, took) = if long { (Lane::Analytics, 400) } else { (Lane::Order, 4) };
        let ended = Ended::Answered(Duration::from_millis(took));
        adaptive.ended(lane, ended, adaptive.limit(), Nanos::from_millis(ms), ms);
    }
    assert!(adaptive.limit() > 500, "{}", adaptive.limit());
}

#[test]
fn an_upstream_that_is_overfull_far_below_the_limit_is_found_out_when_its_load_varies() {
    let mut world = World::new(20, 10_000, 13);
    // 1,600 a second, then 100 clients that send again at once: five times what it works on at once.
    world.run(5, 600);
    world.clients = Some(100);
    let shown = world.run(20, 100);
    assert!((20..=60).contains(&shown.limit) && shown.done > 1_700, "{shown:?}");
}

#[test]
fn work_that_takes_turns_at_being_long_costs_little() {
    let mut world = World::new(500, 5_000, 17);
    world.clients = Some(60);
    let (mut limited, mut all) = (0, 0);
    for second in 0..300 {
        world.upstream.work_us = if second % 2 == 0 { 5_000 } else { 100_000 };
        let shown = world.run(1, 200);
        all += 1;
        limited += u64::from(shown.limit < 60);
    }
    assert!(limited * 10 < all, "{limited} of {all} seconds");
}

#[test]
fn a_resumed_limit_stays_within_its_bound() {
    let mut adaptive = Adaptive::new(100, Nanos::ZERO);
    adaptive.resume(64);
    assert_eq!(adaptive.limit(), 64);
    adaptive.resume(4_000);
    assert_eq!(adaptive.limit(), 100);
}

#[test]
fn a_quiet_upstream_keeps_its_limit() {
    let mut world = World::new(20, 10_000, 3);
    let before = world.adaptive.limit();
    let shown = world.run(120, 2_000);
    assert_eq!(shown.limit, before, "{shown:?}");
}

#[test]
fn quick_failures_are_no_fast_upstream() {
    let mut adaptive = Adaptive::new(1024, Nanos::ZERO);
    for ms in 1..8_000 {
        let ended = if ms % 3 == 0 { Ended::Failed } else { Ended::Answered(Duration::from_millis(1)) };
        adaptive.ended(Lane::Order, ended, adaptive.limit(), Nanos::from_millis(ms), ms);
    }
    assert_eq!(adaptive.limit(), LEAST);
}

proptest! {
    #[test]
    fn stays_in_its_bounds(
        most in 1_u32..3_000,
        ends in proptest::collection::vec((0_u64..300, 0_u64..5_000_000, 0_u32..3, 1_u32..3_000), 0..400),
    ) {
        let mut adaptive = Adaptive::new(most, Nanos::ZERO);
        let mut now_ms = 0;
        for (pause_ms, took_us, how, running) in ends {
            now_ms += pause_ms;
            let ended = [Ended::Answered(Duration::from_micros(took_us)), Ended::Failed, Ended::Unknown][how as usize];
            adaptive.ended(Lane::ALL[took_us as usize % 4], ended, running, Nanos::from_millis(now_ms), took_us);
            let limit = adaptive.limit();
            prop_assert!(limit <= most && limit >= LEAST.min(most), "{limit} of {most}");
        }
    }
}
