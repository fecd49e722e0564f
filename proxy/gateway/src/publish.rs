//! Changes of breakers, told: metric, log line, event.
//!
//! Events go through a bounded queue to one task that publishes them; a full queue drops the event and
//! counts it. Nothing that decides about requests ever waits here.

use std::sync::Arc;

use prometheus::IntCounter;
use serde_json::{Map, Value};
use sluice_client::Client;
use sluice_policy::breaker::{State, Transition};
use sluice_wire::event::{EventType, NewEvent};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::clock;
use crate::upstream::{BreakerWatch, Upstream};

/// LIMIT: events that wait for the event worker.
const QUEUE: usize = 256;
/// Tries to publish one event.
const TRIES: u32 = 5;

/// Tells of breaker changes.
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
        let Ok(event_type) = EventType::parse("circuit_breaker_state") else { return };
        let texts = [("service", service), ("from", from), ("to", to), ("state", to), ("reason", reason)];
        let data: Map<String, Value> =
            texts.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        let event = NewEvent {
            event_type,
            event_id: Some(Uuid::now_v7()),
            timestamp: Some(clock::wall(transition.at)),
            source: "edge".to_owned(),
            data,
            metadata: Map::new(),
        };
        if self.queue.try_send(event).is_err() {
            self.dropped.inc();
        }
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
