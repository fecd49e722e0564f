//! Writing a full segment anew, compressed: the same records in larger frames, under the same name.
//!
//! The new file is made beside the old one, synced, and renamed over it; then its index is written. A crash in
//! between leaves a whole segment of either kind. The old index goes first, so that no index ever lies beside a
//! segment that it was not made from. Readers that have the old file open read on.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::filter::Filter;
use super::form::HEADER_BYTES;
use super::frame::{Label, PACK_BYTES, PACKED, Sealer};
use super::housekeeping::Housekeeper;
use super::index::{Entry, Index};
use super::medium::Medium;
use super::reader::ReadError;
use super::record::{self, FIRST, LAST, Parsed};
use super::scan::Block;
use super::segment::{self, Segment};

/// Level of compression: what a core gives without the writer noticing.
const LEVEL: i32 = 1;
/// Bytes read at once from the old segment, and written at once to the new one.
const STEP_BYTES: u64 = 1024 * 1024;
/// Bytes after which the new file is synced: a large flush would hold up the writer's.
const SYNC_BYTES: usize = 1024 * 1024;
/// After a failure (a full disk) nothing is tried for so long.
const PAUSE: Duration = Duration::from_secs(30);

/// The housekeeper's memory of packing.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    not_before: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
enum PackError {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the segment holds other records than its index says")]
    Records,
    #[error("it is not to go on")]
    Ended,
}

impl Housekeeper {
    /// Packs every full segment that is not; the number of those that were.
    pub(crate) fn pack_all(&self) -> usize {
        self.pack_while(&|| true)
    }

    /// The same while it is to go on.
    pub(crate) fn pack_while(&self, goes_on: &dyn Fn() -> bool) -> usize {
        if !self.compress {
            return 0;
        }
        let mut packed = 0;
        for segment in self.full_segments() {
            // One at a time: who asks by a call goes on where the packer, which may be slow, is.
            let mut packing = self.packing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if packing.not_before.is_some_and(|at| Instant::now() < at) {
                break;
            }
            let is_there = self.store.holds(&segment);
            if !is_there || segment.form.is_packed() || !segment.form.is_framed() {
                continue;
            }
            match self.pack(&segment, goes_on) {
                Ok(()) => packed += 1,
                Err(PackError::Ended) => break,
                Err(error) => {
                    packing.not_before = Some(Instant::now() + PAUSE);
                    let error = io::Error::other(error);
                    self.observer
                        .trouble("a full segment could not be compressed; it stays as it is", &error);
                    break;
                }
            }
        }
        packed
    }

    /// Every segment but the one being written.
    pub(crate) fn full_segments(&self) -> Vec<Arc<Segment>> {
        let mut segments = self.store.segments();
        segments.pop();
        segments
    }

    fn pack(&self, segment: &Arc<Segment>, goes_on: &dyn Fn() -> bool) -> Result<(), PackError> {
        let draft = segment.path.with_extension("pack.tmp");
        segment::remove_if_there(&draft)?;
        let made =
            self.packed(segment, draft.clone(), goes_on).and_then(|packed| Ok(self.swap(segment, packed)?));
        if made.is_err() {
            // What cannot be removed now is removed at the next try or start.
            drop(fs::remove_file(&draft));
        }
        made
    }

    /// The new segment under a name of its own, synced.
    fn packed(
        &self,
        segment: &Arc<Segment>,
        draft: PathBuf,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Segment, PackError> {
        let form = Arc::new(segment.form.packed());
        let mut file = Packed {
            medium: &*self.medium,
            file: self.medium.create(&draft)?,
            sealer: Sealer::begin(Arc::clone(&form)),
            compressor: zstd::bulk::Compressor::new(LEVEL)?,
            index: Index::new(segment.base_seq, HEADER_BYTES as u64),
            end: 0,
            out: form.header().to_vec(),
            unsynced: 0,
            compressed: vec![0; zstd::zstd_safe::compress_bound(PACK_BYTES)],
        };
        let mut gathered: Vec<u8> = Vec::with_capacity(PACK_BYTES);
        let mut at = HEADER_BYTES as u64;
        while let Some(run) = segment.run_after(at, STEP_BYTES, &Filter::default())? {
            at = run.end;
            if !goes_on() {
                return Err(PackError::Ended);
            }
            let mut block = Block::read(segment, run)?;
            while let Some(records) = block.next_frame() {
                let records: Bytes = records?;
                if gathered.len() + records.len() > PACK_BYTES && !gathered.is_empty() {
                    file.add(&gathered)?;
                    gathered.clear();
                }
                gathered.extend_from_slice(&records);
            }
        }
        file.add(&gathered)?;
        file.flush()?;
        self.medium.sync(&file.file)?;
        if file.index.summary.records != segment.with_summary(|summary| summary.records) {
            return Err(PackError::Records);
        }
        Ok(Segment::growing(segment.base_seq, segment.path.clone(), file.file, form, file.index))
    }

    /// Puts the new segment in the place of the old one, unless retention was quicker.
    fn swap(&self, old: &Arc<Segment>, packed: Segment) -> io::Result<()> {
        let _turn = self.turn();
        let draft = old.path.with_extension("pack.tmp");
        if !self.store.holds(old) {
            return fs::remove_file(&draft);
        }
        segment::remove_if_there(&segment::index_path(&old.path))?;
        self.medium.sync_dir(&self.store.dir)?;
        fs::rename(&draft, &old.path)?;
        self.medium.sync_dir(&self.store.dir)?;
        if let Err(error) = packed.seal(&*self.medium) {
            self.observer.trouble("the index of a segment could not be written; it stays in memory", &error);
        }
        self.store.replace(old, Arc::new(packed));
        Ok(())
    }
}

/// The new file while it is written.
struct Packed<'a> {
    medium: &'a dyn Medium,
    file: fs::File,
    sealer: Sealer,
    compressor: zstd::bulk::Compressor<'static>,
    index: Index,
    /// Bytes written.
    end: u64,
    /// Bytes that are to follow.
    out: Vec<u8>,
    unsynced: usize,
    compressed: Vec<u8>,
}

impl Packed<'_> {
    /// Adds records as one frame.
    fn add(&mut self, records: &[u8]) -> Result<(), PackError> {
        let headers = headers(records).ok_or(PackError::Records)?;
        let Some((first, _)) = headers.first() else { return Ok(()) };
        let label =
            |flags| Label { seq: first.stamp.seq, count: headers.len() as u32, flags, plain: records.len() };
        self.compressed.resize(zstd::zstd_safe::compress_bound(records.len()), 0);
        let size = self.compressor.compress_to_buffer(records, &mut self.compressed[..])?;
        let (at, offset) = (self.out.len(), self.end + self.out.len() as u64);
        if size < records.len() {
            let payload = &self.compressed[..size];
            self.sealer.seal(&mut self.out, offset, &label(FIRST | LAST | PACKED), payload);
        } else {
            self.sealer.seal(&mut self.out, offset, &label(FIRST | LAST), records);
        }
        // A bite: whoever waits for the core has it now.
        std::thread::yield_now();
        let len = (self.out.len() - at) as u64;
        for (header, place) in &headers {
            self.index.add(&Entry {
                stamp: header.stamp,
                offset,
                len,
                time_us: header.time_us,
                event_id: header.event_id,
                kind: header.kind(&records[*place..]),
            });
        }
        if self.out.len() as u64 >= STEP_BYTES { self.flush().map_err(PackError::Disk) } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.medium.write_all_at(&self.file, &self.out, self.end)?;
        self.end += self.out.len() as u64;
        self.unsynced += self.out.len();
        self.out.clear();
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.medium.sync(&self.file)?;
        }
        Ok(())
    }
}

/// The headers of records that stand one after the other, and where.
fn headers(records: &[u8]) -> Option<Vec<(record::Header, usize)>> {
    let (mut headers, mut at) = (Vec::new(), 0);
    while at < records.len() {
        let Parsed::Whole(header) = record::parse_framed(&records[at..]) else { return None };
        headers.push((header, at));
        at += header.padded();
    }
    Some(headers)
}
