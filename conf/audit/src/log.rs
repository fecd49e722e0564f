//! The log as its one writer sees it: opened, appended to in durable batches, closed.
//!
//! A writer thread takes what is queued (at most [`BATCH_MAX`] records), writes it in one piece, calls
//! `fdatasync` once and then answers everybody: group commit, so the cost of a sync is shared. It fails
//! closed: a failed write is undone by cutting the file back and answered with an error, and the next
//! batch tries again (a full disk heals); a failed sync, a failed cut or a file that is no longer ours
//! (unlinked, replaced, shortened, opened to others) refuses everything until the process restarts. A full file is
//! followed by a new one (`files`).

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use jiff::Timestamp;

use crate::files::{self, Earlier, Limits};
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
    limits: Limits,
    file: File,
    /// The first record of the file.
    first: u64,
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
    fn open(path: &Path, role: &str, limits: Limits) -> Result<Self, OpenError> {
        let fail = |source| OpenError::Io { path: path.to_owned(), source };
        let dir = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
        let genesis = Head::genesis(role);
        let earlier = files::earlier(path).map_err(fail)?;
        let existed = path.try_exists().map_err(fail)? || !earlier.is_empty();
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
        let (mut file, metadata) = open_file(path, false)?;
        let head = resume(path, &mut file, checkpoint, genesis, role, earlier.last())?;
        file.sync_all().map_err(fail)?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(fail)?;
        let first = files::first_record(path).map_err(fail)?.map_or(head.seq + 1, |record| record.seq);
        let shared = Arc::new(Shared { head: Mutex::new(head), failed: AtomicBool::new(false) });
        let mut writer = Self {
            path: path.to_owned(),
            role: role.to_owned(),
            limits,
            file,
            first,
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
        let turned = self.turn_page();
        let mut head = self.head;
        let mut lines = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        let mut add = |entry: Entry, ts: Timestamp| {
            head.seq += 1;
            head.anchor = head.anchor.max(entry.anchor);
            let record = Record::seal(entry, ts, head.seq, &self.role, head.anchor, head.hash);
            head.hash = record.hash;
            lines.extend_from_slice(&record.to_line());
            head.seq
        };
        let mut retired = None;
        if let (Ok(Some((entry, oldest))), Some(first)) = (&turned, batch.first()) {
            add(entry.clone(), first.ts);
            retired = Some(oldest.clone());
        }
        for job in batch {
            let seqs = job.entries.into_iter().map(|entry| add(entry, job.ts));
            answers.push((seqs.last(), job.done));
        }
        head.end += lines.len() as u64;
        let outcome = turned.and_then(|_| self.write(&lines, head));
        for (seq, done) in answers {
            done.settle(outcome.clone().map(|()| seq.unwrap_or(head.seq)));
        }
        if let (Ok(()), Some(oldest)) = (outcome, retired) {
            // One that stays is tried again when the next file is full.
            drop(fs::remove_file(oldest));
        }
    }

    /// Begins a new file when this one is full. The answer is what is to be removed once its entry is durable.
    fn turn_page(&mut self) -> Result<Option<(Entry, PathBuf)>, AuditError> {
        if self.head.end < self.limits.file {
            return Ok(None);
        }
        if let Some(reason) = self.failed {
            return Err(AuditError::Failed(reason));
        }
        if let Some(reason) = self.intrusion() {
            return Err(self.fail(reason));
        }
        fs::rename(&self.path, files::full_path(&self.path, self.first))
            .map_err(|error| AuditError::Write(Arc::new(error)))?;
        // From here on only the next start knows how to go on.
        let Ok((file, metadata)) = open_file(&self.path, true) else {
            return Err(self.fail("a full file could not be followed by a new one"));
        };
        let dir = self.path.parent().unwrap_or(Path::new("."));
        self.head.end = 0;
        let done = File::open(dir)
            .and_then(|dir| dir.sync_all())
            .and_then(|()| self.head_file.store(self.head))
            .and_then(|()| self.head_file.sync());
        if done.is_err() {
            return Err(self.fail("a new file could not be brought to disk"));
        }
        (self.device, self.inode, self.file) = (metadata.dev(), metadata.ino(), file);
        self.first = self.head.seq + 1;
        *self.shared.head.lock().unwrap_or_else(PoisonError::into_inner) = self.head;
        self.oldest_too_many().map_err(|error| AuditError::Write(Arc::new(error)))
    }

    /// The oldest file, with the entry that retires it, when all together are too large.
    fn oldest_too_many(&self) -> io::Result<Option<(Entry, PathBuf)>> {
        let earlier = files::earlier(&self.path)?;
        let mut bytes = 0;
        for file in &earlier {
            bytes += fs::metadata(&file.path)?.len();
        }
        let Some(oldest) = earlier.first().filter(|_| bytes > self.limits.keep && earlier.len() > 1) else {
            return Ok(None);
        };
        let last = files::last_record(&oldest.path)?;
        Ok(last.map(|last| (files::retire(&self.role, last.seq, last.hash), oldest.path.clone())))
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

/// Opens a file of the log, locked against other writers; it must be ours alone.
fn open_file(path: &Path, fresh: bool) -> Result<(File, fs::Metadata), OpenError> {
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
fn resume(
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

fn broken(path: &Path, seq: u64, reason: &'static str) -> OpenError {
    OpenError::Broken { path: path.to_owned(), seq, reason }
}
