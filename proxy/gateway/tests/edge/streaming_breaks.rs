//! Bodies that stop: clients that leave, sides that do not read, answers that break off, uploads nobody wants.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::harness::{Setup, Upstream, eventually, ok, service};
use crate::streaming::{EVENTS, chunk};
use crate::tunnel::{Raw, edge_at, stalled};
#[test]
fn a_client_that_leaves_ends_the_upstreams_work_at_every_stage() {
    let upstream = Raw::start(|head, socket| {
        let begin = match head.split(' ').nth(1).unwrap_or("") {
            "/ws/body" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_owned(),
            "/ws/events" => format!("{EVENTS}{}", chunk("data: 1\n\n")),
            _ => String::new(),
        };
        socket.write_all(begin.as_bytes()).unwrap();
        drop(socket.read_to_end(&mut Vec::new()));
    });
    let edge = edge_at(&upstream, "strip_prefix = false");
    let get = |path: &str| format!("GET /ws/{path} HTTP/1.1\r\nHost: edge\r\n\r\n");
    let upload = "POST /ws/upload HTTP/1.1\r\nHost: edge\r\nContent-Length: 100\r\n\r\nhalf".to_owned();
    let stages = [(get("silent"), ""), (get("body"), "half"), (get("events"), "data: 1"), (upload, "")];
    for (number, (request, sign)) in stages.iter().enumerate() {
        for ahead in ["", "GET /ws/next HTTP/1.1\r\nHost: edge\r\n\r\n"] {
            // An upload has no next request before its end.
            let ahead = if number == 3 { "" } else { ahead };
            let mut client = edge.connect();
            client.send(&format!("{request}{ahead}"));
            if !sign.is_empty() {
                client.read_until(sign);
            }
            eventually("the upstream works", || (upstream.open() == 1).then_some(()));
            let left = Instant::now();
            drop(client);
            eventually("the upstream's work ends", || (upstream.open() == 0).then_some(()));
            assert!(left.elapsed() < Duration::from_secs(1), "{request} {ahead} {:?}", left.elapsed());
        }
    }
}

#[test]
fn a_side_that_does_not_read_stalls_the_other() {
    let written = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    let upstream = Raw::start(move |head, socket| {
        if head.starts_with("GET ") {
            let length = 1_u64 << 40;
            socket
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes())
                .unwrap();
            while let Ok(count @ 1..) = socket.write(&vec![7; 60_000]) {
                counted.fetch_add(count, Ordering::SeqCst);
            }
        } else {
            // It reads nothing until the client has left.
            let mut piece = [0; 1];
            while !matches!(socket.peek(&mut piece), Ok(0) | Err(_)) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let edge = edge_at(&upstream, "body_bytes = \"1GiB\"");
    let mut reader = edge.connect();
    reader.send("GET /ws HTTP/1.1\r\nHost: edge\r\n\r\n");
    reader.read_until("\r\n\r\n");
    let down = stalled(|| written.load(Ordering::SeqCst));
    let mut writer = edge.connect();
    writer.send("POST /ws HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000000000\r\n\r\n");
    writer.socket.set_nonblocking(true).unwrap();
    let (piece, mut sent) = (vec![7; 60_000], 0);
    let up = stalled(|| {
        sent += writer.socket.write(&piece).unwrap_or(0);
        sent
    });
    assert!(down < 48 << 20 && up < 48 << 20, "{down} {up}");
}

#[test]
fn an_answer_that_breaks_off_never_looks_whole() {
    let upstream = Raw::start(|head, socket| {
        let begin = match head.split(' ').nth(1).unwrap_or("") {
            "/ws/chunks" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "/ws/length" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
            _ => "HTTP/1.1 200 OK\r\n\r\nhalf",
        };
        drop(socket.write_all(begin.as_bytes()));
    });
    let edge = edge_at(&upstream, "strip_prefix = false");
    for (path, whole) in [("chunks", false), ("length", false), ("close", true)] {
        for version in ["1.0", "1.1"] {
            let mut socket = TcpStream::connect(edge.http).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket
                .write_all(
                    format!("GET /ws/{path} HTTP/{version}\r\nHost: edge\r\nConnection: close\r\n\r\n")
                        .as_bytes(),
                )
                .unwrap();
            let mut answer = Vec::new();
            let ended = socket.read_to_end(&mut answer);
            let text = String::from_utf8_lossy(&answer);
            let told = match version {
                "1.0" => ended.is_ok(),
                _ => text.ends_with("0\r\n\r\n"),
            };
            assert_eq!(told, whole, "{path} {version}: {ended:?} {text}");
        }
    }
}

#[test]
fn an_upload_that_the_upstream_does_not_take_ends_with_its_client_and_in_time() {
    let (release, gate) = mpsc::sync_channel::<()>(1);
    let gate = Mutex::new(gate);
    let upstream = Raw::start(move |_, socket| {
        // The client leaves this unread, so that its end is a reset, which overtakes what it has sent.
        socket.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").unwrap();
        gate.lock().unwrap().recv().unwrap_err();
    });
    let upload = |edge: &crate::harness::Edge| {
        let mut client = edge.connect();
        client.send("POST /ws HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000000000\r\n\r\n");
        client.socket.set_nonblocking(true).unwrap();
        let (piece, mut sent) = (vec![7; 60_000], 0);
        stalled(|| {
            sent += client.socket.write(&piece).unwrap_or(0);
            sent
        });
        client
    };
    let in_flight = |edge: &crate::harness::Edge| {
        edge.get("/services").json()["services"][0]["instances"][0]["in_flight"].as_u64().unwrap()
    };
    let edge =
        edge_at(&upstream, "body_bytes = \"1GiB\"\ntimeouts = { first_byte = \"20s\", total = \"60s\" }");
    let client = upload(&edge);
    assert_eq!(in_flight(&edge), 1);
    let left = Instant::now();
    drop(client);
    eventually("the edge sees that the client has left", || (in_flight(&edge) == 0).then_some(()));
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());

    let edge =
        edge_at(&upstream, "body_bytes = \"1GiB\"\ntimeouts = { first_byte = \"1s\", total = \"60s\" }");
    let begun = Instant::now();
    let mut client = upload(&edge);
    client.socket.set_nonblocking(false).unwrap();
    assert!(client.read_until("\r\n\r\n").starts_with("HTTP/1.1 103"));
    assert_eq!(client.reply().status, 504);
    assert!(begun.elapsed() < Duration::from_secs(10), "first_byte holds: {:?}", begun.elapsed());
    drop(release);
}

#[test]
fn refused_uploads_leave_the_pool_as_it_was() {
    let upstream = Upstream::start(ok);
    // Probes that are rare: their connections would count.
    let more =
        "permissions = { POST = [\"write\"] }\nbody_bytes = \"64KiB\"\nhealth = { interval = \"24h\" }";
    let text = service("api", "/api", &[upstream.url()], more);
    let edge = Setup::new("[edge]\nthreads = 1\n").service("api", &text).start();
    let token = edge.issuer.token("write");
    let ask = |credential: &str, length: usize, sent: usize| {
        let mut client = edge.connect();
        client.send(&format!(
            "POST /api HTTP/1.1\r\nHost: edge\r\n{credential}Content-Length: {length}\r\n\r\n{}",
            "x".repeat(sent)
        ));
        client.reply().status
    };
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(ask(&bearer, 10, 10), 200);
    let connections = upstream.connections.load(Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(ask("", 50_000, 20_000), 401, "refused while the body is on its way");
        assert_eq!(ask(&bearer, 100_000, 20_000), 413);
        assert_eq!(ask(&bearer, 10, 10), 200);
    }
    assert_eq!(
        upstream.connections.load(Ordering::SeqCst),
        connections,
        "the pooled connection still serves"
    );
    assert!(upstream.seen().iter().all(|seen| seen.body == b"x".repeat(10)));
}
