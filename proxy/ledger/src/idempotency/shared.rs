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

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    untold: AtomicUsize,
    untold_bytes: AtomicUsize,
}

impl SharedKeys {
    pub(super) fn new(redis: Redis, now_ms: fn() -> u64) -> Self {
        let (untold, untold_bytes) = (AtomicUsize::default(), AtomicUsize::default());
        Self { inner: Arc::new(Inner { redis, now_ms, untold, untold_bytes }) }
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
        if self.untold.fetch_add(1, Ordering::Relaxed) >= UNTOLD_MAX {
            self.untold.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let End::Answered(answer) = end else { return Some(end) };
        let bytes = answer.bytes();
        if self.untold_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= UNTOLD_BYTES {
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
