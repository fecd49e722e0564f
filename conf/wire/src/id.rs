//! Request ids, and what makes ids.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Longest accepted request id, bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// A well-formed request id: 8 to 128 of `[A-Za-z0-9._-]`, safe in a header and in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Accepts a client's id when it is well formed.
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = (8..=REQUEST_ID_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        well_formed.then(|| Self(text.to_owned()))
    }

    /// Makes a new one (UUIDv7).
    pub fn mint() -> Self {
        static MINT: LazyLock<Mint> = LazyLock::new(Mint::default);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(MINT.id(now.map_or(0, |since| since.as_millis() as u64)).to_string())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes UUIDv7 without asking the kernel for each: the random part is a keyed hash of a counter, so that it never
/// repeats in a process and cannot be foretold from ids seen before (an id that can be foretold could be taken by
/// somebody else first).
#[derive(Debug, Default)]
pub struct Mint {
    keys: [RandomState; 2],
    counter: AtomicU64,
}

impl Mint {
    /// A new id at a time in milliseconds since 1970.
    pub fn id(&self, now_ms: u64) -> Uuid {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let [high, low] = [0, 1].map(|i: usize| self.keys[i].hash_one(count).to_le_bytes());
        let mut random = [0; 10];
        random[..8].copy_from_slice(&high);
        random[8..].copy_from_slice(&low[..2]);
        uuid::Builder::from_unix_timestamp_millis(now_ms, &random).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_pass() {
        assert!(RequestId::parse("req-12345").is_some());
        for bad in ["short", "has space in it", "newline\nxxxx", "ünicode-id", &"x".repeat(129)] {
            assert!(RequestId::parse(bad).is_none(), "{bad:?}");
        }
        assert!(RequestId::parse(RequestId::mint().as_str()).is_some());
    }

    #[test]
    fn ids_are_version_7_and_differ() {
        let mint = Mint::default();
        let ids: std::collections::BTreeSet<Uuid> = (0..10_000).map(|_| mint.id(1_795_255_200_123)).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.as_u128() >> 80 == 1_795_255_200_123));
    }
}
