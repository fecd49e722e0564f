use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use std::net::SocketAddr;

use super::*;
use crate::response::head_end;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that answers `ANSWER`, and stalls once for `stall` after `stall_after` requests.
async fn server(answer: &'static [u8], stall_after: u64, stall: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Rc::new(RefCell::new((0_u64, None::<Instant>)));
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = Rc::clone(&seen);
            tokio::task::spawn_local(async move {
                let mut buffer = Vec::new();
                while matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                    while let Some(end) = head_end(&buffer) {
                        buffer.drain(..end);
                        let until = {
                            let mut seen = seen.borrow_mut();
                            seen.0 += 1;
                            if seen.0 == stall_after {
                                seen.1 = Some(Instant::now() + stall);
                            }
                            seen.1
                        };
                        if let Some(until) = until {
                            tokio::time::sleep_until(until.into()).await;
                        }
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

fn target(address: SocketAddr) -> Target {
    let request = Request::plain(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec());
    Target::of(Place::plain(address), request, Expects::Body(2))
}

fn plan(pace: Pace, window_ms: u64) -> Plan {
    Plan { pace, connections: 4, warmup: Duration::from_millis(30), window: Duration::from_millis(window_ms) }
}

fn share_above(histogram: &Histogram<u64>, limit: Duration) -> f64 {
    let limit_ns = limit.as_nanos() as u64;
    histogram.count_between(limit_ns, u64::MAX) as f64 / histogram.len() as f64
}

#[tokio::test]
async fn stalled_server_is_charged_for_every_request_it_kept_waiting() {
    let outcome = LocalSet::new()
        .run_until(async {
            // 1,000 a second for 0.6 s; after 100 requests nothing is answered for 0.3 s.
            let address = server(ANSWER, 100, Duration::from_millis(300)).await;
            drive(&target(address), plan(Pace::Open(1000), 600), || ()).await.unwrap()
        })
        .await;
    assert_eq!(outcome.failures, Failures::default(), "{:?}", outcome.complaint);
    assert_eq!(outcome.latency.len(), 600);
    // Four connections were in flight: a closed loop's clock sees four slow requests, the intended time
    // sees about two hundred that should have been answered within the first 0.2 s of the stall.
    let slow = Duration::from_millis(100);
    assert!(share_above(&outcome.service, slow) < 0.1, "{}", share_above(&outcome.service, slow));
    assert!(share_above(&outcome.latency, slow) > 0.25, "{}", share_above(&outcome.latency, slow));
    assert!(outcome.latency.max() >= 250_000_000);
}

#[tokio::test]
async fn late_generator_still_sends_every_slot() {
    let outcome = LocalSet::new()
        .run_until(async {
            let address = server(ANSWER, 0, Duration::ZERO).await;
            // The one thread stands still, with nothing in flight, from before the window until after its end.
            let stall = || std::thread::sleep(Duration::from_millis(150));
            drive(&target(address), plan(Pace::Open(150), 100), stall).await.unwrap()
        })
        .await;
    assert_eq!(outcome.failures, Failures::default(), "{:?}", outcome.complaint);
    assert_eq!((outcome.latency.len(), outcome.lag.len()), (14, 14));
}

#[tokio::test]
async fn server_that_never_answers_is_counted_and_ends_in_bounded_time() {
    let outcome = LocalSet::new()
        .run_until(async {
            let address = server(ANSWER, 1, Duration::from_secs(60)).await;
            drive(&target(address), plan(Pace::Open(500), 100), || ()).await.unwrap()
        })
        .await;
    assert_eq!(outcome.failures.unanswered, 65);
    assert_eq!(outcome.answered, 0);
    assert!(outcome.latency.min() > 1_000_000_000, "an unanswered request has at least the age of the drain");
}

#[tokio::test]
async fn closed_loop_counts_answers_and_samples_twice() {
    let mut samples = 0;
    let outcome = LocalSet::new()
        .run_until(async {
            let address = server(ANSWER, 0, Duration::ZERO).await;
            drive(&target(address), plan(Pace::Closed, 100), || samples += 1).await.unwrap()
        })
        .await;
    assert_eq!(samples, 2);
    assert_eq!(outcome.failures, Failures::default());
    assert!(outcome.answered > 10 && outcome.latency.len() > 10);
    assert_eq!(outcome.lag.len(), 0);
}

#[tokio::test]
async fn wrong_answers_are_failures_of_their_kind() {
    let tasks = LocalSet::new();
    let run = |answer: &'static [u8]| {
        tasks.run_until(async move {
            let address = server(answer, 0, Duration::ZERO).await;
            drive(&target(address), plan(Pace::Open(200), 50), || ()).await.unwrap().failures
        })
    };
    assert!(run(b"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n").await.status[&429] > 0);
    assert!(run(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").await.body > 0);
    assert!(run(b"SSH-2.0-nonsense\r\n\r\n").await.malformed > 0);
    assert!(run(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP").await.malformed > 0);
    let closing = run(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(closing.total(), 0, "a closing answer is an answer; the connection is made anew");
}

#[tokio::test]
async fn nobody_listening_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert!(LocalSet::new().run_until(drive(&target(address), plan(Pace::Closed, 10), || ())).await.is_err());
}
