use super::*;
use proptest::prelude::*;

const CONNECT: Failed = Failed {
    method: Method::Get,
    tries: 1,
    cause: RetryCause::Connect,
    sent: false,
    keyed_part: false,
    replayable: true,
    left: Some(Duration::from_secs(5)),
    retry_after: None,
};

fn decide(failed: Failed) -> Verdict {
    let settings = sluice_schema::Retry { attempts: 4, ..sluice_schema::Retry::default() };
    Budget::new(&settings).decide(&failed, Nanos::ZERO, 9)
}

#[test]
fn a_key_repeats_half_an_order_and_never_a_whole_one() {
    let broke = Failed { method: Method::Post, sent: true, cause: RetryCause::Reset, ..CONNECT };
    assert_eq!(decide(broke), Verdict::Stop(Stop::Unsafe));
    assert!(matches!(decide(Failed { keyed_part: true, ..broke }), Verdict::Again(_)));
    let gone = Failed { keyed_part: true, replayable: false, ..broke };
    assert_eq!(decide(gone), Verdict::Stop(Stop::BodyGone));
}

#[test]
fn nothing_that_was_sent_is_sent_twice_unless_safe() {
    for method in Method::ALL {
        assert!(
            matches!(decide(Failed { method, ..CONNECT }), Verdict::Again(_)),
            "{method} before its first byte"
        );
        let sent = decide(Failed { method, sent: true, cause: RetryCause::Reset, ..CONNECT });
        assert_eq!(matches!(sent, Verdict::Again(_)), method.is_safe(), "{method} after its first byte");
    }
    let post = Failed { method: Method::Post, sent: true, cause: RetryCause::Status(503), ..CONNECT };
    assert_eq!(decide(post), Verdict::Stop(Stop::Unsafe));
}

#[test]
fn each_condition_stops_with_its_reason() {
    for (failed, stop) in [
        (Failed { tries: 4, ..CONNECT }, Stop::Exhausted),
        (Failed { cause: RetryCause::Status(500), sent: true, ..CONNECT }, Stop::NotConfigured),
        (Failed { sent: true, cause: RetryCause::Reset, replayable: false, ..CONNECT }, Stop::BodyGone),
        (Failed { left: Some(Duration::from_millis(34)), ..CONNECT }, Stop::Deadline),
        (Failed { retry_after: Some(Duration::from_secs(60)), ..CONNECT }, Stop::Deadline),
    ] {
        assert_eq!(decide(failed), Verdict::Stop(stop), "{failed:?}");
        assert!(!stop.as_str().is_empty());
    }
    let told = decide(Failed { retry_after: Some(Duration::from_secs(1)), ..CONNECT });
    assert_eq!(told, Verdict::Again(Duration::from_secs(1)));
    assert!(matches!(decide(Failed { left: None, ..CONNECT }), Verdict::Again(_)));
}

#[test]
fn delays_grow_and_stay_in_their_band() {
    let settings = sluice_schema::Retry { attempts: 10, ..sluice_schema::Retry::default() };
    for tries in 1..10 {
        let mut longest = Duration::ZERO;
        for seed in 0..200 {
            let delay = check(&settings, &Failed { tries, ..CONNECT }, seed).unwrap();
            assert!((BACKOFF_MIN..=BACKOFF_MAX).contains(&delay));
            longest = longest.max(delay);
        }
        let ceiling = BACKOFF_MAX.min(BACKOFF_MIN * (1 << tries));
        assert!(longest > ceiling * 9 / 10 && longest <= ceiling);
    }
}

#[test]
fn a_refused_retry_costs_nothing() {
    let settings = sluice_schema::Retry { min_per_second: 0, budget: 1.0, ..sluice_schema::Retry::default() };
    let mut budget = Budget::new(&settings);
    budget.request(Nanos::ZERO);
    for _ in 0..5 {
        let failed = Failed { method: Method::Post, sent: true, ..CONNECT };
        assert_eq!(budget.decide(&failed, Nanos::ZERO, 0), Verdict::Stop(Stop::Unsafe));
    }
    assert!(matches!(budget.decide(&CONNECT, Nanos::ZERO, 0), Verdict::Again(_)));
    assert_eq!(budget.decide(&CONNECT, Nanos::ZERO, 0), Verdict::Stop(Stop::Budget));
}

proptest! {
    #[test]
    fn retries_never_exceed_the_budget_in_any_window(
        steps in proptest::collection::vec((0_u64..3_000, any::<bool>()), 1..200),
        share in 0.0..1.0_f64, floor in 0_u32..3, seed: u64,
    ) {
        let settings = sluice_schema::Retry { budget: share, min_per_second: floor, ..sluice_schema::Retry::default() };
        let (mut budget, mut now_ms, mut requests, mut retries) = (Budget::new(&settings), 0, Vec::new(), Vec::new());
        for (pause_ms, retry) in steps {
            now_ms += pause_ms;
            let (now, second) = (Nanos::from_millis(now_ms), now_ms / 1000);
            if retry {
                if matches!(budget.decide(&CONNECT, now, seed), Verdict::Again(_)) {
                    retries.push(second);
                }
            } else {
                budget.request(now);
                requests.push(second);
            }
            let recent = |all: &[u64]| all.iter().filter(|at| **at + 10 > second).count() as f64;
            if retries.last() == Some(&second) && retry {
                prop_assert!(recent(&retries) <= share * recent(&requests) + f64::from(floor * 10));
            }
        }
    }
}
