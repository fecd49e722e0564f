//! Accounts and orders of an open vault over time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use ring::{digest, hmac};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::api::Answer;
use super::problem::Word;
use super::request::Posted;
use crate::context::Vault;
use crate::error::VaultError;
use crate::request::Act;
use crate::seal::RootKey;
use crate::store::{Range, Table, View as _};
use crate::tests::{act, open_with, settings};

const ISSUER: &str = "https://sluice.internal";

struct Site {
    vault: Vault,
    _dir: TempDir,
}

/// A client with a key, and with an account once it has registered.
struct Client {
    key: Ed25519KeyPair,
    kid: Option<String>,
}

fn text(value: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(value)
}

fn site(now: Timestamp) -> Site {
    let (dir, root) = (TempDir::new().unwrap(), RootKey::random());
    let mut settings = settings(dir.path());
    settings.acme.names.insert("bot".into(), vec!["bot.example.com".into(), "*.bot.example.com".into()]);
    Site { vault: open_with(settings, &root, now), _dir: dir }
}

impl Client {
    fn new() -> Self {
        let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { key: Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap(), kid: None }
    }

    fn jwk(&self) -> Value {
        json!({ "crv": "Ed25519", "kty": "OKP", "x": text(self.key.public_key()) })
    }

    fn posted(&self, vault: &Vault, path: &str, payload: Option<&Value>, now: Timestamp) -> Posted {
        let mut protected =
            json!({ "alg": "EdDSA", "nonce": vault.acme.nonces.issue(), "url": format!("{ISSUER}{path}") });
        match &self.kid {
            Some(kid) => protected["kid"] = kid.as_str().into(),
            None => protected["jwk"] = self.jwk(),
        }
        let (protected, payload) = (
            text(protected.to_string()),
            payload.map(|payload| text(payload.to_string())).unwrap_or_default(),
        );
        let signature = text(self.key.sign(format!("{protected}.{payload}").as_bytes()));
        let body = json!({ "protected": protected, "payload": payload, "signature": signature });
        let act = Act { caller: None, ..act("", "", now) };
        Posted { act, path: path.into(), body: body.to_string().into_bytes() }
    }

    fn register(&mut self, vault: &Vault, eab: &Value, now: Timestamp) -> Result<Value, VaultError> {
        let protected =
            json!({ "alg": "HS256", "kid": eab["kid"], "url": format!("{ISSUER}/acme/new-account") });
        let (protected, payload) = (text(protected.to_string()), text(self.jwk().to_string()));
        let secret = URL_SAFE_NO_PAD.decode(eab["hmac_key"].as_str().unwrap()).unwrap();
        let mac = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &secret),
            format!("{protected}.{payload}").as_bytes(),
        );
        let binding = json!({ "protected": protected, "payload": payload, "signature": text(mac) });
        let wish = json!({ "externalAccountBinding": binding });
        let posted = self.posted(vault, "/acme/new-account", Some(&wish), now);
        let told = vault.acme_new_account(&posted)?.told();
        self.kid = told["orders"].as_str().map(|url| url.trim_end_matches("/orders").to_owned());
        Ok(told)
    }

    fn order(&self, vault: &Vault, name: &str, now: Timestamp) -> Result<Value, VaultError> {
        let wish = json!({ "identifiers": [{ "type": "dns", "value": name }] });
        vault.acme_new_order(&self.posted(vault, "/acme/new-order", Some(&wish), now)).map(Answer::told)
    }

    /// Has the first name of an order proved.
    fn prove(&self, vault: &Vault, id: &str, now: Timestamp) {
        let posted = self.posted(vault, &format!("/acme/challenge/{id}/0"), Some(&json!({})), now);
        let (_, job) = vault.acme_challenge(&posted, id, 0).unwrap();
        let job = job.unwrap();
        let print = digest::digest(&digest::SHA256, self.jwk().to_string().as_bytes());
        assert_eq!(job.expected, format!("{}.{}", job.token, text(print)), "RFC 8555, section 8.1");
        vault.acme_settle(&job.order, job.at, job.since, Ok(()), now).unwrap();
    }

    fn finalize(&self, vault: &Vault, id: &str, name: &str, now: Timestamp) -> Result<Value, VaultError> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let csr = params.serialize_request(&key).unwrap();
        let wish = json!({ "csr": text(csr.der()) });
        let path = format!("/acme/order/{id}/finalize");
        vault.acme_finalize(&self.posted(vault, &path, Some(&wish), now), id).map(Answer::told)
    }
}

fn eab(vault: &Vault, wish: &Value, now: Timestamp) -> Value {
    let wish = serde_json::from_value(wish.clone()).unwrap();
    let made = vault.make_eab(&act("root", "admin", now), &wish).map_err(|error| error.to_string());
    serde_json::to_value(made.unwrap()).unwrap()
}

fn id_of(order: &Value) -> String {
    let finalize = order["finalize"].as_str().unwrap();
    finalize.trim_end_matches("/finalize").rsplit('/').next().unwrap().to_owned()
}

fn word<T>(refused: Result<T, VaultError>) -> Word {
    match refused.err().unwrap() {
        VaultError::Acme(refusal) => refusal.word,
        error => panic!("{error}"),
    }
}

#[test]
fn an_order_ends_with_its_time_and_is_swept() {
    let now = Timestamp::now();
    let (site, mut bot) = (site(now), Client::new());
    let vault = &site.vault;
    bot.register(vault, &eab(vault, &json!({ "service_name": "bot" }), now), now).unwrap();
    let order = bot.order(vault, "a.bot.example.com", now).unwrap();
    let id = id_of(&order);
    bot.prove(vault, &id, now);
    let later = now + SignedDuration::from_mins(61);
    assert_eq!(word(bot.finalize(vault, &id, "a.bot.example.com", later)), Word::OrderNotReady);
    let good = bot.finalize(vault, &id, "a.bot.example.com", now + SignedDuration::from_mins(59)).unwrap();
    assert_eq!(good["status"], "valid");
    let lost = id_of(&bot.order(vault, "bot.example.com", later).unwrap());
    let rows = || vault.store.snapshot().unwrap().keys(Table::Acme, &Range::prefix(b"", 100)).unwrap().len();
    let before = rows();
    vault.maintain(later, later).unwrap();
    assert_eq!(rows(), before - 2, "the ended order and what found it");
    let path = format!("/acme/order/{lost}");
    assert!(vault.acme_order(&bot.posted(vault, &path, None, later), &lost).is_ok(), "the other one stays");
    let path = format!("/acme/order/{id}");
    assert_eq!(word(vault.acme_order(&bot.posted(vault, &path, None, later), &id)), Word::Malformed);
    let serial = good["certificate"].as_str().unwrap().rsplit('/').next().unwrap();
    let path = format!("/acme/certificate/{serial}");
    assert!(
        vault.acme_certificate(&bot.posted(vault, &path, None, later), serial).is_ok(),
        "it outlives its order"
    );
}

#[test]
fn a_binding_key_ends_and_what_it_bound_stays_in_its_bounds() {
    let now = Timestamp::now();
    let (site, mut first) = (site(now), Client::new());
    let vault = &site.vault;
    let key = eab(vault, &json!({ "service_name": "bot", "ttl": "1h" }), now);
    first.register(vault, &key, now).unwrap();
    let later = now + SignedDuration::from_hours(2);
    assert_eq!(word(Client::new().register(vault, &key, later)), Word::Unauthorized);
    assert!(
        first.order(vault, "bot.example.com", later).is_ok(),
        "it binds no other, and keeps what it bound"
    );
    for _ in 1..32 {
        Client::new().register(vault, &key, now).unwrap();
    }
    assert_eq!(word(Client::new().register(vault, &key, now)), Word::RateLimited);
    let own = first.kid.clone().unwrap();
    let id = own.rsplit('/').next().unwrap();
    let wish = json!({ "status": "deactivated" });
    let posted = first.posted(vault, &format!("/acme/account/{id}"), Some(&wish), now);
    vault.acme_update_account(&posted, id).unwrap();
    Client::new().register(vault, &key, now).unwrap();
    assert_eq!(word(first.order(vault, "bot.example.com", now)), Word::AccountDoesNotExist, "it made room");
}

#[test]
fn an_account_orders_so_much_and_no_more() {
    let now = Timestamp::now();
    let (site, mut bot) = (site(now), Client::new());
    let vault = &site.vault;
    bot.register(vault, &eab(vault, &json!({ "service_name": "bot" }), now), now).unwrap();
    for _ in 0..super::BURST {
        bot.order(vault, "bot.example.com", now).unwrap();
    }
    assert_eq!(word(bot.order(vault, "bot.example.com", now)), Word::RateLimited);
}

#[test]
fn quarantine_ends_accounts_and_their_certificates() {
    let now = Timestamp::now();
    let (site, mut bot) = (site(now), Client::new());
    let vault = &site.vault;
    bot.register(vault, &eab(vault, &json!({ "service_name": "bot" }), now), now).unwrap();
    let id = id_of(&bot.order(vault, "bot.example.com", now).unwrap());
    bot.prove(vault, &id, now);
    let order = bot.finalize(vault, &id, "bot.example.com", now).unwrap();
    let serial = order["certificate"].as_str().unwrap().rsplit('/').next().unwrap();
    let entry = act("root", "admin", now).entry("falco", "quarantine", "falco/quarantine/bot");
    vault.write(entry, move |change| super::end_service(change, "bot", now)).unwrap();
    assert!(vault.known_certificate(serial).unwrap().unwrap().revoked_at.is_some());
    assert_eq!(word(bot.order(vault, "bot.example.com", now)), Word::Unauthorized);
}

#[test]
fn nothing_is_allowed_that_is_not_listed() {
    let now = Timestamp::now();
    let (site, mut web) = (site(now), Client::new());
    let vault = &site.vault;
    let wish = serde_json::from_value(json!({ "service_name": "web" })).unwrap();
    assert!(vault.make_eab(&act("bot", "read", now), &wish).is_err(), "another service");
    assert!(vault.make_eab(&act("web", "read", now), &wish).is_err(), "a token that nobody knows");
    let mut itself = act("web", "read", now);
    itself.caller.as_mut().unwrap().via = sluice_identity::caller::Via::Certificate;
    assert!(vault.make_eab(&itself, &wish).is_ok(), "itself");
    let edge = serde_json::from_value(json!({ "service_name": "edge" })).unwrap();
    assert!(vault.make_eab(&act("root", "admin", now), &edge).is_err(), "a role is no service");
    web.register(vault, &eab(vault, &json!({ "service_name": "web" }), now), now).unwrap();
    assert_eq!(word(web.order(vault, "bot.example.com", now)), Word::RejectedIdentifier);
}
