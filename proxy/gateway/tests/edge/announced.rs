//! What the edge tells the event stream: configurations and registrations.

use serde_json::{Value, json};
use sluice_wire::role::Role;

use crate::harness::{Edge, Setup, Upstream, edge_for, eventually, ok, reply, service};

/// An event worker that takes everything.
fn stored(_: &crate::harness::Seen, wire: &mut dyn crate::harness::Wire) -> bool {
    let body = json!({"message_id": "1-0", "event_id": "018f3e5a-7c1e-7b5a-8c1e-7b5a8c1e7b5a", "status": "published",
        "durability": "fsync", "duplicate": false});
    wire.write_all(reply("200 OK", &body.to_string()).as_bytes()).is_ok()
}

/// What the worker was given of a type, in order.
fn told(events: &Upstream, kind: &str) -> Vec<Value> {
    let seen = events.seen().into_iter().filter(|seen| seen.line().starts_with("POST /events "));
    let all = seen.map(|seen| serde_json::from_slice::<Value>(&seen.body).unwrap());
    all.filter(|event| event["event_type"] == kind).map(|mut event| event["data"].take()).collect()
}

fn reload(edge: &Edge) -> u16 {
    let token = edge.issuer.token("control:write");
    edge.admin("POST", "/admin/reload", Some(&token), None).status
}

#[test]
fn configurations_are_told_applied_and_refused() {
    let upstream = Upstream::start(ok);
    let mut setup = Setup::new("");
    let events = Upstream::start_unix(&setup.door(Role::Events), stored);
    let edge = setup.service("api", &service("api", "/api", &[upstream.url()], "")).start();
    let file = edge.conf.join("services.d/api.toml");
    let whole = |more: &str| service("api", "/api", &[upstream.url()], more);
    std::fs::write(&file, whole("rate_limit = 7\n")).unwrap();
    // The watcher may have been first, then this one changes nothing more.
    assert_eq!(reload(&edge), 200);
    let first = eventually("the first is told", || told(&events, "config_changed").into_iter().next());
    assert_eq!(first["result"], "applied", "{first}");
    assert_eq!((&first["generation"], &first["changes"]), (&json!(2), &json!(1)));
    assert!(first["hash"].as_str().is_some_and(|hash| !hash.is_empty()), "{first}");
    assert!(first.get("error").is_none(), "{first}");

    std::fs::write(&file, whole("rate_limt = 8\n")).unwrap();
    assert_eq!(reload(&edge), 422);
    let refused = eventually("the refusal is told", || {
        told(&events, "config_changed").into_iter().find(|data| data["result"] == "refused")
    });
    assert!(refused["error"].as_str().unwrap().contains("rate_limt"), "{refused}");
    assert_eq!((&refused["generation"], &refused["hash"]), (&json!(2), &first["hash"]), "the old one stays");
    assert_eq!(refused["edge"], first["edge"]);
    assert_eq!(refused["edge"].as_str().unwrap().len(), 16, "{refused}");
}

#[test]
fn registrations_are_told_when_they_change_something() {
    let [upstream, second] = [Upstream::start(ok), Upstream::start(ok)];
    let mut setup = Setup::new("");
    let events = Upstream::start_unix(&setup.door(Role::Events), stored);
    let edge = setup.service("api", &service("api", "/api", &[upstream.url()], "")).start();
    let token = edge.issuer.token("registry:write");
    let register = |body: &Value| edge.call("POST", "/api/register", &token, body).status;
    let body = json!({"name": "signals", "url": second.url(), "prefix": "/signals", "auth_required": false});
    assert_eq!((register(&body), register(&body)), (201, 201), "a repeat renews");
    let mut other = body.clone();
    other["rate_limit"] = json!(5);
    assert_eq!(register(&other), 201);
    let short = json!({"name": "brief", "url": second.url(), "prefix": "/brief", "ttl": 1});
    assert_eq!(register(&short), 201);
    assert_eq!(edge.call("DELETE", "/api/register/signals", &token, &json!({})).status, 200);
    let gone = eventually("the ends are told", || {
        let gone = told(&events, "service_deregistered");
        (gone.len() == 2).then_some(gone)
    });
    let words = |data: &Value| format!("{} {}", data["service"], data["reason"]).replace('"', "");
    assert_eq!(gone.iter().map(words).collect::<Vec<_>>(), ["signals asked", "brief lease_ended"]);
    let made = told(&events, "service_registered");
    let words = |data: &Value| format!("{} {}", data["service"], data["status"]).replace('"', "");
    assert_eq!(
        made.iter().map(words).collect::<Vec<_>>(),
        ["signals registered", "signals replaced", "brief registered"]
    );
    assert_eq!(made[0]["instances"], json!([second.url()]));
    assert_eq!((&made[0]["prefix"], &made[0]["by"]), (&json!("/signals"), &gone[0]["by"]));
}

#[test]
fn an_event_worker_that_is_away_delays_nothing() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    assert_eq!(reload(&edge), 200);
    let token = edge.issuer.token("registry:write");
    let body =
        json!({"name": "signals", "url": upstream.url(), "prefix": "/signals", "auth_required": false});
    assert_eq!(edge.call("POST", "/api/register", &token, &body).status, 201);
    assert_eq!(edge.get("/signals").status, 200);
    eventually("what nobody takes is counted", || {
        let metrics = edge.get("/metrics").text();
        let dropped = metrics.lines().find_map(|line| line.strip_prefix("sluice_edge_events_dropped_total "));
        dropped.filter(|count| *count == "2").map(drop)
    });
}
