//! Instances that fail: left alone for a while, and taken back; probes.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::balance::{KEEN, await_state, instances, states};
use crate::harness::{Edge, Setup, Upstream, eventually, ok, reply, service};

/// Nothing but ejection reacts, and the instances are probed seldom.
const ALONE: &str = "auth_required = false\nrate_limit = 0\nretry = { attempts = 1 }\nslow_start = \"0s\"\npanic_threshold = 0.0\n\
     breaker = { failure_threshold = 1000, failure_rate = 1.0, min_calls = 1000000 }\n";

/// An instance that answers 503 while the switch is on.
fn failing(switch: &Arc<AtomicBool>) -> Upstream {
    let switch = Arc::clone(switch);
    Upstream::start(move |_, wire| {
        let status = if switch.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" };
        wire.write_all(reply(status, "x").as_bytes()).is_ok()
    })
}

fn edge_at(upstreams: &[&Upstream], more: &str) -> Edge {
    let urls: Vec<String> = upstreams.iter().map(|upstream| upstream.url()).collect();
    Setup::new("").service("api", &service("api", "/api", &urls, &format!("{ALONE}{more}"))).start()
}

fn failures(edge: &Edge, count: usize) -> usize {
    (0..count).filter(|_| edge.get("/api").status == 503).count()
}

#[test]
fn an_ejected_instance_is_left_alone_and_returns() {
    let bad = Arc::new(AtomicBool::new(true));
    let (one, two) = (failing(&bad), Upstream::start(ok));
    let edge = edge_at(&[&one, &two], "outlier = { consecutive = 3, base_ejection = \"700ms\" }");
    // Every other request goes there until the third failure.
    assert_eq!(failures(&edge, 6), 3);
    let ejected = Instant::now();
    assert_eq!(states(&edge), ["ejected", "healthy"]);
    assert!(edge.get("/metrics").text().contains("sluice_edge_ejections_total{service=\"api\"} 1"));
    let reached = one.seen().len();
    while ejected.elapsed() < Duration::from_millis(400) {
        assert_eq!(edge.get("/api").status, 200);
    }
    assert_eq!(one.seen().len(), reached, "nothing reaches it meanwhile");
    bad.store(false, Ordering::SeqCst);
    await_state(&edge, 0, "healthy");
    assert!(ejected.elapsed() >= Duration::from_millis(690), "{:?}", ejected.elapsed());
    assert_eq!(failures(&edge, 4), 0);
    assert_eq!(one.seen().len(), reached + 2, "it has its half again");
}

#[test]
fn a_share_is_ejected_at_most_and_the_last_one_never() {
    let bad = Arc::new(AtomicBool::new(true));
    let all: Vec<Upstream> = (0..4).map(|_| failing(&bad)).collect();
    let all: Vec<&Upstream> = all.iter().collect();
    for (max_ejected, most) in [("0.0", 1), ("0.5", 2), ("1.0", 3)] {
        let outlier =
            format!("outlier = {{ consecutive = 1, base_ejection = \"60s\", max_ejected = {max_ejected} }}");
        let edge = edge_at(&all, &outlier);
        assert_eq!(failures(&edge, 16), 16);
        let ejected = states(&edge).iter().filter(|state| *state == "ejected").count();
        assert_eq!(ejected, most, "{max_ejected}");
    }
}

#[test]
fn good_probes_take_an_ejected_instance_back_early() {
    let bad = Arc::new(AtomicBool::new(true));
    let (one, two) = (failing(&bad), Upstream::start(ok));
    let more = format!("outlier = {{ consecutive = 1, base_ejection = \"300s\" }}\n{KEEN}");
    let edge = edge_at(&[&one, &two], &more);
    // Its probes are good all the time: what it does to requests decides, until they are asked again.
    assert_eq!(failures(&edge, 2), 1);
    bad.store(false, Ordering::SeqCst);
    await_state(&edge, 0, "healthy");
    assert_eq!(failures(&edge, 4), 0);
    assert!(edge.get("/metrics").text().contains("sluice_edge_ejections_total{service=\"api\"} 1"));
}

/// A server of one kind of answer; counts what it was asked.
fn raw(answer: impl Fn(&mut std::net::TcpStream) + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, asked) = (format!("http://{}", listener.local_addr().unwrap()), Arc::new(AtomicUsize::new(0)));
    let (counter, answer) = (Arc::clone(&asked), Arc::new(answer));
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let (counter, answer) = (Arc::clone(&counter), Arc::clone(&answer));
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                if socket.read(&mut piece).is_ok_and(|count| count > 0) {
                    counter.fetch_add(1, Ordering::SeqCst);
                    answer(&mut socket);
                }
            });
        }
    });
    (url, asked)
}

#[test]
fn a_redirect_is_no_good_probe_and_no_body_is_read() {
    let (elsewhere, target) = raw(|socket| drop(socket.write_all(reply("200 OK", "").as_bytes())));
    let (moved, _) = raw(move |socket| {
        let head = format!("HTTP/1.1 302 Found\r\nLocation: {elsewhere}/health\r\nContent-Length: 0\r\n\r\n");
        drop(socket.write_all(head.as_bytes()));
    });
    // Sends for as long as anybody reads.
    let let_go = Arc::new(AtomicUsize::new(0));
    let ended = Arc::clone(&let_go);
    let (endless, _) = raw(move |socket| {
        drop(socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        while socket.write_all(chunk.as_bytes()).is_ok() {}
        ended.fetch_add(1, Ordering::SeqCst);
    });
    let text = service("api", "/api", &[moved, endless], &format!("{ALONE}{KEEN}"));
    let edge = Setup::new("").service("api", &text).start();
    await_state(&edge, 0, "unhealthy");
    eventually("the endless answer is let go three times", || {
        (let_go.load(Ordering::SeqCst) >= 3).then_some(())
    });
    assert_eq!(states(&edge), ["unhealthy", "healthy"]);
    assert_eq!(target.load(Ordering::SeqCst), 0, "nobody follows the redirect");
    assert_eq!(edge.probe("api").as_deref(), Some("302"));
    assert!(instances(&edge).iter().all(|one| one["in_flight"] == 0));
}
