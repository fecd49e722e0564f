//! The file of a series: a page of head, then six columns, each with room for as many rows.
//!
//! Rows are written behind those that are there. A file without room is written anew, with more, beside the old one, and
//! takes its name: so a name always stands for a whole file, and a mapped file never changes its length. All of its bytes
//! are allocated before a row is acknowledged: a full disk is met here and nowhere later.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_calc::Column;

use super::candle::Candle;
use super::head::{HEAD_BYTES, Head};
use super::key::SeriesKey;
use super::mapping::{COLUMNS, Mapping, bytes_of, offset_of};
use super::medium::Medium;
use super::space::Taken;
use super::view::{Mapped, View};

/// Room of the smallest file, rows.
const CAPACITY_MIN: usize = 1_024;
/// From here on room grows by as much, not by doubling.
const CAPACITY_STEP: usize = 1 << 20;
/// What the name of a file ends with that has not taken its place.
pub(crate) const NEW_SUFFIX: &str = ".new";

/// The rows that a file has room for which must hold so many.
pub(crate) fn capacity_for(rows: usize) -> usize {
    if rows <= CAPACITY_STEP {
        rows.max(CAPACITY_MIN).next_power_of_two()
    } else {
        rows.next_multiple_of(CAPACITY_STEP)
    }
}

/// Rows that go into a new file.
pub(crate) enum Rows<'a> {
    Candles(&'a [Candle]),
    Of(&'a View),
}

impl Rows<'_> {
    const fn len(&self) -> usize {
        match self {
            Self::Candles(candles) => candles.len(),
            Self::Of(view) => view.rows(),
        }
    }

    /// Writes the values of a column.
    fn write(&self, column: usize, out: &mut impl io::Write) -> io::Result<()> {
        match self {
            Self::Candles(candles) => {
                candles.iter().try_for_each(|candle| out.write_all(&cell(candle, column)))
            }
            Self::Of(view) => match column.checked_sub(1).and_then(|at| Column::ALL.get(at)) {
                None => view.times().iter().try_for_each(|time| out.write_all(&time.to_le_bytes())),
                Some(column) => {
                    view.column(*column).iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
                }
            },
        }
    }
}

/// A file on the disk, whole, that has not taken its name yet. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    is_placed: bool,
    file: Option<File>,
    view: View,
}

impl Draft {
    /// Writes a file and waits until it is on the disk. `number` tells it from others that are written meanwhile.
    pub(crate) fn write(
        medium: &dyn Medium,
        folder: &Path,
        key: &SeriesKey,
        number: u64,
        rows: &Rows<'_>,
        head: Head,
        taken: Taken,
    ) -> io::Result<Self> {
        let path = folder.join(format!("{number}{NEW_SUFFIX}"));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        // From here on it is removed whatever happens.
        let guard = Unfinished(Some(&path));
        medium.allocate(&file, bytes_of(head.capacity))?;
        medium.write_all_at(&file, &head.encode(&key.text()), head.offset())?;
        for column in 0..COLUMNS {
            write_column(medium, &file, column, head.capacity, rows)?;
        }
        medium.sync(&file)?;
        let mapping = Mapping::new(&file, head.capacity as usize)?;
        guard.keep();
        let view =
            View::new(head.generation, rows.len(), head.open, Arc::new(Mapped { mapping, _taken: taken }));
        Ok(Self { path, is_placed: false, file: Some(file), view })
    }

    /// Gives the file its name, in place of what had it, and waits until that is on the disk.
    pub(crate) fn place(mut self, folder: &Path, key: &SeriesKey) -> io::Result<(File, View)> {
        fs::rename(&self.path, folder.join(key.file_name()))?;
        self.is_placed = true;
        sync_folder(folder)?;
        let file = self.file.take().ok_or_else(|| io::Error::other("a draft is placed once"))?;
        Ok((file, self.view.clone()))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_placed {
            // Left over, it is removed at the next start.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Removes a file unless it is kept.
struct Unfinished<'a>(Option<&'a Path>);

impl Unfinished<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            drop(fs::remove_file(path));
        }
    }
}

fn write_column(
    medium: &dyn Medium,
    file: &File,
    column: usize,
    capacity: u64,
    rows: &Rows<'_>,
) -> io::Result<()> {
    let mut out =
        BufWriter::with_capacity(1 << 18, At { medium, file, offset: offset_of(capacity, column, 0) });
    rows.write(column, &mut out)?;
    out.flush()
}

/// A file from an offset on.
struct At<'a> {
    medium: &'a dyn Medium,
    file: &'a File,
    offset: u64,
}

impl io::Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.medium.write_all_at(self.file, bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const fn cell(candle: &Candle, column: usize) -> [u8; 8] {
    match column {
        0 => candle.time_ms.to_le_bytes(),
        _ => candle.numbers()[column - 1].to_le_bytes(),
    }
}

/// Writes rows where they belong. They are on the disk after the next [`checkpoint`]; until then the journal has them.
pub(crate) fn write_rows(
    medium: &dyn Medium,
    file: &File,
    capacity: u64,
    row: u64,
    rows: &[Candle],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(rows.len() * 8);
    for column in 0..COLUMNS {
        bytes.clear();
        for candle in rows {
            bytes.extend_from_slice(&cell(candle, column));
        }
        medium.write_all_at(file, &bytes, offset_of(capacity, column, row))?;
    }
    Ok(())
}

/// Writes the head and waits until it and all rows are on the disk. In whatever order they get there: as long as the head
/// may be ahead of its rows the journal still has them.
pub(crate) fn checkpoint(medium: &dyn Medium, file: &File, key: &SeriesKey, head: &Head) -> io::Result<()> {
    medium.write_all_at(file, &head.encode(&key.text()), head.offset())?;
    medium.sync(file)
}

/// Opens the file of a series to write.
pub(crate) fn open(folder: &Path, key: &SeriesKey) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(folder.join(key.file_name()))
}

/// The head of a file.
pub(crate) fn head(file: &File, key: &SeriesKey) -> io::Result<Head> {
    let mut page = [0; HEAD_BYTES];
    file.read_exact_at(&mut page, 0)?;
    let head = Head::newest(&page, &key.text());
    head.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "neither slot of its head is whole"))
}

/// Makes names of a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_doubles_and_then_grows_in_steps() {
        assert_eq!([0, 1, 1_024, 1_025, 3_000].map(capacity_for), [1_024, 1_024, 1_024, 2_048, 4_096]);
        assert_eq!(capacity_for(1 << 20), 1 << 20);
        assert_eq!(capacity_for((1 << 20) + 1), 2 << 20);
        assert_eq!(capacity_for((2 << 20) + 1), 3 << 20);
    }
}
