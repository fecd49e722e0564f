//! The fields of a head: their form, and those that frame the request.

use std::net::{Ipv4Addr, Ipv6Addr};

use sluice_wire::code::Code;

use super::scan::token_end;
use super::{BodyFraming, FramingFault, Line};

/// What has been seen of the fields that frame a request.
#[derive(Default)]
pub(super) struct Seen<'a> {
    pub(super) count: usize,
    host: Once<'a>,
    length: Once<'a>,
    coding: Once<'a>,
    websocket: bool,
    upgrade: bool,
}

/// A field that may occur once.
#[derive(Clone, Copy, Default)]
enum Once<'a> {
    #[default]
    Absent,
    Given(&'a [u8]),
    Twice,
}

impl<'a> Seen<'a> {
    /// Judges one line and remembers it where it frames the request. Name and value of it.
    pub(super) fn field(&mut self, line: Line<'a>) -> Result<(&'a [u8], &'a [u8]), FramingFault> {
        let Line { bytes: line, clean } = line;
        if matches!(line[0], b' ' | b'\t') {
            let reason = if self.count == 1 { "space_before_first_field" } else { "folded_line" };
            return Err(FramingFault::bad(reason));
        }
        let (name, rest) = line.split_at(token_end(line));
        let value = match rest.first() {
            Some(b':') if name.is_empty() => return Err(FramingFault::bad("empty_name")),
            Some(b':') => &rest[1..],
            Some(b' ' | b'\t') if rest.trim_ascii_start().first() == Some(&b':') => {
                return Err(FramingFault::bad("space_before_colon"));
            }
            _ if !rest.contains(&b':') => return Err(FramingFault::bad("no_colon")),
            _ => return Err(FramingFault::bad("name_character")),
        };
        if !clean {
            return Err(FramingFault::bad("control_in_value"));
        }
        let value = trim(value);
        self.remember(name, value)?;
        Ok((name, value))
    }

    /// How the body is framed.
    pub(super) fn body(&self, http_1_0: bool) -> Result<BodyFraming, FramingFault> {
        match (self.coding, self.length) {
            (Once::Twice, _) => Err(FramingFault::bad("transfer_encoding_twice")),
            (_, Once::Twice) => Err(FramingFault::bad("content_length_twice")),
            (Once::Given(_), _) if http_1_0 => Err(FramingFault::bad("transfer_encoding_in_1_0")),
            (Once::Given(_), Once::Given(_)) => Err(FramingFault::bad("length_and_coding")),
            (Once::Given(coding), Once::Absent) => check_coding(coding).map(|()| BodyFraming::Chunked),
            (Once::Absent, Once::Given(length)) => content_length(length).map(BodyFraming::Length),
            (Once::Absent, Once::Absent) => Ok(BodyFraming::None),
        }
    }

    /// Whether there is any `Host`.
    pub(super) const fn has_host(&self) -> bool {
        !matches!(self.host, Once::Absent)
    }

    /// The one valid `Host`.
    pub(super) fn host(&self) -> Result<&'a [u8], FramingFault> {
        let bad = |reason| Err(FramingFault::new(Code::BadHost, reason));
        match self.host {
            Once::Absent => bad("host_missing"),
            Once::Twice => bad("host_twice"),
            Once::Given(host) if authority_is_valid(host) => Ok(host),
            Once::Given(_) => bad("host_invalid"),
        }
    }

    /// Whether `Upgrade` names a WebSocket and `Connection` names `Upgrade`.
    pub(super) fn asks_for_websocket(&self) -> bool {
        self.websocket && self.upgrade
    }

    /// Remembers a field where it frames the request.
    pub(super) fn remember(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), FramingFault> {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is(b"host") => self.host.add(value),
            14 if is(b"content-length") => self.length.add(value),
            17 if is(b"transfer-encoding") => self.coding.add(value),
            7 if is(b"upgrade") => self.websocket |= lists(value, b"websocket"),
            10 if is(b"connection") => self.upgrade |= lists(value, b"upgrade"),
            6 if is(b"expect") && !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(FramingFault::new(Code::ExpectationFailed, "expect"));
            }
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Once<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::Given(value),
            Self::Given(_) | Self::Twice => Self::Twice,
        };
    }
}

/// Whether a list has this member, in any case of letters.
fn lists(value: &[u8], member: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|one| trim(one).eq_ignore_ascii_case(member))
}

/// Exactly one `chunked`. A list of it alone is malformed, any other coding is unknown.
fn check_coding(value: &[u8]) -> Result<(), FramingFault> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let chunked_only = value.split(|byte| *byte == b',').all(|coding| {
        let coding = trim(coding);
        coding.is_empty() || coding.eq_ignore_ascii_case(b"chunked")
    });
    if chunked_only {
        Err(FramingFault::bad("transfer_encoding"))
    } else {
        Err(FramingFault::new(Code::NotImplemented, "transfer_coding_unknown"))
    }
}

/// Nineteen digits always fit into 64 bits.
fn content_length(value: &[u8]) -> Result<u64, FramingFault> {
    if !(1..=19).contains(&value.len()) || !value.iter().all(u8::is_ascii_digit) {
        return Err(FramingFault::bad("content_length"));
    }
    Ok(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// `name`, `name:port`, `1.2.3.4:port`, `[v6]:port`; the name as DNS or a container network writes it.
pub(super) fn authority_is_valid(authority: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(authority) else { return false };
    let (host_valid, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) => (address.parse::<Ipv6Addr>().is_ok(), port),
        Some(None) => return false,
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_host_name(host), port)
        }
    };
    let port_valid = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            (1..=5).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && digits.parse::<u16>().is_ok_and(|port| port > 0)
        });
    host_valid && port_valid
}

fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let all_digits = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (1..=253).contains(&name.len())
        && name.split('.').all(label)
        && (!all_digits || host.parse::<Ipv4Addr>().is_ok())
}

/// Without the spaces and tabs around it; no other white space is a field's.
pub(super) fn trim(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    &value[start..end]
}
