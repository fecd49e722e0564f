//! What writer, housekeeper and readers share: the segments, and how far they are durable.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::id::MessageId;
use super::segment::Segment;
use super::spares::Spares;

/// LIMIT: bytes of the newest records held in memory.
const NEWEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// LIMIT: block tables of sealed segments held in memory (about 650 KiB each).
const TABLES_MAX: usize = 16;

/// A failure after which the log takes nothing more: what is on disk is not known any longer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the event log failed and cannot go on: {0}")]
pub struct Fatal(pub(crate) Arc<str>);

impl Fatal {
    pub(crate) fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

/// The shared state of an open log.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) dir: PathBuf,
    /// INVARIANT: never empty; seqs are contiguous over them; the last one is being written.
    segments: RwLock<Vec<Arc<Segment>>>,
    /// Last seq that readers may see; records up to it are on stable storage.
    durable_seq: AtomicU64,
    /// Wakes blocking waiters; the flag is what they wait on.
    moved: (Mutex<u64>, Condvar),
    tables: Mutex<Vec<Weak<Segment>>>,
    newest: Mutex<Newest>,
    fatal: OnceLock<Fatal>,
    failed: watch::Sender<Option<Fatal>>,
}

/// Records of the newest commits of the segment being written, as they were encoded.
#[derive(Debug, Default)]
struct Newest {
    /// The seqs of each commit, and its records.
    commits: VecDeque<(Range<u64>, Bytes)>,
    bytes: usize,
}

impl Store {
    pub(crate) fn new(dir: PathBuf, segments: Vec<Arc<Segment>>, durable_seq: u64) -> Self {
        Self {
            dir,
            segments: RwLock::new(segments),
            durable_seq: AtomicU64::new(durable_seq),
            moved: (Mutex::new(durable_seq), Condvar::new()),
            tables: Mutex::new(Vec::new()),
            newest: Mutex::default(),
            fatal: OnceLock::new(),
            failed: watch::Sender::new(None),
        }
    }

    /// Last seq that readers may see; 0 when there is none.
    pub(crate) fn durable_seq(&self) -> u64 {
        self.durable_seq.load(Ordering::Acquire)
    }

    /// Shows readers everything up to a seq.
    pub(crate) fn set_durable(&self, seq: u64) {
        self.durable_seq.store(seq, Ordering::Release);
        *self.moved.0.lock().unwrap_or_else(PoisonError::into_inner) = seq;
        self.moved.1.notify_all();
    }

    /// Blocks until a seq beyond the given one is durable; `false` when the time is up or the log failed.
    pub(crate) fn wait_beyond(&self, seq: u64, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut durable = self.moved.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *durable <= seq {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.fatal.get().is_some() {
                return false;
            }
            durable = self.moved.1.wait_timeout(durable, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The segment in which a seq stands or would stand; the oldest one for seqs before it.
    pub(crate) fn segment_of(&self, seq: u64) -> Arc<Segment> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let at = segments.partition_point(|segment| segment.base_seq <= seq).saturating_sub(1);
        Arc::clone(&segments[at])
    }

    /// The segment after which a message id would stand: its first id is the last one not after `id`.
    pub(crate) fn segment_of_id(&self, id: MessageId) -> Arc<Segment> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let at = segments
            .partition_point(|segment| segment.with_summary(|sum| sum.records > 0 && sum.first <= id))
            .saturating_sub(1);
        Arc::clone(&segments[at])
    }

    /// Seq of the oldest event that is kept, or of the next one when there is none.
    pub(crate) fn first_seq(&self) -> u64 {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)[0].base_seq
    }

    /// Keeps the records of a commit for who follows closely; the memory of those that nobody uses any longer is spare.
    pub(crate) fn keep_newest(&self, seqs: Range<u64>, records: Bytes, spares: &mut Spares) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.bytes += records.len();
        newest.commits.push_back((seqs, records));
        while newest.bytes > NEWEST_BYTES_MAX
            && let Some((_, oldest)) = newest.commits.pop_front()
        {
            newest.bytes -= oldest.len();
            spare(oldest, spares);
        }
    }

    /// The records of the commit in which a seq stands, when they are kept.
    pub(crate) fn newest(&self, seq: u64) -> Option<Bytes> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let after = newest.commits.partition_point(|(seqs, _)| seqs.start <= seq);
        let (seqs, records) = newest.commits.get(after.checked_sub(1)?)?;
        seqs.contains(&seq).then(|| records.clone())
    }

    /// Begins a new segment.
    pub(crate) fn push(&self, segment: Arc<Segment>, spares: &mut Spares) {
        // What is kept is never older than what retention leaves.
        let kept = std::mem::take(&mut *self.newest.lock().unwrap_or_else(PoisonError::into_inner));
        kept.commits.into_iter().for_each(|(_, records)| spare(records, spares));
        self.segments.write().unwrap_or_else(PoisonError::into_inner).push(segment);
    }

    /// Whether a segment is the one that stands in its place.
    pub(crate) fn holds(&self, segment: &Arc<Segment>) -> bool {
        self.segments().iter().any(|other| Arc::ptr_eq(other, segment))
    }

    /// Puts a segment in the place of one with the same records; readers that have the old one read on.
    pub(crate) fn replace(&self, old: &Arc<Segment>, new: Arc<Segment>) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = segments.iter_mut().find(|other| Arc::ptr_eq(other, old)) {
            *place = new;
        }
    }

    /// Takes the oldest segments out of sight.
    pub(crate) fn drop_front(&self, count: usize) -> Vec<Arc<Segment>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).drain(..count).collect()
    }

    /// Notes that a segment's block table is in use, and lets go of the one that was not for longest.
    pub(crate) fn touch(&self, segment: &Arc<Segment>) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|other| other.upgrade().is_some_and(|other| !Arc::ptr_eq(&other, segment)));
        tables.push(Arc::downgrade(segment));
        if tables.len() > TABLES_MAX
            && let Some(oldest) = tables.remove(0).upgrade()
        {
            oldest.drop_table();
        }
    }

    /// Ends the log; the first reason given is kept.
    pub(crate) fn fail(&self, fatal: Fatal) {
        let first = self.fatal.get_or_init(|| fatal).clone();
        self.failed.send_replace(Some(first));
        self.moved.1.notify_all();
    }

    /// Why the log ended, if it did.
    pub(crate) fn fatal(&self) -> Option<Fatal> {
        self.fatal.get().cloned()
    }

    /// Tells when the log fails.
    pub(crate) fn failures(&self) -> watch::Receiver<Option<Fatal>> {
        self.failed.subscribe()
    }
}

/// The memory of records is spare where nobody holds them.
fn spare(records: Bytes, spares: &mut Spares) {
    if let Ok(mut unused) = records.try_into_mut() {
        unused.clear();
        spares.put(unused.into());
    }
}
