//! Following the vault's feed.

use std::time::Duration;

use sluice_wire::feed::{Message, Part, Revoked, Snapshot};

use crate::call::{Client, ClientError};
use crate::sse::{SseEvent, SseStream};

/// Silence after which the feed counts as broken; the vault sends a heartbeat each second.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// First pause before connecting again; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause before connecting again.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// LIMIT: revocations in the parts of one snapshot: three kinds of a million.
const REVOKED_MAX: usize = 3_000_000;

/// What to do after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Continue,
    /// A change is missing: connect again, which begins with a snapshot.
    Resync,
}

/// Follows the feed for ever, connecting again after each break. The first message of every
/// connection is a snapshot, so a break loses nothing.
pub async fn follow(client: Client, mut apply: impl FnMut(&Message) -> Next) -> ! {
    let mut pause = PAUSE_MIN;
    loop {
        match client.stream("/internal/feed", None).await {
            Ok(stream) => {
                pause = PAUSE_MIN;
                if let Err(error) = read(stream, &mut apply).await {
                    tracing::warn!(
                        component = "feed",
                        error = &error as &dyn std::error::Error,
                        "feed broke off"
                    );
                }
            }
            Err(error) => {
                tracing::debug!(
                    component = "feed",
                    error = &error as &dyn std::error::Error,
                    "feed not reachable"
                );
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn read(mut stream: SseStream, apply: &mut impl FnMut(&Message) -> Next) -> Result<(), ClientError> {
    // Of the snapshot that comes.
    let mut parts = Revoked::default();
    loop {
        let next = tokio::time::timeout(SILENCE_MAX, stream.next());
        let Some(event) = next.await.map_err(|_| ClientError::Timeout(SILENCE_MAX))?? else { return Ok(()) };
        let Some(message) = message_of(&mut parts, &event)? else { continue };
        if apply(&message) == Next::Resync {
            return Ok(());
        }
    }
}

/// What an event says; parts are kept until the snapshot that they belong to.
fn message_of(parts: &mut Revoked, event: &SseEvent) -> Result<Option<Message>, ClientError> {
    if event.event == "part" {
        let part: Part = serde_json::from_str(&event.data).map_err(ClientError::Shape)?;
        if parts.len() + part.revoked.len() > REVOKED_MAX {
            return Err(ClientError::TooLarge);
        }
        parts.add(part.revoked);
        return Ok(None);
    }
    let message = Message::parse(&event.event, &event.data).transpose().map_err(ClientError::Shape)?;
    Ok(message.map(|mut message| {
        if let Message::Snapshot(snapshot) = &mut message {
            snapshot.revoked.add(std::mem::take(parts));
        }
        message
    }))
}

/// The text of a snapshot for `feed.json`, with which a role starts before the vault answers.
pub fn to_file(snapshot: &Snapshot) -> Vec<u8> {
    serde_json::to_vec(snapshot).expect("strings and numbers always serialize")
}

/// Reads `feed.json`; `None` when it is not a snapshot.
pub fn from_file(bytes: &[u8]) -> Option<Snapshot> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_belong_to_the_snapshot_after_them() {
        let mut parts = Revoked::default();
        let mut told = |name: &str, data: &str| {
            let event = SseEvent { event: name.into(), data: data.into(), ..SseEvent::default() };
            message_of(&mut parts, &event).unwrap()
        };
        let part = r#"{"revoked":{"jti":["a"],"sub":[],"serial":["4a","4b"]}}"#;
        let whole = r#"{"epoch":"e","seq":1,"jwks":[],"revoked":{"jti":["b"],"sub":[],"serial":[]}}"#;
        assert_eq!(told("part", part), None);
        assert_eq!(told("heartbeat", "{}"), Some(Message::Heartbeat));
        assert_eq!(told("part", r#"{"revoked":{"jti":[],"sub":[],"serial":["4c"]}}"#), None);
        let mut of = |whole| match told("snapshot", whole) {
            Some(Message::Snapshot(snapshot)) => snapshot.revoked,
            other => panic!("{other:?}"),
        };
        let first = of(whole);
        assert_eq!(
            (first.jti, first.serial),
            (vec!["b".into(), "a".into()], vec!["4a".into(), "4b".into(), "4c".into()])
        );
        assert_eq!(of(whole).len(), 1, "they are used once");
    }
}
