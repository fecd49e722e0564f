//! The document of the calls, held against the worker that answers them.

use serde_json::{Map, Value, json};

use crate::world::{User, World};

/// Methods that a path can be asked by.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A path of the document with names in it that nothing has.
fn target(path: &str) -> String {
    path.replace(['{', '}'], "").replace("symbol/timeframe", "NONE/1m")
}

#[tokio::test]
async fn the_document_is_served_and_every_call_of_it_is_answered() {
    let world = World::new();
    let document = world.user("nobody", "").get("/openapi.json").await.ok();
    assert_eq!((&document["openapi"], &document), (&json!("3.1.0"), &sluice_calc_worker::openapi()));
    for (path, calls) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            let headers = "content-type: text/strange\r\n";
            let answer = world.admin().send(&method.to_uppercase(), &target(path), headers, b"{").await;
            // What a series has below it is looked up by path and method together.
            let missing = if path.starts_with("/series/") { [404, 405] } else { [405, 405] };
            let described = calls.get(method).is_some();
            let no_such = answer.text().contains("by this method") || answer.status == 405;
            assert_eq!(
                missing.contains(&answer.status) && no_such,
                !described,
                "{method} {path}: {answer:?}"
            );
            assert!(answer.status < 500, "{method} {path}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn what_a_call_needs_is_what_it_asks_for() {
    let world = World::new();
    let nobody = world.user("nobody", "");
    for (path, calls) in sluice_calc_worker::openapi()["paths"].as_object().unwrap() {
        for (method, call) in calls.as_object().unwrap() {
            let headers = "content-type: application/json\r\n";
            let answer = nobody.send(&method.to_uppercase(), &target(path), headers, b"{}").await;
            let needs = call["description"].as_str().is_some_and(|words| words.contains('`'));
            assert_eq!(answer.status == 403, needs, "{method} {path}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn every_parameter_that_is_described_is_known() {
    let world = World::new();
    let admin = world.admin();
    stored(admin).await;
    for (path, calls) in sluice_calc_worker::openapi()["paths"].as_object().unwrap() {
        let Some(call) = calls.get("get") else { continue };
        let path = target(path).replace("NONE/1m", "BTC/1m");
        for parameter in call["parameters"].as_array().unwrap().iter().filter(|one| one["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            let value = parameter["schema"]["enum"][0].as_str().unwrap_or("1");
            let answer = admin.get(&format!("{path}?{name}={value}")).await;
            assert!(!answer.text().contains("unknown field"), "{path}?{name}: {answer:?}");
        }
    }
}

/// A shape of the document, with which an answer can be held against it.
struct Shapes(Value);

impl Shapes {
    /// What is wrong with a value; members that a shape does not name are.
    fn fault(&self, shape: &Value, value: &Value) -> Option<String> {
        if let Some(place) = shape["$ref"].as_str() {
            return self.fault(self.0.pointer(place.trim_start_matches('#')).unwrap(), value);
        }
        if let Some(all) = shape["anyOf"].as_array() {
            let faults: Vec<String> = all.iter().filter_map(|shape| self.fault(shape, value)).collect();
            return (faults.len() == all.len()).then(|| faults.join(" and "));
        }
        let is_among = shape["enum"].as_array().is_none_or(|words| words.contains(value));
        let is_it = shape.get("const").is_none_or(|only| only == value);
        let kinds = match &shape["type"] {
            Value::Array(kinds) => kinds.clone(),
            Value::Null => Vec::new(),
            kind => vec![kind.clone()],
        };
        if !is_among
            || !is_it
            || !(kinds.is_empty() || kinds.iter().any(|kind| is(value, kind.as_str().unwrap())))
        {
            return Some(format!("{value} is not {shape}"));
        }
        match value {
            Value::Object(members) => self.members(shape, members),
            Value::Array(items) => items.iter().find_map(|item| self.fault(&shape["items"], item)),
            _ => None,
        }
    }

    fn members(&self, shape: &Value, members: &Map<String, Value>) -> Option<String> {
        let needed = shape["required"].as_array().into_iter().flatten();
        if let Some(missing) =
            needed.map(|name| name.as_str().unwrap()).find(|name| !members.contains_key(*name))
        {
            return Some(format!("{missing} is missing"));
        }
        members.iter().find_map(|(name, value)| {
            let described = [&shape["properties"][name], &shape["additionalProperties"]];
            match described.into_iter().find(|shape| shape.is_object()) {
                Some(shape) => self.fault(shape, value).map(|fault| format!("{name}: {fault}")),
                // An object of which nothing is said may have anything.
                None => shape["properties"].is_object().then(|| format!("{name} is not described")),
            }
        })
    }

    /// Holds an answer against what the document says of its call, and the request where it was JSON.
    async fn ask(
        &self,
        user: User<'_>,
        method: &str,
        path: &str,
        named: &str,
        body: Option<&Value>,
    ) -> Value {
        let call = &self.0["paths"][named][method];
        let text = body.map_or(String::new(), Value::to_string);
        let headers = "content-type: application/json\r\n";
        let answer = user.send(&method.to_uppercase(), path, headers, text.as_bytes()).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        if let Some(body) = body {
            let shape = &call["requestBody"]["content"]["application/json"]["schema"];
            assert_eq!(self.fault(shape, body), None, "{method} {path}");
        }
        let told = &call["responses"];
        let described = told.get(answer.status.to_string()).or_else(|| told.get("2XX"));
        let kind = answer.header("content-type").unwrap();
        let shape = &described.unwrap_or_else(|| panic!("{path}: {answer:?}"))["content"][kind]["schema"];
        assert!(shape.is_object(), "{method} {path}: {kind}");
        let answer = answer.json();
        assert_eq!(self.fault(shape, &answer), None, "{method} {path}: {answer}");
        answer
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("{kind}"),
    }
}

fn rows(count: i64) -> Value {
    (0..count)
        .map(|at| {
            let price = 100 + (at * 7) % 13;
            json!([at * 60_000, price, price + 2, price - 2, price + 1, 5])
        })
        .collect()
}

async fn stored(user: User<'_>) {
    let body = json!({"data": rows(80), "open": true}).to_string();
    let put = user.send("PUT", "/series/BTC/1m", "content-type: application/json\r\n", body.as_bytes()).await;
    assert_eq!(put.status, 201);
}

#[tokio::test]
async fn answers_have_the_shapes_that_are_described() {
    let world = World::new();
    let (user, shapes) = (world.admin(), Shapes(sluice_calc_worker::openapi()));
    let data = rows(60);
    let post = async |path: &str, body: Value| shapes.ask(user, "post", path, path, Some(&body)).await;
    let get = async |path: &str, named: &str| shapes.ask(user, "get", path, named, None).await;
    post(
        "/calculations/indicators",
        json!({"symbol": "BTC", "timeframe": "1m", "data": data,
        "indicators": ["rsi", {"name": "macd", "fast": 3, "slow": 6, "signal": 2, "id": "m"}]}),
    )
    .await;
    post("/calculations/indicators", json!({"data": data, "indicators": ["bb", "stochastic", "rsi"]})).await;
    post("/calculations/indicators", json!({"data": data, "indicators": ["sma"], "output": "tail:3"})).await;
    for path in ["/calculations/signals", "/calculations/signals/generate"] {
        post(path, json!({"data": data, "strategy_config": {"name": "rsi", "period": 5}, "output": "full"}))
            .await;
    }
    post("/calculations/signals", json!({"data": [[0, 1, 1, 1, 1, 1]]})).await;
    post("/calculations/risk", json!({"returns": [0.01, -0.02, 0.03, 0.0], "value": 1000})).await;
    post("/calculations/risk", json!({"data": data, "timeframe": "1m"})).await;
    post("/calculations/risk", json!({"trades": [{"pnl": 5}, {"pnl": -2, "return": -0.1}]})).await;
    post(
        "/calculations/performance",
        json!({"equity": [100, 90, 110, 105], "timeframe": "1d",
        "times": [0, 86_400_000, 172_800_000, 3_000_000_000_i64]}),
    )
    .await;
    post(
        "/calculations/performance",
        json!({"trades": [{"pnl": 5, "return": 0.1}, {"pnl": -2, "return": -0.1}]}),
    )
    .await;
    let wanted = json!({"symbol": "A", "side": "buy", "price": 10, "stop": 9, "method": "fixed_fractional"});
    let mut one = wanted.clone();
    one["equity"] = json!(1_000);
    post("/calculations/position-size", one).await;
    post("/calculations/portfolio/size", json!({"equity": 1_000, "positions_wanted": [wanted]})).await;
    post("/calculations/strategies/score", json!({"strategies": [
        {"id": "a", "equity": [100, 90, 95]}, {"id": "b", "metrics": {"sharpe": 1, "max_drawdown": -0.1}, "count": 5, "days": 1}]})).await;
    let members =
        json!({"members": [{"id": "a", "score": 0.9}, {"id": "b", "score": 0.3}], "method": "score"});
    let round =
        json!({"slots": 1, "candidates": [{"id": "a", "score": 0.9}, {"id": "b", "score": 0.7, "held": 2}]});
    for below in ["/calculations", "/calculations/strategies"] {
        post(&format!("{below}/ensemble"), members.clone()).await;
        post(&format!("{below}/rotate"), round.clone()).await;
    }
    for path in
        ["/calculations/catalog", "/calculations/strategies", "/calculations/universe", "/openapi.json"]
    {
        get(path, path).await;
    }
    for name in ["rsi", "sma_crossover", "macd_cross", "DONCHIAN_BREAKOUT"] {
        get(&format!("/calculations/strategies/{name}"), "/calculations/strategies/{id}").await;
    }
    let universe = json!({"symbols": ["BTC", "ETH"], "source": "test"});
    shapes.ask(user, "put", "/calculations/universe", "/calculations/universe", Some(&universe)).await;
}

#[tokio::test]
async fn jobs_and_series_have_the_shapes_that_are_described() {
    let world = World::new();
    let (user, shapes) = (world.admin(), Shapes(sluice_calc_worker::openapi()));
    let data = rows(60);
    let search = json!({"data": data, "strategy": "sma_crossover", "parameters": {"fast": [2, 3], "slow": {"range": [5, 9, 2]}},
        "walk_forward": {"train": 20, "test": 10}});
    let named = "/calculations/search/{job}";
    let mut told = 0;
    let discover = json!({"requests": [{"symbol": "BTC", "strategyName": "SMA_RSI", "topN": 1,
        "gaConfig": {"maxGenerations": 2, "populationSize": 4}}], "data": data});
    for (path, body) in [("/calculations/search", search), ("/calculations/strategies/discover", discover)] {
        let taken = shapes.ask(user, "post", path, path, Some(&body)).await;
        let url = taken["url"].as_str().unwrap();
        world.until("sluice_calc_jobs{state=\"done\"}", |done| done == 1.0).await;
        let job = shapes.ask(user, "get", url, named, None).await;
        assert_eq!(job["status"], "done", "{job}");
        shapes.ask(user, "get", "/calculations/search", "/calculations/search", None).await;
        if let Some(id) = job["result"]["results"][0]["topStrategies"][0]["id"].as_str() {
            told += 1;
            let (path, named) = (format!("/calculations/strategies/{id}"), "/calculations/strategies/{id}");
            shapes.ask(user, "get", &path, named, None).await;
        }
        shapes.ask(user, "delete", url, named, None).await;
    }
    assert_eq!(told, 1, "a strategy is discovered");
    let (path, named) = ("/series/BTC/1m", "/series/{symbol}/{timeframe}");
    for given in [json!({"data": data}), json!({"data": data, "open": true})] {
        shapes.ask(user, "put", path, named, Some(&given)).await;
        shapes.ask(user, "get", "/series", "/series", None).await;
        for below in ["", "/gaps", "/indicators"] {
            let query = if below == "/indicators" { "?names=rsi,sma&last=3" } else { "" };
            shapes.ask(user, "get", &format!("{path}{below}{query}"), &format!("{named}{below}"), None).await;
        }
    }
    let late = json!({"data": [[0, 1, 1, 1, 1, 1], [90 * 60_000, 1, 1, 1, 1, 1]]});
    let applied =
        shapes.ask(user, "post", &format!("{path}/candles"), &format!("{named}/candles"), Some(&late)).await;
    assert_eq!((&applied["conflict_count"], &applied["gap_count"]), (&json!(1), &json!(1)), "{applied}");
    shapes.ask(user, "delete", path, named, None).await;
}
