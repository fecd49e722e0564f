//! Bodies that flow: server-sent events, chunked uploads, draining.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::harness::{Setup, Upstream, edge_for, eventually, ok, reply, service};

#[test]
fn events_pass_one_by_one_and_outlive_the_total_timeout() {
    let (send, events) = mpsc::sync_channel::<String>(8);
    let events = std::sync::Mutex::new(events);
    let upstream = Upstream::start(move |_, wire| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        drop(wire.write_all(head.as_bytes()));
        let events = events.lock().unwrap();
        while let Ok(event) = events.recv() {
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            if wire.write_all(chunk.as_bytes()).is_err() {
                return false;
            }
        }
        drop(wire.write_all(b"0\r\n\r\n"));
        false
    });
    let edge = edge_for(
        &upstream,
        "timeouts = { connect = \"100ms\", first_byte = \"200ms\", total = \"300ms\", idle = \"5s\" }",
    );
    let mut client = edge.connect();
    client.send("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
    let begun = Instant::now();
    assert!(client.read_until("\r\n\r\n").contains("text/event-stream"));
    for number in 0..6 {
        send.send(format!("data: {number}\n\n")).unwrap();
        // Each event is here before the next one is sent: nothing is held back.
        client.read_until(&format!("data: {number}\n\n"));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(begun.elapsed() > Duration::from_millis(500));
    drop(send);
    assert!(client.read_until("0\r\n\r\n").ends_with("0\r\n\r\n"));
}

#[test]
fn an_upload_passes_chunk_by_chunk() {
    let (send, pieces) = mpsc::sync_channel::<Vec<u8>>(64);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for mut socket in listener.incoming().flatten() {
            let mut piece = [0; 1024];
            let mut all = Vec::new();
            while let Ok(count) = socket.read(&mut piece) {
                if count == 0 {
                    break;
                }
                all.extend_from_slice(&piece[..count]);
                if all.starts_with(b"GET /health") {
                    drop(socket.write_all(reply("200 OK", "").as_bytes()));
                    break;
                }
                drop(send.send(piece[..count].to_vec()));
                if all.ends_with(b"0\r\n\r\n") {
                    drop(socket.write_all(reply("200 OK", "done").as_bytes()));
                    all.clear();
                }
            }
        }
    });
    let text = service("api", "/api", &[url], "auth_required = false");
    let edge = Setup::new("").service("api", &text).start();
    let mut client = edge.connect();
    client.send("POST /api HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut arrived = Vec::new();
    let mut wait_for = |what: &[u8]| {
        eventually("the piece arrives", || {
            arrived.extend(pieces.try_iter().flatten());
            crate::harness::find(&arrived, what)
        });
    };
    for piece in ["first", "second"] {
        client.send(&format!("{:x}\r\n{piece}\r\n", piece.len()));
        wait_for(piece.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.reply().text(), "done");
}

#[test]
fn a_client_that_asks_first_gets_its_100_after_the_checks() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "body_bytes = \"1KiB\"");
    let ask = |length: usize| {
        format!(
            "POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut client = edge.connect();
    client.send(&ask(5));
    assert!(client.read_until("\r\n\r\n").starts_with("HTTP/1.1 100"));
    client.send("hello");
    assert_eq!(client.reply().status, 200);
    let seen = upstream.only();
    assert_eq!(seen.body, b"hello");
    assert!(seen.fields("expect").is_empty());
    assert_eq!(edge.connect().exchange(&ask(5_000)).status, 413, "refused without asking for the body");
}

#[test]
fn large_bodies_pass_both_ways() {
    let upstream = Upstream::start(|seen, wire| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len());
        wire.write_all(head.as_bytes()).is_ok() && wire.write_all(&seen.body).is_ok()
    });
    let edge = edge_for(&upstream, "body_bytes = \"8MiB\"");
    let body: String = (0..3_000_000).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
    let mut client = edge.connect();
    for _ in 0..2 {
        let raw = format!("POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert!(client.exchange(&raw).body == body.as_bytes());
    }
}

#[test]
fn draining_says_so_finishes_what_runs_and_ends() {
    let (release, gate) = mpsc::sync_channel::<()>(1);
    let gate = std::sync::Mutex::new(gate);
    let upstream = Upstream::start(move |seen, wire| {
        if seen.line().contains("/slow") {
            let _released = gate.lock().unwrap().recv();
        }
        wire.write_all(reply("200 OK", "ok").as_bytes()).is_ok()
    });
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let conf = "[drain]\nlame_duck = \"1500ms\"\ndeadline = \"10s\"\n";
    let mut edge = Setup::new(conf).service("api", &text).start();
    assert_eq!(edge.get("/readyz").status, 200);
    let mut slow = edge.connect();
    slow.send("GET /api/slow HTTP/1.1\r\nHost: edge\r\n\r\n");
    eventually("it runs", || (!upstream.seen().is_empty()).then_some(()));
    let mut idle = edge.connect();
    assert_eq!(idle.exchange("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n").field("connection"), "keep-alive");
    edge.begin_drain();
    let ready = eventually("not ready", || Some(edge.get("/readyz")).filter(|answer| answer.status == 503));
    assert_eq!(ready.code(), "draining");
    // During the lame duck requests are still answered, and told to go elsewhere next time.
    let last = idle.exchange("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
    assert_eq!((last.status, last.field("connection")), (200, "close"));
    release.send(()).unwrap();
    assert_eq!(slow.reply().status, 200, "what runs is finished");
    edge.join();
}
