//! The generator: drives one address over keep-alive connections, open or closed loop, from one thread.
//!
//! Open loop: slots are due by [`Schedule`], whatever the server does. A due slot goes to the lane
//! idle longest, or waits in a queue when all are busy; its latency always counts from the
//! intended time, so a stalled server is charged for every request it kept waiting, sent or not. Send
//! lag is how late the generator itself looked at a slot: its own error, never the server's.
//! Closed loop: each lane sends its next request when the answer to the last one is whole.
//! A lane has one request in flight: a connection of HTTP/1.1, or one of the streams of a connection of HTTP/2.
//! With an audience ([`crate::audience`]) what counts is what subscribers get: latency is that of each delivery, and
//! in the closed loop a lane also waits until the subscribers are near.

mod failures;
mod link;
mod script;
mod state;
mod streams;
mod timeline;

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::audience::{Audience, Ear};
use crate::pacer::{Alarm, Schedule};
use crate::question::Request;
use crate::voice::{Expects, NUMBER};

use failures::Fault;
use state::{Lane, State};
use streams::Channel;

pub(crate) use failures::Failures;
pub(crate) use link::{Link, Place, Tls};
pub(crate) use script::Act;
pub(crate) use timeline::{Moment, Timeline};

/// The CPU account opens this long before the recorded window, so that reading /proc delays no recorded slot.
const ACCOUNT_LEAD: Duration = Duration::from_millis(20);
/// How long answers may come in after the last slot.
const DRAIN: Duration = Duration::from_secs(2);
/// Between two attempts to connect to a server that refuses.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// Whom to ask, with what, and the answer that counts as right.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub place: Place,
    /// Streams of HTTP/2 on each connection; none where HTTP/1.1, or something else, is spoken.
    pub streams: Option<u32>,
    /// What is asked in turn; at least one.
    pub asks: Vec<Ask>,
    /// What a connection says first, and how the answer to it ends.
    pub greeting: Option<(String, &'static [u8])>,
    /// Who hears of what is stored.
    pub audience: Option<Audience>,
    /// What happens meanwhile.
    pub script: Vec<Act>,
}

/// One request and its right answer.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub request: Request,
    pub expects: Expects,
    /// The status that counts as right; every 2xx without one.
    pub status: Option<u16>,
}

/// How the next request is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pace {
    /// At a constant rate a second.
    Open(u32),
    /// As fast as answers come.
    Closed,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub pace: Pace,
    pub connections: u32,
    pub warmup: Duration,
    pub window: Duration,
}

/// What one measurement saw. Histograms are in nanoseconds.
#[derive(Debug)]
pub(crate) struct Outcome<S> {
    /// From the intended send time to the whole answer.
    pub latency: Histogram<u64>,
    /// From the real send to the whole answer.
    pub service: Histogram<u64>,
    /// From the intended time to the generator's look at the slot (open loop only).
    pub lag: Histogram<u64>,
    /// The same latencies by when their requests were due.
    pub timeline: Timeline,
    pub failures: Failures,
    /// First failure in words.
    pub complaint: Option<String>,
    /// Answers (deliveries, with an audience) between the two account samples, and the time between them.
    pub answered: u64,
    /// Of these, how many a request causes.
    pub each: u64,
    pub elapsed: Duration,
    pub accounts: (S, S),
}

type Shared = Rc<RefCell<State>>;

impl Target {
    /// One request asked again and again, in the clear over HTTP/1.1 or what `place` speaks.
    pub(crate) fn of(place: Place, request: Request, expects: Expects) -> Self {
        Self::of_all(place, vec![Ask { request, expects, status: None }])
    }

    /// Several of them in turn.
    pub(crate) fn of_all(place: Place, asks: Vec<Ask>) -> Self {
        Self { place, streams: None, asks, greeting: None, audience: None, script: Vec::new() }
    }

    /// Connection `id`, ready for its first request.
    pub(crate) async fn connect(&self, id: usize) -> anyhow::Result<Link> {
        let greeting =
            self.greeting.as_ref().map(|(words, end)| (words.replace(NUMBER, &format!("{id:08x}")), *end));
        self.place.link(greeting.as_ref().map(|(words, end)| (words.as_str(), *end))).await
    }
}

/// Runs `plan` against `target`; `account` is called at both ends of the measured time. Must run inside
/// a `LocalSet`. An error means that nothing could be measured, not that requests failed.
pub(crate) async fn drive<S>(
    target: &Target,
    plan: Plan,
    mut account: impl FnMut() -> S,
) -> anyhow::Result<Outcome<S>> {
    let mut lanes = Vec::new();
    let mut channels = Vec::new();
    for id in 0..plan.connections as usize {
        let Some(streams) = target.streams else {
            lanes.push(Lane::Link(Rc::new(target.connect(id).await?)));
            continue;
        };
        channels.push(Rc::new(Channel::open(target).await?));
        lanes.extend((0..streams).map(|_| Lane::Stream(Rc::new(Notify::new()))));
    }
    let ears = match &target.audience {
        Some(audience) => audience.gather(&target.place).await?,
        None => Vec::new(),
    };
    let count = lanes.len();
    let shared = Rc::new(RefCell::new(State::new(target, plan, lanes)?));
    let mut tasks = JoinSet::new();
    for id in 0..count {
        let shared = Rc::clone(&shared);
        match target.streams {
            None => tasks.spawn_local(converse(shared, id, target.clone())),
            Some(streams) => {
                tasks.spawn_local(streams::converse(shared, id, Rc::clone(&channels[id / streams as usize])))
            }
        };
    }
    for ear in ears {
        tasks.spawn_local(attend(Rc::clone(&shared), ear));
    }
    match plan.pace {
        Pace::Open(rate) => {
            let span_ns = u64::try_from((plan.warmup + plan.window).as_nanos())?;
            let schedule = Schedule::new(rate, span_ns);
            shared.borrow_mut().expect_slots(schedule.slots());
            tasks.spawn_local(pace_slots(Rc::clone(&shared), schedule));
        }
        Pace::Closed => shared.borrow_mut().start_all(),
    }
    let epoch = shared.borrow().epoch();
    tokio::time::sleep_until((epoch + plan.warmup.saturating_sub(ACCOUNT_LEAD)).into()).await;
    let (first, first_answered, first_at) = (account(), shared.borrow().counted(), Instant::now());
    let mut end = pin!(tokio::time::sleep_until((epoch + plan.warmup + plan.window).into()));
    tokio::select! {
        // First: nothing may be to happen, and the generator so late that the window has ended.
        biased;
        played = script::play(&target.script, epoch + plan.warmup) => played?,
        () = &mut end => bail!("the window ended before all was done that is to happen in it"),
    }
    end.await;
    let (elapsed, answered) = (first_at.elapsed(), shared.borrow().counted() - first_answered);
    let last = account();
    drain(&shared).await;
    tasks.abort_all();
    // Aborted tasks report only that they were aborted.
    while tasks.join_next().await.is_some() {}
    let Ok(state) = Rc::try_unwrap(shared) else { bail!("a connection outlived its measurement") };
    Ok(state.into_inner().finish(answered, elapsed, (first, last)))
}

/// Listens on one subscriber's connection until it breaks, which counts as a failure.
async fn attend(shared: Shared, mut ear: Ear) -> anyhow::Result<()> {
    loop {
        let heard = ear.hear().await;
        let mut state = shared.borrow_mut();
        match heard {
            Ok(()) => state.hear(&mut ear),
            Err(fault) => {
                state.subscriber_lost(&fault.into());
                return Ok(());
            }
        }
    }
}

/// Sends every slot at its time; ends with the schedule.
async fn pace_slots(shared: Shared, schedule: Schedule) -> anyhow::Result<()> {
    let alarm = Alarm::new().context("create timer")?;
    let mut slot = 0;
    while let Some(intended_ns) = schedule.intended_ns(slot) {
        let now_ns = shared.borrow().now_ns();
        if now_ns < intended_ns {
            alarm.wait(intended_ns - now_ns).await?;
            continue;
        }
        shared.borrow_mut().due(intended_ns, now_ns);
        slot += 1;
        // A generator behind its schedule must still read answers.
        if slot % 64 == 0 {
            alarm.wait(0).await?;
        }
    }
    Ok(())
}

/// Reads answers on connection `id`, which is made anew when it breaks, until the measurement ends.
async fn converse(shared: Shared, id: usize, target: Target) -> anyhow::Result<()> {
    loop {
        let link = shared.borrow().link(id).context("no connection")?;
        let fault = read_answers(&shared, id, &link).await;
        shared.borrow_mut().broken(id, &fault);
        let fresh = loop {
            match target.connect(id).await {
                Ok(fresh) => break fresh,
                Err(error) => {
                    shared.borrow_mut().refused(&Fault::Refused(format!("{error:#}")));
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            }
        };
        shared.borrow_mut().mended(id, Some(fresh));
    }
}

/// Reads answers until the connection breaks; says why.
async fn read_answers(shared: &Shared, id: usize, link: &Link) -> Fault {
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        match link.receive(&mut buffer).await {
            Ok(0) => return Fault::Closed,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
        let expects = shared.borrow().expects(id);
        match expects.read(&buffer) {
            Ok(None) => {}
            Ok(Some(found)) if found.response.used_bytes < buffer.len() => {
                return Fault::Malformed("bytes after the answer".into());
            }
            Ok(Some(found)) => {
                buffer.clear();
                shared.borrow_mut().answer(id, found);
                if found.response.close {
                    return Fault::Closed;
                }
            }
            Err(error) => return Fault::Malformed(error.to_string()),
        }
    }
}

/// Waits until every slot is answered, at most [`DRAIN`]; closed loop just stops sending.
async fn drain(shared: &Shared) {
    shared.borrow_mut().stop();
    let deadline = Instant::now() + DRAIN;
    while shared.borrow().outstanding() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[cfg(test)]
mod protocol_tests;
#[cfg(test)]
mod tests;
