//! How calls end: by their clients, their instances, time, and the drain; and what is tried elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;
use tokio::task::JoinSet;

use super::{ROOM, amplify, call, count, head};
use crate::h2_client::{Proper, drain, run, upload, whole};
use crate::harness::{Setup, Upstream, edge_for, eventually, service};
use crate::upstream_h2::H2;

#[test]
fn who_leaves_is_gone_for_the_instance_too() {
    let (gone, held) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (seen, begun) = (Arc::clone(&gone), Arc::clone(&held));
    let upstream = H2::start(None, move |_, request, mut respond| {
        let (seen, begun) = (Arc::clone(&seen), Arc::clone(&begun));
        async move {
            let answers = request.uri().path() == "/open";
            let stream = answers.then(|| respond.send_response(head(), false).unwrap());
            begun.fetch_add(1, Ordering::SeqCst);
            let reset = match stream {
                Some(mut stream) => std::future::poll_fn(|cx| stream.poll_reset(cx)).await,
                None => std::future::poll_fn(|cx| respond.poll_reset(cx)).await,
            };
            seen.store(reset.is_ok_and(|reason| reason == Reason::CANCEL), Ordering::SeqCst);
        }
    });
    let edge = upstream.edge("");
    for (number, path) in ["/api/silent", "/api/open"].into_iter().enumerate() {
        run(async {
            let mut client = Proper::to(&edge).await;
            let (answer, mut stream) = client.begin(call(&client, path)).await;
            let until = Instant::now() + Duration::from_secs(10);
            while held.load(Ordering::SeqCst) <= number && Instant::now() < until {
                tokio::task::yield_now().await;
            }
            stream.send_reset(Reason::CANCEL);
            drop(answer);
            while !gone.swap(false, Ordering::SeqCst) {
                assert!(Instant::now() < until, "{path}: the instance never heard of it");
                tokio::task::yield_now().await;
            }
        });
    }
}

#[test]
fn an_instance_that_breaks_off_is_heard_as_it_said() {
    let upstream = H2::start(None, |_, request, mut respond| async move {
        if request.uri().path() == "/early" {
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
        let mut stream = respond.send_response(head(), false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        let (_read, _) = drain(request.into_body()).await.unwrap();
        stream.send_reset(Reason::ENHANCE_YOUR_CALM);
    });
    let edge = upstream.edge("retry = { attempts = 3 }");
    run(async {
        let mut client = Proper::to(&edge).await;
        let early = client.fetch(call(&client, "/api/early"), Some(Bytes::from_static(b"x"))).await.unwrap();
        assert_eq!((early.status, early.field("grpc-status")), (200, "14"), "unavailable: {early:?}");
        let (answer, mut stream) = client.begin(call(&client, "/api/late")).await;
        let body = answer.await.unwrap().into_body();
        stream.send_data(Bytes::new(), true).unwrap();
        let broken = drain(body).await.unwrap_err();
        assert_eq!(broken.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{broken}");
    });
    assert_eq!(upstream.requests(), 2, "neither may be done twice");
}

#[test]
fn a_call_that_was_not_processed_goes_elsewhere_with_all_it_has_sent() {
    let upstream = H2::start(None, |n, request, mut respond| async move {
        if n > 0 {
            return count(n, request, respond).await;
        }
        // It refuses after it has read a part.
        let mut body = request.into_body();
        let piece = body.data().await.unwrap().unwrap();
        assert!(!piece.is_empty());
        respond.send_reset(Reason::REFUSED_STREAM);
    });
    let edge = upstream.edge("");
    run(async {
        let mut client = Proper::to(&edge).await;
        let (answer, mut stream) = client.begin(call(&client, "/api/x")).await;
        stream.send_data(Bytes::from_static(b"first "), false).unwrap();
        let late = async {
            while upstream.requests() < 2 {
                tokio::task::yield_now().await;
            }
            stream.send_data(Bytes::from_static(b"second"), true).unwrap();
        };
        let (answer, ()) = tokio::join!(whole(answer), late);
        let answer = answer.unwrap();
        assert_eq!(
            (&answer.body[..], &answer.trailers.unwrap()["grpc-status"]),
            (&b"12"[..], &"0".parse().unwrap())
        );
    });
    assert_eq!(upstream.requests(), 2);
    // Every instance refuses: the client is told that it may come back.
    let upstream =
        H2::start(None, |_, _, mut respond| async move { respond.send_reset(Reason::REFUSED_STREAM) });
    let edge = upstream.edge("retry = { attempts = 1 }");
    run(async {
        let mut client = Proper::to(&edge).await;
        let answer = client.fetch(call(&client, "/api/x"), Some(Bytes::from_static(b"x"))).await.unwrap();
        assert_eq!(answer.field("grpc-status"), "14");
    });
}

#[test]
fn an_instance_that_is_gone_is_passed_over_and_one_that_leaves_is_left() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let upstream = H2::start(None, count);
    let urls = [format!("h2c://{dead}"), format!("h2c://{}", upstream.address)];
    let text = service("api", "/api", &urls, "auth_required = false\nbalance = \"round_robin\"");
    let edge = Setup::new("").service("api", &text).start();
    run(async {
        let mut client = Proper::to(&edge).await;
        for _ in 0..4 {
            let answer =
                client.fetch(call(&client, "/api/x"), Some(Bytes::from_static(b"abc"))).await.unwrap();
            assert_eq!((&answer.body[..], answer.trailers.is_some()), (&b"3"[..], true), "{answer:?}");
        }
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handover = std::thread::spawn(move || {
        crate::upstream_h2::leave(&listener);
        H2::on(listener, None, count)
    });
    let more = "auth_required = false\nhealth = { interval = \"24h\" }";
    let text = service("api", "/api", &[format!("h2c://{address}")], more);
    let edge = Setup::new("").service("api", &text).start();
    run(async {
        let mut client = Proper::to(&edge).await;
        let answer = client.fetch(call(&client, "/api/x"), Some(Bytes::from_static(b"abcd"))).await.unwrap();
        assert_eq!(&answer.body[..], b"4", "{answer:?}");
    });
    assert_eq!(handover.join().unwrap().requests(), 1);
}

#[test]
fn the_time_that_a_caller_gives_ends_a_call_in_any_direction() {
    let upstream = H2::start(None, amplify);
    let edge = upstream.edge(ROOM);
    run(async {
        let mut client = Proper::to(&edge).await;
        let begun = Instant::now();
        let mut request = call(&client, "/api/x");
        request.headers_mut().insert("grpc-timeout", "400m".parse().unwrap());
        let (answer, stream) = client.begin(request).await;
        let sending = tokio::spawn(upload(stream, vec![7; 4_000_000].into()));
        let body = answer.await.unwrap().into_body();
        // Nobody reads, so neither direction moves.
        drop(sending.await.unwrap());
        let cut = drain(body).await.unwrap_err();
        assert_eq!(cut.reason(), Some(Reason::CANCEL), "half a message waits, so no trailers: {cut}");
        assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    });
}

/// A message of one byte.
const MESSAGE: &[u8] = b"\0\0\0\0\x01x";

/// Sends a head and a message, then nothing for as long as it may: where asked, until it cancels at the deadline
/// it was told.
async fn stall(_: usize, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut stream = respond.send_response(head(), false).unwrap();
    stream.send_data(Bytes::from_static(MESSAGE), false).unwrap();
    let gone = std::future::poll_fn(|cx| stream.poll_reset(cx));
    if request.uri().path() != "/cancels" {
        return drop(gone.await);
    }
    let told = request.headers()["grpc-timeout"].to_str().unwrap().strip_suffix('m').unwrap();
    drop(tokio::time::timeout(Duration::from_millis(told.parse().unwrap()), gone).await);
    stream.send_reset(Reason::CANCEL);
}

#[test]
fn a_call_at_its_deadline_ends_with_the_status_for_that() {
    let upstream = H2::start(None, stall);
    let edge = upstream.edge("");
    run(async {
        let mut client = Proper::to(&edge).await;
        let mut calls = JoinSet::new();
        for number in 0..24_u64 {
            let path = if number % 3 == 0 { "/api/cancels" } else { "/api/x" };
            let mut request = call(&client, path);
            let timeout = format!("{}m", 200 + number * 7);
            request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
            // With the client's side open, and with it ended.
            let (answer, mut stream) = client.begin(request).await;
            stream.send_data(Bytes::from_static(MESSAGE), number % 2 == 0).unwrap();
            calls.spawn(async move {
                let whole = whole(answer).await;
                drop(stream);
                (number, whole)
            });
        }
        while let Some(ended) = calls.join_next().await {
            let (number, whole) = ended.unwrap();
            let whole = whole.unwrap_or_else(|error| panic!("{number}: {error}"));
            let ends = whole.trailers.unwrap_or_else(|| panic!("{number}: no trailers"));
            assert!(whole.body == MESSAGE && ends["grpc-status"] == "4", "{number}: {ends:?}");
            assert!(ends["grpc-message"].to_str().unwrap().starts_with("upstream_timeout"), "{ends:?}");
        }
    });
}

#[test]
fn a_call_by_the_general_way_ends_at_its_deadline_alike() {
    let upstream = Upstream::start(|_, wire| {
        let begin = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n";
        drop(wire.write_all(format!("{begin}6\r\n\0\0\0\0\x01x\r\n").as_bytes()));
        matches!(wire.read(&mut [0; 64]), Ok(1..))
    });
    let edge = edge_for(&upstream, "");
    run(async {
        let mut client = Proper::to(&edge).await;
        let mut request = call(&client, "/api/x");
        request.headers_mut().insert("grpc-timeout", "300m".parse().unwrap());
        let whole = client.fetch(request, Some(Bytes::from_static(MESSAGE))).await.unwrap();
        assert!(whole.body == MESSAGE, "{whole:?}");
        assert_eq!(whole.trailers.expect("trailers")["grpc-status"], "4");
    });
}

#[test]
fn more_than_the_service_takes_ends_the_call() {
    let upstream = H2::start(None, |_, request, _respond| async move {
        let _held = drain(request.into_body()).await;
    });
    let edge = upstream.edge("body_bytes = \"64KiB\"");
    run(async {
        let mut client = Proper::to(&edge).await;
        let (answer, stream) = client.begin(call(&client, "/api/x")).await;
        let sending = tokio::spawn(upload(stream, vec![7; 200_000].into()));
        let answer = whole(answer).await.unwrap();
        assert_eq!((answer.status, answer.field("grpc-status")), (200, "8"), "{answer:?}");
        assert!(answer.field("grpc-message").starts_with("body_too_large"));
        drop(sending.await.unwrap());
    });
    let metrics = edge.get("/metrics").text();
    let counted = "api_gateway_requests_total{method=\"POST\",service=\"api\",status=\"413\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn a_drain_lets_calls_end_and_cuts_off_those_that_do_not() {
    let cut = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&cut);
    let upstream = H2::start(None, move |n, request, mut respond| {
        let seen = Arc::clone(&seen);
        async move {
            if request.uri().path() != "/open" {
                return count(n, request, respond).await;
            }
            let mut stream = respond.send_response(head(), false).unwrap();
            drop(std::future::poll_fn(|cx| stream.poll_reset(cx)).await);
            seen.store(true, Ordering::SeqCst);
        }
    });
    let text = service("api", "/api", &[format!("h2c://{}", upstream.address)], "auth_required = false");
    let conf = "[drain]\nlame_duck = \"50ms\"\ndeadline = \"1500ms\"\n";
    let mut edge = Setup::new(conf).service("api", &text).start();
    run(async {
        let mut client = Proper::to(&edge).await;
        let (open, _open) = client.begin(call(&client, "/api/open")).await;
        let open = open.await.unwrap().into_body();
        let (answer, mut stream) = client.begin(call(&client, "/api/x")).await;
        let answer = answer.await.unwrap();
        edge.begin_drain();
        eventually("the drain has begun", || std::net::TcpStream::connect(edge.http).is_err().then_some(()));
        stream.send_data(Bytes::from_static(b"last words"), true).unwrap();
        let (all, ends) = drain(answer.into_body()).await.unwrap();
        assert_eq!((&all[..], &ends.unwrap()["grpc-status"]), (&b"10"[..], &"0".parse().unwrap()));
        assert!(!cut.load(Ordering::SeqCst), "the other one has its time");
        assert!(drain(open).await.is_err());
    });
    edge.join();
    eventually("the instance heard of the end", || cut.load(Ordering::SeqCst).then_some(()));
}
