//! When a reader's silent first try gets a second one beside it, and which of the two is the answer.
//!
//! Purpose: cut the tail of reads whose instance pauses, at the price of few more requests, never of a storm.
//!
//! Exact conditions, all of which must hold:
//! 1. the method is GET or HEAD, there is no body, no stream without end is asked for, and callers of the service
//!    are not bound to instances;
//! 2. it is the first try, and no head of an answer came within the time of [`watch`];
//! 3. `retry.attempts` allows another try, the breaker is closed (a probe is one try), at least [`USEFUL_MIN`] is
//!    left until the first byte is due, and there is an instance that was not tried;
//! 4. the service's budget of retries has room; the second try takes it.
//!
//! The first head below 500 is the answer, an interim one too; the other try is given up and counts neither way
//! ([`Race`]). A try that fails, or whose head is a 5xx, is over while the other one is waited for; the last to fail
//! is the outcome, so that a hedge never makes an answer worse than it would have been. There is no third one.
//!
//! `p95` comes from the times to a head of first tries alone ([`Latencies`]), in buckets a quarter apart, so it is at
//! most a quarter too long and never too short. A first try that was overtaken counts with the time it has had:
//! without it the slow ones would vanish from the figure, which would fall and hedge ever more. What is older than
//! [`HALF_LIFE`] answers counts half. Below [`ENOUGH`] answers nobody knows what is slow, and where more than one in
//! twenty takes longer than three seconds nothing is usual.
//! Cost: O(1) to record, 64 additions to ask; 260 B a service.

use std::time::Duration;

use sluice_schema::Hedge;

use crate::breaker::State;
use crate::deadline::USEFUL_MIN;
use crate::method::Method;
use crate::retry::Budget;
use crate::time::Nanos;

/// Answers before a share of them says anything.
pub const ENOUGH: u32 = 50;
/// Answers after which those before count half.
pub const HALF_LIFE: u32 = 1_000;
/// What is usual for a service is taken for at least this: a second try costs about as much.
pub const USUAL_MIN: Duration = Duration::from_millis(5);
/// The upper bound of the first bucket, µs.
const LEAST_US: u64 = 64;
/// Four for each doubling, from 64 µs to 3 s, and one for all beyond.
const BUCKETS: usize = 64;
/// The upper bounds of all buckets but the last, µs.
static BOUNDS_US: [u64; BUCKETS - 1] = {
    let mut bounds = [0; BUCKETS - 1];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = (LEAST_US << (at / 4)) * (4 + at as u64 % 4) / 4;
        at += 1;
    }
    bounds
};

/// A request before its try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its method.
    pub method: Method,
    /// Whether it has a body.
    pub has_body: bool,
    /// Whether it asks for what goes on for long.
    pub wants_stream: bool,
    /// Whether its caller is bound to an instance.
    pub is_bound: bool,
    /// Tries made, the one that begins counted.
    pub tries: u32,
}

/// How its try is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Not at all.
    Not,
    /// The time to its head is noted.
    Measured,
    /// A second one is made after this time of silence.
    After(Duration),
}

/// Says how a try is watched. `usual` is the service's [`Latencies::p95`].
pub fn watch(hedge: Hedge, ask: &Ask, usual: impl FnOnce() -> Option<Duration>) -> Watch {
    let reads = matches!(ask.method, Method::Get | Method::Head);
    if !reads || ask.has_body || ask.wants_stream || ask.is_bound || ask.tries != 1 {
        return Watch::Not;
    }
    match hedge {
        Hedge::Off => Watch::Not,
        Hedge::After(time) => Watch::After(time),
        Hedge::P95 => usual().map_or(Watch::Measured, |usual| Watch::After(usual.max(USUAL_MIN))),
    }
}

/// Whether a value of `Accept` asks for what goes on for long.
pub fn wants_stream(accept: &[u8]) -> bool {
    let names = |kind: &[u8]| accept.windows(kind.len()).any(|part| part.eq_ignore_ascii_case(kind));
    names(b"text/event-stream") || names(b"application/x-ndjson")
}

/// A request whose first try has been silent for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Tries made, the silent one counted.
    pub tries: u32,
    /// Where the breaker of its service stands.
    pub breaker: State,
    /// Time until its first byte is due.
    pub left: Duration,
}

/// Why there is no second try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// All tries are made.
    Exhausted,
    /// The service is being given time, or tried out.
    Breaker,
    /// Too little time is left.
    Deadline,
    /// The service's retries are used up for now.
    Budget,
}

impl Budget {
    /// Decides about a second try and charges it. Ask last, when there is an instance for it.
    ///
    /// # Errors
    /// [`Refused`]: the first condition that fails; nothing is charged.
    pub fn hedge(&mut self, late: &Late, now: Nanos) -> Result<(), Refused> {
        if late.tries >= self.attempts() {
            return Err(Refused::Exhausted);
        }
        if !matches!(late.breaker, State::Closed | State::ForcedClosed | State::Disabled) {
            return Err(Refused::Breaker);
        }
        if late.left < USEFUL_MIN {
            return Err(Refused::Deadline);
        }
        if self.try_retry(now) { Ok(()) } else { Err(Refused::Budget) }
    }
}

/// One of two tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Try {
    /// The one that was silent.
    First,
    /// The one beside it.
    Second,
}

/// What a try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// A head of this status.
    Head(u16),
    /// No head.
    Failure,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// What came is what the request came to; another try that still runs is given up.
    Ends,
    /// This try is over, the other one is waited for.
    Waits,
}

/// What became of a second try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Its head was the answer.
    Won,
    /// The first one's was.
    Lost,
    /// It failed.
    Failed,
    /// Neither had a head before its client left or the time was over.
    Unanswered,
}

/// How far one try is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    Absent,
    Running,
    Failed,
}

/// The tries of one request that may be two.
#[derive(Clone, Copy, Debug)]
pub struct Race {
    first: Leg,
    second: Leg,
    winner: Option<Try>,
}

impl Default for Race {
    /// The first try runs.
    fn default() -> Self {
        Self { first: Leg::Running, second: Leg::Absent, winner: None }
    }
}

impl Race {
    /// The second try runs too.
    pub fn begin_second(&mut self) {
        debug_assert_eq!(self.second, Leg::Absent, "there is one hedge at most");
        self.second = Leg::Running;
    }

    /// Whether a try is waited for.
    pub fn is_running(&self, one: Try) -> bool {
        *self.leg(one) == Leg::Running
    }

    /// Takes what a try that ran came to.
    pub fn came(&mut self, one: Try, came: Came) -> Next {
        let other = match one {
            Try::First => Try::Second,
            Try::Second => Try::First,
        };
        if matches!(came, Came::Head(..500)) {
            self.winner = Some(one);
            return Next::Ends;
        }
        *self.leg_mut(one) = Leg::Failed;
        if self.is_running(other) { Next::Waits } else { Next::Ends }
    }

    /// What became of the second try, when all is over; `None` where there was none.
    pub fn verdict(&self) -> Option<Verdict> {
        match (self.second, self.winner) {
            (Leg::Absent, _) => None,
            (_, Some(Try::Second)) => Some(Verdict::Won),
            (Leg::Failed, _) => Some(Verdict::Failed),
            (Leg::Running, Some(Try::First)) => Some(Verdict::Lost),
            (Leg::Running, None) => Some(Verdict::Unanswered),
        }
    }

    fn leg(&self, one: Try) -> &Leg {
        match one {
            Try::First => &self.first,
            Try::Second => &self.second,
        }
    }

    fn leg_mut(&mut self, one: Try) -> &mut Leg {
        match one {
            Try::First => &mut self.first,
            Try::Second => &mut self.second,
        }
    }
}

impl Verdict {
    /// A fixed word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Times to a head of one service's first tries.
#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: [u32; BUCKETS],
    total: u32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], total: 0 }
    }
}

impl Latencies {
    /// Counts a first try whose head came after this time, or that was overtaken then.
    pub fn record(&mut self, took: Duration) {
        if self.total >= HALF_LIFE {
            self.halve();
        }
        self.buckets[bucket(took)] += 1;
        self.total += 1;
    }

    /// Halves what all buckets up to each hold together: halved one by one, a tail that is thinly spread would lose its
    /// single counts, and what is usual would fall.
    fn halve(&mut self) {
        let (mut before, mut after) = (0, 0);
        for count in &mut self.buckets {
            before += *count;
            *count = before / 2 - after;
            after += *count;
        }
        self.total = after;
    }

    /// The time within which 95 of 100 heads came; `None` where too few have, or too many took too long.
    pub fn p95(&self) -> Option<Duration> {
        if self.total < ENOUGH {
            return None;
        }
        let wanted = u64::from(self.total) * 95;
        let mut seen = 0;
        let reached = self.buckets.iter().position(|count| {
            seen += u64::from(*count) * 100;
            seen >= wanted
        });
        reached.and_then(|at| BOUNDS_US.get(at)).map(|us| Duration::from_micros(*us))
    }
}

/// The first bucket that holds this time.
fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
    BOUNDS_US.partition_point(|bound| *bound < us)
}

#[cfg(test)]
mod tests;
