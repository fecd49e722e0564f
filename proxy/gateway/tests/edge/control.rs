//! The control port: who may, breakers, dashboard, audit.

use serde_json::{Value, json};
use sluice_wire::role::Role;

use crate::harness::{Client, Edge, PATIENCE, Setup, Upstream, edge_for, eventually, ok, reply};

fn get(edge: &Edge, path: &str, more: &str) -> crate::harness::Reply {
    Client::to(edge.control)
        .exchange(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}Connection: close\r\n\r\n"))
}

#[test]
fn reading_is_near_or_by_scope_and_hosts_are_ours() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    assert_eq!(get(&edge, "/circuit-breakers", "").status, 200);
    for field in ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "Via: 1.1 x"] {
        assert_eq!(get(&edge, "/circuit-breakers", &format!("{field}\r\n")).status, 401, "{field}");
        assert_eq!(get(&edge, "/metrics", &format!("{field}\r\n")).status, 401, "{field}");
    }
    assert_eq!(get(&edge, "/metrics", "").status, 200);
    let reader = edge.issuer.token("control:read");
    let with = |token: &str| format!("X-Forwarded-For: 1.2.3.4\r\nAuthorization: Bearer {token}\r\n");
    assert_eq!(get(&edge, "/circuit-breakers", &with(&reader)).status, 200);
    assert_eq!(get(&edge, "/circuit-breakers", &with(&edge.issuer.token("read"))).status, 403);
    assert_eq!(get(&edge, "/circuit-breakers", &with("forged")).status, 401);
    let mut client = Client::to(edge.control);
    let foreign =
        client.exchange("GET /circuit-breakers HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(foreign.status, 421);
    assert_eq!(get(&edge, "/admin/config", "").status, 401, "always a token");
    let config = edge.admin("GET", "/admin/config", Some(&reader), None);
    assert_eq!(config.status, 200);
    assert!(config.json()["settings"].as_array().unwrap().iter().any(|one| one["path"] == "edge.threads"));
    for path in ["/livez", "/readyz", "/health", "/admin", "/alerts"] {
        assert_eq!(get(&edge, path, "").status, 200, "{path}");
    }
}

#[test]
fn changes_take_the_scope_and_are_in_the_audit_chain() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let force = json!({"state": "open", "reason": "maintenance"});
    let path = "/circuit-breakers/api/force";
    assert_eq!(edge.admin("POST", path, None, Some(&force)).status, 401, "being near is not enough");
    assert_eq!(edge.admin("POST", path, Some(&edge.issuer.token("control:read")), Some(&force)).status, 403);
    let token = edge.issuer.token_of("operator", "control:write control:read");
    let done = edge.admin("POST", path, Some(&token), Some(&force));
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(done.json()["new_state"], "open");
    assert_eq!(edge.get("/api").code(), "breaker_open");
    let reset = edge.admin("POST", "/circuit-breakers/api/reset", Some(&token), None).json();
    assert_eq!(reset, json!({"status": "success", "name": "api", "new_state": "closed"}));
    assert_eq!(edge.get("/api").status, 200);
    assert_eq!(edge.admin("POST", "/circuit-breakers/reset-all", Some(&token), None).status, 200);
    assert_eq!(edge.admin("POST", "/circuit-breakers/none/reset", Some(&token), None).code(), "not_found");
    assert_eq!(edge.admin("GET", "/circuit-breakers/api/reset", Some(&token), None).status, 405);
    assert_eq!(
        edge.admin("POST", path, Some(&token), Some(&json!({"state": "open", "reason": " "}))).status,
        422
    );

    let log = std::fs::read_to_string(edge.data.join("audit/edge.jsonl")).unwrap();
    let records: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<(&str, &str, &str)> = records
        .iter()
        .map(|one| {
            (one["actor"].as_str().unwrap(), one["op"].as_str().unwrap(), one["decision"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("anonymous", "breaker_force_open", "deny"),
            ("alice", "breaker_force_open", "deny"),
            ("operator", "breaker_force_open", "allow"),
            ("operator", "breaker_reset", "allow"),
            ("operator", "breaker_reset", "allow"),
        ]
    );
    assert_eq!(records[2]["path"], "api: maintenance");
}

#[test]
fn settings_of_a_breaker_change_at_run_time() {
    let upstream =
        Upstream::start(|_, wire| wire.write_all(reply("502 Bad Gateway", "x").as_bytes()).is_ok());
    let edge = edge_for(&upstream, "retry = { attempts = 1 }");
    let token = edge.issuer.token("control:write");
    let shown = edge.admin(
        "PUT",
        "/circuit-breakers/api/config",
        Some(&token),
        Some(&json!({"failure_threshold": 2, "recovery_timeout": "60s"})),
    );
    assert_eq!(shown.json()["config"]["failure_threshold"], 2);
    assert_eq!([edge.get("/api").status, edge.get("/api").status, edge.get("/api").status], [502, 502, 503]);
    let bad =
        edge.admin("PUT", "/circuit-breakers/api/config", Some(&token), Some(&json!({"failure_rate": 7})));
    assert_eq!(bad.status, 422);
    let alerts = edge.admin("GET", "/alerts", None, None).json();
    let alert = alerts["alerts"].as_array().unwrap().iter().find(|one| one["service"] == "api").unwrap();
    assert_eq!(
        (alert["level"].as_str(), alert["message"].as_str()),
        (Some("critical"), Some("breaker open"))
    );
    let board = edge.admin("GET", "/dashboard", None, None).json();
    assert_eq!(board["summary"]["total_breakers"], 1);
    assert_eq!(board["summary"]["open_breakers"], 1);
    assert_eq!(board["summary"]["total_failures"], 2);
    assert_eq!(board["breakers"][0]["name"], "api");
}

#[test]
fn the_page_is_served_with_a_strict_policy() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let page = get(&edge, "/dashboard", "Accept: text/html,*/*\r\n");
    assert!(page.text().contains("<title>Sluice"), "{}", page.text());
    assert!(page.field("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(page.field("x-frame-options"), "DENY");
    let script = get(&edge, "/dashboard/app.js", "");
    assert!(script.field("content-type").starts_with("text/javascript"));
    assert_eq!(get(&edge, "/dashboard/app.js", "If-None-Match: \"1\"\r\n").status, 304);
    assert_eq!(get(&edge, "/dashboard/none.js", "").code(), "not_found");
    assert_eq!(get(&edge, "/", "").status, 303);
}

#[test]
fn the_snapshot_stream_shows_what_happens() {
    let upstream = Upstream::start(ok);
    let mut setup = Setup::new("");
    let text = crate::harness::service("api", "/api", &[upstream.url()], "auth_required = false");
    let _events = Upstream::start_unix(&setup.door(Role::Events), ok);
    let edge = setup.service("api", &text).start();
    let mut viewer = Client::to(edge.control);
    viewer.send("GET /dashboard/stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(viewer.read_until("\r\n\r\n").contains("text/event-stream"));
    for _ in 0..20 {
        assert_eq!(edge.get("/api").status, 200);
    }
    let until = std::time::Instant::now() + PATIENCE;
    let picture = loop {
        assert!(std::time::Instant::now() < until, "no picture with traffic");
        let frame = viewer.read_until("\n\n");
        let Some(data) = frame.split("data: ").nth(1) else { continue };
        let picture: Value = serde_json::from_str(data.lines().next().unwrap()).unwrap();
        if picture["routes"][0]["rps"].as_f64().unwrap() >= 2.0 {
            break picture;
        }
    };
    assert_eq!(picture["dev"], true);
    assert_eq!(picture["generation"]["number"], 1);
    let route = &picture["routes"][0];
    assert_eq!((route["name"].as_str(), route["prefix"].as_str()), (Some("api"), Some("/api")));
    assert!(route["p99_ms"].as_f64().unwrap() > 0.0 && route["spark"].is_array());
    assert_eq!(route["breaker"], json!({"state": "closed", "failures": 0, "retry_at": null, "forced": null}));
    assert_eq!(route["instances"][0]["state"], "healthy");
    assert!(picture["totals"]["requests_total"].as_u64().unwrap() >= 20);
    let fixture: Value =
        serde_json::from_str(include_str!("../../../console/fixtures/snapshot.json")).unwrap();
    for name in fixture.as_object().unwrap().keys() {
        assert!(picture.get(name).is_some(), "{name} is missing");
    }
    for name in fixture["routes"][0].as_object().unwrap().keys() {
        assert!(route.get(name).is_some(), "routes[].{name} is missing");
    }
    let instance = &route["instances"][0];
    for name in fixture["routes"][0]["instances"][0].as_object().unwrap().keys() {
        assert!(instance.get(name).is_some(), "routes[].instances[].{name} is missing");
    }
    let gate = &picture["gates"][0];
    for name in fixture["gates"][0].as_object().unwrap().keys() {
        assert!(gate.get(name).is_some(), "gates[].{name} is missing");
    }
    assert_eq!(gate["services"], json!(["api"]));
    for part in ["totals", "store"] {
        for name in fixture[part].as_object().unwrap().keys() {
            assert!(picture[part].get(name).is_some(), "{part}.{name} is missing");
        }
    }
}

#[test]
fn the_snapshot_shows_consumer_groups_that_need_a_look_first() {
    let upstream = Upstream::start(ok);
    let mut setup = Setup::new("");
    let events = Upstream::start_unix(&setup.door(Role::Events), ok);
    let group = |name: &str, lag: u64, dead: u64| json!({"name": name, "consumers": 1, "pending": 2, "lag": lag, "lag_seconds": 1.5, "dlq_depth": dead});
    let many = (0..20).map(|n| group(&format!("idle{n}"), 0, 0));
    let groups: Vec<Value> = many.chain([group("behind", 70, 0), group("failing", 3, 9)]).collect();
    let stats = json!({"store": "embedded", "stream_length": 5, "last_seq": 5, "oldest_age_seconds": 60.5,
        "consumer_groups": groups.len(), "groups": groups});
    events.show("/events/stats", &stats);
    let text = crate::harness::service("api", "/api", &[upstream.url()], "auth_required = false");
    let edge = setup.service("api", &text).start();
    let mut viewer = Client::to(edge.control);
    viewer.send("GET /dashboard/stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(viewer.read_until("\r\n\r\n").contains("text/event-stream"));
    let until = std::time::Instant::now() + PATIENCE;
    let store = loop {
        assert!(std::time::Instant::now() < until, "no rate is told");
        let frame = viewer.read_until("\n\n");
        let Some(data) = frame.split("data: ").nth(1) else { continue };
        let mut picture: Value = serde_json::from_str(data.lines().next().unwrap()).unwrap();
        if picture["store"]["events_per_s"].is_number() {
            break picture["store"].take();
        }
    };
    assert_eq!((&store["oldest_age_s"], &store["dead_letters"]), (&json!(60.5), &json!(9)), "{store}");
    let groups = store["groups"].as_array().unwrap();
    assert_eq!((groups.len(), &store["groups_total"]), (16, &json!(22)));
    let first = json!({"name": "failing", "lag": 3, "lag_s": 1.5, "pending": 2, "dead_letters": 9});
    assert_eq!((&groups[0], &groups[1]["name"]), (&first, &json!("behind")));
}

#[test]
fn the_dashboards_calls_reach_workers_with_the_viewers_rights() {
    let mut setup = Setup::new("");
    let events = Upstream::start_unix(&setup.door(Role::Events), ok);
    let calc = Upstream::start_unix(&setup.door(Role::Calc), ok);
    let edge = setup.start();
    assert_eq!(get(&edge, "/events?limit=5", "Last-Event-ID: 9\r\n").status, 200);
    let token = edge.issuer.token_of("bob", "control:read read");
    let body = json!({"data": []});
    assert_eq!(edge.admin("POST", "/calculations/indicators", Some(&token), Some(&body)).status, 200);
    let near = eventually("the call arrives", || {
        events.seen().into_iter().find(|seen| seen.line() == "GET /events?limit=5 HTTP/1.1")
    });
    assert_eq!(near.fields("x-user"), ["dashboard"]);
    assert_eq!(near.fields("x-permissions"), ["control:read events:read read"]);
    assert_eq!(near.fields("last-event-id"), ["9"]);
    assert_eq!(near.fields("x-internal-key"), [edge.internal_key.as_str()]);
    assert!(near.fields("x-internal-self").is_empty());
    let seen = calc.only();
    assert_eq!(
        (seen.fields("x-user"), seen.fields("x-permissions")),
        (vec!["bob"], vec!["control:read read"])
    );
    assert_eq!(
        edge.admin("POST", "/events", Some(&token), Some(&body)).status,
        405,
        "the dashboard publishes nothing"
    );
    assert_eq!(get(&edge, "/series/BTC/USDT", "").status, 200);
}

#[test]
fn a_breaker_that_opens_is_an_event() {
    let mut setup = Setup::new("");
    let events = Upstream::start_unix(&setup.door(Role::Events), |_, wire| {
        let body = json!({"message_id": "1-0", "event_id": "018f3e5a-7c1e-7b5a-8c1e-7b5a8c1e7b5a", "status": "published",
            "durability": "fsync", "duplicate": false});
        wire.write_all(reply("201 Created", &body.to_string()).as_bytes()).is_ok()
    });
    let upstream =
        Upstream::start(|_, wire| wire.write_all(reply("502 Bad Gateway", "x").as_bytes()).is_ok());
    let more = "auth_required = false\nretry = { attempts = 1 }\nbreaker = { failure_threshold = 1 }";
    let text = crate::harness::service("api", "/api", &[upstream.url()], more);
    let edge = setup.service("api", &text).start();
    assert_eq!(edge.get("/api").status, 502);
    let seen = eventually("the event is published", || {
        events.seen().into_iter().find(|seen| seen.line().starts_with("POST /events "))
    });
    let event: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(event["event_type"], "circuit_breaker_state");
    assert_eq!(event["data"]["service"], "api");
    assert_eq!(event["data"]["state"], "open");
    assert_eq!(seen.fields("x-internal-self"), ["1"]);
}
