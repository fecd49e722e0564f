//! Tokens and keys for peers that verify JWTs themselves. Made anew for each run.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use ring::{hmac, pkcs8};
use serde_json::json;

/// DER of a P-256 SubjectPublicKeyInfo up to the 65 bytes of the point (RFC 5480).
pub(crate) const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const LIFETIME_S: u64 = 12 * 3600;

/// A key and tokens signed with it, for each algorithm.
pub(crate) struct Tokens {
    pub hs256_secret: String,
    pub hs256: Pair,
    pub es256_public_pem: String,
    /// The same key as a JSON Web Key Set.
    pub es256_jwks: String,
    pub es256: Pair,
}

/// Valid tokens.
pub(crate) struct Pair {
    /// With the permission that is asked for.
    pub able: String,
    /// With another one.
    pub powerless: String,
    /// As the first, each of somebody else.
    pub others: Vec<String>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// Makes keys, and tokens of so many others too, valid for twelve hours from now.
    pub(crate) fn make(others: u32) -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut secret = [0_u8; 32];
        random.fill(&mut secret).map_err(|_| anyhow!("no randomness"))?;
        // HAProxy takes the secret as text in its configuration.
        let hs256_secret = URL_SAFE_NO_PAD.encode(secret);
        let key = hmac::Key::new(hmac::HMAC_SHA256, hs256_secret.as_bytes());
        let hs256 = pair(others, |who, scope| {
            token("HS256", who, scope, now_s, |text| Ok(hmac::sign(&key, text).as_ref().to_vec()))
        })?;
        let key = p256(&random)?;
        let es256 = pair(others, |who, scope| {
            token("ES256", who, scope, now_s, |text| {
                Ok(key.sign(&random, text).map_err(|_| anyhow!("sign ES256"))?.as_ref().to_vec())
            })
        })?;
        // An uncompressed point: 4, then both coordinates.
        let point = key.public_key().as_ref();
        let es256_public_pem = pem("PUBLIC KEY", &[&P256_SPKI_PREFIX, point].concat());
        Ok(Self { hs256_secret, hs256, es256_public_pem, es256_jwks: jwks(point), es256 })
    }
}

fn pair(others: u32, make: impl Fn(&str, &str) -> anyhow::Result<String>) -> anyhow::Result<Pair> {
    let others =
        (0..others).map(|number| make(&format!("bench-{number}"), "read")).collect::<Result<_, _>>()?;
    Ok(Pair { able: make("bench", "read")?, powerless: make("bench", "nothing")?, others })
}

fn p256(random: &SystemRandom) -> anyhow::Result<EcdsaKeyPair> {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document: pkcs8::Document =
        EcdsaKeyPair::generate_pkcs8(algorithm, random).map_err(|_| anyhow!("make a P-256 key"))?;
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), random)
        .map_err(|error| anyhow!("read the P-256 key back: {error}"))
}

/// A text block of bytes.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn jwks(point: &[u8]) -> String {
    let (x, y) = point[1..].split_at(point.len() / 2);
    let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
    json!({ "keys": [{ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": x, "y": y }] })
        .to_string()
}

fn token(
    algorithm: &str,
    who: &str,
    scope: &str,
    now_s: u64,
    sign: impl FnOnce(&[u8]) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<String> {
    let header = json!({ "alg": algorithm, "typ": "JWT" });
    let claims = json!({
        "iss": "sluice-bench", "sub": who, "aud": "sluice", "scope": scope,
        "iat": now_s, "exp": now_s + LIFETIME_S,
    });
    let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = sign(text.as_bytes())?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn both_tokens_verify_with_the_keys_given_to_peers() {
        let tokens = Tokens::make(2).unwrap();
        assert!(tokens.es256.others.len() == 2 && tokens.hs256.others[0] != tokens.hs256.others[1]);
        let split = |token: &str| {
            let (text, signature) = token.rsplit_once('.').unwrap();
            (text.to_owned(), URL_SAFE_NO_PAD.decode(signature).unwrap())
        };
        let (text, signature) = split(&tokens.hs256.able);
        let key = hmac::Key::new(hmac::HMAC_SHA256, tokens.hs256_secret.as_bytes());
        hmac::verify(&key, text.as_bytes(), &signature).unwrap();
        let (text, signature) = split(&tokens.es256.powerless);
        let pem: String = tokens.es256_public_pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(pem).unwrap();
        assert_eq!(der.len(), 91);
        let jwks: serde_json::Value = serde_json::from_str(&tokens.es256_jwks).unwrap();
        let half = |name: &str| URL_SAFE_NO_PAD.decode(jwks["keys"][0][name].as_str().unwrap()).unwrap();
        assert_eq!([vec![4], half("x"), half("y")].concat(), &der[26..]);
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &der[26..])
            .verify(text.as_bytes(), &signature)
            .unwrap();
    }
}
