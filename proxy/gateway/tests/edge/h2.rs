//! Requests over HTTP/2: what clients get, and what upstreams of HTTP/1 see of it.

use std::sync::{Mutex, mpsc};

use bytes::Bytes;
use h2::Reason;

use crate::h2_client::{DATA, HEADERS, Proper, RESET, Raw, SETTINGS, drain, request, run, whole};
use crate::harness::{Seen, Setup, Upstream, Wire, edge_for, eventually, find, ok, reply, service};

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
fn requests_and_answers_pass_as_over_http1() {
    let upstream = Upstream::start(|_, wire| {
        let head = "HTTP/1.1 200 OK\r\nServer: x\r\nX-Internal-Y: z\r\nKeep-Alive: 5\r\nX-A: b\r\n";
        wire.write_all(format!("{head}Content-Length: 2\r\n\r\nok").as_bytes()).is_ok()
    });
    let edge = edge_for(&upstream, "");
    run(async {
        let mut client = Proper::to(&edge).await;
        let request = client
            .request("GET", "/api//a/../b?q=1")
            .header("x-user", "root")
            .header("cookie", "a=b")
            .header("cookie", "c=d")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let answer = client.fetch(request, None).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        assert_eq!((answer.field("x-a"), answer.field("server"), answer.field("keep-alive")), ("b", "", ""));
        assert!(!answer.field("x-request-id").is_empty() && !answer.field("date").is_empty());
        assert_eq!(client.get("/nowhere").await.code(), "no_route");
    });
    let seen = upstream.only();
    assert_eq!(seen.line(), "GET /b?q=1 HTTP/1.1");
    assert_eq!(seen.fields("host"), [upstream.address.unwrap().to_string()]);
    assert_eq!(seen.fields("cookie"), ["a=b; c=d"]);
    assert_eq!(seen.fields("x-forwarded-host"), [edge.http.to_string()]);
    for name in ["x-user", "te", "transfer-encoding", "connection", ":authority", "content-length"] {
        assert!(seen.fields(name).is_empty(), "{name}: {}", seen.head);
    }
}

#[test]
fn answers_without_body_have_none() {
    let upstream = Upstream::start(|seen, wire| {
        let answer = match seen.line().split(' ').nth(1) {
            Some("/none") => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            Some("/same") => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".to_owned(),
            _ if seen.line().starts_with("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_owned(),
            _ => reply("200 OK", ""),
        };
        wire.write_all(answer.as_bytes()).is_ok()
    });
    let edge = edge_for(&upstream, "");
    run(async {
        let mut client = Proper::to(&edge).await;
        for (method, path, status) in [
            ("GET", "/api/none", 204),
            ("GET", "/api/same", 304),
            ("HEAD", "/api/head", 200),
            ("HEAD", "/nowhere", 404),
            ("POST", "/api/post", 200),
        ] {
            let request = client.request(method, path).body(()).unwrap();
            let answer = client.fetch(request, None).await.unwrap();
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{method} {path}");
        }
    });
    let post = upstream.seen().pop().unwrap();
    assert_eq!(post.fields("content-length"), ["0"], "a method with a body says that it has none");
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
fn a_client_that_resets_its_stream_ends_the_upstream_request() {
    let (gone, left) = mpsc::sync_channel(1);
    let gone = Mutex::new(gone);
    let upstream = Upstream::start(move |seen, wire| {
        if seen.line().contains("/slow") {
            // Nothing more comes but the end of the connection.
            let ended = matches!(wire.read(&mut [0; 64]), Ok(0) | Err(_));
            gone.lock().unwrap().send(ended).unwrap();
            return false;
        }
        ok(seen, wire)
    });
    let edge = edge_for(&upstream, "");
    run(async {
        let mut client = Proper::to(&edge).await;
        let get = client.request("GET", "/api/slow").body(()).unwrap();
        client.send = client.send.clone().ready().await.unwrap();
        let (answer, mut stream) = client.send.send_request(get, true).unwrap();
        tokio::task::spawn_blocking({
            let seen = move || (!upstream.seen().is_empty()).then_some(());
            move || eventually("it runs", seen)
        })
        .await
        .unwrap();
        stream.send_reset(Reason::CANCEL);
        assert!(answer.await.is_err());
        let ended = tokio::task::spawn_blocking(move || left.recv_timeout(crate::harness::PATIENCE));
        assert_eq!(ended.await.unwrap(), Ok(true), "the upstream's connection ends");
        assert_eq!(client.get("/api/next").await.status, 200, "the others go on");
    });
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
fn an_answer_that_breaks_off_is_reset_not_ended() {
    let upstream = Upstream::start(|_, wire| {
        drop(wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"));
        false
    });
    let edge = edge_for(&upstream, "");
    run(async {
        let mut client = Proper::to(&edge).await;
        let get = client.request("GET", "/api").body(()).unwrap();
        let error = client.fetch(get, None).await.unwrap_err();
        assert!(error.is_reset(), "{error}");
    });
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
fn events_flow_and_interim_answers_pass() {
    let (send, events) = mpsc::sync_channel::<String>(8);
    let events = Mutex::new(events);
    let upstream = Upstream::start(move |_, wire| {
        drop(wire.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        drop(wire.write_all(head.as_bytes()));
        let events = events.lock().unwrap();
        while let Ok(event) = events.recv() {
            drop(wire.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()));
        }
        drop(wire.write_all(b"0\r\n\r\n"));
        false
    });
    let edge = edge_for(
        &upstream,
        "timeouts = { connect = \"100ms\", first_byte = \"200ms\", total = \"300ms\", idle = \"5s\" }",
    );
    run(async {
        let mut client = Proper::to(&edge).await;
        let get = client.request("GET", "/api").body(()).unwrap();
        client.send = client.send.clone().ready().await.unwrap();
        let (mut answer, _) = client.send.send_request(get, true).unwrap();
        let hint = std::future::poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((hint.status().as_u16(), hint.headers()["link"].as_bytes()), (103, &b"</a>"[..]));
        let mut body = answer.await.unwrap().into_body();
        for number in 0..5 {
            let event = format!("data: {number}\n\n");
            send.send(event.clone()).unwrap();
            let piece = body.data().await.unwrap().unwrap();
            assert_eq!(piece, event, "each is here before the next one is sent");
            body.flow_control().release_capacity(piece.len()).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        drop(send);
        assert!(drain(body).await.unwrap().0.is_empty());
    });
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
fn draining_says_goodbye_and_finishes_what_runs() {
    let (release, gate) = mpsc::sync_channel::<()>(1);
    let gate = Mutex::new(gate);
    let upstream = Upstream::start(move |seen, wire| {
        if seen.line().contains("/slow") {
            let _released = gate.lock().unwrap().recv();
        }
        ok(seen, wire)
    });
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let conf = "[drain]\nlame_duck = \"1500ms\"\ndeadline = \"10s\"\n";
    let mut edge = Setup::new(conf).service("api", &text).start();
    run(async {
        let mut busy = Proper::to(&edge).await;
        let mut idle = Proper::to(&edge).await;
        let fresh = Proper::to(&edge).await;
        assert_eq!(idle.get("/api").await.status, 200);
        let slow = busy.request("GET", "/api/slow").body(()).unwrap();
        busy.send = busy.send.clone().ready().await.unwrap();
        let (slow, _) = busy.send.send_request(slow, true).unwrap();
        let slow = tokio::spawn(whole(slow));
        while upstream.seen().len() < 2 {
            tokio::task::yield_now().await;
        }
        edge.begin_drain();
        // An idle connection ends by itself, in good order.
        idle.task.await.unwrap().unwrap();
        // One that was never used serves its first request, and ends.
        let mut fresh = fresh;
        assert_eq!(fresh.get("/api").await.status, 200);
        fresh.task.await.unwrap().unwrap();
        release.send(()).unwrap();
        assert_eq!(slow.await.unwrap().unwrap().status, 200, "what runs is finished");
        busy.task.await.unwrap().unwrap();
    });
    edge.join();
}

#[test]
fn a_stream_without_end_is_ended_at_the_drain_and_told_when_to_come_back() {
    let upstream = Upstream::start(|_, wire| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let event = "9\r\ndata: 1\n\n\r\n";
        drop(wire.write_all(format!("{head}{event}").as_bytes()));
        matches!(wire.read(&mut [0; 1]), Ok(1..))
    });
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let conf = "[drain]\nlame_duck = \"50ms\"\ndeadline = \"10s\"\n";
    let mut edge = Setup::new(conf).service("api", &text).start();
    run(async {
        let mut client = Proper::to(&edge).await;
        let get = client.request("GET", "/api").body(()).unwrap();
        client.send = client.send.clone().ready().await.unwrap();
        let (answer, _) = client.send.send_request(get, true).unwrap();
        let body = answer.await.unwrap().into_body();
        edge.begin_drain();
        let text = String::from_utf8(drain(body).await.unwrap().0.to_vec()).unwrap();
        assert!(text.starts_with("data: 1\n\nretry: "), "{text}");
        client.task.await.unwrap().unwrap();
    });
    edge.join();
}

#[test]
fn a_caller_far_above_its_limit_loses_its_connection() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "rate_limit = { requests = 1, per = \"60s\", hard = 3 }");
    run(async {
        let mut client = Proper::to(&edge).await;
        assert_eq!(client.get("/api").await.status, 200);
        for _ in 0..2 {
            assert_eq!(client.get("/api").await.code(), "rate_limited");
        }
        assert_eq!(client.get("/api").await.status, 429, "still answered");
        client.task.await.unwrap().unwrap();
    });
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn silence_ends_a_connection_before_and_after_its_greeting() {
    let upstream = Upstream::start(ok);
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let limits = "[edge]\nthreads = 1\n[edge.limits]\nheader_timeout = \"300ms\"\nidle_timeout = \"500ms\"\n";
    let edge = Setup::new(limits).service("api", &text).start();
    let mut idle = Raw::to(&edge);
    idle.get(1, "/api").flush();
    assert_eq!(idle.outcome(1), Some(200));
    assert_eq!(idle.goodbye(), Some(0));
    assert!(idle.is_closed());
    // A greeting without settings, and a header block without an end.
    let mut silent = edge.connect();
    silent.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    silent.read_until("never");
    assert!(silent.is_closed());
    let mut half = Raw::to(&edge);
    half.frame(HEADERS, 0, 1, &[0x82]).flush();
    assert!(half.is_closed());
    assert_eq!(upstream.seen().len(), 1);
    let mut other = Raw::greeting(edge.http, &[]);
    other.frame(SETTINGS, 0, 0, b"").get(1, "/api").flush();
    assert_eq!(other.outcome(1), Some(200));
}
