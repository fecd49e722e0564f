//! Trials: what takes time here is not one answer but until something has come true.
//!
//! Ending a token: from the revocation's send until the edge refuses the token on a connection that stands. Opening:
//! from the share's send until the vault says that it serves. Trials are made one after the other on each of the
//! scenario's connections, as in a closed loop.

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::ask::{Desk, NAME};
use super::line::Line;
use crate::figures::new_histogram;
use crate::load::{Failures, Outcome, Plan, Timeline};
use crate::question::Question;
use crate::subject::{PATH, Running};
use crate::work::Work;

/// Between two looks at what is to come true.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// What has not come true by then does not.
const COME_TRUE: Duration = Duration::from_secs(30);
/// LIMIT: trials after which source addresses are used again.
const SOURCES: u32 = 1 << 20;

thread_local! {
    static TRIALS: Cell<u32> = const { Cell::new(0) };
}

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
    let desk = running.desk.as_ref().context("there is no vault")?;
    let round = |time| trials(plan.connections, time, || Trial::new(running, desk, work));
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
async fn trials(connections: u32, time: Duration, new: impl Fn() -> Trial) -> anyhow::Result<Tally> {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (trial, tally) = (new(), Rc::clone(&tally));
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
pub(super) enum Trial {
    Revoke { desk: Desk, edge: std::net::SocketAddr },
    Open { desk: Desk },
}

impl Trial {
    pub(super) fn new(running: &Running, desk: &Desk, work: Work) -> Self {
        match work {
            Work::Unseal { .. } => Self::Open { desk: desk.clone() },
            _ => Self::Revoke { desk: desk.clone(), edge: running.address },
        }
    }

    /// One trial; how long it took.
    pub(super) async fn once(&self) -> anyhow::Result<Duration> {
        match self {
            Self::Revoke { desk, edge } => revoked(desk, *edge).await,
            Self::Open { desk } => opened(desk).await,
        }
    }
}

/// A token is made, let in by the edge, ended, and refused.
async fn revoked(desk: &Desk, edge: std::net::SocketAddr) -> anyhow::Result<Duration> {
    let mut vault = Line::open(desk.address, None).await?;
    let body = json!({ "permissions": ["read"] });
    let made = said(&mut vault, desk, &desk.root, ("POST", &format!("/tokens/{NAME}")), &body).await?;
    let token = made["token"].as_str().context("no token was made")?;
    let bearer = format!("Bearer {token}");
    let request = Question::default().request(&edge.to_string(), PATH, Some(&bearer)).fresh().to_vec();
    let mut edge = Line::open(edge, Some(source())).await?;
    let status = edge.ask(&request).await?.status;
    ensure!(status == 200, "the edge answers {status} to a token that is good");
    let began = Instant::now();
    let wish = json!({ "token": token });
    said(&mut vault, desk, &desk.root, ("POST", "/tokens/revoke"), &wish).await?;
    loop {
        match edge.ask(&request).await?.status {
            401 => return Ok(began.elapsed()),
            200 if began.elapsed() < COME_TRUE => tokio::time::sleep(LOOK_EVERY).await,
            status => bail!("the edge answers {status} to a token that was revoked"),
        }
    }
}

/// The vault is closed, opened, and serves.
async fn opened(desk: &Desk) -> anyhow::Result<Duration> {
    let share = desk.share.as_deref().context("this vault does not open by a share")?;
    let mut line = Line::open(desk.address, None).await?;
    said(&mut line, desk, &desk.root, ("PUT", "/v1/sys/seal"), &json!({})).await?;
    let began = Instant::now();
    said(&mut line, desk, "", ("PUT", "/v1/sys/unseal"), &json!({ "key": share })).await?;
    let health = desk.written("", "GET", "/v1/sys/health", None);
    loop {
        match line.ask(&health).await?.status {
            200 => return Ok(began.elapsed()),
            _ if began.elapsed() < COME_TRUE => tokio::time::sleep(LOOK_EVERY).await,
            status => bail!("the vault says {status} of itself after it was opened"),
        }
    }
}

/// One call that must succeed; what is answered, null where it is no JSON.
async fn said(
    line: &mut Line,
    desk: &Desk,
    token: &str,
    (method, path): (&str, &str),
    body: &Value,
) -> anyhow::Result<Value> {
    let answer = line.ask(&desk.written(token, method, path, Some(body))).await?;
    let told = || String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)]).into_owned();
    ensure!((200..300).contains(&answer.status), "{method} {path}: status {}: {}", answer.status, told());
    Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

/// An address of this machine, another one for each trial: the edge looks at no credential of an address that failed
/// too often, and every trial ends with a failure.
fn source() -> Ipv4Addr {
    let number = TRIALS.get();
    TRIALS.set((number + 1) % SOURCES);
    let [_, high, middle, low] = (number + 256).to_be_bytes();
    Ipv4Addr::new(127, high + 1, middle, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_loopback_and_differ() {
        let found: std::collections::BTreeSet<_> = (0..1000).map(|_| source()).collect();
        assert!(found.len() == 1000 && found.iter().all(Ipv4Addr::is_loopback));
    }

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
