//! Requests over HTTP/2: what clients get, and what upstreams of HTTP/1 see of it.

use std::io::Write as _;
use std::sync::{Mutex, mpsc};

use h2::Reason;

use crate::h2_client::{
    END_HEADERS, END_STREAM, HEADERS, Proper, RESET, Raw, block, drain, frame, request, run,
};
use crate::harness::{Setup, Upstream, edge_for, eventually, ok, reply};

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
fn a_client_that_resets_before_the_edge_answers_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access");
    let edge = Setup::new(&format!("[log]\naccess = \"file:{}\"\n", log.display())).start();
    let mut raw = Raw::to(&edge);
    let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&request("GET", "/livez?early")));
    let both = [head, frame(RESET, 0, 1, &[0, 0, 0, 8])].concat();
    raw.socket.write_all(&both).unwrap();
    let line = eventually("the line", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().find(|line| line.contains("\"h2\"")).map(str::to_owned)
    });
    assert!(line.contains(r#""decision":"client_left""#), "{line}");
}
