//! The feed, from an event worker that tells what it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{StatusCode, header};
use serde_json::{Value, json};
use sluice_wire::event::DISCOVERY_GROUP;
use sluice_wire::role::Role;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::kill::Process;
use crate::world::{DEADLINE, World};

const RESULTS: &str = "sluice_calc_candles_total";
const FED: &str = "sluice_calc_feed_candles_total";

/// What the event worker has and was told.
#[derive(Default)]
struct Desk {
    /// Leases to come: the data of their events.
    leases: Mutex<VecDeque<Vec<Value>>>,
    /// Calls with the ids that they name.
    said: Mutex<Vec<(String, Vec<String>)>>,
    told: Notify,
    /// The groups that it has, by what they were made of.
    groups: Mutex<BTreeMap<String, Value>>,
    /// How far behind it says that they are, seconds.
    lag_s: Mutex<f64>,
    /// A process that dies instead of hearing that something is acknowledged.
    victim: Mutex<Option<u32>>,
    /// The credentials that it asks for, and how many calls had none or others.
    token: Mutex<Option<String>>,
    refused: Mutex<usize>,
    /// What its stream says.
    stream: Mutex<String>,
}

/// An event worker at a door.
struct Events {
    desk: Arc<Desk>,
    socket: PathBuf,
    task: JoinHandle<()>,
}

impl Events {
    fn open(socket: PathBuf, desk: Arc<Desk>) -> Self {
        drop(std::fs::remove_file(&socket));
        let listener = UnixListener::bind(&socket).unwrap();
        let app = app(&desk);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { desk, socket, task }
    }

    fn world(&self) -> World {
        let sockets = BTreeMap::from([(Role::Events, self.socket.clone())]);
        World::beside(sockets, |_| (), Arc::new(tempfile::tempdir().unwrap()))
    }

    fn lease(&self, data: Vec<Value>) {
        self.desk.leases.lock().unwrap().push_back(data);
        self.desk.told.notify_waiters();
    }

    /// Waits until a call named so many ids.
    async fn until(&self, call: &str, count: usize) {
        let named = || {
            let said = self.desk.said.lock().unwrap();
            said.iter().filter(|(named, _)| named == call).map(|(_, ids)| ids.len()).sum::<usize>()
        };
        let waiting = async {
            while named() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("{call}: {}", named()));
        assert_eq!(named(), count);
    }
}

fn app(desk: &Arc<Desk>) -> Router {
    Router::new()
        .route("/groups/{group}", get(report).put(make))
        .route("/groups/{group}/lease", post(lease))
        .route("/groups/{group}/{call}", post(settle))
        .route("/events/stream", get(stream))
        .layer(middleware::from_fn_with_state(Arc::clone(desk), known))
        .with_state(Arc::clone(desk))
}

/// Refuses who shows another token than is asked for.
async fn known(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if desk.token.lock().unwrap().as_deref().is_none_or(|token| shown == Some(token)) {
        return next.run(request).await;
    }
    *desk.refused.lock().unwrap() += 1;
    StatusCode::UNAUTHORIZED.into_response()
}

async fn report(State(desk): State<Arc<Desk>>, Path(group): Path<String>) -> Response {
    if !desk.groups.lock().unwrap().contains_key(&group) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let lag_s = *desk.lag_s.lock().unwrap();
    Json(json!({"name": group, "lag": 0, "lag_seconds": lag_s, "pending": 0})).into_response()
}

async fn make(
    State(desk): State<Arc<Desk>>,
    Path(group): Path<String>,
    Json(body): Json<Value>,
) -> Json<Value> {
    // Requests for discovery have tests of their own.
    if group != DISCOVERY_GROUP {
        desk.groups.lock().unwrap().insert(group, body.clone());
    }
    Json(body)
}

async fn lease(
    State(desk): State<Arc<Desk>>,
    Path(group): Path<String>,
    Json(body): Json<Value>,
) -> Json<Value> {
    if group == DISCOVERY_GROUP {
        return std::future::pending().await;
    }
    assert!(desk.groups.lock().unwrap().contains_key(&group), "{group}");
    assert_eq!(body["consumer"], group.replace("calc-series", "calc"));
    let data = loop {
        let told = desk.told.notified();
        let next = desk.leases.lock().unwrap().pop_front();
        if let Some(data) = next {
            break data;
        }
        told.await;
    };
    let message = |(n, data): (usize, &Value)| {
        json!({"message_id": format!("1-{n}"), "delivery": 1, "event": {
            "event_type": "candle_closed", "event_id": "01a206ce-b73d-71e6-b003-2721fd341a8e",
            "timestamp": "2026-01-01T00:00:00Z", "source": "events", "data": data, "metadata": {},
            "message_id": format!("1-{n}"), "seq": n, "partition": 0}})
    };
    let messages: Vec<Value> = data.iter().enumerate().map(message).collect();
    Json(json!({"messages": messages, "lease_until": "2026-01-01T00:00:05Z", "gap": null}))
}

async fn settle(
    State(desk): State<Arc<Desk>>,
    Path((group, call)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Json<Value> {
    let ids: Vec<String> = serde_json::from_value(body["ids"].clone()).unwrap();
    assert_eq!(body["consumer"], group.replace("calc-series", "calc"));
    let victim = desk.victim.lock().unwrap().take_if(|_| call == "ack");
    if let Some(pid) = victim {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        return std::future::pending().await;
    }
    if call == "nack" {
        assert_eq!(body["delay_ms"], 0, "another one may have them at once");
    }
    let known = ids.len();
    desk.said.lock().unwrap().push((call.clone(), ids));
    Json(json!({format!("{call}ed"): known, "unknown": []}))
}

async fn stream(State(desk): State<Arc<Desk>>) -> Response {
    let text = std::mem::take(&mut *desk.stream.lock().unwrap());
    if text.is_empty() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response()
}

fn candle(symbol: &str, minute: i64, close: f64) -> Value {
    json!({"symbol": symbol, "timeframe": "1m", "timestamp": 1_767_225_600_000 + minute * 60_000,
        "open": close, "high": close + 1.0, "low": close - 1.0, "close": close, "volume": 2.0, "trades": 3})
}

#[tokio::test]
async fn a_candle_is_stored_once_and_everything_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::open(dir.path().join("events.sock"), Arc::default());
    let world = events.world();
    events.lease(vec![candle("BTC/USDT", 0, 10.0), candle("AAPL", 0, 5.0)]);
    events.until("ack", 2).await;
    assert_eq!(world.metric(&format!("{RESULTS}{{result=\"applied\"}}")).await, 2.0);
    assert_eq!(world.metric("sluice_calc_feed_following").await, 1.0);
    // The first again, with the next one; then one that differs from what is stored, and one that is no bar.
    events.lease(vec![candle("BTC/USDT", 0, 10.0), candle("BTC/USDT", 1, 11.0)]);
    events.lease(vec![candle("AAPL", 0, 6.0), json!({"symbol": "AAPL"})]);
    events.until("ack", 6).await;
    for (result, count) in [("applied", 3.0), ("repeated", 1.0), ("conflict", 1.0), ("late", 0.0)] {
        assert_eq!(world.metric(&format!("{RESULTS}{{result=\"{result}\"}}")).await, count, "{result}");
    }
    assert_eq!(world.metric("sluice_calc_feed_dropped_total").await, 1.0);
    for (result, count) in [("applied", 3.0), ("repeated", 1.0), ("conflict", 1.0), ("late", 0.0)] {
        let fed = world.metric(&format!("{FED}{{result=\"{result}\"}}")).await;
        assert_eq!(fed, count, "{result}");
    }
    let age_s = jiff::Timestamp::now().as_second() as f64
        - world.metric("sluice_calc_feed_last_timestamp_seconds").await;
    assert!((-1.0..60.0).contains(&age_s), "{age_s}");
    // What is stored outlives the worker, and what comes again afterwards is known.
    let sockets = BTreeMap::from([(Role::Events, events.socket.clone())]);
    let world = World::beside(sockets, |_| (), world.stop().await);
    events.lease(vec![candle("BTC/USDT", 1, 11.0), candle("BTC/USDT", 0, 10.0)]);
    events.until("ack", 8).await;
    assert_eq!(world.metric(&format!("{RESULTS}{{result=\"repeated\"}}")).await, 2.0);
    assert_eq!(world.metric(&format!("{RESULTS}{{result=\"applied\"}}")).await, 0.0);
}

#[tokio::test]
async fn each_store_has_a_group_of_its_own_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::open(dir.path().join("events.sock"), Arc::default());
    let groups = || events.desk.groups.lock().unwrap().clone();
    let first = events.world();
    first.until("sluice_calc_feed_following", |value| value == 1.0).await;
    let made = groups();
    let (name, body) = made.first_key_value().unwrap();
    assert!(made.len() == 1 && name.starts_with("calc-series-"), "{made:?}");
    let wanted = json!({"event_type": "candle_closed"});
    assert_eq!(
        (&body["start"], &body["order_key"], &body["filter"]),
        (&json!("earliest"), &json!("symbol"), &wanted)
    );
    let second = events.world();
    second.until("sluice_calc_feed_following", |value| value == 1.0).await;
    assert_eq!(groups().len(), 2, "another store");
    let sockets = BTreeMap::from([(Role::Events, events.socket.clone())]);
    let again = World::beside(sockets, |_| (), first.stop().await);
    again.until("sluice_calc_feed_following", |value| value == 1.0).await;
    assert_eq!(groups().len(), 2, "the first one, started again");
    // A group that is removed is made again.
    events.desk.groups.lock().unwrap().clear();
    let again =
        World::beside(BTreeMap::from([(Role::Events, events.socket.clone())]), |_| (), again.stop().await);
    again.until("sluice_calc_feed_following", |value| value == 1.0).await;
    assert_eq!(groups().keys().collect::<Vec<_>>(), [name]);
}

#[tokio::test]
async fn health_tells_how_far_behind_the_series_are() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::open(dir.path().join("events.sock"), Arc::default());
    let health = async |world: &World| world.admin().get("/health").await.ok()["components"]["feed"].clone();
    let alone = World::new();
    let none = json!({"status": "healthy", "detail": "there is no event worker to follow"});
    assert_eq!(health(&alone).await, none);
    let world = events.world();
    world.until("sluice_calc_feed_following", |value| value == 1.0).await;
    assert_eq!(health(&world).await, json!({"status": "healthy"}));
    *events.desk.lag_s.lock().unwrap() = 90.0;
    world.until("sluice_calc_feed_lag_seconds", |value| value == 90.0).await;
    assert_eq!(health(&world).await, json!({"status": "degraded", "detail": "90 s behind"}));
    *events.desk.lag_s.lock().unwrap() = 0.0;
    world.until("sluice_calc_feed_lag_seconds", |value| value == 0.0).await;
    assert_eq!(health(&world).await, json!({"status": "healthy"}));
}

#[tokio::test]
async fn what_cannot_be_stored_is_kept_and_goes_back_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::open(dir.path().join("events.sock"), Arc::default());
    let world = events.world();
    world.until("sluice_calc_feed_following", |value| value == 1.0).await;
    // A new series needs a file, and there is no folder for it.
    let folder = world.dir.path().join("calc/series");
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "").unwrap();
    events.lease(vec![candle("NEW", 0, 1.0)]);
    let extended = || events.desk.said.lock().unwrap().iter().any(|(call, _)| call == "extend");
    let held = async {
        while !extended() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, held).await.expect("it is kept");
    world.stop().await;
    events.until("nack", 1).await;
    let said = events.desk.said.lock().unwrap();
    assert!(!said.iter().any(|(call, _)| call == "ack"), "{said:?}");
}

/// The message is acknowledged by nobody: stored, and the process is killed before it is told so.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_storing_and_acknowledging_stores_nothing_twice() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let events = Events::open(dir.path().join("events.sock"), Arc::default());
    for round in 0..5 {
        let mut process = Process::beside(folder.path(), Some(&events.socket));
        *events.desk.victim.lock().unwrap() = Some(process.child.id());
        // What the one before left comes again, with the next candle.
        events.lease((0..=round).map(|minute| candle("BTC/USDT", minute, 10.0)).collect());
        let died = tokio::task::spawn_blocking(move || process.child.wait().unwrap());
        tokio::time::timeout(DEADLINE, died).await.expect("it acknowledges").unwrap();
    }
    let process = Process::beside(folder.path(), Some(&events.socket));
    events.lease((0..5).map(|minute| candle("BTC/USDT", minute, 10.0)).collect());
    events.until("ack", 5).await;
    let begins: Vec<f64> = process.rows(folder.path(), "BTC/USDT/1m").iter().map(|row| row[0]).collect();
    let wanted: Vec<f64> = (0..5).map(|minute| (1_767_225_600_000_i64 + minute * 60_000) as f64).collect();
    assert_eq!(begins, wanted);
}

#[tokio::test]
async fn a_worker_alone_finds_the_event_worker_by_its_address() {
    let (dir, desk) = (tempfile::tempdir().unwrap(), Arc::<Desk>::default());
    let file = dir.path().join("calc.token");
    std::fs::write(&file, "first\n").unwrap();
    *desk.token.lock().unwrap() = Some("Bearer second".to_owned());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = app(&desk);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let world = World::with(|config| {
        config.calc.events_url = Some(url.parse().unwrap());
        config.calc.events_token_file = Some(file.clone());
    });
    let refused = async {
        while *desk.refused.lock().unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.expect("it asks");
    assert_eq!(world.metric("sluice_calc_feed_following").await, 0.0);
    // A token that is renewed in place is used at once.
    std::fs::write(&file, "second\n").unwrap();
    world.until("sluice_calc_feed_following", |value| value == 1.0).await;
    desk.leases.lock().unwrap().push_back(vec![candle("BTC/USDT", 0, 10.0)]);
    desk.told.notify_waiters();
    world.until(&format!("{FED}{{result=\"applied\"}}"), |count| count == 1.0).await;
    world.stop().await;
}

#[tokio::test]
async fn an_event_worker_that_is_away_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let first = Events::open(dir.path().join("events.sock"), Arc::default());
    let world = first.world();
    first.lease(vec![candle("A", 0, 1.0)]);
    first.until("ack", 1).await;
    let Events { desk, socket, task } = first;
    task.abort();
    drop(task.await);
    std::fs::remove_file(&socket).unwrap();
    // The call that waits there is answered by nobody any more.
    desk.leases.lock().unwrap().push_back(vec![]);
    desk.told.notify_waiters();
    world.until("sluice_calc_feed_following", |value| value == 0.0).await;
    let second = Events::open(socket, desk);
    second.lease(vec![candle("A", 1, 1.0)]);
    second.until("ack", 2).await;
    assert_eq!(world.metric("sluice_calc_feed_following").await, 1.0);
    world.stop().await;
}

#[tokio::test]
async fn bars_of_the_market_data_are_the_open_candle() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::open(dir.path().join("events.sock"), Arc::default());
    let event = |data: Value| format!("event: market_data_update\ndata: {}\n\n", json!({ "data": data }));
    // Ticks and trades are no bars; the second bar is of a minute that is closed.
    let tick = json!({"symbol": "A", "price": 1.0, "open": null});
    let text = [json!({"symbol": "A", "price": 1.0}), tick, candle("A", 1, 2.0), candle("B", 0, 7.0)]
        .map(event)
        .concat();
    events.lease(vec![candle("B", 0, 1.0)]);
    let world = events.world();
    events.until("ack", 1).await;
    *events.desk.stream.lock().unwrap() = text;
    world.until(&format!("{RESULTS}{{result=\"updated_open\"}}"), |count| count == 1.0).await;
    // The minute closes with other numbers than its last tick had, which is no conflict.
    events.lease(vec![candle("A", 1, 3.0)]);
    events.until("ack", 2).await;
    for (result, count) in [("applied", 2.0), ("conflict", 0.0)] {
        assert_eq!(world.metric(&format!("{RESULTS}{{result=\"{result}\"}}")).await, count, "{result}");
    }
}
