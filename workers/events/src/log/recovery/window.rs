//! A segment's bytes on their way to a verdict: read in pieces, taken apart into units and records.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::ScanError;
use crate::log::form::Form;
use crate::log::frame::{self, FRAME_BYTES_MAX, Frame};
use crate::log::index::Entry;
use crate::log::record::{self, HEADER_BYTES, Header, Parsed, RECORD_BYTES_MAX, Stamp};

/// Bytes read at once.
const WINDOW_BYTES: usize = 1024 * 1024;

/// What a checksum is over: a bare record, or a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    len: usize,
    pub(super) seq: u64,
    pub(super) count: u32,
    pub(super) flags: u8,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Record(Header),
    Frame(Frame),
}

impl Unit {
    pub(super) fn padded(&self) -> usize {
        record::padded(self.len)
    }

    fn of_record(header: Header) -> Self {
        let (len, seq, flags) = (header.len, header.stamp.seq, header.flags);
        Self { len, seq, count: 1, flags, what: What::Record(header) }
    }

    fn of_frame(frame: Frame) -> Self {
        let Frame { len, seq, count, flags, .. } = frame;
        Self { len, seq, count, flags, what: What::Frame(frame) }
    }

    pub(super) fn parse(form: &Form, bytes: &[u8]) -> Parsed<Self> {
        if form.is_framed() {
            frame::parse(bytes).map(Self::of_frame)
        } else {
            record::parse(bytes).map(Self::of_record)
        }
    }
}

/// A record of a commit whose end was not seen yet.
pub(super) struct Pending {
    stamp: Stamp,
    /// Of its unit.
    pub(super) offset: u64,
    len: u64,
    time_us: i64,
    event_id: u128,
    kind: Box<str>,
}

impl Pending {
    pub(super) fn entry(&self) -> Entry<'_> {
        let Self { stamp, offset, len, time_us, event_id, kind } = self;
        let (stamp, offset, len, time_us, event_id) = (*stamp, *offset, *len, *time_us, *event_id);
        Entry { stamp, offset, len, time_us, event_id, kind }
    }
}

/// A file read through a moving window.
pub(super) struct Window<'a> {
    file: &'a File,
    pub(super) form: &'a Form,
    pub(super) len: u64,
    begin: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a File, form: &'a Form) -> io::Result<Self> {
        Ok(Self { file, form, len: file.metadata()?.len(), begin: 0, buffer: Vec::new() })
    }

    pub(super) fn unit_bytes_max(&self) -> usize {
        if self.form.is_framed() { FRAME_BYTES_MAX } else { RECORD_BYTES_MAX }
    }

    /// More records than these do not fit into the file: compressed to nothing they still have a header in memory.
    pub(super) fn records_max(&self) -> u64 {
        let records = self.len / HEADER_BYTES as u64;
        if self.form.is_framed() {
            records.saturating_mul((FRAME_BYTES_MAX / HEADER_BYTES) as u64)
        } else {
            records
        }
    }

    /// Up to `want` bytes from `at` on; fewer only at the end of the file.
    pub(super) fn bytes(&mut self, at: u64, want: usize) -> io::Result<&[u8]> {
        let stop = (at + want as u64).min(self.len);
        if at >= stop {
            return Ok(&[]);
        }
        if at < self.begin || stop > self.begin + self.buffer.len() as u64 {
            let size = (self.len - at).min(want.max(WINDOW_BYTES) as u64) as usize;
            self.buffer.resize(size, 0);
            self.file.read_exact_at(&mut self.buffer, at)?;
            self.begin = at;
        }
        let from = (at - self.begin) as usize;
        Ok(&self.buffer[from..from + (stop - at) as usize])
    }

    /// The fields of a unit's header that both versions have in the same places.
    pub(super) fn head(&mut self, at: u64) -> io::Result<Option<Header>> {
        Ok(self.bytes(at, HEADER_BYTES)?.first_chunk().map(Header::read))
    }

    pub(super) fn parse(&mut self, at: u64) -> io::Result<Parsed<Unit>> {
        let want = match self.head(at)? {
            Some(head) => head.padded().clamp(HEADER_BYTES, self.unit_bytes_max() + record::ALIGN),
            None => HEADER_BYTES,
        };
        let form = self.form;
        Ok(Unit::parse(form, self.bytes(at, want)?))
    }

    /// Takes up the records of the unit at `at`.
    pub(super) fn take(&mut self, at: u64, unit: &Unit, commit: &mut Vec<Pending>) -> Result<(), ScanError> {
        let (form, len) = (self.form, unit.padded());
        let bytes = self.bytes(at, len)?;
        let mut add = |header: &Header, record: &[u8]| {
            commit.push(Pending {
                stamp: header.stamp,
                offset: at,
                len: len as u64,
                time_us: header.time_us,
                event_id: header.event_id,
                kind: header.kind(record).into(),
            });
        };
        match unit.what {
            What::Record(header) => add(&header, bytes),
            What::Frame(frame) => {
                let corrupt = |why| ScanError::Corrupt { offset: at, why };
                let bytes = Bytes::copy_from_slice(bytes);
                let records = frame.open(form, at, &bytes, 0).map_err(corrupt)?;
                let (mut place, mut seq) = (0, frame.seq);
                while place < records.len() {
                    let Parsed::Whole(header) = record::parse_framed(&records[place..]) else {
                        return Err(corrupt("a frame that holds no records"));
                    };
                    if header.stamp.seq != seq {
                        return Err(corrupt("a record out of sequence"));
                    }
                    add(&header, &records[place..]);
                    (place, seq) = (place + header.padded(), seq + 1);
                }
                if seq != frame.seq + u64::from(frame.count) {
                    return Err(corrupt("a frame with another number of records"));
                }
            }
        }
        Ok(())
    }

    /// Offset after the last byte that is not zero.
    pub(super) fn written_end(&mut self) -> io::Result<u64> {
        let mut stop = self.len;
        while stop > 0 {
            let begin = stop.saturating_sub(WINDOW_BYTES as u64);
            let last = self.bytes(begin, (stop - begin) as usize)?.iter().rposition(|b| *b != 0);
            if let Some(last) = last {
                return Ok(begin + last as u64 + 1);
            }
            stop = begin;
        }
        Ok(0)
    }
}
