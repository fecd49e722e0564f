//! What is said of a request that has come to its end: to its client, to the gate it passed, to the breaker of its
//! service.
//!
//! Purpose: each hears the truth once, and nobody is blamed for what another did.
//!
//! Exact conditions:
//! - The client of a method with effects is told `unknown` where a byte of the present try or a part of an earlier
//!   one may have reached an instance, and `not_sent` where none did. Other methods may simply be repeated.
//! - A failure counts against the upstream where the upstream is to blame for it. A refusal of the edge between two
//!   tries is nobody's fault, but what the try before it came to still counts ([`Failure::refused`]).
//! - The breaker hears of a failure that counts, else of the status, where one came and nothing failed after it.
//!   Whatever else ended it (its client left, it was refused first) counts neither way: the leave goes back unused.
//! - The gate hears the same, but for streams, whose length says nothing, and with the time that the upstream worked,
//!   from which that is taken which the client needed to send its body ([`worked`]).
//!
//! Cost: O(1), no allocation.

use std::time::Duration;

use sluice_wire::code::Code;
use sluice_wire::problem::Outcome;

use crate::breaker;
use crate::concurrency::Ended;
use crate::method::Method;

/// Why no answer came from the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code of the answer.
    pub code: Code,
    /// Whether the upstream is to blame, for its breaker.
    pub counts: bool,
}

/// What may have reached an instance of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// A byte of the present try.
    pub present: bool,
    /// A part of an earlier one.
    pub parted: bool,
}

/// How a request ended at its upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// What failed last, where nothing came after it.
    pub failure: Option<Failure>,
    /// The status of the last answer.
    pub status: Option<u16>,
    /// Whether the answer goes on without end.
    pub streams: bool,
    /// How long the upstream worked until the head of its answer, where that is known.
    pub worked: Option<Duration>,
}

impl Failure {
    /// The edge makes no other try after the one before failed, or makes none at all.
    #[must_use]
    pub fn refused(before: Option<Self>, code: Code) -> Self {
        Self { code, counts: before.is_some_and(|failure| failure.counts) }
    }
}

impl Sent {
    /// Nothing of it.
    pub const NOTHING: Self = Self { present: false, parted: false };

    /// Whether an instance may have acted on it.
    pub const fn may_have_acted(self) -> bool {
        self.present || self.parted
    }
}

/// What the client is told beside a failure: whether the upstream may have acted. `None` for methods that may be
/// repeated as they are.
pub const fn outcome(method: Method, sent: Sent) -> Option<Outcome> {
    match (method.is_idempotent(), sent.may_have_acted()) {
        (true, _) => None,
        (false, true) => Some(Outcome::Unknown),
        (false, false) => Some(Outcome::NotSent),
    }
}

/// How long an upstream worked whose head came `took` after its try began and `received` after the last byte of the
/// request's body was there; `None` where a body is not whole yet.
pub fn worked(has_body: bool, took: Duration, received: Option<Duration>) -> Option<Duration> {
    if has_body { received.map(|received| received.min(took)) } else { Some(took) }
}

impl Ending {
    fn is_blamed(&self) -> bool {
        self.failure.is_some_and(|failure| failure.counts)
    }

    /// What the gate hears.
    pub fn for_gate(&self) -> Ended {
        match (self.failure, self.status) {
            _ if self.is_blamed() => Ended::Failed,
            _ if self.streams => Ended::Unknown,
            (None, Some(502..=504)) => Ended::Failed,
            (None, Some(200..=399)) => self.worked.map_or(Ended::Unknown, Ended::Answered),
            _ => Ended::Unknown,
        }
    }

    /// What the breaker hears; `None`: its leave goes back unused.
    pub fn for_breaker(&self) -> Option<breaker::Outcome> {
        match (self.failure, self.status) {
            _ if self.is_blamed() => Some(breaker::Outcome::Failure),
            (None, Some(status)) => Some(breaker::Outcome::of_status(status)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
