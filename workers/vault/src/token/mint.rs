//! Making one token: claims and signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sluice_identity::grants::Grants;

use super::signer::Signers;
use crate::error::VaultError;

/// The longest life any token gets.
pub(crate) const TTL_MAX: SignedDuration = SignedDuration::from_hours(24 * 30);

/// What a token is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft<'a> {
    pub(super) issuer: &'a str,
    pub(super) subject: &'a str,
    /// The client that asked for it.
    pub(super) client: &'a str,
    /// The service it is for, when the subject is one.
    pub(super) service: Option<&'a str>,
    pub(super) audience: &'a [String],
    pub(super) grants: &'a Grants,
    /// The certificate it is bound to.
    pub(super) bound: Option<&'a str>,
    pub(super) jti: &'a str,
    pub(super) issued_s: i64,
    pub(super) expires_s: i64,
}

/// The header of everything that is signed here, and no member more: SPIFFE refuses any other.
#[derive(Serialize)]
pub(super) struct Header<'a> {
    pub(super) alg: &'a str,
    pub(super) typ: &'a str,
    pub(super) kid: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a [String],
    exp: i64,
    iat: i64,
    nbf: i64,
    jti: &'a str,
    client_id: &'a str,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    permissions: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation<'a>>,
}

/// What a token is bound to (RFC 8705, 3.1): the SHA-256 of a certificate, base64url.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Confirmation<'a> {
    #[serde(rename = "x5t#S256")]
    pub(crate) certificate: &'a str,
}

impl Draft<'_> {
    /// The signed token, RFC 9068 profile; `service` and `permissions` are for older clients.
    pub(super) fn sign(&self, signers: &Signers) -> Result<String, VaultError> {
        let header = Header { alg: "ES256", typ: "at+jwt", kid: signers.kid() };
        let claims = Claims {
            iss: self.issuer,
            sub: self.subject,
            aud: self.audience,
            exp: self.expires_s,
            iat: self.issued_s,
            nbf: self.issued_s,
            jti: self.jti,
            client_id: self.client,
            scope: self.grants.to_header(),
            service: self.service,
            permissions: self.grants.iter().collect(),
            cnf: self.bound.map(|certificate| Confirmation { certificate }),
        };
        compact(&header, &claims, signers)
    }
}

/// A signed JWS in its compact form.
pub(super) fn compact(
    header: &impl Serialize,
    claims: &impl Serialize,
    signers: &Signers,
) -> Result<String, VaultError> {
    let mut token = format!("{}.{}", part(header), part(claims));
    let signature = signers.sign(token.as_bytes())?;
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(signature));
    Ok(token)
}

fn part(value: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("strings and numbers always serialise"))
}

/// A life in a request: whole seconds, or text such as `15m`, `12h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ttl(pub(crate) SignedDuration);

impl Ttl {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let seconds = match &text[digits.len()..] {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        if !(1..=9).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        digits.parse::<i64>().ok().map(|count| Self(SignedDuration::from_secs(count * seconds)))
    }
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Seconds(u32),
            Text(String),
        }
        let wrong =
            || serde::de::Error::custom("ttl is whole seconds or text such as \"15m\", \"12h\", \"7d\"");
        match Raw::deserialize(deserializer).map_err(|_| wrong())? {
            Raw::Seconds(seconds) => Ok(Self(SignedDuration::from_secs(i64::from(seconds)))),
            Raw::Text(text) => Self::parse(&text).ok_or_else(wrong),
        }
    }
}

/// Whole seconds as RFC 3339.
pub(super) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttl_is_seconds_or_a_number_with_a_unit() {
        let ttl = |json: &str| serde_json::from_str::<Ttl>(json).map(|ttl| ttl.0.as_secs()).ok();
        assert_eq!(ttl("90"), Some(90));
        assert_eq!(ttl("\"90\""), Some(90));
        assert_eq!(ttl("\"15m\""), Some(900));
        assert_eq!(ttl("\"7d\""), Some(604_800));
        for bad in [
            "-1",
            "1.5",
            "1e3",
            "\"\"",
            "\"m\"",
            "\"1w\"",
            "\"-1h\"",
            "\"9999999999d\"",
            "\"1 h\"",
            "null",
            "[]",
        ] {
            assert_eq!(ttl(bad), None, "{bad}");
        }
    }
}
