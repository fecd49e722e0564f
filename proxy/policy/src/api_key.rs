//! Who shows which API key.
//!
//! Keys are kept by digest alone; what is shown is digested by the shell, and only where it can be a key at all. A key
//! has no end of its own: whoever came by one is let in as long as it stands in the configuration with the same rights,
//! so an answer that goes on for long ends with its key ([`Keys::forgot`]).
//!
//! Cost: O(log n) of at most 1,024 keys, no allocation.

/// LIMIT: bytes of a key that anybody looks at.
pub const KEY_BYTES_MAX: usize = 512;

/// SHA-256 of a key.
pub type Digest = [u8; 32];

/// The callers that a configuration knows by a key.
#[derive(Clone, Debug)]
pub struct Keys<C> {
    /// By digest.
    known: Vec<(Digest, C)>,
}

impl<C> Default for Keys<C> {
    fn default() -> Self {
        Self { known: Vec::new() }
    }
}

impl<C> FromIterator<(Digest, C)> for Keys<C> {
    /// Of two callers with one key the first counts.
    fn from_iter<I: IntoIterator<Item = (Digest, C)>>(keys: I) -> Self {
        let mut known: Vec<(Digest, C)> = keys.into_iter().collect();
        known.sort_by_key(|(digest, _)| *digest);
        known.dedup_by_key(|(digest, _)| *digest);
        Self { known }
    }
}

impl<C> Keys<C> {
    /// Whether there is none: then nobody looks at what clients send.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Who shows this key; what cannot be one is not digested.
    pub fn find(&self, shown: &[u8], digest: impl FnOnce(&[u8]) -> Digest) -> Option<&C> {
        if self.known.is_empty() || shown.is_empty() || shown.len() > KEY_BYTES_MAX {
            return None;
        }
        self.of(&digest(shown))
    }

    /// Whether a caller came by a key that is not among these, or may do something else by it now.
    pub fn forgot(&self, key: &Digest, is_same: impl FnOnce(&C) -> bool) -> bool {
        !self.of(key).is_some_and(is_same)
    }

    fn of(&self, digest: &Digest) -> Option<&C> {
        let at = self.known.binary_search_by_key(digest, |(known, _)| *known).ok()?;
        self.known.get(at).map(|(_, caller)| caller)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// No digest worth the name, but it tells keys apart.
    fn digest(shown: &[u8]) -> Digest {
        let mut digest = [0_u8; 32];
        for (at, byte) in shown.iter().enumerate() {
            digest[at % 32] = digest[at % 32].wrapping_mul(31).wrapping_add(*byte).wrapping_add(at as u8);
        }
        digest
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn callers_are_found_as_in_a_map(
            keys in proptest::collection::vec((0_u8..40, 0_u8..3), 0..30), asked in 0_u8..50, rights in 0_u8..3,
        ) {
            let keys: HashMap<u8, u8> = keys.into_iter().collect();
            let table: Keys<u8> = keys.iter().map(|(key, rights)| (digest(&[*key]), *rights)).collect();
            prop_assert_eq!(table.is_empty(), keys.is_empty());
            prop_assert_eq!(table.find(&[asked], digest), keys.get(&asked));
            prop_assert_eq!(table.forgot(&digest(&[asked]), |now| *now == rights), keys.get(&asked) != Some(&rights));
        }
    }

    #[test]
    fn what_cannot_be_a_key_is_not_looked_at() {
        let table: Keys<u8> = [(digest(b"k"), 1)].into_iter().collect();
        let looks = Cell::new(0);
        let count = |shown: &[u8]| {
            looks.set(looks.get() + 1);
            digest(shown)
        };
        assert_eq!(table.find(b"", count), None);
        assert_eq!(table.find(&[b'k'; KEY_BYTES_MAX + 1], count), None);
        assert_eq!(Keys::<u8>::default().find(b"k", count), None);
        assert_eq!(looks.get(), 0);
        assert_eq!((table.find(b"k", count), looks.get()), (Some(&1), 1));
        assert_eq!(table.find(&[b'k'; KEY_BYTES_MAX], count), None);
    }
}
