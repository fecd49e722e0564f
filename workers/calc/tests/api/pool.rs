//! What happens when there is more to compute than threads.

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::world::{User, World};

const PATH: &str = "/calculations/indicators";

/// A large body that takes a thread long: a sweep whose answers are short.
fn long() -> Vec<u8> {
    let closes: Vec<f64> = (0..45_000).map(|at| 100.0 + f64::from(at % 97) / 3.0).collect();
    let sweep = json!({"name": "adx", "period": {"range": [5, 4100, 1]}});
    let data = json!({"high": closes, "low": closes, "close": closes});
    json!({"data": data, "indicators": [sweep], "reduce": "last"}).to_string().into_bytes()
}

fn small(at: u32) -> Value {
    let closes: Vec<f64> = (0..60 + at).map(|row| 100.0 + f64::from((row + at) % 7) / 3.0).collect();
    json!({"symbol": format!("S{at}"), "data": {"close": closes}, "indicators": ["ema", "rsi"]})
}

async fn busy(user: User<'_>) -> tokio::net::UnixStream {
    user.begin("POST", PATH, "content-type: application/json\r\n", &long()).await
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_thread() {
    let world = World::with(|config| config.calc.threads = 1);
    let user = world.reader();
    let leaving = busy(user).await;
    // The body is read and its calculation is under way: the queue is empty again.
    world.until("sluice_calc_transport_bytes_total{direction=\"in\"}", |bytes| bytes > 0.0).await;
    world.until("sluice_calc_queue_depth", |depth| depth == 0.0).await;
    drop(leaving);
    world.until("sluice_calc_cancelled_total", |left| left == 1.0).await;
    // The next one is answered by the same thread, long before that would have ended.
    user.post(PATH, &small(1)).await.ok();
}

#[tokio::test]
async fn small_requests_that_wait_are_computed_together_with_the_same_bits() {
    let world = World::with(|config| config.calc.threads = 1);
    let user = world.reader();
    let mut alone = Vec::new();
    for at in 0..8 {
        alone.push(user.post(PATH, &small(at)).await.ok());
    }
    assert_eq!(world.metric("sluice_calc_coalesced_total").await, 0.0);
    let leaving = busy(user).await;
    world.until("sluice_calc_transport_bytes_total{direction=\"in\"}", |bytes| bytes > 100_000.0).await;
    world.until("sluice_calc_queue_depth", |depth| depth == 0.0).await;
    let mut streams = Vec::new();
    for at in 0..8 {
        let body = small(at).to_string();
        streams.push(user.begin("POST", PATH, "content-type: application/json\r\n", body.as_bytes()).await);
    }
    world.until("sluice_calc_queue_depth", |depth| depth == 8.0).await;
    drop(leaving);
    for (mut stream, alone) in streams.into_iter().zip(alone) {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(serde_json::from_str::<Value>(body).unwrap(), alone);
    }
    assert_eq!(world.metric("sluice_calc_coalesced_total").await, 7.0);
}

#[tokio::test]
async fn a_full_queue_is_429_and_says_when_to_come_back() {
    let world = World::with(|config| config.calc.threads = 1);
    let user = world.reader();
    let leaving = busy(user).await;
    world.until("sluice_calc_transport_bytes_total{direction=\"in\"}", |bytes| bytes > 100_000.0).await;
    world.until("sluice_calc_queue_depth", |depth| depth == 0.0).await;
    let body = small(0).to_string();
    let mut streams = Vec::new();
    for _ in 0..256 {
        streams.push(user.begin("POST", PATH, "content-type: application/json\r\n", body.as_bytes()).await);
    }
    world.until("sluice_calc_queue_depth", |depth| depth >= 250.0).await;
    // Bodies that wait take room for a megabyte each: one of the two bounds is met.
    let refused = user.post(PATH, &small(1)).await;
    assert_eq!(refused.code(429), "queue_full");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(world.metric("sluice_calc_rejected_total{reason=\"queue_full\"}").await >= 1.0);
    drop((leaving, streams));
    world.until("sluice_calc_queue_depth", |depth| depth == 0.0).await;
    user.post(PATH, &small(1)).await.ok();
}
