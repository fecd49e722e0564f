//! Ejection of single bad instances.
//!
//! Purpose: when one of several instances fails, leave that one alone and keep the service open. The
//! service's own breaker is [`crate::breaker`]; both read the same outcomes.
//!
//! Exact conditions: `consecutive` failures of one instance in a row eject it; a success ends the row, a
//! neutral call does not. It is ejected for `base` × 2ⁿ, n being its ejections that still count, at
//! most [`EJECTION_MAX`], lengthened by up to 20 % so that instances do not come back in step. One
//! counted ejection is forgotten for each `base` it has been back without a new one.
//!
//! What wins: never more than `max_ejected` of the instances at once, but of two or more one may always
//! be ejected, and never the last one that is not: with a single instance the breaker alone decides.
//! A row that may not eject is kept and ejects at the next failure that finds room.
//!
//! Recovery: by time, the next request being the test; or sooner, when as many probes in a row as the service's
//! `health.healthy` asks for were good, each begun after the ejection. What it was ejected for still counts, so one
//! that answers probes and nothing else is ejected for longer each time, and never back before those probes. Results
//! of requests that were already under way when the instance was ejected count nowhere.
//!
//! Cost: O(instances) a counted call, no allocation but for a new instance.

use std::time::Duration;

use sluice_schema::Outlier;

use crate::breaker::Outcome;
use crate::random::between;
use crate::time::Nanos;

/// The longest ejection, jitter apart.
pub const EJECTION_MAX: Duration = Duration::from_secs(300);
/// Share by which an ejection is lengthened at most, in percent.
pub const JITTER_PERCENT: u32 = 20;

/// An instance is to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Its id.
    pub id: u32,
    /// Until when.
    pub until: Nanos,
    /// How many counted ejections it had before.
    pub repeated: u32,
}

/// The instances of one service as their results tell.
#[derive(Debug)]
pub struct Outliers {
    settings: Outlier,
    hosts: Vec<Host>,
}

#[derive(Debug, Default)]
struct Host {
    id: u32,
    row: u32,
    counted: u32,
    until: Nanos,
    /// When it was ejected last.
    ejected: Nanos,
    /// Good probes in a row since then.
    probed_well: u32,
}

impl Outliers {
    /// Nothing known about these instances yet.
    pub fn new(settings: Outlier, ids: impl IntoIterator<Item = u32>) -> Self {
        let mut outliers = Self { settings, hosts: Vec::new() };
        outliers.reconcile(ids);
        outliers
    }

    /// Takes changed settings; an ejection that runs stays as it is.
    pub fn configure(&mut self, settings: &Outlier) {
        self.settings.clone_from(settings);
    }

    /// Follows a changed table: known ids keep their state, others start anew or go.
    pub fn reconcile(&mut self, ids: impl IntoIterator<Item = u32>) {
        let mut old = std::mem::take(&mut self.hosts);
        for id in ids {
            let known = old.iter().position(|host| host.id == id).map(|at| old.swap_remove(at));
            self.hosts.push(known.unwrap_or(Host { id, ..Host::default() }));
        }
    }

    /// Counts the outcome of a request on an instance; says when that ejects it.
    pub fn record(&mut self, id: u32, outcome: Outcome, now: Nanos, seed: u64) -> Option<Ejection> {
        let room = self.has_room(now);
        let settings = &self.settings;
        let host = self.hosts.iter_mut().find(|host| host.id == id)?;
        if host.until > now {
            return None;
        }
        match outcome {
            Outcome::Success => host.row = 0,
            Outcome::Failure => host.row = host.row.saturating_add(1),
            Outcome::Neutral => {}
        }
        let due = outcome == Outcome::Failure && host.row >= settings.consecutive.max(1);
        (due && room).then(|| host.eject(settings, now, seed))
    }

    /// Counts a probe that began at a moment; says whether that takes an ejected instance back, which is when
    /// `needed` of them in a row were good.
    pub fn probed(&mut self, id: u32, good: bool, began: Nanos, needed: u32, now: Nanos) -> bool {
        let host =
            self.hosts.iter_mut().find(|host| host.id == id && host.until > now && began >= host.ejected);
        let Some(host) = host else { return false };
        host.probed_well = if good { host.probed_well + 1 } else { 0 };
        let back = host.probed_well >= needed.max(1);
        if back {
            host.until = now;
        }
        back
    }

    /// How long an instance is still left alone, and its ejections that count.
    pub fn ejection(&self, id: u32, now: Nanos) -> (Duration, u32) {
        let host = self.hosts.iter().find(|host| host.id == id);
        host.map_or((Duration::ZERO, 0), |host| (host.until.since(now), host.counted))
    }

    /// Ejects an instance as another process had it, for no longer than it could have been; until when.
    pub fn restore(&mut self, id: u32, left: Duration, counted: u32, now: Nanos) -> Option<Nanos> {
        let longest = EJECTION_MAX.max(self.settings.base_ejection);
        let left = left.min(longest + longest / 100 * JITTER_PERCENT);
        let host = self.hosts.iter_mut().find(|host| host.id == id).filter(|_| !left.is_zero())?;
        (host.until, host.counted, host.ejected) = (now.plus(left), counted, now);
        Some(host.until)
    }

    /// How many are ejected now.
    pub fn ejected(&self, now: Nanos) -> usize {
        self.hosts.iter().filter(|host| host.until > now).count()
    }

    fn has_room(&self, now: Nanos) -> bool {
        let (all, ejected) = (self.hosts.len(), self.ejected(now));
        let share = ((self.settings.max_ejected * all as f64) as usize).max(1);
        ejected < share && ejected + 1 < all
    }
}

impl Host {
    fn eject(&mut self, settings: &Outlier, now: Nanos, seed: u64) -> Ejection {
        let back = now.since(self.until).as_nanos() / settings.base_ejection.as_nanos().max(1);
        self.counted = self.counted.saturating_sub(u32::try_from(back).unwrap_or(u32::MAX));
        let repeated = self.counted;
        let base = settings.base_ejection;
        let time = base.saturating_mul(1 << repeated.min(16)).min(EJECTION_MAX.max(base));
        self.until = now.plus(between(time, time + time / 100 * JITTER_PERCENT, seed));
        self.counted += 1;
        (self.row, self.probed_well, self.ejected) = (0, 0, now);
        Ejection { id: self.id, until: self.until, repeated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fail(outliers: &mut Outliers, id: u32, times: u32, now: Nanos) -> Option<Ejection> {
        (0..times).fold(None, |_, _| outliers.record(id, Outcome::Failure, now, 3))
    }

    #[test]
    fn five_failures_in_a_row_eject_and_a_success_ends_the_row() {
        let mut outliers = Outliers::new(Outlier::default(), 1..=3);
        let now = Nanos::from_secs(1);
        assert_eq!(fail(&mut outliers, 1, 4, now), None);
        outliers.record(1, Outcome::Success, now, 0);
        assert_eq!(fail(&mut outliers, 1, 4, now), None);
        outliers.record(1, Outcome::Neutral, now, 0);
        let ejection = fail(&mut outliers, 1, 1, now).unwrap();
        assert!((10..=12).contains(&ejection.until.since(now).as_secs()));
        assert_eq!(fail(&mut outliers, 1, 9, now), None, "results of an ejected instance count nowhere");
        assert_eq!(outliers.ejected(now), 1);
    }

    #[test]
    fn repeated_ejections_double_and_good_time_forgives() {
        let mut outliers = Outliers::new(Outlier::default(), 1..=2);
        let mut now = Nanos::from_secs(1);
        for expected_s in [10, 20, 40, 80, 160, 300, 300] {
            let until = fail(&mut outliers, 1, 5, now).unwrap().until;
            let time = until.since(now).as_secs();
            assert!((expected_s..=expected_s * 12 / 10).contains(&time), "{time} for {expected_s}");
            now = until;
        }
        now = now.plus(Duration::from_secs(70));
        assert_eq!(fail(&mut outliers, 1, 5, now).unwrap().repeated, 0);
    }

    #[test]
    fn an_ejection_goes_on_elsewhere() {
        let now = Nanos::from_secs(100);
        let mut outliers = Outliers::new(Outlier::default(), 1..=3);
        fail(&mut outliers, 1, 5, now);
        let (left, counted) = outliers.ejection(1, now);
        assert!(left >= Duration::from_secs(10) && counted == 1);
        assert_eq!(outliers.ejection(2, now), (Duration::ZERO, 0));
        let (mut other, then) = (Outliers::new(Outlier::default(), 5..=7), Nanos::from_secs(3));
        assert_eq!(other.restore(6, left, counted, then), Some(then.plus(left)));
        assert_eq!(other.restore(7, Duration::ZERO, 4, then), None);
        assert_eq!((other.ejection(6, then), other.ejected(then)), ((left, 1), 1));
        let until = other.restore(5, Duration::MAX, 9, then).unwrap();
        assert!(until.since(then) <= EJECTION_MAX * 12 / 10);
    }

    #[test]
    fn good_probes_take_it_back_and_what_it_did_counts_on() {
        let mut outliers = Outliers::new(Outlier::default(), 1..=2);
        let now = Nanos::from_secs(100);
        let second = |n| now.plus(Duration::from_secs(n));
        fail(&mut outliers, 1, 5, now);
        assert!(!outliers.probed(1, true, Nanos::from_secs(99), 1, second(1)), "it began before");
        assert!(!outliers.probed(2, true, second(1), 1, second(1)), "nothing to take back");
        for (n, good, back) in [(1, true, false), (2, false, false), (3, true, false), (4, true, true)] {
            assert_eq!(outliers.probed(1, good, second(n), 2, second(n)), back, "{n}");
        }
        assert_eq!(outliers.ejected(second(4)), 0);
        let again = fail(&mut outliers, 1, 5, second(5)).unwrap();
        assert!(again.repeated == 1 && again.until.since(second(5)) >= Duration::from_secs(20));
        assert!(!outliers.probed(1, true, second(6), 2, second(6)), "the row starts anew");
        outliers.configure(&Outlier { consecutive: 1, ..Outlier::default() });
        assert!(outliers.probed(1, true, second(7), 2, second(7)));
        assert!(fail(&mut outliers, 1, 1, second(8)).is_some_and(|ejection| ejection.repeated == 2));
    }

    #[test]
    fn the_last_instance_stays_and_the_share_holds() {
        let now = Nanos::from_secs(1);
        assert_eq!(fail(&mut Outliers::new(Outlier::default(), [1]), 1, 50, now), None);
        let mut outliers = Outliers::new(Outlier { max_ejected: 1.0, ..Outlier::default() }, 1..=2);
        assert!(fail(&mut outliers, 1, 5, now).is_some());
        assert_eq!(fail(&mut outliers, 2, 50, now), None);
        let mut outliers = Outliers::new(Outlier { max_ejected: 0.0, ..Outlier::default() }, 1..=5);
        assert!(fail(&mut outliers, 1, 5, now).is_some(), "one may always be ejected");
        assert_eq!(fail(&mut outliers, 2, 50, now), None);
    }

    #[test]
    fn a_changed_table_keeps_what_is_known() {
        let mut outliers = Outliers::new(Outlier::default(), 1..=2);
        let now = Nanos::from_secs(1);
        fail(&mut outliers, 1, 4, now);
        outliers.reconcile([3, 1]);
        assert!(fail(&mut outliers, 1, 1, now).is_some());
        assert_eq!(outliers.record(2, Outcome::Failure, now, 0), None);
    }

    proptest! {
        #[test]
        fn share_and_last_instance_hold_under_any_results(
            count in 1_u32..9, share in 0.0..1.0_f64,
            results in proptest::collection::vec((0_u32..9, any::<bool>(), 0_u64..4_000), 1..300), seed: u64,
        ) {
            let settings = Outlier { consecutive: 2, max_ejected: share, ..Outlier::default() };
            let mut outliers = Outliers::new(settings, 0..count);
            let mut now = Nanos::ZERO;
            for (id, good, wait_ms) in results {
                now = now.plus(Duration::from_millis(wait_ms));
                let outcome = if good { Outcome::Success } else { Outcome::Failure };
                if let Some(ejection) = outliers.record(id % count, outcome, now, seed) {
                    prop_assert!(ejection.until.since(now) <= EJECTION_MAX * 12 / 10);
                }
                let ejected = outliers.ejected(now);
                prop_assert!(ejected == 0 || ejected < count as usize);
                prop_assert!(ejected <= 1.max((share * f64::from(count)) as usize));
            }
        }
    }
}
