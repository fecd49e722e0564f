//! The tables of the store and what a row of each is about.

use redb::TableDefinition;

use crate::seal::Place;

pub(crate) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// LIMIT: rows of a table that one sweep removes: a slice between which others use the store.
pub(crate) const SWEEP_MAX: usize = 256;

/// Mount of the secrets.
const SECRET_MOUNT: &str = "secret";

/// A table of the store. Keys are plain, values are sealed except where noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// `head`: sequence, digests, feed and CRL numbers; `pending`: audit entries of the last commit.
    Meta,
    /// Wrapped keys, opened by the root key.
    Keyring,
    /// CA certificates and keys: `root`, `intermediate/<hex of not_before>`.
    Authority,
    /// Token signing keys by key id.
    Signing,
    /// Issued tokens by `jti`.
    Token,
    /// `s‖subject‖0‖jti`, `x‖expiry‖jti`; no values.
    TokenIndex,
    /// Issued certificates: `service‖0‖issue time‖serial`.
    Credential,
    /// Serial to the key in `Credential`.
    Serial,
    /// `expiry‖serial` of certificates; no values.
    CredentialExpiry,
    /// SHA-256 of a certificate's public key to the service it belongs to.
    LeafKey,
    /// `jti/…`, `sub/…`, `serial/…`: what must no longer be believed, and until when that matters.
    Revoked,
    /// A secret's current version and the state of each version, by path.
    SecretHead,
    /// A secret's values: `path‖0‖version`.
    SecretVersion,
    /// Events that wait for the event worker, by number.
    Outbox,
    /// Keys of other roles' stores: `role/` and the number, four bytes big endian.
    StoreKey,
    /// OAuth clients: `client/name`; used assertions: `used/‖end‖digest‖client`, no values.
    Oauth,
    /// Services that are shut out, by name.
    Quarantine,
    /// Tokens of Vault's API, by HMAC (hex).
    ApiToken,
    /// `a/accessor/token`, `p/parent/token`, `x/end/token`; no values.
    ApiTokenIndex,
    /// What else Vault's API keeps, by path: policies, roles, users, keys, wrapped answers.
    Logical,
    /// `end‖key` of rows of `Logical` that end; no values.
    LogicalExpiry,
    /// What ACME keeps, by path: binding keys, accounts, orders; `end/‖end‖key` of orders, no values.
    Acme,
    /// What an identity holds: `kind/identity`, eight bytes big endian.
    Quota,
}

impl Table {
    /// Every table.
    pub(crate) const ALL: [Self; 23] = [
        Self::Meta,
        Self::Keyring,
        Self::Authority,
        Self::Signing,
        Self::Token,
        Self::TokenIndex,
        Self::Credential,
        Self::Serial,
        Self::CredentialExpiry,
        Self::LeafKey,
        Self::Revoked,
        Self::SecretHead,
        Self::SecretVersion,
        Self::Outbox,
        Self::StoreKey,
        Self::Oauth,
        Self::Quarantine,
        Self::ApiToken,
        Self::ApiTokenIndex,
        Self::Logical,
        Self::LogicalExpiry,
        Self::Acme,
        Self::Quota,
    ];

    /// Its name in the file and in sealed places.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Keyring => "keyring",
            Self::Authority => "authority",
            Self::Signing => "signing",
            Self::Token => "token",
            Self::TokenIndex => "token_index",
            Self::Credential => "credential",
            Self::Serial => "serial",
            Self::CredentialExpiry => "credential_expiry",
            Self::LeafKey => "leaf_key",
            Self::Revoked => "revoked",
            Self::SecretHead => "secret_head",
            Self::SecretVersion => "secret_version",
            Self::Outbox => "outbox",
            Self::StoreKey => "store_key",
            Self::Oauth => "oauth",
            Self::Quarantine => "quarantine",
            Self::ApiToken => "api_token",
            Self::ApiTokenIndex => "api_token_index",
            Self::Logical => "logical",
            Self::LogicalExpiry => "logical_expiry",
            Self::Acme => "acme",
            Self::Quota => "quota",
        }
    }

    pub(crate) const fn definition(self) -> Definition {
        TableDefinition::new(self.name())
    }

    /// Whether the row digest covers it. `Meta` carries the digest, `Keyring` the digest's key.
    pub(crate) const fn is_digested(self) -> bool {
        !matches!(self, Self::Meta | Self::Keyring)
    }

    /// What the row with this key is about.
    pub(crate) fn place(self, key: &[u8]) -> Place<'_> {
        let plain = Place { table: self.name(), mount: "", tenant: "", path: key, version: 0 };
        match self {
            Self::SecretHead => Place { mount: SECRET_MOUNT, tenant: tenant(key), ..plain },
            Self::SecretVersion => {
                let split = key.len().saturating_sub(9);
                let path = &key[..split];
                let version = key.get(split + 1..).and_then(|version| version.try_into().ok());
                let version = version.map_or(0, u64::from_be_bytes);
                Place { mount: SECRET_MOUNT, tenant: tenant(path), path, version, ..plain }
            }
            _ => plain,
        }
    }
}

/// The service in `services/<name>/…`, or nothing.
fn tenant(path: &[u8]) -> &str {
    let text = std::str::from_utf8(path).unwrap_or("");
    text.strip_prefix("services/").and_then(|rest| rest.split('/').next()).unwrap_or("")
}
