//! Consumer groups: leases, acks, order, failing messages, restarts.

mod crash;
mod dlq;
mod limits;
mod order;
mod replay;
mod series;
mod waiting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{Answer, DEADLINE, Place, Setup, World, copy, divided, publish};

const JSON: &str = "content-type: application/json\r\n";

/// A call of somebody who may do everything.
async fn call(world: &World, method: &str, path: &str, body: &Value) -> Answer {
    world.admin().send(method, path, JSON, body.to_string().as_bytes()).await
}

async fn put(world: &World, group: &str, body: Value) -> Value {
    call(world, "PUT", &format!("/groups/{group}"), &body).await.ok()
}

async fn report(world: &World, group: &str) -> Value {
    world.admin().get(&format!("/groups/{group}")).await.ok()
}

async fn lease(world: &World, group: &str, consumer: &str, max: u64, wait_ms: u64) -> Value {
    let body = json!({"consumer": consumer, "max": max, "wait_ms": wait_ms});
    call(world, "POST", &format!("/groups/{group}/lease"), &body).await.ok()
}

async fn settle(world: &World, group: &str, how: &str, consumer: &str, ids: &[String]) -> Value {
    let body = json!({"consumer": consumer, "ids": ids});
    call(world, "POST", &format!("/groups/{group}/{how}"), &body).await.ok()
}

async fn signal(world: &World, symbol: &str, n: u64) -> String {
    publish(world, &json!({"event_type": "trading_signal", "data": {"symbol": symbol, "n": n}})).await
}

fn ids(lease: &Value) -> Vec<String> {
    let messages = lease["messages"].as_array().unwrap();
    messages.iter().map(|message| message["message_id"].as_str().unwrap().to_owned()).collect()
}

/// Waits until a group's report says so.
async fn until(world: &World, group: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let report = report(world, group).await;
        if is_so(&report) {
            return report;
        }
        assert!(begun.elapsed() < DEADLINE, "{what}: {report}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Publishes until retention has taken an event. In batches: a step of retention is a segment, or 256 entries in Redis.
async fn fill_until_gone(world: &World, id: &str) {
    let events = vec![json!({"event_type": "risk_alert", "data": {"pad": "x".repeat(1_000)}}); 100];
    let batch = json!({ "events": events }).to_string();
    let begun = Instant::now();
    while world.admin().get(&format!("/events/{id}")).await.status == 200 {
        assert_eq!(world.admin().post("/events/batch", &batch).await.ok()["published"], 100);
        assert!(begun.elapsed() < DEADLINE);
    }
}

/// Another worker on a copy of this one's files, as after kill -9.
fn killed(world: &World) -> World {
    let dir = Arc::new(Place::next_to(&world.dir));
    copy(world.dir.path(), dir.path());
    World::start(Setup::default(), dir)
}

#[tokio::test]
async fn messages_are_handed_out_and_acknowledged() {
    let world = World::new();
    let first = signal(&world, "BTC/USDT", 1).await;
    let made = put(&world, "desk", json!({"start": "earliest"})).await;
    assert_eq!((&made["created"], &made["lag"], &made["ack_wait"]), (&json!(true), &json!(1), &json!("30s")));
    for n in 2..=3 {
        signal(&world, "BTC/USDT", n).await;
    }
    let some = lease(&world, "desk", "a", 2, 0).await;
    let message = &some["messages"][0];
    assert_eq!((&message["message_id"], &message["delivery"]), (&json!(first), &json!(1)));
    assert_eq!((&message["event"]["data"]["n"], &message["event"]["seq"]), (&json!(1), &json!(1)));
    assert!(some["lease_until"].as_str().unwrap().ends_with('Z'), "{some}");
    assert_eq!((some["messages"].as_array().unwrap().len(), &some["gap"]), (2, &Value::Null));
    let mut done = ids(&some);
    done.extend(["1-1".to_owned(), "no id".to_owned()]);
    let acked = settle(&world, "desk", "ack", "a", &done).await;
    assert_eq!(acked, json!({"acked": 2, "unknown": ["no id", "1-1"]}));
    // Somebody else's, and done before.
    assert_eq!(settle(&world, "desk", "ack", "b", &ids(&some)).await["acked"], 0);
    let rest = lease(&world, "desk", "b", 10, 0).await;
    assert_eq!(rest["messages"].as_array().unwrap().len(), 1);
    let now = report(&world, "desk").await;
    for (member, value) in
        [("lag", 0), ("pending", 1), ("waiting", 0), ("delivered", 3), ("acked", 2), ("redeliveries", 0)]
    {
        assert_eq!(now[member], value, "{member} in {now}");
    }
    assert_eq!((&now["consumers"], &now["consumer_list"][1]["name"]), (&json!(2), &json!("b")));
    assert_eq!((&now["consumer_list"][1]["pending"], &now["dlq_depth"]), (&json!(1), &json!(0)));
    assert_eq!(now["last-delivered-id"], rest["messages"][0]["message_id"]);
    let stats = world.admin().get("/events/stats").await.ok();
    assert_eq!(stats["consumer_groups"], 1);
    // Its oldest message waits for its consumer since this many seconds: as long as this test took.
    let behind_s = stats["groups"][0]["lag_seconds"].as_f64().unwrap();
    assert!((0.0..600.0).contains(&behind_s), "{behind_s}");
    let group = json!({"name": "desk", "consumers": 2, "pending": 1, "lag": 0, "lag_seconds": behind_s,
        "dlq_depth": 0, "last-delivered-id": rest["messages"][0]["message_id"]});
    assert_eq!(stats["groups"], json!([group]));
    assert_eq!(lease(&world, "desk", "b", 10, 0).await["messages"], json!([]));
}

#[tokio::test]
async fn a_group_begins_where_it_is_told() {
    let world = World::new();
    let mut all = Vec::new();
    for n in 0..4 {
        all.push(signal(&world, "BTC", n).await);
    }
    for (start, expected) in [
        (json!("earliest"), 4),
        (json!("now"), 0),
        (json!(all[1]), 2),
        (json!("1970-01-01T00:00:00Z"), 4),
        (json!("2200-01-01T00:00:00Z"), 0),
        (Value::Null, 0),
    ] {
        put(&world, "desk", json!({ "start": start })).await;
        let found = lease(&world, "desk", "a", 10, 0).await;
        assert_eq!(ids(&found), all[4 - expected..], "{start}");
        assert_eq!(call(&world, "DELETE", "/groups/desk", &json!({})).await.ok()["deleted"], true);
    }
    assert_eq!(world.admin().get("/groups/desk").await.code(404), "not_found");
}

#[tokio::test]
async fn putting_again_changes_settings_and_not_the_place() {
    let world = World::new();
    signal(&world, "BTC", 1).await;
    let body = json!({"start": "now", "ack_wait": "2s", "backoff": ["1500ms"], "filter": {"symbol": ["BTC", "ETH"]}});
    let first = put(&world, "desk", body.clone()).await;
    let again = put(&world, "desk", body).await;
    assert_eq!((&first["created"], &again["created"]), (&json!(true), &json!(false)));
    assert_eq!(
        (&again["backoff"], &again["filter"]),
        (&json!(["1500ms"]), &json!({"symbol": ["BTC", "ETH"]}))
    );
    let other = put(&world, "desk", json!({"start": "earliest", "max_deliver": 9})).await;
    assert_eq!(
        (&other["max_deliver"], &other["ack_wait"], &other["lag"]),
        (&json!(9), &json!("30s"), &json!(0))
    );
    assert_eq!(lease(&world, "desk", "a", 10, 0).await["messages"], json!([]));
    let world = killed(&world);
    assert_eq!(report(&world, "desk").await["max_deliver"], 9);
}

#[tokio::test]
async fn a_filter_says_what_is_wanted() {
    let world = World::new();
    for symbol in ["BTC", "ETH", "SOL"] {
        signal(&world, symbol, 1).await;
        publish(&world, &json!({"event_type": "risk_alert", "source": "desk", "data": {"symbol": symbol}}))
            .await;
    }
    for (filter, expected) in [
        (json!({}), 6),
        (json!({"event_type": "TRADING_SIGNAL"}), 3),
        (json!({"event_type": ["trading_signal", "risk_alert"], "symbol": ["BTC", "SOL"]}), 4),
        (json!({"symbol": "ETH"}), 2),
        (json!({"source": ["desk", "other"]}), 3),
        (json!({"start_time": "2200-01-01T00:00:00Z"}), 0),
        (json!({"end_time": ["2200-01-01T00:00:00Z"]}), 6),
    ] {
        put(&world, "desk", json!({"start": "earliest", "filter": filter})).await;
        let found = lease(&world, "desk", "a", 10, 0).await;
        assert_eq!(ids(&found).len(), expected, "{filter}");
        call(&world, "DELETE", "/groups/desk", &json!({})).await.ok();
    }
}

#[tokio::test]
async fn groups_are_listed_in_pages() {
    let world = World::new();
    for name in ["c", "a", "b"] {
        put(&world, name, json!({})).await;
    }
    let page = world.admin().get("/groups?limit=2").await.ok();
    assert_eq!((&page["count"], &page["next_cursor"]), (&json!(2), &json!("b")));
    assert_eq!((&page["groups"][0]["name"], &page["groups"][1]["name"]), (&json!("a"), &json!("b")));
    let page = world.admin().get("/groups?cursor=b").await.ok();
    assert_eq!(
        (&page["count"], &page["groups"][0]["name"], &page["next_cursor"]),
        (&json!(1), &json!("c"), &Value::Null)
    );
    let metrics = world.admin().get("/metrics").await.body;
    assert!(metrics.contains("# HELP process_start_time_seconds"), "{metrics}");
}

#[tokio::test]
async fn figures_of_a_group_are_exposed() {
    let world = World::new();
    put(&world, "desk", json!({"start": "earliest"})).await;
    signal(&world, "BTC", 1).await;
    lease(&world, "desk", "a", 1, 1_000).await;
    signal(&world, "BTC", 2).await;
    let begun = Instant::now();
    loop {
        let text = world.admin().get("/metrics").await.body;
        let lines = [
            "sluice_events_group_lag_events{group=\"desk\"} 1",
            "sluice_events_group_pending{group=\"desk\"} 1",
            "sluice_events_group_lag_seconds{group=\"desk\"}",
            "sluice_events_redeliveries_total{group=\"desk\"} 0",
            "sluice_events_dlq_depth{group=\"desk\"} 0",
            "event_service_events_consumed_total{event_type=\"trading_signal\"} 1",
        ];
        if lines.iter().all(|line| text.contains(line)) {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn retention_that_passes_a_group_leaves_a_counted_gap() {
    let world = World::with(|setup| setup.config.events.retention.bytes = Some(200_000));
    put(&world, "desk", json!({"start": "earliest"})).await;
    let first = signal(&world, "BTC", 0).await;
    fill_until_gone(&world, &first).await;
    // What retention has still to take goes now, and not between the calls below.
    world.admin().post("/admin/retention", r#"{"bytes":200000}"#).await.ok();
    let found = lease(&world, "desk", "a", 1, 0).await;
    let gap = &found["gap"];
    assert_eq!((&gap["expected"], &gap["reason"]), (&json!(1), &json!("trimmed")), "{found}");
    // A gap counts over all partitions.
    let next = &found["messages"][0]["event"]["seq"];
    assert!(gap["got"] == *next || divided() && next.as_u64() < gap["got"].as_u64(), "{found}");
    assert_eq!(gap["events"], gap["got"].as_u64().unwrap() - 1);
    assert_eq!(report(&world, "desk").await["skipped"], gap["events"]);
    assert_eq!(lease(&world, "desk", "a", 1, 0).await["gap"], Value::Null);
}
