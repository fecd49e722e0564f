//! Refusals: recorded one by one while they are few, counted when they are a flood.
//!
//! A record costs a line and a share of a sync, and whoever is refused can ask for as many as the network carries. So
//! the first [`BURST`] and then [`RATE_PER_S`] a second are recorded, of all callers nobody knows together and of each
//! that is known by itself, so that none hides among another's; the others are counted, and the next record, or the
//! next look at what is due, says how many there were and whose. A count that was not recorded yet is lost with the
//! process. LIMIT: [`ACTORS_MAX`] known callers at a time; further ones share one bucket.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use sluice_audit::{Decision, Entry};

/// LIMIT: refusals recorded at once after a quiet time.
const BURST: f64 = 64.0;
/// LIMIT: refusals recorded a second in a flood.
const RATE_PER_S: f64 = 8.0;
/// LIMIT: known callers that are counted one by one.
const ACTORS_MAX: usize = 1_024;
/// Whom the refusals of those belong to who are not counted one by one.
const OTHERS: &str = "others";
/// What callers nobody knows are called in records.
const UNVERIFIED: &str = "unverified";

/// The refusals of a vault.
pub(crate) struct Refusals(Mutex<BTreeMap<String, Bucket>>);

struct Bucket {
    left: f64,
    at: Timestamp,
    counted: u64,
}

/// Whether an entry is about a caller that nobody knows.
pub(crate) fn is_unknown(entry: &Entry) -> bool {
    ["anonymous", UNVERIFIED].contains(&entry.actor.as_str())
}

impl Refusals {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// What is to be recorded of one more refusal; nothing: it was counted.
    pub(crate) fn entries(&self, entry: Entry, is_known: bool, now: Timestamp) -> Vec<Entry> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let actor = if is_known { entry.actor.as_str() } else { UNVERIFIED };
        if buckets.len() >= ACTORS_MAX && !buckets.contains_key(actor) {
            buckets.retain(|_, bucket| !bucket.is_idle(now));
        }
        let full = buckets.len() >= ACTORS_MAX && !buckets.contains_key(actor);
        let actor = if full { OTHERS } else { actor }.to_owned();
        let bucket = buckets.entry(actor.clone()).or_insert(Bucket { left: BURST, at: now, counted: 0 });
        if !bucket.take(now) {
            bucket.counted += 1;
            return Vec::new();
        }
        bucket.rest(&actor).into_iter().chain([entry]).collect()
    }

    /// The entries about those that were counted since the last record.
    pub(crate) fn counted(&self) -> Vec<Entry> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.iter_mut().filter_map(|(actor, bucket)| bucket.rest(actor)).collect()
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

    /// Whether nothing would be lost by forgetting it.
    fn is_idle(&self, now: Timestamp) -> bool {
        let back = now.duration_since(self.at).as_secs_f64().max(0.0) * RATE_PER_S;
        self.counted == 0 && self.left + back >= BURST
    }

    fn rest(&mut self, actor: &str) -> Option<Entry> {
        let counted = std::mem::take(&mut self.counted);
        let path = format!("{counted} more refused, not recorded one by one");
        let entry = Entry::new("auth", "refused").actor(actor).path(path).decision(Decision::Deny);
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
            gaps_ms in proptest::collection::vec(0_i64..400, 1..600), actor in "(bot|anonymous|unverified)",
        ) {
            let start = Timestamp::UNIX_EPOCH;
            let refusals = Refusals::new();
            let (mut now, mut recorded, mut counted) = (start, 0_u64, 0_u64);
            let count = |entry: &Entry| entry.path.split(' ').next().unwrap().parse::<u64>().unwrap();
            for gap in &gaps_ms {
                now += SignedDuration::from_millis(*gap);
                for entry in refusals.entries(Entry::new("auth", "get").actor(actor.clone()), actor == "bot", now) {
                    if entry.op == "refused" { counted += count(&entry) } else { recorded += 1 }
                }
            }
            counted += refusals.counted().iter().map(count).sum::<u64>();
            prop_assert_eq!(recorded + counted, gaps_ms.len() as u64);
            let elapsed = now.duration_since(start).as_secs_f64();
            prop_assert!(recorded as f64 <= BURST + elapsed * RATE_PER_S + 1.0);
            prop_assert!(refusals.counted().is_empty());
        }
    }

    #[test]
    fn a_flood_of_one_caller_hides_no_other_and_memory_is_bounded() {
        let (refusals, now) = (Refusals::new(), Timestamp::UNIX_EPOCH);
        let recorded = |actor: &str| {
            refusals.entries(Entry::new("v1", "read").actor(actor), actor != "nobody", now).len()
        };
        assert_eq!((0..1_000).map(|_| recorded("loud")).sum::<usize>(), BURST as usize);
        assert_eq!((recorded("calm"), recorded("nobody")), (1, 1));
        let told = refusals.counted();
        assert_eq!((told.len(), told[0].actor.as_str()), (1, "loud"));
        for number in 0..2 * ACTORS_MAX {
            recorded(&number.to_string());
        }
        assert!(refusals.0.lock().unwrap().len() <= ACTORS_MAX + 1);
        let later = now + SignedDuration::from_secs(60);
        refusals.entries(Entry::new("v1", "read").actor("new"), true, later);
        assert!(refusals.0.lock().unwrap().len() < 4, "idle ones are forgotten");
    }
}
