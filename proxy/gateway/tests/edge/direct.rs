//! The edge's own way to an instance: who is to blame, and what is over in time, whoever is slow.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Edge, Setup, eventually, service};
use crate::tunnel::{Raw, metric, read_head, stalled};

fn edge(upstream: &Raw, main: &str, times: &str) -> Edge {
    let more = format!(
        "auth_required = false\nbody_bytes = \"1GiB\"\ntimeouts = {{ connect = \"300ms\", {times} }}"
    );
    let text = service("way", "/way", &[format!("http://{}", upstream.address)], &more);
    Setup::new(&format!("[edge]\nthreads = 1\n{main}")).service("way", &text).start()
}

#[test]
fn a_client_that_does_not_read_what_it_sends_for_is_not_its_instances_fault() {
    let upstream = Raw::start(|_, socket| {
        drop(socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"));
        let mut piece = vec![0; 60_000];
        while let Ok(count @ 1..) = socket.read(&mut piece) {
            if socket.write_all(&piece[..count]).is_err() {
                return;
            }
        }
    });
    let times = "first_byte = \"500ms\", idle = \"500ms\", total = \"20s\"";
    let log = tempfile::NamedTempFile::new().unwrap();
    let main =
        format!("[edge.limits]\nidle_timeout = \"1s\"\n[log]\naccess = \"file:{}\"\n", log.path().display());
    let edge = edge(&upstream, &main, times);
    let mut client = TcpStream::connect(edge.http).unwrap();
    client.write_all(b"POST /way HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
    client.set_nonblocking(true).unwrap();
    let (piece, mut sent) = (vec![7; 60_000], 0);
    stalled(|| {
        sent += client.write(&piece).unwrap_or(0);
        sent
    });
    let line = eventually("the edge gives it up", || {
        let lines = std::fs::read_to_string(log.path()).unwrap();
        lines.lines().find(|line| line.contains("\"POST\"")).map(str::to_owned)
    });
    assert!(line.contains("\"decision\":\"cut_short\""), "not the instance's time: {line}");
    assert_eq!(metric(&edge, "circuit_breaker_failures_total{service=\"way\"}"), Some(0.0));
    let listed = edge.get("/services").json()["services"][0]["instances"][0].clone();
    assert_eq!((&listed["state"], &listed["in_flight"]), (&"healthy".into(), &0.into()), "{listed}");
}

#[test]
fn a_connection_whose_answer_was_framed_twice_is_not_used_again() {
    let framed = |fields: &'static str| {
        Raw::start(move |_, socket| {
            let answer =
                format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
            while socket.write_all(answer.as_bytes()).is_ok() && !read_head(socket).is_empty() {}
        })
    };
    for (upstream, connections) in [(framed(""), 1), (framed("Content-Length: 2\r\n"), 3)] {
        let edge = edge(&upstream, "", "total = \"20s\"");
        let mut client = edge.connect();
        for _ in 0..3 {
            let answer = client.exchange("GET /way HTTP/1.1\r\nHost: edge\r\n\r\n");
            assert_eq!(
                (answer.status, answer.text().as_str(), answer.field("content-length")),
                (200, "ok", "")
            );
        }
        // A head for each connection: `Raw` notes the first one alone.
        assert_eq!(upstream.heads.lock().unwrap().len(), connections);
    }
}

#[test]
fn a_long_body_is_held_to_the_total_however_fast_both_sides_are() {
    let upstream = Raw::start(|head, socket| {
        let mut piece = vec![7; 1 << 18];
        if head.starts_with("GET ") {
            drop(socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"));
            while socket.write_all(&piece).is_ok() {}
        } else {
            while let Ok(1..) = socket.read(&mut piece) {}
        }
    });
    let edge = edge(&upstream, "", "first_byte = \"500ms\", total = \"1s\"");
    let begun = Instant::now();
    let mut reader = TcpStream::connect(edge.http).unwrap();
    reader.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    reader.write_all(b"GET /way HTTP/1.1\r\nHost: edge\r\n\r\n").unwrap();
    let mut piece = vec![0; 1 << 18];
    while begun.elapsed() < Duration::from_secs(10) && matches!(reader.read(&mut piece), Ok(1..)) {}
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let mut writer = TcpStream::connect(edge.http).unwrap();
    writer.write_all(b"POST /way HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
    let mut sent = 0;
    while begun.elapsed() < Duration::from_secs(10)
        && let Ok(count @ 1..) = writer.write(&piece[..piece.len().min(1_000_000_000 - sent)])
    {
        sent += count;
        std::thread::yield_now();
    }
    // One that is through before is no matter.
    assert!(
        sent == 1_000_000_000 || begun.elapsed() < Duration::from_secs(5),
        "{sent} {:?}",
        begun.elapsed()
    );
}
