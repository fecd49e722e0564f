//! What is kept of a job.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::pace::Progress;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Waits for a thread.
    Queued,
    /// Is computed.
    Running,
    /// Has a result.
    Done,
    /// Has none, for a reason.
    Failed,
    /// Was ended by a client.
    Cancelled,
}

impl Status {
    /// All of them, in their order.
    pub(crate) const ALL: [Self; 5] =
        [Self::Queued, Self::Running, Self::Done, Self::Failed, Self::Cancelled];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// Whether findings are published as events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outbox {
    /// Not yet, or not all.
    Waits,
    /// All of them.
    Published,
    /// The event worker refused some; they are in the log.
    Refused,
}

/// Why a job has no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// A machine word.
    pub(crate) code: String,
    /// A text for people.
    pub(crate) detail: String,
}

impl Failure {
    pub(crate) fn new(code: &str, detail: String) -> Self {
        Self { code: code.to_owned(), detail }
    }
}

/// Code of a job that a start of the worker cut off.
pub(crate) const RESTARTED: &str = "restarted";

/// A job, as it is listed and as the first line of its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) job: String,
    pub(crate) kind: String,
    pub(crate) status: Status,
    /// Who asked for it.
    pub(crate) owner: String,
    pub(crate) strategy: String,
    pub(crate) rows: usize,
    /// Combinations of one pass.
    pub(crate) combinations: u64,
    /// Combinations to be tried in all.
    pub(crate) total: u64,
    /// Those that were.
    pub(crate) done: u64,
    pub(crate) combinations_per_s: f64,
    pub(crate) seed: u64,
    /// Unix milliseconds.
    pub(crate) created: i64,
    pub(crate) finished: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Failure>,
    /// The event that asked for it; none for jobs that came by a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<String>,
    /// What becomes of its findings as events; none for jobs that publish nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outbox: Option<Outbox>,
}

impl Record {
    /// It has ended.
    pub(crate) fn end(&mut self, status: Status, error: Option<Failure>) {
        self.status = status;
        self.finished = Some(now_ms());
        self.error = error;
    }

    /// It has ended, having come so far.
    pub(super) fn conclude(&mut self, status: Status, error: Option<Failure>, progress: &Progress) {
        // A genetic algorithm may end before its last generation.
        self.done = if status == Status::Done { self.total } else { progress.done };
        self.combinations_per_s = progress.per_s;
        self.end(status, error);
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.status = Status::Failed;
        self.error = Some(failure);
    }

    /// The share that is done, in percent.
    pub(crate) fn percent(&self, done: u64) -> f64 {
        if self.status == Status::Done || self.total == 0 {
            return 100.0;
        }
        (done as f64 / self.total as f64 * 1e4).floor().min(1e4) / 100.0
    }
}

/// Now, unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
