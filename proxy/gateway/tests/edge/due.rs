//! Deadlines that callers name: kept, passed on, and never lengthened.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use sluice_wire::role::Role;

use crate::h2_client::{Proper, run};
use crate::harness::{Client, Edge, Reply, Seen, Setup, Upstream, Wire, edge_for, eventually, ok, service};
use crate::upstream_h2::H2;

const HEADER: &str = "x-request-deadline-ms";

fn ask(edge: &Edge, method: &str, path: &str, fields: &str) -> Reply {
    let body = if method == "POST" { "hi" } else { "" };
    edge.send(&format!(
        "{method} {path} HTTP/1.1\r\nHost: edge\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ))
}

fn within(ms: u64) -> String {
    format!("X-Request-Deadline-Ms: {ms}\r\n")
}

/// What an upstream was told.
fn told(seen: &Seen) -> Option<u64> {
    let values = seen.fields(HEADER);
    assert!(values.len() <= 1, "{}", seen.head);
    values.first().map(|value| value.parse().unwrap())
}

/// Never answers while anybody waits.
fn silent(_: &Seen, wire: &mut dyn Wire) -> bool {
    let _left = wire.read(&mut [0; 16]);
    false
}

#[test]
fn an_upstream_is_told_what_is_left_and_only_where_a_caller_named_it() {
    let upstream = Upstream::start(ok);
    let mut setup = Setup::new("");
    let worker = Upstream::start_unix(&setup.door(Role::Calc), ok);
    for (name, more) in [("direct", ""), ("general", "compress = true")] {
        let text =
            service(name, &format!("/{name}"), &[upstream.url()], &format!("auth_required = false\n{more}"));
        setup = setup.service(name, &text);
    }
    let edge = setup.start();
    for path in ["/direct", "/general"] {
        assert_eq!(ask(&edge, "GET", path, "").status, 200);
        assert_eq!(told(&upstream.seen().pop().unwrap()), None, "{path}");
        assert_eq!(ask(&edge, "GET", path, &within(9_000)).status, 200);
        let left = told(&upstream.seen().pop().unwrap()).unwrap();
        assert!((1_000..=9_000).contains(&left), "{path} {left}");
        // A caller that waits longer than the route does is no reason to wait longer.
        assert_eq!(ask(&edge, "GET", path, &within(9_999_999_999)).status, 200);
        let left = told(&upstream.seen().pop().unwrap()).unwrap();
        assert!((5_000..=15_000).contains(&left), "{path} {left}");
    }
    let token = format!("Authorization: Bearer {}\r\n", edge.issuer.token("calc:run"));
    ask(&edge, "GET", "/calculations", &format!("{token}{}", within(9_000)));
    let left = told(&worker.only()).unwrap();
    assert!((1_000..=9_000).contains(&left), "{left}");
}

#[test]
fn what_is_no_deadline_is_refused_and_one_that_is_over_touches_no_upstream() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    for bad in ["", "-1", "1.5", "10s", "99999999999", "1, 2", "0x10"] {
        let refused = ask(&edge, "POST", "/api", &format!("X-Request-Deadline-Ms: {bad}\r\n"));
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_deadline"), "{bad:?}");
    }
    let twice = ask(&edge, "GET", "/api", &format!("{}{}", within(500), within(500)));
    assert_eq!(twice.code(), "invalid_deadline");
    for over in [0, 9] {
        let refused = ask(&edge, "POST", "/api", &within(over));
        assert_eq!((refused.status, refused.code().as_str()), (504, "upstream_timeout"), "{over}");
        assert_eq!(refused.json()["outcome"], "not_sent");
    }
    assert!(upstream.seen().is_empty());
    let shown = edge.admin("GET", "/circuit-breakers/api", None, None).json();
    assert_eq!(shown["metrics"]["total_failures"], 0, "an impatient caller blames nobody");
}

#[test]
fn a_deadline_ends_a_request_on_every_way() {
    let upstream = Upstream::start(silent);
    let text = service("direct", "/direct", &[upstream.url()], "auth_required = false")
        + &service("general", "/general", &[upstream.url()], "auth_required = false\ncompress = true");
    let edge = Setup::new("").service("both", &text).start();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (path, more) in [("/direct", ""), ("/general", ""), ("/direct", upgrade)] {
        let begun = Instant::now();
        let reply = Client::to(edge.http)
            .exchange(&format!("GET {path} HTTP/1.1\r\nHost: edge\r\n{}{more}\r\n", within(300)));
        assert_eq!((reply.status, reply.code().as_str()), (504, "upstream_timeout"), "{path} {more}");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(4), "{path} {took:?}");
        let left = told(&upstream.seen().pop().unwrap()).unwrap();
        assert!(left <= 300, "{left}");
    }
}

#[test]
fn each_try_is_told_anew_and_none_is_made_past_the_deadline() {
    let bad = || {
        Upstream::start(|_, wire| {
            let wait = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
            wire.write_all(wait.as_bytes()).is_ok()
        })
    };
    let [one, two] = [bad(), bad()];
    let breaker = "breaker = { failure_threshold = 1000, failure_rate = 1.0, min_calls = 1000 }";
    let text = service("api", "/api", &[one.url(), two.url()], &format!("auth_required = false\n{breaker}"));
    let edge = Setup::new("").service("api", &text).start();
    let tries = || one.seen().len() + two.seen().len();
    // The upstream asks for a second: there is time for it, then there is not.
    assert_eq!(ask(&edge, "GET", "/api", &within(8_000)).status, 503);
    let all: Vec<Seen> = one.seen().into_iter().chain(two.seen()).collect();
    let mut left: Vec<u64> = all.iter().map(|seen| told(seen).unwrap()).collect();
    left.sort_unstable();
    assert!(left.len() == 2 && left[1] - left[0] >= 1_000, "{left:?}");
    let begun = Instant::now();
    assert_eq!(ask(&edge, "GET", "/api", &within(900)).status, 503);
    assert!(begun.elapsed() < Duration::from_millis(900), "nobody waits for a try that cannot be made");
    assert_eq!(tries(), 3);
    assert!(
        edge.get("/metrics")
            .text()
            .contains("sluice_edge_retries_total{reason=\"status\",service=\"api\"} 1")
    );
}

#[test]
fn a_queue_is_left_at_the_deadline() {
    let upstream = Upstream::start(silent);
    let more = "concurrency = { limit = 1, queue = 5, queue_timeout = \"10s\" }";
    let edge = edge_for(&upstream, more);
    let mut first = edge.connect();
    first.send("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
    eventually("the place is taken", || (upstream.seen().len() == 1).then_some(()));
    let begun = Instant::now();
    let late = ask(&edge, "POST", "/api", &within(300));
    assert_eq!((late.status, late.code().as_str()), (504, "upstream_timeout"));
    assert_eq!(late.json()["outcome"], "not_sent");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_callers_timeout_of_grpc_is_shortened_on_its_way() {
    let upstream = H2::start(None, |_, request, mut respond| async move {
        let left = request.headers()["grpc-timeout"].clone();
        let head = Response::builder().header("content-type", "application/grpc").header("x-left", left);
        let head = head.header("grpc-status", "0").body(()).unwrap();
        drop(respond.send_response(head, true));
    });
    let edge = upstream.edge("");
    run(async {
        let mut client = Proper::to(&edge).await;
        let call = |client: &Proper, timeout: &str| {
            let request = client.request("POST", "/api/x").header("content-type", "application/grpc");
            request.header("te", "trailers").header("grpc-timeout", timeout).body(()).unwrap()
        };
        for (asked, most_ms) in [("9S", 9_000), ("1H", 15_000), ("9000000u", 9_000)] {
            let request = call(&client, asked);
            let answer = client.fetch(request, Some(Bytes::from_static(b"m"))).await.unwrap();
            let left: u64 = answer.field("x-left").strip_suffix('m').unwrap().parse().unwrap();
            assert!((1_000..=most_ms).contains(&left), "{asked}: {left}");
        }
        for (asked, status, code) in [("9x", "3", "invalid_deadline"), ("1m", "4", "upstream_timeout")] {
            let request = call(&client, asked);
            let answer = client.fetch(request, Some(Bytes::from_static(b"m"))).await.unwrap();
            assert_eq!(answer.field("grpc-status"), status, "{answer:?}");
            assert!(answer.field("grpc-message").starts_with(code), "{answer:?}");
        }
    });
    assert_eq!(upstream.requests(), 3);
}

#[test]
fn a_stream_outlives_the_deadline_of_its_head() {
    let upstream = Upstream::start(|_, wire| {
        let begin =
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        drop(wire.write_all(begin.as_bytes()));
        std::thread::sleep(Duration::from_millis(700));
        drop(wire.write_all(b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"));
        false
    });
    let edge = edge_for(&upstream, "");
    let answer = ask(&edge, "GET", "/api", &within(400));
    assert_eq!((answer.status, answer.text().as_str()), (200, "data: 1\n\n"));
    // One that stays a plain answer does not.
    let slow = Upstream::start(|_, wire| {
        drop(wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha"));
        silent(&Seen { head: String::new(), body: Vec::new(), whole: true }, wire)
    });
    let begun = Instant::now();
    let cut = ask(&edge_for(&slow, ""), "GET", "/api", &within(400));
    assert_eq!((cut.status, cut.text().as_str()), (200, "ha"));
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn nothing_was_sent_where_no_instance_took_it_in_time() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = service("api", "/api", &[format!("http://{gone}")], "auth_required = false");
    let edge = Setup::new("").service("api", &text).start();
    // There is time for one try and not for the shortest pause before another.
    let refused = ask(&edge, "POST", "/api", &within(34));
    assert!([502, 504].contains(&refused.status), "{}", refused.text());
    assert_eq!(refused.json()["outcome"], "not_sent");
}
