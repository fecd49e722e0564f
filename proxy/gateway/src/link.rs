//! What a request and the stream below it tell each other: when it must be over, and why it ended.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use sluice_policy::time::Nanos;
use tokio::time::Instant;

use crate::backlog::Backlog;
use crate::clock;
use crate::lanes::Lent;

/// Why the stream ended a request; stays until the next head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    /// Nothing went wrong here.
    None = 0,
    /// The deadline in [`Link`] passed.
    Deadline = 1,
    /// No body byte came within the body timeout.
    BodyTimeout = 2,
    /// The body's framing is broken.
    BodyFraming = 3,
    /// The client took no byte within the write timeout.
    WriteTimeout = 4,
    /// The edge ends, and the answer is a stream without end.
    Draining = 5,
    /// The upstream did not take the request's body in time.
    Blocked = 6,
    /// The caller's credential expired or was revoked, and the answer goes on for long.
    Credential = 7,
    /// An operator stopped what it is about, and the answer goes on for long.
    Killed = 8,
}

impl Fault {
    const fn of(number: u8) -> Self {
        match number {
            1 => Self::Deadline,
            2 => Self::BodyTimeout,
            3 => Self::BodyFraming,
            4 => Self::WriteTimeout,
            5 => Self::Draining,
            6 => Self::Blocked,
            7 => Self::Credential,
            8 => Self::Killed,
            _ => Self::None,
        }
    }
}

/// What a request and the stream below it tell each other.
#[derive(Debug)]
pub(crate) struct Link {
    /// As [`Nanos`]; the largest for none.
    deadline: AtomicU64,
    end: AtomicU64,
    fault: AtomicU8,
    streams: AtomicBool,
    stops: AtomicBool,
    /// The fault with which it ends from outside.
    ends: AtomicU8,
    watched: AtomicBool,
    waker: AtomicWaker,
    last: AtomicBool,
    breaks_off: AtomicBool,
    stays: AtomicBool,
    backlog: Backlog,
    lent: Lent,
}

impl Link {
    /// Nothing due, nothing wrong.
    pub(crate) fn new() -> Self {
        Self {
            deadline: AtomicU64::new(u64::MAX),
            end: AtomicU64::new(u64::MAX),
            fault: AtomicU8::new(Fault::None as u8),
            streams: AtomicBool::new(false),
            stops: AtomicBool::new(false),
            ends: AtomicU8::new(Fault::None as u8),
            watched: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            last: AtomicBool::new(false),
            breaks_off: AtomicBool::new(false),
            stays: AtomicBool::new(false),
            backlog: Backlog::new(),
            lent: Lent::default(),
        }
    }

    /// Ends the request at `deadline` if it still waits for the upstream by then; `None` lets it run.
    pub(crate) fn set_deadline(&self, deadline: Option<Nanos>) {
        self.deadline.store(deadline.map_or(u64::MAX, |at| at.0), Ordering::Relaxed);
    }

    /// When the request is to end if it still waits for the upstream.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        instant(self.deadline.load(Ordering::Relaxed))
    }

    /// When the request must be over, whoever is slow; `None` lets it run.
    pub(crate) fn set_end(&self, end: Option<Nanos>) {
        self.end.store(end.map_or(u64::MAX, |at| at.0), Ordering::Relaxed);
    }

    /// When the request must be over, whoever is slow.
    pub(crate) fn end(&self) -> Option<Instant> {
        instant(self.end.load(Ordering::Relaxed))
    }

    /// What of the request's body is under way to the upstream.
    pub(crate) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// The place of a request whose long answer goes out.
    pub(crate) fn lent(&self) -> &Lent {
        &self.lent
    }

    /// Notes whether the answer is a stream without end.
    pub(crate) fn set_streams(&self, streams: bool) {
        self.streams.store(streams, Ordering::Relaxed);
    }

    /// Whether the answer is a stream without end.
    pub(crate) fn streams(&self) -> bool {
        self.streams.load(Ordering::Relaxed)
    }

    /// Ends a stream without end at the next look; the edge ends.
    pub(crate) fn stop(&self) {
        self.stops.store(true, Ordering::Relaxed);
    }

    /// Whether a stream without end is to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
    }

    /// A new request begins: nothing is due, nobody outside knows it yet.
    pub(crate) fn begin(&self) {
        self.set_fault(Fault::None);
        self.set_deadline(None);
        self.set_end(None);
        self.set_streams(false);
        self.set_stays(false);
        self.backlog.begin();
        self.lent.give_back();
        self.watched.store(false, Ordering::Relaxed);
        self.ends.store(Fault::None as u8, Ordering::Relaxed);
    }

    /// From now on the request's task is to be woken by [`Self::end_long`].
    pub(crate) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Keeps who is to be woken, where that may come; says whether the request was ended meanwhile.
    pub(crate) fn is_ended(&self, waker: &Waker) -> bool {
        if !self.watched.load(Ordering::Relaxed) {
            return false;
        }
        self.waker.register(waker);
        self.ends.load(Ordering::Acquire) != Fault::None as u8
    }

    /// Ends an answer that goes on for long, from outside: its caller's credential is no longer good, or an
    /// operator stopped it.
    pub(crate) fn end_long(&self, fault: Fault) {
        self.ends.store(fault as u8, Ordering::Release);
        self.waker.wake();
    }

    /// Why the request is to end now, where it is.
    pub(crate) fn halt(&self) -> Option<Fault> {
        match Fault::of(self.ends.load(Ordering::Acquire)) {
            Fault::None => (self.streams() && self.is_stopped()).then_some(Fault::Draining),
            fault => Some(fault),
        }
    }

    /// Why the stream ended the request.
    pub(crate) fn fault(&self) -> Fault {
        Fault::of(self.fault.load(Ordering::Relaxed))
    }

    /// Notes why the request ends.
    pub(crate) fn set_fault(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// Lets the connection end after this request, where others may share it.
    pub(crate) fn set_last(&self) {
        self.last.store(true, Ordering::Relaxed);
    }

    /// Whether the connection is to end after this request.
    pub(crate) fn is_last(&self) -> bool {
        self.last.load(Ordering::Relaxed)
    }

    /// Lets the connection end with a reset: its answer is not whole, and nothing in it tells.
    pub(crate) fn break_off(&self) {
        self.breaks_off.store(true, Ordering::Relaxed);
    }

    /// Whether the connection ends with a reset.
    pub(crate) fn breaks_off(&self) -> bool {
        self.breaks_off.load(Ordering::Relaxed)
    }

    /// Notes whether the request goes on though its client leaves: its answer has to be known.
    pub(crate) fn set_stays(&self, stays: bool) {
        self.stays.store(stays, Ordering::Relaxed);
    }

    /// Whether the request goes on though its client leaves.
    pub(crate) fn stays(&self) -> bool {
        self.stays.load(Ordering::Relaxed)
    }

    /// Forgets a passed deadline, for another try of the same request.
    pub(crate) fn clear_fault(&self) {
        self.set_fault(Fault::None);
    }
}

fn instant(nanos: u64) -> Option<Instant> {
    (nanos != u64::MAX).then(|| clock::instant_of(Nanos(nanos)))
}
