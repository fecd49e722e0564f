//! Partitions that several workers share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use sluice_schema::PartitionBy;

use crate::world::{DEADLINE, Place, Setup, World, publish};

fn divided() -> Setup {
    let mut setup = Setup::default();
    (setup.config.events.partitions.by, setup.config.events.partitions.count) = (PartitionBy::Symbol, 3);
    setup
}

fn event(n: u64) -> Value {
    json!({"event_type": "risk_alert", "data": {"symbol": format!("S{}", n % 10), "n": n}})
}

/// Numbers of the events of each partition, in the order of the stream; their seqs must be without a hole.
async fn partitions(world: &World, count: usize) -> BTreeMap<u64, Vec<u64>> {
    let begun = Instant::now();
    let mut list = world.admin().get("/events?limit=1000").await.ok();
    // What the other worker stored is heard of a little later.
    while list["events"].as_array().unwrap().len() < count {
        assert!(begun.elapsed() < DEADLINE, "{list}");
        list = world.admin().get("/events?limit=1000").await.ok();
    }
    let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for event in list["events"].as_array().unwrap() {
        let own = found.entry(event["partition"].as_u64().unwrap()).or_default();
        own.push(event["data"]["n"].as_u64().unwrap());
        assert_eq!(event["seq"], own.len(), "{event}");
    }
    found
}

#[tokio::test]
async fn two_workers_share_partitions_and_groups() {
    let first = World::start(divided(), Arc::new(Place::new()));
    let second = World::start(divided(), Arc::new(Place::beside(first.dir.redis.clone())));
    let group = r#"{"start":"earliest","order_key":"symbol"}"#;
    assert_eq!(first.admin().send("PUT", "/groups/desk", "", group.as_bytes()).await.status, 200);
    let (one, other) = tokio::join!(
        async {
            for n in 0..30 {
                publish(&first, &event(2 * n)).await;
            }
        },
        async {
            for n in 0..30 {
                publish(&second, &event(2 * n + 1)).await;
            }
        },
    );
    ((), ()) = (one, other);
    let there = partitions(&first, 60).await;
    assert_eq!((there.len(), there.values().map(Vec::len).sum::<usize>()), (3, 60));
    assert_eq!(partitions(&second, 60).await, there);
    // Leased from both, each symbol comes in the order of its partition.
    let mut had: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for turn in 0.. {
        let world = if turn % 2 == 0 { &first } else { &second };
        let lease = world.admin().post("/groups/desk/lease", r#"{"consumer":"a","max":4}"#).await.ok();
        let messages = lease["messages"].as_array().unwrap();
        if messages.is_empty() {
            break;
        }
        let ids: Vec<&Value> = messages.iter().map(|message| &message["message_id"]).collect();
        for message in messages {
            let (data, event) = (&message["event"]["data"], &message["event"]);
            had.entry(data["symbol"].to_string()).or_default().push(event["seq"].as_u64().unwrap());
        }
        let ack = json!({"consumer": "a", "ids": ids}).to_string();
        assert_eq!(world.admin().post("/groups/desk/ack", &ack).await.ok()["acked"], ids.len());
    }
    assert_eq!(had.values().map(Vec::len).sum::<usize>(), 60);
    assert!(had.values().all(|seqs| seqs.is_sorted()), "{had:?}");
    // What reads the stream without us sees the places too.
    let entries = first.redis().ask("XRANGE tradpal_events - + COUNT 1");
    assert!(entries.contains("\r\npartition\r\n") && entries.contains("\r\npartition_seq\r\n"), "{entries}");
    // A worker that would number them in another way does not start.
    let mut other = divided();
    other.config.events.partitions.count = 4;
    let place = Place::beside(first.dir.redis.clone());
    let why = World::start(other, Arc::new(place)).ended().await.unwrap_err();
    let cause = std::error::Error::source(&why).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("symbol:3") && cause.contains("symbol:4"), "{cause}");
}

#[tokio::test]
async fn emptied_it_counts_on_behind_every_number_given() {
    let world = World::start(divided(), Arc::new(Place::new()));
    let mut live = world.admin().stream("GET", "/events/stream?event_type=risk_alert", "").await;
    let mut heads = BTreeMap::new();
    for n in 0..12 {
        publish(&world, &event(n)).await;
        let seen = live.next().await.unwrap().json();
        heads.insert(seen["partition"].as_u64().unwrap(), seen["seq"].as_u64().unwrap());
    }
    world.redis().ask("FLUSHALL");
    for n in 12..24 {
        publish(&world, &event(n)).await;
        let mut block = live.next().await.unwrap();
        if block.event == "gap" {
            block = live.next().await.unwrap();
        }
        let seen = block.json();
        let head = heads.get_mut(&seen["partition"].as_u64().unwrap()).unwrap();
        let seq = seen["seq"].as_u64().unwrap();
        assert!(seq > *head, "{seen}");
        *head = seq;
    }
}
