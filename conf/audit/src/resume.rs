//! A log is opened: what its head names must be there, later whole records must chain, a torn tail is cut.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::files::{self, Earlier};
use crate::head::Head;
use crate::log::OpenError;
use crate::record::Record;
use crate::scan::{self, Line, Scan};

/// Opens a file of the log, locked against other writers; it must be ours alone.
pub(crate) fn open_file(path: &Path, fresh: bool) -> Result<(File, fs::Metadata), OpenError> {
    let fail = |source| OpenError::Io { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).create_new(fresh).truncate(false).mode(0o600);
    let file = options.open(path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(fail(source)),
    }
    let metadata = file.metadata().map_err(fail)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(OpenError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o777 });
    }
    Ok((file, metadata))
}

/// Continues from `checkpoint`: its record must be there, later whole records must chain, a torn tail is cut. The
/// record is in this file, or the last of the file before it when a crash came between the two.
pub(crate) fn resume(
    path: &Path,
    file: &mut File,
    checkpoint: Head,
    genesis: Head,
    role: &str,
    before: Option<&Earlier>,
) -> Result<Head, OpenError> {
    let fail = |source| OpenError::Io { path: path.to_owned(), source };
    let length = file.metadata().map_err(fail)?.len();
    let Some(before) = before else {
        return resume_here(path, file, checkpoint, genesis, role);
    };
    let first = files::first_record(path).map_err(fail)?;
    if checkpoint.end > 0 && first.is_some_and(|first| first.seq <= checkpoint.seq) {
        return resume_here(path, file, checkpoint, genesis, role);
    }
    let last = files::last_record(&before.path).map_err(fail)?;
    let last = last.ok_or_else(|| broken(&before.path, before.first, "it does not end in a record"))?;
    let mut from = Head { seq: last.seq, end: 0, hash: last.hash, anchor: last.anchor };
    if checkpoint.end == 0 {
        let is_last = (checkpoint.seq, checkpoint.hash) == (last.seq, last.hash);
        if !is_last {
            return Err(broken(&before.path, checkpoint.seq, "it does not end in the record its head names"));
        }
    } else {
        // The head is from before the file was full: what it names is in there, and all after it chains.
        let mut earlier = File::open(&before.path).map_err(fail)?;
        let size = earlier.metadata().map_err(fail)?.len();
        from = resume_in(&before.path, &mut earlier, checkpoint, genesis, role)?;
        if from.end != size {
            return Err(broken(&before.path, from.seq + 1, "a full file ends in the middle of a record"));
        }
        from.end = 0;
    }
    let head = follow(path, file, from, checkpoint, role)?;
    cut(file, head.end, length).map_err(fail)?;
    Ok(head)
}

fn resume_here(
    path: &Path,
    file: &mut File,
    checkpoint: Head,
    genesis: Head,
    role: &str,
) -> Result<Head, OpenError> {
    let fail = |source| OpenError::Io { path: path.to_owned(), source };
    let length = file.metadata().map_err(fail)?.len();
    let head = resume_in(path, file, checkpoint, genesis, role)?;
    cut(file, head.end, length).map_err(fail)?;
    Ok(head)
}

fn cut(file: &File, end: u64, length: u64) -> io::Result<()> {
    if end < length { file.set_len(end) } else { Ok(()) }
}

/// The last record of a file that holds the checkpoint's.
fn resume_in(
    path: &Path,
    file: &mut File,
    checkpoint: Head,
    genesis: Head,
    role: &str,
) -> Result<Head, OpenError> {
    let fail = |source| OpenError::Io { path: path.to_owned(), source };
    let length = file.metadata().map_err(fail)?.len();
    if length < checkpoint.end {
        return Err(broken(path, checkpoint.seq, "the log is shorter than its head says"));
    }
    let mut from = genesis;
    if checkpoint.seq > 0 {
        from.end = scan::line_start_before(file, checkpoint.end)
            .map_err(fail)?
            .ok_or_else(|| broken(path, checkpoint.seq, "no record ends where its head says"))?;
        from.seq = checkpoint.seq - 1;
    }
    follow(path, file, from, checkpoint, role)
}

/// Reads on from `from` to the last record that is whole.
fn follow(path: &Path, file: &mut File, from: Head, checkpoint: Head, role: &str) -> Result<Head, OpenError> {
    let fail = |source| OpenError::Io { path: path.to_owned(), source };
    let mut head = from;
    let mut lines = Scan::start(&mut *file, from.end).map_err(fail)?;
    while let Some(Line::Whole(line)) = lines.line().map_err(fail)? {
        let seq = head.seq + 1;
        // Pages of an unacknowledged batch reach the disk in any order; one that did not is zeros.
        if seq > checkpoint.seq && scan::is_torn(&line) {
            break;
        }
        let record = Record::from_line(&line).ok_or_else(|| broken(path, seq, "it was edited"))?;
        let chained = seq == checkpoint.seq || record.prev == head.hash;
        if record.seq != seq || record.role != role || !chained {
            return Err(broken(path, seq, "it does not continue the record before"));
        }
        if seq == checkpoint.seq && record.hash != checkpoint.hash {
            return Err(broken(path, seq, "it is not the record its head names"));
        }
        head = Head { seq, end: lines.position, hash: record.hash, anchor: record.anchor };
    }
    Ok(head)
}

pub(crate) fn broken(path: &Path, seq: u64, reason: &'static str) -> OpenError {
    OpenError::Broken { path: path.to_owned(), seq, reason }
}
