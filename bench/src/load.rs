//! The generator: drives one address over keep-alive connections, open or closed loop, from one thread.
//!
//! Open loop: slots are due by [`Schedule`], whatever the server does. A due slot goes to the connection
//! idle longest, or waits in a queue when all are busy; its latency always counts from the
//! intended time, so a stalled server is charged for every request it kept waiting, sent or not. Send
//! lag is how late the generator itself looked at a slot: its own error, never the server's.
//! Closed loop: each connection sends its next request when the answer to the last one is whole.
//! With an audience ([`crate::audience`]) what counts is what subscribers get: latency is that of each delivery, and
//! in the closed loop a connection also waits until the subscribers are near.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::audience::{Audience, Ear, Hearing};
use crate::connection::{connect, connect_all};
use crate::figures::new_histogram;
use crate::pacer::{Alarm, Schedule};
use crate::question::Request;
use crate::voice::{Answered, Expects};

/// LIMIT: slots waiting for a connection; more are counted as dropped.
const BACKLOG_MAX: usize = 100_000;
/// The CPU account opens this long before the recorded window, so that reading /proc delays no recorded slot.
const ACCOUNT_LEAD: Duration = Duration::from_millis(20);
/// How long answers may come in after the last slot.
const DRAIN: Duration = Duration::from_secs(2);

/// Whom to ask, with what, and the answer that counts as right.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub address: SocketAddr,
    pub request: Request,
    pub expects: Expects,
    /// What a connection says first, and how the answer to it ends.
    pub greeting: Option<(String, &'static [u8])>,
    /// Who hears of what is stored.
    pub audience: Option<Audience>,
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

/// Requests that did not end as they should, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    /// Answered with another status than 2xx.
    pub status: u64,
    /// Answered 2xx with a body of the wrong length.
    pub body: u64,
    /// Connection closed, reset, or not HTTP.
    pub broken: u64,
    /// Never answered before the drain ended.
    pub unanswered: u64,
    /// Never sent: the queue was full, or the generator did not come to it.
    pub dropped: u64,
}

impl Failures {
    /// All kinds together.
    pub(crate) fn total(&self) -> u64 {
        self.status + self.body + self.broken + self.unanswered + self.dropped
    }
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

#[derive(Debug, Clone, Copy)]
struct Flight {
    intended_ns: u64,
    sent_ns: u64,
}

struct State {
    epoch: Instant,
    pace: Pace,
    record_from_ns: u64,
    request: Request,
    expects: Expects,
    hearing: Option<Hearing>,
    streams: Vec<Rc<TcpStream>>,
    flights: Vec<Option<Flight>>,
    idle: VecDeque<usize>,
    backlog: VecDeque<u64>,
    stopping: bool,
    /// Slots that have not come yet; a generator that runs late owes them after the window's end.
    slots_left: u64,
    answered: u64,
    latency: Histogram<u64>,
    service: Histogram<u64>,
    lag: Histogram<u64>,
    failures: Failures,
    complaint: Option<String>,
}

type Shared = Rc<RefCell<State>>;

/// Runs `plan` against `target`; `account` is called at both ends of the measured time. Must run inside
/// a `LocalSet`. An error means that nothing could be measured, not that requests failed.
pub(crate) async fn drive<S>(
    target: &Target,
    plan: Plan,
    mut account: impl FnMut() -> S,
) -> anyhow::Result<Outcome<S>> {
    let streams = connect_all(target, plan.connections).await?;
    let ears = match &target.audience {
        Some(audience) => audience.gather(target.address).await?,
        None => Vec::new(),
    };
    let shared = Rc::new(RefCell::new(State::new(target, plan, streams)?));
    let mut tasks = JoinSet::new();
    for id in 0..plan.connections as usize {
        tasks.spawn_local(converse(Rc::clone(&shared), id, target.clone()));
    }
    for ear in ears {
        tasks.spawn_local(attend(Rc::clone(&shared), ear));
    }
    match plan.pace {
        Pace::Open(rate) => {
            let span_ns = u64::try_from((plan.warmup + plan.window).as_nanos())?;
            let schedule = Schedule::new(rate, span_ns);
            shared.borrow_mut().slots_left = schedule.slots();
            tasks.spawn_local(pace_slots(Rc::clone(&shared), schedule));
        }
        Pace::Closed => shared.borrow_mut().start_all(),
    }
    let epoch = shared.borrow().epoch;
    tokio::time::sleep_until((epoch + plan.warmup.saturating_sub(ACCOUNT_LEAD)).into()).await;
    let (first, first_answered, first_at) = (account(), shared.borrow().counted(), Instant::now());
    tokio::time::sleep_until((epoch + plan.warmup + plan.window).into()).await;
    let (elapsed, answered) = (first_at.elapsed(), shared.borrow().counted() - first_answered);
    let last = account();
    drain(&shared, matches!(plan.pace, Pace::Closed)).await;
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
        let now_ns = state.now_ns();
        match heard {
            Ok(()) => state.hear(&mut ear, now_ns),
            Err(fault) => {
                state.failures.broken += 1;
                state.complain(|| format!("a subscriber's stream: {fault}"));
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

/// Reads answers on connection `id`, reconnecting when it breaks, until the measurement ends.
async fn converse(shared: Shared, id: usize, target: Target) -> anyhow::Result<()> {
    loop {
        let stream = Rc::clone(&shared.borrow().streams[id]);
        let fault = read_answers(&shared, id, &stream).await;
        shared.borrow_mut().broken(id, &fault);
        let fresh = connect(&target, id).await.inspect_err(|error| {
            shared.borrow_mut().complain(|| format!("{error:#}"));
        })?;
        let mut state = shared.borrow_mut();
        state.streams[id] = Rc::new(fresh);
        state.next(id);
    }
}

/// Reads answers until the connection breaks; says why.
async fn read_answers(shared: &Shared, id: usize, stream: &TcpStream) -> String {
    let mut buffer = Vec::with_capacity(16 * 1024);
    let expects = shared.borrow().expects;
    loop {
        if let Err(error) = stream.readable().await {
            return error.to_string();
        }
        match stream.try_read_buf(&mut buffer) {
            Ok(0) => return "closed by the server".into(),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return error.to_string(),
        }
        match expects.read(&buffer) {
            Ok(None) => {}
            Ok(Some(found)) if found.response.used_bytes < buffer.len() => {
                return "bytes after the answer".into();
            }
            Ok(Some(found)) => {
                buffer.clear();
                shared.borrow_mut().answer(id, found);
                if found.response.close {
                    return "closed by the server".into();
                }
            }
            Err(error) => return error.to_string(),
        }
    }
}

/// Waits until every slot is answered, at most [`DRAIN`]; closed loop just stops sending.
async fn drain(shared: &Shared, closed: bool) {
    shared.borrow_mut().stopping = closed;
    let deadline = Instant::now() + DRAIN;
    while shared.borrow().outstanding() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl State {
    fn new(target: &Target, plan: Plan, streams: Vec<Rc<TcpStream>>) -> anyhow::Result<Self> {
        let connections = streams.len();
        Ok(Self {
            epoch: Instant::now(),
            pace: plan.pace,
            record_from_ns: u64::try_from(plan.warmup.as_nanos())?,
            request: target.request.clone(),
            expects: target.expects,
            hearing: target.audience.as_ref().map(Audience::hearing),
            streams,
            flights: vec![None; connections],
            idle: (0..connections).collect(),
            backlog: VecDeque::new(),
            stopping: false,
            slots_left: 0,
            answered: 0,
            latency: new_histogram(),
            service: new_histogram(),
            lag: new_histogram(),
            failures: Failures::default(),
            complaint: None,
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn start_all(&mut self) {
        while let Some(id) = self.idle.pop_front() {
            let now_ns = self.now_ns();
            self.send(id, now_ns);
        }
    }

    /// An open-loop slot has come.
    fn due(&mut self, intended_ns: u64, now_ns: u64) {
        self.slots_left -= 1;
        if intended_ns >= self.record_from_ns {
            self.lag.saturating_record(now_ns - intended_ns);
        }
        if let Some(id) = self.idle.pop_front() {
            self.send(id, intended_ns);
        } else if self.backlog.len() < BACKLOG_MAX {
            self.backlog.push_back(intended_ns);
        } else {
            self.failures.dropped += 1;
            self.complain(|| format!("more than {BACKLOG_MAX} requests waited for a connection"));
        }
    }

    fn send(&mut self, id: usize, intended_ns: u64) {
        let sent_ns = self.now_ns();
        self.flights[id] = Some(Flight { intended_ns, sent_ns });
        // At most one request is in flight, so the socket's buffer has room; anything else shows up as a
        // broken connection in its reader.
        let request = self.request.next(id, intended_ns);
        let sent = self.streams[id].try_write(request);
        if !matches!(sent, Ok(bytes) if bytes == request.len()) {
            self.complain(|| format!("send gave {sent:?}"));
        }
    }

    fn answer(&mut self, id: usize, found: Answered) {
        let response = found.response;
        let now_ns = self.now_ns();
        let Some(flight) = self.flights[id].take() else {
            self.failures.broken += 1;
            return self.complain(|| "an answer came without a request".into());
        };
        self.answered += 1;
        if let Some(hearing) = &mut self.hearing {
            hearing.stored();
        } else {
            self.record(flight, now_ns);
        }
        if !(200..300).contains(&response.status) {
            self.failures.status += 1;
            self.complain(|| format!("status {}", response.status));
        } else if !found.right {
            self.failures.body += 1;
            self.complain(|| format!("not the right answer, of {} bytes", response.body_bytes));
        }
        if !response.close {
            self.next(id);
        }
    }

    fn record(&mut self, flight: Flight, now_ns: u64) {
        if flight.intended_ns >= self.record_from_ns {
            self.latency.saturating_record(now_ns - flight.intended_ns);
            self.service.saturating_record(now_ns - flight.sent_ns);
        }
    }

    /// What counts: deliveries with an audience, else answers.
    fn counted(&self) -> u64 {
        self.hearing.as_ref().map_or(self.answered, Hearing::heard)
    }

    /// Takes in what a subscriber has got.
    fn hear(&mut self, ear: &mut Ear, now_ns: u64) {
        let Some(hearing) = &mut self.hearing else { return };
        let (latency, from_ns) = (&mut self.latency, self.record_from_ns);
        hearing.take(ear, |intended_ns| {
            if intended_ns >= from_ns {
                latency.saturating_record(now_ns.saturating_sub(intended_ns));
            }
        });
        if self.pace == Pace::Closed && !self.stopping && self.is_near() {
            self.start_all();
        }
    }

    /// Whether subscribers are near what is stored.
    fn is_near(&self) -> bool {
        self.hearing.as_ref().is_none_or(Hearing::is_near)
    }

    /// Connection `id` is free: it takes the next slot, if there is one.
    fn next(&mut self, id: usize) {
        match self.pace {
            Pace::Closed if !self.stopping && self.is_near() => {
                let now_ns = self.now_ns();
                self.send(id, now_ns);
            }
            Pace::Open(_) if !self.backlog.is_empty() => {
                if let Some(intended_ns) = self.backlog.pop_front() {
                    self.send(id, intended_ns);
                }
            }
            _ => self.idle.push_back(id),
        }
    }

    fn broken(&mut self, id: usize, fault: &str) {
        self.idle.retain(|other| *other != id);
        if let Some(flight) = self.flights[id].take() {
            let now_ns = self.now_ns();
            self.record(flight, now_ns);
            self.failures.broken += 1;
            self.complain(|| fault.to_owned());
        }
    }

    fn complain(&mut self, words: impl FnOnce() -> String) {
        self.complaint.get_or_insert_with(words);
    }

    fn outstanding(&self) -> bool {
        self.slots_left > 0
            || !self.backlog.is_empty()
            || self.flights.iter().any(Option::is_some)
            || self.hearing.as_ref().is_some_and(|hearing| hearing.missing() > 0)
    }

    fn finish<S>(mut self, answered: u64, elapsed: Duration, accounts: (S, S)) -> Outcome<S> {
        let now_ns = self.now_ns();
        let waiting: Vec<Flight> = self.flights.iter().flatten().copied().collect();
        let queued = self.backlog.iter().map(|&intended_ns| Flight { intended_ns, sent_ns: now_ns });
        for flight in waiting.into_iter().chain(queued.collect::<Vec<_>>()) {
            // Its true latency is longer still; leaving it out would hide the worst.
            self.record(flight, now_ns);
            self.failures.unanswered += 1;
            self.complain(|| "no answer before the drain ended".into());
        }
        let missing = self.hearing.as_ref().map_or(0, Hearing::missing);
        if missing > 0 {
            self.failures.unanswered += missing;
            self.complain(|| "stored events did not reach every subscriber before the drain ended".into());
        }
        if self.slots_left > 0 {
            self.failures.dropped += self.slots_left;
            self.complain(|| "the generator fell behind its schedule".into());
        }
        Outcome {
            latency: self.latency,
            service: self.service,
            lag: self.lag,
            failures: self.failures,
            complaint: self.complaint,
            answered,
            each: self.hearing.as_ref().map_or(1, Hearing::each),
            elapsed,
            accounts,
        }
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
