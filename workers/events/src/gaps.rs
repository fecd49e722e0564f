//! Tells the stream that events are missing in it: a `stream_gap` event for each new epoch of its store.
//!
//! Its event id is made of the epoch, so that several workers which find the same loss store one event.

use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context as Sha, SHA256};
use serde_json::json;
use sluice_identity::caller::Caller;
use sluice_wire::role::Role;
use uuid::Uuid;

use crate::context::Context;
use crate::event::Author;
use crate::incoming;
use crate::log::{Draft, Outcome};
use crate::publish::author;

/// The type of the events told.
const KIND: &str = "stream_gap";
/// Pause before a try that failed is repeated.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Tells of each loss, until the worker ends.
pub(crate) async fn announce(context: Arc<Context>) {
    let mut replaced = context.replaced();
    while replaced.changed().await.is_ok() {
        // Who waits for events that do not come hears of it too.
        context.hub.bells().call();
        let Some(epoch) = context.epoch() else { return };
        let Some(draft) = draft(&context, &epoch) else { continue };
        tell(&context, draft).await;
    }
}

async fn tell(context: &Context, draft: Draft) {
    loop {
        match context.append(vec![draft.clone()], false).await {
            Ok(receipt) => {
                if matches!(receipt.outcomes.first(), Some(Outcome::Stored(_))) {
                    context.metrics.published(context.metrics.kind(KIND));
                }
                return;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(component = "redis", error, "a loss is not told to the stream yet");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            () = context.stop.wait() => return,
        }
    }
}

fn draft(context: &Context, epoch: &str) -> Option<Draft> {
    let body = json!({
        "event_type": KIND,
        "event_id": event_id(&context.settings.stream, epoch).to_string(),
        "source": Role::Events.as_str(),
        "data": {
            "reason": "failover",
            "stream": context.settings.stream,
            "epoch": epoch,
            // Of those up to here some are gone.
            "upto_seq": context.reader().durable_seq(),
        },
    });
    let caller = Caller::role(Role::Events);
    let author = Author { unknown_types: true, ..author(context, &caller) };
    let text = body.to_string();
    let prepared = incoming::parse(&text).and_then(|event| author.prepare(&event, None));
    if let Err(fault) = &prepared {
        tracing::warn!(component = "redis", why = fault.detail, "a loss cannot be told to the stream");
    }
    prepared.ok().map(|prepared| prepared.draft)
}

fn event_id(stream: &str, epoch: &str) -> Uuid {
    let mut sha = Sha::new(&SHA256);
    sha.update(b"sluice stream gap");
    sha.update(&(stream.len() as u64).to_le_bytes());
    sha.update(stream.as_bytes());
    sha.update(epoch.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha.finish().as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
