//! What a subscription that is not in the ring reads from the log: bounded steps, on a thread that may block.

use super::PIECE_BYTES;
use super::choice::Selector;
use super::conflate::{Conflation, Due};
use super::position::Gap;
use crate::engine::{ReadError, Reader};
use crate::log::{Filter, Record};

/// Events looked at in one step.
const SCAN_MAX: u64 = 20_000;
/// Events looked up one by one in one step.
pub(super) const DUE_MAX: usize = 128;

/// The next events.
pub(super) struct Read {
    pub(super) records: Vec<Record>,
    pub(super) gap: Option<Gap>,
    pub(super) next: u64,
}

/// Reads the next wanted events, at most so many and about [`PIECE_BYTES`].
pub(super) fn read(reader: &Reader, from: u64, selector: &Selector, most: u64) -> Result<Read, ReadError> {
    let mut scan = reader.forward(from, selector.filter.clone()).pausing_after(SCAN_MAX);
    let mut read = Read { records: Vec::new(), gap: None, next: from };
    let mut bytes = 0;
    while bytes < PIECE_BYTES
        && (read.records.len() as u64) < most
        && let Some(record) = scan.next()?
    {
        if selector.admits_read(&record) {
            bytes += record.json().len();
            read.records.push(record);
        }
    }
    read.gap = scan.trimmed().map(|lost| Gap::trimmed(lost.expected, lost.got));
    read.next = scan.position();
    Ok(read)
}

/// What was noted for conflation.
pub(super) struct Noted {
    pub(super) conflation: Conflation,
    pub(super) gap: Option<Gap>,
    pub(super) next: u64,
}

/// Notes the next wanted events.
pub(super) fn note(
    reader: &Reader,
    from: u64,
    selector: &Selector,
    mut conflation: Conflation,
) -> Result<Noted, ReadError> {
    let mut scan = reader.forward(from, selector.filter.clone()).pausing_after(SCAN_MAX);
    while !conflation.is_full()
        && let Some(record) = scan.next()?
    {
        if selector.admits_read(&record) {
            conflation.take(record.kind(), record.symbol(), record.stamp.seq);
        }
    }
    let gap = scan.trimmed().map(|lost| Gap::trimmed(lost.expected, lost.got));
    Ok(Noted { conflation, gap, next: scan.position() })
}

/// What was looked up of what is due.
pub(super) struct Found {
    /// Events, each with how many it stands for.
    pub(super) records: Vec<(Record, u64)>,
    /// Retention has taken some.
    pub(super) gap: Option<Gap>,
    /// How many of those due that were.
    pub(super) count: usize,
}

/// Looks up events that are due, about [`PIECE_BYTES`] of them.
pub(super) fn look_up(reader: &Reader, due: &[Due]) -> Result<Found, ReadError> {
    let mut found = Found { records: Vec::with_capacity(due.len()), gap: None, count: 0 };
    let mut bytes = 0;
    for due in due {
        if bytes >= PIECE_BYTES {
            break;
        }
        found.count += 1;
        let record = reader.forward(due.seq, Filter::default()).next()?;
        match record.filter(|record| record.stamp.seq == due.seq) {
            Some(record) => {
                bytes += record.json().len();
                found.records.push((record, due.conflated));
            }
            None if found.gap.is_none() => found.gap = Some(Gap::trimmed(due.seq, reader.first_seq())),
            None => {}
        }
    }
    Ok(found)
}
