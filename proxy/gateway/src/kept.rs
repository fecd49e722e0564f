//! The last good configurations on disk, so that a bad change can be taken back.
//!
//! Each accepted configuration's files are kept as one file of `<data-dir>/edge/generations/`, named by its
//! number: written beside, synchronised, renamed; the folder is 0700, the files 0600. References to secrets
//! are kept as they are written (`env:`, `file:`), what they point at never; header fields with credentials
//! are kept because the operator's own file holds them. Numbers go on over restarts, so that "generation 7"
//! means one thing. LIMIT: [`KEPT_MAX`] configurations and [`KEPT_BYTES`] in all; the oldest go first, one
//! that is larger by itself is not kept.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use ring::digest;
use serde::{Deserialize, Serialize};
use sluice_schema::Document;

/// LIMIT: configurations kept.
pub(crate) const KEPT_MAX: usize = 10;
/// LIMIT: bytes of all of them.
pub(crate) const KEPT_BYTES: u64 = 8 << 20;

/// A kept configuration cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    /// No configuration of this number is kept.
    #[error("generation {0} is not kept")]
    Missing(u64),
    /// A file or folder cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path} holds no kept configuration")]
    Shape {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The files are larger than all that is kept.
    #[error("the files have {0} bytes, more than the {KEPT_BYTES} that are kept")]
    TooLarge(u64),
}

/// The texts of one configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sources {
    /// The main file.
    pub(crate) main: String,
    /// The files of `services.d` by name.
    pub(crate) services: BTreeMap<String, String>,
}

impl Sources {
    /// The texts as they were loaded: the main file first.
    pub(crate) fn of(documents: &[Document]) -> Self {
        let mut texts = documents.iter();
        let main = texts.next().map(|document| document.text.clone()).unwrap_or_default();
        let named = |document: &Document| {
            Some((document.path.file_name()?.to_str()?.to_owned(), document.text.clone()))
        };
        Self { main, services: texts.filter_map(named).collect() }
    }

    /// The texts with the places they belong to, as the loader takes them.
    pub(crate) fn documents(&self, files: &Files) -> Vec<Document> {
        let services = self.services.iter().map(|(name, text)| Document::new(files.service(name), text));
        std::iter::once(Document::new(&files.main, &self.main)).chain(services).collect()
    }

    /// 12 hexadecimal digits that say whether two configurations are written alike.
    pub(crate) fn hash(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        let services = self.services.iter().flat_map(|(name, text)| [name, text]);
        for text in std::iter::once(&self.main).chain(services) {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
        context.finish().as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn bytes(&self) -> u64 {
        let services = self.services.iter().map(|(name, text)| name.len() + text.len());
        (self.main.len() + services.sum::<usize>()) as u64
    }
}

/// Where the files of the configuration are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// The main file.
    pub(crate) main: PathBuf,
    /// The folder of the others.
    pub(crate) folder: PathBuf,
}

impl Files {
    /// Those of a configuration file, or of the folder it lies in.
    pub(crate) fn of(path: &Path) -> Self {
        let main = if path.is_dir() { path.join("sluice.toml") } else { path.to_path_buf() };
        let folder = main.parent().unwrap_or(Path::new("")).join("services.d");
        Self { main, folder }
    }

    /// A file of `services.d`.
    pub(crate) fn service(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// One kept configuration, without its texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    /// Its number.
    pub(crate) number: u64,
    /// When it was accepted.
    pub(crate) at: Timestamp,
    /// Hash of its texts.
    pub(crate) hash: String,
    /// What brought it: `start`, `file`, `sighup`, `admin`, `rollback`.
    pub(crate) trigger: String,
    /// The earlier one it brought back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restores: Option<u64>,
    /// Its files.
    pub(crate) files: usize,
    /// Bytes on disk.
    pub(crate) bytes: u64,
}

/// As it lies on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    number: u64,
    at: Timestamp,
    trigger: String,
    #[serde(default)]
    restores: Option<u64>,
    sources: Sources,
}

/// The kept configurations.
pub(crate) struct Kept {
    dir: PathBuf,
    entries: Mutex<Vec<Entry>>,
}

impl Kept {
    /// Looks at what is kept in a data directory. A file that cannot be read is passed over and said so.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, KeptError> {
        let dir = data_dir.join("edge").join("generations");
        let at = |source| KeptError::Io { path: dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(at)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(at)?;
        let mut entries = Vec::new();
        for path in fs::read_dir(&dir).map_err(at)?.filter_map(|entry| Some(entry.ok()?.path())) {
            let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")?.parse().ok());
            let Some(number) = number else {
                // What a write left behind that did not come to its end.
                if path.extension().is_some_and(|extension| extension == "new") {
                    drop(fs::remove_file(&path));
                }
                continue;
            };
            match read(&path, number) {
                Ok((record, bytes)) => entries.push(entry(&record, bytes)),
                Err(error) => tracing::warn!(
                    component = "reload",
                    error = &error as &dyn std::error::Error,
                    "a kept configuration cannot be read"
                ),
            }
        }
        entries.sort_by_key(|entry: &Entry| entry.number);
        Ok(Self { dir, entries: Mutex::new(entries) })
    }

    /// What is kept, oldest first.
    pub(crate) fn list(&self) -> Vec<Entry> {
        self.entries().clone()
    }

    /// The newest.
    pub(crate) fn newest(&self) -> Option<Entry> {
        self.entries().last().cloned()
    }

    /// The one that was in force before `present` and differs from it: where `present` brought an earlier
    /// one back, the one before that, so that going back twice goes back two steps.
    pub(crate) fn before(&self, present: u64) -> Option<Entry> {
        let entries = self.entries();
        let of = |number: u64| entries.iter().find(|entry| entry.number == number);
        let hash = of(present).map(|entry| entry.hash.clone());
        let mut from = present;
        while let Some(earlier) = of(from).and_then(|entry| entry.restores).filter(|number| *number < from) {
            from = earlier;
        }
        entries.iter().rev().find(|entry| entry.number < from && Some(&entry.hash) != hash.as_ref()).cloned()
    }

    /// The texts of one of them.
    pub(crate) fn read(&self, number: u64) -> Result<Sources, KeptError> {
        if !self.entries().iter().any(|entry| entry.number == number) {
            return Err(KeptError::Missing(number));
        }
        read(&self.path(number), number).map(|(record, _)| record.sources)
    }

    /// Keeps one more; it is on disk when this returns.
    pub(crate) fn keep(
        &self,
        number: u64,
        trigger: &str,
        restores: Option<u64>,
        sources: Sources,
    ) -> Result<(), KeptError> {
        if sources.bytes() > KEPT_BYTES {
            return Err(KeptError::TooLarge(sources.bytes()));
        }
        let record = Record { number, at: Timestamp::now(), trigger: trigger.to_owned(), restores, sources };
        let path = self.path(number);
        let text =
            serde_json::to_vec(&record).map_err(|source| KeptError::Shape { path: path.clone(), source })?;
        let mut entries = self.entries();
        write_durably(&path, &text, 0o600).map_err(|source| KeptError::Io { path, source })?;
        entries.retain(|entry| entry.number != number);
        entries.push(entry(&record, text.len() as u64));
        let total = |entries: &[Entry]| entries.iter().map(|entry| entry.bytes).sum::<u64>();
        while entries.len() > 1 && (entries.len() > KEPT_MAX || total(&entries) > KEPT_BYTES) {
            let oldest = entries.remove(0);
            // One that stays behind is found again at the next start, and removed by the next one kept.
            drop(fs::remove_file(self.path(oldest.number)));
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number}.json"))
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes where the control port listens, for commands on this machine that cannot read the configuration.
pub(crate) fn note_address(data_dir: &Path, door: &TcpListener) {
    let path = data_dir.join("edge").join("control.addr");
    let noted =
        door.local_addr().and_then(|address| write_durably(&path, address.to_string().as_bytes(), 0o600));
    if let Err(error) = noted {
        tracing::warn!(component = "control", %error, "the control port's address is not noted");
    }
}

fn entry(record: &Record, bytes: u64) -> Entry {
    Entry {
        number: record.number,
        at: record.at,
        hash: record.sources.hash(),
        trigger: record.trigger.clone(),
        restores: record.restores,
        files: record.sources.services.len() + 1,
        bytes,
    }
}

fn read(path: &Path, number: u64) -> Result<(Record, u64), KeptError> {
    let at = |source| KeptError::Io { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(at)?.len();
    // Escaped text is longer than what it says.
    if bytes > 8 * KEPT_BYTES {
        return Err(KeptError::TooLarge(bytes));
    }
    let text = fs::read(path).map_err(at)?;
    let record: Record =
        serde_json::from_slice(&text).map_err(|source| KeptError::Shape { path: path.to_owned(), source })?;
    if record.number == number { Ok((record, bytes)) } else { Err(KeptError::Missing(number)) }
}

/// Replaces a file: written beside, synchronised, renamed, its folder synchronised.
fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    drop(fs::remove_file(&beside));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(main: &str) -> Sources {
        Sources { main: main.to_owned(), services: BTreeMap::from([("a.toml".into(), "x".into())]) }
    }

    #[test]
    fn what_is_kept_is_found_again_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(dir.path()).unwrap();
        kept.keep(1, "start", None, sources("one")).unwrap();
        kept.keep(2, "file", None, sources("two")).unwrap();
        let folder = dir.path().join("edge/generations");
        fs::write(folder.join("3.json"), "torn").unwrap();
        fs::write(folder.join("4.new"), "left behind").unwrap();
        let again = Kept::open(dir.path()).unwrap();
        assert_eq!(again.list(), kept.list());
        assert_eq!(again.read(1).unwrap(), sources("one"));
        assert!(matches!(again.read(3), Err(KeptError::Missing(3))));
        assert!(!folder.join("4.new").exists());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("1.json"))), (0o700, 0o600));
    }

    #[test]
    fn the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(dir.path()).unwrap();
        for number in 1..=13 {
            kept.keep(number, "file", None, sources(&number.to_string())).unwrap();
        }
        let numbers: Vec<u64> = kept.list().iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, (4..=13).collect::<Vec<_>>());
        let large = "x".repeat(3 << 20);
        for number in 14..=16 {
            kept.keep(number, "file", None, sources(&large)).unwrap();
        }
        let numbers: Vec<u64> = kept.list().iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, [15, 16]);
        assert_eq!(fs::read_dir(dir.path().join("edge/generations")).unwrap().count(), 2);
        let huge = sources(&"x".repeat(9 << 20));
        assert!(matches!(kept.keep(17, "file", None, huge), Err(KeptError::TooLarge(_))));
    }

    #[test]
    fn going_back_twice_goes_back_two_steps() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(dir.path()).unwrap();
        for (number, text) in [(1, "one"), (2, "two"), (3, "two"), (4, "four")] {
            kept.keep(number, "file", None, sources(text)).unwrap();
        }
        assert_eq!(kept.before(4).unwrap().number, 3);
        kept.keep(5, "rollback", Some(3), sources("two")).unwrap();
        assert_eq!(kept.before(5).unwrap().number, 1);
        kept.keep(6, "rollback", Some(1), sources("one")).unwrap();
        assert_eq!(kept.before(6), None);
    }
}
