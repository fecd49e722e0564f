//! Placing by a key: rendezvous and sticky.

use std::net::IpAddr;

use sluice_schema::HashOn;

use super::*;

const KEYS: u64 = 600;

fn placed(desk: &mut Desk) -> Vec<usize> {
    (0..KEYS).map(|key| desk.ask(&Ask { seed: key.wrapping_mul(77), key, tried: &[] }).unwrap()).collect()
}

fn calm(balance: Balance) -> Service {
    Service { balance, slow_start: Duration::ZERO, ..Service::default() }
}

#[test]
fn accounts_addresses_and_headers_are_placed_apart() {
    let (ip, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let of = |rule: &HashOn, account, address, header: Option<&'static str>| {
        Affinity::of(rule, account, address, |name| header.filter(|_| name == "x-desk").map(str::as_bytes))
            .key()
    };
    let (sub, by_ip, header) = (HashOn::Subject, HashOn::Ip, HashOn::Header("x-desk".to_owned()));
    assert_eq!(of(&sub, Some("a"), ip, None), of(&sub, Some("a"), other, Some("d")));
    assert_ne!(of(&sub, Some("a"), ip, None), of(&sub, Some("b"), ip, None));
    assert_eq!(
        of(&sub, None, ip, None),
        of(&by_ip, Some("a"), ip, None),
        "without a caller the address counts"
    );
    assert_ne!(of(&by_ip, None, ip, None), of(&by_ip, None, other, None));
    assert_eq!(of(&header, Some("a"), ip, Some("d")), of(&header, None, other, Some("d")));
    assert_eq!(of(&header, Some("a"), ip, None), of(&by_ip, None, ip, None));
    assert_ne!(of(&header, None, ip, Some("a")), of(&sub, Some("a"), ip, None));
    let v6 = |text: &str| of(&by_ip, None, text.parse().unwrap(), None);
    assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff"));
    assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
    assert_eq!(v6("::ffff:10.0.0.1"), of(&by_ip, None, ip, None));
}

#[test]
fn every_process_places_a_key_alike() {
    // Other edges, later builds: these figures must never change.
    let mut desk = Desk::with(calm(Balance::Hash), &[1, 1, 1, 1]);
    let placed: Vec<usize> = ["alice", "bob", "carol", "dave", "erin", "frank"]
        .map(|name| desk.ask(&Ask { key: Affinity::Account(name).key(), ..Ask::default() }).unwrap())
        .to_vec();
    assert_eq!(placed, FIXED);
}

const FIXED: [usize; 6] = [0, 1, 3, 3, 1, 1];

#[test]
fn keys_spread_by_weight() {
    for balance in [Balance::Hash, Balance::Sticky] {
        let hits = Desk::with(calm(balance), &[1, 3, 6]).hits(10_000);
        for (hit, expected) in hits.iter().zip([1000_usize, 3000, 6000]) {
            assert!(hit.abs_diff(expected) < 200, "{balance:?} {hits:?}");
        }
    }
}

#[test]
fn a_hashed_key_is_back_as_soon_as_its_instance_and_a_bound_one_stays() {
    for (balance, returns) in [(Balance::Hash, true), (Balance::Sticky, false)] {
        let mut desk = Desk::with(calm(balance), &[1, 1, 1]);
        let first = placed(&mut desk);
        desk.at(0).mark_healthy(false, desk.now);
        let without = placed(&mut desk);
        for (was, is) in first.iter().zip(&without) {
            assert!(*is != 0 && (*was == 0 || is == was), "only the keys of the lost one move");
        }
        desk.at(0).mark_healthy(true, desk.now);
        assert_eq!(placed(&mut desk), if returns { first } else { without }, "{balance:?}");
    }
}

#[test]
fn a_bound_key_stays_over_weights_newcomers_and_draining() {
    let mut desk = Desk::with(calm(Balance::Sticky), &[1, 1]);
    let first = placed(&mut desk);
    desk.reweigh(&[1, 9, 5]);
    assert_eq!(placed(&mut desk), first);
    desk.at(0).hold(Hold::Drain, desk.now);
    assert_eq!(placed(&mut desk), first, "who is there may stay");
    assert!((KEYS..2 * KEYS).all(|key| desk.ask(&Ask { key, ..Ask::default() }) != Some(0)), "nobody comes");
    desk.at(0).hold(Hold::Maint, desk.now);
    let moved = placed(&mut desk);
    assert!(moved.iter().zip(&first).all(|(is, was)| *is != 0 && (*was == 0 || is == was)));
    // An instance that is gone is as one that is lost.
    desk.reweigh(&[1]);
    desk.at(0).hold(Hold::Ready, desk.now);
    assert!(placed(&mut desk).iter().all(|index| *index == 0));
}

#[test]
fn another_try_goes_elsewhere_and_moves_no_binding() {
    let mut desk = Desk::with(calm(Balance::Sticky), &[1, 1, 1]);
    let first = placed(&mut desk);
    for (key, index) in first.iter().enumerate() {
        let tried = [desk.at(*index).id];
        let again = desk.ask(&Ask { key: key as u64, tried: &tried, ..Ask::default() }).unwrap();
        assert_ne!(again, *index);
    }
    assert_eq!(placed(&mut desk), first);
}

#[test]
fn bindings_are_bounded_and_forgotten_when_idle() {
    let mut desk = Desk::with(calm(Balance::Sticky), &[1]);
    let id = desk.at(0).id;
    for key in 0..3 * BINDINGS_MAX as u64 {
        desk.ask(&Ask { key: crate::random::mix(key), ..Ask::default() });
    }
    let bound = |desk: &Desk| desk.memory.lock().unwrap().bindings.count(id);
    assert!((BINDINGS_MAX / 2..=BINDINGS_MAX).contains(&bound(&desk)), "{}", bound(&desk));
    // What was bound before is placed anew once nobody asked for it for an hour.
    let mut desk = Desk::with(calm(Balance::Sticky), &[1, 1]);
    let first = placed(&mut desk);
    desk.at(0).mark_healthy(false, desk.now);
    placed(&mut desk);
    desk.at(0).mark_healthy(true, desk.now);
    desk.wait(BINDING_IDLE.as_millis() as u64 - 1000);
    assert!(placed(&mut desk).iter().all(|index| *index == 1));
    desk.wait(BINDING_IDLE.as_millis() as u64);
    assert_eq!(placed(&mut desk), first);
}

proptest! {
    /// Going: only the keys of the one that goes move. Coming, or gaining weight: keys move to it alone.
    #[test]
    fn a_change_moves_only_the_keys_it_must(
        weights in proptest::collection::vec(1_u32..6, 2..7), which in 0_usize..7, more in 1_u32..5,
    ) {
        let which = which % weights.len();
        let mut desk = Desk::with(calm(Balance::Hash), &weights);
        let first = placed(&mut desk);
        desk.at(which).hold(Hold::Maint, desk.now);
        for (was, is) in first.iter().zip(placed(&mut desk)) {
            prop_assert!(*was == which || *was == is);
        }
        desk.at(which).hold(Hold::Ready, desk.now);
        let mut heavier = weights.clone();
        heavier[which] += more;
        desk.reweigh(&heavier);
        for (was, is) in first.iter().zip(placed(&mut desk)) {
            prop_assert!(is == which || *was == is);
        }
        let mut longer = weights;
        longer.push(more);
        desk.reweigh(&longer);
        for (was, is) in first.iter().zip(placed(&mut desk)) {
            prop_assert!(is == longer.len() - 1 || *was == is);
        }
    }

    /// Against a map without bounds: a key keeps its instance while that can be picked, else moves to one that can.
    #[test]
    fn sticky_agrees_with_a_map(
        steps in proptest::collection::vec((0_u64..12, 0_usize..4, 0_u8..5), 1..80),
    ) {
        let mut desk = Desk::with(Service { panic_threshold: 0.0, ..calm(Balance::Sticky) }, &[1, 2, 1, 3]);
        let mut map = std::collections::HashMap::new();
        for (key, which, what) in steps {
            let (now, one) = (desk.now, Arc::clone(desk.at(which)));
            match what {
                0 => one.mark_healthy(false, now),
                1 => one.mark_healthy(true, now),
                2 => one.hold(Hold::Drain, now),
                3 => one.hold(Hold::Ready, now),
                _ => {}
            }
            let Some(picked) = desk.ask(&Ask { key, ..Ask::default() }) else {
                prop_assert!(desk.table.instances().iter().all(|one| !one.is_available(now)));
                continue;
            };
            let kept = map.get(&key).copied().filter(|index: &usize| desk.at(*index).is_well(now));
            match kept {
                Some(index) => prop_assert_eq!(picked, index),
                None => prop_assert!(desk.at(picked).is_available(now)),
            }
            map.insert(key, picked);
        }
    }
}
