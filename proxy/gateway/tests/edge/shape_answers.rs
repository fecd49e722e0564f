//! What stands in for answers that did not come, what is compressed, and who gets copies.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use crate::h2_client::{Proper, run};
use crate::harness::{Edge, Reply, Seen, Setup, Upstream, edge_for, eventually, ok, reply, service};
use crate::upstream_h2::H2;

fn ask(edge: &Edge, method: &str, path: &str, fields: &str) -> Reply {
    edge.send(&format!("{method} {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n{fields}\r\n"))
}

fn path(seen: &Seen) -> String {
    seen.line().split(' ').nth(1).unwrap_or("").to_owned()
}

fn metric(edge: &Edge, name: &str) -> String {
    let text = edge.get("/metrics").text();
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim().to_owned()
}

#[test]
fn a_fixed_answer_stands_in_where_the_upstream_failed() {
    let upstream = Upstream::start(|seen, wire| match path(seen).as_str() {
        "/away" => wire.write_all(reply("503 Away", "theirs").as_bytes()).is_ok(),
        "/oops" => wire.write_all(reply("500 Oops", "theirs").as_bytes()).is_ok(),
        "/cut" => false,
        _ => ok(seen, wire),
    });
    let edge = edge_for(
        &upstream,
        "fallback = { status = 200, body = '{\"bars\": []}' }\nretry = { attempts = 1 }\n\
         breaker = { failure_threshold = 5, recovery_timeout = \"60s\" }",
    );
    assert_eq!(edge.get("/api/x").text(), "ok");
    for failed in ["/api/away", "/api/cut"] {
        let answer = edge.get(failed);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "{\"bars\": []}"),
            "{failed}: {}",
            answer.head
        );
        assert_eq!(
            (answer.field("content-type"), answer.field("cache-control")),
            ("application/json", "no-store")
        );
    }
    let head = ask(&edge, "HEAD", "/api/cut", "");
    assert_eq!((head.status, head.field("content-length")), (200, "12"));
    // What is no failure of the upstream, and what changes something, is told as it is.
    assert_eq!((edge.get("/api/oops").status, edge.get("/api/oops").text().as_str()), (500, "theirs"));
    let post = ask(&edge, "POST", "/api/away", "Content-Length: 0\r\n");
    assert_eq!((post.status, post.text().as_str()), (503, "theirs"));
    let delete = ask(&edge, "DELETE", "/api/cut", "");
    assert_eq!((delete.status, delete.code().as_str()), (502, "upstream_refused"));
    // Now the breaker is open.
    let seen = upstream.seen().len();
    assert_eq!(ask(&edge, "POST", "/api/x", "Content-Length: 0\r\n").code(), "breaker_open");
    assert_eq!((edge.get("/api/x").status, edge.get("/api/x").text().as_str()), (200, "{\"bars\": []}"));
    run(async {
        let mut client = Proper::to(&edge).await;
        let answer = client.get("/api/x").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "{\"bars\": []}"));
    });
    assert_eq!(upstream.seen().len(), seen);
    assert_eq!(metric(&edge, "sluice_edge_fallbacks_total{kind=\"fixed\",service=\"api\"}"), "6");
}

/// An upstream that answers with its reader's name until it is told to fail.
fn failing() -> (Upstream, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&fails);
    let upstream = Upstream::start(move |seen, wire| {
        if told.load(Ordering::SeqCst) {
            return false;
        }
        let path = path(seen);
        let more = match path.split('?').next().unwrap_or("") {
            "/none" => "Cache-Control: no-store\r\n",
            "/private" => "Cache-Control: private\r\n",
            "/cookie" => "Set-Cookie: a=b\r\n",
            "/varies" => "Vary: Accept-Language\r\nLink: <a>\r\nLink: <b>\r\n",
            "/any" => "Vary: *\r\n",
            "/open" => {
                drop(wire.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf of"));
                return false;
            }
            "/chunked" => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                return wire.write_all(format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").as_bytes()).is_ok();
            }
            _ => "Age: 7\r\nCache-Control: max-age=60\r\n",
        };
        let body = format!("{path} for {}", seen.fields("x-user").first().unwrap_or(&"nobody"));
        let head = format!("HTTP/1.1 200 OK\r\n{more}X-Own: 1\r\nContent-Length: {}\r\n\r\n", body.len());
        wire.write_all(format!("{head}{body}").as_bytes()).is_ok()
    });
    (upstream, fails)
}

#[test]
fn an_older_answer_stands_in_for_a_failed_one() {
    let (upstream, fails) = failing();
    let keys = "fallback = { stale = \"60s\" }\nretry = { attempts = 1 }\nbreaker = { failure_threshold = 1000, failure_rate = 1.0, min_calls = 1000 }\n\
                response_headers = { set = { x-desk = \"fx\" } }\ncors = { origins = [\"https://a.example\"] }";
    let edge = Setup::new("").service("data", &service("data", "/api/data", &[upstream.url()], keys)).start();
    let alice = edge.issuer.token_of("alice", "read");
    let paths = ["x", "x?n=1", "none", "private", "cookie", "any", "varies", "chunked"];
    for path in paths {
        assert_eq!(edge.get_as(&format!("/api/data/{path}"), &alice).status, 200, "{path}");
    }
    edge.get_as("/api/data/open", &alice);
    let as_alice = |more: &str| format!("Authorization: Bearer {alice}\r\n{more}");
    ask(&edge, "GET", "/api/data/cookies", &as_alice("Cookie: a=b\r\n"));
    ask(&edge, "GET", "/api/data/unkept", &as_alice("Cache-Control: no-store\r\n"));
    ask(&edge, "GET", "/api/data/part", &as_alice("Range: bytes=0-1\r\n"));
    fails.store(true, Ordering::SeqCst);
    let older = ask(&edge, "GET", "/api/data/x", &as_alice("Origin: https://a.example\r\n"));
    assert_eq!((older.status, older.text().as_str()), (200, "/x for alice"), "{}", older.head);
    for (name, value) in [
        ("x-cache", "STALE"),
        ("x-own", "1"),
        ("x-desk", "fx"),
        ("cache-control", "no-store"),
        ("access-control-allow-origin", "https://a.example"),
        ("content-length", "12"),
    ] {
        assert_eq!(older.fields(name), [value], "{}", older.head);
    }
    let age: u64 = older.field("age").parse().unwrap();
    assert!((7..=60).contains(&age), "{age}");
    let text = |path: &str, token: &str| edge.get_as(path, token).text();
    assert_eq!(text("/api/data/x?n=1", &alice), "/x?n=1 for alice");
    assert_eq!(text("/api/data/chunked", &alice), "abcde");
    assert_eq!(edge.get_as("/api/data/varies", &alice).field("link"), "<a>, <b>");
    let head = ask(&edge, "HEAD", "/api/data/x", &as_alice(""));
    assert_eq!((head.status, head.field("x-cache")), (200, "STALE"));
    run(async {
        let mut client = Proper::to(&edge).await;
        let request = client.request("GET", "/api/data/x").header("authorization", format!("Bearer {alice}"));
        // The host is part of the question.
        let answer = client.fetch(request.body(()).unwrap(), None).await.unwrap();
        assert_eq!(answer.status, 502);
    });
    // Whoever asks otherwise, or is somebody else, gets what there is: nothing.
    let (bob, lifted) = (edge.issuer.token_of("bob", "read"), edge.issuer.token_of("alice", "read trade"));
    for token in [&bob, &lifted] {
        assert_eq!(edge.get_as("/api/data/x", token).code(), "upstream_refused");
    }
    for (method, path, fields) in [
        ("GET", "/api/data/x?n=2", ""),
        ("GET", "/api/data/x?", ""),
        ("POST", "/api/data/x", "Content-Length: 0\r\n"),
        ("GET", "/api/data/x", "Cookie: a=b\r\n"),
        ("GET", "/api/data/x", "Cache-Control: no-store\r\n"),
        ("GET", "/api/data/varies", "Accept-Language: de\r\n"),
        ("GET", "/api/data/none", ""),
        ("GET", "/api/data/private", ""),
        ("GET", "/api/data/cookie", ""),
        ("GET", "/api/data/any", ""),
        ("GET", "/api/data/open", ""),
        ("GET", "/api/data/cookies", ""),
        ("GET", "/api/data/unkept", ""),
        ("GET", "/api/data/part", ""),
    ] {
        let answer = ask(&edge, method, path, &as_alice(fields));
        assert_eq!(answer.status, 502, "{method} {path} {fields}: {} {}", answer.head, answer.text());
    }
    assert_eq!(metric(&edge, "sluice_edge_fallbacks_total{kind=\"stale\",service=\"data\"}"), "5");
}

#[test]
fn an_older_answer_is_given_for_its_time_and_then_the_fixed_one() {
    let (upstream, fails) = failing();
    let edge = edge_for(
        &upstream,
        "fallback = { stale = \"1s\", status = 503, body = \"later\" }\nretry = { attempts = 1 }\nbreaker = { failure_threshold = 1 }",
    );
    assert_eq!(edge.get("/api/x").text(), "/x for nobody");
    fails.store(true, Ordering::SeqCst);
    let kept = Instant::now();
    let first = edge.get("/api/x");
    assert!(
        first.field("x-cache") == "STALE" || kept.elapsed() > Duration::from_millis(900),
        "{}",
        first.head
    );
    eventually("it is too old", || (edge.get("/api/x").text() == "later").then_some(()));
    let answer = edge.get("/api/x");
    assert_eq!((answer.status, answer.field("content-type")), (503, "text/plain; charset=utf-8"));
    assert!(!answer.field("retry-after").is_empty(), "{}", answer.head);
}

fn unzipped(body: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(body).read_to_string(&mut text).unwrap();
    text
}

/// A text that is worth compressing.
fn bars() -> String {
    json!((0..400).map(|n| json!({ "time": n, "close": 100 + n % 7 })).collect::<Vec<_>>()).to_string()
}

#[test]
fn texts_are_compressed_for_who_takes_them() {
    let upstream = Upstream::start(|seen, wire| {
        let body = bars();
        let (more, body) = match path(seen).as_str() {
            "/small" => ("Content-Type: application/json\r\n", "[]".to_owned()),
            "/image" => ("Content-Type: image/png\r\n", body),
            "/coded" => ("Content-Type: application/json\r\nContent-Encoding: br\r\n", body),
            "/fixed" => ("Content-Type: application/json\r\nCache-Control: no-transform\r\n", body),
            "/cookie" => ("Content-Type: application/json\r\nSet-Cookie: a=b\r\n", body),
            "/part" => ("Content-Type: application/json\r\nContent-Range: bytes 0-9/10\r\n", body),
            _ => ("Content-Type: application/json\r\nETag: \"a\"\r\nAccept-Ranges: bytes\r\n", body),
        };
        let body = if seen.line().starts_with("HEAD") { String::new() } else { body };
        wire.write_all(
            format!("HTTP/1.1 200 OK\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
        )
        .is_ok()
    });
    let edge = edge_for(&upstream, "compress = true");
    let gzip = "Accept-Encoding: br, gzip;q=0.8\r\n";
    let answer = ask(&edge, "GET", "/api/x", gzip);
    assert_eq!((answer.status, answer.field("content-encoding")), (200, "gzip"), "{}", answer.head);
    assert_eq!((answer.field("etag"), answer.field("vary")), ("W/\"a\"", "accept-encoding"));
    assert!(answer.field("content-length").is_empty() && answer.field("accept-ranges").is_empty());
    assert_eq!(unzipped(&answer.body), bars());
    assert!(answer.body.len() * 4 < bars().len(), "{}", answer.body.len());
    let plain = ask(&edge, "GET", "/api/x", "Accept-Encoding: gzip;q=0\r\n");
    assert_eq!(
        (plain.text(), plain.field("vary"), plain.field("etag")),
        (bars(), "accept-encoding", "\"a\"")
    );
    for (method, path, fields) in [
        ("GET", "/api/small", ""),
        ("GET", "/api/image", ""),
        ("GET", "/api/coded", ""),
        ("GET", "/api/fixed", ""),
        ("GET", "/api/cookie", ""),
        ("GET", "/api/part", ""),
        ("GET", "/api/x", "Cookie: a=b\r\n"),
        ("HEAD", "/api/x", ""),
    ] {
        let answer = ask(&edge, method, path, &format!("{gzip}{fields}"));
        let coding = if path == "/api/coded" { "br" } else { "" };
        assert_eq!((answer.status, answer.field("content-encoding")), (200, coding), "{path} {fields}");
        assert!(!answer.field("content-length").is_empty() || method == "HEAD", "{path}: {}", answer.head);
    }
    let old = edge.send(&format!("GET /api/x HTTP/1.0\r\nHost: edge\r\n{gzip}\r\n"));
    assert_eq!((old.field("content-encoding"), old.text()), ("", bars()));
    run(async {
        let mut client = Proper::to(&edge).await;
        let request = client.request("GET", "/api/x").header("accept-encoding", "gzip");
        let answer = client.fetch(request.body(()).unwrap(), None).await.unwrap();
        assert_eq!((answer.status, answer.field("content-encoding")), (200, "gzip"));
        assert_eq!(unzipped(&answer.body), bars());
    });
    let counted = |side: &str| -> usize {
        let name = format!("sluice_edge_compressed_bytes_total{{service=\"api\",side=\"{side}\"}}");
        metric(&edge, &name).parse().unwrap()
    };
    assert_eq!(counted("in"), 2 * bars().len());
    assert_eq!(counted("out"), 2 * answer.body.len());
}

#[test]
fn what_comes_piece_by_piece_is_not_held_back() {
    let (go_on, waits) = mpsc::sync_channel::<()>(2);
    let waits = Mutex::new(waits);
    let upstream = Upstream::start(move |seen, wire| {
        let kind = if path(seen) == "/events" { "text/event-stream" } else { "text/plain" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
        drop(wire.write_all(format!("{head}7\r\ndata: 1\r\n").as_bytes()));
        waits.lock().unwrap().recv().ok();
        wire.write_all(b"7\r\ndata: 2\r\n0\r\n\r\n").is_ok()
    });
    let edge = edge_for(&upstream, "compress = true");
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: edge\r\nAccept-Encoding: gzip\r\n\r\n");
    let mut events = edge.connect();
    events.send(&ask("/api/events"));
    assert!(!events.read_until("\r\n\r\n").to_lowercase().contains("content-encoding"));
    events.read_until("data: 1");
    go_on.send(()).unwrap();
    events.read_until("0\r\n\r\n");
    let mut lines = edge.connect();
    lines.send(&ask("/api/lines"));
    assert!(lines.read_until("\r\n\r\n").to_lowercase().contains("content-encoding: gzip"));
    // The first piece can be read while the second is not written yet.
    let mut zipped = Vec::new();
    let mut text = [0; 7];
    eventually("the first piece", || {
        let size = usize::from_str_radix(lines.read_until("\r\n").trim(), 16).unwrap();
        zipped.extend(lines.read_bytes(size));
        lines.read_until("\r\n");
        flate2::read::GzDecoder::new(&zipped[..]).read_exact(&mut text).is_ok().then_some(())
    });
    assert_eq!(&text, b"data: 1");
    go_on.send(()).unwrap();
    lines.read_until("0\r\n\r\n");
}

/// A service with a mirror.
fn mirrored(upstream: &Upstream, shadow: &str, more: &str) -> Edge {
    let keys = "mirror = \"shadow\"\nforward_authorization = true\npermissions = { GET = [\"read\"], POST = [\"read\"] }\nrate_limit = 0";
    Setup::new("")
        .service("data", &service("data", "/api/data", &[upstream.url()], keys))
        .service("shadow", &service("shadow", "", &[shadow.to_owned()], more))
        .start()
}

#[test]
fn a_mirror_gets_copies_and_its_answers_go_nowhere() {
    let upstream = Upstream::start(ok);
    let shadow = Upstream::start(|_, wire| wire.write_all(reply("500 Oops", "shadow").as_bytes()).is_ok());
    let edge = mirrored(&upstream, &shadow.url(), "request_headers = { set = { x-copy = \"1\" } }");
    let token = edge.issuer.token_of("alice", "read");
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let fields = format!(
        "{bearer}X-Internal-Mirror: 1\r\nX-Request-Id: copied-request-1\r\nConnection: x-own\r\nX-Own: 1\r\n"
    );
    let answer = edge.send(&format!("GET /api/data//a?n=1 HTTP/1.1\r\nHost: edge\r\n{fields}\r\n"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(
        ask(&edge, "POST", "/api/data/b", &format!("{bearer}Content-Length: 2\r\n\r\nok")).status,
        200
    );
    assert_eq!(ask(&edge, "HEAD", "/api/data/c", &bearer).status, 200);
    assert_eq!(ask(&edge, "GET", "/api/data/d", "").status, 401);
    assert_eq!(ask(&edge, "GET", "/api/data/e", &bearer).status, 200);
    let copies = eventually("two copies", || Some(shadow.seen()).filter(|seen| seen.len() == 2));
    let lines: Vec<&str> = copies.iter().map(Seen::line).collect();
    assert_eq!(lines, ["GET /a?n=1 HTTP/1.1", "GET /e HTTP/1.1"]);
    for (name, values) in [
        ("x-internal-mirror", vec!["1"]),
        ("x-request-id", vec!["copied-request-1"]),
        ("x-user", vec!["alice"]),
        ("x-copy", vec!["1"]),
        ("authorization", vec![]),
        ("connection", vec![]),
        ("x-forwarded-for", vec!["127.0.0.1"]),
    ] {
        assert_eq!(copies[0].fields(name), values, "{name}: {}", copies[0].head);
    }
    let first = upstream.seen()[0].clone();
    assert_eq!((first.fields("x-internal-mirror").len(), first.fields("authorization").len()), (0, 1));
    let answered = "sluice_edge_mirrored_total{result=\"answered\",service=\"shadow\"}";
    eventually("both are counted", || (metric(&edge, answered) == "2").then_some(()));
    // What the copies came to is the mirror's alone.
    assert_eq!(edge.get("/services").json()["services"][0]["mirror"], "shadow");
    let breaker = edge.admin("GET", "/circuit-breakers/data", None, None).json();
    assert_eq!(breaker["state"], "closed");
}

#[test]
fn a_mirror_that_hangs_or_is_away_holds_nobody_up() {
    let upstream = Upstream::start(ok);
    let (hold, held) = mpsc::sync_channel::<()>(2);
    let held = Arc::new(Mutex::new(held));
    let shadow = Upstream::start(move |_, _| held.lock().unwrap().recv().is_ok());
    let edge = mirrored(&upstream, &shadow.url(), "");
    let token = edge.issuer.token("read");
    let started = Instant::now();
    for n in 0..80 {
        assert_eq!(edge.get_as(&format!("/api/data/{n}"), &token).status, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // No more than so many are under way.
    assert_eq!(metric(&edge, "sluice_edge_mirrored_total{result=\"dropped\",service=\"shadow\"}"), "16");
    eventually("the copies", || (shadow.seen().len() == 64).then_some(()));
    drop(hold);
    drop(edge);
    let edge = mirrored(&upstream, "http://127.0.0.1:1", "breaker = { failure_threshold = 1 }");
    let token = edge.issuer.token("read");
    let counted = |result: &str| {
        metric(&edge, &format!("sluice_edge_mirrored_total{{result=\"{result}\",service=\"shadow\"}}"))
    };
    assert_eq!(edge.get_as("/api/data/x", &token).status, 200);
    eventually("the copy failed", || (counted("failed") == "1").then_some(()));
    assert_eq!(edge.get_as("/api/data/x", &token).status, 200);
    assert_eq!(counted("dropped"), "1");
}

#[test]
fn a_mirror_may_speak_http2() {
    let upstream = Upstream::start(ok);
    let told = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&told);
    let shadow = H2::start(None, move |_, request, mut respond| {
        let well = request.uri().path() == "/x" && request.headers().contains_key("x-internal-mirror");
        heard.fetch_add(usize::from(well), Ordering::SeqCst);
        async move {
            if let Ok(mut body) = respond.send_response(http::Response::new(()), false) {
                drop(body.send_data(Bytes::from_static(b"shadow"), true));
            }
        }
    });
    let edge = mirrored(&upstream, &format!("h2c://{}", shadow.address), "");
    let token = edge.issuer.token("read");
    for _ in 0..2 {
        assert_eq!(edge.get_as("/api/data/x", &token).text(), "ok");
    }
    eventually("two copies", || (told.load(Ordering::SeqCst) == 2).then_some(()));
}
