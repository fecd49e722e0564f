//! Idempotency keys: who holds one, and what its request was answered.
//!
//! A claim returns once it is recorded: on the disk, or in the Redis that several edges share. Where Redis is
//! configured it is the only store: a claim that some edges find and others do not would be worth nothing, and two
//! stores that disagree have no judge. What a record means is decided by `sluice_policy::idempotency`.
//!
//! **Local**: one thread writes (`writer`). Whatever waits while a commit is under way goes into the next one, so
//! many requests share one sync. A record of a process that is gone counts as unknown: records carry the number of
//! their process, so nothing is rewritten when the ledger is opened after a crash.
//! **Handover**: a process that yields closes its ledger; from then on its claims and results go to its successor
//! over a socket (`relay`), which counts the predecessor's requests as under way for as long as that is open.
//! **Redis**: `shared`.
//!
//! LIMIT: [`RECORDS_MAX`] records, [`BYTES_MAX`] bytes of answers, [`CLAIMS_MAX`] claims that wait, each for
//! [`CLAIM_WITHIN`], 16,384 requests at once that hold a key. A full store refuses claims; of an answer for which there is no room the status is kept. Nothing
//! that counts is ever evicted.

mod record;
mod relay;
mod shared;
mod table;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sluice_policy::idempotency::{Answer, End, Fingerprint, KeyId, Owner, Verdict};
use sluice_schema::RedisUrl;
use thiserror::Error;
use tokio::runtime::Handle;

use crate::Ledger;
use crate::redis::{Redis, RedisError};

use shared::SharedKeys;
use writer::LocalKeys;

/// LIMIT: records on the disk.
pub const RECORDS_MAX: u64 = 1_000_000;
/// LIMIT: bytes of answers on the disk.
pub const BYTES_MAX: u64 = 256 << 20;
/// LIMIT: claims that wait for the disk.
pub const CLAIMS_MAX: usize = 8192;
/// LIMIT: requests of one process that hold a key of its ledger at once.
pub(crate) const HELD_MAX: usize = 16_384;
/// How long a claim may take.
pub const CLAIM_WITHIN: Duration = Duration::from_secs(2);

/// A key that a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The key.
    pub id: KeyId,
    /// The request.
    pub fingerprint: Fingerprint,
    /// Past this wall time nobody waits for its answer, milliseconds since the epoch.
    pub until_ms: u64,
    /// How long the key is kept.
    pub ttl: Duration,
}

/// What a request that wants a key is to do.
#[derive(Debug)]
pub enum Claimed {
    /// Go on: the key is held until this is finished or dropped.
    Held(Claim),
    /// A copy of it is under way.
    InFlight,
    /// A copy of it was sent, and nobody knows what became of it.
    Unknown,
    /// The key belongs to another request.
    Mismatch,
    /// It was answered before.
    Replay(Answer),
}

/// Why a key could not be claimed; nothing may be sent then.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The ledger cannot be written.
    #[error("the ledger cannot keep the key: {0}")]
    Ledger(String),
    /// There is no room.
    #[error("the store of idempotency keys is full")]
    Full,
    /// Too many wait already.
    #[error("too many requests wait for the store of idempotency keys, or hold one")]
    Busy,
    /// The store did not answer in time.
    #[error("the store of idempotency keys did not answer within {CLAIM_WITHIN:?}")]
    Late,
    /// This process has handed over, and its successor does not answer.
    #[error("the successor of this process does not answer for idempotency keys")]
    HandedOver,
    /// Redis failed.
    #[error("the shared store of idempotency keys failed")]
    Redis(#[from] RedisError),
    /// What lies under the key was written by a later version.
    #[error("the record of an idempotency key cannot be read")]
    Unreadable,
}

/// The idempotency keys of an edge. Clones share them.
#[derive(Clone, Debug)]
pub struct Keys {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    run: u64,
    requests: AtomicU64,
    now_ms: fn() -> u64,
    handle: Handle,
    local: LocalKeys,
    shared: RwLock<Option<Arc<SharedKeys>>>,
}

impl Keys {
    /// The keys in a ledger, which may be closed yet. `run` is a number by chance that no other process has, `now_ms`
    /// the wall clock, milliseconds since the epoch; a shared store is spoken to on the runtime of `handle`.
    ///
    /// # Errors
    /// The thread that writes cannot be started.
    pub fn start(
        ledger: Arc<Ledger>,
        run: u64,
        now_ms: fn() -> u64,
        handle: Handle,
    ) -> std::io::Result<Self> {
        let local = LocalKeys::start(ledger, run, now_ms)?;
        let (requests, shared) = (AtomicU64::default(), RwLock::default());
        Ok(Self { inner: Arc::new(Inner { run, requests, now_ms, handle, local, shared }) })
    }

    /// From now on the keys are kept in this Redis, or in the ledger. Requests under way finish where they began.
    ///
    /// # Errors
    /// The address is none that the client understands; nothing has changed then.
    pub fn keep_in(&self, url: Option<&RedisUrl>) -> Result<(), RedisError> {
        let mut shared = self.inner.shared.write().unwrap_or_else(PoisonError::into_inner);
        if shared.as_ref().map(|keys| keys.url()) == url {
            return Ok(());
        }
        *shared = match url {
            None => None,
            Some(url) => {
                let redis = Redis::new(url, self.inner.handle.clone())?;
                Some(Arc::new(SharedKeys::new(redis, self.inner.now_ms)))
            }
        };
        Ok(())
    }

    fn shared(&self) -> Option<Arc<SharedKeys>> {
        self.inner.shared.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the shared store answered when it was last asked; `None` without one.
    pub fn is_shared_well(&self) -> Option<bool> {
        self.shared().map(|shared| shared.is_well())
    }

    /// Records on the disk, as last counted.
    pub fn records(&self) -> u64 {
        self.inner.local.records()
    }

    /// Claims a key for a request, or says what became of the one that holds it. A claim is recorded when this
    /// returns; one that nobody waits for any more is given back.
    ///
    /// # Errors
    /// [`KeysError`]; the request must not be sent then.
    pub async fn claim(&self, wanted: Wanted) -> Result<Claimed, KeysError> {
        let request = self.inner.requests.fetch_add(1, Ordering::Relaxed);
        let owner = Owner { run: self.inner.run, request };
        let (verdict, place) = match self.shared() {
            Some(shared) => {
                let (verdict, held) = shared.claim(&wanted, owner).await?;
                (verdict, Place::Shared(shared, held))
            }
            None => (self.inner.local.claim(wanted, owner).await?, Place::Local(self.clone())),
        };
        Ok(match verdict {
            Verdict::Claim => {
                let id = wanted.id;
                Claimed::Held(Claim { place: Some(place), id, owner, sent: false, status: None })
            }
            Verdict::InFlight => Claimed::InFlight,
            Verdict::Unknown => Claimed::Unknown,
            Verdict::Mismatch => Claimed::Mismatch,
            Verdict::Replay(answer) => Claimed::Replay(answer),
        })
    }

    /// Waits until a shared store has been told every result, for a bounded time.
    pub async fn settle(&self, within: Duration) {
        let Some(shared) = self.shared() else { return };
        let told = async {
            while shared.untold() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // What is not told by then stays in flight until its lease is over.
        drop(tokio::time::timeout(within, told).await);
    }

    /// What was told so far is written; what follows waits for [`Self::resume`] or [`Self::relay`]. Returns the
    /// processes whose requests a successor must count as under way. Blocks for a disk write.
    pub fn yield_up(&self) -> Vec<u64> {
        self.inner.local.yield_up()
    }

    /// Writes again.
    pub fn resume(&self) {
        self.inner.local.resume();
    }

    /// Sends what follows to the successor, which listens in the ledger's folder.
    pub fn relay(&self) {
        self.inner.local.relay();
    }

    /// Answers for the requests of these processes, of which the first is the predecessor: listens for it in the
    /// ledger's folder. They count as gone once it is, or when it does not come.
    ///
    /// # Errors
    /// The socket cannot be made; then they count as gone.
    pub fn adopt(&self, runs: &[u64]) -> std::io::Result<()> {
        self.inner.local.adopt(runs)
    }
}

enum Place {
    Local(Keys),
    /// With what lies in the store.
    Shared(Arc<SharedKeys>, Vec<u8>),
}

/// A key that is held for a request. Dropped without an end it tells what it knows: the answer's status where there
/// was one, unknown where the request was sent, else that the key is free.
pub struct Claim {
    place: Option<Place>,
    id: KeyId,
    owner: Owner,
    sent: bool,
    status: Option<u16>,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("owner", &self.owner).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Claim {
    /// A byte of the request may have reached an upstream, or none did after all.
    pub fn set_sent(&mut self, sent: bool) {
        self.sent = sent;
    }

    /// An upstream answered with this status; its body may still break off.
    pub fn set_status(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// The request has its answer.
    pub fn finish(mut self, answer: Answer) {
        self.end(End::Answered(answer));
    }

    fn end(&mut self, end: End) {
        match self.place.take() {
            Some(Place::Local(keys)) => keys.inner.local.finish(self.id, self.owner, end),
            Some(Place::Shared(shared, held)) => shared.finish(self.id, held, self.owner, end),
            None => {}
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end(End::without_answer(self.status, self.sent));
    }
}

#[cfg(test)]
mod tests;
