//! Publishing: what is stored, what is repeated, what is refused and how.

use serde_json::{Value, json};
use sluice_schema::Fsync;
use sluice_wire::role::Role;

use crate::world::{Setup, World, durability, on_redis};

#[tokio::test]
async fn an_event_is_stored_and_read_back() {
    let world = World::new();
    let admin = world.admin();
    let event = json!({
        "event_type": "TRADING_SIGNAL",
        "source": "ml_service",
        "timestamp": "2026-11-21T10:00:00.123456Z",
        "data": {"symbol": "BTC/USDT", "signal": "BUY", "confidence": 0.85},
    });
    let published = admin.post("/events", &event.to_string()).await.ok();
    assert_eq!(published["status"], "published");
    assert_eq!(published["durability"], durability());
    assert_eq!(published["duplicate"], false);
    for id in ["message_id", "event_id"] {
        let path = format!("/events/{}", published[id].as_str().unwrap());
        let stored = admin.get(&path).await.ok();
        assert_eq!(stored["event_type"], "trading_signal");
        assert_eq!(stored["source"], "ml_service");
        assert_eq!(stored["timestamp"], event["timestamp"]);
        assert_eq!(stored["data"], event["data"]);
        assert_eq!(stored["metadata"], json!({}));
        assert_eq!(stored["message_id"], published["message_id"]);
        assert_eq!((&stored["seq"], &stored["partition"]), (&json!(1), &json!(0)));
    }
    assert_eq!(admin.get("/events/17-4").await.code(404), "not_found");
    assert_eq!(admin.get("/events/neither").await.code(404), "not_found");
}

#[tokio::test]
async fn a_repeated_event_is_the_first_one_also_after_a_restart() {
    let world = World::new();
    let body =
        r#"{"event_type":"risk_alert","event_id":"01920000-0000-7000-8000-000000000001","data":{"a":1}}"#;
    let first = world.admin().post("/events", body).await.ok();
    let again = world.admin().post("/events", &body.replace(':', " :\n ")).await.ok();
    assert_eq!((&again["message_id"], &again["duplicate"]), (&first["message_id"], &json!(true)));
    let dir = world.stop().await;
    let world = World::start(Setup::default(), dir);
    let again = world.admin().post("/events", body).await.ok();
    assert_eq!((&again["message_id"], &again["duplicate"]), (&first["message_id"], &json!(true)));
    let other = world.admin().post("/events", &body.replace("\"a\":1", "\"a\":2")).await;
    assert_eq!(other.code(409), "event_id_conflict");
    assert_eq!(world.admin().get("/events/stats").await.ok()["stream_length"], 1);
    let metrics = world.admin().get("/metrics").await.body;
    assert!(metrics.contains("sluice_events_dedup_hits_total 1"), "{metrics}");
    assert!(metrics.contains("sluice_events_rejected_total{reason=\"event_id_conflict\"} 1"), "{metrics}");
}

#[tokio::test]
async fn an_idempotency_key_makes_a_publish_repeatable() {
    let world = World::new();
    let body = br#"{"event_type":"order_submitted","data":{"qty":1}}"#;
    let key = "idempotency-key: order-7\r\n";
    let alice = world.user("alice", "events:publish");
    let first = alice.send("POST", "/events", key, body).await.ok();
    let again = alice.send("POST", "/events", key, body).await.ok();
    assert_eq!(first["event_id"], again["event_id"]);
    assert_eq!((&again["message_id"], &again["duplicate"]), (&first["message_id"], &json!(true)));
    let other =
        alice.send("POST", "/events", key, br#"{"event_type":"order_submitted","data":{"qty":2}}"#).await;
    assert_eq!(other.code(409), "event_id_conflict");
    // Another caller's key is another key.
    let bob = world.user("bob", "events:publish").send("POST", "/events", key, body).await.ok();
    assert_eq!(bob["duplicate"], false);
    let bad = alice.send("POST", "/events", &format!("idempotency-key: {}\r\n", "k".repeat(256)), body).await;
    assert_eq!(bad.code(400), "bad_request");
}

#[tokio::test]
async fn interval_mode_says_memory() {
    if on_redis() {
        // There the server's own settings decide.
        return;
    }
    let world = World::with(|setup| {
        setup.config.events.fsync = Fsync::Interval(std::time::Duration::from_millis(5));
    });
    let published = world.admin().post("/events", r#"{"event_type":"x"}"#).await.ok();
    assert_eq!(published["durability"], "memory");
}

#[tokio::test]
async fn bad_events_are_refused_by_name() {
    let world = World::with(|setup| setup.config.events.unknown_types = sluice_schema::UnknownTypes::Refuse);
    let admin = world.admin();
    for (body, status, code) in [
        ("", 400, "invalid_json"),
        ("{", 400, "invalid_json"),
        (r#"{"event_type":"risk_alert","event_type":"risk_alert"}"#, 400, "invalid_json"),
        (r#"{"event_type":"risk_alert","data":{"a":1e999}}"#, 400, "invalid_json"),
        (r#"{"event_type":"risk_alert","data":{"a":NaN}}"#, 400, "invalid_json"),
        (r#"{"data":{}}"#, 400, "invalid_event"),
        (r#"{"event_type":"never_heard_of"}"#, 400, "invalid_event"),
        (r#"{"event_type":"../x"}"#, 400, "invalid_event"),
        (r#"{"event_type":"risk_alert","event_id":"x"}"#, 400, "invalid_event"),
        (r#"{"event_type":"risk_alert","timestamp":"soon"}"#, 400, "invalid_event"),
        (r#"{"event_type":"risk_alert","data":[1]}"#, 400, "invalid_event"),
        (r#"{"event_type":"risk_alert","payload":{}}"#, 400, "invalid_event"),
        (r#"{"event_type":"kill_switch"}"#, 403, "reserved_type"),
    ] {
        assert_eq!(admin.post("/events", body).await.code(status), code, "{body}");
    }
    let deep = format!(r#"{{"event_type":"risk_alert","data":{}{}}}"#, r#"{"a":"#.repeat(70), "}".repeat(70));
    assert_eq!(admin.post("/events", &deep).await.code(400), "invalid_json");
    let large = format!(r#"{{"event_type":"risk_alert","data":{{"a":"{}"}}}}"#, "x".repeat(256 * 1024));
    assert_eq!(admin.post("/events", &large).await.code(413), "body_too_large");
    let text = admin.send("POST", "/events", "content-type: text/plain\r\n", b"{}").await;
    assert_eq!(text.code(415), "unsupported_media_type");
    assert_eq!(admin.send("PUT", "/events", "", b"").await.code(405), "method_not_allowed");
    assert_eq!(admin.get("/events/stats").await.ok()["stream_length"], 0);
}

#[tokio::test]
async fn the_convenience_calls_are_events() {
    let world = World::with(|setup| setup.dev = true);
    let admin = world.admin();
    let market = r#"{"symbol":"BTC/USDT","market_data":{"price":45000,"volume":100},"source":"client"}"#;
    admin.post("/events/market-data", market).await.ok();
    admin
        .post(
            "/events/trading-signal",
            r#"{"signal":{"symbol":"BTC/USDT","action":"BUY"},"source":"client"}"#,
        )
        .await
        .ok();
    admin
        .post("/events/trading-signal", r#"{"symbol":"ETH/USDT","signal":"SELL","confidence":0.9}"#)
        .await
        .ok();
    admin.post("/events/portfolio-update", r#"{"updates":{"cash":17.25}}"#).await.ok();
    let events = admin.get("/events").await.ok();
    let events = events["events"].as_array().unwrap();
    let short: Vec<Value> = events.iter().map(|e| json!([e["event_type"], e["source"], e["data"]])).collect();
    assert_eq!(
        short,
        [
            json!(["market_data_update", "client", {"symbol": "BTC/USDT", "price": 45000, "volume": 100}]),
            json!(["trading_signal", "client", {"symbol": "BTC/USDT", "action": "BUY"}]),
            json!(["trading_signal", "root", {"symbol": "ETH/USDT", "signal": "SELL", "confidence": 0.9}]),
            json!(["portfolio_update", "root", {"cash": 17.25}]),
        ]
    );
    assert_eq!(admin.post("/events/market-data", r#"{"market_data":{}}"#).await.code(400), "invalid_event");
    let state = admin.get("/state/BTC/USDT").await.ok();
    assert_eq!(state["market_data"], json!({"symbol": "BTC/USDT", "price": 45000, "volume": 100}));
    assert_eq!((&state["seq"], &state["symbol"]), (&json!(1), &json!("BTC/USDT")));
}

#[tokio::test]
async fn a_batch_answers_for_each_event() {
    let world = World::new();
    let id = "01920000-0000-7000-8000-000000000002";
    let batch = json!({"events": [
        {"event_type": "risk_alert", "data": {"n": 0}},
        {"event_type": "a b"},
        {"event_type": "risk_alert", "event_id": id},
        {"event_type": "risk_alert", "event_id": id},
        {"event_type": "risk_alert", "event_id": id, "data": {"n": 4}},
        {"event_type": "security_alert"},
    ]});
    let answer = world.admin().post("/events/batch", &batch.to_string()).await.ok();
    assert_eq!(
        (&answer["published"], &answer["duplicates"], &answer["failed"]),
        (&json!(2), &json!(1), &json!(3))
    );
    let results = answer["results"].as_array().unwrap();
    let short: Vec<Value> = results
        .iter()
        .map(|one| json!([one["index"], one["status"], one["code"], one["duplicate"]]))
        .collect();
    assert_eq!(
        short,
        [
            json!([0, "published", null, false]),
            json!([1, "failed", "invalid_event", null]),
            json!([2, "published", null, false]),
            json!([3, "published", null, true]),
            json!([4, "failed", "event_id_conflict", null]),
            json!([5, "failed", "reserved_type", null]),
        ]
    );
    assert_eq!(results[2]["message_id"], results[3]["message_id"]);
    assert_eq!(world.admin().post("/events/batch", r#"{"events":[]}"#).await.ok()["published"], 0);
}

#[tokio::test]
async fn an_atomic_batch_is_all_or_nothing() {
    let world = World::new();
    let admin = world.admin();
    let id = "01920000-0000-7000-8000-000000000003";
    admin.post("/events", &json!({"event_type": "risk_alert", "event_id": id}).to_string()).await.ok();
    let good = json!({"event_type": "risk_alert"});
    for (last, status, code) in [
        (json!({"event_type": "a b"}), 400, "invalid_event"),
        (json!({"event_type": "kill_switch"}), 403, "reserved_type"),
        (json!({"event_type": "risk_alert", "event_id": id, "data": {"other": 1}}), 409, "event_id_conflict"),
    ] {
        let batch = json!({"events": [good, good, last], "atomic": true});
        let answer = admin.post("/events/batch", &batch.to_string()).await;
        assert_eq!(answer.code(status), code);
        assert_eq!(answer.json()["index"], 2);
        assert_eq!(answer.json()["outcome"], "not_sent");
        assert_eq!(admin.get("/events/stats").await.ok()["stream_length"], 1);
    }
    let batch = json!({"events": [good, good, good], "atomic": true});
    assert_eq!(admin.post("/events/batch", &batch.to_string()).await.ok()["published"], 3);
}

#[tokio::test]
async fn lines_are_a_batch_too() {
    let world = World::new();
    let admin = world.admin();
    let lines =
        b"{\"event_type\":\"risk_alert\"}\n\n{broken\n{\"event_type\":\"risk_alert\",\"data\":{\"n\":2}}";
    let ndjson = "content-type: application/x-ndjson; charset=utf-8\r\n";
    let answer = admin.send("POST", "/events/batch", ndjson, lines).await.ok();
    assert_eq!((&answer["published"], &answer["failed"]), (&json!(2), &json!(1)));
    assert_eq!(answer["results"][1]["code"], "invalid_json");
    let refused = admin.send("POST", "/events/batch?atomic=true", ndjson, lines).await;
    assert_eq!(refused.code(400), "invalid_json");
    assert_eq!(refused.json()["index"], 1);
    assert_eq!(admin.get("/events/stats").await.ok()["stream_length"], 2);
}

#[tokio::test]
async fn batches_are_bounded() {
    let world = World::new();
    let admin = world.admin();
    let many = json!({"events": vec![json!({"event_type": "risk_alert"}); 1_001]}).to_string();
    let answer = admin.post("/events/batch", &many).await;
    assert_eq!(answer.code(422), "unprocessable");
    assert_eq!(answer.json()["index"], 1_000);
    let lines = "{\"event_type\":\"risk_alert\"}\n".repeat(1_001);
    let ndjson = "content-type: application/x-ndjson\r\n";
    assert_eq!(
        admin.send("POST", "/events/batch", ndjson, lines.as_bytes()).await.code(422),
        "unprocessable"
    );
    let large = vec![b' '; 8 * 1024 * 1024 + 1];
    assert_eq!(admin.send("POST", "/events/batch", ndjson, &large).await.code(413), "body_too_large");
    let one_large = format!(r#"{{"event_type":"risk_alert","data":{{"a":"{}"}}}}"#, "x".repeat(256 * 1024));
    let batch = format!(r#"{{"events":[{{"event_type":"risk_alert"}},{one_large}]}}"#);
    let answer = admin.post("/events/batch", &batch).await.ok();
    assert_eq!((&answer["published"], &answer["results"][1]["code"]), (&json!(1), &json!("body_too_large")));
    for (body, status) in [(r#"{"events":{}}"#, 400), (r#"{"events":[],"x":1}"#, 400), ("[]", 400)] {
        assert_eq!(admin.post("/events/batch", body).await.code(status), "bad_request", "{body}");
    }
    let full = json!({"events": vec![json!({"event_type": "risk_alert"}); 1_000]}).to_string();
    assert_eq!(admin.post("/events/batch", &full).await.ok()["published"], 1_000);
    let metrics = admin.get("/metrics").await.body;
    assert!(
        metrics.contains("event_service_events_published_total{event_type=\"risk_alert\"} 1001"),
        "{metrics}"
    );
    let count = format!("sluice_events_publish_seconds_count{{durability=\"{}\"}} 2", durability());
    assert!(metrics.contains(&count), "{metrics}");
}

#[tokio::test]
async fn roles_publish_what_clients_may_not() {
    let world = World::new();
    let edge = world.role(Role::Edge);
    let event =
        json!({"event_type": "circuit_breaker_state", "source": "edge", "metadata": {"role": "calc"}});
    let published: Value = edge.json(http::Method::POST, "/events", &event).await.unwrap();
    let path = format!("/events/{}", published["event_id"].as_str().unwrap());
    assert_eq!(world.admin().get(&path).await.ok()["metadata"], json!({"role": "edge"}));
}
