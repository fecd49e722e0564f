//! A verified caller, as handlers see it.

use sluice_wire::role::Role;

use crate::claims::Claims;
use crate::grants::Grants;
use crate::proof::Proof;

/// How a caller was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A token of the vault.
    Token,
    /// A token signed with the legacy secret.
    LegacyToken,
    /// A client certificate.
    Certificate,
    /// A role speaking for itself on an internal door.
    Role(Role),
    /// The edge vouches for its verified client.
    Edge,
    /// The edge vouches for a client that showed a key of its configuration.
    ApiKey,
}

impl Via {
    /// The word of `x-auth-method` and of audit lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::LegacyToken => "legacy_token",
            Self::Certificate => "mtls",
            Self::Role(_) => "role",
            Self::Edge => "edge",
            Self::ApiKey => "api_key",
        }
    }
}

/// A verified caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is: the `sub` of its token, or `role/<name>`.
    pub subject: String,
    /// The account it acts for: claim `account`, else the subject.
    pub account: String,
    /// What it may do.
    pub grants: Grants,
    /// How it was verified.
    pub via: Via,
    /// Id of its token.
    pub jti: Option<String>,
    /// Serial of its certificate.
    pub serial: Option<String>,
    /// When its token or certificate was issued, unix seconds; `None` where neither was seen.
    pub issued_at_s: Option<i64>,
    /// When that ends, unix seconds.
    pub expires_at_s: Option<i64>,
}

impl Caller {
    /// The caller of verified claims.
    pub fn from_claims(claims: &Claims) -> Self {
        Self {
            subject: claims.sub.clone(),
            account: claims.account.clone().unwrap_or_else(|| claims.sub.clone()),
            grants: claims.grants.clone(),
            via: if claims.legacy { Via::LegacyToken } else { Via::Token },
            jti: claims.jti.clone(),
            serial: None,
            issued_at_s: claims.iat,
            expires_at_s: Some(claims.exp),
        }
    }

    /// A role speaking for itself. Its rights are what its work needs, no more.
    pub fn role(role: Role) -> Self {
        let words: &[&str] = match role {
            Role::Edge => &["events:publish", "events:read", "events:source:any", "metrics:read"],
            Role::Vault => &["events:publish", "events:source:any"],
            Role::Events | Role::Calc => &["events:publish", "events:read", "metrics:read"],
            Role::Demo => &["events:publish", "events:read", "events:source:any", "read", "write"],
            Role::Supervisor => &["metrics:read"],
        };
        let subject = format!("role/{role}");
        Self {
            account: subject.clone(),
            subject,
            grants: words.iter().copied().collect(),
            via: Via::Role(role),
            jti: None,
            serial: None,
            issued_at_s: None,
            expires_at_s: None,
        }
    }

    /// A client that the edge has verified. A legacy token stays one behind the edge: what it may
    /// not do at a worker's own port it may not do through the edge either.
    pub fn forwarded(subject: String, account: Option<String>, grants: Grants, legacy: bool) -> Self {
        let via = if legacy { Via::LegacyToken } else { Via::Edge };
        let account = account.unwrap_or_else(|| subject.clone());
        Self { account, subject, grants, via, jti: None, serial: None, issued_at_s: None, expires_at_s: None }
    }

    /// It with what it showed to whoever vouches for it.
    #[must_use]
    pub fn proven(mut self, proof: Option<Proof>) -> Self {
        let Some(Proof { issued_at_s, expires_at_s, id }) = proof else { return self };
        (self.issued_at_s, self.expires_at_s) = (Some(issued_at_s), Some(expires_at_s));
        match self.via {
            Via::Certificate => self.serial = Some(id),
            _ => self.jti = Some(id),
        }
        self
    }

    /// The role, when a role speaks for itself.
    pub const fn as_role(&self) -> Option<Role> {
        match self.via {
            Via::Role(role) => Some(role),
            _ => None,
        }
    }
}
