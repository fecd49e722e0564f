//! Consumer groups: messages handed out under leases, handed out again when they fail, kept apart when they go on
//! failing.
//!
//! One thread owns every group ([`keeper`]). It takes the calls that wait, decides them on the state in memory
//! ([`state`]), writes what happened down in one commit ([`journal`]) and answers when that is durable. So an ack
//! that was answered is never forgotten, deliveries are counted over restarts, and many calls share one sync. When
//! a commit fails, what it would have changed is forgotten again: the state is read back from the journal.
//!
//! Delivery is at least once: what was handed out and not acknowledged comes again.

mod announce;
mod answer;
pub(crate) mod api;
mod body;
mod command;
pub(crate) mod dlq;
mod error;
mod fact;
mod gauges;
mod journal;
mod keeper;
mod lease;
mod letters;
#[cfg(test)]
mod model;
mod replay;
mod report;
mod settings;
mod shelf;
mod state;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::engine::Reader;
use crate::log::Record;

pub(crate) use announce::announce;
pub(crate) use command::{
    Answer, Ask, Command, Delivery, Event, How, Lease, LetterPage, Letters, Notice, Put, Redrive, Redriven,
    Replayed, Report, Settle, Settled, Start,
};
pub(crate) use error::GroupError;
pub(crate) use gauges::Gauges;
pub(crate) use settings::{Selector, Settings};

pub(crate) use journal::Journal;
use keeper::Keeper;
use watch::Watch;

/// LIMIT: calls that wait for the groups.
const QUEUE_MAX: usize = 4_096;
/// LIMIT: dead letters that wait to be told of.
const NOTICES_MAX: usize = 4_096;

/// Bounds of the groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Groups.
    pub(crate) groups: usize,
    /// Messages of a group that are handed out and not settled.
    pub(crate) pending: usize,
    /// Messages of a group that wait behind another one of their symbol.
    pub(crate) waiting: usize,
    /// Messages held for all groups together: about 150 bytes each.
    pub(crate) held: usize,
    /// Consumers of a group.
    pub(crate) consumers: usize,
    /// Leases of all groups that wait for messages.
    pub(crate) waiters: usize,
    /// Dead letters of a group.
    pub(crate) letters: usize,
    /// Bytes of the dead letters of all groups.
    pub(crate) letters_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            groups: 1_000,
            pending: 100_000,
            waiting: 100_000,
            held: 1_000_000,
            consumers: 1_000,
            waiters: 4_096,
            letters: 10_000,
            letters_bytes: 512 * 1024 * 1024,
        }
    }
}

/// Where calls about groups go: the one thing that an engine must do for them. It answers every command it takes.
pub(crate) trait Port: Send + Sync {
    /// Takes a call; it is refused when too many wait.
    fn send(&self, command: Command) -> Result<(), GroupError>;
}

/// The groups of the stream. Clones share them.
#[derive(Clone)]
pub(crate) struct Groups {
    port: Arc<dyn Port>,
}

/// Groups on the embedded log.
struct Embedded {
    /// `None` only while closing.
    queue: Option<SyncSender<Command>>,
    watch: Arc<Watch>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Groups {
    /// Groups over a stream, written down in a journal. Blocks until that is read back, unless it is shared.
    pub(crate) fn open(
        reader: Reader,
        journal: Journal,
        limits: Limits,
    ) -> Result<(Self, mpsc::Receiver<Notice>), OpenError> {
        let (queue, commands) = std::sync::mpsc::sync_channel(QUEUE_MAX);
        let (notices, told) = mpsc::channel(NOTICES_MAX);
        let watch = Arc::new(Watch::default());
        let keeper = Keeper::open(reader.clone(), journal, limits, notices, Arc::clone(&watch))?;
        let kept =
            std::thread::Builder::new().name("events-groups".into()).spawn(move || keeper.run(&commands))?;
        let (own, nudge) = (Arc::clone(&watch), queue.clone());
        let watched = std::thread::Builder::new()
            .name("events-groups-watch".into())
            .spawn(move || own.run(&reader, &nudge))?;
        let threads = Mutex::new(vec![watched, kept]);
        Ok((Self { port: Arc::new(Embedded { queue: Some(queue), watch, threads }) }, told))
    }

    /// Creates a group, or changes its settings; the place of one that exists stays.
    pub(crate) async fn put(&self, group: &str, settings: Settings, start: Start) -> Result<Put, GroupError> {
        self.ask(|answer| Command::Put { group: group.into(), settings, start, answer }).await
    }

    /// Removes a group.
    pub(crate) async fn delete(&self, group: &str) -> Result<(), GroupError> {
        self.ask(|answer| Command::Delete { group: group.into(), answer }).await
    }

    /// Hands out messages, waiting for the first one until the given time. A caller that goes away gives back what
    /// it was given.
    pub(crate) async fn lease(
        &self,
        group: &str,
        ask: impl FnOnce(Answer<Lease>) -> Ask,
    ) -> Result<Lease, GroupError> {
        self.ask(|answer| Command::Lease { group: group.into(), ask: ask(answer) }).await
    }

    /// Says what became of messages.
    pub(crate) async fn settle(&self, group: &str, settle: Settle) -> Result<Settled, GroupError> {
        self.ask(|answer| Command::Settle { group: group.into(), settle, answer }).await
    }

    /// The groups after a name, in order.
    pub(crate) async fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<Report>, GroupError> {
        self.ask(|answer| Command::List { after: after.map(Into::into), limit, answer }).await
    }

    /// One group.
    pub(crate) async fn report(&self, group: &str) -> Result<Report, GroupError> {
        self.ask(|answer| Command::Report { group: group.into(), answer }).await
    }

    /// Dead letters of a group.
    pub(crate) async fn letters(&self, group: &str, page: LetterPage) -> Result<Letters, GroupError> {
        self.ask(|answer| Command::Letters { group: group.into(), page, answer }).await
    }

    /// Makes dead letters messages again.
    pub(crate) async fn redrive(&self, group: &str, redrive: Redrive) -> Result<Redriven, GroupError> {
        self.ask(|answer| Command::Redrive { group: group.into(), redrive, answer }).await
    }

    /// Makes events of the stream messages of a group again, those that its filter wants.
    pub(crate) async fn replay(&self, group: &str, records: Vec<Record>) -> Result<Replayed, GroupError> {
        self.ask(|answer| Command::Replay { group: group.into(), records, answer }).await
    }

    /// Drops the dead letters of a group; how many there were.
    pub(crate) async fn purge(&self, group: &str) -> Result<u64, GroupError> {
        self.ask(|answer| Command::Purge { group: group.into(), answer }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, GroupError> {
        let (answer, answered) = oneshot::channel();
        self.port.send(command(answer))?;
        answered.await.unwrap_or(Err(GroupError::Closed))
    }
}

/// Why the groups could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What is kept of them cannot be read.
    #[error("what is kept of the consumer groups cannot be read")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A thread could not be started.
    #[error("a thread for the consumer groups could not be started")]
    Thread(#[from] std::io::Error),
}

impl Port for Embedded {
    fn send(&self, command: Command) -> Result<(), GroupError> {
        let Some(queue) = &self.queue else { return Err(GroupError::Closed) };
        queue.try_send(command).map_err(|refused| match refused {
            TrySendError::Full(_) => GroupError::Busy("more calls about groups wait than the queue holds"),
            TrySendError::Disconnected(_) => GroupError::Closed,
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The watching thread holds a sender too: it ends first, then the queue is closed.
        self.watch.close();
        self.queue = None;
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A panic there has been reported by the hook; nothing of it is needed here.
            drop(thread.join());
        }
    }
}
