//! What operators do.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn a_stream_is_trimmed_and_the_answer_says_what_went() {
    let world = World::with(|setup| {
        setup.config.events.segment_bytes = 64 << 10;
        // The bounds below are in bytes as they were published.
        setup.config.events.compress = false;
    });
    let admin = world.admin();
    let events = vec![json!({"event_type": "risk_alert", "data": {"pad": "x".repeat(1_000)}}); 100];
    for _ in 0..5 {
        admin.post("/events/batch", &json!({ "events": events }).to_string()).await.ok();
    }
    let trim = async |body: Value| admin.post("/admin/retention", &body.to_string()).await;
    let none = trim(json!({"age": "1h"})).await.ok();
    assert_eq!((&none["removed"]["events"], &none["stream_length"]), (&json!(0), &json!(500)));
    let some = trim(json!({"bytes": 300_000})).await.ok();
    let removed = some["removed"]["events"].as_u64().unwrap();
    assert!(removed > 100 && removed < 500, "{some}");
    assert_eq!(some["stream_length"], 500 - removed);
    assert!(some["bytes"].as_u64().unwrap() <= 300_000, "{some}");
    let stats = admin.get("/events/stats").await.ok();
    assert_eq!(
        (&stats["stream_length"], &stats["first_entry"]),
        (&some["stream_length"], &some["first_entry"])
    );
    let kept = trim(json!({"count": 150})).await.ok();
    assert!(kept["stream_length"].as_u64().unwrap() >= 150, "{kept}");
    // Everything but the segment that is being written.
    let all = trim(json!({"before": "2100-01-01T00:00:00Z"})).await.ok();
    assert!(all["stream_length"].as_u64().unwrap() < 150, "{all}");
    assert_eq!(all["last_entry"], stats["last_entry"]);
}

#[tokio::test]
async fn trimming_is_asked_for_properly_by_who_may() {
    let world = World::new();
    let admin = world.admin();
    for body in ["{}", r#"{"age":"soon"}"#, r#"{"bytes":-1}"#, r#"{"colour":1}"#, r#"{"before":"noon"}"#] {
        assert_eq!(admin.post("/admin/retention", body).await.code(400), "bad_request", "{body}");
    }
    let other = admin.post("/admin/retention", r#"{"count":1,"stream":"none"}"#).await;
    assert_eq!(other.code(404), "not_found");
    let writer = world.user("alice", "events:publish events:read");
    assert_eq!(writer.post("/admin/retention", r#"{"count":1}"#).await.code(403), "insufficient_scope");
    let operator = world.user("op", "events:admin");
    operator.post("/admin/retention", r#"{"count":1}"#).await.ok();
    admin.post("/events/replay", r#"{"into":"stream:copy"}"#).await.ok();
    operator.post("/admin/retention", r#"{"count":1,"stream":"copy"}"#).await.ok();
}
