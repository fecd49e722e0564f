//! Why a call about a group fails.

use std::sync::Arc;

use sluice_http::Reject;
use sluice_wire::code::Code;
use sluice_wire::problem::{Outcome, Problem};

use crate::engine::ReadError;
use crate::error::report;
use crate::log::AppendError;
use crate::redis::Trouble;

/// Why a call about a group fails.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum GroupError {
    /// There is no such group.
    #[error("there is no consumer group of this name")]
    Unknown,
    /// The group may hand out events that the caller may not read.
    #[error("this group hands out events of types that the caller may not read")]
    NotReadable,
    /// A bound is reached; says which.
    #[error("{0}")]
    Limit(String),
    /// More calls wait than the queue holds, or more messages are under way than a group may have.
    #[error("{0}")]
    Busy(&'static str),
    /// The disk is full.
    #[error("the disk is full; nothing of this request was stored")]
    Full,
    /// What became of the call is not known.
    #[error("what is kept of the groups could not be written")]
    Failed,
    /// The worker is ending.
    #[error("the worker is ending")]
    Closed,
    /// Redis did not do its part.
    #[error("what is kept of the groups is in Redis: {0}")]
    Away(#[from] Trouble),
    /// Events could not be read.
    #[error("stored events could not be read")]
    Read(#[source] Arc<ReadError>),
}

impl From<ReadError> for GroupError {
    fn from(error: ReadError) -> Self {
        Self::Read(Arc::new(error))
    }
}

impl From<AppendError> for GroupError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Busy => Self::Busy("more calls about groups wait than the queue holds"),
            AppendError::Full => Self::Full,
            AppendError::Closed => Self::Closed,
            AppendError::Failed(_) | AppendError::Unreadable(_) => Self::Failed,
        }
    }
}

impl From<GroupError> for Reject {
    fn from(error: GroupError) -> Self {
        let text = error.to_string();
        let problem = match &error {
            GroupError::Unknown => Problem::new(Code::NotFound),
            GroupError::NotReadable => Problem::new(Code::InsufficientScope),
            GroupError::Limit(_) => Problem::new(Code::Unprocessable),
            GroupError::Busy(_) => Problem::new(Code::QueueFull).outcome(Outcome::NotSent).retry_after_s(1),
            GroupError::Full => Problem::new(Code::StoreFull).outcome(Outcome::NotSent).retry_after_s(30),
            GroupError::Failed => {
                Problem::new(Code::WorkerUnavailable).outcome(Outcome::Unknown).retry_after_s(2)
            }
            GroupError::Away(trouble) => {
                let outcome = if trouble.is_not_done() { Outcome::NotSent } else { Outcome::Unknown };
                Problem::new(Code::StoreUnavailable).outcome(outcome).retry_after_s(1)
            }
            GroupError::Closed => Problem::new(Code::Draining).outcome(Outcome::NotSent).retry_after_s(2),
            GroupError::Read(cause) if cause.passes() => {
                Problem::new(Code::StoreUnavailable).retry_after_s(1)
            }
            GroupError::Read(cause) => {
                report(&**cause);
                Problem::new(Code::Integrity)
            }
        };
        problem.detail(text).into()
    }
}
