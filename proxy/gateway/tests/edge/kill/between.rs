//! Switches between edges: over the event stream, within a second, and by edges alone.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_wire::role::Role;

use super::hub::Hub;
use super::{OPEN, listed, off, on, post};
use crate::harness::{Edge, Setup, Upstream, eventually, ok, service};

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
    let mut setup = setup(upstream);
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
