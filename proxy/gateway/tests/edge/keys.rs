//! Keys that no other test is about: each is changed and what the edge does changes with it.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_wire::feed::Message;

use crate::harness::{Client, Edge, Setup, Upstream, eventually, ok, reply, service};

/// A request with more header fields.
fn with(fields: &str) -> String {
    format!("GET /api/x HTTP/1.1\r\nHost: edge\r\n{fields}Connection: close\r\n\r\n")
}

#[test]
fn service_headers_tell_services_apart() {
    let [plain, desk, fx] = [(); 3].map(|()| Upstream::start(ok));
    let one = |name, upstream: &Upstream, headers| {
        service(name, "/api", &[upstream.url()], &format!("auth_required = false\nheaders = {headers}"))
    };
    let edge = Setup::new("")
        .service("plain", &one("plain", &plain, "{}"))
        .service("desk", &one("desk", &desk, "{ x-desk = \"*\" }"))
        .service("fx", &one("fx", &fx, "{ X-Desk = \"fx\" }"))
        .start();
    for (fields, counts) in [
        ("", [1, 0, 0]),
        ("X-Desk: rates\r\n", [1, 1, 0]),
        ("x-desk: fx\r\n", [1, 1, 1]),
        ("x-desk: rates\r\nx-desk: fx\r\n", [1, 1, 2]),
        ("x-desk: FX\r\n", [1, 2, 2]),
    ] {
        assert_eq!(edge.send(&with(fields)).status, 200, "{fields}");
        assert_eq!([&plain, &desk, &fx].map(|upstream| upstream.seen().len()), counts, "{fields}");
    }
}

#[test]
fn sizes_of_a_head_are_as_configured() {
    let upstream = Upstream::start(ok);
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let limits = "[edge.limits]\nheader_bytes = \"1KiB\"\nheader_count = 4\nuri_bytes = \"300B\"\n";
    let edge = Setup::new(limits).service("api", &text).start();
    let long = |count: usize| "a".repeat(count);
    for (request, status) in [
        (with("X: 1\r\nY: 2\r\n"), 200),
        (with("X: 1\r\nY: 2\r\nZ: 3\r\n"), 431),
        (with(&format!("X: {}\r\n", long(1_000))), 431),
        (with("").replace("/api/x", &format!("/api/{}", long(290))), 200),
        (with("").replace("/api/x", &format!("/api/{}", long(310))), 414),
    ] {
        assert_eq!(edge.send(&request).status, status, "{request}");
    }
}

#[test]
fn bodies_of_services_without_a_limit_take_that_of_the_edge() {
    let upstream = Upstream::start(ok);
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let edge = Setup::new("[edge.limits]\nbody_bytes = \"5B\"\n").service("api", &text).start();
    let post = |body: &str| {
        edge.send(&format!(
            "POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    assert_eq!((post("12345").status, post("123456").status), (200, 413));
}

#[test]
fn connections_in_all_are_capped() {
    let upstream = Upstream::start(ok);
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let mut setup = Setup::new("[edge.limits]\nconnections = 2\n").service("api", &text);
    setup.dev = false;
    setup.main = format!("[edge]\nthreads = 1\nlisten = \"127.0.0.1:0\"\n{}", setup.main);
    let edge = setup.start();
    let request = "GET /api HTTP/1.1\r\nHost: edge\r\n\r\n";
    let mut held = eventually("two places are free", || {
        let mut held = [edge.connect(), edge.connect()];
        let all = held.iter_mut().all(|client| {
            client.send(request);
            client.try_reply().is_some_and(|reply| reply.status == 200)
        });
        all.then_some(held)
    });
    assert!(edge.connect().is_closed());
    assert_eq!(held[0].exchange(request).status, 200);
}

#[test]
fn clocks_may_differ_by_the_leeway() {
    for (leeway, status) in [("0s", 401), ("5m", 200)] {
        let upstream = Upstream::start(ok);
        let text = service("api", "/api", &[upstream.url()], "");
        let edge = Setup::new(&format!("[auth]\nleeway = \"{leeway}\"\n")).service("api", &text).start();
        let now = jiff::Timestamp::now().as_second();
        let token = edge.issuer.sign(&json!({
            "iss": "https://sluice.internal", "sub": "alice", "aud": ["sluice"], "jti": "late",
            "iat": now - 600, "exp": now - 60, "scope": "read",
        }));
        assert_eq!(edge.get_as("/api", &token).status, status, "{leeway}");
    }
}

#[test]
fn issuer_and_audience_are_as_configured() {
    let upstream = Upstream::start(ok);
    let text = service("api", "/api", &[upstream.url()], "");
    let vault = "[vault]\nissuer = \"https://vault.example\"\naudience = [\"desk\"]\n";
    let edge = Setup::new(vault).service("api", &text).start();
    let now = jiff::Timestamp::now().as_second();
    for (issuer, audience, status) in [
        ("https://vault.example", "desk", 200),
        ("https://vault.example", "sluice", 401),
        ("https://sluice.internal", "desk", 401),
    ] {
        let token = edge.issuer.sign(&json!({
            "iss": issuer, "sub": "alice", "aud": [audience], "jti": issuer.len().to_string() + audience,
            "iat": now - 1, "exp": now + 600, "scope": "read",
        }));
        assert_eq!(edge.get_as("/api", &token).status, status, "{issuer} {audience}");
    }
}

#[test]
fn a_silent_feed_degrades_past_its_age() {
    let edge = Setup::new("[auth]\nfeed_max_age = \"1s\"\n").start();
    let edge_is = |status: &str| {
        let health = edge.get("/health").json();
        (health["components"]["edge"]["status"] == status).then_some(())
    };
    eventually("the feed was heard", || {
        edge.trust.apply(&Message::Heartbeat);
        edge_is("healthy")
    });
    eventually("the feed is old", || edge_is("degraded"));
}

#[test]
fn who_may_read_is_as_configured() {
    let open = Setup::new("").start();
    assert_eq!(open.admin("GET", "/circuit-breakers", None, None).status, 200);
    assert_eq!(open.get("/metrics").status, 200);
    let closed = Setup::new("[control]\nread_allow = []\n[metrics]\nallow = []\n").start();
    assert_eq!(closed.admin("GET", "/circuit-breakers", None, None).status, 401);
    assert_eq!(closed.get("/metrics").status, 401);
    assert_eq!(closed.get_as("/metrics", &closed.issuer.token("metrics:read")).status, 200);
    let none = Setup::new("[metrics]\nenabled = false\n").start();
    assert_eq!(none.get_as("/metrics", &none.issuer.token("metrics:read")).status, 404);
}

#[test]
fn hosts_of_the_control_port_are_as_configured() {
    let ask = |edge: &Edge, host: &str| {
        let request = format!("GET /circuit-breakers HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        Client::to(edge.control).exchange(&request).status
    };
    let edge = Setup::new("[control]\nhosts = [\"ops.example.com\"]\n").start();
    assert_eq!((ask(&edge, "ops.example.com"), ask(&edge, "evil.example.com")), (200, 421));
}

#[test]
fn the_registry_is_bounded_and_its_leases_have_a_default() {
    let upstream = Upstream::start(ok);
    let edge = Setup::new("[registry]\nmax = 1\nttl = \"1s\"\n").start();
    let register = |name: &str| {
        let body = json!({"name": name, "url": upstream.url(), "prefix": format!("/{name}"), "auth_required": false});
        edge.call("POST", "/api/register", &edge.issuer.token("registry:write"), &body).status
    };
    assert_eq!(register("one"), 201);
    assert!((400..600).contains(&register("two")));
    eventually("the lease of a second ends", || (edge.get("/one").status == 404).then_some(()));
    eventually("there is room again", || (register("two") == 201).then_some(()));

    let nobody = Setup::new("[registry]\nallow = []\n").start();
    let body = json!({"name": "one", "url": upstream.url(), "prefix": "/one"});
    let token = nobody.issuer.token("registry:write");
    assert_eq!(nobody.call("POST", "/api/register", &token, &body).status, 403);
}

#[test]
fn limits_are_shared_as_configured() {
    let upstream = Upstream::start(ok);
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let edge = Setup::new("[rate_limit]\ndefault = 2\n").service("api", &text).start();
    assert_eq!([(); 3].map(|()| edge.get("/api").status), [200, 200, 429]);

    let short = "auth_required = false\nrate_limit = 1";
    let edge = Setup::new("").service("api", &service("api", "/api", &[upstream.url()], short)).start();
    assert_eq!([(); 2].map(|()| edge.get("/api").status), [200, 429]);

    let own = "auth_required = false\nrate_limit = { requests = 1, per = \"1h\", key = \"header:x-desk\" }";
    let edge = Setup::new("").service("api", &service("api", "/api", &[upstream.url()], own)).start();
    let from = |desk: &str| edge.send(&with(&format!("x-desk: {desk}\r\n"))).status;
    assert_eq!([from("fx"), from("rates"), from("fx")], [200, 200, 429]);
}

#[test]
fn a_service_that_is_off_does_not_route_and_one_may_keep_its_prefix() {
    let upstream = Upstream::start(ok);
    let off = service("off", "/off", &[upstream.url()], "auth_required = false\nenabled = false");
    let kept = service("kept", "/kept", &[upstream.url()], "auth_required = false\nstrip_prefix = false");
    let edge = Setup::new("").service("off", &off).service("kept", &kept).start();
    assert_eq!(edge.get("/off").code(), "no_route");
    assert_eq!(edge.get("/kept/x").status, 200);
    assert_eq!(upstream.only().line(), "GET /kept/x HTTP/1.1");
}

#[test]
fn probes_ask_the_configured_path() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let probes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&probes);
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut head = [0; 64];
            let count = socket.read(&mut head).unwrap_or(0);
            if head[..count].starts_with(b"GET /ping HTTP/1.1\r\n") {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let health =
        "auth_required = false\nhealth = { path = \"/ping\", interval = \"50ms\", timeout = \"40ms\" }";
    let _edge = Setup::new("").service("api", &service("api", "/api", &[url], health)).start();
    eventually("a probe of /ping", || (probes.load(Ordering::SeqCst) > 0).then_some(()));
}

/// An edge whose service fails as told, with one try a request.
fn failing(breaker: &str, answer: &'static str) -> (Edge, Upstream) {
    let upstream = Upstream::start(move |_, wire| wire.write_all(reply(answer, "x").as_bytes()).is_ok());
    let more = format!("auth_required = false\nretry = {{ attempts = 1 }}\nbreaker = {{ {breaker} }}");
    let edge = Setup::new("").service("api", &service("api", "/api", &[upstream.url()], &more)).start();
    (edge, upstream)
}

#[test]
fn a_share_of_failures_opens_the_breaker_after_enough_calls() {
    let breaker = "failure_threshold = 1000, failure_rate = 0.5, min_calls = 4, window = \"60s\"";
    let (edge, upstream) = failing(breaker, "502 Bad Gateway");
    assert_eq!([(); 4].map(|()| edge.get("/api").text()), ["x"; 4]);
    assert_eq!(edge.get("/api").code(), "breaker_open");
    assert_eq!(upstream.seen().len(), 4);

    let (edge, _upstream) = failing(&breaker.replace("0.5", "1.0").replace("= 4", "= 40"), "502 Bad Gateway");
    assert!((0..10).all(|_| edge.get("/api").text() == "x"), "forty calls are asked for");
}

#[test]
fn failures_older_than_the_window_are_forgotten() {
    let breaker = "failure_threshold = 1000, failure_rate = 0.5, min_calls = 4, window = \"1s\"";
    let (edge, upstream) = failing(breaker, "502 Bad Gateway");
    for _ in 0..3 {
        assert_eq!(edge.get("/api").text(), "x");
    }
    eventually("the window is empty", || {
        let breaker = edge.admin("GET", "/circuit-breakers/api", None, None).json();
        (breaker["metrics"]["window_calls"] == 0).then_some(())
    });
    for _ in 0..3 {
        assert_eq!(edge.get("/api").text(), "x");
    }
    assert_eq!(upstream.seen().len(), 6);
}

#[test]
fn a_share_of_slow_calls_opens_the_breaker() {
    let slow = |breaker: &str| {
        let upstream = Upstream::start(|_, wire| {
            std::thread::sleep(Duration::from_millis(60));
            wire.write_all(reply("200 OK", "x").as_bytes()).is_ok()
        });
        let more = format!("auth_required = false\nbreaker = {{ {breaker} }}");
        let edge = Setup::new("").service("api", &service("api", "/api", &[upstream.url()], &more)).start();
        let opened = (0..6).any(|_| edge.get("/api").status == 503);
        drop((edge, upstream));
        opened
    };
    assert!(slow("slow_call = \"50ms\", slow_rate = 0.5, min_calls = 3"));
    assert!(!slow("slow_call = \"1h\", slow_rate = 0.5, min_calls = 3"), "none of them is slow");
    assert!(!slow("slow_call = \"50ms\", slow_rate = 0.5, min_calls = 30"), "not enough of them");
}

#[test]
fn what_is_tried_again_is_as_configured() {
    let tries = |retry: &str| {
        let bad = Upstream::start(|_, wire| {
            wire.write_all(reply("503 Service Unavailable", "busy").as_bytes()).is_ok()
        });
        let good = Upstream::start(ok);
        let more = format!(
            "auth_required = false\nbreaker = {{ failure_threshold = 1000, failure_rate = 1.0 }}\nretry = {{ {retry} }}"
        );
        let text = service("api", "/api", &[bad.url(), good.url()], &more);
        let edge = Setup::new("").service("api", &text).start();
        (0..4).filter(|_| edge.get("/api").status == 200).count()
    };
    assert_eq!(tries("on = [\"503\"]"), 4);
    assert_eq!(tries("on = [\"connect\"]"), 2, "an answer is none of its causes");
    assert_eq!(tries("attempts = 1"), 2);
    assert_eq!(tries("budget = 0.0, min_per_second = 0"), 2, "there is no budget");
    assert_eq!(tries("budget = 0.0, min_per_second = 100"), 4);
    assert_eq!(tries("budget = 1.0, min_per_second = 0"), 4);
}

/// Takes connections into its queue, and no more of them than the kernel must; nobody answers.
fn full() -> (TcpListener, Vec<TcpStream>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let soon = Duration::from_millis(200);
    let taken = std::iter::from_fn(|| TcpStream::connect_timeout(&address, soon).ok()).take(64).collect();
    (listener, taken, format!("http://{address}"))
}

#[test]
fn a_connection_has_its_own_time() {
    let (_listener, _taken, url) = full();
    let more = "auth_required = false\nretry = { attempts = 1 }\nhealth = { interval = \"24h\", timeout = \"1s\" }\n\
                timeouts = { connect = \"150ms\", first_byte = \"8s\", total = \"9s\" }";
    let edge = Setup::new("").service("api", &service("api", "/api", &[url], more)).start();
    let begun = Instant::now();
    let answer = edge.get("/api");
    assert!(answer.status >= 502, "{}", answer.head);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_silent_stream_ends_after_the_idle_time() {
    let upstream = Upstream::start(|_, wire| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        drop(wire.write_all(format!("{head}9\r\ndata: 1\n\n\r\n").as_bytes()));
        let mut nothing = [0];
        // Until the edge gives up.
        wire.read(&mut nothing).is_ok_and(|count| count > 0)
    });
    let more = "auth_required = false\ntimeouts = { idle = \"300ms\" }";
    let edge = Setup::new("").service("api", &service("api", "/api", &[upstream.url()], more)).start();
    let mut client = edge.connect();
    client.send("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
    assert!(client.read_until("data: 1\n\n\r\n").contains("200 OK"));
    let begun = Instant::now();
    assert!(client.is_closed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let (release, gate) = mpsc::sync_channel::<()>(1);
    let gate = Mutex::new(gate);
    let upstream = Upstream::start(move |_, _| {
        let _never = gate.lock().unwrap().recv();
        false
    });
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let drain = "[drain]\nlame_duck = \"0s\"\ndeadline = \"300ms\"\n";
    let mut edge = Setup::new(drain).service("api", &text).start();
    let mut client = edge.connect();
    client.send("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
    eventually("it runs", || (!upstream.seen().is_empty()).then_some(()));
    let begun = Instant::now();
    edge.begin_drain();
    edge.join();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(release);
}

#[test]
fn a_probe_without_answer_fails_after_its_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let health = "auth_required = false\nhealth = { interval = \"50ms\", timeout = \"40ms\", unhealthy = 2 }";
    let edge = Setup::new("").service("api", &service("api", "/api", &[url], health)).start();
    // Nobody takes the connections: probes stand in the queue without an answer.
    eventually("it is unhealthy", || {
        (edge.get("/health").json()["services"]["api"]["status"] == "unhealthy").then_some(())
    });
    drop(listener);
}

/// Earlier files of the edge's audit log, oldest first, and the bytes of all.
fn audit_files(edge: &Edge) -> (Vec<String>, u64) {
    let files = std::fs::read_dir(edge.data.join("audit")).unwrap().map(|file| file.unwrap());
    let logs =
        files.filter_map(|file| Some((file.file_name().into_string().ok()?, file.metadata().ok()?.len())));
    let mut logs: Vec<_> =
        logs.filter(|(name, _)| name.starts_with("edge.") && name.strip_suffix(".jsonl").is_some()).collect();
    logs.sort();
    let bytes = logs.iter().map(|(_, bytes)| bytes).sum();
    (logs.into_iter().map(|(name, _)| name).filter(|name| name.len() > "edge.jsonl".len()).collect(), bytes)
}

#[test]
fn the_audit_log_keeps_as_much_as_it_is_told_and_says_so() {
    // Which of the two bounds ends the first file, and how full the log may be then.
    for (keys, full) in
        [("keep_bytes = \"64KiB\"", 0.8..1.2), ("keep_bytes = \"1MiB\"\nkeep_age = \"1s\"", 0.0..0.8)]
    {
        let edge = Setup::new(&format!("[edge.audit]\n{keys}\n")).start();
        let token = edge.issuer.token_of("operator", "control:write");
        let switch = |on: bool| {
            let change = json!({"scope": "symbol", "target": "EURUSD", "on": on, "reason": "x".repeat(200)});
            let done = edge.admin("POST", "/admin/kill-switch", Some(&token), Some(&change));
            assert_eq!(done.status, 200, "{}", done.text());
        };
        let (began, mut first, mut on) = (Instant::now(), None, false);
        loop {
            on = !on;
            switch(on);
            let (earlier, bytes) = audit_files(&edge);
            first = first.or_else(|| earlier.first().cloned());
            assert!(bytes < 900 << 10, "{bytes}");
            if first.as_ref().is_some_and(|first| !earlier.contains(first)) {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{first:?} stays");
        }
        let metrics = edge.get("/metrics").text();
        let fill = metrics.lines().find_map(|line| line.strip_prefix("sluice_edge_audit_fill_ratio "));
        let fill: f64 = fill.unwrap().parse().unwrap();
        assert!(full.contains(&fill), "{keys}: {fill}");
        assert!(
            sluice_audit::verify(&edge.data.join("audit")).unwrap().is_whole(),
            "the rest is still proved"
        );
    }
}
