//! Events the vault tells the event worker, through a bounded outbox in the store.
//!
//! An event is queued in the same commit as the fact it reports, so it is neither lost nor invented. It is
//! published in order, one at a time, and removed after the event worker has it; its id makes a repeat after
//! a crash harmless. The vault never waits for the event worker.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use sluice_audit::Entry;
use sluice_client::{Client, ClientError};
use sluice_wire::event::{EventType, NewEvent};

use crate::context::Vault;
use crate::error::VaultError;
use crate::store::{KeyBytes, Range, Table, View as _};

/// Events taken from the outbox at a time.
const BATCH_MAX: usize = 64;
/// Pause after the event worker did not take an event; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A `security_event` of a kind, with details that are no secrets.
pub(crate) fn security_event(kind: &str, now: Timestamp, details: &[(&str, &str)]) -> NewEvent {
    let mut data = Map::from_iter([("kind".to_owned(), Value::from(kind))]);
    data.extend(details.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
    NewEvent {
        event_type: EventType::parse("security_event").expect("the name is in the catalogue"),
        event_id: Some(uuid::Uuid::new_v4()),
        timestamp: Some(now),
        source: "vault".to_owned(),
        data,
        metadata: Map::new(),
    }
}

/// Publishes what is queued, for ever.
pub(crate) async fn drain(vault: Arc<Vault>, client: Client) -> ! {
    let mut pause = PAUSE_MIN;
    loop {
        match drain_once(&vault, &client).await {
            Ok(true) => pause = PAUSE_MIN,
            Ok(false) => {
                pause = PAUSE_MIN;
                vault.outbox_bell.notified().await;
            }
            Err(error) => {
                tracing::debug!(
                    component = "outbox",
                    error = &error as &(dyn std::error::Error + 'static),
                    "the event worker did not take an event"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum DrainError {
    #[error("the outbox cannot be read")]
    Store(#[source] VaultError),
    #[error("the event worker does not answer")]
    Publish(#[source] ClientError),
    #[error("the worker thread broke")]
    Thread(#[source] tokio::task::JoinError),
}

/// Publishes one batch; whether there was any.
async fn drain_once(vault: &Arc<Vault>, client: &Client) -> Result<bool, DrainError> {
    let reader = Arc::clone(vault);
    let queued = tokio::task::spawn_blocking(move || peek(&reader)).await.map_err(DrainError::Thread)?;
    let queued = queued.map_err(DrainError::Store)?;
    if queued.is_empty() {
        return Ok(false);
    }
    let mut sent = Vec::new();
    let mut failed = None;
    for (key, event) in queued {
        match client.publish(&event).await {
            Ok(_) => sent.push(key),
            // What the event worker refuses for good would block everything behind it.
            Err(ClientError::Status { status, .. }) if is_final(status) => {
                tracing::warn!(
                    component = "outbox",
                    status = status.as_u16(),
                    "the event worker refused an event"
                );
                sent.push(key);
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let writer = Arc::clone(vault);
    let removed =
        tokio::task::spawn_blocking(move || remove(&writer, sent)).await.map_err(DrainError::Thread)?;
    removed.map_err(DrainError::Store)?;
    failed.map_or(Ok(true), |error| Err(DrainError::Publish(error)))
}

fn is_final(status: http::StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 409 | 413 | 422)
}

fn peek(vault: &Vault) -> Result<Vec<(KeyBytes, NewEvent)>, VaultError> {
    let view = vault.store.snapshot()?;
    vault.figures.outbox.set(view.count(Table::Outbox)? as i64);
    let keys = view.keys(Table::Outbox, &Range::prefix(b"", BATCH_MAX))?;
    keys.into_iter().map(|key| Ok((key.clone(), view.require(Table::Outbox, &key)?))).collect()
}

fn remove(vault: &Vault, keys: Vec<KeyBytes>) -> Result<(), VaultError> {
    if keys.is_empty() {
        return Ok(());
    }
    let entry = Entry::new("store", "outbox").actor("vault").path(format!("outbox/{} sent", keys.len()));
    vault.store.write(entry, move |change| {
        for key in &keys {
            change.remove(Table::Outbox, key);
        }
        Ok(())
    })
}
