//! Heads of HTTP/1.1 as they are read and written here: names in lower case, one header map each.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::date::get_cached_date;
use pingora::{Error, ErrorType, Result};
use sluice_policy::headers::may_be_nominated;

use crate::headers::connection_names;

/// LIMIT: fields of an upstream's head.
const ANSWER_FIELDS: usize = 256;

/// Reads a client's head, whose framing was judged before.
pub(super) fn read_request(bytes: &[u8], fields_max: usize) -> Option<RequestHeader> {
    let bytes = Bytes::copy_from_slice(bytes);
    let mut fields = vec![httparse::EMPTY_HEADER; fields_max];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(&bytes).ok()?.is_complete().then_some(())?;
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    parts.uri = Uri::from_static("/");
    parts.headers = fields_of(&bytes, parsed.headers)?;
    Some(parts.into())
}

/// The fields with their values as parts of the head's bytes.
fn fields_of(head: &Bytes, fields: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(fields.len() + 12);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).ok()?;
        map.append(name, value);
    }
    Some(map)
}

/// Removes the fields that a client's `Connection` names, and that it may name.
pub(super) fn drop_nominated(head: &mut RequestHeader) {
    if !head.headers.contains_key(CONNECTION) {
        return;
    }
    for name in connection_names(&head.headers) {
        if may_be_nominated(name.as_str()) {
            head.remove_header(&name);
        }
    }
}

/// The bytes of a request's head.
pub(super) fn request_bytes(head: &RequestHeader, out: &mut Vec<u8>) {
    for part in [head.method.as_str().as_bytes(), b" ", head.raw_path(), b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    field_bytes(&head.headers, out);
}

/// An upstream's head as it came.
pub(super) struct Came {
    /// The head.
    pub(super) head: ResponseHeader,
    /// Its length.
    pub(super) bytes: usize,
    /// Whether the connection stays open behind it.
    pub(super) stays: bool,
}

/// Reads an upstream's head; `None` until it is whole.
pub(super) fn read_answer(bytes: &[u8]) -> Result<Option<Came>> {
    let mut fields = [httparse::EMPTY_HEADER; ANSWER_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let mut reader = httparse::ParserConfig::default();
    reader.allow_spaces_after_header_name_in_responses(true);
    let length = match reader.parse_response(&mut parsed, bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(invalid()),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or_else(invalid)?;
    let own = Bytes::copy_from_slice(&bytes[..length]);
    // Parsed from the same bytes; the values are found again in the copy.
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = status;
    parts.version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = HeaderMap::with_capacity(parsed.headers.len() + 12);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| invalid())?;
        let start = field.value.as_ptr().addr() - bytes.as_ptr().addr();
        let value = own.slice(start..start + field.value.len());
        parts.headers.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| invalid())?);
    }
    let stays = parts.version == Version::HTTP_11 && !says_close(&parts.headers);
    Ok(Some(Came { head: parts.into(), bytes: length, stays }))
}

/// Whether a head says that its connection closes.
pub(super) fn says_close(headers: &HeaderMap) -> bool {
    headers.contains_key(CONNECTION) && connection_names(headers).iter().any(|name| name == "close")
}

/// The bytes of an interim head, for a client.
pub(super) fn interim_bytes(head: &ResponseHeader, out: &mut Vec<u8>) {
    status_bytes(head.status, out);
    field_bytes(&head.headers, out);
}

/// The bytes of a final head, for a client. `chunked`: that is how its body ends.
pub(super) fn answer_bytes(head: &ResponseHeader, chunked: bool, stays: bool, out: &mut Vec<u8>) {
    status_bytes(head.status, out);
    for (name, value) in &head.headers {
        if *name != DATE && *name != TRANSFER_ENCODING && !(chunked && *name == CONTENT_LENGTH) {
            one_field(name.as_str(), value.as_bytes(), out);
        }
    }
    if chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    one_field("date", get_cached_date().as_bytes(), out);
    out.extend_from_slice(if stays {
        b"connection: keep-alive\r\n\r\n"
    } else {
        b"connection: close\r\n\r\n"
    });
}

/// The line before all fields.
fn status_bytes(status: StatusCode, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn field_bytes(headers: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in headers {
        one_field(name.as_str(), value.as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
}

fn one_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// An upstream whose bytes are not HTTP.
#[allow(clippy::unnecessary_box_returns, reason = "the framework's errors are boxed")]
pub(super) fn invalid() -> Box<Error> {
    Error::new_up(ErrorType::InvalidHTTPHeader)
}
