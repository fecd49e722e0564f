//! The store behind the calls: one face over every engine.
//!
//! Positions are seqs, contiguous from 1 in a stream; names of events are message ids, which only rise. An append
//! is answered when it is as durable as its answer says. Readers see events in the order of their seqs; reading
//! blocks, so it is done on threads that may ([`crate::context::Context::read`]); [`Reader::durable_seq`],
//! [`Reader::first_seq`] and [`Reader::stats`] are at hand and never block.

mod read;

pub(crate) use read::{Forward, ReadError, Reader};

use sluice_http::Reject;
use sluice_wire::code::Code;

use crate::log::{self, Draft, Fatal, Gone, Log, Retention};

pub(crate) use crate::log::{Durability, Receipt};

/// Where events are stored. Clones share it.
#[derive(Clone, Debug)]
pub(crate) enum Engine {
    /// The log of this process.
    Embedded(Log),
}

/// Why a submission was not stored, or is not known to be.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// The embedded log says why.
    #[error(transparent)]
    Log(#[from] log::AppendError),
}

/// How the engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It takes events.
    Well,
    /// It takes nothing more; the process is to end.
    Failed,
}

impl Engine {
    /// Stores events and waits for the answer.
    pub(crate) async fn append(&self, drafts: Vec<Draft>, atomic: bool) -> Result<Receipt, AppendError> {
        match self {
            Self::Embedded(log) => Ok(log.append(drafts, atomic).await?),
        }
    }

    /// Reads what is stored.
    pub(crate) fn reader(&self) -> Reader {
        match self {
            Self::Embedded(log) => Reader::Embedded(log.reader()),
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
        }
    }

    /// The word for it in `GET /events/stats`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "embedded",
        }
    }

    /// How it is.
    pub(crate) fn condition(&self) -> Condition {
        match self {
            Self::Embedded(log) if log.fatal().is_some() => Condition::Failed,
            Self::Embedded(_) => Condition::Well,
        }
    }

    /// Waits until it fails for good; forever while it does not.
    pub(crate) async fn failed(&self) -> Fatal {
        match self {
            Self::Embedded(log) => log.failed().await,
        }
    }
}
