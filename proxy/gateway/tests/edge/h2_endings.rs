//! How connections of HTTP/2 end: the drain, a limit, silence.

use std::sync::{Mutex, mpsc};

use crate::h2_client::{HEADERS, Proper, Raw, SETTINGS, drain, run, whole};
use crate::harness::{Setup, Upstream, edge_for, ok, service};

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
