//! What the generator knows while it runs: which lane is free, what is in flight, and what came of it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use super::failures::{Failures, Fault};
use super::link::Link;
use super::timeline::Timeline;
use super::{Ask, Outcome, Pace, Plan, Target};
use crate::audience::{Audience, Ear, Hearing};
use crate::figures::new_histogram;
use crate::voice::{Answered, Expects};

/// LIMIT: slots waiting for a lane; more are counted as dropped.
const BACKLOG_MAX: usize = 100_000;

#[derive(Debug, Clone, Copy)]
struct Flight {
    intended_ns: u64,
    sent_ns: u64,
    ask: usize,
}

/// Where one request at a time is in flight.
#[derive(Debug)]
pub(super) enum Lane {
    /// A connection that is written to at once.
    Link(Rc<Link>),
    /// A stream of a shared connection, whose task is rung for.
    Stream(Rc<Notify>),
}

pub(super) struct State {
    epoch: Instant,
    pace: Pace,
    record_from_ns: u64,
    asks: Vec<Ask>,
    /// Requests sent, by which their turn goes.
    sent: usize,
    hearing: Option<Hearing>,
    lanes: Vec<Lane>,
    /// Lanes that have no connection just now.
    down: usize,
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
    timeline: Timeline,
    failures: Failures,
    complaint: Option<String>,
}

impl State {
    pub(super) fn new(target: &Target, plan: Plan, lanes: Vec<Lane>) -> anyhow::Result<Self> {
        let count = lanes.len();
        Ok(Self {
            epoch: Instant::now(),
            pace: plan.pace,
            record_from_ns: u64::try_from(plan.warmup.as_nanos())?,
            asks: target.asks.clone(),
            sent: 0,
            hearing: target.audience.as_ref().map(Audience::hearing),
            lanes,
            down: 0,
            flights: vec![None; count],
            idle: (0..count).collect(),
            backlog: VecDeque::new(),
            stopping: false,
            slots_left: 0,
            answered: 0,
            latency: new_histogram(),
            service: new_histogram(),
            lag: new_histogram(),
            timeline: Timeline::new(plan.window),
            failures: Failures::default(),
            complaint: None,
        })
    }

    pub(super) fn epoch(&self) -> Instant {
        self.epoch
    }

    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// So many slots will come.
    pub(super) fn expect_slots(&mut self, slots: u64) {
        self.slots_left = slots;
    }

    /// Nothing is begun any more but what is due already.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn start_all(&mut self) {
        while let Some(id) = self.idle.pop_front() {
            let now_ns = self.now_ns();
            self.send(id, now_ns);
        }
    }

    /// An open-loop slot has come.
    pub(super) fn due(&mut self, intended_ns: u64, now_ns: u64) {
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
        let ask = self.sent % self.asks.len();
        self.sent += 1;
        self.flights[id] = Some(Flight { intended_ns, sent_ns, ask });
        match &self.lanes[id] {
            Lane::Stream(bell) => bell.notify_one(),
            Lane::Link(link) => {
                // What cannot be sent shows up as a broken connection in its reader.
                if let Err(error) = link.send(self.asks[ask].request.next(id, intended_ns)) {
                    self.complain(|| format!("send gave {error}"));
                }
            }
        }
    }

    /// The bytes of the request in flight on lane `id`.
    pub(super) fn outgoing(&mut self, id: usize) -> Option<&[u8]> {
        let flight = self.flights[id]?;
        Some(self.asks[flight.ask].request.next(id, flight.intended_ns))
    }

    /// The connection of lane `id`.
    pub(super) fn link(&self, id: usize) -> Option<Rc<Link>> {
        match &self.lanes[id] {
            Lane::Link(link) => Some(Rc::clone(link)),
            Lane::Stream(_) => None,
        }
    }

    /// What rings when lane `id` has something to send.
    pub(super) fn bell(&self, id: usize) -> Option<Rc<Notify>> {
        match &self.lanes[id] {
            Lane::Stream(bell) => Some(Rc::clone(bell)),
            Lane::Link(_) => None,
        }
    }

    /// How an answer on lane `id` is read.
    pub(super) fn expects(&self, id: usize) -> Expects {
        self.asks[self.flights[id].map_or(0, |flight| flight.ask)].expects
    }

    /// The answer on lane `id` is whole.
    pub(super) fn answer(&mut self, id: usize, found: Answered) {
        let Some(flight) = self.flights[id].take() else {
            self.failures.malformed += 1;
            return self.complain(|| "an answer came without a request".into());
        };
        let (response, now_ns) = (found.response, self.now_ns());
        self.answered += 1;
        if let Some(hearing) = &mut self.hearing {
            hearing.stored();
        } else {
            self.record(flight, now_ns);
        }
        let expected = self.asks[flight.ask].status;
        if !expected.map_or((200..300).contains(&response.status), |status| status == response.status) {
            *self.failures.status.entry(response.status).or_default() += 1;
            self.failed(flight, || format!("status {}", response.status));
        } else if !found.right {
            self.failures.body += 1;
            self.failed(flight, || format!("not the right answer, of {} bytes", response.body_bytes));
        }
        if !response.close {
            self.next(id);
        }
    }

    fn record(&mut self, flight: Flight, now_ns: u64) {
        if let Some(due_ns) = flight.intended_ns.checked_sub(self.record_from_ns) {
            let latency_ns = now_ns - flight.intended_ns;
            self.latency.saturating_record(latency_ns);
            self.service.saturating_record(now_ns - flight.sent_ns);
            self.timeline.answered(due_ns, latency_ns);
        }
    }

    fn failed(&mut self, flight: Flight, words: impl FnOnce() -> String) {
        if let Some(due_ns) = flight.intended_ns.checked_sub(self.record_from_ns) {
            self.timeline.failed(due_ns);
        }
        self.complain(words);
    }

    /// What counts: deliveries with an audience, else answers.
    pub(super) fn counted(&self) -> u64 {
        self.hearing.as_ref().map_or(self.answered, Hearing::heard)
    }

    /// Takes in what a subscriber has got.
    pub(super) fn hear(&mut self, ear: &mut Ear) {
        let now_ns = self.now_ns();
        let Some(hearing) = &mut self.hearing else { return };
        let (latency, timeline, from_ns) = (&mut self.latency, &mut self.timeline, self.record_from_ns);
        hearing.take(ear, |intended_ns| {
            if let Some(due_ns) = intended_ns.checked_sub(from_ns) {
                let latency_ns = now_ns.saturating_sub(intended_ns);
                latency.saturating_record(latency_ns);
                timeline.answered(due_ns, latency_ns);
            }
        });
        if self.pace == Pace::Closed && !self.stopping && self.is_near() {
            self.start_all();
        }
    }

    /// A subscriber's connection broke.
    pub(super) fn subscriber_lost(&mut self, fault: &Fault) {
        self.failures.count(fault);
        self.complain(|| format!("a subscriber's stream: {}", fault.words()));
    }

    /// Whether subscribers are near what is stored.
    fn is_near(&self) -> bool {
        self.hearing.as_ref().is_none_or(Hearing::is_near)
    }

    /// Lane `id` is free: it takes the next slot, if there is one.
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

    /// Lane `id` gives no answer any more, to what is in flight there either.
    pub(super) fn broken(&mut self, id: usize, fault: &Fault) {
        self.idle.retain(|other| *other != id);
        self.down += 1;
        if let Some(flight) = self.flights[id].take() {
            self.lost(flight, fault);
        }
    }

    /// No connection could be made for a lane: a request that waits is refused, and all when no lane is up.
    pub(super) fn refused(&mut self, fault: &Fault) {
        let now_ns = self.now_ns();
        let waiting = match (self.pace, self.down == self.lanes.len()) {
            (Pace::Closed, _) => usize::from(!self.stopping),
            (Pace::Open(_), true) => self.backlog.len(),
            (Pace::Open(_), false) => self.backlog.len().min(1),
        };
        for _ in 0..waiting {
            let intended_ns = self.backlog.pop_front().unwrap_or(now_ns);
            self.lost(Flight { intended_ns, sent_ns: now_ns, ask: 0 }, fault);
        }
        self.complain(|| fault.words());
    }

    /// Lane `id` works again, on a connection of its own if it has one.
    pub(super) fn mended(&mut self, id: usize, link: Option<Link>) {
        if let Some(link) = link {
            self.lanes[id] = Lane::Link(Rc::new(link));
        }
        self.down -= 1;
        self.next(id);
    }

    /// Its time counts too: leaving out what failed late would make a stall look short.
    fn lost(&mut self, flight: Flight, fault: &Fault) {
        self.record(flight, self.now_ns());
        self.failures.count(fault);
        self.failed(flight, || fault.words());
    }

    fn complain(&mut self, words: impl FnOnce() -> String) {
        self.complaint.get_or_insert_with(words);
    }

    pub(super) fn outstanding(&self) -> bool {
        self.slots_left > 0
            || !self.backlog.is_empty()
            || self.flights.iter().any(Option::is_some)
            || self.hearing.as_ref().is_some_and(|hearing| hearing.missing() > 0)
    }

    pub(super) fn finish<S>(mut self, answered: u64, elapsed: Duration, accounts: (S, S)) -> Outcome<S> {
        let now_ns = self.now_ns();
        let waiting: Vec<Flight> = self.flights.iter().flatten().copied().collect();
        let queued = self.backlog.iter().map(|&intended_ns| Flight { intended_ns, sent_ns: now_ns, ask: 0 });
        for flight in waiting.into_iter().chain(queued.collect::<Vec<_>>()) {
            // Its true latency is longer still; leaving it out would hide the worst.
            self.record(flight, now_ns);
            self.failures.unanswered += 1;
            self.failed(flight, || "no answer before the drain ended".into());
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
            timeline: self.timeline,
            failures: self.failures,
            complaint: self.complaint,
            answered,
            each: self.hearing.as_ref().map_or(1, Hearing::each),
            elapsed,
            accounts,
        }
    }
}
