//! The log as its one writer sees it: opened, appended to in durable batches, closed.
//!
//! A writer thread takes what is queued (at most 256 records), writes it in one piece, calls
//! `fdatasync` once and then answers everybody: group commit, so the cost of a sync is shared. It fails
//! closed: a failed write is undone by cutting the file back and answered with an error, and the next
//! batch tries again (a full disk heals); a failed sync, a failed cut or a file that is no longer ours
//! (unlinked, replaced, shortened, opened to others) refuses everything until the process restarts. A full file is
//! followed by a new one (`files`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use jiff::Timestamp;

use crate::checkpoint::Signer;
use crate::files::Limits;
use crate::head::{Head, HeadError};
use crate::pending::{self, Pending};
use crate::record::Entry;
use crate::writer::{Job, Shared, Work, Writer};

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
    sender: Option<SyncSender<Work>>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Log {
    /// Opens (or makes) the log of `role` at `path`, usually `<data-dir>/audit/<role>.jsonl`, and starts its
    /// writer. A torn last line is cut; a log that does not continue its head is refused.
    pub fn open(path: &Path, role: &str) -> Result<Self, OpenError> {
        Self::open_with(path, role, Limits::default())
    }

    /// The same, with other limits.
    pub fn open_with(path: &Path, role: &str, limits: Limits) -> Result<Self, OpenError> {
        let writer = Writer::open(path, role, limits)?;
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
        match sender.try_send(Work::Append(Job { entries, ts, done })) {
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
        sender.send(Work::Append(Job { entries, ts, done })).map_err(|_| AuditError::Closed)?;
        pending.wait()
    }

    /// Has checkpoints signed from now on: one at once, one at the latest after 1,000 records or 60 seconds with any, and
    /// a last one at the end. `None` signs what is not signed yet and lets the signer go. Blocks until that is durable;
    /// when it fails the signer is in place (or gone) all the same.
    pub fn sign_with(&self, signer: Option<Signer>, ts: Timestamp) -> Result<(), AuditError> {
        let (done, pending) = pending::pair();
        let sender = self.sender.as_ref().ok_or(AuditError::Closed)?;
        sender.send(Work::Sign { signer, ts, done }).map_err(|_| AuditError::Closed)?;
        pending.wait().map(|_| ())
    }

    /// The last durable record.
    pub fn head(&self) -> Head {
        *self.shared.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False once the log refuses everything; the role is then not ready.
    pub fn is_writable(&self) -> bool {
        !self.shared.failed.load(Ordering::Relaxed) && self.writer.as_ref().is_some_and(|w| !w.is_finished())
    }

    /// Bytes of all its files, of those it may keep.
    pub fn fill(&self) -> (u64, u64) {
        (self.shared.bytes.load(Ordering::Relaxed), self.shared.keep)
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
