//! Partitions: each counts by itself, and everything else is as it is without them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_schema::PartitionBy;
use sluice_wire::role::Role;

use crate::world::{Setup, World, publish};

const SYMBOLS: [&str; 6] = ["BTC/USDT", "ETH/USDT", "SOL/USDT", "AAPL", "EUR/USD", ""];

fn setup(by: PartitionBy, count: u8) -> Setup {
    let mut setup = Setup::default();
    (setup.config.events.partitions.by, setup.config.events.partitions.count) = (by, count);
    setup
}

fn world(by: PartitionBy, count: u8) -> World {
    World::with(|own| *own = setup(by, count))
}

fn event(n: usize) -> Value {
    let symbol = SYMBOLS[n % SYMBOLS.len()];
    let data = if symbol.is_empty() { json!({"n": n}) } else { json!({"symbol": symbol, "n": n}) };
    json!({"event_type": if n.is_multiple_of(3) { "risk_alert" } else { "trading_signal" }, "data": data})
}

async fn publish_batch(world: &World, numbers: std::ops::Range<usize>) {
    let body = json!({"events": numbers.map(event).collect::<Vec<_>>()});
    let answer: Value =
        world.role(Role::Demo).json(http::Method::POST, "/events/batch", &body).await.unwrap();
    assert_eq!(answer["failed"], 0, "{answer}");
}

async fn list(world: &World, query: &str) -> Vec<Value> {
    let list = world.admin().get(&format!("/events?limit=1000{query}")).await.ok();
    list["events"].as_array().unwrap().clone()
}

/// What an event says of its place.
fn place(event: &Value) -> (u64, u64) {
    (event["partition"].as_u64().unwrap(), event["seq"].as_u64().unwrap())
}

/// Events in the order of the stream: in each partition the numbers are without a hole, and what `key` names keeps to
/// one. How many partitions there are.
fn counted<'a>(events: impl IntoIterator<Item = &'a Value>, key: impl Fn(&Value) -> String) -> usize {
    let (mut next, mut homes) = (BTreeMap::new(), BTreeMap::new());
    for event in events {
        let (partition, seq) = place(event);
        let expected = next.entry(partition).or_insert(1);
        assert_eq!(seq, *expected, "{event}");
        *expected += 1;
        assert_eq!(*homes.entry(key(event)).or_insert(partition), partition, "{event}");
    }
    next.len()
}

fn symbol(event: &Value) -> String {
    event["data"]["symbol"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn every_partition_counts_by_itself() {
    let world = world(PartitionBy::Symbol, 4);
    let mut live = world.admin().stream("GET", "/events/stream", "").await;
    publish_batch(&world, 0..20).await;
    for n in 20..24 {
        publish(&world, &event(n)).await;
    }
    let all = list(&world, "").await;
    assert!(counted(&all, symbol) > 1, "{all:?}");
    assert_eq!(
        all.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect::<Vec<_>>(),
        (0..24).collect::<Vec<_>>()
    );
    // The same places wherever an event is read.
    for event in &all {
        assert_eq!(&live.next().await.unwrap().json(), event);
        let path = format!("/events/{}", event["message_id"].as_str().unwrap());
        assert_eq!(&world.admin().get(&path).await.ok(), event);
    }
    let cloud = world
        .admin()
        .send("GET", "/events?limit=1&order=desc", "accept: application/cloudevents-batch+json\r\n", b"")
        .await
        .ok();
    let last = &all[23];
    assert_eq!(
        (&cloud[0]["sluiceseq"], &cloud[0]["sluicepartition"]),
        (&json!(last["seq"].to_string()), &last["partition"])
    );
    // One id resumes all partitions.
    let seen = format!("last-event-id: {}\r\n", all[9]["message_id"].as_str().unwrap());
    let mut resumed = world.admin().stream("GET", "/events/stream", &seen).await;
    for event in &all[10..] {
        assert_eq!(&resumed.next().await.unwrap().json(), event);
    }
    drop((live, resumed));
    let dir = world.stop().await;
    let world = World::start(setup(PartitionBy::Symbol, 4), dir);
    publish_batch(&world, 24..48).await;
    let all = list(&world, "").await;
    assert_eq!((all.len(), counted(&all, symbol) > 1), (48, true));
    // A filter leaves holes in what is seen, never in what is counted.
    let some = list(&world, "&symbol=ETH/USDT").await;
    let kept: Vec<&Value> = all.iter().filter(|event| symbol(event) == "ETH/USDT").collect();
    assert_eq!(some.iter().collect::<Vec<_>>(), kept);
}

#[tokio::test]
async fn a_stream_keeps_its_partitions() {
    let world = world(PartitionBy::Type, 8);
    publish_batch(&world, 0..12).await;
    counted(&list(&world, "").await, |event| event["event_type"].to_string());
    let dir = world.stop().await;
    for other in [setup(PartitionBy::Type, 4), setup(PartitionBy::Symbol, 8), setup(PartitionBy::None, 1)] {
        let why = World::start(other, std::sync::Arc::clone(&dir)).ended().await.unwrap_err();
        let cause = std::error::Error::source(&why).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{why} {cause}").contains("type:8"), "{why}: {cause}");
    }
    let world = World::start(setup(PartitionBy::Type, 8), dir);
    publish_batch(&world, 12..24).await;
    counted(&list(&world, "").await, |event| event["event_type"].to_string());
    drop(world.stop().await);
    // Nor does one that has none get some.
    let world = World::new();
    publish_batch(&world, 0..3).await;
    let dir = world.stop().await;
    let why = World::start(setup(PartitionBy::Type, 2), dir).ended().await.unwrap_err();
    let cause = std::error::Error::source(&why).map(ToString::to_string).unwrap_or_default();
    assert!(format!("{why} {cause}").contains("as none"), "{why}: {cause}");
}

#[tokio::test]
async fn all_or_nothing_is_for_one_partition_key() {
    let world = world(PartitionBy::Symbol, 2);
    let admin = world.admin();
    let of = |symbols: &[&str], atomic: bool| {
        let events: Vec<Value> = symbols
            .iter()
            .map(|symbol| json!({"event_type": "risk_alert", "source": "x", "data": {"symbol": symbol}}))
            .collect();
        json!({"events": events, "atomic": atomic}).to_string()
    };
    let refused = admin.post("/events/batch", &of(&["AAPL", "AAPL", "MSFT"], true)).await;
    assert_eq!(refused.code(409), "conflict");
    assert_eq!((&refused.json()["index"], &refused.json()["outcome"]), (&json!(2), &json!("not_sent")));
    // Also where both are of one partition: with two of them, some of these are.
    for (one, other) in [("A", "B"), ("A", "C"), ("B", "C")] {
        assert_eq!(admin.post("/events/batch", &of(&[one, other], true)).await.code(409), "conflict");
    }
    assert!(list(&world, "").await.is_empty());
    assert_eq!(admin.post("/events/batch", &of(&["AAPL", "AAPL"], true)).await.ok()["published"], 2);
    assert_eq!(admin.post("/events/batch", &of(&["AAPL", "MSFT"], false)).await.ok()["published"], 2);
    assert_eq!(counted(&list(&world, "").await, symbol), 2);
}

#[tokio::test]
async fn an_event_id_is_one_event_in_all_partitions() {
    let world = world(PartitionBy::Symbol, 4);
    let admin = world.admin();
    let of = |symbol: &str| {
        json!({"event_id": "0192d3a0-0000-7000-8000-000000000001", "event_type": "risk_alert", "source": "x",
               "data": {"symbol": symbol}})
        .to_string()
    };
    let first = admin.post("/events", &of("AAPL")).await.ok();
    let again = admin.post("/events", &of("AAPL")).await.ok();
    assert_eq!((&again["duplicate"], &again["message_id"]), (&json!(true), &first["message_id"]));
    for symbol in ["MSFT", "IBM", "ORCL", "TSLA", "NVDA"] {
        assert_eq!(admin.post("/events", &of(symbol)).await.code(409), "event_id_conflict");
    }
    let stored = list(&world, "").await;
    assert_eq!((stored.len(), place(&stored[0]).1), (1, 1));
}
