//! Refusals of callers nobody knows: recorded one by one while they are few, counted when they are a flood.
//!
//! A record costs a line and a share of a sync, and whoever has no credential can ask for as many as the network
//! carries. So the first [`BURST`] and then [`RATE_PER_S`] a second are recorded; the others are counted, and the next
//! record, or the next look at what is due, says how many there were. A count that was not recorded yet is lost with
//! the process. Refusals of callers that are known are always recorded.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use sluice_audit::{Decision, Entry};

/// LIMIT: refusals recorded at once after a quiet time.
const BURST: f64 = 64.0;
/// LIMIT: refusals recorded a second in a flood.
const RATE_PER_S: f64 = 8.0;

/// The refusals of a vault.
pub(crate) struct Refusals(Mutex<Bucket>);

struct Bucket {
    left: f64,
    at: Timestamp,
    counted: u64,
}

impl Refusals {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self(Mutex::new(Bucket { left: BURST, at: now, counted: 0 }))
    }

    /// What is to be recorded of one more refusal; nothing: it was counted.
    pub(crate) fn entries(&self, entry: Entry, now: Timestamp) -> Vec<Entry> {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !bucket.take(now) {
            bucket.counted += 1;
            return Vec::new();
        }
        bucket.rest().into_iter().chain([entry]).collect()
    }

    /// The entry about those that were counted since the last record.
    pub(crate) fn counted(&self) -> Option<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rest()
    }
}

impl Bucket {
    fn take(&mut self, now: Timestamp) -> bool {
        let elapsed = now.duration_since(self.at).as_secs_f64().max(0.0);
        self.left = (self.left + elapsed * RATE_PER_S).min(BURST);
        self.at = now;
        let taken = self.left >= 1.0;
        if taken {
            self.left -= 1.0;
        }
        taken
    }

    fn rest(&mut self) -> Option<Entry> {
        let counted = std::mem::take(&mut self.counted);
        let path = format!("{counted} more refused, not recorded one by one");
        let entry = Entry::new("auth", "refused").actor("unverified").path(path).decision(Decision::Deny);
        (counted > 0).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_refusal_is_recorded_or_counted_and_a_flood_is_bounded(
            gaps_ms in proptest::collection::vec(0_i64..400, 1..600),
        ) {
            let start = Timestamp::UNIX_EPOCH;
            let refusals = Refusals::new(start);
            let (mut now, mut recorded, mut counted) = (start, 0_u64, 0_u64);
            let count = |entry: &Entry| entry.path.split(' ').next().unwrap().parse::<u64>().unwrap();
            for gap in &gaps_ms {
                now += SignedDuration::from_millis(*gap);
                for entry in refusals.entries(Entry::new("auth", "get"), now) {
                    if entry.op == "refused" { counted += count(&entry) } else { recorded += 1 }
                }
            }
            counted += refusals.counted().as_ref().map_or(0, count);
            prop_assert_eq!(recorded + counted, gaps_ms.len() as u64);
            let elapsed = now.duration_since(start).as_secs_f64();
            prop_assert!(recorded as f64 <= BURST + elapsed * RATE_PER_S + 1.0);
            prop_assert!(refusals.counted().is_none());
        }
    }
}
