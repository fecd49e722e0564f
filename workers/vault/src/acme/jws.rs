//! A signed request (RFC 8555, section 6.2): flattened JSON, one signature, everything that matters under it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::Deserialize;
use serde_json::Value;

use super::key::{AccountKey, Algorithm};
use super::problem::{Word, malformed, refused};
use crate::error::VaultError;

/// The envelope. An unprotected `header` is an unknown member, and so refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flat {
    protected: String,
    payload: String,
    signature: String,
}

/// The protected header. `crit` and `b64` are unknown members, and so refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Protected {
    alg: String,
    url: String,
    nonce: Option<String>,
    jwk: Option<Value>,
    kid: Option<String>,
    #[serde(rename = "typ")]
    _typ: Option<String>,
}

/// Who is said to have signed.
#[derive(Debug)]
pub(super) enum By {
    /// Whoever holds this key.
    Key(AccountKey),
    /// The account at this address.
    Account(String),
}

/// A request that is well-formed; its signature is not yet verified.
#[derive(Debug)]
pub(super) struct Jws {
    pub(super) by: By,
    pub(super) url: String,
    pub(super) nonce: Option<String>,
    pub(super) payload: Vec<u8>,
    algorithm: Algorithm,
    signed: String,
    signature: Vec<u8>,
}

/// The proof that an account belongs to a service: a MAC over its key, by a key that the service was given.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) kid: String,
    pub(super) url: String,
    pub(super) key: AccountKey,
    signed: String,
    mac: Vec<u8>,
}

fn bytes(what: &str, text: &str) -> Result<Vec<u8>, VaultError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed(format!("{what} is no base64url without padding")))
}

fn open(text: &[u8]) -> Result<(Flat, Protected), VaultError> {
    let flat: Flat = sluice_wire::json::from_slice(text)
        .map_err(|_| malformed("the body is not a flattened JWS of protected, payload and signature"))?;
    let protected = bytes("protected", &flat.protected)?;
    let protected = sluice_wire::json::from_slice(&protected).map_err(|_| {
        malformed("the protected header has alg, nonce, url and one of jwk and kid, nothing else")
    })?;
    Ok((flat, protected))
}

impl Jws {
    /// Reads a request.
    pub(super) fn parse(text: &[u8]) -> Result<Self, VaultError> {
        let (flat, protected) = open(text)?;
        let algorithm = Algorithm::parse(&protected.alg)?;
        let by = match (protected.jwk, protected.kid) {
            (Some(jwk), None) => By::Key(AccountKey::parse(&jwk)?),
            (None, Some(kid)) => By::Account(kid),
            _ => return Err(malformed("a request has either jwk or kid")),
        };
        Ok(Self {
            by,
            url: protected.url,
            nonce: protected.nonce,
            payload: bytes("payload", &flat.payload)?,
            algorithm,
            signature: bytes("signature", &flat.signature)?,
            signed: format!("{}.{}", flat.protected, flat.payload),
        })
    }

    /// Verifies the signature with the key of whoever is said to have signed.
    pub(super) fn verify(&self, key: &AccountKey) -> Result<(), VaultError> {
        if key.verifies(self.algorithm, self.signed.as_bytes(), &self.signature) {
            return Ok(());
        }
        Err(refused(Word::Unauthorized, "the signature is not of the account's key"))
    }
}

impl Binding {
    /// Reads a member `externalAccountBinding`.
    pub(super) fn parse(text: &Value) -> Result<Self, VaultError> {
        let (flat, protected) = open(text.to_string().as_bytes())?;
        if protected.alg != "HS256" {
            return Err(refused(
                Word::BadSignatureAlgorithm,
                "an external account binding is signed by HS256",
            ));
        }
        let (Some(kid), None, None) = (protected.kid, protected.jwk, protected.nonce) else {
            return Err(malformed("an external account binding has kid, and neither jwk nor nonce"));
        };
        let key = bytes("payload", &flat.payload)?;
        let key = String::from_utf8(key).map_err(|_| malformed("the bound key is no JWK"))?;
        Ok(Self {
            kid,
            url: protected.url,
            key: AccountKey::from_text(&key)?,
            mac: bytes("signature", &flat.signature)?,
            signed: format!("{}.{}", flat.protected, flat.payload),
        })
    }

    /// Whether it was made with this key.
    pub(super) fn is_made_with(&self, key: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::verify(&key, self.signed.as_bytes(), &self.mac).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn flat(protected: &Value) -> Vec<u8> {
        let text = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
        let protected = text(protected.to_string().as_bytes());
        json!({ "protected": protected, "payload": text(b"{}"), "signature": text(b"s") })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn only_the_whole_protected_header_is_taken() {
        let good = json!({ "alg": "ES256", "url": "https://a", "nonce": "n", "kid": "https://a/1" });
        let jws = Jws::parse(&flat(&good)).unwrap();
        assert!(matches!(&jws.by, By::Account(kid) if kid == "https://a/1"));
        assert_eq!((jws.payload.as_slice(), jws.nonce.as_deref()), (b"{}".as_slice(), Some("n")));
        let wrong = [
            ("kid", Value::Null),
            ("alg", "none".into()),
            ("alg", "HS256".into()),
            ("jwk", json!({ "kty": "oct" })),
            ("crit", json!(["exp"])),
            ("b64", false.into()),
            ("x5c", json!([])),
        ];
        for (name, value) in wrong {
            let mut bad = good.clone();
            bad[name] = value;
            assert!(Jws::parse(&flat(&bad)).is_err(), "{bad}");
        }
        let x = URL_SAFE_NO_PAD.encode([1; 32]);
        let mut both = good.clone();
        both["jwk"] = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        assert!(Jws::parse(&flat(&both)).is_err(), "jwk and kid");
        let mut general: Value = serde_json::from_slice(&flat(&good)).unwrap();
        general["header"] = json!({});
        assert!(Jws::parse(general.to_string().as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_body_breaks_the_parser(body in proptest::collection::vec(any::<u8>(), 0..200), header in "\\PC{0,100}") {
            let _either_way = Jws::parse(&body);
            let _either_way = Jws::parse(&flat(&json!(header)));
        }
    }
}
