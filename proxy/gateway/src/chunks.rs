//! The framing of a chunked request body, checked byte by byte before any of it goes on.
//!
//! Accepted: `1*16HEXDIG [;extension] CRLF data CRLF …`, a last chunk of size 0, trailer fields, an empty
//! line. Refused: any other byte before or in a size (`0x`, sign, space, `_`), sizes above 64 bits, LF
//! without CR, CR without LF, NUL and other control bytes in a line, a quote that its line does not close, a
//! data part not ended by CRLF, a trailer whose name is no token or frames a request (`Content-Length`,
//! `Transfer-Encoding`, `Host`). Trailers that pass are dropped by the framework.
//! LIMIT: [`LINE_BYTES`] for one size line with its extension, [`TRAILER_BYTES`] for all trailers.
//! A pure state machine: where the input is cut makes no difference.

/// LIMIT: a size line with its extension.
const LINE_BYTES: usize = 256;
/// LIMIT: all trailer fields.
const TRAILER_BYTES: usize = 8 << 10;

/// The framing is broken; the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunked body is not well framed: {0}")]
pub(crate) struct ChunkFault(pub(crate) &'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Hexadecimal digits of a size; so many so far.
    Size {
        digits: u8,
    },
    /// After `;`, and where in a quoted string.
    Extension(Quote),
    /// After the CR of a size line.
    SizeLf,
    /// Inside data; so many bytes are left.
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
    /// Inside the name of a trailer.
    TrailerName,
    /// Behind its colon.
    TrailerValue,
    TrailerLf,
    /// After the CR of the empty line.
    EndLf,
    Done,
}

/// Where in a quoted string an extension is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

/// Names that frame or address a request: in a trailer they are an attempt to do so twice.
const FRAMING_NAMES: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
/// As many bytes of a trailer's name as tell whether it is one of those.
const NAME_BYTES: usize = 18;

/// Follows one body.
#[derive(Clone, Debug)]
pub(crate) struct ChunkScanner {
    state: State,
    size: u64,
    line: usize,
    trailer: usize,
    name: [u8; NAME_BYTES],
    name_bytes: usize,
}

impl Default for ChunkScanner {
    fn default() -> Self {
        Self {
            state: State::Size { digits: 0 },
            size: 0,
            line: 0,
            trailer: 0,
            name: [0; NAME_BYTES],
            name_bytes: 0,
        }
    }
}

/// Largest chunk: far above any body, far below where a sum of sizes could wrap.
const SIZE_MAX: u64 = 1 << 48;

impl ChunkScanner {
    /// Whether the body is complete.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Checks the next bytes; returns how many belong to this body (all of them until it is complete).
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<usize, ChunkFault> {
        self.read(bytes, |_| ())
    }

    /// The same, and hands out the data among them.
    pub(crate) fn read(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, ChunkFault> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let skip = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.size -= skip as u64;
                data(&bytes[at..at + skip]);
                at += skip;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, ChunkFault> {
        match self.state {
            State::Size { digits } => self.size_byte(byte, digits),
            State::Extension(quote) => {
                self.count_line()?;
                extension_byte(byte, quote)
            }
            State::SizeLf => match byte {
                b'\n' if self.size == 0 => Ok(State::TrailerStart),
                b'\n' => Ok(State::Data),
                _ => Err(ChunkFault("CR without LF")),
            },
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => {
                self.line = 0;
                Ok(State::Size { digits: 0 })
            }
            State::DataCr | State::DataLf => Err(ChunkFault("data longer than its size")),
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf => {
                self.trailer_byte(byte)
            }
            State::EndLf if byte == b'\n' => Ok(State::Done),
            State::EndLf => Err(ChunkFault("CR without LF")),
            State::Data | State::Done => Ok(self.state),
        }
    }

    fn size_byte(&mut self, byte: u8, digits: u8) -> Result<State, ChunkFault> {
        self.count_line()?;
        match byte {
            b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' if digits < 16 => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.size = if digits == 0 { 0 } else { self.size << 4 } | u64::from(digit);
                if self.size > SIZE_MAX {
                    return Err(ChunkFault("size out of range"));
                }
                Ok(State::Size { digits: digits + 1 })
            }
            b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => Err(ChunkFault("size above 64 bits")),
            b'\r' if digits > 0 => Ok(State::SizeLf),
            b';' if digits > 0 => Ok(State::Extension(Quote::Outside)),
            _ => Err(ChunkFault("size is not hexadecimal")),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, ChunkFault> {
        self.trailer += 1;
        if self.trailer > TRAILER_BYTES {
            return Err(ChunkFault("trailers too long"));
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::TrailerLf, _) => Err(ChunkFault("CR without LF")),
            (_, b'\n') => Err(ChunkFault("LF without CR")),
            (State::TrailerStart, byte) if is_token(byte) => {
                self.name_bytes = 0;
                Ok(self.name_byte(byte))
            }
            (State::TrailerStart, _) => Err(ChunkFault("trailer without name")),
            (State::TrailerName, b':') if self.name_frames() => Err(ChunkFault("framing field in a trailer")),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, b'\r') => Err(ChunkFault("trailer without colon")),
            (State::TrailerName, byte) if is_token(byte) => Ok(self.name_byte(byte)),
            (State::TrailerName, _) => Err(ChunkFault("character in a trailer's name")),
            (_, b'\r') => Ok(State::TrailerLf),
            (_, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            _ => Err(ChunkFault("control byte in a trailer")),
        }
    }

    fn name_byte(&mut self, byte: u8) -> State {
        if let Some(place) = self.name.get_mut(self.name_bytes) {
            *place = byte;
            self.name_bytes += 1;
        }
        State::TrailerName
    }

    fn name_frames(&self) -> bool {
        let name = &self.name[..self.name_bytes];
        FRAMING_NAMES.iter().any(|framing| name.eq_ignore_ascii_case(framing))
    }

    fn count_line(&mut self) -> Result<(), ChunkFault> {
        self.line += 1;
        if self.line > LINE_BYTES { Err(ChunkFault("size line too long")) } else { Ok(()) }
    }
}

fn extension_byte(byte: u8, quote: Quote) -> Result<State, ChunkFault> {
    let next = match (quote, byte) {
        (Quote::Outside, b'\r') => return Ok(State::SizeLf),
        (_, b'\r') => return Err(ChunkFault("quote without end in an extension")),
        (Quote::Outside, b'"') | (Quote::Escaped, b'\t' | b' '..=b'~' | 0x80..) => Quote::Inside,
        (Quote::Inside, b'"') => Quote::Outside,
        (Quote::Inside, b'\\') => Quote::Escaped,
        (quote, b'\t' | b' '..=b'~' | 0x80..) => quote,
        _ => return Err(ChunkFault("control byte in an extension")),
    };
    Ok(State::Extension(next))
}

/// A character of a field name (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of the body and what is left over, scanned in pieces of `step`.
    fn whole(bytes: &[u8], step: usize) -> Result<Option<usize>, ChunkFault> {
        let (mut scanner, mut taken) = (ChunkScanner::default(), 0);
        for piece in bytes.chunks(step) {
            taken += scanner.scan(piece)?;
        }
        Ok(scanner.is_done().then_some(taken))
    }

    #[test]
    fn good_bodies_end_where_they_end() {
        for (body, rest) in [
            (&b"0\r\n\r\n"[..], &b""[..]),
            (b"3\r\nabc\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n"),
            (b"00000000000000A;x=\"y\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n", b"junk"),
            (b"3;a=\"b;\\\"c\"\r\nabc\r\n0\r\nHosts: 1\r\nTransfer-Encodings: x\r\n\r\n", b"0"),
        ] {
            let bytes = [body, rest].concat();
            for step in [1, 2, 7, bytes.len()] {
                assert_eq!(whole(&bytes, step), Ok(Some(body.len())), "{step}");
            }
        }
    }

    #[test]
    fn tricks_are_refused() {
        for bad in [
            &b"0x3\r\nabc\r\n"[..],
            b"+3\r\nabc\r\n",
            b" 3\r\nabc\r\n",
            b"3 \r\nabc\r\n",
            b"3_0\r\n",
            b"\r\nabc",
            b"3\nabc\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"10000000000000000\r\n",
            b"3;a\0b\r\nabc\r\n",
            b"3;a\nb\r\nabc\r\n",
            b"0\r\n\n",
            b"0\r\nX: a\n\r\n",
            b"0\r\n: a\r\n\r\n",
            b"0\r\nnocolon\r\n\r\n",
            b"0\r\nX: a\rb\r\n\r\n",
            b"0\r\nX : a\r\n\r\n",
            b"0\r\nX(y): a\r\n\r\n",
            b"0\r\n a: b\r\n\r\n",
            b"0\r\nHost: a\r\n\r\n",
            b"0\r\nX: a\r\nContent-LENGTH: 1\r\n\r\n",
            b"0\r\ntransfer-encoding: chunked\r\n\r\n",
            b"3;a=\"\r\nabc\r\n0\r\n\r\n",
            b"3;a=\"\\\"\r\nabc\r\n0\r\n\r\n",
        ] {
            for step in [1, 3, bad.len()] {
                assert!(whole(bad, step).is_err(), "{:?} in {step}", String::from_utf8_lossy(bad));
            }
        }
        assert!(whole(&[b"3;", &[b'x'; 300][..]].concat(), 64).is_err());
        assert!(whole(&[b"0\r\nX: ", &[b'x'; 9000][..]].concat(), 64).is_err());
    }

    proptest! {
        #[test]
        fn any_chunking_of_any_data_is_followed(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6), step in 1_usize..20,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let length = body.len();
            body.extend_from_slice(b"0\r\n\r\nGET");
            prop_assert_eq!(whole(&body, step), Ok(Some(length)));
        }

        #[test]
        fn any_bytes_end_in_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..400), step in 1_usize..20) {
            prop_assert_eq!(whole(&bytes, step).is_err(), whole(&bytes, 1).is_err());
        }
    }
}
