//! Reads a log line by line, bounded.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use crate::record::LINE_BYTES_MAX;

/// The lines of a log from some byte on.
pub(crate) struct Scan<R> {
    reader: BufReader<R>,
    /// Byte position of the next line.
    pub(crate) position: u64,
}

/// One line.
pub(crate) enum Line {
    /// A line that ended in a newline, which is not included.
    Whole(Vec<u8>),
    /// Bytes up to the end of the file, or to the line limit, without a newline.
    Torn(usize),
}

impl<R: Read + Seek> Scan<R> {
    /// Starts at byte `position`, which must be the start of a line.
    pub(crate) fn start(mut source: R, position: u64) -> io::Result<Self> {
        source.seek(SeekFrom::Start(position))?;
        Ok(Self { reader: BufReader::with_capacity(64 * 1024, source), position })
    }

    /// The next line, `None` at the end.
    pub(crate) fn line(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut bytes)?;
        self.position += read as u64;
        Ok(match bytes.pop() {
            None => None,
            Some(b'\n') => Some(Line::Whole(bytes)),
            Some(_) => Some(Line::Torn(read)),
        })
    }
}

/// Whether a whole line was only partly written: a record never contains NUL, a page that never reached the
/// disk is nothing else. Believable beyond the head only.
pub(crate) fn is_torn(line: &[u8]) -> bool {
    line.contains(&0)
}

/// The start of the line that ends (newline included) at byte `end`; `None` when there is none in reach.
pub(crate) fn line_start_before(source: &mut (impl Read + Seek), end: u64) -> io::Result<Option<u64>> {
    let window = end.min(LINE_BYTES_MAX as u64);
    let from = end - window;
    let mut bytes = vec![0; window as usize];
    source.seek(SeekFrom::Start(from))?;
    source.read_exact(&mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Ok(None);
    }
    Ok(match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(newline) => Some(from + newline as u64 + 1),
        None if from == 0 => Some(0),
        None => None,
    })
}
