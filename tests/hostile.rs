//! Bad input gets the documented status and a problem body, and disturbs nobody else.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::harness::http::{Connection, get, post, request};
use crate::harness::{shared, sluice};

/// Sends a raw head and expects a status, a closed connection and an edge that still serves.
fn refused(head: &str, status: u16) {
    let sluice = shared();
    let mut connection = Connection::open(sluice.edge());
    connection.send(head.as_bytes());
    let answer = connection.answer().unwrap_or_else(|| panic!("no answer to {head:?}"));
    assert_eq!(answer.status, status, "{head:?}: {answer:?}");
    assert!(connection.line().is_none(), "{head:?}: the connection stays open");
    get(sluice.edge(), "/livez").send().expect(200);
}

#[test]
fn broken_framing_is_refused_and_closed() {
    for (head, status) in [
        ("GET /livez HTTP/1.1\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\nhost: a\n\n", 400),
        ("GET /livez HTTP/1.1\r\nhost: a\r\nx-a: 1\r\n folded\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\nhost : a\r\n\r\n", 400),
        (
            "POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400),
        ("POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello", 400),
        ("POST /events HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", 405),
        ("BREW / HTTP/1.1\r\nhost: a\r\n\r\n", 501),
        ("GET / HTTP/3.0\r\nhost: a\r\n\r\n", 505),
    ] {
        refused(head, status);
    }
}

#[test]
fn path_tricks_are_refused() {
    for path in [
        "/api/data/%2e%2e/%2e%2e/%2e%2e/x",
        "/api/data/a%2fb",
        "/api/data/%00",
        "/api/data/a%5cb",
        "/../../x",
    ] {
        refused(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"), 400);
    }
    let sluice = shared();
    // Normalised once: what is routed is what is authorised and forwarded.
    get(sluice.edge(), "//api//data/./x/../symbols").token(sluice.admin()).send().expect(200);
    get(sluice.edge(), "/api/datax/symbols").token(sluice.admin()).send().problem(404, "no_route");
}

#[test]
fn oversized_heads_and_bodies_are_refused() {
    refused(&format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(9_000)), 414);
    refused(&format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {}\r\n\r\n", "x".repeat(40_000)), 431);
    let many: String = (0..120).map(|n| format!("x-{n}: 1\r\n")).collect();
    refused(&format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431);
    let sluice = shared();
    let large = post(sluice.edge(), "/api/trading/orders").token(sluice.admin());
    large.text("application/json", vec![b' '; (1 << 20) + 1]).send().problem(413, "body_too_large");
    let events: Vec<Value> = (0..1_001).map(|_| json!({"event_type": "x", "source": "h"})).collect();
    post(sluice.edge(), "/events/batch")
        .token(sluice.admin())
        .json(&json!({"events": events}))
        .send()
        .problem(422, "unprocessable");
    let fat = json!({"event_type": "x", "source": "h", "data": {"fat": "x".repeat(300 << 10)}});
    post(sluice.edge(), "/events").token(sluice.admin()).json(&fat).send().expect(413);
}

#[test]
fn unknown_services_are_not_found() {
    let sluice = shared();
    get(sluice.edge(), "/api/nowhere/x").token(sluice.admin()).send().problem(404, "no_route");
    get(sluice.edge(), "/falco/alerts").token(sluice.admin()).send().expect(404);
}

#[test]
fn forged_and_misplaced_tokens_are_refused() {
    let sluice = shared();
    let good = sluice.admin();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    let none = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
    for token in [forged.as_str(), none.as_str(), "x.y.z", "", &"a.".repeat(5_000)] {
        let answer = get(sluice.edge(), "/api/data/symbols").token(token).send();
        assert!([401, 431].contains(&answer.status), "{answer:?}");
        if answer.status == 401 {
            assert_eq!(answer.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
        }
    }
    get(sluice.edge(), "/api/data/symbols").send().problem(401, "invalid_token");
    get(sluice.edge(), &format!("/api/data/symbols?access_token={good}"))
        .send()
        .problem(401, "invalid_token");
    let twice = get(sluice.edge(), "/api/data/symbols").token(good).token(good).send();
    assert!([400, 401].contains(&twice.status), "{twice:?}");
}

#[test]
fn client_sent_identity_is_worth_nothing() {
    let sluice = shared();
    for (name, value) in
        [("x-user", "admin"), ("x-permissions", "admin"), ("x-internal-key", "00"), ("x-internal-self", "1")]
    {
        get(sluice.edge(), "/events").header(name, value).send().problem(401, "invalid_token");
        get(sluice.events(), "/events").header(name, value).send().problem(401, "invalid_token");
    }
    let reader = sluice.token("plain", &["read"]);
    let answer = get(sluice.edge(), "/audit").token(&reader).header("x-permissions", "admin").send();
    answer.problem(403, "insufficient_scope");
}

#[test]
fn minting_stays_within_ones_own_rights() {
    let sluice = shared();
    let reader = sluice.token("small", &["read"]);
    let mint = |name: &str, permissions: &[&str]| {
        let body = json!({"service_name": name, "permissions": permissions});
        post(sluice.edge(), "/security/tokens/generate").token(&reader).json(&body).send().status
    };
    assert_eq!(mint("small", &["admin"]), 403);
    assert_eq!(mint("other", &["read"]), 403);
    let nobody = json!({"service_name": "x", "permissions": ["read"]});
    post(sluice.edge(), "/security/tokens/generate").json(&nobody).send().problem(401, "invalid_token");
}

#[test]
fn malformed_json_is_named() {
    let sluice = shared();
    for body in
        ["{", "[1,2", r#"{"event_type":"x","event_type":"y"}"#, "nul", r#"{"event_type":1e999}"#, "\u{0}"]
    {
        let answer =
            post(sluice.edge(), "/events").token(sluice.admin()).text("application/json", body).send();
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(
            answer.body.contains("\"code\":\"invalid_json\"") || answer.body.contains("invalid_event"),
            "{answer:?}"
        );
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    post(sluice.edge(), "/calculations/indicators")
        .token(sluice.admin())
        .text("application/json", deep)
        .send()
        .expect(400);
}

#[test]
fn events_that_clients_may_not_send_are_refused() {
    let sluice = shared();
    let kill = json!({"event_type": "kill_switch", "source": "x", "data": {}});
    post(sluice.edge(), "/events").token(sluice.admin()).json(&kill).send().problem(403, "reserved_type");
    let reader = sluice.token("listener", &["read"]);
    let event = json!({"event_type": "risk_alert", "source": "listener", "data": {}});
    post(sluice.edge(), "/events").token(&reader).json(&event).send().problem(403, "insufficient_scope");
    let lines = "{\"event_type\":\"a\",\"source\":\"h\"}\n{\"event_type\":\"b c\",\"source\":\"h\"}\n";
    let batch =
        post(sluice.edge(), "/events/batch").token(sluice.admin()).text("application/x-ndjson", lines).send();
    let batch = batch.json();
    assert!(batch["results"][1]["code"] == "invalid_event" || batch["index"] == 1, "{batch}");
    get(sluice.edge(), "/events?limit=10001").token(sluice.admin()).send().expect(400);
    get(sluice.edge(), "/events?start_time=yesterday").token(sluice.admin()).send().expect(400);
}

#[test]
fn series_that_cannot_be_are_refused_with_their_row() {
    let sluice = shared();
    let ask = |data: Value, indicators: Value| {
        let body = json!({"data": data, "indicators": indicators});
        post(sluice.edge(), "/calculations/indicators").token(sluice.admin()).json(&body).send()
    };
    let row = |at: u64, high: f64, low: f64, volume: f64| json!([at, 10.0, high, low, 10.0, volume]);
    let unsorted = ask(json!([row(2, 11.0, 9.0, 1.0), row(1, 11.0, 9.0, 1.0)]), json!(["rsi"]));
    let problem = unsorted.problem(422, "bad_series");
    assert!(problem["detail"].as_str().unwrap().contains("row 1"), "{problem}");
    ask(json!([row(1, 11.0, 9.0, 1.0), row(2, 8.0, 9.0, 1.0)]), json!(["rsi"])).problem(422, "bad_series");
    ask(json!([row(1, 11.0, 9.0, -1.0)]), json!(["rsi"])).problem(422, "bad_series");
    ask(json!({"close": [1.0, 2.0], "open": [1.0]}), json!(["rsi"])).problem(422, "bad_series");
    ask(json!({"close": [1.0, null, 2.0]}), json!(["rsi"])).problem(422, "bad_series");
    ask(json!({"close": [1.0, 2.0]}), json!([{"name": "sma", "period": -5}])).expect(422);
    let unknown = ask(json!({"close": [1.0, 2.0]}), json!(["rsii"])).problem(422, "unknown_indicator");
    assert!(unknown["detail"].as_str().unwrap().contains("rsi"), "{unknown}");
    let nan = post(sluice.edge(), "/calculations/indicators").token(sluice.admin());
    let nan = nan.text("application/json", r#"{"data":{"close":[1,NaN]},"indicators":["rsi"]}"#).send();
    assert!([400, 422].contains(&nan.status), "{nan:?}");
}

#[test]
fn secret_paths_are_canonical_or_refused() {
    let sluice = shared();
    let token = sluice.token("bot_c", &["read", "write"]);
    for path in ["/secrets/a%20b", "/secrets/services/bot_c/a;b", "/secrets/services/bot_c/%7euser"] {
        let answer = get(sluice.edge(), path).token(&token).send();
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
    let long = format!("/secrets/services/bot_c/{}", "a/".repeat(40));
    assert_eq!(get(sluice.edge(), long.trim_end_matches('/')).token(&token).send().status, 400);
    get(sluice.edge(), "/secrets/services/other/x").token(&token).send().expect(403);
}

#[test]
fn control_port_answers_only_its_own_host_and_never_changes_on_get() {
    let sluice = shared();
    let foreign =
        request("GET", sluice.control(), "/circuit-breakers").header("x-forwarded-for", "10.0.0.1").send();
    assert_eq!(foreign.status, 401, "{foreign:?}");
    let mut connection = Connection::open(sluice.control());
    connection.send(b"GET /circuit-breakers HTTP/1.1\r\nhost: evil.example\r\n\r\n");
    assert_eq!(connection.answer().unwrap().status, 421);
    get(sluice.control(), "/circuit-breakers/data_service/reset").token(sluice.admin()).send().expect(405);
}

#[test]
fn configuration_errors_are_shown_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sluice.toml");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(b"[edge]\nlisten = \"127.0.0.1:8000\"\ntreads = 2\n\n[[service]]\nname = \"a\"\nprefix = \"/a\"\nbalanse = \"x\"\n\n[[service.instance]]\nurl = \"http://127.0.0.1:1\"\nweight = 0\n").unwrap();
    let (code, _, errors) = sluice(&["check", path.to_str().unwrap()]);
    assert_eq!(code, 2, "{errors}");
    for expected in ["treads", "did you mean", "threads", "sluice.toml:3:1", "balanse", "sluice.toml:12", "^"]
    {
        assert!(errors.contains(expected), "{expected:?} is missing in:\n{errors}");
    }
    let (code, findings, _) = sluice(&["check", "--format", "json", path.to_str().unwrap()]);
    let findings: Value = serde_json::from_str(&findings).unwrap();
    assert_eq!((code, findings.as_array().unwrap().len()), (2, 3), "{findings}");
    assert!(findings[0]["line"].is_u64() && findings[0]["code"].is_string());
    let (code, _, errors) = sluice(&[
        "up",
        "--dev",
        "--conf",
        path.to_str().unwrap(),
        "--data-dir",
        dir.path().join("d").to_str().unwrap(),
    ]);
    assert_eq!(code, 2, "{errors}");
}
