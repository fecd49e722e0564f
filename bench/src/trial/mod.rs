//! Trials: what takes time here is not one answer but until something has come true.
//!
//! Ending a token: from the revocation's send until the edge refuses the token on a connection that stands. Opening:
//! from the share's send until the vault says that it serves. Replaying: all that is stored is looked through for what a
//! filter lets pass. Coming back: from kill -9 of a store until it acknowledges an event. Reloading: from the signal
//! until a service that was added is routed. Trials are made one after the other on each of the scenario's connections,
//! as in a closed loop.

mod edge;
mod events;
mod vault;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use self::edge::Routes;
use self::events::Store;
use crate::figures::new_histogram;
use crate::load::{Failures, Outcome, Plan, Timeline};
use crate::subject::Running;
use crate::vault::Desk;
use crate::work::Work;

/// Between two looks at what is to come true.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// What has not come true by then does not.
const COME_TRUE: Duration = Duration::from_secs(30);
#[derive(Default)]
struct Tally {
    took: Vec<Duration>,
    failed: u64,
    complaint: Option<String>,
}

/// Makes trials for the plan's warm-up, then for its window; as [`crate::load::drive`], but closed-loop only. A trial
/// that has begun is finished, so that one that takes longer than the window is counted too.
pub(crate) async fn drive<S>(
    running: &Running,
    work: Work,
    plan: Plan,
    mut account: impl FnMut() -> S,
) -> anyhow::Result<Outcome<S>> {
    let round = |time| trials(plan.connections, time, || Trial::new(running, work));
    let warm = round(plan.warmup).await?;
    let (first, began) = (account(), Instant::now());
    let tally = round(plan.window).await?;
    let (last, elapsed) = (account(), began.elapsed());
    let latency = tally.histogram();
    Ok(Outcome {
        service: latency.clone(),
        answered: latency.len(),
        latency,
        lag: new_histogram(),
        timeline: Timeline::new(plan.window),
        // What did not come true in time; the complaint says what.
        failures: Failures { unanswered: warm.failed + tally.failed, ..Failures::default() },
        complaint: warm.complaint.or(tally.complaint),
        each: 1,
        elapsed,
        accounts: (first, last),
    })
}

/// On each connection one trial after the other, at least one, until the time is over.
async fn trials(
    connections: u32,
    time: Duration,
    new: impl Fn() -> anyhow::Result<Trial>,
) -> anyhow::Result<Tally> {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (trial, tally) = (new()?, Rc::clone(&tally));
        tasks.spawn_local(async move {
            loop {
                let outcome = trial.once().await;
                tally.borrow_mut().add(outcome);
                if Instant::now() >= until {
                    break;
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(tally.take())
}

impl Tally {
    fn add(&mut self, outcome: anyhow::Result<Duration>) {
        match outcome {
            Ok(took) => self.took.push(took),
            Err(error) => {
                self.failed += 1;
                self.complaint.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    fn histogram(&self) -> Histogram<u64> {
        let mut histogram = new_histogram();
        for took in &self.took {
            histogram.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        histogram
    }
}

/// What one connection tries.
pub(crate) enum Trial {
    Revoke { desk: Desk, edge: SocketAddr },
    Open { desk: Desk },
    Replay(Store),
    Restart(Store),
    Reload(Routes),
}

impl Trial {
    /// What `work` means at a subject.
    pub(crate) fn new(running: &Running, work: Work) -> anyhow::Result<Self> {
        let desk = || running.desk.clone().context("there is no vault");
        Ok(match work {
            Work::Unseal { .. } => Self::Open { desk: desk()? },
            Work::Revoke => Self::Revoke { desk: desk()?, edge: running.address },
            Work::Replay { events } => Self::Replay(Store::of(running, events)?),
            Work::Restart { events } => Self::Restart(Store::of(running, events)?),
            Work::Reload => Self::Reload(Routes::of(running)?),
            Work::Forward
            | Work::Publish { .. }
            | Work::Fanout { .. }
            | Work::Calculate { .. }
            | Work::Vault { .. } => {
                anyhow::bail!("this is no trial")
            }
        })
    }

    /// One trial; how long it took.
    pub(crate) async fn once(&self) -> anyhow::Result<Duration> {
        match self {
            Self::Revoke { desk, edge } => vault::revoked(desk, *edge).await,
            Self::Open { desk } => vault::opened(desk).await,
            Self::Replay(store) => store.replayed().await,
            Self::Restart(store) => store.restarted().await,
            Self::Reload(routes) => routes.reloaded().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_that_failed_has_no_time() {
        let mut tally = Tally::default();
        tally.add(Ok(Duration::from_millis(2)));
        tally.add(Err(anyhow::anyhow!("first")));
        tally.add(Err(anyhow::anyhow!("second")));
        let histogram = tally.histogram();
        assert!(histogram.len() == 1 && histogram.min() >= 1_990_000, "{}", histogram.min());
        assert_eq!((tally.failed, tally.complaint.as_deref()), (2, Some("first")));
    }
}
