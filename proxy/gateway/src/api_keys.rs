//! Keys of external clients: what they show is looked up by its SHA-256 digest, which is all that is kept.
//!
//! What a guess costs in time tells of its own digest alone, from which no key can be found. Callers are made
//! once a generation.

use std::sync::Arc;

use ring::digest;
use sluice_identity::claims::Claims;
use sluice_policy::api_key::{Digest, Keys};
use sluice_schema::ApiKey;

use crate::jwt_cache::Verified;

/// `x-auth-method` of those who show a key.
pub(crate) const METHOD: &str = "api_key";

/// The callers that a configuration knows by a key.
#[derive(Default)]
pub(crate) struct ApiKeys {
    known: Keys<Arc<Verified>>,
}

impl ApiKeys {
    /// The keys of a configuration, whose names and permissions were checked.
    pub(crate) fn new(keys: &[ApiKey]) -> Self {
        Self { known: keys.iter().filter_map(|key| Some((key.sha256, caller(key)?))).collect() }
    }

    /// Whether there is none: then nobody looks at what clients send.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Who shows this key.
    pub(crate) fn find(&self, shown: &[u8]) -> Option<&Arc<Verified>> {
        self.known.find(shown, sha256)
    }

    /// Whether a caller came by a key that is not among these, or may do something else by it now.
    pub(crate) fn forgot(&self, caller: &Verified) -> bool {
        let Some(digest) = &caller.api_key else { return false };
        self.known.forgot(digest, |known| known.claims == caller.claims)
    }
}

fn sha256(shown: &[u8]) -> Digest {
    digest::digest(&digest::SHA256, shown).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A key has no end of its own: it is taken out of the file, or its name is revoked.
fn caller(key: &ApiKey) -> Option<Arc<Verified>> {
    let claims = Claims {
        sub: key.name.clone(),
        account: None,
        jti: None,
        iat: None,
        exp: i64::MAX,
        grants: key.permissions.iter().map(String::as_str).collect(),
        legacy: false,
        bound: None,
    };
    Verified::of_key(claims, METHOD, key.sha256)
}

#[cfg(test)]
mod tests {
    use sluice_policy::api_key::KEY_BYTES_MAX;

    use super::*;

    fn key(name: &str, shown: &str) -> ApiKey {
        let digest = digest::digest(&digest::SHA256, shown.as_bytes());
        let sha256 = digest.as_ref().try_into().unwrap();
        ApiKey { name: name.to_owned(), sha256, permissions: vec!["read".to_owned()] }
    }

    #[test]
    fn a_key_is_found_by_what_is_shown_and_by_nothing_else() {
        let keys = ApiKeys::new(&[key("desk", "k-1"), key("risk", "k-2")]);
        let name = |shown: &str| keys.find(shown.as_bytes()).map(|caller| caller.claims.sub.clone());
        assert_eq!((name("k-1").as_deref(), name("k-2").as_deref()), (Some("desk"), Some("risk")));
        let digest: String = key("desk", "k-1").sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        for strange in ["", "k-3", "K-1", "k-1 ", &digest, &"x".repeat(KEY_BYTES_MAX + 1)] {
            assert_eq!(name(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn who_came_by_a_key_is_forgotten_with_it() {
        let keys = ApiKeys::new(&[key("desk", "k-1")]);
        let caller = keys.find(b"k-1").unwrap();
        assert!(!keys.forgot(caller) && !ApiKeys::new(&[key("desk", "k-1")]).forgot(caller));
        let fewer = ApiKey { permissions: Vec::new(), ..key("desk", "k-1") };
        for others in [vec![], vec![key("desk", "k-2")], vec![key("risk", "k-1")], vec![fewer]] {
            assert!(ApiKeys::new(&others).forgot(caller), "{others:?}");
        }
        let token = Verified::new(caller.claims.clone(), "token").unwrap();
        assert!(!ApiKeys::default().forgot(&token), "who shows a token needs no key");
    }
}
