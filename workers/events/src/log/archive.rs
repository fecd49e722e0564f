//! Copies of full segments in another folder.
//!
//! Of each segment the archive holds `<base seq>.seg`, the file as it is in the log (encrypted and compressed where
//! it is), and `<base seq>.json`, which says what it holds and its SHA-256. The JSON is renamed into place when the
//! copy is durable: with it a segment is archived, without it nothing is, and the next call copies it again. A
//! folder of archived segments opens as a log, with the keys it was written with.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::AppendError;
use super::housekeeping::Housekeeper;
use super::medium::Medium;
use super::segment::{self, Segment};

/// LIMIT: segments copied by one call; the next call goes on behind them.
pub(crate) const SEGMENTS_MAX: usize = 1_000;
/// Bytes copied at once.
const STEP_BYTES: u64 = 1024 * 1024;

/// One archived segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedSegment {
    /// Name of the copy.
    pub file: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// Events in it.
    pub events: u64,
    /// Seq of the first one.
    pub first_seq: u64,
    /// Message id of the first one.
    pub first_id: String,
    /// Message id of the last one.
    pub last_id: String,
    /// Number of the key it is encrypted with, 0 without one.
    pub key_id: u32,
}

/// What a call did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// What was copied, oldest first.
    pub copied: Vec<ArchivedSegment>,
    /// Full segments that the archive held already.
    pub held: u64,
    /// Full segments that are still to be copied by another call.
    pub left: u64,
}

/// Why segments were not archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No archive is configured.
    #[error("no archive folder is configured")]
    Off,
    /// The segment being written could not be closed.
    #[error("the segment being written could not be closed")]
    Close(#[source] AppendError),
    /// A copy failed.
    #[error("cannot copy to {}", path.display())]
    Copy {
        /// File or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The folder, used by one at a time.
#[derive(Debug)]
pub(crate) struct Archive {
    dir: PathBuf,
    turn: Mutex<()>,
}

impl Housekeeper {
    /// Copies every full segment that the archive does not hold.
    pub(crate) fn archive_all(&self) -> Result<Archived, ArchiveError> {
        let Some(archive) = &self.archive else { return Err(ArchiveError::Off) };
        // Compressed first: a copy is made once.
        self.pack_all();
        let mut archived = Archived::default();
        for segment in self.full_segments() {
            if archived.copied.len() >= SEGMENTS_MAX {
                archived.left += u64::from(!archive.holds(&segment));
                continue;
            }
            match archive.add(&segment, &*self.medium)? {
                Some(copied) => archived.copied.push(copied),
                None => archived.held += 1,
            }
        }
        Ok(archived)
    }
}

impl Archive {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, turn: Mutex::new(()) }
    }

    /// Copies a segment; `None` when the archive held it.
    pub(crate) fn add(
        &self,
        segment: &Arc<Segment>,
        medium: &dyn Medium,
    ) -> Result<Option<ArchivedSegment>, ArchiveError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.holds(segment) {
            return Ok(None);
        }
        let copy = self.dir.join(segment::file_name(segment.base_seq));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ArchiveError::Copy { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(failed(&self.dir))?;
        let (bytes, sha256) = copy_segment(segment, &copy, medium).map_err(failed(&copy))?;
        let note = segment.with_summary(|summary| ArchivedSegment {
            file: segment::file_name(segment.base_seq),
            bytes,
            sha256,
            events: summary.records,
            first_seq: segment.base_seq,
            first_id: summary.first.to_string(),
            last_id: summary.last.to_string(),
            key_id: segment.form.key_id(),
        });
        let text = serde_json::to_vec(&note).expect("strings and numbers always serialize");
        let path = copy.with_extension("json");
        let written = put(&path, medium, |file| medium.write_all_at(file, &text, 0));
        written.and_then(|()| medium.sync_dir(&self.dir)).map_err(failed(&path))?;
        Ok(Some(note))
    }

    /// Whether the archive holds a whole copy of the segment's records.
    pub(crate) fn holds(&self, segment: &Segment) -> bool {
        let copy = self.dir.join(segment::file_name(segment.base_seq));
        let Ok(text) = fs::read(copy.with_extension("json")) else { return false };
        let Ok(note) = serde_json::from_slice::<ArchivedSegment>(&text) else { return false };
        // Compressed or not, the records are the same: the copy may be from before the log's file was written anew.
        let same = segment.with_summary(|summary| {
            (note.events, note.last_id.as_str()) == (summary.records, summary.last.to_string().as_str())
        });
        same && fs::metadata(&copy).is_ok_and(|meta| meta.len() == note.bytes)
    }
}

/// Copies a segment's written bytes; their number and SHA-256.
fn copy_segment(segment: &Segment, path: &Path, medium: &dyn Medium) -> io::Result<(u64, String)> {
    let end = segment.with_summary(|summary| summary.end);
    let mut digest = Context::new(&SHA256);
    put(path, medium, |file| {
        let mut at = 0;
        while at < end {
            let mut bytes = vec![0; STEP_BYTES.min(end - at) as usize];
            segment.file.read_exact_at(&mut bytes, at)?;
            digest.update(&bytes);
            medium.write_all_at(file, &bytes, at)?;
            at += bytes.len() as u64;
        }
        Ok(())
    })?;
    let sha256 = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((end, sha256))
}

/// Writes a file aside, syncs it and renames it into place.
fn put(path: &Path, medium: &dyn Medium, fill: impl FnOnce(&fs::File) -> io::Result<()>) -> io::Result<()> {
    let draft = path.with_extension("tmp");
    segment::remove_if_there(&draft)?;
    let file = medium.create(&draft)?;
    let written = fill(&file).and_then(|()| medium.sync(&file)).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // What cannot be removed now is removed by the next try.
        drop(fs::remove_file(&draft));
    }
    written
}
