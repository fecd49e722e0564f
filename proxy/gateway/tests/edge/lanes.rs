//! Lanes: what matters most goes first where an upstream is full, and nobody is asked to wait for ever.

mod fairness;
mod trust;

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Client, Edge, PATIENCE, Setup, Upstream, eventually, ok, reply, service};

/// What is inside an upstream that answers when it is told to.
#[derive(Default)]
struct Inside {
    /// Paths of requests, in the order in which they came.
    came: Vec<String>,
    /// How many of them, the first ones, may be answered.
    allowed: usize,
}

/// An upstream that keeps each request until it is let go, the first first; paths with `quick` in them it answers at once.
struct Desk {
    upstream: Upstream,
    inside: Arc<(Mutex<Inside>, Condvar)>,
}

impl Desk {
    fn open() -> Self {
        let inside: Arc<(Mutex<Inside>, Condvar)> = Arc::default();
        let kept = Arc::clone(&inside);
        let upstream = Upstream::start(move |seen, wire| {
            let path = seen.line().split(' ').nth(1).unwrap_or_default().to_owned();
            if !path.contains("quick") {
                let (lock, changed) = &*kept;
                let mut inside = lock.lock().unwrap();
                let own = inside.came.len();
                inside.came.push(path);
                drop(
                    changed.wait_timeout_while(inside, PATIENCE * 3, |inside| own >= inside.allowed).unwrap(),
                );
            }
            ok(seen, wire)
        });
        Self { upstream, inside }
    }

    /// Lets so many go.
    fn let_go(&self, count: usize) {
        self.inside.0.lock().unwrap().allowed += count;
        self.inside.1.notify_all();
    }

    fn came(&self) -> Vec<String> {
        self.inside.0.lock().unwrap().came.clone()
    }

    /// Waits until so many have come in all.
    fn has(&self, count: usize) {
        eventually("requests reach the upstream", || (self.came().len() == count).then_some(()));
    }

    /// A service in front of it.
    fn service(&self, name: &str, more: &str) -> String {
        let health = "health = { interval = \"24h\", timeout = \"1s\" }";
        let more = format!("auth_required = false\nrate_limit = 0\n{health}\n{more}");
        service(name, &format!("/{name}"), &[self.upstream.url()], &more)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.let_go(1 << 20);
    }
}

/// A request that nobody waits for yet.
fn begin(edge: &Edge, method: &str, path: &str, fields: &str) -> Client {
    let mut client = edge.connect();
    let body = if method == "POST" { "Content-Length: 2\r\n\r\n{}" } else { "\r\n" };
    client.send(&format!("{method} {path} HTTP/1.1\r\nHost: edge\r\n{fields}{body}"));
    client
}

/// The gate of a service, as the control port shows it.
fn gate(edge: &Edge, service: &str) -> Value {
    let shown = edge.admin("GET", "/dashboard", None, None).json();
    let gates = shown["gates"].as_array().unwrap();
    let is_its = |gate: &&Value| gate["services"].as_array().unwrap().iter().any(|name| name == service);
    gates.iter().find(is_its).unwrap_or_else(|| panic!("no gate of {service}: {shown}")).clone()
}

/// Waits until so many requests wait for their turn.
fn waiting(edge: &Edge, service: &str, count: u64) {
    eventually("requests wait", || (gate(edge, service)["waiting"] == count).then_some(()));
}

#[test]
fn services_show_their_lane_and_share_the_gate_of_their_instances() {
    let (desk, other) = (Desk::open(), Desk::open());
    let edge = Setup::new("")
        .service("orders", &desk.service("orders", "lane = \"order\"\nconcurrency = { limit = 6 }"))
        .service("prices", &desk.service("prices", "concurrency = { limit = 9 }"))
        .service("apart", &other.service("apart", ""))
        .start();
    let listed = edge.get("/services").json();
    let lane = |name: &str| {
        let services = listed["services"].as_array().unwrap();
        services.iter().find(|one| one["name"] == name).unwrap()["lane"].clone()
    };
    assert_eq!((lane("orders"), lane("prices")), ("order".into(), "query".into()));
    let shared = gate(&edge, "orders");
    assert_eq!(shared, gate(&edge, "prices"));
    assert_eq!((&shared["limit"], &shared["adaptive"]), (&6.into(), &false.into()), "the smallest counts");
    let apart = gate(&edge, "apart");
    assert_eq!((&apart["limit"], &apart["adaptive"]), (&1024.into(), &true.into()));
    assert_eq!((&gate(&edge, "events")["limit"], &gate(&edge, "calc")["limit"]), (&1024.into(), &64.into()));
}

#[test]
fn an_order_goes_before_a_query_that_came_first() {
    let desk = Desk::open();
    let more = "concurrency = { limit = 4, queue = 5, queue_timeout = \"10s\" }";
    let edge = Setup::new("")
        .service("orders", &desk.service("orders", &format!("lane = \"order\"\n{more}")))
        .service("prices", &desk.service("prices", more))
        .start();
    let _running: Vec<Client> = (0..4).map(|_| begin(&edge, "GET", "/prices/first", "")).collect();
    desk.has(4);
    let mut query = begin(&edge, "GET", "/prices/late", "");
    waiting(&edge, "prices", 1);
    let mut order = begin(&edge, "POST", "/orders/new", "");
    waiting(&edge, "prices", 2);
    desk.let_go(1);
    desk.has(5);
    assert_eq!(desk.came()[4], "/new");
    desk.let_go(5);
    assert_eq!((order.reply().status, query.reply().status), (200, 200));
    assert_eq!(desk.came()[5], "/late");
    eventually("the gate is empty", || (gate(&edge, "orders")["running"] == 0).then_some(()));
}

#[test]
fn cancels_flow_while_orders_are_shed() {
    let desk = Desk::open();
    let more = "concurrency = { limit = 2, queue = 1, queue_timeout = \"10s\" }";
    let edge = Setup::new("")
        .service("orders", &desk.service("orders", &format!("lane = \"order\"\n{more}")))
        .service("cancels", &desk.service("cancels", &format!("lane = \"cancel\"\n{more}")))
        .start();
    let _running: Vec<Client> = (0..2).map(|_| begin(&edge, "POST", "/orders", "")).collect();
    desk.has(2);
    let mut waits = begin(&edge, "POST", "/orders", "");
    waiting(&edge, "orders", 1);
    for _ in 0..20 {
        let shed = begin(&edge, "POST", "/orders", "").reply();
        assert_eq!((shed.status, shed.code().as_str()), (503, "overloaded"), "{}", shed.text());
        assert_eq!((shed.field("retry-after"), &shed.json()["outcome"]), ("1", &"not_sent".into()));
        let cancelled = begin(&edge, "DELETE", "/cancels/quick", "").reply();
        assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    }
    assert_eq!(desk.came().len(), 2, "what is shed reaches nobody");
    // Nor do cancels count their own against the limit.
    let _slow: Vec<Client> = (0..10).map(|_| begin(&edge, "DELETE", "/cancels/slow", "")).collect();
    desk.has(12);
    let shown = gate(&edge, "orders");
    assert_eq!(
        (&shown["lanes"]["order"]["shed"], &shown["lanes"]["cancel"]["shed"]),
        (&20.into(), &0.into())
    );
    assert_eq!(shown["lanes"]["cancel"]["running"], 10);
    let breaker = edge.admin("GET", "/circuit-breakers/orders", None, None).json();
    assert_eq!(breaker["metrics"]["total_failures"], 0, "{breaker}");
    let metrics = edge.get("/metrics").text();
    for line in [
        "sluice_lane_shed_total{lane=\"order\",reason=\"full\",service=\"orders\"} 20",
        "sluice_lane_running{lane=\"cancel\",service=\"cancels\"} 10",
        "sluice_lane_waiting{lane=\"order\",service=\"orders\"} 1",
        "sluice_concurrency_limit{service=\"orders\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    desk.let_go(13);
    assert_eq!(waits.reply().status, 200);
}

#[test]
fn a_request_waits_no_longer_than_its_time() {
    let desk = Desk::open();
    let edge = Setup::new("")
        .service("api", &desk.service("api", "concurrency = { limit = 1, queue_timeout = \"80ms\" }"))
        .start();
    let mut first = begin(&edge, "GET", "/api/x", "");
    desk.has(1);
    for (method, outcome) in [("GET", Value::Null), ("POST", "not_sent".into())] {
        let begun = Instant::now();
        let late = begin(&edge, method, "/api/x", "").reply();
        assert_eq!((late.status, late.code().as_str(), late.field("retry-after")), (503, "overloaded", "1"));
        assert_eq!(late.json()["outcome"], outcome);
        assert!(begun.elapsed() >= Duration::from_millis(80), "{:?}", begun.elapsed());
    }
    let metrics = edge.get("/metrics").text();
    for line in [
        "sluice_lane_shed_total{lane=\"query\",reason=\"timeout\",service=\"api\"} 2",
        "sluice_lane_wait_seconds_count{lane=\"query\",service=\"api\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    desk.let_go(1);
    assert_eq!(first.reply().status, 200);
    assert_eq!(desk.came().len(), 1);
}

#[test]
fn an_adaptive_limit_has_its_bound() {
    let desk = Desk::open();
    let edge =
        Setup::new("").service("api", &desk.service("api", "concurrency = { max = 4, queue = 0 }")).start();
    let _running: Vec<Client> = (0..4).map(|_| begin(&edge, "GET", "/api/x", "")).collect();
    desk.has(4);
    assert_eq!(begin(&edge, "GET", "/api/x", "").reply().code(), "overloaded");
    assert_eq!(gate(&edge, "api")["limit"], 4);
}

#[test]
fn a_client_that_leaves_gives_its_place_in_the_queue_back() {
    let desk = Desk::open();
    let more = "concurrency = { limit = 1, queue = 1, queue_timeout = \"10s\" }";
    let edge = Setup::new("").service("api", &desk.service("api", more)).start();
    let mut first = begin(&edge, "GET", "/api/first", "");
    desk.has(1);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for fields in ["", upgrade] {
        let left = begin(&edge, "GET", "/api/left", fields);
        waiting(&edge, "api", 1);
        assert_eq!(begin(&edge, "GET", "/api/full", "").reply().code(), "overloaded");
        drop(left);
        waiting(&edge, "api", 0);
    }
    let mut stays = begin(&edge, "GET", "/api/stays", "");
    waiting(&edge, "api", 1);
    desk.let_go(2);
    assert_eq!((first.reply().status, stays.reply().status), (200, 200));
    assert_eq!(desk.came(), ["/first", "/stays"]);
}

#[test]
fn a_reload_keeps_what_runs_and_lets_in_what_has_room_now() {
    let desk = Desk::open();
    let text = |limit: u32| {
        desk.service(
            "api",
            &format!("concurrency = {{ limit = {limit}, queue = 1, queue_timeout = \"10s\" }}"),
        )
    };
    let edge = Setup::new("").service("api", &text(2)).start();
    let mut running: Vec<Client> = (0..2).map(|_| begin(&edge, "GET", "/api/x", "")).collect();
    desk.has(2);
    running.push(begin(&edge, "GET", "/api/x", ""));
    waiting(&edge, "api", 1);
    let reload = |limit: u32| {
        std::fs::write(edge.conf.join("services.d/api.toml"), text(limit)).unwrap();
        let token = edge.issuer.token("control:write");
        assert_eq!(edge.admin("POST", "/admin/reload", Some(&token), None).status, 200);
    };
    reload(1);
    let shown = gate(&edge, "api");
    assert_eq!((&shown["running"], &shown["waiting"], &shown["limit"]), (&2.into(), &1.into(), &1.into()));
    assert_eq!(begin(&edge, "GET", "/api/x", "").reply().code(), "overloaded");
    reload(3);
    desk.has(3);
    desk.let_go(3);
    assert!(running.iter_mut().all(|client| client.reply().status == 200));
}

#[test]
fn a_stream_gives_its_place_back_with_its_head() {
    let upstream = Upstream::start(|seen, wire| {
        if seen.line().contains("/events") {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            drop(wire.write_all(format!("{head}9\r\ndata: 1\n\n\r\n").as_bytes()));
            let mut nothing = [0];
            // Until the client has left.
            return wire.read(&mut nothing).is_ok_and(|count| count > 0);
        }
        wire.write_all(reply("200 OK", "ok").as_bytes()).is_ok()
    });
    let more = "auth_required = false\nconcurrency = { limit = 1, queue = 0 }";
    let edge = Setup::new("").service("api", &service("api", "/api", &[upstream.url()], more)).start();
    let mut streams: Vec<Client> = Vec::new();
    for _ in 0..5 {
        let mut client = begin(&edge, "GET", "/api/events", "");
        assert!(client.read_until("data: 1\n\n").contains("200 OK"));
        streams.push(client);
    }
    assert_eq!(edge.get("/api/x").status, 200);
    let listed = edge.get("/services").json();
    assert_eq!(listed["services"][0]["instances"][0]["in_flight"], 5, "{listed}");
}

#[test]
fn a_client_that_reads_slowly_keeps_nobody_from_the_upstream() {
    let upstream = Upstream::start(|seen, wire| {
        if !seen.line().contains("/long") {
            return wire.write_all(reply("200 OK", "ok").as_bytes()).is_ok();
        }
        let piece = vec![b'x'; 1 << 16];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", piece.len() << 10);
        wire.write_all(head.as_bytes()).is_ok() && (0..1 << 10).all(|_| wire.write_all(&piece).is_ok())
    });
    let more = "auth_required = false\nconcurrency = { limit = 1, queue = 0 }";
    let edge = Setup::new("").service("api", &service("api", "/api", &[upstream.url()], more)).start();
    let mut reading: Vec<Client> = Vec::new();
    // One each way: moved by the edge itself, and by the framework.
    for request in [
        "GET /api/long HTTP/1.1\r\nHost: edge\r\n\r\n",
        "POST /api/long HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut client = edge.connect();
        client.send(request);
        assert!(client.read_until("\r\n\r\n").contains("200 OK"));
        reading.push(client);
        eventually("the place is free again", || (edge.get("/api/x").status == 200).then_some(()));
    }
    assert_eq!(gate(&edge, "api")["limit"], 1);
    drop(reading);
    eventually("every place is given back once", || {
        (gate(&edge, "api")["lanes"]["query"]["running"] == 0).then_some(())
    });
}

#[test]
fn what_waits_at_the_drain_is_still_answered() {
    let desk = Desk::open();
    let more = "concurrency = { limit = 1, queue_timeout = \"10s\" }";
    let drain = "[drain]\nlame_duck = \"0s\"\ndeadline = \"20s\"\n";
    let mut edge = Setup::new(drain).service("api", &desk.service("api", more)).start();
    let mut clients = vec![begin(&edge, "GET", "/api/x", "")];
    desk.has(1);
    clients.push(begin(&edge, "GET", "/api/x", ""));
    waiting(&edge, "api", 1);
    edge.begin_drain();
    desk.let_go(2);
    assert!(clients.iter_mut().all(|client| client.reply().status == 200));
    edge.join();
}
