//! Tells the stream of dead letters: a `dead_letter` event for each.
//!
//! Its event id is made of the group, the message and the time of death, so telling twice stores one event. A dead
//! letter that is itself about a `dead_letter` event is not told: a group that fails on everything would go round
//! for ever.

use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context as Sha, SHA256};
use serde_json::json;
use sluice_identity::caller::Caller;
use sluice_wire::role::Role;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::context::Context;
use crate::event::Author;
use crate::incoming;
use crate::log::{Draft, Outcome};
use crate::publish::author;

use super::answer;
use super::command::Notice;

/// The type of the events told.
const KIND: &str = "dead_letter";
/// Pause before a try that failed is repeated.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Tries of one event; the dead letter itself is kept whatever becomes of it.
const TRIES_MAX: usize = 60;

/// Tells of dead letters until nobody has any more.
pub(crate) async fn announce(context: Arc<Context>, mut told: mpsc::Receiver<Notice>) {
    while let Some(notice) = told.recv().await {
        if &*notice.kind == KIND {
            continue;
        }
        let Some(draft) = draft(&context, &notice) else { continue };
        tell(&context, &notice, draft).await;
    }
}

async fn tell(context: &Context, notice: &Notice, draft: Draft) {
    for _ in 0..TRIES_MAX {
        match context.append(vec![draft.clone()], false).await {
            Ok(receipt) => {
                if matches!(receipt.outcomes.first(), Some(Outcome::Stored(_))) {
                    context.metrics.published(context.metrics.kind(KIND));
                }
                return;
            }
            Err(error) => {
                tracing::warn!(
                    component = "groups",
                    group = &*notice.group,
                    error = &error as &dyn std::error::Error,
                    "a dead letter is not told to the stream yet"
                );
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            () = context.stop.wait() => return,
        }
    }
}

fn draft(context: &Context, notice: &Notice) -> Option<Draft> {
    let mut data = json!({
        "group": notice.group,
        "message_id": notice.id.to_string(),
        "event_type": notice.kind,
        "source": notice.source,
        "cause": notice.cause,
        "attempts": notice.attempts,
    });
    if !notice.symbol.is_empty() {
        data["symbol"] = (*notice.symbol).into();
    }
    let body = json!({
        "event_type": KIND,
        "event_id": event_id(notice).to_string(),
        "timestamp": answer::time(notice.at_ms),
        "source": Role::Events.as_str(),
        "data": data,
    });
    let caller = Caller::role(Role::Events);
    let author = Author { unknown_types: true, ..author(context, &caller) };
    let text = body.to_string();
    let prepared = incoming::parse(&text).and_then(|event| author.prepare(&event, None));
    if let Err(fault) = &prepared {
        let group = &*notice.group;
        tracing::warn!(
            component = "groups",
            group,
            why = fault.detail,
            "a dead letter cannot be told to the stream"
        );
    }
    prepared.ok().map(|prepared| prepared.draft)
}

fn event_id(notice: &Notice) -> Uuid {
    let mut sha = Sha::new(&SHA256);
    sha.update(b"sluice dead letter");
    sha.update(&(notice.group.len() as u64).to_le_bytes());
    sha.update(notice.group.as_bytes());
    for number in [notice.id.ms, u64::from(notice.id.n), notice.at_ms] {
        sha.update(&number.to_le_bytes());
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha.finish().as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
