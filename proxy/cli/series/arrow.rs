//! Arrow in pieces, each a stream of its own. What the columns are is the worker's to say.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;

use super::piece::{FileError, Piece, ROWS_MAX};

/// What an Arrow file begins with; a stream does not.
const MAGIC: &[u8; 6] = b"ARROW1";

/// The pieces of a file or stream.
pub(super) struct ArrowPieces {
    from: Box<dyn RecordBatchReader>,
    /// What is left of the last batch.
    rest: Option<RecordBatch>,
    rows: u64,
}

impl From<ArrowError> for FileError {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error.to_string().chars().take(200).collect())
    }
}

impl ArrowPieces {
    pub(super) fn open(mut file: BufReader<File>) -> Result<Self, FileError> {
        let mut magic = Vec::new();
        (&mut file).take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        file.rewind()?;
        let from: Box<dyn RecordBatchReader> = guarded(|| {
            if magic == MAGIC {
                return Ok(Box::new(FileReader::try_new(file, None)?) as _);
            }
            Ok(Box::new(StreamReader::try_new(file, None)?) as _)
        })?;
        Ok(Self { from, rest: None, rows: 0 })
    }

    /// The next piece; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, FileError> {
        let batch = loop {
            let next = match self.rest.take() {
                Some(rest) => Some(rest),
                None => guarded(|| self.from.next().transpose())?,
            };
            match next {
                None => return Ok(None),
                Some(batch) if batch.num_rows() > 0 => break batch,
                Some(_) => {}
            }
        };
        let rows = batch.num_rows().min(ROWS_MAX);
        self.rest = (rows < batch.num_rows()).then(|| batch.slice(rows, batch.num_rows() - rows));
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
        writer.write(&batch.slice(0, rows))?;
        let body = writer.into_inner()?;
        let before = self.rows;
        self.rows += rows as u64;
        Ok(Some(Piece { body, before, rows: rows as u64, ..Piece::default() }))
    }
}

/// The library checks what it reads; should it stumble over a damaged file all the same, that is a fault of the file.
fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, FileError> {
    let read = catch_unwind(AssertUnwindSafe(read));
    Ok(read.map_err(|_| FileError::Arrow("it is damaged".to_owned()))??)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Float64Array, Int64Array};
    use arrow_ipc::writer::FileWriter;

    use super::*;

    fn batch(rows: i64) -> RecordBatch {
        let time: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let close: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64)));
        RecordBatch::try_from_iter([("timestamp", time), ("close", close)]).unwrap()
    }

    fn opened(bytes: &[u8]) -> Result<ArrowPieces, FileError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        ArrowPieces::open(BufReader::new(file))
    }

    /// A file and a stream with a large batch, an empty one and a small one.
    fn forms() -> [Vec<u8>; 2] {
        let batches = [batch(120_000), batch(0), batch(3)];
        let mut file = FileWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
        let mut stream = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
        for batch in &batches {
            file.write(batch).unwrap();
            stream.write(batch).unwrap();
        }
        [file.into_inner().unwrap(), stream.into_inner().unwrap()]
    }

    #[test]
    fn files_and_streams_come_in_pieces_that_are_streams() {
        for form in forms() {
            let (mut pieces, mut sizes, mut all) = (opened(&form).unwrap(), Vec::new(), Vec::new());
            while let Some(piece) = pieces.next().unwrap() {
                sizes.push((piece.before, piece.rows));
                all.extend(StreamReader::try_new(&*piece.body, None).unwrap().map(Result::unwrap));
            }
            assert_eq!(sizes, [(0, 50_000), (50_000, 50_000), (100_000, 20_000), (120_000, 3)]);
            let whole = batch(120_000);
            assert_eq!([&all[0], &all[2]], [&whole.slice(0, 50_000), &whole.slice(100_000, 20_000)]);
            assert_eq!(all[3], batch(3));
        }
    }

    #[test]
    fn what_is_no_arrow_is_a_fault() {
        let whole = forms();
        for bytes in [&b"ARROW1 but no more"[..], b"no", b"", &whole[0][..5_000]] {
            assert!(matches!(opened(bytes), Err(FileError::Arrow(_))));
        }
        let mut cut = opened(&whole[1][..100_000]).unwrap();
        assert!(matches!(cut.next(), Err(FileError::Arrow(_))));
    }
}
