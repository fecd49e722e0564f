//! `/calculations/search`: jobs over the wire.

use serde_json::{Value, json};
use sluice_calc::search::{Method, Rank, Space, Task, Terms, Trials, find};
use sluice_calc::{Bars, Cpu, Workspace};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::world::{Answer, DEADLINE, User, World};

const PATH: &str = "/calculations/search";

fn wave(rows: usize) -> Vec<f64> {
    (0..rows).map(|at| 100.0 + 10.0 * (at as f64 / 9.0).sin() + (at * 7 % 13) as f64 / 5.0).collect()
}

/// A search of 30 combinations.
fn short() -> Value {
    json!({
        "data": {"close": wave(400)}, "strategy": "sma_crossover", "fee": 0.001, "top_n": 3,
        "parameters": {"fast": {"range": [3, 8, 1]}, "slow": [10, 15, 20, 25, 30]},
    })
}

/// A search that nobody waits for.
fn endless() -> Value {
    let values = json!({"range": [1, 4000, 1]});
    json!({
        "data": {"close": wave(5_000)}, "strategy": "sma_crossover",
        "parameters": {"fast": values, "slow": values},
    })
}

pub(crate) fn accepted(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{}", answer.text());
    let told = answer.json();
    let job = told["job"].as_str().unwrap().to_owned();
    assert_eq!(told["url"], format!("{PATH}/{job}"));
    assert_eq!(answer.header("location"), told["url"].as_str());
    job
}

async fn begin(user: User<'_>, body: &Value) -> String {
    accepted(&user.post(PATH, body).await)
}

async fn told(user: User<'_>, job: &str) -> Value {
    user.get(&format!("{PATH}/{job}")).await.ok()
}

async fn end(user: User<'_>, job: &str) -> Value {
    user.send("DELETE", &format!("{PATH}/{job}"), "", b"").await.ok()
}

/// Watches a job to its end: every event with its data.
pub(crate) async fn watched(user: User<'_>, job: &str) -> Vec<(String, Value)> {
    let path = format!("{PATH}/{job}");
    let stream = user.begin("GET", &path, "accept: text/event-stream\r\n", b"").await;
    let mut lines = BufReader::new(stream).lines();
    let reading = async {
        let (mut events, mut event, mut ids) = (Vec::new(), String::new(), 0);
        while let Some(line) = lines.next_line().await.unwrap() {
            match line.split_once(": ") {
                Some(("id", id)) => {
                    ids += 1;
                    assert_eq!(id, ids.to_string());
                }
                Some(("event", name)) => name.clone_into(&mut event),
                Some(("data", data)) => events.push((event.clone(), serde_json::from_str(data).unwrap())),
                _ => {}
            }
        }
        events
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("the stream ends")
}

#[tokio::test]
async fn a_grid_answers_what_the_library_finds() {
    let world = World::new();
    let user = world.reader();
    let answer = user.post(PATH, &short()).await;
    assert_eq!(answer.json()["combinations"], 30);
    let job = accepted(&answer);
    let events = watched(user, &job).await;
    let (last, done) = events.last().unwrap();
    assert_eq!((last.as_str(), done["status"].as_str()), ("result", Some("done")));
    assert!(events[..events.len() - 1].iter().all(|(event, _)| event == "progress"));
    assert_eq!((&done["progress"]["percent"], &done["progress"]["total"]), (&json!(100.0), &json!(30)));
    assert_eq!(told(user, &job).await["result"], done["result"]);

    let (close, terms) = (wave(400), Terms { short: false, cost: 0.001, periods_per_year: 252.0 });
    let given: [(&str, &[f64]); 2] =
        [("fast", &[3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), ("slow", &[10.0, 15.0, 20.0, 25.0, 30.0])];
    let space = Space::new(find("sma_crossover").unwrap(), &given).unwrap();
    let task = Task::new(&space, Bars::from_close(&close), terms, Rank::Sharpe, 3).unwrap();
    let work = Workspace::new(Cpu::proven().unwrap());
    let mut trials = Trials::new(&task, work);
    let best = trials.search(&Method::Grid, 0..400, &mut |_, _| true).unwrap();
    let top = done["result"]["top"].as_array().unwrap();
    assert_eq!(top.len(), 3);
    for (one, found) in top.iter().zip(best.found()) {
        for (name, value) in space.named(found.number) {
            assert_eq!(one["parameters"][name].as_f64(), Some(value));
        }
        assert_eq!(one["score"].as_f64(), found.figures.sharpe.ok());
        assert_eq!(one["metrics"]["total_return"].as_f64(), Some(found.figures.total_return));
        assert_eq!(one["metrics"]["trades"].as_u64(), Some(u64::from(found.figures.trades)));
        let deflated = trials.deflated(found.number, 0..400, &best).unwrap();
        assert_eq!(one["metrics"]["dsr"].as_f64(), Some(deflated.unwrap()));
    }
    assert_eq!(world.metric("sluice_calc_jobs{state=\"done\"}").await, 1.0);
}

#[tokio::test]
async fn the_same_seed_finds_the_same() {
    let world = World::new();
    let user = world.reader();
    let mut body = short();
    body["method"] = json!("genetic");
    body["genetic"] = json!({"population": 10, "generations": 5});
    body["rank"] = json!("score");
    let mut seen = Vec::new();
    for seed in [None, None, Some(1)] {
        if let Some(seed) = seed {
            body["seed"] = json!(seed);
        }
        let answer = user.post(PATH, &body).await;
        let job = accepted(&answer);
        let done = watched(user, &job).await.pop().unwrap().1;
        assert_eq!(done["progress"]["total"], 60);
        seen.push((answer.json()["seed"].clone(), job, done["result"].to_string()));
    }
    assert_eq!((&seen[0].0, &seen[0].2), (&seen[1].0, &seen[1].2));
    assert_ne!(seen[0].1, seen[1].1);
    assert_eq!(seen[2].0, 1);
}

#[tokio::test]
async fn a_search_is_validated_by_walking_forward() {
    let world = World::new();
    let user = world.reader();
    let mut body = short();
    let rows: Vec<Value> = wave(400)
        .iter()
        .enumerate()
        .map(|(at, close)| json!([at * 60_000, close, close, close, close, 1]))
        .collect();
    body["data"] = json!(rows);
    body["walk_forward"] = json!({"train": 200, "test": 50, "step": 50, "min_windows": 2});
    let job = begin(user, &body).await;
    let done = watched(user, &job).await.pop().unwrap().1;
    assert_eq!(done["progress"]["total"], 150);
    let walked = &done["result"]["walk_forward"];
    let windows = walked["windows"].as_array().unwrap();
    assert_eq!(windows.len(), 4);
    assert_eq!(
        windows[1]["train"],
        json!({"from": 50, "to": 250, "from_ms": 3_000_000, "last_ms": 14_940_000})
    );
    assert_eq!(windows[1]["test"]["to"], 300);
    assert!(windows[1]["parameters"]["fast"].is_u64());
    assert!(["APPROVED", "REJECTED"].contains(&walked["status"].as_str().unwrap()));
    body["walk_forward"]["min_windows"] = json!(5);
    let job = begin(user, &body).await;
    let done = watched(user, &job).await.pop().unwrap().1;
    assert_eq!(done["result"]["walk_forward"]["status"], "INSUFFICIENT_DATA");
}

#[tokio::test]
async fn a_running_search_lets_requests_through_and_is_cancelled() {
    let world = World::with(|config| config.calc.threads = 1);
    let user = world.reader();
    let job = begin(user, &endless()).await;
    world.until("sluice_calc_jobs{state=\"running\"}", |running| running == 1.0).await;
    let small = json!({"data": {"close": wave(50)}, "indicators": ["rsi"]});
    for _ in 0..20 {
        user.post("/calculations/indicators", &small).await.ok();
    }
    let now = told(user, &job).await;
    assert_eq!((&now["status"], now["result"].is_null()), (&json!("running"), true));
    let watching = watched(user, &job);
    let ending = async {
        world.until("sluice_calc_queue_depth", |_| true).await;
        end(user, &job).await
    };
    let (events, ended) = tokio::join!(watching, ending);
    assert_eq!((&ended["status"], &ended["removed"]), (&json!("cancelled"), &json!(false)));
    let (event, last) = events.last().unwrap();
    assert_eq!((event.as_str(), &last["status"]), ("failed", &json!("cancelled")));
    // Its thread is free: another one is done.
    let next = begin(user, &short()).await;
    assert_eq!(watched(user, &next).await.pop().unwrap().0, "result");
    assert_eq!(end(user, &job).await["removed"], true);
    assert_eq!(user.get(&format!("{PATH}/{job}")).await.code(404), "not_found");
    assert_eq!(user.send("DELETE", &format!("{PATH}/{job}"), "", b"").await.code(404), "not_found");
    assert_eq!(world.metric("sluice_calc_jobs{state=\"cancelled\"}").await, 0.0);
}

#[tokio::test]
async fn a_thread_is_free_soon_after_its_search_is_cancelled() {
    let world = World::new();
    let user = world.reader();
    let mut genetic = endless();
    genetic["method"] = json!("genetic");
    genetic["genetic"] = json!({"population": 1_000, "generations": 900});
    let mut grid = endless();
    // As long a series as one search may go through.
    grid["data"] = json!({"close": wave(100_000)});
    let values = json!({"range": [1, 1400, 1]});
    grid["parameters"] = json!({"fast": values, "slow": values});
    for body in [grid, genetic] {
        let jobs = [begin(user, &body).await, begin(user, &body).await];
        world.until("sluice_calc_jobs{state=\"running\"}", |running| running == 2.0).await;
        let next = begin(user, &short()).await;
        let ended = std::time::Instant::now();
        end(user, &jobs[0]).await;
        assert_eq!(watched(user, &next).await.pop().unwrap().0, "result");
        // 20 ms alone; other tests run beside this one.
        assert!(ended.elapsed().as_millis() < 1_000, "{:?}", ended.elapsed());
        end(user, &jobs[1]).await;
        world.until("sluice_calc_jobs{state=\"running\"}", |running| running == 0.0).await;
    }
}

#[tokio::test]
async fn two_run_and_sixteen_wait() {
    let world = World::new();
    let user = world.reader();
    let mut jobs = vec![begin(user, &endless()).await, begin(user, &endless()).await];
    world.until("sluice_calc_jobs{state=\"running\"}", |running| running == 2.0).await;
    for _ in 0..8 {
        jobs.push(begin(user, &short()).await);
    }
    let refused = user.post(PATH, &short()).await;
    assert_eq!(refused.code(429), "queue_full");
    assert!(refused.text().contains("one owner"), "{}", refused.text());
    let other = world.user("other", "read");
    for _ in 0..8 {
        begin(other, &short()).await;
    }
    assert_eq!(world.metric("sluice_calc_jobs{state=\"queued\"}").await, 16.0);
    let refused = world.user("third", "read").post(PATH, &short()).await;
    assert_eq!(refused.code(429), "queue_full");
    assert_eq!(refused.header("retry-after"), Some("5"));
    // One that waits is cancelled: its place is free.
    let waiting = jobs.pop().unwrap();
    assert_eq!(end(user, &waiting).await["status"], "cancelled");
    jobs.push(begin(user, &short()).await);
    for job in &jobs[..2] {
        end(user, job).await;
    }
    for job in &jobs[2..] {
        assert_eq!(watched(user, job).await.pop().unwrap().0, "result");
    }
}

#[tokio::test]
async fn after_a_restart_results_are_there_and_what_ran_has_failed() {
    let world = World::new();
    let done = begin(world.reader(), &short()).await;
    let result = watched(world.reader(), &done).await.pop().unwrap().1;
    let ran = begin(world.reader(), &endless()).await;
    world.until("sluice_calc_jobs{state=\"running\"}", |running| running == 1.0).await;
    let world = World::start(|_| (), world.stop().await);
    let user = world.reader();
    assert_eq!(told(user, &done).await["result"], result["result"]);
    let failed = told(user, &ran).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("restarted")));
    let (event, last) = watched(user, &ran).await.pop().unwrap();
    assert_eq!((event.as_str(), &last["error"]["code"]), ("failed", &json!("restarted")));
    let listed = user.get(PATH).await.ok();
    let ids: Vec<_> =
        listed["jobs"].as_array().unwrap().iter().map(|job| job["job"].as_str().unwrap()).collect();
    assert_eq!(ids, [&ran, &done]);
}

#[tokio::test]
async fn jobs_are_their_owners_and_listed_by_pages() {
    let world = World::new();
    let (user, other) = (world.reader(), world.user("eve", "read"));
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let job = begin(user, &short()).await;
        watched(user, &job).await;
        jobs.push(job);
    }
    let path = format!("{PATH}/{}", jobs[0]);
    assert_eq!(other.get(&path).await.code(404), "not_found");
    assert_eq!(other.send("DELETE", &path, "", b"").await.code(404), "not_found");
    assert_eq!(other.get(PATH).await.ok()["count"], 0);
    assert_eq!(world.admin().get(&path).await.ok()["owner"], "quant");
    assert_eq!(world.admin().get(PATH).await.ok()["count"], 3);
    let first = user.get(&format!("{PATH}?limit=2&status=done")).await.ok();
    assert_eq!((&first["jobs"][0]["job"], &first["next_cursor"]), (&json!(jobs[2]), &json!(jobs[1])));
    let rest = user.get(&format!("{PATH}?limit=2&cursor={}", jobs[1])).await.ok();
    assert_eq!((&rest["jobs"][0]["job"], &rest["next_cursor"]), (&json!(jobs[0]), &Value::Null));
    assert_eq!(user.get(&format!("{PATH}?status=failed")).await.ok()["count"], 0);
    for query in ["limit=0", "limit=101", "status=odd", "page=2"] {
        assert_eq!(user.get(&format!("{PATH}?{query}")).await.code(400), "bad_query", "{query}");
    }
}

#[tokio::test]
async fn what_cannot_be_searched_is_refused_with_the_reason() {
    let world = World::new();
    let user = world.reader();
    let many: Vec<f64> = (1..=4_096).map(f64::from).collect();
    let cases: [(&str, Value, &str, &str); 24] = [
        ("strategy", json!("sma_crosover"), "unknown_indicator", "did you mean `sma_crossover`"),
        ("parameters", json!({"fats": [1]}), "bad_parameter", "its parameters are fast, slow"),
        ("parameters", json!({"fast": []}), "bad_parameter", "at least 1"),
        ("parameters", json!({"fast": {"range": [1, 5, 0]}}), "bad_parameter", "a step above 0"),
        ("parameters", json!({"fast": {"range": [1, 1e9, 1]}}), "bad_parameter", "at most 4096 values"),
        ("parameters", json!({"fast": 2.5}), "bad_parameter", "whole number"),
        ("parameters", json!({"fast": 30, "slow": 20}), "bad_parameter", "order"),
        ("parameters", json!({"fast": "3"}), "unprocessable", "Values"),
        ("method", json!("random"), "unprocessable", "grid"),
        ("genetic", json!({}), "bad_parameter", "method `genetic`"),
        ("fee", json!(1), "bad_parameter", "fee and slippage"),
        ("slippage", json!(-0.1), "bad_parameter", "fee and slippage"),
        ("rank", json!("beauty"), "bad_parameter", "sharpe, score"),
        ("top_n", json!(101), "bad_parameter", "1 to 100"),
        ("seed", json!(1_u64 << 53), "bad_parameter", "9007199254740991"),
        ("walk_forward", json!({"train": 1, "test": 5}), "bad_parameter", "2 bars or more"),
        ("walk_forward", json!({"train": 2, "test": 2, "step": 0}), "bad_parameter", "1 or more"),
        ("nan", json!("propagate"), "bad_parameter", "propagate"),
        ("data", json!({"close": [1.0, 0.0, 2.0]}), "bad_series", "row 1"),
        ("data", json!({"close": [1.0]}), "bad_series", "two bars"),
        ("data", Value::Null, "unprocessable", "data"),
        ("strategy", json!("breakout"), "unprocessable", "column high"),
        ("periods_per_year", json!(0), "bad_parameter", "periods_per_year"),
        ("surprise", json!(1), "unprocessable", "surprise"),
    ];
    for (name, value, code, detail) in cases {
        let mut body = short();
        if name == "strategy" && value == "breakout" {
            body["parameters"] = json!({});
        }
        body[name] = value;
        let problem = user.post(PATH, &body).await.problem(422);
        assert_eq!(problem["code"], code, "{name}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{name}: {problem}");
    }
    let genetic = |fields: Value| {
        let mut body = short();
        body["method"] = json!("genetic");
        body["genetic"] = fields;
        body
    };
    let closes = wave(20_000);
    let limited = [
        (genetic(json!({"population": 100_000, "generations": 10})), "1000000"),
        (genetic(json!({"population": 1})), "population is 2 or more"),
        (genetic(json!({"tournament": 51})), "tournament"),
        (genetic(json!({"mutation": 1.5})), "mutation"),
        (
            json!({"data": {"close": closes}, "strategy": "sma_crossover", "parameters": {"fast": many, "slow": many}}),
            "200000000000",
        ),
        (
            json!({"data": {"close": [1, 2, 3]}, "strategy": "stochastic",
                   "parameters": {"fast_k": many, "slow_d": many, "oversold": (0..99).collect::<Vec<_>>()}}),
            "column high",
        ),
        (
            json!({"data": {"close": closes}, "strategy": "rsi", "walk_forward": {"train": 10, "test": 10}}),
            "1000",
        ),
    ];
    for (body, detail) in limited {
        let problem = user.post(PATH, &body).await.problem(422);
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
    assert_eq!(user.get(PATH).await.ok()["count"], 0);
}

#[tokio::test]
async fn a_search_goes_over_rows_of_a_stored_series() {
    let world = World::new();
    let user = world.user("quant", "read write");
    let row = |(at, close): (usize, &f64)| json!([at * 60_000, close, close, close, close, 1]);
    let rows: Vec<Value> = wave(400).iter().enumerate().map(row).collect();
    let body = json!({"data": rows}).to_string();
    let path = "/series/BTC/USD/1m";
    let put = user.send("PUT", path, "content-type: application/json\r\n", body.as_bytes()).await;
    assert_eq!(put.status, 201, "{}", put.text());
    let mut tops = Vec::new();
    for stored in [false, true] {
        let mut body = short();
        body["timeframe"] = json!("1m");
        body["data"] = json!({"close": wave(400)[100..300]});
        if stored {
            body = json!({"series": "BTC/USD/1m", "from": 100 * 60_000, "to": 300 * 60_000});
            for name in ["strategy", "fee", "top_n", "parameters"] {
                body[name] = short()[name].clone();
            }
        }
        let job = begin(user, &body).await;
        tops.push(watched(user, &job).await.pop().unwrap().1["result"]["top"].clone());
    }
    assert_eq!(tops[0], tops[1]);
    let nobody = json!({"series": "BTC/USD/1h", "strategy": "rsi"});
    assert_eq!(user.post(PATH, &nobody).await.code(422), "bad_series");
}

#[tokio::test]
async fn a_search_takes_columns_and_csv_as_well() {
    let world = World::new();
    let user = world.reader();
    let csv: String = std::iter::once("close".to_owned())
        .chain(wave(400).iter().map(f64::to_string))
        .collect::<Vec<_>>()
        .join("\n");
    let path = format!("{PATH}?request=%7B%22strategy%22%3A%22rsi%22%7D");
    let answer = user.send("POST", &path, "content-type: text/csv\r\n", csv.as_bytes()).await;
    let job = accepted(&answer);
    let done = watched(user, &job).await.pop().unwrap().1;
    assert_eq!((&done["strategy"], &done["rows"]), (&json!("rsi"), &json!(400)));
}

#[tokio::test]
async fn watchers_are_bounded_and_one_that_leaves_makes_room() {
    const WATCHERS_MAX: usize = 256;
    let world = World::new();
    let user = world.reader();
    let job = begin(user, &endless()).await;
    let path = format!("{PATH}/{job}");
    let watch = async || {
        let mut stream = user.begin("GET", &path, "accept: text/event-stream\r\n", b"").await;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        (String::from_utf8_lossy(&status[9..]).into_owned(), stream)
    };
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS_MAX {
        let (status, stream) = watch().await;
        assert_eq!(status, "200");
        watchers.push(stream);
    }
    let refused = user.send("GET", &path, "accept: text/event-stream\r\n", b"").await;
    assert_eq!(refused.code(429), "queue_full");
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(world.metric("sluice_calc_rejected_total{reason=\"queue_full\"}").await, 1.0);
    // Who only asks needs no place.
    assert_eq!(told(user, &job).await["job"], job.as_str());
    watchers.pop();
    let waiting = async { while watch().await.0 != "200" {} };
    tokio::time::timeout(DEADLINE, waiting).await.expect("a place becomes free");
    end(user, &job).await;
}
