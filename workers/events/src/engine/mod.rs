//! The store behind the calls: one face over every engine.
//!
//! Positions are seqs, contiguous from 1 in a stream, over all of its partitions; names of events are message ids,
//! which only rise. What clients are told of an event is its number in its partition (`Record::lane`). An append is
//! answered when it is as durable as its answer says. Readers see events in the order of their seqs; reading
//! blocks, so it is done on threads that may ([`crate::context::Context::read`]); [`Reader::durable_seq`],
//! [`Reader::first_seq`] and [`Reader::stats`] are at hand and never block.

mod read;
mod spool;

pub(crate) use read::{Forward, ReadError, Reader};
pub(crate) use spool::{LeftBehind, Spool};

use sluice_http::Reject;
use sluice_wire::code::Code;

use crate::log::{self, Draft, Fatal, Gone, Log, Outcome, Retention};
use std::time::Duration;

use tokio::sync::watch;

use crate::error::read_problem;
use crate::redis::{Notes, ReadTrouble, Redis, State, Trouble};

/// LIMIT: how long an append to another process may take, whatever that process does.
const APPEND_WITHIN: Duration = Duration::from_secs(8);

/// Where events are stored. Clones share it.
#[derive(Clone, Debug)]
pub(crate) enum Engine {
    /// The log of this process.
    Embedded(Log),
    /// A stream in Redis, and what waits for it where that is asked for.
    Redis(Redis, Option<Spool>),
}

/// What an answer promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// On stable storage of this machine.
    Fsync,
    /// On stable storage of the Redis server.
    AofAlways,
    /// With the Redis server's system, on its stable storage within about a second.
    AofEverysec,
    /// In memory of a process or its system.
    Memory,
    /// In a log of this machine, on its way to the store.
    Spooled,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// One for each event, in order.
    pub(crate) outcomes: Vec<Outcome>,
    /// What this answer promises.
    pub(crate) durability: Durability,
}

/// Why a submission was not stored, or is not known to be.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// The embedded log says why.
    #[error(transparent)]
    Log(#[from] log::AppendError),
    /// Too many events wait: try again soon.
    #[error("too many events wait to be stored")]
    Busy,
    /// Redis did not do its part; whether the submission is stored is told by [`Trouble::is_not_done`].
    #[error(transparent)]
    Away(#[from] Trouble),
    /// The engine is closed.
    #[error("the store is closed")]
    Closed,
}

/// How the engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It takes events.
    Well,
    /// It takes none now, and why.
    Away(String),
    /// Its server takes none now, and why; so many wait for it.
    Spooling { why: String, events: u64 },
    /// It takes none until there is room.
    Full,
    /// It takes nothing more; the process is to end.
    Failed,
}

impl Durability {
    /// All words.
    pub(crate) const ALL: [Self; 5] =
        [Self::Fsync, Self::AofAlways, Self::AofEverysec, Self::Memory, Self::Spooled];

    /// The word in answers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::AofAlways => "aof_always",
            Self::AofEverysec => "aof_everysec",
            Self::Memory => "memory",
            Self::Spooled => "spooled",
        }
    }
}

impl From<log::Durability> for Durability {
    fn from(durability: log::Durability) -> Self {
        match durability {
            log::Durability::Fsync => Self::Fsync,
            log::Durability::Memory => Self::Memory,
        }
    }
}

impl From<log::Receipt> for Receipt {
    fn from(log::Receipt { outcomes, durability }: log::Receipt) -> Self {
        Self { outcomes, durability: durability.into() }
    }
}

impl Engine {
    /// Stores events and waits for the answer.
    pub(crate) async fn append(&self, drafts: Vec<Draft>, atomic: bool) -> Result<Receipt, AppendError> {
        match self {
            Self::Embedded(log) => Ok(log.append(drafts, atomic).await?.into()),
            Self::Redis(redis, None) => through(redis, drafts, atomic).await,
            Self::Redis(redis, Some(spool)) => spool.append(redis, drafts, atomic).await,
        }
    }

    /// Reads what is stored.
    pub(crate) fn reader(&self) -> Reader {
        match self {
            Self::Embedded(log) => Reader::Embedded(log.reader()),
            Self::Redis(redis, _) => Reader::Redis(redis.reader()),
        }
    }

    /// Removes the oldest events until the bounds hold, as far as the store can.
    pub(crate) async fn trim(&self, bounds: Retention) -> Result<Gone, Reject> {
        match self {
            Self::Embedded(log) => {
                let log = log.clone();
                let trimmed = tokio::task::spawn_blocking(move || log.trim(&bounds)).await;
                trimmed.map_err(|_| Reject::new(Code::Internal, "trimming the stream broke off"))
            }
            Self::Redis(redis, _) => {
                let redis = redis.clone();
                let trimmed = tokio::task::spawn_blocking(move || redis.trim(bounds)).await;
                let trimmed =
                    trimmed.map_err(|_| Reject::new(Code::Internal, "trimming the stream broke off"))?;
                trimmed.map_err(|trouble| read_problem(&ReadTrouble::from(trouble).into()).into())
            }
        }
    }

    /// The word for it in `GET /events/stats`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "embedded",
            Self::Redis(..) => "redis",
        }
    }

    /// How it is.
    pub(crate) fn condition(&self) -> Condition {
        match self {
            Self::Embedded(log) if log.fatal().is_some() => Condition::Failed,
            Self::Embedded(_) => Condition::Well,
            Self::Redis(redis, spool) => {
                let server = match redis.state() {
                    State::Up if redis.is_full() => Condition::Full,
                    State::Up => Condition::Well,
                    State::Away(why) | State::Refused(why) => Condition::Away(why),
                };
                match spool {
                    Some(spool) => spool.condition(server),
                    None => server,
                }
            }
        }
    }

    /// The data set that is worked on, where it can be replaced.
    pub(crate) fn epoch(&self) -> Option<String> {
        match self {
            Self::Embedded(_) => None,
            Self::Redis(redis, _) => Some(redis.epoch()),
        }
    }

    /// The stream in Redis, where it is there.
    pub(crate) fn shared(&self) -> Option<Redis> {
        match self {
            Self::Embedded(_) => None,
            Self::Redis(redis, _) => Some(redis.clone()),
        }
    }

    /// What is kept of its groups, where other workers share it.
    pub(crate) fn group_notes(&self) -> Option<Notes> {
        match self {
            Self::Embedded(_) => None,
            Self::Redis(redis, _) => Some(redis.notes()),
        }
    }

    /// Changes when what was stored was replaced by something else behind this process's back. Its value is the seq up
    /// to which events may be gone.
    pub(crate) fn replaced(&self) -> watch::Receiver<u64> {
        match self {
            // Without a sender it never changes.
            Self::Embedded(_) => watch::channel(0).1,
            Self::Redis(redis, _) => redis.replaced(),
        }
    }

    /// Waits until it fails for good; forever while it does not.
    pub(crate) async fn failed(&self) -> Fatal {
        match self {
            Self::Embedded(log) => log.failed().await,
            Self::Redis(_, None) => std::future::pending().await,
            Self::Redis(_, Some(spool)) => spool.failed().await,
        }
    }

    /// Events that wait for the store's server.
    pub(crate) fn spooled(&self) -> u64 {
        match self {
            Self::Redis(_, Some(spool)) => spool.waiting(),
            Self::Embedded(_) | Self::Redis(_, None) => 0,
        }
    }
}

/// Stores events in Redis and waits for the answer.
async fn through(redis: &Redis, drafts: Vec<Draft>, atomic: bool) -> Result<Receipt, AppendError> {
    let answer = redis.submit(drafts, atomic)?;
    match tokio::time::timeout(APPEND_WITHIN, answer).await {
        Ok(answered) => answered.unwrap_or(Err(AppendError::Closed)),
        Err(_) => Err(Trouble::Lost("it takes too long".to_owned()).into()),
    }
}
