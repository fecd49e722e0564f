//! Whether a failed attempt is made again.
//!
//! Purpose: hide a lost connection or a restarting instance, never an order sent twice, never a storm.
//!
//! Exact conditions, all of which must hold:
//! 1. fewer than `attempts` tries were made, and the cause is one of `on`;
//! 2. it is safe: no byte of the request was sent (any method), or the method is GET, HEAD, OPTIONS or
//!    LIST and its body can be sent again. A POST, PATCH, PUT or DELETE of which a byte was sent is
//!    never repeated, with one exception: under an idempotency key that the route honours, while its body
//!    is at hand and its last byte has not left. Half an order is no order; a whole one may be executed
//!    already, and not every upstream knows the key;
//! 3. the delay, and a `Retry-After` of the upstream where that is longer, leaves [`USEFUL_MIN`];
//! 4. the budget of the service has room: retries in the last 10 s stay at or below `budget` × its
//!    requests there plus `min_per_second` × 10.
//!
//! The first condition that fails is the reason given; the budget is charged last, so a refused retry
//! costs nothing. The shell never asks while the breaker is open, and picks another instance
//! ([`crate::balance`], told which were tried).
//!
//! Delay: full jitter, uniform from 25 ms to 25 ms × 2ⁿ for the nth retry, at most 250 ms.
//! Cost: O(1), no allocation. The budget is one small state behind the shell's mutex a service.

use std::time::Duration;

use sluice_schema::RetryCause;

use crate::deadline::USEFUL_MIN;
use crate::method::Method;
use crate::random::between;
use crate::time::Nanos;
use crate::window::Window;

/// Shortest delay before a retry.
pub const BACKOFF_MIN: Duration = Duration::from_millis(25);
/// Longest delay of our own choice before a retry.
pub const BACKOFF_MAX: Duration = Duration::from_millis(250);
/// The span of the budget.
pub const WINDOW: Duration = Duration::from_secs(10);

/// A failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The request's method.
    pub method: Method,
    /// Tries made, this one counted: at least 1.
    pub tries: u32,
    /// How it failed.
    pub cause: RetryCause,
    /// Whether any byte of the request may have reached the upstream.
    pub sent: bool,
    /// Whether it has a key that the route honours, and its last byte has not left.
    pub keyed_part: bool,
    /// Whether the whole body is still at hand (or there is none).
    pub replayable: bool,
    /// Time the request has left; `None` without a deadline.
    pub left: Option<Duration>,
    /// The upstream's `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after this delay.
    Again(Duration),
    /// Answer with the failure.
    Stop(Stop),
}

/// Why there is no other try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// All tries are made.
    Exhausted,
    /// This cause is not to be retried.
    NotConfigured,
    /// It might be executed twice.
    Unsafe,
    /// Its body is gone.
    BodyGone,
    /// Too little time is left.
    Deadline,
    /// The service's retries are used up for now.
    Budget,
}

/// The retries of one service: its settings and its budget.
#[derive(Debug)]
pub struct Budget {
    settings: sluice_schema::Retry,
    /// Requests, retries.
    window: Window<2>,
}

impl Budget {
    /// A budget nothing was counted in yet.
    pub fn new(settings: &sluice_schema::Retry) -> Self {
        Self { settings: settings.clone(), window: Window::new(WINDOW) }
    }

    /// Takes new settings; what was counted stays.
    pub fn configure(&mut self, settings: &sluice_schema::Retry) {
        self.settings.clone_from(settings);
    }

    /// Counts a request (not its retries).
    pub fn request(&mut self, now: Nanos) {
        self.window.add(now, [1, 0]);
    }

    /// Decides about a failed attempt and, where it is made again, charges the budget.
    pub fn decide(&mut self, failed: &Failed, now: Nanos, seed: u64) -> Verdict {
        match check(&self.settings, failed, seed) {
            Ok(_) if !self.try_retry(now) => Verdict::Stop(Stop::Budget),
            Ok(delay) => Verdict::Again(delay),
            Err(stop) => Verdict::Stop(stop),
        }
    }

    /// Tries in all that a request may have.
    pub(crate) fn attempts(&self) -> u32 {
        self.settings.attempts
    }

    /// Charges one retry; false where there is no room. [`Budget::decide`] does this itself.
    pub fn try_retry(&mut self, now: Nanos) -> bool {
        let [requests, retries] = self.window.totals(now);
        let floor = u64::from(self.settings.min_per_second) * WINDOW.as_secs();
        let room = (self.settings.budget * requests as f64) as u64 + floor;
        let charged = retries < room;
        self.window.add(now, [0, u64::from(charged)]);
        charged
    }
}

impl Stop {
    /// A fixed word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::NotConfigured => "not_configured",
            Self::Unsafe => "unsafe",
            Self::BodyGone => "body_gone",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
        }
    }
}

/// Whether a request may be sent again without the danger of a second execution.
pub const fn is_repeatable(method: Method, sent: bool) -> bool {
    !sent || method.is_safe()
}

/// The delay before the nth retry, n being the tries made so far.
pub fn backoff(tries: u32, seed: u64) -> Duration {
    let ceiling = BACKOFF_MIN.saturating_mul(1 << tries.min(16)).min(BACKOFF_MAX);
    between(BACKOFF_MIN, ceiling, seed)
}

fn check(settings: &sluice_schema::Retry, failed: &Failed, seed: u64) -> Result<Duration, Stop> {
    if failed.tries >= settings.attempts {
        return Err(Stop::Exhausted);
    }
    if !settings.on.contains(&failed.cause) {
        return Err(Stop::NotConfigured);
    }
    if !is_repeatable(failed.method, failed.sent) && !failed.keyed_part {
        return Err(Stop::Unsafe);
    }
    if failed.sent && !failed.replayable {
        return Err(Stop::BodyGone);
    }
    let delay = backoff(failed.tries, seed).max(failed.retry_after.unwrap_or_default());
    match failed.left {
        Some(left) if left < delay.saturating_add(USEFUL_MIN) => Err(Stop::Deadline),
        _ => Ok(delay),
    }
}

#[cfg(test)]
mod tests;
