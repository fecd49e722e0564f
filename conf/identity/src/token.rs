//! Verification of bearer tokens: compact JWS, ES256 by published key, HS256 by the legacy secret.
//!
//! The algorithm is fixed by the key, never by the token: a token names a key id, the key decides
//! how it is checked. Refused before any cryptography: more than 8 KiB, other than three
//! base64url parts, header members beside `alg`, `kid`, `typ`, `cty`-free, duplicate or wrongly
//! typed claims. A strict verifier of our own on ring rather than a general library: those accept
//! `crit`, skip claims of the wrong type and parse header and claims twice.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{hmac, signature};
use serde::Deserialize;

use crate::claims::{Claims, RawClaims, is_subject};
use crate::jwk::{KID_BYTES_MAX, PublicKey};
use crate::trust::Trust;

/// Longest accepted token, bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The shared secret of the platforms' older tokens. No Debug: it is a secret.
#[derive(Clone)]
pub struct HsKey(hmac::Key);

impl HsKey {
    /// A key from the secret's bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

/// What a token must satisfy beside its signature.
#[derive(Clone)]
pub struct Rules {
    /// Required `iss`.
    pub issuer: String,
    /// Accepted audiences: one of the token's must be among them.
    pub audiences: Vec<String>,
    /// Tolerated clock difference, seconds.
    pub leeway_s: i64,
    /// Legacy secret; `None` refuses HS256.
    pub hs256: Option<HsKey>,
    /// Longest accepted `exp - iat` of a legacy token, seconds.
    pub legacy_lifetime_max_s: i64,
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than 8 KiB.
    #[error("token is longer than 8 KiB")]
    TooLong,
    /// Not three base64url parts with the expected JSON inside.
    #[error("token is malformed")]
    Malformed,
    /// A header member that Sluice does not accept.
    #[error("token header has a member that is not accepted")]
    Header,
    /// The algorithm does not fit the key.
    #[error("token algorithm is not accepted")]
    Algorithm,
    /// No keys are known yet.
    #[error("no verification keys yet")]
    NoKeys,
    /// The key id is unknown.
    #[error("token key is unknown")]
    UnknownKey,
    /// The signature does not fit.
    #[error("token signature is wrong")]
    BadSignature,
    /// A required claim is missing or has the wrong type.
    #[error("token lacks a required claim")]
    MissingClaim,
    /// Past `exp`.
    #[error("token has expired")]
    Expired,
    /// Before `nbf` or `iat`.
    #[error("token is not valid yet")]
    NotYetValid,
    /// Another issuer.
    #[error("token issuer is not accepted")]
    WrongIssuer,
    /// Meant for others.
    #[error("token audience is not accepted")]
    WrongAudience,
    /// Lives longer than allowed.
    #[error("token lifetime is too long")]
    Lifetime,
    /// A legacy token with a grant that such tokens may not carry.
    #[error("legacy token carries a grant it may not have")]
    LegacyGrant,
    /// Revoked by id or subject.
    #[error("token was revoked")]
    Revoked,
    /// Bound to a certificate that its connection does not show.
    #[error("token is bound to another certificate")]
    OtherCertificate,
}

impl TokenError {
    /// Bounded word for metrics and logs.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Header => "header",
            Self::Algorithm => "algorithm",
            Self::NoKeys => "no_keys",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::MissingClaim => "missing_claim",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::Lifetime => "lifetime",
            Self::LegacyGrant => "legacy_grant",
            Self::Revoked => "revoked",
            Self::OtherCertificate => "other_certificate",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) alg: String,
    pub(crate) kid: Option<String>,
    typ: Option<String>,
}

/// Verifies a token at a time (unix seconds) and returns its claims. Whether it is [held](Claims::is_held_by) by whoever
/// shows it is the caller's to check: a token may be asked about by others.
pub fn verify(token: &str, trust: &Trust, rules: &Rules, now_s: i64) -> Result<Claims, TokenError> {
    verify_for(token, trust, rules, Some(&rules.audiences), now_s)
}

/// The same for whoever it is meant: what this issuer gave out, to be ended, not to be believed.
pub fn verify_issued(token: &str, trust: &Trust, rules: &Rules, now_s: i64) -> Result<Claims, TokenError> {
    verify_for(token, trust, rules, None, now_s)
}

fn verify_for(
    token: &str,
    trust: &Trust,
    rules: &Rules,
    audiences: Option<&Vec<String>>,
    now_s: i64,
) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLong);
    }
    if !trust.has_keys() {
        // Without a snapshot revocations are unknown too: a legacy token must not pass either.
        return Err(TokenError::NoKeys);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header = parse_header(header, &["JWT", "jwt", "at+jwt", "AT+JWT"])?;
    let signature = decode(signature)?;
    let payload = decode(payload)?;
    let legacy = match header.alg.as_str() {
        "ES256" => {
            verify_es256(key_for(&header, trust)?, signed, &signature)?;
            false
        }
        "HS256" => {
            let key = rules.hs256.as_ref().ok_or(TokenError::Algorithm)?;
            hmac::verify(&key.0, signed.as_bytes(), &signature).map_err(|_| TokenError::BadSignature)?;
            true
        }
        _ => return Err(TokenError::Algorithm),
    };
    let raw: RawClaims = serde_json::from_slice(&payload).map_err(|_| TokenError::MissingClaim)?;
    let claims = if legacy { legacy_claims(&raw, rules)? } else { issued_claims(&raw, rules, audiences)? };
    check_times(&raw, claims.exp, rules.leeway_s, now_s)?;
    if trust.is_revoked(&claims) {
        return Err(TokenError::Revoked);
    }
    Ok(claims)
}

pub(crate) fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    // The engine refuses padding and non-zero trailing bits: one token has one spelling.
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}

/// A header whose `typ`, where it has one, is among `types`.
pub(crate) fn parse_header(part: &str, types: &[&str]) -> Result<Header, TokenError> {
    let header: Header = serde_json::from_slice(&decode(part)?)
        .map_err(|error| if error.is_data() { TokenError::Header } else { TokenError::Malformed })?;
    let fits = header.typ.as_deref().is_none_or(|typ| types.contains(&typ));
    if fits { Ok(header) } else { Err(TokenError::Header) }
}

fn key_for<'a>(header: &Header, trust: &'a Trust) -> Result<&'a PublicKey, TokenError> {
    match &header.kid {
        Some(kid) if kid.len() <= KID_BYTES_MAX => trust.key(kid),
        Some(_) => None,
        None => trust.sole_key(),
    }
    .ok_or(TokenError::UnknownKey)
}

fn verify_es256(key: &PublicKey, signed: &str, signature: &[u8]) -> Result<(), TokenError> {
    signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, &key.point)
        .verify(signed.as_bytes(), signature)
        .map_err(|_| TokenError::BadSignature)
}

fn issued_claims(
    raw: &RawClaims,
    rules: &Rules,
    audiences: Option<&Vec<String>>,
) -> Result<Claims, TokenError> {
    let sub = raw.sub.as_deref().filter(|sub| is_subject(sub)).ok_or(TokenError::MissingClaim)?;
    let exp = raw.exp.ok_or(TokenError::MissingClaim)?;
    let iss = raw.iss.as_deref().ok_or(TokenError::MissingClaim)?;
    let aud = raw.aud.as_deref().ok_or(TokenError::MissingClaim)?;
    if iss != rules.issuer {
        return Err(TokenError::WrongIssuer);
    }
    if audiences.is_some_and(|ours| !aud.iter().any(|name| ours.contains(name))) {
        return Err(TokenError::WrongAudience);
    }
    claims(raw, sub, exp, false)
}

/// Tokens of the older platforms: `exp` and one of `service`, `user_id`; never an administrator,
/// never a scoped grant, bounded life.
fn legacy_claims(raw: &RawClaims, rules: &Rules) -> Result<Claims, TokenError> {
    let sub = raw.service.as_deref().or(raw.user_id.as_deref()).filter(|sub| is_subject(sub));
    let sub = sub.ok_or(TokenError::MissingClaim)?;
    let exp = raw.exp.ok_or(TokenError::MissingClaim)?;
    let iat = raw.iat.ok_or(TokenError::MissingClaim)?;
    if exp - iat > rules.legacy_lifetime_max_s {
        return Err(TokenError::Lifetime);
    }
    let claims = claims(raw, sub, exp, true)?;
    if claims.grants.iter().any(|grant| grant == "admin" || grant.contains(':')) {
        return Err(TokenError::LegacyGrant);
    }
    Ok(claims)
}

fn claims(raw: &RawClaims, sub: &str, exp: i64, legacy: bool) -> Result<Claims, TokenError> {
    let account = raw.account.clone();
    if account.as_deref().is_some_and(|account| !is_subject(account)) {
        return Err(TokenError::MissingClaim);
    }
    Ok(Claims {
        sub: sub.to_owned(),
        account,
        jti: raw.jti.clone(),
        iat: raw.iat,
        exp,
        grants: raw.grants().ok_or(TokenError::MissingClaim)?,
        legacy,
        bound: raw.cnf,
    })
}

fn check_times(raw: &RawClaims, exp: i64, leeway_s: i64, now_s: i64) -> Result<(), TokenError> {
    if now_s >= exp + leeway_s {
        return Err(TokenError::Expired);
    }
    let earliest = raw.nbf.unwrap_or(0).max(raw.iat.unwrap_or(0));
    if now_s + leeway_s < earliest {
        return Err(TokenError::NotYetValid);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
