//! Requests that wait for the word of a limit that edges share: on the direct way and on the framework's, in floods,
//! with a client that leaves or has no time, beside a Redis that stands still, at the drain.

use std::time::{Duration, Instant};

use crate::harness::{Client, Edge, RedisServer, Reply, Upstream, eventually, ok};
use crate::limits::{alone, edges, setup, shares};

/// The same request by the direct way, and by the framework's.
const WAYS: [&str; 2] = [
    "GET /api HTTP/1.1\r\nHost: edge\r\nX-Desk: {}\r\n{}\r\n",
    "GET /api HTTP/1.0\r\nHost: edge\r\nX-Desk: {}\r\n{}\r\n",
];
/// So low that there is no credit: every first request of a desk waits.
const LOW: &str = "{ requests = 5, per = \"1h\", key = \"header:x-desk\" }";

fn request(way: usize, desk: &str, more: &str) -> String {
    WAYS[way].replacen("{}", desk, 1).replacen("{}", more, 1)
}

fn started(redis: &RedisServer, upstream: &Upstream, limit: &str) -> Edge {
    let edge = setup(redis, upstream, limit).start();
    shares(&edge, true);
    edge
}

/// So many clients of each edge at once, each with so many requests; how many were admitted.
fn flood(edges: &[Edge], way: usize, clients: usize, requests: usize) -> usize {
    let ask = |edge: &Edge| {
        let statuses = (0..requests).map(|_| edge.send(&request(way, "fx", "")).status);
        statuses
            .inspect(|status| assert!(matches!(status, 200 | 429), "{status}"))
            .filter(|status| *status == 200)
            .count()
    };
    let ask = &ask;
    std::thread::scope(|scope| {
        let each: Vec<_> =
            edges.iter().flat_map(|edge| (0..clients).map(move |_| scope.spawn(move || ask(edge)))).collect();
        each.into_iter().map(|client| client.join().unwrap()).sum()
    })
}

#[test]
fn a_flood_after_a_rest_gets_one_bucket_within_a_tenth() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start(ok));
    let edges = edges(&redis, &upstream, "{ requests = 60, per = \"2s\", key = \"service\" }");
    let mut known = 0;
    for way in [0, 1, 0] {
        let began = Instant::now();
        let admitted = flood(&edges, way, 8, 5);
        let exact = 60.0 + 30.0 * began.elapsed().as_secs_f64();
        let judged_alone = edges.iter().map(alone).sum::<u32>() as usize;
        let most = 1.1 * exact + (judged_alone - known) as f64;
        assert!(admitted as f64 <= most && admitted >= 57, "way {way}: {admitted} of {exact}");
        known = judged_alone;
        // Redis forgets a bucket when it is whole.
        eventually("all have rested", || redis.ask("KEYS *").starts_with("*0").then_some(()));
    }
    let metrics = edges[0].get("/metrics").text();
    assert!(!metrics.contains("sluice_limiter_wait_seconds_count 0\n"), "nobody waited");
}

#[test]
fn an_edge_that_is_asked_first_when_others_have_had_the_bucket_refuses() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start(ok));
    let edges = edges(&redis, &upstream, LOW);
    for way in [0, 1] {
        let desk = ["fx", "rates"][way];
        let statuses = (0..7).map(|n| edges[n % 2].send(&request(way, desk, "")).status);
        assert_eq!(statuses.collect::<Vec<_>>(), [200, 200, 200, 200, 200, 429, 429]);
        let last = edges[2].send(&request(way, desk, ""));
        assert_eq!((last.status, last.field("x-ratelimit-remaining")), (429, "0"));
        assert_ne!(last.field("retry-after"), "1", "it knows how long");
    }
}

#[test]
fn requests_that_wait_for_a_redis_that_stands_still_are_answered_soon() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start(ok));
    let edge = started(&redis, &upstream, LOW);
    redis.signal("-STOP");
    let ask = |way| {
        let began = Instant::now();
        let reply = edge.send(&request(way, "fx", ""));
        (reply.status, began.elapsed())
    };
    let answers = std::thread::scope(|scope| {
        let asked = [0, 1].map(|way| scope.spawn(move || ask(way)));
        asked.map(|asked| asked.join().unwrap())
    });
    for (status, took) in answers {
        assert_eq!(status, 200);
        assert!(took >= Duration::from_millis(90) && took < Duration::from_secs(2), "{took:?}");
    }
    assert_eq!(alone(&edge), 2, "and it says so");
    redis.signal("-CONT");
    shares(&edge, true);
}

#[test]
fn a_client_that_leaves_while_it_waits_costs_nobody_anything() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start(ok));
    let edge = started(&redis, &upstream, LOW);
    redis.signal("-STOP");
    for way in [0, 1] {
        let mut client = edge.connect();
        client.send(&request(way, "fx", ""));
        drop::<Client>(client);
    }
    // Longer than anybody waits.
    shares(&edge, false);
    redis.signal("-CONT");
    shares(&edge, true);
    assert!(upstream.seen().is_empty(), "nothing was passed on");
    // Redis may have counted what the call asked for that it got while it stood still.
    for _ in 0..3 {
        assert_eq!(edge.send(&request(0, "fx", "")).status, 200);
    }
}

#[test]
fn a_request_without_time_does_not_wait_longer_than_that() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start(ok));
    let edge = started(&redis, &upstream, LOW);
    redis.signal("-STOP");
    let began = Instant::now();
    let ask = |way| edge.send(&request(way, "fx", "X-Request-Deadline-Ms: 20\r\n"));
    let replies: [Reply; 2] = std::thread::scope(|scope| {
        let asked = [0, 1].map(|way| scope.spawn(move || ask(way)));
        asked.map(|asked| asked.join().unwrap())
    });
    assert!(began.elapsed() < Duration::from_secs(2));
    for reply in replies {
        assert_eq!((reply.status, reply.code().as_str()), (504, "upstream_timeout"), "{}", reply.head);
    }
    assert!(upstream.seen().is_empty());
    redis.signal("-CONT");
}

#[test]
fn an_edge_that_drains_answers_those_who_wait() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start(ok));
    let mut edge = started(&redis, &upstream, LOW);
    redis.signal("-STOP");
    let mut clients = [edge.connect(), edge.connect()];
    for (way, client) in clients.iter_mut().enumerate() {
        client.send(&request(way, "fx", ""));
    }
    edge.begin_drain();
    for client in &mut clients {
        assert_eq!(client.reply().status, 200);
    }
    edge.join();
}
