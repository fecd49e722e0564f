//! Schemas on the disk: a file a type, `<type>.json`, written beside and renamed, so that there is always a whole one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Mode, VERSIONS_MAX};

/// The version of the files.
const FORMAT: u32 = 1;
/// What a file's name ends with while it is written.
const UNFINISHED: &str = ".json.tmp";
const FINISHED: &str = ".json";

/// Why the schemas could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The disk refused.
    #[error("cannot read schemas at {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("the schema file {} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
}

/// What is stored of one type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    format: u32,
    pub(super) event_type: String,
    pub(super) mode: Mode,
    /// Oldest first.
    pub(super) versions: Vec<Version>,
}

/// One version of a schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Version {
    #[serde(rename = "version")]
    pub(super) number: u64,
    pub(super) at: Timestamp,
    /// Subject of who set it.
    pub(super) by: String,
    pub(super) schema: Value,
}

impl Stored {
    pub(super) fn new(kind: &str) -> Self {
        Self { format: FORMAT, event_type: kind.to_owned(), mode: Mode::Enforce, versions: Vec::new() }
    }

    pub(super) fn newest(&self) -> Option<&Version> {
        self.versions.last()
    }

    /// Adds a version.
    pub(super) fn push(&mut self, schema: Value, by: &str) {
        let number = self.newest().map_or(1, |newest| newest.number + 1);
        self.versions.push(Version { number, at: Timestamp::now(), by: by.to_owned(), schema });
        let beyond = self.versions.len().saturating_sub(VERSIONS_MAX);
        self.versions.drain(..beyond);
    }
}

/// Reads every schema of a folder; what was not finished is removed.
pub(super) fn load(dir: &Path) -> Result<Vec<(PathBuf, Stored)>, StoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Read { path, source }
    };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed(dir))?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(UNFINISHED) {
            std::fs::remove_file(&path).map_err(failed(&path))?;
        } else if let Some(kind) = name.strip_suffix(FINISHED) {
            let bytes = std::fs::read(&path).map_err(failed(&path))?;
            let damaged = |what: String| StoreError::Damaged { path: path.clone(), what };
            let stored: Stored =
                serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
            if stored.format != FORMAT || stored.event_type != kind {
                return Err(damaged("it is of another version or of another type".to_owned()));
            }
            all.push((path, stored));
        }
    }
    Ok(all)
}

/// Stores what is known of a type, in place of what was stored before.
pub(super) fn write(dir: &Path, stored: &Stored) -> io::Result<()> {
    if !dir.is_dir() {
        std::fs::create_dir_all(dir)?;
        if let Some(above) = dir.parent() {
            File::open(above)?.sync_all()?;
        }
    }
    let unfinished = dir.join(format!("{}{UNFINISHED}", stored.event_type));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(&serde_json::to_vec(stored)?)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, dir.join(format!("{}{FINISHED}", stored.event_type)))?;
    File::open(dir)?.sync_all()
}

/// Removes what is stored of a type.
pub(super) fn remove(dir: &Path, kind: &str) -> io::Result<()> {
    std::fs::remove_file(dir.join(format!("{kind}{FINISHED}")))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_stored_is_read_and_what_was_not_finished_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("schemas");
        assert!(load(&dir).unwrap().is_empty());
        let mut stored = Stored::new("order.filled");
        for n in 0..20 {
            stored.push(json!({"minimum": n}), "alice");
        }
        write(&dir, &stored).unwrap();
        std::fs::write(dir.join("risk_alert.json.tmp"), "{\"form").unwrap();
        let read = load(&dir).unwrap();
        assert_eq!(read.len(), 1);
        let versions: Vec<u64> = read[0].1.versions.iter().map(|version| version.number).collect();
        assert_eq!(versions, (5..=20).collect::<Vec<u64>>());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        remove(&dir, "order.filled").unwrap();
        assert!(load(&dir).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &Stored::new("a")).unwrap();
        let path = dir.path().join("a.json");
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(matches!(load(dir.path()), Err(StoreError::Damaged { .. })), "{cut}");
        }
        std::fs::write(dir.path().join("a.json"), &whole).unwrap();
        std::fs::rename(&path, dir.path().join("b.json")).unwrap();
        assert!(load(dir.path()).is_err());
    }
}
