//! One subscription: a place in the stream, and what it takes from there. Both transports are fed by it.
//!
//! At its place it finds frames in the ring; when it has fallen behind the ring it does what its subscriber chose.
//! Nothing here is waited for by a publisher, and a subscription that takes nothing holds no event in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sluice_http::Reject;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::behind::{self, Read};
use super::choice::{Choice, Mode, OnSlow, Selector};
use super::conflate::{Conflation, Due};
use super::out::{Extra, Out};
use super::pace::Pace;
use super::position::{Gap, Position, Start};
use super::{PIECE_BYTES, PIECE_LOOKS};
use crate::bell::{Bell, Wants};
use crate::context::Context;
use crate::ring::Seen;
use crate::state::Snapshot;

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It wrote, or looked on: there may be more.
    More,
    /// Nothing until the bell rings.
    Wait,
    /// Nothing until a time, or until there is credit; the bell is muffled.
    Held(Option<Instant>),
    /// It goes on with [`Feed::catch_up`].
    Behind,
    /// It is over, for this reason.
    Over(&'static str),
}

/// One subscription.
pub(crate) struct Feed {
    context: Arc<Context>,
    selector: Arc<Selector>,
    on_slow: OnSlow,
    /// Seq of the next event it has not looked at.
    next: u64,
    bell: Arc<Bell>,
    /// It had looked at everything when it began to wait.
    resting: bool,
    /// It has been in the ring: leaving it is an overrun.
    live: bool,
    pace: Option<Box<Paced>>,
    newest: Option<Box<Newest>>,
    opening: Option<Box<Opening>>,
    replaced: watch::Receiver<u64>,
    _permit: OwnedSemaphorePermit,
}

/// A bound on events a second.
struct Paced {
    pace: Pace,
    begun: Instant,
}

/// What conflating needs.
struct Newest {
    every: Duration,
    /// It conflates because it was slow, until it has caught up.
    slow: bool,
    conflation: Conflation,
    due: VecDeque<Due>,
    flush_at: Instant,
}

/// What comes before everything else.
struct Opening {
    gap: Option<Gap>,
    snapshot: Option<Snapshot>,
    sent: usize,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.context.metrics.subscribers.dec();
        self.context.hub.bells().take_down(&self.bell, Wants::from(&*self.selector));
    }
}

impl Feed {
    /// Opens a subscription where it is to begin.
    pub(crate) async fn open(context: &Arc<Context>, choice: Choice) -> Result<Self, Reject> {
        let permit = context.stream_permit()?;
        let now = Instant::now();
        let (pace, newest) = match choice.mode {
            Mode::All { rate } => {
                // A tenth of a second may go at once: a wake for each event would cost more than it gives.
                let pace = |rate| Pace::new(rate, (rate / 10.0) as u32, Duration::ZERO);
                (rate.map(|rate| Box::new(Paced { pace: pace(rate), begun: now })), None)
            }
            Mode::Conflate { every } => (None, Some(Box::new(Newest::new(every, false, now)))),
        };
        context.metrics.subscribers.inc();
        // What was lost before it began concerns it only where it resumes, which `Start::place` looks at.
        let mut replaced = context.replaced();
        replaced.mark_unchanged();
        let mut feed = Self {
            context: Arc::clone(context),
            selector: choice.selector,
            on_slow: choice.on_slow,
            next: 0,
            bell: Bell::new(),
            resting: false,
            live: false,
            pace,
            newest,
            opening: None,
            replaced,
            _permit: permit,
        };
        context.hub.bells().hang(&feed.bell, Wants::from(&*feed.selector));
        let is_new = choice.snapshot && choice.start == Start::Now;
        if is_new {
            let selector = Arc::clone(&feed.selector);
            // Where nothing was counted in yet, the head is where it was at the start.
            let head = context.hub.head();
            let snapshot = context.hub.latest().snapshot(|record| selector.admits(record)).await;
            feed.next = snapshot.upto.map_or(head, |stamp| stamp.seq) + 1;
            feed.opening = Some(Box::new(Opening { gap: None, snapshot: Some(snapshot), sent: 0 }));
        } else {
            feed.seek(choice.start).await?;
        }
        Ok(feed)
    }

    /// Goes to another place.
    pub(crate) async fn seek(&mut self, start: Start) -> Result<(), Reject> {
        let lost_upto = *self.replaced.borrow();
        let (next, gap) = self.context.read(move |reader| start.place(reader, lost_upto)).await?;
        (self.next, self.live, self.resting) = (next, false, false);
        self.opening = gap.map(|gap| Box::new(Opening { gap: Some(gap), snapshot: None, sent: 0 }));
        if let Some(newest) = &mut self.newest {
            newest.due.clear();
            newest.conflation = Conflation::new();
        }
        Ok(())
    }

    /// What wakes it.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Whether it waits for events, and the bell rang for some.
    pub(crate) fn is_rung(&self) -> bool {
        self.resting && self.bell.is_rung()
    }

    /// What it stands in.
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Seq of the next event it looks at.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Writes what there is, up to about [`PIECE_BYTES`].
    pub(crate) fn step(&mut self, out: &mut Out<'_>) -> Step {
        if std::mem::take(&mut self.resting) {
            self.next = self.context.hub.bells().rouse(&self.bell, self.next);
        }
        let step = self.look(out);
        match step {
            Step::Wait => self.resting = true,
            Step::Held(_) => self.bell.muffle(),
            _ => {}
        }
        step
    }

    fn look(&mut self, out: &mut Out<'_>) -> Step {
        if let Some(step) = self.open_up(out) {
            return step;
        }
        if self.replaced.has_changed().unwrap_or(false) {
            self.replaced.borrow_and_update();
            gap_told(out, &Gap::failover(self.next, self.context.reader().durable_seq() + 1));
            return Step::More;
        }
        match self.newest.take() {
            Some(mut newest) => {
                let step = self.step_newest(&mut newest, out);
                let has_caught_up = newest.slow && step == Step::Wait;
                if has_caught_up {
                    out.notice("caught_up", json!({ "seq": self.next }), None);
                    return Step::More;
                }
                self.newest = Some(newest);
                step
            }
            None => self.step_all(out),
        }
    }

    fn open_up(&mut self, out: &mut Out<'_>) -> Option<Step> {
        let opening = self.opening.as_mut()?;
        if let Some(gap) = opening.gap.take() {
            gap_told(out, &gap);
        }
        if let Some(snapshot) = &opening.snapshot {
            let begin = out.bytes.len();
            while opening.sent < snapshot.records.len() {
                if out.room() == 0 {
                    return Some(Step::Held(None));
                }
                if out.bytes.len() - begin >= PIECE_BYTES {
                    return Some(Step::More);
                }
                out.record(&snapshot.records[opening.sent], Extra::Snapshot);
                opening.sent += 1;
            }
            let data = json!({
                "symbols": snapshot.records.len(),
                "seq": snapshot.upto.map_or(0, |stamp| stamp.seq),
                "complete": snapshot.complete,
            });
            out.notice("snapshot", data, snapshot.upto.map(Position::from));
        }
        self.opening = None;
        Some(Step::More)
    }

    fn step_all(&mut self, out: &mut Out<'_>) -> Step {
        let mut room = out.room();
        if room == 0 {
            return Step::Held(None);
        }
        let now = self.pace.as_ref().map_or(Duration::ZERO, |paced| paced.begun.elapsed());
        if let Some(paced) = &self.pace {
            room = room.min(paced.pace.room(now));
            if room == 0 {
                return Step::Held(Some(paced.begun + paced.pace.next()));
            }
        }
        let (begin, before) = (out.bytes.len(), room);
        let selector = &*self.selector;
        let seen = self.context.hub.see(self.next, &self.bell, PIECE_LOOKS, |frame| {
            if selector.admits(&frame.record) {
                out.frame(frame, Extra::Plain);
                room -= 1;
            }
            room > 0 && out.bytes.len() - begin < PIECE_BYTES
        });
        match seen {
            Seen::Upto(next) => {
                (self.next, self.live) = (next, true);
                if let Some(paced) = self.pace.as_mut().filter(|_| room < before) {
                    paced.pace.took(before - room, now);
                }
                // What is newer than the head has not been rung for yet.
                if next > self.context.hub.head() { Step::Wait } else { Step::More }
            }
            Seen::Nothing => {
                self.live = true;
                Step::Wait
            }
            Seen::Behind => self.fallen_behind(out),
            Seen::Passed => self.read_up(),
        }
    }

    /// What becomes of one that is not in the ring: if it ever was, its subscriber's choice.
    fn fallen_behind(&mut self, out: &mut Out<'_>) -> Step {
        if !std::mem::take(&mut self.live) {
            return Step::Behind;
        }
        self.context.metrics.overruns.inc();
        match self.on_slow {
            OnSlow::CatchUp => Step::Behind,
            OnSlow::Conflate => {
                out.notice("slow", json!({ "policy": "conflate", "seq": self.next }), None);
                self.newest = Some(Box::new(Newest::new(Duration::ZERO, true, Instant::now())));
                Step::More
            }
            OnSlow::Drop => {
                let present = self.context.hub.head() + 1;
                gap_told(out, &Gap::overrun(self.next, present));
                out.metrics.dropped("gap", present - self.next);
                self.next = present;
                Step::More
            }
            OnSlow::Disconnect => Step::Over("too_slow"),
        }
    }

    /// It has not come to where the ring counts for it.
    fn read_up(&mut self) -> Step {
        self.live = false;
        Step::Behind
    }

    fn step_newest(&mut self, newest: &mut Newest, out: &mut Out<'_>) -> Step {
        if !newest.due.is_empty() {
            return self.write_due(newest, out);
        }
        let now = Instant::now();
        let selector = &*self.selector;
        let seen = self.context.hub.see(self.next, &self.bell, PIECE_LOOKS, |frame| {
            let record = &frame.record;
            if selector.admits(record) {
                newest.conflation.take(record.kind(), record.symbol(), record.stamp.seq);
            }
            !newest.conflation.is_full()
        });
        match seen {
            Seen::Upto(next) => {
                (self.next, self.live) = (next, true);
                if next <= self.context.hub.head() && !newest.conflation.is_full() {
                    return Step::More;
                }
            }
            Seen::Nothing => self.live = true,
            Seen::Behind | Seen::Passed if newest.conflation.is_full() => {}
            Seen::Passed => return self.read_up(),
            Seen::Behind => {
                if std::mem::take(&mut self.live) {
                    self.context.metrics.overruns.inc();
                }
                return Step::Behind;
            }
        }
        if newest.conflation.is_empty() {
            return Step::Wait;
        }
        if now >= newest.flush_at {
            newest.due = newest.conflation.drain().into();
            newest.flush_at = now + newest.every;
            return Step::More;
        }
        // What comes before then is only noted: no reason to look at each event as it comes.
        Step::Held(Some(newest.flush_at))
    }

    fn write_due(&mut self, newest: &mut Newest, out: &mut Out<'_>) -> Step {
        let begin = out.bytes.len();
        while let Some(due) = newest.due.front() {
            if out.room() == 0 {
                return Step::Held(None);
            }
            if out.bytes.len() - begin >= PIECE_BYTES {
                return Step::More;
            }
            let conflated = due.conflated;
            let is_there =
                self.context.hub.show(due.seq, |frame| out.frame(frame, Extra::Conflated(conflated)));
            if !is_there {
                return Step::Behind;
            }
            self.context.metrics.conflated.inc_by(due.conflated);
            newest.due.pop_front();
        }
        Step::More
    }

    /// Goes on from the log.
    pub(crate) async fn catch_up(&mut self, out: &mut Out<'_>) -> Result<(), Reject> {
        let selector = Arc::clone(&self.selector);
        let Some(newest) = &mut self.newest else {
            let mut most = out.room();
            let now = self.pace.as_ref().map_or(Duration::ZERO, |paced| paced.begun.elapsed());
            if let Some(paced) = &self.pace {
                most = most.min(paced.pace.room(now));
            }
            let from = self.next;
            let read = self.context.read(move |reader| behind::read(reader, from, &selector, most)).await?;
            if let Some(paced) = &mut self.pace {
                paced.pace.took(read.records.len() as u64, now);
            }
            self.next = read.next;
            tell(out, &read);
            return Ok(());
        };
        if newest.due.is_empty() {
            let (from, conflation) = (self.next, std::mem::take(&mut newest.conflation));
            let noted =
                self.context.read(move |reader| behind::note(reader, from, &selector, conflation)).await?;
            (newest.conflation, self.next) = (noted.conflation, noted.next);
            if let Some(gap) = noted.gap {
                gap_told(out, &gap);
            }
            return Ok(());
        }
        let most = usize::try_from(out.room()).unwrap_or(usize::MAX).min(behind::DUE_MAX);
        let due: Vec<Due> = newest.due.iter().take(most).copied().collect();
        let found = self.context.read(move |reader| behind::look_up(reader, &due)).await?;
        newest.due.drain(..found.count);
        if let Some(gap) = found.gap {
            gap_told(out, &gap);
        }
        for (record, conflated) in found.records {
            self.context.metrics.conflated.inc_by(conflated);
            out.record(&record, Extra::Conflated(conflated));
        }
        Ok(())
    }
}

impl Newest {
    fn new(every: Duration, slow: bool, now: Instant) -> Self {
        Self { every, slow, conflation: Conflation::new(), due: VecDeque::new(), flush_at: now }
    }
}

fn gap_told(out: &mut Out<'_>, gap: &Gap) {
    out.metrics.gaps.inc();
    out.notice("gap", gap.data(), None);
}

fn tell(out: &mut Out<'_>, read: &Read) {
    if let Some(gap) = &read.gap {
        gap_told(out, gap);
    }
    for record in &read.records {
        out.record(record, Extra::Plain);
    }
}
