//! Who may do what.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::World;

/// Every call.
const CALLS: &[(&str, &str)] = &[
    ("POST", "/calculations/indicators"),
    ("POST", "/calculations/signals"),
    ("POST", "/calculations/signals/generate"),
    ("POST", "/calculations/risk"),
    ("POST", "/calculations/performance"),
    ("POST", "/calculations/search"),
    ("GET", "/calculations/search"),
    ("GET", "/calculations/search/0"),
    ("DELETE", "/calculations/search/0"),
    ("GET", "/calculations/catalog"),
    ("GET", "/calculations/strategies"),
    ("GET", "/calculations/universe"),
    ("PUT", "/calculations/universe"),
    ("GET", "/calculations/strategies/rsi"),
    ("POST", "/calculations/position-size"),
    ("POST", "/calculations/portfolio/size"),
    ("POST", "/calculations/strategies/score"),
    ("POST", "/calculations/strategies/ensemble"),
    ("POST", "/calculations/strategies/rotate"),
    ("GET", "/series"),
    ("GET", "/series/BTC/USDT/1m"),
    ("GET", "/series/BTC/USDT/1m/gaps"),
    ("GET", "/series/BTC/USDT/1m/indicators?names=rsi"),
    ("GET", "/series/BTC/USDT/1m/indicators/stream?names=rsi"),
    ("PUT", "/series/BTC/USDT/1m"),
    ("POST", "/series/BTC/USDT/1m/candles"),
    ("DELETE", "/series/BTC/USDT/1m"),
];

#[tokio::test]
async fn computing_needs_a_caller_who_may_read() {
    let world = World::new();
    for &(method, path) in CALLS {
        // The edge passes a request on without a verified client.
        let anonymous = world.user("x\r\nx-drop: ", "").send(method, path, "x-user: second\r\n", b"{}").await;
        assert_eq!(anonymous.code(401), "invalid_token", "{method} {path}");
        let other = world.user("alice", "events:publish").send(method, path, "", b"{}").await;
        assert_eq!(other.code(403), "insufficient_scope", "{method} {path}");
    }
    let data = json!({"data": {"close": [1.0, 2.0, 3.0]}, "indicators": [{"name": "sma", "period": 2}]});
    world.reader().post("/calculations/indicators", &data).await.ok();
}

#[tokio::test]
async fn the_own_port_believes_tokens_alone() {
    let world = World::new();
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let head =
        "GET /calculations/catalog HTTP/1.0\r\nhost: calc\r\nx-user: root\r\nx-permissions: admin\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 401 "), "{answer}");
}

#[tokio::test]
async fn a_worker_starts_again_in_the_directory_of_the_last() {
    let dir = World::new().stop().await;
    let world = World::start(|_| (), dir);
    world.reader().get("/calculations/catalog").await.ok();
}
