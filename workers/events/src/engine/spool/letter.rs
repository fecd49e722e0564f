//! Handing what waited to Redis, and telling what cannot be stored there.

use ring::digest::{Context as Sha, SHA256};
use serde_json::json;
use sluice_wire::role::Role;
use uuid::Uuid;

use super::{AppendError, Receipt};
use crate::log::{Draft, Labels, Outcome};
use crate::redis::Redis;

/// The type of an event that tells of one which cannot be stored.
const DEAD_LETTER: &str = "dead_letter";

/// Stores events in Redis and waits for the answer. One whose id another event has there is told as a dead letter:
/// it was acknowledged, so it does not vanish.
pub(super) fn hand_over(redis: &Redis, drafts: &[Draft]) -> Result<(), AppendError> {
    let receipt = ask(redis, drafts.to_vec())?;
    let clashes = drafts.iter().zip(&receipt.outcomes);
    let clashes = clashes.filter(|(_, outcome)| matches!(outcome, Outcome::Conflict(_)));
    let letters: Vec<Draft> = clashes.filter_map(|(draft, _)| letter(draft)).collect();
    if letters.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        component = "spool",
        events = letters.len(),
        "other events have the ids of events that waited"
    );
    ask(redis, letters).map(|_| ())
}

fn ask(redis: &Redis, drafts: Vec<Draft>) -> Result<Receipt, AppendError> {
    redis.submit(drafts, false)?.blocking_recv().unwrap_or(Err(AppendError::Closed))
}

/// The `dead_letter` event that tells of an event. Its id is made of the event, so that telling twice stores one.
pub(super) fn letter(draft: &Draft) -> Option<Draft> {
    let mut sha = Sha::new(&SHA256);
    sha.update(b"sluice spooled conflict");
    sha.update(&draft.event_id.to_le_bytes());
    sha.update(&draft.fingerprint.to_le_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha.finish().as_ref()[..16]);
    let id = uuid::Builder::from_custom_bytes(bytes).into_uuid();
    let Labels { kind, symbol, source } = draft.labels();
    let about = json!({
        "cause": "event_id_conflict",
        "event_type": kind,
        "event_id": Uuid::from_u128(draft.event_id).to_string(),
        "symbol": symbol,
        "source": source,
        "attempts": 1,
    });
    let about = about.to_string();
    let about = about.strip_suffix('}').unwrap_or(&about);
    let (now, role) = (jiff::Timestamp::now(), Role::Events.as_str());
    let compose = |event: &str| {
        // Metadata is the last member of what is stored.
        let text = format!(
            r#"{{"event_type":"{DEAD_LETTER}","event_id":"{id}","timestamp":"{now}","source":"{role}","data":{about},"event":{event}}},"metadata":{{"role":"{role}"}}}}"#
        );
        let labels = Labels { kind: DEAD_LETTER, symbol, source: role };
        Draft::new(labels, now.as_microsecond(), id.as_u128(), draft.fingerprint, text.as_bytes()).ok()
    };
    // An event that is too large to be wrapped is told of without its content.
    let event = std::str::from_utf8(draft.json()).ok();
    event.and_then(compose).or_else(|| compose("null"))
}
