//! Prints how many tokens a second one thread verifies: anew each time, and from the memory of verified tokens. Fails
//! where the memory gives fewer than it must.
//! `cargo run --release -p sluice-http --example verified`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a table on standard output is its purpose")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use sluice_http::{TrustCell, is_token_good};
use sluice_identity::jwk;
use sluice_schema::Config;
use sluice_wire::feed::{Change, Delta, Message, Revoked, Snapshot};
use sluice_wire::role::Role;

/// Tokens in use at a time.
const TOKENS: usize = 1_000;
const RUNS: usize = 9;
/// What the memory must give, tokens a second.
const LEAST: f64 = 500_000.0;

struct Issuer {
    key: EcdsaKeyPair,
    kid: String,
    trust: TrustCell,
}

fn main() -> ExitCode {
    let issuer = Issuer::new();
    let tokens: Vec<String> = (0..TOKENS).map(|number| issuer.token(number)).collect();
    let requests: Vec<HeaderMap> = tokens.iter().map(|token| request(token)).collect();
    let anew = best(1, || tokens.iter().all(|token| issuer.trust.verify(token).is_ok()));
    // The first round fills the memory.
    let good = || requests.iter().all(|request| is_token_good(request, &issuer.trust));
    assert!(good());
    let known = best(100, good);
    println!(
        "tokens a second on one thread (best of {RUNS} runs, {TOKENS} tokens of {} bytes)",
        tokens[0].len()
    );
    println!("{:<24} {anew:>12.0}", "verified anew (ES256)");
    println!("{:<24} {known:>12.0} of {LEAST:.0}", "known from before");
    // A memory that answers for what was revoked is none.
    issuer.revoke(0);
    assert!(!is_token_good(&requests[0], &issuer.trust), "a revoked token was found good");
    assert!(is_token_good(&requests[1], &issuer.trust));
    if known < LEAST { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Tokens a second in the best of several runs of `rounds` over all of them.
fn best(rounds: usize, work: impl Fn() -> bool) -> f64 {
    let run = || {
        let began = Instant::now();
        for _ in 0..rounds {
            assert!(black_box(work()), "a good token is good");
        }
        (rounds * TOKENS) as f64 / began.elapsed().as_secs_f64()
    };
    (0..RUNS).map(|_| run()).fold(0.0, f64::max)
}

fn request(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    headers
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let published = jwk::publish(key.public_key().as_ref()).unwrap();
        let kid = published.kid.clone();
        let trust = TrustCell::new(&Config::default(), Role::Vault);
        let revoked = Revoked::default();
        let snapshot = Snapshot { epoch: "e".into(), seq: 1, jwks: vec![published], revoked };
        trust.apply(&Message::Snapshot(snapshot));
        Self { key, kid, trust }
    }

    /// A token as the vault makes them.
    fn token(&self, number: usize) -> String {
        let rules = self.trust.rules();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = serde_json::json!({ "alg": "ES256", "kid": self.kid, "typ": "at+jwt" });
        let claims = serde_json::json!({
            "iss": rules.issuer, "sub": format!("service-{number}"), "aud": [rules.audiences[0]],
            "exp": now_s + 3600, "iat": now_s, "jti": format!("token-{number}"), "scope": "read write",
        });
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn revoke(&self, number: usize) {
        let change = Change::Jti { jti: format!("token-{number}") };
        self.trust.apply(&Message::Delta(Delta { epoch: "e".into(), seq: 2, change }));
    }
}
