//! Reading many events, in either direction. A scan reads whole blocks, skips those that cannot hold what its
//! filter wants, and ends at the newest event that was durable when it began (or was last extended).

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::filter::Filter;
use super::frame;
use super::reader::{ReadError, read_error};
use super::record::{Parsed, Record, parse, parse_framed};
use super::segment::Segment;
use super::store::Store;

/// Bytes of the first read of a scan; each further one reads four times as much, up to [`READ_BYTES_MAX`].
const READ_BYTES_FIRST: u64 = 16 * 1024;
const READ_BYTES_MAX: u64 = 1024 * 1024;

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
    pace: Pace,
    /// The newest records are taken from memory while they are there.
    follows: bool,
}

impl Forward {
    pub(super) fn new(store: &Arc<Store>, seq: u64, upto: u64, filter: Filter) -> Self {
        Self {
            store: Arc::clone(store),
            filter,
            next: seq,
            upto,
            place: None,
            read_bytes: READ_BYTES_FIRST,
            block: Block::default(),
            trimmed: None,
            pace: Pace::default(),
            follows: false,
        }
    }

    /// For who follows the log closely: what was just written is not read back from the disk.
    #[must_use]
    pub fn following(mut self) -> Self {
        self.follows = true;
        self
    }

    /// For one record: reads no more than the block it stands in.
    pub(super) fn of_one_block(mut self) -> Self {
        self.read_bytes = 1;
        self
    }

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
                    if self.pace.spend(1) {
                        return Ok(None);
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

    /// Lets the scan pause after so many records that the filter refused.
    #[must_use]
    pub fn pausing_after(mut self, records: u64) -> Self {
        self.pace.left = records;
        self
    }

    /// Whether the scan ended early, to go on at [`Forward::position`].
    pub fn paused(&self) -> bool {
        self.pace.paused
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
        if self.follows
            && let Some(records) = self.store.newest(self.next)
        {
            self.restart();
            self.block = Block::of_records(records);
            return Ok(true);
        }
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
    pace: Pace,
}

/// How much of the log a scan may look at before it pauses.
#[derive(Debug)]
struct Pace {
    left: u64,
    paused: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { left: u64::MAX, paused: false }
    }
}

impl Pace {
    /// Counts records looked at; whether the scan is to pause.
    fn spend(&mut self, records: u64) -> bool {
        self.left = self.left.saturating_sub(records);
        self.paused = self.left == 0;
        self.paused
    }
}

impl Backward {
    pub(super) fn new(store: &Arc<Store>, before: u64, filter: Filter) -> Self {
        Self {
            store: Arc::clone(store),
            filter,
            before,
            place: None,
            read_bytes: READ_BYTES_FIRST,
            found: Vec::new(),
            pace: Pace::default(),
        }
    }

    /// The next older event that the filter admits; `None` at the end. After an error there is nothing more.
    #[allow(clippy::should_implement_trait, reason = "an iterator of results invites to skip errors")]
    pub fn next(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            if let Some(record) = self.found.pop() {
                return Ok(Some(record));
            }
            if self.pace.paused {
                return Ok(None);
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

    /// The seq before which the scan goes on.
    pub fn position(&self) -> u64 {
        self.before
    }

    /// Lets the scan pause after so many records.
    #[must_use]
    pub fn pausing_after(mut self, records: u64) -> Self {
        self.pace.left = records;
        self
    }

    /// Whether the scan ended early, to go on at [`Backward::position`].
    pub fn paused(&self) -> bool {
        self.pace.paused
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
        let (begin, before) = (run.start, self.before);
        let mut examined = 0;
        for record in Block::read(&segment, run)? {
            let record = record?;
            examined += 1;
            self.before = self.before.min(record.stamp.seq);
            if record.stamp.seq < before && self.filter.admits(&record) {
                self.found.push(record);
            }
        }
        self.place = Some((segment, begin));
        self.pace.spend(examined);
        Ok(true)
    }

    fn enter(&self, segment: Arc<Segment>) -> Result<(Arc<Segment>, u64), ReadError> {
        self.store.touch(&segment);
        let block = segment.block_of_seq(self.before - 1).map_err(|source| read_error(&segment, source))?;
        Ok((segment, block.end))
    }
}

/// Whole units read at once, record by record.
#[derive(Debug, Default)]
pub(super) struct Block {
    segment: Option<Arc<Segment>>,
    bytes: Bytes,
    begin: u64,
    at: usize,
    /// What the frame before `at` held, and how far it was read.
    framed: (Bytes, usize),
}

impl Block {
    /// Records that are in memory, as they were encoded.
    fn of_records(records: Bytes) -> Self {
        Self { framed: (records, 0), ..Self::default() }
    }

    /// Reads a range that begins and ends with a unit.
    pub(super) fn read(segment: &Arc<Segment>, range: Range<u64>) -> Result<Self, ReadError> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        segment.file.read_exact_at(&mut bytes, range.start).map_err(|source| read_error(segment, source))?;
        let segment = Some(Arc::clone(segment));
        Ok(Self { segment, bytes: bytes.into(), begin: range.start, ..Self::default() })
    }

    /// The records of the next frame together; `None` at the end.
    pub(super) fn next_frame(&mut self) -> Option<Result<Bytes, ReadError>> {
        let segment = self.segment.clone()?;
        if self.at >= self.bytes.len() {
            return None;
        }
        let offset = self.begin + self.at as u64;
        let opened = match frame::parse(&self.bytes[self.at..]) {
            Parsed::Whole(frame) => frame
                .open(&segment.form, offset, &self.bytes, self.at)
                .map(|records| (records, frame.padded())),
            Parsed::Blank => Err("records missing"),
            Parsed::Short => Err("a record cut short"),
            Parsed::Damaged(why) => Err(why),
        };
        match opened {
            Ok((records, len)) => {
                self.at += len;
                Some(Ok(records))
            }
            Err(why) => Some(Err(self.corrupt(&segment, why))),
        }
    }

    fn next_bare(&mut self) -> Option<Result<Record, ReadError>> {
        let segment = self.segment.clone()?;
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
        Some(Err(self.corrupt(&segment, why)))
    }

    /// Nothing behind the damage is served.
    fn corrupt(&mut self, segment: &Segment, why: &'static str) -> ReadError {
        let (path, offset) = (segment.path.clone(), self.begin + self.at as u64);
        self.at = self.bytes.len();
        self.framed = (Bytes::new(), 0);
        ReadError::Corrupt { path, offset, why }
    }
}

impl Iterator for Block {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.framed.1 >= self.framed.0.len() {
            if !self.segment.as_ref()?.form.is_framed() {
                return self.next_bare();
            }
            self.framed = match self.next_frame()? {
                Ok(records) => (records, 0),
                Err(error) => return Some(Err(error)),
            };
        }
        let (records, at) = &self.framed;
        if let Parsed::Whole(header) = parse_framed(&records[*at..]) {
            let record = Record::slice(&header, records, *at);
            self.framed.1 += header.padded();
            return Some(Ok(record));
        }
        let segment = self.segment.clone()?;
        Some(Err(self.corrupt(&segment, "a frame that holds no records")))
    }
}
