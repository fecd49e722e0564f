//! With `on_redis_down = "spool"`, what Redis does not take is kept by the worker.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use sluice_schema::OnRedisDown;
use sluice_wire::role::Role;

use super::faults::{event, numbers, post, ready};
use crate::world::{Answer, DEADLINE, Place, Setup, World, copy, durability};

fn setup(on_redis_down: OnRedisDown) -> Setup {
    let mut setup = Setup::default();
    setup.config.events.on_redis_down = on_redis_down;
    setup
}

fn world() -> World {
    World::start(setup(OnRedisDown::Spool), Arc::new(Place::new()))
}

fn spooled(answer: &Answer) -> Value {
    let said = answer.ok();
    assert_eq!((&said["durability"], &said["message_id"]), (&json!("spooled"), &Value::Null), "{said}");
    assert_eq!(said["status"], "published");
    said
}

/// Waits until so many events are stored.
async fn stored(world: &World, count: usize) -> Vec<u64> {
    let begun = Instant::now();
    loop {
        let answer = world.admin().get("/events?limit=1000").await;
        if answer.status == 200 && answer.json()["count"].as_u64().unwrap() >= count as u64 {
            return numbers(world).await;
        }
        assert!(begun.elapsed() < DEADLINE, "{answer:?}");
    }
}

/// Publishes until Redis itself takes it.
async fn direct(world: &World, id: u64) -> Value {
    let begun = Instant::now();
    loop {
        let said = post(world, id).await.ok();
        if said["durability"] != "spooled" {
            return said;
        }
        assert!(begun.elapsed() < DEADLINE, "{said}");
    }
}

#[tokio::test]
async fn what_redis_does_not_take_is_kept_and_stored_in_order_once_it_does() {
    let world = World::with(|setup| setup.config.events.on_redis_down = OnRedisDown::Spool);
    let mut live = world.admin().stream("GET", "/events/stream", "").await;
    for n in 0..5 {
        assert_eq!(post(&world, n).await.ok()["durability"], durability());
    }
    world.redis().kill();
    for n in 5..40 {
        assert_eq!(spooled(&post(&world, n).await)["duplicate"], false);
    }
    // It takes events, and says how.
    ready(&world, 200).await;
    let store = world.admin().get("/health").await.json()["components"]["store"].clone();
    assert_eq!(store["status"], "degraded", "{store}");
    assert!(store["detail"].as_str().unwrap().contains("35 events wait for Redis"), "{store}");
    let begun = Instant::now();
    while !world.admin().get("/metrics").await.body.contains("sluice_events_spooled 35") {
        assert!(begun.elapsed() < DEADLINE);
    }
    world.redis().again();
    assert_eq!(stored(&world, 40).await, (0..40).collect::<Vec<u64>>());
    for n in 0..40 {
        let got = live.next().await.unwrap().json();
        assert_eq!((&got["data"]["n"], &got["seq"]), (&json!(n), &json!(n + 1)));
    }
    direct(&world, 40).await;
    assert_eq!(world.admin().get("/health").await.ok()["components"]["store"]["status"], "healthy");
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill_of_the_worker_and_is_stored_once() {
    let first = world();
    post(&first, 0).await.ok();
    first.redis().kill();
    for n in 1..=20 {
        spooled(&post(&first, n).await);
        if n % 5 == 0 {
            // What is on the disk at this moment is what kill -9 leaves.
            let place = Arc::new(Place::beside(first.dir.redis.clone()));
            copy(first.dir.path(), place.path());
            let spool = place.path().join("events/tradpal_events.spool.log");
            assert!(spool.is_dir());
            if n == 10 {
                // Switched off, it still stores what was acknowledged.
                let second = World::start(setup(OnRedisDown::Reject), place);
                ready(&second, 503).await;
                post(&second, 99).await.code(503);
                second.stop().await;
            } else {
                let second = World::start(setup(OnRedisDown::Spool), place);
                let kept = format!("sluice_events_spooled {n}");
                let begun = Instant::now();
                while !second.admin().get("/metrics").await.body.contains(&kept) {
                    assert!(begun.elapsed() < DEADLINE);
                }
                second.stop().await;
            }
        }
    }
    let place = Arc::new(Place::beside(first.dir.redis.clone()));
    copy(first.dir.path(), place.path());
    let second = World::start(setup(OnRedisDown::Reject), place);
    first.redis().again();
    assert_eq!(stored(&second, 21).await, (0..=20).collect::<Vec<u64>>());
    // Both had them, and they are there once.
    direct(&first, 21).await;
    assert_eq!(numbers(&first).await, (0..=21).collect::<Vec<u64>>());
}

#[tokio::test]
async fn what_waits_for_a_redis_that_is_not_configured_any_longer_is_told_and_kept() {
    let first = world();
    post(&first, 0).await.ok();
    first.redis().kill();
    for n in 1..=3 {
        spooled(&post(&first, n).await);
    }
    let place = first.stop().await;
    let mut own = setup(OnRedisDown::Spool);
    own.config.events.store = Some(sluice_schema::EventStore::Embedded);
    let second = World::start(own, Arc::clone(&place));
    ready(&second, 200).await;
    let health = second.admin().get("/health").await.ok();
    assert_eq!(health["components"]["spool"]["status"], "degraded", "{health}");
    assert!(health["components"]["spool"]["detail"].as_str().unwrap().starts_with("3 acknowledged events"));
    let begun = Instant::now();
    while !second.admin().get("/metrics").await.body.contains("sluice_events_spooled 3") {
        assert!(begun.elapsed() < DEADLINE);
    }
    post(&second, 9).await.ok();
    assert_eq!(numbers(&second).await, [9]);
    second.stop().await;
    // Back at Redis they are stored, and those of the other store are not.
    place.redis.as_ref().unwrap().lock().unwrap().again();
    let third = World::start(setup(OnRedisDown::Reject), place);
    assert_eq!(stored(&third, 4).await, [0, 1, 2, 3]);
    assert!(third.admin().get("/health").await.ok()["components"]["spool"].is_null());
}

#[tokio::test]
async fn repetitions_and_conflicts_are_told_as_far_as_they_are_known() {
    let world = world();
    post(&world, 0).await.ok();
    world.redis().kill();
    spooled(&post(&world, 1).await);
    assert_eq!(spooled(&post(&world, 1).await)["duplicate"], true);
    let other = event(1).replace("\"n\":1", "\"n\":7");
    let refused = world.admin().post("/events", &other).await;
    assert_eq!(refused.code(409), "event_id_conflict");
    assert!(!refused.body.contains("as message"), "{refused:?}");
    // What only Redis knows is found out later: a repetition is one event, a conflict is told.
    spooled(&post(&world, 0).await);
    let copy = event(2).replace("\"n\":2", "\"n\":8");
    spooled(&post(&world, 2).await);
    let clash = event(0).replace("\"n\":0", "\"n\":9");
    // This worker has seen that id meanwhile.
    assert_eq!(world.admin().post("/events", &clash).await.code(409), "event_id_conflict");
    assert_eq!(world.admin().post("/events", &copy).await.code(409), "event_id_conflict");
    let batch = format!("{{\"events\":[{},{}],\"atomic\":true}}", event(3), event(4));
    let answer = world.admin().post("/events/batch", &batch).await;
    assert_eq!(
        (answer.code(503).as_str(), &answer.json()["outcome"]),
        ("store_unavailable", &json!("not_sent"))
    );
    let answer = world.admin().post("/events/batch", &batch.replace("true", "false")).await.ok();
    assert_eq!((&answer["published"], &answer["results"][1]["durability"]), (&json!(2), &json!("spooled")));
    world.redis().again();
    assert_eq!(stored(&world, 5).await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn an_acknowledged_event_whose_id_another_one_has_is_a_dead_letter() {
    let first = world();
    let second = World::start(Setup::default(), Arc::new(Place::beside(first.dir.redis.clone())));
    post(&second, 0).await.ok();
    first.redis().kill();
    let clash = event(0).replace("\"n\":0", "\"n\":9");
    spooled(&first.admin().post("/events", &clash).await);
    spooled(&post(&first, 1).await);
    first.redis().again();
    let begun = Instant::now();
    let letter = loop {
        let answer = second.admin().get("/events?event_type=dead_letter").await;
        if answer.status == 200 && answer.json()["count"] == 1 {
            break answer.json()["events"][0].clone();
        }
        assert!(begun.elapsed() < DEADLINE, "{answer:?}");
    };
    assert_eq!(letter["data"]["cause"], "event_id_conflict", "{letter}");
    assert_eq!(letter["data"]["event"]["data"]["n"], 9, "{letter}");
    assert_eq!(letter["metadata"]["role"], "events");
    let begun = Instant::now();
    while second.admin().get("/events?event_type=risk_alert").await.json()["count"] != 2 {
        assert!(begun.elapsed() < DEADLINE);
    }
}

#[tokio::test]
async fn what_redis_may_have_stored_is_stored_once() {
    let world = world();
    post(&world, 0).await.ok();
    world.redis().signal("-STOP");
    // No answer comes: it waits here, whether or not it is there.
    spooled(&post(&world, 1).await);
    spooled(&post(&world, 2).await);
    world.redis().signal("-CONT");
    assert_eq!(stored(&world, 3).await, [0, 1, 2]);
    direct(&world, 3).await;
    assert_eq!(numbers(&world).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn without_memory_there_events_wait_here() {
    let world = world();
    post(&world, 0).await.ok();
    world.redis().ask("CONFIG SET maxmemory 100000");
    for n in 1..5 {
        spooled(&post(&world, n).await);
    }
    assert_eq!(numbers(&world).await, [0]);
    world.redis().ask("CONFIG SET maxmemory 0");
    assert_eq!(stored(&world, 5).await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn the_client_of_the_roles_understands_the_answer() {
    let world = world();
    world.redis().kill();
    ready(&world, 200).await;
    let published = loop {
        let new =
            serde_json::from_value(json!({"event_type": "risk_alert", "source": "demo", "data": {"n": 1}}))
                .unwrap();
        let published = world.role(Role::Demo).publish(&new).await.unwrap();
        if published.durability == "spooled" {
            break published;
        }
    };
    assert_eq!(published.message_id, None);
    assert!(Path::new(world.dir.path()).join("events/tradpal_events.spool.log").is_dir());
}
