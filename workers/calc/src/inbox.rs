//! Small requests that wait together are taken together.
//!
//! A thread that comes to serve takes the request that waits longest, and others that wait behind it, up to
//! [`TAKEN_MAX`] and its share of them where other threads will come too. Nothing waits for company: on an idle worker a
//! request is served alone and at once. Those that wish for the same are computed side by side ([`coalesce`]); the bits
//! are those of each alone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{Histogram, IntCounter};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::body::Incoming;
use crate::bounds::TAKEN_MAX;
use crate::coalesce;
use crate::error::Refusal;
use crate::indicators::{self, Answer};
use crate::negotiate::Format;
use crate::pool::{Full, Lane, Pool, Scratch};
use crate::series::Store;
use crate::series::source::Means;

/// Requests that wait, and what they are served with.
pub(crate) struct Inbox {
    waiting: Mutex<VecDeque<Ask>>,
    rows_max: usize,
    series: Arc<Store>,
    coalesced: IntCounter,
    cancelled: IntCounter,
    seconds: Histogram,
}

/// A request that waits.
struct Ask {
    incoming: Incoming,
    accepted: Option<Format>,
    room: OwnedSemaphorePermit,
    reply: oneshot::Sender<Result<Answer, Refusal>>,
}

impl Inbox {
    pub(crate) fn new(
        rows_max: usize,
        series: Arc<Store>,
        coalesced: IntCounter,
        cancelled: IntCounter,
        seconds: Histogram,
    ) -> Self {
        Self { waiting: Mutex::default(), rows_max, series, coalesced, cancelled, seconds }
    }

    /// Has a request served; `None` when computing it panicked. A client that leaves drops this, and its request is then
    /// not begun.
    pub(crate) async fn run(
        self: &Arc<Self>,
        pool: &Pool,
        incoming: Incoming,
        accepted: Option<Format>,
        room: OwnedSemaphorePermit,
    ) -> Result<Option<Result<Answer, Refusal>>, Full> {
        let (reply, answered) = oneshot::channel();
        self.enqueue(pool, Ask { incoming, accepted, room, reply })?;
        Ok(answered.await.ok())
    }

    fn enqueue(self: &Arc<Self>, pool: &Pool, ask: Ask) -> Result<(), Full> {
        let (own, threads) = (Arc::clone(self), pool.threads());
        // Under the lock, so that the job finds the request: there are never fewer jobs than requests.
        let mut waiting = self.lock();
        pool.spawn(Lane::Small, move |scratch| own.serve(threads, scratch))?;
        waiting.push_back(ask);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Ask>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves what waits: nothing, where another thread has taken it along.
    fn serve(&self, threads: usize, scratch: &mut Scratch) {
        let asks = self.take(threads);
        let means = Means { rows_max: self.rows_max, series: Some(&self.series) };
        let began = Instant::now();
        let mut groups: Vec<Group> = Vec::new();
        for Ask { incoming, accepted, room, reply } in asks {
            let prepared = indicators::prepare(incoming, accepted, means);
            drop(room);
            match prepared {
                Ok(prepared) => {
                    let group =
                        groups.iter_mut().find(|group| coalesce::is_one_kind(&group.asked[0], &prepared));
                    match group {
                        Some(group) => {
                            group.asked.push(prepared);
                            group.replies.push(reply);
                        }
                        None => groups.push(Group { asked: vec![prepared], replies: vec![reply] }),
                    }
                }
                Err(refusal) => self.reply(began, reply, Err(refusal)),
            }
        }
        for Group { asked, replies } in groups {
            self.coalesced.inc_by(asked.len() as u64 - 1);
            for (answer, reply) in coalesce::compute(&asked, scratch).into_iter().zip(replies) {
                self.reply(began, reply, answer);
            }
        }
    }

    fn reply(
        &self,
        began: Instant,
        reply: oneshot::Sender<Result<Answer, Refusal>>,
        answer: Result<Answer, Refusal>,
    ) {
        self.seconds.observe(began.elapsed().as_secs_f64());
        let _client_gone = reply.send(answer);
    }

    /// The requests that one thread serves now.
    fn take(&self, threads: usize) -> Vec<Ask> {
        let mut waiting = self.lock();
        let share = waiting.len().div_ceil(threads.max(1)).min(TAKEN_MAX);
        let mut asks: Vec<Ask> = waiting.drain(..share).collect();
        drop(waiting);
        let found = asks.len();
        asks.retain(|ask| !ask.reply.is_closed());
        self.cancelled.inc_by((found - asks.len()) as u64);
        asks
    }
}

/// Requests of one kind, and where their answers go.
struct Group {
    asked: Vec<indicators::Prepared>,
    replies: Vec<oneshot::Sender<Result<Answer, Refusal>>>,
}
