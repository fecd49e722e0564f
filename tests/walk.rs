//! The whole system walks: data flows through every organ of a running instance.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::http::{events, get, post, request};
use crate::harness::{shared, until};

#[test]
fn banner_names_every_role_and_came_in_time() {
    let sluice = shared();
    for role in ["edge", "events", "vault", "calc", "demo"] {
        assert!(sluice.banner["pids"][role].as_u64().is_some(), "{}", sluice.banner);
    }
    for name in ["edge", "control", "events", "vault", "calc"] {
        let url = sluice.banner[name].as_str().unwrap();
        assert!(url.starts_with("http://127.0.0.1:") && !url.ends_with('/'), "{url}");
    }
    assert_eq!(sluice.banner["event"], "ready");
    // The limit is 3 s for a release build on a calm machine; tests run unoptimised and in parallel.
    assert!(sluice.ready_in.as_secs() < 15, "{:?}", sluice.ready_in);
}

#[test]
fn health_answers_on_every_port() {
    let sluice = shared();
    for base in [sluice.edge(), sluice.control(), sluice.events(), sluice.vault(), sluice.calc()] {
        get(base, "/livez").send().expect(200);
        get(base, "/readyz").send().expect(200);
        let health = get(base, "/health").send().expect(200).json();
        assert_eq!(health["status"], "healthy", "{base}: {health}");
        assert!(
            health["timestamp"].is_string()
                && health["service"].is_string()
                && health["components"].is_object()
        );
        let metrics = get(base, "/metrics").send().expect(200);
        assert!(metrics.body.contains("sluice_build_info"), "{base}");
    }
}

#[test]
fn the_platforms_example_calls_are_answered() {
    let sluice = shared();
    let market =
        get(sluice.edge(), "/api/data/market/BTC/USDT").token(sluice.admin()).send().expect(200).json();
    assert_eq!(market["symbol"], "BTC/USDT");
    assert!(market["candles"].as_array().unwrap().len() > 10);
    let body = json!({"symbol": "BTC/USDT", "strategy": "ml_enhanced"});
    let run = post(sluice.edge(), "/api/backtesting/run")
        .token(sluice.admin())
        .json(&body)
        .send()
        .expect(200)
        .json();
    assert_eq!(run["status"], "completed", "{run}");
    assert!(
        run["results"]["metrics"]["sharpe"].is_object() || run["results"]["metrics"]["sharpe"].is_number(),
        "{run}"
    );
}

#[test]
fn services_are_listed_with_their_state() {
    let sluice = shared();
    for path in ["/services", "/api/services"] {
        let list = get(sluice.edge(), path).send().expect(200).json();
        let services = list["services"].as_array().unwrap();
        assert_eq!(list["count"].as_u64().unwrap() as usize, services.len());
        let data = services.iter().find(|service| service["name"] == "data_service").unwrap();
        assert_eq!(data["path_prefix"], "/api/data");
        assert_eq!(data["source"], "file");
        assert_eq!(data["breaker"], "closed", "{data}");
        assert!(data["instances"][0]["url"].is_string() && data["instances"][0]["weight"].is_u64());
    }
}

#[test]
fn an_event_is_published_listed_streamed_and_deduplicated() {
    let sluice = shared();
    let id = "0192aaaa-0000-7000-8000-00000000a001";
    let mut stream = get(sluice.edge(), "/events/stream?event_type=portfolio_update&source=walk")
        .token(sluice.admin())
        .header("accept", "text/event-stream")
        .open();
    until("the stream opens", || stream.line().filter(String::is_empty));
    let event =
        json!({"event_type": "PORTFOLIO_UPDATE", "event_id": id, "source": "walk", "data": {"cash": 1.5}});
    let first = post(sluice.edge(), "/events").token(sluice.admin()).json(&event).send().expect(200).json();
    assert_eq!(first["status"], "published");
    assert_eq!(first["durability"], "fsync");
    assert_eq!(first["duplicate"], false);
    let again = post(sluice.edge(), "/events").token(sluice.admin()).json(&event).send().expect(200).json();
    assert_eq!(again["duplicate"], true);
    assert_eq!(again["message_id"], first["message_id"]);
    let conflict =
        json!({"event_type": "portfolio_update", "event_id": id, "source": "walk", "data": {"cash": 2.5}});
    post(sluice.edge(), "/events")
        .token(sluice.admin())
        .json(&conflict)
        .send()
        .problem(409, "event_id_conflict");

    let (_, name, data) = events(&mut stream, 1).remove(0);
    let streamed: Value = serde_json::from_str(&data).unwrap();
    assert_eq!((name.as_str(), streamed["event_id"].as_str()), ("portfolio_update", Some(id)));
    let listed =
        get(sluice.edge(), "/events?source=walk&event_type=portfolio_update").token(sluice.admin()).send();
    let listed = listed.expect(200).json();
    assert_eq!(listed["count"], 1);
    assert_eq!(listed["events"][0]["data"]["cash"], 1.5);
    get(sluice.edge(), &format!("/events/{id}")).token(sluice.admin()).send().expect(200);
    let replayed = post(sluice.edge(), "/events/replay").token(sluice.admin());
    let replayed =
        replayed.json(&json!({"event_type": "portfolio_update", "source": "walk"})).send().expect(200).json();
    assert_eq!(replayed["status"], "replay_complete");
    assert_eq!(replayed["events_replayed"], 1);
}

#[test]
fn convenience_calls_and_batches_publish() {
    let sluice = shared();
    let calls = [
        (
            "/events/market-data",
            json!({"symbol": "BTC/USDT", "market_data": {"price": 50000.0}, "source": "conv"}),
        ),
        (
            "/events/trading-signal",
            json!({"signal": {"symbol": "BTC/USDT", "action": "BUY"}, "source": "conv"}),
        ),
        ("/events/portfolio-update", json!({"updates": {"cash": 1}, "source": "conv"})),
    ];
    for (path, body) in calls {
        let answer = post(sluice.edge(), path).token(sluice.admin()).json(&body).send().expect(200).json();
        assert_eq!(answer["status"], "published", "{path}");
    }
    let line = |n: u32| json!({"event_type": "risk_alert", "source": "conv", "data": {"n": n}}).to_string();
    let lines = format!("{}\n{}\n{}\n", line(1), line(2), line(3));
    let batch =
        post(sluice.edge(), "/events/batch").token(sluice.admin()).text("application/x-ndjson", lines).send();
    assert_eq!(batch.expect(200).json()["published"], 3);
    let stats = get(sluice.edge(), "/events/stats").token(sluice.admin()).send().expect(200).json();
    assert!(stats["stream_length"].as_u64().unwrap() >= 6, "{stats}");
    let types = get(sluice.edge(), "/events/types").token(sluice.admin()).send().expect(200).json();
    assert!(types["event_types"].as_array().unwrap().len() >= 32, "{types}");
}

#[test]
fn the_tape_flows_into_signals() {
    let sluice = shared();
    let stream = |kind: &str| {
        get(sluice.edge(), &format!("/events/stream?event_type={kind}&from=earliest"))
            .token(sluice.admin())
            .header("accept", "text/event-stream")
            .open()
    };
    let bars = events(&mut stream("market_data_update"), 5);
    let bar: Value = serde_json::from_str(&bars[0].2).unwrap();
    assert!(bar["data"]["close"].is_f64() && bar["data"]["symbol"].is_string(), "{bar}");
    let signals = events(&mut stream("trading_signal"), 1);
    let signal: Value = serde_json::from_str(&signals[0].2).unwrap();
    let action = signal["data"]["action"].as_str().unwrap();
    assert!(["BUY", "SELL"].contains(&action), "{signal}");
}

#[test]
fn indicators_signals_and_risk_are_computed() {
    let sluice = shared();
    let closes: Vec<f64> = (0..60).map(|day| 100.0 + f64::from(day % 7) - f64::from(day % 11)).collect();
    let body =
        json!({"data": {"close": closes}, "indicators": ["rsi", {"name": "sma", "period": 5, "id": "fast"}]});
    let answer = post(sluice.edge(), "/calculations/indicators").token(sluice.admin()).json(&body).send();
    let answer = answer.expect(200).json();
    assert_eq!((answer["success"].as_bool(), answer["count"].as_u64()), (Some(true), Some(60)));
    let rsi = answer["indicators"]["rsi"]["value"].as_array().unwrap();
    assert_eq!(rsi.len(), 60);
    assert!(rsi[13].is_null() && rsi[14].is_f64(), "{rsi:?}");
    assert_eq!(answer["indicators"]["fast"]["value"][4], closes[..5].iter().sum::<f64>() / 5.0);
    let risk = json!({"returns": [0.01, -0.02, 0.015, 0.003, -0.01, 0.02], "periods_per_year": 252});
    let risk =
        post(sluice.edge(), "/calculations/risk").token(sluice.admin()).json(&risk).send().expect(200).json();
    assert_eq!(risk["success"], true);
    let rows: Vec<_> = closes
        .iter()
        .enumerate()
        .map(|(at, close)| json!([at * 60_000, close, close, close, close, 1.0]))
        .collect();
    let body = json!({"symbol": "X", "timeframe": "1m", "data": rows, "strategy_config": {"name": "rsi"}});
    let signals = post(sluice.edge(), "/calculations/signals")
        .token(sluice.admin())
        .json(&body)
        .send()
        .expect(200)
        .json();
    assert!(signals["signals"].is_array(), "{signals}");
}

#[test]
fn a_token_opens_what_it_names_until_it_is_revoked() {
    let sluice = shared();
    let token = sluice.token("reader", &["read"]);
    let read = || get(sluice.edge(), "/api/data/symbols").token(&token).send();
    read().expect(200);
    post(sluice.edge(), "/api/data/symbols")
        .token(&token)
        .json(&json!({}))
        .send()
        .problem(403, "insufficient_scope");
    let valid = post(sluice.edge(), "/security/tokens/validate").token(&token).send().expect(200).json();
    assert_eq!((valid["valid"].as_bool(), valid["service_name"].as_str()), (Some(true), Some("reader")));
    post(sluice.edge(), "/tokens/revoke")
        .token(sluice.admin())
        .json(&json!({"token": token}))
        .send()
        .expect(200);
    let began = std::time::Instant::now();
    until("the edge refuses a revoked token", || (read().status == 401).then_some(()));
    assert!(began.elapsed().as_millis() < 1_000, "{:?}", began.elapsed());
}

#[test]
fn secrets_are_versioned_and_isolated() {
    let sluice = shared();
    let own = sluice.token("bot_a", &["read", "write"]);
    let other = sluice.token("bot_b", &["read", "write"]);
    let path = "/secrets/services/bot_a/exchange/key";
    for version in 1..=2 {
        let stored = request("PUT", sluice.edge(), path)
            .token(&own)
            .json(&json!({"data": {"api_key": version}}))
            .send();
        assert_eq!(stored.expect(200).json()["version"], version);
    }
    assert_eq!(get(sluice.edge(), path).token(&own).send().expect(200).json()["data"]["api_key"], 2);
    let first = get(sluice.edge(), &format!("{path}?version=1")).token(&own).send().expect(200).json();
    assert_eq!(first["data"]["api_key"], 1);
    get(sluice.edge(), path).token(&other).send().expect(403);
    get(sluice.edge(), "/secrets/services/bot_a/no/such").token(&other).send().expect(403);
    get(sluice.edge(), "/secrets/services/bot_a/no/such").token(&own).send().expect(404);
    let old = post(sluice.edge(), "/security/secrets/store").token(&own);
    old.json(&json!({"path": "services/bot_a/old", "data": {"x": 1}})).send().expect(200);
    let read = get(sluice.edge(), "/security/secrets/retrieve?path=services/bot_a/old").token(&own).send();
    assert_eq!(read.expect(200).json()["data"]["x"], 1);
}

#[test]
fn credentials_are_issued_and_the_ca_is_public() {
    let sluice = shared();
    let ca = get(sluice.edge(), "/ca/certificate").send().expect(200);
    assert!(ca.body.starts_with("-----BEGIN CERTIFICATE-----"), "{}", ca.body);
    let body = json!({"service_name": "exchange_gateway"});
    let issued = post(sluice.edge(), "/security/credentials/issue").token(sluice.admin()).json(&body).send();
    let issued = issued.expect(200).json();
    assert_eq!(issued["spiffe_id"].as_str().unwrap().rsplit_once('/').unwrap().1, "exchange_gateway");
    assert!(issued["private_key"].as_str().unwrap().contains("PRIVATE KEY"));
    let shown = get(sluice.edge(), "/credentials/exchange_gateway").token(sluice.admin()).send().expect(200);
    assert!(!shown.body.contains("PRIVATE KEY"), "the key is handed out once");
    let keys = get(sluice.edge(), "/.well-known/jwks.json").send().expect(200).json();
    assert!(!keys["keys"].as_array().unwrap().is_empty());
    let audit = get(sluice.edge(), "/audit").token(sluice.admin()).send().expect(200);
    assert!(audit.body.contains("exchange_gateway"), "{}", audit.body);
}

#[test]
fn a_registered_service_routes_and_can_be_taken_back() {
    let sluice = shared();
    let data = sluice.banner["demo"]["data"].as_str().unwrap();
    let body = json!({"service_name": "second_data", "url": data, "prefix": "/api/second", "health_endpoint": "/health",
                      "rate_limit": 1000});
    post(sluice.edge(), "/api/register").json(&body).send().problem(401, "invalid_token");
    post(sluice.edge(), "/api/register").token(sluice.admin()).json(&body).send().expect(201);
    until("the registration routes", || {
        (get(sluice.edge(), "/api/second/symbols").token(sluice.admin()).send().status == 200).then_some(())
    });
    get(sluice.edge(), "/api/second/symbols").send().problem(401, "invalid_token");
    let taken = json!({"name": "shadow", "url": data, "prefix": "/api/data"});
    post(sluice.edge(), "/api/register")
        .token(sluice.admin())
        .json(&taken)
        .send()
        .problem(409, "prefix_taken");
    request("DELETE", sluice.edge(), "/api/register/second_data").token(sluice.admin()).send();
    until("the registration is gone", || {
        (get(sluice.edge(), "/api/second/symbols").token(sluice.admin()).send().status == 404).then_some(())
    });
}

#[test]
fn edge_reaches_the_demo_by_mutual_tls() {
    let sluice = shared();
    let data = sluice.banner["demo"]["data"].as_str().unwrap();
    get(sluice.edge(), "/api/data/symbols").token(sluice.admin()).send().expect(200);
    get(data, "/symbols").send().expect(200);
    let figures = get(data, "/metrics").send().expect(200).body;
    let counted = |door: &str| {
        figures.contains(&format!("sluice_http_requests_total{{door=\"{door}\",status=\"2xx\"}}"))
    };
    assert!(counted("mtls") && counted("api"), "{figures}");
}

#[test]
fn breakers_are_listed_forced_and_reset() {
    let sluice = shared();
    let list = get(sluice.control(), "/circuit-breakers").send().expect(200).json();
    let names: BTreeSet<_> =
        list["circuit_breakers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(names.contains("trading_bot_service"), "{list}");
    let path = "/circuit-breakers/trading_bot_service";
    let force = json!({"state": "open", "reason": "a test"});
    post(sluice.control(), &format!("{path}/force")).json(&force).send().expect(401);
    post(sluice.control(), &format!("{path}/force")).token(sluice.admin()).json(&force).send().expect(200);
    let refused = get(sluice.edge(), "/api/trading/status").token(sluice.admin()).send();
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    refused.problem(503, "breaker_open");
    assert_eq!(get(sluice.control(), path).send().expect(200).json()["state"], "open");
    let reset =
        post(sluice.control(), &format!("{path}/reset")).token(sluice.admin()).send().expect(200).json();
    assert_eq!((reset["status"].as_str(), reset["new_state"].as_str()), (Some("success"), Some("closed")));
    get(sluice.edge(), "/api/trading/status").token(sluice.admin()).send().expect(200);
    assert!(get(sluice.control(), "/alerts").send().expect(200).json()["alerts"].is_array());
    let summary = get(sluice.control(), "/dashboard").send().expect(200).json();
    assert!(summary["summary"]["total_breakers"].as_u64().unwrap() >= 3, "{summary}");
}

#[test]
fn limited_requests_say_so() {
    let sluice = shared();
    let answer = get(sluice.edge(), "/api/data/symbols").token(sluice.admin()).send().expect(200);
    for name in
        ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]
    {
        assert!(answer.headers.contains_key(name), "{name}: {answer:?}");
    }
    assert!(answer.headers.contains_key("x-request-id"));
}

#[test]
fn an_expired_token_is_refused_and_the_edge_serves_on() {
    let sluice = shared();
    let body = json!({"service_name": "brief", "permissions": ["read"], "ttl": 2});
    let minted = post(sluice.edge(), "/security/tokens/generate").token(sluice.admin()).json(&body).send();
    let token = minted.expect(200).json()["token"].as_str().unwrap().to_owned();
    get(sluice.edge(), "/api/data/symbols").token(&token).send().expect(200);
    until("the token expires", || {
        (get(sluice.edge(), "/api/data/symbols").token(&token).send().status == 401).then_some(())
    });
    for _ in 0..4 {
        get(sluice.edge(), "/api/data/symbols").token(&token).send().problem(401, "invalid_token");
        get(sluice.edge(), "/livez").send().expect(200);
    }
}
