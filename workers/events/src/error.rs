//! Errors of the worker, and how they are answered.

use std::borrow::Cow;

use sluice_http::{Reject, ServeError};
use sluice_wire::code::Code;
use sluice_wire::json::JsonError;
use sluice_wire::problem::{Outcome, Problem};

use crate::engine::{AppendError, ReadError};
use crate::keys::KeyError;
use crate::log::{self, Fatal, OpenError};
use crate::redis::{self, ReadTrouble};

/// Why the role ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The log did not open.
    #[error("the event log did not open")]
    Open(#[from] OpenError),
    /// The log is encrypted and nobody can be asked for its key.
    #[error("the event log has no key")]
    Key(#[source] KeyError),
    /// The consumer groups did not open.
    #[error(transparent)]
    Groups(#[from] crate::group::OpenError),
    /// The stream in Redis cannot be used.
    #[error("the event stream in Redis cannot be used")]
    Redis(#[from] redis::OpenError),
    /// The log failed while it was in use; the next start finds out what is on the disk.
    #[error(transparent)]
    Log(Fatal),
    /// The doors could not be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The schemas of event types could not be read.
    #[error("the schemas of event types could not be read")]
    Schemas(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A thread could not be started, or ended unexpectedly.
    #[error("a thread of the event worker could not run")]
    Thread(#[from] std::io::Error),
    /// Opening or closing the log broke off.
    #[error("opening or closing the event log broke off")]
    Join(#[from] tokio::task::JoinError),
}

/// What is wrong with one event: the public part of a problem, before it is known where the event stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Machine word and status.
    pub(crate) code: Code,
    /// Public text.
    pub(crate) detail: String,
    /// The member that is wrong.
    pub(crate) pointer: Option<Cow<'static, str>>,
}

impl Fault {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), pointer: None }
    }

    /// An event that is not one.
    pub(crate) fn event(pointer: &'static str, detail: impl Into<String>) -> Self {
        Self { code: Code::InvalidEvent, detail: detail.into(), pointer: Some(pointer.into()) }
    }

    /// The problem of a call that is about this event alone.
    pub(crate) fn problem(self) -> Problem {
        let problem = Problem::new(self.code).detail(self.detail).outcome(Outcome::NotSent);
        match self.pointer {
            Some(pointer) => problem.pointer(pointer),
            None => problem,
        }
    }
}

impl From<JsonError> for Fault {
    fn from(error: JsonError) -> Self {
        let code = if error.shape { Code::InvalidEvent } else { Code::InvalidJson };
        Self::new(code, error.to_string())
    }
}

impl From<Fault> for Reject {
    fn from(fault: Fault) -> Self {
        fault.problem().into()
    }
}

/// How a failed append is answered. Whether the events are stored is told whenever it is known.
pub(crate) fn append_problem(error: &AppendError) -> Problem {
    match error {
        AppendError::Log(error) => log_problem(error),
        AppendError::Busy => log_problem(&log::AppendError::Busy),
        AppendError::Closed => log_problem(&log::AppendError::Closed),
        AppendError::Away(trouble) => {
            let (detail, outcome) = if trouble.is_not_done() {
                ("Redis takes no events now; nothing of this request was stored", Outcome::NotSent)
            } else {
                let detail = "Redis did not answer while this request was being stored; repeat it with the same event_id";
                (detail, Outcome::Unknown)
            };
            Problem::new(Code::StoreUnavailable).detail(detail).outcome(outcome).retry_after_s(1)
        }
    }
}

fn log_problem(error: &log::AppendError) -> Problem {
    match error {
        log::AppendError::Busy => Problem::new(Code::QueueFull)
            .detail("more events wait to be stored than the queue holds")
            .outcome(Outcome::NotSent)
            .retry_after_s(1),
        log::AppendError::Full => Problem::new(Code::StoreFull)
            .detail("the disk of the event log is full; nothing of this request was stored")
            .outcome(Outcome::NotSent)
            .retry_after_s(30),
        log::AppendError::Unreadable(cause) => {
            report(cause.as_ref());
            Problem::new(Code::Integrity)
                .detail("the event first stored under this event_id cannot be read")
                .outcome(Outcome::NotSent)
        }
        log::AppendError::Failed(_) => Problem::new(Code::WorkerUnavailable)
            .detail(
                "the event log failed while this request was being stored; repeat it with the same event_id",
            )
            .outcome(Outcome::Unknown)
            .retry_after_s(2),
        log::AppendError::Closed => Problem::new(Code::Draining)
            .detail("the event log is closed")
            .outcome(Outcome::NotSent)
            .retry_after_s(2),
    }
}

/// How a failed read is answered; the place of the damage is in the process log, not in the answer.
pub(crate) fn read_problem(error: &ReadError) -> Problem {
    if !matches!(error, ReadError::Redis(_)) {
        report(error);
    }
    match error {
        ReadError::Log(log::ReadError::Corrupt { .. }) => {
            Problem::new(Code::Integrity).detail("stored events in the range asked for are damaged")
        }
        ReadError::Redis(ReadTrouble::NotIndexed) => Problem::new(Code::IdNotIndexed).detail(
            "this event_id is older than the ids that are remembered, and is not among the newest events",
        ),
        ReadError::Redis(ReadTrouble::Redis(_)) => {
            Problem::new(Code::StoreUnavailable).detail("Redis did not answer").retry_after_s(1)
        }
        ReadError::Log(log::ReadError::Read { .. }) => {
            Problem::new(Code::Internal).detail("stored events could not be read")
        }
    }
}

pub(crate) fn report(error: &(dyn std::error::Error + 'static)) {
    tracing::error!(component = "log", error, "stored events cannot be read");
}
