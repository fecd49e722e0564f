//! Services registered over the API.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Edge, Setup, Upstream, edge_for, eventually, ok};

fn register(edge: &Edge, body: &Value) -> crate::harness::Reply {
    edge.call("POST", "/api/register", &edge.issuer.token("registry:write"), body)
}

#[test]
fn a_registration_routes_is_listed_and_survives_a_restart() {
    let [first, second] = [Upstream::start(ok), Upstream::start(ok)];
    let edge = edge_for(&first, "");
    let body = json!({
        "service_name": "signals", "url": second.url(), "prefix": "/signals",
        "health_endpoint": "/health", "rate_limit": 100, "auth_required": false,
    });
    let done = register(&edge, &body);
    assert_eq!(done.status, 201, "{}", done.text());
    assert_eq!(done.json()["service_name"], "signals");
    assert_eq!(register(&edge, &body).status, 201, "the same again changes nothing");
    assert_eq!(edge.get("/signals/x").status, 200);
    assert_eq!(second.only().line(), "GET /x HTTP/1.1");
    let services = edge.get("/api/services").json();
    assert_eq!(services["count"], 2);
    let listed =
        services["services"].as_array().unwrap().iter().find(|one| one["name"] == "signals").unwrap();
    assert_eq!(listed["source"], "api");
    assert_eq!(listed["rate_limit"], 100);
    assert_eq!(listed["path_prefix"], "/signals");
    assert_eq!(listed["breaker"], "closed");
    let breakers = edge.admin("GET", "/circuit-breakers", None, None).json();
    assert_eq!(breakers["circuit_breakers"], json!(["api", "signals"]));

    let edge = edge.restart();
    assert_eq!(edge.get("/signals/y").status, 200);
    let token = edge.issuer.token("registry:write");
    assert_eq!(edge.call("DELETE", "/api/register/signals", &token, &json!({})).status, 200);
    assert_eq!(edge.get("/signals/y").code(), "no_route");
    assert_eq!(edge.call("DELETE", "/api/register/signals", &token, &json!({})).code(), "not_found");
}

#[test]
fn registering_takes_the_scope_and_good_sense() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let good = json!({"name": "s", "instances": [{"url": upstream.url(), "weight": 2}], "path_prefix": "/s"});
    let with = |key: &str, value: Value| {
        let mut body = good.clone();
        body[key] = value;
        body
    };
    let anonymous = edge.send(
        "POST /api/register HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    );
    assert_eq!(anonymous.status, 401);
    assert_eq!(edge.call("POST", "/api/register", &edge.issuer.token("read"), &good).status, 403);
    for (body, status) in [
        (with("path_prefix", json!("/api")), 409),
        (with("path_prefix", json!("/api/deeper")), 409),
        (with("path_prefix", json!("/events/mine")), 409),
        (with("name", json!("api")), 409),
        (with("path_prefix", json!("/")), 422),
        (with("path_prefix", json!("no-slash")), 422),
        (with("extra", json!(1)), 400),
        (with("instances", json!(["http://10.1.2.3:80"])), 403),
        (with("instances", json!(["http://169.254.169.254:80"])), 403),
        (with("instances", json!([format!("http://{}", edge.control)])), 403),
        (with("instances", json!([format!("http://{}", edge.http)])), 403),
        (with("instances", json!(["unix:/run/x.sock"])), 422),
        (with("instances", json!([])), 422),
    ] {
        let reply = register(&edge, &body);
        assert_eq!(reply.status, status, "{body} -> {}", reply.text());
        reply.code();
    }
    assert_eq!(edge.get("/services").json()["count"], 1);
    assert_eq!(register(&edge, &good).status, 201);
    let reply = edge.get("/s");
    assert_eq!(reply.status, 401, "a registered service asks for a token unless it says otherwise");
    let large = json!({"name": "x".repeat(70_000)});
    assert_eq!(register(&edge, &large).status, 413);
}

#[test]
fn a_lease_ends_unless_it_is_kept_alive() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let body = json!({"name": "s", "url": upstream.url(), "prefix": "/s", "ttl": 2, "auth_required": false});
    let token = edge.issuer.token("registry:write");
    assert!(register(&edge, &body).json()["expires_at"].is_string());
    let until = std::time::Instant::now() + Duration::from_millis(2500);
    while std::time::Instant::now() < until {
        assert_eq!(edge.call("PUT", "/api/register/s/heartbeat", &token, &json!({})).status, 200);
        assert_eq!(edge.get("/s").status, 200);
        std::thread::sleep(Duration::from_millis(200));
    }
    eventually("the lease ends", || Some(edge.get("/s")).filter(|reply| reply.status == 404));
    assert_eq!(edge.call("PUT", "/api/register/s/heartbeat", &token, &json!({})).code(), "not_found");
    let metrics = edge.get("/metrics").text();
    assert!(!metrics.contains("service=\"s\""), "its metrics are gone: {metrics}");
}

#[test]
fn names_are_resolved_for_requests() {
    let upstream = Upstream::start(ok);
    let port = upstream.address.unwrap().port();
    let text = crate::harness::service(
        "api",
        "/api",
        &[format!("http://localhost:{port}")],
        "auth_required = false",
    );
    let edge = Setup::new("").service("api", &text).start();
    eventually("the name is resolved", || Some(edge.get("/api")).filter(|reply| reply.status == 200));
    assert_eq!(upstream.seen()[0].fields("host"), [format!("localhost:{port}")]);
}
