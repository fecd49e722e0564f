//! The key of an account: P-256, Ed25519 or RSA, read from a JWK, kept in its one canonical spelling.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::problem::{Word, refused};
use crate::error::VaultError;

/// LIMIT: bytes of an RSA modulus: 2048 to 4096 bits. Longer ones cost more than they are worth.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// How a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Es256,
    Rs256,
    EdDsa,
}

impl Algorithm {
    /// The one of this name; `none` and MACs are none.
    pub(super) fn parse(text: &str) -> Result<Self, VaultError> {
        match text {
            "ES256" => Ok(Self::Es256),
            "RS256" => Ok(Self::Rs256),
            "EdDSA" => Ok(Self::EdDsa),
            _ => Err(refused(Word::BadSignatureAlgorithm, "alg is ES256, RS256 or EdDSA")),
        }
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AccountKey {
    /// Uncompressed point.
    P256([u8; 65]),
    Ed25519([u8; 32]),
    /// Modulus and exponent, big endian, without leading zeros.
    Rsa(Vec<u8>, Vec<u8>),
}

/// A JWK as clients write it. A private part is refused: whoever sends one has shown his key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    #[serde(rename = "alg")]
    _alg: Option<String>,
    #[serde(rename = "use")]
    _usage: Option<String>,
    #[serde(rename = "kid")]
    _kid: Option<String>,
}

impl AccountKey {
    /// Reads a JWK.
    pub(super) fn parse(jwk: &serde_json::Value) -> Result<Self, VaultError> {
        Self::from_text(&jwk.to_string())
    }

    /// Reads a JWK, or what [`Self::canonical`] wrote.
    pub(super) fn from_text(text: &str) -> Result<Self, VaultError> {
        let bad = || {
            refused(
                Word::BadPublicKey,
                "the key is no public JWK of P-256, Ed25519 or RSA of 2048 to 4096 bits",
            )
        };
        let raw: Raw = sluice_wire::json::from_slice(text.as_bytes()).map_err(|_| bad())?;
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let key = match (raw.kty.as_str(), raw.crv.as_deref()) {
            ("EC", Some("P-256")) => bytes(&raw.x).zip(bytes(&raw.y)).and_then(|(x, y)| {
                let sized = x.len() == 32 && y.len() == 32;
                [&[4], x.as_slice(), &y].concat().try_into().ok().filter(|_| sized).map(Self::P256)
            }),
            ("OKP", Some("Ed25519")) => bytes(&raw.x).and_then(|x| x.try_into().ok()).map(Self::Ed25519),
            ("RSA", None) => bytes(&raw.n).zip(bytes(&raw.e)).and_then(|(n, e)| {
                let is_plain = |number: &[u8]| number.first().is_some_and(|first| *first != 0);
                let fits = MODULUS_BYTES.contains(&n.len()) && e.len() <= 4 && is_plain(&n) && is_plain(&e);
                fits.then_some(Self::Rsa(n, e))
            }),
            _ => None,
        };
        key.ok_or_else(bad)
    }

    /// RFC 7638: the members that make the key, in order, without blanks.
    pub(super) fn canonical(&self) -> String {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::P256(point) => {
                let (x, y) = (text(&point[1..33]), text(&point[33..]));
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::Ed25519(x) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, text(x)),
            Self::Rsa(n, e) => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text(e), text(n)),
        }
    }

    /// RFC 7638 with SHA-256, base64url.
    pub(super) fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, self.canonical().as_bytes()))
    }

    /// Whether `signature` is this key's, made by the algorithm of its kind.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let verified = match (self, algorithm) {
            (Self::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            (Self::Ed25519(x), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&ED25519, x).verify(message, signature)
            }
            (Self::Rsa(n, e), Algorithm::Rs256) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }

    /// Whether this is the key of a certificate or request.
    pub(super) fn is_of(&self, info: &SubjectPublicKeyInfo<'_>) -> bool {
        let bits = info.subject_public_key.data.as_ref();
        match (self, info.parsed()) {
            (Self::P256(point), Ok(PublicKey::EC(_))) => bits == point,
            (Self::Rsa(n, e), Ok(PublicKey::RSA(key))) => {
                let plain =
                    |number: &[u8]| number.iter().position(|byte| *byte != 0).map(|at| number[at..].to_vec());
                plain(key.modulus).as_ref() == Some(n) && plain(key.exponent).as_ref() == Some(e)
            }
            (Self::Ed25519(x), Ok(PublicKey::Unknown(_))) => {
                info.algorithm.algorithm.to_id_string() == "1.3.101.112" && bits == x
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    #[test]
    fn a_key_has_one_spelling_and_the_thumbprint_of_the_standard() {
        // RFC 7638, section 3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let key = AccountKey::from_text(&format!(
            r#"{{"kty":"RSA","n":"{n}","e":"AQAB","alg":"RS256","kid":"2011-04-29"}}"#
        ))
        .unwrap();
        assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(AccountKey::from_text(&key.canonical()).unwrap(), key);
    }

    #[test]
    fn what_is_no_plain_public_key_is_refused() {
        let x = URL_SAFE_NO_PAD.encode([1; 32]);
        let short = URL_SAFE_NO_PAD.encode([1; 31]);
        let zero = URL_SAFE_NO_PAD.encode([&[0], &[1; 256][..]].concat());
        let long = URL_SAFE_NO_PAD.encode([1; 513]);
        for text in [
            String::new(),
            "{}".into(),
            format!(r#"{{"kty":"oct","k":"{x}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{short}"}}"#),
            format!(r#"{{"kty":"EC","crv":"secp256k1","x":"{x}","y":"{x}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}","d":"{x}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","x":"{x}","y":"{x}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}="}}"#),
            format!(r#"{{"kty":"RSA","n":"{x}","e":"AQAB"}}"#),
            format!(r#"{{"kty":"RSA","n":"{zero}","e":"AQAB"}}"#),
            format!(r#"{{"kty":"RSA","n":"{long}","e":"AQAB"}}"#),
        ] {
            assert!(AccountKey::from_text(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_signature_counts_with_its_own_algorithm_and_message_alone() {
        let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap();
        let key = AccountKey::Ed25519(pair.public_key().as_ref().try_into().unwrap());
        let signature = pair.sign(b"message");
        assert!(key.verifies(Algorithm::EdDsa, b"message", signature.as_ref()));
        assert!(!key.verifies(Algorithm::EdDsa, b"massage", signature.as_ref()));
        assert!(!key.verifies(Algorithm::Es256, b"message", signature.as_ref()));
        assert!(!key.verifies(Algorithm::EdDsa, b"message", b""));
        for name in ["none", "HS256", "es256", "ES384", ""] {
            assert!(Algorithm::parse(name).is_err(), "{name}");
        }
    }
}
