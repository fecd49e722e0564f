//! Services registered over the API.

use std::time::{Duration, Instant};

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
    let chain = std::fs::read_to_string(edge.data.join("audit/edge.jsonl")).unwrap();
    let records: Vec<Value> = chain.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let changes = records.iter().filter(|record| record["type"] == "registry");
    let changes: Vec<_> = changes.map(|record| (&record["op"], &record["path"])).collect();
    let signals = json!("signals");
    assert_eq!(
        changes,
        [(&json!("register"), &signals), (&json!("deregister"), &signals)],
        "each change is in the audit chain, and nothing that changes nothing"
    );
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
    let until = Instant::now() + Duration::from_millis(2500);
    while Instant::now() < until {
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
fn no_spelling_of_a_forbidden_address_can_be_registered() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let (http, control) = (edge.http.port(), edge.control.port());
    let forms = [
        // Not in `registry.allow`, whatever it is.
        ("http://10.1.2.3", 403),
        ("http://[::1]:9", 403),
        ("http://[fe80::1]:9", 403),
        ("http://192.168.0.1", 403),
        // Never.
        ("http://169.254.169.254", 403),
        ("http://169.254.1.1", 403),
        ("http://0.0.0.0:9", 403),
        ("http://[::]:9", 403),
        ("http://224.0.0.1:9", 403),
        ("http://255.255.255.255:9", 403),
        ("http://[ff02::1]:9", 403),
        ("http://[::ffff:127.0.0.1]:9", 403),
        ("http://[::127.0.0.1]:9", 403),
        ("http://[64:ff9b::7f00:1]:9", 403),
        ("http://[2002:7f00:1::]:9", 403),
        ("http://[fd00:ec2::254]", 403),
        ("h2c://169.254.169.254:80", 403),
        (&format!("http://127.0.0.1:{http}"), 403),
        (&format!("h2c://127.0.0.1:{control}"), 403),
        (&format!("http://localhost:{control}"), 403),
        // Other spellings of numbers are no addresses, or are judged by what they resolve to.
        ("http://2130706433:9", 422),
        ("http://0177.0.0.1:9", 422),
        ("http://127.1:9", 422),
        ("http://0x7f.0.0.1:9", 422),
        ("http://0x7f.1:9", 422),
        ("http://127.0x1:9", 422),
        ("http://0x7f000001:9", 422),
        ("http://127.0.0.1.:9", 422),
        ("http://[::1%25lo]:9", 422),
        ("http://no-such-name.invalid:9", 422),
        // Not an address alone.
        ("http://user:secret@127.0.0.1:9", 422),
        ("http://127.0.0.1:9@169.254.169.254", 422),
        ("http://127.0.0.1:9/path", 422),
        ("http://127.0.0.1:9?query", 422),
        ("http://127.0.0.1:9#x", 422),
        ("http://127.0.0.1\\\\@169.254.169.254", 422),
        ("http://127.0.0.1:0", 422),
        ("http://127.0.0.1:65536", 422),
        ("http://127.0.0.1 :9", 422),
        ("http://127.0.0.1:9\\r\\nx: y", 422),
        ("http:127.0.0.1:9", 422),
        ("//127.0.0.1:9", 422),
        ("ftp://127.0.0.1:9", 422),
        ("file:///etc/passwd", 422),
        // Only a file can name what these take.
        ("unix:/run/x.sock", 422),
        ("https://127.0.0.1:9", 422),
        ("https://localhost:9", 422),
    ];
    for (url, status) in forms {
        let body: Value =
            serde_json::from_str(&format!(r#"{{"name":"s","prefix":"/s","url":"{url}"}}"#)).unwrap();
        let reply = register(&edge, &body);
        assert_eq!(reply.status, status, "{url} -> {}", reply.text());
        reply.code();
    }
    assert_eq!(edge.get("/services").json()["count"], 1);
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn a_port_that_moved_in_the_files_is_refused_until_its_worker_starts_again() {
    let vault = |port: u16| format!("[vault]\nlisten = \"127.0.0.1:{port}\"\n");
    let edge = Setup::new(&vault(18_009)).start();
    let main = edge.conf.join("sluice.toml");
    let written = std::fs::read_to_string(&main).unwrap();
    std::fs::write(&main, written.replace(":18009", ":18010")).unwrap();
    let token = edge.issuer.token("control:write control:read");
    let done = edge.admin("POST", "/admin/reload", Some(&token), None);
    assert!(done.status == 200 && done.text().contains("18010"), "{}", done.text());
    for port in [18_009, 18_010] {
        let body = json!({"name": "s", "url": format!("http://127.0.0.1:{port}"), "prefix": "/s"});
        assert_eq!(register(&edge, &body).code(), "address_denied", "{port}");
    }
}

#[test]
fn clear_text_http2_can_be_registered() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let url = upstream.url().replace("http:", "h2c:");
    let body = json!({"name": "s", "url": url, "prefix": "/s"});
    let done = register(&edge, &body);
    assert_eq!((done.status, done.json()["instances"][0]["url"].as_str()), (201, Some(&*url)));
}

#[test]
fn a_lease_goes_on_over_a_restart() {
    let upstream = Upstream::start(ok);
    let edge = Setup::new("").start();
    let body = json!({"name": "s", "url": upstream.url(), "prefix": "/s", "ttl": 3, "auth_required": false});
    assert_eq!(register(&edge, &body).status, 201);
    let edge = edge.restart();
    assert_eq!(edge.get("/s").status, 200);
    eventually("the lease ends", || Some(edge.get("/s")).filter(|reply| reply.status == 404));
    let again = register(&edge, &body);
    assert_eq!((again.status, again.json()["status"].as_str()), (201, Some("registered")));
}

#[test]
fn a_dropped_file_routes_and_a_removed_one_drains() {
    let (slow, other) = (Upstream::start(slowly), Upstream::start(ok));
    let edge = edge_for(&other, "");
    let body = json!({"name": "s", "url": other.url(), "prefix": "/dropped", "auth_required": false});
    assert_eq!(register(&edge, &body).status, 201);
    let file = edge.conf.join("services.d/dropped.toml");
    let text = crate::harness::service("dropped", "/dropped", &[slow.url()], "auth_required = false");
    let begun = Instant::now();
    std::fs::write(&file, text).unwrap();
    // The file takes the prefix; what was registered there waits.
    eventually("the file routes", || {
        (edge.get("/dropped").status == 200 && !slow.seen().is_empty()).then_some(())
    });
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let taken = register(&edge, &body);
    assert_eq!((taken.status, taken.code().as_str()), (409, "prefix_taken"));

    let mut waiting = edge.connect();
    let before = slow.seen().len();
    waiting.send("GET /dropped/last HTTP/1.1\r\nHost: edge\r\n\r\n");
    eventually("a request is under way", || (slow.seen().len() > before).then_some(()));
    std::fs::remove_file(&file).unwrap();
    eventually("what was registered routes again", || {
        let before = other.seen().len();
        (edge.get("/dropped").status == 200 && other.seen().len() > before).then_some(())
    });
    assert_eq!(waiting.reply().status, 200, "what was under way ends well");
}

fn slowly(seen: &crate::harness::Seen, wire: &mut dyn crate::harness::Wire) -> bool {
    if seen.line().contains("last") {
        std::thread::sleep(Duration::from_secs(3));
    }
    ok(seen, wire)
}

#[test]
fn the_environment_moves_a_shipped_service() {
    let upstream = Upstream::start(ok);
    let text = crate::harness::service(
        "data_service",
        "/api/data",
        &["http://127.0.0.1:9".to_owned()],
        "auth_required = false",
    );
    let mut setup = Setup::new("").service("data", &text);
    setup.environment.insert("DATA_SERVICE_URL".to_owned(), upstream.url());
    let edge = setup.start();
    assert_eq!(edge.get("/api/data/x").status, 200);
    assert_eq!(upstream.only().line(), "GET /x HTTP/1.1");
    let listed = edge.get("/services").json()["services"][0]["instances"].clone();
    assert_eq!((listed[0]["url"].as_str(), listed.as_array().unwrap().len()), (Some(&*upstream.url()), 1));
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
