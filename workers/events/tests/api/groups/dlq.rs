//! Dead letters: how messages become them, what they keep, how they become messages again.

use super::*;

/// A group whose messages die of one failure, and some dead ones.
async fn with_dead(world: &World, count: u64) -> Vec<String> {
    put(
        world,
        "desk",
        json!({"start": "earliest", "max_deliver": 1, "filter": {"event_type": "trading_signal"}}),
    )
    .await;
    for n in 0..count {
        signal(world, if n % 2 == 0 { "BTC" } else { "ETH" }, n).await;
    }
    let found = ids(&lease(world, "desk", "a", count, 5_000).await);
    assert_eq!(found.len() as u64, count);
    let body = json!({"consumer": "a", "ids": found, "reason": "price out of range"});
    let nacked = call(world, "POST", "/groups/desk/nack", &body).await.ok();
    assert_eq!(nacked, json!({"nacked": count, "dead": count, "unknown": []}));
    until(world, "desk", "all are dead", |report| report["dlq_depth"] == count).await;
    found
}

async fn letters(world: &World, query: &str) -> Value {
    world.admin().get(&format!("/groups/desk/dlq{query}")).await.ok()
}

async fn redrive(world: &World, body: Value) -> Value {
    call(world, "POST", "/groups/desk/dlq/redrive", &body).await.ok()
}

#[tokio::test]
async fn a_message_dies_with_its_last_delivery() {
    let world = World::new();
    put(
        &world,
        "desk",
        json!({"start": "earliest", "max_deliver": 2, "ack_wait": "100ms", "backoff": ["10ms"],
        "filter": {"event_type": "trading_signal"}}),
    )
    .await;
    let id = signal(&world, "BTC", 7).await;
    for delivery in 1..=2 {
        let found = lease(&world, "desk", "a", 1, 20_000).await;
        assert_eq!(found["messages"][0]["delivery"], delivery);
    }
    until(&world, "desk", "it is dead", |report| report["dlq_depth"] == 1).await;
    let page = letters(&world, "").await;
    let dead = &page["events"][0];
    assert_eq!((&page["count"], &page["next_cursor"]), (&json!(1), &Value::Null));
    assert_eq!(
        (&dead["message_id"], &dead["cause"], &dead["attempts"]),
        (&json!(id), &json!("lease_expired"), &json!(2))
    );
    assert_eq!((&dead["consumer"], &dead["event"]["data"]["n"]), (&json!("a"), &json!(7)));
    assert_eq!(dead["event"]["message_id"], id);
    // The stream is told, by the worker itself.
    let begun = Instant::now();
    let told = loop {
        let found = world.admin().get("/events?event_type=dead_letter").await.ok();
        if found["count"] == 1 {
            break found["events"][0].clone();
        }
        assert!(begun.elapsed() < DEADLINE, "{found}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((&told["metadata"]["role"], &told["source"]), (&json!("events"), &json!("events")));
    assert_eq!(
        told["data"],
        json!({"group": "desk", "message_id": id, "event_type": "trading_signal",
        "symbol": "BTC", "source": "role/demo", "cause": "lease_expired", "attempts": 2})
    );
    assert_eq!(lease(&world, "desk", "b", 1, 0).await["messages"], json!([]));
    // Told once, also after a restart that tells of it again.
    let world = World::start(Setup::default(), world.stop().await);
    signal(&world, "BTC", 8).await;
    lease(&world, "desk", "b", 1, 20_000).await;
    assert_eq!(world.admin().get("/events?event_type=dead_letter").await.ok()["count"], 1);
}

#[tokio::test]
async fn dead_letters_are_listed_in_pages_and_filtered() {
    let world = World::new();
    let all = with_dead(&world, 5).await;
    let first = letters(&world, "?limit=2").await;
    let at = |page: &Value, n: usize| page["events"][n]["message_id"].clone();
    assert_eq!(
        (at(&first, 0), at(&first, 1), &first["next_cursor"]),
        (json!(all[0]), json!(all[1]), &json!(all[1]))
    );
    assert_eq!(first["events"][0]["cause"], "price out of range");
    let second = letters(&world, &format!("?limit=9&cursor={}", all[1])).await;
    assert_eq!(
        (&second["count"], &second["next_cursor"], at(&second, 0)),
        (&json!(3), &Value::Null, json!(all[2]))
    );
    assert_eq!(letters(&world, "?symbol=ETH").await["count"], 2);
    assert_eq!(letters(&world, "?event_type=risk_alert").await["count"], 0);
}

#[tokio::test]
async fn dead_letters_become_messages_again() {
    let world = World::new();
    let all = with_dead(&world, 6).await;
    let done = redrive(&world, json!({"filter": {"symbol": "ETH"}, "max": 2})).await;
    assert_eq!((&done["redriven"], &done["remaining"]), (&json!(2), &json!(4)));
    let found = lease(&world, "desk", "b", 10, 20_000).await;
    assert_eq!(ids(&found), [all[1].clone(), all[3].clone()]);
    assert_eq!(found["messages"][0]["delivery"], 1);
    // One is done for good; the other fails again and counts on.
    assert_eq!(settle(&world, "desk", "ack", "b", &ids(&found)[..1]).await["acked"], 1);
    assert_eq!(settle(&world, "desk", "nack", "b", &ids(&found)[1..]).await["dead"], 1);
    let now = until(&world, "desk", "it is dead again", |report| report["dlq_depth"] == 5).await;
    assert_eq!((&now["pending"], &now["acked"]), (&json!(0), &json!(1)));
    let dead = letters(&world, "?symbol=ETH").await;
    assert_eq!(
        (&dead["count"], &dead["events"][0]["attempts"], &dead["events"][0]["cause"]),
        (&json!(2), &json!(2), &json!("nacked"))
    );
    // At a pace.
    let begun = Instant::now();
    assert_eq!(redrive(&world, json!({"rate": 10})).await["redriven"], 5);
    let mut back = Vec::new();
    while back.len() < 5 {
        assert!(begun.elapsed() < DEADLINE);
        back.extend(ids(&lease(&world, "desk", "b", 10, 20_000).await));
    }
    assert!(begun.elapsed() >= Duration::from_millis(390), "{:?}", begun.elapsed());
    assert_eq!(settle(&world, "desk", "ack", "b", &back).await["acked"], 5);
    assert_eq!(letters(&world, "").await["count"], 0);
}

#[tokio::test]
async fn dead_letters_outlive_their_events() {
    let world = World::with(|setup| setup.config.events.retention.bytes = Some(200_000));
    let all = with_dead(&world, 2).await;
    fill_until_gone(&world, &all[1]).await;
    assert_eq!(letters(&world, "").await["events"][1]["event"]["data"]["n"], 1);
    redrive(&world, json!({})).await;
    let world = killed(&world);
    let found = lease(&world, "desk", "b", 10, 20_000).await;
    assert_eq!((ids(&found), &found["messages"][1]["event"]["data"]["n"]), (all, &json!(1)));
}

#[tokio::test]
async fn dead_letters_are_dropped() {
    let world = World::new();
    with_dead(&world, 3).await;
    redrive(&world, json!({"max": 1})).await;
    assert_eq!(call(&world, "DELETE", "/groups/desk/dlq", &json!({})).await.ok(), json!({"deleted": 2}));
    assert_eq!(letters(&world, "").await["count"], 0);
    let world = killed(&world);
    assert_eq!(report(&world, "desk").await["dlq_depth"], 0);
    // What is a message again is not dropped.
    assert_eq!(ids(&lease(&world, "desk", "b", 10, 20_000).await).len(), 1);
}

#[tokio::test]
async fn a_group_that_fails_on_dead_letters_does_not_go_round() {
    let world = World::new();
    put(&world, "all", json!({"start": "earliest", "max_deliver": 1})).await;
    signal(&world, "BTC", 1).await;
    for _ in 0..2 {
        let found = ids(&lease(&world, "all", "a", 1, 20_000).await);
        assert_eq!(settle(&world, "all", "nack", "a", &found).await["dead"], 1);
    }
    until(&world, "all", "both are dead", |report| report["dlq_depth"] == 2).await;
    assert_eq!(ids(&lease(&world, "all", "a", 1, 300).await).len(), 0);
    assert_eq!(world.admin().get("/events").await.ok()["count"], 2);
}
