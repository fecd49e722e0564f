//! Decisions against models that keep lists and count them anew for each question.

use std::time::Duration;

use proptest::prelude::*;
use sluice_policy::Nanos;
use sluice_policy::breaker::{Breaker, Outcome, Settings, State};
use sluice_policy::deadline::USEFUL_MIN;
use sluice_policy::method::Method;
use sluice_policy::outlier::{EJECTION_MAX, Outliers};
use sluice_policy::retry::{BACKOFF_MAX, BACKOFF_MIN, Budget, Failed, Stop, Verdict};
use sluice_schema::{Outlier, Retry, RetryCause};

/// What is known of an instance: its results since it was last taken back, its ejections.
#[derive(Clone, Debug, Default)]
struct Host {
    results: Vec<bool>,
    until: Nanos,
    ejected: Nanos,
    counted: u32,
    good_probes: u32,
}

impl Host {
    fn row(&self) -> usize {
        self.results.iter().rev().take_while(|good| !**good).count()
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Result(u32, Outcome),
    Probe(u32, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Failure),
        1 => Just(Outcome::Success),
        1 => Just(Outcome::Neutral),
    ];
    prop_oneof![
        6 => (0_u32..5, outcome).prop_map(|(id, outcome)| Step::Result(id, outcome)),
        2 => (0_u32..5, any::<bool>()).prop_map(|(id, good)| Step::Probe(id, good)),
        2 => (0_u64..15_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn outliers_agree_with_lists_of_results(
        steps in proptest::collection::vec(step(), 1..200), count in 1_u32..6, consecutive in 1_u32..4,
        share in 0.0..1.0_f64, needed in 1_u32..4, seed: u64,
    ) {
        let base = Duration::from_secs(10);
        let settings = Outlier { consecutive, base_ejection: base, max_ejected: share };
        let mut outliers = Outliers::new(settings, 0..count);
        let mut hosts = vec![Host::default(); count as usize];
        let mut now = Nanos::from_secs(1);
        for step in steps {
            match step {
                Step::Wait(ms) => now = now.plus(Duration::from_millis(ms)),
                Step::Result(id, outcome) => {
                    let id = id % count;
                    let away = hosts.iter().filter(|host| host.until > now).count();
                    let room = away < ((share * f64::from(count)) as usize).max(1) && away + 1 < hosts.len();
                    let host = &mut hosts[id as usize];
                    let found = outliers.record(id, outcome, now, seed);
                    if host.until > now {
                        prop_assert_eq!(found, None);
                        continue;
                    }
                    match outcome {
                        Outcome::Success => host.results.push(true),
                        Outcome::Failure => host.results.push(false),
                        Outcome::Neutral => {}
                    }
                    let due = outcome == Outcome::Failure && host.row() >= consecutive as usize && room;
                    prop_assert_eq!(found.is_some(), due, "{:?}", host);
                    let Some(ejection) = found else { continue };
                    let forgiven = now.since(host.until).as_nanos() / base.as_nanos();
                    host.counted = host.counted.saturating_sub(forgiven as u32);
                    prop_assert_eq!((ejection.id, ejection.repeated), (id, host.counted));
                    let time = (base * (1 << host.counted.min(16))).min(EJECTION_MAX);
                    let away = ejection.until.since(now);
                    prop_assert!((time..=time * 12 / 10).contains(&away), "{:?} for {:?}", away, time);
                    host.counted += 1;
                    (host.until, host.ejected, host.good_probes) = (ejection.until, now, 0);
                    host.results.clear();
                }
                Step::Probe(id, good) => {
                    let id = id % count;
                    let host = &mut hosts[id as usize];
                    let counts = host.until > now;
                    if counts {
                        host.good_probes = if good { host.good_probes + 1 } else { 0 };
                    }
                    let back = counts && host.good_probes >= needed;
                    prop_assert_eq!(outliers.probed(id, good, now, needed, now), back);
                    if back {
                        host.until = now;
                    }
                }
            }
            let away = hosts.iter().filter(|host| host.until > now).count();
            prop_assert_eq!(outliers.ejected(now), away);
        }
    }

    #[test]
    fn a_retry_is_what_its_rules_read_literally_say(
        method in 0_usize..Method::ALL.len(), tries in 1_u32..5, attempts in 1_u32..5, cause in 0_usize..4,
        on in proptest::collection::vec(0_usize..4, 0..4), sent: bool, keyed_part: bool, replayable: bool,
        left_ms in proptest::option::of(0_u64..400), wait_ms in proptest::option::of(0_u64..300),
        floor in 0_u32..2, seed: u64,
    ) {
        const CAUSES: [RetryCause; 4] =
            [RetryCause::Connect, RetryCause::Reset, RetryCause::Status(503), RetryCause::Status(504)];
        let on: Vec<RetryCause> = on.into_iter().map(|at| CAUSES[at]).collect();
        let settings = Retry { attempts, budget: 0.0, min_per_second: floor, on: on.clone(), ..Retry::default() };
        let (method, cause) = (Method::ALL[method], CAUSES[cause]);
        let left = left_ms.map(Duration::from_millis);
        let retry_after = wait_ms.map(Duration::from_millis);
        let failed = Failed { method, tries, cause, sent, keyed_part, replayable, left, retry_after };
        let verdict = Budget::new(&settings).decide(&failed, Nanos::from_secs(5), seed);
        let changes = !matches!(method, Method::Get | Method::Head | Method::Options | Method::List);
        let least = retry_after.unwrap_or_default().max(BACKOFF_MIN);
        match verdict {
            Verdict::Again(delay) => {
                prop_assert!(tries < attempts && on.contains(&cause) && floor > 0);
                prop_assert!(!sent || !changes || keyed_part);
                prop_assert!(!sent || replayable);
                prop_assert!(delay >= least && delay <= BACKOFF_MAX.max(least));
                prop_assert!(left.is_none_or(|left| delay + USEFUL_MIN <= left));
            }
            Verdict::Stop(Stop::Exhausted) => prop_assert!(tries >= attempts),
            Verdict::Stop(Stop::NotConfigured) => prop_assert!(!on.contains(&cause)),
            Verdict::Stop(Stop::Unsafe) => prop_assert!(sent && changes && !keyed_part),
            Verdict::Stop(Stop::BodyGone) => prop_assert!(sent && !replayable),
            Verdict::Stop(Stop::Deadline) => {
                prop_assert!(left.is_some_and(|left| left < BACKOFF_MAX.max(least) + USEFUL_MIN));
            }
            Verdict::Stop(Stop::Budget) => prop_assert_eq!(floor, 0),
        }
    }
}

#[test]
fn a_reset_forgets_the_row() {
    let conf = sluice_schema::Breaker::default();
    let threshold = conf.failure_threshold;
    let mut breaker = Breaker::new(Settings { conf, probe_lease: Duration::from_secs(20) });
    let now = Nanos::from_secs(1);
    for round in 0..3 {
        for _ in 1..threshold {
            let permit = breaker.try_acquire(now, 0).expect("it is closed");
            breaker.record(permit, Outcome::Failure, Duration::ZERO, now, 0);
        }
        assert_eq!(breaker.state(), State::Closed, "round {round}");
        breaker.reset(now);
        assert_eq!(breaker.metrics(now).consecutive_failures, 0);
    }
}
