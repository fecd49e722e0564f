//! What waits: a log, and the note how far Redis has everything.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::RwLock;

use super::letter::hand_over;
use super::{AppendError, Durability, Receipt};
use crate::log::{
    self, AtRest, Draft, Filter, Ground, Labels, Log, OpenError, Options, ReadError, Retention,
};
use crate::redis::{Redis, State, Trouble};

/// Size of a segment: what Redis has is given back by the segment.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// Events handed to Redis at once.
const BATCH_EVENTS: usize = 256;
/// Bytes handed to Redis at once.
const BATCH_BYTES: usize = 256 * 1024;
/// How often the thread looks around.
const TICK: Duration = Duration::from_millis(100);
/// Before another try after Redis refused.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Core {
    pub(super) log: Log,
    /// The file that says how far Redis has everything.
    place: PathBuf,
    /// New events may go into it; else what is left of an earlier start is stored and that is all.
    pub(super) takes: bool,
    bytes_max: u64,
    /// Whether events go into the spool. Held while one does.
    pub(super) spooling: RwLock<bool>,
    /// Seq up to which Redis has everything.
    drained: AtomicU64,
    /// Bytes of what Redis has not.
    bytes: AtomicU64,
    /// What waits cannot be read.
    pub(super) broken: AtomicBool,
    pub(super) closing: Mutex<bool>,
    pub(super) changed: Condvar,
}

/// Why what waits was not stored.
#[derive(Debug, thiserror::Error)]
enum DrainError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("what waits for Redis cannot be read")]
    Read(#[from] ReadError),
    #[error("how far Redis has everything cannot be written down")]
    Place(#[from] std::io::Error),
}

impl Core {
    pub(super) fn open(
        dir: &Path,
        options: Options,
        ground: Ground,
        takes: bool,
        bytes_max: u64,
    ) -> Result<Self, OpenError> {
        let options = Options {
            retention: Retention::default(),
            segment_bytes: options.segment_bytes.min(SEGMENT_BYTES),
            // Their numbers come with their places in the stream.
            partitions: None,
            ..options
        };
        // It is read once and gone.
        let at_rest = AtRest { archive: None, compress: false, ..ground.at_rest.clone() };
        let log = Log::open(dir, &options, Ground { at_rest, ..ground })?;
        let place = dir.with_extension("place");
        let reader = log.reader();
        // A place that is not there, or beyond what is there, costs a repetition, which the event ids make harmless.
        let noted = std::fs::read_to_string(&place).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let drained = noted.unwrap_or(0).clamp(reader.first_seq() - 1, reader.durable_seq());
        let left = reader.durable_seq() > drained;
        if noted.is_some_and(|noted| noted != drained) {
            // What is written now must not be taken for what the file was written for.
            write_place(&place, drained).map_err(|source| OpenError::Io { path: place.clone(), source })?;
        }
        Ok(Self {
            place,
            takes,
            bytes_max,
            spooling: RwLock::new(left),
            drained: AtomicU64::new(drained),
            bytes: AtomicU64::new(if left { reader.stats().bytes } else { 0 }),
            broken: AtomicBool::new(false),
            closing: Mutex::new(false),
            changed: Condvar::new(),
            log,
        })
    }

    pub(super) fn waiting(&self) -> u64 {
        self.log.reader().durable_seq().saturating_sub(self.drained.load(Ordering::Acquire))
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < self.bytes_max
    }

    pub(super) async fn store(&self, drafts: Vec<Draft>, atomic: bool) -> Result<Receipt, AppendError> {
        if atomic && drafts.len() > 1 {
            // Whether one of them is in conflict with what is stored is for Redis to say, and comes too late.
            return Err(Trouble::Away("an atomic batch does not wait".to_owned()).into());
        }
        let bytes: u64 = drafts.iter().map(|draft| draft.stored_bytes() as u64).sum();
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Trouble::Away("as many events wait as may".to_owned()).into());
        }
        match self.log.append(drafts, false).await {
            Ok(log::Receipt { outcomes, .. }) => Ok(Receipt { outcomes, durability: Durability::Spooled }),
            Err(error) => {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                Err(error.into())
            }
        }
    }

    /// Stores what waits whenever Redis takes it, until the spool is closed.
    pub(super) fn run(&self, redis: &Redis) {
        let mut pause = TICK;
        while !self.closes_within(pause) {
            pause = TICK;
            if redis.state() != State::Up {
                continue;
            }
            if self.waiting() > 0 {
                // A caller that left before its answer may have left an event behind.
                if !self.is_spooling() {
                    *self.spooling.blocking_write() = true;
                }
                if let Err(error) = self.drain(redis) {
                    self.broken.store(matches!(error, DrainError::Read(_)), Ordering::Relaxed);
                    tracing::warn!(
                        component = "spool",
                        error = &error as &dyn std::error::Error,
                        "events go on waiting"
                    );
                    pause = PAUSE;
                }
            } else {
                self.end();
            }
        }
    }

    fn is_spooling(&self) -> bool {
        *self.spooling.blocking_read()
    }

    /// From here on events go to Redis again, if none waits.
    fn end(&self) {
        if !self.is_spooling() {
            return;
        }
        let mut spooling = self.spooling.blocking_write();
        if self.waiting() == 0 {
            *spooling = false;
            self.bytes.store(0, Ordering::Relaxed);
            tracing::info!(component = "spool", "Redis has everything that waited");
        }
    }

    fn drain(&self, redis: &Redis) -> Result<(), DrainError> {
        let from = self.drained.load(Ordering::Acquire) + 1;
        let mut scan = self.log.reader().forward(from, Filter::default());
        loop {
            let (mut drafts, mut bytes, mut last) = (Vec::new(), 0, 0);
            while drafts.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
                let Some(record) = scan.next()? else { break };
                let labels = Labels { kind: record.kind(), symbol: record.symbol(), source: record.source() };
                last = record.stamp.seq;
                let draft =
                    Draft::new(labels, record.time_us, record.event_id, record.fingerprint, record.json())
                        .expect("it came out of a record");
                bytes += draft.stored_bytes();
                drafts.push(draft);
            }
            if drafts.is_empty() || *self.closing.lock().unwrap_or_else(PoisonError::into_inner) {
                return Ok(());
            }
            hand_over(redis, &drafts)?;
            self.note(last)?;
            let before = self.bytes.load(Ordering::Relaxed);
            self.bytes.fetch_sub(before.min(bytes as u64), Ordering::Relaxed);
        }
    }

    /// Redis has everything up to a seq.
    pub(super) fn note(&self, seq: u64) -> std::io::Result<()> {
        write_place(&self.place, seq)?;
        self.drained.store(seq, Ordering::Release);
        self.broken.store(false, Ordering::Relaxed);
        self.log.trim_before(seq + 1);
        Ok(())
    }

    /// Waits a moment; whether the spool is to close.
    fn closes_within(&self, time: Duration) -> bool {
        let closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(closing, time, |closing| !*closing);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn write_place(path: &Path, seq: u64) -> std::io::Result<()> {
    let unfinished = path.with_extension("place.tmp");
    std::fs::write(&unfinished, format!("{seq}\n"))?;
    std::fs::rename(&unfinished, path)
}
