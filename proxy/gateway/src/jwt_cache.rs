//! Verified bearer tokens, so that a client's next request does not pay for the signature again.
//!
//! Keyed by SHA-256 of the token; of the token that came last on a connection the bytes themselves are compared
//! ([`LastToken`]), as the hash costs more than all that is decided by it. A hit counts only while the token has not expired and the trust it
//! was verified under is still the present one: any change of keys or revocations makes the entry
//! stale and the token is verified anew. Refusals are not kept: they cost the refused client's budget
//! of failed authentications, and a key that arrives later must take effect at once.
//! LIMIT: [`ENTRIES_MAX`] tokens. Eviction is by generations: when the younger half is full the older
//! half is dropped, and a hit in the older half moves to the younger one.

mod last;

use std::sync::{Arc, Mutex, PoisonError};

use foldhash::HashMap;
use http::HeaderValue;
use ring::digest;
use sluice_identity::caller::Via;
use sluice_identity::claims::Claims;
use sluice_identity::proof::Proof;
use sluice_identity::token::{self, Rules, TokenError};
use sluice_identity::trust::Trust;

pub(crate) use last::LastToken;

/// LIMIT: tokens held in all shards.
const ENTRIES_MAX: usize = 32 << 10;
const SHARDS: usize = 16;
/// Entries of one generation of one shard.
const GENERATION: usize = ENTRIES_MAX / SHARDS / 2;

type Key = [u8; 32];

/// A verified caller with the header values that upstreams get.
#[derive(Debug)]
pub(crate) struct Verified {
    /// What the token says.
    pub(crate) claims: Claims,
    /// `x-user`.
    pub(crate) user: HeaderValue,
    /// `x-permissions`.
    pub(crate) permissions: HeaderValue,
    /// `x-account`, where it differs from the subject.
    pub(crate) account: Option<HeaderValue>,
    /// `x-auth-method`.
    pub(crate) method: &'static str,
    /// What workers learn of the token or certificate, `x-internal-proof`.
    pub(crate) proof: Option<HeaderValue>,
    /// Digest of the API key that it showed, where it did.
    pub(crate) api_key: Option<[u8; 32]>,
}

impl Verified {
    /// A caller as upstreams see it; `None` where that cannot be written in a header.
    pub(crate) fn new(claims: Claims, method: &'static str) -> Option<Arc<Self>> {
        Self::made(claims, method, None, None)
    }

    /// A caller that showed the certificate of this serial.
    pub(crate) fn of_certificate(claims: Claims, serial: &str) -> Option<Arc<Self>> {
        Self::made(claims, Via::Certificate.as_str(), Some(serial), None)
    }

    /// A caller that showed the API key of this digest.
    pub(crate) fn of_key(claims: Claims, method: &'static str, digest: [u8; 32]) -> Option<Arc<Self>> {
        Self::made(claims, method, None, Some(digest))
    }

    fn made(
        claims: Claims,
        method: &'static str,
        serial: Option<&str>,
        api_key: Option<[u8; 32]>,
    ) -> Option<Arc<Self>> {
        let user = HeaderValue::from_str(&claims.sub).ok()?;
        let permissions = HeaderValue::from_str(&claims.grants.to_header()).ok()?;
        let account = match claims.account.as_deref() {
            Some(account) => Some(HeaderValue::from_str(account).ok()?),
            None => None,
        };
        let shown = serial.or(claims.jti.as_deref()).zip(claims.iat);
        let proof = shown.and_then(|(id, issued)| Proof::new(issued, claims.exp, id));
        let proof = proof.and_then(|proof| HeaderValue::from_str(&proof.to_string()).ok());
        Some(Arc::new(Self { claims, user, permissions, account, method, proof, api_key }))
    }
}

#[derive(Clone)]
struct Entry {
    epoch: Arc<str>,
    seq: u64,
    verified: Arc<Verified>,
}

impl Entry {
    /// Whether it was found good under this trust and has not ended at `now_s`, the leeway included.
    fn stands(&self, (epoch, seq): (&str, u64), leeway_s: i64, now_s: i64) -> bool {
        self.seq == seq && *self.epoch == *epoch && now_s < self.verified.claims.exp + leeway_s
    }
}

#[derive(Default)]
struct Shard {
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
}

impl Shard {
    fn find(&mut self, key: &Key) -> Option<Entry> {
        if let Some(entry) = self.young.get(key) {
            return Some(entry.clone());
        }
        let entry = self.old.remove(key)?;
        self.insert(*key, entry.clone());
        Some(entry)
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

/// The cache. Shared by every edge thread; a shard's lock is held for one map operation.
#[derive(Default)]
pub(crate) struct JwtCache {
    shards: [Mutex<Shard>; SHARDS],
}

/// How a token was found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its signature was checked before.
    Cached,
    /// Its signature was checked now.
    Verified,
}

impl JwtCache {
    /// Verifies `token` at `now_s` (unix seconds), from memory where that is sound. `last` is the connection's.
    pub(crate) fn verify(
        &self,
        token: &str,
        last: &LastToken,
        trust: &Trust,
        rules: &Rules,
        now_s: i64,
    ) -> Result<(Arc<Verified>, Found), TokenError> {
        let stands = |entry: &Entry| entry.stands(trust.version(), rules.leeway_s, now_s);
        if let Some(verified) = last.find(token, stands) {
            return Ok((verified, Found::Cached));
        }
        let (entry, found) = self.find(token, trust, rules, now_s)?;
        let verified = Arc::clone(&entry.verified);
        last.keep(token, entry);
        Ok((verified, found))
    }

    fn find(
        &self,
        token: &str,
        trust: &Trust,
        rules: &Rules,
        now_s: i64,
    ) -> Result<(Entry, Found), TokenError> {
        if token.len() > token::TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let key = digest_of(token);
        // A statement of its own: a guard in the condition would be held through the block.
        let found = self.shard(&key).find(&key);
        if let Some(entry) = found {
            if now_s >= entry.verified.claims.exp + rules.leeway_s {
                self.shard(&key).remove(&key);
                return Err(TokenError::Expired);
            }
            if entry.stands(trust.version(), rules.leeway_s, now_s) {
                return Ok((entry, Found::Cached));
            }
        }
        let claims =
            token::verify(token, trust, rules, now_s).inspect_err(|_| self.shard(&key).remove(&key))?;
        let method = if claims.legacy { "legacy_token" } else { "token" };
        let verified = Verified::new(claims, method).ok_or(TokenError::MissingClaim)?;
        let (epoch, seq) = trust.version();
        let entry = Entry { epoch: epoch.into(), seq, verified };
        self.shard(&key).insert(key, entry.clone());
        Ok((entry, Found::Verified))
    }

    fn shard(&self, key: &Key) -> std::sync::MutexGuard<'_, Shard> {
        self.shards[usize::from(key[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest_of(token: &str) -> Key {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 is 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_http::TrustCell;
    use sluice_identity::claims::Claims;
    use sluice_identity::grants::Grants;
    use sluice_schema::Config;
    use sluice_wire::role::Role;

    fn entry(exp: i64, seq: u64) -> Entry {
        let claims = Claims {
            sub: "bot".into(),
            account: None,
            jti: None,
            iat: Some(0),
            exp,
            grants: Grants::default(),
            legacy: false,
            bound: None,
        };
        Entry { epoch: "".into(), seq, verified: Verified::new(claims, "token").unwrap() }
    }

    #[test]
    fn an_expired_entry_is_refused_and_forgotten() {
        let cache = JwtCache::default();
        let key = digest_of("token");
        cache.shard(&key).insert(key, entry(100, 0));
        let cell = TrustCell::new(&Config::default(), Role::Edge);
        let last = LastToken::default();
        let verify = |now_s| cache.verify("token", &last, &Trust::empty(), cell.rules(), now_s);
        assert_eq!(verify(104).unwrap().1, Found::Cached, "within the leeway");
        assert!(last.find("token", |_| true).is_some());
        assert_eq!(verify(105).err(), Some(TokenError::Expired));
        assert!(cache.shard(&key).find(&key).is_none());
    }

    #[test]
    fn what_a_connection_remembers_is_judged_anew_each_time() {
        let (cache, last) = (JwtCache::default(), LastToken::default());
        let cell = TrustCell::new(&Config::default(), Role::Edge);
        let verify =
            |token: &str, now_s| cache.verify(token, &last, &Trust::empty(), cell.rules(), now_s).map(|_| ());
        last.keep("token", entry(100, 0));
        assert_eq!(verify("token", 99), Ok(()));
        assert!(verify("tokem", 99).is_err(), "another token");
        assert!(verify("token", 105).is_err(), "its end has come");
        last.keep("token", entry(100, 7));
        assert!(verify("token", 99).is_err(), "trust has changed since");
        last.keep(&"x".repeat(4096), entry(100, 0));
        assert!(last.find(&"x".repeat(4096), |_| true).is_none(), "too long to be remembered");
    }
}
