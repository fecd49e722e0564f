//! The turns of a job: it computes while a thread of the pool stands aside for it.
//!
//! A search has state that borrows from itself (prices, lines drawn from them, a population), so it keeps a thread and a
//! stack. To be scheduled like every other calculation it puts a place holder into the pool's queue of searches; the
//! thread of the pool that comes to it waits until the turn, [`TURN`] long, is given back. So never more threads compute
//! than the pool has, and requests go before. Cost: two wake-ups a turn, about one in a hundred of it.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value as Json;
use tokio::sync::watch;

use super::record::{Record, Status};
use crate::pool::{Lane, Pool, Scratch};

/// How long a job computes before it lets others.
const TURN: Duration = Duration::from_millis(4);
/// How often progress is told.
const TOLD: Duration = Duration::from_millis(100);
/// Wait for a place in the queue of searches; there are more places than jobs, so this does not happen.
const AGAIN: Duration = Duration::from_millis(1);

/// The best combination so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Leader {
    pub(crate) parameters: Json,
    pub(crate) score: Option<f64>,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Progress {
    pub(crate) status: Status,
    pub(crate) done: u64,
    pub(crate) per_s: f64,
    pub(crate) best: Option<Leader>,
}

impl Progress {
    pub(super) fn of(record: &Record) -> Self {
        Self { status: record.status, done: record.done, per_s: record.combinations_per_s, best: None }
    }
}

/// A job's way of asking whether to go on.
pub(crate) struct Pace<'a> {
    pool: &'a Pool,
    ended: &'a dyn Fn() -> bool,
    progress: &'a watch::Sender<Progress>,
    began: Instant,
    told: Instant,
    turn: Option<Turn>,
    done: u64,
    best: Option<Leader>,
}

/// A thread of the pool stands aside until this is dropped.
struct Turn {
    since: Instant,
    _release: SyncSender<()>,
}

impl Turn {
    fn take(pool: &Pool) -> Option<Self> {
        loop {
            let (grant, granted) = sync_channel::<()>(1);
            let (release, released) = sync_channel::<()>(1);
            let stand_aside = move |_: &mut Scratch| {
                if grant.send(()).is_ok() {
                    let _given_back = released.recv();
                }
            };
            if pool.spawn(Lane::Search, stand_aside).is_ok() {
                granted.recv().ok()?;
                return Some(Self { since: Instant::now(), _release: release });
            }
            std::thread::sleep(AGAIN);
        }
    }
}

impl<'a> Pace<'a> {
    pub(super) fn begin(
        pool: &'a Pool,
        ended: &'a dyn Fn() -> bool,
        progress: &'a watch::Sender<Progress>,
    ) -> Self {
        let now = Instant::now();
        Self { pool, ended, progress, began: now, told: now, turn: None, done: 0, best: None }
    }

    /// Counts what was done since the last time, with what is best now, and waits for a turn; whether to go on.
    pub(crate) fn go(&mut self, done: u64, best: impl FnOnce() -> Option<Leader>) -> bool {
        self.done += done;
        let now = Instant::now();
        if now.duration_since(self.told) >= TOLD {
            if let Some(best) = best() {
                self.best = Some(best);
            }
            self.told = now;
            self.publish();
        }
        if (self.ended)() {
            return false;
        }
        if self.turn.as_ref().is_some_and(|turn| now.duration_since(turn.since) < TURN) {
            return true;
        }
        self.turn = None;
        self.turn = Turn::take(self.pool);
        self.turn.is_some() && !(self.ended)()
    }

    /// Tells how far it is.
    pub(crate) fn publish(&self) {
        let seconds = self.began.elapsed().as_secs_f64();
        let per_s = if seconds > 0.0 { self.done as f64 / seconds } else { 0.0 };
        self.progress.send_modify(|progress| {
            progress.done = self.done;
            progress.per_s = per_s;
            progress.best.clone_from(&self.best);
        });
    }
}
