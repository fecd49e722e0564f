//! Rate limits that edges share in a real Redis.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Client, Edge, RedisServer, Reply, Setup, Upstream, eventually, ok, service};

const GET: &str = "GET /api HTTP/1.1\r\nHost: edge\r\n\r\n";

pub(crate) fn setup(redis: &RedisServer, upstream: &Upstream, limit: &str) -> Setup {
    let text =
        service("api", "/api", &[upstream.url()], &format!("auth_required = false\nrate_limit = {limit}"));
    let main = format!("[rate_limit]\nshared = \"redis\"\n[redis]\nurl = \"{}\"\n", redis.url());
    Setup::new(&main).service("api", &text)
}

pub(crate) fn edges(redis: &RedisServer, upstream: &Upstream, limit: &str) -> [Edge; 3] {
    let edges = [(); 3].map(|()| setup(redis, upstream, limit).start());
    for edge in &edges {
        shares(edge, true);
    }
    edges
}

/// Waits until an edge shares, or does not.
pub(crate) fn shares(edge: &Edge, is: bool) {
    let line = format!("\nsluice_limiter_shared {}\n", u8::from(is));
    eventually(&line, || edge.get("/metrics").text().contains(&line).then_some(()));
}

/// Requests that an edge judged alone.
pub(crate) fn alone(edge: &Edge) -> u32 {
    let metrics = edge.get("/metrics").text();
    let of = |line: &str| {
        line.strip_prefix("sluice_limiter_alone_total{")?.split("} ").nth(1)?.parse::<u32>().ok()
    };
    metrics.lines().filter_map(of).sum()
}

/// How many were admitted and refused, and nothing else.
#[derive(Default)]
struct Counts {
    admitted: AtomicU32,
    refused: AtomicU32,
}

impl Counts {
    fn count(&self, reply: &Reply) {
        match reply.status {
            200 => self.admitted.fetch_add(1, Ordering::Relaxed),
            429 => self.refused.fetch_add(1, Ordering::Relaxed),
            other => panic!("{other}: {}", reply.head),
        };
    }

    fn admitted(&self) -> u32 {
        self.admitted.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Requests on so many connections to each edge, until told to stop.
fn hammer<'s>(
    scope: &'s std::thread::Scope<'s, '_>,
    edges: &'s [Edge],
    connections: [usize; 3],
    counts: &'s Counts,
    stop: &'s AtomicBool,
) {
    for (edge, count) in edges.iter().zip(connections) {
        for _ in 0..count {
            scope.spawn(move || {
                let mut client = Client::to(edge.http);
                while !stop.load(Ordering::Relaxed) {
                    counts.count(&client.exchange(GET));
                }
            });
        }
    }
}

#[test]
fn three_edges_admit_one_limit() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start(ok));
    let edges = edges(&redis, &upstream, "{ requests = 30, per = \"1s\", key = \"service\" }");
    let mut judged_alone = 0.0;
    let mut fills = |connections: [usize; 3]| {
        let (counts, stop) = (Counts::default(), AtomicBool::new(false));
        let started = Instant::now();
        std::thread::scope(|scope| {
            hammer(scope, &edges, connections, &counts, &stop);
            std::thread::sleep(Duration::from_millis(2_500));
            stop.store(true, Ordering::Relaxed);
        });
        let exact = 30.0 + 30.0 * started.elapsed().as_secs_f64();
        let admitted = f64::from(counts.admitted());
        assert!(counts.refused() > 0, "only {admitted} came");
        // On a machine so busy that answers of Redis are late, edges say that they judged alone, and how often.
        let alone = f64::from(edges.iter().map(alone).sum::<u32>()) - judged_alone;
        judged_alone += alone;
        assert!(admitted <= 1.1 * exact + alone, "{admitted} of {exact} at {connections:?}, {alone} alone");
        // Until the bucket is whole again.
        std::thread::sleep(Duration::from_millis(1_100));
        admitted >= 0.9 * exact - 1.0
    };
    for connections in [[1, 1, 1], [4, 1, 0], [0, 0, 3]] {
        // Never more than the limit. That it is used up can be asked only of a machine that keeps running.
        assert!((0..4).any(|_| fills(connections)), "the limit is not used up at {connections:?}");
    }
    assert_eq!(upstream.seen().len() as u32, {
        let metrics: Vec<String> = edges.iter().map(|edge| edge.get("/metrics").text()).collect();
        let ok = r#"api_gateway_requests_total{method="GET",service="api",status="200"} "#;
        let counts =
            metrics.iter().filter_map(|text| text.split(ok).nth(1)?.lines().next()?.parse::<u32>().ok());
        counts.sum::<u32>()
    });
}

#[test]
fn a_low_limit_and_its_hard_threshold_are_shared_too() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start(ok));
    let edges =
        edges(&redis, &upstream, "{ requests = 5, per = \"1h\", key = \"header:x-desk\", hard = 12 }");
    let ask = |n: usize, desk: &str| {
        edges[n % 3].send(&format!("GET /api HTTP/1.1\r\nHost: edge\r\nX-Desk: {desk}\r\n\r\n"))
    };
    let replies: Vec<Reply> = (0..30).map(|n| ask(n, "fx")).collect();
    let counts = Counts::default();
    for reply in &replies {
        counts.count(reply);
    }
    let alone: u32 = edges.iter().map(alone).sum();
    // So low a limit has no credit: each request waits for Redis.
    assert!((5..=5 + alone).contains(&counts.admitted()), "{}, {alone} alone", counts.admitted());
    let closes = |reply: &Reply| reply.field("connection") == "close";
    let closed = replies.iter().filter(|reply| closes(reply)).count();
    assert!(closed <= 18, "{closed} of 30 - 12: too soon");
    let last = eventually("what was counted is known", || {
        let last = ask(1, "fx");
        (last.field("retry-after") != "1").then_some(last)
    });
    assert_eq!(
        (last.status, last.field("x-ratelimit-remaining"), last.field("x-ratelimit-limit")),
        (429, "0", "5")
    );
    let wait: u64 = last.field("retry-after").parse().unwrap();
    // 720 s a request of the limit, 300 s one of the threshold, which counts those that were refused too.
    assert!((200..=300 * 30).contains(&wait), "{wait}");
    assert!(last.field("ratelimit").starts_with("\"api\";r=0;t="), "{}", last.head);
    for n in 0..3 {
        // The hard threshold is passed by what all of them were asked, not by what any one was.
        eventually("each edge knows of it", || closes(&ask(n, "fx")).then_some(()));
    }
    // Another caller: what is left is what all edges have left.
    for n in 0..3 {
        assert_eq!(ask(n, "equities").status, 200);
    }
    let left = eventually("the third edge knows of all", || {
        let reply = ask(2, "equities");
        (reply.status == 429 || reply.field("x-ratelimit-remaining") <= "1").then_some(reply)
    });
    assert!(left.field("x-ratelimit-remaining") <= "1", "{}", left.head);
    // Redis learns of nobody.
    let names = redis.ask("KEYS *");
    assert!(names.contains("sluice:limit:3:") && !names.contains("equities") && !names.contains("fx"));
}

#[test]
fn no_request_fails_when_redis_does() {
    let (mut redis, upstream) = (RedisServer::start(), Upstream::start(ok));
    let edges = edges(&redis, &upstream, "{ requests = 1000000, per = \"1s\", key = \"service\" }");
    let (counts, stop) = (Counts::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        hammer(scope, &edges, [1, 1, 1], &counts, &stop);
        redis.kill();
        for edge in &edges {
            shares(edge, false);
        }
        let health = edges[0].get("/health").json();
        let told = &health["components"]["redis"];
        assert_eq!(told["status"], "degraded");
        assert!(told["detail"].as_str().unwrap().contains("each edge counts rates alone"), "{told}");
        redis.again();
        for edge in &edges {
            shares(edge, true);
        }
        redis.signal("-STOP");
        for edge in &edges {
            shares(edge, false);
        }
        redis.signal("-CONT");
        for edge in &edges {
            shares(edge, true);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(counts.refused(), 0, "nobody came near the limit");
    assert!(counts.admitted() > 100);
    let metrics = edges[0].get("/metrics").text();
    let more_than_none = |name: &str| {
        let value =
            metrics.split(name).nth(1).and_then(|rest| rest.trim().lines().next()?.parse::<u64>().ok());
        value.is_some_and(|value| value > 0)
    };
    for name in [
        "sluice_limiter_lease_calls_total{result=\"answered\"}",
        "sluice_limiter_lease_calls_total{result=\"failed\"}",
        "sluice_limiter_alone_total{reason=\"away\"}",
    ] {
        assert!(more_than_none(name), "{name}\n{metrics}");
    }
}

#[test]
fn a_reload_shares_limits_and_counts_alone_again() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start(ok));
    let edges = edges(&redis, &upstream, "{ requests = 4, per = \"1h\", key = \"service\" }");
    for left in (0..4).rev() {
        let reply = edges[0].get("/api");
        assert_eq!((reply.status, reply.field("x-ratelimit-remaining")), (200, left.to_string().as_str()));
    }
    assert_eq!(edges[1].get("/api").status, 429, "it asks before it admits");
    let edge = &edges[2];
    let main = edge.conf.join("sluice.toml");
    let text = std::fs::read_to_string(&main).unwrap();
    std::fs::write(&main, text.replace("shared = \"redis\"", "shared = \"local\"")).unwrap();
    shares(edge, false);
    assert_eq!(edge.get("/api").status, 200, "by itself it has admitted none");
    std::fs::write(&main, text).unwrap();
    shares(edge, true);
    eventually("it is told", || (edge.get("/api").status == 429).then_some(()));
}
