//! The claims of a verified token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer};

use crate::certificate::ClientCertificate;
use crate::grants::{GRANTS_MAX, Grants};

/// What a verified token or certificate says. Made by [`crate::token::verify`] and
/// [`Claims::of_certificate`] only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who the token is about.
    pub sub: String,
    /// Account of the subject where it differs.
    pub account: Option<String>,
    /// Token id.
    pub jti: Option<String>,
    /// Issued at, unix seconds.
    pub iat: Option<i64>,
    /// Expires at, unix seconds.
    pub exp: i64,
    /// What the subject may do.
    pub grants: Grants,
    /// Signed with the shared legacy secret: such tokens are believed on service routes only.
    pub legacy: bool,
    /// SHA-256 of the one client certificate it may be shown with (RFC 8705, `cnf`); `None`: any, or none.
    pub bound: Option<[u8; 32]>,
}

impl Claims {
    /// The claims of a service's certificate: its SPIFFE id is the subject; in our own trust domain, and in no other,
    /// its name is the account. `None` for a certificate that names no service of any trust domain (a role is no
    /// client), or whose id does not fit in a header. Chain, time and revocation are the caller's to check.
    pub fn of_certificate(
        certificate: &ClientCertificate,
        trust_domain: &str,
        grants: Grants,
    ) -> Option<Self> {
        let id = certificate.spiffe.as_ref()?;
        id.service()?;
        let sub = id.to_string();
        is_subject(&sub).then_some(Self {
            sub,
            account: id.service_in(trust_domain).map(str::to_owned),
            jti: None,
            iat: Some(certificate.not_before_unix_s),
            exp: certificate.not_after_unix_s,
            grants,
            legacy: false,
            bound: None,
        })
    }

    /// Whether what was shown on a connection with this client certificate (or none) may be believed there.
    pub fn is_held_by(&self, certificate: Option<&ClientCertificate>) -> bool {
        match &self.bound {
            None => true,
            Some(bound) => certificate.is_some_and(|shown| shown.fingerprint == *bound),
        }
    }
}

/// A subject travels in a header: visible ASCII without spaces, at most 128 bytes.
pub(crate) fn is_subject(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Claims as they stand in the token. Every wrong type is an error, every duplicate too.
#[derive(Deserialize)]
pub(crate) struct RawClaims {
    pub(crate) iss: Option<String>,
    pub(crate) sub: Option<String>,
    #[serde(default, deserialize_with = "audience")]
    pub(crate) aud: Option<Vec<String>>,
    #[serde(default, deserialize_with = "time")]
    pub(crate) exp: Option<i64>,
    #[serde(default, deserialize_with = "time")]
    pub(crate) nbf: Option<i64>,
    #[serde(default, deserialize_with = "time")]
    pub(crate) iat: Option<i64>,
    pub(crate) jti: Option<String>,
    pub(crate) scope: Option<String>,
    pub(crate) permissions: Option<Vec<String>>,
    pub(crate) account: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) user_id: Option<String>,
    #[serde(default, deserialize_with = "confirmation")]
    pub(crate) cnf: Option<[u8; 32]>,
}

impl RawClaims {
    /// Grants are the union of `scope` and `permissions`; more than the limit is `None`.
    pub(crate) fn grants(&self) -> Option<Grants> {
        let words = self.scope.iter().flat_map(|scope| scope.split(' ').filter(|word| !word.is_empty()));
        let listed = self.permissions.iter().flatten().map(String::as_str);
        let words: Vec<&str> = words.chain(listed).collect();
        (words.len() <= GRANTS_MAX).then(|| words.into_iter().collect())
    }
}

fn audience<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(Some(match Audience::deserialize(raw)? {
        Audience::One(name) => vec![name],
        Audience::Many(names) => names,
    }))
}

/// The only confirmation that can be checked here: a token that asks for another one is refused.
fn confirmation<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<[u8; 32]>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Confirmation {
        #[serde(rename = "x5t#S256")]
        certificate: String,
    }
    let Confirmation { certificate } = Confirmation::deserialize(raw)?;
    let digest = URL_SAFE_NO_PAD.decode(certificate).ok().and_then(|bytes| bytes.try_into().ok());
    digest.map(Some).ok_or_else(|| serde::de::Error::custom("not the SHA-256 of a certificate"))
}

/// NumericDate: a JSON number, whole or with a fraction (older issuers send floats).
fn time<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<i64>, D::Error> {
    const FAR_FUTURE_S: f64 = 253_402_300_799.0; // 9999-12-31
    let seconds = f64::deserialize(raw)?;
    if !(0.0..=FAR_FUTURE_S).contains(&seconds) {
        return Err(serde::de::Error::custom("time out of range"));
    }
    Ok(Some(seconds as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(id: &str) -> ClientCertificate {
        ClientCertificate {
            spiffe: id.parse().ok(),
            serial: "4a".into(),
            not_before_unix_s: 10,
            not_after_unix_s: 100,
            subject: "CN=bot".into(),
            fingerprint: [0; 32],
        }
    }

    #[test]
    fn a_bound_token_is_for_its_certificate_alone() {
        let shown = certificate("spiffe://sluice.internal/service/bot");
        let free = Claims::of_certificate(&shown, "sluice.internal", Grants::default()).unwrap();
        assert!(free.is_held_by(None) && free.is_held_by(Some(&shown)));
        let bound = Claims { bound: Some([0; 32]), ..free };
        assert!(bound.is_held_by(Some(&shown)) && !bound.is_held_by(None));
        let mut other = shown;
        other.fingerprint[31] = 1;
        assert!(!bound.is_held_by(Some(&other)));
    }

    #[test]
    fn certificate_of_a_service_gives_claims_and_no_other_does() {
        let id = "spiffe://sluice.internal/service/bot";
        let of = |id: &str, grants| Claims::of_certificate(&certificate(id), "sluice.internal", grants);
        let claims = of(id, "trade".parse().unwrap_or_default()).unwrap();
        assert_eq!((claims.sub.as_str(), claims.account.as_deref()), (id, Some("bot")));
        assert_eq!((claims.iat, claims.exp, claims.legacy), (Some(10), 100, false));
        assert!(claims.grants.covers("trade") && claims.jti.is_none());
        let long = format!("spiffe://{}/service/bot", "d".repeat(120));
        for other in ["", "spiffe://sluice.internal/role/edge", "spiffe://sluice.internal/service/a/b", &long]
        {
            assert_eq!(of(other, Grants::default()), None, "{other}");
        }
        let strange = of("spiffe://partner.example/service/bot", Grants::default()).unwrap();
        assert_eq!((strange.sub.as_str(), strange.account), ("spiffe://partner.example/service/bot", None));
    }
}
