//! What several workers and other programs see of one Redis.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use sluice_wire::role::Role;

use crate::world::{DEADLINE, Place, Setup, World, publish};

fn event(n: u64) -> Value {
    json!({"event_type": "risk_alert", "data": {"n": n}})
}

/// The numbers and seqs of everything stored, once there are so many.
async fn stored(world: &World, count: usize) -> Vec<(u64, u64)> {
    let begun = Instant::now();
    loop {
        let list = world.admin().get("/events?limit=1000").await.ok();
        let events = list["events"].as_array().unwrap();
        if events.len() >= count {
            let pair = |event: &Value| (event["data"]["n"].as_u64().unwrap(), event["seq"].as_u64().unwrap());
            return events.iter().map(pair).collect();
        }
        assert!(begun.elapsed() < DEADLINE, "{} of {count}", events.len());
    }
}

#[tokio::test]
async fn two_workers_append_to_one_stream_and_both_fan_out() {
    let first = World::new();
    let second = World::start(Setup::default(), Arc::new(Place::beside(first.dir.redis.clone())));
    let mut live = second.admin().stream("GET", "/events/stream", "").await;
    for n in 0..40 {
        publish(if n % 2 == 0 { &first } else { &second }, &event(n)).await;
    }
    for n in 0..40 {
        let got = live.next().await.unwrap().json();
        assert_eq!((&got["data"]["n"], &got["seq"]), (&json!(n), &json!(n + 1)));
    }
    let expected: Vec<(u64, u64)> = (0..40).map(|n| (n, n + 1)).collect();
    assert_eq!(stored(&first, 40).await, expected);
    assert_eq!(stored(&second, 40).await, expected);
    // An event that one worker has stored is a duplicate at the other one, and another content a conflict.
    let id = "0192d3a0-0000-7000-8000-000000000001";
    let named = json!({"event_type": "risk_alert", "event_id": id, "data": {"n": 40}});
    let message = publish(&first, &named).await;
    let role = second.role(Role::Demo);
    let again: Value = role.json(http::Method::POST, "/events", &named).await.unwrap();
    assert_eq!((&again["duplicate"], &again["message_id"]), (&json!(true), &json!(message)));
    let other = format!(r#"{{"event_type":"risk_alert","event_id":"{id}","source":"x"}}"#);
    assert_eq!(second.user("x", "admin").post("/events", &other).await.code(409), "event_id_conflict");
}

#[tokio::test]
async fn workers_that_write_at_once_show_the_stream_in_its_order() {
    const BATCHES: u64 = 25;
    let first = World::new();
    let second = World::start(Setup::default(), Arc::new(Place::beside(first.dir.redis.clone())));
    let workers = [&first, &second];
    let mut live = Vec::new();
    for worker in workers {
        live.push(worker.admin().stream("GET", "/events/stream", "").await);
    }
    // Of several clients each, so that one's calls come between the other's.
    let clients = (0..4).map(|client| async move {
        let worker = workers[client % 2];
        for batch in 0..BATCHES {
            let events: Vec<Value> = (0..=batch % 4).map(event).collect();
            let body = json!({ "events": events, "atomic": batch % 3 == 0 }).to_string();
            worker.admin().post("/events/batch", &body).await.ok();
        }
    });
    futures_util::future::join_all(clients).await;
    let count = 4 * (0..BATCHES).map(|batch| batch % 4 + 1).sum::<u64>();
    let stored = stored(&first, count as usize).await;
    assert_eq!(stored.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), (1..=count).collect::<Vec<_>>());
    for live in &mut live {
        for (n, seq) in &stored {
            let got = live.next().await.unwrap();
            let told = (got.event.as_str(), got.json()["data"]["n"].as_u64(), got.json()["seq"].as_u64());
            assert_eq!(told, ("risk_alert", Some(*n), Some(*seq)));
        }
    }
}

#[tokio::test]
async fn the_stream_is_read_by_what_reads_redis_streams() {
    let world = World::new();
    let id = publish(&world, &event(7)).await;
    let entries = world.redis().ask("XRANGE tradpal_events - + COUNT 10");
    assert!(entries.contains(&id) && entries.contains("\r\nevent\r\n"), "{entries}");
    let json = entries.lines().find(|line| line.starts_with("{\"event_type\"")).unwrap();
    let event_there: Value = serde_json::from_str(json).unwrap();
    assert_eq!((&event_there["event_type"], &event_there["data"]["n"]), (&json!("risk_alert"), &json!(7)));
    let groups = world.redis().ask("XINFO GROUPS tradpal_events");
    assert!(groups.contains("tradpal_consumers"), "{groups}");
    // What somebody else puts there is none of our events and stops nothing.
    world.redis().ask("XADD tradpal_events * event {}");
    publish(&world, &event(8)).await;
    assert_eq!(stored(&world, 2).await, [(7, 1), (8, 2)]);
}

#[tokio::test]
async fn stream_and_group_are_named_as_configured() {
    let world = World::with(|setup| {
        setup.config.events.stream = "orders".to_owned();
        setup.config.events.group = "desks".to_owned();
        setup.config.events.store = Some(sluice_schema::EventStore::Redis);
    });
    publish(&world, &event(0)).await;
    let groups = world.redis().ask("XINFO GROUPS orders");
    assert!(groups.contains("desks") && !groups.contains("tradpal"), "{groups}");
    let told = json!([{"name": "desks", "consumers": 0, "pending": 0, "last-delivered-id": "0-0", "lag": 1}]);
    assert_eq!(world.admin().get("/events/stats").await.ok()["redis_groups"], told);
    let narrow = world.user("bob", "events:read:risk_*").get("/events/stats").await.ok();
    assert_eq!(narrow["redis_groups"], Value::Null, "{narrow}");
}

#[tokio::test]
async fn the_own_log_is_used_where_it_is_asked_for() {
    let world = World::with(|setup| setup.config.events.store = Some(sluice_schema::EventStore::Embedded));
    publish(&world, &event(0)).await;
    assert_eq!(world.admin().get("/events/stats").await.ok()["store"], "embedded");
    assert_eq!(world.redis().ask("EXISTS tradpal_events").trim(), ":0");
}

#[tokio::test]
async fn an_id_that_is_no_longer_remembered_is_searched_for_among_the_newest() {
    let world = World::with(|setup| setup.config.events.dedup_window = std::time::Duration::ZERO);
    let id = "0192d3a0-0000-7000-8000-000000000001";
    let named = json!({"event_type": "risk_alert", "event_id": id, "data": {"n": 1}});
    let message = publish(&world, &named).await;
    assert_eq!(world.admin().get(&format!("/events/{id}")).await.ok()["message_id"], message);
    // Without a window nothing is a duplicate.
    assert_ne!(publish(&world, &named).await, message);
    let unknown = "0192d3a0-0000-7000-8000-000000000002";
    assert_eq!(world.admin().get(&format!("/events/{unknown}")).await.code(404), "not_found");
}

#[tokio::test]
async fn an_id_is_searched_for_among_20_000_events_and_no_more() {
    let world = World::with(|setup| setup.config.events.dedup_window = std::time::Duration::ZERO);
    let id = "0192d3a0-0000-7000-8000-000000000001";
    publish(&world, &json!({"event_type": "risk_alert", "event_id": id, "data": {}})).await;
    let batch = json!({"events": vec![json!({"event_type": "risk_alert", "data": {}}); 1_000]}).to_string();
    for round in 0..20 {
        // Each look is at everything behind it.
        if [0, 1, 10, 19].contains(&round) {
            let answer = world.admin().get(&format!("/events/{id}")).await;
            assert_eq!(answer.ok()["event_id"], id, "behind {round} batches");
        }
        assert_eq!(world.admin().post("/events/batch", &batch).await.ok()["published"], 1_000);
    }
    assert_eq!(world.admin().get(&format!("/events/{id}")).await.code(404), "id_not_indexed");
}

#[tokio::test]
async fn a_stream_beside_the_main_one_is_that_of_every_worker() {
    let first = World::new();
    let second = World::start(Setup::default(), Arc::new(Place::beside(first.dir.redis.clone())));
    for n in 0..5 {
        publish(&first, &event(n)).await;
    }
    assert_eq!(second.admin().get("/events?stream=run-1").await.code(404), "not_found");
    let into = r#"{"into":"stream:run-1"}"#;
    assert_eq!(first.admin().post("/events/replay", into).await.ok()["events_replayed"], 5);
    let again = second.admin().post("/events/replay", into).await.ok();
    assert_eq!((&again["events_replayed"], &again["duplicates"]), (&json!(5), &json!(5)));
    let begun = Instant::now();
    for world in [&first, &second] {
        loop {
            let copies = world.admin().get("/events?stream=run-1").await.ok();
            if copies["count"] == 5 {
                assert_eq!(copies["events"][4]["metadata"]["replay"], true, "{copies}");
                break;
            }
            assert!(begun.elapsed() < DEADLINE, "{copies}");
        }
    }
    assert_eq!(first.redis().ask("XLEN tradpal_events:stream:run-1").trim(), ":5");
    assert_eq!(first.admin().get("/events").await.ok()["count"], 5);
}

#[tokio::test]
async fn a_schema_that_one_worker_is_given_holds_at_every_other_one() {
    let first = World::new();
    let second = World::start(Setup::default(), Arc::new(Place::beside(first.dir.redis.clone())));
    let set = async |world: &World, least: u64| {
        let body =
            json!({"schema": {"properties": {"n": {"minimum": least}}}, "mode": "enforce"}).to_string();
        let json = "content-type: application/json\r\n";
        world.admin().send("PUT", "/schemas/risk_alert", json, body.as_bytes()).await.ok()
    };
    set(&first, 5).await;
    let begun = Instant::now();
    let low = event(1).to_string();
    while second.admin().post("/events", &low).await.status == 200 {
        assert!(begun.elapsed() < DEADLINE);
    }
    assert_eq!(second.admin().post("/events", &low).await.code(422), "schema_violation");
    // The next version is made of the one before, whoever made that.
    assert_eq!(set(&second, 0).await["version"], 2);
    assert_eq!(set(&first, 7).await["version"], 3);
    second.admin().send("DELETE", "/schemas/risk_alert", "", b"").await;
    let begun = Instant::now();
    while first.admin().get("/schemas").await.ok()["count"] != 0 {
        assert!(begun.elapsed() < DEADLINE);
    }
    publish(&first, &event(1)).await;
}
