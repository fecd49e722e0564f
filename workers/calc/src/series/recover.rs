//! The series as the last process left them: files as of their last checkpoint, and the journal over them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::candle::Candle;
use super::file::{self, NEW_SUFFIX, checkpoint, head, write_rows};
use super::head::Head;
use super::journal::{Record, Records};
use super::key::SeriesKey;
use super::mapping::{Mapping, bytes_of};
use super::medium::Disk;
use super::space::Space;
use super::view::{Mapped, View};

/// What was found.
pub(super) struct Recovered {
    /// The series, and how many slots of their heads were written.
    pub(super) series: BTreeMap<SeriesKey, (View, u64)>,
    /// Greater than every generation there was.
    pub(super) generation: u64,
    /// Files that could not be read; they lie aside.
    pub(super) damaged: usize,
}

/// Rows at the end of a file whose times are looked at: older ones were checked when they were the last.
const CHECKED_ROWS: usize = 4_096;

/// A file, and what the journal makes of it.
struct Found {
    file: File,
    head: Head,
    is_changed: bool,
    /// The journal does not fit to it: its newest head was lost.
    is_behind: bool,
}

/// Reads a folder and brings its files up to the journal.
pub(super) fn recover(folder: &Path, journal: &File, space: &Arc<Space>) -> io::Result<Recovered> {
    let (mut found, mut damaged) = read_folder(folder)?;
    let mut generation = found.values().map(|found| found.head.generation).max().unwrap_or(0);
    let bytes = read_all(journal)?;
    let mut records = Records::of(&bytes);
    let mut orphans = 0;
    for record in records.by_ref() {
        generation = generation.max(record.generation);
        match found.get_mut(&record.key).filter(|found| found.head.generation == record.generation) {
            Some(of) => replay(of, &record)?,
            // Of a series that was replaced or deleted since.
            None => orphans += 1,
        }
    }
    if records.torn() > 0 || orphans > 0 {
        let torn = records.torn();
        tracing::info!(
            component = "series",
            torn_bytes = torn,
            orphans,
            "the journal of the series is replayed"
        );
    }
    let mut series = BTreeMap::new();
    for (key, mut of) in found {
        match of.finish(&key, space) {
            Ok(done) => drop(series.insert(key, done)),
            Err(error) => {
                set_aside(folder, &key.file_name(), &error)?;
                damaged += 1;
            }
        }
    }
    journal.set_len(0)?;
    journal.sync_all()?;
    Ok(Recovered { series, generation: generation + 1, damaged })
}

fn read_folder(folder: &Path) -> io::Result<(BTreeMap<SeriesKey, Found>, usize)> {
    let mut found = BTreeMap::new();
    let mut damaged = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = OsStr::to_str(&name) else { continue };
        if name.ends_with(NEW_SUFFIX) {
            fs::remove_file(entry.path())?;
            continue;
        }
        let Some(key) = SeriesKey::of_file_name(name) else { continue };
        let file = file::open(folder, &key)?;
        match head(&file, &key).and_then(|head| whole(&file, head)) {
            Ok(head) => drop(found.insert(key, Found { file, head, is_changed: false, is_behind: false })),
            Err(error) => {
                set_aside(folder, name, &error)?;
                damaged += 1;
            }
        }
    }
    Ok((found, damaged))
}

fn whole(file: &File, head: Head) -> io::Result<Head> {
    if file.metadata()?.len() == bytes_of(head.capacity) {
        return Ok(head);
    }
    Err(invalid("the file is not as long as its head says"))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Gives a file that cannot be read another name: it can be looked at, and its series can be written anew.
fn set_aside(folder: &Path, name: &str, error: &io::Error) -> io::Result<()> {
    tracing::error!(component = "series", file = name, error = %error, "a stored series cannot be read and is set aside");
    fs::rename(folder.join(name), folder.join(format!("{name}.damaged")))
}

fn read_all(mut journal: &File) -> io::Result<Vec<u8>> {
    use io::{Read as _, Seek as _};
    let mut bytes = Vec::new();
    journal.rewind()?;
    journal.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn replay(of: &mut Found, record: &Record) -> io::Result<()> {
    let end = record.row.saturating_add(record.rows.len() as u64);
    of.is_behind |= record.row > of.head.rows || end > of.head.capacity;
    if of.is_behind {
        return Ok(());
    }
    write_rows(&Disk, &of.file, of.head.capacity, record.row, &record.rows)?;
    of.head.rows = end;
    of.head.open = record.open;
    of.is_changed = true;
    Ok(())
}

impl Found {
    fn finish(&mut self, key: &SeriesKey, space: &Arc<Space>) -> io::Result<(View, u64)> {
        if self.is_behind {
            return Err(invalid("its head is older than the journal"));
        }
        if self.is_changed {
            self.head.seq += 1;
            checkpoint(&Disk, &self.file, key, &self.head)?;
        }
        let mapping = Mapping::new(&self.file, self.head.capacity as usize)?;
        let taken = space.owe(bytes_of(self.head.capacity));
        let mapped = Arc::new(Mapped { mapping, _taken: taken });
        let rows = self.head.rows as usize;
        let view = View::new(self.head.generation, rows, self.head.open, mapped);
        let times = &view.times()[rows.saturating_sub(CHECKED_ROWS)..];
        if times.is_sorted_by(|one, other| one < other) && open_is_newer(times, self.head.open) {
            return Ok((view, self.head.seq));
        }
        Err(invalid("its times do not ascend"))
    }
}

fn open_is_newer(times: &[i64], open: Option<Candle>) -> bool {
    times.last().is_none_or(|last| open.is_none_or(|open| *last < open.time_ms))
}
