//! A client's assertion of itself (RFC 7523, `private_key_jwt`): a JWT it signed with its own key.
//!
//! Held to the rules of [`crate::token`]: ES256 only, by a key that the client registered, nothing in the header
//! beside `alg`, `kid` and `typ`. It must name the client as issuer and subject, us as audience, an end not far
//! away and an id, so that whoever verifies it can see to it that it is used once.

use ring::signature;

use crate::claims::RawClaims;
use crate::jwk::{KID_BYTES_MAX, PublicKey};
use crate::token::{Header, TOKEN_BYTES_MAX, TokenError, decode, parse_header};

/// LIMIT: how far away the end of an assertion may lie, seconds: its id is remembered that long. Authlib's
/// assertions live as long.
pub const ASSERTION_LIFE_MAX_S: i64 = 3_600;
/// LIMIT: longest id of an assertion, bytes.
const JTI_BYTES_MAX: usize = 128;

/// A point that stands in for the key of a client there is not, so that it costs as much as one there is: the base
/// point of P-256. What fits it is not believed either.
const DECOY: [u8; 65] = [
    0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2,
    0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f,
    0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce,
    0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];

/// A verified assertion: to be believed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// Its id, unique for the client.
    pub jti: String,
    /// When it ends, unix seconds.
    pub exp: i64,
}

/// What an assertion must say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The client that asserts itself.
    pub client: &'a str,
    /// Names by which we may be addressed.
    pub audiences: &'a [String],
    /// The client's keys.
    pub keys: &'a [PublicKey],
    /// Tolerated clock difference, seconds.
    pub leeway_s: i64,
}

/// Who an assertion says it is from, unverified: by it the client's keys are looked up, nothing more.
pub fn claimed_subject(assertion: &str) -> Option<String> {
    let payload = assertion.split('.').nth(1).filter(|_| assertion.len() <= TOKEN_BYTES_MAX)?;
    let claims: RawClaims = serde_json::from_slice(&decode(payload).ok()?).ok()?;
    claims.sub
}

/// Verifies an assertion at a time (unix seconds). One that is in form costs one signature check, whether or not there is
/// a key for it: the time tells nobody which clients there are.
pub fn verify(assertion: &str, expected: Expected<'_>, now_s: i64) -> Result<Assertion, TokenError> {
    if assertion.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLong);
    }
    let (signed, signature) = assertion.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header = parse_header(header, &["JWT", "jwt", "client-authentication+jwt"])?;
    if header.alg != "ES256" {
        return Err(TokenError::Algorithm);
    }
    let (payload, signature) = (decode(payload)?, decode(signature)?);
    let key = key_of(&header, expected.keys);
    let is_signed = is_signed_by(key.map_or(DECOY.as_slice(), PublicKey::point), signed, &signature);
    match (key, is_signed) {
        (None, _) => return Err(TokenError::UnknownKey),
        (Some(_), false) => return Err(TokenError::BadSignature),
        (Some(_), true) => {}
    }
    let claims: RawClaims = serde_json::from_slice(&payload).map_err(|_| TokenError::MissingClaim)?;
    judge(&claims, expected, now_s)
}

fn is_signed_by(point: &[u8], signed: &str, signature: &[u8]) -> bool {
    #[cfg(test)]
    tests::CHECKS.with(|checks| checks.set(checks.get() + 1));
    let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
    key.verify(signed.as_bytes(), signature).is_ok()
}

fn key_of<'a>(header: &Header, keys: &'a [PublicKey]) -> Option<&'a PublicKey> {
    match (&header.kid, keys) {
        (Some(kid), _) if kid.len() <= KID_BYTES_MAX => keys.iter().find(|key| key.kid == *kid),
        (None, [sole]) => Some(sole),
        _ => None,
    }
}

fn judge(claims: &RawClaims, expected: Expected<'_>, now_s: i64) -> Result<Assertion, TokenError> {
    let is_client = |name: &Option<String>| name.as_deref() == Some(expected.client);
    if !is_client(&claims.iss) || !is_client(&claims.sub) {
        return Err(TokenError::WrongIssuer);
    }
    // One audience: an assertion that others are addressed with too could be replayed here by them.
    match claims.aud.as_deref() {
        Some([sole]) if expected.audiences.contains(sole) => {}
        Some(_) => return Err(TokenError::WrongAudience),
        None => return Err(TokenError::MissingClaim),
    }
    let exp = claims.exp.ok_or(TokenError::MissingClaim)?;
    if now_s >= exp + expected.leeway_s {
        return Err(TokenError::Expired);
    }
    if exp > now_s + ASSERTION_LIFE_MAX_S + expected.leeway_s {
        return Err(TokenError::Lifetime);
    }
    if claims.nbf.unwrap_or(0).max(claims.iat.unwrap_or(0)) > now_s + expected.leeway_s {
        return Err(TokenError::NotYetValid);
    }
    let jti = claims.jti.clone().filter(|jti| (1..=JTI_BYTES_MAX).contains(&jti.len()));
    Ok(Assertion { jti: jti.ok_or(TokenError::MissingClaim)?, exp })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::{Value, json};

    use super::*;
    use crate::jwk::publish;

    const NOW: i64 = 1_800_000_000;

    thread_local! {
        /// Signatures that were checked.
        pub(super) static CHECKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    struct Signer(EcdsaKeyPair, PublicKey);

    impl Signer {
        fn new() -> Self {
            let rng = SystemRandom::new();
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &rng);
            let pair = pair.unwrap();
            let key = PublicKey::try_from(&publish(pair.public_key().as_ref()).unwrap()).unwrap();
            Self(pair, key)
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", part(header), part(claims));
            let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn good() -> Value {
        json!({"iss": "bot", "sub": "bot", "aud": "https://v/oauth2/token", "exp": NOW + 60, "iat": NOW, "jti": "1"})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = good();
        claims[name] = value;
        claims
    }

    fn judged(
        signer: &Signer,
        header: &Value,
        claims: &Value,
        keys: &[PublicKey],
    ) -> Result<Assertion, TokenError> {
        let audiences = ["https://v".to_owned(), "https://v/oauth2/token".to_owned()];
        let expected = Expected { client: "bot", audiences: &audiences, keys, leeway_s: 5 };
        verify(&signer.sign(header, claims), expected, NOW)
    }

    #[test]
    fn sound_assertion_of_the_client_is_believed() {
        let signer = Signer::new();
        let keys = [signer.1.clone()];
        let found = judged(&signer, &json!({"alg": "ES256", "typ": "JWT"}), &good(), &keys).unwrap();
        assert_eq!(found, Assertion { jti: "1".into(), exp: NOW + 60 });
        let header = json!({"alg": "ES256", "kid": keys[0].kid});
        assert!(judged(&signer, &header, &with("aud", json!(["https://v"])), &keys).is_ok());
        assert_eq!(claimed_subject(&signer.sign(&header, &good())).as_deref(), Some("bot"));
        for bad in ["", "a.b", "x.e30", &"a".repeat(9_000)] {
            assert_eq!(claimed_subject(bad), None);
        }
    }

    #[test]
    fn hostile_assertions_are_refused() {
        let (signer, other) = (Signer::new(), Signer::new());
        let keys = [signer.1.clone()];
        let plain = json!({"alg": "ES256"});
        let claims = [
            (with("iss", json!("eve")), TokenError::WrongIssuer),
            (with("sub", json!("eve")), TokenError::WrongIssuer),
            (with("sub", json!(7)), TokenError::MissingClaim),
            (with("aud", json!("https://elsewhere")), TokenError::WrongAudience),
            (with("aud", json!(["https://v", "https://elsewhere"])), TokenError::WrongAudience),
            (with("aud", Value::Null), TokenError::MissingClaim),
            (with("exp", json!(NOW - 5)), TokenError::Expired),
            (with("exp", json!(NOW + 3_606)), TokenError::Lifetime),
            (with("exp", json!("soon")), TokenError::MissingClaim),
            (with("iat", json!(NOW + 6)), TokenError::NotYetValid),
            (with("jti", Value::Null), TokenError::MissingClaim),
            (with("jti", json!("x".repeat(129))), TokenError::MissingClaim),
        ];
        for (claims, expected) in claims {
            assert_eq!(judged(&signer, &plain, &claims, &keys), Err(expected), "{claims}");
        }
        let headers = [
            (json!({"alg": "none"}), TokenError::Algorithm),
            (json!({"alg": "HS256"}), TokenError::Algorithm),
            (json!({"alg": "ES256", "crit": []}), TokenError::Header),
            (json!({"alg": "ES256", "jwk": {}}), TokenError::Header),
            (json!({"alg": "ES256", "typ": "at+jwt"}), TokenError::Header),
            (json!({"alg": "ES256", "kid": "x"}), TokenError::UnknownKey),
            (json!({"alg": "ES256", "kid": "x".repeat(65)}), TokenError::UnknownKey),
        ];
        for (header, expected) in headers {
            assert_eq!(judged(&signer, &header, &good(), &keys), Err(expected), "{header}");
        }
        assert_eq!(judged(&other, &plain, &good(), &keys), Err(TokenError::BadSignature));
        let two = [signer.1.clone(), other.1.clone()];
        assert_eq!(judged(&signer, &plain, &good(), &two), Err(TokenError::UnknownKey), "which of two?");
        assert_eq!(judged(&signer, &plain, &good(), &[]), Err(TokenError::UnknownKey));
    }

    #[test]
    fn known_and_unknown_clients_cost_one_signature_check_each() {
        let (signer, other) = (Signer::new(), Signer::new());
        let checks = |assertion: &str, keys: &[PublicKey]| {
            let before = CHECKS.with(std::cell::Cell::get);
            let expected = Expected {
                client: "bot",
                audiences: &["https://v/oauth2/token".to_owned()],
                keys,
                leeway_s: 5,
            };
            let is_good = verify(assertion, expected, NOW).is_ok();
            (is_good, CHECKS.with(std::cell::Cell::get) - before)
        };
        let sole = [signer.1.clone()];
        let both = [signer.1.clone(), other.1.clone()];
        let plain = signer.sign(&json!({"alg": "ES256"}), &good());
        let named = signer.sign(&json!({"alg": "ES256", "kid": signer.1.kid}), &good());
        let strange = signer.sign(&json!({"alg": "ES256", "kid": "another"}), &good());
        for (assertion, keys, is_good) in [
            (&plain, &sole[..], true),
            (&named, &both[..], true),
            (&plain, &both[..], false),
            (&strange, &sole[..], false),
            (&other.sign(&json!({"alg": "ES256"}), &good()), &sole[..], false),
            (&plain, &[], false),
            (&named, &[], false),
        ] {
            assert_eq!(checks(assertion, keys), (is_good, 1), "{assertion}");
        }
    }
}
