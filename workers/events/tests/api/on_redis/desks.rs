//! Consumer groups of several workers on one Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::world::{Answer, DEADLINE, Place, Setup, World, publish};

const TURN: &str = "{tradpal_events}:groups:turn";

async fn call(world: &World, method: &str, path: &str, body: &Value) -> Answer {
    world.admin().send(method, path, "content-type: application/json\r\n", body.to_string().as_bytes()).await
}

async fn lease(world: &World, consumer: &str, max: u64, wait_ms: u64) -> Vec<Value> {
    let body = json!({"consumer": consumer, "max": max, "wait_ms": wait_ms});
    let found = call(world, "POST", "/groups/desk/lease", &body).await.ok();
    found["messages"].as_array().unwrap().clone()
}

async fn settle(world: &World, how: &str, consumer: &str, messages: &[Value]) -> Value {
    let ids: Vec<&Value> = messages.iter().map(|message| &message["message_id"]).collect();
    call(world, "POST", &format!("/groups/desk/{how}"), &json!({"consumer": consumer, "ids": ids})).await.ok()
}

async fn signal(world: &World, symbol: &str, n: u64) {
    publish(world, &json!({"event_type": "trading_signal", "data": {"symbol": symbol, "n": n}})).await;
}

fn numbers(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["event"]["data"]["n"].as_u64().unwrap()).collect()
}

/// Two workers on one Redis, and a group.
async fn two(settings: Value) -> (World, World) {
    let first = World::new();
    let second = World::start(Setup::default(), Arc::new(Place::beside(first.dir.redis.clone())));
    call(&first, "PUT", "/groups/desk", &settings).await.ok();
    (first, second)
}

#[tokio::test]
async fn two_workers_hand_out_each_message_once_and_take_each_others_acks() {
    let (first, second) = two(json!({"start": "earliest"})).await;
    for n in 0..10 {
        signal(&first, "BTC", n).await;
    }
    let some = lease(&first, "a", 4, 0).await;
    let rest = lease(&second, "b", 100, 0).await;
    assert_eq!((numbers(&some), numbers(&rest)), ((0..4).collect(), (4..10).collect()));
    // Who holds what is known to both, whoever is asked.
    assert_eq!(settle(&second, "ack", "b", &some).await["acked"], 0);
    assert_eq!(settle(&second, "ack", "a", &some).await["acked"], 4);
    assert_eq!(settle(&first, "ack", "b", &rest).await["acked"], 6);
    for world in [&first, &second] {
        let report = world.admin().get("/groups/desk").await.ok();
        let members = ["lag", "pending", "delivered", "acked"].map(|member| report[member].clone());
        assert_eq!(members, [json!(0), json!(0), json!(10), json!(10)], "{report}");
        assert!(lease(world, "c", 10, 0).await.is_empty());
    }
    let body = json!({"start": "earliest", "max_deliver": 3});
    assert_eq!(call(&second, "PUT", "/groups/desk", &body).await.ok()["created"], false);
    assert_eq!(first.admin().get("/groups/desk").await.ok()["max_deliver"], 3);
    call(&first, "DELETE", "/groups/desk", &json!({})).await.ok();
    assert_eq!(second.admin().get("/groups/desk").await.code(404), "not_found");
}

#[tokio::test]
async fn many_consumers_of_two_workers_see_every_message_once_and_each_symbol_in_order() {
    let (first, second) = two(json!({"start": "earliest", "order_key": "symbol"})).await;
    let symbols = ["BTC", "ETH", "SOL", "XRP"];
    for n in 0..120_u64 {
        signal(if n % 3 == 0 { &second } else { &first }, symbols[n as usize % 4], n).await;
    }
    let consume = async |world: &World, name: &str| {
        let mut seen = Vec::new();
        loop {
            let found = lease(world, name, 7, 300).await;
            if found.is_empty() {
                return seen;
            }
            assert_eq!(settle(world, "ack", name, &found).await["acked"], found.len());
            seen.extend(found.into_iter().map(|message| {
                assert_eq!(message["delivery"], 1, "{message}");
                (message["event"]["data"]["symbol"].as_str().unwrap().to_owned(), numbers(&[message])[0])
            }));
        }
    };
    let all = tokio::join!(
        consume(&first, "a"),
        consume(&second, "b"),
        consume(&first, "c"),
        consume(&second, "d")
    );
    let mut found = BTreeSet::new();
    for seen in [all.0, all.1, all.2, all.3] {
        let mut last = BTreeMap::new();
        for (symbol, n) in seen {
            assert!(last.insert(symbol, n).is_none_or(|before| before < n));
            assert!(found.insert(n), "{n} came twice");
        }
    }
    assert_eq!(found, (0..120).collect());
}

#[tokio::test]
async fn what_a_worker_gives_back_or_loses_the_other_one_hands_out() {
    let (first, second) =
        two(json!({"start": "earliest", "ack_wait": "400ms", "backoff": [], "max_deliver": 3})).await;
    signal(&first, "BTC", 1).await;
    let held = lease(&first, "a", 1, 0).await;
    // It waits at the other worker, which is told by nobody.
    let (found, _) = tokio::join!(lease(&second, "b", 1, 15_000), settle(&first, "nack", "a", &held));
    assert_eq!((numbers(&found), &found[0]["delivery"]), (vec![1], &json!(2)));
    // The lease ends, and the worker that gave it is gone.
    drop(second.stop().await);
    let found = lease(&first, "c", 1, 15_000).await;
    assert_eq!((numbers(&found), &found[0]["delivery"]), (vec![1], &json!(3)));
    // That was the last delivery: it becomes a dead letter, which a third worker knows of and hands out again.
    let third = World::start(Setup::default(), Arc::new(Place::beside(first.dir.redis.clone())));
    let begun = Instant::now();
    while third.admin().get("/groups/desk").await.ok()["dlq_depth"] != 1 {
        assert!(begun.elapsed() < DEADLINE);
    }
    let letters = third.admin().get("/groups/desk/dlq").await.ok();
    assert_eq!(
        (&letters["count"], &letters["events"][0]["event"]["data"]["n"]),
        (&json!(1), &json!(1)),
        "{letters}"
    );
    let redriven = call(&first, "POST", "/groups/desk/dlq/redrive", &json!({})).await.ok();
    assert_eq!(redriven["redriven"], 1);
    let found = lease(&third, "d", 10, 15_000).await;
    assert!(found.iter().any(|message| message["event"]["data"]["n"] == 1), "{found:?}");
}

#[tokio::test]
async fn the_turn_of_a_worker_that_was_killed_ends() {
    let (first, second) = two(json!({"start": "earliest"})).await;
    signal(&first, "BTC", 1).await;
    assert!(first.redis().ask(&format!("SET {TURN} somebody PX 1500")).starts_with("+OK"));
    let found = lease(&second, "a", 1, 0).await;
    assert_eq!(numbers(&found), [1]);
    // Nobody keeps the turn.
    let begun = Instant::now();
    while first.redis().ask(&format!("EXISTS {TURN}")).trim() != ":0" {
        assert!(begun.elapsed() < DEADLINE);
    }
}

#[tokio::test]
async fn without_redis_calls_are_refused_and_nothing_answered_is_forgotten() {
    let (first, second) = two(json!({"start": "earliest", "ack_wait": "1h"})).await;
    for n in 0..4 {
        signal(&first, "BTC", n).await;
    }
    let held = lease(&first, "a", 4, 0).await;
    settle(&first, "ack", "a", &held[..2]).await;
    first.redis().kill();
    for world in [&first, &second] {
        let body = json!({"consumer": "a", "max": 1, "wait_ms": 0});
        assert_eq!(call(world, "POST", "/groups/desk/lease", &body).await.code(503), "store_unavailable");
    }
    first.redis().again();
    let begun = Instant::now();
    for world in [&second, &first] {
        while world.admin().get("/groups/desk").await.status != 200 {
            assert!(begun.elapsed() < DEADLINE);
        }
        let report = world.admin().get("/groups/desk").await.ok();
        assert_eq!((&report["acked"], &report["pending"]), (&json!(2), &json!(2)), "{report}");
    }
    assert_eq!(settle(&second, "ack", "a", &held[2..]).await["acked"], 2);
    // What Redis forgot is forgotten everywhere, and nothing stands in the way of a new beginning.
    first.redis().ask("FLUSHALL");
    for world in [&first, &second] {
        assert_eq!(world.admin().get("/groups/desk").await.code(404), "not_found");
    }
    call(&second, "PUT", "/groups/desk", &json!({"start": "earliest"})).await.ok();
    assert_eq!(first.admin().get("/groups/desk").await.ok()["acked"], 0);
}
