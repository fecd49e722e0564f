//! What a token is found to be when somebody asks.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use sluice_identity::claims::Claims;
use sluice_identity::token::TokenError;

use super::mint::time;
use crate::context::Vault;

/// What validation found. `reason` is one of `expired`, `revoked`, `invalid`.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// What whoever showed it must hold too: it cannot be seen from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Bound>,
}

/// The certificate that a token is bound to, as its claim `cnf` says it.
#[derive(Debug, Serialize)]
pub(crate) struct Bound {
    #[serde(rename = "x5t#S256")]
    certificate: String,
}

impl Bound {
    /// Of verified claims.
    pub(crate) fn of(claims: &Claims) -> Option<Self> {
        claims.bound.map(|digest| Self { certificate: URL_SAFE_NO_PAD.encode(digest) })
    }

    pub(crate) fn into_text(self) -> String {
        self.certificate
    }
}

impl Vault {
    /// Says whether a token is good here and now. Anybody who holds a token may ask.
    pub(crate) fn validate(&self, token: &str) -> Verdict {
        let verdict = match self.trust.verify_again(token) {
            Ok(claims) => Verdict {
                valid: true,
                reason: None,
                service_name: Some(claims.sub.clone()),
                permissions: Some(claims.grants.iter().map(str::to_owned).collect()),
                issued_at: claims.iat.map(time),
                expires_at: Some(time(claims.exp)),
                jti: claims.jti.clone(),
                cnf: Bound::of(&claims),
            },
            Err(error) => Verdict {
                valid: false,
                reason: Some(match error {
                    TokenError::Expired => "expired",
                    TokenError::Revoked => "revoked",
                    _ => "invalid",
                }),
                service_name: None,
                permissions: None,
                issued_at: None,
                expires_at: None,
                jti: None,
                cnf: None,
            },
        };
        self.figures.validations.with_label_values(&[verdict.reason.unwrap_or("valid")]).inc();
        verdict
    }
}
