//! gRPC through the edge: messages both ways while they come, trailers, deadlines, refusals as statuses.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};

use crate::h2_client::{Proper, Whole, drain, run, upload, whole};
use crate::harness::{Edge, Setup, Upstream, ok, service};
use crate::upstream_h2::H2;

fn trailers(status: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("x-checksum", "abc".parse().unwrap());
    trailers
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

/// Sends each message back as it comes; `/only` answers with a head alone, `/never` not at all.
async fn serve(_: usize, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    assert_eq!(request.headers().get("te").unwrap(), "trailers");
    match request.uri().path() {
        "/only" => {
            let mut only = head();
            only.headers_mut().insert("grpc-status", "5".parse().unwrap());
            drop(respond.send_response(only, true));
        }
        "/never" => {
            let _request = request;
            drop(std::future::poll_fn(|cx| respond.poll_reset(cx)).await);
        }
        _ => {
            let mut stream = respond.send_response(head(), false).unwrap();
            let mut body = request.into_body();
            while let Some(Ok(piece)) = body.data().await {
                let count = piece.len();
                let mut rest = piece;
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
                drop(body.flow_control().release_capacity(count));
            }
            drop(stream.send_trailers(trailers("0")));
        }
    }
}

fn call(client: &Proper, path: &str) -> http::request::Builder {
    client.request("POST", path).header("content-type", "application/grpc+proto").header("te", "trailers")
}

/// A call that is refused: the status is 200, there is no body, and the head has gRPC's status.
async fn refused(client: &mut Proper, request: http::request::Builder) -> (Whole, String) {
    let answer =
        client.fetch(request.body(()).unwrap(), Some(Bytes::from_static(b"\0\0\0\0\0"))).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{answer:?}");
    assert_eq!(answer.field("content-type"), "application/grpc");
    assert!(answer.trailers.is_none() && !answer.field("x-request-id").is_empty());
    let status = answer.field("grpc-status").to_owned();
    (answer, status)
}

#[test]
fn messages_flow_both_ways_past_the_total_and_end_with_trailers() {
    let upstream = H2::start(None, serve);
    let times =
        "timeouts = { connect = \"100ms\", first_byte = \"300ms\", total = \"400ms\", idle = \"5s\" }";
    let edge = upstream.edge(&format!("{times}\nbody_bytes = \"64MiB\""));
    run(async {
        let mut client = Proper::to(&edge).await;
        let begun = Instant::now();
        let (answer, mut stream) = client.begin(call(&client, "/api/both").body(()).unwrap()).await;
        let (parts, mut body) = answer.await.unwrap().into_parts();
        assert_eq!(
            (parts.status.as_u16(), &parts.headers["content-type"]),
            (200, &"application/grpc".parse().unwrap())
        );
        for number in 0..8 {
            let message = Bytes::from(format!("message {number}"));
            stream.send_data(message.clone(), false).unwrap();
            let back = body.data().await.unwrap().unwrap();
            assert_eq!(back, message, "each comes back before the next one goes");
            body.flow_control().release_capacity(back.len()).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(begun.elapsed() > Duration::from_millis(800), "twice the total");
        stream.send_data(Bytes::new(), true).unwrap();
        let (rest, ends) = drain(body).await.unwrap();
        let ends = ends.expect("trailers");
        assert!(rest.is_empty() && ends["grpc-status"] == "0" && ends["x-checksum"] == "abc", "{ends:?}");
    });
}

#[test]
fn a_slow_reader_slows_the_sender_down_and_nothing_is_lost() {
    let upstream = H2::start(None, serve);
    let edge = upstream.edge("body_bytes = \"64MiB\"");
    let all: Bytes = (0..6_000_000_u32).map(|at| (at % 251) as u8).collect();
    run(async {
        let mut client = Proper::to(&edge).await;
        let (answer, stream) = client.begin(call(&client, "/api/much").body(()).unwrap()).await;
        let sending = tokio::spawn(upload(stream, all.clone()));
        let body = answer.await.unwrap().into_body();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!sending.is_finished(), "nobody reads, so not all of it was taken");
        let (back, ends) = drain(body).await.unwrap();
        sending.await.unwrap().unwrap();
        assert!(back == all, "{} bytes", back.len());
        assert_eq!(ends.unwrap()["grpc-status"], "0");
    });
}

#[test]
fn an_answer_of_trailers_alone_stays_one() {
    let upstream = H2::start(None, serve);
    let edge = upstream.edge("");
    run(async {
        let mut client = Proper::to(&edge).await;
        let request = call(&client, "/api/only").body(()).unwrap();
        client.send = client.send.clone().ready().await.unwrap();
        let (answer, _) = client.send.send_request(request, true).unwrap();
        let (parts, body) = answer.await.unwrap().into_parts();
        assert_eq!(parts.headers["grpc-status"], "5");
        assert!(body.is_end_stream(), "no empty frame behind it");
    });
}

#[test]
fn small_messages_that_wait_are_no_flood() {
    let upstream = H2::start(None, serve);
    let edge = upstream.edge("timeouts = { first_byte = \"20s\", total = \"40s\", idle = \"30s\" }");
    run(async {
        let mut client = Proper::to(&edge).await;
        let (_answer, mut stream) = client.begin(call(&client, "/api/never").body(()).unwrap()).await;
        // The instance takes nothing, and its window is full before the small ones come: they wait at the edge.
        for (piece, count) in [(&[7_u8; 13_107][..], 5), (&[7_u8; 10][..], 4000)] {
            for _ in 0..count {
                stream.reserve_capacity(piece.len());
                while stream.capacity() < piece.len() {
                    std::future::poll_fn(|cx| stream.poll_capacity(cx))
                        .await
                        .expect("an open stream")
                        .unwrap();
                }
                stream.send_data(Bytes::from_static(piece), false).unwrap();
            }
        }
        assert_eq!(client.get("/nowhere").await.code(), "no_route", "the connection goes on");
    });
}

#[test]
fn the_callers_own_deadline_counts() {
    let upstream = H2::start(None, serve);
    let edge = upstream.edge("timeouts = { first_byte = \"10s\", total = \"15s\" }");
    run(async {
        let mut client = Proper::to(&edge).await;
        let begun = Instant::now();
        let request = call(&client, "/api/never").header("grpc-timeout", "250m");
        assert_eq!(refused(&mut client, request).await.1, "4");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        // Once the answer goes on, it still ends then.
        let request = call(&client, "/api/both").header("grpc-timeout", "300m").body(()).unwrap();
        let (answer, _open) = client.begin(request).await;
        let body = answer.await.unwrap().into_body();
        let ends = drain(body).await.unwrap().1.expect("trailers");
        assert_eq!(ends["grpc-status"], "4", "{ends:?}");
    });
}

#[test]
fn refusals_of_the_edge_are_statuses() {
    let upstream = Upstream::start(ok);
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let edge: Edge = Setup::new("")
        .service("dead", &service("dead", "/dead", &[format!("h2c://{dead}")], "auth_required = false"))
        .service(
            "closed",
            &service("closed", "/closed", &[upstream.url()], "permissions = { POST = [\"write\"] }"),
        )
        .service(
            "few",
            &service(
                "few",
                "/few",
                &[upstream.url()],
                "auth_required = false\nrate_limit = { requests = 1, per = \"60s\" }",
            ),
        )
        .start();
    let token = edge.issuer.token("read");
    run(async {
        let mut client = Proper::to(&edge).await;
        for (path, expected) in [("/nowhere", "12"), ("/dead", "14"), ("/closed", "16"), ("/dead/%zz", "3")] {
            let request = call(&client, path);
            let (answer, status) = refused(&mut client, request).await;
            assert_eq!(status, expected, "{path} {}", answer.field("grpc-message"));
        }
        let request = call(&client, "/closed").header("authorization", format!("Bearer {token}"));
        let (answer, status) = refused(&mut client, request).await;
        assert_eq!(status, "7");
        assert!(answer.field("grpc-message").starts_with("insufficient_scope: "), "{answer:?}");
        // One passes, to a server that knows no gRPC; its answer is left alone.
        let request = call(&client, "/few").body(()).unwrap();
        let (answer, mut stream) = client.begin(request).await;
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(whole(answer).await.unwrap().field("grpc-status"), "");
        let request = call(&client, "/few");
        assert_eq!(refused(&mut client, request).await.1, "8");
        // Other requests of the same connection keep their problems.
        assert_eq!(client.get("/nowhere").await.code(), "no_route");
    });
    // What goes out as 200 counts as what it is.
    let metrics = edge.get("/metrics").text();
    for counted in [
        r#"service="dead",status="502""#,
        r#"service="closed",status="403""#,
        r#"service="few",status="429""#,
    ] {
        assert!(
            metrics.contains(&format!("api_gateway_requests_total{{method=\"POST\",{counted}}} 1")),
            "{metrics}"
        );
    }
}
