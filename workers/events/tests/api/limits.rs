//! Every limit of publishing: what is refused, how, and at which event.

use std::time::Instant;

use serde_json::{Value, json};
use sluice_schema::UnknownTypes;
use sluice_wire::role::Role;

use crate::world::{DEADLINE, World};

/// Rows: grants, event, and the status, code and pointer of the refusal.
fn refusals() -> Vec<(&'static str, Value, u16, &'static str, Value)> {
    let risk = |more: Value| {
        let mut event = json!({"event_type": "risk_alert"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let reserved =
        |kind: &str| ("admin", json!({ "event_type": kind }), 403, "reserved_type", json!("/event_type"));
    vec![
        ("write", json!({"event_type": "never_heard_of"}), 400, "invalid_event", json!("/event_type")),
        ("write", json!({"event_type": "a b"}), 400, "invalid_event", json!("/event_type")),
        ("write", json!({"event_type": "x".repeat(65)}), 400, "invalid_event", json!("/event_type")),
        ("write", risk(json!({"event_id": "7"})), 400, "invalid_event", json!("/event_id")),
        ("write", risk(json!({"timestamp": "soon"})), 400, "invalid_event", json!("/timestamp")),
        ("write", risk(json!({"data": []})), 400, "invalid_event", json!("/data")),
        ("write", risk(json!({"metadata": 1})), 400, "invalid_event", json!("/metadata")),
        ("write", risk(json!({"payload": 1})), 400, "invalid_event", Value::Null),
        ("write", risk(json!({"source": "bob"})), 403, "source_mismatch", json!("/source")),
        ("write", risk(json!({"source": "x".repeat(129)})), 400, "invalid_event", json!("/source")),
        ("read", risk(json!({})), 403, "insufficient_scope", Value::Null),
        ("events:publish:order_*", risk(json!({})), 403, "insufficient_scope", Value::Null),
        ("events:publish:risk", risk(json!({})), 403, "insufficient_scope", Value::Null),
        ("write", risk(json!({"data": {"a": "x".repeat(256 * 1024)}})), 413, "body_too_large", Value::Null),
        reserved("kill_switch"),
        reserved("config_changed"),
        reserved("security_event"),
        reserved("circuit_breaker_state"),
        reserved("service_registered"),
        reserved("stream_gap"),
        reserved("dead_letter"),
        reserved("candle_closed"),
        reserved("KILL_SWITCH"),
    ]
}

#[tokio::test]
async fn what_is_refused_alone_is_refused_in_a_batch_at_its_place() {
    let world = World::with(|setup| setup.config.events.unknown_types = UnknownTypes::Refuse);
    for (grants, event, status, code, pointer) in refusals() {
        let alice = world.user("alice", grants);
        let alone = alice.post("/events", &event.to_string()).await;
        assert_eq!((alone.code(status).as_str(), &alone.json()["pointer"]), (code, &pointer), "{event:.200}");
        // A single body that is too large is not read to its end: nothing is said of what became of it.
        if status != 413 {
            assert_eq!(alone.json()["outcome"], "not_sent", "{event:.200}");
        }
        // The first of the batch is one that this caller may publish, where there is one.
        let batch = json!({"events": [event, event], "atomic": true});
        let refused = alice.post("/events/batch", &batch.to_string()).await;
        assert_eq!(refused.code(status), code, "{event:.200}");
        assert_eq!(refused.json()["index"], 0, "{event:.200}");
        let loose = json!({"events": [event]});
        let told = alice.post("/events/batch", &loose.to_string()).await.ok();
        assert_eq!(told["results"][0]["code"], code, "{event:.200}");
        assert_eq!((&told["results"][0]["index"], &told["failed"]), (&json!(0), &json!(1)), "{event:.200}");
    }
    assert_eq!(world.admin().get("/events/stats").await.ok()["stream_length"], 0);
}

#[tokio::test]
async fn the_place_in_an_atomic_batch_is_that_of_the_first_fault() {
    let world = World::new();
    let alice = world.user("alice", "events:publish:risk_*");
    let good = json!({"event_type": "risk_alert"});
    for at in [0, 3, 9] {
        let mut events = vec![good.clone(); 10];
        events[at] = json!({"event_type": "trading_signal"});
        let refused =
            alice.post("/events/batch", &json!({"events": events, "atomic": true}).to_string()).await;
        assert_eq!(
            (refused.code(403).as_str(), &refused.json()["index"]),
            ("insufficient_scope", &json!(at))
        );
    }
    assert_eq!(world.admin().get("/events/stats").await.ok()["stream_length"], 0);
}

#[tokio::test]
async fn names_are_told_apart_as_the_contract_says() {
    let world = World::with(|setup| setup.config.events.unknown_types = UnknownTypes::Refuse);
    let admin = world.admin();
    for (sent, stored) in [
        ("RISK_ALERT", "risk_alert"),
        ("backtest_complete", "backtest_completed"),
        ("BACKTEST_COMPLETE", "backtest_completed"),
        ("market_regime_change", "market_regime_change"),
    ] {
        let published = admin.post("/events", &json!({ "event_type": sent }).to_string()).await.ok();
        let path = format!("/events/{}", published["event_id"].as_str().unwrap());
        assert_eq!(admin.get(&path).await.ok()["event_type"], stored, "{sent}");
    }
    for unknown in ["Risk_Alert", "trade-signals"] {
        let refused = admin.post("/events", &json!({ "event_type": unknown }).to_string()).await;
        assert_eq!(refused.code(400), "invalid_event", "{unknown}");
    }
}

#[tokio::test]
async fn one_caller_publishes_so_fast() {
    let world = World::with(|setup| setup.config.events.publish_rate = Some(2));
    let (alice, bob) = (world.user("alice", "write"), world.user("bob", "write"));
    let event = json!({"event_type": "risk_alert"});
    let batch = json!({"events": vec![event.clone(); 600]}).to_string();
    assert_eq!(alice.post("/events/batch", &batch).await.ok()["published"], 600);
    let refused = alice.post("/events", &event.to_string()).await;
    assert_eq!((refused.code(429).as_str(), &refused.json()["index"]), ("rate_limited", &json!(0)));
    assert_eq!(refused.json()["outcome"], "not_sent");
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    assert_eq!(alice.post("/events/batch", &batch).await.code(429), "rate_limited");
    let structured = "content-type: application/cloudevents+json\r\n";
    let cloud = br#"{"specversion":"1.0","id":"1","source":"alice","type":"x"}"#;
    assert_eq!(alice.send("POST", "/events", structured, cloud).await.code(429), "rate_limited");
    bob.post("/events", &event.to_string()).await.ok();
    // Roles are not held up.
    for _ in 0..5 {
        let _: Value = world.role(Role::Edge).json(http::Method::POST, "/events", &event).await.unwrap();
    }
    assert_eq!(world.admin().get("/events/stats").await.ok()["stream_length"], 606);
}

#[tokio::test]
async fn so_many_may_subscribe() {
    let world = World::with(|setup| setup.config.events.subscriptions = 1);
    let first = world.admin().stream("GET", "/events/stream", "").await;
    let refused = world.admin().get("/events/stream").await;
    assert_eq!(refused.code(503), "overloaded");
    assert!(refused.json()["detail"].as_str().unwrap().contains("1 subscriptions"), "{}", refused.body);
    drop(first);
    let begun = Instant::now();
    loop {
        // The worker may not have seen yet that the first one has left.
        let next = world.admin().stream("GET", "/events/stream", "").await;
        if next.head.contains(" 200 ") {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "{}", next.head);
    }
}
