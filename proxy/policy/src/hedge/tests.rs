use proptest::prelude::*;
use sluice_schema::Retry;

use super::*;
use crate::random::below;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

const READ: Ask =
    Ask { method: Method::Get, has_body: false, wants_stream: false, is_bound: false, tries: 1 };
const LATE: Late = Late { tries: 1, breaker: State::Closed, left: ms(1_000) };

#[test]
fn only_the_first_try_of_a_plain_read_is_watched() {
    for method in Method::ALL {
        let reads = matches!(method, Method::Get | Method::Head);
        let want = if reads { Watch::After(ms(7)) } else { Watch::Not };
        assert_eq!(watch(Hedge::After(ms(7)), &Ask { method, ..READ }, || None), want, "{method}");
    }
    for ask in [
        Ask { has_body: true, ..READ },
        Ask { wants_stream: true, ..READ },
        Ask { is_bound: true, ..READ },
        Ask { tries: 2, ..READ },
    ] {
        for hedge in [Hedge::P95, Hedge::After(ms(7))] {
            assert_eq!(watch(hedge, &ask, || panic!("asked for nothing")), Watch::Not, "{ask:?}");
        }
    }
    assert_eq!(watch(Hedge::Off, &READ, || panic!("asked for nothing")), Watch::Not);
    assert_eq!(watch(Hedge::P95, &READ, || None), Watch::Measured);
    assert_eq!(watch(Hedge::P95, &READ, || Some(ms(70))), Watch::After(ms(70)));
    assert_eq!(watch(Hedge::P95, &READ, || Some(ms(1))), Watch::After(USUAL_MIN));
}

#[test]
fn streams_are_known_by_what_their_reader_accepts() {
    assert!(wants_stream(b"text/event-stream") && wants_stream(b"a/b, Text/Event-Stream;q=1"));
    assert!(wants_stream(b"application/x-ndjson") && !wants_stream(b"") && !wants_stream(b"*/*"));
}

#[test]
fn a_refused_second_try_costs_nothing() {
    let second = Nanos::from_secs(1);
    let settings = Retry { budget: 0.0, min_per_second: 1, ..Retry::default() };
    let mut budget = Budget::new(&settings);
    for (late, why) in [
        (Late { tries: 2, ..LATE }, Refused::Exhausted),
        (Late { breaker: State::HalfOpen, ..LATE }, Refused::Breaker),
        (Late { breaker: State::Open, ..LATE }, Refused::Breaker),
        (Late { breaker: State::ForcedOpen, ..LATE }, Refused::Breaker),
        (Late { left: ms(9), ..LATE }, Refused::Deadline),
    ] {
        assert_eq!(budget.hedge(&late, second), Err(why));
    }
    // One a second, over ten seconds.
    for _ in 0..10 {
        assert_eq!(budget.hedge(&LATE, second), Ok(()));
    }
    assert_eq!(budget.hedge(&LATE, second), Err(Refused::Budget));
    assert!(!budget.try_retry(second), "it is the budget of retries");
}

#[test]
fn buckets_grow_and_each_holds_its_bound() {
    let bound = |at: usize| Duration::from_micros(BOUNDS_US[at]);
    for at in 0..BOUNDS_US.len() {
        assert_eq!(bucket(bound(at)), at);
        assert_eq!(bucket(bound(at) + Duration::from_nanos(1)), at + 1);
        assert!(at == 0 || (bound(at) > bound(at - 1) && bound(at) <= bound(at - 1) * 5 / 4));
    }
    assert_eq!((bucket(Duration::ZERO), bucket(Duration::MAX)), (0, BUCKETS - 1));
}

#[test]
fn what_was_slow_long_ago_is_forgotten() {
    let mut latencies = Latencies::default();
    (0..HALF_LIFE).for_each(|_| latencies.record(ms(1_000)));
    assert!(latencies.p95().unwrap() >= ms(1_000));
    (0..6 * HALF_LIFE).for_each(|_| latencies.record(ms(1)));
    assert!(latencies.p95().unwrap() < ms(2));
    assert!(latencies.total <= HALF_LIFE);
}

#[test]
fn where_one_in_ten_takes_for_ever_nothing_is_usual() {
    let mut latencies = Latencies::default();
    (0..100).for_each(|at| latencies.record(if at % 10 == 0 { ms(4_000) } else { ms(1) }));
    assert_eq!(latencies.p95(), None);
}

/// Times between `least` and `least` × 16, thinly spread at the top.
fn spread(least_us: u64, seed: u64) -> Duration {
    let share = below(1_000, seed);
    let most = if share < 950 { 4 * least_us } else { 16 * least_us };
    Duration::from_micros(least_us + below(most - least_us, seed.wrapping_add(1 << 40)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Were overtaken tries not counted, the figure would fall below the fastest of the slow ones.
    #[test]
    fn what_is_usual_stays_where_it_is_though_the_slow_are_overtaken(least_us in 100_u64..20_000, seed: u32) {
        let (mut seen, mut all) = (Latencies::default(), Latencies::default());
        let mut overtaken = 0_u32;
        for at in 0..4_000_u64 {
            let took = spread(least_us, u64::from(seed) << 20 | at);
            all.record(took);
            // The second one needs a while too.
            let given_up = seen.p95().map(|usual| usual + Duration::from_micros(least_us));
            overtaken += u32::from(given_up.is_some_and(|up| took > up));
            seen.record(given_up.map_or(took, |up| took.min(up)));
        }
        let (seen, all) = (seen.p95().unwrap(), all.p95().unwrap());
        // Where chance makes more than one in twenty slow, theirs is how long they were waited for.
        let least = all.min(Duration::from_micros(4 * least_us));
        prop_assert!(seen * 5 >= least * 4 && seen <= all, "{seen:?} {all:?}");
        prop_assert!(overtaken < 400, "{overtaken} of 4,000");
    }
}

#[derive(Clone, Copy, Debug)]
struct Event {
    at: u64,
    one: Try,
    came: Came,
}

fn came() -> impl Strategy<Value = Came> {
    prop_oneof![(100_u16..600).prop_map(Came::Head), Just(Came::Failure)]
}

proptest! {
    #[test]
    fn agrees_with_the_share_counted_one_by_one(us in proptest::collection::vec(1_u64..4_000_000, 0..900)) {
        let mut latencies = Latencies::default();
        for us in &us {
            latencies.record(Duration::from_micros(*us));
        }
        let mut sorted = us.clone();
        sorted.sort_unstable();
        let longest = BOUNDS_US[BOUNDS_US.len() - 1];
        let exact = (us.len() >= ENOUGH as usize).then(|| sorted[(us.len() * 95).div_ceil(100) - 1].max(LEAST_US));
        match (latencies.p95(), exact.filter(|us| *us <= longest).map(Duration::from_micros)) {
            (Some(told), Some(exact)) => prop_assert!(told >= exact && told <= exact * 5 / 4, "{told:?} {exact:?}"),
            (told, exact) => prop_assert_eq!(told, exact),
        }
    }

    /// The naive model looks at all that comes, in its order, and takes the first good head, else the last thing.
    #[test]
    fn the_first_good_head_is_the_answer_else_the_last_failure(
        first in came(), second in proptest::option::of(came()),
        (first_at, begun, second_after) in (0_u64..100, 0_u64..100, 0_u64..100),
    ) {
        let mut events = vec![Event { at: first_at, one: Try::First, came: first }];
        // Whoever has come to an end before gets no second try.
        if let Some(second) = second.filter(|_| begun < first_at) {
            events.push(Event { at: begun + second_after, one: Try::Second, came: second });
        }
        events.sort_by_key(|event| event.at);
        let good = |event: &&Event| matches!(event.came, Came::Head(status) if status < 500);
        let model = *events.iter().find(good).unwrap_or(&events[events.len() - 1]);

        let mut race = Race::default();
        if events.len() == 2 {
            race.begin_second();
        }
        let mut outcome = None;
        for event in &events {
            prop_assert!(race.is_running(event.one));
            if race.came(event.one, event.came) == Next::Ends {
                outcome = Some(*event);
                break;
            }
            prop_assert!(!race.is_running(event.one));
        }
        let outcome = outcome.unwrap();
        prop_assert_eq!((outcome.at, outcome.came), (model.at, model.came));
        let failed = !race.is_running(Try::Second) && events.len() == 2 && outcome.one == Try::First;
        let verdict = match (events.len(), outcome.one, good(&&outcome)) {
            (1, ..) => None,
            (_, Try::Second, true) => Some(Verdict::Won),
            (_, Try::Second, false) => Some(Verdict::Failed),
            _ if failed => Some(Verdict::Failed),
            _ => Some(Verdict::Lost),
        };
        prop_assert_eq!(race.verdict(), verdict);
    }
}

#[test]
fn a_client_that_left_had_no_answer() {
    let mut race = Race::default();
    assert_eq!(race.verdict(), None);
    race.begin_second();
    assert_eq!(race.verdict(), Some(Verdict::Unanswered));
    race.came(Try::First, Came::Failure);
    assert_eq!(race.verdict(), Some(Verdict::Unanswered));
    race.came(Try::Second, Came::Failure);
    assert_eq!(race.verdict().map(Verdict::as_str), Some("failed"));
}
