//! What is still to happen, in the order of its time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use sluice_policy::Nanos;
use sluice_policy::idempotency::{End, Owner};
use sluice_policy::kill_switch::Scope;
use sluice_policy::kill_switch::book::Entry;

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
struct Due {
    at: Nanos,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What is still to happen.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<Due>>,
    added: u64,
}

impl Agenda {
    pub(crate) fn add(&mut self, at: Nanos, event: Event) {
        self.added += 1;
        self.heap.push(Reverse(Due { at, number: self.added, event }));
    }

    pub(crate) fn next(&mut self) -> Option<(Nanos, Event)> {
        self.heap.pop().map(|Reverse(due)| (due.at, due.event))
    }
}
