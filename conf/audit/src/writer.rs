//! The thread that writes the log: what waits becomes one durable batch, then everybody is answered.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::files::{self, Limits};
use crate::head::{Head, HeadFile};
use crate::log::{AuditError, OpenError};
use crate::pending::Completion;
use crate::record::{Entry, Record};
use crate::resume::{broken, open_file, resume};

/// LIMIT: records made durable by one sync.
const BATCH_MAX: usize = 256;

/// Entries that are to be appended next to each other.
pub(crate) struct Job {
    pub(crate) entries: Vec<Entry>,
    pub(crate) ts: Timestamp,
    pub(crate) done: Completion,
}

/// What the writer tells the other threads.
pub(crate) struct Shared {
    pub(crate) head: Mutex<Head>,
    pub(crate) failed: AtomicBool,
}

/// Owns the file.
pub(crate) struct Writer {
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
    pub(crate) shared: Arc<Shared>,
}

impl Writer {
    pub(crate) fn open(path: &Path, role: &str, limits: Limits) -> Result<Self, OpenError> {
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

    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
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
