//! Which binary a role runs.
//!
//! A new binary comes into force by an upgrade and by nothing else: a role that dies is started again
//! from the very file it ran, also after another one took its place on the disk.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A binary, held open.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    path: PathBuf,
    file: Arc<File>,
}

impl Image {
    /// The binary that this process runs.
    pub(crate) fn own(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: Arc::new(File::open("/proc/self/exe")?) })
    }

    /// The binary that another process runs; behind a script at `path` it is what the script started. A process that
    /// protects its memory (the vault) hides it from all but root: then it is what lies at `path`.
    pub(crate) fn of(path: &Path, pid: u32) -> io::Result<Self> {
        let file = match File::open(format!("/proc/{pid}/exe")) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path)?,
            file => file?,
        };
        Ok(Self { path: path.to_owned(), file: Arc::new(file) })
    }

    /// A binary that was held open before.
    pub(crate) fn held(path: &Path, file: OwnedFd) -> Self {
        Self { path: path.to_owned(), file: Arc::new(File::from(file)) }
    }

    /// Where it lay.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A duplicate of what holds it open.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }

    /// What to start: its path while it still lies there, which gives the process its proper name.
    pub(crate) fn program(&self) -> PathBuf {
        let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        match (&fs::metadata(&self.path), &self.file.metadata()) {
            (Ok(there), Ok(held)) if same(there, held) => self.path.clone(),
            // Our own number: the child gives its low descriptors to the sockets.
            _ => format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into(),
        }
    }
}

/// Where this program is started from: an upgrade takes what lies there then. Links are kept, since a
/// deployment often changes a link.
pub(crate) fn own_path() -> PathBuf {
    let running = fs::metadata("/proc/self/exe").ok();
    let first = std::env::args_os().next().unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_running = |candidate: &Path| {
        let found = fs::metadata(candidate).ok();
        running.as_ref().zip(found).is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino()))
    };
    candidates(&first, &path)
        .into_iter()
        .filter_map(|candidate| std::path::absolute(candidate).ok())
        .find(|candidate| is_running(candidate))
        .or_else(|| std::env::current_exe().ok())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

fn candidates(first: &OsStr, path: &OsStr) -> Vec<PathBuf> {
    if first.is_empty() || Path::new(first).components().count() > 1 {
        return vec![first.into()];
    }
    std::env::split_paths(path).map(|folder| folder.join(first)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_started_from_what_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sluice");
        fs::copy("/bin/true", &path).unwrap();
        let image = Image::held(&path, File::open(&path).unwrap().into());
        assert_eq!(image.program(), path);
        fs::copy("/bin/false", dir.path().join("new")).unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_ne!(image.program(), path);
        assert!(std::process::Command::new(image.program()).status().unwrap().success());
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new(image.program()).status().unwrap().success());
    }

    #[test]
    fn a_name_alone_is_looked_for_and_a_path_is_not() {
        assert_eq!(
            candidates(OsStr::new("sluice"), OsStr::new("/a:/b")),
            [Path::new("/a/sluice"), Path::new("/b/sluice")]
        );
        assert_eq!(candidates(OsStr::new("./sluice"), OsStr::new("/a")), [Path::new("./sluice")]);
        assert_eq!(own_path().canonicalize().unwrap(), std::env::current_exe().unwrap());
    }
}
