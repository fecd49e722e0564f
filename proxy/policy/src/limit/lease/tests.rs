//! Single steps of a lease, and whole runs of several edges with a store in [`simulation`].

use super::*;
use crate::limit::leases::{Leases, WAITERS_MAX, WAITERS_OF_ONE};
use crate::limit::table::{Keyer, Who};

mod simulation;

const MINUTE: Duration = Duration::from_secs(60);

fn at(ms: u64) -> Nanos {
    Nanos::from_millis(ms)
}

const ROOM: Room = Room { here: u64::MAX, waits: true };

fn take(lease: &mut Lease, terms: &Terms, now: Nanos) -> Taken {
    lease.take(terms, Threshold::Soft, ROOM, now)
}

fn outcomes(lease: &mut Lease, terms: &Terms, now: Nanos, count: usize) -> Vec<Outcome> {
    (0..count).map(|_| take(lease, terms, now).outcome).collect()
}

/// The answer: what became of those who waited, and whether another call is wanted.
fn told(
    lease: &mut Lease,
    terms: &Terms,
    granted: u64,
    whole_after: Duration,
    now: Nanos,
) -> (Vec<Outcome>, bool) {
    let mut decided = Vec::new();
    let asks =
        lease.answer(terms, Granted { granted, whole_after }, now, |taken| decided.push(taken.outcome));
    (decided, asks)
}

#[test]
fn a_low_limit_counts_each_request_before_it_is_admitted() {
    let terms = Terms::new(5, MINUTE, 5);
    let cost = MINUTE / 5;
    let mut lease = Lease::default();
    let first = take(&mut lease, &terms, at(0));
    assert_eq!((first.outcome, first.asks, first.remaining), (Outcome::Waits, true, 4));
    assert_eq!((take(&mut lease, &terms, at(0)).outcome, lease.waiting), (Outcome::Waits, 2));
    assert_eq!(lease.ask(&terms, at(1)), Ask { owed: 0, want: 2 });
    // One comes after the call, which it is not in.
    assert!(!take(&mut lease, &terms, at(1)).asks);
    // Others have had three.
    let answer = told(&mut lease, &terms, 2, 5 * cost, at(2));
    assert_eq!(answer, (vec![Outcome::Leased, Outcome::Leased, Outcome::Refused(cost)], false));
    let refused = take(&mut lease, &terms, at(2));
    assert_eq!((refused.outcome, refused.asks), (Outcome::Refused(cost), false));
    assert_eq!((refused.remaining, refused.reset_after), (0, MINUTE));
    assert!(matches!(take(&mut lease, &terms, at(11_980)).outcome, Outcome::Refused(_)));
    assert_eq!(
        outcomes(&mut lease, &terms, at(12_003), 2),
        [Outcome::Waits, Outcome::Refused(LATE)],
        "one that came back, not more"
    );
}

#[test]
fn who_came_after_the_call_waits_for_the_next_where_there_is_something_left() {
    let terms = Terms::new(20, MINUTE, 20);
    let mut lease = Lease::default();
    assert_eq!(outcomes(&mut lease, &terms, at(0), 2), [Outcome::Waits; 2]);
    assert_eq!(lease.ask(&terms, at(0)).want, 2);
    outcomes(&mut lease, &terms, at(0), 1);
    assert_eq!(told(&mut lease, &terms, 2, MINUTE / 10, at(1)), (vec![Outcome::Leased; 2], true));
    assert_eq!((lease.waiting, lease.ask(&terms, at(1)).want), (1, 1));
    assert_eq!(told(&mut lease, &terms, 1, MINUTE / 20 * 3, at(2)), (vec![Outcome::Leased], false));
}

#[test]
fn who_leaves_gets_nothing_and_what_was_granted_to_it_goes_back() {
    let terms = Terms::new(20, MINUTE, 20);
    let mut lease = Lease::default();
    outcomes(&mut lease, &terms, at(0), 3);
    assert_eq!(lease.ask(&terms, at(0)).want, 3);
    lease.leave();
    lease.leave();
    assert_eq!(told(&mut lease, &terms, 3, MINUTE / 20 * 3, at(1)), (vec![Outcome::Leased], true));
    assert_eq!((lease.tokens, lease.ask(&terms, at(1))), (0, Ask { owed: -2, want: 0 }));
    told(&mut lease, &terms, 0, MINUTE / 20, at(2));
    assert!(lease.give_back(at(3)), "a call is wanted");
    assert!(!lease.is_idle(at(80_000)));
    assert_eq!(lease.ask(&terms, at(4)).owed, -1);
    told(&mut lease, &terms, 0, Duration::ZERO, at(5));
    assert!(lease.is_idle(at(6)));
}

#[test]
fn a_request_does_not_wait_behind_more_than_there_are_or_where_nobody_may() {
    let terms = Terms::new(20, MINUTE, 20);
    let mut lease = Lease::default();
    let taken = outcomes(&mut lease, &terms, at(0), 30);
    assert_eq!(taken.iter().filter(|taken| **taken == Outcome::Waits).count(), 20);
    assert_eq!(taken[20], Outcome::Refused(LATE));
    let mut lease = Lease::default();
    let here = |lease: &mut Lease, here, waits| {
        lease.take(&terms, Threshold::Soft, Room { here, waits }, at(0)).outcome
    };
    assert_eq!(here(&mut lease, 1, true), Outcome::Waits);
    assert_eq!(here(&mut lease, 1, true), Outcome::Refused(LATE), "its own table lets one pass");
    assert_eq!(here(&mut lease, 3, false), Outcome::Crowded);
    assert_eq!(lease.ask(&terms, at(0)), Ask { owed: 1, want: 1 }, "it is counted");
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
            let taken = take(&mut lease, &terms, at(ms));
            let passes = matches!(taken.outcome, Outcome::Leased | Outcome::OnCredit);
            assert!(passes, "{ms}: {taken:?}");
            asked |= taken.asks;
        }
        if std::mem::take(&mut asked) {
            calls += 1;
            let ask = lease.ask(&terms, at(ms));
            asked = told(&mut lease, &terms, ask.want, Duration::from_millis(1), at(ms)).1;
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
    told(&mut lease, &terms, 0, Duration::ZERO, at(60_000));
    assert!(lease.is_idle(at(60_001)));
}

#[test]
fn no_more_wait_than_may_for_one_bucket_and_for_all() {
    let (leases, keyer) = (Leases::<()>::new(64), Keyer::new([1, 2]));
    let terms = Terms::new(10_000, MINUTE, 10_000);
    let mut tickets = Vec::new();
    let mut ask = |bucket: &str| {
        let key = keyer.key("s", Who::Subject(bucket));
        let taken = leases.take(
            key,
            Threshold::Soft,
            &terms,
            u64::MAX,
            at(0),
            || [0; 16],
            |ticket| {
                tickets.push(ticket);
            },
        );
        taken.unwrap().outcome
    };
    let mut waits = 0;
    for bucket in ["a", "b", "c", "d", "e"] {
        let outcomes: Vec<Outcome> = (0..6_000).map(|_| ask(bucket)).collect();
        let here = outcomes.iter().filter(|outcome| **outcome == Outcome::Waits).count();
        assert!(here == if waits < WAITERS_MAX { WAITERS_OF_ONE } else { 0 }, "{bucket}: {here}");
        assert_eq!(outcomes[5_999], Outcome::Crowded);
        waits += here;
    }
    assert_eq!((waits, leases.waiting()), (WAITERS_MAX, WAITERS_MAX));
    leases.leave(&tickets[0]);
    assert!(leases.late(&tickets[1], at(1)).is_some() && leases.late(&tickets[1], at(1)).is_none());
    assert_eq!(leases.waiting(), WAITERS_MAX - 2);
    leases.forget();
    assert_eq!(leases.waiting(), 0);
}

#[test]
fn an_answer_that_is_late_is_not_waited_for_unless_the_bucket_was_empty() {
    let terms = Terms::new(100, MINUTE, 100);
    let mut lease = Lease::default();
    // A 64th is for a chunk.
    assert_eq!(
        outcomes(&mut lease, &terms, at(0), 3),
        [Outcome::OnCredit, Outcome::OnCredit, Outcome::Waits]
    );
    assert_eq!(lease.ask(&terms, at(1)), Ask { owed: 2, want: 1 + terms.chunk_max() });
    assert_eq!(take(&mut lease, &terms, at(100)).outcome, Outcome::Waits);
    assert_eq!(take(&mut lease, &terms, at(101)).outcome, Outcome::Late);
    assert_eq!((lease.late(&terms, at(101)).outcome, lease.waiting), (Outcome::Late, 1));
    assert_eq!(
        told(&mut lease, &terms, 0, MINUTE, at(110)),
        (vec![Outcome::Refused(MINUTE / 100)], true),
        "the late ones are to be counted"
    );
    assert_eq!(lease.ask(&terms, at(111)), Ask { owed: 2, want: 1 });
    assert!(
        matches!(take(&mut lease, &terms, at(300)).outcome, Outcome::Refused(_)),
        "it is known to be empty"
    );
}

#[test]
fn a_hard_threshold_has_all_that_is_left_as_its_credit_and_nobody_waits_for_it() {
    let terms = Terms::new(12, MINUTE, 12);
    let mut lease = Lease::default();
    let taken: Vec<Outcome> =
        (0..13).map(|_| lease.take(&terms, Threshold::Hard, ROOM, at(0)).outcome).collect();
    assert_eq!(taken[..12], [Outcome::OnCredit; 12]);
    assert_eq!(taken[12], Outcome::Refused(LATE));
    lease.ask(&terms, at(0));
    assert_eq!(lease.take(&terms, Threshold::Hard, ROOM, at(101)).outcome, Outcome::Late);
}

#[test]
fn credit_and_chunk_are_a_share_together() {
    for capacity in (1..3_000).chain([1 << 40]) {
        let terms = Terms { requests: 1, per_us: 1, capacity };
        assert_eq!(terms.credit() + terms.chunk_max(), capacity / SHARE);
        assert!((3 * (capacity / SHARE)) as f64 <= 0.094 * capacity as f64);
    }
}

#[test]
fn a_store_that_went_away_leaves_nothing_owed_and_what_it_said() {
    let terms = Terms::new(100, MINUTE, 100);
    let mut lease = Lease::default();
    outcomes(&mut lease, &terms, at(0), 3);
    lease.ask(&terms, at(0));
    told(&mut lease, &terms, 10, MINUTE / 2, at(1));
    outcomes(&mut lease, &terms, at(2), 12);
    assert!(lease.waiting > 0);
    told(&mut lease, &terms, 0, MINUTE, at(3));
    lease.forget();
    assert!(matches!(take(&mut lease, &terms, at(3)).outcome, Outcome::Refused(_)));
    assert_eq!((lease.owed, lease.flying, lease.tokens, lease.waits_since), (0, 0, 0, None));
    assert!(lease.is_idle(at(60_003)));
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
            take(&mut lease, &terms, Nanos(now));
            lease.ask(&terms, Nanos(now));
            lease.answer(&terms, Granted::new(u64::MAX, u64::MAX), Nanos(now), |_| ());
            lease.to_watch();
            lease.look(Nanos(now));
        }
    }
}
