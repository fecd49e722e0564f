//! Reads one HTTP/1.1 response out of a buffer: status, framing, body length. Bounded and strict.
//!
//! A generator needs no header map; it needs to know that the answer is whole, of the right length and
//! followed by nothing. What it does not understand is an error, never a guess.

use thiserror::Error;

/// Longest response head read, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest body read, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
const HEADERS_MAX: usize = 100;
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// One whole response at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Response {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Bytes of the decoded body.
    pub body_bytes: usize,
    /// Bytes of the buffer the response takes.
    pub used_bytes: usize,
    /// The peer closes the connection after it.
    pub close: bool,
}

/// Why bytes are not a response we accept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ResponseError {
    #[error("response head exceeds {HEAD_BYTES_MAX} bytes or {HEADERS_MAX} headers")]
    HeadTooLarge,
    #[error("malformed status line")]
    StatusLine,
    #[error("malformed header line")]
    HeaderLine,
    #[error("interim status {0} is not expected")]
    Interim(u16),
    #[error("response framing is ambiguous or unknown")]
    Framing,
    #[error("body exceeds {BODY_BYTES_MAX} bytes")]
    BodyTooLarge,
    #[error("malformed chunk")]
    Chunk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

/// Parses the response at the start of `buffer`; `Ok(None)` when more bytes are needed. The decoded body
/// is appended to `body` when given.
pub(crate) fn parse(buffer: &[u8], body: Option<&mut Vec<u8>>) -> Result<Option<Response>, ResponseError> {
    let Some(head_bytes) = head_end(&buffer[..buffer.len().min(HEAD_BYTES_MAX)]) else {
        return if buffer.len() >= HEAD_BYTES_MAX { Err(ResponseError::HeadTooLarge) } else { Ok(None) };
    };
    let (status, framing, close) = head(&buffer[..head_bytes - 4])?;
    let rest = &buffer[head_bytes..];
    let found = match framing {
        Framing::Length(length) => rest.get(..length).map(|bytes| {
            if let Some(body) = body {
                body.extend_from_slice(bytes);
            }
            (length, length)
        }),
        Framing::Chunked => chunked(rest, body)?,
    };
    Ok(found.map(|(body_bytes, taken)| Response {
        status,
        body_bytes,
        used_bytes: head_bytes + taken,
        close,
    }))
}

/// Index just after the empty line that ends a head.
pub(crate) fn head_end(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn head(head: &[u8]) -> Result<(u16, Framing, bool), ResponseError> {
    let mut lines = Lines { rest: Some(head) };
    let (status, mut close) = status_line(lines.next().unwrap_or_default())?;
    if status < 200 {
        return Err(ResponseError::Interim(status));
    }
    let (mut length, mut chunked) = (None, false);
    for (index, line) in lines.enumerate() {
        if index >= HEADERS_MAX {
            return Err(ResponseError::HeadTooLarge);
        }
        let (name, value) = header(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.replace(content_length(value)?).is_some() {
                return Err(ResponseError::Framing);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(ResponseError::Framing);
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            close |= value.split(|&b| b == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"));
        }
    }
    let framing = match (length, chunked) {
        (None, false) if status == 204 || status == 304 => Framing::Length(0),
        (Some(length), false) => Framing::Length(length),
        (None, true) => Framing::Chunked,
        _ => return Err(ResponseError::Framing),
    };
    Ok((status, framing, close))
}

struct Lines<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let (line, after) = match rest.windows(2).position(|two| two == b"\r\n") {
            Some(at) => (&rest[..at], Some(&rest[at + 2..])),
            None => (rest, None),
        };
        self.rest = after;
        Some(line)
    }
}

fn status_line(line: &[u8]) -> Result<(u16, bool), ResponseError> {
    let close = match line.get(..9) {
        Some(b"HTTP/1.1 ") => false,
        Some(b"HTTP/1.0 ") => true,
        _ => return Err(ResponseError::StatusLine),
    };
    match line[9..] {
        [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', ref rest @ ..]
            if rest.is_empty() || rest[0] == b' ' =>
        {
            let digit = |byte: u8| u16::from(byte - b'0');
            Ok((digit(a) * 100 + digit(b) * 10 + digit(c), close))
        }
        _ => Err(ResponseError::StatusLine),
    }
}

fn header(line: &[u8]) -> Result<(&[u8], &[u8]), ResponseError> {
    let colon = line.iter().position(|&b| b == b':').ok_or(ResponseError::HeaderLine)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let clean = |bytes: &[u8]| !bytes.iter().any(|&b| matches!(b, b'\r' | b'\n' | 0));
    if name.is_empty() || name.iter().any(|&b| b <= b' ' || b == 127) || !clean(value) {
        return Err(ResponseError::HeaderLine);
    }
    Ok((name, value.trim_ascii()))
}

fn content_length(value: &[u8]) -> Result<usize, ResponseError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(ResponseError::Framing);
    }
    let digits = std::str::from_utf8(value).map_err(|_| ResponseError::Framing)?;
    match digits.parse::<usize>() {
        Ok(length) if length <= BODY_BYTES_MAX => Ok(length),
        _ => Err(ResponseError::BodyTooLarge),
    }
}

/// Decodes a chunked body: (body bytes, buffer bytes taken), `None` when it is not whole yet.
fn chunked(rest: &[u8], mut body: Option<&mut Vec<u8>>) -> Result<Option<(usize, usize)>, ResponseError> {
    let (mut at, mut total) = (0, 0);
    loop {
        let Some(line) = line(&rest[at..])? else { return Ok(None) };
        at += line.len() + 2;
        let size = chunk_size(line)?;
        total += size;
        if total > BODY_BYTES_MAX {
            return Err(ResponseError::BodyTooLarge);
        }
        if size == 0 {
            return Ok(trailers(&rest[at..])?.map(|taken| (total, at + taken)));
        }
        let Some(bytes) = rest.get(at..at + size + 2) else { return Ok(None) };
        if &bytes[size..] != b"\r\n" {
            return Err(ResponseError::Chunk);
        }
        if let Some(body) = body.as_deref_mut() {
            body.extend_from_slice(&bytes[..size]);
        }
        at += size + 2;
    }
}

fn chunk_size(line: &[u8]) -> Result<usize, ResponseError> {
    let digits = line.split(|&b| b == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(ResponseError::Chunk);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| ResponseError::Chunk)?;
    usize::from_str_radix(digits, 16).map_err(|_| ResponseError::Chunk)
}

fn trailers(rest: &[u8]) -> Result<Option<usize>, ResponseError> {
    let mut at = 0;
    for _ in 0..HEADERS_MAX {
        let Some(line) = line(&rest[at..])? else { return Ok(None) };
        at += line.len() + 2;
        if line.is_empty() {
            return Ok(Some(at));
        }
        header(line)?;
    }
    Err(ResponseError::HeadTooLarge)
}

fn line(rest: &[u8]) -> Result<Option<&[u8]>, ResponseError> {
    let near = &rest[..rest.len().min(CHUNK_LINE_BYTES_MAX)];
    match near.windows(2).position(|two| two == b"\r\n") {
        Some(at) => Ok(Some(&near[..at])),
        None if rest.len() >= CHUNK_LINE_BYTES_MAX => Err(ResponseError::Chunk),
        None => Ok(None),
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
