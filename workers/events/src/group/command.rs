//! What is asked of the groups, and what is answered.

use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::log::{Filter, MessageId, Record};

use super::error::GroupError;
use super::fact::{Gap, Totals};
use super::settings::{Selector, Settings};

/// Where an answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, GroupError>>;

/// One call.
#[derive(Debug)]
pub(crate) enum Command {
    /// Creates a group, or changes its settings.
    Put { group: Box<str>, settings: Settings, start: Start, answer: Answer<Put> },
    /// Removes a group with its dead letters.
    Delete { group: Box<str>, answer: Answer<()> },
    /// Asks for messages.
    Lease { group: Box<str>, ask: Ask },
    /// Says what became of messages.
    Settle { group: Box<str>, settle: Settle, answer: Answer<Settled> },
    /// Asks for the groups after a name.
    List { after: Option<Box<str>>, limit: usize, answer: Answer<Vec<Report>> },
    /// Asks for one group.
    Report { group: Box<str>, answer: Answer<Report> },
    /// Asks for dead letters.
    Letters { group: Box<str>, page: LetterPage, answer: Answer<Letters> },
    /// Makes dead letters messages again.
    Redrive { group: Box<str>, redrive: Redrive, answer: Answer<Redriven> },
    /// Makes events that a group is past messages of it again.
    Replay { group: Box<str>, records: Vec<Record>, answer: Answer<Replayed> },
    /// Drops the dead letters of a group.
    Purge { group: Box<str>, answer: Answer<u64> },
    /// There are new events.
    Nudge,
}

/// Where a new group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the oldest event that is kept.
    Earliest,
    /// With the next event.
    Now,
    /// With the first event after this one.
    After(MessageId),
    /// With the first event stored at this time or later, in milliseconds since 1970.
    Time(u64),
}

/// What became of a put.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) created: bool,
    pub(crate) report: Report,
}

/// A wish for messages.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) consumer: Box<str>,
    pub(crate) max: usize,
    /// Until when to wait for the first one.
    pub(crate) until: Instant,
    /// What the caller may read.
    pub(crate) readable: Filter,
    pub(crate) answer: Answer<Lease>,
}

/// Messages handed out.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    pub(crate) messages: Vec<Delivery>,
    /// Until when they are the consumer's, in milliseconds since 1970.
    pub(crate) until_ms: u64,
    /// What retention took before the group saw it, told once.
    pub(crate) gap: Option<Gap>,
}

/// One message handed out.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) id: MessageId,
    /// Deliveries, this one included.
    pub(crate) attempts: u32,
    pub(crate) event: Event,
}

/// The event of a message.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// From the stream.
    Stored(Record),
    /// From a dead letter: its JSON with its place.
    Kept { kind: Box<str>, json: Bytes },
}

/// What a consumer says of messages.
#[derive(Debug)]
pub(crate) struct Settle {
    pub(crate) consumer: Box<str>,
    pub(crate) ids: Vec<MessageId>,
    pub(crate) how: How,
    /// What the caller may read.
    pub(crate) readable: Filter,
}

/// What became of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// They are done.
    Ack,
    /// They failed.
    Nack { delay_ms: Option<u64>, reason: Option<Box<str>> },
    /// They take longer.
    Extend,
}

/// What a call about messages did.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// Messages it was about.
    pub(crate) known: usize,
    /// Ids that the consumer did not hold.
    pub(crate) unknown: Vec<MessageId>,
    /// Messages that had their last delivery.
    pub(crate) dead: usize,
    /// Until when extended leases go, in milliseconds since 1970.
    pub(crate) until_ms: u64,
}

/// Which dead letters are asked for.
#[derive(Debug)]
pub(crate) struct LetterPage {
    pub(crate) after: Option<MessageId>,
    pub(crate) limit: usize,
    /// What the caller asks for and may read.
    pub(crate) filter: Filter,
}

/// Dead letters.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    /// Their records in the journal.
    pub(crate) records: Vec<Record>,
    /// After which to go on, when there may be more.
    pub(crate) next: Option<MessageId>,
}

/// Which dead letters become messages again, and how fast.
#[derive(Debug)]
pub(crate) struct Redrive {
    pub(crate) filter: Selector,
    pub(crate) max: usize,
    /// Messages a second; all at once without it.
    pub(crate) per_s: Option<f64>,
}

/// What a redrive did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Redriven {
    /// Dead letters that are messages again.
    pub(crate) count: usize,
    /// Dead letters left, whatever the filter.
    pub(crate) remaining: usize,
    /// When the last of them can be handed out, in milliseconds since 1970.
    pub(crate) last_ms: u64,
}

/// What became of replayed events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// Events that are messages again.
    pub(crate) count: u64,
    /// Events that the group holds already or comes to by itself.
    pub(crate) known: u64,
}

/// How a group is.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) group: Box<str>,
    pub(crate) settings: Settings,
    pub(crate) created_ms: u64,
    pub(crate) totals: Totals,
    /// Seq of the next event to look at.
    pub(crate) place: u64,
    pub(crate) last: Option<MessageId>,
    /// Messages handed out and not settled.
    pub(crate) pending: usize,
    /// Messages taken up that wait for their turn.
    pub(crate) waiting: usize,
    /// Consumers with the messages they hold and when they were heard of, in milliseconds since 1970.
    pub(crate) consumers: Vec<(Box<str>, usize, u64)>,
    /// Events of the stream that the group has not looked at.
    pub(crate) lag_events: u64,
    /// Age of the oldest event that is not settled or not looked at, in milliseconds.
    pub(crate) lag_ms: u64,
    /// Dead letters.
    pub(crate) dead: usize,
    /// Their bytes.
    pub(crate) dead_bytes: u64,
}

/// A message became a dead letter: for who tells the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) group: Box<str>,
    pub(crate) id: MessageId,
    pub(crate) kind: Box<str>,
    pub(crate) symbol: Box<str>,
    pub(crate) source: Box<str>,
    pub(crate) cause: Box<str>,
    pub(crate) attempts: u32,
    pub(crate) at_ms: u64,
}

impl Event {
    /// Its type.
    pub(crate) fn kind(&self) -> &str {
        match self {
            Self::Stored(record) => record.kind(),
            Self::Kept { kind, .. } => kind,
        }
    }

    /// Marked as a replay.
    pub(crate) fn replayed(self) -> Self {
        match self {
            Self::Stored(record) => {
                let mut json = Vec::with_capacity(record.json().len() + 128);
                crate::frame::write_replayed(&record, &mut json);
                Self::Kept { kind: record.kind().into(), json: json.into() }
            }
            Self::Kept { kind, json } => Self::Kept { kind, json: crate::frame::replayed(&json).into() },
        }
    }

    /// Bytes of its JSON.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Stored(record) => record.json().len(),
            Self::Kept { json, .. } => json.len(),
        }
    }

    /// Appends its JSON with its place.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stored(record) => crate::frame::write_json(record, out),
            Self::Kept { json, .. } => out.extend_from_slice(json),
        }
    }
}
