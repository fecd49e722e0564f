//! Rate limits that several edges share, in one Redis.
//!
//! Purpose: callers take requests from leases ([`sluice_policy::limit::leases`]) without waiting for anything; one
//! task ([`SharedLimits::join`] starts it) makes the calls that leases ask for and passes the answers on.
//!
//! Redis keeps a line a bucket, when it is whole again by Redis's own clock and which edges call for it, under a name
//! that tells nobody's and for no longer than it says something (`count.lua`; a script of one key, no module, no
//! option of the server). Calls go out
//! in rounds, at least [`ROUND`] apart and pipelined: a bucket is asked for once a round, whatever its load.
//!
//! A round that fails in any way (no connection, no answer within [`ROUND_WITHIN`], an error such as READONLY, OOM
//! or LOADING) ends sharing: from then on [`SharedLimits::take`] answers nothing and the edge judges alone. Redis is
//! tried again after a pause that grows to [`PAUSE_MAX`], by a call that writes; when it answers, edges share again.
//! A script that Redis has forgotten is told it again within the round.
//!
//! LIMIT: [`BATCH_MAX`] calls a round; `LEASES_MAX` buckets.

mod keeper;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_policy::limit::lease::{Taken, Terms};
use sluice_policy::limit::leases::{LEASES_MAX, Leases, Name};
use sluice_policy::limit::table::{Key, Threshold};
use sluice_policy::time::Nanos;
use sluice_schema::RedisUrl;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::redis::{Redis, RedisError};
use keeper::Keeper;
use store::Store;

/// Between the starts of two rounds.
pub const ROUND: Duration = Duration::from_millis(5);
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
    leases: Leases,
    shares: AtomicBool,
    wake: Notify,
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
        let (leases, shares, wake) = (Leases::new(LEASES_MAX), AtomicBool::new(false), Notify::new());
        let common = Arc::new(Common { redis, leases, shares, wake });
        let keeper = Keeper::new(Arc::clone(&common), Store::new(), now, watch);
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
    /// room for the caller. `name` makes its bucket's name, once. Waits for nothing but a short lock.
    pub fn take(
        &self,
        key: Key,
        threshold: Threshold,
        terms: &Terms,
        now: Nanos,
        name: impl FnOnce() -> Name,
    ) -> Option<Taken> {
        if !self.shares() {
            return None;
        }
        let taken = self.common.leases.take(key, threshold, terms, now, name)?;
        if taken.asks {
            self.common.wake.notify_one();
        }
        Some(taken)
    }

    /// Requests judged alone for want of room, since the start.
    pub fn full(&self) -> u64 {
        self.common.leases.full()
    }
}

impl Drop for SharedLimits {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for SharedLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedLimits").field("shares", &self.shares()).finish_non_exhaustive()
    }
}
