//! Reading back: a bounded page of records by sequence or time, actor and path.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::files;
use crate::record::Record;
use crate::scan::{Line, Scan};

/// LIMIT: records in one page.
const PAGE_MAX: usize = 1_000;
/// LIMIT: bytes of log read for one page; the cursor continues after them.
const SCAN_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Where a page starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// After the record with this sequence (0: from the first).
    Seq(u64),
    /// At the first record written at or after this time.
    Time(Timestamp),
}

/// Which records are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Where to start.
    pub since: Since,
    /// Only this actor's records.
    pub actor: Option<String>,
    /// Only records whose path is this one or lies below it.
    pub path: Option<String>,
    /// Records at most; never more than 1000.
    pub limit: usize,
}

/// A page of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The records, oldest first.
    pub records: Vec<Record>,
    /// Sequence to continue after; `None` at the end of the log.
    pub next: Option<u64>,
}

impl Query {
    /// Reads a page from the log at `path`, earlier files included. Lines that do not parse are skipped: finding them
    /// is [`crate::verify`]'s work.
    pub fn read(&self, path: &Path) -> io::Result<Page> {
        let mut paths: Vec<PathBuf> = files::earlier(path)?.into_iter().map(|file| file.path).collect();
        paths.push(path.to_owned());
        let mut page = Page { records: Vec::new(), next: None };
        let mut budget = SCAN_BYTES_MAX;
        let mut last_seq = None;
        for (index, file) in paths.iter().enumerate().skip(self.first_file(&paths)?) {
            let ended = self.read_file(file, &mut budget, &mut page, &mut last_seq)?;
            let is_full = page.records.len() >= self.limit() || budget == 0;
            if !ended || (is_full && index + 1 < paths.len()) {
                page.next = last_seq;
                return Ok(page);
            }
        }
        Ok(page)
    }

    /// Reads from one file; whether it came to its end.
    fn read_file(
        &self,
        path: &Path,
        budget: &mut u64,
        page: &mut Page,
        last_seq: &mut Option<u64>,
    ) -> io::Result<bool> {
        let file = match File::open(path) {
            // Retired, or followed by a new one, since the files were listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            file => file?,
        };
        let length = file.metadata()?.len();
        let start = self.start(path, length)?;
        let mut lines = Scan::start(file, start)?;
        let limit = self.limit();
        while lines.position < start + *budget && page.records.len() < limit {
            let Some(Line::Whole(line)) = lines.line()? else {
                *budget = budget.saturating_sub(lines.position - start);
                return Ok(true);
            };
            let Some(record) = Record::from_line(&line) else { continue };
            *last_seq = Some(record.seq);
            if !self.is_before(&record) && self.wants(&record) {
                page.records.push(record);
            }
        }
        *budget = budget.saturating_sub(lines.position - start);
        Ok(lines.position >= length)
    }

    fn limit(&self) -> usize {
        self.limit.clamp(1, PAGE_MAX)
    }

    /// The last file whose first record is before what is wanted.
    fn first_file(&self, paths: &[PathBuf]) -> io::Result<usize> {
        for (index, path) in paths.iter().enumerate().skip(1).rev() {
            if files::first_record(path)?.is_some_and(|first| self.is_before(&first)) {
                return Ok(index);
            }
        }
        Ok(0)
    }

    /// The start of a line at or shortly before the first wanted record: binary search over byte positions,
    /// as sequences and (nearly) times rise through the file.
    fn start(&self, path: &Path, length: u64) -> io::Result<u64> {
        let (mut low, mut high) = (0, length);
        while high - low > 4 * 1024 {
            let middle = low + (high - low) / 2;
            let mut lines = Scan::start(File::open(path)?, middle)?;
            lines.line()?;
            let line_start = lines.position;
            match lines.line()? {
                Some(Line::Whole(line)) if line_start < high => {
                    let before = Record::from_line(&line).is_some_and(|record| self.is_before(&record));
                    if before { low = line_start } else { high = middle }
                }
                _ => high = middle,
            }
        }
        Ok(low)
    }

    fn is_before(&self, record: &Record) -> bool {
        match self.since {
            Since::Seq(seq) => record.seq <= seq,
            Since::Time(time) => record.ts < time,
        }
    }

    fn wants(&self, record: &Record) -> bool {
        let below = |wanted: &String| {
            record.path.strip_prefix(wanted.as_str()).is_some_and(|rest| {
                rest.is_empty() || wanted.is_empty() || wanted.ends_with('/') || rest.starts_with('/')
            })
        };
        self.actor.as_ref().is_none_or(|actor| *actor == record.actor) && self.path.as_ref().is_none_or(below)
    }
}
