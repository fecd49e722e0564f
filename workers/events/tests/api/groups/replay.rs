//! Replays into a group: what it has had is handed out once more.

use super::*;

async fn replay(world: &World, body: Value) -> Answer {
    call(world, "POST", "/events/replay", &body).await
}

async fn again(world: &World, body: Value) -> (u64, u64) {
    let done = replay(world, body).await.ok();
    assert_eq!(
        (&done["status"], &done["republished_to"]),
        (&json!("replay_complete"), &json!("group:desk")),
        "{done}"
    );
    (done["events_replayed"].as_u64().unwrap(), done["duplicates"].as_u64().unwrap())
}

/// A group that wants signals alone, and the ids of four of them: BTC, ETH, BTC, ETH.
async fn filled(world: &World, order_key: &str) -> Vec<String> {
    let settings = json!({"start": "earliest", "order_key": order_key, "max_deliver": 1,
        "filter": {"event_type": "trading_signal"}});
    put(world, "desk", settings).await;
    publish(world, &json!({"event_type": "risk_alert", "data": {"symbol": "BTC"}})).await;
    let mut all = Vec::new();
    for n in 0..4 {
        all.push(signal(world, if n % 2 == 0 { "BTC" } else { "ETH" }, n).await);
    }
    all
}

#[tokio::test]
async fn what_a_group_is_past_is_handed_out_again() {
    let world = World::new();
    let all = filled(&world, "none").await;
    assert_eq!(again(&world, json!({"into": "group:desk"})).await, (0, 4), "they come by themselves");
    assert_eq!(ids(&lease(&world, "desk", "a", 10, 0).await), all);
    assert_eq!(again(&world, json!({"into": "group:desk"})).await, (0, 4), "they are held");
    settle(&world, "desk", "ack", "a", &all).await;
    let btc = json!({"symbol": "BTC", "into": "group:desk"});
    assert_eq!(again(&world, btc.clone()).await, (2, 0), "the alert is none of its filter's");
    assert_eq!(again(&world, btc).await, (0, 2));
    // An answered replay outlives kill -9.
    let world = killed(&world);
    let new = signal(&world, "BTC", 4).await;
    let found = lease(&world, "desk", "b", 10, 0).await;
    assert_eq!(ids(&found), [all[0].clone(), all[2].clone(), new.clone()]);
    let messages = found["messages"].as_array().unwrap();
    assert!(messages.iter().all(|message| message["delivery"] == 1), "{found}");
    let marks: Vec<&Value> = messages.iter().map(|message| &message["event"]["metadata"]["replay"]).collect();
    assert_eq!(marks, [&json!(true), &json!(true), &Value::Null]);
    // A dead letter of a replay says so too.
    assert_eq!(settle(&world, "desk", "nack", "b", &[all[0].clone()]).await["dead"], 1);
    until(&world, "desk", "it is dead", |report| report["dlq_depth"] == 1).await;
    let dead = world.admin().get("/groups/desk/dlq").await.ok();
    assert_eq!(dead["events"][0]["event"]["metadata"]["replay"], true, "{dead}");
    assert_eq!(settle(&world, "desk", "ack", "b", &[all[2].clone(), new]).await["acked"], 2);
    assert_eq!(lease(&world, "desk", "b", 10, 0).await["messages"], json!([]));
}

#[tokio::test]
async fn a_replay_keeps_the_order_of_a_symbol() {
    let world = World::new();
    let all = filled(&world, "symbol").await;
    for _ in 0..2 {
        settle(&world, "desk", "ack", "a", &ids(&lease(&world, "desk", "a", 10, 0).await)).await;
    }
    let now = report(&world, "desk").await;
    assert_eq!((&now["acked"], &now["pending"]), (&json!(4), &json!(0)));
    assert_eq!(again(&world, json!({"into": "group:desk"})).await, (4, 0));
    let first = ids(&lease(&world, "desk", "a", 10, 0).await);
    assert_eq!(first, all[..2], "one of each symbol");
    settle(&world, "desk", "ack", "a", &first).await;
    assert_eq!(ids(&lease(&world, "desk", "a", 10, 0).await), all[2..]);
}

#[tokio::test]
async fn who_may_replay_into_a_group() {
    let world = World::new();
    filled(&world, "none").await;
    let body = json!({"into": "group:desk"}).to_string();
    for grants in ["read write", "events:read events:publish"] {
        let refused = world.user("alice", grants).post("/events/replay", &body).await;
        assert_eq!(refused.code(403), "insufficient_scope", "{grants}");
    }
    let narrow = world.user("bob", "events:admin events:read:risk_*");
    assert_eq!(narrow.post("/events/replay", &body).await.ok()["duplicates"], 0, "what it may read");
    assert_eq!(replay(&world, json!({"into": "group:other"})).await.code(404), "not_found");
    assert_eq!(replay(&world, json!({"into": "group:desk", "session": true})).await.code(400), "bad_request");
}
