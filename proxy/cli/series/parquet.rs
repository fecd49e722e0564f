//! Parquet in pieces, each a stream of Arrow: columns side by side, so many rows of each at a time. What they are is the
//! worker's to say.
//!
//! In memory are the footer and of each column one page with its dictionary, packed and unpacked. The file tells how
//! large they are; what it tells is bounded before the library makes room for it ([`compact`]). A column that is neither
//! of numbers nor of times is not read, and stands in the piece as empty fields of its type: the worker refuses one that
//! it needs, by its name, and passes over the others.

mod column;
mod compact;

use std::fs::File;
use std::io::{self, Cursor};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use super::piece::{FileError, Piece, ROWS_MAX};

/// LIMIT: bytes of the footer.
const FOOTER_BYTES_MAX: u64 = 16 << 20;
/// LIMIT: columns, as the worker takes; groups of columns have none.
const COLUMNS_MAX: usize = 64;
/// LIMIT: bytes of a page, packed or not. Writers make pages of 1 MiB, dictionaries of little more.
const PAGE_BYTES_MAX: u64 = 16 << 20;
/// LIMIT: bytes of the header of a page, which has no statistics longer than two numbers.
const HEADER_BYTES_MAX: u64 = 16 << 10;
/// What a file begins and ends with.
const MAGIC: &[u8; 4] = b"PAR1";

/// The pieces of a file.
pub(super) struct ParquetPieces {
    file: Arc<Bounded>,
    footer: ParquetMetaData,
    schema: SchemaRef,
    /// The group of rows that is read next.
    group: usize,
    /// The columns of the one that is being read, and its rows that are left; `None` for a column that is not read.
    columns: Vec<Option<ColumnReader>>,
    left: usize,
    rows: u64,
}

impl From<ParquetError> for FileError {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error.to_string().chars().take(200).collect())
    }
}

fn fault(text: impl Into<String>) -> FileError {
    FileError::Parquet(text.into())
}

impl ParquetPieces {
    pub(super) fn open(file: File) -> Result<Self, FileError> {
        let bytes = file.metadata()?.len();
        let file = Arc::new(Bounded { file, bytes });
        let footer = file.footer()?;
        let elements = compact::schema_elements(&footer).ok_or_else(|| fault("its footer is damaged"))?;
        if elements > COLUMNS_MAX + 1 {
            return Err(fault(format!("it has more than {COLUMNS_MAX} columns")));
        }
        let footer = guarded(|| Ok(ParquetMetaDataReader::decode_metadata(&footer)?))?;
        let columns = footer.file_metadata().schema_descr().columns();
        let fields = columns.iter().map(|known| Field::new(known.path().string(), column::kind(known), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self { file, footer, schema, group: 0, columns: Vec::new(), left: 0, rows: 0 })
    }

    /// The next piece; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, FileError> {
        while self.left == 0 {
            if self.group == self.footer.num_row_groups() {
                return Ok(None);
            }
            guarded(|| self.begin())?;
        }
        let rows = self.left.min(ROWS_MAX);
        let batch = guarded(|| self.take(rows))?;
        let mut writer = StreamWriter::try_new(Vec::new(), &self.schema)?;
        writer.write(&batch)?;
        let body = writer.into_inner()?;
        let before = self.rows;
        self.rows += rows as u64;
        self.left -= rows;
        Ok(Some(Piece { body, before, rows: rows as u64, read: self.share(), ..Piece::default() }))
    }

    /// Begins the next group of rows.
    fn begin(&mut self) -> Result<(), FileError> {
        let group = self.footer.row_group(self.group);
        self.left = usize::try_from(group.num_rows()).map_err(|_| fault("its footer is damaged"))?;
        let open = |(chunk, field): (&ColumnChunkMetaData, &Arc<Field>)| {
            if !column::is_read(field.data_type()) {
                return Ok(None);
            }
            known_packing(chunk)?;
            let pages = SerializedPageReader::new(Arc::clone(&self.file), chunk, self.left, None)?;
            Ok(Some(get_column_reader(chunk.column_descr_ptr(), Box::new(pages))))
        };
        self.columns =
            group.columns().iter().zip(self.schema.fields()).map(open).collect::<Result<_, FileError>>()?;
        self.group += 1;
        Ok(())
    }

    /// The next rows of the group.
    fn take(&mut self, rows: usize) -> Result<RecordBatch, FileError> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (reader, field) in self.columns.iter_mut().zip(self.schema.fields()) {
            let array = column::take(reader.as_mut(), field.data_type(), rows).map_err(|error| {
                let place = format!("column `{}`, from row {}", field.name().escape_default(), self.rows);
                match FileError::from(error) {
                    FileError::Parquet(text) => fault(format!("{place}: {text}")),
                    other => other,
                }
            })?;
            arrays.push(array);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)
    }

    /// About how many bytes of the file are behind: as many as rows are.
    fn share(&self) -> u64 {
        let all = self.footer.file_metadata().num_rows().max(1) as f64;
        (self.file.bytes as f64 * (self.rows as f64 / all)) as u64
    }
}

fn known_packing(chunk: &ColumnChunkMetaData) -> Result<(), FileError> {
    match chunk.compression() {
        Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_) => Ok(()),
        other => Err(fault(format!("column `{}` is {other}", chunk.column_path().string().escape_default()))),
    }
}

/// The library checks what it reads; should it stumble over a damaged file all the same, that is a fault of the file.
fn guarded<T>(read: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(fault("it is damaged")))
}

/// A file that gives out no page of more than the limit.
struct Bounded {
    file: File,
    bytes: u64,
}

impl Bounded {
    fn footer(&self) -> Result<Bytes, FileError> {
        let tail: [u8; 8] = self
            .exact(self.bytes.checked_sub(8).ok_or_else(|| fault("it is too short"))?, 8)?[..]
            .try_into()
            .map_err(|_| fault("it is too short"))?;
        let [a, b, c, d, magic @ ..] = tail;
        if magic != *MAGIC {
            return Err(fault("it does not end as one"));
        }
        let length = u64::from(u32::from_le_bytes([a, b, c, d]));
        if length > FOOTER_BYTES_MAX {
            return Err(fault(format!("its footer has more than {FOOTER_BYTES_MAX} bytes")));
        }
        let start = (self.bytes - 8).checked_sub(length).ok_or_else(|| fault("it is too short"))?;
        Ok(self.exact(start, length as usize)?)
    }

    fn exact(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

impl Length for Bounded {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Bounded {
    type T = Cursor<Bytes>;

    /// The header of a page: of flat columns the library reads nothing else this way.
    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let length = self.bytes.saturating_sub(start).min(HEADER_BYTES_MAX);
        let header = self.exact(start, length as usize)?;
        let bytes = compact::page_bytes(&header)
            .ok_or_else(|| ParquetError::General("the header of a page is damaged".to_owned()))?;
        if bytes > PAGE_BYTES_MAX {
            let text = format!("a page of {bytes} bytes is more than the limit of {PAGE_BYTES_MAX}");
            return Err(ParquetError::General(text));
        }
        Ok(Cursor::new(header))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        // Its header was looked at.
        Ok(self.exact(start, length)?)
    }
}

#[cfg(test)]
mod tests;
