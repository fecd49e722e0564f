use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sluice_wire::feed::{Message, Revoked, Snapshot};

use super::*;
use crate::jwk;

const NOW: i64 = 1_800_000_000;

struct Issuer {
    pair: EcdsaKeyPair,
    kid: String,
    trust: Trust,
}

fn issuer() -> Issuer {
    let rng = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &rng).unwrap();
    let key = jwk::publish(pair.public_key().as_ref()).unwrap();
    let kid = key.kid.clone();
    let snapshot = Snapshot { epoch: "e".into(), seq: 1, jwks: vec![key], revoked: Revoked::default() };
    Issuer { pair, kid, trust: Trust::from_snapshot(&snapshot) }
}

impl Issuer {
    fn sign(&self, header: &Value, claims: &str) -> String {
        let head = URL_SAFE_NO_PAD.encode(header.to_string());
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg":"ES256","kid":self.kid,"typ":"at+jwt"}), &claims.to_string())
    }
}

fn rules() -> Rules {
    Rules {
        issuer: "https://sluice.internal".into(),
        audiences: vec!["sluice".into(), "edge".into()],
        leeway_s: 5,
        hs256: Some(HsKey::new(b"a legacy secret of at least 32 bytes")),
        legacy_lifetime_max_s: 86_400,
    }
}

fn good() -> Value {
    json!({"iss":"https://sluice.internal","sub":"bot","aud":["sluice"],"exp":NOW+60,"iat":NOW-1,
           "jti":"j1","scope":"read write","permissions":["trade"]})
}

fn with(key: &str, value: Value) -> Value {
    let mut claims = good();
    claims[key] = value;
    claims
}

fn without(key: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(key);
    claims
}

#[test]
fn a_good_token_yields_its_claims() {
    let issuer = issuer();
    let claims = verify(&issuer.token(&good()), &issuer.trust, &rules(), NOW).unwrap();
    assert_eq!(claims.sub, "bot");
    assert_eq!(claims.grants.to_header(), "read trade write");
    assert!(!claims.legacy);
}

#[test]
fn claims_of_wrong_value_or_type_are_refused() {
    let issuer = issuer();
    let cases = [
        (with("exp", json!(NOW - 6)), TokenError::Expired),
        (with("exp", json!("2030")), TokenError::MissingClaim),
        (with("exp", json!(-1)), TokenError::MissingClaim),
        (with("exp", Value::Null), TokenError::MissingClaim),
        (without("exp"), TokenError::MissingClaim),
        (with("nbf", json!(NOW + 60)), TokenError::NotYetValid),
        (with("iat", json!(NOW + 60)), TokenError::NotYetValid),
        (with("iss", json!("https://elsewhere")), TokenError::WrongIssuer),
        (with("iss", json!(["https://sluice.internal"])), TokenError::MissingClaim),
        (without("iss"), TokenError::MissingClaim),
        (with("aud", json!("slui")), TokenError::WrongAudience),
        (with("aud", json!({"sluice":1})), TokenError::MissingClaim),
        (without("aud"), TokenError::MissingClaim),
        (with("sub", json!("")), TokenError::MissingClaim),
        (with("sub", json!("a b")), TokenError::MissingClaim),
        (with("sub", json!("line\nbreak")), TokenError::MissingClaim),
        (without("sub"), TokenError::MissingClaim),
    ];
    for (claims, expected) in cases {
        assert_eq!(verify(&issuer.token(&claims), &issuer.trust, &rules(), NOW), Err(expected), "{claims}");
    }
    assert!(verify(&issuer.token(&with("aud", json!("edge"))), &issuer.trust, &rules(), NOW).is_ok());
    assert!(verify(&issuer.token(&with("exp", json!(NOW - 4))), &issuer.trust, &rules(), NOW).is_ok());
}

#[test]
fn the_one_confirmation_that_can_be_checked_is_read_and_any_other_refused() {
    let issuer = issuer();
    let read = |cnf: Value| verify(&issuer.token(&with("cnf", cnf)), &issuer.trust, &rules(), NOW);
    let digest = URL_SAFE_NO_PAD.encode([7; 32]);
    assert_eq!(read(json!({ "x5t#S256": digest })).unwrap().bound, Some([7; 32]));
    assert_eq!(verify(&issuer.token(&good()), &issuer.trust, &rules(), NOW).unwrap().bound, None);
    for other in [
        Value::Null,
        json!({}),
        json!(digest),
        json!({ "jkt": digest }),
        json!({ "x5t#S256": digest, "jkt": digest }),
        json!({ "x5t#S256": [digest] }),
        json!({ "x5t#S256": format!("{digest}=") }),
        json!({ "x5t#S256": URL_SAFE_NO_PAD.encode([7; 31]) }),
        json!({ "x5t#S256": "" }),
    ] {
        assert_eq!(read(other.clone()), Err(TokenError::MissingClaim), "{other}");
    }
}

/// What SPIFFE calls a JWT-SVID is signed with the same keys.
#[test]
fn a_jwt_svid_is_no_access_token() {
    let issuer = issuer();
    let header = json!({"alg":"ES256","kid":issuer.kid,"typ":"JWT"});
    let claims =
        json!({"sub":"spiffe://sluice.internal/service/bot","aud":["sluice"],"exp":NOW+60,"iat":NOW});
    let svid = issuer.sign(&header, &claims.to_string());
    assert_eq!(verify(&svid, &issuer.trust, &rules(), NOW), Err(TokenError::MissingClaim));
}

#[test]
fn duplicate_claims_are_refused() {
    let issuer = issuer();
    let doubled = good().to_string().replacen('{', r#"{"sub":"admin","#, 1);
    let token = issuer.sign(&json!({"alg":"ES256","kid":issuer.kid}), &doubled);
    assert_eq!(verify(&token, &issuer.trust, &rules(), NOW), Err(TokenError::MissingClaim));
}

#[test]
fn header_tricks_are_refused() {
    let issuer = issuer();
    let body = good().to_string();
    let kid = issuer.kid.clone();
    let cases = [
        (json!({"alg":"none","kid":kid}), TokenError::Algorithm),
        (json!({"alg":"None"}), TokenError::Algorithm),
        (json!({"alg":["ES256"]}), TokenError::Header),
        (json!({"alg":"ES384","kid":kid}), TokenError::Algorithm),
        (json!({"alg":"HS256","kid":kid}), TokenError::BadSignature),
        (json!({"alg":"ES256","kid":"../../etc/passwd"}), TokenError::UnknownKey),
        (json!({"alg":"ES256","kid":"x".repeat(10_000)}), TokenError::TooLong),
        (json!({"alg":"ES256","kid":7}), TokenError::Header),
        (json!({"alg":"ES256","kid":kid,"crit":["b64"],"b64":false}), TokenError::Header),
        (json!({"alg":"ES256","kid":kid,"jku":"http://evil"}), TokenError::Header),
        (json!({"alg":"ES256","kid":kid,"jwk":{}}), TokenError::Header),
        (json!({"alg":"ES256","kid":kid,"zip":"DEF"}), TokenError::Header),
        (json!({"alg":"ES256","kid":kid,"typ":"JWE"}), TokenError::Header),
    ];
    for (header, expected) in cases {
        let token = issuer.sign(&header, &body);
        assert_eq!(verify(&token, &issuer.trust, &rules(), NOW), Err(expected), "{header}");
    }
}

#[test]
fn spelling_tricks_are_refused() {
    let issuer = issuer();
    let token = issuer.token(&good());
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        ".".repeat(8_000),
        format!("{token}="),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}.x"),
        token.rsplit_once('.').unwrap().0.to_owned() + ".",
    ] {
        assert!(verify(&bad, &issuer.trust, &rules(), NOW).is_err(), "{bad:.40}");
    }
}

/// n - s for the order n of P-256: the other number that makes a signature fit.
fn other_s(signature: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let mut other = signature.to_vec();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let left = i16::from(ORDER[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(left < 0);
        other[32 + at] = left.rem_euclid(256) as u8;
    }
    other
}

/// RFC 7515 asks for neither of the two, and signers that are in use give either. So both are one token: nothing is told
/// apart by its spelling, and revoking it ends both.
#[test]
fn both_values_of_a_signature_are_the_same_token() {
    let issuer = issuer();
    let token = issuer.token(&good());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = other_s(&URL_SAFE_NO_PAD.decode(signature).unwrap());
    let twin = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(other));
    assert_ne!(token, twin);
    let claims = verify(&token, &issuer.trust, &rules(), NOW).unwrap();
    assert_eq!(verify(&twin, &issuer.trust, &rules(), NOW).unwrap(), claims);
    let jwks = vec![jwk::publish(issuer.pair.public_key().as_ref()).unwrap()];
    let revoked = Revoked { jti: vec!["j1".into()], ..Revoked::default() };
    let trust = Trust::from_snapshot(&Snapshot { epoch: "e".into(), seq: 2, jwks, revoked });
    for spelling in [&token, &twin] {
        assert_eq!(verify(spelling, &trust, &rules(), NOW), Err(TokenError::Revoked));
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let issuer = issuer();
    let token = issuer.token(&good());
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        if let Ok(text) = String::from_utf8(bytes)
            && text != token
        {
            assert!(verify(&text, &issuer.trust, &rules(), NOW).is_err(), "byte {at}");
        }
    }
}

#[test]
fn degenerate_signatures_are_refused() {
    let issuer = issuer();
    let token = issuer.token(&good());
    let (signed, _) = token.rsplit_once('.').unwrap();
    for signature in [vec![0; 64], vec![0xff; 64], vec![0; 63], vec![0; 72], vec![]] {
        let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        assert_eq!(verify(&forged, &issuer.trust, &rules(), NOW), Err(TokenError::BadSignature));
    }
}

fn legacy(claims: &Value, secret: &[u8]) -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[test]
fn legacy_tokens_are_bounded_in_life_and_rights() {
    let secret = b"a legacy secret of at least 32 bytes";
    let trust = issuer().trust;
    let check = |claims: Value| verify(&legacy(&claims, secret), &trust, &rules(), NOW);
    let claims =
        check(json!({"service":"bot","exp":NOW as f64 + 60.5,"iat":NOW,"permissions":["read"]})).unwrap();
    assert!(claims.legacy && claims.sub == "bot");
    assert!(check(json!({"user_id":"u","exp":NOW+60,"iat":NOW})).is_ok());
    assert_eq!(check(json!({"exp":NOW+60,"iat":NOW})), Err(TokenError::MissingClaim));
    assert_eq!(check(json!({"service":"b","exp":NOW+60})), Err(TokenError::MissingClaim));
    assert_eq!(check(json!({"service":"b","exp":NOW+90_000,"iat":NOW})), Err(TokenError::Lifetime));
    for grant in ["admin", "events:publish"] {
        let claims = json!({"service":"b","exp":NOW+60,"iat":NOW,"permissions":[grant]});
        assert_eq!(check(claims), Err(TokenError::LegacyGrant));
    }
    let forged =
        legacy(&json!({"service":"b","exp":NOW+60,"iat":NOW}), b"another secret of 32 bytes or more!");
    assert_eq!(verify(&forged, &trust, &rules(), NOW), Err(TokenError::BadSignature));
    let off = Rules { hs256: None, ..rules() };
    let token = legacy(&json!({"service":"b","exp":NOW+60,"iat":NOW}), secret);
    assert_eq!(verify(&token, &trust, &off, NOW), Err(TokenError::Algorithm));
}

#[test]
fn public_key_is_no_hmac_secret() {
    let issuer = issuer();
    let public = issuer.pair.public_key().as_ref().to_vec();
    let token = legacy(&good(), &public);
    assert_eq!(verify(&token, &issuer.trust, &rules(), NOW), Err(TokenError::BadSignature));
}

#[test]
fn revocation_is_seen() {
    let issuer = issuer();
    let token = issuer.token(&good());
    let mut trust = issuer.trust.clone();
    let change = sluice_wire::feed::Change::Jti { jti: "j1".into() };
    trust.apply(&Message::Delta(sluice_wire::feed::Delta { epoch: "e".into(), seq: 2, change }));
    assert_eq!(verify(&token, &trust, &rules(), NOW), Err(TokenError::Revoked));
    assert_eq!(verify(&token, &Trust::empty(), &rules(), NOW), Err(TokenError::NoKeys));
}

/// A token of raw bytes under a sound signature: what only a bent issuer could write.
fn raw(issuer: &Issuer, header: &[u8], claims: &[u8]) -> Result<Claims, TokenError> {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = issuer.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    verify(&token, &issuer.trust, &rules(), NOW)
}

#[test]
fn headers_and_claims_that_two_readers_could_read_differently_are_refused() {
    let issuer = issuer();
    let (kid, good) = (&issuer.kid, good().to_string());
    let sound = format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#);
    assert!(raw(&issuer, sound.as_bytes(), good.as_bytes()).is_ok());
    let headers = [
        format!(r#"{{"alg":"none","alg":"ES256","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"es256","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"NONE","kid":"{kid}"}}"#),
        format!(r#"{{"ALG":"ES256","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","cty":"JWT"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","x5u":"http://evil"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","x5c":[]}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"refresh+jwt"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"client-authentication+jwt"}}"#),
        r#"{"alg":"ES256","kid":"' OR 1=1 --"}"#.to_owned(),
        "{\"alg\":\"ES256\",\"kid\":\"a\\u0000b\"}".to_owned(),
        r#"{"alg":"ES256","kid":"http://evil/key"}"#.to_owned(),
        format!("{sound}{{}}"),
        format!("{sound} x"),
        format!("\u{feff}{sound}"),
        "[".repeat(1_000),
        "null".to_owned(),
        String::new(),
    ];
    for header in &headers {
        assert!(raw(&issuer, header.as_bytes(), good.as_bytes()).is_err(), "{header:.80}");
    }
    let nested = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    let deep = good.replace(r#"["sluice"]"#, &nested);
    // A claim that nobody reads is passed over without recursion; 8 KiB bound it.
    let passed_over = good.replacen('{', &format!(r#"{{"x":{nested},"#), 1);
    assert!(raw(&issuer, sound.as_bytes(), passed_over.as_bytes()).is_ok());
    let claims = [
        good.replacen('{', r#"{"exp":9999999999,"#, 1),
        good.replace(&(NOW + 60).to_string(), "1e999"),
        good.replace(&(NOW + 60).to_string(), "1e300"),
        good.replace(&(NOW + 60).to_string(), "9223372036854775808"),
        good.replace(&(NOW + 60).to_string(), "true"),
        format!("{good}x"),
        format!("{good}{good}"),
        format!("\u{feff}{good}"),
        format!("[{good}]"),
        deep,
    ];
    for claims in &claims {
        assert!(raw(&issuer, sound.as_bytes(), claims.as_bytes()).is_err(), "{claims:.80}");
    }
    let mut broken = good.clone().into_bytes();
    let at = good.find("bot").unwrap();
    broken[at] = 0xff;
    assert!(raw(&issuer, sound.as_bytes(), &broken).is_err(), "not UTF-8");
    assert!(raw(&issuer, &[0xc3, 0x28], good.as_bytes()).is_err());
}

#[test]
fn other_serializations_are_no_tokens() {
    let issuer = issuer();
    let token = issuer.token(&good());
    let parts: Vec<&str> = token.split('.').collect();
    let json = json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string();
    let jwe = format!("{}.{}.{}.{}.{}", parts[0], parts[1], parts[2], parts[1], parts[2]);
    let standard = token.replace('-', "+").replace('_', "/");
    let mut spellings =
        vec![json, jwe, format!("{token}=="), token.replacen('.', ". ", 1), format!("\t{token}")];
    if standard != token {
        spellings.push(standard);
    }
    for bad in spellings {
        assert!(verify(&bad, &issuer.trust, &rules(), NOW).is_err(), "{bad:.60}");
    }
}

#[test]
fn numbers_of_a_signature_lie_within_the_curve_and_are_not_der() {
    let issuer = issuer();
    let token = issuer.token(&good());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (r, s) = signature.split_at(32);
    let mut der = vec![0x30, 70, 2, 33, 0];
    der.extend([r, &[2, 33, 0], s].concat());
    for forged in [
        [&order[..], s].concat(),
        [r, &order[..]].concat(),
        [&[0; 32], s].concat(),
        [r, &[0; 32]].concat(),
        der,
    ] {
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(forged));
        assert_eq!(verify(&token, &issuer.trust, &rules(), NOW), Err(TokenError::BadSignature));
    }
}

#[test]
fn a_token_without_key_id_is_taken_while_there_is_one_key() {
    let issuer = issuer();
    let token = issuer.sign(&json!({"alg": "ES256"}), &good().to_string());
    assert!(verify(&token, &issuer.trust, &rules(), NOW).is_ok());
    let mut trust = issuer.trust.clone();
    let keys = [issuer.pair.public_key().as_ref().to_vec(), vec![4; 65]];
    let jwks = keys.iter().map(|point| jwk::publish(point).unwrap()).collect();
    let change = sluice_wire::feed::Change::Keys { jwks };
    trust.apply(&Message::Delta(sluice_wire::feed::Delta { epoch: "e".into(), seq: 2, change }));
    assert_eq!(verify(&token, &trust, &rules(), NOW), Err(TokenError::UnknownKey), "which of two?");
}
