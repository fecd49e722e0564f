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

mod window;

use std::fs::File;
use std::io;

use super::form::{self, Form};
use super::index::Index;
use super::record::{self, BARRIER, FIRST, HEADER_BYTES, LAST, Parsed};
use window::{Pending, Unit, Window};

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

#[cfg(test)]
mod tests;
