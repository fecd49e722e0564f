//! Whom to believe: this role's copy of the vault's feed.

use std::path::Path;

use sluice_client::Client;
use sluice_client::feed::{self, Next};
use sluice_http::{Start, TrustCell};
use sluice_identity::trust::{Applied, Trust};
use sluice_wire::feed::Message;
use sluice_wire::role::Role;
use tokio::task::JoinHandle;

/// Follows the vault's feed; what it said last is kept on disk, for a start before the vault's.
pub(crate) fn follow(start: &Start) -> JoinHandle<()> {
    let path = start.role_dir().join("feed.json");
    restore(&start.trust, &path);
    let (trust, socket) = (start.trust.clone(), start.sockets.get(&Role::Vault).cloned());
    let key = start.keys.own().to_owned();
    tokio::spawn(async move {
        let Some(socket) = socket else { return };
        feed::follow(Client::internal(socket, key), move |message| {
            let applied = trust.apply(message);
            if let Message::Snapshot(snapshot) = message {
                keep(&path, &feed::to_file(snapshot));
            }
            if applied == Applied::Gap { Next::Resync } else { Next::Continue }
        })
        .await;
    })
}

fn restore(trust: &TrustCell, path: &Path) {
    let kept = std::fs::read(path).ok().and_then(|bytes| feed::from_file(&bytes));
    if let Some(snapshot) = kept {
        trust.restore(Trust::from_snapshot(&snapshot));
    }
}

fn keep(path: &Path, bytes: &[u8]) {
    let draft = path.with_extension("json.tmp");
    let kept = std::fs::write(&draft, bytes).and_then(|()| std::fs::rename(&draft, path));
    if let Err(error) = kept {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(component = "feed", error, "the feed's snapshot could not be kept");
    }
}
