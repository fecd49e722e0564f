//! The files of a log: the one that is written, `<role>.jsonl`, and those before it, `<role>.<first record>.jsonl`.
//!
//! A full file is renamed after its first record, twenty digits, and a new one begins; the chain goes on from file to
//! file. The head is brought to disk with it, so it never names a record further back than the newest of the earlier
//! files. When all together are larger than [`Limits::keep`], or the oldest ended longer ago than [`Limits::age`], a
//! record says up to where the log is retired, and with which hash it ended there; once that is durable, the oldest file
//! is removed. A log that begins later than at record 1 is whole only when it holds that record. With
//! [`WhenFull::Refuse`] nothing is removed for want of room: the log takes no record any more, until it is opened with
//! more room.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;

use crate::record::{Digest, Entry, Record};
use crate::scan::{self, Line, Scan};

const DIGITS: usize = 20;
/// The kind and verb of a record that says up to where the log is retired.
const RETIRE: (&str, &str) = ("audit", "retire");

/// How large a log gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes at which a file is full.
    pub file: u64,
    /// Bytes of the earlier files together at which the oldest is removed; the newest of them always stays.
    pub keep: u64,
    /// How long ago the oldest file's last record was made when it is removed; `None`: its age does not matter.
    pub age: Option<SignedDuration>,
    /// What happens when `keep` is reached.
    pub when_full: WhenFull,
}

/// What happens to a log that has as much as it may keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest file goes, after a record that names its end.
    #[default]
    Retire,
    /// No record is taken any more.
    Refuse,
}

impl Limits {
    /// Limits of a log that keeps so much, in files of a sixteenth of it, 64 MiB at most.
    pub fn keeping(keep: u64, age: Option<SignedDuration>, when_full: WhenFull) -> Self {
        Self { file: (keep / 16).clamp(4_096, 64 << 20), keep, age, when_full }
    }
}

impl Default for Limits {
    /// 64 MiB a file and 4 GiB in all: some ten million records.
    fn default() -> Self {
        Self::keeping(4 << 30, None, WhenFull::Retire)
    }
}

/// One of the earlier files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Earlier {
    /// Its first record.
    pub(crate) first: u64,
    pub(crate) path: PathBuf,
}

/// The earlier files of the log at `path`, oldest first.
pub(crate) fn earlier(path: &Path) -> io::Result<Vec<Earlier>> {
    let role = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let mut files = Vec::new();
    for entry in fs::read_dir(path.parent().unwrap_or(Path::new(".")))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let first = parse(name).and_then(|(of, first)| (of == role).then_some(first));
        if let Some(first) = first {
            files.push(Earlier { first, path });
        }
    }
    files.sort_unstable_by_key(|file| file.first);
    Ok(files)
}

/// Role and first record in the name of an earlier file.
pub(crate) fn parse(name: &str) -> Option<(&str, u64)> {
    let (role, first) = name.strip_suffix(".jsonl")?.split_once('.')?;
    let digits = first.len() == DIGITS && first.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| first.parse().ok()).flatten().map(|first| (role, first))
}

/// The path of the file that begins with record `first`, once it is full.
pub(crate) fn full_path(path: &Path, first: u64) -> PathBuf {
    path.with_extension(format!("{first:0DIGITS$}.jsonl"))
}

/// The last record of a file and where it ends; `None`: it does not end in a record.
pub(crate) fn last_record(path: &Path) -> io::Result<Option<Record>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let Some(start) = scan::line_start_before(&mut file, length)? else { return Ok(None) };
    let line = Scan::start(file, start)?.line()?;
    Ok(line.and_then(|line| if let Line::Whole(line) = line { Record::from_line(&line) } else { None }))
}

/// The first record of a file.
pub(crate) fn first_record(path: &Path) -> io::Result<Option<Record>> {
    let line = Scan::start(File::open(path)?, 0)?.line()?;
    Ok(line.and_then(|line| if let Line::Whole(line) = line { Record::from_line(&line) } else { None }))
}

/// The entry by which everything up to record `seq`, whose hash is `hash`, is retired.
pub(crate) fn retire(role: &str, seq: u64, hash: Digest) -> Entry {
    Entry::new(RETIRE.0, RETIRE.1).actor(role).path(retired(seq, hash))
}

/// Whether a record retires everything up to `seq` with this hash.
pub(crate) fn retires(record: &Record, seq: u64, hash: Digest) -> bool {
    (record.kind.as_str(), record.op.as_str()) == RETIRE
        && record.actor == record.role
        && record.path == retired(seq, hash)
}

fn retired(seq: u64, hash: Digest) -> String {
    format!("to {seq} {hash}")
}
