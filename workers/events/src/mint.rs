//! Event ids for events that come without one.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// Makes UUIDv7 without asking the kernel for each: the random part is a keyed hash of a counter, so that it never
/// repeats in a process and cannot be foretold from ids seen before (an id that can be foretold could be taken by
/// somebody else first).
#[derive(Debug, Default)]
pub(crate) struct Mint {
    keys: [RandomState; 2],
    counter: AtomicU64,
}

impl Mint {
    /// A new id at a time in milliseconds since 1970.
    pub(crate) fn id(&self, now_ms: u64) -> Uuid {
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
    fn ids_are_version_7_and_differ() {
        let mint = Mint::default();
        let ids: std::collections::BTreeSet<Uuid> = (0..10_000).map(|_| mint.id(1_795_255_200_123)).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.as_u128() >> 80 == 1_795_255_200_123));
    }
}
