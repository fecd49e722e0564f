//! Bodies that flow: server-sent events, chunked uploads, draining.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::harness::{Setup, Upstream, edge_for, eventually, ok, reply, service};
use crate::tunnel::{Holding, Raw, alone, edge_at, edge_to, memory_kib};

#[test]
fn events_pass_one_by_one_and_outlive_the_total_timeout() {
    let (send, events) = mpsc::sync_channel::<String>(8);
    let events = Mutex::new(events);
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
    let gate = Mutex::new(gate);
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

pub const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

pub fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

#[test]
fn a_thousand_quiet_subscribers_stay_and_hear_the_next_event() {
    let upstream = Holding::start(|_| format!("{EVENTS}{}", chunk("data: first\n\n")));
    let edge = edge_to(upstream.address, "auth_required = false\nrate_limit = 1000000");
    let subscribe = |_| {
        let mut client = edge.connect();
        client.send("GET /ws HTTP/1.1\r\nHost: edge\r\n\r\n");
        assert!(client.read_until("data: first\n\n").ends_with("data: first\n\n"));
        client
    };
    let mut clients: Vec<_> = (0..1000).map(subscribe).collect();
    eventually("the upstream holds them", || (upstream.held.lock().unwrap().len() == 1000).then_some(()));
    let mut held = upstream.held.lock().unwrap();
    for socket in held.iter_mut() {
        socket.write_all(chunk("data: second\n\n").as_bytes()).unwrap();
    }
    drop(held);
    for client in &mut clients {
        assert!(client.read_until("data: second\n\n").ends_with("data: second\n\n"));
    }
}

#[test]
fn at_the_drain_streams_end_cleanly_and_events_say_when_to_come_back() {
    let upstream = Raw::start(|head, socket| {
        let first = match head.split(' ').nth(1).unwrap_or("") {
            "/ws/whole" => format!("{EVENTS}{}", chunk("id: 7\ndata: whole\n\n")),
            "/ws/half" => format!("{EVENTS}{}", chunk("id: 8\ndata: ha")),
            "/ws/zipped" => EVENTS.replace("Transfer", "Content-Encoding: br\r\nTransfer") + &chunk("bytes"),
            _ => EVENTS.replace("text/event-stream", "application/x-ndjson") + &chunk("{}\n"),
        };
        socket.write_all(first.as_bytes()).unwrap();
        drop(socket.read(&mut [0; 64]));
    });
    let more = "auth_required = false\nstrip_prefix = false";
    let text = service("ws", "/ws", &[format!("http://{}", upstream.address)], more);
    let conf = "[drain]\nlame_duck = \"10ms\"\ndeadline = \"30s\"\n";
    let mut edge = Setup::new(conf).service("ws", &text).start();
    let cases = [
        ("whole", "whole\n\n", true),
        ("half", "data: ha", false),
        ("zipped", "bytes", false),
        ("lines", "{}\n", false),
    ];
    let mut clients = cases.map(|(path, seen, hinted)| {
        let mut client = edge.connect();
        client.send(&format!("GET /ws/{path} HTTP/1.1\r\nHost: edge\r\n\r\n"));
        client.read_until(&format!("{seen}\r\n"));
        (path, client, hinted)
    });
    let begun = Instant::now();
    edge.begin_drain();
    for (path, client, hinted) in &mut clients {
        let rest = client.read_until("0\r\n\r\n");
        assert!(rest.ends_with("0\r\n\r\n"), "{path}: {rest:?} is no clean end");
        let hint =
            rest.split("retry: ").nth(1).and_then(|text| text.split_once("\n\n")).map(|(wait, _)| wait);
        assert_eq!(hint.is_some(), *hinted, "{path}: {rest:?}");
        if let Some(wait) = hint {
            assert!((1000..2000).contains(&wait.parse::<u64>().unwrap()), "{wait}");
        }
        assert!(client.is_closed(), "{path}");
    }
    eventually("the upstreams are let go", || (upstream.open() == 0).then_some(()));
    edge.join();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// Megabytes of a long body.
fn body_mb() -> usize {
    if std::env::var_os("SLUICE_LONG").is_some() { 200 } else { 50 }
}

#[test]
fn long_bodies_pass_in_little_memory() {
    alone("streaming::a_long_body_each_way");
}

#[test]
#[ignore = "measures its own process: run by `long_bodies_pass_in_little_memory`"]
fn a_long_body_each_way() {
    const PIECE: usize = 1 << 16;
    fn read_zeros(socket: &mut impl std::io::Read, mut left: usize) {
        let mut piece = vec![1; PIECE];
        while left > 0 {
            let count = socket.read(&mut piece).unwrap();
            assert!(count > 0 && piece[..count].iter().all(|byte| *byte == 0));
            left -= count;
        }
    }
    fn write_zeros(socket: &mut TcpStream, bytes: usize) {
        let piece = vec![0; PIECE];
        (0..bytes / PIECE).for_each(|_| socket.write_all(&piece).unwrap());
    }
    let bytes = body_mb() << 20;
    let upstream = Raw::start(move |_, socket| {
        read_zeros(socket, bytes);
        socket.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").as_bytes()).unwrap();
        write_zeros(socket, bytes);
    });
    let edge = edge_at(&upstream, "body_bytes = \"1GiB\"\ntimeouts = { total = \"120s\" }");
    let before = memory_kib("VmRSS");
    let begun = Instant::now();
    let mut client = edge.connect();
    client.send(&format!("POST /ws HTTP/1.1\r\nHost: edge\r\nContent-Length: {bytes}\r\n\r\n"));
    write_zeros(&mut client.socket, bytes);
    let mut byte = [0; 1];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(client.socket.read(&mut byte).unwrap(), 1);
        head.push(byte[0]);
    }
    read_zeros(&mut client.socket, bytes);
    let grown = memory_kib("VmHWM").saturating_sub(before);
    println!("{} MB each way in {:?}, {grown} KiB more at most", body_mb(), begun.elapsed());
    assert!(grown < 16 << 10, "{grown} KiB");
}
