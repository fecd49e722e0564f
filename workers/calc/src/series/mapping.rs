//! Columns of a file as slices of memory: the one place of this crate with `unsafe`.
//!
//! Only reading goes through the mapping. Rows are written with `pwrite`, so a full disk is an error of a call and never
//! a signal, and no reference of this process is ever written through.

use std::fs::File;
use std::io;

use memmap2::{MmapOptions, MmapRaw};

use super::head::HEAD_BYTES;

#[cfg(not(target_endian = "little"))]
compile_error!("columns are little-endian in their files and read where they lie");

/// Columns of a series: the time and five numbers.
pub(crate) const COLUMNS: usize = 6;
/// Bytes of a row.
pub(crate) const ROW_BYTES: u64 = COLUMNS as u64 * 8;

/// What may lie in a column: eight bytes of which every pattern is a value.
pub(crate) trait Cell: Copy + private::Sealed {}
impl Cell for i64 {}
impl Cell for f64 {}

mod private {
    pub(crate) trait Sealed {}
    impl Sealed for i64 {}
    impl Sealed for f64 {}
}

/// A file in memory, as long as it was when it was mapped.
#[derive(Debug)]
pub(crate) struct Mapping {
    memory: MmapRaw,
    capacity: usize,
}

impl Mapping {
    /// Maps a file with room for `capacity` rows; it must be that long.
    pub(crate) fn new(file: &File, capacity: usize) -> io::Result<Self> {
        let bytes = bytes_of(capacity as u64);
        if file.metadata()?.len() != bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file is not as long as its head says",
            ));
        }
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        Ok(Self { memory: MmapOptions::new().len(length).map_raw_read_only(file)?, capacity })
    }

    /// Rows that there is room for.
    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The first `rows` values of a column; the caller knows that they were written, and nobody writes them again.
    #[allow(unsafe_code, reason = "a slice over a mapped file cannot be made without")]
    pub(crate) fn column<T: Cell>(&self, column: usize, rows: usize) -> &[T] {
        assert!(
            column < COLUMNS && rows <= self.capacity,
            "row {rows} of column {column} is not in the file"
        );
        let offset = HEAD_BYTES + column * self.capacity * 8;
        // SAFETY: the range lies in the mapping, which `new` made as long as its columns, and lives as long as `self`;
        // it begins at a multiple of eight from a page, and every pattern of bits is a `T`. Nobody changes it while the
        // slice is there: rows are written once, before a `View` with them is made, by this process, which alone holds
        // the lock of the folder. The file never gets shorter: one that is to be longer or to be replaced is written
        // anew under its name, and this one stays for those who mapped it.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(offset).cast::<T>(), rows) }
    }
}

/// Bytes of a file with room for so many rows.
pub(crate) const fn bytes_of(capacity: u64) -> u64 {
    HEAD_BYTES as u64 + capacity * ROW_BYTES
}

/// Where in the file a value lies.
pub(crate) const fn offset_of(capacity: u64, column: usize, row: u64) -> u64 {
    HEAD_BYTES as u64 + (column as u64 * capacity + row) * 8
}
