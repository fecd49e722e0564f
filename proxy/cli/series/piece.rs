//! A file of candles in pieces, each of which the worker takes in one call.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::arrow::ArrowPieces;
use super::csv::CsvPieces;
use super::parquet::ParquetPieces;
use crate::exit::Failure;

/// LIMIT: rows of a piece.
pub(super) const ROWS_MAX: usize = 50_000;

/// Rows as they are sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) body: Vec<u8>,
    /// Rows before it.
    pub(super) before: u64,
    pub(super) rows: u64,
    /// Lines on which the rows stand, where there are lines.
    pub(super) lines: Vec<u64>,
    /// Bytes of the file up to its end.
    pub(super) read: u64,
}

impl Piece {
    /// Where a row of it stands in the file.
    pub(super) fn place(&self, row: u64) -> String {
        match self.lines.get(row as usize) {
            Some(line) => format!("line {line}"),
            None => format!("row {}", self.before + row),
        }
    }
}

/// Why a file cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// Reading failed.
    #[error("the file cannot be read")]
    Read(#[from] std::io::Error),
    /// A line without an end in sight.
    #[error("line {0} has more than {max} bytes", max = super::csv::LINE_BYTES_MAX)]
    LongLine(u64),
    /// There is not even a row of names.
    #[error("the file is empty; the first line names the columns: timestamp,open,high,low,close,volume")]
    Empty,
    /// No Arrow, or what of it is not taken.
    #[error("not an Arrow file or stream that can be read here: {0}; compressed buffers are not taken")]
    Arrow(String),
    /// No Parquet, or what of it is not taken.
    #[error(
        "not a Parquet file that can be read here: {0}; pages are plain, or packed with Snappy or Zstandard"
    )]
    Parquet(String),
}

/// The pieces of a file.
pub(super) enum Pieces {
    Csv(CsvPieces<Box<dyn Read>>),
    Arrow(ArrowPieces),
    Parquet(Box<ParquetPieces>),
}

impl Pieces {
    /// Opens a file by what its name ends with; its size, where that is known.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<u64>), Failure> {
        if path == Path::new("-") {
            return Ok((Self::Csv(CsvPieces::new(Box::new(std::io::stdin()))), None));
        }
        let shown = path.display();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let open: fn(File) -> Result<Self, FileError> = match extension.to_ascii_lowercase().as_str() {
            "csv" => |file| Ok(Self::Csv(CsvPieces::new(Box::new(file)))),
            "arrow" | "arrows" | "feather" | "ipc" => {
                |file| Ok(Self::Arrow(ArrowPieces::open(BufReader::new(file))?))
            }
            "parquet" | "pq" => |file| Ok(Self::Parquet(Box::new(ParquetPieces::open(file)?))),
            _ => {
                let text = "a file of candles ends with .csv, .arrow or .parquet";
                return Err(Failure::usage(format!("{shown}: {text}")));
            }
        };
        let fault = |error| Failure::usage(format!("{shown}: {error}"));
        let file = File::open(path).map_err(fault)?;
        let known = file.metadata().map_err(fault)?;
        let pieces = open(file).map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
        Ok((pieces, known.is_file().then_some(known.len())))
    }

    /// What the bodies are.
    pub(super) const fn media(&self) -> &'static str {
        match self {
            Self::Csv(_) => "text/csv",
            Self::Arrow(_) | Self::Parquet(_) => "application/vnd.apache.arrow.stream",
        }
    }

    /// The next piece; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, FileError> {
        match self {
            Self::Csv(pieces) => pieces.next(),
            Self::Arrow(pieces) => pieces.next(),
            Self::Parquet(pieces) => pieces.next(),
        }
    }
}
