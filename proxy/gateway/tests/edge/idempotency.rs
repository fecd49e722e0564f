//! Requests that must not be executed twice.

mod breaking;
mod shared;

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};

use bytes::Bytes;

use crate::h2_client::{Proper, run};
use crate::harness::{Client, Edge, Reply, Seen, Setup, Upstream, Wire, eventually, ok, reply, service};

const REQUIRED: &str = "auth_required = false\nidempotency = \"required\"\n";

/// An upstream that numbers the orders it executes.
fn desk() -> Upstream {
    let orders = AtomicUsize::new(0);
    Upstream::start(move |_, wire| {
        let number = orders.fetch_add(1, Ordering::SeqCst) + 1;
        let body = format!("order {number}");
        let head =
            format!("Content-Length: {}\r\nContent-Type: text/plain\r\nX-Order: {number}\r\n", body.len());
        let more = "Set-Cookie: s=secret\r\nLink: <a>\r\nLink: <b>\r\nLocation: /orders/1\r\n";
        wire.write_all(format!("HTTP/1.1 201 Created\r\n{head}{more}\r\n{body}").as_bytes()).is_ok()
    })
}

fn edge_at(url: String, more: &str) -> Edge {
    Setup::new("").service("api", &service("api", "/api", &[url], more)).start()
}

fn order(key: &str, body: &str) -> String {
    let key = if key.is_empty() { String::new() } else { format!("Idempotency-Key: {key}\r\n") };
    format!(
        "POST /api/orders?desk=1 HTTP/1.1\r\nHost: edge\r\n{key}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn coded(answer: &Reply) -> (u16, String) {
    (answer.status, answer.code())
}

#[test]
fn an_order_is_executed_once_and_answered_alike() {
    let upstream = desk();
    let edge = edge_at(upstream.url(), REQUIRED);
    let mut client = edge.connect();
    let first = client.exchange(&order("\"k-1\"", "{\"qty\":1}"));
    assert_eq!(
        (first.status, first.text().as_str(), first.field("idempotency-replayed")),
        (201, "order 1", "")
    );
    // The bare word names the same key, also on another connection.
    for (again, key) in [
        (client.exchange(&order("k-1", "{\"qty\":1}")), "bare"),
        (edge.send(&order("\"k-1\"", "{\"qty\":1}")), "quoted"),
    ] {
        assert_eq!((again.status, again.text().as_str()), (201, "order 1"), "{key}");
        assert_eq!(again.field("idempotency-replayed"), "true");
        assert_eq!((again.field("x-order"), again.field("location")), ("1", "/orders/1"));
        assert_eq!((again.field("content-type"), again.field("link")), ("text/plain", "<a>, <b>"));
        assert_eq!(again.field("set-cookie"), "", "{}", again.head);
        assert_ne!(again.field("x-request-id"), first.field("x-request-id"));
    }
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(upstream.seen()[0].fields("idempotency-key"), ["\"k-1\""]);
    for other in [order("k-1", "{\"qty\":2}"), order("k-1", "{\"qty\":1}").replace("desk=1", "desk=2")] {
        assert_eq!(coded(&client.exchange(&other)), (422, "idempotency_key_reused".to_owned()));
    }
    assert_eq!(coded(&client.exchange(&order("", "{}"))), (400, "idempotency_key_missing".to_owned()));
    assert_eq!(coded(&client.exchange(&order("a b", "{}"))), (400, "idempotency_key_invalid".to_owned()));
    assert_eq!(client.exchange(&order("k-2", "{\"qty\":1}")).text(), "order 2");
    let metrics = edge.get("/metrics").text();
    for (result, count) in [("claimed", 2), ("replayed", 2), ("mismatch", 2)] {
        let line =
            format!("sluice_idempotency_requests_total{{result=\"{result}\",service=\"api\"}} {count}");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    assert!(metrics.contains("sluice_idempotency_store_seconds_count 6"), "{metrics}");
    eventually("the records are counted", || {
        edge.get("/metrics").text().contains("sluice_idempotency_records 2").then_some(())
    });
}

#[test]
fn keys_belong_to_their_caller_and_matter_only_where_they_are_honoured() {
    let upstream = desk();
    let text = service("api", "/api", &[upstream.url()], "idempotency = \"optional\"\n")
        + &service("open", "/open", &[upstream.url()], "auth_required = false\n");
    let edge = Setup::new("").service("both", &text).start();
    let ask = |sub: &str, request: String| {
        let token = edge.issuer.token_of(sub, "");
        edge.send(&request.replace("Host: edge", &format!("Host: edge\r\nAuthorization: Bearer {token}")))
    };
    assert_eq!(ask("alice", order("k", "{}")).text(), "order 1");
    assert_eq!(ask("bob", order("k", "{}")).text(), "order 2");
    assert_eq!(ask("alice", order("k", "{}")).text(), "order 1");
    // Without a key, with methods that may be repeated, and where keys are off, nothing is kept.
    assert_eq!(ask("alice", order("", "{}")).text(), "order 3");
    assert_eq!(ask("alice", order("k", "{}").replace("POST", "PUT")).text(), "order 4");
    assert_eq!(ask("alice", order("k", "{}").replace("POST", "PUT")).text(), "order 5");
    for number in 6..8 {
        let off = edge.send(&order("k", "{}").replace("/api/", "/open/"));
        assert_eq!(off.text(), format!("order {number}"));
    }
}

/// Holds answers back until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let (open, changed) = &*self.0;
        drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// An upstream behind it.
    fn upstream(&self) -> Upstream {
        let gate = self.clone();
        Upstream::start(move |_, wire| {
            gate.pass();
            wire.write_all(reply("201 Created", "done").as_bytes()).is_ok()
        })
    }
}

/// Requests of an edge that found their key in flight.
fn in_flight(edge: &Edge) -> usize {
    let metrics = edge.get("/metrics").text();
    let name = "sluice_idempotency_requests_total{result=\"in_flight\",service=\"api\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
}

#[test]
fn of_a_hundred_racing_copies_one_is_sent() {
    let gate = Gate::default();
    let upstream = gate.upstream();
    let text = service("api", "/api", &[upstream.url()], &format!("{REQUIRED}rate_limit = 0\n"));
    let edge = Setup::new("[edge]\nthreads = 4\n").service("api", &text).start();
    let (address, start) = (edge.http, Arc::new(Barrier::new(100)));
    let copies: Vec<_> = (0..100)
        .map(|_| {
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                let mut client = Client::to(address);
                start.wait();
                client.exchange(&order("race", "{}"))
            })
        })
        .collect();
    eventually("one copy is there and 99 are refused", || {
        (upstream.seen().len() == 1 && in_flight(&edge) == 99).then_some(())
    });
    gate.open();
    let answers: Vec<Reply> = copies.into_iter().map(|copy| copy.join().unwrap()).collect();
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(coded(answer), (409, "idempotency_in_flight".to_owned()));
        assert_eq!(answer.field("retry-after"), "1");
    }
    assert_eq!(edge.send(&order("race", "{}")).field("idempotency-replayed"), "true");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn what_was_not_sent_frees_its_key() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let edge = edge_at(
        format!("http://{address}"),
        &format!(
            "{REQUIRED}retry = {{ attempts = 1 }}\nbreaker = {{ failure_threshold = 2, recovery_timeout = \"50ms\", success_threshold = 1 }}"
        ),
    );
    for (status, code) in [(502, "upstream_refused"), (502, "upstream_refused"), (503, "breaker_open")] {
        let answer = edge.send(&order("k", "{}"));
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(answer.json()["outcome"], "not_sent");
    }
    let upstream = Upstream::start_at(&address.to_string(), ok);
    eventually("the breaker lets it through", || {
        Some(edge.send(&order("k", "{}"))).filter(|one| one.status == 200)
    });
    assert_eq!(edge.send(&order("k", "{}")).field("idempotency-replayed"), "true");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn what_was_sent_without_an_answer_is_never_sent_again() {
    let upstream = Upstream::start(|_, _| false);
    let edge = edge_at(upstream.url(), REQUIRED).restart_for(|edge| {
        let first = edge.send(&order("k", "{}"));
        assert_eq!((first.status, first.code().as_str()), (502, "upstream_refused"));
        assert_eq!(first.json()["outcome"], "unknown");
    });
    for _ in 0..3 {
        let again = edge.send(&order("k", "{}"));
        assert_eq!(coded(&again), (409, "outcome_unknown".to_owned()));
        assert_eq!(again.json()["outcome"], "unknown");
    }
    assert_eq!(upstream.seen().len(), 1);
}

impl Edge {
    fn restart_for(self, act: impl FnOnce(&Self)) -> Self {
        act(&self);
        self.restart()
    }
}

#[test]
fn answers_outlive_the_edge_and_their_client() {
    let (hold, held) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (inside, outside) = (Arc::clone(&hold), Arc::clone(&held));
    let upstream = Upstream::start(move |_: &Seen, wire: &mut dyn Wire| {
        inside.wait();
        outside.wait();
        wire.write_all(reply("201 Created", "late").as_bytes()).is_ok()
    });
    let edge = edge_at(upstream.url(), REQUIRED);
    let mut client = edge.connect();
    client.send(&order("k", "{}"));
    hold.wait();
    // The client leaves while its order is executed.
    drop(client);
    assert_eq!(coded(&edge.send(&order("k", "{}"))), (409, "idempotency_in_flight".to_owned()));
    held.wait();
    let again = eventually("the answer is there", || {
        Some(edge.send(&order("k", "{}"))).filter(|one| one.status == 201)
    });
    assert_eq!((again.text().as_str(), again.field("idempotency-replayed")), ("late", "true"));
    let edge = edge.restart();
    let again = edge.send(&order("k", "{}"));
    assert_eq!((again.status, again.text().as_str()), (201, "late"));
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_successor_answers_for_what_its_predecessor_sends() {
    let gate = Gate::default();
    let upstream = gate.upstream();
    let mut edge = edge_at(upstream.url(), REQUIRED);
    let (mut sender, mut open) = (edge.connect(), edge.connect());
    // It stands before the handover.
    assert_eq!(coded(&open.exchange(&order("", "{}"))), (400, "idempotency_key_missing".to_owned()));
    sender.send(&order("k", "{}"));
    eventually("it is sent", || (upstream.seen().len() == 1).then_some(()));
    let successor = edge.hand_over();
    assert_eq!(coded(&successor.send(&order("k", "{}"))), (409, "idempotency_in_flight".to_owned()));
    assert_eq!(coded(&open.exchange(&order("k", "{}"))), (409, "idempotency_in_flight".to_owned()));
    gate.open();
    assert_eq!(sender.reply().text(), "done");
    let again = eventually("its answer came over", || {
        Some(successor.send(&order("k", "{}"))).filter(|answer| answer.status == 201)
    });
    assert_eq!((again.text().as_str(), again.field("idempotency-replayed")), ("done", "true"));
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_key_is_forgotten_after_its_time() {
    let upstream = desk();
    let text = service("api", "/api", &[upstream.url()], REQUIRED);
    let edge = Setup::new("[idempotency]\nttl = \"1s\"\n").service("api", &text).start();
    assert_eq!(edge.send(&order("k", "{}")).text(), "order 1");
    assert_eq!(edge.send(&order("k", "{}")).text(), "order 1");
    eventually("it is forgotten", || (edge.send(&order("k", "{}")).text() == "order 2").then_some(()));
}

#[test]
fn bodies_are_read_whole_whatever_their_form() {
    let upstream = Upstream::start(ok);
    let edge = edge_at(upstream.url(), REQUIRED);
    let head = |key: &str, more: &str| {
        format!("POST /api/orders HTTP/1.1\r\nHost: edge\r\nIdempotency-Key: {key}\r\n{more}\r\n")
    };
    let largest = "x".repeat(64 << 10);
    let chunked = |body: &str| format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let with_chunks = head("chunks", "Transfer-Encoding: chunked\r\n");
    assert_eq!(edge.send(&format!("{with_chunks}{}", chunked("abc"))).status, 200);
    assert_eq!(
        edge.send(&format!("{}0\r\n\r\n", head("none", "Transfer-Encoding: chunked\r\n"))).status,
        200
    );
    assert_eq!(edge.send(&head("empty", "Content-Length: 0\r\n")).status, 200);
    let length = format!("Content-Length: {}\r\n", largest.len());
    assert_eq!(edge.send(&format!("{}{largest}", head("large", &length))).status, 200);
    let mut waits = edge.connect();
    waits.send(&head("waits", "Content-Length: 3\r\nExpect: 100-continue\r\n"));
    assert!(waits.read_until("\r\n\r\n").starts_with("HTTP/1.1 100 "));
    waits.send("abc");
    assert_eq!(waits.reply().status, 200);
    let bodies: Vec<usize> = upstream.seen().iter().map(|seen| seen.body.len()).collect();
    assert_eq!((bodies.len(), bodies[3], &*upstream.seen()[4].body), (5, 64 << 10, &b"abc"[..]));
    // One byte more is too much, announced or not, and nothing of it arrives.
    let announced = edge.send(&head("announced", "Content-Length: 65537\r\n"));
    assert_eq!(coded(&announced), (413, "body_too_large".to_owned()));
    let counted =
        format!("{}{}", head("counted", "Transfer-Encoding: chunked\r\n"), chunked(&format!("{largest}x")));
    assert_eq!(coded(&edge.send(&counted)), (413, "body_too_large".to_owned()));
    let broken = edge.send(&format!("{}zz\r\n", head("broken", "Transfer-Encoding: chunked\r\n")));
    assert_eq!(coded(&broken), (400, "bad_framing".to_owned()));
    assert_eq!(upstream.seen().len(), 5);
    assert_eq!(edge.send(&head("broken", "Content-Length: 0\r\n")).status, 200);
}

#[test]
fn of_a_large_answer_the_status_is_kept() {
    let body = "x".repeat((256 << 10) + 1);
    let upstream =
        Upstream::start(move |_, wire| wire.write_all(reply("202 Accepted", &body).as_bytes()).is_ok());
    let edge = edge_at(upstream.url(), REQUIRED);
    assert_eq!(edge.send(&order("k", "{}")).body.len(), (256 << 10) + 1);
    let again = edge.send(&order("k", "{}"));
    assert_eq!(coded(&again), (202, "response_not_kept".to_owned()));
    assert_eq!((again.field("idempotency-replayed"), upstream.seen().len()), ("true", 1));
}

#[test]
fn clients_of_http2_are_served_alike() {
    let upstream = desk();
    let edge = edge_at(upstream.url(), REQUIRED);
    run(async {
        let mut client = Proper::to(&edge).await;
        for (key, body, wanted) in [("k", "{}", "order 1"), ("k", "{}", "order 1"), ("empty", "", "order 2")]
        {
            let request =
                client.request("POST", "/api/orders").header("idempotency-key", key).body(()).unwrap();
            let answer = client.fetch(request, Some(Bytes::from_static(body.as_bytes()))).await.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (201, wanted), "{key}");
        }
        let call = client.request("POST", "/api/orders").header("content-type", "application/grpc");
        let call = call.header("te", "trailers").body(()).unwrap();
        let refused = client.fetch(call, None).await.unwrap();
        assert_eq!((refused.status, refused.field("grpc-status")), (200, "3"), "{refused:?}");
    });
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn the_access_log_tells_what_decided() {
    let upstream = desk();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access");
    let text = service("api", "/api", &[upstream.url()], REQUIRED);
    let edge =
        Setup::new(&format!("[log]\naccess = \"file:{}\"\n", log.display())).service("api", &text).start();
    for (key, body) in [("k", "{}"), ("k", "{}"), ("k", "[]"), ("", "{}")] {
        edge.send(&order(key, body));
    }
    for decision in ["forwarded", "idempotency_replayed", "idempotency_key_reused", "idempotency_key_missing"]
    {
        eventually(decision, || {
            std::fs::read_to_string(&log)
                .unwrap_or_default()
                .contains(&format!("\"{decision}\""))
                .then_some(())
        });
    }
}
