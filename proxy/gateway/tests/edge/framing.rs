//! Requests that are not what they seem: refused before an upstream sees a byte.

use std::io::Write as _;

use crate::harness::{Client, Edge, Setup, Upstream, edge_for, eventually, ok, service};

const GOOD: &str = "GET /api/next HTTP/1.1\r\nHost: edge\r\n\r\n";

/// Sends `bad` with a good request right behind it: the answer is a refusal, the connection closes, and
/// nothing of either reaches the upstream.
fn refused(edge: &Edge, upstream: &Upstream, bad: &str, status: u16) {
    let before = upstream.seen().len();
    let mut client = edge.connect();
    client.send(&format!("{bad}{GOOD}"));
    let reply = client.try_reply().unwrap_or_else(|| panic!("no answer to {bad:?}"));
    assert_eq!(reply.status, status, "{bad:?} -> {} {}", reply.head, reply.text());
    reply.code();
    assert_eq!(reply.field("connection"), "close", "{bad:?}");
    assert!(client.is_closed(), "{bad:?} leaves the connection open");
    assert_eq!(upstream.seen().len(), before, "{bad:?} reached the upstream");
}

#[test]
fn malformed_heads_are_refused_and_close() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let post = "POST /api/x HTTP/1.1\r\nHost: edge\r\n";
    for (bad, status) in [
        (format!("{post}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"), 400),
        (format!("{post}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), 400),
        (format!("{post}Content-Length: 3, 3\r\n\r\nabc"), 400),
        (format!("{post}Content-Length: +3\r\n\r\nabc"), 400),
        (format!("{post}Content-Length: 0x3\r\n\r\nabc"), 400),
        (format!("{post}Content-Length: -1\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 501),
        (format!("{post}Transfer-Encoding: identity\r\n\r\n"), 501),
        (format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        ("POST /api HTTP/1.0\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
        ("GET /api HTTP/1.1\nHost: edge\n\n".into(), 400),
        ("GET /api HTTP/1.1\r\nHost: edge\r\nX: a\nY: b\r\n\r\n".into(), 400),
        ("GET /api HTTP/1.1\r\nHost: edge\r\nX: a\rb\r\n\r\n".into(), 400),
        ("GET /api HTTP/1.1\r\nHost: edge\r\nX: a\0b\r\n\r\n".into(), 400),
        ("GET /api HTTP/1.1\r\nHost: edge\r\nX: a\r\n folded\r\n\r\n".into(), 400),
        ("GET /api HTTP/1.1\r\n Host: edge\r\n\r\n".into(), 400),
        ("GET /api HTTP/1.1\r\nHost : edge\r\n\r\n".into(), 400),
        ("GET /api HTTP/1.1\r\nHost: edge\r\n: x\r\n\r\n".into(), 400),
        ("GET /api HTTP/1.1\r\nHost: edge\r\nnocolon\r\n\r\n".into(), 400),
        ("GET /api HTTP/1.1\r\n\r\n".into(), 400),
        ("GET /api HTTP/1.1\r\nHost: edge\r\nHost: edge\r\n\r\n".into(), 400),
        ("GET /api HTTP/1.1\r\nHost: \r\n\r\n".into(), 400),
        ("GET http://other/api HTTP/1.1\r\nHost: edge\r\n\r\n".into(), 400),
        ("GET /api x HTTP/1.1\r\nHost: edge\r\n\r\n".into(), 400),
        ("GET /api\\x HTTP/1.1\r\nHost: edge\r\n\r\n".into(), 400),
        ("GET /api HTTP/2.0\r\nHost: edge\r\n\r\n".into(), 505),
        ("GET /api HTTP/1.2\r\nHost: edge\r\n\r\n".into(), 505),
        ("GET /api\r\n\r\n".into(), 400),
        ("TRACE /api HTTP/1.1\r\nHost: edge\r\n\r\n".into(), 405),
        ("CONNECT edge:443 HTTP/1.1\r\nHost: edge:443\r\n\r\n".into(), 405),
        ("BREW /api HTTP/1.1\r\nHost: edge\r\n\r\n".into(), 501),
        ("LIST /api HTTP/1.1\r\nHost: edge\r\n\r\n".into(), 501),
        (format!("{post}Expect: something\r\nContent-Length: 0\r\n\r\n"), 417),
    ] {
        refused(&edge, &upstream, &bad, status);
    }
}

#[test]
fn path_tricks_are_refused_or_resolved_before_routing() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    for bad in [
        "/api%2fx",
        "/api/%5cx",
        "/api/%00",
        "/../x",
        "/api/%2e%2e/%2e%2e/x",
        "/api/..;/x",
        "/api/%zz",
        "/api/%c0%ae",
        "/api?q=<x>",
    ] {
        refused(&edge, &upstream, &format!("GET {bad} HTTP/1.1\r\nHost: edge\r\n\r\n"), 400);
    }
    for (sent, forwarded) in [
        ("/api//a///b", "/a/b"),
        ("/x/../api/a", "/a"),
        ("/api/./a/%2e%2e/b?q=%2e%2e", "/b?q=%2e%2e"),
        ("/%61pi/a", "/a"),
        ("/api", "/"),
        ("http://edge/api/abs", "/abs"),
    ] {
        let reply = edge.send(&format!("GET {sent} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n"));
        assert_eq!(reply.status, 200, "{sent}: {}", reply.text());
        assert_eq!(upstream.seen().last().unwrap().line(), format!("GET {forwarded} HTTP/1.1"), "{sent}");
    }
    // Climbing out of a prefix lands where the path then leads: nowhere.
    assert_eq!(edge.get("/api/../etc").code(), "no_route");
    assert_eq!(edge.get("/apix").code(), "no_route");
}

#[test]
fn sizes_have_their_own_codes() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "body_bytes = \"1KiB\"");
    let long = |count: usize| "a".repeat(count);
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: edge\r\n{more}\r\n");
    refused(&edge, &upstream, &get(&format!("/api/{}", long(9_000)), ""), 414);
    refused(&edge, &upstream, &get(&format!("/api/{}", long(70_000)), ""), 414);
    refused(&edge, &upstream, &get("/api", &format!("X: {}\r\n", long(40_000))), 431);
    refused(&edge, &upstream, &get("/api", &"X: y\r\n".repeat(101)), 431);
    refused(&edge, &upstream, &get("/api", &"X: y\r\n".repeat(1_000)), 431);
    let post =
        |length: usize| format!("POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: {length}\r\n\r\n");
    refused(&edge, &upstream, &format!("{}{}", post(1_025), long(1_025)), 413);
    let reply = edge.send(&format!("{}{}", post(1_024), long(1_024)));
    assert_eq!(reply.status, 200);
    assert_eq!(upstream.only().body.len(), 1_024);
}

#[test]
fn a_chunked_body_past_the_limit_never_arrives_whole() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "body_bytes = \"1KiB\"");
    let mut client = edge.connect();
    client.send("POST /api HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        client.send(&format!("200\r\n{}\r\n", "a".repeat(0x200)));
    }
    let reply = client.reply();
    assert_eq!((reply.status, reply.code().as_str()), (413, "body_too_large"));
    assert!(client.is_closed());
    let seen = eventually("the upstream loses the connection", || upstream.seen().first().cloned());
    assert!(!seen.whole);
}

#[test]
fn a_broken_chunk_aborts_the_upstream_request() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let head = "POST /api HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n";
    // A fault that comes with the head: nothing is forwarded.
    for bad in
        ["0x3\r\nabc\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "11111111111111111\r\n"]
    {
        refused(&edge, &upstream, &format!("{head}{bad}"), 400);
    }
    // A fault later on: what was forwarded never becomes a whole request.
    let mut client = edge.connect();
    client.send(&format!("{head}3\r\nabc\r\n"));
    eventually("the head reaches the upstream", || {
        (upstream.connections.load(std::sync::atomic::Ordering::SeqCst) > 0).then_some(())
    });
    client.send("+3\r\nabc\r\n0\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.status, reply.code().as_str()), (400, "bad_framing"));
    assert!(client.is_closed());
    let seen = eventually("the upstream loses the connection", || upstream.seen().first().cloned());
    assert!(!seen.whole, "{seen:?}");
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let upstream = Upstream::start(|seen, wire| {
        let path = seen.line().split(' ').nth(1).unwrap_or("").to_owned();
        wire.write_all(crate::harness::reply("200 OK", &path).as_bytes()).is_ok()
    });
    let edge = edge_for(&upstream, "");
    let mut client = edge.connect();
    let mut all = String::new();
    for number in 0..20 {
        all.push_str(&format!("GET /api/{number} HTTP/1.1\r\nHost: edge\r\n\r\n"));
        all.push_str(&format!(
            "POST /api/p{number} HTTP/1.1\r\nHost: edge\r\nContent-Length: 5\r\n\r\nhello"
        ));
        all.push_str(&format!(
            "POST /api/c{number} HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: x\r\n\r\n"
        ));
    }
    client.send(&all);
    for number in 0..20 {
        assert_eq!(client.reply().text(), format!("/{number}"));
        assert_eq!(client.reply().text(), format!("/p{number}"));
        assert_eq!(client.reply().text(), format!("/c{number}"));
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 60);
    assert_eq!(seen[1].body, b"hello");
    assert!(String::from_utf8_lossy(&seen[2].body).contains("5\r\nhello\r\n0\r\n\r\n"), "{:?}", seen[2]);
}

#[test]
fn a_head_that_drips_gets_408_and_silence_is_closed() {
    let upstream = Upstream::start(ok);
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let limits = "[edge]\nthreads = 1\n[edge.limits]\nheader_timeout = \"300ms\"\nidle_timeout = \"400ms\"\n";
    let edge = Setup::new(limits).service("api", &text).start();
    let mut drip = edge.connect();
    for byte in "GET /api HTTP/1.1\r\nHost".bytes() {
        if drip.socket.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let reply = drip.reply();
    assert_eq!((reply.status, reply.code().as_str()), (408, "request_timeout"));
    assert!(drip.is_closed());
    assert!(edge.connect().is_closed(), "a silent connection is closed without an answer");
    let mut idle = edge.connect();
    assert_eq!(idle.exchange(GOOD).status, 200);
    assert!(idle.is_closed(), "an idle connection is closed");
}

#[test]
fn connections_of_one_address_are_capped() {
    let upstream = Upstream::start(ok);
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let limits = "[edge]\nthreads = 1\nlisten = \"127.0.0.1:0\"\n[edge.limits]\nconnections = 20\nconnections_per_ip = 3\n";
    let mut setup = Setup::new(limits).service("api", &text);
    setup.dev = false;
    let edge = setup.start();
    let mut held: Vec<Client> = (0..3).map(|_| edge.connect()).collect();
    for client in &mut held {
        assert_eq!(client.exchange(GOOD).status, 200);
    }
    assert!(edge.connect().is_closed());
    held.pop();
    eventually("a place is free again", || {
        let mut client = edge.connect();
        client.send(GOOD);
        client.try_reply().filter(|reply| reply.status == 200)
    });
}

#[test]
fn http_1_0_is_served_without_chunks() {
    let upstream = Upstream::start(|_, wire| {
        wire.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
            .is_ok()
    });
    let edge = edge_for(&upstream, "");
    let mut client = edge.connect();
    client.send("GET /api HTTP/1.0\r\nHost: edge\r\n\r\n");
    let head = client.read_until("\r\n\r\n");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(client.read_until("never"), "hello");
}

#[test]
fn a_client_that_asked_first_and_is_refused_finds_its_connection_closed() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    for lines in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        // It may leave its body out. Were the connection kept, five bytes of the next request would be taken
        // for it, and what follows them for a request.
        let asks = format!("POST /none HTTP/1.1\r\nHost: edge\r\nExpect: 100-continue\r\n{lines}\r\n");
        let mut client = edge.connect();
        let reply = client.exchange(&asks);
        assert_eq!((reply.code().as_str(), reply.field("connection")), ("no_route", "close"));
        client.send(&format!("12345{GOOD}"));
        assert!(client.is_closed(), "{lines:?}");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_refused_head_is_answered_by_its_method() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    for bad in ["HEAD /%zz HTTP/1.1\r\nHost: edge\r\n\r\n", "\r\nHEAD /api HTTP/1.1\r\n\r\n"] {
        let mut client = edge.connect();
        client.send(bad);
        let head = client.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 400 ") && client.is_closed(), "no body: {head}");
    }
    for method in ["TRACE /api", "CONNECT edge:443"] {
        let host = method.split(' ').nth(1).filter(|target| !target.starts_with('/')).unwrap_or("edge");
        let reply = edge.send(&format!("{method} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(reply.code(), "method_not_allowed");
        assert_eq!(reply.field("allow"), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
}
