//! What is still to happen, in the order of its time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use sluice_policy::Nanos;
use sluice_policy::idempotency::{End, Owner};
use sluice_policy::kill_switch::Scope;
use sluice_policy::kill_switch::book::Entry;
use sluice_policy::limit::lease::{Ask, Granted};
use sluice_policy::limit::leases::{Due, Name, Ticket};

use super::keys::Id;
use super::trouble::Trouble;

/// Something that happens at a moment. `run` is the process of an edge that it is meant for.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client makes its next request.
    Ask {
        client: usize,
    },
    /// It repeats one under its key.
    Again {
        request: usize,
    },
    /// A request arrives at its edge.
    Arrive {
        request: usize,
    },
    /// A shared store judges its key.
    Judge {
        request: usize,
    },
    /// The store's word about its key is here.
    Judged {
        request: usize,
    },
    /// What an edge said about a key reaches a shared store.
    Conclude {
        store: usize,
        id: Id,
        owner: Owner,
        end: End,
    },
    /// The same from a process that has handed over, to its successor.
    Relay {
        edge: usize,
        id: Id,
        owner: Owner,
        end: End,
    },
    /// The time of an old process is over; its successor sees that it is gone.
    Retire {
        edge: usize,
    },
    Gone {
        edge: usize,
        run: u64,
    },
    /// An edge tries to share its limits, and what came of it.
    Join {
        edge: usize,
        run: u64,
    },
    Joined {
        edge: usize,
        run: u64,
        well: bool,
    },
    /// A round of calls to the store of shared limits begins, arrives there, is answered, is late; a lease may have
    /// lapsed.
    Round {
        edge: usize,
        run: u64,
    },
    Count {
        edge: usize,
        run: u64,
        round: u64,
        calls: Vec<(Due, Name, Ask)>,
    },
    Counted {
        edge: usize,
        run: u64,
        round: u64,
        granted: Vec<(Due, Name, Granted)>,
    },
    RoundDue {
        edge: usize,
        run: u64,
        round: u64,
    },
    Lapses {
        edge: usize,
        run: u64,
    },
    /// A request has waited long enough for the word of a shared limit.
    LimitDue {
        request: usize,
        ticket: Ticket,
    },
    /// A write is on the disk.
    Saved {
        edge: usize,
        run: u64,
        number: u64,
    },
    /// It has waited long enough for its turn.
    Impatient {
        request: usize,
        ticket: u64,
    },
    /// A try begins.
    Try {
        request: usize,
    },
    /// A first try has had no head for the time after which a second one is made.
    Silent {
        request: usize,
        conn: usize,
    },
    /// Too long without a connection.
    ConnectDue {
        conn: usize,
    },
    /// A connection is asked for at the instance, and its answer.
    Knock {
        conn: usize,
    },
    Connected {
        conn: usize,
    },
    Refused {
        conn: usize,
    },
    /// The edge hands on the next piece, which then arrives.
    Send {
        conn: usize,
        step: u8,
    },
    Gets {
        conn: usize,
        step: u8,
    },
    /// The instance has worked on it; its answer arrives.
    Worked {
        conn: usize,
        epoch: u32,
    },
    Head {
        conn: usize,
        status: u16,
    },
    Tail {
        conn: usize,
    },
    /// The connection is found broken.
    Broke {
        conn: usize,
    },
    /// The answer's first byte, the whole answer, are due.
    FirstByteDue {
        request: usize,
        conn: usize,
    },
    TotalDue {
        request: usize,
    },
    /// The client leaves.
    Leave {
        request: usize,
    },
    /// A probe begins and ends.
    Probe {
        edge: usize,
        run: u64,
        service: usize,
        id: u32,
    },
    Probed {
        edge: usize,
        run: u64,
        service: usize,
        id: u32,
        good: bool,
        began: Nanos,
    },
    /// Something goes wrong, or well again.
    Trouble(Trouble),
    /// A change of a switch reaches an edge; it is on its disk.
    SwitchTold {
        edge: usize,
        change: usize,
    },
    SwitchSaved {
        edge: usize,
        run: u64,
        scope: Scope,
        entry: Entry,
        changes: Vec<usize>,
    },
    /// All troubles are over.
    Heal,
    SwitchesOff,
    /// The faults of before have left every request.
    Clean,
    /// Somebody asks a service now and then, until all are well.
    Monitor,
    /// Nothing may be left.
    Quiet,
}

#[derive(Debug)]
struct Planned {
    at: Nanos,
    number: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What is still to happen.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<Planned>>,
    added: u64,
}

impl Agenda {
    pub(crate) fn add(&mut self, at: Nanos, event: Event) {
        self.added += 1;
        self.heap.push(Reverse(Planned { at, number: self.added, event }));
    }

    pub(crate) fn next(&mut self) -> Option<(Nanos, Event)> {
        self.heap.pop().map(|Reverse(due)| (due.at, due.event))
    }
}
