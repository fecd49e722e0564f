//! Calls of gRPC to instances of HTTP/2, which go both ways at once.

mod ending;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use tokio::task::JoinSet;

use crate::h2_client::{Proper, drain, run, upload, whole};
use crate::harness::{Edge, Setup, Upstream, eventually, find, ok, service};
use crate::secure::{Authority, server};
use crate::upstream_h2::H2;

/// What an instance that amplifies answers to each byte.
const TIMES: usize = 20;
const ROOM: &str = "body_bytes = \"64MiB\"";

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn status(code: &str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())])
}

fn call(client: &Proper, path: &str) -> Request<()> {
    let request = client.request("POST", path).header("content-type", "application/grpc");
    request.header("te", "trailers").body(()).unwrap()
}

/// Sends each piece twenty times over and reads nothing meanwhile.
async fn amplify(_: usize, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut stream = respond.send_response(head(), false).unwrap();
    let mut body = request.into_body();
    while let Some(Ok(piece)) = body.data().await {
        for _ in 0..TIMES {
            let mut rest = piece.clone();
            while !rest.is_empty() {
                stream.reserve_capacity(rest.len());
                let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                    return;
                };
                let part = rest.split_to(room.min(rest.len()));
                if stream.send_data(part, false).is_err() {
                    return;
                }
            }
        }
        drop(body.flow_control().release_capacity(piece.len()));
    }
    let _gone = stream.send_trailers(status("0"));
}

/// Answers with the number of bytes it has read, then with trailers.
async fn count(_: usize, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut stream = respond.send_response(head(), false).unwrap();
    let (read, trailers) = drain(request.into_body()).await.unwrap();
    let mut ends = status("0");
    if let Some(trailers) = trailers {
        ends.extend(trailers);
    }
    let _gone = stream.send_data(read.len().to_string().into(), false);
    let _gone = stream.send_trailers(ends);
}

#[test]
fn an_instance_that_answers_twentyfold_and_reads_nothing_meanwhile_goes_on() {
    let upstream = H2::start(None, amplify);
    // A stall would last for as long as the test has.
    let edge = upstream.edge(&format!("{ROOM}\ntimeouts = {{ total = \"60s\", idle = \"60s\" }}"));
    for (messages, bytes, rounds) in [(30, 200_000, 2), (300, 2_000, 6)] {
        for round in 0..rounds {
            run(async {
                let mut client = Proper::to(&edge).await;
                let (answer, stream) = client.begin(call(&client, "/api/many")).await;
                let sending = tokio::spawn(upload(stream, vec![7; messages * bytes].into()));
                let mut body = answer.await.unwrap().into_body();
                let mut read = 0;
                while let Some(piece) = body.data().await {
                    let piece = piece.unwrap();
                    read += piece.len();
                    body.flow_control().release_capacity(piece.len()).unwrap();
                }
                assert_eq!(read, messages * bytes * TIMES, "round {round}");
                assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
                sending.await.unwrap().unwrap();
            });
        }
    }
}

#[test]
fn trailers_go_both_ways_and_say_nothing_that_only_the_edge_may() {
    let upstream = H2::start(None, count);
    let edge = upstream.edge("");
    run(async {
        let mut client = Proper::to(&edge).await;
        let (answer, mut stream) = client.begin(call(&client, "/api/x")).await;
        stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let fields = [("x-checksum", "abc"), ("x-user", "root"), ("authorization", "x"), ("host", "y")];
        let trailers = fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        stream.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
        let answer = whole(answer).await.unwrap();
        let ends = answer.trailers.unwrap();
        let names: HashSet<&str> = ends.keys().map(http::HeaderName::as_str).collect();
        assert_eq!((&answer.body[..], names), (&b"5"[..], HashSet::from(["grpc-status", "x-checksum"])));
    });
}

#[test]
fn a_reader_that_stands_still_stops_the_instance() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let upstream = H2::start(None, move |_, _, mut respond| {
        let counted = Arc::clone(&counted);
        async move {
            let mut stream = respond.send_response(head(), false).unwrap();
            let piece = Bytes::from(vec![7; 64 << 10]);
            loop {
                stream.reserve_capacity(piece.len());
                let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                    return;
                };
                let part = piece.slice(..room.min(piece.len()));
                counted.fetch_add(part.len(), Ordering::SeqCst);
                if stream.send_data(part, false).is_err() {
                    return;
                }
            }
        }
    });
    let edge = upstream.edge("");
    run(async {
        let mut client = Proper::to(&edge).await;
        let (answer, _stream) = client.begin(call(&client, "/api/endless")).await;
        let _unread = answer.await.unwrap().into_body();
        let (mut last, mut since) = (0, Instant::now());
        while since.elapsed() < Duration::from_millis(400) {
            let now = sent.load(Ordering::SeqCst);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The client's window, the edge's buffers, the window of the instance's stream, what it buffers itself.
        assert!((64 << 10..1536 << 10).contains(&last), "{last} bytes were taken of an answer nobody reads");
    });
}

#[test]
fn calls_share_a_connection_and_none_waits_for_another() {
    let upstream = H2::start(None, amplify);
    let text = service(
        "api",
        "/api",
        &[format!("h2c://{}", upstream.address)],
        &format!("auth_required = false\nhealth = {{ interval = \"24h\" }}\n{ROOM}"),
    );
    let edge = Setup::new("[edge]\nthreads = 1\n").service("api", &text).start();
    let connections = run(async {
        // Wide enough for the one that stands still: what shares its connection is not to wait for it.
        let mut wide = h2::client::Builder::new();
        wide.initial_connection_window_size(1 << 20);
        let mut client = Proper::with(&edge, &wide).await;
        let send = |message: usize| Bytes::from(vec![7_u8; message]);
        let first = client.fetch(call(&client, "/api/one"), Some(send(1))).await.unwrap();
        assert_eq!(first.body.len(), TIMES);
        let connections = upstream.connections();
        // One that nobody reads stands in the middle of the others.
        let (stuck, stream) = client.begin(call(&client, "/api/stuck")).await;
        let stuck_sends = tokio::spawn(upload(stream, send(60_000)));
        let mut calls = JoinSet::new();
        for number in 1..=60_usize {
            let (answer, stream) = client.begin(call(&client, "/api/more")).await;
            calls.spawn(async move {
                let (answer, sent) =
                    tokio::join!(whole(answer), upload(stream, vec![7; number * 500].into()));
                sent.unwrap();
                assert_eq!(answer.unwrap().body.len(), number * 500 * TIMES);
            });
        }
        while let Some(ended) = calls.join_next().await {
            ended.unwrap();
        }
        let (all, _) = drain(stuck.await.unwrap().into_body()).await.unwrap();
        assert_eq!(all.len(), 60_000 * TIMES);
        stuck_sends.await.unwrap().unwrap();
        connections
    });
    assert_eq!(upstream.connections(), connections, "all of them on the connection that stood");
}

#[test]
fn over_tls_the_instance_decides_what_it_speaks() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let ca = authority.write(dir.path(), "ours");
    let secure = |url: String| {
        let more = format!(
            "auth_required = false\ntls = {{ sni = \"backend\", ca = \"{}\" }}\n{ROOM}",
            ca.display()
        );
        Setup::new("").service("api", &service("api", "/api", &[url], &more)).start()
    };
    let upstream = H2::start(Some(server(&authority.sign("backend"), None, &[b"h2"])), amplify);
    let edge = secure(format!("https://{}", upstream.address));
    run(async {
        let mut client = Proper::to(&edge).await;
        let answer = client.fetch(call(&client, "/api/x"), Some(vec![7; 100_000].into())).await.unwrap();
        assert_eq!(answer.body.len(), 100_000 * TIMES);
    });
    // One that knows no HTTP/2 gets the call as every other request.
    let plain = Upstream::start_tls(server(&authority.sign("backend"), None, &[b"http/1.1"]), ok);
    let edge: Edge = secure(crate::secure::https(&plain));
    run(async {
        let mut client = Proper::to(&edge).await;
        for _ in 0..3 {
            let answer =
                client.fetch(call(&client, "/api/x"), Some(Bytes::from_static(b"hello"))).await.unwrap();
            assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]), "{answer:?}");
        }
    });
    assert_eq!(
        plain.seen().iter().filter(|seen| seen.whole && find(&seen.body, b"hello").is_some()).count(),
        3
    );
}

#[test]
fn a_call_is_told_of_as_every_request() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let upstream = H2::start(None, count);
    let text = service("api", "/api", &[format!("h2c://{}", upstream.address)], "auth_required = false");
    let edge =
        Setup::new(&format!("[log]\naccess = \"file:{}\"\n", file.display())).service("api", &text).start();
    run(async {
        let mut client = Proper::to(&edge).await;
        let answer = client.fetch(call(&client, "/api/x"), Some(Bytes::from_static(b"hello"))).await.unwrap();
        assert!(!answer.field("x-request-id").is_empty());
        assert_eq!(answer.field("x-content-type-options"), "nosniff");
    });
    let line = eventually("a line", || {
        let log = std::fs::read_to_string(&file).ok()?;
        log.lines().find(|line| line.contains("\"route\":\"api\"")).map(str::to_owned)
    });
    for part in [
        "\"decision\":\"forwarded\"",
        "\"status\":200",
        "\"bytes_in\":5",
        "\"bytes_out\":1",
        "\"attempts\":1",
        "\"protocol\":\"h2\"",
        &format!("\"upstream\":\"h2c://{}\"", upstream.address),
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let metrics = edge.get("/metrics").text();
    let counted = "api_gateway_requests_total{method=\"POST\",service=\"api\",status=\"200\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}
