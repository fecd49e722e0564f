//! Events the vault tells the event worker, through a bounded outbox in the store.
//!
//! An event is queued in the same commit as the fact it reports, so it is neither lost nor invented. Events are
//! published in order, graver ones first, a batch at a time, and removed after the event worker has them; their ids make a repeat after
//! a crash harmless. The vault never waits for the event worker. What anybody can cause at will fills four fifths of the
//! outbox at most; the rest is kept for alerts, and the last of it for what was done about them.

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

/// Events taken from the outbox at a time, and their bytes, of what the event worker takes in one body.
const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Pause after the event worker did not take an event; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const KILL_SWITCH: &str = "kill_switch";

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

/// The key of an event in the outbox: graver ones go first, each kind in its order.
pub(crate) fn key(event: &NewEvent, number: u64) -> KeyBytes {
    let class = match event.event_type.as_str() {
        KILL_SWITCH => 0,
        "risk_alert" => 1,
        _ if kept_free(event) == 0 => 1,
        _ => 2,
    };
    (class << 56 | number & (u64::MAX >> 8)).to_be_bytes().to_vec()
}

/// Whether an event is queued however many wait. There are no more of it than responses.
pub(crate) fn always_fits(event: &NewEvent) -> bool {
    event.event_type.as_str() == KILL_SWITCH
}

/// How many places of the outbox an event leaves to graver ones.
pub(crate) fn kept_free(event: &NewEvent) -> u64 {
    let kind = event.data.get("kind").and_then(Value::as_str).unwrap_or_default();
    match (event.event_type.as_str(), kind) {
        (
            _,
            "falco_response"
            | "quarantined"
            | "quarantine_ended"
            | "quarantine_released"
            | "login_locked_out"
            | "alerts_held_back",
        ) => 0,
        ("risk_alert", _) => 500,
        ("security_alert", _) => 1_000,
        _ => 2_000,
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
    let (sent, failed) = publish(client, queued).await;
    let writer = Arc::clone(vault);
    let removed =
        tokio::task::spawn_blocking(move || remove(&writer, sent)).await.map_err(DrainError::Thread)?;
    removed.map_err(DrainError::Store)?;
    failed.map_or(Ok(true), |error| Err(DrainError::Publish(error)))
}

/// Hands the event worker what is queued; what it has, and why it has no more.
async fn publish(client: &Client, queued: Vec<(KeyBytes, NewEvent)>) -> (Vec<KeyBytes>, Option<ClientError>) {
    let (keys, events): (Vec<_>, Vec<_>) = queued.into_iter().unzip();
    match client.publish_batch(&events).await {
        Ok(answer) => {
            // What it refuses for good would block everything behind it.
            if let Some(refused) = answer["failed"].as_u64().filter(|refused| *refused > 0) {
                tracing::warn!(component = "outbox", refused, "the event worker refused events");
            }
            (keys, None)
        }
        // As a whole it is refused for one of them, or for their number.
        Err(ClientError::Status { status, .. }) if status.is_client_error() => {
            one_by_one(client, keys.into_iter().zip(events)).await
        }
        Err(error) => (Vec::new(), Some(error)),
    }
}

async fn one_by_one(
    client: &Client,
    queued: impl Iterator<Item = (KeyBytes, NewEvent)>,
) -> (Vec<KeyBytes>, Option<ClientError>) {
    let mut sent = Vec::new();
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
            Err(error) => return (sent, Some(error)),
        }
    }
    (sent, None)
}

fn is_final(status: http::StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 409 | 413 | 422)
}

fn peek(vault: &Vault) -> Result<Vec<(KeyBytes, NewEvent)>, VaultError> {
    let view = vault.store.snapshot()?;
    vault.figures.outbox.set(view.count(Table::Outbox)? as i64);
    let keys = view.keys(Table::Outbox, &Range::prefix(b"", BATCH_MAX))?;
    let (mut queued, mut bytes) = (Vec::new(), 0);
    for key in keys {
        let damaged = || VaultError::Integrity(Table::Outbox.name());
        let event = view.bytes(Table::Outbox, &key)?.ok_or_else(damaged)?;
        bytes += event.len();
        if bytes > BATCH_BYTES_MAX && !queued.is_empty() {
            break;
        }
        queued.push((key, serde_json::from_slice(&event).map_err(|_| damaged())?));
    }
    Ok(queued)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OUTBOX_MAX;

    fn event(kind: &str, of: &str) -> NewEvent {
        let plain = security_event(of, Timestamp::UNIX_EPOCH, &[]);
        NewEvent { event_type: EventType::parse(kind).unwrap(), ..plain }
    }

    #[test]
    fn what_anybody_can_cause_leaves_room_for_what_was_done_about_it() {
        let free = |kind, of| kept_free(&event(kind, of));
        for cheap in ["credential_issued", "token_revoked", "user_changed", ""] {
            assert_eq!(free("security_event", cheap), 2_000, "{cheap}");
        }
        assert!(free("security_alert", "falco") < 2_000 && free("risk_alert", "falco") < 1_000);
        for grave in ["quarantined", "quarantine_released", "login_locked_out"] {
            assert_eq!(free("security_event", grave), 0, "{grave}");
        }
        assert_eq!(free("security_alert", "falco_response"), 0);
        assert!(free("risk_alert", "falco") > 0 && OUTBOX_MAX > 2_000);
    }
}
