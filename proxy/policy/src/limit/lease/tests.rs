//! Single steps of a lease, and whole runs of several edges with a store in [`simulation`].

use super::*;

mod simulation;

const MINUTE: Duration = Duration::from_secs(60);

fn at(ms: u64) -> Nanos {
    Nanos::from_millis(ms)
}

fn outcomes(lease: &mut Lease, terms: &Terms, now: Nanos, count: usize) -> Vec<Outcome> {
    (0..count).map(|_| lease.take(terms, Threshold::Soft, now).outcome).collect()
}

fn told(lease: &mut Lease, granted: u64, whole_after: Duration, now: Nanos) -> bool {
    lease.answer(&Terms::new(10_000, MINUTE, 10_000), Granted { granted, whole_after, shared: true }, now)
}

#[test]
fn a_low_limit_counts_each_request_by_itself() {
    let terms = Terms::new(5, MINUTE, 5);
    let mut lease = Lease::default();
    let first = lease.take(&terms, Threshold::Soft, at(0));
    assert_eq!((first.outcome, first.asks, first.remaining), (Outcome::OnCredit, true, 4));
    // Two may be on the way at once.
    let second = lease.take(&terms, Threshold::Soft, at(0));
    assert_eq!((second.outcome, second.asks), (Outcome::OnCredit, false));
    assert_eq!(lease.take(&terms, Threshold::Soft, at(0)).outcome, Outcome::Refused(LATE));
    assert_eq!(lease.ask(&terms, at(1)), Ask { owed: 2, want: 0 });
    // Others have had the other three.
    assert!(!told(&mut lease, 0, MINUTE, at(2)));
    let refused = lease.take(&terms, Threshold::Soft, at(2));
    assert_eq!((refused.outcome, refused.asks), (Outcome::Refused(Duration::from_secs(12)), false));
    assert_eq!((refused.remaining, refused.reset_after), (0, MINUTE));
    assert!(matches!(lease.take(&terms, Threshold::Soft, at(11_980)).outcome, Outcome::Refused(_)));
    assert_eq!(
        outcomes(&mut lease, &terms, at(12_003), 2),
        [Outcome::OnCredit, Outcome::Refused(LATE)],
        "one that came back, not more"
    );
}

#[test]
fn a_busy_caller_is_counted_in_chunks_and_a_quiet_one_gives_them_back() {
    let terms = Terms::new(10_000, Duration::from_secs(1), 10_000);
    let mut lease = Lease::default();
    let mut calls = 0;
    let mut ms = 0;
    let mut asked = false;
    while ms < 1_000 {
        for _ in 0..5 {
            let taken = lease.take(&terms, Threshold::Soft, at(ms));
            assert!(!matches!(taken.outcome, Outcome::Refused(_)), "{ms}: {taken:?}");
            asked |= taken.asks;
        }
        if std::mem::take(&mut asked) {
            calls += 1;
            let ask = lease.ask(&terms, at(ms));
            asked = told(&mut lease, ask.want, Duration::from_millis(1), at(ms));
        }
        ms += 1;
    }
    assert!(calls < 100, "{calls} calls for 5,000 requests");
    let held = lease.tokens;
    assert!(held > 0 && held <= 10_000 / CHUNK_SHARE, "{held}");
    let lapses_at = lease.lapses_at;
    assert_eq!(lease.look(Nanos(lapses_at.0 - 1)), (Some(lapses_at), false));
    assert_eq!(lease.to_watch(), None, "it is watched");
    assert_eq!(lease.look(lapses_at), (None, true), "a call is wanted");
    assert_eq!((lease.look(lapses_at), lease.to_watch()), ((None, false), None));
    assert_eq!(lease.ask(&terms, at(60_000)).owed, -(held as i64));
    told(&mut lease, 0, Duration::ZERO, at(60_000));
    assert!(lease.is_idle(at(60_001)));
}

#[test]
fn an_answer_that_is_late_is_not_waited_for_unless_the_bucket_was_empty() {
    let terms = Terms::new(100, MINUTE, 100);
    let mut lease = Lease::default();
    let credit = outcomes(&mut lease, &terms, at(0), 40);
    assert_eq!(credit.iter().filter(|outcome| **outcome == Outcome::OnCredit).count(), 34);
    assert_eq!(credit[34], Outcome::Refused(LATE));
    lease.ask(&terms, at(1));
    assert_eq!(lease.take(&terms, Threshold::Soft, at(100)).outcome, Outcome::Refused(LATE));
    assert_eq!(lease.take(&terms, Threshold::Soft, at(101)).outcome, Outcome::Late);
    assert!(told(&mut lease, 0, MINUTE, at(110)), "the late one is to be counted");
    assert!(
        matches!(lease.take(&terms, Threshold::Soft, at(300)).outcome, Outcome::Refused(_)),
        "it is known to be empty"
    );
}

#[test]
fn an_edge_that_is_alone_has_the_whole_credit_and_a_hard_threshold_always() {
    let terms = Terms::new(12, MINUTE, 12);
    let cost = MINUTE / 12;
    let mut lease = Lease::default();
    let on_credit = |lease: &mut Lease, now, threshold| {
        let taken = std::iter::repeat_with(|| lease.take(&terms, threshold, now).outcome);
        taken.take_while(|outcome| *outcome == Outcome::OnCredit).count()
    };
    assert_eq!(on_credit(&mut lease, at(0), Threshold::Soft), 4);
    lease.ask(&terms, at(0));
    assert!(!lease.answer(&terms, Granted { granted: 0, whole_after: 4 * cost, shared: false }, at(3)));
    assert_eq!(
        on_credit(&mut lease, at(4), Threshold::Soft),
        1,
        "others may be on their way with their thirds"
    );
    lease.ask(&terms, at(5));
    lease.answer(&terms, Granted { granted: 0, whole_after: 5 * cost, shared: false }, at(6));
    let mut late = lease;
    assert_eq!(
        on_credit(&mut late, at(1_010), Threshold::Soft),
        2,
        "what was told a second ago tells of nobody"
    );
    lease.ask(&terms, at(600));
    lease.answer(&terms, Granted { granted: 0, whole_after: 5 * cost, shared: false }, at(601));
    assert_eq!(on_credit(&mut lease, at(1_010), Threshold::Soft), 7, "nobody else calls for it");
    lease.ask(&terms, at(1_011));
    lease.answer(&terms, Granted { granted: 0, whole_after: 12 * cost, shared: false }, at(1_012));
    // Somebody else calls for it now: the credit is a third.
    lease.ask(&terms, at(60_000));
    lease.answer(&terms, Granted { granted: 0, whole_after: cost, shared: true }, at(60_001));
    assert_eq!(on_credit(&mut lease, at(60_002), Threshold::Soft), 4);
    assert_eq!(on_credit(&mut lease, at(60_002), Threshold::Hard), 7);
}

#[test]
fn a_store_that_went_away_leaves_nothing_owed_and_what_it_said() {
    let terms = Terms::new(100, MINUTE, 100);
    let mut lease = Lease::default();
    outcomes(&mut lease, &terms, at(0), 3);
    lease.ask(&terms, at(0));
    told(&mut lease, 10, MINUTE, at(1));
    outcomes(&mut lease, &terms, at(2), 12);
    lease.forget();
    assert!(matches!(lease.take(&terms, Threshold::Soft, at(3)).outcome, Outcome::Refused(_)));
    assert_eq!((lease.owed, lease.flying, lease.tokens, lease.waits_since), (0, 0, 0, None));
    assert!(lease.is_idle(at(60_002)));
}

#[test]
fn terms_hold_a_tenth_of_a_second_and_stay_in_range() {
    assert_eq!(Terms::new(1000, Duration::from_secs(1), 1).capacity, 100);
    assert_eq!(Terms::new(1000, Duration::from_secs(1), 500).capacity, 500);
    assert_eq!(Terms::new(5, MINUTE, 5).capacity, 5);
    for (requests, per_ms, burst) in
        [(1, 86_400_000, 1_000_000_000), (1_000_000_000, 1, 1_000_000_000), (0, 0, 0), (1, 1, 1)]
    {
        let terms = Terms::new(requests, Duration::from_millis(per_ms), burst);
        assert!(terms.capacity as f64 * terms.cost_ns() <= 2.0 * WHOLE_AFTER_US as f64 * 1e3, "{terms:?}");
        let mut lease = Lease::default();
        for now in [0, 1, u64::MAX / 2, u64::MAX] {
            lease.take(&terms, Threshold::Soft, Nanos(now));
            lease.ask(&terms, Nanos(now));
            lease.answer(&terms, Granted::new(u64::MAX, u64::MAX, false), Nanos(now));
            lease.to_watch();
            lease.look(Nanos(now));
        }
    }
}
