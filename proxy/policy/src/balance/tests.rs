//! What holds for every algorithm: candidates, panic, slow start, zones, tries; and a desk to pick at.

use super::*;
use crate::time::Nanos;
use proptest::prelude::*;
use sluice_schema::{Balance, Service};
use std::sync::Arc;
use std::time::Duration;

mod keyed;
mod spread;

pub(super) const ALL: [Balance; 6] = [
    Balance::RoundRobin,
    Balance::Weighted,
    Balance::LeastConnections,
    Balance::PeakEwma,
    Balance::Hash,
    Balance::Sticky,
];

/// A service as the edge keeps it, and its picks.
pub(super) struct Desk {
    pub(super) service: Service,
    pub(super) table: Table,
    pub(super) field: Field,
    pub(super) memory: SharedMemory,
    pub(super) now: Nanos,
    pub(super) zone: &'static str,
}

impl Desk {
    pub(super) fn new(balance: Balance, weights: &[u32]) -> Self {
        Self::with(Service { balance, ..Service::default() }, weights)
    }

    pub(super) fn with(service: Service, weights: &[u32]) -> Self {
        let service = Service { instances: wanted(weights), ..service };
        Self::of(service, "")
    }

    pub(super) fn of(service: Service, zone: &'static str) -> Self {
        let now = Nanos::from_secs(1000);
        let table = Table::default().reconcile(&service, zone, now);
        Self { service, table, field: Field::default(), memory: SharedMemory::default(), now, zone }
    }

    pub(super) fn reweigh(&mut self, weights: &[u32]) {
        self.service.instances = wanted(weights);
        self.table = self.table.reconcile(&self.service, self.zone, self.now);
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now = self.now.plus(Duration::from_millis(ms));
    }

    pub(super) fn ask(&mut self, ask: &Ask<'_>) -> Option<usize> {
        if !self.field.holds(&self.table, self.now) {
            self.field = self.field.next(&self.table, self.now);
        }
        self.field.pick(ask, self.now, &self.memory)
    }

    /// The picks of this many requests, each with a seed and a key of its own.
    pub(super) fn picks(&mut self, count: usize) -> Vec<usize> {
        (0..count as u64).map(|n| self.ask(&Ask { seed: n, key: n, tried: &[] }).unwrap()).collect()
    }

    pub(super) fn hits(&mut self, count: usize) -> Vec<usize> {
        let mut hits = vec![0; self.table.instances().len()];
        self.picks(count).into_iter().for_each(|index| hits[index] += 1);
        hits
    }

    pub(super) fn at(&self, index: usize) -> &Arc<Instance> {
        &self.table.instances()[index]
    }
}

pub(super) fn wanted(weights: &[u32]) -> Vec<sluice_schema::Instance> {
    let one = |(n, weight): (usize, &u32)| {
        let url = format!("http://10.0.0.{}:80", n + 1).parse().unwrap();
        sluice_schema::Instance { url, weight: *weight, zone: String::new() }
    };
    weights.iter().enumerate().map(one).collect()
}

/// Weights in zones, seen from zone `a`.
fn zoned(balance: Balance, wanted_in: &[(u32, &str)]) -> Desk {
    let weights: Vec<u32> = wanted_in.iter().map(|(weight, _)| *weight).collect();
    let mut service = Service { balance, instances: wanted(&weights), ..Service::default() };
    for (instance, (_, zone)) in service.instances.iter_mut().zip(wanted_in) {
        instance.zone = (*zone).to_owned();
    }
    Desk::of(service, "a")
}

#[test]
fn tried_instances_are_avoided_while_there_is_another() {
    for balance in ALL {
        let mut desk = Desk::new(balance, &[1, 1, 1]);
        let ids: Vec<u32> = desk.table.instances().iter().map(|instance| instance.id).collect();
        for seed in 0..40 {
            let mut ask = |tried| desk.ask(&Ask { seed, key: seed, tried });
            assert_eq!(ask(&ids[..2]), Some(2), "{balance:?}");
            assert!(ask(&ids[1..]).is_some_and(|index| index == 0), "{balance:?}");
            assert!(ask(&ids).is_some(), "{balance:?}");
        }
    }
}

#[test]
fn panic_uses_everybody_and_threshold_zero_never_panics() {
    for balance in ALL {
        let seen = |threshold, unwell: &[usize], now| {
            let mut desk = Desk::with(
                Service { balance, panic_threshold: threshold, ..Service::default() },
                &[1, 1, 1, 1],
            );
            desk.now = now;
            desk.at(0).eject_until(Nanos::from_secs(1020));
            for index in unwell {
                desk.at(*index).mark_healthy(false, now);
            }
            let mut picks: Vec<usize> =
                (0..200).filter_map(|n| desk.ask(&Ask { seed: n, key: n, tried: &[] })).collect();
            picks.sort_unstable();
            picks.dedup();
            (picks, desk.field.is_panicking())
        };
        let now = Nanos::from_secs(1010);
        assert_eq!(seen(0.5, &[1], now), (vec![2, 3], false), "{balance:?}");
        assert_eq!(seen(0.5, &[1, 2], now), (vec![0, 1, 2, 3], true), "{balance:?}");
        assert_eq!(seen(0.0, &[1, 2], now), (vec![3], false), "{balance:?}");
        assert_eq!(seen(0.0, &[1, 2, 3], now), (vec![], false), "{balance:?}");
        assert_eq!(seen(0.0, &[1, 2, 3], Nanos::from_secs(1020)), (vec![0], false), "{balance:?}");
        assert_eq!(Desk::new(balance, &[]).ask(&Ask::default()), None, "{balance:?}");
    }
}

#[test]
fn what_an_operator_holds_back_is_no_panic_and_never_picked() {
    for balance in ALL {
        let mut desk = Desk::new(balance, &[1, 1, 1, 1]);
        desk.at(0).hold(Hold::Drain, desk.now);
        desk.at(1).hold(Hold::Maint, desk.now);
        desk.at(2).hold(Hold::Maint, desk.now);
        let hits = desk.hits(50);
        assert_eq!((hits, desk.field.is_panicking()), (vec![0, 0, 0, 50], false), "{balance:?}");
        // A panic goes round those that nobody holds back.
        desk.at(3).mark_healthy(false, desk.now);
        let hits = desk.hits(50);
        assert_eq!((hits, desk.field.is_panicking()), (vec![0, 0, 0, 50], true), "{balance:?}");
        desk.at(3).hold(Hold::Maint, desk.now);
        assert_eq!(desk.ask(&Ask::default()), None, "{balance:?}");
        assert_eq!([0, 1].map(|n| desk.at(n).state(desk.now).as_str()), ["draining", "maint"]);
    }
}

#[test]
fn an_instance_that_is_back_takes_up_its_share_slowly() {
    let slow = |balance| {
        let service = Service { balance, slow_start: Duration::from_secs(10), ..Service::default() };
        let desk = Desk::with(service, &[1, 1]);
        assert_eq!(desk.at(1).back_for(desk.now), None, "a service's first instances are not slow");
        desk.at(1).mark_healthy(false, desk.now);
        desk.at(1).mark_healthy(true, desk.now);
        desk
    };
    for balance in [Balance::RoundRobin, Balance::Weighted, Balance::Hash] {
        let mut desk = slow(balance);
        for (wait_ms, part) in [(0, 0.1), (500, 0.1), (2000, 0.25), (2500, 0.5), (5000, 1.0)] {
            desk.wait(wait_ms);
            let hits = desk.hits(4000);
            let (share, due) = (hits[1] as f64 / 4000.0, part / (1.0 + part));
            assert!((share - due).abs() < 0.03, "{balance:?} {wait_ms} {share} {due}");
        }
    }
    // Ejected, drained and new ones too; the whole service anew is as fast as ever.
    let mut desk = slow(Balance::RoundRobin);
    desk.wait(60_000);
    assert_eq!(desk.hits(100), [50, 50]);
    desk.at(0).eject_until(desk.now.plus(Duration::from_secs(5)));
    assert_eq!(desk.hits(100), [0, 100]);
    desk.wait(5000);
    assert!((8..12).contains(&desk.hits(110)[0]));
    desk.wait(60_000);
    desk.at(1).hold(Hold::Drain, desk.now);
    desk.at(1).hold(Hold::Ready, desk.now);
    assert!((8..12).contains(&desk.hits(110)[1]));
    desk.wait(60_000);
    desk.reweigh(&[1, 1, 1]);
    let hits = desk.hits(210);
    assert!((8..12).contains(&hits[2]) && hits[0].abs_diff(hits[1]) <= 1, "{hits:?}");
}

#[test]
fn the_own_zone_comes_first_and_spills_over_by_weight() {
    for balance in [Balance::RoundRobin, Balance::Weighted, Balance::Hash, Balance::Sticky] {
        let mut desk = zoned(balance, &[(1, "a"), (1, "a"), (1, "b"), (3, "")]);
        let hits = desk.hits(400);
        assert_eq!((hits[0] + hits[1], hits[2] + hits[3]), (400, 0), "{balance:?} {hits:?}");
        // Another try goes to another zone rather than to the same instance.
        let ids: Vec<u32> = desk.table.instances()[..2].iter().map(|instance| instance.id).collect();
        assert!(desk.ask(&Ask { seed: 1, key: 1, tried: &ids }).is_some_and(|index| index >= 2));
        // Half of the zone carries seven tenths; the rest is shared by weight.
        let mut desk = zoned(balance, &[(1, "a"), (1, "a"), (1, "b"), (3, "")]);
        desk.at(0).eject_until(Nanos(u64::MAX));
        let hits = desk.hits(4000);
        for (hit, due) in hits.iter().zip([0_usize, 2800, 300, 900]) {
            assert!(hit.abs_diff(due) <= 130, "{balance:?} {hits:?}");
        }
        // Drained ones do not count as lost.
        let mut desk = zoned(balance, &[(1, "a"), (1, "a"), (1, "b")]);
        desk.at(0).hold(Hold::Drain, desk.now);
        assert_eq!(desk.hits(100), [0, 100, 0], "{balance:?}");
        desk.at(1).mark_healthy(false, desk.now);
        assert_eq!(desk.hits(100), [0, 0, 100], "{balance:?}");
    }
    let mut desk = zoned(Balance::RoundRobin, &[(1, "b"), (1, "b")]);
    assert_eq!(desk.hits(10), [5, 5], "nothing near");
}

#[test]
fn states_have_their_words() {
    let desk = Desk::new(Balance::RoundRobin, &[1]);
    let (one, now) = (desk.at(0), desk.now);
    assert_eq!(one.state(now).as_str(), "healthy");
    one.eject_until(now.plus(Duration::from_secs(1)));
    assert_eq!(one.state(now).as_str(), "ejected");
    one.mark_healthy(false, now);
    assert_eq!(one.state(now).as_str(), "unhealthy");
    for word in ["ready", "drain", "maint"] {
        assert_eq!(Hold::parse(word).map(Hold::as_str), Some(word));
    }
    assert_eq!(Hold::parse("Drain"), None);
    one.average(Duration::from_millis(8));
    one.observe(Duration::from_millis(16), now);
    assert_eq!(one.ewma(), Duration::from_millis(9));
}

proptest! {
    /// Whatever happens to instances: who is picked may be, by the definition of the module.
    #[test]
    fn only_candidates_are_picked(
        weights in proptest::collection::vec(1_u32..9, 1..6),
        steps in proptest::collection::vec((0_usize..6, 0_u8..6, 0_u64..9_000), 1..40),
        threshold in prop_oneof![Just(0.0), Just(0.5)], algorithm in 0_usize..6, seed: u64,
    ) {
        let service = Service { balance: ALL[algorithm], panic_threshold: threshold, ..Service::default() };
        let mut desk = Desk::with(service, &weights);
        for (n, (which, what, wait)) in steps.into_iter().enumerate() {
            desk.wait(wait);
            let (now, one) = (desk.now, Arc::clone(desk.at(which % weights.len())));
            match what {
                0 => one.mark_healthy(false, now),
                1 => one.mark_healthy(true, now),
                2 => one.eject_until(now.plus(Duration::from_secs(5))),
                3 => one.hold(Hold::Drain, now),
                4 => one.hold(Hold::Ready, now),
                _ => one.observe(Duration::from_millis(wait), now),
            }
            let key = n as u64 % 5;
            let before = desk.memory.lock().unwrap().bindings.count(one.id);
            let picked = desk.ask(&Ask { seed: seed ^ n as u64, key, tried: &[] });
            let ready: Vec<_> = desk.table.instances().iter().filter(|i| i.held() == Hold::Ready).collect();
            let well = ready.iter().filter(|i| i.is_available(now)).count();
            let panics = (well as f64) < threshold * ready.len() as f64;
            let candidates = if panics { ready.len() } else { well };
            match picked {
                None => prop_assert_eq!(candidates, 0),
                Some(index) => {
                    let one = desk.at(index);
                    let open = one.held() == Hold::Ready && (panics || one.is_well(now));
                    // A bound caller stays at one that runs empty.
                    let stays = ALL[algorithm] == Balance::Sticky && one.held() == Hold::Drain && one.is_well(now);
                    prop_assert!(open || stays, "{index} {before}");
                }
            }
        }
    }
}
