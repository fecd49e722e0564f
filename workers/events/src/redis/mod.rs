//! The Redis engine: the stream in a Redis that several event workers share.
//!
//! The stream is the key `events.stream` itself, so that what reads Redis streams reads it: each entry has the field
//! `event` with the event's JSON, and beside it `seq`, `type`, `symbol`, `source`, `time`, `event_id` and `print`.
//! What else is kept stands under `{stream}:…`, in the same slot of a cluster. One script stores a batch: dedup,
//! contiguous seqs, entries, the places of the newest market data.
//!
//! Three threads: [`writer`] stores batches, [`follow`] reads what any worker stored, [`watch`] looks every second
//! whether everything is as it should be and applies retention. Each has a connection of its own; readers share a
//! few more. What Redis forgot (a failover, a flush) is noticed by comparing it with the newest event known here: a
//! new epoch begins, seqs and ids go on behind the old ones, and subscribers are told.

mod entry;
mod follow;
mod link;
mod read;
mod scan;
mod script;
mod shared;
mod watch;
mod writer;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch as changes};

pub(crate) use link::Trouble;
pub(crate) use read::{ReadTrouble, Reader};
pub(crate) use scan::{Backward, Forward};
pub(crate) use shared::State;

use crate::engine::{AppendError, Durability, Receipt};
use crate::log::{Draft, Gone, Observer, Retention};
use shared::Shared;
use writer::Queue;

/// How long the first look at Redis may take before the worker starts without it.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// How the engine is set up.
#[derive(Clone)]
pub(crate) struct Options {
    /// Address, password included.
    pub(crate) url: String,
    /// Name of the stream: its key.
    pub(crate) stream: String,
    /// The consumer group that is made with the stream.
    pub(crate) group: String,
    /// What is kept.
    pub(crate) retention: Retention,
    /// How long an event id is remembered, in milliseconds.
    pub(crate) dedup_window_ms: u64,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// The engine, shared by its clones. When the last one is dropped, its threads end.
#[derive(Clone, Debug)]
pub(crate) struct Redis {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    queue: Queue,
    threads: Vec<JoinHandle<()>>,
}

impl Redis {
    /// Starts the engine. Blocks for at most [`FIRST_LOOK`]: a Redis that is away is waited for in the background,
    /// one that cannot keep events is refused.
    pub(crate) fn open(options: Options, observer: Arc<dyn Observer>) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::new(options)?);
        let (queue, submissions) = writer::queue(Arc::clone(&shared));
        let mut threads = Vec::new();
        let mut spawn = |name: &str, work: Box<dyn FnOnce() + Send>| -> std::io::Result<()> {
            threads.push(std::thread::Builder::new().name(name.into()).spawn(work)?);
            Ok(())
        };
        let own = Arc::clone(&shared);
        spawn("events-store", Box::new(move || writer::run(&own, &submissions, &*observer)))?;
        let own = Arc::clone(&shared);
        spawn("events-follow", Box::new(move || follow::run(&own)))?;
        let own = Arc::clone(&shared);
        spawn("events-watch", Box::new(move || watch::run(&own)))?;
        let inner = Inner { shared, queue, threads };
        match inner.shared.first_state(FIRST_LOOK) {
            State::Refused(why) => Err(OpenError::Refused(why)),
            State::Up | State::Away(_) => Ok(Self { inner: Arc::new(inner) }),
        }
    }

    /// Hands events to the writer; the receiver gets the answer.
    pub(crate) fn submit(
        &self,
        drafts: Vec<Draft>,
        atomic: bool,
    ) -> Result<oneshot::Receiver<Result<Receipt, AppendError>>, AppendError> {
        self.inner.queue.submit(drafts, atomic)
    }

    /// Reads what is stored.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.inner.shared))
    }

    /// Removes the oldest events until the bounds hold, in whole steps between anchors. Blocks.
    pub(crate) fn trim(&self, bounds: Retention) -> Result<Gone, Trouble> {
        watch::trim(&self.inner.shared, bounds)
    }

    /// How it is.
    pub(crate) fn state(&self) -> State {
        self.inner.shared.state()
    }

    /// Whether the last batch was refused because Redis may take no more memory.
    pub(crate) fn is_full(&self) -> bool {
        self.inner.shared.is_full()
    }

    /// What an answer promises now.
    pub(crate) fn durability(&self) -> Durability {
        self.inner.shared.durability()
    }

    /// Counts how often what was stored turned out to be replaced: a subscriber that sees it change has a gap.
    pub(crate) fn replaced(&self) -> changes::Receiver<u64> {
        self.inner.shared.replaced()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the hook.
            drop(thread.join());
        }
    }
}

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is not understood.
    #[error("the address of Redis cannot be used: {0}")]
    Address(String),
    /// This Redis must not hold events.
    #[error("this Redis cannot hold the events: {0}")]
    Refused(String),
    /// A thread could not be started.
    #[error("a thread of the Redis engine could not be started")]
    Thread(#[from] std::io::Error),
}
