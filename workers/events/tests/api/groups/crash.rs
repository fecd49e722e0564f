//! What a group remembers when its worker is killed: each answered call, whatever the moment.

use crate::world::on_redis;

use super::*;

/// What must be the same after a kill.
fn facts(report: &Value) -> Value {
    let names = [
        "created_at",
        "ack_wait",
        "max_deliver",
        "backoff",
        "order_key",
        "filter",
        "lag",
        "pending",
        "waiting",
        "delivered",
        "acked",
        "redeliveries",
        "dead_letters",
        "dlq_depth",
        "dlq_bytes",
        "skipped",
        "last-delivered-id",
    ];
    names.iter().map(|name| ((*name).to_owned(), report[*name].clone())).collect()
}

async fn check(world: &World, step: &str) {
    let before = report(world, "desk").await;
    let after = report(&killed(world), "desk").await;
    assert_eq!(facts(&after), facts(&before), "after {step}");
}

#[tokio::test]
async fn every_answered_call_outlives_a_kill() {
    let world = World::new();
    for n in 0..8 {
        signal(&world, if n % 2 == 0 { "BTC" } else { "ETH" }, n).await;
    }
    let settings = json!({"start": "earliest", "max_deliver": 2, "backoff": ["1h"], "order_key": "symbol", "ack_wait": "1h",
        "filter": {"event_type": "trading_signal"}});
    put(&world, "desk", settings).await;
    check(&world, "put").await;
    let first = ids(&lease(&world, "desk", "a", 10, 0).await);
    assert_eq!(first.len(), 2);
    check(&world, "lease").await;
    settle(&world, "desk", "ack", "a", &first[..1]).await;
    check(&world, "ack").await;
    settle(&world, "desk", "extend", "a", &first[1..]).await;
    let body = json!({"consumer": "a", "ids": first[1..], "delay_ms": 0});
    call(&world, "POST", "/groups/desk/nack", &body).await.ok();
    check(&world, "nack").await;
    let second = lease(&world, "desk", "a", 10, 5_000).await;
    assert_eq!(second["messages"][0]["delivery"], 2, "{second}");
    check(&world, "the second lease").await;
    settle(&world, "desk", "nack", "a", &ids(&second)[..1]).await;
    // The stream is told of it, by one more event.
    until(&world, "desk", "it is dead", |report| report["dlq_depth"] == 1 && report["lag"] == 1).await;
    check(&world, "death").await;
    let done = call(&world, "POST", "/groups/desk/dlq/redrive", &json!({})).await.ok();
    assert_eq!(done["redriven"], 1);
    until(&world, "desk", "it is back", |report| report["dlq_depth"] == 0).await;
    check(&world, "redrive").await;

    // A killed worker goes on: nothing acknowledged comes again, deliveries are counted on.
    let world = killed(&world);
    let mut left = std::collections::BTreeSet::new();
    let begun = Instant::now();
    settle(&world, "desk", "ack", "a", &ids(&second)).await;
    while left.len() < 6 {
        assert!(begun.elapsed() < DEADLINE, "{left:?}");
        let found = lease(&world, "desk", "b", 10, 1_000).await;
        assert_eq!(settle(&world, "desk", "ack", "b", &ids(&found)).await["unknown"], json!([]));
        left.extend(ids(&found));
    }
    assert!(
        !left.contains(&first[0]) && !left.contains(&ids(&second)[1]),
        "an acknowledged message comes again"
    );
    let now = report(&world, "desk").await;
    assert_eq!(
        (&now["pending"], &now["waiting"], &now["dlq_depth"]),
        (&json!(0), &json!(0), &json!(0)),
        "{now}"
    );
}

#[tokio::test]
async fn a_deleted_group_stays_away_and_a_new_one_begins_anew() {
    let world = World::new();
    signal(&world, "BTC", 1).await;
    put(&world, "desk", json!({"start": "earliest"})).await;
    lease(&world, "desk", "a", 1, 0).await;
    call(&world, "DELETE", "/groups/desk", &json!({})).await.ok();
    let killed = killed(&world);
    assert_eq!(killed.admin().get("/groups").await.ok()["count"], 0);
    assert_eq!(put(&killed, "desk", json!({"start": "earliest"})).await["delivered"], 0);
    assert_eq!(lease(&killed, "desk", "a", 1, 0).await["messages"][0]["delivery"], 1);
}

#[tokio::test]
async fn a_lease_of_a_killed_worker_ends_in_its_time() {
    let world = World::new();
    put(&world, "desk", json!({"start": "earliest", "ack_wait": "300ms", "backoff": []})).await;
    let id = signal(&world, "BTC", 1).await;
    lease(&world, "desk", "a", 1, 0).await;
    let world = killed(&world);
    let found = lease(&world, "desk", "b", 1, 20_000).await;
    assert_eq!((ids(&found), &found["messages"][0]["delivery"]), (vec![id], &json!(2)));
}

#[tokio::test]
async fn a_group_outlives_its_stream() {
    if on_redis() {
        // The stream is not in the folder that is removed here.
        return;
    }
    let world = World::new();
    put(&world, "desk", json!({"start": "earliest"})).await;
    for n in 0..5 {
        signal(&world, "BTC", n).await;
    }
    lease(&world, "desk", "a", 10, 0).await;
    let dir = world.stop().await;
    std::fs::remove_dir_all(dir.path().join("events/tradpal_events.log")).unwrap();
    let world = World::start(Setup::default(), dir);
    let id = signal(&world, "BTC", 9).await;
    let mut found = Vec::new();
    let begun = Instant::now();
    while found.is_empty() {
        assert!(begun.elapsed() < DEADLINE, "{}", report(&world, "desk").await);
        found = ids(&lease(&world, "desk", "b", 10, 1_000).await);
    }
    assert_eq!(found, [id]);
    assert_eq!(report(&world, "desk").await["skipped"], 5);
}
