use super::*;
use proptest::prelude::*;

mod model;

fn conf() -> sluice_schema::Breaker {
    sluice_schema::Breaker::default()
}

fn breaker(conf: sluice_schema::Breaker) -> Breaker {
    Breaker::new(Settings { conf, probe_lease: Duration::from_secs(20) })
}

const FAST: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_secs(3);

fn call(breaker: &mut Breaker, outcome: Outcome, latency: Duration, now: Nanos) {
    let permit = breaker.try_acquire(now, 5).unwrap();
    breaker.record(permit, outcome, latency, now, 7);
}

/// Opens a default breaker at the given second by five failures.
fn opened(at_s: u64) -> Breaker {
    let mut breaker = breaker(conf());
    for _ in 0..5 {
        call(&mut breaker, Outcome::Failure, FAST, Nanos::from_secs(at_s));
    }
    assert_eq!(breaker.state(), State::Open);
    breaker
}

#[test]
fn a_row_of_failures_opens_and_a_success_ends_the_row() {
    let mut breaker = breaker(conf());
    let now = Nanos::from_secs(1);
    for _ in 0..3 {
        for _ in 0..4 {
            call(&mut breaker, Outcome::Failure, FAST, now);
            call(&mut breaker, Outcome::Neutral, FAST, now);
        }
        assert_eq!(breaker.metrics(now).consecutive_failures, 4);
        call(&mut breaker, Outcome::Success, FAST, now);
    }
    assert_eq!(breaker.state(), State::Closed);
    for _ in 0..5 {
        call(&mut breaker, Outcome::Failure, FAST, now);
    }
    let change = breaker.take_transition().unwrap();
    assert_eq!((change.from, change.to, change.reason), (State::Closed, State::Open, Reason::Consecutive));
    assert_eq!(breaker.take_transition(), None);
    let metrics = breaker.metrics(now);
    assert_eq!((metrics.failures, metrics.successes, metrics.neutral, metrics.requests), (17, 3, 12, 32));
    assert_eq!(metrics.opened_at, Some(now));
}

#[test]
fn rates_need_enough_calls() {
    for (bad, reason) in
        [((Outcome::Failure, FAST), Reason::FailureRate), ((Outcome::Success, SLOW), Reason::SlowRate)]
    {
        let mut breaker = breaker(sluice_schema::Breaker { slow_rate: 0.5, ..conf() });
        for n in 0..19 {
            assert_eq!(breaker.state(), State::Closed);
            let (outcome, latency) = if n % 2 == 0 { bad } else { (Outcome::Success, FAST) };
            call(&mut breaker, outcome, latency, Nanos::from_secs(n / 3));
        }
        call(&mut breaker, bad.0, bad.1, Nanos::from_secs(7));
        assert_eq!(breaker.take_transition().map(|change| change.reason), Some(reason));
    }
}

#[test]
fn open_breaker_rejects_then_lets_three_probes_through_and_closes() {
    let mut breaker = opened(100);
    let rejected = breaker.try_acquire(Nanos::from_secs(110), 5).unwrap_err();
    assert_eq!(rejected.state, State::Open);
    assert!((44..=56).contains(&rejected.retry_after.as_secs()), "{rejected:?}");
    let now = Nanos::from_secs(166);
    let probes: Vec<Permit> = (0..3).map(|_| breaker.try_acquire(now, 5).unwrap()).collect();
    assert!(probes.iter().all(Permit::is_probe));
    let wait = breaker.try_acquire(now, 5).unwrap_err().retry_after;
    assert!((1..=2).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(
        (breaker.state(), breaker.metrics(now).probes, breaker.metrics(now).rejected),
        (State::HalfOpen, 3, 2)
    );
    for probe in probes {
        breaker.record(probe, Outcome::Success, FAST, now, 0);
    }
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.metrics(now).opened_at, None);
    assert_eq!(breaker.metrics(now).transitions, 3);
}

#[test]
fn failed_recoveries_double_the_time_up_to_five_minutes() {
    let mut breaker = opened(0);
    let mut now = Nanos::ZERO;
    for expected_s in [60_u64, 120, 240, 300, 300] {
        let wait = breaker.try_acquire(now, 5).unwrap_err().retry_after;
        let (low, high) = (expected_s * 9 / 10, expected_s * 11 / 10);
        assert!((low..=high).contains(&wait.as_secs()), "{wait:?} for {expected_s}");
        now = now.plus(wait);
        call(&mut breaker, Outcome::Failure, FAST, now);
    }
    now = now.plus(Duration::from_secs(330));
    for _ in 0..3 {
        call(&mut breaker, Outcome::Success, FAST, now);
    }
    for _ in 0..5 {
        call(&mut breaker, Outcome::Failure, FAST, now);
    }
    assert!(
        breaker.try_acquire(now, 5).unwrap_err().retry_after <= Duration::from_secs(66),
        "closing forgets the doubling"
    );
}

#[test]
fn a_longer_recovery_timeout_is_not_cut() {
    let recovery_timeout = Duration::from_secs(900);
    let mut breaker = breaker(sluice_schema::Breaker { recovery_timeout, ..conf() });
    for _ in 0..5 {
        call(&mut breaker, Outcome::Failure, FAST, Nanos::ZERO);
    }
    assert!(breaker.try_acquire(Nanos::ZERO, 5).unwrap_err().retry_after >= Duration::from_secs(810));
}

#[test]
fn slow_probe_reopens_and_neutral_probe_only_frees_its_place() {
    let mut breaker = opened(0);
    let now = Nanos::from_secs(70);
    for _ in 0..10 {
        call(&mut breaker, Outcome::Neutral, FAST, now);
    }
    assert_eq!((breaker.state(), breaker.metrics(now).probes), (State::HalfOpen, 0));
    call(&mut breaker, Outcome::Success, SLOW, now);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn leave_that_was_given_before_is_no_leave_to_try_again() {
    let mut breaker = breaker(conf());
    let now = Nanos::from_secs(1);
    let early = breaker.try_acquire(now, 0).unwrap();
    assert!(breaker.stands(&early, now));
    for _ in 0..5 {
        call(&mut breaker, Outcome::Failure, Duration::ZERO, now);
    }
    assert!(!breaker.stands(&early, now), "open");
    let later = Nanos::from_secs(70);
    let probe = breaker.try_acquire(later, 0).unwrap();
    assert!(
        breaker.stands(&probe, later) && !breaker.stands(&early, later),
        "a probe's place is not its own"
    );
    assert!(!breaker.stands(&probe, Nanos::from_secs(170)), "its lease is over");
    breaker.reset(later);
    assert!(breaker.stands(&early, later), "closed: everybody may");
    breaker.force(Force::Open, later);
    assert!(!breaker.stands(&early, later));
    breaker.cancel(early, later);
    breaker.cancel(probe, later);
}

#[test]
fn lost_probes_come_back_when_their_lease_ends() {
    let mut breaker = opened(0);
    let now = Nanos::from_secs(70);
    let lost: Vec<Permit> = (0..3).map(|_| breaker.try_acquire(now, 5).unwrap()).collect();
    assert!(breaker.try_acquire(Nanos::from_secs(89), 5).is_err());
    let later = Nanos::from_secs(90);
    let fresh = breaker.try_acquire(later, 5).unwrap();
    for permit in lost {
        breaker.record(permit, Outcome::Failure, FAST, later, 0);
    }
    assert_eq!((breaker.state(), breaker.metrics(later).late), (State::HalfOpen, 3));
    breaker.cancel(fresh, later);
    assert_eq!(breaker.metrics(later).probes, 0);
}

#[test]
fn forced_states_hold_until_reset() {
    let now = Nanos::from_secs(1);
    let mut breaker = breaker(conf());
    breaker.force(Force::Open, now);
    assert_eq!(breaker.try_acquire(Nanos::from_secs(10_000), 5).unwrap_err().state, State::ForcedOpen);
    for (force, state, counted) in
        [(Force::Closed, State::ForcedClosed, 9), (Force::Disabled, State::Disabled, 0)]
    {
        breaker.force(force, now);
        let before = breaker.metrics(now).failures;
        for _ in 0..9 {
            call(&mut breaker, Outcome::Failure, FAST, now);
        }
        assert_eq!((breaker.state(), breaker.metrics(now).failures - before), (state, counted));
    }
    breaker.reset(now);
    assert_eq!((breaker.state(), breaker.state().gauge()), (State::Closed, 0));
}

#[test]
fn reset_discards_calls_under_way() {
    let mut breaker = breaker(conf());
    let now = Nanos::from_secs(1);
    let old: Vec<Permit> = (0..9).map(|_| breaker.try_acquire(now, 5).unwrap()).collect();
    breaker.reset(now);
    for permit in old {
        breaker.record(permit, Outcome::Failure, FAST, now, 0);
    }
    let metrics = breaker.metrics(now);
    assert_eq!(
        (metrics.state, metrics.late, metrics.failures, metrics.transitions),
        (State::Closed, 9, 9, 0)
    );
}

#[test]
fn new_settings_keep_state_and_times() {
    let mut breaker = opened(0);
    let retry_at = breaker.metrics(Nanos::ZERO).retry_at;
    breaker.configure(Settings {
        conf: sluice_schema::Breaker { half_open_max: 1, ..conf() },
        probe_lease: SLOW,
    });
    assert_eq!((breaker.state(), breaker.metrics(Nanos::ZERO).retry_at), (State::Open, retry_at));
    let now = Nanos::from_secs(70);
    let probe = breaker.try_acquire(now, 5).unwrap();
    assert!(breaker.try_acquire(now, 5).is_err());
    breaker.cancel(probe, now);
}

#[test]
fn an_open_breaker_goes_on_elsewhere() {
    let now = Nanos::from_secs(50);
    assert_eq!(breaker(conf()).opened(now), None);
    let known = opened(40).opened(now).unwrap();
    assert_eq!((known.ago, known.reopened), (Duration::from_secs(10), 0));
    let (mut other, then) = (breaker(conf()), Nanos::from_secs(3));
    other.reopen(&known, then);
    assert_eq!((other.state(), other.take_transition()), (State::Open, None));
    assert_eq!(other.opened(then).unwrap().retry_in, known.retry_in);
    assert!(other.try_acquire(then, 1).is_err());
    // Where probes ran already, the next request is one.
    let mut probing = breaker(conf());
    probing.reopen(&Opened { retry_in: Duration::ZERO, ..known }, then);
    assert!(probing.try_acquire(then, 1).unwrap().is_probe());
    assert_eq!(probing.opened(then).unwrap().retry_in, Duration::ZERO);
    // Nonsense opens it for no longer than it could have been, and an operator's word stands.
    let mut long = breaker(conf());
    long.reopen(&Opened { ago: Duration::MAX, retry_in: Duration::MAX, reopened: u32::MAX }, then);
    assert!(long.opened(then).unwrap().retry_in <= OPEN_MAX * 11 / 10);
    let mut forced = breaker(conf());
    forced.force(Force::Closed, then);
    forced.reopen(&known, then);
    assert_eq!((forced.state(), forced.opened(then)), (State::ForcedClosed, None));
}

#[test]
fn statuses_are_sorted_as_the_contract_says() {
    for status in [101, 200, 204, 304] {
        assert_eq!(Outcome::of_status(status), Outcome::Success);
    }
    for status in [502, 503, 504] {
        assert_eq!(Outcome::of_status(status), Outcome::Failure);
    }
    for status in [400, 404, 429, 499, 500, 501, 505] {
        assert_eq!(Outcome::of_status(status), Outcome::Neutral);
    }
}
