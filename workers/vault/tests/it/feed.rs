//! The feed, and the events that follow from what happens.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::routing::post;
use serde_json::{Value, json};
use sluice_http::{Component, HealthSource, StrictJson};
use sluice_wire::event::NewEvent;
use sluice_wire::role::Role;

use crate::harness::{PATIENCE, Setup, Vault};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_get_a_snapshot_and_every_change_after_it() {
    let vault = Vault::start().await;
    let mut feed = vault.follow(&vault.proof(Role::Edge)).await;
    let snapshot = feed.event("snapshot").await;
    assert_eq!(snapshot["jwks"].as_array().unwrap().len(), 2);
    feed.event("heartbeat").await;

    let bot = vault.token("bot", &["read"]).await;
    let began = Instant::now();
    vault.call("POST", "/tokens/revoke", None, &json!({ "token": bot }).to_string()).await;
    let first = feed.event("delta").await;
    assert!(began.elapsed().as_millis() < 1_000, "a revocation reaches followers within a second");
    assert_eq!(first["change"]["kind"], "jti");
    assert_eq!(first["seq"].as_u64(), snapshot["seq"].as_u64().map(|seq| seq + 1));
    assert_eq!(first["epoch"], snapshot["epoch"]);

    let serial = vault.as_admin("POST", "/credentials/bot", "").await.json()["serial_number"].clone();
    vault.as_admin("POST", "/credentials/bot/revoke", "").await;
    let second = feed.event("delta").await;
    // The serial alone: what is told does not grow with what was told before.
    assert_eq!(second["change"], json!({ "kind": "serial", "serial": serial }));

    let resumed = format!("{}last-event-id: {}\r\n", vault.proof(Role::Calc), first["seq"]);
    assert_eq!(vault.follow(&resumed).await.event("delta").await, second, "only what was missed");
    let stranger = format!("{}last-event-id: 5\r\n", vault.proof(Role::Calc));
    let whole = vault.follow(&stranger).await.event("snapshot").await;
    assert_eq!(whole["revoked"]["serial"], json!([serial]));
    assert_eq!(whole["seq"], second["seq"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feed_is_for_roles_only() {
    let vault = Vault::start().await;
    for path in ["/internal/feed", "/internal/certificates"] {
        vault.as_admin("GET", path, "").await.is(404, "not_found");
        vault.call("GET", path, None, "").await.is(404, "not_found");
        vault.internal("GET", path, "", "").await.is(401, "invalid_token");
        vault.via_edge("admin", "admin", "GET", path).await.is(404, "not_found");
    }
    vault.as_admin("POST", "/credentials/bot", "").await;
    let listed = vault.internal("GET", "/internal/certificates", &vault.proof(Role::Edge), "").await.json();
    let names: Vec<&Value> =
        listed["certificates"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    let names: Vec<_> = names.into_iter().filter(|name| *name != "vault").collect();
    assert_eq!(names, ["bot", "ca intermediate", "ca root"]);
}

struct Well;

impl HealthSource for Well {
    fn ready(&self) -> bool {
        true
    }

    fn components(&self) -> BTreeMap<String, Component> {
        BTreeMap::new()
    }
}

/// An event worker that keeps what it gets, on a socket that is bound when it starts.
fn events_at(socket: &std::path::Path, keys: sluice_http::InternalKeys) -> Arc<Mutex<Vec<NewEvent>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let routes = Router::new().route(
        "/events",
        post(async move |StrictJson(event): StrictJson<NewEvent>| {
            if !is_own(&event) {
                kept.lock().unwrap().push(event.clone());
            }
            axum_json(&json!({
                "message_id": "1-0", "event_id": event.event_id, "status": "published",
                "durability": "fsync", "duplicate": false,
            }))
        }),
    );
    let (start, stopper) = Setup::default().prepare(Role::Events, keys);
    start.doors().insert("internal", sluice_http::Listener::Unix(UnixListener::bind(socket).unwrap()));
    tokio::spawn(async move {
        let _serves_until_the_runtime_ends = stopper;
        sluice_http::serve(&start, routes, Arc::new(Well)).await.unwrap();
    });
    seen
}

/// Whether it tells of the certificate that the vault's own port has asked for.
fn is_own(event: &NewEvent) -> bool {
    let is = |name: &str, word: &str| event.data.get(name).is_some_and(|value| value == word);
    is("kind", "credential_issued") && is("service", "vault")
}

/// An event worker that takes batches, once it has refused the first few.
pub(crate) fn batches_at(
    socket: &std::path::Path,
    keys: sluice_http::InternalKeys,
    refusals: usize,
) -> Arc<Mutex<Vec<NewEvent>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let left = Arc::new(Mutex::new(refusals));
    let batch = async move |StrictJson(mut batch): StrictJson<BTreeMap<String, Vec<NewEvent>>>| {
        let mut left = left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return Err(sluice_http::Reject::new(sluice_wire::code::Code::Overloaded, "not now"));
        }
        kept.lock()
            .unwrap()
            .extend(batch.remove("events").unwrap().into_iter().filter(|event| !is_own(event)));
        Ok(axum_json(&json!({ "failed": 0 })))
    };
    let (start, stopper) = Setup::default().prepare(Role::Events, keys);
    start.doors().insert("internal", sluice_http::Listener::Unix(UnixListener::bind(socket).unwrap()));
    tokio::spawn(async move {
        let _serves_until_the_runtime_ends = stopper;
        let routes = Router::new().route("/events/batch", post(batch));
        sluice_http::serve(&start, routes, Arc::new(Well)).await.unwrap();
    });
    seen
}

fn axum_json(value: &Value) -> impl axum::response::IntoResponse + use<> {
    ([("content-type", "application/json")], value.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_events_wait_for_the_event_worker_and_arrive_in_order() {
    let setup = Setup::default();
    let socket = setup.dir.path().join("events.sock");
    let vault = Setup { events: Some(socket.clone()), ..setup }.start();
    vault.ready().await;
    // Nobody listens yet: nothing waits for it, nothing is lost.
    let bot = vault.token("bot", &["read"]).await;
    vault.as_admin("POST", "/credentials/bot", "").await;
    vault.call("POST", "/tokens/revoke", None, &json!({ "token": bot }).to_string()).await;
    let seen = events_at(&socket, vault.peer_keys());
    let began = Instant::now();
    let kinds = loop {
        let kinds: Vec<String> = seen
            .lock()
            .unwrap()
            .iter()
            .map(|event| event.data["kind"].as_str().unwrap().to_owned())
            .collect();
        if kinds.len() >= 2 {
            break kinds;
        }
        assert!(began.elapsed() < PATIENCE, "{kinds:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(kinds, ["credential_issued", "token_revoked"]);
    let first = seen.lock().unwrap()[0].clone();
    assert_eq!((first.event_type.as_str(), first.source.as_str()), ("security_event", "vault"));
    assert!(first.event_id.is_some());
}
