//! The data directory: private, and held by one supervisor at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};

/// Makes a folder that only this user may enter; tightens it when it is wider.
pub(crate) fn private(dir: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let mode = fs::metadata(dir)?.permissions().mode() & 0o777;
    if mode != 0o700 {
        let tightened = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
        tightened.with_context(|| format!("{} has mode {mode:o} and cannot be made 0700", dir.display()))?;
    }
    Ok(())
}

/// Holds a data directory against a second supervisor until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock, released when dropped")] File);

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
