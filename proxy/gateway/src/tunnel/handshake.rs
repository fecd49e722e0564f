//! The heads of a WebSocket's opening handshake (RFC 6455 section 4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use sluice_policy::headers::{may_be_nominated, nominated};
use sluice_wire::code::Code;

use crate::headers::connection_names;
use crate::respond::Answer;

/// LIMIT: fields of an upstream's head.
const ANSWER_FIELDS: usize = 256;
/// Appended to the key before it is hashed.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const SWITCH: HeaderValue = HeaderValue::from_static("Upgrade");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Reads a request's head, whose framing was judged before, into the framework's form, and its length.
pub(super) fn read_request(bytes: &[u8], fields_max: usize) -> Option<(RequestHeader, usize)> {
    let mut fields = vec![httparse::EMPTY_HEADER; fields_max];
    let mut parsed = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = parsed.parse(bytes).ok()? else { return None };
    let mut head = RequestHeader::build("GET", b"/", Some(parsed.headers.len() + 8)).ok()?;
    for field in parsed.headers.iter() {
        let value = HeaderValue::from_bytes(field.value).ok()?;
        head.append_header(field.name.to_owned(), value).ok()?;
    }
    Some((head, length))
}

/// Judges what a client's head says about the WebSocket.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Answer> {
    if sole(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let answer = Answer::refuse(Code::UpgradeRequired, "WebSocket version 13 is spoken here")
            .with(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
            .with(CONNECTION, SWITCH)
            .with(UPGRADE, WEBSOCKET);
        return Err(answer);
    }
    let key = sole(headers, &SEC_WEBSOCKET_KEY).and_then(|key| STANDARD.decode(key.as_bytes()).ok());
    if key.is_none_or(|key| key.len() != 16) {
        return Err(Answer::refuse(Code::BadRequest, "Sec-WebSocket-Key must be 16 bytes in base64"));
    }
    Ok(())
}

/// Removes the fields that a client's `Connection` names, and that it may name.
pub(super) fn drop_nominated(head: &mut RequestHeader) {
    for name in connection_names(&head.headers) {
        if may_be_nominated(name.as_str()) {
            head.remove_header(&name);
        }
    }
}

/// The bytes of a request's head that asks for a WebSocket.
pub(super) fn request_bytes(mut head: RequestHeader) -> Result<Vec<u8>> {
    head.insert_header(CONNECTION, SWITCH)?;
    head.insert_header(UPGRADE, WEBSOCKET)?;
    let mut bytes = Vec::with_capacity(1024);
    for part in [b"GET ", head.raw_path(), b" HTTP/1.1\r\n"] {
        bytes.extend_from_slice(part);
    }
    head.header_to_h1_wire(&mut bytes);
    bytes.extend_from_slice(b"\r\n");
    Ok(bytes)
}

/// Reads an upstream's head: the head and its length; `None` until it is whole.
pub(super) fn read_answer(bytes: &[u8]) -> Result<Option<(ResponseHeader, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; ANSWER_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(invalid()),
    };
    let mut head = ResponseHeader::build(parsed.code.unwrap_or(0), Some(parsed.headers.len() + 4))
        .map_err(|_| invalid())?;
    head.set_version(if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 });
    for field in parsed.headers.iter() {
        let value = HeaderValue::from_bytes(field.value).map_err(|_| invalid())?;
        head.append_header(field.name.to_owned(), value).map_err(|_| invalid())?;
    }
    Ok(Some((head, length)))
}

/// Whether a 101 switches to the WebSocket that a client's head asked for.
pub(super) fn switches(answer: &HeaderMap, asked: &HeaderMap) -> bool {
    let accepted = sole(answer, &SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    let expected = sole(asked, &SEC_WEBSOCKET_KEY).map(|key| accept(key.as_bytes()));
    lists(answer, &UPGRADE, "websocket")
        && lists(answer, &CONNECTION, "upgrade")
        && accepted.is_some()
        && accepted == expected.as_deref().map(str::as_bytes)
}

/// The bytes of an answer's head, for a client.
pub(super) fn answer_bytes(mut answer: ResponseHeader) -> Result<Vec<u8>> {
    match answer.status {
        StatusCode::SWITCHING_PROTOCOLS => {
            answer.insert_header(CONNECTION, SWITCH)?;
            answer.insert_header(UPGRADE, WEBSOCKET)?;
        }
        StatusCode::UPGRADE_REQUIRED => {
            answer.insert_header(CONNECTION, HeaderValue::from_static("close, Upgrade"))?;
            answer.insert_header(UPGRADE, WEBSOCKET)?;
        }
        _ => answer.insert_header(CONNECTION, CLOSE)?,
    }
    let reason = answer.status.canonical_reason().unwrap_or("Unknown");
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", answer.status.as_u16()).into_bytes();
    answer.header_to_h1_wire(&mut bytes);
    bytes.extend_from_slice(b"\r\n");
    Ok(bytes)
}

/// An upstream whose bytes are not what was agreed on.
#[allow(clippy::unnecessary_box_returns, reason = "the framework's errors are boxed")]
pub(super) fn invalid() -> Box<Error> {
    Error::new_up(ErrorType::InvalidHTTPHeader)
}

/// The proof that a key was understood.
fn accept(key: &[u8]) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, MAGIC].concat()))
}

/// The value of a field that stands once.
fn sole<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn lists(headers: &HeaderMap, name: &HeaderName, member: &str) -> bool {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| nominated(value).any(|one| one.eq_ignore_ascii_case(member)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::drop_hop_by_hop;

    const ASKED: &[u8] = b"GET /x HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade, X-Foo, foo\r\n\
        Foo: 1\r\nX-Foo: 2\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nmore";

    fn asked() -> RequestHeader {
        read_request(ASKED, 16).unwrap().0
    }

    #[test]
    fn the_accept_of_the_rfc_is_expected() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let answer = |accept: &str, upgrade: &str, connection: &str| {
            let text = format!(
                "HTTP/1.1 101 x\r\nUpgrade: {upgrade}\r\nConnection: {connection}\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            let (head, length) = read_answer(text.as_bytes()).unwrap().unwrap();
            assert_eq!(length, text.len());
            switches(&head.headers, &asked().headers)
        };
        let good = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert!(answer(good, "WebSocket", "keep-alive, Upgrade"));
        assert!(!answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOp=", "websocket", "upgrade"));
        assert!(!answer(good, "h2c", "upgrade"));
        assert!(!answer(good, "websocket", "close"));
    }

    #[test]
    fn key_and_version_are_checked() {
        assert!(check(&asked().headers).is_ok());
        for (name, value, status) in [
            (SEC_WEBSOCKET_KEY, "short", 400),
            (SEC_WEBSOCKET_KEY, "AAAAAAAAAAAAAAAAAAAAAAAA", 400),
            (SEC_WEBSOCKET_VERSION, "8", 426),
        ] {
            let mut head = asked();
            head.insert_header(name, value).unwrap();
            assert_eq!(check(&head.headers).unwrap_err().status, status);
        }
        let mut twice = asked();
        twice.append_header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==").unwrap();
        assert_eq!(check(&twice.headers).unwrap_err().status, 400);
        let mut none = asked();
        none.remove_header(&SEC_WEBSOCKET_VERSION);
        assert_eq!(check(&none.headers).unwrap_err().status, 426);
    }

    #[test]
    fn what_connection_names_is_dropped_unless_it_is_guarded() {
        let mut head = asked();
        drop_nominated(&mut head);
        assert!(!head.headers.contains_key("foo") && head.headers.contains_key("x-foo"));
        let text = String::from_utf8(request_bytes(head).unwrap()).unwrap();
        assert!(text.starts_with("GET / HTTP/1.1\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        let lower = text.to_lowercase();
        assert_eq!(lower.matches("upgrade: websocket\r\n").count(), 1, "{text}");
        assert_eq!(lower.matches("connection: upgrade\r\n").count(), 1, "{text}");
    }

    #[test]
    fn an_answers_head_is_read_when_it_is_whole_and_only_if_it_is_one() {
        assert!(read_answer(b"HTTP/1.1 200 OK\r\nContent-").unwrap().is_none());
        for bad in [&b"SSH-2.0-OpenSSH\r\n\r\n"[..], b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 099 x\r\n\r\n"] {
            assert!(read_answer(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let (mut head, _) = read_answer(
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive, foo\r\nFoo: 1\r\nContent-Length: 3\r\nTrailer: a\r\n\r\nabc",
        )
        .unwrap()
        .unwrap();
        assert_eq!(head.version, Version::HTTP_10);
        drop_hop_by_hop(&mut head, Version::HTTP_10);
        let names: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-length"]);
        assert!(answer_bytes(head).unwrap().starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}
