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
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const LIFETIME_S: u64 = 12 * 3600;

/// A key and a token signed with it, for each algorithm.
pub(crate) struct Tokens {
    pub hs256_secret: String,
    pub hs256_token: String,
    pub es256_public_pem: String,
    pub es256_token: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// Makes keys and tokens valid for twelve hours from now.
    pub(crate) fn make() -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut secret = [0_u8; 32];
        random.fill(&mut secret).map_err(|_| anyhow!("no randomness"))?;
        // HAProxy takes the secret as text in its configuration.
        let hs256_secret = URL_SAFE_NO_PAD.encode(secret);
        let hs256 = hmac::Key::new(hmac::HMAC_SHA256, hs256_secret.as_bytes());
        let hs256_token = token("HS256", now_s, |text| Ok(hmac::sign(&hs256, text).as_ref().to_vec()))?;
        let (pair, public) = p256(&random)?;
        let es256_token = token("ES256", now_s, |text| {
            Ok(pair.sign(&random, text).map_err(|_| anyhow!("sign ES256"))?.as_ref().to_vec())
        })?;
        Ok(Self { hs256_secret, hs256_token, es256_public_pem: public, es256_token })
    }
}

fn p256(random: &SystemRandom) -> anyhow::Result<(EcdsaKeyPair, String)> {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document: pkcs8::Document =
        EcdsaKeyPair::generate_pkcs8(algorithm, random).map_err(|_| anyhow!("make a P-256 key"))?;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), random)
        .map_err(|error| anyhow!("read the P-256 key back: {error}"))?;
    let der = [&P256_SPKI_PREFIX, pair.public_key().as_ref()].concat();
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    Ok((pair, format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))))
}

fn token(
    algorithm: &str,
    now_s: u64,
    sign: impl FnOnce(&[u8]) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<String> {
    let header = json!({ "alg": algorithm, "typ": "JWT" });
    let claims = json!({
        "iss": "sluice-bench", "sub": "bench", "aud": "sluice", "scope": "read",
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
        let tokens = Tokens::make().unwrap();
        let split = |token: &str| {
            let (text, signature) = token.rsplit_once('.').unwrap();
            (text.to_owned(), URL_SAFE_NO_PAD.decode(signature).unwrap())
        };
        let (text, signature) = split(&tokens.hs256_token);
        let key = hmac::Key::new(hmac::HMAC_SHA256, tokens.hs256_secret.as_bytes());
        hmac::verify(&key, text.as_bytes(), &signature).unwrap();
        let (text, signature) = split(&tokens.es256_token);
        let pem: String = tokens.es256_public_pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(pem).unwrap();
        assert_eq!(der.len(), 91);
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &der[26..])
            .verify(text.as_bytes(), &signature)
            .unwrap();
    }
}
