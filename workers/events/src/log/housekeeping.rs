//! What is done beside the writer: sealing segments that are full, compressing them, unlinking those that retention
//! lets go.
//!
//! Two threads: the housekeeper, which must be in time (retention), and the packer, which need not be. Packing takes as
//! much of a core as storing does, so it has the lowest priority and works in small bites: it lives on what the
//! publishers leave. Segments that wait for it are whole and durable; when many do, their indexes go to disk.
//!
//! With an archive, a segment is copied there before it is unlinked, and stays while it cannot be.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::setpriority_process;

use super::archive::Archive;
use super::medium::Medium;
use super::pack::Packing;
use super::retention::{Gone, Retention};
use super::segment::Segment;
use super::store::Store;
use super::{Clock, Observer};

/// LIMIT: segments that wait to be sealed.
pub(crate) const JOBS_MAX: usize = 64;
/// LIMIT: full segments whose indexes stay in memory while they wait to be compressed (about 1.3 MiB each).
const WAITING_MAX: usize = 4;
/// The lowest priority there is.
const NICE: i32 = 19;
/// How often retention is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Work for the housekeeper.
#[derive(Debug)]
pub(crate) enum Job {
    /// A segment is full.
    Seal(Arc<Segment>),
}

/// Seals and unlinks.
pub(crate) struct Housekeeper {
    pub(crate) store: Arc<Store>,
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) retention: Retention,
    /// Whether full segments are written anew, compressed.
    pub(crate) compress: bool,
    pub(crate) archive: Option<Archive>,
    /// Who changes what stands in the folder: the thread, or a caller of [`super::Log`].
    pub(crate) turn: Mutex<()>,
    /// Held while segments are compressed; before `turn`.
    pub(crate) packing: Mutex<Packing>,
}

impl Housekeeper {
    /// Works until the writer is gone. `packer` is told when there is something to compress.
    pub(crate) fn run(&self, jobs: &Receiver<Job>, packer: &SyncSender<()>) {
        loop {
            match jobs.recv_timeout(PERIOD) {
                Ok(Job::Seal(segment)) => {
                    self.retain();
                    self.full(&segment);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // The next start reads no segment for its index.
                    return self.full_segments().iter().for_each(|segment| self.seal(segment));
                }
            }
            // Full: it knows already.
            let _known = packer.try_send(());
            self.retain();
        }
    }

    /// Packs what is full until the housekeeper is gone.
    pub(crate) fn run_packer(&self, wakes: &Receiver<()>) {
        // Of this thread alone. Where it is refused, compressing costs the publishers time and nothing else.
        let _refused = setpriority_process(None, NICE);
        // The end waits for this thread.
        let goes_on = || !matches!(wakes.try_recv(), Err(TryRecvError::Disconnected));
        while wakes.recv().is_ok() {
            let full = self.full_segments();
            self.pack_while(&goes_on);
            // Those that could not be.
            full.iter().take_while(|_| goes_on()).for_each(|segment| self.seal(segment));
        }
    }

    /// Gives back what was reserved for the segment, and lets its index go where nothing better comes soon.
    fn full(&self, segment: &Arc<Segment>) {
        let end = segment.with_summary(|summary| summary.end);
        if let Err(error) = self.medium.truncate(&segment.file, end) {
            self.observer.trouble("a full segment could not be cut to its length", &error);
        }
        let waiting = || self.full_segments().iter().filter(|segment| segment.is_growing()).count();
        if !self.compress || waiting() > WAITING_MAX {
            self.seal(segment);
        }
    }

    /// Moves the segment's index to disk, unless it is there or the segment is gone. A convenience: the records are
    /// durable, the index can be made again.
    fn seal(&self, segment: &Arc<Segment>) {
        let _turn = self.turn();
        let seal = || if self.store.holds(segment) { segment.seal(&*self.medium) } else { Ok(()) };
        if let Err(error) = seal() {
            self.observer.trouble("a full segment could not be sealed; its index stays in memory", &error);
        }
    }

    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unlinks what retention lets go.
    pub(crate) fn retain(&self) -> Gone {
        self.trim(&self.retention)
    }

    /// Unlinks what the bounds let go.
    pub(crate) fn trim(&self, bounds: &Retention) -> Gone {
        let _turn = self.turn();
        let segments = self.store.segments();
        let extents: Vec<_> = segments.iter().map(|segment| segment.extent()).collect();
        let expired = bounds.expired(&extents, self.clock.now_ms());
        let count = segments[..expired].iter().take_while(|segment| self.is_archived(segment)).count();
        self.unlink_front(count);
        let bytes = extents[..count].iter().map(|extent| extent.bytes).sum();
        let events = extents[..count].iter().map(|extent| extent.records).sum();
        Gone { segments: count, events, bytes }
    }

    /// Unlinks full segments whose events all stand before a seq; the number of segments that went.
    pub(crate) fn trim_before(&self, seq: u64) -> usize {
        let _turn = self.turn();
        let segments = self.store.segments();
        let count = segments.iter().skip(1).take_while(|following| following.base_seq <= seq).count();
        self.unlink_front(count);
        count
    }

    /// Takes the oldest segments out of sight, so that no reader begins with a file that is going, and unlinks them.
    fn unlink_front(&self, count: usize) {
        if count == 0 {
            return;
        }
        let gone = self.store.drop_front(count);
        let unlinked: io::Result<()> = gone.iter().try_for_each(|segment| segment.unlink());
        if let Err(error) = unlinked.and_then(|()| self.medium.sync_dir(&self.store.dir)) {
            self.observer.trouble("an old segment could not be removed; the next start tries again", &error);
        }
    }

    /// Whether a segment may go: it does not have to be archived, or it is.
    fn is_archived(&self, segment: &Arc<Segment>) -> bool {
        let Some(archive) = &self.archive else { return true };
        match archive.add(segment, &*self.medium) {
            Ok(_) => true,
            Err(error) => {
                let error = io::Error::other(error);
                self.observer.trouble("an old segment could not be archived and stays", &error);
                false
            }
        }
    }
}
