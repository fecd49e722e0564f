//! What is asked of every subject: the method, the body, and a key of its own for each request.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::voice::{NUMBER, STAMP};

/// Largest request body: with its head it must fit the socket's buffer, because it is sent in one write.
const BODY_BYTES_MAX: u32 = 16 * 1024;
/// Digits of a key.
const KEY_DIGITS: usize = 16;
/// Keys count over the whole run: a key that came twice would be answered from memory.
static KEYS: AtomicU64 = AtomicU64::new(1);

/// `[request]` of a scenario; a plain GET without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    pub method: Method,
    /// Bytes of the JSON body; zero for GET.
    #[serde(default)]
    pub body_bytes: u32,
    /// Each request has an `Idempotency-Key` that no other has.
    #[serde(default)]
    pub idempotency_key: bool,
}

/// A method that is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Method {
    #[default]
    Get,
    Post,
}

/// The bytes of one request and the places of what differs from one to the next.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    key: Option<Range<usize>>,
    /// Where the intended time of the send goes.
    stamps: Vec<usize>,
    /// Where the number of the connection goes.
    numbers: Vec<usize>,
}

impl Default for Question {
    fn default() -> Self {
        Self { method: Method::Get, body_bytes: 0, idempotency_key: false }
    }
}

impl Method {
    /// The word of the request line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

impl Question {
    /// Says what is wrong with the question itself.
    pub(crate) fn check(self) -> Result<(), String> {
        match self.method {
            Method::Get if self.body_bytes > 0 || self.idempotency_key => {
                Err("`request`: a GET has neither body nor key".into())
            }
            Method::Post if !(16..=BODY_BYTES_MAX).contains(&self.body_bytes) => {
                Err(format!("`request.body_bytes` = {} is outside 16..={BODY_BYTES_MAX}", self.body_bytes))
            }
            _ => Ok(()),
        }
    }

    /// The request for `path` of `host`, with these `credentials`.
    pub(crate) fn request(self, host: &str, path: &str, credentials: Option<&str>) -> Request {
        let mut head =
            format!("{} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n", self.method.word());
        let mut add = |name: &str, value: &str| {
            write!(head, "{name}: {value}\r\n").expect("writing to a String cannot fail");
            head.len() - 2
        };
        if let Some(value) = credentials {
            add("Authorization", value);
        }
        let key = self.idempotency_key.then(|| {
            let end = add("Idempotency-Key", &"0".repeat(KEY_DIGITS));
            end - KEY_DIGITS..end
        });
        let body = match self.method {
            Method::Get => Vec::new(),
            Method::Post => {
                add("Content-Type", "application/json");
                add("Content-Length", &self.body_bytes.to_string());
                crate::origin::body(self.body_bytes as usize)
            }
        };
        Request { key, ..Request::plain([head.as_bytes(), b"\r\n", &body].concat()) }
    }
}

impl Request {
    /// A request that is sent as it is.
    pub(crate) fn plain(bytes: Vec<u8>) -> Self {
        Self { bytes, key: None, stamps: Vec::new(), numbers: Vec::new() }
    }

    /// A request whose places for times and numbers are filled each time ([`crate::voice`]).
    pub(crate) fn with_places(bytes: Vec<u8>) -> Self {
        let places = |word: &str| memchr::memmem::find_iter(&bytes, word.as_bytes()).collect();
        let (stamps, numbers) = (places(STAMP), places(NUMBER));
        Self { stamps, numbers, ..Self::plain(bytes) }
    }

    /// The bytes to send next on a connection, for an intended time.
    pub(crate) fn next(&mut self, connection: usize, intended_ns: u64) -> &[u8] {
        let (time, number) = (format!("{intended_ns:016x}"), format!("{connection:08x}"));
        for at in &self.stamps {
            self.bytes[*at..*at + STAMP.len()].copy_from_slice(time.as_bytes());
        }
        for at in &self.numbers {
            self.bytes[*at..*at + NUMBER.len()].copy_from_slice(number.as_bytes());
        }
        self.fresh()
    }

    /// The bytes to send next, under a fresh key.
    pub(crate) fn fresh(&mut self) -> &[u8] {
        if let Some(place) = self.key.clone() {
            let key = format!("{:0KEY_DIGITS$x}", KEYS.fetch_add(1, Ordering::Relaxed));
            self.bytes[place].copy_from_slice(key.as_bytes());
        }
        &self.bytes
    }

    /// The bytes sent last, under the same key.
    pub(crate) fn same(&self) -> &[u8] {
        &self.bytes
    }

    /// The same request under the same key with another body.
    pub(crate) fn altered(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        // The body is `{"payload":"xxx…"}`: its third byte from the end is the last x.
        if let Some(byte) = bytes.iter_mut().rev().nth(2) {
            *byte = b'y';
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: Question = Question { method: Method::Post, body_bytes: 64, idempotency_key: true };

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn get_has_no_body_and_stays_as_it_is() {
        let mut request = Question::default().request("h:1", "/a", Some("Bearer t"));
        let first = text(request.fresh());
        assert_eq!(
            first,
            "GET /a HTTP/1.1\r\nHost: h:1\r\nAccept: application/json\r\nAuthorization: Bearer t\r\n\r\n"
        );
        assert_eq!(text(request.fresh()), first);
        assert_eq!(text(request.same()), first);
    }

    #[test]
    fn every_order_has_its_length_and_a_key_of_its_own() {
        let mut request = ORDER.request("h:1", "/a", None);
        let key = |bytes: &[u8]| {
            let text = text(bytes);
            let (_, rest) = text.split_once("Idempotency-Key: ").unwrap();
            rest.split_once("\r\n").unwrap().0.to_owned()
        };
        let keys: std::collections::BTreeSet<_> = (0..100).map(|_| key(request.fresh())).collect();
        assert!(keys.len() == 100 && keys.iter().all(|key| key.len() == KEY_DIGITS), "{keys:?}");
        let whole = text(request.fresh());
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Content-Length: 64") && body.len() == 64, "{whole}");
        let altered = text(&request.altered());
        assert_eq!(altered.len(), whole.len());
        assert!(altered != whole && altered.ends_with("xy\"}") && altered.starts_with(head), "{altered}");
    }

    #[test]
    fn places_are_filled_for_each_send() {
        let mut request = Request::with_places(format!("{STAMP} {NUMBER} {STAMP}").into_bytes());
        assert_eq!(text(request.next(1, 255)), "00000000000000ff 00000001 00000000000000ff");
        let full = "ffffffffffffffff";
        assert_eq!(text(request.next(0xabc, u64::MAX)), format!("{full} 00000abc {full}"));
    }

    #[test]
    fn meaningless_questions_are_refused() {
        assert!(ORDER.check().is_ok() && Question::default().check().is_ok());
        for bad in [
            Question { body_bytes: 15, ..ORDER },
            Question { body_bytes: BODY_BYTES_MAX + 1, ..ORDER },
            Question { method: Method::Get, ..ORDER },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
