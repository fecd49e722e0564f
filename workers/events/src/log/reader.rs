//! Reading: forward, backward, one record. Readers take no lock that the writer holds across a disk access, and
//! see durable records alone. Every record's checksum is checked at every read: damage is an error, never data.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::filter::Filter;
use super::record::{MessageId, Parsed, Record, parse};
use super::segment::Segment;
use super::store::Store;

/// Bytes of the first read of a scan; each further one reads four times as much, up to [`READ_BYTES_MAX`].
const READ_BYTES_FIRST: u64 = 16 * 1024;
const READ_BYTES_MAX: u64 = 1024 * 1024;

/// Why a record cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk refused.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What is on the disk is not what was written.
    #[error("{} is damaged at offset {offset}: {why}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        why: &'static str,
    },
}

/// Reads an open log; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) store: Arc<Store>,
}

/// What the log holds, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events.
    pub length: u64,
    /// Seq of the oldest event kept, or of the next one.
    pub first_seq: u64,
    /// Seq of the newest durable event, 0 without one.
    pub last_seq: u64,
    /// Oldest message id.
    pub first_id: Option<MessageId>,
    /// Newest message id.
    pub last_id: Option<MessageId>,
    /// Bytes of all records and headers.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Events of each type.
    pub types: BTreeMap<Box<str>, u64>,
    /// Events of types beyond the number counted by name.
    pub other_types: u64,
}

impl Reader {
    /// Seq of the newest durable event; 0 without one.
    pub fn durable_seq(&self) -> u64 {
        self.store.durable_seq()
    }

    /// Seq of the oldest event kept, or of the next one when there is none.
    pub fn first_seq(&self) -> u64 {
        self.store.first_seq()
    }

    /// Blocks until an event after `seq` is durable; `false` when the time is up.
    pub fn wait_beyond(&self, seq: u64, limit: Duration) -> bool {
        self.store.wait_beyond(seq, limit)
    }

    /// Events from `seq` on, up to the newest one now, oldest first.
    pub fn forward(&self, seq: u64, filter: Filter) -> Forward {
        Forward {
            store: Arc::clone(&self.store),
            filter,
            next: seq,
            upto: self.durable_seq(),
            place: None,
            read_bytes: READ_BYTES_FIRST,
            block: Block::default(),
            trimmed: None,
        }
    }

    /// Events before `seq`, newest first.
    pub fn backward(&self, seq: u64, filter: Filter) -> Backward {
        let before = seq.min(self.durable_seq() + 1);
        Backward {
            store: Arc::clone(&self.store),
            filter,
            before,
            place: None,
            read_bytes: READ_BYTES_FIRST,
            found: Vec::new(),
        }
    }

    /// The event with a seq; `None` when it is not kept (any longer).
    pub fn record(&self, seq: u64) -> Result<Option<Record>, ReadError> {
        if seq > self.durable_seq() {
            return Ok(None);
        }
        record_at(&self.store, seq)
    }

    /// The seq of the first event after a message id.
    pub fn seq_after(&self, id: MessageId) -> Result<u64, ReadError> {
        self.seq_where(id, |other| other > id)
    }

    /// The seq of the first event at or after a message id.
    pub fn seq_at(&self, id: MessageId) -> Result<u64, ReadError> {
        self.seq_where(id, |other| other >= id)
    }

    /// The event with a message id.
    pub fn by_message_id(&self, id: MessageId) -> Result<Option<Record>, ReadError> {
        let found = self.record(self.seq_at(id)?)?;
        Ok(found.filter(|record| record.stamp.id == id))
    }

    /// The newest event with an event id, however old: segments are asked from the newest to the oldest.
    pub fn by_event_id(&self, event_id: u128) -> Result<Option<Record>, ReadError> {
        for segment in self.store.segments().iter().rev() {
            let candidates = segment.candidates(event_id).map_err(|source| read_error(segment, source))?;
            let found = match candidates {
                Some(seqs) => self.first_of(&seqs, event_id)?,
                None => self.scan_for(segment, event_id)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// What the log holds.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { last_seq: self.durable_seq(), ..Stats::default() };
        let segments = self.store.segments();
        stats.first_seq = segments.first().map_or(1, |segment| segment.base_seq);
        stats.length = (stats.last_seq + 1).saturating_sub(stats.first_seq);
        stats.segments = segments.len() as u64;
        for segment in &segments {
            segment.with_summary(|summary| {
                stats.bytes += summary.end;
                stats.other_types += summary.other_types;
                if summary.records > 0 {
                    stats.first_id = stats.first_id.or(Some(summary.first));
                    stats.last_id = Some(summary.last);
                }
                for (kind, count) in &summary.types {
                    *stats.types.entry(kind.clone()).or_default() += count;
                }
            });
        }
        stats
    }

    fn seq_where(&self, id: MessageId, wanted: impl Fn(MessageId) -> bool) -> Result<u64, ReadError> {
        let segment = self.store.segment_of_id(id);
        self.store.touch(&segment);
        let block = segment.block_of_id(id).map_err(|source| read_error(&segment, source))?;
        let mut after = segment.base_seq;
        for record in Block::read(&segment, block)? {
            let stamp = record?.stamp;
            if wanted(stamp.id) {
                return Ok(stamp.seq);
            }
            after = stamp.seq + 1;
        }
        Ok(after)
    }

    fn first_of(&self, seqs: &[u64], event_id: u128) -> Result<Option<Record>, ReadError> {
        for seq in seqs {
            if let Some(record) = self.record(*seq)?
                && record.event_id == event_id
            {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    fn scan_for(&self, segment: &Arc<Segment>, event_id: u128) -> Result<Option<Record>, ReadError> {
        let records = segment.with_summary(|summary| summary.records);
        let mut found = None;
        let mut scan = self.forward(segment.base_seq, Filter::default());
        scan.upto = scan.upto.min((segment.base_seq + records).saturating_sub(1));
        while let Some(record) = scan.next()? {
            if record.event_id == event_id {
                found = Some(record);
            }
        }
        Ok(found)
    }
}

/// Reads one record whether or not it is durable yet; for the writer's own look at what it wrote.
pub(crate) fn record_at(store: &Arc<Store>, seq: u64) -> Result<Option<Record>, ReadError> {
    if seq < store.first_seq() {
        return Ok(None);
    }
    let mut forward = Reader { store: Arc::clone(store) }.forward(seq, Filter::default());
    forward.upto = seq;
    // One block is enough.
    forward.read_bytes = 1;
    forward.next()
}

/// Events which a scan wanted and retention had already removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// The seq that came next.
    pub expected: u64,
    /// The oldest seq that is kept.
    pub got: u64,
}

/// A scan towards newer events.
#[derive(Debug)]
pub struct Forward {
    store: Arc<Store>,
    filter: Filter,
    /// No record before this seq is returned.
    next: u64,
    upto: u64,
    /// Segment being read, and the offset up to which it was.
    place: Option<(Arc<Segment>, u64)>,
    read_bytes: u64,
    block: Block,
    trimmed: Option<Trimmed>,
}

impl Forward {
    /// The next event that the filter admits; `None` at the end. After an error there is nothing more.
    #[allow(clippy::should_implement_trait, reason = "an iterator of results invites to skip errors")]
    pub fn next(&mut self) -> Result<Option<Record>, ReadError> {
        while self.next <= self.upto {
            match self.block.next() {
                Some(Ok(record)) if record.stamp.seq < self.next => {}
                Some(Ok(record)) if record.stamp.seq > self.upto => {
                    // Not durable when the scan began: read again by a scan that goes on.
                    self.restart();
                    break;
                }
                Some(Ok(record)) => {
                    self.next = record.stamp.seq + 1;
                    if self.filter.admits(&record) {
                        return Ok(Some(record));
                    }
                }
                Some(Err(error)) => {
                    self.upto = 0;
                    return Err(error);
                }
                None if self.fill()? => {}
                None => break,
            }
        }
        self.next = self.next.max(self.upto + 1);
        Ok(None)
    }

    /// The seq from which the scan goes on.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Moves the end of the scan to the newest durable event.
    pub fn extend(&mut self) {
        self.upto = self.store.durable_seq();
    }

    /// What retention took away from under the scan since the last call.
    pub fn trimmed(&mut self) -> Option<Trimmed> {
        self.trimmed.take()
    }

    fn restart(&mut self) {
        self.place = None;
        self.block = Block::default();
    }

    /// Reads the next stretch that may hold something; `false` at the end.
    fn fill(&mut self) -> Result<bool, ReadError> {
        loop {
            let (segment, offset) = match self.place.take() {
                Some(place) => place,
                None => self.enter(self.store.segment_of(self.next))?,
            };
            let run = segment.run_after(offset, self.read_bytes, &self.filter);
            if let Some(run) = run.map_err(|source| read_error(&segment, source))? {
                self.read_bytes = (self.read_bytes * 4).min(READ_BYTES_MAX);
                let stop = run.end;
                self.block = Block::read(&segment, run)?;
                self.place = Some((segment, stop));
                return Ok(true);
            }
            let following_seq = segment.base_seq + segment.with_summary(|summary| summary.records);
            if following_seq > self.upto {
                self.place = Some((segment, offset));
                return Ok(false);
            }
            self.next = self.next.max(following_seq);
            let following = self.store.segment_of(self.next);
            self.place = Some(self.enter(following)?);
        }
    }

    fn enter(&mut self, segment: Arc<Segment>) -> Result<(Arc<Segment>, u64), ReadError> {
        if segment.base_seq > self.next {
            self.trimmed = Some(Trimmed { expected: self.next, got: segment.base_seq });
            self.next = segment.base_seq;
        }
        self.store.touch(&segment);
        let block = segment.block_of_seq(self.next).map_err(|source| read_error(&segment, source))?;
        Ok((segment, block.start))
    }
}

/// A scan towards older events.
#[derive(Debug)]
pub struct Backward {
    store: Arc<Store>,
    filter: Filter,
    /// No record from this seq on is returned.
    before: u64,
    /// Segment being read, and the offset down to which it was.
    place: Option<(Arc<Segment>, u64)>,
    read_bytes: u64,
    /// Records of the last stretch, oldest first.
    found: Vec<Record>,
}

impl Backward {
    /// The next older event that the filter admits; `None` at the end. After an error there is nothing more.
    #[allow(clippy::should_implement_trait, reason = "an iterator of results invites to skip errors")]
    pub fn next(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            if let Some(record) = self.found.pop() {
                return Ok(Some(record));
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => {
                    self.before = 0;
                    return Err(error);
                }
            }
        }
    }

    /// Reads the stretch before; `false` at the end.
    fn fill(&mut self) -> Result<bool, ReadError> {
        if self.before <= self.store.first_seq() {
            return Ok(false);
        }
        let (segment, offset) = match self.place.take() {
            Some(place) => place,
            None => self.enter(self.store.segment_of(self.before - 1))?,
        };
        let run = segment.run_before(offset, self.read_bytes, &self.filter);
        let Some(run) = run.map_err(|source| read_error(&segment, source))? else {
            self.before = segment.base_seq;
            return Ok(true);
        };
        self.read_bytes = (self.read_bytes * 4).min(READ_BYTES_MAX);
        let begin = run.start;
        for record in Block::read(&segment, run)? {
            let record = record?;
            if record.stamp.seq < self.before && self.filter.admits(&record) {
                self.found.push(record);
            }
        }
        self.place = Some((segment, begin));
        Ok(true)
    }

    fn enter(&self, segment: Arc<Segment>) -> Result<(Arc<Segment>, u64), ReadError> {
        self.store.touch(&segment);
        let block = segment.block_of_seq(self.before - 1).map_err(|source| read_error(&segment, source))?;
        Ok((segment, block.end))
    }
}

/// Whole records read at once.
#[derive(Debug, Default)]
struct Block {
    segment: Option<Arc<Segment>>,
    bytes: Bytes,
    begin: u64,
    at: usize,
}

impl Block {
    /// Reads a range that begins and ends with a record.
    fn read(segment: &Arc<Segment>, range: Range<u64>) -> Result<Self, ReadError> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        segment.file.read_exact_at(&mut bytes, range.start).map_err(|source| read_error(segment, source))?;
        Ok(Self { segment: Some(Arc::clone(segment)), bytes: bytes.into(), begin: range.start, at: 0 })
    }
}

impl Iterator for Block {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let segment = self.segment.as_ref()?;
        if self.at >= self.bytes.len() {
            return None;
        }
        let why = match parse(&self.bytes[self.at..]) {
            Parsed::Whole(header) => {
                let record = Record::slice(&header, &self.bytes, self.at);
                self.at += header.padded();
                return Some(Ok(record));
            }
            Parsed::Blank => "records missing",
            Parsed::Short => "a record cut short",
            Parsed::Damaged(why) => why,
        };
        let (path, offset) = (segment.path.clone(), self.begin + self.at as u64);
        // Nothing behind the damage is served.
        self.at = self.bytes.len();
        Some(Err(ReadError::Corrupt { path, offset, why }))
    }
}

fn read_error(segment: &Segment, source: io::Error) -> ReadError {
    ReadError::Read { path: segment.path.clone(), source }
}
