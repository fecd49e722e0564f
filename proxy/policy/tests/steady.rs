//! What a usual request costs the policy: no allocation once its states are warm, and the same work however many
//! routes there are.

mod chain;

use std::cell::Cell;
use std::time::Duration;

use chain::{Chain, rule};
use sluice_policy::Nanos;
use sluice_policy::idempotency::{Owner, Record, Verdict, judge, key};
use sluice_policy::method::Method;
use sluice_policy::route::{Ask, Fields, Lookup, Rule, Table, Target};
use sluice_schema::Idempotency;

#[test]
fn the_steady_state_allocates_nothing() {
    let mut chain = Chain::new(1000);
    let mut now = Nanos::from_secs(10);
    let mut requests = |count: usize| {
        for _ in 0..count {
            now = now.plus(Duration::from_micros(500));
            assert!(chain.request(now), "a usual request passes");
        }
    };
    // Every window is turned over: slow starts have ended, samples have their room.
    requests(150_000);
    let counted = allocation_counter::measure(|| requests(20_000));
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0), "{counted:?}");
}

/// An order's key is kept beyond its request, so it is its own text; judging it takes nothing more.
#[test]
fn the_key_of_an_order_is_one_allocation() {
    let record = Record::claimed([3; 32], Owner { run: 1, request: 2 }, 2_000, 90_000);
    let counted = allocation_counter::measure(|| {
        let key = key(Idempotency::Required, std::iter::once(&b"\"order-0017\""[..])).unwrap();
        assert_eq!(key.as_deref(), Some("order-0017"));
        assert!(matches!(judge(None, &[3; 32], 1_000, |_| true), Verdict::Claim));
        assert!(matches!(judge(Some(&record), &[3; 32], 1_000, |_| true), Verdict::InFlight));
    });
    assert_eq!(counted.count_total, 1, "{counted:?}");
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![1_u8, 2, 3])));
    assert_eq!(counted.count_total, 1, "{counted:?}");
}

/// Counted, not timed: a look-up asks for the header fields of each route that it considers.
#[test]
fn a_look_up_considers_one_route_of_ten_thousand_as_of_ten() {
    let field = ("x-desk".to_owned(), "*".to_owned());
    for routes in [10, 100, 10_000] {
        let asks = |number| Rule { headers: Fields::new([(&field.0, &field.1)]), ..rule(number) };
        let table = Table::for_edge((0..routes).map(asks)).unwrap();
        for number in [0, routes / 2, routes - 1] {
            let (path, considered) = (format!("/s{number:04}/a/b/c/d/e"), Cell::new(0));
            let has = |_: &str, _: Option<&str>| {
                considered.set(considered.get() + 1);
                true
            };
            let ask = Ask { method: Method::Get, host: "edge.example", path: &path, headers: &has };
            let counted = allocation_counter::measure(|| {
                let Lookup::Found(route) = table.find(&ask) else { panic!("{path} has a route") };
                assert_eq!(route.target, Target::Service(number));
            });
            assert_eq!((considered.get(), counted.count_total), (1, 0), "{routes} routes");
        }
    }
}
