//! How many events a second one caller may publish. Pure: the time is an argument.
//!
//! A caller may publish a second's worth at once. What is asked for while something is left is taken whole, and what
//! it is beyond is waited for afterwards: a batch larger than the rate is not refused for ever.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// LIMIT: callers counted apart; those beyond share one count.
const CALLERS_MAX: usize = 10_000;
/// What may be taken at once, in time at the rate.
const BURST: Duration = Duration::from_secs(1);

/// What callers have used.
#[derive(Debug)]
pub(crate) struct Rates {
    /// Time that one event takes.
    cost: Duration,
    /// When everything a caller has taken is paid for.
    paid: HashMap<Box<str>, Instant>,
}

impl Rates {
    /// Of a rate in events a second, which is above zero.
    pub(crate) fn new(per_second: u64) -> Self {
        let cost = Duration::from_nanos((1_000_000_000 / per_second.max(1)).max(1));
        Self { cost, paid: HashMap::new() }
    }

    /// Takes events for a caller, or tells how long it has to wait.
    pub(crate) fn take(&mut self, caller: &str, events: u32, now: Instant) -> Result<(), Duration> {
        let caller = self.counted_as(caller, now);
        let paid = self.paid.get(caller).copied().unwrap_or(now).max(now);
        let used = paid.duration_since(now);
        if used >= BURST {
            return Err(used.saturating_sub(BURST) + self.cost);
        }
        self.paid.insert(caller.into(), paid + self.cost * events);
        Ok(())
    }

    /// The name a caller is counted under.
    fn counted_as<'a>(&mut self, caller: &'a str, now: Instant) -> &'a str {
        if self.paid.len() >= CALLERS_MAX && !self.paid.contains_key(caller) {
            // Who has paid for everything is as one that was never there.
            self.paid.retain(|_, paid| *paid > now);
            if self.paid.len() >= CALLERS_MAX {
                return "";
            }
        }
        caller
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_is_taken_whole_and_waited_for_after() {
        let mut rates = Rates::new(10);
        let now = Instant::now();
        assert_eq!(rates.take("a", 25, now), Ok(()));
        assert_eq!(rates.take("b", 10, now), Ok(()), "each caller has its own");
        assert_eq!(rates.take("a", 1, now), Err(Duration::from_millis(1_600)));
        assert_eq!(rates.take("a", 1, now + Duration::from_millis(1_600)), Ok(()));
    }

    #[test]
    fn callers_are_bounded() {
        let mut rates = Rates::new(1);
        let now = Instant::now();
        for n in 0..CALLERS_MAX {
            rates.take(&n.to_string(), 1, now).unwrap();
        }
        rates.take("one more", 1, now).unwrap();
        assert!(rates.take("and another", 1, now).is_err(), "they share one count");
        assert_eq!(rates.paid.len(), CALLERS_MAX + 1);
        rates.take("later", 1, now + Duration::from_secs(3)).unwrap();
        assert_eq!(rates.paid.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Against tokens that are counted one by one.
        #[test]
        fn it_is_a_bucket_of_tokens(
            per_second in prop_oneof![Just(1_u64), Just(10), Just(1_000)],
            steps in proptest::collection::vec((0_u64..3_000, 1_u32..50), 1..60),
        ) {
            let mut rates = Rates::new(per_second);
            let mut now = Instant::now();
            // In thousandths of an event, so that every number is whole.
            let full = per_second as i64 * 1_000;
            let mut tokens = full;
            for (wait_ms, events) in steps {
                now += Duration::from_millis(wait_ms);
                tokens = (tokens + (wait_ms * per_second) as i64).min(full);
                let taken = rates.take("a", events, now);
                prop_assert_eq!(taken.is_ok(), tokens > 0, "{} tokens", tokens);
                if taken.is_ok() {
                    tokens -= i64::from(events) * 1_000;
                }
            }
        }
    }
}
