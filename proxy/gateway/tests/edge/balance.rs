//! Which instance takes a request, with real ones: algorithms, keys, zones, slow start.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Client, Edge, Setup, Upstream, eventually, ok, reply, service};
use crate::tunnel::{Raw, asking, echo, switched};

/// Instances that answer with their own number.
fn numbered(count: usize) -> Vec<Upstream> {
    let one = |n: usize| {
        Upstream::start(move |_, wire| wire.write_all(reply("200 OK", &n.to_string()).as_bytes()).is_ok())
    };
    (0..count).map(one).collect()
}

fn urls(upstreams: &[Upstream]) -> Vec<String> {
    upstreams.iter().map(Upstream::url).collect()
}

fn edge_at(upstreams: &[Upstream], more: &str) -> Edge {
    let text =
        service("api", "/api", &urls(upstreams), &format!("auth_required = false\nrate_limit = 0\n{more}"));
    Setup::new("").service("api", &text).start()
}

/// The number of the instance that answers.
fn asked(edge: &Edge, fields: &str) -> usize {
    let answer = edge.send(&format!("GET /api HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n{fields}\r\n"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().parse().unwrap()
}

fn hits(edge: &Edge, of: usize, count: usize) -> Vec<usize> {
    let mut hits = vec![0; of];
    (0..count).for_each(|_| hits[asked(edge, "")] += 1);
    hits
}

pub fn instances(edge: &Edge) -> Vec<Value> {
    edge.get("/services").json()["services"][0]["instances"].as_array().unwrap().clone()
}

pub fn states(edge: &Edge) -> Vec<String> {
    instances(edge).iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect()
}

/// Waits until an instance has this state.
pub fn await_state(edge: &Edge, index: usize, state: &str) {
    eventually(&format!("instance {index} is {state}"), || (states(edge)[index] == state).then_some(()));
}

/// Probes that find out at once.
pub const KEEN: &str = "health = { interval = \"100ms\", timeout = \"90ms\", healthy = 1, unhealthy = 1 }";

#[test]
fn random_by_weight_reaches_everybody() {
    let upstreams = numbered(3);
    let edge = edge_at(&upstreams, "balance = \"weighted\"");
    let hits = hits(&edge, 3, 150);
    // Within five standard deviations of 50.
    assert!(hits.iter().all(|hit| (21..=79).contains(hit)), "{hits:?}");
}

#[test]
fn peak_ewma_leaves_the_slow_one_alone() {
    let slow = Upstream::start(|_, wire| {
        std::thread::sleep(Duration::from_millis(60));
        wire.write_all(reply("200 OK", "0").as_bytes()).is_ok()
    });
    let quick = Upstream::start(|_, wire| wire.write_all(reply("200 OK", "1").as_bytes()).is_ok());
    let edge = edge_at(&[slow, quick], "balance = \"peak_ewma\"");
    let hits = hits(&edge, 2, 60);
    // A stall of the machine makes the quick one look slow for a while.
    assert!(hits[0] <= 15, "{hits:?}");
    let ewma = |index: usize| instances(&edge)[index]["ewma_ms"].as_f64();
    assert!(ewma(1).is_some_and(|ms| ms > 0.0 && ms < 60.0), "{:?}", ewma(1));
    assert!(hits[0] == 0 || ewma(0).is_some_and(|ms| ms >= 50.0), "{:?}", ewma(0));
}

#[test]
fn a_quick_refusal_draws_no_requests() {
    let bad =
        Upstream::start(|_, wire| wire.write_all(reply("503 Service Unavailable", "0").as_bytes()).is_ok());
    let slow = Upstream::start(|_, wire| {
        std::thread::sleep(Duration::from_millis(20));
        wire.write_all(reply("200 OK", "1").as_bytes()).is_ok()
    });
    // Neither retry, nor ejection, nor breaker: the balancer alone.
    let edge = edge_at(
        &[bad, slow],
        "balance = \"peak_ewma\"\nretry = { attempts = 1 }\noutlier = { consecutive = 1000 }\n\
         breaker = { failure_threshold = 1000, failure_rate = 1.0, slow_rate = 1.0 }",
    );
    let refused = (0..60).filter(|_| edge.get("/api").status == 503).count();
    assert!(refused <= 6, "{refused}");
}

#[test]
fn a_hashed_header_always_finds_the_same_instance() {
    let upstreams = numbered(4);
    let edge = edge_at(
        &upstreams,
        &format!("balance = \"hash\"\nhash_on = \"header:X-Desk\"\nslow_start = \"0s\"\n{KEEN}"),
    );
    let of = |desk: usize| asked(&edge, &format!("x-desk: {desk}\r\n"));
    let first: Vec<usize> = (0..64).map(of).collect();
    assert_eq!((0..64).map(of).collect::<Vec<_>>(), first);
    assert!((0..4).all(|one| first.contains(&one)), "{first:?}");
    // Who goes takes its own keys along and no others, and gets them back.
    upstreams[1].answer_probes(false);
    await_state(&edge, 1, "unhealthy");
    for (desk, was) in first.iter().enumerate() {
        let is = of(desk);
        assert!(is != 1 && (*was == 1 || is == *was), "{desk}: {was} {is}");
    }
    upstreams[1].answer_probes(true);
    await_state(&edge, 1, "healthy");
    assert_eq!((0..64).map(of).collect::<Vec<_>>(), first);
    // Without the field the address decides.
    let by_address = asked(&edge, "");
    assert!((0..6).all(|_| asked(&edge, "") == by_address));
}

#[test]
fn an_account_sticks_to_its_instance_while_that_is_there() {
    let upstreams = numbered(3);
    let text = |weights: [u32; 3]| {
        let mut text =
            format!("[[service]]\nname = \"api\"\nprefix = \"/api\"\nbalance = \"sticky\"\n{KEEN}\n");
        for (upstream, weight) in upstreams.iter().zip(weights) {
            text.push_str(&format!(
                "[[service.instance]]\nurl = \"{}\"\nweight = {weight}\n",
                upstream.url()
            ));
        }
        text
    };
    let edge = Setup::new("").service("api", &text([1, 1, 1])).start();
    let tokens: Vec<String> = (0..48).map(|n| edge.issuer.token_of(&format!("trader-{n}"), "read")).collect();
    let of = |token: &String| asked(&edge, &format!("Authorization: Bearer {token}\r\n"));
    let all = || tokens.iter().map(of).collect::<Vec<usize>>();
    let first = all();
    assert!((0..3).all(|one| first.contains(&one)), "{first:?}");
    assert_eq!(all(), first);
    // A changed weight moves nobody.
    std::fs::write(edge.conf.join("services.d/api.toml"), text([1, 50, 1])).unwrap();
    eventually("the weight has changed", || (instances(&edge)[1]["weight"] == 50).then_some(()));
    assert_eq!(all(), first);
    // A lost instance does, and its accounts stay where they went.
    upstreams[0].answer_probes(false);
    await_state(&edge, 0, "unhealthy");
    let moved = all();
    assert!(moved.iter().zip(&first).all(|(is, was)| *is != 0 && (*was == 0 || is == was)), "{moved:?}");
    upstreams[0].answer_probes(true);
    await_state(&edge, 0, "healthy");
    assert_eq!(all(), moved);
}

#[test]
fn accounts_are_the_claim_before_the_subject() {
    let upstreams = numbered(4);
    let text = service("api", "/api", &urls(&upstreams), "balance = \"hash\"");
    let edge = Setup::new("").service("api", &text).start();
    let now = jiff::Timestamp::now().as_second();
    let of = |sub: &str, account: &str| {
        let token = edge.issuer.sign(&serde_json::json!({
            "iss": "https://sluice.internal", "sub": sub, "account": account, "aud": ["sluice"],
            "jti": sub, "iat": now - 1, "exp": now + 600, "scope": "read",
        }));
        asked(&edge, &format!("Authorization: Bearer {token}\r\n"))
    };
    let desk: Vec<usize> = (0..8).map(|n| of(&format!("trader-{n}"), "desk-7")).collect();
    assert!(desk.iter().all(|one| *one == desk[0]), "{desk:?}");
    let apart: Vec<usize> = (0..12).map(|n| of("trader-1", &format!("desk-{n}"))).collect();
    assert!(apart.iter().any(|one| *one != apart[0]), "{apart:?}");
}

#[test]
fn open_streams_and_tunnels_count_as_load() {
    for tunnel in [false, true] {
        let serve = move |head: &str, socket: &mut std::net::TcpStream| {
            if head.contains("/stream") {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                let _left = socket.write_all(format!("{head}7\r\ndata: \n\r\n").as_bytes());
                echo(socket);
            } else if head.contains("Upgrade") || head.contains("upgrade") {
                let _left = socket.write_all(switched(head).as_bytes());
                echo(socket);
            } else {
                // Each connection serves one request: one that was kept would fail and be tried at the other.
                let closing = reply("200 OK", "ok").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
                let _left = socket.write_all(closing.as_bytes());
            }
        };
        let [one, two] = [Raw::start(serve), Raw::start(serve)];
        let urls = [&one, &two].map(|raw| format!("http://{}", raw.address));
        let more = "auth_required = false\nbalance = \"least_connections\"";
        let edge = Setup::new("").service("api", &service("api", "/api", &urls, more)).start();
        let mut client = edge.connect();
        if tunnel {
            assert_eq!(client.exchange(&asking("/api/ws", "")).status, 101);
        } else {
            client.send("GET /api/stream HTTP/1.1\r\nHost: edge\r\n\r\n");
            assert!(client.read_until("data: ").contains("200 OK"));
        }
        let busy =
            || instances(&edge).iter().map(|one| one["in_flight"].as_u64().unwrap()).collect::<Vec<_>>();
        assert_eq!(busy().iter().sum::<u64>(), 1, "{:?}", busy());
        let (loaded, idle) = if busy()[0] == 1 { (&one, &two) } else { (&two, &one) };
        for _ in 0..8 {
            assert_eq!(edge.get("/api").text(), "ok");
        }
        assert_eq!((loaded.heads().len(), idle.heads().len()), (1, 8), "tunnel: {tunnel}");
        drop(client);
        eventually("its place is free", || (busy() == [0, 0]).then_some(()));
    }
}

#[test]
fn the_own_zone_is_preferred_and_spills_over() {
    let upstreams = numbered(3);
    let mut text = format!(
        "[[service]]\nname = \"api\"\nprefix = \"/api\"\nauth_required = false\nrate_limit = 0\n{KEEN}\n"
    );
    text.push_str("slow_start = \"0s\"\npanic_threshold = 0.0\n");
    for (upstream, zone) in upstreams.iter().zip(["a", "a", "b"]) {
        text.push_str(&format!("[[service.instance]]\nurl = \"{}\"\nzone = \"{zone}\"\n", upstream.url()));
    }
    let edge = Setup::new("[edge]\nthreads = 2\nzone = \"a\"\n").service("api", &text).start();
    assert_eq!(hits(&edge, 3, 20), [10, 10, 0]);
    upstreams[0].answer_probes(false);
    await_state(&edge, 0, "unhealthy");
    // Half a zone carries seven tenths.
    let half = hits(&edge, 3, 100);
    assert!(half[0] == 0 && (68..=72).contains(&half[1]), "{half:?}");
    upstreams[1].answer_probes(false);
    await_state(&edge, 1, "unhealthy");
    assert_eq!(hits(&edge, 3, 10), [0, 0, 10]);
    let listed = edge.admin("GET", "/admin/upstreams", None, None).json();
    assert_eq!((&listed["zone"], &listed["services"][0]["instances"][2]["zone"]), (&"a".into(), &"b".into()));
}

#[test]
fn an_instance_that_is_back_takes_up_its_share_slowly() {
    for (slow_start, due) in [("60s", 1..=6), ("0s", 19..=21)] {
        let upstreams = numbered(2);
        let edge = edge_at(&upstreams, &format!("slow_start = \"{slow_start}\"\n{KEEN}"));
        // At the start of the edge nobody is slow.
        assert_eq!(hits(&edge, 2, 20), [10, 10], "{slow_start}");
        upstreams[1].answer_probes(false);
        await_state(&edge, 1, "unhealthy");
        assert_eq!(hits(&edge, 2, 10), [10, 0]);
        upstreams[1].answer_probes(true);
        await_state(&edge, 1, "healthy");
        let hits = hits(&edge, 2, 40);
        assert!(due.contains(&hits[1]), "{slow_start} {hits:?}");
    }
}

#[test]
fn a_try_at_another_instance_is_made_whatever_the_algorithm() {
    for balance in ["round_robin", "weighted", "least_connections", "peak_ewma", "hash", "sticky"] {
        let good = Upstream::start(ok);
        let bad = Upstream::start(|_, _| false);
        let edge = edge_at(
            &[bad, good],
            &format!(
                "balance = \"{balance}\"\noutlier = {{ consecutive = 1000 }}\nretry = {{ attempts = 2, budget = 1.0, min_per_second = 1000 }}"
            ),
        );
        let mut client: Client = edge.connect();
        for n in 0..6 {
            let answer = client.exchange(&format!("GET /api/{n} HTTP/1.1\r\nHost: edge\r\n\r\n"));
            assert_eq!(answer.status, 200, "{balance}: {}", answer.text());
        }
    }
}
