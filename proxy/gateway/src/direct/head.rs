//! Heads of HTTP/1.1 as they are read and written here: names in lower case, fields in their order.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use jiff::fmt::rfc2822::DateTimePrinter;
use pingora::{Error, ErrorType, Result};
use sluice_policy::headers::may_be_nominated;

use crate::clock;
use crate::digits::push_number;
use crate::fields::{Fields, List};
use crate::headers::connection_names;

/// LIMIT: fields of an upstream's head.
const ANSWER_FIELDS: usize = 256;
/// Room for the fields that the edge adds.
const ADDED_FIELDS: usize = 12;

/// Removes the fields that a client's `Connection` names, and that it may name.
pub(super) fn drop_nominated(fields: &mut HeaderMap) {
    if !fields.contains_key(CONNECTION) {
        return;
    }
    for name in connection_names(fields) {
        if may_be_nominated(name.as_str()) {
            fields.remove(&name);
        }
    }
}

/// The fields of a try, as the client sent them, with room for the edge's own.
pub(super) fn fields_of_try(asked: &HeaderMap) -> List<'_> {
    List::of(asked, ADDED_FIELDS)
}

/// The bytes of a request's head.
pub(super) fn request_bytes(
    method: &str,
    path: &str,
    query: Option<&str>,
    fields: &List<'_>,
    out: &mut Vec<u8>,
) {
    for part in [method, " ", path] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    field_bytes(fields, out);
}

/// Fields that have no place in HTTP/2.
const OF_THE_CONNECTION: [&str; 5] =
    ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"];

/// An answer's head.
#[derive(Debug)]
pub(crate) struct Head {
    /// Its status.
    pub(crate) status: StatusCode,
    /// The version it came in.
    pub(super) version: Version,
    /// Its fields.
    pub(super) fields: List<'static>,
}

impl Head {
    /// The fields as HTTP/2 has them: none of the connection, and no date but the edge's own.
    pub(crate) fn plain_fields(&self) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(self.fields.each().count() + 1);
        for (name, value) in self.fields.each() {
            if !OF_THE_CONNECTION.contains(&name.as_str()) && *name != DATE {
                fields.append(name.clone(), value.clone());
            }
        }
        fields
    }
}

/// An upstream's head as it came.
pub(super) struct Came {
    /// The head.
    pub(super) head: Head,
    /// Its length.
    pub(super) bytes: usize,
    /// Whether the connection stays open behind it.
    pub(super) stays: bool,
}

/// Reads an upstream's head; `None` until it is whole.
pub(super) fn read_answer(bytes: &[u8]) -> Result<Option<Came>> {
    let mut room = [const { MaybeUninit::uninit() }; ANSWER_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let mut reader = httparse::ParserConfig::default();
    reader.allow_spaces_after_header_name_in_responses(true);
    let length = match reader.parse_response_with_uninit_headers(&mut parsed, bytes, &mut room) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(invalid()),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or_else(invalid)?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let own = Bytes::copy_from_slice(&bytes[..length]);
    let mut fields = List::with_capacity(parsed.headers.len() + ADDED_FIELDS);
    // Parsed from the same bytes; the values are found again in the copy.
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| invalid())?;
        let start = field.value.as_ptr().addr() - bytes.as_ptr().addr();
        let value = own.slice(start..start + field.value.len());
        fields.push(name, HeaderValue::from_maybe_shared(value).map_err(|_| invalid())?);
    }
    // A length beside chunks: whoever wrote it may end the body elsewhere (RFC 9112 section 6.3).
    let twice_framed = fields.has(&TRANSFER_ENCODING) && fields.has(&CONTENT_LENGTH);
    let stays = version == Version::HTTP_11 && !twice_framed && !says_close(&fields);
    Ok(Some(Came { head: Head { status, version, fields }, bytes: length, stays }))
}

/// Whether a head says that its connection closes.
pub(super) fn says_close(fields: &impl Fields) -> bool {
    fields.has(&CONNECTION) && connection_names(fields).iter().any(|name| name == "close")
}

/// The bytes of an interim head, for a client.
pub(super) fn interim_bytes(head: &Head, out: &mut Vec<u8>) {
    status_bytes(head.status, out);
    field_bytes(&head.fields, out);
}

/// The bytes of a final head, for a client. `chunked`: that is how its body ends.
pub(super) fn answer_bytes(head: &Head, chunked: bool, stays: bool, out: &mut Vec<u8>) {
    status_bytes(head.status, out);
    for (name, value) in head.fields.each() {
        if *name != DATE && *name != TRANSFER_ENCODING && !(chunked && *name == CONTENT_LENGTH) {
            one_field(name.as_str(), value.as_bytes(), out);
        }
    }
    if chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    date_bytes(out);
    out.extend_from_slice(if stays {
        b"connection: keep-alive\r\n\r\n"
    } else {
        b"connection: close\r\n\r\n"
    });
}

/// The line before all fields.
fn status_bytes(status: StatusCode, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_number(out, u64::from(status.as_u16()));
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The moment of the answer; formatted once a second and thread.
fn date_bytes(out: &mut Vec<u8>) {
    thread_local! {
        static DATE_FIELD: RefCell<(i64, Vec<u8>)> = const { RefCell::new((i64::MIN, Vec::new())) };
    }
    let now = clock::timestamp();
    DATE_FIELD.with_borrow_mut(|(second, field)| {
        if *second != now.as_second()
            && let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&now)
        {
            *second = now.as_second();
            field.clear();
            one_field("date", date.as_bytes(), field);
        }
        out.extend_from_slice(field);
    });
}

fn field_bytes(fields: &List<'_>, out: &mut Vec<u8>) {
    for (name, value) in fields.each() {
        one_field(name.as_str(), value.as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
}

fn one_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// An upstream whose bytes are not HTTP.
#[allow(clippy::unnecessary_box_returns, reason = "the framework's errors are boxed")]
pub(super) fn invalid() -> Box<Error> {
    Error::new_up(ErrorType::InvalidHTTPHeader)
}
