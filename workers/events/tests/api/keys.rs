//! Keys of the log: each is changed and the log does otherwise.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_wire::role::Role;

use crate::world::{DEADLINE, Setup, World, publish};

/// Publishes events of about a thousand bytes each.
async fn fill(world: &World, count: usize) {
    let event = json!({"event_type": "risk_alert", "data": {"pad": "x".repeat(1_000)}});
    let events = vec![event; count];
    let body = json!({ "events": events });
    let answer: Value =
        world.role(Role::Demo).json(http::Method::POST, "/events/batch", &body).await.unwrap();
    assert_eq!(answer["failed"], 0);
}

/// Publishes until the first event is gone, in vain until `DEADLINE` where retention keeps it.
async fn is_trimmed(change: impl FnOnce(&mut Setup)) -> bool {
    let world = World::with(change);
    let first = publish(&world, &json!({"event_type": "risk_alert", "data": {}})).await;
    let begun = Instant::now();
    while world.admin().get(&format!("/events/{first}")).await.status == 200 {
        fill(&world, 100).await;
        if begun.elapsed() > DEADLINE {
            return false;
        }
    }
    true
}

fn segments(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).fold(0, |count, path| {
        let own = path.extension().is_some_and(|extension| extension == "seg");
        count + usize::from(own) + if path.is_dir() { segments(&path) } else { 0 }
    })
}

#[tokio::test]
async fn retention_by_bytes_is_as_configured() {
    assert!(is_trimmed(|setup| setup.config.events.retention.bytes = Some(200_000)).await);
}

#[tokio::test]
async fn retention_by_age_is_as_configured() {
    assert!(is_trimmed(|setup| setup.config.events.retention.age = Some(Duration::from_millis(500))).await);
}

#[tokio::test]
async fn segments_have_the_configured_size() {
    let world = World::with(|setup| setup.config.events.segment_bytes = 64 << 10);
    for _ in 0..10 {
        fill(&world, 50).await;
    }
    let many = segments(world.dir.path());
    let world = World::new();
    for _ in 0..10 {
        fill(&world, 50).await;
    }
    assert_eq!(segments(world.dir.path()), 1);
    assert!(many > 4, "{many}");
}
