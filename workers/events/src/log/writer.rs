//! The one thread that writes.
//!
//! It waits for a submission, takes what else waits (no timer: while one commit is on its way to the disk the next
//! one gathers), writes all of it with one call, syncs, shows it to readers and only then answers. So an answer
//! means stored, and the price of a sync is shared by all who wait.
//!
//! With [`Fsync::Interval`] the answer comes after the write and says so; readers still see only what was synced.
//!
//! When the disk is full the commit is taken back (cut to the last whole commit, answered with
//! [`AppendError::Full`]) and the next one tries again. Any other failed write, and any failed sync, ends the log:
//! after a failed sync nobody knows what is on the disk, and a second try can succeed without having written.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::dedup::Dedup;
use super::form::{HEADER_BYTES, Style};
use super::frame::Sealer;
use super::housekeeping::Job;
use super::id::MessageId;
use super::medium::{Medium, is_full};
use super::partition::Heads;
use super::plan::{Known, Outcome, Plan, Scratch};
use super::reader::{ReadError, record_at};
use super::record::Draft;
use super::segment::Segment;
use super::spares::Spares;
use super::store::{Fatal, Store};
use super::{AppendError, Clock, Commit, Durability, Fsync, Observer, Receipt};

/// A commit stops growing at this size; one more submission may still be the one that passes it.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;
/// LIMIT: submissions answered by one commit.
const COMMIT_SUBMISSIONS_MAX: usize = 8 * 1024;
/// Space is reserved ahead in steps of this size.
const RESERVE_BYTES: u64 = 4 * 1024 * 1024;

/// Events to be stored together, and whom to answer.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) drafts: Vec<Draft>,
    pub(crate) bytes: usize,
    pub(crate) atomic: bool,
    /// No events: the segment being written is to be closed.
    pub(crate) closes: bool,
    pub(crate) answer: oneshot::Sender<Result<Receipt, AppendError>>,
}

/// When a segment is full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) age_ms: u64,
}

/// The writer's state between commits.
pub(crate) struct Writer {
    pub(crate) store: Arc<Store>,
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) fsync: Fsync,
    pub(crate) bounds: Bounds,
    pub(crate) dedup: Dedup,
    pub(crate) housekeeper: SyncSender<Job>,
    /// Bytes of submissions that wait; taken off when they leave the queue.
    pub(crate) queued: Arc<AtomicUsize>,
    pub(crate) active: Arc<Segment>,
    /// End of the last whole commit in the active segment.
    pub(crate) written: u64,
    /// Space reserved up to here; `u64::MAX` when the file system cannot.
    pub(crate) reserved: u64,
    pub(crate) next_seq: u64,
    pub(crate) last_id: MessageId,
    /// The numbers given last in each partition.
    pub(crate) heads: Heads,
    /// Since when something written is not synced.
    pub(crate) unsynced: Option<Instant>,
    /// Memory of the last commit, for the next one.
    pub(crate) scratch: Scratch,
    /// Memory for records.
    pub(crate) spares: Spares,
    pub(crate) style: Style,
    /// Makes the active segment's frames.
    pub(crate) sealer: Sealer,
}

/// Why a commit was not stored.
enum StoreError {
    Full,
    Fatal(Fatal),
}

impl Writer {
    /// Serves submissions until their senders are gone or the log fails.
    pub(crate) fn run(mut self, queue: &Receiver<Submission>) {
        let store = Arc::clone(&self.store);
        let ended = catch_unwind(AssertUnwindSafe(|| self.serve(queue)));
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(fatal)) => store.fail(fatal),
            Err(_) => store.fail(Fatal::new("the writer panicked")),
        }
    }

    fn serve(&mut self, queue: &Receiver<Submission>) -> Result<(), Fatal> {
        let mut batch = Vec::new();
        while self.gather(queue, &mut batch)? {
            let closing: Vec<_> = batch.extract_if(.., |submission| submission.closes).collect();
            if !batch.is_empty() {
                self.commit(&mut batch)?;
            }
            if !closing.is_empty() {
                self.close_segment(closing)?;
            }
        }
        self.sync()?;
        // Give back what was reserved; the next start does not depend on it.
        self.medium
            .truncate(&self.active.file, self.written)
            .map_err(|error| Fatal::new(format!("cut {} failed: {error}", self.active.path.display())))
    }

    /// Waits for a submission and takes what else waits. `false` when no more can come.
    fn gather(&mut self, queue: &Receiver<Submission>, batch: &mut Vec<Submission>) -> Result<bool, Fatal> {
        batch.push(loop {
            let received = match self.sync_due() {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(left) => queue.recv_timeout(left),
            };
            match received {
                Ok(submission) => break submission,
                Err(RecvTimeoutError::Timeout) => self.sync()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        });
        let mut bytes = batch[0].bytes;
        while bytes < COMMIT_BYTES
            && batch.len() < COMMIT_SUBMISSIONS_MAX
            && let Ok(submission) = queue.try_recv()
        {
            bytes += submission.bytes;
            batch.push(submission);
        }
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
        Ok(true)
    }

    /// Begins a new segment unless the active one is empty, and answers who asked for it.
    fn close_segment(&mut self, closing: Vec<Submission>) -> Result<(), Fatal> {
        let is_empty = self.active.with_summary(|summary| summary.records == 0);
        let closed = if is_empty { Ok(()) } else { self.roll() };
        let outcome = match &closed {
            Ok(()) => Ok(Vec::new()),
            Err(StoreError::Full) => Err(AppendError::Full),
            Err(StoreError::Fatal(fatal)) => {
                self.store.fail(fatal.clone());
                Err(AppendError::Failed(fatal.clone()))
            }
        };
        for submission in closing {
            self.answer(submission.answer, outcome.clone());
        }
        match closed {
            Err(StoreError::Fatal(fatal)) => Err(fatal),
            _ => Ok(()),
        }
    }

    fn sync_due(&self) -> Option<Duration> {
        let Fsync::Interval(interval) = self.fsync else { return None };
        self.unsynced.map(|since| interval.saturating_sub(since.elapsed()))
    }

    fn commit(&mut self, batch: &mut Vec<Submission>) -> Result<(), Fatal> {
        let started = Instant::now();
        let now_ms = self.clock.now_ms();
        let room = self.spares.take(batch.iter().map(|submission| submission.bytes).sum());
        let mut plan = Plan::new(self.next_seq, self.last_id, room, std::mem::take(&mut self.scratch))
            .divided(self.heads.clone());
        let mut answers = Vec::with_capacity(batch.len());
        for submission in batch.drain(..) {
            let outcomes = plan
                .take(&submission.drafts, submission.atomic, now_ms, |event_id| self.known(event_id, now_ms));
            answers.push((
                submission.answer,
                outcomes.map_err(|error| AppendError::Unreadable(Arc::new(error))),
            ));
        }
        let stored =
            if plan.records() == 0 { Ok(Duration::ZERO) } else { self.store_plan(&mut plan, now_ms) };
        let sync_time = match stored {
            Ok(sync_time) => sync_time,
            Err(StoreError::Full) => {
                self.observer.full();
                self.scratch = plan.into_parts().1;
                self.refuse(answers, &AppendError::Full);
                return Ok(());
            }
            Err(StoreError::Fatal(fatal)) => {
                // The flag first: whoever is answered must find the log failed.
                self.store.fail(fatal.clone());
                self.refuse(answers, &AppendError::Failed(fatal.clone()));
                return Err(fatal);
            }
        };
        self.observer.committed(&Commit {
            records: plan.records(),
            bytes: plan.bytes().len(),
            sync_time,
            time: started.elapsed(),
            durability: self.fsync.durability(),
        });
        let count = plan.records() as u64;
        let (records, scratch) = plan.into_parts();
        self.scratch = scratch;
        if count > 0 {
            self.show(count, records);
        }
        for (asker, outcomes) in answers {
            self.answer(asker, outcomes);
        }
        Ok(())
    }

    fn answer(&self, asker: Asker, outcomes: Outcomes) {
        let receipt = outcomes.map(|outcomes| Receipt { outcomes, durability: self.fsync.durability() });
        // Whoever asked may be gone; the events are stored all the same.
        drop(asker.send(receipt));
    }

    /// Answers a commit that was not stored. Submissions that asked for nothing new have their answer.
    fn refuse(&self, answers: Vec<Answer>, error: &AppendError) {
        for (asker, outcomes) in answers {
            let settled = match &outcomes {
                Ok(outcomes) => outcomes.iter().all(|outcome| outcome.is_older_than(self.next_seq)),
                Err(_) => true,
            };
            self.answer(asker, if settled { outcomes } else { Err(error.clone()) });
        }
    }

    /// Writes a plan and makes it part of the state; on [`StoreError::Full`] nothing has changed.
    fn store_plan(&mut self, plan: &mut Plan, now_ms: u64) -> Result<Duration, StoreError> {
        let first_ms = plan.first_ms().unwrap_or(now_ms);
        if self.segment_is_full(plan.bytes_max(), first_ms) {
            self.roll()?;
        }
        plan.finish(self.unsynced.is_none(), self.written, &mut self.sealer);
        if let Err(error) = self.write(plan.bytes()) {
            return Err(self.take_back(error));
        }
        let begun = Instant::now();
        if self.fsync == Fsync::Always {
            self.medium.sync(&self.active.file).map_err(|error| self.sync_failed(&error))?;
        }
        let sync_time = begun.elapsed();
        self.active.add(plan.entries(self.written));
        self.written += plan.bytes().len() as u64;
        for (event_id, stamp, is_fresh) in plan.ids() {
            self.dedup.remember(event_id, is_fresh, stamp.seq, stamp.id.ms);
        }
        (self.next_seq, self.last_id) = plan.after();
        self.heads.clone_from(plan.heads());
        if self.fsync != Fsync::Always {
            self.unsynced.get_or_insert(begun);
            if self.sync_due().is_some_and(|left| left.is_zero()) {
                self.sync().map_err(StoreError::Fatal)?;
            }
        }
        Ok(sync_time)
    }

    /// Shows readers the newest records, where they are durable, and keeps them for who follows closely.
    fn show(&mut self, count: u64, records: Bytes) {
        self.store.keep_newest(self.next_seq - count..self.next_seq, records, &mut self.spares);
        if self.fsync == Fsync::Always {
            self.store.set_durable(self.next_seq - 1);
        }
    }

    fn segment_is_full(&self, more: u64, now_ms: u64) -> bool {
        let (records, first_ms) = self.active.with_summary(|summary| (summary.records, summary.first.ms));
        records > 0
            && (self.written + more > self.bounds.bytes
                || records >= self.bounds.records
                || now_ms.saturating_sub(first_ms) >= self.bounds.age_ms)
    }

    /// Begins a new segment; the old one is whole and durable before.
    fn roll(&mut self) -> Result<(), StoreError> {
        self.sync().map_err(StoreError::Fatal)?;
        // Without it a start looks further back.
        if let Err(error) = self.heads.save(&*self.medium, &self.store.dir, self.next_seq - 1) {
            self.observer.trouble("the numbers of the partitions could not be written down", &error);
        }
        let form = self.style.form(self.next_seq, self.last_id);
        let made = Segment::create(&*self.medium, &self.store.dir, self.next_seq, form);
        let segment = Arc::new(made.map_err(|error| {
            if is_full(&error) {
                return StoreError::Full;
            }
            StoreError::Fatal(Fatal::new(format!("begin of segment {} failed: {error}", self.next_seq)))
        })?);
        let old = std::mem::replace(&mut self.active, Arc::clone(&segment));
        self.sealer = Sealer::begin(Arc::clone(&segment.form));
        self.store.push(segment, &mut self.spares);
        (self.written, self.reserved) = (HEADER_BYTES as u64, HEADER_BYTES as u64);
        // The housekeeper is behind when this fails: then the segment is sealed at the next start.
        drop(self.housekeeper.try_send(Job::Seal(old)));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.written + bytes.len() as u64;
        if end > self.reserved {
            self.reserve(end)?;
        }
        self.medium.write_all_at(&self.active.file, bytes, self.written)
    }

    /// Reserves ahead; the disk's last bytes are still used before it counts as full.
    fn reserve(&mut self, end: u64) -> io::Result<()> {
        let file = &self.active.file;
        let ahead = end.max((self.reserved + RESERVE_BYTES).min(self.bounds.bytes));
        let (reserved, possible) = match self.medium.allocate(file, self.reserved, ahead) {
            Err(error) if is_full(&error) => (end, self.medium.allocate(file, self.reserved, end)?),
            other => (ahead, other?),
        };
        self.reserved = if possible { reserved } else { u64::MAX };
        Ok(())
    }

    /// Cuts what a failed write left; only a full disk is survived.
    fn take_back(&mut self, error: io::Error) -> StoreError {
        let file = &self.active.file;
        if !is_full(&error) {
            let path = self.active.path.display();
            return StoreError::Fatal(Fatal::new(format!("write to {path} failed: {error}")));
        }
        if let Err(error) = self.medium.truncate(file, self.written) {
            let path = self.active.path.display();
            return StoreError::Fatal(Fatal::new(format!("cut of {path} failed: {error}")));
        }
        if self.reserved != u64::MAX {
            self.reserved = self.written;
        }
        StoreError::Full
    }

    /// Makes everything written durable, and visible.
    fn sync(&mut self) -> Result<(), Fatal> {
        if self.unsynced.is_none() {
            return Ok(());
        }
        let begun = Instant::now();
        self.medium.sync(&self.active.file).map_err(|error| match self.sync_failed(&error) {
            StoreError::Fatal(fatal) => fatal,
            StoreError::Full => Fatal::new("sync failed"),
        })?;
        self.unsynced = None;
        self.observer.synced(begun.elapsed());
        self.store.set_durable(self.next_seq - 1);
        Ok(())
    }

    fn sync_failed(&self, error: &io::Error) -> StoreError {
        StoreError::Fatal(Fatal::new(format!("sync of {} failed: {error}", self.active.path.display())))
    }

    /// The stored event with an event id, when it is inside the dedup window.
    fn known(&self, event_id: u128, now_ms: u64) -> Result<Option<Known>, ReadError> {
        let Some(seq) = self.dedup.seq_of(event_id) else { return Ok(None) };
        let found = record_at(&self.store, seq)?;
        // The time that a new message would get.
        let begin_ms = self.dedup.begin_ms(now_ms.max(self.last_id.ms));
        Ok(found
            .filter(|record| record.event_id == event_id && record.stamp.id.ms >= begin_ms)
            .map(|record| Known { stamp: record.stamp, fingerprint: record.fingerprint }))
    }
}

type Outcomes = Result<Vec<Outcome>, AppendError>;
type Asker = oneshot::Sender<Result<Receipt, AppendError>>;
type Answer = (Asker, Outcomes);

impl Outcome {
    fn is_older_than(&self, next_seq: u64) -> bool {
        matches!(self, Self::Duplicate(stamp) | Self::Conflict(stamp) if stamp.seq < next_seq)
    }
}

impl Fsync {
    fn durability(self) -> Durability {
        match self {
            Self::Always => Durability::Fsync,
            Self::Interval(_) => Durability::Memory,
        }
    }
}
