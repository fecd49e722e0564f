use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use proptest::prelude::*;
use sluice_policy::idempotency::{Record, State};
use tokio::runtime::Runtime;

use super::record::{decode, encode};
use super::*;

const NOW: u64 = 1_700_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn now() -> u64 {
    NOW
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn keys(ledger: &Arc<Ledger>, run: u64, runtime: &Runtime) -> Keys {
    Keys::start(Arc::clone(ledger), run, now, runtime.handle().clone()).unwrap()
}

fn open(dir: &Path) -> Arc<Ledger> {
    Arc::new(Ledger::open(dir).unwrap())
}

fn wanted(key: u8, body: u8) -> Wanted {
    Wanted { id: [key; 32], fingerprint: [body; 32], until_ms: NOW + 60_000, ttl: HOUR }
}

fn whole(body: &[u8]) -> Answer {
    Answer::Whole { status: 201, fields: vec![(b"x-order".to_vec(), b"7".to_vec())], body: body.to_vec() }
}

fn held(claimed: Result<Claimed, KeysError>) -> Claim {
    match claimed {
        Ok(Claimed::Held(claim)) => claim,
        other => panic!("not held: {other:?}"),
    }
}

/// Asks until the answer is the wanted one: what a request tells at its end is not waited for.
fn until(runtime: &Runtime, keys: &Keys, wanted: Wanted, is: impl Fn(&Claimed) -> bool) -> Claimed {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let claimed = runtime.block_on(keys.claim(wanted)).unwrap();
        if is(&claimed) {
            return claimed;
        }
        assert!(Instant::now() < end, "still {claimed:?}");
    }
}

#[test]
fn a_key_is_held_once_and_its_answer_given_to_every_copy() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let keys = keys(&open(dir.path()), 1, &runtime);
    runtime.block_on(async {
        let claim = held(keys.claim(wanted(1, 1)).await);
        assert!(matches!(keys.claim(wanted(1, 1)).await, Ok(Claimed::InFlight)));
        assert!(matches!(keys.claim(wanted(1, 2)).await, Ok(Claimed::Mismatch)));
        claim.finish(whole(b"done"));
        for _ in 0..2 {
            assert!(matches!(keys.claim(wanted(1, 1)).await, Ok(Claimed::Replay(answer)) if answer == whole(b"done")));
        }
        assert!(matches!(keys.claim(wanted(1, 2)).await, Ok(Claimed::Mismatch)));
        assert_eq!(keys.records(), 1);
    });
}

#[test]
fn a_claim_that_is_dropped_tells_what_it_knows() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let keys = keys(&open(dir.path()), 1, &runtime);
    runtime.block_on(async {
        drop(held(keys.claim(wanted(1, 1)).await));
        let mut sent = held(keys.claim(wanted(1, 1)).await);
        sent.set_sent(true);
        drop(sent);
        assert!(matches!(keys.claim(wanted(1, 1)).await, Ok(Claimed::Unknown)));
        let mut broken = held(keys.claim(wanted(2, 1)).await);
        broken.set_sent(true);
        broken.set_status(201);
        drop(broken);
        assert!(matches!(keys.claim(wanted(2, 1)).await, Ok(Claimed::Replay(Answer::Status(201)))));
        // A request whose claim is not waited for any more leaves nothing behind.
        let claim = keys.claim(wanted(3, 1));
        drop(tokio::time::timeout(Duration::ZERO, claim).await);
    });
    until(&runtime, &keys, wanted(3, 1), |claimed| matches!(claimed, Claimed::Held(_)));
}

#[test]
fn what_was_in_flight_when_its_process_died_is_unknown() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let ledger = open(dir.path());
    let before = keys(&ledger, 1, &runtime);
    let lost = held(runtime.block_on(before.claim(wanted(1, 1))));
    held(runtime.block_on(before.claim(wanted(2, 1)))).finish(whole(b"kept"));
    // Told in order: this claim is written after the result before it.
    let late = held(runtime.block_on(before.claim(wanted(3, 1))));
    ledger.close();
    let after = keys(&open(dir.path()), 2, &runtime);
    runtime.block_on(async {
        assert!(matches!(after.claim(wanted(1, 1)).await, Ok(Claimed::Unknown)));
        assert!(matches!(after.claim(wanted(3, 1)).await, Ok(Claimed::Unknown)));
        assert!(matches!(after.claim(wanted(2, 1)).await, Ok(Claimed::Replay(_))));
    });
    drop((lost, late));
}

#[test]
fn without_its_ledger_nothing_is_claimed_and_results_wait_for_it() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let ledger = open(dir.path());
    let keys = keys(&ledger, 1, &runtime);
    let claim = held(runtime.block_on(keys.claim(wanted(1, 1))));
    ledger.close();
    claim.finish(whole(b"late"));
    let refused = runtime.block_on(keys.claim(wanted(2, 1)));
    assert!(matches!(refused, Err(KeysError::Ledger(_))), "{refused:?}");
    ledger.reopen().unwrap();
    until(&runtime, &keys, wanted(1, 1), |claimed| matches!(claimed, Claimed::Replay(_)));
}

#[test]
fn of_racing_copies_one_is_held_and_commits_are_shared() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let keys = keys(&open(dir.path()), 1, &runtime);
    let copies: Vec<_> = (0..100)
        .map(|_| {
            let keys = keys.clone();
            runtime.spawn(async move { keys.claim(wanted(9, 9)).await.unwrap() })
        })
        .collect();
    let claimed: Vec<Claimed> = copies.into_iter().map(|copy| runtime.block_on(copy).unwrap()).collect();
    assert_eq!(claimed.iter().filter(|claimed| matches!(claimed, Claimed::Held(_))).count(), 1);
    let others = claimed.iter().filter(|claimed| matches!(claimed, Claimed::InFlight)).count();
    assert_eq!(others, 99);
    let began = Instant::now();
    let many: Vec<_> = (0..2000u32)
        .map(|n| {
            let keys = keys.clone();
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            let wanted = Wanted { id, ..wanted(0, 1) };
            runtime.spawn(async move { held(keys.claim(wanted).await).finish(whole(b"x")) })
        })
        .collect();
    for one in many {
        runtime.block_on(one).unwrap();
    }
    println!("2000 keys claimed and finished in {:?}", began.elapsed());
}

static CLOCK: AtomicU64 = AtomicU64::new(NOW);

#[test]
fn requests_that_hold_a_key_are_bounded_and_give_their_place_back() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let ledger = open(dir.path());
    let keys = LocalKeys::start(ledger, 7, now).unwrap().bounded(2);
    let claim = |key| runtime.block_on(keys.claim(wanted(key, 0), Owner { run: 7, request: u64::from(key) }));
    assert!(matches!((claim(1), claim(2)), (Ok(Verdict::Claim), Ok(Verdict::Claim))));
    assert!(matches!(claim(3), Err(KeysError::Busy)));
    keys.finish([1; 32], Owner { run: 7, request: 1 }, End::NotSent);
    // A copy of one under way holds nothing, nor does a request that leaves while it waits.
    assert!(matches!(claim(2), Ok(Verdict::InFlight)));
    let _entered = runtime.enter();
    for request in 0..5 {
        let mut leaves = Box::pin(keys.claim(wanted(4, 0), Owner { run: 7, request: 10 + request }));
        let polled =
            Future::poll(leaves.as_mut(), &mut std::task::Context::from_waker(std::task::Waker::noop()));
        drop((polled, leaves));
    }
    assert!(matches!(claim(5), Ok(Verdict::Claim)));
}

#[test]
fn a_record_is_forgotten_after_its_time() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let ledger = open(dir.path());
    let clock = || CLOCK.load(Ordering::Relaxed);
    let keys = Keys::start(ledger, 1, clock, runtime.handle().clone()).unwrap();
    for key in 0..50 {
        held(runtime.block_on(keys.claim(wanted(key, 1)))).finish(whole(b"x"));
    }
    CLOCK.fetch_add(3_600_001, Ordering::Relaxed);
    // The pass with the next write takes those that are over, and only them.
    drop(held(runtime.block_on(keys.claim(Wanted { until_ms: u64::MAX / 2, ..wanted(200, 1) }))));
    let end = Instant::now() + Duration::from_secs(10);
    while keys.records() > 0 {
        assert!(Instant::now() < end, "{} records", keys.records());
        std::thread::yield_now();
    }
    held(runtime.block_on(keys.claim(wanted(7, 2))));
}

#[test]
fn a_successor_waits_for_its_predecessors_results() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let ledger = open(dir.path());
    let old = keys(&ledger, 1, &runtime);
    let [answered, freed, lost, held_back] =
        [1, 2, 3, 4].map(|key| held(runtime.block_on(old.claim(wanted(key, 1)))));
    let runs = old.yield_up();
    assert_eq!(runs, [1]);
    // Ended while nobody serves: told when it is known who does.
    held_back.finish(whole(b"in between"));
    ledger.close();
    let new = keys(&open(dir.path()), 2, &runtime);
    new.adopt(&runs).unwrap();
    assert!(matches!(runtime.block_on(new.claim(wanted(1, 1))), Ok(Claimed::InFlight)));
    old.relay();
    answered.finish(whole(b"from before"));
    drop(freed);
    until(
        &runtime,
        &new,
        wanted(1, 1),
        |claimed| matches!(claimed, Claimed::Replay(answer) if *answer == whole(b"from before")),
    );
    until(&runtime, &new, wanted(4, 1), |claimed| matches!(claimed, Claimed::Replay(_)));
    until(&runtime, &new, wanted(2, 1), |claimed| matches!(claimed, Claimed::Held(_)));
    // Requests on the old process's open connections find and claim keys as if they had come to the new one.
    assert!(matches!(runtime.block_on(old.claim(wanted(1, 1))), Ok(Claimed::Replay(_))));
    held(runtime.block_on(old.claim(wanted(5, 1)))).finish(whole(b"by the old one"));
    until(&runtime, &new, wanted(5, 1), |claimed| matches!(claimed, Claimed::Replay(_)));
    assert!(matches!(runtime.block_on(new.claim(wanted(3, 1))), Ok(Claimed::InFlight)));
    assert_eq!(new.yield_up(), [2, 1]);
    new.resume();
    // The old one dies: what it did not tell is unknown.
    std::mem::forget(lost);
    old.inner.local.sever();
    until(&runtime, &new, wanted(3, 1), |claimed| matches!(claimed, Claimed::Unknown));
}

#[test]
fn a_predecessor_that_serves_again_writes_what_it_held() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let ledger = open(dir.path());
    let keys = keys(&ledger, 1, &runtime);
    let claim = held(runtime.block_on(keys.claim(wanted(1, 1))));
    keys.yield_up();
    ledger.close();
    claim.finish(whole(b"held"));
    ledger.reopen().unwrap();
    keys.resume();
    until(&runtime, &keys, wanted(1, 1), |claimed| matches!(claimed, Claimed::Replay(_)));
    // One whose successor is not there refuses.
    keys.yield_up();
    keys.relay();
    let refused = runtime.block_on(keys.claim(wanted(2, 1)));
    assert!(matches!(refused, Err(KeysError::HandedOver)), "{refused:?}");
}

fn answers() -> impl Strategy<Value = Answer> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        any::<u16>().prop_map(Answer::Status),
        (any::<u16>(), proptest::collection::vec((bytes(), bytes()), 0..4), bytes())
            .prop_map(|(status, fields, body)| Answer::Whole { status, fields, body }),
    ]
}

fn records() -> impl Strategy<Value = Record> {
    let state = prop_oneof![
        Just(State::Unknown),
        answers().prop_map(State::Done),
        any::<[u64; 3]>()
            .prop_map(|[run, request, until_ms]| State::InFlight { owner: Owner { run, request }, until_ms }),
    ];
    (any::<[u8; 32]>(), any::<u64>(), state).prop_map(|(fingerprint, expires_at_ms, state)| Record {
        fingerprint,
        expires_at_ms,
        state,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A record reads back, and no part of it does.
    #[test]
    fn records_read_back_whole(record in records(), cut in any::<proptest::sample::Index>()) {
        let bytes = encode(&record);
        prop_assert_eq!(decode(&bytes), Some(record));
        prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), None);
        prop_assert_eq!(decode(&[&[2], &bytes[1..]].concat()), None);
        prop_assert_eq!(decode(&[&bytes[..], &[0]].concat()), None);
    }

    /// What is no record is not taken for one, and nothing panics.
    #[test]
    fn noise_is_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(record) = decode(&bytes) {
            prop_assert_eq!(encode(&record), bytes);
        }
    }
}
