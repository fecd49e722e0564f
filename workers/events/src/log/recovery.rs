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

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::index::{Entry, Index};
use super::record::{self, BARRIER, FIRST, HEADER_BYTES, Header, LAST, Parsed, RECORD_BYTES_MAX};
use super::segment;

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
pub(crate) fn scan(file: &File, base_seq: u64, last: bool) -> Result<Verdict, ScanError> {
    let mut window = Window::new(file)?;
    let mut index = Index::new(base_seq, segment::HEADER_BYTES as u64);
    let mut commit: Vec<Pending> = Vec::new();
    let mut at = segment::HEADER_BYTES as u64;
    let mut seq = base_seq;
    loop {
        let header = match window.parse(at)? {
            // A sound record in the wrong place was never written there by a crash.
            Parsed::Whole(header) if header.stamp.seq != seq => {
                return Err(ScanError::Corrupt { offset: at, why: "a record out of sequence" });
            }
            Parsed::Whole(header) if commit.is_empty() != (header.flags & FIRST != 0) => {
                return Err(ScanError::Corrupt { offset: at, why: "a commit without its begin or end" });
            }
            Parsed::Whole(header) => header,
            Parsed::Blank => return conclude(&mut window, index, &commit, at, "records missing", last),
            Parsed::Short => return conclude(&mut window, index, &commit, at, "a record cut short", last),
            Parsed::Damaged(why) => return conclude(&mut window, index, &commit, at, why, last),
        };
        let len = header.padded() as u64;
        let kind = window.kind(at, &header)?;
        commit.push(Pending { header, offset: at, kind });
        if header.flags & LAST != 0 {
            commit.drain(..).for_each(|pending| index.add(&pending.entry()));
        }
        at += len;
        seq += 1;
    }
}

/// A record of a commit whose end was not seen yet.
struct Pending {
    header: Header,
    offset: u64,
    kind: Box<str>,
}

impl Pending {
    fn entry(&self) -> Entry<'_> {
        Entry {
            stamp: self.header.stamp,
            offset: self.offset,
            len: self.header.padded() as u64,
            time_us: self.header.time_us,
            event_id: self.header.event_id,
            kind: &self.kind,
        }
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
    let most = seq.saturating_add(window.len / HEADER_BYTES as u64);
    let mut at = from + record::ALIGN as u64;
    while let Some(header) = window.header(at)? {
        let plausible = (seq..most).contains(&header.stamp.seq) && header.flags & BARRIER != 0;
        if plausible && matches!(window.parse(at)?, Parsed::Whole(_)) {
            return Ok(true);
        }
        at += record::ALIGN as u64;
    }
    Ok(false)
}

/// Whether one flipped bit in the header is all that is wrong with the record at `at`.
fn one_bit_explains(window: &mut Window<'_>, at: u64, seq: u64) -> io::Result<bool> {
    let Some(_) = window.header(at)? else { return Ok(false) };
    let mut bytes = window.bytes(at, RECORD_BYTES_MAX)?.to_vec();
    for bit in 0..HEADER_BYTES * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if matches!(record::parse(&bytes), Parsed::Whole(header) if header.stamp.seq == seq) {
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
        let Some(header) = window.header(next)? else { return Ok(false) };
        if !(HEADER_BYTES..=RECORD_BYTES_MAX).contains(&header.len) || header.stamp.seq != seq {
            return Ok(false);
        }
        let (stop, end) = (next + header.len as u64, next + header.padded() as u64);
        if end > window.len || has_blank_sector(window, next, stop)? {
            return Ok(false);
        }
        if header.flags & LAST != 0 && end >= written_end {
            // The last byte of a record is the last of its JSON: never zero once it is written.
            return Ok(written_end >= stop);
        }
        (next, seq) = (end, seq + 1);
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
    len: u64,
    begin: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, len: file.metadata()?.len(), begin: 0, buffer: Vec::new() })
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

    fn header(&mut self, at: u64) -> io::Result<Option<Header>> {
        Ok(self.bytes(at, HEADER_BYTES)?.first_chunk().map(Header::read))
    }

    fn parse(&mut self, at: u64) -> io::Result<Parsed> {
        let want = match self.header(at)? {
            Some(header) => header.padded().clamp(HEADER_BYTES, RECORD_BYTES_MAX),
            None => HEADER_BYTES,
        };
        Ok(record::parse(self.bytes(at, want)?))
    }

    fn kind(&mut self, at: u64, header: &Header) -> io::Result<Box<str>> {
        let bytes = self.bytes(at + HEADER_BYTES as u64, usize::from(header.lens[0]))?;
        Ok(String::from_utf8_lossy(bytes).into())
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

    use super::*;
    use crate::log::id::MessageId;
    use crate::log::record::{Draft, Labels, Stamp, seal};

    /// A segment of commits with the given numbers of records; offsets of the commits' begins and of the end.
    fn segment_of(commits: &[usize]) -> (Vec<u8>, Vec<u64>) {
        let mut bytes = segment::encode_header(1, MessageId::default()).to_vec();
        let mut begins = vec![bytes.len() as u64];
        let mut seq = 0;
        for count in commits {
            for i in 0..*count {
                seq += 1;
                let from = bytes.len();
                let labels = Labels { kind: "market_data_update", symbol: "BTC/USDT", source: "s" };
                let json = format!(r#"{{"n":{seq},"pad":"{}"}}"#, "x".repeat((seq * 37 % 300) as usize));
                let draft = Draft::new(labels, seq as i64, u128::from(seq), seq, json.as_bytes()).unwrap();
                draft.encode(Stamp { seq, id: MessageId { ms: seq, n: 0 } }, &mut bytes);
                let first = if i == 0 { FIRST | BARRIER } else { 0 };
                let last = if i + 1 == *count { LAST } else { 0 };
                seal(&mut bytes[from..], first | last);
            }
            begins.push(bytes.len() as u64);
        }
        (bytes, begins)
    }

    fn scan_bytes(bytes: &[u8], last: bool) -> Result<Verdict, ScanError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        scan(&file, 1, last)
    }

    #[test]
    fn a_whole_segment_stands_with_and_without_reserved_space() {
        let (mut bytes, begins) = segment_of(&[1, 3, 2]);
        for _ in 0..2 {
            for last in [true, false] {
                let verdict = scan_bytes(&bytes, last).unwrap();
                assert_eq!((verdict.index.summary.records, verdict.torn), (6, None));
                assert_eq!(verdict.index.summary.end, begins[3]);
            }
            bytes.resize(bytes.len() + 10_000, 0);
        }
    }

    #[test]
    fn a_commit_torn_at_any_byte_is_cut_off_whole() {
        let (bytes, begins) = segment_of(&[2, 1, 3]);
        let begin = begins[2] as usize;
        for reserved in [0, 5_000] {
            for cut in begin + 1..bytes.len() {
                let mut torn = bytes[..cut].to_vec();
                let missing_nothing = bytes[cut..].iter().all(|b| *b == 0);
                torn.resize(if reserved == 0 { cut } else { bytes.len() + reserved }, 0);
                if reserved > 0 && missing_nothing {
                    continue;
                }
                let verdict = scan_bytes(&torn, true).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
                assert_eq!(verdict.index.summary.records, 3, "cut at {cut}");
                assert!(verdict.torn.is_some());
                assert!(scan_bytes(&torn, false).is_err(), "a sealed segment is never torn");
            }
        }
    }

    #[test]
    fn a_commit_that_misses_sectors_is_torn() {
        let (bytes, begins) = segment_of(&[2, 12]);
        let mut tested = 0;
        for sector in (begins[1] / 512 + 1)..(begins[2] / 512) {
            let mut torn = bytes.clone();
            torn[sector as usize * 512..][..512].fill(0);
            torn.resize(torn.len() + 4_096, 0);
            let verdict = scan_bytes(&torn, true).unwrap();
            assert_eq!(verdict.index.summary.records, 2);
            tested += 1;
        }
        assert!(tested > 3);
    }

    #[test]
    fn every_flipped_bit_of_a_stored_record_is_refused() {
        let (mut bytes, begins) = segment_of(&[1, 2, 1]);
        let end = bytes.len();
        bytes.resize(end + 600, 0);
        for bit in begins[0] as usize * 8..end * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = scan_bytes(&bad, true);
            assert!(matches!(found, Err(ScanError::Corrupt { .. })), "bit {bit}: {found:?}");
        }
    }

    #[test]
    fn a_stray_bit_behind_the_end_costs_nothing() {
        let (mut bytes, begins) = segment_of(&[1, 2]);
        bytes.resize(bytes.len() + 600, 0);
        bytes[begins[2] as usize + 100] = 4;
        let verdict = scan_bytes(&bytes, true).unwrap();
        assert_eq!(verdict.index.summary.records, 3);
        assert!(verdict.torn.is_some());
    }

    #[test]
    fn without_barriers_more_than_one_commit_may_be_torn() {
        let (mut bytes, begins) = segment_of(&[1, 1, 1]);
        for pair in begins.windows(2).skip(1) {
            let range = pair[0] as usize..pair[1] as usize;
            let flags = bytes[range.start + 28] & !BARRIER;
            seal(&mut bytes[range], flags);
        }
        bytes[begins[1] as usize..begins[1] as usize + 64].fill(0);
        let verdict = scan_bytes(&bytes, true).unwrap();
        assert_eq!(verdict.index.summary.records, 1);
    }
}
