//! The task that makes the calls which leases ask for.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_policy::limit::lease::{Ask, Terms};
use sluice_policy::limit::leases::Due;
use sluice_policy::time::Nanos;
use tokio::time::{Instant, sleep, sleep_until};

use super::store::{Call, Store};
use super::{BATCH_MAX, Common, HURRIED, PAUSE_MAX, PAUSE_MIN, ROUND, Watch};
use crate::redis::RedisError;

/// Sharing that lasted so long begins with the shortest pause when it ends.
const WELL_AFTER: Duration = Duration::from_secs(10);

pub(super) struct Keeper {
    common: Arc<Common>,
    store: Store,
    now: fn() -> Nanos,
    watch: Arc<dyn Watch>,
    /// Leases by when they lapse, each once.
    watched: VecDeque<(Nanos, Due)>,
}

impl Keeper {
    pub(super) fn new(common: Arc<Common>, store: Store, now: fn() -> Nanos, watch: Arc<dyn Watch>) -> Self {
        Self { common, store, now, watch, watched: VecDeque::new() }
    }

    /// Shares while Redis answers, and tries to while it does not.
    pub(super) async fn keep(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let failed = match self.probe().await {
                Ok(()) => {
                    let since = Instant::now();
                    self.begin();
                    let Err(failed) = self.share().await;
                    if since.elapsed() > WELL_AFTER {
                        pause = PAUSE_MIN;
                    }
                    failed
                }
                Err(failed) => failed,
            };
            self.end(&failed);
            sleep(with_chance(pause)).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    /// A call that writes, as those do that follow, under a name that is nobody's.
    async fn probe(&mut self) -> Result<(), RedisError> {
        let call = Call {
            name: [0; 16],
            terms: Terms { requests: 1_000, per_us: 1_000_000, capacity: 1_000 },
            ask: Ask { owed: 1, want: 0 },
        };
        let answered = self.store.call(&self.common.redis, &[call]).await;
        self.watch.called(1, answered.is_ok());
        answered.map(drop)
    }

    fn begin(&mut self) {
        self.common.leases.forget();
        self.common.shares.store(true, Ordering::Relaxed);
        self.watch.shares(None);
    }

    fn end(&mut self, why: &RedisError) {
        // From here on no lease is taken; what those hold that are taken in this moment is forgotten at the start.
        self.common.shares.store(false, Ordering::Relaxed);
        self.common.leases.forget();
        self.watched.clear();
        self.watch.shares(Some(why));
    }

    /// Rounds, until one fails.
    async fn share(&mut self) -> Result<Infallible, RedisError> {
        loop {
            let started = Instant::now();
            self.look_after_leases();
            let due = self.common.leases.due(BATCH_MAX);
            if due.is_empty() {
                self.wait().await;
            } else {
                self.round(due).await?;
                self.pause(started).await;
            }
        }
    }

    async fn wait(&self) {
        let Some((lapses_at, _)) = self.watched.front() else { return self.common.wake.notified().await };
        let lapses_in = lapses_at.since((self.now)());
        tokio::select! {
            () = self.common.wake.notified() => {}
            () = sleep(lapses_in) => {}
        }
    }

    /// Until the next round begins: sooner where somebody waits for it.
    async fn pause(&self, started: Instant) {
        sleep_until(started + HURRIED).await;
        let hurried = async {
            while self.common.leases.waiting() == 0 {
                self.common.hurry.notified().await;
            }
        };
        tokio::select! {
            () = hurried => {}
            () = sleep_until(started + ROUND) => {}
        }
    }

    async fn round(&mut self, due: Vec<Due>) -> Result<(), RedisError> {
        let now = (self.now)();
        let asked = due.into_iter().filter_map(|due| {
            let (name, ask) = self.common.leases.ask(&due, now)?;
            Some((due, Call { name, terms: due.terms, ask }))
        });
        let (due, calls): (Vec<Due>, Vec<Call>) = asked.unzip();
        let answered = self.store.call(&self.common.redis, &calls).await;
        self.watch.called(calls.len(), answered.is_ok());
        let now = (self.now)();
        for (due, granted) in due.iter().zip(answered?) {
            let answered = self.common.leases.answer(due, granted, now);
            for (wakes, taken) in answered.decided {
                // One that has left meanwhile is counted as one that leaves a moment later.
                wakes.send(taken).ok();
            }
            self.watched.extend(answered.lapses_at.map(|lapses_at| (lapses_at, *due)));
        }
        Ok(())
    }

    /// Leases last equally long, so the first to lapse is in front; one that was renewed may be seen a lease's time late.
    fn look_after_leases(&mut self) {
        let now = (self.now)();
        while let Some((_, due)) = self.watched.pop_front_if(|(lapses_at, _)| *lapses_at <= now) {
            if let Some(later) = self.common.leases.watch(&due, now) {
                self.watched.push_back((later, due));
            }
        }
    }
}

/// Between three quarters of a pause and all of it, so that edges do not come back in step.
fn with_chance(pause: Duration) -> Duration {
    let chance = RandomState::new().build_hasher().finish() % 256;
    pause.saturating_sub(pause / 4 * (chance as u32) / 256)
}
