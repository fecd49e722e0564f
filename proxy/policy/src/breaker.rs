//! The circuit breaker of a service.
//!
//! Purpose: stop sending to a service that fails, so that callers get an answer at once and the
//! service gets air; find out by a few probes when it is back; need nobody for that. Single bad
//! instances are the business of [`crate::outlier`].
//!
//! Exact conditions. A call counts as a failure on connect error, reset, timeout and upstream 502,
//! 503, 504; as a success on 1xx to 3xx; anything else (4xx, 500, client aborts, shed and limited
//! requests) counts neither way. While closed it opens when
//! 1. `failure_threshold` failures came in a row (a success ends the row, a neutral call does not), or
//! 2. at least `min_calls` counted calls lie in the window and `failure_rate` of them failed, or
//! 3. likewise, and `slow_rate` of them took `slow_call` or longer.
//!
//! Where several hold, the first in this list is the reason given. They are looked at when a call ends that counts,
//! so a threshold that is set below a row that is there already opens with the next failure.
//!
//! Recovery: open lasts `recovery_timeout`, doubled for each failed recovery in a row up to five
//! minutes (or `recovery_timeout`, where that is longer), moved by ±10 % so that many edges do not
//! probe in step. The first request after it turns the breaker half open and is the first probe. At
//! most `half_open_max` probes run at once; `success_threshold` successes close the breaker, one
//! failure, or one slow success, opens it again. A probe holds a lease: when neither a result nor a
//! cancel comes back within `probe_lease` the place is free again and a later result counts nowhere.
//!
//! Late results: every change of state starts a new generation; a permit of an older one changes no
//! state, whatever its outcome. It is still counted in the totals.
//!
//! Forced states: `forced_open` refuses everything, `forced_closed` lets everything through and never
//! trips, `disabled` does the same and counts nothing. They last until the next force or reset.
//!
//! Cold start: closed, empty window; a rate needs `min_calls`, so nothing trips on the first few calls
//! but a row of failures. New settings keep state, totals and times; the window starts anew only where
//! its length changed.
//!
//! Limits: `half_open_max` leases. Cost: O(1) a call, at most ten buckets to clear after a pause; no
//! allocation but the list of leases when it opens for the first time. The shell keeps one breaker
//! behind one mutex a service.

mod report;

use std::time::Duration;

pub use report::{Force, Metrics, Outcome, Reason, State, Transition};

use crate::random::{between, jitter};
use crate::time::Nanos;
use crate::window::Window;

/// An open breaker never stays so for longer, but where `recovery_timeout` itself is longer.
pub const OPEN_MAX: Duration = Duration::from_secs(300);
/// Share by which an open time is moved, in percent.
pub const JITTER_PERCENT: u32 = 10;
/// A caller rejected for want of a free probe comes back after this to twice this, at random.
const PROBE_RETRY: Duration = Duration::from_secs(1);

/// When it trips and how it recovers.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The service's keys.
    pub conf: sluice_schema::Breaker,
    /// How long a probe keeps its place; above the longest request.
    pub probe_lease: Duration,
}

/// Leave for one call; give it back by [`Breaker::record`] or [`Breaker::cancel`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not given back keeps its probe's place until the lease ends"]
pub struct Permit {
    generation: u64,
    probe: Option<u64>,
}

/// The call may not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Where the breaker stands.
    pub state: State,
    /// When a repeat makes sense.
    pub retry_after: Duration,
}

/// An open breaker on its way to another process, whose clock differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Since it opened.
    pub ago: Duration,
    /// Until a probe is let through; zero where probes already are.
    pub retry_in: Duration,
    /// Failed recoveries in a row.
    pub reopened: u32,
}

/// The breaker of one service.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    state: State,
    generation: u64,
    /// Counted calls, failures, slow calls.
    window: Window<3>,
    consecutive: u32,
    opened_at: Nanos,
    retry_at: Nanos,
    reopened: u32,
    probed_well: u32,
    leases: Vec<Lease>,
    next_lease: u64,
    totals: Totals,
    pending: Option<Transition>,
}

#[derive(Debug)]
struct Lease {
    id: u64,
    expires: Nanos,
}

#[derive(Debug, Default)]
struct Totals {
    requests: u64,
    successes: u64,
    failures: u64,
    neutral: u64,
    rejected: u64,
    late: u64,
    transitions: u64,
}

impl Settings {
    /// The settings of a service: a probe's lease outlasts the service's longest request by 5 s.
    pub fn of_service(service: &sluice_schema::Service) -> Self {
        let probe_lease = service.timeouts.total.saturating_add(Duration::from_secs(5));
        Self { conf: service.breaker.clone(), probe_lease }
    }
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: Settings) -> Self {
        Self {
            state: State::Closed,
            generation: 0,
            window: Window::new(settings.conf.window),
            consecutive: 0,
            opened_at: Nanos::ZERO,
            retry_at: Nanos::ZERO,
            reopened: 0,
            probed_well: 0,
            leases: Vec::new(),
            next_lease: 0,
            totals: Totals::default(),
            pending: None,
            settings,
        }
    }

    /// Asks leave for one call.
    ///
    /// # Errors
    /// [`Rejected`] while open, forced open, or half open with every probe taken.
    pub fn try_acquire(&mut self, now: Nanos, seed: u64) -> Result<Permit, Rejected> {
        if self.state == State::Open && now >= self.retry_at {
            self.enter(State::HalfOpen, Reason::RecoveryDue, now);
        }
        let granted = match self.state {
            State::Closed | State::ForcedClosed | State::Disabled => Ok(None),
            State::HalfOpen => self.lease(now, seed).map(Some),
            State::Open => Err(self.retry_at.since(now)),
            State::ForcedOpen => Err(self.settings.conf.recovery_timeout),
        };
        match granted {
            Ok(probe) => {
                self.totals.requests += u64::from(self.state != State::Disabled);
                Ok(Permit { generation: self.generation, probe })
            }
            Err(retry_after) => {
                self.totals.rejected += 1;
                Err(Rejected { state: self.state, retry_after })
            }
        }
    }

    /// Whether the call that has this permit may still be sent: what it was given while closed is no leave to
    /// knock at a breaker that has opened since, nor a probe's place. Ask before every try.
    pub fn stands(&self, permit: &Permit, now: Nanos) -> bool {
        match self.state {
            State::Closed | State::ForcedClosed | State::Disabled => true,
            State::Open | State::ForcedOpen => false,
            State::HalfOpen => {
                let live = |lease: &Lease| Some(lease.id) == permit.probe && lease.expires > now;
                permit.generation == self.generation && self.leases.iter().any(live)
            }
        }
    }

    /// Gives a permit back with the call's outcome and its latency to the first byte.
    pub fn record(&mut self, permit: Permit, outcome: Outcome, latency: Duration, now: Nanos, seed: u64) {
        if self.state != State::Disabled {
            self.totals.count(outcome);
        }
        if !self.holds(&permit, now) {
            self.totals.late += 1;
            return;
        }
        let slow = latency >= self.settings.conf.slow_call;
        match (self.state, outcome) {
            (State::Closed, Outcome::Success | Outcome::Failure) => self.watch(outcome, slow, now, seed),
            (State::HalfOpen, Outcome::Success) if !slow => self.probe_succeeded(now),
            (State::HalfOpen, Outcome::Success | Outcome::Failure) => {
                self.reopened = self.reopened.saturating_add(1);
                self.open(Reason::ProbeFailed, now, seed);
            }
            _ => {}
        }
    }

    /// Gives a permit back unused: the client went away, or the request ended before it was sent.
    pub fn cancel(&mut self, permit: Permit, now: Nanos) {
        self.record(permit, Outcome::Neutral, Duration::ZERO, now, 0);
    }

    /// Closes it and forgets window, row and doubled times. Totals stay.
    pub fn reset(&mut self, now: Nanos) {
        self.reopened = 0;
        self.enter(State::Closed, Reason::Reset, now);
    }

    /// Holds it in a state until the next force or reset.
    pub fn force(&mut self, force: Force, now: Nanos) {
        let to = match force {
            Force::Open => State::ForcedOpen,
            Force::Closed => State::ForcedClosed,
            Force::Disabled => State::Disabled,
        };
        if to == State::ForcedOpen {
            self.opened_at = now;
        }
        self.enter(to, Reason::Forced, now);
    }

    /// What another process must know to keep it open; `None` while it is not, or is forced.
    pub fn opened(&self, now: Nanos) -> Option<Opened> {
        let retry_in = match self.state {
            State::Open => self.retry_at.since(now),
            State::HalfOpen => Duration::ZERO,
            State::Closed | State::ForcedOpen | State::ForcedClosed | State::Disabled => return None,
        };
        Some(Opened { ago: now.since(self.opened_at), retry_in, reopened: self.reopened })
    }

    /// Opens a closed breaker as another process had it, for no longer than it could have been. No transition:
    /// it was told of when it happened.
    pub fn reopen(&mut self, opened: &Opened, now: Nanos) {
        if self.state != State::Closed {
            return;
        }
        let longest = self.settings.conf.recovery_timeout.max(OPEN_MAX);
        let longest = longest.saturating_add(longest / 100 * JITTER_PERCENT);
        let ago = u64::try_from(opened.ago.as_nanos()).unwrap_or(u64::MAX);
        self.enter(State::Open, Reason::Consecutive, now);
        (self.pending, self.totals.transitions) = (None, self.totals.transitions - 1);
        self.opened_at = Nanos(now.0.saturating_sub(ago));
        self.retry_at = now.plus(opened.retry_in.min(longest));
        self.reopened = opened.reopened;
    }

    /// Takes new settings. State, totals and times stay.
    pub fn configure(&mut self, settings: Settings) {
        if settings.conf.window != self.settings.conf.window {
            self.window = Window::new(settings.conf.window);
        }
        self.settings = settings;
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where it stands. Open stays `open` past its time until a request asks for leave.
    pub fn state(&self) -> State {
        self.state
    }

    /// The last change of state nobody has taken yet. Ask after each call; `transitions` in
    /// [`Metrics`] counts those that were missed too.
    pub fn take_transition(&mut self) -> Option<Transition> {
        self.pending.take()
    }

    /// Everything an operator reads, at one moment.
    pub fn metrics(&self, now: Nanos) -> Metrics {
        let [window_calls, window_failures, window_slow] = self.window.totals(now);
        let is_open = matches!(self.state, State::Open | State::HalfOpen | State::ForcedOpen);
        Metrics {
            state: self.state,
            requests: self.totals.requests,
            successes: self.totals.successes,
            failures: self.totals.failures,
            neutral: self.totals.neutral,
            rejected: self.totals.rejected,
            late: self.totals.late,
            transitions: self.totals.transitions,
            consecutive_failures: self.consecutive,
            window_calls,
            window_failures,
            window_slow,
            probes: self.leases.iter().filter(|lease| lease.expires > now).count() as u32,
            opened_at: is_open.then_some(self.opened_at),
            retry_at: (self.state == State::Open).then_some(self.retry_at),
        }
    }

    fn watch(&mut self, outcome: Outcome, slow: bool, now: Nanos, seed: u64) {
        let failed = outcome == Outcome::Failure;
        self.consecutive = if failed { self.consecutive.saturating_add(1) } else { 0 };
        let [calls, failures, slow] = self.window.add(now, [1, u64::from(failed), u64::from(slow)]);
        let conf = &self.settings.conf;
        let reached = |count: u64, rate: f64| count > 0 && count as f64 >= rate * calls as f64;
        let enough = calls >= u64::from(conf.min_calls);
        if self.consecutive >= conf.failure_threshold.max(1) {
            self.open(Reason::Consecutive, now, seed);
        } else if enough && reached(failures, conf.failure_rate) {
            self.open(Reason::FailureRate, now, seed);
        } else if enough && reached(slow, conf.slow_rate) {
            self.open(Reason::SlowRate, now, seed);
        }
    }

    fn probe_succeeded(&mut self, now: Nanos) {
        self.probed_well += 1;
        if self.probed_well >= self.settings.conf.success_threshold {
            self.reopened = 0;
            self.enter(State::Closed, Reason::Recovered, now);
        }
    }

    fn open(&mut self, reason: Reason, now: Nanos, seed: u64) {
        let base = self.settings.conf.recovery_timeout;
        let doubled = base.saturating_mul(1 << self.reopened.min(16));
        let time = jitter(doubled.min(base.max(OPEN_MAX)), JITTER_PERCENT, seed);
        self.opened_at = now;
        self.retry_at = now.plus(time);
        self.enter(State::Open, reason, now);
    }

    fn enter(&mut self, to: State, reason: Reason, now: Nanos) {
        let from = std::mem::replace(&mut self.state, to);
        self.generation += 1;
        self.probed_well = 0;
        self.consecutive = 0;
        self.leases.clear();
        self.window.clear();
        if from != to {
            self.totals.transitions += 1;
            self.pending = Some(Transition { from, to, reason, at: now });
        }
    }

    /// Takes a probe's place, or says when one may be free.
    fn lease(&mut self, now: Nanos, seed: u64) -> Result<u64, Duration> {
        self.leases.retain(|lease| lease.expires > now);
        if self.leases.len() >= self.settings.conf.half_open_max.max(1) as usize {
            return Err(between(PROBE_RETRY, PROBE_RETRY * 2, seed));
        }
        self.next_lease += 1;
        self.leases.push(Lease { id: self.next_lease, expires: now.plus(self.settings.probe_lease) });
        Ok(self.next_lease)
    }

    /// Whether the permit is of this generation and, for a probe, its lease still runs; ends the lease.
    fn holds(&mut self, permit: &Permit, now: Nanos) -> bool {
        if permit.generation != self.generation {
            return false;
        }
        let Some(id) = permit.probe else { return true };
        let place = self.leases.iter().position(|lease| lease.id == id && lease.expires > now);
        place.map(|place| self.leases.swap_remove(place)).is_some()
    }
}

impl Totals {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Success => self.successes += 1,
            Outcome::Failure => self.failures += 1,
            Outcome::Neutral => self.neutral += 1,
        }
    }
}

impl Permit {
    /// Whether the call is a probe of a half-open breaker.
    pub const fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    /// The generation it belongs to.
    pub const fn generation(&self) -> u64 {
        self.generation
    }
}

#[cfg(test)]
mod tests;
