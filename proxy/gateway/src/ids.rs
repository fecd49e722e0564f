//! Request ids and trace contexts.
//!
//! Both need uniqueness, not secrecy: a generator a thread, seeded from the operating system once,
//! saves a system call a request. Ids that clients sent are kept when well formed.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use sluice_wire::header;
use sluice_wire::id::RequestId;
use uuid::Uuid;

thread_local! {
    static STATE: Cell<u64> = Cell::new(seed());
}

fn seed() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high ^ low.rotate_left(32)
}

/// The next pseudo-random number of this thread (SplitMix64).
pub(crate) fn random() -> u64 {
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// The client's request id when it sent one well-formed one, else a new UUIDv7.
pub(crate) fn request_id(headers: &HeaderMap) -> RequestId {
    let mut sent = headers.get_all(header::X_REQUEST_ID).iter();
    if let (Some(value), None) = (sent.next(), sent.next())
        && let Some(id) = value.to_str().ok().and_then(RequestId::parse)
    {
        return id;
    }
    mint()
}

/// A new request id.
pub(crate) fn mint() -> RequestId {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&random().to_be_bytes());
    bytes[8..].copy_from_slice(&random().to_be_bytes()[..2]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let id = uuid::Builder::from_unix_timestamp_millis(now.as_millis() as u64, &bytes).into_uuid();
    let mut text = Uuid::encode_buffer();
    RequestId::parse(id.hyphenated().encode_lower(&mut text)).unwrap_or_else(RequestId::mint)
}

/// A W3C trace context: which trace a request belongs to and our span in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    id: [u8; 32],
    span: u64,
    flags: [u8; 2],
}

impl Trace {
    /// Continues the client's trace or starts one, unsampled.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut sent = headers.get_all(header::TRACEPARENT).iter();
        match (sent.next(), sent.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()).unwrap_or_else(Self::start),
            _ => Self::start(),
        }
    }

    fn start() -> Self {
        let mut id = [0; 32];
        for (half, number) in id.chunks_exact_mut(16).zip([random(), random()]) {
            half.copy_from_slice(&hex(number));
        }
        Self { id, span: random().max(1), flags: *b"00" }
    }

    /// `00-<32 hex>-<16 hex>-<2 hex>`; later versions are read by this prefix.
    fn parse(text: &[u8]) -> Option<Self> {
        let is_hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let (version, id, parent, flags) =
            (text.get(..2)?, text.get(3..35)?, text.get(36..52)?, text.get(53..55)?);
        let dashes = [2, 35, 52].iter().all(|&at| text[at] == b'-');
        let length_fits = text.len() == 55 || (version != b"00" && text.get(55) == Some(&b'-'));
        let well_formed = dashes
            && length_fits
            && version != b"ff"
            && [version, id, parent, flags].into_iter().all(is_hex)
            && id.iter().any(|b| *b != b'0')
            && parent.iter().any(|b| *b != b'0');
        well_formed.then(|| Self {
            id: id.try_into().expect("the slice is 32 long"),
            span: random().max(1),
            flags: flags.try_into().expect("the slice is 2 long"),
        })
    }

    /// The trace id, 32 hex digits.
    pub(crate) fn id(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// `traceparent` for the upstream, with our span as parent.
    pub(crate) fn header(&self) -> HeaderValue {
        let mut text = [b'-'; 55];
        text[..2].copy_from_slice(b"00");
        text[3..35].copy_from_slice(&self.id);
        text[36..52].copy_from_slice(&hex(self.span));
        text[53..].copy_from_slice(&self.flags);
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

fn hex(number: u64) -> [u8; 16] {
    let mut text = [0; 16];
    for (at, digit) in text.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize & 15];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_good_request_id_is_kept_and_a_bad_one_replaced() {
        assert_eq!(request_id(&headers("x-request-id", &["client-id-1"])).as_str(), "client-id-1");
        for bad in [&["short"][..], &["has space 12"], &["first-id-1", "second-id-2"], &[]] {
            let id = request_id(&headers("x-request-id", bad));
            assert_eq!(Uuid::parse_str(id.as_str()).unwrap().get_version_num(), 7, "{bad:?}");
        }
    }

    #[test]
    fn minted_ids_differ() {
        assert_ne!(mint(), mint());
    }

    #[test]
    fn a_trace_is_continued_with_a_new_span() {
        let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::of(&headers("traceparent", &[sent]));
        let passed = trace.header();
        let passed = passed.to_str().unwrap();
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(passed.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && passed.ends_with("-01"));
        assert!(!passed.contains("00f067aa0ba902b7"));
    }

    #[test]
    fn a_malformed_trace_is_replaced() {
        for bad in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "",
        ] {
            let trace = Trace::of(&headers("traceparent", &[bad]));
            assert_ne!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736", "{bad}");
            assert!(Trace::parse(trace.header().as_bytes()).is_some());
        }
    }
}
