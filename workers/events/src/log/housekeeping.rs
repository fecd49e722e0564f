//! What is done beside the writer: sealing segments that are full, unlinking those that retention lets go.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::medium::Medium;
use super::retention::{Gone, Retention};
use super::segment::Segment;
use super::store::Store;
use super::{Clock, Observer};

/// LIMIT: segments that wait to be sealed.
pub(crate) const JOBS_MAX: usize = 64;
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
    /// One at a time: the thread, or a caller of [`super::Log::retain`].
    pub(crate) turn: Mutex<()>,
}

impl Housekeeper {
    /// Works until the writer is gone.
    pub(crate) fn run(&self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(PERIOD) {
                Ok(Job::Seal(segment)) => self.seal(&segment),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.retain();
        }
    }

    fn seal(&self, segment: &Segment) {
        let cut = segment.with_summary(|summary| summary.end);
        // Both are conveniences: the records are durable, the index can be made again.
        let sealed = self.medium.truncate(&segment.file, cut).and_then(|()| segment.seal(&*self.medium));
        if let Err(error) = sealed {
            self.observer.trouble("a full segment could not be sealed; its index stays in memory", &error);
        }
    }

    /// Unlinks what retention lets go.
    pub(crate) fn retain(&self) -> Gone {
        self.trim(&self.retention)
    }

    /// Unlinks what the bounds let go.
    pub(crate) fn trim(&self, bounds: &Retention) -> Gone {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let segments = self.store.segments();
        let extents: Vec<_> = segments.iter().map(|segment| segment.extent()).collect();
        let count = bounds.expired(&extents, self.clock.now_ms());
        if count == 0 {
            return Gone::default();
        }
        // Out of sight first, so that no reader begins with a file that is going.
        let gone = self.store.drop_front(count);
        let unlinked: io::Result<()> = gone.iter().try_for_each(|segment| segment.unlink());
        if let Err(error) = unlinked.and_then(|()| self.medium.sync_dir(&self.store.dir)) {
            self.observer.trouble("an old segment could not be removed; the next start tries again", &error);
        }
        let bytes = extents[..count].iter().map(|extent| extent.bytes).sum();
        let events = extents[..count].iter().map(|extent| extent.records).sum();
        Gone { segments: count, events, bytes }
    }
}
