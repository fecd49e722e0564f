//! What an edge knows of a bucket that several edges share, and what it asks of the store.
//!
//! Purpose: edges share one limit without a call a request, and admit it within a tenth by construction; who waits for
//! the store waits for one answer, and never longer than [`LATE`].
//!
//! The store keeps a bucket a caller, GCRA by its own clock ([`Terms`] say how large). An edge holds a
//! [`Lease`] on it: a chunk of requests that the store has granted and counted already, and the bucket's
//! state as last told. A caller that was never asked for has a full bucket. Exact conditions for one request:
//!
//! 1. While there are requests in the chunk, one is taken from it. At half a chunk the next one is asked for.
//! 2. Else it is refused where the bucket is known to be empty: until it has regained a request by the rate alone.
//! 3. Else it is admitted on credit, and counted with the next call: as long as no more than the bucket's credit is
//!    admitted and not counted, and what is left. A `hard` threshold always has the whole of what is left as its
//!    credit: nobody's connection closes, and nobody waits, before he is known to be past it.
//! 4. Else, where an answer is later than [`LATE`], the edge's own judgement holds until it comes; what it admits is
//!    counted afterwards.
//! 5. Else it waits for the store: the next call asks for as many requests as wait beside the chunk, and the answer
//!    admits or refuses them in the order in which they came. Whom one answer does not decide (he came after its
//!    call) waits for the next. Who would wait for what is spoken for already is refused: behind more than are left,
//!    or than the edge's own table would let pass. Where no more may wait, the edge's own judgement holds, as for an
//!    answer that is late: a bound is met only where answers are slow, and to refuse who is within the limit would be
//!    the worse fault. So it does for one who has waited for [`LATE`], and for all who wait when the store fails.
//!
//! What edges admit together: at most the bucket, what it regains, and of every edge a [`SHARE`]th of the bucket. For
//! the store never grants what is not there. What it has not counted is what edges have on credit, each no more than
//! its credit. Look at the last answer by which anything was granted or admitted on credit: by then the store had
//! counted no more than the bucket, beside what was on credit then; since then each edge has added what its credit
//! held and no more, because an answer that counts it is a later one. Beside that, what was granted in advance and is
//! not used may have been regained in the store before it is used: no more than the chunk. Credit and chunk are a
//! [`SHARE`]th together: 9.4 % for three edges, for more of them in proportion. (An answer's way is not counted: what
//! the store regains in it; nor is what an edge admits alone.) The simulation holds every span of time to this.
//!
//! A chunk holds what callers ask for in [`AHEAD`], at most a 64th of the bucket: a limit of a few a minute has no
//! chunks, and below 32 no credit: each request is counted by itself, before it is admitted. What was not used for
//! [`LEASE`] is given back, and what was granted to requests that wait no longer at once. A call that failed is not
//! repeated: nobody knows whether it was counted, and to count twice would refuse whom nothing forbids.

use std::time::Duration;

use super::Decision;
use super::table::Threshold;
use crate::time::Nanos;

/// How much of the callers' demand a chunk covers.
pub const AHEAD: Duration = Duration::from_millis(25);
/// An answer that takes longer does not hold anybody up, and nobody waits for longer.
pub const LATE: Duration = Duration::from_millis(100);
/// What was granted and not used for so long is given back.
pub const LEASE: Duration = Duration::from_millis(500);
/// The shared bucket holds at least what the rate gives in this time, however small the burst: or what
/// accumulates between two calls would be lost.
const RESERVE: Duration = Duration::from_millis(100);
/// Share of the bucket that one edge may have beyond what the store knows, on credit and in advance: one in so many.
pub const SHARE: u64 = 32;
/// Share that it may hold in advance.
const CHUNK_SHARE: u64 = 2 * SHARE;
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
    /// Admitted and not counted; the same, in the call that is under way.
    owed: u64,
    flying: u64,
    /// Counted, and not to be used any more: to be given back.
    spare: u64,
    /// Requests that wait for an answer.
    waiting: u64,
    /// When the bucket is whole, as last told, without what is owed.
    whole_at: Nanos,
    /// Since when an answer is awaited.
    waits_since: Option<Nanos>,
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
    /// It will be counted; more may not wait.
    Crowded,
    /// It is decided by the store's answer.
    Waits,
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

/// Room for a request that would have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Requests that the edge's own table lets pass at present, with those that wait.
    pub here: u64,
    /// One more may wait.
    pub waits: bool,
}

/// What to ask of the store: count what is owed, then grant up to `want`, as many as there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// To count, whatever is left, less what is given back.
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

    /// Requests that an edge may hold in advance.
    const fn chunk_max(&self) -> u64 {
        self.capacity / CHUNK_SHARE
    }

    /// Requests that an edge may admit and not have counted.
    const fn credit(&self) -> u64 {
        self.capacity / SHARE - self.chunk_max()
    }

    /// How long an empty bucket that is whole after `ahead` is without a request.
    fn bar(&self, ahead: Duration) -> Duration {
        let one_left = (self.capacity - 1) as f64 * self.cost_ns();
        Duration::from_nanos((ahead.as_nanos() as f64 - one_left).max(1.0).ceil() as u64)
    }
}

impl Lease {
    /// Decides about one request. [`Outcome::Waits`]: it is decided by [`Self::answer`], or leaves ([`Self::leave`],
    /// [`Self::late`]); those who wait are told apart by their order alone.
    pub fn take(&mut self, terms: &Terms, threshold: Threshold, room: Room, now: Nanos) -> Taken {
        self.seen = self.seen.saturating_add(1);
        self.lapse(now);
        let (outcome, wanted) = self.judge(terms, threshold, self.waiting, room, now);
        self.waiting += u64::from(outcome == Outcome::Waits);
        Taken { asks: wanted && self.await_answer(now), ..self.told(terms, outcome, now) }
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
        self.flying = std::mem::take(&mut self.owed);
        let owed = self.flying.cast_signed().saturating_sub_unsigned(std::mem::take(&mut self.spare));
        Ask { owed, want: (self.chunk(terms) + self.waiting).saturating_sub(self.tokens) }
    }

    /// The answer to it; `decided` hears of those who waited, in the order in which they came, as far as it decides
    /// them. True where another call is wanted already.
    pub fn answer(
        &mut self,
        terms: &Terms,
        granted: Granted,
        now: Nanos,
        mut decided: impl FnMut(Taken),
    ) -> bool {
        (self.flying, self.waits_since) = (0, None);
        self.whole_at = now.plus(granted.whole_after);
        // A store that grants more than there is has lost its mind: it is not followed.
        self.tokens = self.tokens.saturating_add(granted.granted).min(terms.capacity);
        if granted.granted > 0 {
            self.lapses_at = now.plus(LEASE);
        }
        while self.waiting > 0 {
            let room = Room { here: u64::MAX, waits: true };
            let (outcome, _) = self.judge(terms, Threshold::Soft, 0, room, now);
            if outcome == Outcome::Waits {
                break;
            }
            self.waiting -= 1;
            decided(self.told(terms, outcome, now));
        }
        let surplus = self.tokens.saturating_sub(terms.chunk_max());
        (self.tokens, self.spare) = (self.tokens - surplus, self.spare + surplus);
        (self.owed > 0 || self.spare > 0 || self.waiting > 0) && self.await_answer(now)
    }

    /// One that waits does so no longer: nobody needs what is decided about it.
    pub fn leave(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// One has waited for too long: it passes as far as the store is concerned, and is counted afterwards.
    pub fn late(&mut self, terms: &Terms, now: Nanos) -> Taken {
        self.leave();
        self.owed += 1;
        self.told(terms, Outcome::Late, now)
    }

    /// One that was admitted did not pass for another reason; true where a call is wanted for it, and was not before.
    pub fn give_back(&mut self, now: Nanos) -> bool {
        self.spare += 1;
        self.await_answer(now)
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
        let waits = self.waits_since.is_some() || self.owed > 0 || self.flying > 0 || self.spare > 0;
        let held = if self.tokens > 0 { self.lapses_at.max(now.plus(LATE)) } else { Nanos::ZERO };
        if waits { Nanos(u64::MAX) } else { self.whole_at.max(held) }
    }

    /// What becomes of a request before which `ahead` others wait, and whether a call is wanted.
    fn judge(
        &mut self,
        terms: &Terms,
        threshold: Threshold,
        ahead: u64,
        room: Room,
        now: Nanos,
    ) -> (Outcome, bool) {
        if self.tokens > 0 {
            self.tokens -= 1;
            let chunk = self.chunk(terms);
            return (Outcome::Leased, chunk > 0 && 2 * self.tokens <= chunk);
        }
        let whole_after = self.whole_at.since(now);
        let left = terms.left(whole_after);
        if left == 0 {
            return (Outcome::Refused(terms.bar(whole_after)), false);
        }
        let credit = if threshold == Threshold::Hard { left } else { left.min(terms.credit()) };
        let outcome = if self.on_credit() < credit {
            Outcome::OnCredit
        } else if self.is_late(now) {
            Outcome::Late
        } else if threshold == Threshold::Hard || self.on_credit() + ahead >= left || ahead >= room.here {
            Outcome::Refused(LATE)
        } else if room.waits {
            Outcome::Waits
        } else {
            Outcome::Crowded
        };
        self.owed += u64::from(matches!(outcome, Outcome::OnCredit | Outcome::Late | Outcome::Crowded));
        (outcome, true)
    }

    fn told(&self, terms: &Terms, outcome: Outcome, now: Nanos) -> Taken {
        let reset_after = self.whole_at.since(now);
        let spoken_for = self.on_credit() + self.waiting;
        let remaining =
            (terms.left(reset_after) + self.tokens).saturating_sub(spoken_for).min(terms.capacity);
        Taken { outcome, remaining, reset_after, asks: false }
    }

    fn on_credit(&self) -> u64 {
        self.owed + self.flying
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
        wanted.min(terms.chunk_max())
    }

    fn lapse(&mut self, now: Nanos) -> bool {
        if self.tokens == 0 || now < self.lapses_at {
            return false;
        }
        self.spare += std::mem::take(&mut self.tokens);
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
    /// From the store's numbers: requests, and microseconds until the bucket is whole.
    pub fn new(granted: u64, whole_after_us: u64) -> Self {
        // Beyond it no store that keeps its word can say anything.
        let longest = 4 * u64::try_from(WHOLE_AFTER_US).unwrap_or(u64::MAX);
        Self { granted, whole_after: Duration::from_micros(whole_after_us.min(longest)) }
    }
}

#[cfg(test)]
mod tests;
