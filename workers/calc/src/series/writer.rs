//! The one thread that writes series.
//!
//! It takes what waits, up to a bound, decides what becomes of it, writes one piece of journal, waits once for the disk,
//! and then writes columns, shows readers the new rows and answers. So an answer means stored, and whoever waits at the
//! same time shares the wait. A series is changed once in a group: a second change of it begins the next one.
//!
//! At a checkpoint every changed file is synced with its head and the journal begins anew: after [`Limits`]' bytes or
//! time, and at the end. A failed write or sync ends the writing, not the reading: after it nobody knows what is on the
//! disk, and a second try can succeed without having written. A full disk is no such failure: nothing is acknowledged,
//! and the next change tries again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::append::{Append, Applied, Known, Plan, plan};
use super::candle::Candle;
use super::fault::Fault;
use super::file::{self, Draft, Rows, capacity_for, checkpoint, write_rows};
use super::gaps::Step;
use super::head::Head;
use super::journal::Record;
use super::key::SeriesKey;
use super::mapping::bytes_of;
use super::medium::is_full;
use super::store::{Limits, Shared};
use super::view::View;

/// LIMIT: changes answered by one sync.
const GROUP_MAX: usize = 1_024;
/// A group stops growing at so many candles.
const GROUP_CANDLES: usize = 65_536;
/// LIMIT: files that are kept open.
const FILES_MAX: usize = 128;

/// A change.
#[derive(Debug)]
pub(super) enum Command {
    Append {
        key: SeriesKey,
        candles: Vec<Candle>,
        how: Append,
        answer: oneshot::Sender<Result<Applied, Fault>>,
    },
    /// A whole series, already on the disk under another name. Answers whether there was one before.
    Replace { key: SeriesKey, draft: Draft, answer: oneshot::Sender<Result<bool, Fault>> },
    /// Answers the rows that there were.
    Delete { key: SeriesKey, answer: oneshot::Sender<Result<Option<usize>, Fault>> },
}

/// An append of a group.
struct Asked {
    key: SeriesKey,
    candles: Vec<Candle>,
    how: Append,
    answer: oneshot::Sender<Result<Applied, Fault>>,
}

/// The same, decided.
struct Decided {
    key: SeriesKey,
    /// The series with room for what is added.
    view: View,
    plan: Plan,
    answer: oneshot::Sender<Result<Applied, Fault>>,
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) journal: File,
    /// Bytes of journal since the last checkpoint.
    pub(super) written: u64,
    /// Since when.
    pub(super) since: Option<Instant>,
    /// Slots that were written into the head of each series.
    pub(super) seqs: BTreeMap<SeriesKey, u64>,
    /// Series changed since the last checkpoint.
    pub(super) changed: BTreeSet<SeriesKey>,
    pub(super) files: BTreeMap<SeriesKey, File>,
}

impl Known for View {
    fn last_ms(&self) -> Option<i64> {
        self.times().last().copied()
    }

    fn open(&self) -> Option<Candle> {
        Self::open(self)
    }

    fn at(&self, time_ms: i64) -> Option<Candle> {
        Self::at(self, time_ms)
    }
}

impl Writer {
    /// Serves until the senders are gone.
    pub(super) fn run(mut self, queue: &Receiver<Command>) {
        let mut held = None;
        loop {
            let first = match held.take() {
                Some(command) => command,
                None => match queue.recv_timeout(self.until_checkpoint()) {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) => {
                        self.checkpoint_or_fail();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            held = self.serve(first, queue);
            let Limits { journal_bytes, .. } = self.shared.limits;
            if self.written >= journal_bytes || self.until_checkpoint().is_zero() {
                self.checkpoint_or_fail();
            }
        }
        self.checkpoint_or_fail();
    }

    fn until_checkpoint(&self) -> Duration {
        let every = self.shared.limits.checkpoint_every;
        self.since.map_or(every, |since| every.saturating_sub(since.elapsed()))
    }

    /// Performs a change, with others that wait where they can share a sync. What did not fit comes back.
    fn serve(&mut self, first: Command, queue: &Receiver<Command>) -> Option<Command> {
        if let Some(text) = self.shared.failure() {
            first.refuse(Fault::Failed(text));
            return None;
        }
        let mut group = Vec::new();
        let mut keys = BTreeSet::new();
        let mut candles_taken = 0;
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Append { key, candles, how, answer }
                    if group.len() < GROUP_MAX && candles_taken < GROUP_CANDLES && !keys.contains(&key) =>
                {
                    keys.insert(key.clone());
                    candles_taken += candles.len();
                    group.push(Asked { key, candles, how, answer });
                }
                other if group.is_empty() => {
                    self.perform(other);
                    return None;
                }
                other => {
                    self.append(group);
                    return Some(other);
                }
            }
            next = queue.try_recv().ok();
        }
        self.append(group);
        None
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Append { answer, .. } => drop(answer.send(Err(Fault::Busy))),
            Command::Replace { key, draft, answer } => drop(answer.send(self.replace(&key, draft))),
            Command::Delete { key, answer } => drop(answer.send(self.delete(&key))),
        }
    }

    fn append(&mut self, group: Vec<Asked>) {
        let mut journal = Vec::new();
        let mut decided = Vec::with_capacity(group.len());
        for Asked { key, candles, how, answer } in group {
            match self.decide(&key, &candles, how) {
                Ok((view, plan)) => {
                    if view.open() != plan.open || !plan.rows.is_empty() {
                        record(&key, &view, &plan).encode(&mut journal);
                    }
                    decided.push(Decided { key, view, plan, answer });
                }
                Err(fault) => drop(answer.send(Err(fault))),
            }
        }
        if let Err(fault) = self.write_journal(&journal) {
            for decided in decided {
                drop(decided.answer.send(Err(fault.clone())));
            }
            return;
        }
        for Decided { key, view, plan, answer } in decided {
            let outcome = self.show(&key, &view, plan);
            // Whoever asked may have gone: what is done is done.
            drop(answer.send(outcome));
        }
    }

    /// What becomes of candles, and the series with room for them.
    fn decide(&mut self, key: &SeriesKey, candles: &[Candle], how: Append) -> Result<(View, Plan), Fault> {
        let step = Step::of(&key.timeframe);
        let Some(view) = self.shared.view(key) else {
            let view = self.lay_out(key, None, candles.len())?;
            let plan = plan(&view, candles, how, step);
            return Ok((view, plan));
        };
        let plan = plan(&*view, candles, how, step);
        let rows = view.rows() + plan.rows.len();
        if rows <= view.capacity() {
            return Ok(((*view).clone(), plan));
        }
        Ok((self.lay_out(key, Some(&view), rows)?, plan))
    }

    /// A file with room for so many rows, with those of the series if there is one.
    fn lay_out(&mut self, key: &SeriesKey, old: Option<&View>, rows: usize) -> Result<View, Fault> {
        self.shared.admits(key)?;
        let capacity = capacity_for(rows) as u64;
        let taken = self.shared.take(bytes_of(capacity))?;
        let (number, fresh) = (self.shared.next_generation(), Rows::Candles(&[]));
        let head = Head {
            seq: 0,
            generation: old.map_or(number, |old| old.generation),
            capacity,
            rows: old.map_or(0, |old| old.rows() as u64),
            open: old.and_then(View::open),
        };
        let rows = old.map_or(fresh, Rows::Of);
        let draft = Draft::write(&*self.shared.medium, &self.shared.folder, key, number, &rows, head, taken);
        let draft = draft.map_err(|error| self.fault("a file of a series", &error))?;
        self.place(key, draft)
    }

    fn place(&mut self, key: &SeriesKey, draft: Draft) -> Result<View, Fault> {
        let (file, view) = draft
            .place(&self.shared.folder, key)
            .map_err(|error| self.fault("the name of a series' file", &error))?;
        self.changed.remove(key);
        self.seqs.insert(key.clone(), 0);
        self.keep(key, file);
        self.shared.publish(key, view.clone());
        Ok(view)
    }

    fn replace(&mut self, key: &SeriesKey, draft: Draft) -> Result<bool, Fault> {
        self.shared.admits(key)?;
        let was_there = self.shared.view(key).is_some();
        self.place(key, draft)?;
        Ok(was_there)
    }

    fn delete(&mut self, key: &SeriesKey) -> Result<Option<usize>, Fault> {
        let Some(view) = self.shared.view(key) else { return Ok(None) };
        let folder = &self.shared.folder;
        let removed =
            std::fs::remove_file(folder.join(key.file_name())).and_then(|()| file::sync_folder(folder));
        removed.map_err(|error| self.fault("a series' file to be deleted", &error))?;
        self.changed.remove(key);
        self.seqs.remove(key);
        self.files.remove(key);
        self.shared.forget(key);
        Ok(Some(view.rows()))
    }

    /// Writes records and waits until they are on the disk.
    fn write_journal(&mut self, records: &[u8]) -> Result<(), Fault> {
        if records.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.shared.medium.write_all_at(&self.journal, records, self.written) {
            // What was written of it is no record yet; the next one is written over it.
            self.journal.set_len(self.written).map_err(|error| self.fault("the journal", &error))?;
            return Err(self.fault("the journal", &error));
        }
        // After a failed sync nobody knows what is on the disk, also when it says that it is full.
        self.shared.medium.sync(&self.journal).map_err(|error| self.fail("the journal", &error))?;
        self.written += records.len() as u64;
        self.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Writes the rows that the journal has, and shows them to readers.
    fn show(&mut self, key: &SeriesKey, view: &View, plan: Plan) -> Result<Applied, Fault> {
        let Plan { rows, open, mut applied } = plan;
        applied.rows = view.rows() + rows.len();
        if rows.is_empty() && open == view.open() {
            return Ok(applied);
        }
        if !rows.is_empty() {
            let at = view.rows() as u64;
            let medium = Arc::clone(&self.shared.medium);
            let file = self.file(key)?;
            write_rows(&*medium, file, view.capacity() as u64, at, &rows)
                .map_err(|error| self.fail("the columns of a series", &error))?;
        }
        self.changed.insert(key.clone());
        self.shared.publish(key, View::new(view.generation, applied.rows, open, view.file()));
        Ok(applied)
    }

    fn file(&mut self, key: &SeriesKey) -> Result<&File, Fault> {
        if !self.files.contains_key(key) {
            let file = file::open(&self.shared.folder, key);
            let file = file.map_err(|error| self.fail("the file of a series", &error))?;
            self.keep(key, file);
        }
        self.files.get(key).ok_or(Fault::Closed)
    }

    fn keep(&mut self, key: &SeriesKey, file: File) {
        if self.files.len() >= FILES_MAX {
            self.files.clear();
        }
        self.files.insert(key.clone(), file);
    }

    fn checkpoint_or_fail(&mut self) {
        if self.shared.failure().is_none()
            && let Err(error) = self.checkpoint()
        {
            self.fail("a checkpoint", &error);
        }
    }

    fn checkpoint(&mut self) -> io::Result<()> {
        for key in std::mem::take(&mut self.changed) {
            let Some(view) = self.shared.view(&key) else { continue };
            let seq = self.seqs.entry(key.clone()).or_default();
            *seq += 1;
            let head = Head {
                seq: *seq,
                generation: view.generation,
                capacity: view.capacity() as u64,
                rows: view.rows() as u64,
                open: view.open(),
            };
            let medium = Arc::clone(&self.shared.medium);
            let file = self.file(&key).map_err(io::Error::other)?;
            checkpoint(&*medium, file, &key, &head)?;
        }
        if self.written > 0 {
            self.journal.set_len(0)?;
            self.journal.sync_all()?;
        }
        self.written = 0;
        self.since = None;
        Ok(())
    }

    /// A full disk is told; any other error ends the writing.
    fn fault(&self, what: &str, error: &io::Error) -> Fault {
        if is_full(error) { Fault::DiskFull } else { self.fail(what, error) }
    }

    fn fail(&self, what: &str, error: &io::Error) -> Fault {
        tracing::error!(component = "series", error = %error, what, "stored series cannot be written any longer");
        self.shared.fail(format!("{what}: {error}"))
    }
}

impl Command {
    fn refuse(self, fault: Fault) {
        match self {
            Self::Append { answer, .. } => drop(answer.send(Err(fault))),
            Self::Replace { answer, .. } => drop(answer.send(Err(fault))),
            Self::Delete { answer, .. } => drop(answer.send(Err(fault))),
        }
    }
}

fn record(key: &SeriesKey, view: &View, plan: &Plan) -> Record {
    Record {
        key: key.clone(),
        generation: view.generation,
        row: view.rows() as u64,
        rows: plan.rows.clone(),
        open: plan.open,
    }
}
