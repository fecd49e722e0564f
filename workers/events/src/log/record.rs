//! One record: the bytes of an event in the log, and the id it got. Version 1 of the format stored records one after
//! the other; since version 2 they stand in frames, with flags and checksum zero.
//!
//! Layout (little endian, 64 bytes of header, then the labels, then the event as JSON, then zeros up to a
//! multiple of 8):
//!
//! ```text
//!  0 u32 len        header + labels + JSON, without the padding
//!  4 u32 crc32c     of len, then of everything from byte 8 to the end of the padding
//!  8 u64 seq        16 u64 ms   24 u32 n      (seq is contiguous; <ms>-<n> is the message id)
//! 28 u8  flags      29 u8 length of the type, 30 of the symbol, 31 of the source
//! 32 i64 event time in microseconds since 1970
//! 40 u128 event id  56 u64 fingerprint of the content
//! 64 type, symbol, source, JSON
//! ```
//!
//! In a log that is divided into partitions (version 3) byte 28 is the partition + 1, and eight bytes of header more
//! (u64, the number in the partition) stand at 64, before the labels.
//!
//! The labels are repeated outside the JSON so that a scan can filter without parsing it, and the event id and
//! fingerprint so that the dedup window is rebuilt without parsing either. The checksum covers the padding too:
//! any flipped bit of a stored record is a checksum error.

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::id::MessageId;
use super::partition::{Lane, PARTITIONS_MAX};

/// Size of a record's header.
pub(crate) const HEADER_BYTES: usize = 64;
/// What a header has more in a log that is divided.
const LANE_BYTES: usize = 8;
/// LIMIT: a record with its header. An event has at most 256 KiB as received; the rest is room for the fields
/// which the worker adds.
pub(crate) const RECORD_BYTES_MAX: usize = 320 * 1024;
/// LIMIT: type, symbol and source, each.
pub const LABEL_BYTES_MAX: usize = u8::MAX as usize;
/// Records begin at multiples of this, so that the search for a later record after damage is short.
pub(crate) const ALIGN: usize = 8;

/// First record of a commit (one write).
pub(crate) const FIRST: u8 = 1;
/// Last record of a commit. A commit without it was torn.
pub(crate) const LAST: u8 = 2;
/// Everything before this record was on stable storage when this record was written: damage in front of it is
/// corruption, never a torn write.
pub(crate) const BARRIER: u8 = 4;

/// What the log adds to an event: its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Contiguous number, from 1.
    pub seq: u64,
    /// Message id.
    pub id: MessageId,
}

/// What a scan can filter on without opening the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels<'a> {
    /// Event type.
    pub kind: &'a str,
    /// Symbol, empty when the event has none.
    pub symbol: &'a str,
    /// Source.
    pub source: &'a str,
}

/// An event on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Event time in microseconds since 1970.
    pub time_us: i64,
    /// Event id (a UUID's 128 bits).
    pub event_id: u128,
    /// Hash of the content, to tell a repeated event from another one under the same id.
    pub fingerprint: u64,
    /// Its id was made for it just now and told to nobody: no other event can have it.
    pub is_fresh: bool,
    lens: [u8; 3],
    body: Vec<u8>,
}

/// A draft whose JSON is still being written, where it will stay.
#[derive(Debug)]
pub struct Body {
    lens: [u8; 3],
    bytes: Vec<u8>,
}

/// An event that no record can hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DraftError {
    /// A label has more than [`LABEL_BYTES_MAX`] bytes.
    #[error("a label has {0} bytes, at most {LABEL_BYTES_MAX} are possible")]
    Label(usize),
    /// The record would have more bytes than one may have.
    #[error("the record has {0} bytes, at most {RECORD_BYTES_MAX} are possible")]
    Record(usize),
}

/// An event read from the log. Its bytes are a slice of the block that was read.
#[derive(Clone, Debug)]
pub struct Record {
    /// Place in the log.
    pub stamp: Stamp,
    /// Place in its partition; in a log that is not divided, the same in partition 0.
    pub lane: Lane,
    /// Event time in microseconds since 1970.
    pub time_us: i64,
    /// Event id.
    pub event_id: u128,
    /// Hash of the content.
    pub fingerprint: u64,
    lens: [u8; 3],
    body: Bytes,
}

/// The header's fields as stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) len: usize,
    pub(crate) crc: u32,
    pub(crate) stamp: Stamp,
    pub(crate) lane: Lane,
    pub(crate) flags: u8,
    /// Bytes before the labels.
    head: usize,
    pub(crate) lens: [u8; 3],
    pub(crate) time_us: i64,
    pub(crate) event_id: u128,
    pub(crate) fingerprint: u64,
}

/// What stands at one position of a segment.
#[derive(Debug)]
pub(crate) enum Parsed<T = Header> {
    /// Something whose checksum holds.
    Whole(T),
    /// Length zero: nothing was written here.
    Blank,
    /// The bytes end before it does.
    Short,
    /// Nothing that can stand here.
    Damaged(&'static str),
}

impl<T> Parsed<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Parsed<U> {
        match self {
            Self::Whole(whole) => Parsed::Whole(change(whole)),
            Self::Blank => Parsed::Blank,
            Self::Short => Parsed::Short,
            Self::Damaged(why) => Parsed::Damaged(why),
        }
    }
}

impl Body {
    /// Begins with the labels; `room` is how much JSON is expected.
    pub fn begin(labels: Labels<'_>, room: usize) -> Result<Self, DraftError> {
        let parts = [labels.kind, labels.symbol, labels.source];
        let mut lens = [0_u8; 3];
        for (slot, part) in lens.iter_mut().zip(parts) {
            *slot = u8::try_from(part.len()).map_err(|_| DraftError::Label(part.len()))?;
        }
        let mut bytes = Vec::with_capacity(labels_len(lens) + room);
        for part in parts {
            bytes.extend_from_slice(part.as_bytes());
        }
        Ok(Self { lens, bytes })
    }

    /// Where the JSON is appended to; what stands there already are the labels.
    pub fn json(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The draft, once its JSON is whole.
    pub fn finish(self, time_us: i64, event_id: u128, fingerprint: u64) -> Result<Draft, DraftError> {
        let record = HEADER_BYTES + LANE_BYTES + self.bytes.len();
        if record > RECORD_BYTES_MAX {
            return Err(DraftError::Record(record));
        }
        Ok(Draft { time_us, event_id, fingerprint, is_fresh: false, lens: self.lens, body: self.bytes })
    }
}

impl Draft {
    /// Makes a draft of an event's labels and its JSON text.
    pub fn new(
        labels: Labels<'_>,
        time_us: i64,
        event_id: u128,
        fingerprint: u64,
        json: &[u8],
    ) -> Result<Self, DraftError> {
        let mut body = Body::begin(labels, json.len())?;
        body.json().extend_from_slice(json);
        body.finish(time_us, event_id, fingerprint)
    }

    /// Event type.
    pub fn kind(&self) -> &str {
        label(&self.body, 0, self.lens[0])
    }

    /// Whether another one is of the same type.
    pub fn is_alike(&self, other: &Self) -> bool {
        let own = usize::from(self.lens[0]);
        self.lens[0] == other.lens[0] && self.body[..own] == other.body[..own]
    }

    /// What it can be filtered by.
    pub fn labels(&self) -> Labels<'_> {
        let [kind, symbol, _] = self.lens.map(usize::from);
        Labels {
            kind: self.kind(),
            symbol: label(&self.body, kind, self.lens[1]),
            source: label(&self.body, kind + symbol, self.lens[2]),
        }
    }

    /// The event as JSON text.
    pub fn json(&self) -> &[u8] {
        &self.body[labels_len(self.lens)..]
    }

    /// Bytes of the record on disk, padding included, where the log is not divided.
    pub fn stored_bytes(&self) -> usize {
        padded(HEADER_BYTES + self.body.len())
    }

    /// Appends the record to `out`, without flags and checksum: those are its frame's.
    pub(crate) fn encode(&self, stamp: Stamp, lane: Option<Lane>, out: &mut Vec<u8>) {
        let start = out.len();
        let len = head_bytes(lane.map_or(0, |lane| lane.partition + 1)) + self.body.len();
        out.extend_from_slice(&(len as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&stamp.seq.to_le_bytes());
        out.extend_from_slice(&stamp.id.ms.to_le_bytes());
        out.extend_from_slice(&stamp.id.n.to_le_bytes());
        let partition = lane.map_or(0, |lane| lane.partition + 1);
        out.extend_from_slice(&[partition, self.lens[0], self.lens[1], self.lens[2]]);
        out.extend_from_slice(&self.time_us.to_le_bytes());
        out.extend_from_slice(&self.event_id.to_le_bytes());
        out.extend_from_slice(&self.fingerprint.to_le_bytes());
        if let Some(lane) = lane {
            out.extend_from_slice(&lane.seq.to_le_bytes());
        }
        out.extend_from_slice(&self.body);
        out.resize(start + padded(len), 0);
    }
}

impl Record {
    /// A draft with its place in another store than the log; `lane` where that one is divided.
    pub fn of(draft: Draft, stamp: Stamp, lane: Option<Lane>) -> Self {
        Self {
            stamp,
            lane: lane.unwrap_or_else(|| Lane::whole(stamp.seq)),
            time_us: draft.time_us,
            event_id: draft.event_id,
            fingerprint: draft.fingerprint,
            lens: draft.lens,
            body: draft.body.into(),
        }
    }

    /// Event type.
    pub fn kind(&self) -> &str {
        label(&self.body, 0, self.lens[0])
    }

    /// Whether it is of a type.
    pub fn is_kind(&self, kind: &str) -> bool {
        self.body[..usize::from(self.lens[0])] == *kind.as_bytes()
    }

    /// Whether it has a symbol.
    pub fn has_symbol(&self) -> bool {
        self.lens[1] > 0
    }

    /// Symbol, empty when the event has none.
    pub fn symbol(&self) -> &str {
        label(&self.body, usize::from(self.lens[0]), self.lens[1])
    }

    /// Source.
    pub fn source(&self) -> &str {
        label(&self.body, usize::from(self.lens[0]) + usize::from(self.lens[1]), self.lens[2])
    }

    /// The event as JSON text, without its place in the log.
    pub fn json(&self) -> &[u8] {
        &self.body[labels_len(self.lens)..]
    }

    /// The same record with bytes of its own, for who keeps it longer than the block it was read with.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { body: Bytes::copy_from_slice(&self.body), ..self.clone() }
    }

    /// Takes the record at `at` out of a block; the header must have been parsed there.
    pub(crate) fn slice(header: &Header, block: &Bytes, at: usize) -> Self {
        Self {
            stamp: header.stamp,
            lane: header.lane,
            time_us: header.time_us,
            event_id: header.event_id,
            fingerprint: header.fingerprint,
            lens: header.lens,
            body: block.slice(at + header.head..at + header.len),
        }
    }
}

impl Header {
    /// Bytes on disk, padding included.
    pub(crate) fn padded(&self) -> usize {
        padded(self.len)
    }

    /// The type of its record.
    pub(crate) fn kind<'a>(&self, record: &'a [u8]) -> &'a str {
        label(&record[self.head..], 0, self.lens[0])
    }

    /// Reads the fields without checking anything.
    pub(crate) fn read(bytes: &[u8; HEADER_BYTES]) -> Self {
        let u64_at = |at: usize| u64::from_le_bytes(array(bytes, at));
        let u32_at = |at: usize| u32::from_le_bytes(array(bytes, at));
        Self {
            len: u32_at(0) as usize,
            crc: u32_at(4),
            stamp: Stamp { seq: u64_at(8), id: MessageId { ms: u64_at(16), n: u32_at(24) } },
            lane: Lane::whole(u64_at(8)),
            flags: bytes[28],
            head: HEADER_BYTES,
            lens: [bytes[29], bytes[30], bytes[31]],
            time_us: i64::from_le_bytes(array(bytes, 32)),
            event_id: u128::from_le_bytes(array(bytes, 40)),
            fingerprint: u64_at(56),
        }
    }
}

/// Judges what stands at the beginning of `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
        return if bytes.iter().all(|b| *b == 0) { Parsed::Blank } else { Parsed::Short };
    };
    let header = Header::read(head);
    if header.len == 0 {
        return Parsed::Blank;
    }
    if !(HEADER_BYTES..=RECORD_BYTES_MAX).contains(&header.len) {
        return Parsed::Damaged("impossible length");
    }
    let whole = header.padded();
    let Some(record) = bytes.get(..whole) else { return Parsed::Short };
    if checksum(record) != header.crc {
        return Parsed::Damaged("checksum error");
    }
    checked(header, record)
}

/// Judges what stands at the beginning of what a frame held, which has been checked as a whole.
pub(crate) fn parse_framed(bytes: &[u8]) -> Parsed {
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return Parsed::Short };
    let mut header = Header::read(head);
    header.head = head_bytes(header.flags);
    if !(header.head..=RECORD_BYTES_MAX).contains(&header.len) {
        return Parsed::Damaged("impossible length");
    }
    let Some(record) = bytes.get(..header.padded()) else { return Parsed::Short };
    if let Some(partition) = header.flags.checked_sub(1) {
        if partition >= PARTITIONS_MAX {
            return Parsed::Damaged("impossible partition");
        }
        header.lane = Lane { partition, seq: u64::from_le_bytes(array(record, HEADER_BYTES)) };
    }
    checked(header, record)
}

/// Bytes before the labels, by byte 28 of a record in a frame.
fn head_bytes(partition: u8) -> usize {
    if partition == 0 { HEADER_BYTES } else { HEADER_BYTES + LANE_BYTES }
}

fn checked(header: Header, record: &[u8]) -> Parsed {
    let labels = labels_len(header.lens);
    let text = record.get(header.head..header.head + labels).map(std::str::from_utf8);
    if header.head + labels > header.len || !matches!(text, Some(Ok(_))) {
        return Parsed::Damaged("labels that do not fit");
    }
    Parsed::Whole(header)
}

/// The type of a record as it stands in a frame.
pub(crate) fn kind_of(record: &[u8]) -> &str {
    label(&record[head_bytes(record[28])..], 0, record[29])
}

/// The same; `known` where it is that one.
pub(crate) fn kind_like<'a>(record: &'a [u8], known: &'a str) -> &'a str {
    let at = head_bytes(record[28]);
    if record[at..at + usize::from(record[29])] == *known.as_bytes() { known } else { kind_of(record) }
}

/// Sets the flags of an encoded record and its checksum, as version 1 stored it.
#[cfg(test)]
pub(crate) fn seal(record: &mut [u8], flags: u8) {
    record[28] = flags;
    let crc = checksum(record);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// The checksum of a record with its padding.
pub(crate) fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..])
}

/// Rounds a length up to the alignment of records.
pub(crate) fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}

/// A fixed-size piece of a longer slice; the caller knows that it is long enough.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn labels_len(lens: [u8; 3]) -> usize {
    lens.iter().map(|len| usize::from(*len)).sum()
}

fn label(body: &[u8], at: usize, len: u8) -> &str {
    // Labels are checked to be UTF-8 when a record is parsed, and are `str` in a draft.
    std::str::from_utf8(&body[at..at + usize::from(len)]).unwrap_or_default()
}
