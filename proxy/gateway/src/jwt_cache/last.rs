//! The token that came last on a connection: its next request is mostly the same caller's, and need not be hashed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::{Entry, Verified};

/// LIMIT: a token above this is not remembered; what an idle connection holds stays small.
const TOKEN_BYTES: usize = 2 << 10;

/// The last good token of one connection.
#[derive(Default)]
pub(crate) struct LastToken(Mutex<Option<Remembered>>);

struct Remembered {
    token: Zeroizing<Box<[u8]>>,
    entry: Entry,
}

impl fmt::Debug for LastToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastToken")
    }
}

impl LastToken {
    /// Its caller, where this is the same token and `stands` says that what was found then still holds.
    pub(super) fn find(&self, token: &str, stands: impl FnOnce(&Entry) -> bool) -> Option<Arc<Verified>> {
        let last = self.lock();
        let Remembered { token: known, entry } = last.as_ref()?;
        (is_same(known, token.as_bytes()) && stands(entry)).then(|| Arc::clone(&entry.verified))
    }

    /// Remembers a good token in place of the one before.
    pub(super) fn keep(&self, token: &str, entry: Entry) {
        let kept = (token.len() <= TOKEN_BYTES)
            .then(|| Remembered { token: Zeroizing::new(token.as_bytes().into()), entry });
        *self.lock() = kept;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares in a time that tells nothing of where two tokens differ: a proxy's connection carries those of many.
fn is_same(known: &[u8], token: &[u8]) -> bool {
    if known.len() != token.len() {
        return false;
    }
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
    let (known_words, token_words) = (known.chunks_exact(8), token.chunks_exact(8));
    let (known_rest, token_rest) = (known_words.remainder(), token_words.remainder());
    let words = known_words.zip(token_words).fold(0, |all, (one, other)| all | (word(one) ^ word(other)));
    let rest = known_rest.iter().zip(token_rest).fold(0, |all, (one, other)| all | (one ^ other));
    std::hint::black_box(words | u64::from(rest)) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn tokens_are_the_same_to_the_last_bit(
            token in proptest::collection::vec(any::<u8>(), 0..70),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            prop_assert!(is_same(&token, &token));
            let longer = [&token[..], b"x"].concat();
            prop_assert!(!is_same(&token, &longer) && !is_same(&longer, &token));
            if !token.is_empty() {
                let mut other = token.clone();
                other[at.index(token.len())] ^= flip;
                prop_assert!(!is_same(&token, &other));
            }
        }
    }
}
