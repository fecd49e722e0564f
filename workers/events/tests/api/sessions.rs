//! Replay sessions and replays into other streams.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use sluice_wire::role::Role;

use crate::world::{Answer, DEADLINE, Events, User, World};

/// Ten events, 100 ms of market time apart, the first one at 1000 s.
async fn filled() -> World {
    let world = World::with(|setup| setup.dev = true);
    let events: Vec<Value> = (0..10)
        .map(|n| {
            let event_type = ["trading_signal", "risk_alert"][n % 2];
            json!({"event_type": event_type, "timestamp": 1_000_000 + n * 100, "data": {"n": n}})
        })
        .collect();
    world.admin().post("/events/batch", &json!({ "events": events }).to_string()).await.ok();
    world
}

async fn begun(user: &User<'_>, body: &str) -> (String, Value) {
    let answer = user.post("/events/replay", body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let told = answer.json();
    assert_eq!(told["url"], format!("/events/replay/{}/stream", told["replay_id"].as_str().unwrap()));
    (format!("/events/replay/{}", told["replay_id"].as_str().unwrap()), told)
}

async fn change(user: &User<'_>, path: &str, body: &str) -> Answer {
    user.send("PATCH", path, "content-type: application/json\r\n", body.as_bytes()).await
}

/// Every block up to the end, without the last words.
async fn rest(stream: &mut Events) -> (Vec<u64>, String) {
    let mut seen = Vec::new();
    while let Some(block) = stream.next().await {
        if block.event == "replay_complete" || block.event == "disconnect" {
            assert!(stream.next().await.is_none());
            return (seen, block.event + &block.data);
        }
        assert_eq!(block.json()["metadata"]["replay"], true);
        seen.push(block.json()["data"]["n"].as_u64().unwrap());
    }
    panic!("no last words after {seen:?}");
}

#[tokio::test]
async fn the_same_window_has_the_same_bytes_at_any_speed() {
    let world = filled().await;
    let admin = world.admin();
    let last = admin.get("/events?limit=10").await.ok()["events"][9]["message_id"].clone();
    let behind_last = format!("stream?last_event_id={}", last.as_str().unwrap());
    let mut bytes = Vec::new();
    for speed in ["\"max\"", "1000", "20"] {
        let (path, told) =
            begun(&admin, &format!(r#"{{"session":true,"speed":{speed},"end_time":2000000}}"#)).await;
        assert_eq!(told["state"], "waiting");
        let answer = admin.get(&format!("{path}/stream")).await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("text/event-stream"), "{}", answer.head);
        bytes.push(answer.body);
        assert_eq!(admin.get(&path).await.ok()["state"], "complete");
        // At the end there is nothing more, also for an `EventSource` that comes back behind the last event.
        assert_eq!(admin.get(&format!("{path}/stream")).await.status, 204);
        assert_eq!(admin.get(&format!("{path}/{behind_last}")).await.status, 204);
        admin.post("/events", r#"{"event_type":"risk_alert","data":{"n":99}}"#).await.ok();
    }
    assert!(bytes[0].ends_with("event: replay_complete\ndata: {\"events_replayed\":10}\n\n"), "{}", bytes[0]);
    assert_eq!(bytes[0], bytes[1]);
    assert_eq!(bytes[0], bytes[2]);
}

#[tokio::test]
async fn a_session_is_paused_sought_and_hurried() {
    let world = filled().await;
    let admin = world.admin();
    // Ten minutes of wall time between two events.
    let (path, _) = begun(&admin, r#"{"session":true,"speed":0.1,"start_time":1000000}"#).await;
    let paused = change(&admin, &path, r#"{"paused":true}"#).await.ok();
    assert_eq!((&paused["state"], &paused["paused"]), (&json!("paused"), &json!(true)));
    let mut stream = admin.stream("GET", &format!("{path}/stream"), "").await;
    let next = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
    assert!(next.is_err(), "{next:?}");
    change(&admin, &path, r#"{"paused":false,"seek":1000450}"#).await.ok();
    assert_eq!(stream.next().await.unwrap().json()["data"]["n"], 5);
    let seventh = admin.get("/events?limit=8").await.ok()["events"][7]["message_id"].clone();
    change(&admin, &path, &json!({"seek": seventh}).to_string()).await.ok();
    assert_eq!(stream.next().await.unwrap().json()["data"]["n"], 7);
    let told = admin.get(&path).await.ok();
    assert_eq!(
        (&told["state"], &told["next_seq"], &told["speed"]),
        (&json!("playing"), &json!(9), &json!(0.1))
    );
    let hurried = change(&admin, &path, r#"{"speed":"max"}"#).await.ok();
    assert_eq!(hurried["speed"], "max");
    let (seen, last) = rest(&mut stream).await;
    assert_eq!((seen, last.as_str()), (vec![8, 9], "replay_complete{\"events_replayed\":4}"));
    // Set back, it plays again.
    change(&admin, &path, r#"{"seek":"1970-01-01T00:16:40.850Z"}"#).await.ok();
    let mut stream = admin.stream("GET", &format!("{path}/stream"), "").await;
    assert_eq!(rest(&mut stream).await.0, [9]);
    for (body, status, code) in [
        (r#"{"speed":0}"#, 400, "bad_request"),
        (r#"{"seek":"noon"}"#, 400, "bad_request"),
        (r#"{"colour":1}"#, 400, "bad_request"),
    ] {
        assert_eq!(change(&admin, &path, body).await.code(status), code, "{body}");
    }
}

#[tokio::test]
async fn market_time_passes_at_the_speed_asked_for() {
    let world = filled().await;
    let admin = world.admin();
    let (path, _) = begun(&admin, r#"{"session":true,"speed":5}"#).await;
    let at = Instant::now();
    let mut stream = admin.stream("GET", &format!("{path}/stream"), "").await;
    assert_eq!(rest(&mut stream).await.0.len(), 10);
    assert!(at.elapsed() >= Duration::from_millis(170), "{:?}", at.elapsed());
}

#[tokio::test]
async fn a_viewer_resumes_and_the_newest_one_has_the_session() {
    let world = filled().await;
    let admin = world.admin();
    let (path, _) = begun(&admin, r#"{"session":true,"speed":0.1}"#).await;
    let mut first = admin.stream("GET", &format!("{path}/stream"), "").await;
    let block = first.next().await.unwrap();
    assert_eq!(block.json()["data"]["n"], 0);
    let resume = format!("last-event-id: {}\r\n", block.id);
    let mut second = admin.stream("GET", &format!("{path}/stream"), &resume).await;
    assert_eq!(second.next().await.unwrap().json()["data"]["n"], 1);
    assert_eq!(rest(&mut first).await, (vec![], r#"disconnect{"reason":"taken_over"}"#.to_owned()));
    assert_eq!(admin.send("DELETE", &path, "", b"").await.status, 204);
    assert_eq!(rest(&mut second).await.1, r#"disconnect{"reason":"deleted"}"#);
    assert_eq!(admin.get(&path).await.code(404), "not_found");
}

#[tokio::test]
async fn a_session_is_its_owners() {
    let world = filled().await;
    let alice = world.user("alice", "events:read");
    let (path, _) = begun(&alice, r#"{"session":true}"#).await;
    let bob = world.user("bob", "events:read events:publish");
    let stream = format!("{path}/stream");
    assert_eq!(bob.get(&path).await.code(404), "not_found");
    assert_eq!(bob.get(&stream).await.code(404), "not_found");
    assert_eq!(change(&bob, &path, "{}").await.code(404), "not_found");
    assert_eq!(bob.send("DELETE", &path, "", b"").await.code(404), "not_found");
    // Who administers may look, at what it may read itself.
    let narrow = world.user("carol", "events:admin events:read:risk_*");
    let mut events = narrow.stream("GET", &stream, "").await;
    assert_eq!(rest(&mut events).await.0, [1, 3, 5, 7, 9]);
    let legacy = "x-auth-method: legacy_token\r\ncontent-type: application/json\r\n";
    let refused =
        world.user("dave", "read").send("POST", "/events/replay", legacy, br#"{"session":true}"#).await;
    assert_eq!(refused.code(403), "forbidden");
}

#[tokio::test]
async fn a_drain_ends_the_streams() {
    let world = filled().await;
    let (path, _) = begun(&world.admin(), r#"{"session":true,"speed":0.1}"#).await;
    let mut stream = world.admin().stream("GET", &format!("{path}/stream"), "").await;
    assert_eq!(stream.next().await.unwrap().json()["data"]["n"], 0);
    world.drain();
    assert_eq!(rest(&mut stream).await.1, r#"disconnect{"reason":"draining"}"#);
}

#[tokio::test]
async fn a_window_is_stored_in_another_stream() {
    let world = filled().await;
    let admin = world.admin();
    let body = r#"{"event_type":"risk_alert","into":"stream:run-1"}"#;
    let answer = admin.post("/events/replay", body).await.ok();
    assert_eq!(
        answer,
        json!({"status": "replay_complete", "events_replayed": 5, "republished_to": "stream:run-1", "duplicates": 0})
    );
    let again = admin.post("/events/replay", body).await.ok();
    assert_eq!((&again["events_replayed"], &again["duplicates"]), (&json!(5), &json!(5)));
    let there = admin.get("/events?stream=run-1").await.ok();
    assert_eq!(there["count"], 5);
    let here = admin.get("/events?event_type=risk_alert").await.ok();
    assert_eq!(there["events"][0]["event_id"], here["events"][0]["event_id"]);
    assert_eq!(there["events"][0]["metadata"], json!({"replay": true}));
    assert_eq!(there["events"][0]["seq"], 1);
    assert_eq!(admin.get("/events?stream=tradpal_events").await.ok()["count"], 10);
    // It is there after a restart.
    let world = World::start(crate::world::Setup::default(), world.stop().await);
    let narrow = world.user("alice", "events:read:trading_*");
    assert_eq!(narrow.get("/events?stream=run-1").await.ok()["count"], 0);
    assert_eq!(world.admin().get("/events?stream=run-1").await.ok()["count"], 5);
    assert_eq!(world.admin().get("/events?stream=run-2").await.code(404), "not_found");
    assert_eq!(world.admin().get("/events?stream=..%2Fx").await.code(404), "not_found");
}

#[tokio::test]
async fn where_a_replay_does_not_go() {
    let world = filled().await;
    let admin = world.admin();
    for body in [
        r#"{"into":"stream:tradpal_events"}"#,
        r#"{"into":"stream:../x"}"#,
        r#"{"into":"topic:x"}"#,
        r#"{"into":"stream:x","speed":2}"#,
        r#"{"into":"stream:x","session":true}"#,
    ] {
        assert_eq!(admin.post("/events/replay", body).await.code(400), "bad_request", "{body}");
    }
    let reader = world.user("alice", "events:read events:publish:risk_*");
    let refused = reader.post("/events/replay", r#"{"into":"stream:x"}"#).await;
    assert_eq!(refused.code(403), "insufficient_scope");
    for n in 0..16 {
        admin.post("/events/replay", &format!(r#"{{"into":"stream:s{n}"}}"#)).await.ok();
    }
    assert_eq!(admin.post("/events/replay", r#"{"into":"stream:s16"}"#).await.code(422), "unprocessable");
    admin.post("/events/replay", r#"{"into":"stream:s15"}"#).await.ok();
}

#[tokio::test]
async fn sessions_of_one_caller_are_bounded() {
    let world = filled().await;
    let alice = world.user("alice", "events:read");
    for _ in 0..16 {
        begun(&alice, r#"{"session":true}"#).await;
    }
    assert_eq!(alice.post("/events/replay", r#"{"session":true}"#).await.code(429), "rate_limited");
    let begun = Instant::now();
    while !world.admin().get("/metrics").await.body.contains("sluice_events_replay_sessions 16") {
        assert!(begun.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A role has sessions of its own.
    let told: Value =
        world.role(Role::Demo).json(Method::POST, "/events/replay", &json!({"session": true})).await.unwrap();
    assert_eq!(told["state"], "waiting");
}
