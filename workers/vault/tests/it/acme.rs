//! ACME over the API port: who orders what, and where it is proved. What real clients and attackers do is in
//! `tests/acme.py`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use sluice_schema::Acme;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::{PATIENCE, Reply, Setup, Vault, bytes_below};

const ISSUER: &str = "https://sluice.internal";

fn text(value: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(value)
}

/// A client with an account.
struct Client<'v> {
    vault: &'v Vault,
    key: Ed25519KeyPair,
    kid: Option<String>,
}

impl<'v> Client<'v> {
    async fn registered(vault: &'v Vault, service: &str) -> Self {
        let wish = json!({ "service_name": service }).to_string();
        let eab = vault.as_admin("POST", "/acme/external-accounts", &wish).await.json();
        let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let mut client = Self { vault, key: Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap(), kid: None };
        let head = json!({ "alg": "HS256", "kid": eab["kid"], "url": format!("{ISSUER}/acme/new-account") });
        let (head, jwk) = (text(head.to_string()), text(client.jwk().to_string()));
        let secret = URL_SAFE_NO_PAD.decode(eab["hmac_key"].as_str().unwrap()).unwrap();
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), format!("{head}.{jwk}").as_bytes());
        let binding = json!({ "protected": head, "payload": jwk, "signature": text(mac) });
        let made = client.post("/acme/new-account", &json!({ "externalAccountBinding": binding })).await;
        assert_eq!(made.status, 201, "{made:?}");
        client.kid = made.head.lines().find_map(|line| line.strip_prefix("location: ")).map(str::to_owned);
        client
    }

    fn jwk(&self) -> Value {
        json!({ "crv": "Ed25519", "kty": "OKP", "x": text(self.key.public_key()) })
    }

    async fn post(&self, path: &str, payload: &Value) -> Reply {
        let nonce = self.vault.call("HEAD", "/acme/new-nonce", None, "").await;
        let nonce = raw_field(&nonce, "replay-nonce");
        let mut head = json!({ "alg": "EdDSA", "nonce": nonce, "url": format!("{ISSUER}{path}") });
        match &self.kid {
            Some(kid) => head["kid"] = kid.as_str().into(),
            None => head["jwk"] = self.jwk(),
        }
        let payload = if payload.is_null() { String::new() } else { text(payload.to_string()) };
        let head = text(head.to_string());
        let signature = text(self.key.sign(format!("{head}.{payload}").as_bytes()));
        let body = json!({ "protected": head, "payload": payload, "signature": signature }).to_string();
        self.vault.raw("POST", path, "content-type: application/jose+json\r\n", &body).await
    }

    async fn order(&self, name: &str) -> Reply {
        self.post("/acme/new-order", &json!({ "identifiers": [{ "type": "dns", "value": name }] })).await
    }

    /// The outcome of the one challenge of an order for a name.
    async fn proved(&self, name: &str) -> Value {
        let order = self.order(name).await.json();
        let path = order["authorizations"][0].as_str().unwrap().strip_prefix(ISSUER).unwrap().to_owned();
        let begun = self.post(&path.replace("authorization", "challenge"), &json!({})).await;
        assert_eq!(begun.status, 200, "{begun:?}");
        let began = std::time::Instant::now();
        loop {
            let told = self.post(&path, &Value::Null).await.json();
            if told["status"] != "pending" {
                return told;
            }
            assert!(began.elapsed() < PATIENCE, "{told}");
            tokio::task::yield_now().await;
        }
    }
}

/// A field as it was sent: the harness lowers heads.
fn raw_field(reply: &Reply, name: &str) -> String {
    let line =
        reply.whole_head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {reply:?}"))[name.len() + 2..].to_owned()
}

/// Answers every challenge for the key of one client with what RFC 8555, section 8.3, expects; how often it was asked.
async fn answer(listener: &TcpListener, thumbprint: &str) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4096];
        let read = stream.read(&mut asked).await.unwrap();
        let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
        let token = asked.split(' ').nth(1).unwrap().rsplit('/').next().unwrap();
        let body = format!("{token}.{thumbprint}");
        let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(reply.as_bytes()).await.unwrap();
    }
}

fn word(reply: &Reply) -> String {
    assert!(
        reply.head.contains("application/problem+json") && reply.head.contains("replay-nonce: "),
        "{reply:?}"
    );
    reply.json()["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
}

fn setup(acme: Acme) -> Setup {
    let mut setup = Setup::default();
    setup.config.acme = acme;
    setup
}

fn listed() -> Acme {
    Acme { names: [("bot".to_owned(), vec!["localhost".to_owned()])].into(), ..Acme::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_decides_who_orders_what_and_where_it_is_proved() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http_port = listener.local_addr().unwrap().port();
    let networks = vec!["127.0.0.0/8".parse().unwrap()];
    let acme = Acme { names: listed().names, networks, http_port };
    let vault = setup(acme).start();
    vault.ready().await;
    let (bot, web) = (Client::registered(&vault, "bot").await, Client::registered(&vault, "web").await);
    assert_eq!(word(&bot.order("other.example.com").await), "rejectedIdentifier");
    assert_eq!(word(&web.order("localhost").await), "rejectedIdentifier", "listed under another service");
    let print = ring::digest::digest(&ring::digest::SHA256, bot.jwk().to_string().as_bytes());
    let print = text(print);
    let proved = tokio::select! {
        proved = bot.proved("localhost") => proved,
        () = answer(&listener, &print) => unreachable!("it answers for ever"),
    };
    assert_eq!(proved["status"], "valid", "{proved}");
    vault.stop().await.1.unwrap();

    let acme = Acme { http_port, ..listed() };
    let vault = setup(acme).start();
    vault.ready().await;
    let refused = Client::registered(&vault, "bot").await.proved("localhost").await;
    assert_eq!(refused["challenges"][0]["error"]["type"], "urn:ietf:params:acme:error:connection");
    let nobody = tokio::time::timeout(std::time::Duration::ZERO, listener.accept()).await;
    assert!(nobody.is_err(), "an address outside of the networks is not connected to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_names_addresses_below_the_issuer() {
    let vault = Vault::start().await;
    let told = vault.call("GET", "/acme/directory", None, "").await.json();
    assert_eq!(told["newOrder"], format!("{ISSUER}/acme/new-order"));
    assert_eq!(told["meta"]["externalAccountRequired"], true);
    let nonce = vault.call("GET", "/acme/new-nonce", None, "").await;
    assert!(nonce.status == 204 && nonce.head.contains("cache-control: no-store"), "{nonce:?}");
    vault.call("GET", "/acme/external-accounts", None, "").await.is(401, "invalid_token");
    let missing = vault.call("GET", "/acme/renewal-info/AAAA.AAAA", None, "").await;
    assert_eq!(
        (missing.status, missing.json()["type"].as_str()),
        (404, Some("urn:ietf:params:acme:error:malformed"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_key_is_shown_once_and_kept_sealed() {
    let vault = Vault::start().await;
    let made = vault.as_admin("POST", "/acme/external-accounts", r#"{"service_name":"bot"}"#).await;
    assert!(made.status == 201 && made.head.contains("cache-control: no-store"), "{made:?}");
    let (made, token) = (made.json(), vault.token("bot", &["read"]).await);
    let secret = made["hmac_key"].as_str().unwrap().to_owned();
    let listed = vault.call("GET", "/acme/external-accounts", Some(&token), "").await;
    assert_eq!(
        (&listed.json()["external_accounts"][0]["kid"], listed.json()["count"].as_u64()),
        (&made["kid"], Some(1))
    );
    assert!(!listed.text.contains(&secret), "{listed:?}");
    let other = vault.token("web", &["read"]).await;
    assert_eq!(vault.call("GET", "/acme/external-accounts", Some(&other), "").await.json()["count"], 0);
    let path = format!("/acme/external-accounts/{}", made["kid"].as_str().unwrap());
    vault.call("DELETE", &path, Some(&other), "").await.is(403, "insufficient_scope");
    assert_eq!(vault.call("DELETE", &path, Some(&token), "").await.status, 204);
    vault.call("DELETE", &path, Some(&token), "").await.is(404, "not_found");
    let raw = URL_SAFE_NO_PAD.decode(&secret).unwrap();
    for (file, bytes) in bytes_below(vault.dir.path()) {
        for canary in [secret.as_bytes(), &raw] {
            assert!(!bytes.windows(canary.len()).any(|part| part == canary), "{}", file.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_vault_has_no_directory() {
    let vault = Setup { dev: false, ..Setup::default() }.start();
    for (method, path) in
        [("GET", "/acme/directory"), ("HEAD", "/acme/new-nonce"), ("POST", "/acme/new-order")]
    {
        assert_eq!(vault.call(method, path, None, "{}").await.status, 503, "{path}");
    }
}
