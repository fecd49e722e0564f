//! The one thread that changes the store: group commit of the rows, then of their audit records.
//!
//! A batch is: run every queued operation inside one transaction, commit it (durable, two-phase), append the
//! operations' audit records (durable, carrying the commit's number), publish, answer. The entries are also
//! in the commit itself, so a crash in between loses none of them. When the log does not take them (a full
//! disk), the writer keeps them and tries again, and nothing is changed or read until it has succeeded: the
//! store is never two commits ahead of its log. An operation is refused before it runs when the audit log
//! does not take records. A failed commit ends the writer and with it the process: what
//! is on disk is then decided by recovery at the next start, not guessed here.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use redb::Database;
use sluice_audit::{AuditError, Decision, Entry, Log};
use sluice_wire::feed::Message;
use tokio::sync::oneshot;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use super::change::{Change, Writes};
use super::open::{self, HEAD, Head, PENDING, StoreError, sealed_head};
use super::snapshot::Snapshot;
use super::table::Table;
use super::tables::Tables;
use crate::error::VaultError;
use crate::quota::Quotas;
use crate::seal::{Keyring, RootKey, Shape};

/// LIMIT: operations in one transaction.
const BATCH_MAX: usize = 256;
/// LIMIT: operations that wait for the writer; the sender waits beyond that.
const QUEUE_MAX: usize = 1_024;
/// Pause between two tries to append what the log owes, when no operation comes to try it sooner.
const SETTLE_EVERY: Duration = Duration::from_millis(500);

/// Hears of every change of the feed, in order, once it is durable. Called on the writer's thread.
pub(crate) type Publish = Box<dyn FnMut(&[Message]) + Send>;

/// Makes audit records durable next to each other. Called on the writer's thread.
pub(super) type Append = Box<dyn FnMut(Vec<Entry>, Timestamp) -> Result<(), AuditError> + Send>;

/// Why the log lacks the records of the last commit; `None` when it has them.
type Arrears = Arc<Mutex<Option<AuditError>>>;

/// The store. Shared by reference; dropping it finishes what is queued.
pub(crate) struct Store {
    db: Arc<Database>,
    keyring: Arc<ArcSwap<Keyring>>,
    sender: Option<SyncSender<Box<dyn Work>>>,
    writer: Option<JoinHandle<()>>,
    ended: CancellationToken,
    arrears: Arrears,
}

struct Writer {
    db: Arc<Database>,
    keyring: Arc<ArcSwap<Keyring>>,
    audit: Arc<Log>,
    append: Append,
    head: Head,
    publish: Publish,
    /// Records of the last commit that the log does not have yet, and their time.
    owed: Option<(Vec<Entry>, Timestamp)>,
    arrears: Arrears,
    quotas: Quotas,
}

/// An operation of any result type.
trait Work: Send {
    /// Runs it; whether its writes are to be kept.
    fn run(&mut self, change: &mut Change<'_>) -> bool;
    /// Its audit record.
    fn entry(&mut self, path: Option<String>) -> Entry;
    /// Answers it.
    fn reply(self: Box<Self>, failure: Option<&Failure>);
}

#[derive(Clone)]
enum Failure {
    Audit(AuditError),
    Ended,
}

struct Op<T, F> {
    entry: Entry,
    work: Option<F>,
    outcome: Option<Result<T, VaultError>>,
    answer: oneshot::Sender<Result<T, VaultError>>,
}

/// A change that waits for the writer.
#[must_use = "whether it was made is only known once this is done"]
pub(crate) struct Queued<T>(Result<oneshot::Receiver<Result<T, VaultError>>, VaultError>);

impl<T> Queued<T> {
    /// Its outcome, once rows and record are durable.
    pub(crate) async fn done(self) -> Result<T, VaultError> {
        self.0?.await.map_err(|_| VaultError::Ended)?
    }
}

impl Store {
    /// Opens the store at `path` (made in this shape when there is none); its writer starts with [`Idle::start`].
    pub(crate) fn open(
        path: &Path,
        root: &RootKey,
        shape: Shape,
        audit: Arc<Log>,
        now: Timestamp,
    ) -> Result<Idle, StoreError> {
        let opened = open::open(path, root, shape, &audit, now)?;
        let keyring = Arc::new(ArcSwap::new(opened.keyring));
        Ok(Idle { db: Arc::new(opened.db), keyring, head: opened.head, audit, quotas: Quotas::default() })
    }

    /// How the root key of the store at `path` is had; `None`: there is no store.
    pub(crate) fn shape(path: &Path) -> Result<Option<Shape>, StoreError> {
        open::shape(path)
    }

    /// Whether this root key opens the keys of the store at `path`; the rest of it is not looked at.
    pub(crate) fn is_key(path: &Path, root: &RootKey) -> Result<bool, StoreError> {
        open::is_key(path, root)
    }

    /// The keys in force.
    pub(crate) fn keyring(&self) -> Arc<Keyring> {
        self.keyring.load_full()
    }

    /// Runs `work` as one change and records it as `entry` (decision from the outcome); blocks until both are
    /// durable. Nothing is kept when `work` fails.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        entry: Entry,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let queued = self.queue(entry, work).0?;
        block_in_place(|| queued.blocking_recv()).map_err(|_| VaultError::Ended)?
    }

    /// Queues the same change; it is made whether or not anybody waits for it.
    pub(crate) fn queue<T: Send + 'static>(
        &self,
        entry: Entry,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, VaultError> + Send + 'static,
    ) -> Queued<T> {
        let (answer, answered) = oneshot::channel();
        let op = Box::new(Op { entry, work: Some(work), outcome: None, answer });
        let Some(sender) = &self.sender else { return Queued(Err(VaultError::Ended)) };
        let sent = match sender.try_send(op) {
            Err(TrySendError::Full(op)) => block_in_place(|| sender.send(op)).is_ok(),
            sent => sent.is_ok(),
        };
        Queued(if sent { Ok(answered) } else { Err(VaultError::Ended) })
    }

    /// The rows as they stand now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, VaultError> {
        Snapshot::take(&self.db, &self.keyring)
    }

    /// Why the audit log lacks the records of the last commit. While it does, nothing may be read either.
    pub(crate) fn arrears(&self) -> Option<AuditError> {
        self.arrears.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As if the log had failed after a commit, or had come back.
    #[cfg(test)]
    pub(crate) fn feign_arrears(&self, arrears: Option<AuditError>) {
        *self.arrears.lock().unwrap() = arrears;
    }

    /// Resolves when the writer has ended: the process cannot go on.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}

/// An open store whose writer does not run yet: its state can be read before anybody can change it.
pub(crate) struct Idle {
    db: Arc<Database>,
    keyring: Arc<ArcSwap<Keyring>>,
    head: Head,
    audit: Arc<Log>,
    quotas: Quotas,
}

impl Idle {
    /// The same with other quotas than the default ones.
    pub(crate) fn with_quotas(self, quotas: Quotas) -> Self {
        Self { quotas, ..self }
    }

    /// The rows as they stand.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, VaultError> {
        Snapshot::take(&self.db, &self.keyring)
    }

    /// Name of the feed and number of its last change.
    pub(crate) fn feed(&self) -> (&str, u64) {
        (&self.head.epoch, self.head.feed_seq)
    }

    /// Starts the writer.
    pub(crate) fn start(self, publish: Publish) -> std::io::Result<Store> {
        let log = Arc::clone(&self.audit);
        let append = move |entries, ts| log.append_all(entries, ts).map(|_| ());
        self.start_with(publish, Box::new(append))
    }

    /// Starts the writer; records reach the log through `append`.
    pub(super) fn start_with(self, publish: Publish, append: Append) -> std::io::Result<Store> {
        let arrears = Arrears::default();
        let (sender, jobs) = sync_channel(QUEUE_MAX);
        let ended = CancellationToken::new();
        let mut writer = Writer {
            db: Arc::clone(&self.db),
            keyring: Arc::clone(&self.keyring),
            audit: self.audit,
            append,
            head: self.head,
            publish,
            owed: None,
            arrears: Arc::clone(&arrears),
            quotas: self.quotas,
        };
        let guard = ended.clone().drop_guard();
        let thread = std::thread::Builder::new().name("vault-store".into()).spawn(move || {
            // Cancelled also when the thread panics.
            let _guard = guard;
            writer.run(&jobs);
        })?;
        Ok(Store {
            db: self.db,
            keyring: self.keyring,
            sender: Some(sender),
            writer: Some(thread),
            ended,
            arrears,
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            // A panicked writer has already ended the process's useful life through `ended`.
            drop(writer.join());
        }
    }
}

impl Writer {
    fn run(&mut self, jobs: &Receiver<Box<dyn Work>>) {
        while let Some(first) = self.next(jobs) {
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX {
                let Ok(job) = jobs.try_recv() else { break };
                batch.push(job);
            }
            match self.commit(&mut batch) {
                Ok(failure) => batch.into_iter().for_each(|job| job.reply(failure.as_ref())),
                Err(error) => {
                    tracing::error!(
                        component = "store",
                        error = &error as &(dyn std::error::Error + 'static),
                        "the store cannot be written; ending"
                    );
                    for job in batch {
                        job.reply(Some(&Failure::Ended));
                    }
                    return;
                }
            }
        }
    }

    /// The next operation; meanwhile the log gets what it is owed. `None` when there will be none.
    fn next(&mut self, jobs: &Receiver<Box<dyn Work>>) -> Option<Box<dyn Work>> {
        while self.owed.is_some() {
            match jobs.recv_timeout(SETTLE_EVERY) {
                Ok(job) => return Some(job),
                // What cannot be appended now is in the last commit and appended at the next start.
                Err(RecvTimeoutError::Disconnected) => return self.settle().err().and(None),
                Err(RecvTimeoutError::Timeout) => drop(self.settle()),
            }
        }
        jobs.recv().ok()
    }

    /// Appends what the log is owed; the error while it does not take it.
    fn settle(&mut self) -> Result<(), AuditError> {
        let Some((entries, ts)) = &self.owed else { return Ok(()) };
        let outcome = (self.append)(entries.clone(), *ts);
        let was = {
            let mut arrears = self.arrears.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *arrears, outcome.clone().err())
        };
        match (&outcome, was) {
            (Ok(()), before) => {
                self.owed = None;
                if before.is_some() {
                    tracing::info!(component = "store", "the audit log has the last commit again");
                }
            }
            (Err(error), None) => tracing::error!(
                component = "store",
                error = error as &(dyn std::error::Error + 'static),
                "the audit log does not take the records of a commit; everything is refused until it does"
            ),
            (Err(_), Some(_)) => {}
        }
        outcome
    }

    /// Runs and commits a batch. `Ok(Some(_))`: answered with that failure; `Err`: the store is lost.
    fn commit(&mut self, batch: &mut [Box<dyn Work>]) -> Result<Option<Failure>, VaultError> {
        if let Err(error) = self.settle() {
            return Ok(Some(Failure::Audit(error)));
        }
        if !self.audit.is_writable() {
            return Ok(Some(Failure::Audit(AuditError::Failed(
                "it refuses records since an earlier failure",
            ))));
        }
        let now = Timestamp::now();
        let mut txn = self.db.begin_write()?;
        txn.set_two_phase_commit(true);
        let tables = Tables::of(&txn);
        let mut head = self.head.clone();
        let mut messages = Vec::new();
        let mut entries = Vec::with_capacity(batch.len());
        let mut kept = false;
        let mut keyring = self.keyring.load_full();
        for job in batch {
            let mut change = Change::new(&tables, &self.quotas, Arc::clone(&keyring), head.clone(), now);
            let keep = job.run(&mut change);
            entries.push(job.entry(change.audit_path.take()));
            let Change { head: after, keyring: ring, writes, messages: announced, events_refused, .. } =
                change;
            if events_refused > 0 {
                tracing::warn!(component = "store", "the outbox is full; an event was not queued");
            }
            if keep {
                let rows = head.rows;
                head = Head { rows, ..after };
                kept |= !writes.is_empty();
                keyring = ring;
                apply(&tables, &keyring, writes, &mut head)?;
                messages.extend(announced);
            }
        }
        let recorded = if kept {
            self.seal_batch(&tables, &keyring, &mut head, &mut entries, now)?;
            drop(tables);
            // Before the rows that use it can be read.
            if !Arc::ptr_eq(&keyring, &self.keyring.load()) {
                self.keyring.store(keyring);
            }
            txn.commit()?;
            self.head = head;
            self.owed = Some((entries, now));
            self.settle()
        } else {
            drop(tables);
            txn.abort()?;
            (self.append)(entries, now)
        };
        // Durable is durable: followers hear of it even if the record failed and the caller gets 503.
        (self.publish)(&messages);
        Ok(recorded.err().map(Failure::Audit))
    }

    fn seal_batch(
        &self,
        tables: &Tables<'_>,
        keyring: &Keyring,
        head: &mut Head,
        entries: &mut [Entry],
        now: Timestamp,
    ) -> Result<(), VaultError> {
        let seen = self.audit.head();
        head.seq += 1;
        head.audit_seq = seen.seq;
        head.audit_hash = seen.hash;
        for entry in entries.iter_mut() {
            entry.anchor = head.seq;
        }
        let now_us = now.as_microsecond();
        let plain = serde_json::to_vec(entries).expect("entries are plain structs");
        let sealed = keyring.seal(Table::Meta.place(PENDING), now_us, &plain);
        tables.insert(Table::Meta, PENDING, &sealed)?;
        tables.insert(Table::Meta, HEAD, &sealed_head(keyring, head, now_us))
    }
}

fn apply(tables: &Tables<'_>, keyring: &Keyring, writes: Writes, head: &mut Head) -> Result<(), VaultError> {
    let key = keyring.digest_key();
    for ((table, row), value) in writes {
        tables.with(table, |rows| {
            let old = match &value {
                Some(value) => rows.insert(row.as_slice(), value.as_slice())?,
                None => rows.remove(row.as_slice())?,
            };
            if let Some(old) = old.filter(|_| table.is_digested()) {
                head.rows.remove(&key, table, &row, old.value());
            }
            Ok(())
        })?;
        if let Some(value) = value.filter(|_| table.is_digested()) {
            head.rows.add(&key, table, &row, &value);
        }
    }
    Ok(())
}

impl<T, F> Work for Op<T, F>
where
    T: Send,
    F: FnOnce(&mut Change<'_>) -> Result<T, VaultError> + Send,
{
    fn run(&mut self, change: &mut Change<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        let outcome = work(change);
        self.entry.decision = match &outcome {
            Ok(_) => Decision::Allow,
            Err(error) if error.is_denial() => Decision::Deny,
            Err(_) => Decision::Error,
        };
        let keep = outcome.is_ok();
        self.outcome = Some(outcome);
        keep
    }

    fn entry(&mut self, path: Option<String>) -> Entry {
        let mut entry = self.entry.clone();
        if let Some(path) = path {
            entry.path = path;
        }
        entry
    }

    fn reply(self: Box<Self>, failure: Option<&Failure>) {
        let outcome = match failure {
            None => self.outcome.unwrap_or(Err(VaultError::Ended)),
            Some(Failure::Audit(error)) => Err(VaultError::Audit(error.clone())),
            Some(Failure::Ended) => Err(VaultError::Ended),
        };
        // Whoever asked may have gone; the change stands all the same.
        drop(self.answer.send(outcome));
    }
}
