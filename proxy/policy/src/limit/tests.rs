use super::table::Debt;
use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

fn limit(requests: u64, per: Duration, burst: u64) -> Limit {
    Limit::new(&RateLimit { requests, per, burst, key: RateKey::Client, hard: None })
}

impl Limit {
    fn soft_burst(&self) -> u64 {
        self.soft.capacity / self.soft.cost
    }
}

fn at(ms: u64) -> Nanos {
    Nanos::from_millis(ms)
}

#[test]
fn burst_passes_at_once_then_the_rate() {
    let gcra = Gcra::new(10, Duration::from_secs(1), 3);
    let (mut tat, mut passed) = (0, Vec::new());
    for ms in (0..1000).step_by(10) {
        let (decision, next) = gcra.check(at(ms), tat);
        tat = next;
        if decision.allowed {
            passed.push(ms);
        }
    }
    assert_eq!(passed, [0, 10, 20, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
}

#[test]
fn decision_tells_the_rest_and_the_wait() {
    let gcra = Gcra::new(60, Duration::from_secs(60), 2);
    let (first, tat) = gcra.check(at(0), 0);
    assert_eq!((first.allowed, first.remaining, first.reset_after), (true, 1, Duration::from_secs(1)));
    let (second, tat) = gcra.check(at(0), tat);
    assert_eq!((second.remaining, second.reset_after), (0, Duration::from_secs(2)));
    let (third, same) = gcra.check(at(250), tat);
    assert_eq!((third.allowed, third.remaining, same), (false, 0, tat));
    assert_eq!(
        (third.retry_after, third.reset_after),
        (Duration::from_millis(750), Duration::from_millis(1750))
    );
    assert!(gcra.check(at(1000), tat).0.allowed);
}

#[test]
fn extreme_rates_do_not_overflow() {
    for (requests, per_s, burst) in
        [(1_000_000_000, 1, 1_000_000_000), (1, 86_400 * 365, 1_000_000_000), (1, 0, 1)]
    {
        let gcra = Gcra::new(requests, Duration::from_secs(per_s), burst);
        let mut tat = 0;
        for now in [0, 1, u64::MAX / 2, u64::MAX] {
            let (decision, next) = gcra.check(Nanos(now), tat);
            assert!(decision.allowed || now > u64::MAX / 64);
            tat = next;
        }
    }
}

#[test]
fn a_billion_a_second_is_exact() {
    let gcra = Gcra::new(1_000_000_000, Duration::from_secs(1), 1);
    let (mut tat, mut passed) = (0, 0);
    for now in 0..1000 {
        for _ in 0..3 {
            let (decision, next) = gcra.check(Nanos(now), tat);
            tat = next;
            passed += u32::from(decision.allowed);
        }
    }
    assert_eq!(passed, 1000);
}

#[test]
fn who_shares_a_bucket() {
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    let none = |_: &str| None;
    let who = |rule: &RateKey, subject| Who::of(rule, subject, ip, none);
    assert_eq!(who(&RateKey::Client, Some("a")), Who::Subject("a"));
    assert_eq!(who(&RateKey::Client, None), Who::Address(ip));
    assert_eq!(who(&RateKey::Ip, Some("a")), Who::Address(ip));
    assert_eq!(who(&RateKey::Service, Some("a")), Who::Everybody);
    assert_eq!(who(&RateKey::Subject, None), Who::Everybody);
    let rule = RateKey::Header("x-desk".to_owned());
    assert_eq!(who(&rule, None), Who::Everybody);
    let found = Who::of(&rule, None, ip, |name| (name == "x-desk").then_some(b"fx"));
    assert_eq!(found, Who::Header(b"fx"));
}

#[test]
fn keys_differ_where_they_should() {
    let keyer = Keyer::new([1, 2]);
    let ip = |text: &str| Who::Address(text.parse().unwrap());
    let key = |who| keyer.key("s", who);
    assert_eq!(key(ip("2001:db8::1")), key(ip("2001:db8::ffff:2")));
    assert_ne!(key(ip("2001:db8::1")), key(ip("2001:db8:0:1::1")));
    assert_eq!(key(ip("::ffff:10.0.0.1")), key(ip("10.0.0.1")));
    assert_ne!(key(ip("10.0.0.1")), key(ip("10.0.0.2")));
    assert_ne!(key(Who::Subject("x")), key(Who::Header(b"x")));
    assert_ne!(key(Who::Subject("x")), keyer.key("t", Who::Subject("x")));
    assert_ne!(keyer.key("ab", Who::Subject("c")), keyer.key("a", Who::Subject("bc")));
    assert_ne!(key(Who::Everybody), Keyer::new([3, 4]).key("s", Who::Everybody));
}

#[test]
fn hard_threshold_counts_refused_requests_and_closes() {
    let table = Table::new(1);
    let conf = RateLimit { hard: Some(5), ..RateLimit::per_minute(2) };
    let (limit, key) = (Limit::new(&conf), Keyer::new([1, 2]).key("s", Who::Everybody));
    let seen: Vec<_> =
        (0..7).map(|_| table.check(key, &limit, at(0))).map(|v| (v.decision.allowed, v.close)).collect();
    let refused = (false, false);
    assert_eq!(seen, [(true, false), (true, false), refused, refused, refused, (false, true), (false, true)]);
}

#[test]
fn a_burst_above_the_hard_threshold_does_not_outlive_it() {
    let conf = RateLimit { burst: 9, hard: Some(3), ..RateLimit::per_minute(2) };
    let (table, limit, key) = (Table::new(1), Limit::new(&conf), Keyer::new([1, 2]).key("s", Who::Everybody));
    let verdicts: Vec<_> = (0..5).map(|_| table.check(key, &limit, at(0))).collect();
    assert_eq!(
        verdicts.iter().map(|v| v.decision.allowed).collect::<Vec<_>>(),
        [true, true, true, false, false]
    );
    assert!(verdicts[3].close && verdicts[3].decision.retry_after > Duration::ZERO);
    assert_eq!(verdicts[3].decision.remaining, 0);
}

#[test]
fn full_table_forgets_the_idle_first() {
    let table = Table::new(1);
    assert_eq!(table.capacity(), 512);
    let (limit, keyer) = (limit(1, Duration::from_secs(1), 1), Keyer::new([1, 2]));
    let flood = |from: u32, now| {
        for n in from..from + 4_000 {
            assert!(table.check(keyer.key("s", Who::Subject(&n.to_string())), &limit, now).decision.allowed);
        }
    };
    flood(0, at(0));
    let forced = table.evicted();
    assert!((3_400..=3_600).contains(&forced), "{forced}");
    let calm = Table::new(1);
    for n in 0..4_000_u32 {
        calm.check(keyer.key("s", Who::Subject(&n.to_string())), &limit, at(u64::from(n) * 2_000));
    }
    assert_eq!(calm.evicted(), 0, "idle callers make room for free");
}

#[test]
fn threads_together_get_no_more_than_one_would() {
    let table = Table::new(64);
    let (limit, key) =
        (limit(1, Duration::from_secs(3600), 100), Keyer::new([5, 6]).key("s", Who::Everybody));
    let worker = || (0..200).filter(|_| table.check(key, &limit, at(1)).decision.allowed).count();
    let passed: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(passed, 100);
}

#[test]
fn a_flood_of_names_frees_nobody_from_what_he_owes() {
    let table = Table::new(512);
    let (limit, keyer) = (limit(10, Duration::from_secs(10), 10), Keyer::new([3, 4]));
    let honest: Vec<Key> = (0..64).map(|n| keyer.key("s", Who::Subject(&format!("honest {n}")))).collect();
    for key in &honest {
        assert_eq!((0..12).filter(|_| table.check(*key, &limit, at(0)).decision.allowed).count(), 10);
    }
    let before = table.evicted();
    for n in 0..50_000 {
        table.check(keyer.key("s", Who::Subject(&format!("name {n}"))), &limit, at(1));
    }
    assert!(table.evicted() - before > 40_000, "the table was full all the time");
    let passed = honest.iter().filter(|key| table.check(**key, &limit, at(2)).decision.allowed).count();
    assert_eq!(passed, 0, "who used more than the names of the flood stays");
}

#[test]
fn threads_floods_and_a_changed_rate_together_admit_no_more_than_is_allowed() {
    let table = Table::new(512);
    let keyer = Keyer::new([5, 9]);
    let limits = [limit(2_000, Duration::from_secs(1), 20), limit(500, Duration::from_secs(1), 20)];
    let chosen = std::sync::atomic::AtomicUsize::new(0);
    // A clock that all read, and each uses what it read when it gets to it.
    let clock = std::sync::atomic::AtomicU64::new(0);
    let worker = |thread: u64| {
        let (mut passed, mut n) = (Vec::new(), 0_u64);
        loop {
            let now = Nanos(clock.fetch_add(10_000, std::sync::atomic::Ordering::Relaxed));
            if now > at(400) {
                break passed;
            }
            let limit = &limits[chosen.load(std::sync::atomic::Ordering::Relaxed)];
            if table.check(keyer.key("s", Who::Everybody), limit, now).decision.allowed {
                passed.push(now.0);
            }
            n += 1;
            let name = format!("{thread} {n}");
            table.check(keyer.key("s", Who::Subject(&name)), limit, now);
            if n.is_multiple_of(1_000) {
                chosen.fetch_xor(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    };
    let passed: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|thread| scope.spawn(move || worker(thread))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let spanned = passed.iter().max().unwrap() - passed.iter().min().unwrap();
    // By the faster of both rates, with the burst that they have in common.
    let most = 20 + spanned * 2_000 / 1_000_000_000 + 1;
    assert!(passed.len() as u64 <= most, "{} of {most}", passed.len());
    assert!(passed.len() >= 20);
}

#[test]
fn another_limit_counts_on_what_was_used_of_this_one() {
    let (hour, second) = (limit(5, Duration::from_secs(3600), 5), limit(10, Duration::from_secs(1), 10));
    let (table, key) = (Table::new(1), Keyer::new([1, 2]).key("s", Who::Everybody));
    let passed = |limit: &Limit, ms| {
        std::iter::repeat_with(|| table.check(key, limit, at(ms)).decision.allowed)
            .take_while(|allowed| *allowed)
            .count()
    };
    assert_eq!(passed(&hour, 0), 5);
    assert_eq!(passed(&second, 1), 5, "five of ten are used");
    assert_eq!(passed(&hour, 1), 0, "ten are used, of five");
    assert_eq!(passed(&second, 1), 5, "no more than five of five can be");
    assert_eq!(passed(&second, 101), 1);
    // What another process knew is taken as it was, and bounds nobody for longer than a burst.
    let debt = Debt { key: key.bits(), soft: u64::MAX, hard: 0 };
    table.take(&[debt], at(200));
    assert_eq!((passed(&second, 200), passed(&second, 300)), (0, 1));
}

#[test]
fn another_table_goes_on_where_this_one_was() {
    let conf = RateLimit { hard: Some(5), ..RateLimit::per_minute(2) };
    let (limit, keyer) = (Limit::new(&conf), Keyer::new([1, 2]));
    let (old, new) = (Table::new(64), Table::new(64));
    let key = |n: u32| keyer.key("s", Who::Subject(&n.to_string()));
    for n in 0..3 {
        old.check(key(n), &limit, at(1_000 * u64::from(n)));
    }
    old.check(key(2), &limit, at(2_000));
    let debts = old.debts(at(40_000));
    // The first caller is idle again, and nobody is told of it.
    assert_eq!(old.debts(at(200_000)), []);
    assert_eq!(Keyer::new(keyer.seed()).key("s", Who::Everybody), keyer.key("s", Who::Everybody));
    new.take(&debts, at(7));
    for n in 0..3 {
        let (was, is) = (old.check(key(n), &limit, at(40_000)), new.check(key(n), &limit, at(7)));
        assert_eq!(was, is, "{n}");
    }
    // What is known here already is not made better, and nonsense overflows nothing.
    new.take(&[Debt { key: 1, soft: u64::MAX, hard: u64::MAX }], at(u64::MAX));
    let before = new.debts(at(7));
    new.take(&debts, at(7));
    assert_eq!(new.debts(at(7)), before);
}

#[test]
fn header_values_are_exact() {
    let limit = limit(100, Duration::from_millis(1500), 20);
    let (decision, _) = limit.soft.check(at(0), 0);
    let mut value = b"x".to_vec();
    let remaining = header::write_rate_limit(&mut value, &header::quoted("data_service"), &decision);
    assert_eq!(value, br#"x"data_service";r=19;t=1"#);
    assert_eq!(&value[remaining], b"19");
    assert_eq!(header::policy(&header::quoted("da\"ta\\\n"), &limit), r#""data";q=100;w=2"#);
    assert_eq!(header::retry_after_s(Duration::from_millis(1)), 1);
    assert_eq!(header::retry_after_s(Duration::ZERO), 1);
    assert_eq!(header::retry_after_s(Duration::from_millis(1001)), 2);
    assert_eq!(header::reset_epoch_s(1_700_000_000, &decision), 1_700_000_001);
}

proptest! {
    #[test]
    fn never_more_than_burst_and_rate_in_any_span(
        requests in 1_u64..2_000, per_ms in 1_u64..120_000, burst in 1_u64..50,
        pauses in proptest::collection::vec(prop_oneof![Just(0_u64), 0_u64..50_000_000, 0_u64..5_000_000_000], 1..200),
        callers in 1_usize..4,
    ) {
        let table = Table::new(64);
        let limit = limit(requests, Duration::from_millis(per_ms), burst);
        let keyer = Keyer::new([7, 8]);
        let mut passed: Vec<Vec<u64>> = vec![Vec::new(); callers];
        let mut now = 0;
        for (n, pause) in pauses.into_iter().enumerate() {
            now += pause;
            let caller = n % callers;
            let key = keyer.key("s", Who::Subject(&caller.to_string()));
            if table.check(key, &limit, Nanos(now)).decision.allowed {
                passed[caller].push(now);
            }
        }
        for times in &passed {
            for (first, start) in times.iter().enumerate() {
                for (last, end) in times.iter().enumerate().skip(first) {
                    let span = u128::from(end - start) * u128::from(requests) / u128::from(per_ms * 1_000_000);
                    prop_assert!((last - first + 1) as u128 <= u128::from(burst) + span + 1);
                }
            }
        }
    }

    /// Threads read their clocks before they get the lock, other callers come and go, the limit changes: the largest
    /// burst passes, and what the rates gave in their times, and one of rounding a limit.
    #[test]
    fn interleavings_evictions_and_reloads_admit_what_each_limit_allows(
        steps in proptest::collection::vec((0_u64..40, 0_u64..30, 0_u8..20), 1..600),
        limits in proptest::collection::vec((1_u64..200, 1_u64..5_000, 1_u64..30), 1..4),
    ) {
        let limits: Vec<_> = limits.into_iter().map(|(n, per, burst)| limit(n, Duration::from_millis(per), burst)).collect();
        let (table, keyer) = (Table::new(1), Keyer::new([7, 8]));
        let (mut clock, mut last, mut which, mut changes) = (1_000, 1_000, 0, 0_u64);
        // Since the caller was new: how many passed, the largest burst, what the limits before this one gave.
        let (mut passed, mut burst, mut gave, mut since) = (0_u64, limits[0].soft_burst(), 0_u128, 1_000);
        for (n, (pause, behind, what)) in steps.into_iter().enumerate() {
            clock += pause;
            let rate = |limit: &Limit, from: u64, to: u64| {
                (u128::from(to - from) * u128::from(limit.requests)).div_ceil(limit.per.as_millis())
            };
            if what == 0 {
                gave += rate(&limits[which], since, last);
                let had = limits[which].soft_burst();
                (which, since, changes) = ((which + 1) % limits.len(), last, changes + 1);
                burst = burst.max(limits[which].soft_burst());
                // Nobody has used up more than a burst: what was used beyond the new one is forgiven.
                gave += u128::from(had.saturating_sub(limits[which].soft_burst()));
            } else if what == 1 {
                for stranger in 0..40 {
                    let name = format!("{n} {stranger}");
                    table.check(keyer.key("s", Who::Subject(&name)), &limits[which], at(clock));
                }
            } else {
                // A thread that was held up asks by an older moment.
                let now = clock.saturating_sub(behind).max(since);
                last = last.max(now);
                let (evicted, limit) = (table.evicted(), &limits[which]);
                passed += u64::from(table.check(keyer.key("s", Who::Everybody), limit, at(now)).decision.allowed);
                if table.evicted() != evicted {
                    // Its own place was gone: it is a new caller.
                    (passed, burst, gave, since, changes) = (1, limit.soft_burst(), 0, now, 0);
                }
                let most = u128::from(burst + changes) + gave + rate(limit, since, last) + 1;
                prop_assert!(u128::from(passed) <= most, "{passed} of {most}");
            }
        }
    }

    #[test]
    fn waiting_as_told_is_enough_and_never_too_much(
        requests in 1_u64..1_000_000, per_ms in 1_u64..120_000, burst in 1_u64..20, now in 0_u64..1_000_000_000_000,
    ) {
        let gcra = Gcra::new(requests, Duration::from_millis(per_ms), burst);
        let mut tat = 0;
        for _ in 0..burst {
            let (decision, next) = gcra.check(Nanos(now), tat);
            prop_assert!(decision.allowed);
            tat = next;
        }
        let (refused, _) = gcra.check(Nanos(now), tat);
        prop_assert!(!refused.allowed && refused.retry_after > Duration::ZERO);
        let retry = Nanos(now).plus(refused.retry_after);
        prop_assert!(gcra.check(retry, tat).0.allowed);
        prop_assert!(!gcra.check(Nanos(retry.0 - 1), tat).0.allowed);
        prop_assert!(gcra.check(Nanos(now).plus(refused.reset_after), tat).0.remaining + 1 == burst);
    }
}
