//! The data directory: private, and held by one supervisor at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};

/// Makes a folder that only this user may enter. One that exists must be a real folder of this user;
/// it is tightened only while it is empty: `--data-dir /tmp` must not lock everybody out of it.
pub(crate) fn private(dir: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let found = fs::symlink_metadata(dir)?;
    if !found.is_dir() {
        bail!("{} is not a folder", dir.display());
    }
    if found.uid() != rustix::process::getuid().as_raw() {
        bail!("{} belongs to another user", dir.display());
    }
    let mode = found.permissions().mode() & 0o777;
    if mode == 0o700 {
        return Ok(());
    }
    if fs::read_dir(dir)?.next().is_some() {
        bail!("{} has mode {mode:o} and is not empty; make it private first: chmod 700 {0}", dir.display());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

/// Holds a data directory against a second supervisor until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// The lock that another holder passes on.
    pub(crate) fn held(file: OwnedFd) -> Self {
        Self(File::from(file))
    }

    /// A duplicate that holds it too.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }
}

/// Takes the directory, or says who has it.
pub(crate) fn lock(dir: &Path) -> anyhow::Result<Lock> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).read(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => bail!(
            "the data directory {} is in use by another `sluice up`; give this one its own with --data-dir",
            dir.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_others_or_with_content_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let fresh = dir.path().join("a/b");
        private(&fresh).unwrap();
        assert_eq!(fs::metadata(&fresh).unwrap().permissions().mode() & 0o777, 0o700);
        let wide = dir.path().join("wide");
        DirBuilder::new().mode(0o755).create(&wide).unwrap();
        private(&wide).unwrap();
        fs::set_permissions(&wide, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(wide.join("x"), "").unwrap();
        assert!(private(&wide).unwrap_err().to_string().contains("chmod 700"));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&fresh, &link).unwrap();
        assert!(private(&link).unwrap_err().to_string().contains("not a folder"));
    }

    #[test]
    fn a_second_holder_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let _held = lock(dir.path()).unwrap();
        assert!(lock(dir.path()).unwrap_err().to_string().contains("--data-dir"));
    }
}
