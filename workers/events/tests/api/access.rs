//! Who may do what.

use serde_json::json;

use crate::world::{World, publish};

#[tokio::test]
async fn nobody_is_nobody() {
    let world = World::new();
    for (method, path) in [
        ("GET", "/events"),
        ("GET", "/events/stats"),
        ("GET", "/events/types"),
        ("GET", "/events/stream"),
        ("GET", "/events/1-1"),
        ("GET", "/state/BTC/USDT"),
        ("POST", "/events"),
        ("POST", "/events/batch"),
        ("POST", "/events/market-data"),
        ("POST", "/events/replay"),
        ("GET", "/groups"),
        ("PUT", "/groups/desk"),
        ("POST", "/groups/desk/lease"),
        ("POST", "/groups/desk/ack"),
        ("GET", "/groups/desk/dlq"),
        ("POST", "/groups/desk/dlq/redrive"),
    ] {
        // The edge passes a request on without a verified client.
        let anonymous = world.user("x\r\nx-drop: ", "").send(method, path, "x-user: second\r\n", b"{}").await;
        assert_eq!(anonymous.code(401), "invalid_token", "{method} {path}");
    }
}

#[tokio::test]
async fn publishing_and_reading_need_their_grants() {
    let world = World::new();
    let reader = world.user("alice", "events:read");
    assert_eq!(
        reader.post("/events", r#"{"event_type":"risk_alert"}"#).await.code(403),
        "insufficient_scope"
    );
    let writer = world.user("alice", "events:publish:risk_*");
    writer.post("/events", r#"{"event_type":"risk_alert"}"#).await.ok();
    assert_eq!(
        writer.post("/events", r#"{"event_type":"trading_signal"}"#).await.code(403),
        "insufficient_scope"
    );
    for path in ["/events", "/events/stats", "/events/stream", "/state/BTC"] {
        assert_eq!(writer.get(path).await.code(403), "insufficient_scope", "{path}");
    }
    assert_eq!(writer.post("/events/replay", "{}").await.code(403), "insufficient_scope");
    assert_eq!(reader.get("/events").await.ok()["count"], 1);
    // The older platforms' words.
    world.user("bob", "write").post("/events", r#"{"event_type":"risk_alert"}"#).await.ok();
    assert_eq!(world.user("bob", "read").get("/events").await.ok()["count"], 2);
}

#[tokio::test]
async fn tokens_of_the_shared_secret_reach_the_older_calls_alone() {
    let world = World::new();
    let old = world.user("bob", "read write");
    let legacy = "x-auth-method: legacy_token\r\n";
    for (method, path) in
        [("POST", "/events/batch"), ("GET", "/events/stream"), ("GET", "/state/BTC"), ("GET", "/events/1-1")]
    {
        assert_eq!(old.send(method, path, legacy, b"{}").await.code(403), "forbidden", "{method} {path}");
    }
    old.send("POST", "/events", legacy, br#"{"event_type":"risk_alert"}"#).await.ok();
    old.send("POST", "/events/portfolio-update", legacy, br#"{"updates":{}}"#).await.ok();
    for path in ["/events", "/events/stats", "/events/types"] {
        old.send("GET", path, legacy, b"").await.ok();
    }
    assert_eq!(old.send("POST", "/events/replay", legacy, b"").await.ok()["events_replayed"], 2);
}

#[tokio::test]
async fn a_narrow_reader_sees_its_types_alone() {
    let world = World::new();
    let hidden = publish(&world, &json!({"event_type": "order_executed", "data": {"symbol": "BTC"}})).await;
    publish(&world, &json!({"event_type": "market_data_update", "data": {"symbol": "BTC"}})).await;
    let seen = publish(&world, &json!({"event_type": "risk_alert"})).await;
    let narrow = world.user("alice", "events:read:risk_*");
    assert_eq!(narrow.get("/events").await.ok()["events"][0]["message_id"], seen);
    assert_eq!(narrow.get("/events").await.ok()["count"], 1);
    assert_eq!(narrow.get("/events?event_type=order_executed").await.ok()["count"], 0);
    assert_eq!(narrow.get(&format!("/events/{hidden}")).await.code(404), "not_found");
    assert_eq!(narrow.get("/events/stats").await.ok()["types"], json!({"risk_alert": 1}));
    assert_eq!(narrow.post("/events/replay", "").await.ok()["events_replayed"], 1);
    assert_eq!(narrow.get("/state/BTC").await.code(403), "insufficient_scope");
    let mut stream = narrow.stream("GET", "/events/stream?from=earliest", "").await;
    assert_eq!(stream.next().await.unwrap().id, seen);
}

#[tokio::test]
async fn a_source_is_ones_own() {
    let world = World::new();
    let alice = world.user("alice", "events:publish");
    let event = r#"{"event_type":"risk_alert","source":"ml_service"}"#;
    assert_eq!(alice.post("/events", event).await.code(403), "source_mismatch");
    let market = r#"{"symbol":"BTC","market_data":{},"source":"ml_service"}"#;
    assert_eq!(alice.post("/events/market-data", market).await.code(403), "source_mismatch");
    alice.post("/events", r#"{"event_type":"risk_alert","source":"alice"}"#).await.ok();
    world.user("alice", "events:publish events:source:any").post("/events", event).await.ok();
    let dev = World::with(|setup| setup.dev = true);
    dev.user("alice", "events:publish").post("/events", event).await.ok();
    // Reserved stays reserved, also there.
    let reserved = r#"{"event_type":"service_registered"}"#;
    assert_eq!(dev.user("alice", "admin").post("/events", reserved).await.code(403), "reserved_type");
}
