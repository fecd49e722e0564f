//! Offline verification: needs the files and nothing else, changes nothing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

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
}

/// The first thing wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// The first record concerned.
    pub seq: u64,
    /// The line it should be on, from 1.
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
    let fail = |source| VerifyError { path: dir.to_owned(), source };
    let mut roles = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let known = path.extension().is_some_and(|extension| extension == "jsonl" || extension == "head");
        if let (true, Some(role)) = (known, path.file_stem().and_then(|stem| stem.to_str())) {
            roles.push(role.to_owned());
        }
    }
    roles.sort_unstable();
    roles.dedup();
    let logs = roles.iter().map(|role| verify_log(dir, role)).collect::<Result<_, _>>()?;
    Ok(Report { logs })
}

fn verify_log(dir: &Path, role: &str) -> Result<LogReport, VerifyError> {
    let path = dir.join(format!("{role}.jsonl"));
    let mut report =
        LogReport { role: role.to_owned(), path: path.clone(), records: 0, torn_bytes: 0, fault: None };
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
    match File::open(&path) {
        Ok(file) => walk(file, checkpoint, &mut report).map_err(|source| VerifyError { path, source })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if checkpoint.seq > 0 {
                report.fault = Some(fault(FaultKind::Truncated, 1, 1, "the log is gone, its head is not"));
            }
        }
        Err(source) => return Err(VerifyError { path, source }),
    }
    Ok(report)
}

fn walk(file: File, checkpoint: Head, report: &mut LogReport) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut lines = Scan::start(file, 0)?;
    let mut prev = Digest::genesis(&report.role);
    while let Some(line) = lines.line()? {
        let seq = report.records + 1;
        let line = match line {
            Line::Whole(line) if seq > checkpoint.seq && scan::is_torn(&line) => {
                let start = lines.position - line.len() as u64 - 1;
                report.torn_bytes = length.saturating_sub(start);
                break;
            }
            Line::Whole(line) => line,
            Line::Torn(bytes) => {
                report.torn_bytes = bytes as u64;
                break;
            }
        };
        report.fault = match Record::from_line(&line) {
            None => Some(fault(FaultKind::Edited, seq, seq, "the line is not what was written")),
            Some(record) if record.seq != seq => Some(misplaced(&record, seq, &mut lines)?),
            Some(record) if record.role != report.role => {
                Some(fault(FaultKind::Forked, seq, seq, "the record belongs to another role's log"))
            }
            Some(record) if record.prev != prev => {
                Some(fault(FaultKind::Forked, seq, seq, "the record does not continue the one before"))
            }
            Some(record) if seq == checkpoint.seq && record.hash != checkpoint.hash => {
                Some(fault(FaultKind::Forked, seq, seq, "the record is not the one that was acknowledged"))
            }
            Some(record) => {
                prev = record.hash;
                None
            }
        };
        if report.fault.is_some() {
            return Ok(());
        }
        report.records = seq;
    }
    if report.records < checkpoint.seq {
        let next = report.records + 1;
        let detail = format!("the log ends before record {}, which was acknowledged", checkpoint.seq);
        report.fault = Some(fault(FaultKind::Truncated, next, next, &detail));
    }
    Ok(())
}

/// A sound record in the wrong place: moved when the expected one comes later, else the expected one is gone.
fn misplaced(found: &Record, expected: u64, rest: &mut Scan<File>) -> io::Result<Fault> {
    let detail = format!("record {} stands where record {expected} belongs", found.seq);
    if found.seq < expected {
        return Ok(fault(FaultKind::Reordered, expected, expected, &detail));
    }
    while let Some(Line::Whole(line)) = rest.line()? {
        if Record::from_line(&line).is_some_and(|record| record.seq == expected) {
            return Ok(fault(FaultKind::Reordered, expected, expected, &detail));
        }
    }
    Ok(fault(FaultKind::Deleted, expected, expected, &detail))
}

fn fault(kind: FaultKind, seq: u64, line: u64, detail: &str) -> Fault {
    Fault { kind, seq, line, detail: detail.to_owned() }
}
