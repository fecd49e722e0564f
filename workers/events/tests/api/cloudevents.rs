//! CloudEvents over HTTP, in all modes.

use serde_json::{Value, json};

use crate::world::World;

const ONE: &str = "content-type: application/cloudevents+json\r\n";
const MANY: &str = "content-type: application/cloudevents-batch+json; charset=utf-8\r\n";

fn event(id: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "root", "type": "trade-signals",
        "time": "2026-11-21T10:00:00Z", "subject": "BTC", "data": {"symbol": "BTC/USDT", "n": 1},
    })
}

#[tokio::test]
async fn the_three_modes_store_the_same() {
    let world = World::new();
    let admin = world.admin();
    let structured = admin.send("POST", "/events", ONE, event("a").to_string().as_bytes()).await.ok();
    let binary = "content-type: application/json\r\nce-specversion: 1.0\r\nce-id: b\r\nce-source: root\r\n\
                  ce-type: trade-signals\r\nce-time: 2026-11-21T10:00:00Z\r\nce-subject: BTC\r\n";
    admin.send("POST", "/events", binary, br#"{"symbol":"BTC/USDT","n":1}"#).await.ok();
    let batch = json!([event("c"), event("a"), {"specversion": "1.0"}]).to_string();
    let answer = admin.send("POST", "/events", MANY, batch.as_bytes()).await.ok();
    assert_eq!(
        (&answer["published"], &answer["duplicates"], &answer["failed"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!(answer["results"][1]["message_id"], structured["message_id"]);
    assert_eq!(answer["results"][2]["pointer"], "/id");
    let events = admin.get("/events?symbol=BTC/USDT").await.ok();
    assert_eq!(events["count"], 3);
    for event in events["events"].as_array().unwrap() {
        assert_eq!(event["data"], json!({"symbol": "BTC/USDT", "n": 1}));
        assert_eq!((&event["source"], &event["timestamp"]), (&json!("root"), &json!("2026-11-21T10:00:00Z")));
        assert_eq!(event["metadata"]["cloudevent"]["subject"], "BTC");
    }
}

#[tokio::test]
async fn they_are_told_as_they_came() {
    let world = World::new();
    let admin = world.admin();
    let published = admin.send("POST", "/events", ONE, event("a").to_string().as_bytes()).await.ok();
    admin.post("/events", r#"{"event_type":"risk_alert","data":{"a":1.50}}"#).await.ok();
    let answer =
        admin.send("GET", "/events?limit=1", "accept: application/cloudevents-batch+json\r\n", b"").await;
    assert!(answer.head.contains("application/cloudevents-batch+json"), "{}", answer.head);
    assert!(answer.head.contains("x-next-cursor: a2"), "{}", answer.head);
    let mut whole = event("a");
    for (name, value) in [
        ("datacontenttype", json!("application/json")),
        ("sluicemessageid", published["message_id"].clone()),
        ("sluiceseq", json!("1")),
        ("sluicepartition", json!(0)),
    ] {
        whole[name] = value;
    }
    assert_eq!(answer.json(), json!([whole]));
    let path = format!("/events/{}", published["event_id"].as_str().unwrap());
    let one = admin.send("GET", &path, "accept: application/cloudevents+json\r\n", b"").await;
    assert_eq!(one.json(), whole);
    let all = admin.send("GET", "/events", "accept: application/cloudevents-batch+json\r\n", b"").await;
    assert!(
        all.body.contains(r#""type":"risk_alert""#) && all.body.contains(r#""data":{"a":1.50}"#),
        "{}",
        all.body
    );
}

#[tokio::test]
async fn the_rules_of_events_hold_for_them() {
    let world = World::new();
    let alice = world.user("alice", "events:publish");
    let of = |more: Value| {
        let mut event = event("a");
        event["source"] = json!("alice");
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event.to_string()
    };
    for (body, status, code) in [
        (of(json!({"source": "bob"})), 403, "source_mismatch"),
        (of(json!({"type": "kill_switch"})), 403, "reserved_type"),
        (of(json!({"type": "a b"})), 400, "invalid_event"),
        (of(json!({"time": "noon"})), 400, "invalid_event"),
        (of(json!({"specversion": "0.3"})), 400, "invalid_event"),
        ("[]".to_owned(), 400, "invalid_event"),
        ("{".to_owned(), 400, "invalid_json"),
        (r#"{"id":"1","id":"2"}"#.to_owned(), 400, "invalid_json"),
        (of(json!({"data": "x".repeat(256 * 1024)})), 413, "body_too_large"),
    ] {
        assert_eq!(
            alice.send("POST", "/events", ONE, body.as_bytes()).await.code(status),
            code,
            "{body:.200}"
        );
    }
    // A role is not claimed.
    let forged = of(json!({"sluicemetadata": "{\"role\":\"edge\",\"run\":1}"}));
    let published = alice.send("POST", "/events", ONE, forged.as_bytes()).await.ok();
    let stored =
        world.admin().get(&format!("/events/{}", published["event_id"].as_str().unwrap())).await.ok();
    assert_eq!((&stored["metadata"]["role"], &stored["metadata"]["run"]), (&Value::Null, &json!(1)));
    let other = of(json!({"data": {"n": 2}}));
    assert_eq!(alice.send("POST", "/events", ONE, other.as_bytes()).await.code(409), "event_id_conflict");
    let many = Value::from(vec![event("x"); 1_001]).to_string();
    assert_eq!(alice.send("POST", "/events", MANY, many.as_bytes()).await.code(422), "unprocessable");
    let atomic = json!([event("y"), {"specversion": "1.0"}]).to_string();
    let refused = world.admin().send("POST", "/events?atomic=true", MANY, atomic.as_bytes()).await;
    assert_eq!((refused.code(400).as_str(), &refused.json()["index"]), ("invalid_event", &json!(1)));
}
