//! What is written down of the groups: facts and dead letters, in a log of their own or, where the stream is in
//! Redis, in a second stream that its workers write in turns.
//!
//! The log is cleaned from its old end: the oldest thing that still counts (a group's last snapshot, a dead letter)
//! is written again at the new end, and segments before the oldest such thing are unlinked. So the space is bounded
//! by twice what counts and [`FLOOR_BYTES`], and so is the time to read it back. One pass of a dead letter over the
//! log is its only cost: it is copied at most once for each time the log is written through.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::engine::ReadError;
use crate::log::{Draft, Filter, Labels, Log, MessageId, Outcome, Record};
use crate::redis::{Known, Notes, ReadTrouble};

use super::error::GroupError;
use super::fact::Fact;

/// Bytes of the log up to which nothing is cleaned.
const FLOOR_BYTES: u64 = 16 * 1024 * 1024;
/// The type of a record that holds a fact; no event type can have it.
const FACT: &str = ":fact";

/// Something in the log that still counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    /// The snapshot, or the creation, of a group.
    Group(Box<str>),
    /// A dead letter.
    Letter(Box<str>, MessageId),
}

/// A record on its way into the log.
#[derive(Debug)]
pub(crate) struct Entry {
    draft: Draft,
    live: Option<Live>,
}

/// What a dead letter says beside its event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) group: Box<str>,
    pub(crate) id: (u64, u32),
    pub(crate) seq: u64,
    pub(crate) cause: Box<str>,
    /// Deliveries, over every redrive.
    pub(crate) attempts: u32,
    /// Who had it last.
    pub(crate) consumer: Option<Box<str>>,
    pub(crate) at_ms: u64,
    /// It is a message again: it stays here until that is done.
    pub(crate) out: bool,
    /// Written again to clean the log; nothing happened.
    pub(crate) moved: bool,
}

/// A dead letter as stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct Letter<'a> {
    pub(crate) head: Head,
    /// The event with its place, or null when it could not be read any more.
    #[serde(borrow)]
    pub(crate) event: &'a RawValue,
}

/// A record read back.
#[derive(Debug)]
pub(crate) enum Read {
    /// What happened to a group.
    Fact { group: Box<str>, fact: Fact },
    /// A dead letter.
    Letter { head: Head },
}

/// Where it stands.
#[derive(Debug)]
enum Medium {
    /// In a log of this process.
    Own(Log),
    /// In Redis, written in turns with other workers.
    Shared(Box<Shared>),
}

#[derive(Debug)]
struct Shared {
    notes: Notes,
    /// What was read or written last.
    known: Known,
    /// Seqs and bytes of everything that is there, oldest first.
    sizes: VecDeque<(u64, u64)>,
    bytes: u64,
}

/// A turn over a journal that is shared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entered {
    /// What was known of it is gone: it is to be read again from its beginning.
    pub(crate) lost: bool,
    /// The time for all who share it, in milliseconds since 1970.
    pub(crate) now_ms: u64,
}

impl Shared {
    fn size(&mut self, seq: u64, bytes: u64) {
        self.sizes.push_back((seq, bytes));
        self.bytes += bytes;
    }
}

/// The log of the groups.
#[derive(Debug)]
pub(crate) struct Journal {
    medium: Medium,
    live: BTreeMap<u64, (Live, u64)>,
    live_bytes: u64,
    ids: u128,
    floor_bytes: u64,
}

impl Entry {
    /// A fact about a group, in as many records as it needs.
    pub(crate) fn facts(group: &str, fact: Fact, now_ms: u64) -> Vec<Self> {
        let counts = matches!(fact, Fact::Created { .. } | Fact::Snapshot(_));
        let entry = |fact: Fact| {
            let json = serde_json::to_vec(&fact).expect("facts have text keys and finite numbers");
            let labels = Labels { kind: FACT, symbol: group, source: "" };
            let draft = Draft::new(labels, now_ms as i64 * 1_000, 0, 0, &json)
                .expect("names are short, and a fact is cut into pieces that fit");
            Self { draft, live: counts.then(|| Live::Group(group.into())) }
        };
        fact.pieces().into_iter().map(entry).collect()
    }

    /// A dead letter; `None` when the event is too large for it.
    pub(crate) fn letter(head: Head, labels: Labels<'_>, time_us: i64, event: &RawValue) -> Option<Self> {
        let live = Live::Letter(head.group.clone(), MessageId { ms: head.id.0, n: head.id.1 });
        let json = serde_json::to_vec(&Letter { head, event }).ok()?;
        let draft = Draft::new(labels, time_us, 0, 0, &json).ok()?;
        Some(Self { draft, live: Some(live) })
    }

    /// Bytes of what it says.
    pub(crate) fn json_bytes(&self) -> usize {
        self.draft.json().len()
    }

    /// Bytes in the log.
    pub(crate) fn bytes(&self) -> usize {
        self.draft.stored_bytes()
    }
}

impl Journal {
    /// A journal on an open log.
    pub(crate) fn new(log: Log) -> Self {
        Self::on(Medium::Own(log))
    }

    /// A journal in Redis.
    pub(crate) fn shared(notes: Notes) -> Self {
        let shared = Shared { notes, known: (0, 0), sizes: VecDeque::new(), bytes: 0 };
        Self::on(Medium::Shared(Box::new(shared)))
    }

    fn on(medium: Medium) -> Self {
        Self { medium, live: BTreeMap::new(), live_bytes: 0, ids: 0, floor_bytes: FLOOR_BYTES }
    }

    /// Whether others write it too.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.medium, Medium::Shared(_))
    }

    /// Takes the turn over a journal that is shared; `None` for one that is not.
    pub(crate) fn enter(&mut self) -> Result<Option<Entered>, GroupError> {
        let Medium::Shared(shared) = &mut self.medium else { return Ok(None) };
        let turn = shared.notes.enter(shared.known)?;
        Ok(Some(Entered { lost: turn.lost || turn.seq < shared.known.0, now_ms: turn.now_ms }))
    }

    /// Gives the turn back.
    pub(crate) fn leave(&mut self) {
        if let Medium::Shared(shared) = &mut self.medium {
            shared.notes.leave();
        }
    }

    /// With another bound for cleaning.
    #[cfg(test)]
    pub(crate) fn with_floor(mut self, bytes: u64) -> Self {
        self.floor_bytes = bytes;
        self
    }

    /// Reads everything from the beginning; what counts is noted on the way.
    pub(crate) fn replay(&mut self, each: impl FnMut(Read, u64, usize, u64)) -> Result<(), ReadError> {
        self.live.clear();
        self.live_bytes = 0;
        if let Medium::Shared(shared) = &mut self.medium {
            shared.known = (0, 0);
            shared.sizes.clear();
            shared.bytes = 0;
        }
        self.catch_up(each)
    }

    /// Reads what was written since by others; everything where it is not shared.
    pub(crate) fn catch_up(&mut self, mut each: impl FnMut(Read, u64, usize, u64)) -> Result<(), ReadError> {
        if let Medium::Own(log) = &self.medium {
            let reader = log.reader();
            let mut scan = reader.forward(reader.first_seq(), Filter::default());
            while let Some(record) = scan.next()? {
                self.read(&record, &mut each);
            }
            return Ok(());
        }
        loop {
            let Medium::Shared(shared) = &mut self.medium else { return Ok(()) };
            let records = shared.notes.read(shared.known.0 + 1).map_err(ReadTrouble::from)?;
            let Some(last) = records.last() else { return Ok(()) };
            shared.known = (last.stamp.seq, last.event_id);
            for record in &records {
                shared.size(record.stamp.seq, record.json().len() as u64);
            }
            for record in &records {
                self.read(record, &mut each);
            }
        }
    }

    fn read(&mut self, record: &Record, each: &mut impl FnMut(Read, u64, usize, u64)) {
        let (at_ms, bytes) = (record.time_us.max(0) as u64 / 1_000, record.json().len());
        if record.kind() == FACT {
            match serde_json::from_slice::<Fact>(record.json()) {
                Ok(fact) => {
                    let group: Box<str> = record.symbol().into();
                    if matches!(fact, Fact::Created { .. } | Fact::Snapshot(_)) {
                        self.count(record.stamp.seq, Live::Group(group.clone()), bytes as u64);
                    }
                    each(Read::Fact { group, fact }, record.stamp.seq, bytes, at_ms);
                }
                Err(error) => unknown(record.stamp.seq, &error),
            }
            return;
        }
        match serde_json::from_slice::<Letter<'_>>(record.json()) {
            Ok(letter) => {
                let id = MessageId { ms: letter.head.id.0, n: letter.head.id.1 };
                let live = Live::Letter(letter.head.group.clone(), id);
                self.count(record.stamp.seq, live, bytes as u64);
                each(Read::Letter { head: letter.head }, record.stamp.seq, bytes, at_ms);
            }
            Err(error) => unknown(record.stamp.seq, &error),
        }
    }

    /// Writes entries, all or none, and waits until they are durable; what counts among them and where it stands.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) -> Result<Vec<(Live, u64)>, GroupError> {
        let mut lives = Vec::with_capacity(entries.len());
        let mut drafts = Vec::with_capacity(entries.len());
        for Entry { mut draft, live } in entries {
            // Within one commit two records may not share an id; it means nothing here.
            self.ids += 1;
            draft.event_id = self.ids;
            lives.push((live, draft.stored_bytes() as u64));
            drafts.push(draft);
        }
        let seqs = self.write(drafts)?;
        let mut stored = Vec::new();
        for ((live, bytes), seq) in lives.into_iter().zip(seqs) {
            if let Some(live) = live {
                self.count(seq, live.clone(), bytes);
                stored.push((live, seq));
            }
        }
        Ok(stored)
    }

    fn write(&mut self, drafts: Vec<Draft>) -> Result<Vec<u64>, GroupError> {
        match &mut self.medium {
            Medium::Own(log) => {
                let receipt = log.append_blocking(drafts, true)?;
                let seq = |outcome: &Outcome| match outcome {
                    Outcome::Stored(stamp) => Ok(stamp.seq),
                    _ => Err(GroupError::Failed),
                };
                receipt.outcomes.iter().map(seq).collect()
            }
            Medium::Shared(shared) => {
                shared.known = shared.notes.append(&drafts)?;
                let first = shared.known.0 + 1 - drafts.len() as u64;
                let seqs: Vec<u64> = (first..=shared.known.0).collect();
                for (draft, seq) in drafts.iter().zip(&seqs) {
                    shared.size(*seq, draft.json().len() as u64);
                }
                Ok(seqs)
            }
        }
    }

    /// The record at a seq.
    pub(crate) fn record(&self, seq: u64) -> Result<Option<Record>, ReadError> {
        match &self.medium {
            Medium::Own(log) => Ok(log.reader().record(seq)?),
            Medium::Shared(shared) => Ok(shared.notes.record(seq).map_err(ReadTrouble::from)?),
        }
    }

    /// Bytes of everything that is there.
    fn bytes_there(&self) -> u64 {
        match &self.medium {
            Medium::Own(log) => log.reader().stats().bytes,
            Medium::Shared(shared) => shared.bytes,
        }
    }

    /// Notes that what stands at a seq does not count any longer.
    pub(crate) fn forget(&mut self, seq: u64) {
        if let Some((_, bytes)) = self.live.remove(&seq) {
            self.live_bytes -= bytes;
        }
    }

    /// The oldest things that count, when they are to be written again for the log to become shorter.
    pub(crate) fn to_move(&self, bytes_max: u64) -> Vec<(u64, Live)> {
        let bytes = self.bytes_there();
        if bytes <= self.floor_bytes + 2 * self.live_bytes {
            return Vec::new();
        }
        let mut left = bytes_max;
        self.live
            .iter()
            .take_while(|(_, (_, bytes))| {
                let goes_on = left > 0;
                left = left.saturating_sub(*bytes);
                goes_on
            })
            .map(|(seq, (live, _))| (*seq, live.clone()))
            .collect()
    }

    /// Drops what stands before everything that counts, as far as it can be dropped.
    pub(crate) fn trim(&mut self) {
        let oldest = self.live.keys().next().copied();
        match &mut self.medium {
            Medium::Own(log) => {
                log.trim_before(oldest.unwrap_or_else(|| log.reader().durable_seq() + 1));
            }
            Medium::Shared(shared) => {
                // The newest one stays: it is what the next turn is compared with.
                let before = oldest.unwrap_or(shared.known.0).min(shared.known.0);
                if let Err(error) = shared.notes.trim_before(before) {
                    tracing::debug!(component = "groups", error = %error, "old notes of the groups stay for now");
                    return;
                }
                while let Some((seq, bytes)) = shared.sizes.front().copied()
                    && seq < before
                {
                    shared.bytes -= bytes;
                    shared.sizes.pop_front();
                }
            }
        }
    }

    /// Bytes of the log, and those that count.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.bytes_there(), self.live_bytes)
    }

    fn count(&mut self, seq: u64, live: Live, bytes: u64) {
        self.live_bytes += bytes;
        self.live.insert(seq, (live, bytes));
    }
}

/// A record that this version does not know is left alone: it was whole when it was written.
fn unknown(seq: u64, error: &serde_json::Error) {
    tracing::error!(component = "groups", seq, error = %error, "a record of the groups is not understood");
}

impl Letter<'_> {
    /// Reads a letter out of its record.
    pub(crate) fn of(record: &Record) -> Option<Letter<'_>> {
        serde_json::from_slice(record.json()).ok()
    }
}
