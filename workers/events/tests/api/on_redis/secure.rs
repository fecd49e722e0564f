//! Redis over TLS.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rcgen::SanType;
use sluice_schema::{KeyPairFiles, RedisTls};

use super::faults::{numbers, post, ready};
use crate::server::{Papers, RedisServer};
use crate::world::{DEADLINE, Place, Setup, World, redis_address};

fn tls(papers: &Papers) -> RedisTls {
    let pair = KeyPairFiles { cert: papers.path("client.pem"), key: papers.path("client.key") };
    RedisTls { ca: Some(papers.path("ca.pem")), client_cert: Some(pair) }
}

fn world(port: u16, tls: RedisTls) -> World {
    let mut setup = Setup::default();
    setup.config.redis = redis_address(&format!("rediss://127.0.0.1:{port}"));
    setup.config.redis_tls = tls;
    World::start(setup, Arc::new(Place::beside(None)))
}

/// Waits until the store is away for this reason.
async fn away(world: &World, why: &str) {
    let begun = Instant::now();
    loop {
        let health = world.admin().get("/health").await.json();
        let store = &health["components"]["store"];
        if store["status"] == "unhealthy" && store["detail"].as_str().unwrap_or_default().contains(why) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{store}");
    }
}

async fn taken(world: &World, id: u64) {
    let begun = Instant::now();
    while post(world, id).await.status != 200 {
        assert!(begun.elapsed() < DEADLINE);
    }
}

#[tokio::test]
async fn events_are_stored_and_read_over_tls_also_after_a_restart_of_the_server() {
    let papers = Papers::new();
    let (mut server, port) = RedisServer::start_secure(&papers);
    let world = world(port, tls(&papers));
    let mut live = world.admin().stream("GET", "/events/stream", "").await;
    for n in 0..20 {
        assert_eq!(post(&world, n).await.ok()["durability"], "aof_always");
    }
    server.kill();
    ready(&world, 503).await;
    server.again();
    taken(&world, 20).await;
    assert_eq!(numbers(&world).await, (0..=20).collect::<Vec<u64>>());
    for n in 0..=20 {
        assert_eq!(live.next().await.unwrap().json()["data"]["n"], n);
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_believed_until_its_file_is_there() {
    let (papers, others) = (Papers::new(), Papers::new());
    let (_server, port) = RedisServer::start_secure(&papers);
    let files = RedisTls { ca: Some(others.path("ca.pem")), ..tls(&papers) };
    let world = world(port, files);
    away(&world, "certificate").await;
    post(&world, 0).await.code(503);
    // The file is read anew for each connection.
    std::fs::copy(papers.path("ca.pem"), others.path("ca.pem")).unwrap();
    taken(&world, 0).await;
    assert_eq!(numbers(&world).await, [0]);
}

#[tokio::test]
async fn a_server_whose_certificate_names_another_one_is_not_believed() {
    let papers = Papers::naming(SanType::DnsName("elsewhere.example".try_into().unwrap()));
    let (_server, port) = RedisServer::start_secure(&papers);
    let world = world(port, tls(&papers));
    away(&world, "not valid for name").await;
    post(&world, 0).await.code(503);
}

#[tokio::test]
async fn without_a_certificate_of_its_own_or_its_files_the_worker_says_so() {
    let papers = Papers::new();
    let (_server, port) = RedisServer::start_secure(&papers);
    let nameless = world(port, RedisTls { client_cert: None, ..tls(&papers) });
    post(&nameless, 0).await.code(503);
    ready(&nameless, 503).await;
    let missing = world(port, RedisTls { ca: Some(papers.path("lost.pem")), ..tls(&papers) });
    away(&missing, "lost.pem").await;
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let held = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&held);
    std::thread::spawn(move || {
        for stream in silent.incoming().take(1_000).flatten() {
            own.lock().unwrap().push(stream);
        }
    });
    let (papers, begun) = (Papers::new(), Instant::now());
    let world = world(port, tls(&papers));
    post(&world, 0).await.code(503);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let begun = Instant::now();
    world.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(!held.lock().unwrap().is_empty());
}
