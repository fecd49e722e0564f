//! Following the vault's feed.

use std::time::Duration;

use sluice_wire::feed::{Message, Snapshot};

use crate::call::{Client, ClientError};
use crate::sse::SseStream;

/// Silence after which the feed counts as broken; the vault sends a heartbeat each second.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// First pause before connecting again; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause before connecting again.
const PAUSE_MAX: Duration = Duration::from_secs(2);

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
    loop {
        let next = tokio::time::timeout(SILENCE_MAX, stream.next());
        let Some(event) = next.await.map_err(|_| ClientError::Timeout(SILENCE_MAX))?? else { return Ok(()) };
        let Some(message) = Message::parse(&event.event, &event.data) else { continue };
        if apply(&message.map_err(ClientError::Shape)?) == Next::Resync {
            return Ok(());
        }
    }
}

/// The text of a snapshot for `feed.json`, with which a role starts before the vault answers.
pub fn to_file(snapshot: &Snapshot) -> Vec<u8> {
    serde_json::to_vec(snapshot).expect("strings and numbers always serialize")
}

/// Reads `feed.json`; `None` when it is not a snapshot.
pub fn from_file(bytes: &[u8]) -> Option<Snapshot> {
    serde_json::from_slice(bytes).ok()
}
