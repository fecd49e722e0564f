//! Switches between edges: over the event stream, within a second, and by edges alone.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_wire::role::Role;

use super::hub::Hub;
use super::{OPEN, listed, off, on, post};
use crate::harness::{Edge, RedisServer, Setup, Upstream, eventually, ok, service};
use crate::tunnel::metric;

/// LIMIT of the contract: from one edge to another.
const WITHIN: Duration = Duration::from_secs(1);

fn setup(upstream: &Upstream) -> Setup {
    Setup::new("").service("order", &service("order", "/order", &[upstream.url()], OPEN))
}

/// Edges on one event worker.
fn edges(upstream: &Upstream, count: usize) -> (Hub, Vec<Edge>) {
    let mut first = setup(upstream);
    let door = first.door(Role::Events);
    let hub = Hub::start(&door);
    let mut edges = vec![first.start()];
    for _ in 1..count {
        edges.push(beside(upstream, &edges[0]));
    }
    for edge in &edges {
        follows(edge);
    }
    (hub, edges)
}

/// One more edge on the worker of another.
fn beside(upstream: &Upstream, edge: &Edge) -> Edge {
    join(setup(upstream), edge)
}

fn join(mut setup: Setup, edge: &Edge) -> Edge {
    let door = setup.door(Role::Events);
    symlink(edge.data.parent().unwrap().join("events.sock"), &door).unwrap();
    setup.start()
}

fn follows(edge: &Edge) {
    eventually("it follows the stream", || (listed(edge)["following"] == true).then_some(()));
}

fn stopped(edge: &Edge) -> bool {
    post(edge, "/order", "").status == 503
}

#[test]
fn a_switch_reaches_the_other_edge_within_a_second_and_so_does_its_end() {
    let upstream = Upstream::start(ok);
    let (hub, edges) = edges(&upstream, 2);
    let mut took = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let done = on(&edges[0], "service", Some("order"));
        assert_eq!((&done["broadcast"], &done["persisted"]), (&json!("delivered"), &json!(true)));
        eventually("the other stops", || stopped(&edges[1]).then_some(()));
        took.push(begun.elapsed());
        let theirs = eventually("it is on the disk there", || {
            let one = listed(&edges[1])["switches"][0].clone();
            (one["persisted"] == true).then_some(one)
        });
        assert_eq!((&theirs["edge"], &theirs["by"]), (&listed(&edges[0])["edge"], &json!("operator")));
        // The other edge may take it back, having seen it.
        let begun = Instant::now();
        assert_eq!(off(&edges[1], "service", Some("order")).json()["changed"], true);
        eventually("the first goes on", || (!stopped(&edges[0])).then_some(()));
        took.push(begun.elapsed());
    }
    eprintln!("from one edge to the other: {took:?}");
    assert!(took.iter().all(|took| *took < WITHIN), "{took:?}");
    assert_eq!(hub.told().len(), 6, "nothing heard is told on");
    let log = std::fs::read_to_string(edges[1].data.join("audit/edge.jsonl")).unwrap();
    assert!(log.lines().any(|line| line.contains("kill_switch_on") && line.contains("[edge ")), "{log}");
}

/// An edge whose events are in Redis; `key`: what it shares with others.
fn on_redis(upstream: &Upstream, redis: &RedisServer, key: Option<&str>) -> Setup {
    let secret = key.map_or("", |_| "[kill_switch]\nsecret = \"env:EDGES_KEY\"\n");
    let mut setup = setup(upstream);
    setup.main = format!("[redis]\nurl = \"{}\"\n{secret}", redis.url());
    setup.environment.extend(key.map(|key| ("EDGES_KEY".to_owned(), key.to_owned())));
    setup
}

#[test]
fn over_redis_edges_obey_what_is_signed_with_their_key() {
    let (upstream, redis) = (Upstream::start(ok), RedisServer::start());
    let (ours, theirs) =
        ("one key that two edges share, and no more", "another key that is as long as theirs");
    let mut first = on_redis(&upstream, &redis, Some(ours));
    let hub = Hub::start(&first.door(Role::Events));
    let first = first.start();
    let [second, stranger, unkeyed] =
        [Some(ours), Some(theirs), None].map(|key| join(on_redis(&upstream, &redis, key), &first));
    for edge in [&first, &second, &stranger, &unkeyed] {
        follows(edge);
    }
    let begun = Instant::now();
    assert_eq!(on(&first, "service", Some("order"))["broadcast"], "delivered");
    eventually("the second stops", || stopped(&second).then_some(()));
    assert!(begun.elapsed() < WITHIN);
    // Of another key, of none, altered, and unsigned: who writes to Redis can write all that.
    assert_eq!(on(&stranger, "all", None)["broadcast"], "delivered");
    assert_eq!(on(&unkeyed, "symbol", Some("X"))["broadcast"], "unsigned");
    let mut altered = hub.told()[0].clone();
    altered["scope"] = "all".into();
    altered.as_object_mut().unwrap().remove("target");
    hub.publish(Some("edge"), &altered);
    altered.as_object_mut().unwrap().remove("mac");
    hub.publish(Some("edge"), &altered);
    let ignored = |edge: &Edge, reason: &str| {
        metric(edge, &format!("sluice_kill_switch_events_ignored_total{{reason=\"{reason}\"}}"))
    };
    for edge in [&first, &second] {
        eventually("all of it was looked at", || {
            (ignored(edge, "signature") == Some(2.0) && ignored(edge, "unsigned") == Some(2.0)).then_some(())
        });
        assert_eq!(listed(edge)["count"], 1);
    }
    eventually("nobody is believed without a key", || {
        (ignored(&unkeyed, "no_key") == Some(5.0)).then_some(())
    });
    assert!(!stopped(&unkeyed));
    assert_eq!(listed(&unkeyed)["switches"][0]["broadcast"], "unsigned");
    // The end of it is signed too; the same event once more changes nothing.
    assert_eq!(off(&second, "service", Some("order")).status, 200);
    eventually("the first goes on", || (!stopped(&first)).then_some(()));
    hub.publish(Some("edge"), &hub.told()[0]);
    assert_eq!(on(&second, "symbol", Some("Y"))["broadcast"], "delivered");
    eventually("what came behind it", || (listed(&first)["count"] == 1).then_some(()));
    assert!(!stopped(&first));
}

#[test]
fn what_no_edge_says_is_passed_over() {
    let upstream = Upstream::start(ok);
    let (hub, edges) = edges(&upstream, 1);
    let change = |scope: &str, epoch: u64| {
        json!({
            "scope": scope, "on": true, "cancel_lane_open": true, "reason": "forged", "by": "mallory",
            "at_ms": 1, "edge": "00000000000000aa", "epoch": epoch, "seen": {},
        })
    };
    for role in [None, Some("calc"), Some("vault"), Some("events"), Some("demo"), Some("supervisor")] {
        hub.publish(role, &change("all", 1));
    }
    hub.publish(Some("edge"), &json!({"scope": "all", "on": true}));
    hub.publish(Some("edge"), &change("some", 2));
    // What comes behind it is heard: all of it was looked at.
    let mut last = change("symbol", 3);
    last["target"] = "X".into();
    hub.publish(Some("edge"), &last);
    eventually("the last one", || (listed(&edges[0])["count"] == 1).then_some(()));
    assert_eq!(listed(&edges[0])["switches"][0]["target"], "X");
    assert!(!stopped(&edges[0]));
}

#[test]
fn a_vault_stops_too_and_takes_back_its_own_alone() {
    let upstream = Upstream::start(ok);
    let (hub, edges) = edges(&upstream, 1);
    let edge = &edges[0];
    let vaults = |on: bool, epoch: u64, seen: Value| {
        json!({
            "scope": "service", "target": "order", "on": on, "cancel_lane_open": true, "reason": "falco: shell at node-1",
            "by": "role/vault", "at_ms": 1, "since_ms": 1, "edge": "7661756c000000aa", "epoch": epoch, "seen": seen,
        })
    };
    hub.publish(Some("vault"), &vaults(true, 5, json!({})));
    eventually("it stops", || stopped(edge).then_some(()));
    let one = listed(edge)["switches"][0].clone();
    assert_eq!((&one["by"], &one["edge"]), (&json!("role/vault"), &json!("7661756c000000aa")));
    hub.publish(Some("vault"), &vaults(false, 6, json!({"7661756c000000aa": 5})));
    eventually("its time is over", || (!stopped(edge)).then_some(()));
    // Also an operator's: the vault's word does not end that, his ends both.
    hub.publish(Some("vault"), &vaults(true, 7, json!({})));
    eventually("it stops again", || stopped(edge).then_some(()));
    on(edge, "service", Some("order"));
    let own = listed(edge)["edge"].as_str().unwrap().to_owned();
    let mut greedy = vaults(false, 8, json!({"7661756c000000aa": 7}));
    greedy["seen"][&own] = (u64::MAX - 1).into();
    hub.publish(Some("vault"), &greedy);
    hub.publish(Some("vault"), &vaults(false, 8, json!({"7661756c000000aa": 7})));
    eventually("both were heard", || {
        let ignored = "sluice_kill_switch_events_ignored_total{reason=\"not_its_own\"}";
        let held = listed(edge)["switches"][0]["by"] == "operator";
        (metric(edge, ignored) == Some(1.0) && held).then_some(())
    });
    assert!(stopped(edge));
    hub.publish(Some("vault"), &vaults(true, 9, json!({})));
    eventually("a newer one", || {
        let log = std::fs::read_to_string(edge.data.join("audit/edge.jsonl")).unwrap();
        // His ON stands in the place of the one before, so that the OFF of that one changed nothing.
        (log.matches("[edge 7661756c000000aa]").count() == 4 && log.contains("role/vault")).then_some(())
    });
    assert_eq!(off(edge, "service", Some("order")).json()["changed"], true);
    assert!(!stopped(edge));
}

#[test]
fn what_could_not_be_told_is_told_when_the_worker_is_back() {
    let upstream = Upstream::start(ok);
    let (hub, mut edges) = edges(&upstream, 2);
    hub.set_down(true);
    eventually("they notice", || edges.iter().all(|edge| listed(edge)["following"] == false).then_some(()));
    let done = on(&edges[0], "all", None);
    assert_eq!((&done["persisted"], &done["broadcast"]), (&json!(true), &json!("pending")));
    let refused = off(&edges[0], "all", None);
    assert_eq!((refused.status, refused.code().as_str()), (503, "worker_unavailable"));
    assert!(stopped(&edges[0]) && !stopped(&edges[1]));
    // Meanwhile the other edge is switched as well, and neither has seen the other's.
    on(&edges[1], "all", None);
    hub.set_down(false);
    let told = |edge: &Edge| listed(edge)["switches"][0]["broadcast"] == "delivered";
    eventually("both are told", || edges.iter().all(told).then_some(()));
    eventually("both are heard", || {
        let both = |edge: &Edge| {
            edge.admin("GET", "/admin/kill-switch", None, None).text().matches("operator").count()
        };
        (hub.told().len() == 2 && edges.iter().all(|edge| both(edge) == 1)).then_some(())
    });
    follows(&edges[0]);
    // One OFF that has seen both ends both.
    eventually("off everywhere", || {
        let off = off(&edges[0], "all", None);
        (off.status == 200 && !stopped(&edges[0])).then_some(())
    });
    eventually("also there", || (!stopped(&edges[1])).then_some(()));
    drop(edges.pop());
}

#[test]
fn an_edge_that_comes_later_hears_everything_and_reads_on_from_its_place() {
    let upstream = Upstream::start(ok);
    let (hub, edges) = edges(&upstream, 1);
    on(&edges[0], "account", Some("alice"));
    on(&edges[0], "service", Some("order"));
    on(&edges[0], "symbol", Some("X"));
    assert_eq!(off(&edges[0], "account", Some("alice")).status, 200);
    let late = beside(&upstream, &edges[0]);
    eventually("it has heard all", || {
        let list = listed(&late);
        (list["count"] == 2
            && list["switches"].as_array().unwrap().iter().all(|one| one["persisted"] == true))
        .then_some(())
    });
    assert!(stopped(&late));
    hub.set_down(true);
    eventually("the stream is lost", || (listed(&late)["following"] == false).then_some(()));
    hub.set_down(false);
    follows(&late);
    let opened: Vec<Option<String>> = hub.opened();
    assert!(opened.contains(&Some("4-0".to_owned())), "{opened:?}");
    // What it was told stays although the stream begins anew.
    let before: Value = listed(&late)["switches"].clone();
    assert_eq!(before.as_array().unwrap().len(), 2);
}
