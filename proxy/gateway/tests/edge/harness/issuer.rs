//! Tokens that the edge believes, and those of the older platforms.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use sluice_identity::jwk;
use sluice_wire::feed::{Revoked, Snapshot};

/// Signs tokens that the edge believes.
pub struct Issuer {
    pair: EcdsaKeyPair,
    kid: String,
    pub snapshot: Snapshot,
}

impl Issuer {
    pub(super) fn new() -> Self {
        let rng = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &rng).unwrap();
        let key = jwk::publish(pair.public_key().as_ref()).unwrap();
        let kid = key.kid.clone();
        let snapshot = Snapshot { epoch: "e".into(), seq: 1, jwks: vec![key], revoked: Revoked::default() };
        Self { pair, kid, snapshot }
    }

    pub fn token(&self, scope: &str) -> String {
        self.token_of("alice", scope)
    }

    pub fn token_of(&self, sub: &str, scope: &str) -> String {
        let now = jiff::Timestamp::now().as_second();
        self.sign(&json!({
            "iss": "https://sluice.internal", "sub": sub, "aud": ["sluice"], "jti": format!("jti-{sub}"),
            "iat": now - 1, "exp": now + 600, "scope": scope,
        }))
    }

    pub fn sign(&self, claims: &Value) -> String {
        let head = json!({"alg": "ES256", "kid": self.kid, "typ": "JWT"});
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(head.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A token of the older platforms.
pub fn hs256(key: &str, claims: &Value) -> String {
    let head = json!({"alg": "HS256", "typ": "JWT"});
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(head.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes())))
}
