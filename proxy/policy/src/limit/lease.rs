//! What an edge knows of a bucket that several edges share, and what it asks of the store.
//!
//! Purpose: edges share one limit without a call a request, and no request ever waits for the store.
//!
//! The store keeps a bucket a caller, GCRA by its own clock ([`Terms`] say how large). An edge holds a
//! [`Lease`] on it: a chunk of requests that the store has granted and counted already, and the bucket's
//! state as last told. Exact conditions for one request:
//!
//! 1. While there are requests in the chunk, one is taken from it. At half a chunk the next one is asked for.
//! 2. Else it is admitted on credit, and counted with the next call, while the credit is not used up: a third,
//!    rounded up, of what the bucket had left before the last count of this edge's and has regained since, less that
//!    count, but one at least. For others may have had their thirds by then, and be counted only after it. All of
//!    what is left where the edge has the bucket to itself: it was told again and again for [`CROWDED`], and by its
//!    last answer, no older than that, no other edge called for the bucket in as long. A caller that was never asked
//!    for has a full bucket. A `hard` threshold always has the whole credit: nobody's connection closes before he is
//!    known to be past it.
//! 3. Else it is refused: until the bucket has regained a request by the rate alone where it was empty.
//! 4. An answer that takes longer than [`LATE`] is not waited for: the edge's own judgement holds until it
//!    comes, but for buckets that are known to be empty. What it admits is counted afterwards.
//!
//! What edges admit together: none admits what it knows not to be there, and what it cannot know is what others
//! were granted, or have admitted on credit, since the store counted for its last answer. So whenever an edge admits
//! a request on credit, all of them together have taken no more than the bucket, what it has regained, and what
//! this one cannot know of (a chunk counts from its grant; the simulation holds each request to exactly this). No
//! two edges have a bucket to themselves at once: the store would have told the later one of the earlier. Hence
//! three edges that are flooded in one moment admit thirds of one bucket, and a request each beyond it. An edge
//! that is asked first when others have used the bucket up, or beside one that has had it to itself, admits a third of
//! it once, until it is told.
//!
//! A chunk holds what callers ask for in [`AHEAD`], at most a sixteenth of the bucket: a limit of a few a
//! minute has no chunks, each request is counted by itself. What was not used for [`LEASE`] is given back.
//! A call that failed is not repeated: nobody knows whether it was counted, and to count twice would refuse
//! whom nothing forbids.

use std::time::Duration;

use super::Decision;
use super::table::Threshold;
use crate::time::Nanos;

/// How much of the callers' demand a chunk covers.
pub const AHEAD: Duration = Duration::from_millis(25);
/// An answer that takes longer does not hold anybody up.
pub const LATE: Duration = Duration::from_millis(100);
/// What was granted and not used for so long is given back.
pub const LEASE: Duration = Duration::from_millis(500);
/// The shared bucket holds at least what the rate gives in this time, however small the burst: or what
/// accumulates between two calls would be lost.
const RESERVE: Duration = Duration::from_millis(100);
/// Share of the bucket that one edge may hold in advance: one in so many.
const CHUNK_SHARE: u64 = 16;
/// For so long after an edge called for a bucket others share it with that edge. The store remembers who called.
pub const CROWDED: Duration = Duration::from_secs(1);
/// Share of what is left of it that one edge may admit before it is told: one in so many.
const CREDIT_SHARE: u64 = 3;
/// A bucket is whole after 35 years at most, so that the store's numbers stay exact.
const WHOLE_AFTER_US: u128 = 1 << 50;
/// Requests, of rounding.
const NEARLY: f64 = 0.001;

/// A limit as the store counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Requests per period, at least 1.
    pub requests: u64,
    /// The period in microseconds, at least 1.
    pub per_us: u64,
    /// Requests that the bucket holds, at least 1.
    pub capacity: u64,
}

/// One bucket as an edge sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lease {
    /// Granted, counted, not used.
    tokens: u64,
    lapses_at: Nanos,
    /// Somebody looks after it when it lapses.
    watched: bool,
    /// Admitted and not counted; below zero: counted and not used.
    owed: i64,
    /// The same, in the call that is under way.
    flying: i64,
    /// When the bucket is whole, as last told, without what is owed.
    whole_at: Nanos,
    /// What the last call counted that was answered.
    counted: u64,
    /// Since when an answer is awaited.
    waits_since: Option<Nanos>,
    /// When the last answer was asked for, and from when on the bucket is this edge's alone.
    told_at: Option<Nanos>,
    alone_from: Option<Nanos>,
    /// Requests since the last call, and when that was.
    seen: u32,
    asked_at: Nanos,
    /// Requests a second.
    pace: f64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was counted in advance.
    Leased,
    /// It will be counted.
    OnCredit,
    /// It will be counted; the store's answer is late.
    Late,
    /// It is refused for so long.
    Refused(Duration),
}

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What became of it.
    pub outcome: Outcome,
    /// Requests that edges have left together, as far as is known here.
    pub remaining: u64,
    /// Until the bucket is whole.
    pub reset_after: Duration,
    /// A call to the store is wanted now, and was not before.
    pub asks: bool,
}

/// What to ask of the store: count what is owed, then grant up to `want`, as many as there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// To count, whatever is left; below zero: to give back.
    pub owed: i64,
    /// To grant.
    pub want: u64,
}

/// The store's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Requests counted in advance.
    pub granted: u64,
    /// Until the bucket is whole.
    pub whole_after: Duration,
    /// Another edge called for it within [`CROWDED`].
    pub shared: bool,
}

impl Terms {
    /// `requests` per `per`, `burst` of them at once.
    pub fn new(requests: u64, per: Duration, burst: u64) -> Self {
        let requests = requests.max(1);
        let per_us = u64::try_from(per.as_micros()).unwrap_or(u64::MAX).max(1);
        let of_rate =
            |us: u128| u64::try_from(us * u128::from(requests) / u128::from(per_us)).unwrap_or(u64::MAX);
        let most = of_rate(WHOLE_AFTER_US).max(1);
        Self { requests, per_us, capacity: burst.max(of_rate(RESERVE.as_micros())).clamp(1, most) }
    }

    /// Time one request costs, nanoseconds.
    fn cost_ns(&self) -> f64 {
        self.per_us as f64 / self.requests as f64 * 1e3
    }

    /// Requests left in a bucket that is whole after `ahead`.
    fn left(&self, ahead: Duration) -> u64 {
        let used = (ahead.as_nanos() as f64 / self.cost_ns() - NEARLY).ceil().max(0.0);
        self.capacity.saturating_sub(used as u64)
    }

    /// How long an empty bucket that is whole after `ahead` is without a request.
    fn bar(&self, ahead: Duration) -> Duration {
        let one_left = (self.capacity - 1) as f64 * self.cost_ns();
        Duration::from_nanos((ahead.as_nanos() as f64 - one_left).max(1.0).ceil() as u64)
    }
}

impl Lease {
    /// Decides about one request.
    pub fn take(&mut self, terms: &Terms, threshold: Threshold, now: Nanos) -> Taken {
        self.seen = self.seen.saturating_add(1);
        self.lapse(now);
        let ahead = self.whole_at.since(now);
        let left = terms.left(ahead);
        let (outcome, wanted) = if self.tokens > 0 {
            self.tokens -= 1;
            let chunk = self.chunk(terms);
            (Outcome::Leased, chunk > 0 && 2 * self.tokens <= chunk)
        } else if left == 0 {
            (Outcome::Refused(terms.bar(ahead)), false)
        } else if self.on_credit() < self.credit(left, threshold, now) {
            self.owed += 1;
            (Outcome::OnCredit, true)
        } else if self.is_late(now) {
            self.owed += 1;
            (Outcome::Late, true)
        } else {
            (Outcome::Refused(LATE), true)
        };
        Taken {
            outcome,
            remaining: (left + self.tokens).saturating_sub(self.on_credit()).min(terms.capacity),
            reset_after: ahead,
            asks: wanted && self.await_answer(now),
        }
    }

    /// A call is to be made: what it asks. What follows is for the next one.
    pub fn ask(&mut self, terms: &Terms, now: Nanos) -> Ask {
        self.lapse(now);
        let past = now.since(self.asked_at).as_secs_f64().max(1e-3);
        let pace = f64::from(self.seen) / past;
        // After a second of silence the past says nothing.
        self.pace = if past > 1.0 { pace } else { f64::midpoint(self.pace, pace) };
        (self.seen, self.asked_at) = (0, now);
        self.waits_since.get_or_insert(now);
        (self.flying, self.owed) = (self.owed, 0);
        Ask { owed: self.flying, want: self.chunk(terms).saturating_sub(self.tokens) }
    }

    /// The answer to it; true where another call is wanted already.
    pub fn answer(&mut self, terms: &Terms, granted: Granted, now: Nanos) -> bool {
        let whole_at = now.plus(granted.whole_after);
        // What the first answer does not tell is whether others' requests are just on their way.
        let known = self.alone_from.filter(|_| self.is_told(now));
        self.alone_from = (!granted.shared).then(|| known.unwrap_or(now.plus(CROWDED)));
        self.counted = u64::try_from(self.flying).unwrap_or(0);
        (self.flying, self.waits_since, self.told_at) = (0, None, Some(self.asked_at));
        self.whole_at = whole_at;
        // A store that grants more than there is has lost its mind: it is not followed.
        self.tokens = self.tokens.saturating_add(granted.granted).min(terms.capacity);
        if granted.granted > 0 {
            self.lapses_at = now.plus(LEASE);
        }
        self.owed != 0 && self.await_answer(now)
    }

    /// The store is away: nothing is held or owed any more. What was told of the bucket stays.
    pub fn forget(&mut self) {
        *self = Self { whole_at: self.whole_at, ..Self::default() };
    }

    /// When what was granted lapses, to be watched from now on; `None` where nothing is held, or it is watched.
    pub fn to_watch(&mut self) -> Option<Nanos> {
        if self.tokens == 0 || self.watched {
            return None;
        }
        self.watched = true;
        Some(self.lapses_at)
    }

    /// What is watched may have lapsed: when to look again, and whether a call is wanted for what is given back and
    /// was not before.
    pub fn look(&mut self, now: Nanos) -> (Option<Nanos>, bool) {
        let asks = self.lapse(now) && self.await_answer(now);
        self.watched = self.tokens > 0;
        (self.watched.then_some(self.lapses_at), asks)
    }

    /// Whether it says nothing that is not known of a caller never seen.
    pub fn is_idle(&self, now: Nanos) -> bool {
        self.busy_until(now) <= now
    }

    /// Until when it says something, at least; the end of time while a call is under way.
    pub(super) fn busy_until(&self, now: Nanos) -> Nanos {
        let waits = self.waits_since.is_some() || self.owed != 0 || self.flying != 0;
        let held = if self.tokens > 0 { self.lapses_at.max(now.plus(LATE)) } else { Nanos::ZERO };
        if waits { Nanos(u64::MAX) } else { self.whole_at.max(held) }
    }

    fn credit(&self, left: u64, threshold: Threshold, now: Nanos) -> u64 {
        let alone = self.is_told(now) && self.alone_from.is_some_and(|from| now >= from);
        if alone || threshold == Threshold::Hard {
            return left;
        }
        let share = left.saturating_add(self.counted).div_ceil(CREDIT_SHARE);
        share.saturating_sub(self.counted).max(1)
    }

    /// Whether the last answer is young enough to know of others.
    fn is_told(&self, now: Nanos) -> bool {
        self.told_at.is_some_and(|at| now.since(at) < CROWDED)
    }

    fn on_credit(&self) -> u64 {
        u64::try_from(self.owed.saturating_add(self.flying)).unwrap_or(0)
    }

    fn is_late(&self, now: Nanos) -> bool {
        self.waits_since.is_some_and(|since| now.since(since) > LATE)
    }

    fn await_answer(&mut self, now: Nanos) -> bool {
        let first = self.waits_since.is_none();
        self.waits_since.get_or_insert(now);
        first
    }

    /// Requests that the caller makes in [`AHEAD`].
    fn chunk(&self, terms: &Terms) -> u64 {
        let wanted = (self.pace * AHEAD.as_secs_f64()) as u64;
        wanted.min(terms.capacity / CHUNK_SHARE)
    }

    fn lapse(&mut self, now: Nanos) -> bool {
        if self.tokens == 0 || now < self.lapses_at {
            return false;
        }
        self.owed = self.owed.saturating_sub_unsigned(std::mem::take(&mut self.tokens));
        true
    }
}

impl Taken {
    /// What others leave of a decision that was favourable here.
    pub(super) fn narrow(&self, decision: &mut Decision) {
        decision.remaining = decision.remaining.min(self.remaining);
        decision.reset_after = decision.reset_after.max(self.reset_after);
        if let Outcome::Refused(wait) = self.outcome {
            (decision.allowed, decision.remaining) = (false, 0);
            decision.retry_after = decision.retry_after.max(wait);
        }
    }
}

impl Granted {
    /// From the store's numbers: requests, microseconds until the bucket is whole, and whether others call for it.
    pub fn new(granted: u64, whole_after_us: u64, shared: bool) -> Self {
        // Beyond it no store that keeps its word can say anything.
        let longest = 4 * u64::try_from(WHOLE_AFTER_US).unwrap_or(u64::MAX);
        Self { granted, whole_after: Duration::from_micros(whole_after_us.min(longest)), shared }
    }
}

#[cfg(test)]
mod tests;
