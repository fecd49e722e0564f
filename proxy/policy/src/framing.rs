//! A strict reading of a request head's raw bytes.
//!
//! Purpose: edge and upstream must agree where a request ends and what it is. A parser that repairs
//! (joins two lengths, drops one of two contradicting fields, takes a bare LF for a line end) hides the
//! disagreement; so the bytes are judged before any header map exists. Whatever is refused here is
//! answered and the connection closed; the upstream sees nothing.
//!
//! Exact rules:
//! - Lines end in CRLF; no other CR or LF, no NUL, no control byte but tab in a value. One empty line
//!   before the request line is skipped (RFC 9112 section 2.2). The head ends with an empty line.
//! - Request line: method, one space, target, one space, `HTTP/1.1` or `HTTP/1.0` (any other version
//!   505). Methods: see [`Method::parse`]; TRACE and CONNECT 405, unknown ones 501. The target is
//!   `/…`, `*` for OPTIONS, or `http(s)://authority…` whose authority equals `Host`.
//! - Fields: a token, a colon at once after it, a value. No line without colon, no empty name, no white
//!   space before the first field or the colon, no folded line.
//! - `Host` exactly once, a name or address with an optional port.
//! - `Content-Length` at most once, one to nineteen digits; `Transfer-Encoding` at most once, exactly
//!   `chunked` (any other coding 501), never beside a length, never in HTTP/1.0.
//! - `Expect` is `100-continue` or 417.
//! - Sizes: 414 for the target, 431 for the head and the number of fields.
//!
//! What wins: size before form, form before meaning; in the order of the bytes. Cost: one pass over
//! the head, eight bytes at a time but for names and target; no allocation.

mod field;
mod http2;
mod scan;

use std::fmt;

use sluice_schema::Limits;
use sluice_wire::code::Code;

use crate::method::{Method, MethodFault};
use field::{Seen, authority_is_valid};
use scan::{control_position, token_end};

pub use http2::{Http2Head, Transport, check_http2};

/// A head that is refused; the connection closes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FramingFault {
    /// Machine word and status of the answer.
    pub code: Code,
    /// A fixed word for logs and metric labels.
    pub reason: &'static str,
}

/// What the request line and the fields said, for whoever does not want to read them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The method; LIST is still to be checked by [`Method::is_known_on`] once the path is known.
    pub method: Method,
    /// The request target as it was sent.
    pub target: &'a [u8],
    /// The value of `Host`, checked.
    pub host: &'a [u8],
    /// HTTP/1.0.
    pub http_1_0: bool,
    /// How the body is framed.
    pub body: BodyFraming,
    /// It asks for a WebSocket: a GET of HTTP/1.1 without body, `Upgrade` with `websocket`, `Connection`
    /// with `upgrade`. Any other wish to upgrade is ignored, as RFC 9110 section 7.8 allows.
    pub websocket: bool,
}

/// How the length of a request body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

impl FramingFault {
    pub(crate) const fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason }
    }

    const fn bad(reason: &'static str) -> Self {
        Self::new(Code::BadFraming, reason)
    }

    /// Status of the answer.
    pub const fn status(self) -> u16 {
        self.code.status()
    }
}

impl fmt::Display for FramingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request head refused: {}", self.reason)
    }
}

impl fmt::Debug for FramingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status(), self.reason)
    }
}

impl std::error::Error for FramingFault {}

/// Judges a head: everything from the request line to the empty line that ends it.
///
/// # Errors
/// [`FramingFault`], the first in the order of the bytes.
pub fn check<'a>(head: &'a [u8], limits: &Limits) -> Result<Head<'a>, FramingFault> {
    read(head, limits, |_, _| ())
}

/// The same, and hands out each field as it was judged: its name as sent, its value without the blanks around it.
/// What was handed out counts only where the whole head is accepted.
///
/// # Errors
/// [`FramingFault`], the first in the order of the bytes.
pub fn read<'a>(
    head: &'a [u8],
    limits: &Limits,
    mut field: impl FnMut(&'a [u8], &'a [u8]),
) -> Result<Head<'a>, FramingFault> {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    if head.len() as u64 > limits.header_bytes {
        return Err(FramingFault::new(Code::HeaderTooLarge, "head_too_large"));
    }
    let (line, mut rest) = next_line(head)?;
    let (method, target, http_1_0) = request_line(line.bytes, limits)?;
    let mut seen = Seen::default();
    loop {
        let (line, after) = next_line(rest)?;
        if line.bytes.is_empty() {
            if !after.is_empty() {
                return Err(FramingFault::bad("bytes_after_head"));
            }
            break;
        }
        seen.count += 1;
        if seen.count > limits.header_count {
            return Err(FramingFault::new(Code::HeaderTooLarge, "too_many_fields"));
        }
        let (name, value) = seen.field(line)?;
        field(name, value);
        rest = after;
    }
    let body = seen.body(http_1_0)?;
    let host = seen.host()?;
    check_authority(target, host)?;
    let method = method?;
    let bodiless = matches!(body, BodyFraming::None | BodyFraming::Length(0));
    let websocket = seen.asks_for_websocket() && method == Method::Get && bodiless && !http_1_0;
    Ok(Head { method, target, host, http_1_0, body, websocket })
}

/// One line without its CRLF.
#[derive(Clone, Copy)]
struct Line<'a> {
    bytes: &'a [u8],
    /// No control byte in it but tabs.
    clean: bool,
}

/// Splits off one line at CRLF and refuses stray CR, LF and NUL in it.
fn next_line(bytes: &[u8]) -> Result<(Line<'_>, &[u8]), FramingFault> {
    let (mut from, mut clean) = (0, true);
    while let Some(at) = control_position(&bytes[from..]).map(|at| from + at) {
        match (bytes[at], bytes.get(at + 1)) {
            (b'\r', Some(b'\n')) => return Ok((Line { bytes: &bytes[..at], clean }, &bytes[at + 2..])),
            (b'\r', _) => return Err(FramingFault::bad("bare_cr")),
            (b'\n', _) => return Err(FramingFault::bad("bare_lf")),
            (0, _) => return Err(FramingFault::bad("nul")),
            (b'\t', _) => {}
            _ => clean = false,
        }
        from = at + 1;
    }
    Err(FramingFault::bad("unfinished_head"))
}

type RequestLine<'a> = (Result<Method, FramingFault>, &'a [u8], bool);

/// The method's verdict is kept for later: a malformed head is 400 whatever its method.
fn request_line<'a>(line: &'a [u8], limits: &Limits) -> Result<RequestLine<'a>, FramingFault> {
    let (word, rest) = line.split_at(token_end(line));
    if word.is_empty() {
        return Err(FramingFault::bad("method"));
    }
    let rest = rest.strip_prefix(b" ").ok_or(FramingFault::bad("method"))?;
    let space = rest.iter().rposition(|byte| *byte == b' ').ok_or(FramingFault::bad("request_line"))?;
    let (target, version) = (&rest[..space], &rest[space + 1..]);
    if target.len() as u64 > limits.uri_bytes {
        return Err(FramingFault::new(Code::UriTooLong, "target_too_long"));
    }
    let http_1_0 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(version_fault(version)),
    };
    check_target(word, target)?;
    Ok((method(word), target, http_1_0))
}

fn method(word: &[u8]) -> Result<Method, FramingFault> {
    Method::parse(word).map_err(|fault| match fault {
        MethodFault::Refused => FramingFault::new(Code::MethodNotAllowed, "method_refused"),
        MethodFault::Unknown => FramingFault::new(Code::NotImplemented, "method_unknown"),
    })
}

fn version_fault(version: &[u8]) -> FramingFault {
    match version {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            FramingFault::new(Code::VersionNotSupported, "version")
        }
        _ => FramingFault::bad("request_line"),
    }
}

/// Raw bytes and form of the target; its path is read by [`crate::path`].
fn check_target(method: &[u8], target: &[u8]) -> Result<(), FramingFault> {
    let bad = |reason| Err(FramingFault::new(Code::BadPath, reason));
    for byte in target {
        match byte {
            b' ' => return bad("target_space"),
            b'\\' => return bad("target_backslash"),
            b'#' => return bad("target_fragment"),
            0x80.. => return bad("target_eight_bit"),
            0x00..=0x1f | 0x7f => return bad("target_control"),
            _ => {}
        }
    }
    match target.first() {
        Some(b'/') => Ok(()),
        Some(b'*') if target == b"*" && method == b"OPTIONS" => Ok(()),
        // CONNECT's own form; the method is refused in its turn.
        Some(_) if method == b"CONNECT" || crate::path::origin_form(target).is_some() => Ok(()),
        _ => bad("target_form"),
    }
}

/// An absolute-form target must name the same host as `Host`, to the byte: clients write both from one
/// source, and a reader behind the edge may compare them with or without case.
fn check_authority(target: &[u8], host: &[u8]) -> Result<(), FramingFault> {
    if target.starts_with(b"/") {
        return Ok(());
    }
    let Some(scheme) = target.windows(3).position(|three| three == b"://") else { return Ok(()) };
    let rest = &target[scheme + 3..];
    let authority = rest.split(|byte| *byte == b'/').next().unwrap_or(rest);
    if !authority_is_valid(authority) || authority != host {
        return Err(FramingFault::new(Code::BadHost, "authority_mismatch"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
