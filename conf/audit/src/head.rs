//! The checkpoint beside a log: the last acknowledged record, in two slots that are overwritten in turn.
//!
//! A slot lies within one disk sector and is overwritten in place, so a crash leaves either the old or the
//! new slot; the other slot is intact in any case. A slot with a wrong sum is damage, not a crash.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::record::Digest;

const SLOT_BYTES: usize = 256;

/// The last record of a log: where the chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Sequence of the last record; 0 when there is none.
    pub seq: u64,
    /// Byte length of the log after it.
    pub end: u64,
    /// Its hash, or the role's genesis value.
    pub hash: Digest,
    /// The largest anchor bound so far (not part of the checkpoint; known once the log is read).
    pub anchor: u64,
}

/// Why a head file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The file cannot be read or written.
    #[error("cannot use head file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A slot is not what this crate wrote.
    #[error("head file {path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    seq: u64,
    end: u64,
    hash: Digest,
    sum: Digest,
}

/// An open head file.
pub(crate) struct HeadFile {
    file: File,
    next_slot: u64,
}

impl Head {
    pub(crate) fn genesis(role: &str) -> Self {
        Self { seq: 0, end: 0, hash: Digest::genesis(role), anchor: 0 }
    }

    fn sum(&self) -> Digest {
        let mut context = Context::new(&SHA256);
        context.update(&self.seq.to_be_bytes());
        context.update(&self.end.to_be_bytes());
        context.update(&self.hash.0);
        Digest::finish(context)
    }

    fn to_slot(self) -> [u8; SLOT_BYTES] {
        let slot = Slot { seq: self.seq, end: self.end, hash: self.hash, sum: self.sum() };
        let json = serde_json::to_vec(&slot).expect("numbers and digests always serialise");
        let mut bytes = [b' '; SLOT_BYTES];
        bytes[..json.len()].copy_from_slice(&json);
        bytes[SLOT_BYTES - 1] = b'\n';
        bytes
    }

    fn from_slot(bytes: &[u8]) -> Option<Self> {
        let slot: Slot = serde_json::from_slice(bytes).ok()?;
        let head = Self { seq: slot.seq, end: slot.end, hash: slot.hash, anchor: 0 };
        (head.sum() == slot.sum && head.to_slot() == bytes).then_some(head)
    }
}

/// Reads the head beside a log without changing it; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Head>, HeadError> {
    match std::fs::read(path) {
        Ok(bytes) => parse(&bytes)
            .map(|(head, _)| Some(head))
            .ok_or_else(|| HeadError::Damaged { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HeadError::Io { path: path.to_owned(), source }),
    }
}

/// The newer of the two slots and the index of the older one.
fn parse(bytes: &[u8]) -> Option<(Head, u64)> {
    if bytes.len() != 2 * SLOT_BYTES {
        return None;
    }
    let first = Head::from_slot(&bytes[..SLOT_BYTES])?;
    let second = Head::from_slot(&bytes[SLOT_BYTES..])?;
    Some(if first.seq >= second.seq { (first, 1) } else { (second, 0) })
}

impl HeadFile {
    /// Opens the head of an existing log, or makes one that stands at `genesis`, durably.
    pub(crate) fn open(path: &Path, genesis: Head) -> Result<(Self, Head), HeadError> {
        let fail = |source| HeadError::Io { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        if let Some(head) = read(path)? {
            let bytes = std::fs::read(path).map_err(fail)?;
            let next_slot = parse(&bytes).map_or(0, |(_, older)| older);
            let file = options.open(path).map_err(fail)?;
            return Ok((Self { file, next_slot }, head));
        }
        // Written aside and renamed: a crash here leaves no half a head.
        let aside = path.with_extension("head.new");
        let file = options.create(true).truncate(true).open(&aside).map_err(fail)?;
        let slot = genesis.to_slot();
        file.write_all_at(&slot, 0).map_err(fail)?;
        file.write_all_at(&slot, SLOT_BYTES as u64).map_err(fail)?;
        file.sync_all().map_err(fail)?;
        std::fs::rename(&aside, path).map_err(fail)?;
        Ok((Self { file, next_slot: 0 }, genesis))
    }

    /// Overwrites the older slot. The page cache outlives the process; the disk may lag, which only makes
    /// the head older than the log, never newer.
    pub(crate) fn store(&mut self, head: Head) -> io::Result<()> {
        self.file.write_all_at(&head.to_slot(), self.next_slot * SLOT_BYTES as u64)?;
        self.next_slot ^= 1;
        Ok(())
    }

    /// Brings it to disk: needed only where a head from before would name another file.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_slot_wins_and_any_flipped_byte_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.head");
        let genesis = Head::genesis("vault");
        let (mut file, head) = HeadFile::open(&path, genesis).unwrap();
        assert_eq!(head, genesis);
        for seq in 1..=5 {
            file.store(Head { seq, end: seq * 100, hash: Digest([seq as u8; 32]), anchor: 0 }).unwrap();
            assert_eq!(read(&path).unwrap().unwrap().seq, seq);
        }
        let whole = std::fs::read(&path).unwrap();
        for position in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[position] ^= 1;
            assert!(parse(&bytes).is_none(), "flip at {position} went unnoticed");
        }
    }
}
