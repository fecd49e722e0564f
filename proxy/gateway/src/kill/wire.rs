//! Switches on the event stream: own changes go out until they are delivered, those of other edges come in.
//!
//! Both ends are the event worker's: it lets roles alone publish `kill_switch`, and notes in `metadata.role`
//! which one did, whatever a publisher wrote there. A change of another role than edge and vault, one that its role may
//! not make ([`Change::may_be_of`]), or of a replay, is passed over; over Redis also one that is not sealed with the
//! shared key ([`super::seal`]). What arrives twice or late does nothing (`sluice_policy::kill_switch::book`), so an
//! edge reads its own changes too, and nothing it hears is told on.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use sluice_client::{Client, ClientError, SseEvent, SseStream};
use sluice_policy::kill_switch::Scope;
use sluice_policy::kill_switch::book::Change;
use sluice_wire::event::{EventType, NewEvent};
use sluice_wire::role::Role;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::desk::hear;
use super::seal::Belief;
use crate::state::Shared;

/// The type of the events.
const KIND: &str = "kill_switch";
/// LIMIT: how long one publish may take.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(2);
/// First pause before another try; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Own ONs are told again at this pace, for edges whose stream begins later.
const TOLD_AGAIN: Duration = Duration::from_secs(3_600);
/// A stream that was silent for so long is opened anew: nothing is lost by it.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Whether there is an event stream at all.
pub(super) fn is_there(shared: &Shared) -> bool {
    shared.workers.client(Role::Events).is_some()
}

/// Whether edges have no way to know each other: events are in Redis, and no key is configured.
pub(crate) fn is_unkeyed(shared: &Shared) -> bool {
    matches!(Belief::of(&shared.generation().config), Belief::Nobody)
}

/// Publishes one change; done when the stream has it. Where there is no stream there is nobody to tell.
pub(super) async fn publish(shared: &Shared, change: &Change) -> Result<(), ClientError> {
    let Some(client) = shared.workers.client(Role::Events) else { return Ok(()) };
    let event = event(change, &Belief::of(&shared.generation().config))?;
    timeout(PUBLISHED_WITHIN, client.publish(&event))
        .await
        .unwrap_or(Err(ClientError::Timeout(PUBLISHED_WITHIN)))
        .map(drop)
}

fn event(change: &Change, belief: &Belief) -> Result<NewEvent, ClientError> {
    let Value::Object(mut data) = serde_json::to_value(change).map_err(ClientError::Shape)? else {
        return Err(ClientError::TooLarge);
    };
    belief.seal(&mut data);
    Ok(NewEvent {
        event_type: EventType::parse(KIND).expect("a name of the catalogue"),
        event_id: Some(Uuid::now_v7()),
        timestamp: Some(Timestamp::now()),
        source: Role::Edge.as_str().to_owned(),
        data,
        metadata: Map::new(),
    })
}

/// Tells the stream of own ONs until it has them, for ever.
pub(crate) async fn tell(shared: Arc<Shared>) -> Infallible {
    if !is_there(&shared) {
        return std::future::pending().await;
    }
    let mut pause = PAUSE_MIN;
    let mut again = Instant::now() + TOLD_AGAIN;
    loop {
        let next = {
            let desk = shared.kill.desk();
            desk.untold.first().map(|scope| (scope.clone(), desk.book.own_hold(scope)))
        };
        match next {
            None => {
                tokio::select! {
                    () = shared.kill.untold.notified() => {}
                    () = tokio::time::sleep_until(again) => {
                        again = Instant::now() + TOLD_AGAIN;
                        shared.kill.desk().tell_again();
                    }
                }
            }
            Some((scope, None)) => drop(shared.kill.desk().untold.remove(&scope)),
            Some((scope, Some(change))) => match publish(&shared, &change).await {
                Ok(()) => {
                    pause = PAUSE_MIN;
                    shared.kill.desk().announced(&scope, change.epoch);
                    shared.kill.unsettled.notify_one();
                    shared.kill.told.send_modify(|count| *count += 1);
                }
                Err(error) => {
                    tracing::warn!(
                        component = "kill_switch",
                        error = &error as &dyn std::error::Error,
                        "the event stream has not taken a switch"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            },
        }
    }
}

/// Hears what other edges switch, for ever.
pub(crate) async fn follow(shared: Arc<Shared>) -> Infallible {
    let Some(client) = shared.workers.client(Role::Events) else { return std::future::pending().await };
    if is_unkeyed(&shared) {
        tracing::warn!(
            component = "kill_switch",
            "switches of other edges are not obeyed: events are in Redis and `kill_switch.secret` is not set"
        );
    }
    let mut pause = PAUSE_MIN;
    loop {
        let position = shared.kill.desk().position.clone();
        match open(&client, position.as_deref()).await {
            Ok(stream) => {
                pause = PAUSE_MIN;
                shared.kill.following.store(true, Ordering::Relaxed);
                read(&shared, stream).await;
                shared.kill.following.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(component = "kill_switch", error, "the event stream is not reached");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Opens the stream behind what was read, else at its beginning.
async fn open(client: &Client, position: Option<&str>) -> Result<SseStream, ClientError> {
    let path = match position {
        Some(_) => format!("/events/stream?event_type={KIND}"),
        None => format!("/events/stream?event_type={KIND}&from=earliest"),
    };
    client.stream(&path, position).await
}

/// Reads until the stream ends, breaks, is silent for long or is another one.
async fn read(shared: &Shared, mut stream: SseStream) {
    while let Ok(Ok(Some(event))) = timeout(SILENCE_MAX, stream.next()).await {
        match event.event.as_str() {
            KIND => take(shared, &event),
            "gap" if is_another(&event) => {
                // The place is not of this stream: it is read from its beginning.
                shared.kill.desk().position = None;
                return;
            }
            _ => {}
        }
    }
}

fn is_another(gap: &SseEvent) -> bool {
    let gap: Value = serde_json::from_str(&gap.data).unwrap_or_default();
    gap["reason"] == "unknown_position"
}

fn take(shared: &Shared, event: &SseEvent) {
    match understand(&event.data, &Belief::of(&shared.generation().config)) {
        Ok((scope, change)) => {
            if hear(shared, &scope, &change, event.id.as_deref()).is_err() {
                tracing::error!(
                    component = "kill_switch",
                    scope = scope.as_str(),
                    "no room for a switch of another edge"
                );
            }
        }
        Err(reason) => pass_over(shared, event.id.as_deref().unwrap_or_default(), reason),
    }
}

/// Counts an event that is not obeyed, and tells the log of one a second: whoever floods the stream is not to flood
/// that as well.
fn pass_over(shared: &Shared, id: &str, reason: &'static str) {
    static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
    shared.meters.kill_passed_over.with_label_values(&[reason]).inc();
    let now = Instant::now();
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.is_none_or(|at| now >= at + Duration::from_secs(1)) {
        *told = Some(now);
        tracing::warn!(component = "kill_switch", event = id, reason, "an event is not obeyed");
    }
}

/// The change that an event tells of, where an edge or a vault says so; a word says why it is passed over.
fn understand(data: &str, belief: &Belief) -> Result<(Scope, Change), &'static str> {
    let mut event: Value = serde_json::from_str(data).map_err(|_| "malformed")?;
    let role = event["metadata"]["role"].as_str().and_then(|role| role.parse::<Role>().ok());
    let Some(role @ (Role::Edge | Role::Vault)) = role else { return Err("not_an_edge") };
    if event["metadata"]["replay"] == true {
        return Err("replay");
    }
    let Value::Object(mut data) = event["data"].take() else { return Err("malformed") };
    belief.check(role, &mut data)?;
    let change: Change = serde_json::from_value(Value::Object(data)).map_err(|_| "malformed")?;
    if !change.is_sound() {
        return Err("malformed");
    }
    let scope = Scope::of(&change).map_err(|_| "malformed")?;
    if !change.may_be_of(role) {
        return Err("not_its_own");
    }
    Ok((scope, change))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_edges_and_a_vaults_own_words_count() {
        let change = json!({
            "scope": "service", "target": "orders", "on": true, "cancel_lane_open": true, "reason": "r", "by": "ops",
            "at_ms": 1, "since_ms": 1, "edge": "00000000000000ab", "epoch": 7, "seen": {},
        });
        let event = |metadata: Value, data: &Value| {
            let text = json!({"event_type": KIND, "data": data, "metadata": metadata}).to_string();
            understand(&text, &Belief::Worker)
        };
        let (scope, heard) = event(json!({"role": "edge"}), &change).unwrap();
        assert_eq!((scope, heard.epoch), (Scope::Service("orders".into()), 7));
        for metadata in [
            json!({}),
            json!({"role": "calc"}),
            json!({"role": "demo"}),
            json!({"role": ["edge"]}),
            json!(null),
        ] {
            assert_eq!(event(metadata, &change).unwrap_err(), "not_an_edge");
        }
        assert_eq!(event(json!({"role": "edge", "replay": true}), &change).unwrap_err(), "replay");
        assert_eq!(event(json!({"role": "vault"}), &change).unwrap_err(), "not_its_own");
        let mut vaults = change.clone();
        vaults["edge"] = "7661756c00000001".into();
        assert_eq!(event(json!({"role": "vault"}), &vaults).unwrap().1.epoch, 7);
        assert_eq!(event(json!({"role": "edge"}), &vaults).unwrap_err(), "not_its_own");
        assert_eq!(event(json!({"role": "calc"}), &vaults).unwrap_err(), "not_an_edge");
        assert_eq!(event(json!({"role": "vault", "replay": true}), &vaults).unwrap_err(), "replay");
        let mut odd = change.clone();
        odd["scope"] = "some".into();
        assert_eq!(event(json!({"role": "edge"}), &odd).unwrap_err(), "malformed");
        assert!(event(json!({"role": "edge"}), &json!({"scope": "all"})).is_err());
        assert!(understand("{", &Belief::Worker).is_err());
        assert_eq!(understand(r#"{"metadata":{"role":"edge"}}"#, &Belief::Worker).unwrap_err(), "malformed");
    }
}
