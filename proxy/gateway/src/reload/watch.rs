//! What starts a reload without being asked: SIGHUP and changed files.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};

use crate::kept::Files;
use crate::state::Shared;

/// Between two looks at the files.
const POLL: Duration = Duration::from_millis(500);

/// Reloads on SIGHUP, for ever.
pub(crate) async fn on_hangup(shared: Arc<Shared>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        // Whoever moved the access log away says so like this, too.
        shared.access_log.reopen();
        // A successor reads the files itself; where it fails, they are read here after all.
        shared.drain.handed_over_or_back().await;
        if shared.drain.has_successor() {
            continue;
        }
        shared.reload_unasked("sighup").await;
    }
}

/// Reloads when a file changed and has rested for one look, for ever.
pub(crate) async fn on_change(shared: Arc<Shared>) -> Infallible {
    let path = shared.reload.source.path.clone();
    let mut known = shared.reload.tried();
    let mut seen = known.clone();
    loop {
        tokio::time::sleep(POLL).await;
        let present = fingerprint(&path);
        let rested = present == seen;
        seen.clone_from(&present);
        if rested && present != known && !shared.drain.has_successor() {
            // Whoever asked for a reload meanwhile got it.
            if present != shared.reload.tried() {
                shared.reload_changed().await;
            }
            known = present;
        }
    }
}

/// Of files that changed less than this ago the time of their change may not tell the next change apart: the
/// kernel's clock for it moves in steps of up to 10 ms.
const TOLD_APART: Duration = Duration::from_millis(20);

/// Whether no file changed so lately that its next change could go unseen.
pub(super) fn has_rested(files: &Fingerprint, now: SystemTime) -> bool {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let settled = now.saturating_sub(TOLD_APART);
    let settled = (i64::try_from(settled.as_secs()).unwrap_or(i64::MAX), i64::from(settled.subsec_nanos()));
    files.iter().all(|(_, _, seconds, nanos, _)| (*seconds, *nanos) < settled)
}

/// What is known about each file. Names are compared as bytes: as paths they would be taken apart each time,
/// and there may be thousands.
pub(super) type Fingerprint = Vec<(OsString, u64, i64, i64, u64)>;

/// Inode, time and size of the main file and of every file of `services.d`: enough to see an edit, a
/// rename over it and a switched symbolic link.
pub(super) fn fingerprint(path: &Path) -> Fingerprint {
    let Files { main, folder } = Files::of(path);
    let listed =
        std::fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    // Hidden ones are not read either: editors keep their own beside the files.
    let is_read = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension().is_some_and(|extension| extension == "toml")
    };
    let mut files: Vec<OsString> = listed.filter(is_read).map(PathBuf::into_os_string).collect();
    files.push(main.into_os_string());
    files.sort_unstable();
    let stat = |path: OsString| {
        let file = std::fs::metadata(&path).ok()?;
        Some((path, file.ino(), file.mtime(), file.mtime_nsec(), file.size()))
    };
    files.into_iter().filter_map(stat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_renames_and_new_files_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("sluice.toml");
        std::fs::write(&main, "").unwrap();
        std::fs::create_dir(dir.path().join("services.d")).unwrap();
        let empty = fingerprint(&main);
        assert_eq!(fingerprint(dir.path()), empty);
        std::fs::write(dir.path().join("services.d/a.toml"), "x").unwrap();
        let one = fingerprint(&main);
        assert_ne!(one, empty);
        std::fs::write(dir.path().join("services.d/readme.md"), "x").unwrap();
        std::fs::write(dir.path().join("services.d/.a.toml"), "x").unwrap();
        assert_eq!(fingerprint(&main), one);
        std::fs::write(dir.path().join("new"), "y").unwrap();
        std::fs::rename(dir.path().join("new"), dir.path().join("services.d/a.toml")).unwrap();
        assert_ne!(fingerprint(&main), one);
    }

    #[test]
    fn a_file_that_changed_just_now_has_not_rested() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("sluice.toml");
        std::fs::write(&main, "").unwrap();
        let changed = std::fs::metadata(&main).unwrap().modified().unwrap();
        let files = fingerprint(&main);
        assert!(!has_rested(&files, changed));
        assert!(!has_rested(&files, changed + TOLD_APART));
        assert!(has_rested(&files, changed + TOLD_APART * 2));
    }
}
