//! What operators see of requests: log, tap, traces.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use sluice_wire::feed::{Change, Delta, Message};

use crate::harness::{Client, Edge, PATIENCE, Setup, Upstream, eventually, ok, reply, service};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLWNhbmFyeQ";

fn setup(upstream: &Upstream, main: &str) -> Setup {
    let text = service("api", "/api", &[upstream.url()], "auth_required = false\nretry = { attempts = 1 }");
    Setup::new(main).service("api", &text)
}

fn lines(log: &PathBuf) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn get(edge: &Edge, path: &str, fields: &str) -> crate::harness::Reply {
    edge.send(&format!("GET {path} HTTP/1.1\r\nHost: edge\r\n{fields}Connection: close\r\n\r\n"))
}

#[test]
fn a_line_tells_the_stages_and_the_protocol() {
    let upstream = Upstream::start(ok);
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access");
    let edge = setup(&upstream, &format!("[log]\naccess = \"file:{}\"\n", log.display())).start();
    assert_eq!(get(&edge, "/api/x", "").status, 200);
    let line = eventually("the line", || lines(&log).into_iter().find(|line| line["path"] == "/api/x"));
    assert_eq!(
        (line["protocol"].as_str(), line["upstream"].as_str()),
        (Some("http/1.1"), Some(&*upstream.url()))
    );
    assert!(line.get("tls").is_none());
    let stage = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{name} in {line}"));
    assert!(stage("connect_us") <= stage("upstream_us") && stage("upstream_us") <= stage("duration_us"));
    assert!(stage("head_us") + stage("admit_us") <= stage("duration_us"));
    let metrics = edge.get("/metrics").text();
    for stage in ["head", "admit", "connect", "upstream"] {
        let name = format!("sluice_edge_stage_seconds_count{{stage=\"{stage}\"}}");
        assert!(metrics.contains(&name), "{name}");
    }
    assert!(
        metrics.contains(r#"sluice_edge_protocol_requests_total{protocol="http/1.1",tls="none"}"#),
        "{metrics}"
    );
}

#[test]
fn a_sample_keeps_every_error() {
    let upstream = Upstream::start(|seen, wire| {
        let status = if seen.line().contains("/bad") { "500 Internal Server Error" } else { "200 OK" };
        wire.write_all(reply(status, "x").as_bytes()).is_ok()
    });
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access");
    let main = format!("[log]\naccess = \"file:{}\"\nsample = 0.5\n", log.display());
    let edge = setup(&upstream, &main).start();
    let mut client = edge.connect();
    for number in 0..200 {
        let path = if number % 10 == 0 { "/api/bad" } else { "/api/good" };
        let sent = format!("GET {path} HTTP/1.1\r\nHost: edge\r\nX-Request-Id: request-{number:04}\r\n\r\n");
        client.exchange(&sent);
    }
    assert_eq!(get(&edge, "/none", "").status, 404);
    eventually("the last line", || lines(&log).into_iter().find(|line| line["path"] == "/none"));
    let with = |status: u16| lines(&log).into_iter().filter(|line| line["status"] == status).count();
    assert_eq!((with(500), with(404)), (20, 1));
    let kept: Vec<String> = lines(&log)
        .iter()
        .filter(|line| line["path"] == "/api/good")
        .map(|line| line["request_id"].as_str().unwrap().to_owned())
        .collect();
    let model: Vec<String> = (0..200)
        .filter(|number| number % 10 != 0)
        .map(|number| format!("request-{number:04}"))
        .filter(|id| sluice_policy::sample::keeps(id, 200, false, 0.5))
        .collect();
    assert_eq!(kept, model);
    assert!((60..120).contains(&kept.len()), "{}", kept.len());
}

/// A viewer of the tap, its head read.
fn tap(edge: &Edge, query: &str) -> Client {
    tap_with(edge, query, &edge.issuer.token("control:read"))
}

fn tap_with(edge: &Edge, query: &str, token: &str) -> Client {
    let mut viewer = Client::to(edge.control);
    viewer.send(&format!(
        "GET /admin/tap{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    ));
    let head = viewer.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
    assert!(viewer.read_until("\n\n").contains(": following"));
    viewer
}

/// The next event of a viewer: its name and data.
fn next(viewer: &mut Client) -> (String, Value) {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        assert!(std::time::Instant::now() < until, "no event");
        let frame = viewer.read_until("\n\n");
        let field = |name: &str| {
            let at = frame.find(name)? + name.len();
            frame[at..].lines().next().map(str::to_owned)
        };
        if let (Some(event), Some(data)) = (field("event: "), field("data: ")) {
            return (event, serde_json::from_str(&data).unwrap());
        }
    }
}

#[test]
fn the_tap_shows_requests_without_their_secrets() {
    let upstream = Upstream::start(|_, wire| {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: sid=CANARY\r\nContent-Type: text/plain\r\n\r\nok";
        wire.write_all(answer.as_bytes()).is_ok()
    });
    let edge = setup(&upstream, "").start();
    for (token, status) in [(None, 401), (Some(edge.issuer.token("read")), 403)] {
        assert_eq!(
            edge.admin("GET", "/admin/tap", token.as_deref(), None).status,
            status,
            "near is not enough"
        );
    }
    let reader = edge.issuer.token("control:read");
    for bad in ["?status=9xx", "?client=here", "?method=get", "?route=a&route=b", "?unknown=1"] {
        assert_eq!(
            edge.admin("GET", &format!("/admin/tap{bad}"), Some(&reader), None).code(),
            "bad_query",
            "{bad}"
        );
    }
    let mut viewer = tap(&edge, "?route=api");
    let mut errors = tap(&edge, "?status=4xx,500-599&method=GET&client=127.0.0.0/8");
    let secret = format!("/api/x/{JWT}?symbol=BTC&api_key=CANARY&t={JWT}");
    let bearer = edge.issuer.token("read");
    let fields = format!(
        "Authorization: Bearer {bearer}\r\nCookie: a=CANARY\r\nX-Api-Key: CANARY\r\nX-Odd: CANARY\r\nUser-Agent: curl {JWT}\r\nAccept: text/plain\r\n"
    );
    assert_eq!(get(&edge, &secret, &fields).status, 200);
    assert_eq!(get(&edge, "/none", "").status, 404);
    edge.send("BREW / HTTP/1.1\r\nHost: edge\r\n\r\n");
    let (event, line) = next(&mut viewer);
    assert_eq!(event, "request");
    let text = line.to_string();
    let signature = bearer.rsplit('.').next().unwrap();
    assert!(
        !["CANARY", "c2lnbmF0dXJlLWNhbmFyeQ", signature].iter().any(|secret| text.contains(secret)),
        "{text}"
    );
    assert_eq!(line["path"], "/api/x/***?symbol=BTC&api_key=***&t=***");
    assert_eq!(line["request_headers"]["authorization"], Value::Null);
    assert_eq!(line["request_headers"]["user-agent"], Value::Null, "it looks like a token");
    assert_eq!(line["request_headers"]["accept"], "text/plain");
    assert!(line["request_headers"].as_object().unwrap().contains_key("cookie"));
    assert_eq!(line["response_headers"]["set-cookie"], Value::Null);
    assert_eq!((&line["status"], &line["attempts"], &line["bytes_out"]), (&json!(200), &json!(1), &json!(2)));
    assert_eq!(
        (&line["route"], &line["decision"], &line["tls"]),
        (&json!("api"), &json!("forwarded"), &Value::Null)
    );
    assert!(line["stages_us"]["total"].as_u64() >= line["stages_us"]["first_byte"].as_u64());
    let (_, line) = next(&mut errors);
    assert_eq!((&line["path"], &line["decision"]), (&json!("/none"), &json!("no_route")));

    let metrics = edge.get("/metrics").text();
    assert!(
        metrics.contains("sluice_tap_viewers 2") && metrics.contains("sluice_tap_lost_total 0"),
        "{metrics}"
    );
    let more: Vec<Client> = (2..8).map(|_| tap(&edge, "")).collect();
    assert_eq!(edge.admin("GET", "/admin/tap", Some(&reader), None).code(), "overloaded");
    drop((more, viewer, errors));
    eventually("the viewers are gone", || {
        let metrics = edge.get("/metrics").text();
        metrics.contains("sluice_tap_viewers 0").then_some(())
    });
    let audited = std::fs::read_to_string(edge.data.join("audit/edge.jsonl")).unwrap();
    assert!(audited.contains(r#""op":"tap""#));
}

#[test]
fn the_tap_ends_with_its_token() {
    let upstream = Upstream::start(ok);
    let edge = setup(&upstream, "").start();
    let now = jiff::Timestamp::now().as_second();
    let token = |jti: &str| {
        edge.issuer.sign(&json!({
            "iss": "https://sluice.internal", "aud": "sluice", "sub": "viewer", "exp": now + 600, "iat": now,
            "jti": jti, "scope": "control:read",
        }))
    };
    let [mut good, mut revoked] = ["good", "revoked"].map(|jti| tap_with(&edge, "", &token(jti)));
    let change = Change::Jti { jti: "revoked".to_owned() };
    edge.trust.apply(&Message::Delta(Delta { epoch: "e".into(), seq: 2, change }));
    assert!(revoked.read_until("0\r\n\r\n").ends_with("0\r\n\r\n"), "the answer comes to its end");
    assert_eq!(get(&edge, "/api", "").status, 200);
    // The harness asked whether the edge lives: that may be told late.
    let seen = std::iter::repeat_with(|| next(&mut good).1["path"].clone()).find(|path| path != "/livez");
    assert_eq!(seen, Some(json!("/api")));
}

#[test]
fn a_refused_head_is_shown_too() {
    let upstream = Upstream::start(ok);
    let edge = setup(&upstream, "").start();
    let mut viewer = tap(&edge, "?status=501");
    edge.send("BREW /x HTTP/1.1\r\nHost: edge\r\n\r\n");
    let (_, line) = next(&mut viewer);
    assert_eq!((&line["decision"], &line["route"]), (&json!("method_unknown"), &json!("edge")));
}

#[test]
fn a_trace_is_continued_only_where_it_is_valid() {
    let upstream = Upstream::start(ok);
    let edge = setup(&upstream, "").start();
    let passed = |fields: &str| {
        assert_eq!(get(&edge, "/api", fields).status, 200);
        let seen = upstream.seen().pop().unwrap();
        let one = |name: &str| seen.fields(name).join("|");
        (one("traceparent"), one("tracestate"))
    };
    let (parent, state) =
        passed(&format!("traceparent: {PARENT}\r\ntracestate: a=1,\r\ntracestate: b=2\r\n"));
    assert!(
        parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && parent.ends_with("-01"),
        "{parent}"
    );
    assert!(!parent.contains("00f067aa0ba902b7"));
    assert_eq!(state, "a=1,b=2");
    let (parent, state) = passed(&format!("traceparent: {PARENT}\r\ntracestate: a=1,a=2\r\n"));
    assert!(parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    assert_eq!(state, "", "what cannot be read is not passed on");
    let bad = PARENT.to_uppercase();
    let (parent, state) = passed(&format!("traceparent: {bad}\r\ntracestate: a=1\r\n"));
    assert!(!parent.contains("4bf92f") && parent.ends_with("-00"), "{parent}");
    assert_eq!(state, "");
}

#[test]
fn the_server_as_a_whole_tells_its_methods() {
    let upstream = Upstream::start(ok);
    let edge = setup(&upstream, "").start();
    let mut client = edge.connect();
    let options = client.exchange("OPTIONS * HTTP/1.1\r\nHost: edge\r\n\r\n");
    assert_eq!(options.status, 204, "{}", options.text());
    assert_eq!(options.field("allow"), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    assert!(options.fields("content-length").is_empty() && options.fields("content-type").is_empty());
    assert_eq!(
        client.exchange("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n").status,
        200,
        "the connection goes on"
    );
    assert_eq!(edge.send("GET * HTTP/1.1\r\nHost: edge\r\n\r\n").status, 400);
}

/// The spans in the bodies that a collector got.
fn spans(collector: &Upstream) -> Vec<Value> {
    let mut spans = Vec::new();
    for seen in collector.seen() {
        assert_eq!(seen.line(), "POST /v1/traces HTTP/1.1");
        assert_eq!(seen.fields("content-type"), ["application/json"]);
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        let resource = &body["resourceSpans"][0];
        assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "sluice-edge");
        spans.extend(resource["scopeSpans"][0]["spans"].as_array().unwrap().iter().cloned());
    }
    spans
}

fn attribute(span: &Value, name: &str) -> Option<String> {
    let found = span["attributes"].as_array()?.iter().find(|one| one["key"] == name)?;
    let value = &found["value"];
    value["stringValue"].as_str().or(value["intValue"].as_str()).map(str::to_owned)
}

#[test]
fn spans_reach_a_collector() {
    let collector = Upstream::start(|_, wire| wire.write_all(reply("200 OK", "{}").as_bytes()).is_ok());
    let tries = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_, wire| {
        let first = tries.fetch_add(1, Ordering::SeqCst) == 0;
        let status = if first { "503 Service Unavailable" } else { "200 OK" };
        wire.write_all(reply(status, "x").as_bytes()).is_ok()
    });
    let text = service("api", "/api", &[upstream.url()], "auth_required = false\nretry = { attempts = 2 }");
    let main = format!("[otlp]\nendpoint = \"{}\"\n", collector.url());
    let edge = Setup::new(&main).service("api", &text).start();
    assert_eq!(get(&edge, "/api/x", &format!("traceparent: {PARENT}\r\ntracestate: a=1\r\n")).status, 200);
    assert_eq!(
        get(&edge, "/api/unsampled", &format!("traceparent: {}\r\n", PARENT.replace("-01", "-00"))).status,
        200
    );
    let ours = eventually("the spans", || {
        let ours: Vec<Value> = spans(&collector)
            .into_iter()
            .filter(|span| span["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736")
            .collect();
        (ours.len() == 3).then_some(ours)
    });
    let (server, tries): (Vec<&Value>, Vec<&Value>) = ours.iter().partition(|span| span["kind"] == 2);
    let server = server[0];
    assert_eq!((&server["name"], &server["parentSpanId"]), (&json!("GET /api"), &json!("00f067aa0ba902b7")));
    assert_eq!((&server["traceState"], &server["status"]), (&json!("a=1"), &json!({})));
    assert_eq!(attribute(server, "http.response.status_code").as_deref(), Some("200"));
    assert!(tries.iter().all(|span| span["parentSpanId"] == server["spanId"]));
    let statuses: Vec<_> =
        tries.iter().map(|span| attribute(span, "http.response.status_code").unwrap()).collect();
    assert_eq!(statuses, ["503", "200"]);
    assert_eq!(attribute(tries[1], "http.request.resend_count").as_deref(), Some("1"));
    let port = upstream.address.unwrap().port().to_string();
    assert_eq!(attribute(tries[0], "server.address").as_deref(), Some("127.0.0.1"));
    assert_eq!(attribute(tries[0], "server.port"), Some(port));
    let seen: Vec<String> =
        upstream.seen().iter().map(|seen| seen.fields("traceparent")[0].to_owned()).collect();
    for (seen, span) in seen.iter().zip(&tries) {
        assert!(seen.contains(span["spanId"].as_str().unwrap()), "each try has its own span: {seen}");
    }
    let ns = |span: &Value, name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    assert!(ns(server, "startTimeUnixNano") <= ns(tries[0], "startTimeUnixNano"));
    assert!(ns(tries[0], "endTimeUnixNano") <= ns(tries[1], "endTimeUnixNano"));
    assert!(
        !spans(&collector)
            .iter()
            .any(|span| attribute(span, "url.path").as_deref() == Some("/api/unsampled"))
    );
    let metrics = edge.get("/metrics").text();
    assert!(!metrics.contains("sluice_otlp_spans_total{result=\"exported\"} 0\n"), "{metrics}");
}

#[test]
fn a_collector_that_is_away_costs_nothing_but_a_count() {
    let upstream = Upstream::start(ok);
    let refusing =
        Upstream::start(|_, wire| wire.write_all(reply("400 Bad Request", "no").as_bytes()).is_ok());
    let main = format!("[otlp]\nendpoint = \"{}\"\n", refusing.url());
    let edge = setup(&upstream, &main).start();
    for _ in 0..20 {
        assert_eq!(get(&edge, "/api", "").status, 200);
    }
    eventually("the failures are counted", || {
        let metrics = edge.get("/metrics").text();
        let line =
            metrics.lines().find(|line| line.starts_with("sluice_otlp_spans_total{result=\"failed\"}"))?;
        let count: f64 = line.rsplit(' ').next()?.parse().ok()?;
        (count >= 40.0).then_some(())
    });
    assert_eq!(get(&edge, "/api", "").status, 200);
}
