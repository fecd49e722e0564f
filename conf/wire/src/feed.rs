//! The feed of the vault: verification keys and revocations for every other role.

use serde::{Deserialize, Serialize};

/// A public verification key (P-256), RFC 7517.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// Key type, `EC`.
    pub kty: String,
    /// Curve, `P-256`.
    pub crv: String,
    /// X coordinate, base64url.
    pub x: String,
    /// Y coordinate, base64url.
    pub y: String,
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// `sig`.
    #[serde(rename = "use", default = "sig")]
    pub usage: String,
    /// `ES256`.
    #[serde(default = "es256")]
    pub alg: String,
}

fn sig() -> String {
    "sig".into()
}

fn es256() -> String {
    "ES256".into()
}

/// What must no longer be believed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Token ids.
    pub jti: Vec<String>,
    /// Subjects, each with the time before which its tokens are void.
    pub sub: Vec<RevokedSubject>,
    /// Certificate serials, lower-case hex.
    pub serial: Vec<String>,
    /// Identities, each with the time before which its certificates are void.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identity: Vec<RevokedIdentity>,
}

/// A SPIFFE id whose certificates from before a time are void, however many they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedIdentity {
    /// The id: `spiffe://trust domain/service/name`.
    pub id: String,
    /// Unix seconds; certificates with `notBefore` before it are void.
    pub valid_from: i64,
}

/// A piece of the revocations in force. On the wire: the SSE event `part`; those before a snapshot belong to it, so
/// that no event of the stream grows with what is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What is to be added to the next snapshot.
    pub revoked: Revoked,
}

impl Revoked {
    /// Takes in what another holds.
    pub fn add(&mut self, more: Self) {
        self.jti.extend(more.jti);
        self.sub.extend(more.sub);
        self.serial.extend(more.serial);
        self.identity.extend(more.identity);
    }

    /// How many revocations these are.
    pub fn len(&self) -> usize {
        self.jti.len() + self.sub.len() + self.serial.len() + self.identity.len()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A subject whose tokens issued at or before a time are void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedSubject {
    /// The subject.
    pub sub: String,
    /// Unix seconds; tokens with `iat` at or before it are void.
    pub issued_until: i64,
}

/// Everything a verifier needs, at one sequence number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Changes when the vault's state was made anew; numbers of different epochs do not compare.
    pub epoch: String,
    /// Number of the last change contained.
    pub seq: u64,
    /// Verification keys, current and next.
    pub jwks: Vec<Jwk>,
    /// Revocations in force, beside those of the parts before.
    pub revoked: Revoked,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Epoch it belongs to.
    pub epoch: String,
    /// Its number: the previous plus one.
    pub seq: u64,
    /// What changed.
    pub change: Change,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// A token was revoked.
    Jti {
        /// Token id.
        jti: String,
    },
    /// A subject's tokens were revoked.
    Sub(RevokedSubject),
    /// A certificate was revoked.
    Serial {
        /// Serial, lower-case hex.
        serial: String,
    },
    /// All certificates of an identity until now were revoked.
    Identity(RevokedIdentity),
    /// The set of verification keys is now this.
    Keys {
        /// All keys in force.
        jwks: Vec<Jwk>,
    },
}

/// One message of the feed. On the wire: the SSE events `snapshot`, `delta`, `heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The whole state.
    Snapshot(Snapshot),
    /// The next change.
    Delta(Delta),
    /// Nothing new; the vault lives.
    Heartbeat,
}

impl Message {
    /// Reads the name and data of an SSE event; unknown names are `None`.
    pub fn parse(event: &str, data: &str) -> Option<Result<Self, serde_json::Error>> {
        match event {
            "snapshot" => Some(serde_json::from_str(data).map(Self::Snapshot)),
            "delta" => Some(serde_json::from_str(data).map(Self::Delta)),
            "heartbeat" => Some(Ok(Self::Heartbeat)),
            _ => None,
        }
    }
}
