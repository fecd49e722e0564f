//! Fan-out: one thread follows the log, encodes each event once, and wakes the subscribers that can want it.
//!
//! The thread is the only reader of new events; a subscriber holds a place and a filter. A slow one falls out of
//! the ring and reads the log for itself: it never holds up this thread, and this thread never holds up the writer.
//! While nobody subscribes nothing is encoded: events only pass by the latest market data.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::bell::Bells;
use crate::engine::{Forward, ReadError, Reader};
use crate::error::report;
use crate::frame;
use crate::log::Record;
use crate::metrics::Metrics;
use crate::ring::{Frame, Ring, Seen};
use crate::state::Latest;

/// LIMIT: events in the ring.
const RING_FRAMES_MAX: usize = 64 * 1024;
/// LIMIT: bytes of encoded events in the ring; what they were read from takes about as much again.
const RING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Events encoded before subscribers are woken.
const BATCH: usize = 512;
/// About what a frame has beside an event's JSON.
const FRAME_EXTRA_BYTES: usize = 160;
/// How often the thread looks whether it is to end.
const TICK: Duration = Duration::from_millis(200);
/// Pause between two looks while nobody waits for events: a wake for each commit would cost the writer's core more.
const IDLE: Duration = Duration::from_millis(2);

/// The fan-out of one stream.
pub(crate) struct Hub {
    ring: RwLock<Ring>,
    /// Subscribers that are open.
    viewers: AtomicUsize,
    /// Seq of the newest event in the ring.
    head: watch::Sender<u64>,
    bells: Bells,
    latest: Latest,
    metrics: Arc<Metrics>,
    closing: AtomicBool,
    broken: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Hub {
    /// Follows a log from its end on.
    pub(crate) fn start(reader: Reader, metrics: Arc<Metrics>) -> std::io::Result<Arc<Self>> {
        let newest = reader.durable_seq();
        let hub = Arc::new(Self {
            ring: RwLock::new(Ring::new(newest + 1, RING_FRAMES_MAX, RING_BYTES_MAX)),
            viewers: AtomicUsize::new(0),
            head: watch::Sender::new(newest),
            bells: Bells::new(newest),
            latest: Latest::beginning(&reader),
            metrics,
            closing: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            thread: Mutex::new(None),
        });
        let own = Arc::clone(&hub);
        let thread = std::thread::Builder::new().name("events-hub".into()).spawn(move || own.run(&reader))?;
        *hub.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(hub)
    }

    /// Ends the thread.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there has been reported by the hook; nothing of it is needed here.
            drop(thread.join());
        }
    }

    /// Whether it still follows the log.
    pub(crate) fn is_well(&self) -> bool {
        !self.broken.load(Ordering::Relaxed)
    }

    /// A subscriber comes, before it looks for its place: from then on events are encoded.
    pub(crate) fn enter(&self) {
        self.viewers.fetch_add(1, Ordering::SeqCst);
    }

    /// A subscriber goes.
    pub(crate) fn leave(&self) {
        self.viewers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Seq of the newest event that subscribers can have.
    pub(crate) fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Wakes subscribers.
    pub(crate) fn bells(&self) -> &Bells {
        &self.bells
    }

    /// Tells of newer events.
    pub(crate) fn heads(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Waits until the event with a seq has passed, but not longer than the limit.
    pub(crate) async fn caught_up(&self, seq: u64, limit: Duration) {
        let mut heads = self.heads();
        // Late is not wrong: the answer names the seq it is valid at.
        drop(tokio::time::timeout(limit, heads.wait_for(|head| *head >= seq)).await);
    }

    /// The latest market data.
    pub(crate) fn latest(&self) -> &Latest {
        &self.latest
    }

    /// Shows a subscriber the frames at its place.
    pub(crate) fn see(&self, from: u64, looks: usize, goes_on: impl FnMut(&Frame) -> bool) -> Seen {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).see(from, looks, goes_on)
    }

    fn run(&self, reader: &Reader) {
        let mut scan = reader.follow(self.head() + 1);
        while !self.closing.load(Ordering::Relaxed) {
            if !reader.wait_beyond(scan.position() - 1, TICK) {
                continue;
            }
            scan.extend();
            if let Err(error) = self.follow(&mut scan) {
                if error.passes() {
                    // What was not read is asked for again.
                    std::thread::sleep(TICK);
                    continue;
                }
                self.broken.store(true, Ordering::Relaxed);
                report(&error);
                return;
            }
            if self.head.receiver_count() == 0 && self.is_alone() {
                std::thread::sleep(IDLE);
            }
        }
    }

    fn is_alone(&self) -> bool {
        self.viewers.load(Ordering::SeqCst) == 0
    }

    fn follow(&self, scan: &mut Forward) -> Result<(), ReadError> {
        let mut batch = Vec::new();
        loop {
            let record = scan.next()?;
            let ended = record.is_none();
            batch.extend(record);
            if batch.len() >= BATCH || (ended && !batch.is_empty()) {
                if !self.pass(&batch) {
                    self.publish(batch.drain(..));
                }
                batch.clear();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Lets events go by that nobody is there for; `false` when somebody is.
    fn pass(&self, records: &[Record]) -> bool {
        let Some(last) = records.last().map(|record| record.stamp).filter(|_| self.is_alone()) else {
            return false;
        };
        self.latest.follow(records.iter(), last);
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: who came since has not looked into the ring, or is seen here.
        if !self.is_alone() {
            return false;
        }
        ring.restart(last.seq + 1);
        drop(ring);
        self.head.send_replace(last.seq);
        true
    }

    fn publish(&self, records: impl Iterator<Item = Record>) {
        let frames = encoded(records, &self.metrics);
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return };
        let (first, last) = (first.record.stamp.seq, last.record.stamp);
        self.latest.follow(frames.iter().map(|frame| &frame.record), last);
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        if ring.next() != first {
            // Retention took events away before they were read.
            ring.restart(first);
        }
        ring.push(frames);
        drop(ring);
        self.head.send_replace(last.seq);
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        self.bells.ring(first, last.seq, ring.since(first).map(|frame| &frame.record));
    }
}

/// Encodes a batch into one piece of memory that its frames share.
fn encoded(records: impl Iterator<Item = Record>, metrics: &Metrics) -> Vec<Frame> {
    let records: Vec<Record> = records.collect();
    let room = records.iter().map(|record| record.json().len() + FRAME_EXTRA_BYTES).sum();
    let mut all = Vec::with_capacity(room);
    let placed: Vec<(Record, usize, usize)> = records
        .into_iter()
        .map(|record| {
            let json_at = frame::encode(&record, &mut all);
            (record, json_at, all.len())
        })
        .collect();
    let all = Bytes::from(all);
    let mut begin = 0;
    placed
        .into_iter()
        .map(|(record, json_at, end)| {
            let kind = metrics.kind(record.kind());
            let bytes = all.slice(std::mem::replace(&mut begin, end)..end);
            Frame { record, bytes, json_at, kind }
        })
        .collect()
}
