//! The keys of several edges, in one Redis.
//!
//! A claim is one command: `SET key record NX GET PX ttl` (Redis 7.0), which records or gives what lies there. Its
//! answer may be lost; then it is asked again, and what lies there and bears its own number is its own. What still
//! is not known is given back later, as soon as Redis is there again. Results and what is given back replace or
//! remove only the record that the claim wrote, compared byte for byte in a script; so they can be repeated.
//!
//! A process that dies leaves its claims in flight; they count as such until their lease is over, then as unknown.
//! Redis must keep what it has (`appendonly yes`, `maxmemory-policy noeviction`): a key that it forgets is free.
//!
//! LIMIT: [`UNTOLD_MAX`] results that wait for Redis, [`UNTOLD_BYTES`] of answers in them, for [`UNTOLD_FOR`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::redis::Cmd;
use sluice_policy::idempotency::{Answer, Change, End, KeyId, Owner, Record, Verdict, conclude, judge};
use sluice_schema::RedisUrl;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::record::{decode, encode};
use super::{CLAIM_WITHIN, KeysError, Wanted};
use crate::redis::{Redis, RedisError};

/// LIMIT: results that wait for Redis.
const UNTOLD_MAX: usize = 16 << 10;
/// LIMIT: bytes of answers in them; past it their status is kept.
const UNTOLD_BYTES: usize = 64 << 20;
/// How long a result is tried to be told. By then the key's lease is over, mostly.
const UNTOLD_FOR: Duration = Duration::from_secs(60);
/// Between the first two tries; the later ones are up to [`AGAIN_MAX`] apart.
const AGAIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// Between two looks at a store that nobody asks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Replaces the record that is still there, or removes it where none is given.
const REPLACE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
    if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end \
    return 1";

/// The keys in a Redis.
#[derive(Debug)]
pub(super) struct SharedKeys {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    redis: Redis,
    now_ms: fn() -> u64,
    bounds: Bounds,
    untold: AtomicUsize,
    untold_bytes: AtomicUsize,
}

/// Of results that wait.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    results: usize,
    bytes: usize,
}

const BOUNDS: Bounds = Bounds { results: UNTOLD_MAX, bytes: UNTOLD_BYTES };

impl SharedKeys {
    pub(super) fn new(redis: Redis, now_ms: fn() -> u64) -> Self {
        let keys = Self::bounded(redis, now_ms, BOUNDS);
        keys.inner.redis.handle().spawn(look(Arc::downgrade(&keys.inner)));
        keys
    }

    fn bounded(redis: Redis, now_ms: fn() -> u64, bounds: Bounds) -> Self {
        let (untold, untold_bytes) = (AtomicUsize::default(), AtomicUsize::default());
        Self { inner: Arc::new(Inner { redis, now_ms, bounds, untold, untold_bytes }) }
    }

    pub(super) fn url(&self) -> &RedisUrl {
        self.inner.redis.url()
    }

    /// Results that Redis does not have yet.
    pub(super) fn untold(&self) -> usize {
        self.inner.untold.load(Ordering::Relaxed)
    }

    pub(super) fn is_well(&self) -> bool {
        self.inner.redis.is_well()
    }

    /// The verdict, and what a claim wrote.
    pub(super) async fn claim(&self, wanted: &Wanted, owner: Owner) -> Result<(Verdict, Vec<u8>), KeysError> {
        let ttl_ms = u64::try_from(wanted.ttl.as_millis()).unwrap_or(u64::MAX);
        let expires_at_ms = (self.inner.now_ms)().saturating_add(ttl_ms);
        let held = encode(&Record::claimed(wanted.fingerprint, owner, wanted.until_ms, expires_at_ms));
        let (told, verdict) = oneshot::channel();
        let (inner, wanted, record) = (Arc::clone(&self.inner), *wanted, held.clone());
        // Not cancelled half-way: what was recorded and is not wanted any more has to be given back.
        self.inner.redis.handle().spawn(async move {
            let verdict = inner.ask(&wanted, &record).await;
            let unclear = matches!(verdict, Err(KeysError::Redis(RedisError::Failed(_))));
            let unwanted = told.send(verdict);
            if (unclear || matches!(unwanted, Err(Ok(Verdict::Claim))))
                && let Some(end) = inner.begin(End::NotSent)
            {
                inner.tell(wanted.id, record, owner, end).await;
            }
        });
        match tokio::time::timeout(CLAIM_WITHIN, verdict).await {
            Ok(Ok(verdict)) => Ok((verdict?, held)),
            Ok(Err(_)) | Err(_) => Err(KeysError::Late),
        }
    }

    /// Tells how a request ended, in the background.
    pub(super) fn finish(&self, id: KeyId, held: Vec<u8>, owner: Owner, end: End) {
        let Some(end) = self.inner.begin(end) else { return };
        let inner = Arc::clone(&self.inner);
        self.inner.redis.handle().spawn(async move { inner.tell(id, held, owner, end).await });
    }
}

/// Asks now and then whether the store answers, so that this is known before somebody needs it; ends with the keys.
async fn look(inner: Weak<Inner>) {
    loop {
        sleep(LOOK_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        // What comes of it is noted where calls are made.
        drop(inner.redis.call::<String>(&::redis::cmd("PING")).await);
    }
}

impl Inner {
    async fn ask(&self, wanted: &Wanted, record: &[u8]) -> Result<Verdict, KeysError> {
        let ttl_ms = u64::try_from(wanted.ttl.as_millis()).unwrap_or(u64::MAX);
        // A request may take longer than its key is kept.
        let ttl_ms = ttl_ms.max(wanted.until_ms.saturating_sub((self.now_ms)()));
        let mut command = ::redis::cmd("SET");
        command.arg(name(&wanted.id)).arg(record).arg("NX").arg("GET").arg("PX").arg(ttl_ms);
        let mut lost = None;
        let found: Option<Vec<u8>> = loop {
            match self.redis.call(&command).await {
                Ok(found) => break found,
                Err(RedisError::Failed(error)) if lost.is_none() => lost = Some(error),
                // Once one was sent it is not known whether it was executed, whatever became of the other.
                Err(error) => return Err(lost.map_or(error, RedisError::Failed).into()),
            }
        };
        match found {
            None => Ok(Verdict::Claim),
            Some(bytes) if bytes == record => Ok(Verdict::Claim),
            Some(bytes) => {
                let found = decode(&bytes).ok_or(KeysError::Unreadable)?;
                Ok(match judge(Some(&found), &wanted.fingerprint, (self.now_ms)(), |_| true) {
                    // Its time is over by this clock and not by that of Redis: it is forgotten in a moment.
                    Verdict::Claim => Verdict::InFlight,
                    verdict => verdict,
                })
            }
        }
    }

    /// Replaces what a claim wrote by what became of it, which was counted, again until Redis has it.
    async fn tell(&self, id: KeyId, held: Vec<u8>, owner: Owner, end: End) {
        let bytes = if let End::Answered(answer) = &end { answer.bytes() } else { 0 };
        let claimed = decode(&held);
        let expires_at_ms = claimed.as_ref().map_or(0, |record| record.expires_at_ms);
        let record = match conclude(claimed.as_ref(), owner, end) {
            Change::Put(record) => encode(&record),
            Change::Remove | Change::Keep => Vec::new(),
        };
        let mut command: Cmd = ::redis::cmd("EVAL");
        command.arg(REPLACE).arg(1).arg(name(&id)).arg(held).arg(record);
        command.arg(expires_at_ms.saturating_sub((self.now_ms)()).max(1));
        let until = Instant::now() + UNTOLD_FOR;
        let mut pause = AGAIN;
        while self.redis.call::<i64>(&command).await.is_err() && Instant::now() < until {
            sleep(pause).await;
            pause = (2 * pause).min(AGAIN_MAX);
        }
        self.untold.fetch_sub(1, Ordering::Relaxed);
        self.untold_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts a result that is to be told; `None` where too many wait: its key stays in flight, then unknown.
    fn begin(&self, end: End) -> Option<End> {
        if self.untold.fetch_add(1, Ordering::Relaxed) >= self.bounds.results {
            self.untold.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let End::Answered(answer) = end else { return Some(end) };
        let bytes = answer.bytes();
        if self.untold_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.bounds.bytes {
            return Some(End::Answered(answer));
        }
        self.untold_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Some(End::Answered(Answer::Status(answer.status())))
    }
}

/// The key's name in Redis.
fn name(id: &KeyId) -> String {
    let mut name = String::with_capacity(16 + 64);
    name.push_str("sluice:idem:1:");
    for byte in id {
        name.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        name.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sluice_schema::{Mode, check};
    use tokio::runtime::Builder;

    use super::*;

    /// Keys in a Redis that nobody runs.
    fn keys(runtime: &tokio::runtime::Runtime, bounds: Bounds) -> SharedKeys {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = BTreeMap::from([("REDIS_URL".to_owned(), format!("redis://127.0.0.1:{port}"))]);
        let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let config = check(&[], &url, Mode::default(), &none).unwrap().config;
        let redis = Redis::new(config.redis.as_ref().unwrap(), runtime.handle().clone()).unwrap();
        SharedKeys::bounded(redis, || 0, bounds)
    }

    fn end(bytes: usize) -> End {
        End::Answered(Answer::Whole { status: 200, fields: Vec::new(), body: vec![0; bytes] })
    }

    #[test]
    fn results_that_wait_for_redis_are_bounded_in_number_and_bytes() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let whole = match end(50) {
            End::Answered(answer) => answer.bytes(),
            _ => 0,
        };
        let keys = keys(&runtime, Bounds { results: 3, bytes: whole });
        let owner = Owner { run: 1, request: 1 };
        keys.finish([1; 32], Vec::new(), owner, end(50));
        assert!(matches!(keys.inner.begin(end(50)), Some(End::Answered(Answer::Status(200)))));
        assert_eq!(keys.inner.untold_bytes.load(Ordering::Relaxed), whole);
        keys.finish([2; 32], Vec::new(), owner, End::NotSent);
        assert_eq!(keys.untold(), 3);
        for _ in 0..5 {
            keys.finish([3; 32], Vec::new(), owner, end(0));
            assert!(keys.inner.begin(End::Unknown).is_none(), "its key stays in flight");
        }
        assert_eq!((keys.untold(), BOUNDS.results, BOUNDS.bytes), (3, 16_384, 64 << 20));
    }

    #[test]
    fn a_result_that_redis_never_takes_is_given_up_and_makes_room() {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let keys = keys(&runtime, Bounds { results: 1, bytes: 1_000 });
        runtime.block_on(async {
            let end = keys.inner.begin(end(50)).unwrap();
            keys.inner.tell([1; 32], Vec::new(), Owner { run: 1, request: 1 }, end).await;
        });
        assert_eq!((keys.untold(), keys.inner.untold_bytes.load(Ordering::Relaxed)), (0, 0));
        assert!(keys.inner.begin(end(50)).is_some());
    }
}
