//! Live streams: order, filters, resuming, slow subscribers, drain.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_wire::role::Role;

use crate::world::{Events, World, publish};

pub(crate) fn event(n: u64) -> Value {
    let symbol = if n.is_multiple_of(2) { "BTC/USDT" } else { "ETH/USDT" };
    json!({"event_type": "market_data_update", "data": {"symbol": symbol, "n": n}})
}

pub(crate) async fn publish_batch(world: &World, numbers: std::ops::Range<u64>, pad: usize) {
    let events: Vec<Value> = numbers
        .map(|n| {
            let mut event = event(n);
            event["data"]["pad"] = "x".repeat(pad).into();
            event
        })
        .collect();
    let answer: Value = world
        .role(Role::Demo)
        .json(http::Method::POST, "/events/batch", &json!({ "events": events }))
        .await
        .unwrap();
    assert_eq!(answer["failed"], 0);
}

pub(crate) async fn number(stream: &mut Events) -> u64 {
    let block = stream.next().await.expect("an event");
    assert_eq!(block.event, "market_data_update", "{block:?}");
    block.json()["data"]["n"].as_u64().unwrap()
}

#[tokio::test]
async fn subscribers_see_what_is_stored_as_it_is_stored() {
    let world = World::new();
    let mut stream = world.admin().stream("GET", "/events/stream", "").await;
    let head = stream.head.to_lowercase();
    for header in ["content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"] {
        assert!(head.contains(header), "{head}");
    }
    let id = publish(&world, &event(7)).await;
    let block = stream.next().await.unwrap();
    assert_eq!((block.id.as_str(), block.event.as_str()), (id.as_str(), "market_data_update"));
    let event = block.json();
    assert_eq!(
        (&event["data"]["n"], &event["message_id"], &event["seq"]),
        (&json!(7), &json!(id), &json!(1))
    );
    assert!(world.admin().get("/metrics").await.body.contains("event_service_active_subscribers 1"));
    drop(stream);
}

#[tokio::test]
async fn a_stream_begins_where_it_is_told_and_shows_what_is_wanted() {
    let world = World::new();
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(publish(&world, &event(n)).await);
    }
    let admin = world.admin();
    let mut earliest = admin.stream("GET", "/events/stream?from=earliest&symbol=ETH/USDT", "").await;
    let mut behind = admin.stream("GET", &format!("/events/stream?from={}", ids[3]), "").await;
    let mut since =
        admin.stream("GET", "/events/stream?from=1970-01-01T00:00:00Z&event_type=risk_alert", "").await;
    let mut now = admin.stream("GET", "/events/stream", "").await;
    publish(&world, &event(7)).await;
    publish(&world, &json!({"event_type": "risk_alert"})).await;
    for n in [1, 3, 5, 7] {
        assert_eq!(number(&mut earliest).await, n);
    }
    for n in [4, 5, 7] {
        assert_eq!(number(&mut behind).await, n);
    }
    assert_eq!(since.next().await.unwrap().event, "risk_alert");
    assert_eq!(number(&mut now).await, 7);
    for query in ["mode=some", "max_rate=0", "snapshot=yes", "on_slow=wait", "from=x"] {
        assert_eq!(admin.get(&format!("/events/stream?{query}")).await.code(400), "bad_query", "{query}");
    }
}

#[tokio::test]
async fn last_event_id_resumes_without_loss_or_repetition() {
    let world = World::new();
    let (mut last, mut next) = (String::new(), 0);
    for round in 0..5 {
        publish_batch(&world, round * 40..round * 40 + 40, 10).await;
        let resume = if last.is_empty() { String::new() } else { format!("last-event-id: {last}\r\n") };
        let mut stream = world.admin().stream("GET", "/events/stream?from=earliest", &resume).await;
        // Breaks off somewhere in the middle, sometimes while more is published.
        for _ in 0..25 + round {
            let block = stream.next().await.unwrap();
            assert_eq!(block.json()["data"]["n"], next);
            (last, next) = (block.id, next + 1);
        }
    }
    let mut stream = world.admin().stream("GET", &format!("/events/stream?last_event_id={last}"), "").await;
    while next < 200 {
        assert_eq!(number(&mut stream).await, next);
        next += 1;
    }
}

#[tokio::test]
async fn a_position_that_never_was_is_told() {
    let world = World::new();
    publish(&world, &event(0)).await;
    let mut stream =
        world.admin().stream("GET", "/events/stream", "last-event-id: 99999999999999-0\r\n").await;
    let gap = stream.next().await.unwrap();
    assert_eq!((gap.event.as_str(), gap.id.as_str()), ("gap", ""));
    assert_eq!(gap.json()["reason"], "unknown_position");
    publish(&world, &event(1)).await;
    assert_eq!(number(&mut stream).await, 1);
}

#[tokio::test]
async fn what_retention_took_is_told() {
    let world = World::with(|setup| {
        setup.config.events.retention.count = Some(100);
        setup.dev = true;
    });
    let first = publish(&world, &event(0)).await;
    let begun = Instant::now();
    let mut n = 1;
    // The housekeeper trims each second.
    while world.admin().get(&format!("/events/{first}")).await.status == 200 {
        publish_batch(&world, n..n + 50, 0).await;
        n += 50;
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    // Nothing is left for it to trim meanwhile.
    world.admin().post("/admin/retention", r#"{"count":100}"#).await.ok();
    let mut stream =
        world.admin().stream("GET", "/events/stream", &format!("last-event-id: {first}\r\n")).await;
    let gap = stream.next().await.unwrap();
    assert_eq!((gap.event.as_str(), &gap.json()["reason"]), ("gap", &json!("trimmed")));
    // Both are ids, as what it had was.
    assert_eq!(gap.json()["expected"], first);
    assert_eq!(gap.json()["got"], stream.next().await.unwrap().json()["message_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_subscriber_never_slows_a_publisher() {
    let world = World::new();
    // Each takes its head and then nothing more.
    let mut stuck = Vec::new();
    for _ in 0..20 {
        stuck.push(world.admin().stream("GET", "/events/stream", "").await);
    }
    let mut reading = world.admin().stream("GET", "/events/stream", "").await;
    let rounds = 12;
    let publishing = async {
        let begun = Instant::now();
        for round in 0..rounds {
            publish_batch(&world, round * 50..round * 50 + 50, 60_000).await;
        }
        begun.elapsed()
    };
    let following = async {
        for n in 0..rounds * 50 {
            assert_eq!(number(&mut reading).await, n);
        }
    };
    let (took, ()) = tokio::join!(publishing, following);
    // 36 MB: far more than socket buffers hold. Slowed by them, this would never end.
    assert!(took < Duration::from_secs(15), "{took:?}");
    // One that wakes up late has lost nothing, though the ring has passed it by.
    let mut late = stuck.pop().unwrap();
    for n in 0..rounds * 50 {
        assert_eq!(number(&mut late).await, n);
    }
    let metrics = world.admin().get("/metrics").await.body;
    let overruns = metrics.lines().find_map(|line| line.strip_prefix("sluice_events_ring_overruns_total "));
    assert!(overruns.is_some_and(|count| count != "0"), "{metrics}");
}

#[tokio::test]
async fn at_drain_clients_are_told_when_to_come_back() {
    let world = World::new();
    let mut stream = world.admin().stream("GET", "/events/stream", "").await;
    publish(&world, &event(0)).await;
    assert_eq!(number(&mut stream).await, 0);
    world.drain();
    let last = stream.next().await.unwrap();
    let pause: u64 = last.retry.parse().unwrap();
    assert!((500..5_000).contains(&pause));
    assert!(stream.next().await.is_none());
    world.stop().await;
}

#[tokio::test]
async fn a_stream_of_http_1_1_comes_in_chunks_and_ends_with_the_last() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new();
    publish(&world, &event(0)).await;
    let admin = world.admin();
    let (mut stream, head) =
        admin.socket("/events/stream?from=earliest", "x-request-id: req-12345\r\n").await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("market_data_update") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    world.drain();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    for field in ["HTTP/1.1 200 OK", "transfer-encoding: chunked", "x-request-id: req-12345", "date: "] {
        assert!(head.contains(field), "{head}");
    }
    let (mut rest, mut text) = (body, String::new());
    loop {
        let (size, behind) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        text.push_str(&behind[..size]);
        rest = behind[size..].strip_prefix("\r\n").unwrap();
        if size == 0 {
            break;
        }
    }
    assert!(rest.is_empty() && text.starts_with(": stream open\n\nid: "), "{text}");
    assert!(text.contains("\n\nretry: "), "{text}");
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let world = World::new();
    let issuer = crate::issuer::Issuer::new(world.trust.clone());
    let mut revoked = Events::with_token(&world, "/events/stream", &issuer.token("a", 600)).await;
    let mut expiring = Events::with_token(&world, "/events/stream", &issuer.token("b", 3)).await;
    let mut good = Events::with_token(&world, "/events/stream", &issuer.token("c", 600)).await;
    let begun = Instant::now();
    issuer.revoke("a");
    let last = revoked.next().await.unwrap();
    assert_eq!((last.event.as_str(), &last.json()["reason"]), ("disconnect", &json!("revoked")));
    assert!(revoked.next().await.is_none());
    let last = expiring.next().await.unwrap();
    assert_eq!(last.json()["reason"], "expired");
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    publish(&world, &event(1)).await;
    assert_eq!(number(&mut good).await, 1);
    let metrics = world.admin().get("/metrics").await.body;
    for reason in ["revoked", "expired"] {
        let line = format!("sluice_events_dropped_total{{reason=\"{reason}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn a_head_is_no_stream() {
    let world = World::new();
    let answer = world.admin().send("HEAD", "/events/stream", "", b"").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert!(answer.head.to_lowercase().contains("content-type: text/event-stream"), "{answer:?}");
    assert!(world.admin().get("/metrics").await.body.contains("event_service_active_subscribers 0"));
}
