//! What of an upstream's answer is framing, and ends at the edge; what no answer may hold.
//!
//! The framework reads answers leniently: it joins equal lengths, passes both on, and takes up to 1 MiB of
//! head. Such an answer is invalid here. A length beside chunks is dropped by the framework before anyone
//! sees it: the chunks count, and what follows them ends the connection.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};

use crate::fields::Fields;
use crate::headers::{clean_response, drop_hop_by_hop};

/// Most interim answers of one upstream to one request.
const INTERIM_MAX: u8 = 8;

/// LIMIT: an upstream's head, all its lines.
const HEAD_BYTES: usize = 64 << 10;

/// An interim answer: a few may pass, cleaned; a switch of protocols that nobody asked for may not.
pub(crate) fn interim(count: u8, response: &mut ResponseHeader, request_id: &str) -> Result<()> {
    interim_fields(count, response.status, response.version, response, request_id)
}

/// The same, of a head that is kept in parts.
pub(crate) fn interim_fields(
    count: u8,
    status: StatusCode,
    version: Version,
    fields: &mut impl Fields,
    request_id: &str,
) -> Result<()> {
    if status == StatusCode::SWITCHING_PROTOCOLS || count > INTERIM_MAX {
        return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
    }
    check_size(fields)?;
    drop_hop_by_hop(fields, version);
    // Nothing follows such a head, whatever it says.
    fields.drop_where(|name| *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH);
    clean_response(fields, request_id)
}

/// Size of all fields; their number is bounded by who reads them, at 256.
fn check_size(fields: &impl Fields) -> Result<()> {
    let bytes: usize = fields.each().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > HEAD_BYTES { Err(Error::new_up(ErrorType::InvalidHTTPHeader)) } else { Ok(()) }
}

/// At most one length, of digits alone.
fn length_is_plain(fields: &impl Fields) -> bool {
    let mut lengths = fields.all(&CONTENT_LENGTH).map(HeaderValue::as_bytes);
    let plain = lengths
        .next()
        .is_none_or(|length| (1..=19).contains(&length.len()) && length.iter().all(u8::is_ascii_digit));
    plain && lengths.next().is_none()
}

/// The upstream's connection ends here: its version, what belongs to it and its way of ending the body are not
/// the client's.
pub(crate) fn frame_anew(response: &mut ResponseHeader) -> Result<()> {
    frame_fields(response.status, response.version, response)?;
    response.set_version(Version::HTTP_11);
    Ok(())
}

/// The same, of a head that is kept in parts: fields of an answer in `version`.
pub(crate) fn frame_fields(status: StatusCode, version: Version, fields: &mut impl Fields) -> Result<()> {
    check_size(fields)?;
    let chunked = fields
        .all(&TRANSFER_ENCODING)
        .try_fold(0, |count, coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked").then_some(count + 1));
    let faulty = match chunked {
        Some(0) => false,
        Some(1) => version == Version::HTTP_10,
        _ => true,
    };
    if faulty || !length_is_plain(fields) {
        return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
    }
    drop_hop_by_hop(fields, version);
    if status == StatusCode::NO_CONTENT {
        fields.drop_where(|name| *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, version: Version, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut answer = ResponseHeader::build(status, None).unwrap();
        answer.set_version(version);
        for (name, value) in fields {
            answer.append_header(*name, *value).unwrap();
        }
        answer
    }

    #[test]
    fn only_one_plain_chunked_passes() {
        let chunked = ("transfer-encoding", "chunked");
        let mut good = answer(200, Version::HTTP_11, &[chunked]);
        assert!(frame_anew(&mut good).is_ok());
        for mut bad in [
            answer(200, Version::HTTP_10, &[chunked]),
            answer(200, Version::HTTP_11, &[chunked, chunked]),
            answer(200, Version::HTTP_11, &[("transfer-encoding", "gzip, chunked")]),
            answer(200, Version::HTTP_11, &[("content-length", "5"), ("content-length", "5")]),
            answer(200, Version::HTTP_11, &[("content-length", "5, 5")]),
            answer(200, Version::HTTP_11, &[("content-length", "+5")]),
            answer(200, Version::HTTP_11, &[("x", &"v".repeat(HEAD_BYTES))]),
        ] {
            assert!(frame_anew(&mut bad).is_err());
        }
        let mut old = answer(200, Version::HTTP_10, &[]);
        frame_anew(&mut old).unwrap();
        assert_eq!(old.version, Version::HTTP_11);
        let mut empty = answer(204, Version::HTTP_11, &[("content-length", "44")]);
        frame_anew(&mut empty).unwrap();
        assert!(!empty.headers.contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn what_belongs_to_the_upstreams_connection_stays_there() {
        let fields = [
            ("connection", "close, Foo, Content-Length"),
            ("foo", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "x"),
            ("upgrade", "h2,h2c"),
            ("te", "x"),
            ("trailer", "a"),
            ("content-length", "2"),
            ("etag", "b"),
        ];
        let left = |version| {
            let mut answer = answer(200, version, &fields);
            frame_anew(&mut answer).unwrap();
            let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(left(Version::HTTP_11), ["content-length", "etag"]);
        assert_eq!(left(Version::HTTP_2), ["content-length", "etag", "trailer"], "they are passed on");
    }

    #[test]
    fn nobody_switches_protocols_and_interim_answers_end() {
        let fields = [
            ("x-internal-key", "a"),
            ("content-length", "5"),
            ("connection", "foo"),
            ("foo", "b"),
            ("link", "c"),
        ];
        let mut hint = answer(103, Version::HTTP_11, &fields);
        interim(1, &mut hint, "r").unwrap();
        let left: Vec<&str> = hint.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(left, ["link", "x-content-type-options", "x-request-id"]);
        assert!(interim(INTERIM_MAX + 1, &mut hint, "r").is_err());
        assert!(interim(1, &mut answer(101, Version::HTTP_11, &[]), "r").is_err());
    }
}
