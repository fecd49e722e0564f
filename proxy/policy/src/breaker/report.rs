//! What a breaker says about itself: states, outcomes, reasons, figures.

use crate::time::Nanos;

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Lets everything through and watches.
    Closed,
    /// Lets nothing through.
    Open,
    /// Lets a few probes through.
    HalfOpen,
    /// Lets nothing through until an operator says so.
    ForcedOpen,
    /// Lets everything through and never trips.
    ForcedClosed,
    /// Lets everything through and counts nothing.
    Disabled,
}

/// What an operator can force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// To [`State::ForcedOpen`].
    Open,
    /// To [`State::ForcedClosed`].
    Closed,
    /// To [`State::Disabled`].
    Disabled,
}

/// How a call ended, for the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The service works.
    Success,
    /// The service does not.
    Failure,
    /// Says nothing about the service.
    Neutral,
}

/// Why a breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Failures in a row.
    Consecutive,
    /// Share of failures.
    FailureRate,
    /// Share of slow calls.
    SlowRate,
    /// The open time is over.
    RecoveryDue,
    /// A probe failed or was slow.
    ProbeFailed,
    /// Enough probes succeeded.
    Recovered,
    /// An operator reset it.
    Reset,
    /// An operator forced it.
    Forced,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The old state.
    pub from: State,
    /// The new one.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// When.
    pub at: Nanos,
}

/// What an operator reads about a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metrics {
    /// Where it stands.
    pub state: State,
    /// Calls let through since the start.
    pub requests: u64,
    /// Successes since the start.
    pub successes: u64,
    /// Failures since the start.
    pub failures: u64,
    /// Calls that counted neither way.
    pub neutral: u64,
    /// Calls rejected since the start.
    pub rejected: u64,
    /// Results of an older generation or an ended lease.
    pub late: u64,
    /// Changes of state since the start.
    pub transitions: u64,
    /// Failures in a row now.
    pub consecutive_failures: u32,
    /// Counted calls in the window.
    pub window_calls: u64,
    /// Failures in the window.
    pub window_failures: u64,
    /// Slow calls in the window.
    pub window_slow: u64,
    /// Probes under way.
    pub probes: u32,
    /// When it last opened; `None` while closed or forced closed.
    pub opened_at: Option<Nanos>,
    /// When it will let a probe through; `None` unless open.
    pub retry_at: Option<Nanos>,
}

impl Outcome {
    /// What an upstream's status says about the service.
    pub const fn of_status(status: u16) -> Self {
        match status {
            100..=399 => Self::Success,
            502..=504 => Self::Failure,
            _ => Self::Neutral,
        }
    }
}

impl State {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Disabled => "disabled",
        }
    }

    /// Value of `circuit_breaker_state`: 0 lets through, 1 does not, 2 probes.
    pub const fn gauge(self) -> u8 {
        match self {
            Self::Closed | Self::ForcedClosed | Self::Disabled => 0,
            Self::Open | Self::ForcedOpen => 1,
            Self::HalfOpen => 2,
        }
    }
}

impl Reason {
    /// The word in logs and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::RecoveryDue => "recovery_due",
            Self::ProbeFailed => "probe_failed",
            Self::Recovered => "recovered",
            Self::Reset => "reset",
            Self::Forced => "forced",
        }
    }
}
