//! Request ids and trace contexts.
//!
//! Both need uniqueness, not secrecy: a generator a thread, seeded from the operating system once,
//! saves a system call a request. Ids that clients sent are kept when well formed.

use std::cell::Cell;

use http::{HeaderMap, HeaderValue};
use sluice_policy::trace::{self, Parent};
use sluice_wire::id::RequestId;
use uuid::Uuid;

use crate::clock;
use crate::fields::name;

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
    let mut sent = headers.get_all(&name::REQUEST_ID).iter();
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
    let id = uuid::Builder::from_unix_timestamp_millis(clock::unix_ms(), &bytes).into_uuid();
    let mut text = Uuid::encode_buffer();
    RequestId::parse(id.hyphenated().encode_lower(&mut text)).unwrap_or_else(RequestId::mint)
}

/// A W3C trace context: which trace a request belongs to and our span in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    id: [u8; 32],
    span: u64,
    parent: Option<[u8; 16]>,
    flags: u8,
}

impl Trace {
    /// Continues the client's trace or starts one, sampled where `samples`.
    pub(crate) fn of(headers: &HeaderMap, samples: bool) -> Self {
        let mut sent = headers.get_all(&name::TRACEPARENT).iter();
        let parent = match (sent.next(), sent.next()) {
            (Some(value), None) => trace::parent(value.as_bytes()),
            _ => None,
        };
        match parent {
            Some(Parent { trace_id, span_id, flags }) => {
                Self { id: trace_id, span: span_id_of_ours(), parent: Some(span_id), flags }
            }
            None => Self::start(samples),
        }
    }

    fn start(samples: bool) -> Self {
        let mut id = [0; 32];
        for (half, number) in id.chunks_exact_mut(16).zip([random().max(1), random()]) {
            half.copy_from_slice(&hex(number));
        }
        let flags = if samples { trace::SAMPLED } else { 0 };
        Self { id, span: span_id_of_ours(), parent: None, flags }
    }

    /// The trace id, 32 hex digits.
    pub(crate) fn id(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// Our span.
    pub(crate) const fn span(&self) -> u64 {
        self.span
    }

    /// The client's span, 16 hex digits; `None` where the trace began here.
    pub(crate) fn parent(&self) -> Option<&str> {
        self.parent.as_ref().and_then(|parent| std::str::from_utf8(parent).ok())
    }

    /// Whether this trace is recorded.
    pub(crate) const fn is_sampled(&self) -> bool {
        self.flags & trace::SAMPLED != 0
    }

    /// `traceparent` for the upstream, with a span of ours as parent.
    pub(crate) fn header(&self, span: u64) -> HeaderValue {
        let mut text = [b'-'; 55];
        text[..2].copy_from_slice(b"00");
        text[3..35].copy_from_slice(&self.id);
        text[36..52].copy_from_slice(&hex(span));
        text[53..].copy_from_slice(&hex(u64::from(self.flags))[14..]);
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// A new span id; zero means none.
pub(crate) fn span_id_of_ours() -> u64 {
    random().max(1)
}

/// A span id as it is written.
pub(crate) fn span_text(span: u64) -> String {
    String::from_utf8_lossy(&hex(span)).into_owned()
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
        let trace = Trace::of(&headers("traceparent", &[sent]), false);
        let passed = trace.header(trace.span());
        let passed = passed.to_str().unwrap();
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(passed.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && passed.ends_with("-01"));
        assert!(!passed.contains("00f067aa0ba902b7"));
        assert_eq!((trace.parent(), trace.is_sampled()), (Some("00f067aa0ba902b7"), true));
    }

    #[test]
    fn a_malformed_or_repeated_trace_is_replaced() {
        let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for bad in [&["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"][..], &[sent, sent], &[""]] {
            let trace = Trace::of(&headers("traceparent", bad), false);
            assert_ne!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736", "{bad:?}");
            assert!(trace::parent(trace.header(trace.span()).as_bytes()).is_some());
            assert_eq!((trace.parent(), trace.is_sampled()), (None, false));
        }
        assert!(Trace::of(&HeaderMap::new(), true).is_sampled());
    }
}
