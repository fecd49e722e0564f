//! Bodies over HTTP/2: lengths, ends and deadlines, and what upstreams of HTTP/1 see of them.

use bytes::Bytes;

use crate::h2_client::{DATA, HEADERS, Proper, RESET, Raw, request, run, whole};
use crate::harness::{Seen, Setup, Upstream, Wire, edge_for, find, ok, service};

/// Answers with the body that came.
fn echo(seen: &Seen, wire: &mut dyn Wire) -> bool {
    let body = unchunk(seen);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    wire.write_all(head.as_bytes()).is_ok() && wire.write_all(&body).is_ok()
}

/// The body of a request, whatever its framing.
fn unchunk(seen: &Seen) -> Vec<u8> {
    if seen.fields("transfer-encoding").is_empty() {
        return seen.body.clone();
    }
    let (mut rest, mut body) = (&seen.body[..], Vec::new());
    loop {
        let line = find(rest, b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            assert_eq!(&rest[line..], b"\r\n\r\n", "the end, once");
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
}

fn letters(count: usize, from: usize) -> Bytes {
    (from..from + count).map(|at| b'a' + (at % 23) as u8).collect()
}

#[test]
fn bodies_pass_whole_both_ways_and_end_once() {
    let upstream = Upstream::start(echo);
    let edge = edge_for(&upstream, "body_bytes = \"32MiB\"\ntimeouts = { total = \"30s\" }");
    let body = letters(20_000_000, 0);
    run(async {
        let mut client = Proper::to(&edge).await;
        // Each body ends with a frame of its own, without data.
        for (sent, told) in
            [(body.slice(..5), false), (body.slice(..5), true), (body.clone(), false), (body.clone(), true)]
        {
            let mut post = client.request("POST", "/api/body");
            if told {
                post = post.header("content-length", sent.len());
            }
            let answer = client.fetch(post.body(()).unwrap(), Some(sent.clone())).await.unwrap();
            assert!(answer.status == 200 && answer.body == sent, "{} {}", answer.status, answer.body.len());
        }
    });
    let seen = upstream.seen();
    assert_eq!(seen[0].body, b"5\r\nabcde\r\n0\r\n\r\n", "the end is sent once");
    assert_eq!((&seen[1].body[..], seen[1].fields("content-length")), (&b"abcde"[..], vec!["5"]));
    assert!(seen[1].fields("transfer-encoding").is_empty());
    assert_eq!(seen.len(), 4, "nothing came between them");
}

#[test]
fn a_hundred_streams_at_once_are_kept_apart() {
    let upstream = Upstream::start(echo);
    let edge = edge_for(&upstream, "body_bytes = \"1MiB\"");
    run(async {
        let client = Proper::to(&edge).await;
        let streams = (0..100_usize).map(|number| {
            let (mut send, post) = (client.send.clone(), client.request("POST", &format!("/api/{number}")));
            async move {
                let body = letters(number * 997, number);
                send = send.ready().await.unwrap();
                let (answer, stream) = send.send_request(post.body(()).unwrap(), false).unwrap();
                let (sent, answer) =
                    tokio::join!(crate::h2_client::upload(stream, body.clone()), whole(answer));
                sent.unwrap();
                let answer = answer.unwrap();
                assert!(answer.status == 200 && answer.body == body, "{number}: {}", answer.status);
            }
        });
        futures_util::future::join_all(streams).await;
    });
    assert_eq!(upstream.seen().len(), 100);
}

#[test]
fn an_early_answer_stops_the_body_without_an_error() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "body_bytes = \"1KiB\"");
    let mut raw = Raw::to(&edge);
    raw.head(1, 0, &request("POST", "/api")).frame(DATA, 0, 1, &[b'x'; 1_025]).flush();
    assert_eq!(raw.outcome(1), Some(413));
    let reset = raw.until(|got| got.kind == RESET).unwrap();
    assert_eq!((reset.stream, reset.word(0)), (1, 0), "NO_ERROR: the answer counts");
    raw.get(3, "/api").flush();
    assert_eq!(raw.outcome(3), Some(200));
    let seen = upstream.seen();
    assert!(seen.iter().all(|seen| !seen.whole || seen.line().starts_with("GET")), "{seen:?}");
}

#[test]
fn a_body_of_another_length_than_told_is_never_whole_upstream() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let mut raw = Raw::to(&edge);
    let told = [request("POST", "/api"), vec![("content-length", "5")]].concat();
    raw.head(1, 0, &told).frame(DATA, 0, 1, b"hello").frame(DATA, 1, 1, b"!").flush();
    raw.head(3, 0, &told).frame(DATA, 0, 3, b"hello!").flush();
    raw.head(5, 0, &told).frame(DATA, 1, 5, b"hell").flush();
    raw.head(7, 0, &told).frame(DATA, 0, 7, b"hell").flush();
    raw.frame(RESET, 0, 7, &[0, 0, 0, 8]).flush();
    for stream in [1, 3, 5] {
        let got = raw.until(|got| got.stream == stream && got.kind == RESET).unwrap();
        assert_eq!(got.word(0), 1, "PROTOCOL_ERROR");
    }
    // Held back until it was known to be whole, and then whole.
    raw.head(9, 0, &told).frame(DATA, 0, 9, b"hello").frame(DATA, 1, 9, b"").flush();
    assert_eq!(raw.outcome(9), Some(200));
    let whole: Vec<_> = upstream.seen().into_iter().filter(|seen| seen.whole).collect();
    assert_eq!(whole.len(), 1, "{whole:?}");
    assert_eq!(whole[0].body, b"hello");
}

#[test]
fn deadlines_hold_and_small_bodies_are_sent_again() {
    let slow = Upstream::start(|seen, wire| {
        if seen.line().contains("/never") {
            return matches!(wire.read(&mut [0; 1]), Ok(1..));
        }
        ok(seen, wire)
    });
    let breaks = Upstream::start(|_, _| false);
    let times = "timeouts = { connect = \"100ms\", first_byte = \"200ms\", total = \"600ms\" }";
    let slow_text = service("slow", "/slow", &[slow.url()], &format!("auth_required = false\n{times}"));
    let again = service(
        "again",
        "/again",
        &[breaks.url(), slow.url()],
        "auth_required = false\nretry = { attempts = 3, budget = 1.0, on = [\"reset\"] }",
    );
    let edge = Setup::new("").service("slow", &slow_text).service("again", &again).start();
    run(async {
        let mut client = Proper::to(&edge).await;
        let answer = client.get("/slow/never").await;
        assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"));
        let post = client.request("POST", "/slow/x").header("content-length", 5).body(()).unwrap();
        let (answer, _open) = client.begin(post).await;
        let answer = whole(answer).await.unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
        for _ in 0..2 {
            // Only what is safe is sent twice; its body goes with it.
            let get = client.request("GET", "/again/x").body(()).unwrap();
            let answer = client.fetch(get, Some(Bytes::from_static(b"hello"))).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    });
    assert!(!breaks.seen().is_empty(), "the one that breaks was tried");
    let last = slow.seen().pop().unwrap();
    assert_eq!(unchunk(&last), b"hello");
}

#[test]
fn a_client_that_asks_first_gets_its_100() {
    let upstream = Upstream::start(echo);
    let edge = edge_for(&upstream, "");
    let mut raw = Raw::to(&edge);
    raw.head(1, 0, &[request("POST", "/api"), vec![("expect", "100-continue")]].concat()).flush();
    let interim = raw.until(|got| got.kind == HEADERS).unwrap();
    assert_eq!((interim.stream, interim.flags & 1), (1, 0));
    raw.frame(DATA, 1, 1, b"hello").flush();
    assert_eq!(raw.outcome(1), Some(200));
}

#[test]
fn a_body_told_to_be_empty_reaches_the_upstream_only_when_it_is() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let told = [request("POST", "/api"), vec![("content-length", "0")]].concat();
    let mut raw = Raw::to(&edge);
    raw.head(1, 0, &told).frame(DATA, 1, 1, b"hello").flush();
    let reset = raw.until(|got| got.stream == 1 && got.kind == RESET).unwrap();
    assert_eq!(reset.word(0), 1, "PROTOCOL_ERROR");
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    // Its end may come in a frame of its own.
    raw.head(3, 0, &told).flush();
    raw.frame(DATA, 1, 3, b"").flush();
    assert_eq!(raw.outcome(3), Some(200));
    let seen = upstream.only();
    assert_eq!((seen.fields("content-length"), seen.body.len(), seen.whole), (vec!["0"], 0, true));
}

/// Answers by the path: without a body, with an interim head, in chunks, broken off, or until the connection ends.
fn by_path(seen: &Seen, wire: &mut dyn Wire) -> bool {
    let (answer, stays): (&[u8], bool) = match seen.line().split(' ').nth(1).unwrap_or_default() {
        "/none" => {
            (b"HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n", true)
        }
        "/empty" => (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        "/old" => (b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n", true),
        "/early" => (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            true,
        ),
        "/chunks" => {
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", true)
        }
        "/short" => (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", false),
        "/torn" => (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", false),
        "/open" => (b"HTTP/1.1 200 OK\r\n\r\nto the end", false),
        _ => (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Two: a\r\nX-Two: b\r\n\r\nwhole", true),
    };
    wire.write_all(answer).is_ok() && stays
}

#[test]
fn answers_end_where_their_heads_say_and_no_part_passes_for_the_whole() {
    let upstream = Upstream::start(by_path);
    let edge = edge_for(&upstream, "");
    run(async {
        let mut client = Proper::to(&edge).await;
        for (path, status, body) in [
            ("/api/none", 204, ""),
            ("/api/empty", 200, ""),
            ("/api/old", 304, ""),
            ("/api/early", 200, "ok"),
            ("/api/chunks", 200, "abcde"),
            ("/api/open", 200, "to the end"),
            ("/api/plain", 200, "whole"),
        ] {
            let answer = client.get(path).await;
            assert_eq!((answer.status, answer.text().as_str()), (status, body), "{path}");
            for field in ["connection", "keep-alive", "transfer-encoding"] {
                assert!(!answer.headers.contains_key(field), "{path}: {field}");
            }
            assert_eq!(answer.headers.get_all("date").iter().count(), 1, "{path}");
        }
        let answer = client.get("/api/plain").await;
        assert_eq!(answer.headers.get_all("x-two").iter().count(), 2);
        assert_eq!(answer.field("content-length"), "5");
        let head = client.request("HEAD", "/api/plain").body(()).unwrap();
        let answer = client.fetch(head, None).await.unwrap();
        assert_eq!((answer.status, answer.field("content-length"), answer.body.len()), (200, "5", 0));
        for path in ["/api/short", "/api/torn"] {
            let request = client.request("GET", path).body(()).unwrap();
            let broken = client.fetch(request, None).await.unwrap_err();
            assert!(broken.is_reset(), "{path}: {broken}");
        }
        assert_eq!(client.get("/api/plain").await.status, 200, "its connection goes on");
    });
}
