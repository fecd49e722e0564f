//! Stored series: many readers without a lock on the rows, one thread that writes.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus::{IntCounterVec, IntGauge};
use tokio::sync::{oneshot, watch};

use super::append::{Append, Applied};
use super::candle::Candle;
use super::fault::{Fault, OpenError};
use super::file::{Draft, Rows, capacity_for};
use super::head::Head;
use super::key::SeriesKey;
use super::mapping::bytes_of;
use super::medium::{Medium, is_full};
use super::recover::recover;
use super::space::{Space, Taken};
use super::view::View;
use super::writer::{Command, Writer};
use crate::bounds::SERIES_QUEUE_MAX;

/// How much is stored and written before a checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) series: usize,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Bytes of journal before a checkpoint.
    pub(crate) journal_bytes: u64,
    /// Time before a checkpoint.
    pub(crate) checkpoint_every: Duration,
}

/// What is counted.
#[derive(Clone)]
pub(crate) struct Counts {
    pub(crate) series: IntGauge,
    /// Candles by what became of them.
    pub(crate) candles: IntCounterVec,
}

/// What readers and the writer share.
pub(super) struct Shared {
    pub(super) medium: Arc<dyn Medium>,
    pub(super) folder: PathBuf,
    pub(super) limits: Limits,
    catalog: RwLock<BTreeMap<SeriesKey, watch::Sender<Arc<View>>>>,
    space: Arc<Space>,
    generation: AtomicU64,
    failed: OnceLock<String>,
    counts: Counts,
}

/// The handle.
pub(crate) struct Store {
    shared: Arc<Shared>,
    damaged: usize,
    writer: Mutex<Option<(SyncSender<Command>, JoinHandle<()>)>>,
}

impl Shared {
    fn catalog(&self) -> impl std::ops::Deref<Target = BTreeMap<SeriesKey, watch::Sender<Arc<View>>>> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn view(&self, key: &SeriesKey) -> Option<Arc<View>> {
        self.catalog().get(key).map(|sender| Arc::clone(&sender.borrow()))
    }

    /// Shows a series to readers.
    pub(super) fn publish(&self, key: &SeriesKey, view: View) {
        let view = Arc::new(view);
        if let Some(sender) = self.catalog().get(key) {
            sender.send_replace(view);
            return;
        }
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.insert(key.clone(), watch::Sender::new(view));
        self.counts.series.set(catalog.len() as i64);
    }

    pub(super) fn forget(&self, key: &SeriesKey) {
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.remove(key);
        self.counts.series.set(catalog.len() as i64);
    }

    /// Refuses a new series when there are as many as may be.
    pub(super) fn admits(&self, key: &SeriesKey) -> Result<(), Fault> {
        let catalog = self.catalog();
        if catalog.contains_key(key) || catalog.len() < self.limits.series {
            return Ok(());
        }
        let max = self.limits.series;
        Err(Fault::Limit(format!("there are {max} stored series, which is the limit; delete one first")))
    }

    pub(super) fn take(&self, bytes: u64) -> Result<Taken, Fault> {
        self.space.take(bytes).ok_or_else(|| {
            let max = self.space.max();
            Fault::Limit(format!("stored series take at most `calc.series_bytes`, which is {max} bytes"))
        })
    }

    pub(super) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed)
    }

    /// Why nothing is written any longer.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.get().cloned()
    }

    pub(super) fn fail(&self, text: String) -> Fault {
        Fault::Failed(self.failed.get_or_init(|| text).clone())
    }
}

impl Store {
    /// Opens the series below a folder of the worker, and starts the thread that writes.
    pub(crate) fn open(
        folder: &Path,
        medium: Arc<dyn Medium>,
        limits: Limits,
        counts: Counts,
    ) -> Result<Self, OpenError> {
        let series = folder.join("series");
        let fail = |error| OpenError::Io(folder.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(&series).map_err(fail)?;
        let journal = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join("series.journal"))
            .map_err(fail)?;
        lock(&journal, folder)?;
        let space = Space::new(limits.bytes);
        let recovered = recover(&series, &journal, &space).map_err(fail)?;
        let seqs = recovered.series.iter().map(|(key, (_, seq))| (key.clone(), *seq)).collect();
        let catalog: BTreeMap<_, _> = recovered
            .series
            .into_iter()
            .map(|(key, (view, _))| (key, watch::Sender::new(Arc::new(view))))
            .collect();
        counts.series.set(catalog.len() as i64);
        let shared = Arc::new(Shared {
            medium,
            folder: series,
            limits,
            catalog: RwLock::new(catalog),
            space,
            generation: AtomicU64::new(recovered.generation),
            failed: OnceLock::new(),
            counts,
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            journal,
            written: 0,
            since: None,
            seqs,
            changed: std::collections::BTreeSet::new(),
            files: BTreeMap::new(),
        };
        let (queue, commands) = sync_channel(SERIES_QUEUE_MAX);
        let thread = std::thread::Builder::new().name("series".to_owned());
        let thread = thread.spawn(move || writer.run(&commands)).map_err(fail)?;
        Ok(Self { shared, damaged: recovered.damaged, writer: Mutex::new(Some((queue, thread))) })
    }

    /// A series as it is.
    pub(crate) fn get(&self, key: &SeriesKey) -> Option<Arc<View>> {
        self.shared.view(key)
    }

    /// A series as it is and as it becomes; it ends when the series is deleted.
    #[allow(dead_code, reason = "live indicators follow series by it")]
    pub(crate) fn watch(&self, key: &SeriesKey) -> Option<watch::Receiver<Arc<View>>> {
        self.shared.catalog().get(key).map(watch::Sender::subscribe)
    }

    /// Series in their order, after one of them.
    pub(crate) fn page(&self, after: Option<&SeriesKey>, max: usize) -> Vec<(SeriesKey, Arc<View>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let catalog = self.shared.catalog();
        let range = catalog.range::<SeriesKey, _>((from, Bound::Unbounded));
        range.take(max).map(|(key, sender)| (key.clone(), Arc::clone(&sender.borrow()))).collect()
    }

    /// Adds candles, which ascend; a series that is not there yet begins with them. What is answered is on the disk.
    pub(crate) async fn append(
        &self,
        key: &SeriesKey,
        candles: Vec<Candle>,
        how: Append,
    ) -> Result<Applied, Fault> {
        let (answer, answered) = oneshot::channel();
        self.submit(Command::Append { key: key.clone(), candles, how, answer })?;
        let applied = answered.await.unwrap_or(Err(Fault::Closed))?;
        let counts = [
            ("applied", applied.added),
            ("repeated", applied.repeated),
            ("updated_open", applied.updated_open),
            ("conflict", applied.conflicts.len()),
            ("late", applied.late.len()),
        ];
        for (result, count) in counts {
            self.shared.counts.candles.with_label_values(&[result]).inc_by(count as u64);
        }
        Ok(applied)
    }

    /// Puts candles in the place of a series; whether there was one. What is answered is on the disk.
    pub(crate) async fn replace(
        &self,
        key: &SeriesKey,
        candles: Vec<Candle>,
        open: Option<Candle>,
    ) -> Result<bool, Fault> {
        self.shared.admits(key)?;
        let (shared, own) = (Arc::clone(&self.shared), key.clone());
        let applied = candles.len() as u64;
        let drafted = tokio::task::spawn_blocking(move || draft(&shared, &own, &candles, open)).await;
        let draft = drafted.unwrap_or(Err(Fault::Closed))?;
        let (answer, answered) = oneshot::channel();
        self.submit(Command::Replace { key: key.clone(), draft, answer })?;
        let was_there = answered.await.unwrap_or(Err(Fault::Closed))?;
        self.shared.counts.candles.with_label_values(&["applied"]).inc_by(applied);
        Ok(was_there)
    }

    /// Deletes a series; the rows that it had.
    pub(crate) async fn delete(&self, key: &SeriesKey) -> Result<Option<usize>, Fault> {
        let (answer, answered) = oneshot::channel();
        self.submit(Command::Delete { key: key.clone(), answer })?;
        answered.await.unwrap_or(Err(Fault::Closed))
    }

    /// Why nothing is written any longer.
    pub(crate) fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Files that could not be read at the start.
    pub(crate) const fn damaged(&self) -> usize {
        self.damaged
    }

    /// Ends the writing: what waits is stored, and the files are brought up to the journal.
    pub(crate) fn close(&self) {
        let writer = self.writer().take();
        if let Some((queue, thread)) = writer {
            drop(queue);
            if thread.join().is_err() {
                tracing::error!(component = "series", "the thread that writes series panicked");
            }
        }
    }

    fn writer(&self) -> MutexGuard<'_, Option<(SyncSender<Command>, JoinHandle<()>)>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, command: Command) -> Result<(), Fault> {
        let writer = self.writer();
        let (queue, _) = writer.as_ref().ok_or(Fault::Closed)?;
        queue.try_send(command).map_err(|refused| match refused {
            TrySendError::Full(_) => Fault::Busy,
            TrySendError::Disconnected(_) => Fault::Closed,
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Writes the file that a series is to have.
fn draft(shared: &Shared, key: &SeriesKey, candles: &[Candle], open: Option<Candle>) -> Result<Draft, Fault> {
    let capacity = capacity_for(candles.len()) as u64;
    let taken = shared.take(bytes_of(capacity))?;
    let generation = shared.next_generation();
    let head = Head { seq: 0, generation, capacity, rows: candles.len() as u64, open };
    let rows = Rows::Candles(candles);
    Draft::write(&*shared.medium, &shared.folder, key, generation, &rows, head, taken).map_err(|error| {
        // The series itself is as it was: the disk failed before anything of it was touched.
        tracing::warn!(component = "series", error = %error, "a new file of a series cannot be written");
        if is_full(&error) { Fault::DiskFull } else { Fault::Failed(error.to_string()) }
    })
}

/// One process writes.
fn lock(journal: &File, folder: &Path) -> Result<(), OpenError> {
    journal.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => OpenError::Locked(folder.to_owned()),
        fs::TryLockError::Error(error) => OpenError::Io(folder.to_owned(), io::Error::other(error)),
    })
}
