//! One file of the log: its name, its form, and where its records are.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::filter::Filter;
use super::form::{Form, HEADER_BYTES};
use super::id::MessageId;
use super::index::{Block, Entry, Index, Summary, block_of_id, block_of_seq, fold};
use super::medium::Medium;
use super::pages::{self, IndexFile};
use super::recovery::{self, ScanError};
use super::retention::Extent;
use super::sidecar;

/// A segment, being written or sealed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base_seq: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) form: Arc<Form>,
    state: RwLock<State>,
    /// The block table of a sealed segment, while somebody reads it.
    table: Mutex<Option<Arc<[Block]>>>,
}

#[derive(Debug)]
enum State {
    Growing(Index),
    Sealed { head: sidecar::Head, file: IndexFile },
}

impl Segment {
    /// A segment whose whole index is known.
    pub(crate) fn growing(base_seq: u64, path: PathBuf, file: File, form: Arc<Form>, index: Index) -> Self {
        let state = RwLock::new(State::Growing(index));
        Self { base_seq, path, file, form, state, table: Mutex::new(None) }
    }

    /// A segment whose index lies beside it.
    pub(crate) fn sealed(
        base_seq: u64,
        path: PathBuf,
        file: File,
        form: Arc<Form>,
        (head, index): (sidecar::Head, IndexFile),
    ) -> Self {
        let state = RwLock::new(State::Sealed { head, file: index });
        Self { base_seq, path, file, form, state, table: Mutex::new(None) }
    }

    /// Creates an empty segment: written under another name, synced, then renamed, so that a segment's header is
    /// always whole.
    pub(crate) fn create(medium: &dyn Medium, dir: &Path, base_seq: u64, form: Form) -> io::Result<Self> {
        let path = dir.join(file_name(base_seq));
        let draft = path.with_extension("tmp");
        remove_if_there(&draft)?;
        let file = medium.create(&draft)?;
        let made = medium
            .write_all_at(&file, form.header(), 0)
            .and_then(|()| medium.sync(&file))
            .and_then(|()| fs::rename(&draft, &path))
            .and_then(|()| medium.sync_dir(dir));
        if let Err(error) = made {
            // Nothing is in it; what cannot be removed now is removed at the next try or start.
            drop(fs::remove_file(&draft));
            drop(fs::remove_file(&path));
            return Err(error);
        }
        let index = Index::new(base_seq, HEADER_BYTES as u64);
        Ok(Self::growing(base_seq, path, file, Arc::new(form), index))
    }

    /// Takes up records that were written. Only the writer calls this, only for the last segment.
    pub(crate) fn add<'a>(&self, entries: impl Iterator<Item = Entry<'a>>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Growing(index) = &mut *state {
            index.add_all(entries);
        }
    }

    /// Looks at the summary.
    pub(crate) fn with_summary<T>(&self, look: impl FnOnce(&Summary) -> T) -> T {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Growing(index) => look(&index.summary),
            State::Sealed { head, .. } => look(&head.summary),
        }
    }

    /// Whether its index is in memory.
    pub(crate) fn is_growing(&self) -> bool {
        matches!(&*self.state.read().unwrap_or_else(PoisonError::into_inner), State::Growing(_))
    }

    /// What retention needs to know.
    pub(crate) fn extent(&self) -> Extent {
        self.with_summary(|summary| Extent {
            records: summary.records,
            bytes: summary.end,
            last_ms: summary.last.ms,
        })
    }

    /// Moves the index to disk, beside the segment.
    pub(crate) fn seal(&self, medium: &dyn Medium) -> io::Result<()> {
        let bytes = match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Growing(index) => sidecar::encode(self.base_seq, index),
            State::Sealed { .. } => return Ok(()),
        };
        let bytes = pages::encode(&self.form, self.base_seq, bytes);
        let path = index_path(&self.path);
        let draft = path.with_extension("idx.tmp");
        remove_if_there(&draft)?;
        let file = medium.create(&draft)?;
        let written = medium
            .write_all_at(&file, &bytes, 0)
            .and_then(|()| medium.sync(&file))
            .and_then(|()| fs::rename(&draft, &path));
        if let Err(error) = written {
            drop(fs::remove_file(&draft));
            return Err(error);
        }
        if let Some(dir) = path.parent() {
            medium.sync_dir(dir)?;
        }
        let Some(file) = IndexFile::open(file, &self.form, self.base_seq)? else { return Ok(()) };
        if let Some(head) = sidecar::read_head(&file, self.base_seq)? {
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Sealed { head, file };
        }
        Ok(())
    }

    /// Removes the segment and its index. Readers that have it open read on.
    pub(crate) fn unlink(&self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        remove_if_there(&index_path(&self.path))
    }

    /// The range of the block in which a seq stands or would stand.
    pub(crate) fn block_of_seq(&self, seq: u64) -> io::Result<Range<u64>> {
        let seq_delta = seq.saturating_sub(self.base_seq);
        self.with_blocks(|blocks, end| range_of(blocks, block_of_seq(blocks, seq_delta), end))
    }

    /// The range of the block in which a message id stands or would stand.
    pub(crate) fn block_of_id(&self, id: MessageId) -> io::Result<Range<u64>> {
        self.with_blocks(|blocks, end| range_of(blocks, block_of_id(blocks, id), end))
    }

    /// The next stretch from `from` on that may hold what the filter wants, of about `bytes`.
    pub(crate) fn run_after(&self, from: u64, bytes: u64, filter: &Filter) -> io::Result<Option<Range<u64>>> {
        if self.with_summary(|summary| from >= summary.end || !filter.may_be_in(summary)) {
            return Ok(None);
        }
        self.with_blocks(|blocks, end| {
            let block_end = |i: usize| range_of(blocks, i, end).end;
            let at = blocks.partition_point(|block| block.offset <= from).saturating_sub(1);
            let first = (at..blocks.len()).find(|i| filter.may_be_in_block(&blocks[*i]))?;
            let start = from.max(blocks[first].offset);
            let mut last = first;
            while last + 1 < blocks.len()
                && block_end(last) - start < bytes
                && filter.may_be_in_block(&blocks[last + 1])
            {
                last += 1;
            }
            Some(start..block_end(last))
        })
    }

    /// The stretch before `to` that may hold what the filter wants, of about `bytes`.
    pub(crate) fn run_before(&self, to: u64, bytes: u64, filter: &Filter) -> io::Result<Option<Range<u64>>> {
        if !self.with_summary(|summary| filter.may_be_in(summary)) {
            return Ok(None);
        }
        self.with_blocks(|blocks, end| {
            let start_of = |i: usize| blocks[i].offset;
            let below = blocks.partition_point(|block| block.offset < to);
            let last = (0..below).rev().find(|i| filter.may_be_in_block(&blocks[*i]))?;
            let stop = range_of(blocks, last, end).end.min(to);
            let mut first = last;
            while first > 0 && stop - start_of(first) < bytes && filter.may_be_in_block(&blocks[first - 1]) {
                first -= 1;
            }
            Some(start_of(first)..stop)
        })
    }

    /// Seqs at which an event id may stand: exact while the segment grows, `None` when it must be scanned.
    pub(crate) fn candidates(&self, event_id: u128) -> io::Result<Option<Vec<u64>>> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Growing(index) => Ok(Some(index.seqs_of(event_id).collect())),
            State::Sealed { head, file } => {
                Ok(if head.may_hold(file, fold(event_id))? { None } else { Some(Vec::new()) })
            }
        }
    }

    /// Forgets the block table of a sealed segment; it is loaded again when needed.
    pub(crate) fn drop_table(&self) {
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn with_blocks<T>(&self, look: impl FnOnce(&[Block], u64) -> T) -> io::Result<T> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Growing(index) => Ok(look(&index.blocks, index.summary.end)),
            State::Sealed { head, file } => Ok(look(&self.table(head, file)?, head.summary.end)),
        }
    }

    fn table(&self, head: &sidecar::Head, file: &IndexFile) -> io::Result<Arc<[Block]>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(blocks) = &*table {
            return Ok(Arc::clone(blocks));
        }
        let blocks: Arc<[Block]> = match head.read_blocks(file)? {
            Some(blocks) => blocks.into(),
            // The table is derived data: damaged, it is made again from the segment.
            None => match recovery::scan(&self.file, &self.form, self.base_seq, false) {
                Ok(verdict) => verdict.index.blocks.into(),
                Err(ScanError::Read(error)) => return Err(error),
                Err(corrupt) => return Err(io::Error::new(io::ErrorKind::InvalidData, corrupt)),
            },
        };
        *table = Some(Arc::clone(&blocks));
        Ok(blocks)
    }
}

/// Where a block of the table lies; the place of the first record when there is none.
fn range_of(blocks: &[Block], at: usize, end: u64) -> Range<u64> {
    let start = blocks.get(at).map_or(HEADER_BYTES as u64, |block| block.offset);
    start..blocks.get(at + 1).map_or(end, |next| next.offset)
}

/// The name of the segment that begins with a seq: names sort as seqs do.
pub(crate) fn file_name(base_seq: u64) -> String {
    format!("{base_seq:020}.seg")
}

/// The seq with which the segment of that name begins.
pub(crate) fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Where the index of a segment lies.
pub(crate) fn index_path(segment: &Path) -> PathBuf {
    segment.with_extension("idx")
}

/// Opens an existing file of the log.
pub(crate) fn open_file(path: &Path, write: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(write).open(path)
}

pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_seqs_do_and_read_back() {
        assert_eq!(parse_file_name(&file_name(42)), Some(42));
        assert!(file_name(9) < file_name(10));
        for bad in ["1.seg", "00000000000000000001.idx", "0000000000000000000x.seg", ".seg"] {
            assert_eq!(parse_file_name(bad), None, "{bad}");
        }
    }
}
