//! CSV in pieces: each begins with the row of names. What the fields are is the worker's to say.

use std::io::{BufRead as _, BufReader, Read};

use super::piece::{FileError, Piece, ROWS_MAX};

/// LIMIT: bytes of a line.
pub(super) const LINE_BYTES_MAX: u64 = 64 << 10;
/// Bytes after which a piece is full.
const BODY_BYTES: usize = 4 << 20;

/// The pieces of a text.
pub(super) struct CsvPieces<R> {
    from: BufReader<R>,
    /// The row of names, once it was read.
    head: Option<Vec<u8>>,
    line: u64,
    rows: u64,
    read: u64,
}

impl<R: Read> CsvPieces<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from: BufReader::with_capacity(1 << 20, from), head: None, line: 0, rows: 0, read: 0 }
    }

    /// The next piece; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, FileError> {
        let head = match self.head.take() {
            Some(head) => head,
            None => self.next_line()?.ok_or(FileError::Empty)?,
        };
        let mut piece = Piece { body: head.clone(), before: self.rows, ..Piece::default() };
        self.head = Some(head);
        while piece.rows < ROWS_MAX as u64 && piece.body.len() < BODY_BYTES {
            let Some(line) = self.next_line()? else { break };
            piece.body.extend_from_slice(&line);
            piece.lines.push(self.line);
            piece.rows += 1;
        }
        self.rows += piece.rows;
        piece.read = self.read;
        Ok((piece.rows > 0).then_some(piece))
    }

    /// The next line that is not empty, with an end of its own.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, FileError> {
        loop {
            let mut line = Vec::new();
            let bytes = (&mut self.from).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
            if bytes == 0 {
                return Ok(None);
            }
            self.line += 1;
            self.read += bytes as u64;
            if bytes as u64 > LINE_BYTES_MAX {
                return Err(FileError::LongLine(self.line));
            }
            if line.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
                if !line.ends_with(b"\n") {
                    line.push(b'\n');
                }
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_has_the_names_and_knows_its_lines() {
        let rows: String = (0..120_000).map(|row| format!("{row},1\r\n")).collect();
        // An empty line is no row, and the last line may have no end.
        let text = format!("\u{feff}timestamp,close\r\n\r\n{rows}120000,1");
        let mut pieces = CsvPieces::new(text.as_bytes());
        let mut sizes = Vec::new();
        let mut whole = String::new();
        while let Some(piece) = pieces.next().unwrap() {
            let body = String::from_utf8(piece.body.clone()).unwrap();
            whole += body.strip_prefix("\u{feff}timestamp,close\r\n").unwrap();
            assert_eq!(piece.place(0), format!("line {}", piece.before + 3));
            assert_eq!(piece.lines.len() as u64, piece.rows);
            sizes.push((piece.before, piece.rows));
        }
        assert_eq!(sizes, [(0, 50_000), (50_000, 50_000), (100_000, 20_001)]);
        assert_eq!(whole, format!("{rows}120000,1\n"));
        assert_eq!(pieces.read, text.len() as u64);
    }

    #[test]
    fn no_names_and_no_end_are_faults() {
        assert!(matches!(CsvPieces::new(&b"\n\n"[..]).next(), Err(FileError::Empty)));
        assert!(matches!(CsvPieces::new(&b"timestamp,close\n"[..]).next(), Ok(None)));
        let long = format!("a\n{}", "1".repeat(LINE_BYTES_MAX as usize + 1));
        assert!(matches!(CsvPieces::new(long.as_bytes()).next(), Err(FileError::LongLine(2))));
    }
}
