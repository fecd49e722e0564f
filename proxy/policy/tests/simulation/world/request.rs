//! One request, as client, edge and oracle know it.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use sluice_identity::grants::Grants;
use sluice_policy::Nanos;
use sluice_policy::balance::Flight;
use sluice_policy::breaker::Permit;
use sluice_policy::deadline::Deadline;
use sluice_policy::ending::{Ending, Failure, Sent};
use sluice_policy::gate::{Seat, Ticket};
use sluice_policy::limit::leases::Ticket as Lent;
use sluice_policy::method::Method;
use sluice_wire::code::Code;
use sluice_wire::problem::Outcome;

use super::World;
use super::keys::{Id, Word};
use super::plan::{Conf, digest};
use super::race::Tries;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    /// On its way to the edge.
    New,
    /// The store of shared limits decides about it.
    Limiting,
    /// Its key is asked for.
    Claiming,
    /// It waits at the gate.
    Waiting,
    /// Between two tries.
    Pausing,
    /// A try is under way.
    Trying,
    /// The head of its answer has gone to the client.
    Answering,
    Over,
}

/// What a client is told in the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Told {
    /// What an upstream said, and by which execution; none where it was cut off.
    Answer(u16, Option<u64>),
    /// What a copy was told.
    Replay(u16, Option<u64>),
    /// An older answer to the same question, and by which execution.
    Stale(u64),
    /// The edge's own word.
    Refused(Code, Option<Outcome>),
    /// Nothing: the connection broke, or the client left.
    Nothing,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) edge: usize,
    pub(crate) run: u64,
    pub(crate) account: usize,
    /// The service that was asked, and the one that answers.
    pub(crate) asked: usize,
    pub(crate) service: usize,
    pub(crate) method: Method,
    pub(crate) symbol: Option<&'static str>,
    pub(crate) key: Option<u64>,
    /// Requests of one key with another variant are other requests.
    pub(crate) variant: u8,
    /// How often its client has sent it.
    pub(crate) sent_before: u32,
    pub(crate) pieces: u8,
    /// The client needs so long for each piece of the body.
    pub(crate) piece_gap: Duration,
    pub(crate) conf: Rc<Conf>,
    /// By the edge's clock.
    pub(crate) arrived: Nanos,
    pub(crate) deadline: Deadline,
    /// How long its client is willing to wait, where it said so.
    pub(crate) patience: Option<Duration>,
    pub(crate) phase: Phase,
    pub(crate) word: Option<Word>,
    /// Where it waits for the word of a limit that edges share.
    pub(crate) lease: Option<Lent>,
    pub(crate) holds_key: bool,
    pub(crate) ticket: Option<(u64, Ticket)>,
    pub(crate) waits_since: Nanos,
    pub(crate) seat: Option<Seat>,
    pub(crate) permit: Option<Permit>,
    pub(crate) tries: u32,
    pub(crate) tried: Vec<u32>,
    pub(crate) conn: Option<usize>,
    pub(crate) flight: Option<Flight>,
    pub(crate) try_began: Nanos,
    pub(crate) hedged: Tries,
    /// Of the present try: a byte left, the last piece was handed over.
    pub(crate) sent: bool,
    pub(crate) handed: bool,
    /// An earlier try left a part of it at an instance.
    pub(crate) parted: bool,
    pub(crate) first_byte: Duration,
    /// How long the upstream worked, and by the edge's clock when the body was whole.
    pub(crate) worked: Option<Duration>,
    pub(crate) received_at: Option<Nanos>,
    pub(crate) status: Option<u16>,
    /// Why the last try failed, and whether the upstream is to blame.
    pub(crate) failure: Option<Failure>,
    /// The client is no longer there, but the key's answer is waited for.
    pub(crate) alone: bool,
    pub(crate) streams: bool,
    /// Its answer goes on for long.
    pub(crate) went_on: bool,
}

impl Request {
    pub(crate) fn key_id(&self) -> Id {
        (self.account, self.asked, self.key.unwrap_or_default())
    }

    pub(crate) fn has_body(&self) -> bool {
        self.pieces > 1
    }

    /// Whether it is for an unknown half: a part of it left, and not its last byte.
    pub(crate) fn is_part(&self) -> bool {
        self.holds_key && self.has_body() && !self.handed
    }

    /// What may have reached an instance of it.
    pub(crate) fn what_was_sent(&self) -> Sent {
        Sent { present: self.sent, parted: self.parted }
    }

    /// How it ended at its upstream, as far as it has.
    pub(crate) fn ending(&self) -> Ending {
        Ending { failure: self.failure, status: self.status, streams: self.streams, worked: self.worked }
    }

    /// What its caller may do, by the token or the API key that it shows; `None` where nobody knows the key.
    pub(crate) fn grants(&self) -> Option<Grants> {
        let trades = match self.conf.key_of(self.account) {
            None => World::may_trade(self.account),
            Some(_) => self.conf.keys.find(self.subject().as_bytes(), digest)?.rights > 1,
        };
        Some(["read", if trades { "trade" } else { "none" }].into_iter().collect())
    }

    pub(crate) fn subject(&self) -> &'static str {
        subject(self.account)
    }

    pub(crate) fn address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, self.account as u8))
    }
}

/// The name of an account.
pub(crate) fn subject(account: usize) -> &'static str {
    ["monitor", "reader", "alice", "bob", "carol", "dave", "erin"][account]
}
