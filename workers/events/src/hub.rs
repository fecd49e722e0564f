//! Fan-out: one thread follows the log, encodes each event that somebody wants once, and wakes who can want it.
//!
//! The thread is the only reader of new events; a subscriber holds a place and a filter. A slow one falls out of
//! the ring and reads the log for itself: it never holds up this thread, and this thread never holds up the writer.
//! What nobody wants is not encoded and not kept: it only passes by the latest market data. The edge subscribes to
//! kill switches alone, so that is most of what there is.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use crate::bell::{Bell, Bells};
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
/// Pause between two looks while events come that nobody wants: a wake for each commit would cost the writer's core
/// more.
const IDLE: Duration = Duration::from_millis(2);
/// Looks that are closer than this are many.
const BUSY: Duration = Duration::from_millis(4);

/// The fan-out of one stream.
pub(crate) struct Hub {
    ring: RwLock<Ring>,
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
    pub(crate) fn see(
        &self,
        from: u64,
        bell: &Bell,
        looks: usize,
        goes_on: impl FnMut(&Frame) -> bool,
    ) -> Seen {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.see(from, bell.since(), looks, goes_on)
    }

    /// Shows the frame of one event; `false` where it has none.
    pub(crate) fn show(&self, seq: u64, look: impl FnOnce(&Frame)) -> bool {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).get(seq).map(look).is_some()
    }

    fn run(&self, reader: &Reader) {
        let mut scan = reader.follow(self.head() + 1);
        let mut looked = Instant::now();
        while !self.closing.load(Ordering::Relaxed) {
            if !reader.wait_beyond(scan.position() - 1, TICK) {
                continue;
            }
            let is_busy = std::mem::replace(&mut looked, Instant::now()).elapsed() < BUSY;
            scan.extend();
            match self.follow(&mut scan) {
                Ok(is_wanted) => {
                    if !is_wanted && is_busy && self.head.receiver_count() == 0 {
                        std::thread::sleep(IDLE);
                    }
                }
                // What was not read is asked for again.
                Err(error) if error.passes() => std::thread::sleep(TICK),
                Err(error) => {
                    self.broken.store(true, Ordering::Relaxed);
                    report(&error);
                    return;
                }
            }
        }
    }

    /// Passes on what there is; whether anybody wants any of it.
    fn follow(&self, scan: &mut Forward) -> Result<bool, ReadError> {
        let (mut batch, mut is_wanted) = (Vec::new(), false);
        loop {
            let record = scan.next()?;
            let ended = record.is_none();
            batch.extend(record);
            if batch.len() >= BATCH || ended {
                is_wanted |= self.pass_on(&mut batch);
                batch.clear();
            }
            if ended {
                return Ok(is_wanted);
            }
        }
    }

    /// Takes up the next events, and of those that somebody wants tells who does; whether there were such.
    fn pass_on(&self, records: &mut Vec<Record>) -> bool {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return false };
        let (first, last, count) = (first.stamp.seq, last.stamp, records.len());
        self.latest.follow(records.iter(), last);
        let is_heard = self.bells.sift(last.seq, records);
        if records.len() < count {
            // A few would hold on to the memory of all that stood around them.
            for record in records.iter_mut() {
                *record = record.detached();
            }
        }
        let frames = encoded(records.drain(..), &self.metrics);
        let is_wanted = !frames.is_empty();
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        take_up(&mut ring, first..last.seq + 1, frames, is_heard);
        drop(ring);
        self.head.send_replace(last.seq);
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        self.bells.ring(first, last.seq, ring.since(first).map(|frame| &frame.record));
        is_wanted
    }
}

/// Puts into the ring what is wanted of the next events; nothing is kept where nobody hears.
fn take_up(ring: &mut Ring, seqs: Range<u64>, frames: Vec<Frame>, is_heard: bool) {
    if !is_heard {
        return ring.restart(seqs.end);
    }
    if ring.next() != seqs.start {
        // Retention took events away before they were read.
        ring.restart(seqs.start);
    }
    ring.push(frames, seqs.end);
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

#[cfg(test)]
mod tests;
