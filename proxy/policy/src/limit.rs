//! How many requests one caller may make.
//!
//! Purpose: a generic cell rate algorithm (GCRA): one number a caller, the theoretical arrival time
//! (TAT) of its next request at the sustained rate. No window edges, no counters to reset.
//!
//! Exact conditions, with T the time one request costs (`per / requests`) and B the burst: a request at
//! `now` moves TAT to `max(TAT, now) + T` and is allowed when that lies at most B·T ahead of `now`; a
//! refused request moves nothing. So in any time t no more than `B + t/T` requests pass, in whatever
//! order threads get the lock.
//!
//! Two thresholds: `hard` counts every request, the refused ones too, against a second TAT; past it
//! the connection closes.
//!
//! Precision: T is kept in sixteenths of a nanosecond and rounded up, so the true rate is never
//! exceeded; 10^9 a second is the fastest that is exact. u64 lasts 36 years of uptime.
//!
//! When the limit of a caller changes (a reload), the requests that he has used up are counted on under the new one: he
//! gets no new burst, and does not wait for an hour because a limit that is gone allowed five an hour.
//!
//! The keys and their table are in [`table`], what several edges share in [`lease`] and [`leases`], the
//! header values in [`header`]. Cost of [`Gcra::check`]: a few additions and one division, no allocation.

pub mod header;
pub mod lease;
pub mod leases;
pub mod table;

use std::time::Duration;

use sluice_schema::{RateKey, RateLimit};

use crate::time::{Nanos, nanos};

pub use lease::Terms;
pub use table::{Key, Keyer, Table, Threshold, Verdict, Who};

const TICKS_PER_NANO: u64 = 16;
/// No bucket reaches further ahead: a quarter of time, so that sums cannot overflow.
const AHEAD_MAX: u64 = u64::MAX / 4;

/// A rate and a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    /// Ticks one request costs.
    cost: u64,
    /// Ticks a full burst costs.
    capacity: u64,
}

/// What the limiter says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may pass.
    pub allowed: bool,
    /// How many more could pass at once.
    pub remaining: u64,
    /// Until the burst is whole again.
    pub reset_after: Duration,
    /// Until the next request may pass; zero where this one did.
    pub retry_after: Duration,
}

/// The limit of one service, ready for use.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Requests per `per`, for headers.
    pub requests: u64,
    /// The period, for headers.
    pub per: Duration,
    /// Who shares a bucket.
    pub key: RateKey,
    /// The rate and burst past which requests are refused.
    pub soft: Gcra,
    /// The rate past which the connection closes.
    pub hard: Option<Gcra>,
    /// `soft` as the store that edges share knows it.
    pub soft_terms: Terms,
    /// `hard`, likewise.
    pub hard_terms: Option<Terms>,
}

impl Gcra {
    /// `requests` per `per`, `burst` of them at once; each at least one.
    pub fn new(requests: u64, per: Duration, burst: u64) -> Self {
        let per = u128::from(nanos(per)) * u128::from(TICKS_PER_NANO);
        let cost = per.div_ceil(u128::from(requests.max(1))).clamp(1, u128::from(AHEAD_MAX));
        let capacity = (cost * u128::from(burst.max(1))).min(u128::from(AHEAD_MAX));
        Self { cost: cost as u64, capacity: capacity as u64 }
    }

    /// The state of a caller under this limit whose state `tat` another one made, of which a request cost `cost`
    /// ticks: as many requests are used up as before.
    fn take_over(&self, now: Nanos, tat: u64, cost: u64) -> u64 {
        let now = ticks(now);
        if cost == 0 || cost == self.cost || tat <= now {
            return tat;
        }
        let ahead = (u128::from(tat - now) * u128::from(self.cost)).div_ceil(u128::from(cost));
        now.saturating_add(u64::try_from(ahead).unwrap_or(u64::MAX).min(self.capacity))
    }

    /// Decides about one request of a caller whose state is `tat`; returns its new state.
    /// The state of a caller never seen is 0.
    pub fn check(&self, now: Nanos, tat: u64) -> (Decision, u64) {
        let now = ticks(now);
        // More than a burst is owed only where another limit held before, which nobody remembers.
        let base = tat.clamp(now, now.saturating_add(self.capacity));
        let next = base.saturating_add(self.cost);
        let ahead = next - now;
        if ahead <= self.capacity {
            let decision = Decision {
                allowed: true,
                remaining: (self.capacity - ahead) / self.cost,
                reset_after: duration(ahead),
                retry_after: Duration::ZERO,
            };
            return (decision, next);
        }
        let decision = Decision {
            allowed: false,
            remaining: 0,
            reset_after: duration(base - now),
            retry_after: duration(ahead - self.capacity),
        };
        (decision, base)
    }
}

impl Limit {
    /// The limit a service's key asks for.
    pub fn new(conf: &RateLimit) -> Self {
        Self {
            requests: conf.requests,
            per: conf.per,
            key: conf.key.clone(),
            soft: Gcra::new(conf.requests, conf.per, conf.burst),
            hard: conf.hard.map(|hard| Gcra::new(hard, conf.per, hard)),
            soft_terms: Terms::new(conf.requests, conf.per, conf.burst),
            hard_terms: conf.hard.map(|hard| Terms::new(hard, conf.per, hard)),
        }
    }

    /// `requests` a minute of one address: the guard of login and token paths.
    pub fn per_ip_minute(requests: u64) -> Self {
        Self::new(&RateLimit { key: RateKey::Ip, ..RateLimit::per_minute(requests) })
    }
}

/// A moment in ticks; 36 years at most.
pub(crate) const fn ticks(now: Nanos) -> u64 {
    let ticks = now.0.saturating_mul(TICKS_PER_NANO);
    if ticks > AHEAD_MAX { AHEAD_MAX } else { ticks }
}

/// Rounded up: a caller that waits this long is not a tick early.
const fn duration(ticks: u64) -> Duration {
    Duration::from_nanos(ticks.div_ceil(TICKS_PER_NANO))
}

#[cfg(test)]
mod tests;
