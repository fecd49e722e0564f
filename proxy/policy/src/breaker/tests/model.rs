//! The breaker against a naive model.

use super::*;

/// The naive model: keeps every call, counts them anew each time, knows nothing of rings or leases' ids.
struct Model {
    conf: sluice_schema::Breaker,
    state: State,
    generation: u64,
    calls: Vec<(u64, bool, bool)>,
    row: u32,
    retry_at: Nanos,
    probes: Vec<(u64, Nanos)>,
    well: u32,
}

impl Model {
    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
        self.calls.clear();
        self.probes.clear();
        (self.row, self.well) = (0, 0);
    }

    fn acquire(&mut self, now: Nanos, serial: u64) -> bool {
        if self.state == State::Open && now >= self.retry_at {
            self.enter(State::HalfOpen);
        }
        self.probes.retain(|(_, expires)| *expires > now);
        match self.state {
            State::HalfOpen if self.probes.len() < self.conf.half_open_max as usize => {
                self.probes.push((serial, now.plus(Duration::from_secs(20))));
                true
            }
            State::HalfOpen | State::Open | State::ForcedOpen => false,
            _ => true,
        }
    }

    fn record(&mut self, serial: u64, generation: u64, outcome: Outcome, slow: bool, now: Nanos) {
        self.probes.retain(|(_, expires)| *expires > now);
        let known = self.probes.iter().any(|(id, _)| *id == serial);
        self.probes.retain(|(id, _)| *id != serial);
        if generation != self.generation || outcome == Outcome::Neutral {
            return;
        }
        let failed = outcome == Outcome::Failure;
        match self.state {
            State::Closed => self.watch(failed, slow, now),
            State::HalfOpen if !known => {}
            State::HalfOpen if failed || slow => self.enter(State::Open),
            State::HalfOpen => {
                self.well += 1;
                if self.well >= self.conf.success_threshold {
                    self.enter(State::Closed);
                }
            }
            _ => {}
        }
    }

    fn watch(&mut self, failed: bool, slow: bool, now: Nanos) {
        self.calls.push((now.0 / 1_000_000_000, failed, slow));
        self.row = if failed { self.row + 1 } else { 0 };
        let second = now.0 / 1_000_000_000;
        let recent: Vec<_> = self.calls.iter().filter(|(at, ..)| at + 10 > second).collect();
        let share = |count: usize| count as f64 / recent.len() as f64;
        let failures = recent.iter().filter(|(_, failed, _)| *failed).count();
        let slow = recent.iter().filter(|(.., slow)| *slow).count();
        let enough = recent.len() >= self.conf.min_calls as usize;
        let tripped = share(failures) >= self.conf.failure_rate || share(slow) >= self.conf.slow_rate;
        if self.row >= self.conf.failure_threshold || (enough && tripped) {
            self.enter(State::Open);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Acquire,
    Finish(usize, Outcome, bool),
    Cancel(usize),
    Wait(u64),
    Reset,
    Force(Force),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![Just(Outcome::Success), Just(Outcome::Failure), Just(Outcome::Neutral)];
    prop_oneof![
        40 => Just(Step::Acquire),
        40 => (any::<usize>(), outcome, any::<bool>()).prop_map(|(n, outcome, slow)| Step::Finish(n, outcome, slow)),
        5 => any::<usize>().prop_map(Step::Cancel),
        20 => prop_oneof![0_u64..900, 1_000_u64..30_000].prop_map(Step::Wait),
        1 => Just(Step::Reset),
        1 => prop_oneof![Just(Force::Open), Just(Force::Closed), Just(Force::Disabled)].prop_map(Step::Force),
    ]
}

proptest! {
    #[test]
    fn agrees_with_the_naive_model(steps in proptest::collection::vec(step(), 1..250), seed: u64, max in 1_u32..4) {
        let conf = sluice_schema::Breaker {
            failure_threshold: 4, min_calls: 6, half_open_max: max, success_threshold: 2,
            recovery_timeout: Duration::from_secs(10), ..conf()
        };
        let mut breaker = breaker(conf.clone());
        let mut model = Model {
            conf, state: State::Closed, generation: 0, calls: Vec::new(), row: 0,
            retry_at: Nanos::ZERO, probes: Vec::new(), well: 0,
        };
        let (mut now, mut held, mut rejected) = (Nanos::from_secs(5), Vec::new(), 0);
        for (serial, step) in steps.into_iter().enumerate() {
            let serial = serial as u64;
            let seed = seed.wrapping_add(serial);
            match step {
                Step::Acquire => {
                    let (real, wanted) = (breaker.try_acquire(now, 5), model.acquire(now, serial));
                    prop_assert_eq!(real.is_ok(), wanted);
                    rejected += u64::from(!wanted);
                    held.extend(real.ok().map(|permit| (serial, model.generation, permit)));
                }
                Step::Finish(n, outcome, slow) if !held.is_empty() => {
                    let (serial, generation, permit) = held.swap_remove(n % held.len());
                    let (late, before) = (generation != model.generation, (breaker.state(), breaker.generation));
                    breaker.record(permit, outcome, if slow { SLOW } else { FAST }, now, seed);
                    model.record(serial, generation, outcome, slow, now);
                    prop_assert!(!late || before == (breaker.state(), breaker.generation));
                }
                Step::Cancel(n) if !held.is_empty() => {
                    let (serial, generation, permit) = held.swap_remove(n % held.len());
                    breaker.cancel(permit, now);
                    model.record(serial, generation, Outcome::Neutral, false, now);
                }
                Step::Wait(ms) => now = now.plus(Duration::from_millis(ms)),
                Step::Reset => {
                    breaker.reset(now);
                    model.enter(State::Closed);
                }
                Step::Force(force) => {
                    breaker.force(force, now);
                    model.enter(breaker.state());
                }
                _ => {}
            }
            let metrics = breaker.metrics(now);
            prop_assert_eq!(breaker.state(), model.state);
            prop_assert!(metrics.probes <= max, "{} probes at once", metrics.probes);
            prop_assert_eq!(metrics.rejected, rejected);
            if let Some(retry_at) = metrics.retry_at {
                let open_for = retry_at.since(metrics.opened_at.unwrap());
                prop_assert!((Duration::from_secs(9)..=Duration::from_secs(330)).contains(&open_for));
                model.retry_at = retry_at;
            }
        }
    }

    #[test]
    fn recovers_by_itself_once_the_service_is_well(
        failures in 5_u64..60, lost in 0_usize..4, seed: u64,
    ) {
        let mut breaker = breaker(conf());
        let mut now = Nanos::ZERO;
        for n in 0..failures {
            if let Ok(permit) = breaker.try_acquire(now, 5) {
                breaker.record(permit, Outcome::Failure, FAST, now, seed.wrapping_add(n));
            }
            now = now.plus(Duration::from_secs(31));
        }
        let mut lost_permits = Vec::new();
        let well_since = now;
        while breaker.state() != State::Closed {
            match breaker.try_acquire(now, 5) {
                Ok(permit) if lost_permits.len() < lost => lost_permits.push(permit),
                Ok(permit) => breaker.record(permit, Outcome::Success, FAST, now, seed),
                Err(rejected) => prop_assert!(rejected.retry_after > Duration::ZERO),
            }
            now = now.plus(Duration::from_millis(500));
            prop_assert!(now.since(well_since) < OPEN_MAX * 11 / 10 + Duration::from_secs(60), "still {:?}", breaker.state());
        }
    }
}
