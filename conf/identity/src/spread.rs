//! A set of strings whose copies share what they have in common.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

/// Parts of a set: a copy of the set is as many pointers, a change copies one part.
const SHARDS: usize = 256;

/// The set. A clone costs [`SHARDS`] counts, an insertion into a clone the copy of one shard: what readers hold stays
/// as it is, and what one more revocation costs hardly depends on how many there are.
#[derive(Debug, Clone)]
pub(crate) struct Spread {
    shards: Box<[Arc<HashSet<Box<str>>>]>,
    hasher: RandomState,
    len: usize,
}

impl Default for Spread {
    fn default() -> Self {
        Self { shards: vec![Arc::default(); SHARDS].into(), hasher: RandomState::new(), len: 0 }
    }
}

impl Spread {
    pub(crate) fn insert(&mut self, entry: &str) {
        let shard = Arc::make_mut(&mut self.shards[shard_of(&self.hasher, entry)]);
        self.len += usize::from(shard.insert(entry.into()));
    }

    pub(crate) fn contains(&self, entry: &str) -> bool {
        self.len > 0 && self.shards[shard_of(&self.hasher, entry)].contains(entry)
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The entries of one part; `None` when there is no such part.
    pub(crate) fn shard(&self, number: usize) -> Option<impl Iterator<Item = &str>> {
        self.shards.get(number).map(|shard| shard.iter().map(AsRef::as_ref))
    }
}

impl<S: AsRef<str>> FromIterator<S> for Spread {
    fn from_iter<I: IntoIterator<Item = S>>(entries: I) -> Self {
        let mut spread = Self::default();
        for entry in entries {
            spread.insert(entry.as_ref());
        }
        spread
    }
}

fn shard_of(hasher: &RandomState, entry: &str) -> usize {
    usize::try_from(hasher.hash_one(entry) % SHARDS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn copies_are_independent_and_it_is_a_set(
            entries in proptest::collection::vec("[a-f]{1,3}", 0..200), copied_at in 0usize..200,
        ) {
            let (mut spread, mut naive) = (Spread::default(), HashSet::new());
            let mut copy = None;
            for (at, entry) in entries.iter().enumerate() {
                if at == copied_at {
                    copy = Some((spread.clone(), naive.clone()));
                }
                spread.insert(entry);
                naive.insert(entry.clone());
            }
            for (spread, naive) in copy.into_iter().chain([(spread, naive)]) {
                prop_assert_eq!(spread.len(), naive.len());
                prop_assert!(entries.iter().all(|entry| spread.contains(entry) == naive.contains(entry)));
                let all: Vec<_> = (0..SHARDS).filter_map(|number| spread.shard(number)).flatten().collect();
                prop_assert_eq!(all.len(), naive.len());
            }
        }
    }
}
