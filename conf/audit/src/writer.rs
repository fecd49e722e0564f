//! The thread that writes the log: what waits becomes one durable batch, then everybody is answered.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;

use crate::checkpoint::{self, Signer};
use crate::files::{self, Earlier, Limits, WhenFull};
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

/// What the writer is asked for.
pub(crate) enum Work {
    Append(Job),
    /// Checkpoints are signed from now on, or no longer. Either way with one that signs all there is.
    Sign {
        signer: Option<Signer>,
        ts: Timestamp,
        done: Completion,
    },
}

/// What the writer tells the other threads.
pub(crate) struct Shared {
    pub(crate) head: Mutex<Head>,
    pub(crate) failed: AtomicBool,
    /// Bytes of all files, and of those that may be kept.
    pub(crate) bytes: AtomicU64,
    pub(crate) keep: u64,
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
    signer: Option<Signer>,
    /// Records since the last checkpoint, and since when there are any.
    unsigned: u64,
    unsigned_since: Option<Instant>,
    /// Bytes of the earlier files.
    earlier_bytes: u64,
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
        let earlier_bytes = bytes_of(&earlier).map_err(fail)?;
        let shared = Arc::new(Shared {
            head: Mutex::new(head),
            failed: AtomicBool::new(false),
            bytes: AtomicU64::new(earlier_bytes + head.end),
            keep: limits.keep,
        });
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
            signer: None,
            unsigned: 0,
            unsigned_since: None,
            earlier_bytes,
            shared,
        };
        writer.head_file.store(head).map_err(fail)?;
        Ok(writer)
    }

    pub(crate) fn run(mut self, queue: &Receiver<Work>) {
        loop {
            let mut next = match self.wait(queue) {
                Ok(work) => Some(work),
                Err(RecvTimeoutError::Timeout) => {
                    // A checkpoint that is not written now is with the next batch.
                    drop(self.commit(Vec::new(), Some(Timestamp::now())));
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            while let Some(work) = next.take() {
                match work {
                    Work::Append(first) => next = self.gather(first, queue),
                    Work::Sign { signer, ts, done } => done.settle(self.sign_with(signer, ts)),
                }
            }
        }
        if self.unsigned > 0 {
            drop(self.commit(Vec::new(), Some(Timestamp::now())));
        }
    }

    /// Waits for work, at most until a checkpoint is due.
    fn wait(&self, queue: &Receiver<Work>) -> Result<Work, RecvTimeoutError> {
        match self.unsigned_since.filter(|_| self.signer.is_some() && self.failed.is_none()) {
            Some(since) => queue.recv_timeout(checkpoint::AGE_MAX.saturating_sub(since.elapsed())),
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Makes what waits durable in one batch, up to something else, which is the answer.
    fn gather(&mut self, first: Job, queue: &Receiver<Work>) -> Option<Work> {
        let mut records = first.entries.len();
        let mut batch = vec![first];
        let mut next = None;
        while records < BATCH_MAX && next.is_none() {
            match queue.try_recv() {
                Ok(Work::Append(job)) => {
                    records += job.entries.len();
                    batch.push(job);
                }
                Ok(work) => next = Some(work),
                Err(_) => break,
            }
        }
        let ts = batch.first().map(|job| job.ts).filter(|_| {
            let is_old = self.unsigned_since.is_some_and(|since| since.elapsed() >= checkpoint::AGE_MAX);
            self.unsigned + records as u64 > checkpoint::RECORDS_MAX || is_old
        });
        // Each job is answered by itself.
        drop(self.commit(batch, ts));
        next
    }

    fn sign_with(&mut self, signer: Option<Signer>, ts: Timestamp) -> Result<u64, AuditError> {
        if signer.is_some() {
            self.signer = signer;
            return self.commit(Vec::new(), Some(ts));
        }
        let done = if self.unsigned > 0 { self.commit(Vec::new(), Some(ts)) } else { Ok(self.head.seq) };
        self.signer = None;
        done
    }

    /// Makes one batch durable and answers it, with a checkpoint at its end where `sign` is the time for one and there
    /// is a signer. The last record.
    fn commit(&mut self, batch: Vec<Job>, sign: Option<Timestamp>) -> Result<u64, AuditError> {
        let turned = self.turn_page(batch.first().map(|job| job.ts).or(sign));
        let mut head = self.head;
        let mut lines = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        let mut add = |head: &mut Head, entry: &Entry, ts: Timestamp| {
            head.seq += 1;
            head.anchor = head.anchor.max(entry.anchor);
            let place = (head.seq, ts, head.anchor);
            head.hash = Record::seal_into(&mut lines, entry, place, &self.role, head.hash);
            head.seq
        };
        let mut retired = None;
        let ts = batch.first().map(|job| job.ts).or(sign);
        if let (Ok(Some((entry, oldest))), Some(ts)) = (&turned, ts) {
            add(&mut head, entry, ts);
            retired = Some(oldest.clone());
        }
        for job in batch {
            let seqs = job.entries.iter().map(|entry| add(&mut head, entry, job.ts));
            answers.push((seqs.last(), job.done));
        }
        let mut unsigned = self.unsigned + (head.seq - self.head.seq);
        let entry = sign.zip(self.signer.as_ref());
        let entry = entry
            .and_then(|(ts, signer)| Some((checkpoint::entry(signer, &self.role, head.seq, head.hash)?, ts)));
        if let Some((entry, ts)) = entry {
            add(&mut head, &entry, ts);
            unsigned = 0;
        }
        head.end += lines.len() as u64;
        let outcome = turned.and_then(|_| self.write(&lines, head));
        for (seq, done) in answers {
            done.settle(outcome.clone().map(|()| seq.unwrap_or(head.seq)));
        }
        outcome?;
        self.unsigned = unsigned;
        self.unsigned_since = (unsigned > 0).then(|| self.unsigned_since.unwrap_or_else(Instant::now));
        if let Some(oldest) = retired {
            // One that stays is tried again when the next file is full.
            drop(fs::remove_file(oldest));
            self.measure();
        }
        Ok(head.seq)
    }

    /// Begins a new file when this one is full. The answer is what is to be removed once its entry is durable.
    fn turn_page(&mut self, now: Option<Timestamp>) -> Result<Option<(Entry, PathBuf)>, AuditError> {
        if self.head.end < self.limits.file {
            return Ok(None);
        }
        if let Some(reason) = self.failed {
            return Err(AuditError::Failed(reason));
        }
        if let Some(reason) = self.intrusion() {
            return Err(self.fail(reason));
        }
        let full = self.earlier_bytes + self.head.end > self.limits.keep;
        if full && self.limits.when_full == WhenFull::Refuse {
            return Err(self.fail("it has as much as it may keep, and is not to drop its oldest records"));
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
        self.measure();
        self.oldest_too_many(now).map_err(|error| AuditError::Write(Arc::new(error)))
    }

    /// Looks how large the earlier files are.
    fn measure(&mut self) {
        let measured = files::earlier(&self.path).and_then(|earlier| bytes_of(&earlier));
        self.earlier_bytes = measured.unwrap_or(self.earlier_bytes);
        self.shared.bytes.store(self.earlier_bytes + self.head.end, Ordering::Relaxed);
    }

    /// The oldest file, with the entry that retires it, when all together are too large, or it is too old.
    fn oldest_too_many(&self, now: Option<Timestamp>) -> io::Result<Option<(Entry, PathBuf)>> {
        let earlier = files::earlier(&self.path)?;
        let Some(oldest) = earlier.first().filter(|_| earlier.len() > 1) else { return Ok(None) };
        let Some(last) = files::last_record(&oldest.path)? else { return Ok(None) };
        let is_old = self.limits.age.zip(now).is_some_and(|(age, now)| now.duration_since(last.ts) > age);
        let too_many = self.limits.when_full == WhenFull::Retire && bytes_of(&earlier)? > self.limits.keep;
        let goes = is_old || too_many;
        Ok(goes.then(|| (files::retire(&self.role, last.seq, last.hash), oldest.path.clone())))
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
        self.shared.bytes.store(self.earlier_bytes + head.end, Ordering::Relaxed);
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

fn bytes_of(files: &[Earlier]) -> io::Result<u64> {
    files.iter().map(|file| Ok(fs::metadata(&file.path)?.len())).sum()
}
