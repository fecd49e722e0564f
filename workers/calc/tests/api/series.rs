//! Stored series: what is put, added, read, computed over and deleted.

use serde_json::{Value, json};

use crate::world::{Answer, User, World};

const PATH: &str = "/series/BTC/USDT/1m";
const MINUTE: i64 = 60_000;
const JSON: &str = "content-type: application/json\r\n";

const fn writer(world: &World) -> User<'_> {
    world.user("desk", "read write")
}

/// A candle of a minute.
fn row(minute: i64) -> Value {
    let close = 100.0 + (minute * 7 % 13) as f64 / 4.0;
    json!([minute * MINUTE, close, close + 2.0, close - 1.5, close + 0.25, (10 + minute) as f64])
}

fn rows(minutes: std::ops::Range<i64>) -> Vec<Value> {
    minutes.map(row).collect()
}

async fn put(user: User<'_>, path: &str, body: &Value) -> Answer {
    user.send("PUT", path, JSON, body.to_string().as_bytes()).await
}

async fn add(user: User<'_>, body: &Value) -> Value {
    user.post(&format!("{PATH}/candles"), body).await.ok()
}

#[tokio::test]
async fn a_series_is_put_read_listed_replaced_and_deleted() {
    let world = World::new();
    let user = writer(&world);
    let first = put(user, PATH, &json!({"data": rows(0..5)})).await;
    assert_eq!(first.status, 201, "{}", first.text());
    let first = first.json();
    assert_eq!((&first["rows"], &first["first"], &first["last"]), (&json!(5), &json!(0), &json!(4 * MINUTE)));
    assert_eq!((&first["gaps"], &first["durability"]), (&json!([]), &json!("fsync")));
    let read = user.get(PATH).await.ok();
    assert_eq!(read["data"], json!(rows(0..5)), "{read}");
    assert_eq!((&read["count"], &read["total"], &read["next_cursor"]), (&json!(5), &json!(5), &Value::Null));
    let again = put(user, PATH, &json!({"data": rows(10..13), "open": true})).await;
    assert_eq!((again.status, &again.json()["rows"]), (200, &json!(2)));
    let read = user.get(PATH).await.ok();
    assert_eq!((&read["data"], &read["open"]), (&json!(rows(10..12)), &row(12)));
    put(user, "/series/AAPL/1d", &json!({"data": rows(0..1)})).await;
    let list = user.get("/series?limit=1").await.ok();
    assert_eq!((&list["series"][0]["symbol"], &list["next_cursor"]), (&json!("AAPL"), &json!("AAPL/1d")));
    let list = user.get("/series?cursor=AAPL/1d").await.ok();
    assert_eq!(list["next_cursor"], Value::Null);
    let one = &list["series"][0];
    assert_eq!(
        (&one["symbol"], &one["timeframe"], &one["rows"]),
        (&json!("BTC/USDT"), &json!("1m"), &json!(2))
    );
    assert_eq!((&one["open"], &one["bytes"]), (&json!(12 * MINUTE), &json!(4_096 + 48 * 1_024)));
    assert_eq!(world.metric("sluice_calc_series").await, 2.0);
    let deleted = user.send("DELETE", PATH, "", b"").await.ok();
    assert_eq!(deleted, json!({"deleted": true, "rows": 2}));
    assert_eq!(user.get(PATH).await.code(404), "not_found");
    assert_eq!(user.send("DELETE", PATH, "", b"").await.code(404), "not_found");
}

#[tokio::test]
async fn candles_are_added_once_and_what_became_of_each_is_told() {
    let world = World::new();
    let user = writer(&world);
    let told = add(user, &json!({"data": rows(0..3)})).await;
    assert_eq!((&told["applied"], &told["rows"], &told["gaps"]), (&json!(3), &json!(3), &json!([])));
    let told = add(user, &json!({"data": rows(0..3)})).await;
    assert_eq!((&told["applied"], &told["repeated"]), (&json!(0), &json!(3)));
    // Minutes 3 to 5 are missing; the forming bar takes any numbers until a later one begins.
    let told = add(user, &json!({"data": rows(6..8), "open": true})).await;
    assert_eq!((&told["applied"], &told["updated_open"]), (&json!(1), &json!(1)));
    let gap = json!([{"from": 3 * MINUTE, "to": 5 * MINUTE, "missing": 3}]);
    assert_eq!(told["gaps"], gap);
    let other = json!([7 * MINUTE, 1, 2, 0.5, 1.5, 3]);
    let told = add(user, &json!({"data": [other], "open": true})).await;
    assert_eq!((&told["updated_open"], &told["rows"]), (&json!(1), &json!(4)));
    let told = add(user, &json!({"data": rows(8..9), "open": true})).await;
    assert_eq!((&told["applied"], &told["updated_open"], &told["rows"]), (&json!(1), &json!(1), &json!(5)));
    let read = user.get(&format!("{PATH}?last=1")).await.ok();
    assert_eq!(read["data"][0], json!([7 * MINUTE, 1.0, 2.0, 0.5, 1.5, 3.0]), "closed as it was last seen");
    // Closed rows do not change.
    let told = add(user, &json!({"data": [other, row(8)]})).await;
    assert_eq!((&told["repeated"], &told["applied"]), (&json!(1), &json!(1)));
    let told = add(user, &json!({"data": [json!([4 * MINUTE, 1, 2, 0.5, 1.5, 3]), row(7)]})).await;
    assert_eq!(told["late"], json!([{"timestamp": 4 * MINUTE}]));
    assert_eq!(
        (&told["conflicts"], &told["conflict_count"]),
        (&json!([{"timestamp": 7 * MINUTE}]), &json!(1))
    );
    let gaps = user.get(&format!("{PATH}/gaps")).await.ok();
    assert_eq!((&gaps["gaps"], &gaps["next_cursor"]), (&gap, &Value::Null));
    for (result, count) in
        [("applied", 6.0), ("repeated", 4.0), ("updated_open", 3.0), ("conflict", 1.0), ("late", 1.0)]
    {
        let sample = format!("sluice_calc_candles_total{{result=\"{result}\"}}");
        assert_eq!(world.metric(&sample).await, count, "{result}");
    }
}

#[tokio::test]
async fn rows_come_in_pages_of_a_span() {
    let world = World::new();
    let user = writer(&world);
    put(user, PATH, &json!({"data": rows(0..50)})).await;
    let read = async |query: &str| user.get(&format!("{PATH}?{query}")).await.ok();
    assert_eq!(read("from=60000&to=180000").await["data"], json!(rows(1..3)));
    assert_eq!(read("from=1970-01-01T00:48:00Z").await["data"], json!(rows(48..50)));
    assert_eq!(read("last=2&to=600000").await["data"], json!(rows(8..10)));
    let mut found = Vec::new();
    let mut query = "from=60000&last=40&limit=15".to_owned();
    loop {
        let page = read(&query).await;
        found.extend(page["data"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("from=60000&last=40&limit=15&cursor={cursor}");
    }
    assert_eq!(found, rows(10..50));
    for query in ["limit=0", "limit=100001", "last=0", "from=never", "strange=1", "cursor=x"] {
        assert_eq!(user.get(&format!("{PATH}?{query}")).await.code(400), "bad_query", "{query}");
    }
    for path in ["/series?limit=1001", "/series?cursor=x", "/series/BTC/USDT/1m/gaps?limit=0"] {
        assert_eq!(user.get(path).await.code(400), "bad_query", "{path}");
    }
}

#[tokio::test]
async fn every_form_comes_in_and_goes_out_with_the_same_bits() {
    let world = World::new();
    let user = writer(&world);
    put(user, PATH, &json!({"data": rows(0..20)})).await;
    let wanted = user.get(PATH).await.ok()["data"].clone();
    for media in ["application/vnd.apache.arrow.stream", "application/x-sluice-columns", "text/csv"] {
        let out = user.send("GET", PATH, &format!("accept: {media}\r\n"), b"").await;
        assert_eq!((out.status, out.header("content-type")), (200, Some(media)), "{}", out.head);
        let copy = "/series/COPY/1m";
        let headers = format!("content-type: {media}\r\n");
        let put = user.send("PUT", copy, &headers, &out.body).await;
        assert!(put.status < 300, "{media}: {}", put.text());
        assert_eq!(user.get(copy).await.ok()["data"], wanted, "{media}");
        user.send("DELETE", copy, "", b"").await.ok();
    }
    let csv = b"timestamp,open,high,low,close\n60000,1,2,0.5,1.5\n120000,1,2,0.5,1.5\n";
    let query = "/series/X/1m/candles?request=%7B%22open%22%3Atrue%7D";
    let told = user.send("POST", query, "content-type: text/csv\r\n", csv).await.ok();
    assert_eq!((&told["applied"], &told["updated_open"]), (&json!(1), &json!(1)));
    assert_eq!(user.get(PATH).await.status, 200);
    assert_eq!(user.send("GET", PATH, "accept: image/png\r\n", b"").await.code(406), "not_acceptable");
    assert_eq!(
        user.send("PUT", PATH, "content-type: text/html\r\n", b"").await.code(415),
        "unsupported_media_type"
    );
}

#[tokio::test]
async fn what_cannot_be_a_series_is_refused_and_nothing_of_it_is_kept() {
    let world = World::with(|config| {
        config.calc.rows = 30;
        config.calc.series_bytes = 64 << 10;
    });
    let user = writer(&world);
    let fault = put(user, PATH, &json!({"data": [row(1), row(0)]})).await.problem(422);
    assert_eq!((&fault["code"], &fault["index"]), (&json!("bad_series"), &json!(1)));
    let fault = put(user, PATH, &json!({"data": [[0, 5, 1, 2, 3, 4]]})).await.problem(422);
    assert_eq!(fault["index"], 0);
    for body in [
        json!({"data": []}),
        json!({}),
        json!({"data": {"close": [1.0]}}),
        json!({"data": rows(0..31)}),
        json!({"data": rows(0..2), "symbol": "ETH/USDT"}),
        json!({"data": rows(0..2), "strange": 1}),
        json!({"data": [[0.5, 1, 2, 0.5, 1, 1]]}),
    ] {
        assert_eq!(put(user, PATH, &body).await.status, 422, "{body}");
        assert_eq!(user.post(&format!("{PATH}/candles"), &body).await.status, 422, "{body}");
    }
    assert_eq!(user.get("/series").await.ok()["series"], json!([]));
    assert_eq!(put(user, PATH, &json!({"data": rows(0..2)})).await.status, 201);
    let full = put(user, "/series/ETH/1m", &json!({"data": rows(0..2)})).await.problem(507);
    assert_eq!((&full["code"], &full["outcome"]), (&json!("store_full"), &json!("not_sent")));
    assert!(full["detail"].as_str().unwrap().contains("calc.series_bytes"), "{full}");
    let reader = world.reader();
    assert_eq!(put(reader, PATH, &json!({"data": rows(0..2)})).await.code(403), "insufficient_scope");
    assert_eq!(reader.send("DELETE", PATH, "", b"").await.code(403), "insufficient_scope");
    for (path, status) in [
        ("/series/BTC/USDT", 400),
        ("/series/a/b/c/1m", 400),
        ("/series/BTC/USDT/1m/strange", 404),
        ("/series/ETH/USDT/1m", 404),
        ("/series/ETH/USDT/1m/gaps", 404),
        ("/series/ETH/USDT/1m/indicators?names=rsi", 404),
    ] {
        assert_eq!(user.get(path).await.status, status, "{path}");
    }
    assert_eq!(user.post("/series/BTC/USDT/1m/strange", &json!({})).await.code(404), "not_found");
    assert_eq!(put(user, "/series/BTC/USDT/1m/candles", &json!({})).await.code(404), "not_found");
    assert_eq!(user.send("DELETE", "/series/BTC/USDT/1m/candles", "", b"").await.code(404), "not_found");
}

#[tokio::test]
async fn a_symbol_is_never_a_way_out_of_the_folder() {
    let world = World::new();
    let user = writer(&world);
    for symbol in ["..", "../..", "./.", ".", "a/.."] {
        let path = format!("/series/{symbol}/1m");
        assert_eq!(put(user, &path, &json!({"data": rows(0..1)})).await.status, 201, "{symbol}");
        assert_eq!(user.get(&path).await.ok()["symbol"], symbol);
    }
    let folder = world.dir.path().join("calc/series");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 5);
    for entry in std::fs::read_dir(&folder).unwrap() {
        assert!(entry.unwrap().file_type().unwrap().is_file());
    }
}

#[tokio::test]
async fn series_outlive_the_worker() {
    let world = World::new();
    add(writer(&world), &json!({"data": rows(0..30), "open": true})).await;
    let before = world.reader().get(PATH).await.ok();
    let world = World::start(|_| (), world.stop().await);
    assert_eq!(world.reader().get(PATH).await.ok(), before);
    assert_eq!(world.metric("sluice_calc_series").await, 1.0);
}

#[tokio::test]
async fn indicators_follow_a_series_bar_by_bar() {
    let world = World::new();
    let user = writer(&world);
    put(user, PATH, &json!({"data": rows(0..60)})).await;
    let names = "rsi,ema:21,macd";
    let asks = json!(["rsi", {"name": "ema", "period": 21, "id": "ema:21"}, "macd"]);
    let calculated = async |count: i64| {
        let body = json!({"data": rows(0..count), "indicators": asks, "output": "last"});
        user.post("/calculations/indicators", &body).await.ok()["indicators"].clone()
    };
    let first = user.get(&format!("{PATH}/indicators?names={names}")).await.ok();
    assert_eq!(first["indicators"], calculated(60).await);
    assert_eq!((&first["timestamps"], &first["open"]), (&json!([59 * MINUTE]), &Value::Null));
    // More rows, and one that is forming: its values are those that it will have when it closes so.
    add(user, &json!({"data": rows(60..90), "open": true})).await;
    let next = user.get(&format!("{PATH}/indicators?names={names}")).await.ok();
    assert_eq!(next["indicators"], calculated(89).await);
    assert_eq!(next["open"]["timestamp"], 89 * MINUTE);
    let closed = calculated(90).await;
    for (id, output) in [("rsi", "value"), ("ema:21", "value"), ("macd", "histogram")] {
        assert_eq!(next["open"]["values"][id][output], closed[id][output][0], "{id}");
    }
    let several = user.get(&format!("{PATH}/indicators?names={names}&last=3")).await.ok();
    assert_eq!(several["timestamps"], json!([86 * MINUTE, 87 * MINUTE, 88 * MINUTE]));
    assert_eq!(several["indicators"]["rsi"]["value"][2], next["indicators"]["rsi"]["value"][0]);
    assert_eq!(several["open"], next["open"]);
    // A list in JSON, other conventions, and a series that is replaced below it.
    let list = "%5B%7B%22name%22%3A%22sma%22%2C%22period%22%3A2%7D%5D";
    let path = format!("{PATH}/indicators?names={list}&compat=tradingview");
    assert_eq!(user.get(&path).await.ok()["count"], 1);
    put(user, PATH, &json!({"data": rows(0..1)})).await;
    assert_eq!(user.get(&path).await.ok()["indicators"]["sma"]["value"], json!([null]));
    let refused = async |query: &str| user.get(&format!("{PATH}/indicators?{query}")).await;
    assert_eq!(refused("names=rsii").await.code(422), "unknown_indicator");
    assert_eq!(refused("names=ema:x").await.code(422), "bad_parameter");
    assert_eq!(refused("names=ema:1000000000").await.code(422), "bad_parameter");
    assert_eq!(refused("names=rsi,rsi").await.code(422), "unprocessable");
    assert_eq!(refused("names=[]").await.code(422), "bad_parameter");
    assert_eq!(refused("names=rsi&compat=strange").await.code(422), "bad_parameter");
    assert_eq!(refused("names=rsi&last=1001").await.code(400), "bad_query");
    assert_eq!(refused("").await.code(400), "bad_query");
    let sweep = "names=%5B%7B%22name%22%3A%22ema%22%2C%22period%22%3A%5B2%2C3%5D%7D%5D";
    assert_eq!(refused(sweep).await.code(422), "bad_parameter");
}

#[tokio::test]
async fn several_newest_bars_are_carried_on_with_the_bits_of_a_calculation() {
    let world = World::new();
    let user = writer(&world);
    let names =
        ["rsi", "sma:7", "macd", "bbands", "adx", "stoch", "obv", "psar", "cci", "linearreg", "ema:30"];
    let asks: Vec<Value> = names.iter().map(|name| ask(name)).collect();
    let told = async |last: usize| {
        let query = format!("{PATH}/indicators?names={}&last={last}", names.join(","));
        user.get(&query).await.ok()
    };
    let calculated = async |count: i64, last: usize| {
        let body = json!({"data": rows(0..count), "indicators": asks, "output": format!("tail:{last}")});
        user.post("/calculations/indicators", &body).await.ok()["indicators"].clone()
    };
    put(user, PATH, &json!({"data": rows(0..20)})).await;
    // A tail that is too short is made longer, one that is long enough serves both; a few rows, many, and none come.
    let steps = [
        (20, 3),
        (24, 3),
        (24, 10),
        (90, 10),
        (91, 4),
        (191, 50),
        (191, 1),
        (200, 50),
        (200, 1_000),
        (260, 1_000),
    ];
    let mut stored = 20;
    for (rows_now, last) in steps {
        if rows_now > stored {
            add(user, &json!({"data": rows(stored..rows_now)})).await;
            stored = rows_now;
        }
        let told = told(last).await;
        assert_eq!(told["indicators"], calculated(stored, last).await, "{stored} {last}");
        assert_eq!(told["timestamps"].as_array().unwrap().len(), last.min(stored as usize));
        assert_eq!(told["timestamps"][0], (stored - last.min(stored as usize) as i64) * MINUTE);
    }
    // Another series under the name: nothing of the first one is left.
    put(user, PATH, &json!({"data": rows(0..40)})).await;
    assert_eq!(told(30).await["indicators"], calculated(40, 30).await);
    user.send("DELETE", PATH, "", b"").await.ok();
    put(user, PATH, &json!({"data": rows(0..50)})).await;
    assert_eq!(told(30).await["indicators"], calculated(50, 30).await);
}

/// A name of a query as it stands in a body.
fn ask(name: &str) -> Value {
    match name.split_once(':') {
        Some((own, period)) => json!({"name": own, "period": period.parse::<u32>().unwrap(), "id": name}),
        None => json!(name),
    }
}

#[tokio::test]
async fn calculations_take_rows_of_a_series() {
    let world = World::new();
    let user = writer(&world);
    put(user, PATH, &json!({"data": rows(0..200)})).await;
    let indicators = json!(["atr", "obv", {"name": "ema", "period": 5}]);
    let compute = async |mut body: Value| {
        body["indicators"] = indicators.clone();
        user.post("/calculations/indicators", &body).await
    };
    let stored =
        compute(json!({"series": "BTC/USDT/1m", "from": 600_000, "to": "1970-01-01T02:00:00Z"})).await.ok();
    let sent = compute(json!({"symbol": "BTC/USDT", "timeframe": "1m", "data": rows(10..120)})).await.ok();
    assert_eq!(stored, sent);
    let last = compute(json!({"series": "BTC/USDT/1m", "last": 50})).await.ok();
    assert_eq!(last["count"], 50);
    for media in ["application/vnd.apache.arrow.stream", "application/x-sluice-columns", "text/csv"] {
        for output in ["full", "tail:9"] {
            let body = |mut body: Value| {
                body["indicators"] = indicators.clone();
                body["output"] = json!(output);
                body.to_string()
            };
            let headers = format!("{JSON}accept: {media}\r\n");
            let stored = body(json!({"series": "BTC/USDT/1m", "last": 120, "nan": "skip_leading"}));
            let sent = body(json!({"symbol": "BTC/USDT", "timeframe": "1m", "data": rows(80..200)}));
            let [stored, sent] = [
                user.send("POST", "/calculations/indicators", &headers, stored.as_bytes()).await,
                user.send("POST", "/calculations/indicators", &headers, sent.as_bytes()).await,
            ];
            assert_eq!((stored.status, stored.body), (200, sent.body), "{media} {output}");
        }
    }
    for (path, more) in [("signals", json!({"output": "full"})), ("risk", json!({"timeframe": "1m"}))] {
        let path = format!("/calculations/{path}");
        let (mut stored, mut sent) = (more.clone(), more);
        stored["series"] = json!("BTC/USDT/1m");
        stored["last"] = json!(150);
        sent["data"] = json!(rows(50..200));
        if path.ends_with("signals") {
            (sent["symbol"], sent["timeframe"]) = (json!("BTC/USDT"), json!("1m"));
        }
        let stored = user.post(&path, &stored).await.ok();
        assert_eq!(stored, user.post(&path, &sent).await.ok(), "{path}");
        assert_eq!(user.post(&path, &json!({"series": "ETH/USDT/1m"})).await.code(422), "bad_series");
    }
    for body in [
        json!({"series": "ETH/USDT/1m"}),
        json!({"series": "BTC/USDT"}),
        json!({"series": "BTC/USDT/1m", "data": rows(0..3)}),
        json!({"data": rows(0..3), "last": 2}),
        json!({"series": "BTC/USDT/1m", "from": "soon"}),
    ] {
        assert_eq!(compute(body.clone()).await.status, 422, "{body}");
    }
}
