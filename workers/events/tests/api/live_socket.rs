//! Live events over a WebSocket: subscriptions, credit, what is refused, how connections end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::issuer::Issuer;
use crate::live::{event, publish_batch};
use crate::websocket::{Said, Socket, UPGRADE};
use crate::world::{World, publish};

async fn numbers(socket: &mut Socket, sub: &str, numbers: std::ops::Range<u64>) -> Value {
    let mut last = Value::Null;
    for n in numbers {
        let said = socket.text().await;
        assert_eq!((&said["op"], &said["sub"]), (&json!("event"), &json!(sub)), "{said}");
        assert_eq!(said["event"]["data"]["n"], n);
        last = said["event"]["message_id"].clone();
    }
    last
}

#[tokio::test]
async fn subscriptions_of_one_connection_go_their_own_ways() {
    let world = World::new();
    publish_batch(&world, 0..4, 0).await;
    let mut socket = Socket::open(world.admin()).await;
    let said = socket.ask(&json!({"op": "subscribe", "sub": "all", "from": "earliest"})).await;
    assert_eq!((&said["op"], &said["sub"], &said["seq"]), (&json!("subscribed"), &json!("all"), &json!(1)));
    numbers(&mut socket, "all", 0..4).await;
    let eth = json!({"op": "subscribe", "sub": "eth", "symbol": ["ETH/USDT", "SOL/USDT"]});
    assert_eq!(socket.ask(&eth).await["seq"], 5);
    publish(&world, &event(5)).await;
    let mut subs = Vec::new();
    for _ in 0..2 {
        let said = socket.text().await;
        assert_eq!((&said["event"]["data"]["n"], &said["event"]["seq"]), (&json!(5), &json!(5)));
        subs.push(said["sub"].as_str().unwrap().to_owned());
    }
    subs.sort();
    assert_eq!(subs, ["all", "eth"]);
    assert_eq!(socket.ask(&json!({"op": "unsubscribe", "sub": "all"})).await["op"], "unsubscribed");
    publish(&world, &event(6)).await;
    publish(&world, &event(7)).await;
    numbers(&mut socket, "eth", 7..8).await;
    // Back to the beginning; what it wants stays.
    let said = socket.ask(&json!({"op": "seek", "sub": "eth", "to": "earliest"})).await;
    assert_eq!((&said["op"], &said["seq"]), (&json!("sought"), &json!(1)));
    for n in [1, 3, 5, 7] {
        numbers(&mut socket, "eth", n..n + 1).await;
    }
    let lost = json!({"op": "subscribe", "sub": "lost", "from": "99999999999999-0"});
    assert_eq!(socket.ask(&lost).await["op"], "subscribed");
    let gap = socket.text().await;
    assert_eq!(
        (&gap["op"], &gap["sub"], &gap["reason"]),
        (&json!("gap"), &json!("lost"), &json!("unknown_position"))
    );
    assert!(world.admin().get("/metrics").await.body.contains("event_service_active_subscribers 2"));
}

#[tokio::test]
async fn credit_bounds_what_is_on_its_way() {
    let world = World::new();
    publish_batch(&world, 0..100, 0).await;
    let mut socket = Socket::open(world.admin()).await;
    socket.ask(&json!({"op": "subscribe", "sub": "a", "from": "earliest", "credit": 10})).await;
    let mut last = numbers(&mut socket, "a", 0..10).await;
    // Nothing more comes; the answer to something else does.
    socket.frame(0x9, b"still there").await;
    assert!(matches!(socket.hear().await, Said::Pong(payload) if payload == b"still there"));
    let said = socket.ask(&json!({"op": "credit", "sub": "a", "n": 5})).await;
    assert_eq!((&said["op"], &said["credit"]), (&json!("credited"), &json!(5)));
    numbers(&mut socket, "a", 10..15).await;
    for round in 0..4 {
        let said = socket.ask(&json!({"op": "ack", "sub": "a", "id": last})).await;
        let confirmed = if round == 0 { 10 } else { 15 };
        assert_eq!((&said["op"], &said["confirmed"]), (&json!("acked"), &json!(confirmed)), "{said}");
        let begin = if round == 0 { 15 } else { 25 + (round - 1) * 15 };
        last = numbers(&mut socket, "a", begin..begin + confirmed).await;
    }
}

#[tokio::test]
async fn the_newest_and_snapshots_come_over_sockets_too() {
    let world = World::new();
    publish_batch(&world, 0..100, 0).await;
    // Waits until all of it has reached the ring.
    world.admin().get("/state/BTC/USDT").await.ok();
    let mut socket = Socket::open(world.admin()).await;
    let newest =
        json!({"op": "subscribe", "sub": "c", "from": "earliest", "mode": "conflate", "max_rate": 5});
    socket.ask(&newest).await;
    for n in [98, 99] {
        let said = socket.text().await;
        assert_eq!(
            (&said["event"]["data"]["n"], &said["event"]["conflated"]),
            (&json!(n), &json!(49)),
            "{said}"
        );
    }
    socket.ask(&json!({"op": "unsubscribe", "sub": "c"})).await;
    socket.ask(&json!({"op": "subscribe", "sub": "s", "snapshot": true})).await;
    for n in [98, 99] {
        let said = socket.text().await;
        assert_eq!(
            (&said["event"]["data"]["n"], &said["event"]["snapshot"]),
            (&json!(n), &json!(true)),
            "{said}"
        );
    }
    let said = socket.text().await;
    assert_eq!((&said["op"], &said["seq"], &said["symbols"]), (&json!("snapshot"), &json!(100), &json!(2)));
    publish(&world, &event(100)).await;
    numbers(&mut socket, "s", 100..101).await;
}

#[tokio::test]
async fn what_is_wrong_is_answered_and_the_connection_lives() {
    let world = World::new();
    let mut socket = Socket::open(world.user("alice", "events:read:risk_*")).await;
    for (said, code, pointer) in [
        (json!({"op": "subscribe"}), "bad_query", "/sub"),
        (json!({"op": "dance", "sub": "a"}), "bad_query", "/op"),
        (json!({"op": "subscribe", "sub": "a", "mode": "x"}), "bad_query", "/mode"),
        (json!({"op": "seek", "sub": "none", "to": "now"}), "not_found", "/sub"),
        (json!(["subscribe"]), "unprocessable", ""),
    ] {
        let answer = socket.ask(&said).await;
        assert_eq!((&answer["op"], &answer["code"]), (&json!("error"), &json!(code)), "{answer}");
        assert_eq!(answer["pointer"], pointer, "{answer}");
    }
    socket.frame(0x1, b"{no json").await;
    assert_eq!(socket.text().await["code"], "invalid_json");
    // What the caller may not read does not exist for it.
    socket.ask(&json!({"op": "subscribe", "sub": "a"})).await;
    assert_eq!(socket.ask(&json!({"op": "subscribe", "sub": "a"})).await["code"], "conflict");
    publish(&world, &json!({"event_type": "order_executed"})).await;
    publish(&world, &json!({"event_type": "risk_alert"})).await;
    assert_eq!(socket.text().await["event"]["event_type"], "risk_alert");
    for n in 1..32 {
        assert_eq!(socket.ask(&json!({"op": "subscribe", "sub": n.to_string()})).await["op"], "subscribed");
    }
    assert_eq!(socket.ask(&json!({"op": "subscribe", "sub": "one more"})).await["code"], "unprocessable");
}

#[tokio::test]
async fn connections_end_with_a_code_and_a_reason() {
    let world = World::new();
    let admin = world.admin();
    let mut binary = Socket::open(admin).await;
    binary.frame(0x2, b"x").await;
    assert!(matches!(binary.hear().await, Said::Close(1003, reason) if reason == "text_only"));
    let mut large = Socket::open(admin).await;
    large.frame(0x1, &vec![b'x'; 20_000]).await;
    assert!(matches!(large.hear().await, Said::Close(1009, _)));
    let mut text = Socket::open(admin).await;
    text.frame(0x1, &[0xFF]).await;
    assert!(matches!(text.hear().await, Said::Close(1007, _)));
    let mut many = Socket::open(admin).await;
    for _ in 0..400 {
        many.frame(0x9, b"").await;
    }
    let closed = loop {
        match many.hear().await {
            Said::Pong(_) => {}
            other => break other,
        }
    };
    assert!(matches!(closed, Said::Close(1008, reason) if reason == "too_many_messages"));
    let mut polite = Socket::open(admin).await;
    polite.frame(0x8, &1000_u16.to_be_bytes()).await;
    assert!(matches!(polite.hear().await, Said::Close(1000, _)));
    let mut drained = Socket::open(admin).await;
    drained.ask(&json!({"op": "subscribe", "sub": "a"})).await;
    world.drain();
    let Said::Close(1012, reason) = drained.hear().await else { panic!("another end") };
    let pause: u64 = reason.strip_prefix("draining; retry_ms=").unwrap().parse().unwrap();
    assert!((500..5_000).contains(&pause));
    drop(drained);
    world.stop().await;
}

#[tokio::test]
async fn a_socket_ends_with_its_token() {
    let world = World::new();
    let issuer = Issuer::new(world.trust.clone());
    let mut revoked = Socket::with_token(&world, &issuer.token("a", 600)).await;
    let mut expiring = Socket::with_token(&world, &issuer.token("b", 3)).await;
    issuer.revoke("a");
    assert!(matches!(revoked.hear().await, Said::Close(1008, reason) if reason == "revoked"));
    assert!(matches!(expiring.hear().await, Said::Close(1008, reason) if reason == "expired"));
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_told_what_is_missing() {
    let world = World::new();
    let admin = world.admin();
    // These answers are read to the end of the connection.
    let upgrade = UPGRADE.replace("keep-alive, ", "");
    assert_eq!(admin.get("/events/ws").await.code(426), "upgrade_required");
    let old = upgrade.replace("version: 13", "version: 8");
    assert_eq!(admin.send("GET", "/events/ws", &old, b"").await.code(426), "upgrade_required");
    let keyless = upgrade.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=");
    assert_eq!(admin.send("GET", "/events/ws", &keyless, b"").await.code(400), "bad_request");
    let writer = world.user("alice", "write");
    assert_eq!(writer.send("GET", "/events/ws", &upgrade, b"").await.code(403), "insufficient_scope");
    let legacy = format!("x-auth-method: legacy_token\r\n{upgrade}");
    assert_eq!(admin.send("GET", "/events/ws", &legacy, b"").await.code(403), "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_socket_never_slows_a_publisher() {
    let world = World::new();
    let mut stuck = Vec::new();
    for _ in 0..5 {
        let mut socket = Socket::open(world.admin()).await;
        socket.ask(&json!({"op": "subscribe", "sub": "a"})).await;
        stuck.push(socket);
    }
    let begun = Instant::now();
    for round in 0..10 {
        publish_batch(&world, round * 50..round * 50 + 50, 60_000).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    // One that wakes up late has lost nothing.
    numbers(&mut stuck[0], "a", 0..500).await;
}
