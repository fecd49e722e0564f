//! One reading of a request path.
//!
//! Purpose: edge, route table, authorization and upstream must never disagree about which resource a
//! path names. [`normalise`] returns the one form that is routed, authorised and forwarded.
//!
//! Exact rules, on the bytes before the first `?`:
//! - Refused: anything that does not start with `/`; raw control bytes, space, `#`, backslash, bytes
//!   above 0x7e; `%` without two hexadecimal digits; `%2f`, `%5c`, `%00` and every other encoded
//!   control byte; encoded bytes that are not UTF-8 (overlong forms too); a dot segment that would
//!   climb above the root, however it is written; a segment with `;` that holds `..` or has nothing
//!   but dots before the `;` (some upstreams cut such parameters off and see a dot segment).
//! - Encoded unreserved characters (`A-Za-z0-9-._~`) are decoded, once: `%2e%2e` is a dot segment,
//!   `%252e` stays `%252e`. Every other triplet stays, in upper case, so that no reserved character
//!   gains or loses its meaning. Raw characters outside of RFC 3986's path set are encoded.
//! - Empty segments vanish as they are met, then `.` and `..` are resolved: `/a//../b` is `/b`.
//!   A trailing slash stays.
//!
//! The result is a fixed point: normalising it again changes nothing.
//! The query is kept apart and checked for raw bytes only; its triplets belong to the upstream.
//! Cost: a path already in this form is borrowed after one scan; any other allocates once.

use std::borrow::Cow;

use thiserror::Error;

/// A request target in the one form that everything after this sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised<'a> {
    path: Cow<'a, str>,
    query: Option<&'a str>,
}

/// Why a request target is refused; the answer is 400 `bad_path` and the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum PathFault {
    /// Neither `/…` nor anything else that names a resource here.
    #[error("request target does not start with `/`")]
    NotOriginForm,
    /// A raw byte below 0x20 or 0x7f.
    #[error("control byte in the request target")]
    Control,
    /// A raw byte above 0x7f.
    #[error("byte above 0x7f in the request target")]
    EightBit,
    /// A raw space.
    #[error("space in the request target")]
    Space,
    /// A raw `#`.
    #[error("`#` in the request target")]
    Fragment,
    /// A raw backslash.
    #[error("backslash in the request target")]
    Backslash,
    /// `%` without two hexadecimal digits.
    #[error("invalid percent-encoding")]
    Percent,
    /// `%2f`.
    #[error("encoded slash")]
    EncodedSlash,
    /// `%5c`.
    #[error("encoded backslash")]
    EncodedBackslash,
    /// `%00`.
    #[error("encoded NUL")]
    EncodedNul,
    /// Any other encoded control byte.
    #[error("encoded control byte")]
    EncodedControl,
    /// Encoded bytes that are not UTF-8.
    #[error("encoded bytes are not UTF-8")]
    NotUtf8,
    /// A path parameter that hides a dot segment.
    #[error("path parameter with dots")]
    DotParameter,
    /// More `..` than segments before them.
    #[error("path climbs above the root")]
    AboveRoot,
}

impl Normalised<'_> {
    /// The path: starts with `/`, no empty and no dot segment but a trailing slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What follows the first `?`, as it was sent.
    pub fn query(&self) -> Option<&str> {
        self.query
    }

    /// True where the path differs from the one sent.
    pub fn is_rewritten(&self) -> bool {
        matches!(self.path, Cow::Owned(_))
    }

    /// Path and query as a request target. Allocates.
    pub fn target(&self) -> String {
        target(&self.path, self.query)
    }

    /// Free of the borrowed request line. Allocates.
    pub fn into_parts(self) -> (String, Option<String>) {
        (self.path.into_owned(), self.query.map(str::to_owned))
    }
}

impl PathFault {
    /// A fixed word for logs and metric labels.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotOriginForm => "not_origin_form",
            Self::Control => "control",
            Self::EightBit => "eight_bit",
            Self::Space => "space",
            Self::Fragment => "fragment",
            Self::Backslash => "backslash",
            Self::Percent => "percent",
            Self::EncodedSlash => "encoded_slash",
            Self::EncodedBackslash => "encoded_backslash",
            Self::EncodedNul => "encoded_nul",
            Self::EncodedControl => "encoded_control",
            Self::NotUtf8 => "not_utf8",
            Self::DotParameter => "dot_parameter",
            Self::AboveRoot => "above_root",
        }
    }
}

/// Brings a request target (`/path?query`) into its one form.
///
/// # Errors
/// [`PathFault`], the first one met.
pub fn normalise(target: &[u8]) -> Result<Normalised<'_>, PathFault> {
    let split = target.iter().position(|byte| *byte == b'?');
    let (path, query) = match split {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    };
    if path.first() != Some(&b'/') {
        return Err(PathFault::NotOriginForm);
    }
    let canonical = scan(path)?;
    let query = query.map(checked_query).transpose()?;
    let path = if canonical { Cow::Borrowed(ascii(path)?) } else { Cow::Owned(rebuild(path)?) };
    Ok(Normalised { path, query })
}

/// Path and query as a request target. Allocates.
pub fn target(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => [path, "?", query].concat(),
        None => path.to_owned(),
    }
}

/// The origin form of an absolute-form target (`http://host/path`), `None` where it is neither.
///
/// RFC 9112 section 3.2.2 obliges a server to accept it; that its authority equals `Host` was
/// checked by [`crate::framing::check`].
pub fn origin_form(target: &[u8]) -> Option<&[u8]> {
    if target.first() == Some(&b'/') {
        return Some(target);
    }
    let rest = [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })?;
    match rest.iter().position(|byte| matches!(byte, b'/' | b'?')) {
        Some(at) if rest[at] == b'/' => Some(&rest[at..]),
        Some(_) => None,
        None => Some(b"/"),
    }
}

/// What a byte of a path is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stands for itself.
    Plain,
    Slash,
    Dot,
    /// `%` and `;`: the path needs a closer look.
    Special,
    /// Outside of RFC 3986's path set but harmless: is encoded.
    Encode,
    Refused,
}

const CLASSES: [Class; 256] = classes();

const fn classes() -> [Class; 256] {
    let mut table = [Class::Refused; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = match byte as u8 {
            b'/' => Class::Slash,
            b'.' => Class::Dot,
            b'%' | b';' => Class::Special,
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Encode,
            b'#' | b'\\' => Class::Refused,
            _ => Class::Plain,
        };
        byte += 1;
    }
    table
}

/// Refuses raw bytes that may never occur; true where the path is in its one form already.
fn scan(path: &[u8]) -> Result<bool, PathFault> {
    let mut canonical = true;
    let mut segment = 1;
    for (at, byte) in path.iter().enumerate().skip(1) {
        match CLASSES[usize::from(*byte)] {
            Class::Plain | Class::Dot => {}
            Class::Slash => {
                canonical &= !vanishes(&path[segment..at]);
                segment = at + 1;
            }
            Class::Special | Class::Encode => canonical = false,
            Class::Refused => return Err(refused(*byte)),
        }
    }
    let last = &path[segment..];
    Ok(canonical && (last.is_empty() || !vanishes(last)))
}

fn vanishes(segment: &[u8]) -> bool {
    matches!(segment, b"" | b"." | b"..")
}

const fn refused(byte: u8) -> PathFault {
    match byte {
        b' ' => PathFault::Space,
        b'#' => PathFault::Fragment,
        b'\\' => PathFault::Backslash,
        0x80.. => PathFault::EightBit,
        _ => PathFault::Control,
    }
}

fn checked_query(query: &[u8]) -> Result<&str, PathFault> {
    match query.iter().find(|byte| CLASSES[usize::from(**byte)] == Class::Refused) {
        Some(byte) => Err(refused(*byte)),
        None => ascii(query),
    }
}

fn ascii(bytes: &[u8]) -> Result<&str, PathFault> {
    std::str::from_utf8(bytes).map_err(|_| PathFault::EightBit)
}

/// Builds the one form, segment by segment.
fn rebuild(path: &[u8]) -> Result<String, PathFault> {
    let mut out = Vec::with_capacity(path.len() + 16);
    let mut segments = path[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let start = out.len();
        out.push(b'/');
        push_segment(segment, &mut out)?;
        match &out[start + 1..] {
            b"" | b"." => out.truncate(start),
            b".." => {
                out.truncate(start);
                let parent = out.iter().rposition(|byte| *byte == b'/').ok_or(PathFault::AboveRoot)?;
                out.truncate(parent);
            }
            kept => {
                check_parameters(kept)?;
                continue;
            }
        }
        if segments.peek().is_none() {
            out.push(b'/');
        }
    }
    String::from_utf8(out).map_err(|_| PathFault::EightBit)
}

/// Appends one segment in its one form. INVARIANT: only ASCII is pushed.
fn push_segment(segment: &[u8], out: &mut Vec<u8>) -> Result<(), PathFault> {
    let mut high = Vec::new();
    let mut at = 0;
    while at < segment.len() {
        let byte = segment[at];
        let (byte, encoded, width) = match byte {
            b'%' => (decode(&segment[at + 1..])?, true, 3),
            raw => (raw, false, 1),
        };
        at += width;
        if byte >= 0x80 {
            high.push(byte);
        } else {
            check_utf8(&mut high)?;
        }
        if is_unreserved(byte) || (!encoded && CLASSES[usize::from(byte)] != Class::Encode) {
            out.push(byte);
        } else {
            push_triplet(byte, out);
        }
    }
    check_utf8(&mut high)
}

/// The byte that two hexadecimal digits stand for, where a path may hold it.
fn decode(digits: &[u8]) -> Result<u8, PathFault> {
    let &[high, low, ..] = digits else { return Err(PathFault::Percent) };
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(PathFault::Percent);
    match (digit(high)? * 16 + digit(low)?) as u8 {
        b'/' => Err(PathFault::EncodedSlash),
        b'\\' => Err(PathFault::EncodedBackslash),
        0 => Err(PathFault::EncodedNul),
        0x01..=0x1f | 0x7f => Err(PathFault::EncodedControl),
        byte => Ok(byte),
    }
}

/// Checks and clears a run of decoded bytes above 0x7f.
fn check_utf8(high: &mut Vec<u8>) -> Result<(), PathFault> {
    std::str::from_utf8(high).map_err(|_| PathFault::NotUtf8)?;
    high.clear();
    Ok(())
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn push_triplet(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Refuses parameters that hide a dot segment, `;` written either way.
fn check_parameters(segment: &[u8]) -> Result<(), PathFault> {
    let semicolon = segment.iter().position(|byte| *byte == b';');
    let encoded = segment.windows(3).position(|triplet| triplet == b"%3B");
    let Some(at) = semicolon.into_iter().chain(encoded).min() else { return Ok(()) };
    let dots_before = at > 0 && segment[..at].iter().all(|byte| *byte == b'.');
    let climbs = segment.windows(2).any(|pair| pair == b"..");
    if dots_before || climbs { Err(PathFault::DotParameter) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
