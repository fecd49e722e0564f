//! Requests for discovery that come as events, from an event worker that tells what it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};
use sluice_wire::event::DISCOVERY_GROUP;
use sluice_wire::role::Role;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::Notify;

use crate::kill::Process;
use crate::world::{DEADLINE, World};

const EVENT_ID: &str = "01a206ce-b73d-71e6-b003-2721fd341a8e";

/// What the event worker has and was told.
#[derive(Default)]
struct Desk {
    /// Messages to come.
    waiting: Mutex<VecDeque<Value>>,
    come: Notify,
    group: Mutex<Option<Value>>,
    /// Calls about messages, with their ids.
    said: Mutex<Vec<(String, String)>>,
    /// Events that were published.
    published: Mutex<Vec<Value>>,
    /// A process that dies instead of hearing that a message is acknowledged.
    victim: Mutex<Option<u32>>,
}

impl Desk {
    /// A request under the number of a message.
    fn ask(&self, number: u32, request: &Value) {
        let id = format!("1763900000000-{number}");
        let event_id = format!("{}{number:x}", &EVENT_ID[..35]);
        self.waiting.lock().unwrap().push_back(json!({"message_id": id, "delivery": 1, "event": {
            "event_type": "strategy_discovery_request", "event_id": event_id, "timestamp": "2026-01-01T00:00:00Z",
            "source": "platform", "data": request, "metadata": {}, "message_id": id, "seq": number, "partition": 0}}));
        self.come.notify_waiters();
    }

    fn count(&self, call: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|(said, _)| said == call).count()
    }

    async fn until(&self, call: &str, count: usize) {
        let waiting = async {
            while self.count(call) < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting)
            .await
            .unwrap_or_else(|_| panic!("{call}: {:?}", self.said.lock().unwrap()));
    }
}

/// An event worker at a door.
fn open(dir: &TempDir) -> (Arc<Desk>, PathBuf) {
    let (desk, socket) = (Arc::<Desk>::default(), dir.path().join("events.sock"));
    let listener = UnixListener::bind(&socket).unwrap();
    let app = Router::new()
        .route("/groups/{group}", get(async || StatusCode::NOT_FOUND).put(make))
        .route("/groups/{group}/lease", post(lease))
        .route("/groups/{group}/{call}", post(settle))
        .route("/events/batch", post(batch))
        .with_state(Arc::clone(&desk));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (desk, socket)
}

async fn make(
    State(desk): State<Arc<Desk>>,
    Path(group): Path<String>,
    Json(body): Json<Value>,
) -> Json<Value> {
    if group == DISCOVERY_GROUP {
        *desk.group.lock().unwrap() = Some(body.clone());
    }
    Json(body)
}

async fn lease(
    State(desk): State<Arc<Desk>>,
    Path(group): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    if group != DISCOVERY_GROUP {
        return std::future::pending().await;
    }
    if desk.group.lock().unwrap().is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    assert_eq!(body["max"], 1, "one after the other");
    let message = loop {
        let come = desk.come.notified();
        let next = desk.waiting.lock().unwrap().pop_front();
        if let Some(message) = next {
            break message;
        }
        come.await;
    };
    Json(json!({"messages": [message], "lease_until": "2026-01-01T00:00:15Z", "gap": null})).into_response()
}

async fn settle(
    State(desk): State<Arc<Desk>>,
    Path((group, call)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Json<Value> {
    assert_eq!(group, DISCOVERY_GROUP);
    let victim = desk.victim.lock().unwrap().take_if(|_| call == "ack");
    if let Some(pid) = victim {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        return std::future::pending().await;
    }
    let id = body["ids"][0].as_str().unwrap().to_owned();
    desk.said.lock().unwrap().push((call.clone(), id));
    Json(json!({format!("{call}ed"): 1, "unknown": []}))
}

async fn batch(State(desk): State<Arc<Desk>>, Json(body): Json<Value>) -> Json<Value> {
    let events = body["events"].as_array().unwrap().clone();
    let results: Vec<Value> = events.iter().map(|_| json!({"status": "published"})).collect();
    desk.published.lock().unwrap().extend(events);
    Json(json!({"published": results.len(), "duplicates": 0, "failed": 0, "results": results}))
}

fn request(rows: i64, generations: u32, population: u32) -> Value {
    let row = |at: i64| {
        let close = 100.0 + 10.0 * (at as f64 / 9.0).sin() + (at * 7 % 13) as f64 / 5.0;
        json!([at * 60_000, close, close + 1.0, close - 1.0, close, 5])
    };
    json!({"symbol": "BTC/USD", "strategyName": "SMA_RSI", "topN": 2,
        "gaConfig": {"maxGenerations": generations, "populationSize": population},
        "data": (0..rows).map(row).collect::<Value>()})
}

fn beside(socket: &std::path::Path, dir: Arc<TempDir>) -> World {
    World::beside(BTreeMap::from([(Role::Events, socket.to_owned())]), |_| (), dir)
}

async fn jobs(world: &World) -> Vec<Value> {
    world.admin().get("/calculations/search").await.ok()["jobs"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_request_is_served_once_and_what_cannot_be_is_refused() {
    let door = tempfile::tempdir().unwrap();
    let (desk, socket) = open(&door);
    let world = beside(&socket, Arc::new(tempfile::tempdir().unwrap()));
    desk.ask(1, &request(300, 2, 10));
    desk.until("ack", 1).await;
    let group = desk.group.lock().unwrap().clone().unwrap();
    assert_eq!(
        (&group["filter"]["event_type"], &group["start"]),
        (&json!("strategy_discovery_request"), &json!("earliest"))
    );
    let known = jobs(&world).await;
    assert_eq!(
        (&known[0]["status"], &known[0]["kind"], known.len()),
        (&json!("done"), &json!("discover"), 1)
    );
    // What it found goes out, and names the request.
    while desk.published.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let published = desk.published.lock().unwrap().clone();
    assert_eq!(published[0]["metadata"]["request"], json!(format!("{}1", &EVENT_ID[..35])));
    assert_eq!(known[0]["request"], published[0]["metadata"]["request"]);
    // The same message, a rule that nobody has, and no request at all.
    desk.ask(1, &request(300, 2, 10));
    let mut strange = request(300, 2, 10);
    strange["strategyName"] = json!("NO_RULE");
    desk.ask(2, &strange);
    desk.ask(3, &json!({"symbol": "BTC/USD"}));
    desk.until("ack", 4).await;
    assert_eq!(jobs(&world).await.len(), 1);
    for (result, count) in [("served", 2.0), ("refused", 2.0)] {
        let sample = format!("sluice_calc_discovery_events_total{{result=\"{result}\"}}");
        world.until(&sample, |value| value == count).await;
    }
}

#[tokio::test]
async fn a_request_that_the_end_cut_off_is_given_back_and_done_again() {
    let door = tempfile::tempdir().unwrap();
    let (desk, socket) = open(&door);
    let world = beside(&socket, Arc::new(tempfile::tempdir().unwrap()));
    let long = request(20_000, 60, 100);
    desk.ask(1, &long);
    world.until("sluice_calc_jobs{state=\"running\"}", |value| value == 1.0).await;
    let dir = world.stop().await;
    assert_eq!((desk.count("nack"), desk.count("ack")), (1, 0));
    let world = beside(&socket, dir);
    assert_eq!(jobs(&world).await[0]["error"]["code"], "restarted");
    desk.ask(1, &long);
    desk.until("ack", 1).await;
    let known = jobs(&world).await;
    assert_eq!((&known[0]["status"], known.len()), (&json!("done"), 1), "{known:?}");
}

#[tokio::test]
async fn a_worker_that_dies_before_it_acknowledges_has_served_the_request() {
    let (door, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (desk, socket) = open(&door);
    let mut process = Process::beside(folder.path(), Some(&socket));
    *desk.victim.lock().unwrap() = Some(process.child.id());
    desk.ask(1, &request(300, 2, 10));
    let died = tokio::task::spawn_blocking(move || process.child.wait().unwrap());
    tokio::time::timeout(DEADLINE, died).await.expect("it acknowledges").unwrap();
    let _process = Process::beside(folder.path(), Some(&socket));
    desk.ask(1, &request(300, 2, 10));
    desk.until("ack", 1).await;
    let files = std::fs::read_dir(folder.path().join("calc/jobs")).unwrap();
    let names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    // Beside it there may be what the process was writing when it died.
    let whole = names.iter().filter(|name| !name.contains(".new"));
    assert_eq!(whole.count(), 1, "the job of the first time: {names:?}");
    // Published before it died, after it, or both times under the same ids: two events for who reads.
    while desk.published.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let ids: std::collections::BTreeSet<String> =
        desk.published.lock().unwrap().iter().map(|event| event["event_id"].to_string()).collect();
    assert_eq!(ids.len(), 2);
}
