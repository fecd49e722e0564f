//! The writer: takes whatever waits, stores it with one call, and has at most two calls under way.
//!
//! While Redis is away nothing waits: what comes is refused at once. A call that is not answered in time may still
//! be executed: its submissions are answered as unknown, and a client that repeats them under the same event ids
//! finds them stored once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::entry;
use super::link::{Link, Trouble};
use super::place::{Place, places};
use super::script::Scripts;
use super::shared::{AGAIN, Shared, State};
use super::watch;
use crate::engine::{AppendError, Receipt};
use crate::log::{Commit, DEDUP_IDS_MAX, Draft, Durability, Observer, Outcome, Retention};

/// LIMIT: submissions that wait.
const QUEUE_SUBMISSIONS_MAX: usize = 8 * 1024;
/// LIMIT: bytes of submissions that wait.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Events of one call, unless one submission has more.
const BATCH_EVENTS: usize = 256;
/// Bytes of one call, unless one submission has more.
const BATCH_BYTES: usize = 256 * 1024;
/// Calls under way.
const CALLS_MAX: usize = 2;
/// How often the writer looks whether it is to end.
const TICK: Duration = Duration::from_millis(200);
/// Events between two anchors: what a search by seq has to skip at most.
const STEP_EVENTS: u64 = 256;

struct Submission {
    drafts: Vec<Draft>,
    bytes: usize,
    atomic: bool,
    answer: oneshot::Sender<Result<Receipt, AppendError>>,
}

/// The way to the writer.
#[derive(Debug)]
pub(super) struct Queue {
    /// `None` once closed.
    sender: Mutex<Option<SyncSender<Submission>>>,
    queued: Arc<AtomicUsize>,
    shared: Arc<Shared>,
}

/// What the writer takes from.
pub(super) struct Submissions {
    receiver: Receiver<Submission>,
    queued: Arc<AtomicUsize>,
}

/// A queue and its end.
pub(super) fn queue(shared: Arc<Shared>) -> (Queue, Submissions) {
    let (sender, receiver) = std::sync::mpsc::sync_channel(QUEUE_SUBMISSIONS_MAX);
    let queued = Arc::new(AtomicUsize::new(0));
    let submissions = Submissions { receiver, queued: Arc::clone(&queued) };
    (Queue { sender: Mutex::new(Some(sender)), queued, shared }, submissions)
}

impl Queue {
    /// Hands events over; refused at once while Redis is away.
    pub(super) fn submit(
        &self,
        drafts: Vec<Draft>,
        atomic: bool,
    ) -> Result<oneshot::Receiver<Result<Receipt, AppendError>>, AppendError> {
        if let State::Away(why) | State::Refused(why) = self.shared.state() {
            return Err(AppendError::Away(Trouble::Away(why)));
        }
        let bytes: usize = drafts.iter().map(Draft::stored_bytes).sum();
        if self.queued.fetch_add(bytes, Ordering::Relaxed) > QUEUE_BYTES_MAX {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
            return Err(AppendError::Busy);
        }
        let (answer, receiver) = oneshot::channel();
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(sender) = sender else { return Err(AppendError::Closed) };
        match sender.try_send(Submission { drafts, bytes, atomic, answer }) {
            Ok(()) => Ok(receiver),
            Err(refused) => {
                self.queued.fetch_sub(bytes, Ordering::Relaxed);
                Err(match refused {
                    TrySendError::Full(_) => AppendError::Busy,
                    TrySendError::Disconnected(_) => AppendError::Closed,
                })
            }
        }
    }

    /// Takes nothing more; what waits is stored, then the writer ends.
    pub(super) fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A batch under way.
struct Call {
    submissions: Vec<Submission>,
    begun: Instant,
    /// It was refused once as certainly not executed, and sent again.
    again: bool,
}

impl Call {
    fn events(&self) -> usize {
        self.submissions.iter().map(|submission| submission.drafts.len()).sum()
    }
}

/// Stores what is submitted until the queue is closed and empty.
pub(super) fn run(shared: &Shared, submissions: &Submissions, observer: &dyn Observer) {
    let mut writer = Writer { shared, submissions, observer, ended: false };
    while !writer.ended {
        match writer.connect() {
            Ok((link, scripts)) => {
                shared.set_state(State::Up);
                let why = writer.serve(link, &scripts);
                shared.set_calling(None);
                shared.forget_links();
                if let Some(why) = why {
                    shared.set_state(State::Away(why));
                }
            }
            Err(state) => {
                shared.set_state(state);
                writer.refuse_waiting();
                shared.pause(AGAIN);
            }
        }
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    submissions: &'a Submissions,
    observer: &'a dyn Observer,
    ended: bool,
}

impl Writer<'_> {
    fn connect(&self) -> Result<(Link, Scripts), State> {
        let entered = self.shared.enter().and_then(|(mut link, scripts)| {
            let refusal = watch::refusal(&mut link)?;
            watch::look_at_durability(self.shared, &mut link)?;
            if refusal.is_none() {
                self.shared.attach(&mut link, &scripts)?;
            }
            Ok((link, scripts, refusal))
        });
        match entered {
            Ok((link, scripts, None)) => Ok((link, scripts)),
            Ok((_, _, Some(why))) => Err(State::Refused(why)),
            Err(Trouble::Answer { code, detail }) if code == "PARTITIONS" => Err(State::Refused(detail)),
            Err(Trouble::Answer { code, detail }) if code == "ERR" || code == "WRONGTYPE" => {
                Err(State::Refused(format!("{code} {detail} (Redis 7.0 or later, or Valkey, is needed)")))
            }
            Err(trouble) => Err(State::Away(trouble.to_string())),
        }
    }

    /// Works on a connection until it is of no use any longer; the reason.
    fn serve(&mut self, mut link: Link, scripts: &Scripts) -> Option<String> {
        let mut under_way: VecDeque<Call> = VecDeque::new();
        let mut waiting: VecDeque<Call> = VecDeque::new();
        loop {
            // The watch found that this server is gone, or must not hold events.
            if under_way.is_empty()
                && let State::Away(why) | State::Refused(why) = self.shared.state()
            {
                fail(waiting.into_iter(), &Trouble::Away(why));
                return None;
            }
            let next = match waiting.pop_front() {
                Some(call) => Some(call),
                None if under_way.len() < CALLS_MAX => self.gather(under_way.is_empty()),
                None => None,
            };
            let sent = next.map(|call| {
                self.shared.set_calling(Some(under_way.front().map_or(call.begun, |oldest| oldest.begun)));
                let sent = link.send(&self.packed(&call, scripts));
                under_way.push_back(call);
                sent
            });
            if let Some(Err(trouble)) = sent {
                return Some(broken(under_way, waiting, &trouble));
            }
            if self.ended && under_way.is_empty() && waiting.is_empty() {
                return None;
            }
            if under_way.is_empty() || (sent.is_some() && under_way.len() < CALLS_MAX) {
                continue;
            }
            let Some(call) = under_way.pop_front() else { continue };
            let received = link.receive();
            self.shared.set_calling(under_way.front().map(|oldest| oldest.begun));
            match received.and_then(|value| places(&value, call.events())) {
                Ok(places) => self.answer(call, places),
                Err(trouble) if trouble.breaks_link() => {
                    under_way.push_front(call);
                    return Some(broken(under_way, waiting, &trouble));
                }
                Err(trouble) => {
                    if let Some(call) = self.settle(&mut link, scripts, call, &trouble) {
                        // In front of what came later, behind what is under way: that was refused as well.
                        waiting.push_back(call);
                    }
                }
            }
        }
    }

    /// Deals with a refusal that leaves the connection whole; the call when it is to be sent again.
    fn settle(&self, link: &mut Link, scripts: &Scripts, mut call: Call, trouble: &Trouble) -> Option<Call> {
        self.shared.set_full(trouble.is("OOM"));
        let mended = !call.again
            && match () {
                // Somebody flushed the scripts.
                () if trouble.is("NOSCRIPT") => Scripts::load(link).is_ok(),
                // Somebody flushed the data, or another worker found that events are lost.
                () if trouble.is("EPOCH") => self.shared.attach(link, scripts).is_ok(),
                () => false,
            };
        if mended {
            call.again = true;
            return Some(call);
        }
        fail([call].into_iter(), trouble);
        None
    }

    /// Whatever waits, up to a batch; blocks for a moment when nothing does and nothing else is to be done.
    fn gather(&mut self, idle: bool) -> Option<Call> {
        let mut call = Call { submissions: Vec::new(), begun: Instant::now(), again: false };
        let (mut events, mut bytes) = (0, 0);
        while events < BATCH_EVENTS && bytes < BATCH_BYTES {
            let taken = if idle && call.submissions.is_empty() {
                self.submissions.receiver.recv_timeout(TICK)
            } else {
                self.submissions.receiver.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            };
            match taken {
                Ok(submission) => {
                    self.submissions.queued.fetch_sub(submission.bytes, Ordering::Relaxed);
                    events += submission.drafts.len();
                    bytes += submission.bytes;
                    call.submissions.push(submission);
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    self.ended = true;
                    break;
                }
            }
        }
        (!call.submissions.is_empty()).then_some(call)
    }

    fn refuse_waiting(&mut self) {
        while let Some(call) = self.gather(false) {
            let (State::Away(why) | State::Refused(why)) = self.shared.state() else { return };
            fail([call].into_iter(), &Trouble::Away(why));
        }
    }

    fn packed(&self, call: &Call, scripts: &Scripts) -> Vec<u8> {
        let drafts = || call.submissions.iter().flat_map(|submission| &submission.drafts);
        let bytes: usize = drafts().map(|draft| draft.stored_bytes() + entry::WORDS_BYTES).sum();
        let words = 8 + 2 * call.submissions.len() + entry::WORDS * call.events();
        let mut command = scripts.append(&self.shared.keys, words, bytes);
        let Retention { age_ms, bytes, count } = self.shared.options.retention;
        // An eighth of each bound, as the segments of the embedded log.
        let step = |bound: Option<u64>, most: u64| bound.map_or(most, |bound| (bound / 8).clamp(1, most));
        command.arg(self.shared.epoch()).arg(self.shared.options.dedup_window_ms).arg(DEDUP_IDS_MAX / 2);
        command.arg(step(count, STEP_EVENTS)).arg(step(bytes, 1 << 50)).arg(step(age_ms, 1 << 50));
        let fresh: Vec<u8> = drafts().map(|draft| if draft.is_fresh { b'f' } else { b'k' }).collect();
        command.arg(fresh);
        let groups: Vec<(usize, usize)> = groups(&call.submissions).collect();
        command.arg(groups.len());
        for (first, count) in groups {
            command.arg(first).arg(count);
        }
        for draft in drafts() {
            entry::write(draft, self.shared.options.partitions, &mut command);
        }
        command.get_packed_command()
    }

    fn answer(&self, call: Call, places: Vec<Place>) {
        self.shared.set_full(false);
        let mut places = places.into_iter();
        let durability = self.shared.durability();
        let (mut stored, mut bytes) = (Vec::with_capacity(places.len()), 0);
        let mut answers = Vec::with_capacity(call.submissions.len());
        for submission in call.submissions {
            bytes += submission.bytes;
            let placed = submission.drafts.into_iter().zip(places.by_ref());
            let outcomes = placed.map(|(draft, place)| {
                if let Outcome::Stored(stamp) = place.outcome {
                    stored.push(place.record(draft, stamp, self.shared.options.partitions));
                }
                place.outcome
            });
            answers.push((submission.answer, Receipt { outcomes: outcomes.collect(), durability }));
        }
        let records = stored.len();
        self.shared.wrote(stored);
        // Who is answered finds itself counted.
        self.observer.committed(&Commit {
            records,
            bytes,
            sync_time: Duration::ZERO,
            time: call.begun.elapsed(),
            // The log's own word for what it did not sync itself.
            durability: Durability::Memory,
        });
        for (answer, receipt) in answers {
            drop(answer.send(Ok(receipt)));
        }
    }
}

/// Answers for everything that was on a connection which broke; the reason.
fn broken(calls: VecDeque<Call>, waiting: VecDeque<Call>, trouble: &Trouble) -> String {
    let why = trouble.to_string();
    let mut calls = calls.into_iter();
    // The oldest call met the trouble; what was sent behind it may have been executed all the same.
    fail(calls.by_ref().take(1), trouble);
    fail(calls, &Trouble::Lost(why.clone()));
    fail(waiting.into_iter(), &Trouble::Away(why.clone()));
    why
}

/// Answers that nothing, or nothing known, became of calls.
fn fail(calls: impl Iterator<Item = Call>, trouble: &Trouble) {
    for submission in calls.flat_map(|call| call.submissions) {
        // Whoever asked may be gone.
        drop(submission.answer.send(Err(AppendError::Away(trouble.clone()))));
    }
}

/// The events that are stored all or not at all: of each such submission the first one, from 1, and how many.
fn groups(submissions: &[Submission]) -> impl Iterator<Item = (usize, usize)> {
    let mut next = 1;
    submissions.iter().filter_map(move |submission| {
        let first = next;
        next += submission.drafts.len();
        // Of one event both are the same.
        (submission.atomic && submission.drafts.len() > 1).then_some((first, submission.drafts.len()))
    })
}
