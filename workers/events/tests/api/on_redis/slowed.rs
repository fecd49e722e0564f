//! A Redis whose answers are late, or come in drops.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sluice_schema::OnRedisDown;

use super::faults::{numbers, post, ready};
use crate::world::{DEADLINE, Place, Setup, World, durability, redis_url};

/// LIMIT: connections of one test.
const CONNECTIONS_MAX: usize = 1_000;

/// A way to a server, on which its answers can be made slow.
struct Way {
    /// The server behind it.
    _place: Place,
    port: u16,
    pace: Arc<Pace>,
}

/// How long a piece of an answer waits, and each byte of it, in milliseconds.
#[derive(Default)]
struct Pace {
    piece: AtomicU64,
    byte: AtomicU64,
}

impl Pace {
    /// Passes on what is answered.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream) -> std::io::Result<()> {
        let mut piece = [0; 16 * 1024];
        loop {
            let len = from.read(&mut piece)?;
            if len == 0 {
                return to.shutdown(std::net::Shutdown::Both);
            }
            // What is tested is time: a slow network has no condition to wait for.
            std::thread::sleep(Duration::from_millis(self.piece.load(Ordering::Relaxed)));
            let mut rest = &piece[..len];
            while let ([first, more @ ..], wait @ 1..) = (rest, self.byte.load(Ordering::Relaxed)) {
                to.write_all(&[*first])?;
                rest = more;
                std::thread::sleep(Duration::from_millis(wait));
            }
            to.write_all(rest)?;
        }
    }
}

impl Way {
    fn new() -> Self {
        let (place, listener) = (Place::new(), TcpListener::bind("127.0.0.1:0").unwrap());
        let server = place.redis.as_ref().unwrap().lock().unwrap().port;
        let way = Self { _place: place, port: listener.local_addr().unwrap().port(), pace: Arc::default() };
        let pace = Arc::clone(&way.pace);
        std::thread::spawn(move || {
            for client in listener.incoming().take(CONNECTIONS_MAX).flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                client.set_nodelay(true).unwrap();
                let (mut asks, mut hears) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    drop(std::io::copy(&mut asks, &mut hears));
                    drop(hears.shutdown(std::net::Shutdown::Both));
                });
                let pace = Arc::clone(&pace);
                std::thread::spawn(move || drop(pace.pass(server, client)));
            }
        });
        way
    }
}

fn world(on_redis_down: OnRedisDown) -> (World, Way) {
    let way = Way::new();
    let mut setup = Setup::default();
    setup.config.redis = redis_url(way.port);
    setup.config.events.on_redis_down = on_redis_down;
    (World::start(setup, Arc::new(Place::beside(None))), way)
}

async fn stored(world: &World, expected: &[u64]) {
    let begun = Instant::now();
    loop {
        let answer = world.admin().get("/events").await;
        if answer.status == 200 && answer.json()["count"].as_u64() >= Some(expected.len() as u64) {
            break assert_eq!(numbers(world).await, expected);
        }
        assert!(begun.elapsed() < DEADLINE, "{answer:?}");
    }
}

#[tokio::test]
async fn late_answers_are_waited_for() {
    let (world, way) = world(OnRedisDown::Reject);
    post(&world, 0).await.ok();
    way.pace.piece.store(300, Ordering::Relaxed);
    let answers = join_all((1..=50).map(|n| post(&world, n))).await;
    assert!(answers.iter().all(|answer| answer.ok()["durability"] == durability()));
    way.pace.piece.store(0, Ordering::Relaxed);
    let mut found = numbers(&world).await;
    found.sort_unstable();
    assert_eq!(found, (0..=50).collect::<Vec<u64>>());
}

#[tokio::test]
async fn an_answer_in_drops_is_given_up_and_nothing_is_sent_behind_it() {
    let (world, way) = world(OnRedisDown::Reject);
    post(&world, 0).await.ok();
    way.pace.byte.store(400, Ordering::Relaxed);
    let answer = post(&world, 1).await;
    assert_eq!(
        (answer.code(503).as_str(), &answer.json()["outcome"]),
        ("store_unavailable", &"unknown".into())
    );
    // While it is on its way, nobody waits that long.
    let begun = Instant::now();
    let answer = post(&world, 2).await;
    assert_eq!(
        (answer.code(503).as_str(), &answer.json()["outcome"]),
        ("store_unavailable", &"not_sent".into())
    );
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    ready(&world, 503).await;
    way.pace.byte.store(0, Ordering::Relaxed);
    ready(&world, 200).await;
    for n in 1..=2 {
        let begun = Instant::now();
        while post(&world, n).await.status != 200 {
            assert!(begun.elapsed() < DEADLINE);
        }
    }
    stored(&world, &[0, 1, 2]).await;
}

#[tokio::test]
async fn what_an_answer_in_drops_leaves_open_is_spooled_and_stored_once() {
    let (world, way) = world(OnRedisDown::Spool);
    post(&world, 0).await.ok();
    way.pace.byte.store(400, Ordering::Relaxed);
    for n in 1..=3 {
        assert_eq!(post(&world, n).await.ok()["durability"], "spooled");
    }
    way.pace.byte.store(0, Ordering::Relaxed);
    stored(&world, &[0, 1, 2, 3]).await;
}
