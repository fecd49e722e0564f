//! Instances that are names: the whole set is used, followed, and judged where it was registered.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::{Edge, Names, Setup, Upstream, eventually, ok, service};

/// Upstreams on one port of several loopback addresses.
fn at_one_port(ips: &[&str]) -> (u16, Vec<Upstream>) {
    let first = Upstream::start_at(&format!("{}:0", ips[0]), ok);
    let port = first.address.unwrap().port();
    let others = ips[1..].iter().map(|ip| Upstream::start_at(&format!("{ip}:{port}"), ok));
    (port, std::iter::once(first).chain(others).collect())
}

fn edge_for_name(names: &Names, port: u16, more: &str) -> Edge {
    let text = service(
        "api",
        "/api",
        &[format!("http://backend:{port}")],
        &format!("auth_required = false\n{more}"),
    );
    let mut setup = Setup::new("").service("api", &text);
    setup.names = Some(names.clone());
    setup.start()
}

const OFTEN: &str = "health = { interval = \"100ms\", timeout = \"90ms\" }";

#[test]
fn every_address_of_a_name_is_used() {
    let (port, upstreams) = at_one_port(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    let names = Names::default();
    names.set("backend", &["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    let edge = edge_for_name(&names, port, "");
    for _ in 0..9 {
        assert_eq!(edge.get("/api").status, 200, "the first request waits for the first lookup");
    }
    for upstream in &upstreams {
        assert_eq!(upstream.seen().len(), 3);
        assert_eq!(upstream.seen()[0].fields("host"), [format!("backend:{port}")]);
    }
}

#[test]
fn a_dead_address_costs_no_request_and_no_retry() {
    let (port, upstreams) = at_one_port(&["127.0.0.1"]);
    let names = Names::default();
    names.set("backend", &["127.0.0.9", "127.0.0.8", "127.0.0.1"]);
    let edge = edge_for_name(&names, port, "retry = { attempts = 1 }");
    for _ in 0..6 {
        let post =
            edge.send("POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        assert_eq!(post.status, 200, "{}", post.text());
    }
    assert_eq!(upstreams[0].seen().len(), 6);
    let metrics = edge.get("/metrics").text();
    assert!(
        !metrics.contains("sluice_edge_retries_total{reason=\"connect\",service=\"api\"} 1"),
        "{metrics}"
    );
    assert!(!metrics.contains("circuit_breaker_failures_total{service=\"api\"} 1"), "{metrics}");
}

#[test]
fn a_name_without_a_living_address_is_refused() {
    let (port, _upstreams) = at_one_port(&["127.0.0.1"]);
    let names = Names::default();
    names.set("backend", &["127.0.0.8", "127.0.0.9"]);
    let edge = edge_for_name(&names, port, "");
    assert_eq!(edge.get("/api").code(), "upstream_refused");
    let names = Names::default();
    let edge = edge_for_name(&names, port, "");
    let answer = edge.get("/api");
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_healthy_instance"));
    assert!(answer.text().contains("does not resolve"), "{}", answer.text());
    names.set("backend", &["127.0.0.1"]);
    eventually("the name resolves now", || Some(edge.get("/api")).filter(|answer| answer.status == 200));
}

#[test]
fn a_set_is_followed_and_the_last_good_one_kept() {
    let (port, upstreams) = at_one_port(&["127.0.0.1", "127.0.0.2"]);
    // Its probes fail for ever: following a name does not depend on them.
    upstreams[0].answer_probes(false);
    let names = Names::default();
    names.set("backend", &["127.0.0.1"]);
    let edge = edge_for_name(&names, port, OFTEN);
    assert_eq!(edge.get("/api").status, 200);
    names.set("backend", &["127.0.0.2"]);
    eventually("the new address is used", || {
        (edge.get("/api").status == 200 && !upstreams[1].seen().is_empty()).then_some(())
    });
    let old = upstreams[0].seen().len();
    for _ in 0..4 {
        assert_eq!(edge.get("/api").status, 200);
    }
    assert_eq!(upstreams[0].seen().len(), old, "an address the name no longer has is left");

    names.set("backend", &[]);
    let asked = names.asked();
    eventually("lookups fail", || (names.asked() > asked + 2).then_some(()));
    assert_eq!(edge.get("/api").status, 200, "the last good set stays");
    assert_eq!(upstreams[0].seen().len(), old);
}

fn register_name(edge: &Edge, port: u16) -> crate::harness::Reply {
    let body = json!({
        "name": "s", "url": format!("http://rebind:{port}"), "prefix": "/s", "auth_required": false,
        "health_endpoint": "/health",
    });
    edge.call("POST", "/api/register", &edge.issuer.token("registry:write"), &body)
}

fn edge_with_names(names: &Names, main: &str) -> Edge {
    let mut setup = Setup::new(main);
    setup.names = Some(names.clone());
    setup.start()
}

#[test]
fn a_registered_name_cannot_be_bound_to_another_address_later() {
    // The second one stands in for something inside: it listens, but is not allowed.
    let (port, upstreams) = at_one_port(&["127.0.0.1", "127.0.0.2"]);
    let names = Names::default();
    names.set("rebind", &["127.0.0.1"]);
    let edge = edge_with_names(&names, "[registry]\nallow = [\"127.0.0.1\"]\n");
    let touched = || upstreams[1].connections.load(Ordering::SeqCst);
    assert_eq!(register_name(&edge, port).status, 201);
    assert_eq!(edge.get("/s").status, 200);
    let asked = names.asked();
    names.set("rebind", &["127.0.0.2"]);
    for _ in 0..5 {
        assert_eq!(edge.get("/s").status, 200);
    }
    assert_eq!(names.asked(), asked, "what was resolved is pinned: a request looks nothing up");
    let again = register_name(&edge, port);
    assert_eq!((again.status, again.code().as_str()), (403, "address_denied"));

    // A new process looks the name up anew: what is not allowed is dropped, though nothing else is left.
    let edge = edge.restart();
    let answer = edge.get("/s");
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_healthy_instance"));
    let detail = eventually("a probe", || edge.probe("s"));
    assert_eq!(detail, "its name does not resolve to an allowed address");
    assert_eq!(touched(), 0, "neither requests nor probes reach it");
}

#[test]
fn an_address_is_judged_again_before_each_connection() {
    let upstream = Upstream::start(ok);
    let port = upstream.address.unwrap().port();
    let names = Names::default();
    names.set("rebind", &["127.0.0.1"]);
    let edge = edge_with_names(&names, "[registry]\nallow = [\"127.0.0.1\"]\n");
    assert_eq!(register_name(&edge, port).status, 201);
    assert_eq!(edge.get("/s").status, 200);
    let main = edge.conf.join("sluice.toml");
    let text = std::fs::read_to_string(&main).unwrap().replace("127.0.0.1", "127.0.0.7");
    std::fs::write(&main, text).unwrap();
    let answer =
        eventually("the rules change", || Some(edge.get("/s")).filter(|answer| answer.status != 200));
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_healthy_instance"));
    assert!(answer.text().contains("not allowed"), "{}", answer.text());
}

#[test]
fn a_name_with_one_forbidden_address_is_refused_whole() {
    let names = Names::default();
    let edge = edge_with_names(&names, "");
    for ip in ["169.254.169.254", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "10.0.0.1"] {
        names.set("rebind", &["127.0.0.1", ip]);
        let answer = register_name(&edge, 9);
        assert_eq!((answer.status, answer.code().as_str()), (403, "address_denied"), "{ip}");
    }
    names.set("rebind", &[]);
    assert_eq!(register_name(&edge, 9).status, 422);
}

#[test]
fn the_shared_store_cannot_be_registered() {
    let names = Names::default();
    names.set("rebind", &["127.0.0.5"]);
    let mut setup = Setup::new("");
    setup.names = Some(names.clone());
    setup.environment.insert("REDIS_URL".to_owned(), "redis://:secret@127.0.0.5:6379/0".to_owned());
    let edge = setup.start();
    let answer = register_name(&edge, 6379);
    assert_eq!((answer.status, answer.code().as_str()), (403, "address_denied"));
    assert_eq!(register_name(&edge, 6380).status, 201);
}
