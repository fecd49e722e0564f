//! Several servers: what sentinels name, and a cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::faults::{event, numbers, post};
use crate::server::RedisServer;
use crate::websocket::Socket;
use crate::world::{Place, Setup, World, redis_address};

/// For servers to agree on something, on a busy machine.
const AGREED_WITHIN: Duration = Duration::from_secs(60);

/// Told by then, it was not the heartbeat of an idle stream that told.
const BEFORE_HEARTBEATS: Duration = Duration::from_secs(8);

fn world(url: &str) -> World {
    let mut setup = Setup::default();
    setup.config.redis = redis_address(url);
    World::start(setup, Arc::new(Place::beside(None)))
}

/// Waits until servers say so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < AGREED_WITHIN, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Publishes until it is taken.
async fn taken(world: &World, id: u64) -> Value {
    let begun = Instant::now();
    loop {
        let answer = post(world, id).await;
        if answer.status == 200 {
            return answer.json();
        }
        assert_eq!(answer.code(503), "store_unavailable");
        assert!(begun.elapsed() < AGREED_WITHIN, "{answer:?}");
    }
}

/// Waits until these events, and no others, are there.
async fn stored(world: &World, expected: impl Iterator<Item = u64>) {
    let (begun, expected) = (Instant::now(), expected.collect::<Vec<u64>>());
    while world.admin().get("/events?event_type=risk_alert").await.status != 200 {
        assert!(begun.elapsed() < AGREED_WITHIN);
    }
    assert_eq!(numbers(world).await, expected);
}

fn length(server: &RedisServer) -> String {
    server.ask("XLEN tradpal_events").trim().to_owned()
}

/// A primary, its replica, and a sentinel that knows both.
fn watched() -> (RedisServer, RedisServer, RedisServer) {
    let primary = RedisServer::start();
    let port = primary.port.to_string();
    let replica =
        RedisServer::start_with(crate::server::free_port(), &["--replicaof", &format!("127.0.0.1 {port}")]);
    until("the replica follows", || replica.ask("INFO replication").contains("master_link_status:up"));
    // Killed before that, it would come back with the file it had before it followed.
    until("the replica's own file is of what it follows", || {
        let state = replica.ask("INFO persistence");
        state.contains("aof_rewrite_in_progress:0") && state.contains("aof_rewrite_scheduled:0")
    });
    let sentinel = RedisServer::sentinel(primary.port);
    until("the sentinel knows the replica", || {
        sentinel.ask("SENTINEL MASTER main").contains("num-slaves\r\n$1\r\n1")
    });
    (primary, replica, sentinel)
}

fn sentinel_url(sentinel: &RedisServer) -> String {
    // One that is not there is passed over.
    format!("redis+sentinel://127.0.0.1:{},127.0.0.1:{}/main", crate::server::free_port(), sentinel.port)
}

#[tokio::test]
async fn what_sentinels_make_the_primary_is_written_to() {
    let (mut primary, replica, sentinel) = watched();
    let world = world(&sentinel_url(&sentinel));
    let mut live = world.admin().stream("GET", "/events/stream", "").await;
    for n in 0..10 {
        taken(&world, n).await;
    }
    until("the replica has everything", || length(&replica) == ":10");
    primary.kill();
    taken(&world, 10).await;
    assert!(replica.role().contains("master"));
    primary.again();
    until("the old primary follows", || primary.role().contains("slave"));
    taken(&world, 11).await;
    stored(&world, 0..12).await;
    // Nothing was lost: nobody is told of a gap.
    for n in 0..12 {
        let got = live.next().await.unwrap().json();
        assert_eq!((&got["data"]["n"], &got["seq"]), (&json!(n), &json!(n + 1)));
    }
}

#[tokio::test]
async fn what_a_failover_loses_is_told_and_ids_go_on() {
    let (mut primary, mut replica, sentinel) = watched();
    let world = world(&sentinel_url(&sentinel));
    let mut live = world.admin().stream("GET", "/events/stream", "").await;
    // Nothing comes for these: neither a type nor a symbol of what is published.
    let mut idle = [
        world.admin().stream("GET", "/events/stream?event_type=kill_switch", "").await,
        world.admin().stream("GET", "/events/stream?symbol=ETH/USDT&mode=conflate", "").await,
    ];
    let mut socket = Socket::open(world.admin()).await;
    let none = json!({"op": "subscribe", "sub": "none", "event_type": ["kill_switch"]});
    assert_eq!(socket.ask(&none).await["op"], "subscribed");
    for n in 0..5 {
        taken(&world, n).await;
    }
    until("the replica has everything", || length(&replica) == ":5");
    replica.kill();
    for n in 5..8 {
        taken(&world, n).await;
    }
    let mut lost = None;
    for n in 0..8 {
        let block = live.next().await.unwrap();
        assert_eq!(block.json()["data"]["n"], n);
        lost = Some(block.id);
    }
    primary.kill();
    replica.again();
    taken(&world, 8).await;
    let found = Instant::now();
    let gap = live.next().await.unwrap();
    assert_eq!((gap.event.as_str(), &gap.json()["reason"]), ("gap", &json!("failover")));
    for live in &mut idle {
        let gap = live.next().await.unwrap();
        assert_eq!((gap.event.as_str(), &gap.json()["reason"]), ("gap", &json!("failover")));
    }
    let gap = socket.text().await;
    assert_eq!(
        (&gap["op"], &gap["sub"], &gap["reason"]),
        (&json!("gap"), &json!("none"), &json!("failover"))
    );
    assert!(found.elapsed() < BEFORE_HEARTBEATS, "{:?}", found.elapsed());
    let next = [live.next().await.unwrap().json(), live.next().await.unwrap().json()];
    assert_eq!((&next[0]["seq"], &next[1]["seq"]), (&json!(9), &json!(10)));
    assert!(
        next.iter().any(|event| event["event_type"] == "stream_gap" && event["data"]["upto_seq"].as_u64() >= Some(8)),
        "{next:?}"
    );
    stored(&world, [0, 1, 2, 3, 4, 8].into_iter()).await;
    // Who resumes behind an event that was lost is told of it, who begins or resumes behind the loss is not.
    let comes = async |headers: &str, n: u64| {
        let mut stream = world.admin().stream("GET", "/events/stream", headers).await;
        taken(&world, n).await;
        stream.next().await.unwrap()
    };
    let resumed = comes(&format!("last-event-id: {}\r\n", lost.unwrap()), 9).await;
    assert_eq!((resumed.event.as_str(), &resumed.json()["reason"]), ("gap", &json!("failover")));
    let behind = format!("last-event-id: {}\r\n", next[1]["message_id"].as_str().unwrap());
    for (headers, n) in [(behind.as_str(), 10), ("", 11)] {
        assert_ne!(comes(headers, n).await.event, "gap", "{headers}");
    }
    // What was lost can be published again.
    assert_eq!(taken(&world, 5).await["duplicate"], false);
    assert_eq!(taken(&world, 0).await["duplicate"], true);
}

/// Three nodes that share the slots, and a replica of the one that has the stream's.
fn cluster() -> (Vec<RedisServer>, usize) {
    let nodes: Vec<RedisServer> = (0..4).map(|_| RedisServer::cluster_node()).collect();
    let bus = |node: &RedisServer| {
        let setting = node.ask("CONFIG GET cluster-port");
        setting.lines().last().unwrap().trim().to_owned()
    };
    for node in &nodes[1..] {
        nodes[0].ask(&format!("CLUSTER MEET 127.0.0.1 {} {}", node.port, bus(node)));
    }
    for (node, (first, last)) in nodes.iter().zip([(0, 5460), (5461, 10922), (10923, 16383)]) {
        assert!(node.ask(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")).starts_with("+OK"));
    }
    let slot = nodes[0].ask("CLUSTER KEYSLOT tradpal_events");
    let slot: usize = slot.trim().trim_start_matches(':').parse().unwrap();
    let owner = [5460, 10922, 16383].iter().position(|last| slot <= *last).unwrap();
    let id = nodes[owner].ask("CLUSTER MYID");
    let id = id.lines().nth(1).unwrap().trim().to_owned();
    let agreed = |node: &RedisServer| {
        let info = node.ask("CLUSTER INFO");
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4")
    };
    until("the nodes know each other", || nodes.iter().take(3).all(agreed));
    // Told twice it would begin anew.
    until("the fourth one knows them", || {
        nodes[3].ask(&format!("CLUSTER REPLICATE {id}")).starts_with("+OK")
    });
    until("the replica follows", || {
        nodes.iter().all(agreed) && nodes[3].ask("INFO replication").contains("master_link_status:up")
    });
    (nodes, owner)
}

#[tokio::test]
async fn the_node_of_a_cluster_that_has_the_stream_is_found_also_after_a_failover() {
    let (mut nodes, owner) = cluster();
    let places: Vec<String> = nodes[..3].iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let world = world(&format!("redis+cluster://{}", places.join(",")));
    for n in 0..10 {
        taken(&world, n).await;
    }
    assert_eq!(length(&nodes[owner]), ":10");
    let side = r#"{"events":[EVENT],"atomic":true}"#.replace("EVENT", &event(10));
    assert_eq!(world.admin().post("/events/batch", &side).await.ok()["published"], 1);
    until("the replica has everything", || {
        nodes[3].ask("INFO replication").contains("master_link_status:up")
    });
    until("the replica has caught up", || {
        let offset = |node: &RedisServer, name: &str| {
            let info = node.ask("INFO replication");
            info.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned))
        };
        offset(&nodes[owner], "master_repl_offset:") == offset(&nodes[3], "slave_repl_offset:")
    });
    nodes[owner].kill();
    taken(&world, 11).await;
    assert_eq!(length(&nodes[3]), ":12");
    nodes[owner].again();
    taken(&world, 12).await;
    stored(&world, 0..13).await;
}
