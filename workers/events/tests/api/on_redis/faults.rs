//! Redis is killed, stopped, full, emptied, or must not be used.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::RedisServer;
use crate::world::{Answer, DEADLINE, Place, Setup, World, durability, publish, redis_url};

/// The longest time an answer may take while Redis is gone.
const ANSWER_MAX: Duration = Duration::from_secs(10);

pub(super) fn event(id: u64) -> String {
    format!(
        r#"{{"event_type":"risk_alert","event_id":"0192d3a0-0000-7000-8000-{id:012}","data":{{"n":{id}}}}}"#
    )
}

pub(super) async fn post(world: &World, id: u64) -> Answer {
    let begun = Instant::now();
    let answer = world.admin().post("/events", &event(id)).await;
    assert!(begun.elapsed() < ANSWER_MAX, "{:?}", begun.elapsed());
    answer
}

/// Publishes until it is taken.
async fn taken(world: &World, id: u64) -> Value {
    let begun = Instant::now();
    loop {
        let answer = post(world, id).await;
        if answer.status == 200 {
            return answer.json();
        }
        assert_eq!(answer.code(503), "store_unavailable");
        assert!(begun.elapsed() < DEADLINE, "{answer:?}");
    }
}

fn refused(answer: &Answer, outcome: &str) {
    assert_eq!(answer.code(503), "store_unavailable");
    assert_eq!(answer.json()["outcome"], outcome, "{answer:?}");
    assert!(answer.head.to_ascii_lowercase().contains("retry-after:"), "{answer:?}");
}

pub(super) async fn ready(world: &World, status: u16) {
    let begun = Instant::now();
    while world.admin().get("/readyz").await.status != status {
        assert!(begun.elapsed() < DEADLINE);
    }
}

pub(super) async fn numbers(world: &World) -> Vec<u64> {
    let list = world.admin().get("/events?limit=1000&event_type=risk_alert").await.ok();
    list["events"].as_array().unwrap().iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn killed_and_started_again_it_has_everything_that_was_acknowledged() {
    let world = World::new();
    let mut live = world.admin().stream("GET", "/events/stream", "").await;
    for n in 0..20 {
        assert_eq!(post(&world, n).await.ok()["durability"], durability());
    }
    world.redis().kill();
    // The first may have been on its way; once the loss is seen, nothing is sent.
    post(&world, 20).await.code(503);
    ready(&world, 503).await;
    refused(&post(&world, 20).await, "not_sent");
    assert_eq!(world.admin().get("/events").await.code(503), "store_unavailable");
    world.redis().again();
    let stored = taken(&world, 20).await;
    assert_eq!(stored["duplicate"], false);
    ready(&world, 200).await;
    assert_eq!(numbers(&world).await, (0..=20).collect::<Vec<u64>>());
    for n in 0..=20 {
        let block = live.next().await.unwrap();
        assert_eq!((block.event.as_str(), &block.json()["data"]["n"]), ("risk_alert", &json!(n)));
    }
}

#[tokio::test]
async fn stopped_it_is_answered_for_as_unknown_and_a_repetition_is_stored_once() {
    let world = World::new();
    publish(&world, &json!({"event_type": "risk_alert", "data": {"n": 0}})).await;
    world.redis().signal("-STOP");
    refused(&post(&world, 1).await, "unknown");
    refused(&post(&world, 2).await, "not_sent");
    world.redis().signal("-CONT");
    taken(&world, 1).await;
    taken(&world, 2).await;
    assert_eq!(numbers(&world).await, [0, 1, 2]);
}

#[tokio::test]
async fn without_memory_nothing_is_acknowledged_until_there_is_some() {
    let world = World::new();
    taken(&world, 0).await;
    world.redis().ask("CONFIG SET maxmemory 100000");
    refused(&post(&world, 1).await, "not_sent");
    let health = world.admin().get("/health").await.json();
    assert_eq!(health["components"]["store"]["status"], "degraded", "{health}");
    assert_eq!(numbers(&world).await, [0]);
    world.redis().ask("CONFIG SET maxmemory 0");
    assert_eq!(post(&world, 1).await.ok()["duplicate"], false);
    assert_eq!(world.admin().get("/health").await.ok()["components"]["store"]["status"], "healthy");
}

#[tokio::test]
async fn emptied_it_begins_anew_behind_every_id_given_and_subscribers_are_told() {
    let world = World::new();
    let mut live = world.admin().stream("GET", "/events/stream", "").await;
    for n in 0..5 {
        taken(&world, n).await;
    }
    let mut last = String::new();
    for _ in 0..5 {
        last = live.next().await.unwrap().id;
    }
    world.redis().ask("FLUSHALL");
    let stored = taken(&world, 5).await;
    let gap = live.next().await.unwrap();
    assert_eq!((gap.event.as_str(), &gap.json()["reason"]), ("gap", &json!("failover")));
    let ms = |id: &str| id.split('-').map(|part| part.parse::<u64>().unwrap()).collect::<Vec<_>>();
    assert!(ms(stored["message_id"].as_str().unwrap()) > ms(&last), "{stored} {last}");
    // The event that comes next, and one that tells of the loss, in either order.
    let mut next = vec![live.next().await.unwrap().json(), live.next().await.unwrap().json()];
    assert_eq!((&next[0]["seq"], &next[1]["seq"]), (&json!(6), &json!(7)));
    next.sort_by_key(|event| event["event_type"] == "stream_gap");
    assert_eq!((&next[0]["data"]["n"], &next[1]["event_type"]), (&json!(5), &json!("stream_gap")));
    assert_eq!(next[1]["data"]["reason"], "failover", "{next:?}");
    assert_eq!(next[1]["metadata"]["role"], "events");
    assert_eq!(numbers(&world).await, [5]);
}

#[tokio::test]
async fn without_its_scripts_it_is_given_them_again() {
    let world = World::new();
    taken(&world, 0).await;
    world.redis().ask("SCRIPT FLUSH");
    assert_eq!(post(&world, 1).await.ok()["duplicate"], false);
    assert_eq!(numbers(&world).await, [0, 1]);
}

#[tokio::test]
async fn the_word_for_durability_is_what_the_server_does() {
    let world = World::new();
    for (setting, word) in [("appendfsync always", "aof_always"), ("appendonly no", "memory")] {
        world.redis().ask(&format!("CONFIG SET {setting}"));
        let begun = Instant::now();
        for n in 0.. {
            if post(&world, n).await.ok()["durability"] == word {
                break;
            }
            assert!(begun.elapsed() < DEADLINE, "{word}");
        }
    }
}

#[tokio::test]
async fn a_server_that_evicts_the_stream_is_refused() {
    let place = Place::new();
    place.redis.as_ref().unwrap().lock().unwrap().ask("CONFIG SET maxmemory-policy allkeys-lru");
    let why = World::start(Setup::default(), Arc::new(place)).ended().await.unwrap_err();
    let cause = std::error::Error::source(&why).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("allkeys-lru") && cause.contains("noeviction"), "{cause}");
    // Made so while it is in use, it takes nothing until that is mended.
    let world = World::new();
    taken(&world, 0).await;
    world.redis().ask("CONFIG SET maxmemory-policy allkeys-lfu");
    ready(&world, 503).await;
    refused(&post(&world, 1).await, "not_sent");
    world.redis().ask("CONFIG SET maxmemory-policy noeviction");
    taken(&world, 1).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut setup = Setup::default();
    setup.config.redis = redis_url(port);
    let world = World::start(setup, Arc::new(Place::beside(None)));
    ready(&world, 503).await;
    refused(&post(&world, 0).await, "not_sent");
    assert_eq!(world.admin().get("/health").await.json()["components"]["store"]["status"], "unhealthy");
    let _server = RedisServer::start_at(port);
    taken(&world, 0).await;
    assert_eq!(numbers(&world).await, [0]);
    ready(&world, 200).await;
}
