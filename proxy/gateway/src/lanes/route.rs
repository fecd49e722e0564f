//! A route's way to its gate: its lane, how long its requests wait there, what is counted of them.

use std::sync::Arc;
use std::time::Duration;

use sluice_policy::concurrency::Ended;
use sluice_policy::gate::{Ask, Lane, Ticket};
use sluice_schema::{Concurrency, RateKey};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Crossing, Entered, Place};
use crate::meters::LaneMeters;

/// A route's way to its gate.
pub(crate) struct Approach {
    /// The gate; others may lead there too.
    pub(crate) crossing: Arc<Crossing>,
    /// The lane of its requests.
    pub(crate) lane: Lane,
    /// Who is one account.
    pub(crate) fair_key: RateKey,
    /// Its metrics.
    pub(crate) meters: LaneMeters,
    queue: usize,
    patience: Duration,
}

/// A request whose turn it is, until it is dropped or has left.
pub(crate) struct Pass {
    place: Option<Place>,
    approach: Arc<Approach>,
}

/// A request that waits for its turn.
pub(crate) struct Waiting {
    approach: Arc<Approach>,
    ticket: Ticket,
    woken: oneshot::Receiver<Place>,
    since: Instant,
    until: Instant,
    decided: bool,
}

/// What became of a request that came to its gate.
pub(crate) enum Came {
    /// It goes on.
    Goes(Pass),
    /// It waits.
    Waits(Waiting),
    /// There is neither room nor a place to wait.
    Shed,
}

/// Why a request does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Others waited with a better right.
    Full,
    /// Its time to wait was over.
    Late,
    /// Its client left.
    Left,
}

impl Approach {
    pub(super) fn new(
        crossing: Arc<Crossing>,
        lane: Lane,
        concurrency: &Concurrency,
        fair_key: RateKey,
        meters: LaneMeters,
    ) -> Arc<Self> {
        let (queue, patience) = (concurrency.queue, concurrency.queue_timeout);
        Arc::new(Self { crossing, lane, fair_key, meters, queue, patience })
    }

    /// The way of its requests to another's gate, in their own lane.
    pub(crate) fn toward(&self, arm: &Self) -> Arc<Self> {
        Arc::new(Self {
            crossing: Arc::clone(&arm.crossing),
            lane: self.lane,
            fair_key: self.fair_key.clone(),
            meters: self.meters.clone(),
            queue: arm.queue,
            patience: arm.patience,
        })
    }

    /// A request of an account arrives; it waits `left` at most.
    pub(crate) fn come(self: &Arc<Self>, account: u64, left: Option<Duration>) -> Came {
        let patience = left.map_or(self.patience, |left| left.min(self.patience));
        let ask = Ask { lane: self.lane, account, queue: self.queue, patience };
        match self.crossing.enter(&ask) {
            Entered::Runs(place) => Came::Goes(self.pass(place)),
            Entered::Waits(ticket, woken) => {
                self.meters.waiting.inc();
                let since = Instant::now();
                let approach = Arc::clone(self);
                let until = since + patience;
                Came::Waits(Waiting { approach, ticket, woken, since, until, decided: false })
            }
            Entered::Shed => {
                self.count_shed(Refused::Full);
                Came::Shed
            }
        }
    }

    /// Brings the gauge of its limit up to date.
    pub(crate) fn publish(&self) {
        self.meters.limit.set(self.crossing.shown().limit.into());
    }

    fn pass(self: &Arc<Self>, place: Place) -> Pass {
        self.meters.running.inc();
        Pass { place: Some(place), approach: Arc::clone(self) }
    }

    fn count_shed(&self, why: Refused) {
        self.crossing.count_shed(self.lane);
        let counter = if why == Refused::Late { &self.meters.late } else { &self.meters.full };
        counter.inc();
    }
}

impl Pass {
    /// The upstream has done its part.
    pub(crate) fn left(mut self, ended: Ended) {
        if let Some(place) = self.place.take() {
            place.left(ended);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.approach.meters.running.dec();
    }
}

impl Waiting {
    /// Waits for its turn, while the client stays: `gone` ends when it leaves.
    pub(crate) async fn turn(mut self, gone: impl Future<Output = ()>) -> Result<Pass, Refused> {
        let named = tokio::select! {
            biased;
            named = &mut self.woken => named.ok(),
            () = tokio::time::sleep_until(self.until) => {
                if self.give_up() {
                    return Err(self.refused(Refused::Late));
                }
                // It was named or turned away in this very moment.
                (&mut self.woken).await.ok()
            }
            () = gone => return Err(Refused::Left),
        };
        self.decided = true;
        match named {
            Some(place) => Ok(self.approach.pass(place)),
            None => Err(self.refused(Refused::Full)),
        }
    }

    /// Leaves the queue; false where it is no longer in it.
    fn give_up(&mut self) -> bool {
        self.decided = true;
        self.approach.crossing.abandon(self.ticket)
    }

    fn refused(&self, why: Refused) -> Refused {
        self.approach.count_shed(why);
        why
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.decided {
            self.give_up();
        }
        self.approach.meters.waiting.dec();
        self.approach.meters.wait_seconds.observe(self.since.elapsed().as_secs_f64());
    }
}
