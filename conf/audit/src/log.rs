//! The log as its one writer sees it: opened, appended to in durable batches, closed.
//!
//! A writer thread takes what is queued (at most [`BATCH_MAX`] records), writes it in one piece, calls
//! `fdatasync` once and then answers everybody: group commit, so the cost of a sync is shared. It fails
//! closed: a failed write is undone by cutting the file back and answered with an error, and the next
//! batch tries again (a full disk heals); a failed sync, a failed cut or a file that is no longer ours
//! (unlinked, replaced, shortened, opened to others) refuses everything until the process restarts.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use jiff::Timestamp;

use crate::head::{Head, HeadError, HeadFile};
use crate::pending::{self, Completion, Pending};
use crate::record::{Entry, Record};
use crate::scan::{self, Line, Scan};

/// LIMIT: records made durable by one sync.
const BATCH_MAX: usize = 256;
/// LIMIT: submissions that wait for the writer; more are refused with `Busy`.
const QUEUE_MAX: usize = 4_096;

/// Why a record is not durable. The caller must then refuse the request (503).
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    /// The disk refused the write; the record is not in the log.
    #[error("audit log cannot be written")]
    Write(#[source] Arc<io::Error>),
    /// The log is no longer the file that was opened, or its state is unknown; nothing is accepted any more.
    #[error("audit log is closed to writing: {0}")]
    Failed(&'static str),
    /// The queue is full.
    #[error("audit queue is full ({QUEUE_MAX} submissions)")]
    Busy,
    /// The writer has ended.
    #[error("audit writer has ended")]
    Closed,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or folder cannot be used.
    #[error("cannot open audit log {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another process writes it.
    #[error("audit log {path} is in use by another process")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Group or others may read it.
    #[error("audit log {path} has mode {mode:o}; it must be 600")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its head file is unusable.
    #[error("audit log {path} has no usable head")]
    Head {
        /// The log.
        path: PathBuf,
        /// The cause.
        #[source]
        source: HeadError,
    },
    /// It does not continue its head: records were cut, edited or replaced.
    #[error("audit log {path} is broken at record {seq}: {reason}; run `sluice audit verify`")]
    Broken {
        /// The file.
        path: PathBuf,
        /// The first record that does not fit.
        seq: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A role's audit log, shared by reference; dropping it makes queued records durable and ends the writer.
pub struct Log {
    path: PathBuf,
    sender: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Job {
    entries: Vec<Entry>,
    ts: Timestamp,
    done: Completion,
}

/// What the writer tells the other threads.
struct Shared {
    head: Mutex<Head>,
    failed: AtomicBool,
}

struct Writer {
    path: PathBuf,
    role: String,
    file: File,
    head_file: HeadFile,
    head: Head,
    device: u64,
    inode: u64,
    failed: Option<&'static str>,
    shared: Arc<Shared>,
}

impl Log {
    /// Opens (or makes) the log of `role` at `path`, usually `<data-dir>/audit/<role>.jsonl`, and starts its
    /// writer. A torn last line is cut; a log that does not continue its head is refused.
    pub fn open(path: &Path, role: &str) -> Result<Self, OpenError> {
        let writer = Writer::open(path, role)?;
        let shared = Arc::clone(&writer.shared);
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(&receiver))
            .map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), sender: Some(sender), shared, writer: Some(thread) })
    }

    /// Queues `entry`; the result resolves once it is durable. Never blocks; a full queue is `Busy`.
    pub fn submit(&self, entry: Entry, ts: Timestamp) -> Pending {
        self.submit_all(vec![entry], ts)
    }

    /// Queues `entries` to be written next to each other; resolves to the last one's sequence.
    pub fn submit_all(&self, entries: Vec<Entry>, ts: Timestamp) -> Pending {
        let Some(sender) = &self.sender else { return Pending::refused(AuditError::Closed) };
        let (done, pending) = pending::pair();
        match sender.try_send(Job { entries, ts, done }) {
            Ok(()) => pending,
            Err(TrySendError::Full(_)) => Pending::refused(AuditError::Busy),
            Err(TrySendError::Disconnected(_)) => Pending::refused(AuditError::Closed),
        }
    }

    /// Appends `entry` and blocks until it is durable; its sequence.
    pub fn append(&self, entry: Entry, ts: Timestamp) -> Result<u64, AuditError> {
        self.append_all(vec![entry], ts)
    }

    /// Appends `entries` next to each other and blocks until all are durable; the last one's sequence.
    pub fn append_all(&self, entries: Vec<Entry>, ts: Timestamp) -> Result<u64, AuditError> {
        let (done, pending) = pending::pair();
        let sender = self.sender.as_ref().ok_or(AuditError::Closed)?;
        sender.send(Job { entries, ts, done }).map_err(|_| AuditError::Closed)?;
        pending.wait()
    }

    /// The last durable record.
    pub fn head(&self) -> Head {
        *self.shared.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False once the log refuses everything; the role is then not ready.
    pub fn is_writable(&self) -> bool {
        !self.shared.failed.load(Ordering::Relaxed) && self.writer.as_ref().is_some_and(|w| !w.is_finished())
    }

    /// The log's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has already answered its callers with `Closed`.
            drop(writer.join());
        }
    }
}

impl Writer {
    fn open(path: &Path, role: &str) -> Result<Self, OpenError> {
        let fail = |source| OpenError::Io { path: path.to_owned(), source };
        let dir = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
        let genesis = Head::genesis(role);
        let existed = path.try_exists().map_err(fail)?;
        let head_path = path.with_extension("head");
        if existed && !head_path.try_exists().map_err(fail)? {
            return Err(broken(path, 1, "its head file is gone"));
        }
        // The head comes first, so a log without one is never our own crash.
        let (head_file, checkpoint) = HeadFile::open(&head_path, genesis)
            .map_err(|source| OpenError::Head { path: path.to_owned(), source })?;
        if !existed && checkpoint.seq > 0 {
            return Err(broken(path, 1, "the log is gone but its head is not"));
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        let metadata = file.metadata().map_err(fail)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(OpenError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o777 });
        }
        let head = resume(path, &mut file, checkpoint, genesis, role)?;
        file.sync_all().map_err(fail)?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(fail)?;
        let shared = Arc::new(Shared { head: Mutex::new(head), failed: AtomicBool::new(false) });
        let mut writer = Self {
            path: path.to_owned(),
            role: role.to_owned(),
            file,
            head_file,
            head,
            device: metadata.dev(),
            inode: metadata.ino(),
            failed: None,
            shared,
        };
        writer.head_file.store(head).map_err(fail)?;
        Ok(writer)
    }

    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut records = first.entries.len();
            let mut batch = vec![first];
            while records < BATCH_MAX {
                let Ok(job) = jobs.try_recv() else { break };
                records += job.entries.len();
                batch.push(job);
            }
            self.commit(batch);
        }
    }

    /// Makes one batch durable and answers it.
    fn commit(&mut self, batch: Vec<Job>) {
        let mut head = self.head;
        let mut lines = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        for job in batch {
            for entry in job.entries {
                head.seq += 1;
                head.anchor = head.anchor.max(entry.anchor);
                let record = Record::seal(entry, job.ts, head.seq, &self.role, head.anchor, head.hash);
                head.hash = record.hash;
                lines.extend_from_slice(&record.to_line());
            }
            answers.push((head.seq, job.done));
        }
        head.end += lines.len() as u64;
        let outcome = self.write(&lines, head);
        for (seq, done) in answers {
            done.settle(outcome.clone().map(|()| seq));
        }
    }

    fn write(&mut self, lines: &[u8], head: Head) -> Result<(), AuditError> {
        if let Some(reason) = self.failed {
            return Err(AuditError::Failed(reason));
        }
        if let Some(reason) = self.intrusion() {
            return Err(self.fail(reason));
        }
        if let Err(error) = self.file.write_all_at(lines, self.head.end) {
            if self.file.set_len(self.head.end).is_err() {
                return Err(self.fail("a failed write could not be undone"));
            }
            return Err(AuditError::Write(Arc::new(error)));
        }
        // After a failed sync the kernel may have dropped the pages: what is on disk is unknown.
        if self.file.sync_data().is_err() {
            return Err(self.fail("a sync to disk failed"));
        }
        self.head = head;
        *self.shared.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
        match self.head_file.store(head) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.fail("the head file could not be written")),
        }
    }

    /// Whether the path still names our file, as long as we left it and closed to others.
    fn intrusion(&self) -> Option<&'static str> {
        let Ok(metadata) = fs::symlink_metadata(&self.path) else { return Some("the file is gone") };
        if metadata.dev() != self.device || metadata.ino() != self.inode {
            return Some("the file was replaced");
        }
        if metadata.len() != self.head.end {
            return Some("the file's length changed under its writer");
        }
        (metadata.mode() & 0o077 != 0).then_some("the file was opened to others")
    }

    fn fail(&mut self, reason: &'static str) -> AuditError {
        self.failed = Some(reason);
        self.shared.failed.store(true, Ordering::Relaxed);
        AuditError::Failed(reason)
    }
}

/// Continues from `checkpoint`: its record must be there, later whole records must chain, a torn tail is cut.
fn resume(
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
    let mut head = genesis;
    let mut start = 0;
    if checkpoint.seq > 0 {
        start = scan::line_start_before(file, checkpoint.end)
            .map_err(fail)?
            .ok_or_else(|| broken(path, checkpoint.seq, "no record ends where its head says"))?;
        head.seq = checkpoint.seq - 1;
    }
    let mut lines = Scan::start(&mut *file, start).map_err(fail)?;
    let mut end = start;
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
        end = lines.position;
        head = Head { seq, end, hash: record.hash, anchor: record.anchor };
    }
    if end < length {
        file.set_len(end).map_err(fail)?;
    }
    Ok(head)
}

fn broken(path: &Path, seq: u64, reason: &'static str) -> OpenError {
    OpenError::Broken { path: path.to_owned(), seq, reason }
}
