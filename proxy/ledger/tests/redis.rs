//! Idempotency keys of several edges in one real Redis, which is killed, stopped and started again.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sluice_ledger::{Claim, Claimed, Keys, KeysError, Ledger, Wanted};
use sluice_policy::idempotency::Answer;
use sluice_schema::{Mode, check};
use tokio::runtime::Runtime;

use server::RedisServer;

const PATIENCE: Duration = Duration::from_secs(20);

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// An edge's keys; its ledger stays closed, as nothing of it is needed.
fn edge(server: &RedisServer, run: u64, runtime: &Runtime) -> (Keys, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::closed(dir.path()).unwrap());
    let keys = Keys::start(ledger, run, now, runtime.handle().clone()).unwrap();
    let url = BTreeMap::from([("REDIS_URL".to_owned(), server.url())]);
    let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let config = check(&[], &url, Mode::default(), &none).unwrap().config;
    keys.keep_in(config.redis.as_ref()).unwrap();
    (keys, dir)
}

fn wanted(key: u8) -> Wanted {
    Wanted { id: [key; 32], fingerprint: [1; 32], until_ms: now() + 60_000, ttl: Duration::from_secs(600) }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn held(claimed: Result<Claimed, KeysError>) -> Claim {
    match claimed {
        Ok(Claimed::Held(claim)) => claim,
        other => panic!("not held: {other:?}"),
    }
}

fn until(runtime: &Runtime, keys: &Keys, wanted: Wanted, is: impl Fn(&Result<Claimed, KeysError>) -> bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let claimed = runtime.block_on(keys.claim(wanted));
        if is(&claimed) {
            return;
        }
        assert!(Instant::now() < end, "still {claimed:?}");
    }
}

#[test]
fn of_racing_copies_at_two_edges_one_is_held_and_both_give_its_answer() {
    let (server, runtime) = (RedisServer::start(), runtime());
    let (one, _one) = edge(&server, 1, &runtime);
    let (two, _two) = edge(&server, 2, &runtime);
    let copies: Vec<_> = (0..100)
        .map(|n| {
            let keys = if n % 2 == 0 { one.clone() } else { two.clone() };
            runtime.spawn(async move { keys.claim(wanted(1)).await })
        })
        .collect();
    let claimed: Vec<_> = copies.into_iter().map(|copy| runtime.block_on(copy).unwrap()).collect();
    let (mut holders, others): (Vec<_>, Vec<_>) =
        claimed.into_iter().partition(|claimed| matches!(claimed, Ok(Claimed::Held(_))));
    assert_eq!(holders.len(), 1);
    assert!(others.iter().all(|other| matches!(other, Ok(Claimed::InFlight))), "{others:?}");
    let answer =
        Answer::Whole { status: 201, fields: vec![(b"a".to_vec(), b"b".to_vec())], body: b"ok".to_vec() };
    held(holders.remove(0)).finish(answer.clone());
    for keys in [&one, &two] {
        until(
            &runtime,
            keys,
            wanted(1),
            |found| matches!(found, Ok(Claimed::Replay(kept)) if *kept == answer),
        );
    }
    let other = Wanted { fingerprint: [2; 32], ..wanted(1) };
    assert!(matches!(runtime.block_on(two.claim(other)), Ok(Claimed::Mismatch)));
    let mut sent = held(runtime.block_on(one.claim(wanted(2))));
    sent.set_sent(true);
    drop(sent);
    until(&runtime, &two, wanted(2), |found| matches!(found, Ok(Claimed::Unknown)));
    drop(held(runtime.block_on(one.claim(wanted(3)))));
    until(&runtime, &two, wanted(3), |found| matches!(found, Ok(Claimed::Held(_))));
}

#[test]
fn the_claim_of_an_edge_that_died_is_unknown_when_its_lease_is_over() {
    let (server, runtime) = (RedisServer::start(), runtime());
    let (one, _one) = edge(&server, 1, &runtime);
    let (two, _two) = edge(&server, 2, &runtime);
    let short = Wanted { until_ms: now() + 400, ..wanted(1) };
    std::mem::forget(held(runtime.block_on(one.claim(short))));
    assert!(matches!(runtime.block_on(two.claim(wanted(1))), Ok(Claimed::InFlight)));
    until(&runtime, &two, wanted(1), |found| matches!(found, Ok(Claimed::Unknown)));
}

#[test]
fn while_redis_is_away_nothing_is_claimed_and_results_reach_it_afterwards() {
    let (mut server, runtime) = (RedisServer::start(), runtime());
    let (keys, _dir) = edge(&server, 1, &runtime);
    let claim = held(runtime.block_on(keys.claim(wanted(1))));
    assert_eq!(keys.is_shared_well(), Some(true));
    server.kill();
    until(&runtime, &keys, wanted(2), |found| matches!(found, Err(KeysError::Redis(_))));
    assert_eq!(keys.is_shared_well(), Some(false));
    claim.finish(Answer::Status(201));
    server.again();
    until(&runtime, &keys, wanted(1), |found| matches!(found, Ok(Claimed::Replay(Answer::Status(201)))));
    assert_eq!(keys.is_shared_well(), Some(true));
    until(&runtime, &keys, wanted(2), |found| matches!(found, Ok(Claimed::Held(_))));
}

#[test]
fn a_claim_whose_answer_is_lost_is_refused_and_given_back() {
    let (server, runtime) = (RedisServer::start(), runtime());
    let (keys, _dir) = edge(&server, 1, &runtime);
    drop(held(runtime.block_on(keys.claim(wanted(9)))));
    server.signal("-STOP");
    // It lies in the socket of a Redis that does not answer now and executes it later.
    let refused = runtime.block_on(keys.claim(wanted(1)));
    assert!(matches!(refused, Err(KeysError::Redis(_) | KeysError::Late)), "{refused:?}");
    server.signal("-CONT");
    let (other, _other) = edge(&server, 2, &runtime);
    until(&runtime, &other, wanted(1), |found| matches!(found, Ok(Claimed::Held(_))));
}
