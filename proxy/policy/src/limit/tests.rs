use super::table::Debt;
use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

fn limit(requests: u64, per: Duration, burst: u64) -> Limit {
    Limit::new(&RateLimit { requests, per, burst, key: RateKey::Client, hard: None })
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
    let (mut value, mut policy) = (String::new(), String::new());
    header::write_rate_limit(&mut value, "data_service", &decision);
    header::write_policy(&mut policy, "da\"ta\\\n", &limit);
    assert_eq!((value.as_str(), policy.as_str()), (r#""data_service";r=19;t=1"#, r#""data";q=100;w=2"#));
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
