//! Following the vault's feed for every role but the vault: keys and revocations, kept on disk for a
//! start without the vault.

mod kept;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kept::{FILE_BYTES, Kept, Step};
use sluice_client::Client;
use sluice_client::feed::{Next, follow};
use sluice_http::{Start, TrustCell};
use sluice_identity::trust::{Applied, Trust};
use sluice_wire::role::Role;
use tokio::sync::Notify;

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
    let fits = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= FILE_BYTES as u64);
    let Some(snapshot) = std::fs::read(path).ok().filter(|_| fits).and_then(|text| kept::read(&text)) else {
        return;
    };
    trust.restore(Trust::from_snapshot(&snapshot));
    tracing::info!(component = "feed", keys = snapshot.jwks.len() as u64, "kept snapshot restored");
}

async fn run(client: Client, trust: TrustCell, path: PathBuf) {
    let (kept, bell) = (Arc::new(Mutex::new(Kept::default())), Notify::new());
    let followed = follow(client, |message| match trust.apply(message) {
        Applied::Gap => Next::Resync,
        Applied::Unchanged => Next::Continue,
        Applied::Changed => {
            kept.lock().unwrap_or_else(PoisonError::into_inner).take(message);
            bell.notify_one();
            Next::Continue
        }
    });
    tokio::join!(write(&kept, &bell, path), async { match followed.await {} });
}

/// Brings the file up to what is kept, off the feed's task: what comes meanwhile is written together.
async fn write(kept: &Arc<Mutex<Kept>>, bell: &Notify, path: PathBuf) {
    let file = Arc::new(Mutex::new(None));
    loop {
        bell.notified().await;
        let (kept, file, path) = (Arc::clone(kept), Arc::clone(&file), path.clone());
        let written = tokio::task::spawn_blocking(move || {
            bring_up(&kept, &mut file.lock().unwrap_or_else(PoisonError::into_inner), &path)
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!(component = "feed", %error, "snapshot not kept");
        }
    }
}

/// One step. `file` is the one at `path`, once this process has written it: in a handover two write for a moment, each
/// its own, and the one that was replaced is nobody's.
fn bring_up(kept: &Mutex<Kept>, file: &mut Option<File>, path: &Path) -> io::Result<()> {
    let locked = || kept.lock().unwrap_or_else(PoisonError::into_inner);
    let step = locked().step();
    let done = match (step, file.as_mut()) {
        (None, _) => Ok(()),
        (Some(Step::Append(lines)), Some(file)) => file.write_all(&lines).and_then(|()| file.sync_data()),
        // Not reached: the first step is a snapshot.
        (Some(Step::Append(_)), None) => Err(io::ErrorKind::NotFound.into()),
        (Some(Step::Anew(snapshot)), _) => {
            let text = kept::beginning(&snapshot);
            store(path, &text).map(|anew| {
                *file = Some(anew);
                locked().is_anew(text.len());
            })
        }
    };
    if done.is_err() {
        locked().write_anew();
    }
    done
}

/// Writes a file beside the old one and renames it.
fn store(path: &Path, text: &[u8]) -> io::Result<File> {
    // In a handover two processes write for a moment, each beside the file and then over it.
    let beside = path.with_extension(format!("json.{}", std::process::id()));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_schema::Config;
    use sluice_wire::feed::{Change, Delta, Message, Revoked, Snapshot};

    #[test]
    fn a_revocation_after_the_snapshot_is_kept_too_and_comes_back_as_not_heard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed.json");
        let (kept, mut file) = (Mutex::new(Kept::default()), None);
        let snapshot = Snapshot { epoch: "e1".into(), seq: 7, jwks: Vec::new(), revoked: Revoked::default() };
        let change = Change::Jti { jti: "t1".into() };
        for message in
            [Message::Snapshot(snapshot), Message::Delta(Delta { epoch: "e1".into(), seq: 8, change })]
        {
            kept.lock().unwrap().take(&message);
            bring_up(&kept, &mut file, &path).unwrap();
        }
        bring_up(&kept, &mut file, &path).unwrap();
        let found = kept::read(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((found.seq, found.revoked.jti), (8, vec!["t1".to_owned()]));
        let trust = TrustCell::new(&Config::default(), Role::Edge);
        restore(&path, &trust);
        assert_eq!(trust.load().version(), ("e1", 8));
        assert_eq!(trust.age_ms(), None);
        std::fs::write(&path, "not json").unwrap();
        restore(&path, &TrustCell::new(&Config::default(), Role::Edge));
    }

    #[test]
    fn what_could_not_be_written_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("role").join("feed.json");
        let (kept, mut file) = (Mutex::new(Kept::default()), None);
        let snapshot = Snapshot { epoch: "e1".into(), seq: 7, jwks: Vec::new(), revoked: Revoked::default() };
        kept.lock().unwrap().take(&Message::Snapshot(snapshot.clone()));
        assert!(bring_up(&kept, &mut file, &path).is_err());
        std::fs::create_dir(dir.path().join("role")).unwrap();
        bring_up(&kept, &mut file, &path).unwrap();
        assert_eq!(kept::read(&std::fs::read(&path).unwrap()), Some(snapshot));
    }
}
