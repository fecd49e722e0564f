//! Offline verification: needs the files and nothing else, changes nothing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::{self, CheckpointKey};
use crate::files;
use crate::head::{self, Head};
use crate::record::{Digest, Record};
use crate::scan::{self, Line, Scan};

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A line was changed.
    Edited,
    /// One or more records are missing in the middle.
    Deleted,
    /// Records stand in another order, or twice.
    Reordered,
    /// Records at the end, or the whole log, are missing.
    Truncated,
    /// The log continues differently from what was acknowledged: part of it was written anew.
    Forked,
    /// The head file is missing or damaged.
    Head,
    /// A checkpoint is not signed by the key, or there is none.
    Unsigned,
}

/// The first thing wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// The first record concerned.
    pub seq: u64,
    /// The line of its file that it should be on, from 1.
    pub line: u64,
    /// A sentence for the operator.
    pub detail: String,
}

/// The state of one role's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogReport {
    /// The role, from the file's name.
    pub role: String,
    /// The log file.
    pub path: PathBuf,
    /// Records that verified before the first fault.
    pub records: u64,
    /// Bytes of a torn, never acknowledged last write (cut at the next start; not a fault).
    pub torn_bytes: u64,
    /// The last record that a checkpoint signs with the key; `None` where no key was given for this log.
    pub signed_upto: Option<u64>,
    /// The first fault, `None` when the log is whole.
    pub fault: Option<Fault>,
}

/// The state of every log in a folder, ordered by role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// One entry a role.
    pub logs: Vec<LogReport>,
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub struct VerifyError {
    /// The file or folder.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

impl Report {
    /// Whether every log is whole.
    pub fn is_whole(&self) -> bool {
        self.logs.iter().all(|log| log.fault.is_none())
    }
}

/// Verifies every log in `dir` (`<data-dir>/audit`), also while roles write to them. An unreadable folder or
/// file is an error, a broken log is a [`Fault`] in the report.
pub fn verify(dir: &Path) -> Result<Report, VerifyError> {
    verify_logs(dir, None)
}

/// The same; the checkpoints of the key's role must be there and signed by it.
pub fn verify_signed(dir: &Path, key: &CheckpointKey) -> Result<Report, VerifyError> {
    verify_logs(dir, Some(key))
}

fn verify_logs(dir: &Path, key: Option<&CheckpointKey>) -> Result<Report, VerifyError> {
    let fail = |source| VerifyError { path: dir.to_owned(), source };
    let mut roles = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let known = path.extension().is_some_and(|extension| extension == "jsonl" || extension == "head");
        match files::parse(name) {
            Some((role, _)) => roles.push(role.to_owned()),
            None if known => roles.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned)),
            None => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    let logs = roles
        .iter()
        .map(|role| verify_log(dir, role, key.filter(|key| key.role == *role)))
        .collect::<Result<_, _>>()?;
    Ok(Report { logs })
}

fn verify_log(dir: &Path, role: &str, key: Option<&CheckpointKey>) -> Result<LogReport, VerifyError> {
    let path = dir.join(format!("{role}.jsonl"));
    let mut report = LogReport {
        role: role.to_owned(),
        path: path.clone(),
        records: 0,
        torn_bytes: 0,
        signed_upto: None,
        fault: None,
    };
    // The head is read before the log: a log that grows meanwhile is only ahead of it.
    let checkpoint = match head::read(&dir.join(format!("{role}.head"))) {
        Ok(Some(checkpoint)) => checkpoint,
        Ok(None) => {
            report.fault = Some(fault(FaultKind::Head, 1, 1, "the head file is missing"));
            return Ok(report);
        }
        Err(head::HeadError::Damaged { .. }) => {
            report.fault = Some(fault(FaultKind::Head, 1, 1, "the head file is damaged"));
            return Ok(report);
        }
        Err(head::HeadError::Io { path, source }) => return Err(VerifyError { path, source }),
    };
    let fail = |path: &Path| {
        let path = path.to_owned();
        |source| VerifyError { path, source }
    };
    let earlier = files::earlier(&path).map_err(fail(dir))?;
    let mut chain = Chain::new(role, checkpoint, key);
    for file in &earlier {
        let open = File::open(&file.path).map_err(fail(&file.path))?;
        chain.walk(open, false, &mut report).map_err(fail(&file.path))?;
        report.signed_upto = chain.signed_upto;
        if let Some(fault) = &mut report.fault {
            fault.detail.push_str(&format!(" ({})", file.path.display()));
            return Ok(report);
        }
    }
    match File::open(&path) {
        Ok(file) => chain.walk(file, true, &mut report).map_err(fail(&path))?,
        // A crash between two files, or there never was one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if earlier.is_empty() && checkpoint.seq > 0 {
                report.fault = Some(fault(FaultKind::Truncated, 1, 1, "the log is gone, its head is not"));
            }
        }
        Err(source) => return Err(VerifyError { path, source }),
    }
    report.signed_upto = chain.signed_upto;
    if report.fault.is_none() {
        report.fault = chain.end();
    }
    Ok(report)
}

/// The chain over the files of a log.
struct Chain<'a> {
    role: &'a str,
    checkpoint: Head,
    /// The last record that fits, and its hash.
    seq: u64,
    prev: Digest,
    /// What lies before the first file: up to which record and its hash. Some later record must retire it.
    missing: Option<(u64, Digest)>,
    key: Option<&'a CheckpointKey>,
    signed_upto: Option<u64>,
}

impl<'a> Chain<'a> {
    fn new(role: &'a str, checkpoint: Head, key: Option<&'a CheckpointKey>) -> Self {
        let prev = Digest::genesis(role);
        Self { role, checkpoint, seq: 0, prev, missing: None, key, signed_upto: None }
    }

    fn walk(&mut self, file: File, last: bool, report: &mut LogReport) -> io::Result<()> {
        let length = file.metadata()?.len();
        let mut lines = Scan::start(file, 0)?;
        let mut number = 0;
        while let Some(line) = lines.line()? {
            number += 1;
            let seq = self.seq + 1;
            let line = match line {
                Line::Whole(line) if last && seq > self.checkpoint.seq && scan::is_torn(&line) => {
                    let start = lines.position - line.len() as u64 - 1;
                    report.torn_bytes = length.saturating_sub(start);
                    break;
                }
                Line::Whole(line) => line,
                Line::Torn(bytes) if last => {
                    report.torn_bytes = bytes as u64;
                    break;
                }
                Line::Torn(_) => {
                    report.fault = Some(fault(
                        FaultKind::Truncated,
                        seq,
                        number,
                        "a full file ends in the middle of a record",
                    ));
                    return Ok(());
                }
            };
            report.fault = match Record::from_line(&line) {
                None => Some(fault(FaultKind::Edited, seq, number, "the line is not what was written")),
                Some(record) if record.seq != seq && self.begins_later(&record, last) => {
                    self.missing = Some((record.seq - 1, record.prev));
                    (self.seq, self.prev) = (record.seq, record.hash);
                    report.records += 1;
                    continue;
                }
                Some(record) if record.seq != seq => Some(misplaced(&record, seq, number, &mut lines)?),
                Some(record) => self.check(&record).map(|(kind, text)| fault(kind, seq, number, text)),
            };
            if report.fault.is_some() {
                return Ok(());
            }
            report.records += 1;
        }
        Ok(())
    }

    /// Whether a record may be the first of a log whose beginning was retired.
    fn begins_later(&self, record: &Record, last: bool) -> bool {
        self.seq == 0 && !last && record.role == self.role && record.seq <= self.checkpoint.seq
    }

    fn check(&mut self, record: &Record) -> Option<(FaultKind, &'static str)> {
        if record.role != self.role {
            return Some((FaultKind::Forked, "the record belongs to another role's log"));
        }
        if record.prev != self.prev {
            return Some((FaultKind::Forked, "the record does not continue the one before"));
        }
        if record.seq == self.checkpoint.seq && record.hash != self.checkpoint.hash {
            return Some((FaultKind::Forked, "the record is not the one that was acknowledged"));
        }
        if let Some(key) = self.key.filter(|_| checkpoint::is_one(record)) {
            if !key.has_signed(record) {
                return Some((FaultKind::Unsigned, "the checkpoint is not signed by the key"));
            }
            self.signed_upto = Some(record.seq - 1);
        }
        if self.missing.is_some_and(|(seq, hash)| files::retires(record, seq, hash)) {
            self.missing = None;
        }
        (self.seq, self.prev) = (record.seq, record.hash);
        None
    }

    /// What is missing at the end, or at the beginning without anybody having retired it.
    fn end(&self) -> Option<Fault> {
        if self.seq < self.checkpoint.seq {
            let detail =
                format!("the log ends before record {}, which was acknowledged", self.checkpoint.seq);
            return Some(fault(FaultKind::Truncated, self.seq + 1, self.seq + 1, &detail));
        }
        if self.key.is_some() && self.signed_upto.is_none() && self.seq > 0 {
            let detail = "no checkpoint of the log is signed by the key";
            return Some(fault(FaultKind::Unsigned, 1, 1, detail));
        }
        let (last, _) = self.missing?;
        let detail = format!("records 1 to {last} are missing and no record says that they were retired");
        Some(fault(FaultKind::Deleted, 1, 1, &detail))
    }
}

/// A sound record in the wrong place: moved when the expected one comes later, else the expected one is gone.
fn misplaced(found: &Record, expected: u64, line: u64, rest: &mut Scan<File>) -> io::Result<Fault> {
    let detail = format!("record {} stands where record {expected} belongs", found.seq);
    if found.seq < expected {
        return Ok(fault(FaultKind::Reordered, expected, line, &detail));
    }
    while let Some(Line::Whole(text)) = rest.line()? {
        if Record::from_line(&text).is_some_and(|record| record.seq == expected) {
            return Ok(fault(FaultKind::Reordered, expected, line, &detail));
        }
    }
    Ok(fault(FaultKind::Deleted, expected, line, &detail))
}

fn fault(kind: FaultKind, seq: u64, line: u64, detail: &str) -> Fault {
    Fault { kind, seq, line, detail: detail.to_owned() }
}
