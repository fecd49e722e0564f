//! The claims of a verified token.

use serde::{Deserialize, Deserializer};

use crate::grants::{GRANTS_MAX, Grants};

/// What a verified token says. Made by [`crate::token::verify`] only.
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

/// NumericDate: a JSON number, whole or with a fraction (older issuers send floats).
fn time<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<i64>, D::Error> {
    const FAR_FUTURE_S: f64 = 253_402_300_799.0; // 9999-12-31
    let seconds = f64::deserialize(raw)?;
    if !(0.0..=FAR_FUTURE_S).contains(&seconds) {
        return Err(serde::de::Error::custom("time out of range"));
    }
    Ok(Some(seconds as i64))
}
