//! The append-only segment log: what was acknowledged is stored, in one order, under ids that only rise.
//!
//! A directory of segments; one writer thread with natural group commit; readers that see durable records alone;
//! retention by unlinking; a dedup window over event ids. It knows nothing of HTTP, JSON or configuration.
//! The format and the reasons are in DESIGN.md of this crate.
//!
//! After damage that is no crash's remains the log does not open, and a read is refused: both name file and offset.
//! A full disk refuses appends and goes on. A failed sync ends the log for good ([`Log::failed`]): the process is
//! to end, and the next start finds out what is on the disk.

mod archive;
mod dedup;
mod filter;
mod form;
mod frame;
mod housekeeping;
mod id;
mod index;
mod keyring;
mod medium;
mod open;
mod pack;
mod pages;
mod partition;
mod plan;
mod reader;
mod record;
mod recovery;
mod retention;
mod scan;
mod segment;
mod sidecar;
mod spares;
mod store;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

pub use archive::{ArchiveError, Archived, ArchivedSegment};
pub use dedup::IDS_MAX as DEDUP_IDS_MAX;
pub use filter::Filter;
pub use form::FORMAT_VERSION;
pub use id::{MessageId, MessageIdError};
pub use keyring::{AtRest, Keyring, KeyringError, MASTER_BYTES};
pub(crate) use medium::is_full;
pub use medium::{Disk, Medium};
pub use open::{OpenError, Recovered};
pub(crate) use partition::word as partitions_word;
pub use partition::{By, Lane, PARTITIONS_MAX, Partitions};
pub use plan::Outcome;
pub use reader::{ReadError, Reader, Stats};
pub use record::{Body, Draft, DraftError, LABEL_BYTES_MAX, Labels, Record, Stamp};
pub use retention::{Gone, Retention};
pub use scan::{Backward, Forward, Trimmed};
pub use store::Fatal;

use housekeeping::Housekeeper;
use writer::Submission;

/// LIMIT: submissions that wait for the writer.
const QUEUE_SUBMISSIONS_MAX: usize = 8 * 1024;
/// LIMIT: bytes of submissions that wait for the writer.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// When a write is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before its answer.
    Always,
    /// At most so long after it.
    Interval(Duration),
}

/// What an answer promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On stable storage.
    Fsync,
    /// With the operating system: a killed process loses nothing, a power cut can.
    Memory,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// When a write is made durable.
    pub fsync: Fsync,
    /// What is kept.
    pub retention: Retention,
    /// How long an event id is remembered, in milliseconds.
    pub dedup_window_ms: u64,
    /// Size at which a segment is full, in bytes, unless retention asks for smaller ones.
    pub segment_bytes: u64,
    /// How its events are numbered; `None`: all in one row.
    pub partitions: Option<Partitions>,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// One for each event, in order.
    pub outcomes: Vec<Outcome>,
    /// What this answer promises.
    pub durability: Durability,
}

/// Why a submission was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The queue is full: try again soon.
    #[error("too many events wait to be stored")]
    Busy,
    /// The disk is full. Nothing of the submission is stored.
    #[error("the disk is full")]
    Full,
    /// A known event id's first event cannot be read.
    #[error("the event that was first stored under this event id cannot be read")]
    Unreadable(#[source] Arc<ReadError>),
    /// The log has failed; whether the submission is stored is not known.
    #[error(transparent)]
    Failed(Fatal),
    /// The log is closed.
    #[error("the event log is closed")]
    Closed,
}

/// One commit, for who measures.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// Records written.
    pub records: usize,
    /// Bytes written.
    pub bytes: usize,
    /// Time of the sync alone.
    pub sync_time: Duration,
    /// Time from taking the batch to its answers.
    pub time: Duration,
    /// What the answers promise.
    pub durability: Durability,
}

/// Is told what the log does. Called on the log's own threads: it must be quick.
pub trait Observer: Send + Sync {
    /// A commit was stored; one without records held duplicates alone.
    fn committed(&self, _commit: &Commit) {}
    /// A sync on its own was made (interval mode).
    fn synced(&self, _time: Duration) {}
    /// A commit was refused because the disk is full.
    fn full(&self) {}
    /// Something failed that costs no data.
    fn trouble(&self, _what: &str, _error: &io::Error) {}
}

impl Observer for () {}

/// The wall clock; message ids never go back even if it does.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

/// What a log stands on; the default is the real world.
#[derive(Clone)]
pub struct Ground {
    /// The disk.
    pub medium: Arc<dyn Medium>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
    /// Keys, compression and archive of its files.
    pub at_rest: AtRest,
}

impl Default for Ground {
    fn default() -> Self {
        Self {
            medium: Arc::new(Disk),
            clock: Arc::new(SystemClock),
            observer: Arc::new(()),
            at_rest: AtRest::default(),
        }
    }
}

/// An open log. Clones share it; when the last one is dropped, everything queued is stored and the log is closed.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    reader: Reader,
    housekeeper: Arc<Housekeeper>,
    /// `None` only while closing.
    queue: Option<SyncSender<Submission>>,
    queued: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
    recovered: Recovered,
    /// Let go after the threads have ended.
    _lock: open::Lock,
}

impl Log {
    /// Opens the log in a directory, which is made when it is not there. Blocks.
    pub fn open(dir: &Path, options: &Options, ground: Ground) -> Result<Self, OpenError> {
        open::open(dir, options, ground)
    }

    /// Hands events to the writer; the receiver gets the answer once they are stored.
    pub fn submit(
        &self,
        drafts: Vec<Draft>,
        atomic: bool,
    ) -> Result<oneshot::Receiver<Result<Receipt, AppendError>>, AppendError> {
        let bytes: usize = drafts.iter().map(Draft::stored_bytes).sum();
        if self.inner.queued.fetch_add(bytes, Ordering::Relaxed) > QUEUE_BYTES_MAX {
            self.inner.queued.fetch_sub(bytes, Ordering::Relaxed);
            return Err(AppendError::Busy);
        }
        let (answer, receiver) = oneshot::channel();
        let Some(queue) = &self.inner.queue else { return Err(self.ended()) };
        match queue.try_send(Submission { drafts, bytes, atomic, closes: false, answer }) {
            Ok(()) => Ok(receiver),
            Err(refused) => {
                self.inner.queued.fetch_sub(bytes, Ordering::Relaxed);
                Err(if matches!(refused, TrySendError::Full(_)) { AppendError::Busy } else { self.ended() })
            }
        }
    }

    /// Stores events and waits for the answer.
    pub async fn append(&self, drafts: Vec<Draft>, atomic: bool) -> Result<Receipt, AppendError> {
        self.submit(drafts, atomic)?.await.unwrap_or_else(|_| Err(self.ended()))
    }

    /// The same on a thread that may block.
    pub fn append_blocking(&self, drafts: Vec<Draft>, atomic: bool) -> Result<Receipt, AppendError> {
        self.submit(drafts, atomic)?.blocking_recv().unwrap_or_else(|_| Err(self.ended()))
    }

    /// Reads the log.
    pub fn reader(&self) -> Reader {
        self.inner.reader.clone()
    }

    /// What was found when the log was opened.
    pub fn recovered(&self) -> Recovered {
        self.inner.recovered
    }

    /// Why the log takes nothing more, if that is so.
    pub fn fatal(&self) -> Option<Fatal> {
        self.inner.reader.store.fatal()
    }

    /// Waits until the log fails; forever while it does not.
    pub async fn failed(&self) -> Fatal {
        let mut failures = self.inner.reader.store.failures();
        match failures.wait_for(Option::is_some).await.map(|found| found.clone()) {
            Ok(Some(fatal)) => fatal,
            // The store lives as long as this log does, so its sender is there.
            _ => std::future::pending().await,
        }
    }

    /// Applies retention now; the number of segments removed. The housekeeper does it every second.
    pub fn retain(&self) -> usize {
        self.inner.housekeeper.retain().segments
    }

    /// Removes whole segments until the bounds hold, as far as they can. Blocks.
    pub fn trim(&self, bounds: &Retention) -> Gone {
        self.inner.housekeeper.trim(bounds)
    }

    /// Closes the segment being written, if it holds anything, so that it can be archived. Blocks.
    ///
    /// # Errors
    /// [`AppendError::Full`] where the next one cannot begin; otherwise as for events.
    pub fn roll(&self) -> Result<(), AppendError> {
        let (answer, receiver) = oneshot::channel();
        let Some(queue) = &self.inner.queue else { return Err(self.ended()) };
        let submission = Submission { drafts: Vec::new(), bytes: 0, atomic: false, closes: true, answer };
        match queue.try_send(submission) {
            Ok(()) => receiver.blocking_recv().unwrap_or_else(|_| Err(self.ended())).map(|_| ()),
            Err(TrySendError::Full(_)) => Err(AppendError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(self.ended()),
        }
    }

    /// Closes the segment being written and copies every full segment that the archive does not hold yet. Blocks.
    ///
    /// # Errors
    /// [`ArchiveError`]; what was copied before stays, and the next call goes on behind it.
    pub fn archive(&self) -> Result<Archived, ArchiveError> {
        if self.inner.housekeeper.archive.is_none() {
            return Err(ArchiveError::Off);
        }
        self.roll().map_err(ArchiveError::Close)?;
        self.inner.housekeeper.archive_all()
    }

    /// Writes every full segment anew, compressed, where that is on; the number of those. The housekeeper does it
    /// as segments become full.
    pub fn pack(&self) -> usize {
        self.inner.housekeeper.pack_all()
    }

    /// Removes full segments whose events all stand before a seq, whatever retention says; the number of segments
    /// removed.
    pub fn trim_before(&self, seq: u64) -> usize {
        self.inner.housekeeper.trim_before(seq)
    }

    fn ended(&self) -> AppendError {
        self.fatal().map_or(AppendError::Closed, AppendError::Failed)
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("dir", &self.inner.reader.store.dir).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a sender the writer stores what waits and ends, then the housekeeper does.
        self.queue = None;
        for thread in self.threads.drain(..) {
            // A panic of the writer has been turned into a failure before.
            drop(thread.join());
        }
    }
}

impl Durability {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Memory => "memory",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;

    use super::id::MessageId;
    use super::record::{Draft, Labels, Parsed, Record, Stamp, parse_framed};

    /// A record as a reader would get it.
    pub(crate) fn record(seq: u64, kind: &str) -> Record {
        labelled(seq, kind, "BTC/USDT")
    }

    pub(crate) fn labelled(seq: u64, kind: &str, symbol: &str) -> Record {
        let labels = Labels { kind, symbol, source: "test" };
        let json =
            format!(r#"{{"event_type":"{kind}","data":{{"symbol":"{symbol}","n":{seq}}},"metadata":{{}}}}"#);
        let draft = Draft::new(labels, seq as i64, u128::from(seq), seq, json.as_bytes()).unwrap();
        let mut out = Vec::new();
        draft.encode(Stamp { seq, id: MessageId { ms: seq, n: 0 } }, None, &mut out);
        let bytes = Bytes::from(out);
        let Parsed::Whole(header) = parse_framed(&bytes) else { panic!("not a record") };
        Record::slice(&header, &bytes, 0)
    }
}
