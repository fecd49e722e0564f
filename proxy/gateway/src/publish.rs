//! What the edge tells the event stream: changes of breakers (with metric and log line), of the configuration and of
//! what is registered.
//!
//! Events go through a bounded queue to one task that publishes them; a full queue drops the event and
//! counts it. Nothing that decides about requests ever waits here.

use std::sync::Arc;

use jiff::Timestamp;
use prometheus::IntCounter;
use serde_json::{Map, Value, json};
use sluice_client::Client;
use sluice_policy::breaker::{State, Transition};
use sluice_policy::kill_switch::book::EdgeId;
use sluice_policy::registry::Registration;
use sluice_wire::event::{EventType, NewEvent};
use sluice_wire::role::Role;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::clock;
use crate::generation::Generation;
use crate::reload::{ReloadError, Reloaded};
use crate::upstream::{BreakerWatch, Upstream};

/// LIMIT: events that wait for the event worker.
const QUEUE: usize = 256;
/// Tries to publish one event.
const TRIES: u32 = 5;

/// LIMIT: characters of the reason why a configuration was refused.
const ERROR_MAX: usize = 1_000;

/// Tells what changes.
pub(crate) struct Announcer {
    queue: mpsc::Sender<NewEvent>,
    dropped: IntCounter,
}

/// What waits to be published.
pub(crate) struct Outbox(mpsc::Receiver<NewEvent>);

impl Announcer {
    /// An announcer and its outbox.
    pub(crate) fn new(dropped: IntCounter) -> (Arc<Self>, Outbox) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Arc::new(Self { queue, dropped }), Outbox(waiting))
    }

    /// A configuration came into force, or was refused and the one before it stays.
    pub(crate) fn configured(
        &self,
        edge: EdgeId,
        trigger: &str,
        present: &Generation,
        result: Result<&Reloaded, &ReloadError>,
    ) {
        let mut data = json!({
            "result": if result.is_ok() { "applied" } else { "refused" },
            "edge": edge.to_string(),
            "trigger": trigger,
            "generation": present.number,
            "hash": present.hash,
        });
        match result {
            // How many, not which: a change may name what not every reader of events is to see.
            Ok(done) => {
                data["changes"] = done.changes.len().into();
                data["restart"] = json!(done.restart);
            }
            Err(error) => {
                data["error"] = error.to_string().chars().take(ERROR_MAX).collect::<String>().into();
            }
        }
        self.say("config_changed", Timestamp::now(), data);
    }

    /// A service registered itself, or is registered otherwise now; `status` says which.
    pub(crate) fn registered(&self, edge: EdgeId, status: &str, by: &str, registration: &Registration) {
        let instances: Vec<String> =
            registration.instances.iter().map(|instance| instance.url.to_string()).collect();
        let data = json!({
            "service": registration.name,
            "prefix": registration.prefix,
            "instances": instances,
            "status": status,
            "by": by,
            "edge": edge.to_string(),
        });
        self.say("service_registered", Timestamp::now(), data);
    }

    /// A service is registered no more: by whom, or because its lease ended.
    pub(crate) fn deregistered(&self, edge: EdgeId, service: &str, by: Option<&str>) {
        let data = json!({
            "service": service,
            "reason": if by.is_some() { "asked" } else { "lease_ended" },
            "by": by,
            "edge": edge.to_string(),
        });
        self.say("service_deregistered", Timestamp::now(), data);
    }

    /// Never waits: what the outbox has no room for is dropped and counted.
    fn say(&self, kind: &str, at: Timestamp, data: Value) {
        let (Ok(event_type), Value::Object(data)) = (EventType::parse(kind), data) else { return };
        let event = NewEvent {
            event_type,
            event_id: Some(Uuid::now_v7()),
            timestamp: Some(at),
            source: Role::Edge.as_str().to_owned(),
            data,
            metadata: Map::new(),
        };
        if self.queue.try_send(event).is_err() {
            self.dropped.inc();
        }
    }
}

impl BreakerWatch for Announcer {
    fn moved(&self, upstream: &Upstream, transition: Transition) {
        let (from, to, reason) =
            (transition.from.as_str(), transition.to.as_str(), transition.reason.as_str());
        upstream.meters.breaker_state.set(transition.to.gauge().into());
        upstream.meters.breaker_moved(to);
        let service = upstream.name.as_str();
        if matches!(transition.to, State::Open | State::ForcedOpen) {
            tracing::warn!(component = "breaker", service, from, to, reason, "breaker opened");
        } else {
            tracing::info!(component = "breaker", service, from, to, reason, "breaker changed");
        }
        let data = json!({ "service": service, "from": from, "to": to, "state": to, "reason": reason });
        self.say("circuit_breaker_state", clock::wall(transition.at), data);
    }
}

impl Outbox {
    /// Publishes what comes, for ever. An event is tried a few times, then dropped and counted: its id
    /// makes a repeat harmless.
    pub(crate) async fn run(mut self, client: Option<Client>, dropped: IntCounter) {
        while let Some(event) = self.0.recv().await {
            let mut published = false;
            for attempt in 1..=TRIES {
                let Some(client) = &client else { break };
                if client.publish(&event).await.is_ok() {
                    published = true;
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(200) * attempt).await;
            }
            if !published {
                dropped.inc();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_dropped_and_counted() {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let (announcer, outbox) = Announcer::new(dropped.clone());
        for _ in 0..QUEUE + 3 {
            announcer.deregistered(EdgeId(7), "signals", None);
        }
        assert_eq!((dropped.get(), outbox.0.len()), (3, QUEUE));
    }
}
