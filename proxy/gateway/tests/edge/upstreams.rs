//! What happens when upstreams fail: codes, retries, breaker, balance.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Edge, Setup, Upstream, edge_for, eventually, ok, reply, service};

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn edge_at(urls: &[String], more: &str) -> Edge {
    let text = service("api", "/api", urls, &format!("auth_required = false\n{more}"));
    Setup::new("").service("api", &text).start()
}

fn post(edge: &Edge) -> crate::harness::Reply {
    edge.send("POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
}

#[test]
fn a_refused_connect_is_502_and_nothing_was_sent() {
    let edge = edge_at(&[nobody()], "");
    let get = edge.get("/api");
    assert_eq!((get.status, get.code().as_str()), (502, "upstream_refused"));
    assert!(get.json().get("outcome").is_none(), "a repeat of a GET needs no outcome");
    let post = post(&edge);
    assert_eq!((post.status, post.code().as_str()), (502, "upstream_refused"));
    assert_eq!(post.json()["outcome"], "not_sent");
}

#[test]
fn a_broken_connection_is_502_and_unknown_for_a_post() {
    let upstream = Upstream::start(|_, _| false);
    let edge = edge_for(&upstream, "");
    let answer = post(&edge);
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_refused"));
    assert_eq!(answer.json()["outcome"], "unknown");
    assert_eq!(upstream.seen().len(), 1, "a POST is never sent again");
}

#[test]
fn silence_is_504_within_the_first_byte_timeout() {
    let upstream = Upstream::start(|_, _| {
        std::thread::sleep(Duration::from_secs(3));
        false
    });
    let edge = edge_for(
        &upstream,
        "timeouts = { connect = \"100ms\", first_byte = \"300ms\", total = \"2s\" }\nretry = { attempts = 1 }",
    );
    let begun = Instant::now();
    let answer = post(&edge);
    let took = begun.elapsed();
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"));
    assert_eq!(answer.json()["outcome"], "unknown");
    assert!(took >= Duration::from_millis(290) && took < Duration::from_millis(1500), "{took:?}");
}

/// Takes connections and reads nothing from them.
fn deaf(path: &std::path::Path) -> String {
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let mut taken = Vec::new();
        while let Ok((socket, _)) = listener.accept() {
            taken.push(socket);
        }
    });
    format!("unix:{}", path.display())
}

#[test]
fn an_instance_that_does_not_read_is_blamed_within_the_total() {
    let dir = tempfile::tempdir().unwrap();
    let edge = edge_at(
        &[deaf(&dir.path().join("deaf.sock"))],
        "body_bytes = \"8MiB\"\nretry = { attempts = 1 }\n\
         timeouts = { connect = \"100ms\", first_byte = \"300ms\", total = \"1s\", idle = \"60s\" }",
    );
    // All of it, more than any buffer takes; then a part that leaves room in the pipe, and no more.
    for (announced, sent) in [(4 << 20, 4 << 20), (1 << 20, 350 << 10), (100 << 10, 100 << 10)] {
        let mut client = edge.connect();
        let begun = Instant::now();
        let answer = client.exchange(&format!(
            "POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: {announced}\r\n\r\n{}",
            "x".repeat(sent)
        ));
        assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"), "{announced} {sent}");
        assert_eq!(answer.json()["outcome"], "unknown");
        assert!(begun.elapsed() < Duration::from_secs(3), "{announced} {sent}: {:?}", begun.elapsed());
    }
    // A client that stops is still blamed where the instance has taken all there was.
    let patient = Upstream::start(ok);
    let edge = edge_for(
        &patient,
        "timeouts = { connect = \"100ms\", first_byte = \"300ms\", total = \"500ms\", idle = \"60s\" }",
    );
    let answer = edge.send("POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: 9000\r\n\r\nsome");
    assert_eq!(answer.code(), "request_timeout");
}

#[test]
fn a_body_is_counted_once_however_often_it_is_sent() {
    let upstream = Upstream::start(ok);
    let edge = edge_at(&[nobody(), upstream.url()], "body_bytes = \"40KiB\"");
    for _ in 0..4 {
        let answer = edge.send(&format!(
            "POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: 30000\r\nConnection: close\r\n\r\n{}",
            "x".repeat(30_000)
        ));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[test]
fn an_answer_that_stops_is_cut_off_and_never_looks_complete() {
    let upstream = Upstream::start(|_, wire| {
        drop(wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning"));
        std::thread::sleep(Duration::from_secs(3));
        false
    });
    let edge = edge_for(
        &upstream,
        "timeouts = { connect = \"100ms\", first_byte = \"200ms\", total = \"400ms\", idle = \"60s\" }",
    );
    let mut client = edge.connect();
    client.send("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
    let reply = client.reply();
    assert_eq!(reply.status, 200);
    assert!(reply.body.len() < 100 && client.is_closed());
}

#[test]
fn invalid_http_is_502_of_its_own_kind() {
    let upstream = Upstream::start(|_, wire| {
        drop(wire.write_all(b"SSH-2.0-OpenSSH\r\n\r\n"));
        false
    });
    let edge = edge_for(&upstream, "");
    let answer = post(&edge);
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_invalid"));
}

#[test]
fn no_instance_at_all_is_503() {
    let edge = edge_at(&[], "");
    let answer = post(&edge);
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_healthy_instance"));
    assert_eq!((answer.json()["outcome"].as_str(), answer.field("retry-after")), (Some("not_sent"), "1"));
}

#[test]
fn instances_that_fail_their_probes_are_left_out_until_they_recover() {
    let upstream = Upstream::start(ok);
    upstream.answer_probes(false);
    let edge = edge_for(
        &upstream,
        "panic_threshold = 0.0\nhealth = { interval = \"100ms\", timeout = \"50ms\", healthy = 1, unhealthy = 1 }",
    );
    let answer = eventually("the instance is unhealthy", || {
        Some(edge.get("/api")).filter(|answer| answer.status != 200)
    });
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_healthy_instance"));
    let health = edge.get("/health").json();
    assert_eq!(
        health["services"]["api"],
        json!({"total_instances": 1, "healthy_instances": 0, "status": "unhealthy"})
    );
    assert_eq!(edge.get("/services").json()["services"][0]["instances"][0]["state"], "unhealthy");
    assert!(edge.get("/metrics").text().contains("api_gateway_service_health_status{service=\"api\"} 0"));
    upstream.answer_probes(true);
    eventually("the instance is healthy", || Some(edge.get("/api")).filter(|answer| answer.status == 200));
}

#[test]
fn a_get_is_tried_on_another_instance() {
    let upstream = Upstream::start(ok);
    let edge = edge_at(&[nobody(), upstream.url()], "");
    for _ in 0..6 {
        assert_eq!(edge.get("/api").status, 200);
    }
    assert_eq!(upstream.seen().len(), 6);
    assert!(
        edge.get("/metrics").text().contains("sluice_edge_retries_total{reason=\"connect\",service=\"api\"}")
    );
    // Nothing of the POST was sent, so it may try the other one too.
    for _ in 0..4 {
        assert_eq!(post(&edge).status, 200);
    }
}

#[test]
fn an_upstream_status_is_tried_again_for_safe_methods_only() {
    let bad = Upstream::start(|_, wire| {
        wire.write_all(reply("503 Service Unavailable", "busy").as_bytes()).is_ok()
    });
    let good = Upstream::start(ok);
    let edge =
        edge_at(&[bad.url(), good.url()], "breaker = { failure_threshold = 1000, failure_rate = 1.0 }");
    for _ in 0..3 {
        assert_eq!(edge.get("/api").status, 200);
    }
    assert_eq!(good.seen().len(), 3);
    let posts: Vec<_> = (0..6).map(|_| post(&edge)).collect();
    let with = |status: u16| posts.iter().find(|answer| answer.status == status);
    assert!(with(200).is_some());
    // An upstream's own answer passes through unchanged.
    assert_eq!(with(503).unwrap().text(), "busy");
    let sent =
        |upstream: &Upstream| upstream.seen().iter().filter(|seen| seen.line().starts_with("POST")).count();
    assert_eq!(sent(&bad) + sent(&good), 6, "each POST is sent once");
}

#[test]
fn the_breaker_opens_answers_by_itself_and_recovers() {
    let failing = Arc::new(AtomicBool::new(true));
    let upstream = Upstream::start({
        let failing = Arc::clone(&failing);
        move |_, wire| {
            let status = if failing.load(Ordering::SeqCst) { "502 Bad Gateway" } else { "200 OK" };
            wire.write_all(reply(status, "x").as_bytes()).is_ok()
        }
    });
    let edge = edge_for(
        &upstream,
        "retry = { attempts = 1 }\nbreaker = { failure_threshold = 5, recovery_timeout = \"300ms\", success_threshold = 3, half_open_max = 1 }",
    );
    for _ in 0..5 {
        assert_eq!(edge.get("/api").status, 502);
    }
    let reached = upstream.seen().len();
    let open = post(&edge);
    assert_eq!((open.status, open.code().as_str()), (503, "breaker_open"));
    assert_eq!((open.json()["outcome"].as_str(), open.field("retry-after")), (Some("not_sent"), "1"));
    assert_eq!(upstream.seen().len(), reached, "an open breaker touches no upstream");
    let shown = edge.admin("GET", "/circuit-breakers/api", None, None).json();
    assert_eq!(shown["state"], "open");
    assert!(shown["opened_at"].is_string() && shown["retry_at"].is_string(), "{shown}");
    let metrics = edge.get("/metrics").text();
    assert!(metrics.contains("circuit_breaker_state{service=\"api\"} 1"), "{metrics}");
    assert!(metrics.contains("circuit_breaker_failures_total{service=\"api\"} 5"), "{metrics}");
    assert!(
        metrics.contains("circuit_breaker_transitions_total{service=\"api\",to=\"open\"} 1"),
        "{metrics}"
    );

    failing.store(false, Ordering::SeqCst);
    let mut good = 0;
    eventually("three probes close it", || {
        good += u32::from(edge.get("/api").status == 200);
        (good >= 3).then_some(())
    });
    assert_eq!(edge.admin("GET", "/circuit-breakers/api/state", None, None).json()["is_closed"], true);
}

#[test]
fn what_clients_do_wrong_never_opens_a_breaker() {
    let upstream = Upstream::start(|_, wire| wire.write_all(reply("404 Not Found", "x").as_bytes()).is_ok());
    let edge = edge_for(&upstream, "breaker = { failure_threshold = 2 }");
    for _ in 0..10 {
        assert_eq!(edge.get("/api").status, 404);
    }
    let shown = edge.admin("GET", "/circuit-breakers/api", None, None).json();
    assert_eq!(
        (shown["state"].as_str(), shown["metrics"]["total_failures"].as_u64()),
        (Some("closed"), Some(0))
    );
}

#[test]
fn a_client_that_leaves_gives_everything_back() {
    let arrived = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start({
        let arrived = Arc::clone(&arrived);
        move |_, _| {
            arrived.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_secs(2));
            false
        }
    });
    let edge = edge_for(&upstream, "");
    let in_flight =
        || edge.get("/services").json()["services"][0]["instances"][0]["in_flight"].as_u64().unwrap();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let mut client = edge.connect();
            client.send("POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\n\r\nhi");
            client
        })
        .collect();
    eventually("three requests wait upstream", || (arrived.load(Ordering::SeqCst) == 3).then_some(()));
    assert_eq!(in_flight(), 3);
    drop(clients);
    eventually("their places are free", || (in_flight() == 0).then_some(()));
    let shown = edge.admin("GET", "/circuit-breakers/api", None, None).json();
    assert_eq!(shown["metrics"]["total_failures"], 0, "who leaves blames nobody");
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn weights_are_kept_smoothly() {
    let [light, heavy] = [Upstream::start(ok), Upstream::start(ok)];
    let text = format!(
        "[[service]]\nname = \"api\"\nprefix = \"/api\"\nauth_required = false\n\
         [[service.instance]]\nurl = \"{}\"\nweight = 1\n[[service.instance]]\nurl = \"{}\"\nweight = 3\n",
        light.url(),
        heavy.url()
    );
    let edge = Setup::new("[edge]\nthreads = 1\n").service("api", &text).start();
    let mut client = edge.connect();
    for _ in 0..40 {
        assert_eq!(client.exchange("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n").status, 200);
    }
    assert_eq!((light.seen().len(), heavy.seen().len()), (10, 30));
    assert!(heavy.connections.load(Ordering::SeqCst) <= 2, "upstream connections are reused");
}

#[test]
fn least_connections_avoids_the_busy_one() {
    let busy = Upstream::start(|_, wire| {
        std::thread::sleep(Duration::from_millis(800));
        wire.write_all(reply("200 OK", "late").as_bytes()).is_ok()
    });
    let quick = Upstream::start(ok);
    let edge = edge_at(&[busy.url(), quick.url()], "balance = \"least_connections\"");
    // Once the busy one has got a request, all others go to the quick one.
    let mut waiting = Vec::new();
    while busy.seen().is_empty() {
        let mut client = edge.connect();
        client.send("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
        waiting.push(client);
        eventually("it arrives", || (busy.seen().len() + quick.seen().len() == waiting.len()).then_some(()));
    }
    let before = busy.seen().len();
    for _ in 0..10 {
        assert_eq!(edge.get("/api").text(), "ok");
    }
    assert_eq!(busy.seen().len(), before);
}

#[test]
fn a_client_that_sends_too_slowly_is_the_one_to_blame() {
    let upstream = Upstream::start(ok);
    let more = "timeouts = { connect = \"100ms\", first_byte = \"200ms\", total = \"300ms\" }";
    let edge = edge_for(&upstream, more);
    let mut client = edge.connect();
    client.send("POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: 10\r\n\r\nhalf");
    let reply = client.reply();
    assert_eq!((reply.status, reply.code().as_str()), (408, "request_timeout"));
    assert!(client.is_closed());
    let shown = edge.admin("GET", "/circuit-breakers/api", None, None).json();
    assert_eq!(shown["metrics"]["total_failures"], 0);
}

#[test]
fn hosts_tell_services_apart() {
    let [one, two] = [Upstream::start(ok), Upstream::start(ok)];
    let of = |name: &str, host: &str, upstream: &Upstream| {
        service(name, "/api", &[upstream.url()], &format!("auth_required = false\nhosts = [\"{host}\"]"))
    };
    let edge = Setup::new("")
        .service("one", &of("one", "one.example", &one))
        .service("two", &of("two", "*.two.example", &two))
        .start();
    let get = |host: &str| {
        edge.send(&format!("GET /api HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).status
    };
    assert_eq!([get("ONE.example:8000"), get("a.two.example"), get("three.example")], [200, 200, 404]);
    assert_eq!((one.seen().len(), two.seen().len()), (1, 1));
}
