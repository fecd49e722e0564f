//! Waiting for a request head, and judging it before Pingora sees a byte of it.
//!
//! Deadlines: the first byte of a connection within `header_timeout`, of a later request within
//! `idle_timeout`; from the first byte on the whole head within `header_timeout`, however it drips. A
//! connection that sent nothing is closed silently, one that stopped inside a head gets 408.
//! LIMIT: `header_bytes` for the head, `uri_bytes` for its target, `header_count` fields.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;
use sluice_policy::framing::{self, FramingFault, Head};
use sluice_policy::method::MethodSet;
use sluice_policy::path::{normalise, origin_form};
use sluice_policy::route::host_name;
use sluice_schema::Limits;
use sluice_wire::code::Code;
use tokio::time::Instant;

use crate::clock;
use crate::conn::Protocol;
use crate::ctx::Arrival;
use crate::respond::Answer;
use crate::stream::Downstream;

/// Room for the fields of most heads, and for what the edge adds.
const FIELDS: usize = 16;

/// What became of the wait.
pub(crate) enum Next {
    /// A request, and its fields where they can be kept.
    Request(Box<Arrival>, Option<HeaderMap>),
    /// The client speaks HTTP/2; its preface is still in the buffer.
    Http2,
    /// Nothing more comes, or nothing came in time.
    Closed,
    /// A head that is refused.
    Refused(Refusal),
}

/// Why a head is refused; the connection closes.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The code of the answer.
    pub(crate) code: Code,
    /// A fixed word for log and metric.
    pub(crate) reason: &'static str,
    /// When its first byte came.
    pub(crate) started: Instant,
}

impl Refusal {
    /// What the client is told.
    pub(crate) fn answer(&self) -> Answer {
        if self.code == Code::MethodNotAllowed {
            return Answer::wrong_method(MethodSet::EVERYWHERE);
        }
        Answer::refuse(self.code, format!("the request is not acceptable: {}", self.reason))
    }
}

/// The next request on a connection. `first`: no request came on it yet.
pub(crate) async fn next(stream: &mut Downstream, limits: &Limits, first: bool) -> Next {
    let wait = if first { limits.header_timeout } else { limits.idle_timeout };
    let mut started = (!stream.buffered().is_empty()).then(Instant::now);
    let mut silent_until = started.is_none().then(|| Instant::now() + wait);
    let mut scanned = 0;
    let limit = limits.header_bytes as usize + 4;
    loop {
        match preface(stream.buffered()) {
            Preface::Whole if first => return Next::Http2,
            Preface::Begun if first => {}
            _ => {
                if let Some(end) = find_end(stream.buffered(), scanned) {
                    let begun = started.unwrap_or_else(Instant::now);
                    return match accept(stream, limits, end, begun) {
                        Ok((arrival, fields)) => Next::Request(Box::new(arrival), fields),
                        Err((code, reason)) => Next::Refused(Refusal { code, reason, started: begun }),
                    };
                }
            }
        }
        scanned = stream.buffered().len();
        if let Some(fault) = overflow(stream.buffered(), limits) {
            let begun = started.unwrap_or_else(Instant::now);
            return Next::Refused(Refusal { code: fault.code, reason: fault.reason, started: begun });
        }
        let deadline = match (silent_until, started) {
            (Some(until), _) => until,
            (None, Some(at)) => at + limits.header_timeout,
            (None, None) => Instant::now() + limits.header_timeout,
        };
        match poll_fn(|cx| stream.poll_fill(cx, limit, Some(deadline))).await {
            Ok(0) => return Next::Closed,
            Ok(_) => {
                started.get_or_insert_with(Instant::now);
                silent_until = None;
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                return match started {
                    None => Next::Closed,
                    Some(started) => {
                        Next::Refused(Refusal { code: Code::RequestTimeout, reason: "head_timeout", started })
                    }
                };
            }
            Err(_) => return Next::Closed,
        }
    }
}

/// How far the bytes are HTTP/2's greeting (RFC 9113 section 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preface {
    /// They are not.
    No,
    /// So far.
    Begun,
    /// All of it.
    Whole,
}

/// Looks for the greeting. It reads like a head of HTTP/1, so it is looked for first.
fn preface(bytes: &[u8]) -> Preface {
    const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    match bytes.len().min(GREETING.len()) {
        0 => Preface::No,
        seen if bytes[..seen] != GREETING[..seen] => Preface::No,
        seen if seen < GREETING.len() => Preface::Begun,
        _ => Preface::Whole,
    }
}

/// Length of the head: everything to the first empty line, whose line ends may be wrong ones: the
/// judgement says so.
fn find_end(bytes: &[u8], scanned: usize) -> Option<usize> {
    // An empty line before the request line is none that ends a head.
    let lead = usize::from(bytes.starts_with(b"\r\n")) * 2;
    if lead > 0 && bytes[lead..].starts_with(b"\r\n") {
        return Some(lead + 2);
    }
    let mut at = scanned.saturating_sub(3).max(lead);
    while let Some(lf) = memchr(b'\n', bytes.get(at..)?) {
        at += lf + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// The fault of a head that is too large before it ends.
fn overflow(bytes: &[u8], limits: &Limits) -> Option<FramingFault> {
    if (bytes.len() as u64) <= limits.header_bytes {
        return None;
    }
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    // Method, spaces and version are short: a longer line is a longer target.
    if line as u64 > limits.uri_bytes + 64 {
        return Some(FramingFault { code: Code::UriTooLong, reason: "target_too_long" });
    }
    Some(FramingFault { code: Code::HeaderTooLarge, reason: "head_too_large" })
}

fn accept(
    stream: &mut Downstream,
    limits: &Limits,
    end: usize,
    started: Instant,
) -> Result<(Arrival, Option<HeaderMap>), (Code, &'static str)> {
    let lead = usize::from(stream.buffered().starts_with(b"\r\n")) * 2;
    stream.skip(lead);
    let bytes = end - lead;
    // The fields' values are parts of this copy.
    let raw = Bytes::copy_from_slice(&stream.buffered()[..bytes]);
    let mut fields = Some(HeaderMap::with_capacity(FIELDS));
    let head = framing::read(&raw, limits, |name, value| keep(&raw, &mut fields, name, value))
        .map_err(|fault| (fault.code, fault.reason))?;
    let (path, query, host) = resolve(&head)?;
    let protocol = if head.http_1_0 { Protocol::Http10 } else { Protocol::Http11 };
    let (method, body, websocket) = (head.method, head.body, head.websocket);
    stream.begin(bytes, body).map_err(|_| (Code::BadFraming, "chunk"))?;
    let (headed, arrived) = clock::look();
    let arrival = Arrival {
        conn: Arc::clone(stream.conn()),
        started,
        headed,
        arrived,
        method,
        path,
        query,
        host,
        protocol,
        body,
        websocket,
        link: stream.link().clone(),
        route: None,
    };
    Ok((arrival, fields))
}

/// Keeps a field that was judged; all of them are given up where one cannot be.
fn keep(raw: &Bytes, fields: &mut Option<HeaderMap>, name: &[u8], value: &[u8]) {
    let field =
        HeaderName::from_bytes(name).ok().zip(HeaderValue::from_maybe_shared(raw.slice_ref(value)).ok());
    let kept = match (fields.as_mut(), field) {
        (Some(fields), Some((name, value))) => fields.try_append(name, value).is_ok(),
        _ => false,
    };
    if !kept {
        *fields = None;
    }
}

/// Path, query and host name of a judged head: what it is routed by.
pub(crate) fn resolve(head: &Head<'_>) -> Result<(String, Option<String>, String), (Code, &'static str)> {
    let target = origin_form(head.target).unwrap_or(head.target);
    // `OPTIONS *` asks about the edge itself; no other path begins like that.
    let (path, query) = match target {
        b"*" => ("*".to_owned(), None),
        _ => normalise(target).map_err(|fault| (Code::BadPath, fault.reason()))?.into_parts(),
    };
    // What the framework's own parser would refuse is refused here, with a body and a log line.
    let odd = |byte: &u8| matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}');
    if target.iter().any(odd) && PathAndQuery::try_from(target).is_err() {
        return Err((Code::BadPath, "target_character"));
    }
    // One form of a name that may be written in any case and with the root's dot.
    let host = host_name(std::str::from_utf8(head.host).unwrap_or_default()).to_ascii_lowercase();
    Ok((path, query, host.strip_suffix('.').map(str::to_owned).unwrap_or(host)))
}

/// Resolves as soon as `future` does or `ended` does; `None` in the latter case.
pub(crate) async fn unless<T>(
    mut ended: std::pin::Pin<&mut (impl Future<Output = ()> + ?Sized)>,
    future: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        ended.as_mut().poll(cx).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_first_empty_line() {
        for (bytes, end) in [
            (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest"[..], Some(27)),
            (b"GET / HTTP/1.1\nHost: x\n\nrest", Some(24)),
            (b"\r\nGET / HTTP/1.1\r\n\r\n", Some(20)),
            (b"\r\n\r\n", Some(4)),
            (b"GET / HTTP/1.1\r\nHost: x\r\n", None),
            (b"", None),
        ] {
            assert_eq!(find_end(bytes, 0), end, "{:?}", String::from_utf8_lossy(bytes));
            for scanned in 0..bytes.len() {
                let seen_before = find_end(&bytes[..scanned], 0).is_some();
                assert!(seen_before || find_end(bytes, scanned) == end, "{scanned}");
            }
        }
    }

    #[test]
    fn a_long_target_is_told_from_a_long_head() {
        let limits = Limits::default();
        let long = |bytes: usize| vec![b'a'; bytes];
        let head = [b"GET /", &long(40_000)[..]].concat();
        assert_eq!(overflow(&head, &limits).unwrap().code, Code::UriTooLong);
        let head = [b"GET / HTTP/1.1\r\nX: ", &long(40_000)[..]].concat();
        assert_eq!(overflow(&head, &limits).unwrap().code, Code::HeaderTooLarge);
        assert_eq!(overflow(b"GET / HTTP/1.1\r\n", &limits), None);
    }
}
