//! Replays: counted, sent whole, sent at the market's pace.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::World;

/// Ten events, 100 ms of market time apart.
async fn filled() -> World {
    let world = World::with(|setup| setup.dev = true);
    let events: Vec<Value> = (0..10)
        .map(|n| {
            let event_type = ["trading_signal", "risk_alert"][n % 2];
            json!({
                "event_type": event_type,
                "timestamp": 1_000_000 + n * 100,
                "data": {"n": n},
                "metadata": {"run": 1},
            })
        })
        .collect();
    world.admin().post("/events/batch", &json!({ "events": events }).to_string()).await.ok();
    world
}

#[tokio::test]
async fn a_window_is_counted() {
    let world = filled().await;
    let admin = world.admin();
    let whole = admin.post("/events/replay", "").await.ok();
    assert_eq!(whole, json!({"status": "replay_complete", "events_replayed": 10, "republished_to": null}));
    let query = "/events/replay?event_type=trading_signal&start_time=1000200&end_time=1000600";
    assert_eq!(admin.post(query, "").await.ok()["events_replayed"], 3);
    let body = json!({"event_type": "risk_alert", "end_time": "1970-01-01T00:16:40.3"});
    assert_eq!(admin.post("/events/replay", &body.to_string()).await.ok()["events_replayed"], 2);
}

#[tokio::test]
async fn events_are_sent_marked_and_the_same_each_time() {
    let world = filled().await;
    let lines = "accept: application/x-ndjson\r\n";
    let first = world.admin().send("POST", "/events/replay?event_type=risk_alert", lines, b"").await;
    let again = world.admin().send("POST", "/events/replay?event_type=risk_alert", lines, b"").await;
    assert_eq!(first.status, 200);
    assert_eq!(first.body, again.body);
    let events: Vec<Value> = first.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 5);
    assert!(events.iter().all(|event| event["metadata"] == json!({"run": 1, "replay": true})));
    // What is stored is not marked.
    assert_eq!(world.admin().get("/events?limit=1").await.ok()["events"][0]["metadata"], json!({"run": 1}));
    let mut stream = world.admin().stream("POST", "/events/replay", "").await;
    for n in 0..10 {
        let block = stream.next().await.unwrap();
        assert_eq!((block.json()["data"]["n"].as_u64(), block.id.is_empty()), (Some(n), false));
    }
    let end = stream.next().await.unwrap();
    assert_eq!((end.event.as_str(), end.json()), ("replay_complete", json!({"events_replayed": 10})));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn speed_is_market_time() {
    let world = filled().await;
    let begun = Instant::now();
    let mut stream = world.admin().stream("POST", "/events/replay?speed=5", "").await;
    let mut events = 0;
    while let Some(block) = stream.next().await {
        events += usize::from(block.event != "replay_complete");
    }
    // 900 ms of market time at five times the speed.
    assert_eq!(events, 10);
    assert!(begun.elapsed() >= Duration::from_millis(180), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_not_there_is_refused() {
    let world = filled().await;
    let admin = world.admin();
    for (body, status, code) in [
        (r#"{"into":"group:g"}"#, 404, "not_found"),
        (r#"{"into":"group:g","speed":2}"#, 400, "bad_request"),
        ("[]", 400, "bad_request"),
        (r#"{"speed":2}"#, 400, "bad_request"),
        (r#"{"speed":0.01}"#, 400, "bad_request"),
        (r#"{"colour":1}"#, 400, "bad_request"),
        (r#"{"start_time":"noon"}"#, 400, "bad_request"),
        ("{", 400, "invalid_json"),
    ] {
        assert_eq!(admin.post("/events/replay", body).await.code(status), code, "{body}");
    }
    assert_eq!(admin.post("/events/replay?speed=0", "").await.code(400), "bad_query");
    assert_eq!(admin.post("/events/replay?symbol=a", "{}").await.code(400), "bad_query");
}

#[tokio::test]
async fn a_replay_begins_with_what_is_kept() {
    let world = World::with(|setup| setup.config.events.segment_bytes = 64 << 10);
    let admin = world.admin();
    let events =
        json!({"events": vec![json!({"event_type": "risk_alert", "data": {"pad": "x".repeat(500)}}); 300]});
    for _ in 0..2 {
        admin.post("/events/batch", &events.to_string()).await.ok();
    }
    let left = admin.post("/admin/retention", r#"{"count":200}"#).await.ok();
    assert!(left["removed"]["events"].as_u64().unwrap() > 0, "{left}");
    let counted = admin.post("/events/replay", "").await.ok();
    assert_eq!(counted["events_replayed"], left["stream_length"]);
    let lines = admin.send("POST", "/events/replay", "accept: application/x-ndjson\r\n", b"").await;
    assert_eq!(lines.body.lines().count() as u64, left["stream_length"].as_u64().unwrap(), "{}", lines.head);
    let copied = admin.post("/events/replay?into=stream:copy", "").await.ok();
    assert_eq!(copied["events_replayed"], left["stream_length"]);
}
