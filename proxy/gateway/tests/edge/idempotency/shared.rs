//! Keys in a real Redis that edges share.

use std::sync::{Arc, Barrier};

use super::{Gate, REQUIRED, coded, in_flight, order};
use crate::harness::{Client, Edge, Papers, RedisServer, Setup, Upstream, eventually, service};

fn edge(redis: &RedisServer, upstream: &Upstream) -> Edge {
    let text = service("api", "/api", &[upstream.url()], &format!("{REQUIRED}rate_limit = 0\n"));
    let main = format!("[redis]\nurl = \"{}\"\n", redis.url());
    Setup::new(&main).service("api", &text).start()
}

#[test]
fn edges_that_share_a_redis_send_an_order_once() {
    let redis = RedisServer::start();
    let gate = Gate::default();
    let upstream = gate.upstream();
    let edges = [edge(&redis, &upstream), edge(&redis, &upstream)];
    let start = Arc::new(Barrier::new(100));
    let copies: Vec<_> = (0..100)
        .map(|n| {
            let (address, start) = (edges[n % 2].http, Arc::clone(&start));
            std::thread::spawn(move || {
                let mut client = Client::to(address);
                start.wait();
                client.exchange(&order("race", "{}"))
            })
        })
        .collect();
    eventually("one copy is there and 99 are refused", || {
        let refused: usize = edges.iter().map(in_flight).sum();
        (upstream.seen().len() == 1 && refused == 99).then_some(())
    });
    gate.open();
    let answers: Vec<_> = copies.into_iter().map(|copy| copy.join().unwrap()).collect();
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for edge in &edges {
        let again = eventually("its answer is shared", || {
            Some(edge.send(&order("race", "{}"))).filter(|answer| answer.status == 201)
        });
        assert_eq!(again.field("idempotency-replayed"), "true");
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn without_its_store_an_order_is_not_sent() {
    let mut redis = RedisServer::start();
    let upstream = super::desk();
    let edge = edge(&redis, &upstream);
    assert_eq!(edge.send(&order("first", "{}")).text(), "order 1");
    assert_eq!(edge.get("/health").json()["components"]["redis"]["status"], "healthy");
    redis.kill();
    let refused = edge.send(&order("second", "{}"));
    assert_eq!(coded(&refused), (503, "idempotency_unavailable".to_owned()));
    assert_eq!((refused.json()["outcome"].as_str(), refused.field("retry-after")), (Some("not_sent"), "1"));
    assert_eq!(edge.get("/health").json()["components"]["redis"]["status"], "degraded");
    assert_eq!(upstream.seen().len(), 1);
    redis.again();
    eventually("it is sent", || (edge.send(&order("second", "{}")).text() == "order 2").then_some(()));
    // Redis may have been killed before it was told how the first one ended; then it is told now.
    eventually("its answer is known", || {
        (edge.send(&order("first", "{}")).text() == "order 1").then_some(())
    });
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn a_store_that_goes_away_is_told_before_anybody_needs_it() {
    let mut redis = RedisServer::start();
    let upstream = super::desk();
    let edge = edge(&redis, &upstream);
    let is = |status: &str| {
        eventually(status, || {
            (edge.get("/health").json()["components"]["redis"]["status"] == status).then_some(())
        });
    };
    is("healthy");
    redis.kill();
    is("degraded");
    redis.again();
    is("healthy");
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn over_tls_edges_share_keys_and_rates() {
    let papers = Papers::new();
    let (mut redis, port) = RedisServer::start_secure(&papers);
    let upstream = super::desk();
    let text = service("api", "/api", &[upstream.url()], REQUIRED);
    let main = format!(
        "[rate_limit]\nshared = \"redis\"\n[redis]\nurl = \"rediss://127.0.0.1:{port}\"\n{}",
        papers.keys()
    );
    let edges = [(); 2].map(|()| Setup::new(&main).service("api", &text).start());
    for edge in &edges {
        eventually("rates are shared", || {
            edge.get("/metrics").text().contains("\nsluice_limiter_shared 1\n").then_some(())
        });
    }
    assert_eq!(edges[0].send(&order("first", "{}")).text(), "order 1");
    eventually("its answer is shared", || {
        (edges[1].send(&order("first", "{}")).field("idempotency-replayed") == "true").then_some(())
    });
    redis.kill();
    let refused = edges[0].send(&order("second", "{}"));
    assert_eq!(coded(&refused), (503, "idempotency_unavailable".to_owned()));
    redis.again();
    eventually("it is sent", || (edges[0].send(&order("second", "{}")).text() == "order 2").then_some(()));
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn a_redis_of_another_authority_is_not_believed() {
    let (papers, others) = (Papers::new(), Papers::new());
    let (_redis, port) = RedisServer::start_secure(&papers);
    let upstream = super::desk();
    let text = service("api", "/api", &[upstream.url()], REQUIRED);
    let [ca, cert, key] =
        ["ca.pem", "client.pem", "client.key"].map(|name| others.path(name).display().to_string());
    let main = format!(
        "[redis]\nurl = \"rediss://127.0.0.1:{port}\"\nca = \"{ca}\"\n\
         client_cert = {{ cert = \"{cert}\", key = \"{key}\" }}\n"
    );
    let edge = Setup::new(&main).service("api", &text).start();
    assert_eq!(coded(&edge.send(&order("first", "{}"))), (503, "idempotency_unavailable".to_owned()));
    // What is put in the file's place counts for the next connection.
    for name in ["ca.pem", "client.pem", "client.key"] {
        std::fs::copy(papers.path(name), others.path(name)).unwrap();
    }
    eventually("it is sent", || (edge.send(&order("first", "{}")).text() == "order 1").then_some(()));
}
