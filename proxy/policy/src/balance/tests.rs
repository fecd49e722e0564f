use super::*;
use proptest::prelude::*;

fn wanted(weights: &[u32]) -> Vec<sluice_schema::Instance> {
    let url = |n| format!("http://10.0.0.{n}:80").parse().unwrap();
    weights
        .iter()
        .enumerate()
        .map(|(n, weight)| sluice_schema::Instance { url: url(n), weight: *weight })
        .collect()
}

fn picks(picker: &mut Picker, table: &Table, count: usize) -> Vec<usize> {
    let pick = |n| picker.pick(table, Nanos::ZERO, n as u64, &[]).map(|pick| pick.index);
    (0..count).map(pick).collect::<Option<_>>().unwrap()
}

fn round_robin() -> Picker {
    Picker::new(Balance::RoundRobin, 0.5)
}

#[test]
fn heavy_instance_is_spread_not_bunched() {
    let table = Table::new(&wanted(&[5, 1, 1]));
    assert_eq!(picks(&mut round_robin(), &table, 7), [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn weight_change_keeps_state_and_credit() {
    let table = Table::new(&wanted(&[1, 1]));
    let mut picker = round_robin();
    assert_eq!(picks(&mut picker, &table, 1), [0]);
    table.instances()[0].mark_healthy(false);
    let flight = table.instances()[0].begin();
    let next = table.reconcile(&wanted(&[3, 1, 1]));
    assert!(Arc::ptr_eq(&table.instances()[0], &next.instances()[0]));
    assert_eq!((next.instances()[0].weight(), next.instances()[0].in_flight()), (3, 1));
    assert!(!next.instances()[0].is_healthy() && next.instances()[2].is_healthy());
    assert_eq!(next.instances()[2].id, 3);
    drop(flight);
    next.instances()[0].mark_healthy(true);
    assert_eq!(picks(&mut picker, &next, 1), [0], "credits -1+3, 1+1, 0+1");
    assert_eq!(picks(&mut picker, &next, 2), [1, 0]);
    let back = next.reconcile(&wanted(&[1])).reconcile(&wanted(&[1, 1]));
    assert_eq!(back.instances()[1].id, 4, "a removed instance comes back as a new one");
}

#[test]
fn tried_instances_are_avoided_while_there_is_another() {
    let table = Table::new(&wanted(&[1, 1]));
    let ids: Vec<u32> = table.instances().iter().map(|instance| instance.id).collect();
    for balance in [Balance::RoundRobin, Balance::Weighted, Balance::LeastConnections] {
        let mut picker = Picker::new(balance, 0.5);
        for seed in 0..20 {
            assert_eq!(picker.pick(&table, Nanos::ZERO, seed, &ids[..1]).unwrap().index, 1);
            assert!(picker.pick(&table, Nanos::ZERO, seed, &ids).is_some());
        }
    }
}

#[test]
fn panic_uses_everybody_and_threshold_zero_never_panics() {
    let table = Table::new(&wanted(&[1, 1, 1, 1]));
    let now = Nanos::from_secs(10);
    table.instances()[0].eject_until(Nanos::from_secs(20));
    table.instances()[1].mark_healthy(false);
    let seen = |threshold, now| {
        let mut picker = Picker::new(Balance::RoundRobin, threshold);
        let all: Vec<_> = (0..8).map(|n| picker.pick(&table, now, n, &[])).collect();
        let mut indexes: Vec<_> = all.iter().flatten().map(|pick| pick.index).collect();
        indexes.sort_unstable();
        indexes.dedup();
        (indexes, all.iter().flatten().any(|pick| pick.panicking))
    };
    assert_eq!(seen(0.5, now), (vec![2, 3], false));
    table.instances()[2].mark_healthy(false);
    assert_eq!(seen(0.5, now), (vec![0, 1, 2, 3], true));
    assert_eq!(seen(0.0, now), (vec![3], false));
    table.instances()[3].mark_healthy(false);
    assert_eq!(seen(0.0, now), (vec![], false));
    assert_eq!(seen(0.0, Nanos::from_secs(20)), (vec![0], false));
    assert_eq!(table.instances()[0].state(now).as_str(), "ejected");
    assert_eq!(table.instances()[1].state(now).as_str(), "unhealthy");
    assert!(Picker::new(Balance::Weighted, 0.5).pick(&Table::new(&[]), now, 0, &[]).is_none());
}

#[test]
fn random_by_weight_follows_the_weights() {
    let table = Table::new(&wanted(&[1, 3, 6]));
    let mut hits = [0_u32; 3];
    for index in picks(&mut Picker::new(Balance::Weighted, 0.5), &table, 10_000) {
        hits[index] += 1;
    }
    for (hit, expected) in hits.iter().zip([1000_u32, 3000, 6000]) {
        assert!(hit.abs_diff(expected) < 200, "{hits:?}");
    }
}

#[test]
fn ewma_moves_by_an_eighth() {
    let table = Table::new(&wanted(&[1]));
    let instance = &table.instances()[0];
    instance.observe(Duration::from_millis(8));
    instance.observe(Duration::from_millis(16));
    assert_eq!(instance.ewma(), Duration::from_millis(9));
}

proptest! {
    #[test]
    fn every_round_gives_each_instance_its_weight(weights in proptest::collection::vec(1_u32..8, 1..7), down in any::<u8>()) {
        let table = Table::new(&wanted(&weights));
        for (n, instance) in table.instances().iter().enumerate() {
            instance.mark_healthy(n == 0 || down & (1 << n) == 0);
        }
        let up: Vec<u32> = table.instances().iter().map(|i| if i.is_healthy() { i.weight() } else { 0 }).collect();
        let round = up.iter().sum::<u32>() as usize;
        let mut picker = Picker::new(Balance::RoundRobin, 0.0);
        for _ in 0..3 {
            let mut hits = vec![0; weights.len()];
            for index in picks(&mut picker, &table, round) {
                hits[index] += 1;
            }
            prop_assert_eq!(&hits, &up);
        }
    }

    #[test]
    fn least_connections_picks_a_least_loaded_one(
        setup in proptest::collection::vec((1_u32..5, 0_u32..6), 1..7), seed: u64,
    ) {
        let weights: Vec<u32> = setup.iter().map(|(weight, _)| *weight).collect();
        let table = Table::new(&wanted(&weights));
        let flights: Vec<Flight> = table.instances().iter().zip(&setup)
            .flat_map(|(instance, (_, load))| (0..*load).map(|_| instance.begin()).collect::<Vec<_>>()).collect();
        let index = Picker::new(Balance::LeastConnections, 0.5).pick(&table, Nanos::ZERO, seed, &[]).unwrap().index;
        let load = |(weight, load): (u32, u32)| f64::from(load + 1) / f64::from(weight);
        prop_assert!(setup.iter().all(|other| load(*other) >= load(setup[index]) - 1e-9));
        drop(flights);
        prop_assert!(table.instances().iter().all(|instance| instance.in_flight() == 0));
    }

    #[test]
    fn closed_loop_load_settles_by_weight(weights in proptest::collection::vec(1_u32..6, 2..5), seed: u64) {
        let table = Table::new(&wanted(&weights));
        let mut picker = Picker::new(Balance::LeastConnections, 0.5);
        let total: u32 = weights.iter().sum();
        let flights: Vec<Flight> = (0..total * 4).map(|n| {
            let pick = picker.pick(&table, Nanos::ZERO, seed.wrapping_add(u64::from(n)), &[]).unwrap();
            table.instances()[pick.index].begin()
        }).collect();
        for (instance, weight) in table.instances().iter().zip(&weights) {
            prop_assert!(instance.in_flight().abs_diff(weight * 4) <= 1, "{} of {}", instance.in_flight(), weight * 4);
        }
        drop(flights);
    }
}
