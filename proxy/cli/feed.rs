//! Following the vault's feed for every role but the vault: keys and revocations, kept on disk for a
//! start without the vault.

use std::path::{Path, PathBuf};

use sluice_client::Client;
use sluice_client::feed::{Next, follow, from_file, to_file};
use sluice_http::{Start, TrustCell};
use sluice_identity::trust::{Applied, Trust};
use sluice_wire::feed::{Change, Message, Snapshot};
use sluice_wire::role::Role;
use tokio::sync::watch;

/// LIMIT: the kept snapshot, bytes: two million revocations of about 40 bytes fit.
const FILE_BYTES: u64 = 128 << 20;

/// Restores what was kept and follows the feed until the process ends.
pub(crate) fn follow_for(start: &Start) {
    let Some(vault) = start.sockets.get(&Role::Vault) else { return };
    if start.role == Role::Vault {
        return;
    }
    let path = start.role_dir().join("feed.json");
    restore(&path, &start.trust);
    tokio::spawn(run(Client::internal(vault.clone(), start.keys.own()), start.trust.clone(), path));
}

/// Takes what was kept on disk; it counts as not heard. Revocations in it still hold, and tokens signed
/// by its keys still verify while the vault is away.
fn restore(path: &Path, trust: &TrustCell) {
    let fits = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= FILE_BYTES);
    let Some(snapshot) = std::fs::read(path).ok().filter(|_| fits).and_then(|bytes| from_file(&bytes)) else {
        return;
    };
    trust.restore(Trust::from_snapshot(&snapshot));
    tracing::info!(component = "feed", keys = snapshot.jwks.len() as u64, "kept snapshot restored");
}

async fn run(client: Client, trust: TrustCell, path: PathBuf) {
    let (keep, kept) = watch::channel(None::<Snapshot>);
    let followed = follow(client, |message| match trust.apply(message) {
        Applied::Gap => Next::Resync,
        Applied::Unchanged => Next::Continue,
        Applied::Changed => {
            keep.send_modify(|snapshot| bring_up(snapshot, message));
            Next::Continue
        }
    });
    tokio::join!(write(kept, path), async { match followed.await {} });
}

/// Brings the snapshot that is kept up to a message that trust has taken.
fn bring_up(kept: &mut Option<Snapshot>, message: &Message) {
    match (message, kept) {
        (Message::Snapshot(whole), kept) => *kept = Some(whole.clone()),
        (Message::Delta(delta), Some(kept)) => {
            kept.seq = delta.seq;
            match &delta.change {
                Change::Jti { jti } => kept.revoked.jti.push(jti.clone()),
                Change::Sub(revoked) => {
                    kept.revoked.sub.retain(|known| known.sub != revoked.sub);
                    kept.revoked.sub.push(revoked.clone());
                }
                Change::Serial { serial } => kept.revoked.serial.push(serial.clone()),
                Change::Identity(revoked) => {
                    kept.revoked.identity.retain(|known| known.id != revoked.id);
                    kept.revoked.identity.push(revoked.clone());
                }
                Change::Keys { jwks } => kept.jwks.clone_from(jwks),
            }
        }
        _ => {}
    }
}

/// Writes each snapshot beside the old one and renames it, off the feed's task.
async fn write(mut kept: watch::Receiver<Option<Snapshot>>, path: PathBuf) {
    while kept.changed().await.is_ok() {
        let Some(snapshot) = kept.borrow_and_update().clone() else { continue };
        let path = path.clone();
        let written = tokio::task::spawn_blocking(move || store(&path, &to_file(&snapshot))).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(component = "feed", %error, "snapshot not kept");
        }
    }
}

fn store(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    // In a handover two processes write for a moment, each beside the file and then over it.
    let beside = path.with_extension(format!("json.{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_schema::Config;
    use sluice_wire::feed::{Delta, Revoked};

    #[test]
    fn a_revocation_after_the_snapshot_is_kept_too() {
        let mut kept = None;
        let snapshot = Snapshot { epoch: "e1".into(), seq: 7, jwks: Vec::new(), revoked: Revoked::default() };
        bring_up(&mut kept, &Message::Snapshot(snapshot));
        let change = Change::Jti { jti: "t1".into() };
        bring_up(&mut kept, &Message::Delta(Delta { epoch: "e1".into(), seq: 8, change }));
        let kept = kept.unwrap();
        assert_eq!((kept.seq, kept.revoked.jti), (8, vec!["t1".to_owned()]));
    }

    #[test]
    fn a_kept_snapshot_comes_back_as_not_heard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed.json");
        let snapshot = Snapshot { epoch: "e1".into(), seq: 7, jwks: Vec::new(), revoked: Revoked::default() };
        store(&path, &to_file(&snapshot)).unwrap();
        let trust = TrustCell::new(&Config::default(), Role::Edge);
        restore(&path, &trust);
        assert_eq!(trust.load().version(), ("e1", 7));
        assert_eq!(trust.age_ms(), None);
        std::fs::write(&path, "not json").unwrap();
        restore(&path, &TrustCell::new(&Config::default(), Role::Edge));
    }
}
