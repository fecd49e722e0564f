//! Instances that an operator holds back: drain, maintenance, ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::balance::{KEEN, await_state, states};
use crate::harness::{Edge, Reply, Setup, Upstream, eventually, ok, reply, service};

fn edge_at(upstreams: &[&Upstream], more: &str) -> Edge {
    let urls: Vec<String> = upstreams.iter().map(|upstream| upstream.url()).collect();
    let more = format!("rate_limit = 0\nslow_start = \"0s\"\n{KEEN}\n{more}");
    Setup::new("").service("api", &service("api", "/api", &urls, &more)).start()
}

fn hold(edge: &Edge, upstream: &Upstream, word: &str, body: Option<&Value>) -> Reply {
    let token = edge.issuer.token_of("operator", "control:write");
    // By host and port; the whole address works too, escaped.
    let path = format!("/admin/upstreams/api/{}/{word}", upstream.address.unwrap());
    edge.admin("POST", &path, Some(&token), body)
}

#[test]
fn a_drained_instance_finishes_and_gets_nothing_new() {
    let gate = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&gate);
    let slow = Upstream::start(move |_, wire| {
        while !opened.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        wire.write_all(reply("200 OK", "late").as_bytes()).is_ok()
    });
    let other = Upstream::start(ok);
    let edge = edge_at(&[&slow, &other], "auth_required = false\nbalance = \"least_connections\"");
    let mut waiting = Vec::new();
    while slow.seen().is_empty() {
        let mut client = edge.connect();
        client.send("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
        waiting.push(client);
        eventually("it arrives", || (slow.seen().len() + other.seen().len() == waiting.len()).then_some(()));
    }
    let done = hold(&edge, &slow, "drain", Some(&json!({"reason": "a new kernel"})));
    assert_eq!(done.status, 200, "{}", done.text());
    let told = done.json();
    assert_eq!((&told["state"], &told["in_flight"]), (&json!("draining"), &json!(1)), "{told}");
    for _ in 0..10 {
        assert_eq!(edge.get("/api").text(), "ok");
    }
    assert_eq!((slow.seen().len(), states(&edge)), (1, vec!["draining".to_owned(), "healthy".to_owned()]));
    gate.store(true, Ordering::SeqCst);
    let texts: Vec<String> = waiting.iter_mut().map(|client| client.reply().text()).collect();
    assert!(texts.contains(&"late".to_owned()), "what was under way is finished: {texts:?}");

    let shown = edge.admin("GET", "/admin/upstreams", None, None).json();
    let held = &shown["services"][0]["instances"][0]["held"];
    assert_eq!(
        (&held["as"], &held["reason"], &held["by"]),
        (&json!("drain"), &json!("a new kernel"), &json!("operator"))
    );
    let chain = std::fs::read_to_string(edge.data.join("audit/edge.jsonl")).unwrap();
    assert!(chain.contains("\"op\":\"upstream_drain\"") && chain.contains(": a new kernel\""), "{chain}");

    let token = edge.issuer.token_of("operator", "control:write");
    let whole = format!("/admin/upstreams/api/{}/ready", slow.url().replace(':', "%3A").replace('/', "%2F"));
    assert_eq!(edge.admin("POST", &whole, Some(&token), None).json()["state"], "healthy");
    assert_eq!(states(&edge)[0], "healthy");
    eventually("it is used again", || (edge.get("/api").text() == "late").then_some(()));
}

#[test]
fn maintenance_outlives_reload_and_restart_and_is_not_probed() {
    let [one, two] = [Upstream::start(ok), Upstream::start(ok)];
    let edge = edge_at(&[&one, &two], "auth_required = false");
    assert_eq!(hold(&edge, &one, "maint", None).json()["state"], "maint");
    // No probe is under way any more after its time; then its answers matter to nobody.
    one.answer_probes(false);
    let reach = |edge: &Edge| {
        let before = one.seen().len();
        (0..6).for_each(|_| assert_eq!(edge.get("/api").status, 200));
        one.seen().len() - before
    };
    assert_eq!(reach(&edge), 0);
    let health = edge.get("/health").json();
    assert_eq!(health["services"]["api"]["healthy_instances"], 1);

    // A file that goes and comes back: the instance is a new one, and held as it was.
    let (path, beside) = (edge.conf.join("services.d/api.toml"), edge.conf.join("aside"));
    std::fs::rename(&path, &beside).unwrap();
    eventually("the service is gone", || (edge.get("/api").status == 404).then_some(()));
    let absent = edge.admin("GET", "/admin/upstreams", None, None).json()["absent"].clone();
    assert_eq!(absent[0]["instance"], json!(one.url()), "{absent}");
    std::fs::rename(&beside, &path).unwrap();
    eventually("the service is back", || (edge.get("/api").status == 200).then_some(()));
    assert_eq!((states(&edge)[0].as_str(), reach(&edge)), ("maint", 0));

    let edge = edge.restart();
    await_state(&edge, 0, "maint");
    assert_eq!(reach(&edge), 0);
    one.answer_probes(true);
    assert_eq!(hold(&edge, &one, "ready", None).json()["state"], "healthy");
    assert_eq!(reach(&edge), 3);
    let edge = edge.restart();
    assert_eq!(states(&edge), ["healthy", "healthy"]);
}

#[test]
fn a_drained_instance_keeps_the_accounts_that_are_bound_to_it() {
    let [one, two] = [Upstream::start(ok), Upstream::start(ok)];
    let edge = edge_at(&[&one, &two], "balance = \"sticky\"");
    let call = |n: usize| {
        let token = edge.issuer.token_of(&format!("trader-{n}"), "read");
        let before = one.seen().len();
        let raw = format!(
            "GET /api HTTP/1.1\r\nHost: edge\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        assert_eq!(edge.send(&raw).status, 200);
        one.seen().len() > before
    };
    let bound: Vec<bool> = (0..10).map(call).collect();
    assert!(bound.contains(&true) && bound.contains(&false), "{bound:?}");
    assert_eq!(hold(&edge, &one, "drain", None).status, 200);
    assert_eq!((0..10).map(call).collect::<Vec<_>>(), bound, "who is there may stay");
    assert!((10..30).all(|n| !call(n)), "nobody comes");
    assert_eq!(hold(&edge, &one, "maint", None).status, 200);
    assert!((0..10).all(|n| !call(n)));
}

#[test]
fn only_an_operator_holds_and_only_what_is_there() {
    let upstream = Upstream::start(ok);
    let edge = edge_at(&[&upstream], "auth_required = false");
    let at =
        |service: &str, instance: &str, word: &str| format!("/admin/upstreams/{service}/{instance}/{word}");
    let here = upstream.address.unwrap().to_string();
    let operator = edge.issuer.token_of("operator", "control:write");
    let post = |path: &str, token: Option<&str>, body: Option<&Value>| edge.admin("POST", path, token, body);
    assert_eq!(post(&at("api", &here, "maint"), None, None).status, 401, "being near is not enough");
    let reader = edge.issuer.token("control:read");
    assert_eq!(post(&at("api", &here, "maint"), Some(&reader), None).status, 403);
    assert_eq!(edge.admin("GET", &at("api", &here, "maint"), Some(&operator), None).status, 405);
    for path in [at("none", &here, "maint"), at("api", "10.0.0.1:1", "maint"), at("api", &here, "sleep")] {
        assert_eq!(post(&path, Some(&operator), None).code(), "not_found", "{path}");
    }
    let path = at("api", &here, "maint");
    for (body, code) in [
        (json!({"reason": "x".repeat(513)}), "unprocessable"),
        (json!({"reason": "two\nlines"}), "unprocessable"),
        (json!({"why": "x"}), "invalid_json"),
    ] {
        assert_eq!(post(&path, Some(&operator), Some(&body)).code(), code, "{body}");
    }
    assert_eq!((states(&edge)[0].as_str(), edge.get("/api").status), ("healthy", 200));
    // The only instance: nothing is left, and no panic reaches it.
    assert_eq!(post(&path, Some(&operator), None).status, 200);
    assert_eq!(edge.get("/api").code(), "no_healthy_instance");
}
