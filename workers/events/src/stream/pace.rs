//! How many events a second: a bucket that fills evenly. Time is an argument.

use std::time::Duration;

/// A bucket that holds a burst; at least one event fits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    every: Duration,
    /// How far the schedule may run ahead of the clock.
    burst: Duration,
    /// The next event's place in the schedule.
    due: Duration,
}

impl Pace {
    /// So many events a second, in bursts of so many. `rate` is above zero and finite.
    pub(crate) fn new(rate: f64, burst: u32, now: Duration) -> Self {
        let every = Duration::from_secs_f64(1.0 / rate);
        Self { every, burst: every * burst.max(1), due: now + every }
    }

    /// How many events may go now.
    pub(crate) fn room(&self, now: Duration) -> u64 {
        let (from, upto) = (self.due.max(now + self.every), now + self.burst);
        if from > upto {
            return 0;
        }
        let count = upto.saturating_sub(from).as_nanos() / self.every.as_nanos().max(1) + 1;
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// So many went.
    pub(crate) fn took(&mut self, count: u64, now: Duration) {
        let gone = self.every.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        self.due = self.due.max(now + self.every) + gone;
    }

    /// When the next one may go, where none may now.
    pub(crate) fn next(&self) -> Duration {
        self.due.saturating_sub(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_then_one_at_a_time() {
        let now = Duration::ZERO;
        let mut pace = Pace::new(10.0, 5, now);
        assert_eq!(pace.room(now), 5);
        pace.took(5, now);
        assert_eq!((pace.room(now), pace.next()), (0, now + Duration::from_millis(100)));
        assert_eq!(pace.room(now + Duration::from_millis(100)), 1);
        assert_eq!(pace.room(now + Duration::from_secs(60)), 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// In any stretch of time no more go than the rate and one burst allow, and whoever waits gets the rate.
        #[test]
        fn the_rate_is_kept_and_given(
            rate in 0.5_f64..2_000.0,
            burst in 1_u32..50,
            waits in prop::collection::vec((0_u64..200, 0_u64..30), 1..100),
        ) {
            let begin = Duration::from_secs(100);
            let mut pace = Pace::new(rate, burst, begin);
            let (mut now, mut sent) = (begin, Vec::new());
            for (wait_ms, wanted) in waits {
                now += Duration::from_millis(wait_ms);
                let count = pace.room(now).min(wanted);
                if count > 0 {
                    pace.took(count, now);
                    sent.push((now, count));
                }
                prop_assert!(pace.room(now) <= u64::from(burst));
                if pace.room(now) == 0 {
                    prop_assert!(pace.next() > now);
                    prop_assert!(pace.room(pace.next()) >= 1);
                }
            }
            for first in 0..sent.len() {
                let mut total = 0;
                for (at, count) in &sent[first..] {
                    total += count;
                    let allowed = f64::from(burst) + at.saturating_sub(sent[first].0).as_secs_f64() * rate;
                    prop_assert!(total as f64 <= allowed + 1.0, "{total} of {allowed}");
                }
            }
        }
    }
}
