//! How callers are believed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::value::Secret;

/// A key by which an external client is known: the digest of what it shows, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name, the subject of its requests.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// What it may do.
    pub permissions: Vec<String>,
}

/// `[auth]`: verification at every port. The vault worker is the one issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// False opens `[[service]]` routes only; registration, control and workers always check.
    pub enabled: bool,
    /// Key of the legacy HS256 tokens; `None` refuses them. At least 32 bytes outside `--dev`.
    pub hs256_secret: Option<Secret>,
    /// Clock difference tolerated in `exp`, `nbf` and `iat`.
    pub leeway: Duration,
    /// Age of the vault's feed past which the edge is degraded.
    pub feed_max_age: Duration,
    /// `[auth.roles]`: a role's name to the permissions it may be given.
    pub roles: BTreeMap<String, Vec<String>>,
    /// `[[auth.api_key]]`: names and digests are unique.
    pub api_keys: Vec<ApiKey>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            enabled: true,
            hs256_secret: None,
            leeway: Duration::from_secs(5),
            feed_max_age: Duration::from_secs(60),
            roles: BTreeMap::new(),
            api_keys: Vec::new(),
        }
    }
}
