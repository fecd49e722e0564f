//! Tokens that the worker believes at its own port, and the feed that takes them back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use sluice_http::TrustCell;
use sluice_identity::jwk;
use sluice_wire::feed::{Change, Delta, Message, Revoked, Snapshot};

/// Signs tokens.
pub(crate) struct Issuer {
    pair: EcdsaKeyPair,
    kid: String,
    trust: TrustCell,
}

impl Issuer {
    /// One whose tokens are believed by whoever holds this.
    pub(crate) fn new(trust: TrustCell) -> Self {
        let rng = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &rng).unwrap();
        let key = jwk::publish(pair.public_key().as_ref()).unwrap();
        let kid = key.kid.clone();
        let snapshot = Snapshot { epoch: "e".into(), seq: 1, jwks: vec![key], revoked: Revoked::default() };
        trust.apply(&Message::Snapshot(snapshot));
        Self { pair, kid, trust }
    }

    /// A token that ends after so many seconds and the leeway.
    pub(crate) fn token(&self, jti: &str, lives_s: i64) -> String {
        let now = jiff::Timestamp::now().as_second();
        let leeway = self.trust.rules().leeway_s;
        self.sign(&json!({
            "iss": "https://sluice.internal", "sub": "alice", "aud": ["sluice"], "jti": jti,
            "iat": now - 600, "exp": now + lives_s - leeway, "scope": "events:read",
        }))
    }

    /// Takes a token back.
    pub(crate) fn revoke(&self, jti: &str) {
        let change = Change::Jti { jti: jti.to_owned() };
        self.trust.apply(&Message::Delta(Delta { epoch: "e".into(), seq: 2, change }));
    }

    fn sign(&self, claims: &Value) -> String {
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
