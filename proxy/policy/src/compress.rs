//! Whether an answer is compressed on its way to the client.
//!
//! Purpose: fewer bytes where the client asks for it, and nothing else about the answer changes.
//!
//! Exact conditions, all of which must hold: the client takes gzip and does not like plain bytes better; the answer
//! has a body and is whole (no HEAD, 204, 205, 206, 304, no `Content-Range`); it is text by its type, and no stream of
//! events, which must arrive one by one; it is not encoded already, and neither side says `no-transform`; its length is
//! not known or from [`BYTES_MIN`] to [`BYTES_MAX`].
//!
//! Length tells about content: who can put a guess beside a secret into one answer, and make another's browser ask for
//! it, learns the secret byte by byte (BREACH). That takes a credential that browsers add by themselves, so answers
//! to requests with cookies or a client certificate, and those that set a cookie, stay as they are. A bearer token is
//! added by nobody but the page that holds it.
//!
//! No allocation.

use crate::method::Method;

/// Shorter answers fit into a packet as they are.
pub const BYTES_MIN: u64 = 1024;
/// LIMIT: longer answers are left as they are: they would hold the thread's time.
pub const BYTES_MAX: u64 = 8 << 20;
/// LIMIT: bytes read of what a client accepts.
const ACCEPT_BYTES_MAX: usize = 1024;

/// An answer and the request it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Method of the request.
    pub method: Method,
    /// Whether the client's credential may be one that browsers add by themselves, or the answer sets one.
    pub ambient: bool,
    /// Whether request or answer say `no-transform`.
    pub no_transform: bool,
    /// Status of the answer.
    pub status: u16,
    /// `Content-Type` of the answer.
    pub content_type: Option<&'a [u8]>,
    /// Whether it has a `Content-Encoding` other than `identity`, or a `Content-Range`.
    pub coded: bool,
    /// Its length, where it is known.
    pub length: Option<u64>,
}

/// Whether an answer may be compressed at all; then it differs by `Accept-Encoding`, whoever asks.
pub fn is_eligible(facts: &Facts<'_>) -> bool {
    let has_body =
        facts.method != Method::Head && facts.status >= 200 && !matches!(facts.status, 204 | 205 | 206 | 304);
    has_body
        && !facts.ambient
        && !facts.no_transform
        && !facts.coded
        && facts.length.is_none_or(|bytes| (BYTES_MIN..=BYTES_MAX).contains(&bytes))
        && facts.content_type.is_some_and(is_text)
}

/// Whether a list of directives, such as `Cache-Control`, has one.
pub fn has_directive(value: &[u8], directive: &str) -> bool {
    value.split(|byte| *byte == b',').any(|part| {
        let name = part.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(directive.as_bytes())
    })
}

/// Whether a client that sends these values of `Accept-Encoding` takes gzip, and not plain bytes rather.
pub fn takes_gzip<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let (mut gzip, mut any, mut plain) = (None, None, None);
    let mut left = ACCEPT_BYTES_MAX;
    for value in values {
        let value = &value[..value.len().min(left)];
        left -= value.len();
        for item in value.split(|byte| *byte == b',') {
            let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let coding = parts.next().unwrap_or_default();
            let quality = parts.find_map(quality).unwrap_or(1000);
            let is = |word: &str| coding.eq_ignore_ascii_case(word.as_bytes());
            if is("gzip") || is("x-gzip") {
                gzip = Some(quality);
            } else if is("*") {
                any = Some(quality);
            } else if is("identity") {
                plain = Some(quality);
            }
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= plain.unwrap_or(0)
}

/// `q=0.5` in thousandths; what is no number counts for nothing.
fn quality(part: &[u8]) -> Option<u32> {
    let (name, value) = part.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let text = std::str::from_utf8(value).ok();
    let number = text.and_then(|text| text.trim().parse::<f32>().ok()).filter(|q| (0.0..=1.0).contains(q));
    Some((number.unwrap_or(0.0) * 1000.0) as u32)
}

fn is_text(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is = |word: &str| kind.eq_ignore_ascii_case(word.as_bytes());
    let starts =
        |word: &str| kind.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word.as_bytes()));
    let ends = |word: &str| {
        kind.len() > word.len() && kind[kind.len() - word.len()..].eq_ignore_ascii_case(word.as_bytes())
    };
    (starts("text/") && !is("text/event-stream"))
        || ["application/json", "application/xml", "application/javascript", "application/wasm"]
            .into_iter()
            .any(is)
        || ends("+json")
        || ends("+xml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: Facts<'static> = Facts {
        method: Method::Get,
        ambient: false,
        no_transform: false,
        status: 200,
        content_type: Some(b"application/json; charset=utf-8"),
        coded: false,
        length: Some(BYTES_MIN),
    };

    #[test]
    fn whole_texts_of_some_length_may_be_compressed() {
        assert!(is_eligible(&PAGE));
        assert!(is_eligible(&Facts { length: None, status: 503, ..PAGE }));
        for not in [
            Facts { method: Method::Head, ..PAGE },
            Facts { ambient: true, ..PAGE },
            Facts { no_transform: true, ..PAGE },
            Facts { status: 304, ..PAGE },
            Facts { status: 206, ..PAGE },
            Facts { status: 101, ..PAGE },
            Facts { coded: true, ..PAGE },
            Facts { length: Some(BYTES_MIN - 1), ..PAGE },
            Facts { length: Some(BYTES_MAX + 1), ..PAGE },
            Facts { content_type: None, ..PAGE },
            Facts { content_type: Some(b"image/png"), ..PAGE },
            Facts { content_type: Some(b"Text/Event-Stream; charset=utf-8"), ..PAGE },
            Facts { content_type: Some(b"application/x-ndjson"), ..PAGE },
            Facts { content_type: Some(b"application/grpc+proto"), ..PAGE },
        ] {
            assert!(!is_eligible(&not), "{not:?}");
        }
        for kind in ["text/html", "TEXT/plain", "image/svg+xml", "application/problem+json"] {
            assert!(is_eligible(&Facts { content_type: Some(kind.as_bytes()), ..PAGE }), "{kind}");
        }
    }

    #[test]
    fn what_a_client_accepts_is_weighed() {
        for (accepts, takes) in [
            (&["gzip"][..], true),
            (&["br, GZIP;q=0.5, deflate"], true),
            (&["x-gzip"], true),
            (&["*"], true),
            (&["*;q=0.1, gzip;q=0"], false),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.0"], false),
            (&["gzip;q=x"], false),
            (&["gzip;q=0.5, identity"], false),
            (&["gzip;q=0.5, identity;q=0.5"], true),
            (&["br", "gzip"], true),
            (&["br"], false),
            (&[""], false),
            (&[], false),
            (&["gzipped"], false),
        ] {
            assert_eq!(takes_gzip(accepts.iter().map(|value| value.as_bytes())), takes, "{accepts:?}");
        }
        assert!(has_directive(b"public, No-Transform", "no-transform"));
        assert!(has_directive(b"private=\"x\"", "private") && !has_directive(b"x-no-store", "no-store"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_bytes_are_read(value: Vec<u8>) {
            let taken = takes_gzip([&value[..]]);
            prop_assert!(!taken || value.iter().any(|byte| b"gG*".contains(byte)));
            is_eligible(&Facts { content_type: Some(&value), ..PAGE });
        }
    }
}
