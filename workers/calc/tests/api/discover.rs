//! `/calculations/strategies`: discovery over the wire.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};
use sluice_wire::role::Role;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use crate::search::{accepted, watched};
use crate::world::{DEADLINE, User, World};

const PATH: &str = "/calculations/strategies/discover";
const JSON: &str = "content-type: application/json\r\n";
/// 2024-01-01T00:00:00Z.
const BEGIN: i64 = 1_704_067_200_000;

fn candles(rows: i64) -> Vec<Value> {
    let close = |at: i64| 100.0 + 10.0 * (at as f64 / 9.0).sin() + (at * 7 % 13) as f64 / 5.0;
    let row = |at: i64| {
        let close = close(at);
        json!([BEGIN + at * 60_000, close, close + 1.0, close - 1.0, close, 5 + at % 7])
    };
    (0..rows).map(row).collect()
}

#[tokio::test]
async fn a_request_in_either_spelling_is_served_with_the_data_beside_it() {
    let world = World::new();
    let user = world.user("quant", "read write");
    let camel = json!({
        "symbol": "BTC/USD", "startTime": "2024-01-01T00:00:00Z", "endTime": "2024-01-01T05:00:00Z",
        "strategyName": "SMA_RSI", "topN": 2, "gaConfig": {"maxGenerations": 3, "populationSize": 10},
        "data": candles(400),
    });
    let snake = json!({
        "symbol": "BTC/USD", "start_time": BEGIN, "end_time": BEGIN + 300 * 60_000, "strategy_name": "SMA_RSI",
        "top_n": 2, "ga_config": {"max_generations": 3, "population_size": 10}, "data": candles(400),
    });
    let mut found = Vec::new();
    for body in [&camel, &snake] {
        let job = accepted(&user.post(PATH, body).await);
        let (event, done) = watched(user, &job).await.pop().unwrap();
        assert_eq!((event.as_str(), &done["kind"]), ("result", &json!("discover")));
        assert_eq!((&done["progress"]["total"], &done["progress"]["percent"]), (&json!(40), &json!(100.0)));
        let result = done["result"]["results"][0].clone();
        assert_eq!((&result["status"], &result["rows"]), (&json!("DONE"), &json!(300)));
        found.push((job, result));
    }
    let top = found[0].1["topStrategies"].as_array().unwrap().clone();
    assert_eq!(top.len(), 2);
    let first = &top[0];
    assert_eq!(first["strategy"]["strategyName"], "SMA_RSI");
    assert!(first["strategy"]["parameters"]["movingAveragePeriod"].is_u64());
    assert_eq!(first["startTime"], "2024-01-01T00:00:00Z");
    assert_eq!(first["endTime"], "2024-01-01T05:00:00Z");
    assert!(first["score"].as_f64().unwrap() >= top[1]["score"].as_f64().unwrap());
    // The same request finds the same.
    let other = &found[1].1["topStrategies"][0];
    assert_eq!((&first["strategy"], &first["score"]), (&other["strategy"], &other["score"]));
    // It is there by its id, to who asked for it, after a restart too.
    let id = first["id"].as_str().unwrap().to_owned();
    assert_eq!(id, format!("disc-{}-0-0", found[0].0));
    let path = format!("/calculations/strategies/{id}");
    assert_eq!(user.get(&path).await.ok()["strategy"], first["strategy"]);
    assert_eq!(world.user("eve", "read").get(&path).await.code(404), "not_found");
    let world = World::start(|_| (), world.stop().await);
    assert_eq!(world.reader().get(&path).await.ok()["strategy"], first["strategy"]);
    for id in [format!("{id}9"), "disc-x".to_owned(), "nothing".to_owned()] {
        assert_eq!(
            world.reader().get(&format!("/calculations/strategies/{id}")).await.code(404),
            "not_found"
        );
    }
}

#[tokio::test]
async fn many_requests_are_one_job_and_each_has_its_own_end() {
    let world = World::new();
    let user = world.user("quant", "read write");
    let request = |name: &str, from: i64, to: i64| {
        let (from, to) = (BEGIN + from * 60_000, BEGIN + to * 60_000);
        json!({"symbol": "ETH/USD", "strategyName": name, "startTime": from, "endTime": to, "topN": 1,
               "gaConfig": {"maxGenerations": 1, "populationSize": 4}, "seed": 7})
    };
    let mut rows = candles(300);
    rows[200] = json!([BEGIN + 200 * 60_000, 0, 0, 0, 0, 1]);
    let requests = [
        request("MACD_CROSSOVER", 0, 200),
        request("OBV_EMA", 0, 100),
        request("SMA_RSI", 1_000, 2_000),
        request("SMA_RSI", 100, 300),
    ];
    let job = accepted(&user.post(PATH, &json!({"requests": requests, "data": rows})).await);
    let (_, done) = watched(user, &job).await.pop().unwrap();
    assert_eq!((&done["strategy"], &done["progress"]["done"]), (&json!("several"), &json!(32)));
    let results = done["result"]["results"].as_array().unwrap();
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["DONE", "DONE", "INSUFFICIENT_DATA", "FAILED"]);
    assert_eq!(results[0]["seed"], 7);
    assert!(results[3]["detail"].as_str().unwrap().contains("row 100"));
    // Out of a stored series: the same rows, the same findings.
    let whole = request("OBV_EMA", 0, 100);
    let body = json!({"data": candles(200)}).to_string();
    let put = user.send("PUT", "/series/ETH/USD/1m", JSON, body.as_bytes()).await;
    assert_eq!(put.status, 201, "{}", put.text());
    let job = accepted(&user.post(PATH, &json!([whole])).await);
    let (_, stored) = watched(user, &job).await.pop().unwrap();
    let [sent, stored] =
        [&results[1], &stored["result"]["results"][0]].map(|result| &result["topStrategies"][0]);
    assert_eq!((&stored["strategy"], &stored["score"]), (&sent["strategy"], &sent["score"]));
    user.send("DELETE", "/series/ETH/USD/1m", "", b"").await.ok();
    // Nobody has stored these prices any longer.
    let list = json!([request("SMA_RSI", 0, 100)]);
    let job = accepted(&user.post(PATH, &list).await);
    let (_, done) = watched(user, &job).await.pop().unwrap();
    assert_eq!(done["result"]["results"][0]["status"], "INSUFFICIENT_DATA");
}

#[tokio::test]
async fn what_cannot_be_discovered_is_refused_with_the_request() {
    let world = World::new();
    let user = world.user("quant", "read write");
    let good = json!({"symbol": "BTC/USD", "strategyName": "SMA_RSI"});
    let cases: [(&str, Value, u16, &str, &str); 8] = [
        ("strategyName", json!("KST_OSCILLATOR"), 422, "not_available", "KST_OSCILLATOR"),
        ("strategyName", json!("SMA_RSY"), 422, "unknown_indicator", "did you mean `SMA_RSI`"),
        ("startTime", json!("soon"), 422, "unprocessable", "a time is milliseconds"),
        ("topN", json!(101), 422, "bad_parameter", "request 1: top_n"),
        ("seed", json!(1_u64 << 60), 422, "bad_parameter", "request 1: seed"),
        ("gaConfig", json!({"populationSize": 1_000_000}), 422, "unprocessable", "request 1: genetic"),
        ("gaConfig", json!({"populationSize": 1}), 422, "bad_parameter", "population is 2"),
        ("surprise", json!(1), 422, "unprocessable", "surprise"),
    ];
    for (name, value, status, code, detail) in cases {
        let mut bad = good.clone();
        bad[name] = value;
        let problem = user.post(PATH, &json!([good, bad])).await.problem(status);
        assert_eq!(problem["code"], code, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
    let refused = async |body: Value| {
        let problem = user.post(PATH, &body).await.problem(422);
        problem["detail"].as_str().unwrap().to_owned()
    };
    let backwards = json!({"symbol": "A", "strategyName": "SMA_RSI", "startTime": 5, "endTime": 5});
    assert!(refused(backwards).await.contains("before"));
    assert!(refused(json!({"symbol": "A"})).await.contains("needed"));
    assert!(refused(json!({"symbol": "A", "requests": []})).await.contains("not both"));
    assert!(refused(json!([])).await.contains("10000"));
    let many: Vec<_> = (0..10_001).map(|_| &good).collect();
    assert!(refused(json!(many)).await.contains("10000"));
    let closes = json!({"symbol": "A", "strategyName": "AROON_MFI", "data": {"close": [1, 2, 3]}});
    assert!(refused(closes).await.contains("column high"));
    let times =
        json!({"symbol": "A", "strategyName": "SMA_RSI", "startTime": 5, "data": {"close": [1, 2, 3]}});
    assert!(refused(times).await.contains("timestamps"));
    let reader = world.reader().post(PATH, &good).await;
    assert_eq!(reader.code(403), "insufficient_scope");
}

#[tokio::test]
async fn a_rule_tells_its_parameters() {
    let world = World::new();
    let rule = world.reader().get("/calculations/strategies/DONCHIAN_BREAKOUT").await.ok();
    assert_eq!((&rule["kind"], &rule["columns"]), (&json!("rule"), &json!(["high", "low"])));
    assert_eq!(rule["parameters"][0]["name"], "donchianPeriod");
    assert_eq!(rule["parameters"][0]["range"], json!([5.0, 60.0, 1.0]));
}

/// Events that an event worker was given, call by call; the first call finds it without a place.
type Given = Arc<Mutex<Vec<Vec<Value>>>>;

fn event_worker(socket: &Path, given: Given) -> JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    let app = Router::new().route("/events/batch", post(batch)).with_state(given);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
}

async fn batch(State(given): State<Given>, Json(body): Json<Value>) -> Response {
    let events = body["events"].as_array().unwrap().clone();
    let results: Vec<Value> = events.iter().map(|_| json!({"status": "published"})).collect();
    let mut given = given.lock().unwrap();
    given.push(events);
    if given.len() == 1 {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(json!({"published": results.len(), "duplicates": 0, "failed": 0, "results": results}))
        .into_response()
}

async fn until_published(user: User<'_>, job: &str) {
    let path = format!("/calculations/search/{job}");
    let waiting = async {
        while user.get(&path).await.ok()["outbox"] != "published" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("it is published");
}

#[tokio::test]
async fn what_is_discovered_is_published_once_the_event_worker_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("events.sock");
    let sockets = BTreeMap::from([(Role::Events, socket.clone())]);
    let start = |dir| World::beside(sockets.clone(), |_| (), dir);
    let request = json!({"symbol": "BTC/USD", "startTime": BEGIN, "strategyName": "SMA_RSI", "topN": 2,
        "gaConfig": {"maxGenerations": 2, "populationSize": 10}, "data": candles(300)});
    // Nobody is at the door.
    let world = start(Arc::new(tempfile::tempdir().unwrap()));
    let first = accepted(&world.user("quant", "read write").post(PATH, &request).await);
    let (_, done) = watched(world.reader(), &first).await.pop().unwrap();
    assert_eq!(done["outbox"], "waits");
    let world = start(world.stop().await);
    let given = Given::default();
    let task = event_worker(&socket, Arc::clone(&given));
    until_published(world.reader(), &first).await;
    // After another start nothing is said again.
    let world = start(world.stop().await);
    let second = accepted(&world.user("quant", "read write").post(PATH, &request).await);
    until_published(world.reader(), &second).await;
    let given = given.lock().unwrap().clone();
    assert_eq!(given.len(), 3);
    assert_eq!(given[0], given[1], "what found no place is sent again as it was");
    let event = &given[1][0];
    let found = &done["result"]["results"][0]["topStrategies"][0];
    assert_eq!((&event["event_type"], given[1].len()), (&json!("strategy_discovered"), 2));
    assert_eq!(event["metadata"]["topic"], "discovered-strategies");
    assert_eq!(event["metadata"]["id"], found["id"]);
    for name in ["strategy", "score", "symbol", "startTime", "endTime"] {
        assert_eq!(event["data"][name], found[name], "{name}");
    }
    assert_eq!(event["data"].as_object().unwrap().len(), 5);
    let ids: std::collections::BTreeSet<_> =
        given[1..].iter().flatten().map(|event| event["event_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 4);
    task.abort();
}
