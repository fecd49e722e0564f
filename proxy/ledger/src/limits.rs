//! Rate limits that several edges share, in one Redis.
//!
//! Purpose: callers take requests from leases ([`sluice_policy::limit::leases`]), nearly always without waiting for
//! anything; one task ([`SharedLimits::join`] starts it) makes the calls that leases ask for and passes the answers on.
//!
//! Redis keeps a line a bucket, when it is whole again by Redis's own clock, under a name that tells nobody's and for
//! no longer than it says something (`count.lua`; a script of one key, no module, no option of the server). Calls go
//! out in rounds, pipelined and one at a time: a bucket is asked for once a round, whatever its load. The first goes
//! out at once; the next begins [`ROUND`] after it, or [`HURRIED`] where a request waits for it. A request that waits
//! ([`Waiting`]) does so for [`LATE`] at most, or as long as it has patience, and may leave at any moment.
//!
//! A round that fails in any way (no connection, no answer within [`ROUND_WITHIN`], an error such as READONLY, OOM
//! or LOADING) ends sharing: from then on [`SharedLimits::take`] answers nothing, who waits is told so at once, and the
//! edge judges alone. Redis is tried again after a pause that grows to [`PAUSE_MAX`], by a call that writes; when it answers, edges share again.
//! A script that Redis has forgotten is told it again within the round.
//!
//! LIMIT: [`BATCH_MAX`] calls a round; `LEASES_MAX` buckets; `WAITERS_MAX` requests that wait.

mod keeper;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_policy::limit::lease::{LATE, Outcome, Taken, Terms};
use sluice_policy::limit::leases::{LEASES_MAX, Leases, Name, Ticket};
use sluice_policy::limit::table::{Key, Threshold};
use sluice_policy::time::Nanos;
use sluice_schema::RedisUrl;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::redis::{Redis, RedisError};
use keeper::Keeper;
use store::Store;

/// Between the starts of two rounds.
pub const ROUND: Duration = Duration::from_millis(5);
/// The same, where somebody waits for the second.
pub const HURRIED: Duration = Duration::from_millis(1);
/// For the answers to a round.
pub const ROUND_WITHIN: Duration = Duration::from_millis(200);
/// LIMIT: calls in a round.
pub const BATCH_MAX: usize = 512;
/// Between two tries to reach Redis, at first and at last.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause; a quarter is by chance.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Hears how sharing goes.
pub trait Watch: Send + Sync {
    /// Edges share from now on, or this one judges alone, for a reason.
    fn shares(&self, why_not: Option<&RedisError>);
    /// A round of so many calls was answered, or failed.
    fn called(&self, calls: usize, answered: bool);
}

/// The limits that this edge shares with others. Dropped, it leaves them.
pub struct SharedLimits {
    common: Arc<Common>,
    task: AbortHandle,
}

struct Common {
    redis: Redis,
    leases: Leases<oneshot::Sender<Taken>>,
    now: fn() -> Nanos,
    shares: AtomicBool,
    /// A call is wanted; somebody waits for one.
    wake: Notify,
    hurry: Notify,
}

/// A request that waits for Redis. Dropped, it has left.
#[derive(Debug)]
pub struct Waiting {
    common: Arc<Common>,
    ticket: Ticket,
    told: oneshot::Receiver<Taken>,
    decided: bool,
}

/// What a request that waited is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was taken, or refused. [`Outcome::Late`]: no answer came in time.
    Taken(Taken),
    /// Limits are not shared any more: this edge judges alone.
    Alone,
    /// It had no more patience; it was not counted.
    Over,
}

impl SharedLimits {
    /// Shares limits through this Redis as soon as it answers. `now` is the clock by which [`Self::take`] is asked;
    /// the work is done on the runtime of `handle`.
    ///
    /// # Errors
    /// [`RedisError::Address`].
    pub fn join(
        url: &RedisUrl,
        handle: &Handle,
        now: fn() -> Nanos,
        watch: Arc<dyn Watch>,
    ) -> Result<Self, RedisError> {
        let redis = Redis::new(url, handle.clone())?;
        let (leases, shares) = (Leases::new(LEASES_MAX), AtomicBool::new(false));
        let (wake, hurry) = (Notify::new(), Notify::new());
        let common = Arc::new(Common { redis, leases, now, shares, wake, hurry });
        let keeper = Keeper::new(Arc::clone(&common), Store::default(), now, watch);
        let task = handle.spawn(keeper.keep()).abort_handle();
        Ok(Self { common, task })
    }

    /// Where the Redis is.
    pub fn url(&self) -> &RedisUrl {
        self.common.redis.url()
    }

    /// Whether edges share at present.
    pub fn shares(&self) -> bool {
        self.common.shares.load(Ordering::Relaxed)
    }

    /// Takes one request of a caller; `None` where this edge has to judge alone: Redis is away, or there is no
    /// room for the caller. `here` is how many requests of it the edge's own table lets pass at present. `name` makes
    /// its bucket's name, once. Blocks for nothing but a short lock; with [`Outcome::Waits`] comes what is to be
    /// awaited.
    pub fn take(
        &self,
        key: Key,
        threshold: Threshold,
        terms: &Terms,
        here: u64,
        now: Nanos,
        name: impl FnOnce() -> Name,
    ) -> Option<(Taken, Option<Waiting>)> {
        if !self.shares() {
            return None;
        }
        let common = &self.common;
        let mut waiting = None;
        let wakes = |ticket| {
            let (wakes, told) = oneshot::channel();
            waiting = Some(Waiting { common: Arc::clone(common), ticket, told, decided: false });
            wakes
        };
        let taken = common.leases.take(key, threshold, terms, here, now, name, wakes)?;
        if taken.asks {
            common.wake.notify_one();
        }
        if taken.outcome == Outcome::Waits {
            common.hurry.notify_one();
        }
        Some((taken, waiting))
    }

    /// Requests judged alone for want of room, since the start.
    pub fn full(&self) -> u64 {
        self.common.leases.full()
    }
}

impl Drop for SharedLimits {
    fn drop(&mut self) {
        self.task.abort();
        self.common.shares.store(false, Ordering::Relaxed);
        self.common.leases.forget();
    }
}

impl Waiting {
    /// Waits for the answer, for as long as the request has patience and for [`LATE`] at most. Dropping this future
    /// loses nothing.
    pub async fn told(&mut self, patience: Option<Duration>) -> Told {
        let within = patience.map_or(LATE, |patience| patience.min(LATE));
        let told = match timeout(within, &mut self.told).await {
            Ok(told) => told,
            Err(_) if within < LATE => {
                self.leave();
                return Told::Over;
            }
            Err(_) => match self.common.leases.late(&self.ticket, (self.common.now)()) {
                Some(taken) => Ok(taken),
                // It was decided in this very moment, or the store went away.
                None => (&mut self.told).await,
            },
        };
        self.decided = true;
        told.map_or(Told::Alone, Told::Taken)
    }

    /// It was admitted, and does not pass for another reason.
    pub fn give_back(self) {
        if self.common.leases.give_back(&self.ticket, (self.common.now)()) {
            self.common.wake.notify_one();
        }
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.decided, true) {
            self.common.leases.leave(&self.ticket);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.leave();
    }
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shares = self.shares.load(Ordering::Relaxed);
        f.debug_struct("Common").field("shares", &shares).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SharedLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedLimits").field("shares", &self.shares()).finish_non_exhaustive()
    }
}
