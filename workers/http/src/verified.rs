//! Tokens that were found good, so that a client's next request does not pay for the signature again.
//!
//! Keyed by SHA-256 of the token. A hit counts only while the token has not expired and nothing was heard of keys or
//! revocations since it was verified; otherwise it is verified anew. Refusals are not kept: a key that arrives
//! later takes effect at once. LIMIT: [`ENTRIES_MAX`] tokens, in two generations: when the younger half is full the
//! older half is dropped, and a hit in the older half moves to the younger one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest;
use sluice_identity::caller::Caller;
use sluice_identity::claims::Claims;

/// LIMIT: tokens remembered by a process.
const ENTRIES_MAX: usize = 16 * 1024;

pub(crate) type Key = [u8; 32];

/// What a token says, and whom it makes the caller. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) claims: Arc<Claims>,
    pub(crate) caller: Arc<Caller>,
}

impl Verified {
    pub(crate) fn new(claims: Claims) -> Self {
        let caller = Arc::new(Caller::from_claims(&claims));
        Self { claims: Arc::new(claims), caller }
    }
}

/// One token, and the state of keys and revocations it was verified under.
#[derive(Clone, Debug)]
struct Entry {
    generation: u64,
    verified: Verified,
}

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
}

/// The tokens of a process.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<Halves>);

/// A token's key.
pub(crate) fn key_of(token: &str) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    key
}

impl Remembered {
    /// A token that was found good under this generation of keys and revocations and has not ended at `now_s`, the
    /// leeway included. One that no longer stands is forgotten.
    pub(crate) fn find(&self, key: &Key, generation: u64, leeway_s: i64, now_s: i64) -> Option<Verified> {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !halves.young.contains_key(key)
            && let Some(entry) = halves.old.remove(key)
        {
            halves.insert(*key, entry);
        }
        let entry = halves.young.get(key)?.clone();
        if !entry.stands(generation, leeway_s, now_s) {
            halves.young.remove(key);
            return None;
        }
        Some(entry.verified)
    }

    /// Remembers a token that was just verified.
    pub(crate) fn keep(&self, key: Key, generation: u64, verified: Verified) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.insert(key, Entry { generation, verified });
    }
}

impl Entry {
    fn stands(&self, generation: u64, leeway_s: i64, now_s: i64) -> bool {
        self.generation == generation && now_s < self.verified.claims.exp.saturating_add(leeway_s)
    }
}

/// The token that a connection showed last. Only for a connection that one client has for itself: how long the
/// comparison takes tells where two tokens differ.
#[derive(Debug, Default)]
pub(crate) struct Shown(Mutex<Option<(Box<str>, Entry)>>);

impl Shown {
    /// What the token says, when it is the one shown last and stands by the same rules as in [`Remembered::find`].
    pub(crate) fn find(&self, token: &str, generation: u64, leeway_s: i64, now_s: i64) -> Option<Verified> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (shown, entry) = last.as_ref()?;
        let stands = **shown == *token && entry.stands(generation, leeway_s, now_s);
        stands.then(|| entry.verified.clone())
    }

    /// Remembers a token that was just found good.
    pub(crate) fn keep(&self, token: &str, generation: u64, verified: &Verified) {
        let entry = Entry { generation, verified: verified.clone() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((token.into(), entry));
    }
}

impl Halves {
    fn insert(&mut self, key: Key, entry: Entry) {
        if self.young.len() >= ENTRIES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use sluice_identity::grants::Grants;

    use super::*;

    fn verified(exp: i64) -> Verified {
        Verified::new(Claims {
            sub: "bot".to_owned(),
            account: None,
            jti: None,
            iat: Some(0),
            exp,
            grants: Grants::default(),
            legacy: false,
            bound: None,
        })
    }

    #[test]
    fn a_token_stands_until_it_ends_or_the_news_change() {
        let remembered = Remembered::default();
        let key = key_of("token");
        let found = |generation, now_s| remembered.find(&key, generation, 5, now_s).is_some();
        assert!(!found(1, 0));
        remembered.keep(key, 1, verified(100));
        assert!(found(1, 104), "within the leeway");
        assert!(!found(1, 105), "its end has come");
        assert!(!found(1, 99), "and it is forgotten");
        remembered.keep(key, 1, verified(100));
        assert!(!found(2, 99), "keys or revocations have changed");
        remembered.keep(key, 2, verified(100));
        assert!(remembered.find(&key_of("tokem"), 2, 5, 99).is_none(), "another token");
    }

    #[test]
    fn a_connection_knows_its_last_token_again() {
        let shown = Shown::default();
        let found = |token, generation, now_s| shown.find(token, generation, 5, now_s).is_some();
        assert!(!found("token", 1, 0));
        shown.keep("token", 1, &verified(100));
        assert!(found("token", 1, 104) && !found("token", 1, 105), "until its end and the leeway");
        assert!(!found("token", 2, 0), "keys or revocations have changed");
        assert!(!found("tokem", 1, 0) && !found("toke", 1, 0));
        shown.keep("other", 1, &verified(100));
        assert!(found("other", 1, 0) && !found("token", 1, 0));
    }

    #[test]
    fn what_is_used_stays_and_the_number_is_bounded() {
        let remembered = Remembered::default();
        let used = key_of("used");
        remembered.keep(used, 0, verified(100));
        for n in 0..3 * ENTRIES_MAX {
            let mut key = Key::default();
            key[..8].copy_from_slice(&(n as u64).to_le_bytes());
            remembered.keep(key, 0, verified(100));
            if n % 1_000 == 0 {
                assert!(remembered.find(&used, 0, 0, 0).is_some(), "{n}");
            }
        }
        let halves = remembered.0.lock().unwrap();
        assert!(halves.young.len() + halves.old.len() <= ENTRIES_MAX);
    }
}
