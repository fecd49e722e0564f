//! When which event of a replay is due. Pure: the wall time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::request::Speed;

/// The longest wait that is told: a century at a tenth of the speed is as good as never.
const WAIT_MAX_S: f64 = 1e9;

/// Market time, running at a multiple of wall time.
///
/// It starts with the first event it is asked about, which is due at once. Events are sent in the order of the log:
/// one that happened before the one in front of it is due at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct MarketClock {
    speed: Speed,
    paused: bool,
    /// A moment, and the market time there in microseconds; `None` before the first event.
    anchor: Option<(Instant, f64)>,
}

/// What is to be done with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Send it.
    Now,
    /// Wait so long, then ask again.
    In(Duration),
    /// Wait until the clock goes on.
    Paused,
}

impl MarketClock {
    pub(super) const fn new(speed: Speed, paused: bool) -> Self {
        Self { speed, paused, anchor: None }
    }

    pub(super) const fn speed(&self) -> Speed {
        self.speed
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.paused
    }

    /// When the event of a time (microseconds since 1970) is due.
    pub(super) fn due(&mut self, time_us: i64, now: Instant) -> Due {
        if self.paused {
            return Due::Paused;
        }
        let time_us = time_us as f64;
        let Speed::Times(times) = self.speed else {
            // What was reached is where another speed goes on.
            let reached = self.anchor.map_or(time_us, |(_, market)| market.max(time_us));
            self.anchor = Some((now, reached));
            return Due::Now;
        };
        let market = match self.market_us(now) {
            Some(market) => market,
            None => self.anchor.insert((now, time_us)).1,
        };
        let ahead_s = (time_us - market) / 1e6 / times;
        // Less than a timer can tell.
        if ahead_s < 1e-6 { Due::Now } else { Due::In(Duration::from_secs_f64(ahead_s.min(WAIT_MAX_S))) }
    }

    /// Goes on at another speed from the market time reached.
    pub(super) fn set_speed(&mut self, speed: Speed, now: Instant) {
        self.settle(now);
        self.speed = speed;
    }

    /// Stops, or goes on from the market time at which it was stopped.
    pub(super) fn set_paused(&mut self, paused: bool, now: Instant) {
        self.settle(now);
        self.paused = paused;
    }

    /// Forgets the market time: the next event is due at once.
    pub(super) fn restart(&mut self) {
        self.anchor = None;
    }

    /// The market time in microseconds since 1970; `None` before the first event.
    fn market_us(&self, now: Instant) -> Option<f64> {
        let (at, market) = self.anchor?;
        match self.speed {
            Speed::Times(times) if !self.paused => {
                Some(now.saturating_duration_since(at).as_secs_f64() * 1e6 * times + market)
            }
            _ => Some(market),
        }
    }

    fn settle(&mut self, now: Instant) {
        self.anchor = self.market_us(now).map(|market| (now, market));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn events_are_due_when_market_time_says() {
        let mut clock = MarketClock::new(Speed::Times(10.0), false);
        let now = Instant::now();
        assert_eq!(clock.due(1_000_000, now), Due::Now);
        assert_eq!(clock.due(2_000_000, now), Due::In(Duration::from_millis(100)));
        assert_eq!(clock.due(2_000_000, now + Duration::from_millis(60)), Due::In(Duration::from_millis(40)));
        assert_eq!(clock.due(500_000, now), Due::Now, "out of order");
        clock.restart();
        assert_eq!(clock.due(9_000_000, now), Due::Now);
        let mut clock = MarketClock::new(Speed::Max, false);
        assert_eq!(clock.due(i64::MAX, now), Due::Now);
    }

    #[test]
    fn a_faster_clock_goes_on_where_the_unbounded_one_was() {
        let mut clock = MarketClock::new(Speed::Max, false);
        let now = Instant::now();
        assert_eq!(clock.due(5_000_000, now), Due::Now);
        clock.set_speed(Speed::Times(2.0), now + Duration::from_secs(60));
        assert_eq!(clock.due(6_000_000, now + Duration::from_secs(60)), Due::In(Duration::from_millis(500)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Speed(f64),
        Pause(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..10_000_u64).prop_map(Step::Wait),
            (0.1..1_000.0).prop_map(Step::Speed),
            any::<bool>().prop_map(Step::Pause),
        ]
    }

    proptest! {
        /// Against a sum over the stretches between the changes.
        #[test]
        fn market_time_is_the_sum_of_its_stretches(steps in proptest::collection::vec(step(), 0..40)) {
            const START_US: i64 = 1_700_000_000_000_000;
            let mut now = Instant::now();
            let mut clock = MarketClock::new(Speed::Times(1.0), false);
            prop_assert_eq!(clock.due(START_US, now), Due::Now);
            let (mut market_us, mut speed, mut paused) = (START_US as f64, 1.0, false);
            for step in steps {
                match step {
                    Step::Wait(ms) => {
                        now += Duration::from_millis(ms);
                        market_us += if paused { 0.0 } else { ms as f64 * 1e3 * speed };
                    }
                    Step::Speed(times) => {
                        clock.set_speed(Speed::Times(times), now);
                        speed = times;
                    }
                    Step::Pause(stop) => {
                        clock.set_paused(stop, now);
                        paused = stop;
                    }
                }
            }
            let reached = market_us as i64;
            if paused {
                prop_assert_eq!(clock.due(reached, now), Due::Paused);
                clock.set_paused(false, now);
            }
            prop_assert_eq!(clock.due(reached - 2_000, now), Due::Now);
            let Due::In(wait) = clock.due(reached + 1_000_000, now) else { panic!("not due yet") };
            prop_assert!((wait.as_secs_f64() - 1.0 / speed).abs() < 2e-3 / speed, "{wait:?} at {speed}");
        }
    }
}
