//! Opening: what of a segment's bytes is the log, and what is the remains of a crash.
//!
//! The writer makes one write a commit and waits for the sync before the next write (in interval mode: before the
//! next record that carries the BARRIER flag). So after a crash
//!
//! - only the last commits, from the last barrier on, can be incomplete; they were never acknowledged as durable,
//!   and are cut off whole ([`Verdict::torn`]);
//! - damage with a barrier anywhere behind it was durable once: that is corruption. It is named and refused;
//! - damage in the last commit that one flipped bit explains, or in a commit whose structure is whole and which
//!   misses no sector, cannot be the remains of a write: it is corruption too. Space in front of the end of a
//!   segment reads as zeros until it is written, so a torn write shows as zeros or as a short file.
//!
//! A sealed segment is complete: whatever is damaged there is corruption.
//!
//! What is judged are units: bare records in version 1, frames in version 2. Both have their length, checksum, seq
//! and flags in the same places, and neither needs a key for it. A frame whose checksum holds and that does not open
//! is corruption: no crash makes one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::form::{self, Form};
use super::frame::{self, FRAME_BYTES_MAX, Frame};
use super::index::{Entry, Index};
use super::record::{self, BARRIER, FIRST, HEADER_BYTES, Header, LAST, Parsed, RECORD_BYTES_MAX, Stamp};

/// Bytes read at once.
const WINDOW_BYTES: usize = 1024 * 1024;
/// The unit in which disks write: a torn write misses some of these.
const SECTOR_BYTES: u64 = 512;

/// What was found in a segment.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The records that stand.
    pub(crate) index: Index,
    /// Bytes of an incomplete commit behind them, to be cut off.
    pub(crate) torn: Option<u64>,
}

/// Why a segment cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("read failed")]
    Read(#[from] io::Error),
    #[error("{why} at offset {offset}")]
    Corrupt { offset: u64, why: &'static str },
}

/// Reads all of a segment. `last` says whether it is the one that was being written.
pub(crate) fn scan(file: &File, form: &Form, base_seq: u64, last: bool) -> Result<Verdict, ScanError> {
    let mut window = Window::new(file, form)?;
    let mut index = Index::new(base_seq, form::HEADER_BYTES as u64);
    let mut commit: Vec<Pending> = Vec::new();
    let mut at = form::HEADER_BYTES as u64;
    let mut seq = base_seq;
    loop {
        let unit = match window.parse(at)? {
            // A sound unit in the wrong place was never written there by a crash.
            Parsed::Whole(unit) if unit.seq != seq => {
                return Err(ScanError::Corrupt { offset: at, why: "a record out of sequence" });
            }
            Parsed::Whole(unit) if commit.is_empty() != (unit.flags & FIRST != 0) => {
                return Err(ScanError::Corrupt { offset: at, why: "a commit without its begin or end" });
            }
            Parsed::Whole(unit) => unit,
            Parsed::Blank => return conclude(&mut window, index, &commit, at, "records missing", last),
            Parsed::Short => return conclude(&mut window, index, &commit, at, "a record cut short", last),
            Parsed::Damaged(why) => return conclude(&mut window, index, &commit, at, why, last),
        };
        window.take(at, &unit, &mut commit)?;
        if unit.flags & LAST != 0 {
            commit.drain(..).for_each(|pending| index.add(&pending.entry()));
        }
        at += unit.padded() as u64;
        seq += u64::from(unit.count);
    }
}

/// What a checksum is over: a bare record, or a frame.
#[derive(Clone, Copy, Debug)]
struct Unit {
    len: usize,
    seq: u64,
    count: u32,
    flags: u8,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Record(Header),
    Frame(Frame),
}

impl Unit {
    fn padded(&self) -> usize {
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

    fn parse(form: &Form, bytes: &[u8]) -> Parsed<Self> {
        if form.is_framed() {
            frame::parse(bytes).map(Self::of_frame)
        } else {
            record::parse(bytes).map(Self::of_record)
        }
    }
}

/// A record of a commit whose end was not seen yet.
struct Pending {
    stamp: Stamp,
    /// Of its unit.
    offset: u64,
    len: u64,
    time_us: i64,
    event_id: u128,
    kind: Box<str>,
}

impl Pending {
    fn entry(&self) -> Entry<'_> {
        let Self { stamp, offset, len, time_us, event_id, kind } = self;
        let (stamp, offset, len, time_us, event_id) = (*stamp, *offset, *len, *time_us, *event_id);
        Entry { stamp, offset, len, time_us, event_id, kind }
    }
}

/// Judges the place where the records end.
fn conclude(
    window: &mut Window<'_>,
    index: Index,
    commit: &[Pending],
    at: u64,
    why: &'static str,
    last: bool,
) -> Result<Verdict, ScanError> {
    let written_end = window.written_end()?;
    if commit.is_empty() && written_end <= at {
        return Ok(Verdict { index, torn: None });
    }
    let begin = commit.first().map_or(at, |pending| pending.offset);
    let next_seq = index_next_seq(&index, commit);
    let corrupt = !last
        || barrier_behind(window, at, next_seq)?
        || one_bit_explains(window, at, next_seq)?
        || nothing_missing(window, at, next_seq, written_end)?;
    if corrupt {
        return Err(ScanError::Corrupt { offset: at, why });
    }
    Ok(Verdict { index, torn: Some(written_end.max(begin) - begin) })
}

fn index_next_seq(index: &Index, commit: &[Pending]) -> u64 {
    index.next_seq() + commit.len() as u64
}

/// Whether a record that says "all before me was durable" stands behind the damage.
fn barrier_behind(window: &mut Window<'_>, from: u64, seq: u64) -> io::Result<bool> {
    let most = seq.saturating_add(window.records_max());
    let mut at = from + record::ALIGN as u64;
    while let Some(head) = window.head(at)? {
        let plausible = (seq..most).contains(&head.stamp.seq) && head.flags & BARRIER != 0;
        if plausible && matches!(window.parse(at)?, Parsed::Whole(_)) {
            return Ok(true);
        }
        at += record::ALIGN as u64;
    }
    Ok(false)
}

/// Whether one flipped bit in the header is all that is wrong with the record at `at`.
fn one_bit_explains(window: &mut Window<'_>, at: u64, seq: u64) -> io::Result<bool> {
    let Some(_) = window.head(at)? else { return Ok(false) };
    let form = window.form;
    let mut bytes = window.bytes(at, window.unit_bytes_max())?.to_vec();
    for bit in 0..HEADER_BYTES * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if matches!(Unit::parse(form, &bytes), Parsed::Whole(unit) if unit.seq == seq) {
            return Ok(true);
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    Ok(false)
}

/// Whether the damaged commit is whole in its structure up to the last written byte and no sector of it is blank.
fn nothing_missing(window: &mut Window<'_>, at: u64, first_seq: u64, written_end: u64) -> io::Result<bool> {
    let (mut next, mut seq) = (at, first_seq);
    loop {
        let Some(header) = window.head(next)? else { return Ok(false) };
        if !(HEADER_BYTES..=window.unit_bytes_max()).contains(&header.len) || header.stamp.seq != seq {
            return Ok(false);
        }
        let count = if window.form.is_framed() { u64::from(header.stamp.id.n) } else { 1 };
        let (stop, end) = (next + header.len as u64, next + header.padded() as u64);
        if end > window.len || has_blank_sector(window, next, stop)? {
            return Ok(false);
        }
        if header.flags & LAST != 0 && end >= written_end {
            // The last byte of a record is the last of its JSON, that of a frame its mark: never zero once written.
            return Ok(written_end >= stop);
        }
        (next, seq) = (end, seq.saturating_add(count));
    }
}

/// Whether some sector's share of the range holds only zeros.
fn has_blank_sector(window: &mut Window<'_>, begin: u64, end: u64) -> io::Result<bool> {
    let mut at = begin;
    while at < end {
        let stop = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        if window.bytes(at, (stop - at) as usize)?.iter().all(|b| *b == 0) {
            return Ok(true);
        }
        at = stop;
    }
    Ok(false)
}

/// A file read through a moving window.
struct Window<'a> {
    file: &'a File,
    form: &'a Form,
    len: u64,
    begin: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, form: &'a Form) -> io::Result<Self> {
        Ok(Self { file, form, len: file.metadata()?.len(), begin: 0, buffer: Vec::new() })
    }

    fn unit_bytes_max(&self) -> usize {
        if self.form.is_framed() { FRAME_BYTES_MAX } else { RECORD_BYTES_MAX }
    }

    /// More records than these do not fit into the file: compressed to nothing they still have a header in memory.
    fn records_max(&self) -> u64 {
        let records = self.len / HEADER_BYTES as u64;
        if self.form.is_framed() {
            records.saturating_mul((FRAME_BYTES_MAX / HEADER_BYTES) as u64)
        } else {
            records
        }
    }

    /// Up to `want` bytes from `at` on; fewer only at the end of the file.
    fn bytes(&mut self, at: u64, want: usize) -> io::Result<&[u8]> {
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
    fn head(&mut self, at: u64) -> io::Result<Option<Header>> {
        Ok(self.bytes(at, HEADER_BYTES)?.first_chunk().map(Header::read))
    }

    fn parse(&mut self, at: u64) -> io::Result<Parsed<Unit>> {
        let want = match self.head(at)? {
            Some(head) => head.padded().clamp(HEADER_BYTES, self.unit_bytes_max() + record::ALIGN),
            None => HEADER_BYTES,
        };
        let form = self.form;
        Ok(Unit::parse(form, self.bytes(at, want)?))
    }

    /// Takes up the records of the unit at `at`.
    fn take(&mut self, at: u64, unit: &Unit, commit: &mut Vec<Pending>) -> Result<(), ScanError> {
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
    fn written_end(&mut self) -> io::Result<u64> {
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use std::sync::Arc;

    use super::*;
    use crate::log::form::tests::{encrypted, plain, version_1};
    use crate::log::frame::{Label, Sealer};
    use crate::log::id::MessageId;
    use crate::log::record::{Draft, Labels, seal};

    /// How the segments of a test are written.
    fn forms() -> [Arc<Form>; 3] {
        [version_1(1), plain(1), encrypted(1)]
    }

    fn draft(seq: u64) -> Draft {
        let labels = Labels { kind: "market_data_update", symbol: "BTC/USDT", source: "s" };
        let json = format!(r#"{{"n":{seq},"pad":"{}"}}"#, "x".repeat((seq * 37 % 300) as usize));
        Draft::new(labels, seq as i64, u128::from(seq), seq, json.as_bytes()).unwrap()
    }

    /// A segment of commits with the given numbers of records, each record a unit of its own; offsets of the
    /// commits' begins and of the end.
    fn segment_of(form: &Arc<Form>, commits: &[usize], barriers: bool) -> (Vec<u8>, Vec<u64>) {
        let mut bytes = form.header().to_vec();
        let mut sealer = Sealer::begin(Arc::clone(form));
        let mut begins = vec![bytes.len() as u64];
        let mut seq = 0;
        for count in commits {
            for i in 0..*count {
                seq += 1;
                let first = if i == 0 { FIRST } else { 0 };
                let ordered = if i == 0 && (barriers || seq == 1) { BARRIER } else { 0 };
                let flags = first | ordered | if i + 1 == *count { LAST } else { 0 };
                let mut record = Vec::new();
                draft(seq).encode(Stamp { seq, id: MessageId { ms: seq, n: 0 } }, None, &mut record);
                if form.is_framed() {
                    let label = Label { seq, count: 1, flags, plain: record.len() };
                    let at = bytes.len() as u64;
                    sealer.seal(&mut bytes, at, &label, &record);
                } else {
                    seal(&mut record, flags);
                    bytes.extend_from_slice(&record);
                }
            }
            begins.push(bytes.len() as u64);
        }
        (bytes, begins)
    }

    fn scan_bytes(form: &Form, bytes: &[u8], last: bool) -> Result<Verdict, ScanError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        scan(&file, form, 1, last)
    }

    #[test]
    fn a_whole_segment_stands_with_and_without_reserved_space() {
        for form in forms() {
            let (mut bytes, begins) = segment_of(&form, &[1, 3, 2], true);
            for _ in 0..2 {
                for last in [true, false] {
                    let verdict = scan_bytes(&form, &bytes, last).unwrap();
                    assert_eq!((verdict.index.summary.records, verdict.torn), (6, None));
                    assert_eq!(verdict.index.summary.end, begins[3]);
                }
                bytes.resize(bytes.len() + 10_000, 0);
            }
        }
    }

    #[test]
    fn a_commit_torn_at_any_byte_is_cut_off_whole() {
        for form in forms() {
            let (bytes, begins) = segment_of(&form, &[2, 1, 3], true);
            let begin = begins[2] as usize;
            for (reserved, cut) in
                [0, 5_000].into_iter().flat_map(|r| (begin + 1..bytes.len()).map(move |c| (r, c)))
            {
                let mut torn = bytes[..cut].to_vec();
                let missing_nothing = bytes[cut..].iter().all(|b| *b == 0);
                torn.resize(if reserved == 0 { cut } else { bytes.len() + reserved }, 0);
                if reserved > 0 && missing_nothing {
                    continue;
                }
                let verdict = scan_bytes(&form, &torn, true).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
                assert_eq!(verdict.index.summary.records, 3, "cut at {cut}");
                assert!(verdict.torn.is_some());
                assert!(scan_bytes(&form, &torn, false).is_err(), "a sealed segment is never torn");
            }
        }
    }

    #[test]
    fn a_commit_that_misses_sectors_is_torn() {
        for form in forms() {
            let (bytes, begins) = segment_of(&form, &[2, 12], true);
            let mut tested = 0;
            for sector in (begins[1] / 512 + 1)..(begins[2] / 512) {
                let mut torn = bytes.clone();
                torn[sector as usize * 512..][..512].fill(0);
                torn.resize(torn.len() + 4_096, 0);
                let verdict = scan_bytes(&form, &torn, true).unwrap();
                assert_eq!(verdict.index.summary.records, 2);
                tested += 1;
            }
            assert!(tested > 3);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_stored_record_is_refused() {
        for form in forms() {
            let (mut bytes, begins) = segment_of(&form, &[1, 2, 1], true);
            let end = bytes.len();
            bytes.resize(end + 600, 0);
            for bit in begins[0] as usize * 8..end * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let found = scan_bytes(&form, &bad, true);
                assert!(matches!(found, Err(ScanError::Corrupt { .. })), "bit {bit}: {found:?}");
            }
        }
    }

    #[test]
    fn a_frame_from_elsewhere_is_refused_though_its_checksum_holds() {
        let form = encrypted(1);
        let (bytes, begins) = segment_of(&form, &[1, 1, 1], true);
        let frame = |i: usize| begins[i] as usize..begins[i + 1] as usize;
        // The same frame of the same segment, as another opening of it would have written it.
        let (other, other_begins) = segment_of(&form, &[1, 1, 1], true);
        assert_eq!(begins, other_begins);
        let mut swapped = bytes.clone();
        swapped[frame(1)].copy_from_slice(&other[frame(1)]);
        assert!(scan_bytes(&form, &swapped, true).is_ok(), "it is what may stand here");
        // The same frame of another log.
        let stranger = encrypted(2);
        let (other, _) = segment_of(&stranger, &[1, 1, 1], true);
        let mut foreign = bytes.clone();
        foreign[frame(1)].copy_from_slice(&other[frame(1)]);
        let found = scan_bytes(&form, &foreign, true);
        assert!(matches!(found, Err(ScanError::Corrupt { offset, .. }) if offset == begins[1]), "{found:?}");
    }

    #[test]
    fn a_stray_bit_behind_the_end_costs_nothing() {
        for form in forms() {
            let (mut bytes, begins) = segment_of(&form, &[1, 2], true);
            bytes.resize(bytes.len() + 600, 0);
            bytes[begins[2] as usize + 100] = 4;
            let verdict = scan_bytes(&form, &bytes, true).unwrap();
            assert_eq!(verdict.index.summary.records, 3);
            assert!(verdict.torn.is_some());
        }
    }

    #[test]
    fn without_barriers_more_than_one_commit_may_be_torn() {
        for form in forms() {
            let (mut bytes, begins) = segment_of(&form, &[1, 1, 1], false);
            bytes[begins[1] as usize..begins[1] as usize + 64].fill(0);
            let verdict = scan_bytes(&form, &bytes, true).unwrap();
            assert_eq!(verdict.index.summary.records, 1);
        }
    }
}
