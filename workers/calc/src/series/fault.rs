//! Why stored series cannot be read or written.

use std::io;
use std::path::PathBuf;

use sluice_http::Reject;
use sluice_wire::code::Code;
use sluice_wire::problem::{Outcome, Problem};

/// A change that was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// As many changes wait as may.
    #[error("too many changes of series wait")]
    Busy,
    /// The disk is full; nothing was written.
    #[error("the disk of the stored series is full")]
    DiskFull,
    /// More series or bytes than the limits allow.
    #[error("{0}")]
    Limit(String),
    /// The disk failed, now or before; whether this change is kept shows the next start.
    #[error(
        "the stored series cannot be written: {0}; the log has the cause, and a restart reads what is on the disk"
    )]
    Failed(String),
    /// The worker ends; nothing was written.
    #[error("the worker ends")]
    Closed,
}

impl From<Fault> for Reject {
    fn from(fault: Fault) -> Self {
        let text = fault.to_string();
        let problem = match fault {
            Fault::Busy => Problem::new(Code::QueueFull).outcome(Outcome::NotSent).retry_after_s(1),
            Fault::DiskFull => {
                Problem::new(Code::StoreUnavailable).outcome(Outcome::NotSent).retry_after_s(10)
            }
            Fault::Limit(_) => Problem::new(Code::StoreFull).outcome(Outcome::NotSent),
            Fault::Failed(_) => {
                Problem::new(Code::StoreUnavailable).outcome(Outcome::Unknown).retry_after_s(10)
            }
            Fault::Closed => Problem::new(Code::StoreUnavailable).outcome(Outcome::NotSent).retry_after_s(1),
        };
        problem.detail(text).into()
    }
}

/// The stored series cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has them.
    #[error("another process writes the stored series in {}", .0.display())]
    Locked(PathBuf),
    /// The disk refused.
    #[error("the stored series in {} cannot be opened", .0.display())]
    Io(PathBuf, #[source] io::Error),
}
