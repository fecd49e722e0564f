//! A strict reading of an HTTP/2 request head, so that it may become one of HTTP/1.
//!
//! The frame layer has decoded the fields and refused what no header map can hold: upper-case names, control
//! bytes, repeated or misplaced pseudo-header fields, fields of the connection, a `TE` that is not
//! `trailers`. Here the request must mean the same to an upstream that reads it as HTTP/1:
//! - `:scheme` is the connection's own; `:authority` is there, valid, and equal to `Host` where both are;
//!   `:path` is `/…`, or `*` for OPTIONS. Methods as in HTTP/1; no extended CONNECT.
//! - Values have no white space at their ends (RFC 9113 section 8.2.1). `Content-Length` at most once, digits
//!   only, and zero where the stream ends with its head. `Expect` is `100-continue` or 417.
//! - Sizes as in HTTP/1: a field counts its name, its value and four bytes. Cookie crumbs count as one
//!   field, as they become one.

use sluice_schema::Limits;
use sluice_wire::code::Code;

use super::field::{Seen, authority_is_valid, trim};
use super::{BodyFraming, FramingFault, Head, check_target, method};

/// The schemes a connection may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `http`.
    Plain,
    /// `https`.
    Tls,
    /// Either: a trusted proxy ended TLS before it.
    Proxied,
}

/// The pseudo-header fields and the flag of a head.
#[derive(Clone, Copy, Debug)]
pub struct Http2Head<'a> {
    /// `:method`.
    pub method: &'a [u8],
    /// `:scheme`.
    pub scheme: Option<&'a [u8]>,
    /// `:authority`.
    pub authority: Option<&'a [u8]>,
    /// `:path`.
    pub path: &'a [u8],
    /// The stream ends with its head.
    pub ends: bool,
}

/// Judges a head of HTTP/2.
///
/// # Errors
/// [`FramingFault`]: size before form, form before meaning.
pub fn check_http2<'a>(
    head: &Http2Head<'a>,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    transport: Transport,
    limits: &Limits,
) -> Result<Head<'a>, FramingFault> {
    if head.path.len() as u64 > limits.uri_bytes {
        return Err(FramingFault::new(Code::UriTooLong, "target_too_long"));
    }
    let seen = read_fields(head, fields, limits)?;
    // CONNECT has no path and no scheme; the method is refused in its turn.
    let connects = head.method == b"CONNECT";
    if !connects {
        check_target(head.method, head.path)?;
    }
    if !connects && !head.path.starts_with(b"/") && head.path != b"*" {
        return Err(FramingFault::new(Code::BadPath, "target_form"));
    }
    // The library that reads the head knows no scheme without an authority, so this comes first.
    let host = authority(&seen, head.authority)?;
    let scheme = head.scheme.unwrap_or_default();
    let fits = |of: &[u8]| scheme.eq_ignore_ascii_case(of);
    let fitting = match transport {
        Transport::Plain => fits(b"http"),
        Transport::Tls => fits(b"https"),
        Transport::Proxied => fits(b"http") || fits(b"https"),
    };
    if !fitting && !connects {
        return Err(FramingFault::bad("scheme"));
    }
    let body = body(&seen, head.ends)?;
    let method = method(head.method)?;
    Ok(Head { method, target: head.path, host, http_1_0: false, body, websocket: false })
}

fn read_fields<'a>(
    head: &Http2Head<'a>,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    limits: &Limits,
) -> Result<Seen<'a>, FramingFault> {
    let mut seen = Seen::default();
    let mut crumbs = false;
    // The request line and the `Host` that these become.
    let authority = head.authority.map_or(0, <[u8]>::len);
    let mut bytes = head.method.len() + head.path.len() + authority + "  HTTP/1.1\r\nhost: \r\n\r\n".len();
    for (name, value) in fields {
        bytes += name.len() + value.len() + 4;
        if bytes as u64 > limits.header_bytes {
            return Err(FramingFault::new(Code::HeaderTooLarge, "head_too_large"));
        }
        if !(name == "cookie" && std::mem::replace(&mut crumbs, true)) {
            seen.count += 1;
        }
        if seen.count > limits.header_count {
            return Err(FramingFault::new(Code::HeaderTooLarge, "too_many_fields"));
        }
        if value.len() != trim(value).len() {
            return Err(FramingFault::bad("space_around_value"));
        }
        seen.remember(name.as_bytes(), value)?;
    }
    Ok(seen)
}

/// A stream without a told length is a body of chunks to HTTP/1.
fn body(seen: &Seen<'_>, ends: bool) -> Result<BodyFraming, FramingFault> {
    match seen.body(false)? {
        BodyFraming::Chunked => Err(FramingFault::bad("transfer_encoding")),
        BodyFraming::Length(length) if ends && length > 0 => Err(FramingFault::bad("content_length")),
        BodyFraming::None if !ends => Ok(BodyFraming::Chunked),
        told => Ok(told),
    }
}

fn authority<'a>(seen: &Seen<'a>, authority: Option<&'a [u8]>) -> Result<&'a [u8], FramingFault> {
    let bad = |reason| Err(FramingFault::new(Code::BadHost, reason));
    let Some(authority) = authority else { return bad("host_missing") };
    if !authority_is_valid(authority) {
        return bad("host_invalid");
    }
    if seen.has_host() && !seen.host()?.eq_ignore_ascii_case(authority) {
        return bad("authority_mismatch");
    }
    Ok(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Method;
    use proptest::prelude::*;

    const GOOD: Http2Head<'static> = Http2Head {
        method: b"POST",
        scheme: Some(b"http"),
        authority: Some(b"edge:8000"),
        path: b"/a?b",
        ends: false,
    };

    fn judge<'a>(head: &Http2Head<'a>, fields: &[(&'a str, &'a str)]) -> Result<Head<'a>, FramingFault> {
        let fields = fields.iter().map(|(name, value)| (*name, value.as_bytes()));
        check_http2(head, fields, Transport::Plain, &Limits::default())
    }

    #[test]
    fn ordinary_heads_pass() {
        let read = judge(&GOOD, &[("accept", "*/*"), ("te", "trailers")]).unwrap();
        assert_eq!((read.method, read.target, read.host), (Method::Post, &b"/a?b"[..], &b"edge:8000"[..]));
        assert_eq!(read.body, BodyFraming::Chunked);
        let ends = Http2Head { ends: true, ..GOOD };
        assert_eq!(judge(&ends, &[]).unwrap().body, BodyFraming::None);
        assert_eq!(judge(&ends, &[("content-length", "0")]).unwrap().body, BodyFraming::Length(0));
        assert_eq!(judge(&GOOD, &[("content-length", "7")]).unwrap().body, BodyFraming::Length(7));
        assert!(judge(&GOOD, &[("host", "EDGE:8000"), ("expect", "100-Continue")]).is_ok());
        let options = Http2Head { method: b"OPTIONS", path: b"*", ..GOOD };
        assert!(judge(&options, &[]).is_ok());
    }

    #[test]
    fn what_http1_would_read_otherwise_is_refused() {
        let with = |change: fn(&mut Http2Head<'static>)| {
            let mut head = GOOD;
            change(&mut head);
            judge(&head, &[]).unwrap_err()
        };
        for (fault, status, reason) in [
            (with(|head| head.scheme = None), 400, "scheme"),
            (with(|head| head.scheme = Some(b"https")), 400, "scheme"),
            (with(|head| head.scheme = Some(b"ftp")), 400, "scheme"),
            (with(|head| head.authority = None), 400, "host_missing"),
            (with(|head| head.authority = Some(b"")), 400, "host_invalid"),
            (with(|head| head.authority = Some(b"user@edge")), 400, "host_invalid"),
            (with(|head| head.authority = Some(b"edge:port")), 400, "host_invalid"),
            (with(|head| head.path = b""), 400, "target_form"),
            (with(|head| head.path = b"*"), 400, "target_form"),
            (with(|head| head.path = b"a"), 400, "target_form"),
            (with(|head| head.path = b"http://edge:8000/a"), 400, "target_form"),
            (with(|head| head.path = b"/a b"), 400, "target_space"),
            (with(|head| head.path = b"/a\\b"), 400, "target_backslash"),
            (with(|head| head.path = b"/a\r\nx: y"), 400, "target_control"),
            (with(|head| head.method = b"TRACE"), 405, "method_refused"),
            (with(|head| head.method = b"CONNECT"), 405, "method_refused"),
            (with(|head| head.method = b"BREW"), 501, "method_unknown"),
            (with(|head| head.method = b"get"), 501, "method_unknown"),
        ] {
            assert_eq!((fault.status(), fault.reason), (status, reason));
        }
        for (fields, status, reason) in [
            (&[("host", "other")][..], 400, "authority_mismatch"),
            (&[("host", "edge:8000"), ("host", "edge:8000")], 400, "host_twice"),
            (&[("content-length", "7"), ("content-length", "7")], 400, "content_length_twice"),
            (&[("content-length", "+7")], 400, "content_length"),
            (&[("content-length", "7, 7")], 400, "content_length"),
            (&[("content-length", "")], 400, "content_length"),
            (&[("transfer-encoding", "chunked")], 400, "transfer_encoding"),
            (&[("x", " y")], 400, "space_around_value"),
            (&[("x", "y\t")], 400, "space_around_value"),
            (&[("expect", "more")], 417, "expect"),
        ] {
            let fault = judge(&GOOD, fields).unwrap_err();
            assert_eq!((fault.status(), fault.reason), (status, reason), "{fields:?}");
        }
        let ends = Http2Head { ends: true, ..GOOD };
        assert_eq!(judge(&ends, &[("content-length", "7")]).unwrap_err().reason, "content_length");
    }

    #[test]
    fn a_proxy_may_say_which_scheme_it_was() {
        for (transport, plain, tls) in
            [(Transport::Plain, true, false), (Transport::Tls, false, true), (Transport::Proxied, true, true)]
        {
            for (scheme, fits) in [(&b"http"[..], plain), (b"https", tls)] {
                let head = Http2Head { scheme: Some(scheme), ..GOOD };
                let verdict = check_http2(&head, std::iter::empty(), transport, &Limits::default());
                assert_eq!(verdict.is_ok(), fits, "{transport:?}");
            }
        }
    }

    #[test]
    fn sizes_are_those_of_http1_and_crumbs_are_one_field() {
        let limits = Limits::default();
        let long = "a".repeat(40_000);
        let path = format!("/{long}");
        let head = Http2Head { path: path.as_bytes(), ..GOOD };
        assert_eq!(judge(&head, &[]).unwrap_err().status(), 414);
        assert_eq!(judge(&GOOD, &[("x", &long)]).unwrap_err().reason, "head_too_large");
        let crumbs = vec![("cookie", "a=b"); limits.header_count + 50];
        assert!(judge(&GOOD, &crumbs).is_ok());
        let fields = vec![("x", "y"); limits.header_count + 1];
        assert_eq!(judge(&GOOD, &fields).unwrap_err().reason, "too_many_fields");
    }

    proptest! {
        /// Whatever passes reads the same when it is written as HTTP/1 and judged there.
        #[test]
        fn http1_agrees(
            path in "[/*a-z%#?. ]{0,12}", authority in "[a-z:0-9.@]{0,8}", ends in any::<bool>(),
            fields in proptest::collection::vec(("[a-z-]{1,5}|host|content-length", "[a-z0-9 ,\t]{0,4}"), 0..5),
        ) {
            let head = Http2Head {
                path: path.as_bytes(), authority: Some(authority.as_bytes()), ends, ..GOOD
            };
            let pairs: Vec<(&str, &str)> =
                fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            if let Ok(read) = judge(&head, &pairs) {
                let mut text = format!("POST {path} HTTP/1.1\r\nHost: {authority}\r\n");
                for (name, value) in pairs.iter().filter(|(name, _)| *name != "host") {
                    text.push_str(&format!("{name}: {value}\r\n"));
                }
                if read.body == BodyFraming::Chunked {
                    text.push_str("Transfer-Encoding: chunked\r\n");
                }
                text.push_str("\r\n");
                let again = crate::framing::check(text.as_bytes(), &Limits::default()).unwrap();
                prop_assert_eq!((again.target, again.host, again.body), (read.target, read.host, read.body));
            }
        }
    }
}
