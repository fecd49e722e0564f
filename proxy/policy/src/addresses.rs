//! The addresses an instance's name stands for, and which of them takes the next connection.
//!
//! Purpose: use all of what a name resolves to, survive a resolver that fails, and leave at once what a
//! name no longer stands for.
//!
//! Exact conditions: a lookup that failed or found nothing changes nothing ([`Addresses::followed_by`]
//! gives `None`): the last good set stays. One that found something replaces the set; what is in both
//! keeps its mark. Picks go round the set; an address whose last connect failed is marked and taken only
//! when every other one was tried for this request, until its mark ends or a connect succeeds.
//!
//! Cold start: nobody is marked. LIMIT: [`ADDRESSES_MAX`] addresses, the first of the answer. Cost: one
//! atomic addition and a scan of the set a pick; no allocation.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::time::Nanos;

/// LIMIT: addresses kept of one name.
pub const ADDRESSES_MAX: usize = 16;
/// How long an address is avoided after a failed connect.
pub const SUSPECT_FOR: Duration = Duration::from_secs(10);

/// The addresses of one instance: at least one, all different.
#[derive(Debug)]
pub struct Addresses {
    entries: Vec<Entry>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Entry {
    address: SocketAddr,
    /// Nanoseconds; in the past: it is trusted.
    suspect_until: AtomicU64,
}

impl Addresses {
    /// The first set of a name; `None` when nothing was found.
    pub fn new(found: &[SocketAddr]) -> Option<Self> {
        Self::following(&[], found)
    }

    /// The set after a lookup; `None` when nothing was found, and the present one stays.
    #[must_use]
    pub fn followed_by(&self, found: &[SocketAddr]) -> Option<Self> {
        Self::following(&self.entries, found)
    }

    fn following(known: &[Entry], found: &[SocketAddr]) -> Option<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        for &address in found {
            if entries.len() == ADDRESSES_MAX {
                break;
            }
            if entries.iter().all(|entry| entry.address != address) {
                let mark = known.iter().find(|entry| entry.address == address);
                let until = mark.map_or(0, |entry| entry.suspect_until.load(Relaxed));
                entries.push(Entry { address, suspect_until: AtomicU64::new(until) });
            }
        }
        (!entries.is_empty()).then(|| Self { entries, next: AtomicUsize::new(0) })
    }

    /// The addresses, in the resolver's order.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        self.entries.iter().map(|entry| entry.address)
    }

    /// How many there are, at least one.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Whether these are the same addresses, in any order.
    pub fn is_same_set(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self.iter().all(|address| other.iter().any(|known| known == address))
    }

    /// The address of the next connection, none of `tried`; `None` when all of them were tried.
    pub fn pick(&self, now: Nanos, tried: &[SocketAddr]) -> Option<SocketAddr> {
        if let [only] = self.entries.as_slice() {
            return (!tried.contains(&only.address)).then_some(only.address);
        }
        let first = self.next.fetch_add(1, Relaxed);
        let count = self.entries.len();
        let around = || {
            (0..count)
                .map(|step| &self.entries[first.wrapping_add(step) % count])
                .filter(|entry| !tried.contains(&entry.address))
        };
        let trusted = around().find(|entry| entry.suspect_until.load(Relaxed) <= now.0);
        trusted.or_else(|| around().next()).map(|entry| entry.address)
    }

    /// Whether one is left that is none of `tried`.
    pub fn has_untried(&self, tried: &[SocketAddr]) -> bool {
        self.iter().any(|address| !tried.contains(&address))
    }

    /// A connect to it failed: it is avoided for [`SUSPECT_FOR`].
    pub fn failed(&self, address: SocketAddr, now: Nanos) {
        self.mark(address, now.plus(SUSPECT_FOR).0);
    }

    /// A connect to it succeeded.
    pub fn succeeded(&self, address: SocketAddr) {
        self.mark(address, 0);
    }

    fn mark(&self, address: SocketAddr, until: u64) {
        if let Some(entry) = self.entries.iter().find(|entry| entry.address == address) {
            entry.suspect_until.store(until, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    #[test]
    fn nothing_found_changes_nothing() {
        let set = Addresses::new(&[at(1)]).unwrap();
        assert!(set.followed_by(&[]).is_none() && Addresses::new(&[]).is_none());
    }

    #[test]
    fn a_set_has_a_bound_and_no_doubles() {
        let found: Vec<_> = (0..100).flat_map(|n| [at(n), at(n)]).collect();
        let set = Addresses::new(&found).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), (0..16).map(at).collect::<Vec<_>>());
    }

    #[test]
    fn picks_go_round_and_avoid_what_failed() {
        let set = Addresses::new(&[at(1), at(2), at(3)]).unwrap();
        let now = Nanos(5);
        let picked: Vec<_> = (0..4).filter_map(|_| set.pick(now, &[])).collect();
        assert_eq!(picked, [at(1), at(2), at(3), at(1)]);
        set.failed(at(2), now);
        assert!((0..9).all(|_| set.pick(now, &[]) != Some(at(2))));
        assert_eq!(set.pick(now, &[at(1), at(3)]), Some(at(2)), "the last one is tried all the same");
        assert_eq!(set.pick(now, &[at(1), at(2), at(3)]), None);
        let later = now.plus(SUSPECT_FOR);
        assert!((0..3).any(|_| set.pick(later, &[]) == Some(at(2))));
        let next = set.followed_by(&[at(2), at(4)]).unwrap();
        assert_eq!(next.pick(now, &[]), Some(at(4)), "a mark outlives a lookup");
        next.succeeded(at(2));
        assert!((0..2).any(|_| next.pick(now, &[]) == Some(at(2))));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Lookup(Vec<u8>),
        Fail(u8),
        Succeed(u8),
        Pick(Vec<u8>),
        Wait(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let few = || proptest::collection::vec(0..6_u8, 0..5);
        prop_oneof![
            few().prop_map(Step::Lookup),
            (0..6_u8).prop_map(Step::Fail),
            (0..6_u8).prop_map(Step::Succeed),
            few().prop_map(Step::Pick),
            (0..12_u8).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// Against a map from address to the second its mark ends: a pick is never outside of the set,
        /// never a tried one, and marked only when every untried one is.
        #[test]
        fn picks_agree_with_a_plain_map(steps in proptest::collection::vec(step(), 0..60)) {
            let mut set = Addresses::new(&[at(0)]).unwrap();
            let mut model = BTreeMap::from([(at(0), 0_u64)]);
            let mut second = 0;
            for step in steps {
                let now = Nanos(second * 1_000_000_000);
                match step {
                    Step::Lookup(found) => {
                        let found: Vec<_> = found.into_iter().map(at).collect();
                        if let Some(next) = set.followed_by(&found) {
                            set = next;
                            model = found.iter().map(|a| (*a, model.get(a).copied().unwrap_or(0))).collect();
                        }
                        prop_assert_eq!(set.iter().count(), model.len());
                    }
                    Step::Fail(n) => {
                        set.failed(at(n), now);
                        model.entry(at(n)).and_modify(|until| *until = second + SUSPECT_FOR.as_secs());
                    }
                    Step::Succeed(n) => {
                        set.succeeded(at(n));
                        model.entry(at(n)).and_modify(|until| *until = 0);
                    }
                    Step::Pick(tried) => {
                        let tried: Vec<_> = tried.into_iter().map(at).collect();
                        let untried: Vec<_> = model.iter().filter(|(a, _)| !tried.contains(a)).collect();
                        prop_assert_eq!(set.has_untried(&tried), !untried.is_empty());
                        match set.pick(now, &tried) {
                            None => prop_assert!(untried.is_empty()),
                            Some(picked) => {
                                let (_, until) = untried.iter().find(|(a, _)| **a == picked).unwrap();
                                prop_assert!(**until <= second || untried.iter().all(|(_, u)| **u > second));
                            }
                        }
                    }
                    Step::Wait(seconds) => second += u64::from(seconds),
                }
            }
        }
    }
}
