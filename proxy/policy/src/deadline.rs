//! How much time a request has left.
//!
//! Every budget counts from the arrival of the request, so retries share it: the second attempt gets
//! what the first left. A stream has no total. Nothing is sent upstream with less than [`USEFUL_MIN`]
//! left: the answer could not arrive in time, and the caller must know that nothing was sent.

use std::time::Duration;

use sluice_schema::Timeouts;

use crate::time::Nanos;

/// Below this an attempt is not worth starting.
pub const USEFUL_MIN: Duration = Duration::from_millis(10);

/// The deadlines of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    arrived: Nanos,
    connect: Duration,
    first_byte: Duration,
    total: Option<Duration>,
}

impl Deadline {
    /// The deadlines of a request that arrived then.
    pub fn new(arrived: Nanos, timeouts: &Timeouts) -> Self {
        let Timeouts { connect, first_byte, total, .. } = *timeouts;
        Self { arrived, connect, first_byte, total: Some(total) }
    }

    /// Without a total: for streams and upgrades, once their response has begun.
    #[must_use]
    pub fn endless(self) -> Self {
        Self { total: None, ..self }
    }

    /// With at most this total: what the client itself is willing to wait.
    #[must_use]
    pub fn within(self, most: Duration) -> Self {
        Self { total: Some(self.total.map_or(most, |total| total.min(most))), ..self }
    }

    /// Time for this attempt's connection; `None`: too little is left to try.
    pub fn connect(&self, now: Nanos) -> Option<Duration> {
        let left = self.connect.min(self.first_byte(now)?);
        (left >= USEFUL_MIN).then_some(left)
    }

    /// Time until the first byte of the answer; `None`: it is due.
    pub fn first_byte(&self, now: Nanos) -> Option<Duration> {
        let elapsed = now.since(self.arrived);
        let due = self.total.map_or(self.first_byte, |total| total.min(self.first_byte));
        due.checked_sub(elapsed).filter(|left| !left.is_zero())
    }

    /// Time until the last byte of the answer: `Ok(None)` without a total, `Err` when it is over.
    ///
    /// # Errors
    /// [`Expired`].
    pub fn total(&self, now: Nanos) -> Result<Option<Duration>, Expired> {
        let Some(total) = self.total else { return Ok(None) };
        let left = total.checked_sub(now.since(self.arrived)).filter(|left| !left.is_zero());
        left.map(Some).ok_or(Expired)
    }
}

/// The total time of a request is over: 504 `upstream_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request's total time is over")]
pub struct Expired;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn deadline() -> Deadline {
        Deadline::new(Nanos::from_secs(100), &Timeouts::default())
    }

    #[test]
    fn attempts_share_one_budget() {
        let deadline = deadline();
        let at = |ms: u64| Nanos::from_millis(100_000 + ms);
        assert_eq!(deadline.connect(at(0)), Some(Duration::from_secs(1)));
        assert_eq!(deadline.connect(at(4_500)), Some(Duration::from_millis(500)));
        assert_eq!(deadline.connect(at(4_995)), None, "less than what is useful");
        assert_eq!(deadline.first_byte(at(4_995)), Some(Duration::from_millis(5)));
        assert_eq!(deadline.first_byte(at(5_000)), None);
        assert_eq!(deadline.total(at(5_000)), Ok(Some(Duration::from_secs(10))));
        assert_eq!(deadline.total(at(15_000)), Err(Expired));
        assert_eq!(deadline.endless().total(at(900_000)), Ok(None));
        let shorter = deadline.endless().within(Duration::from_secs(2));
        assert_eq!(shorter.total(at(500)), Ok(Some(Duration::from_millis(1_500))));
        assert_eq!(shorter.first_byte(at(1_900)), Some(Duration::from_millis(100)));
        assert_eq!(deadline.within(Duration::from_secs(900)), deadline);
    }

    proptest! {
        #[test]
        fn time_only_runs_out(ms in 0_u64..20_000, more in 0_u64..20_000) {
            let deadline = deadline();
            let (early, late) = (Nanos::from_millis(100_000 + ms), Nanos::from_millis(100_000 + ms + more));
            prop_assert!(deadline.connect(late) <= deadline.connect(early));
            prop_assert!(deadline.first_byte(late) <= deadline.first_byte(early));
            prop_assert!(deadline.connect(early) <= deadline.first_byte(early));
            let left = |now| deadline.total(now).map(Option::unwrap_or_default).unwrap_or_default();
            prop_assert!(left(late) <= left(early));
        }
    }
}
