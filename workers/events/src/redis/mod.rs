//! The Redis engine: the stream in a Redis that several event workers share.
//!
//! The stream is the key `events.stream` itself, so that what reads Redis streams reads it: each entry has the field
//! `event` with the event's JSON, and beside it `seq`, `type`, `symbol`, `source`, `time`, `event_id` and `print`;
//! where the stream is divided, also `partition` and `partition_seq`.
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
mod notes;
mod place;
mod read;
mod scan;
mod script;
mod shared;
mod tail;
mod watch;
mod writer;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use sluice_schema::RedisUrl;
use tokio::sync::{oneshot, watch as changes};

pub(crate) use link::Trouble;
pub(crate) use notes::{Known, Notes};
pub(crate) use read::{ReadTrouble, Reader, StreamGroup};
pub(crate) use scan::{Backward, Forward};
pub(crate) use shared::State;

use crate::engine::{AppendError, Durability, Receipt};
use crate::log::{Draft, Gone, Observer, Partitions, Retention};
use shared::Shared;
use writer::Queue;

/// How long the first look at Redis may take before the worker starts without it.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// Looks a name up among the streams beside the main one, and takes it in where that is asked for.
const BESIDE: &str = "if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 1 end
if ARGV[2] == '0' then return 0 end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[3]) then return -1 end
return redis.call('SADD', KEYS[1], ARGV[1])";

const SCHEMAS: &str = "local changes = tonumber(redis.call('GET', KEYS[2]) or '0')
if changes == tonumber(ARGV[1]) then return { changes, {} } end
return { changes, redis.call('HGETALL', KEYS[1]) }";

/// An empty text removes.
const SET_SCHEMA: &str = "if tonumber(redis.call('GET', KEYS[2]) or '0') ~= tonumber(ARGV[1]) then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[2]) else redis.call('HSET', KEYS[1], ARGV[2], ARGV[3]) end
redis.call('INCR', KEYS[2])
return 1";

/// How often something was changed, and the texts of it by name.
pub(crate) type Texts = (u64, Vec<(String, Vec<u8>)>);

/// What there is of a stream beside the main one.
#[derive(Debug)]
pub(crate) enum Beside {
    /// It is there.
    There(Redis),
    /// Nobody made it.
    Absent,
    /// It is not there, and there are too many for another one.
    TooMany,
}

/// Why a stream beside the main one cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BesideError {
    /// Redis did not do its part.
    #[error(transparent)]
    Redis(#[from] Trouble),
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// How the engine is set up.
#[derive(Clone)]
pub(crate) struct Options {
    /// Where it is.
    pub(crate) url: RedisUrl,
    /// Name of the stream: its key.
    pub(crate) stream: String,
    /// The consumer group that is made with the stream.
    pub(crate) group: String,
    /// What is kept.
    pub(crate) retention: Retention,
    /// How long an event id is remembered, in milliseconds.
    pub(crate) dedup_window_ms: u64,
    /// How events are numbered; `None`: all in one row.
    pub(crate) partitions: Option<Partitions>,
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

    /// How often the schemas were changed, and, if that is not `seen`, all of them. Blocks.
    pub(crate) fn schemas(&self, seen: u64) -> Result<Texts, Trouble> {
        let keys = self.schema_keys();
        self.inner.shared.with_link(|link, _| {
            let mut command = redis::cmd("EVAL");
            command.arg(SCHEMAS).arg(2).arg(&keys).arg(seen);
            link.ask(&command)
        })
    }

    /// Sets or removes the schema of a type, where they were changed `seen` times; whether that is so. Blocks.
    pub(crate) fn set_schema(&self, kind: &str, text: Option<&[u8]>, seen: u64) -> Result<bool, Trouble> {
        let keys = self.schema_keys();
        self.inner.shared.with_link(|link, _| {
            let mut command = redis::cmd("EVAL");
            command.arg(SET_SCHEMA).arg(2).arg(&keys).arg(seen).arg(kind);
            command.arg(text.unwrap_or_default());
            link.ask(&command)
        })
    }

    fn schema_keys(&self) -> [String; 2] {
        let stream = &self.inner.shared.options.stream;
        [format!("{{{stream}}}:schemas"), format!("{{{stream}}}:schemas:changes")]
    }

    /// A stream beside this one, in the same Redis, under the key `<stream>:stream:<name>`. Workers find those that
    /// others made. Blocks.
    pub(crate) fn beside(&self, name: &str, make: bool, most: usize) -> Result<Beside, BesideError> {
        let options = &self.inner.shared.options;
        let names = format!("{{{}}}:streams", options.stream);
        let found: i64 = self.inner.shared.with_link(|link, _| {
            let mut command = redis::cmd("EVAL");
            command.arg(BESIDE).arg(1).arg(&names).arg(name).arg(u8::from(make)).arg(most);
            link.ask(&command)
        })?;
        match found {
            0 => Ok(Beside::Absent),
            ..0 => Ok(Beside::TooMany),
            _ => {
                let stream = format!("{}:stream:{name}", options.stream);
                Ok(Beside::There(Self::open(Options { stream, ..options.clone() }, Arc::new(()))?))
            }
        }
    }

    /// What is kept of the groups of the stream.
    pub(crate) fn notes(&self) -> Notes {
        Notes::new(Arc::clone(&self.inner.shared))
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

    /// The data set that is worked on; it changes when events are lost.
    pub(crate) fn epoch(&self) -> String {
        self.inner.shared.epoch()
    }

    /// Changes when what was stored turned out to be replaced: a subscriber that sees it change has a gap. Its value
    /// is the last seq before the new epoch.
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
