//! Nobody makes more of a credential than he was given with it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::{Reply, Setup, Vault};

const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";
const EXCHANGE: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
                        &subject_token_type=urn:ietf:params:oauth:token-type:access_token";

fn claims(token: &str) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

async fn is_good(vault: &Vault, token: &str) -> bool {
    let reply = vault.call("POST", "/tokens/validate", None, &json!({ "token": token }).to_string()).await;
    reply.json()["valid"].as_bool().unwrap()
}

/// Registers a client; what it sends in its Authorization header.
async fn client(vault: &Vault, id: &str, scope: &str) -> String {
    let wish = json!({ "client_id": id, "scope": scope }).to_string();
    let reply = vault.as_admin("POST", "/oauth2/clients", &wish).await;
    let secret = reply.json()["client_secret"].as_str().unwrap().to_owned();
    format!("{FORM}authorization: Basic {}\r\n", STANDARD.encode(format!("{id}:{secret}")))
}

async fn granted(vault: &Vault, client: &str, form: &str) -> String {
    let reply = vault.raw("POST", "/oauth2/token", client, form).await;
    reply.json()["access_token"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned()
}

fn minted(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["token"].as_str().unwrap().to_owned()
}

fn seconds(issued: &Value) -> i64 {
    let at = |name: &str| issued[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    at("expires_at") - at("issued_at")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_exchange_made_stays_within_it_and_ends_with_its_origin() {
    let vault = Vault::start().await;
    let bot = client(&vault, "bot", "read trade").await;
    let gate = client(&vault, "gate", "read tokens:exchange").await;
    let whole = granted(&vault, &bot, "grant_type=client_credentials").await;
    let narrow = granted(&vault, &gate, &format!("{EXCHANGE}&subject_token={whole}&scope=read")).await;

    let binding = r#"{"service_name":"bot","identity":true}"#;
    let revoke = r#"{"service":"bot"}"#;
    let by_id = json!({ "jti": claims(&whole)["jti"] }).to_string();
    let cases = [
        ("/credentials/bot", ""),
        ("/credentials/bot/renew", ""),
        ("/acme/external-accounts", binding),
        ("/tokens/revoke", revoke),
        ("/tokens/revoke", &by_id),
        ("/credentials/bot/revoke", ""),
    ];
    assert_eq!(vault.call("POST", "/credentials/bot", Some(&whole), "").await.status, 200);
    for (path, body) in cases {
        let reply = vault.call("POST", path, Some(&narrow), body).await;
        assert_eq!(reply.status, 403, "{path}: {reply:?}");
    }
    let role = json!({ "bound_subject": "bot", "token_policies": ["default"] }).to_string();
    assert_eq!(vault.as_admin("POST", "/v1/auth/jwt/role/bot", &role).await.status, 204);
    let login = |jwt: &str| json!({ "role": "bot", "jwt": jwt }).to_string();
    assert_eq!(vault.call("POST", "/v1/auth/jwt/login", None, &login(&whole)).await.status, 200);
    assert_eq!(vault.call("POST", "/v1/auth/jwt/login", None, &login(&narrow)).await.status, 400);

    let refreshed = minted(&vault.call("POST", "/tokens/refresh", Some(&narrow), "").await);
    let again = minted(&vault.call("POST", "/tokens/refresh", Some(&refreshed), "").await);
    let child =
        minted(&vault.call("POST", "/tokens/bot", Some(&narrow), r#"{"permissions":["read"]}"#).await);
    for made in [&refreshed, &again, &child] {
        let (made, of) = (claims(made), claims(&whole));
        assert!(made["exp"].as_i64() <= of["exp"].as_i64());
        assert_eq!((&made["client_id"], &made["scope"]), (&json!("gate"), &json!("read")));
        assert_eq!(made["aud"], of["aud"]);
    }
    for wider in [r#"{"permissions":["trade"]}"#, r#"{"permissions":["read"],"audience":"elsewhere"}"#] {
        let reply = vault.call("POST", "/tokens/bot", Some(&narrow), wider).await;
        assert_eq!(reply.status, 403, "{wider}: {reply:?}");
    }
    assert_eq!(vault.call("POST", "/credentials/bot", Some(&child), "").await.status, 403);
    let ended = json!({ "token": whole }).to_string();
    assert_eq!(vault.call("POST", "/tokens/revoke", None, &ended).await.status, 200);
    for made in [&narrow, &refreshed, &again, &child] {
        assert!(!is_good(&vault, made).await, "it ends with what it came of");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_credential_makes_nothing_that_lives_longer() {
    let vault = Vault::start().await;
    let short = r#"{"permissions":["read"],"ttl":60}"#;
    let short = minted(&vault.as_admin("POST", "/tokens/bot", short).await);
    let ask = |path: &'static str, body: &'static str| vault.call("POST", path, Some(&short), body);
    for path in ["/credentials/bot", "/credentials/bot/renew"] {
        assert!(seconds(&ask(path, "").await.json()) <= 60, "{path}");
        ask(path, r#"{"ttl":"1h"}"#).await.is(400, "bad_request");
    }
    for path in ["/tokens/refresh", "/tokens/bot"] {
        assert_eq!(ask(path, "").await.json()["expires_in"], 60, "{path}");
        ask(path, r#"{"ttl":"30m"}"#).await.is(400, "bad_request");
    }
    let bound =
        vault.call("POST", "/acme/external-accounts", Some(&short), r#"{"service_name":"bot"}"#).await;
    let bound = bound.json();
    let at = |name: &str| bound[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    assert!(at("expires_at") - at("created_at") <= 60, "{bound}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_wants_all_that_it_will_carry() {
    let mut setup = Setup::default();
    let words = ["read", "trade", "admin"].map(str::to_owned).to_vec();
    setup.config.auth.roles.insert("bot".to_owned(), words);
    let vault = setup.start();
    vault.ready().await;
    let less = vault.token("bot", &["read"]).await;
    let all = vault.token("bot", &["read", "trade"]).await;
    let issuer = vault.token("issuer", &["credentials:issue"]).await;
    for (token, status) in [(&less, 403), (&all, 200), (&issuer, 200)] {
        assert_eq!(vault.call("POST", "/credentials/bot", Some(token), "").await.status, status);
        assert_eq!(vault.call("POST", "/credentials/bot/renew", Some(token), "").await.status, status);
    }
    assert_eq!(vault.call("GET", "/credentials/bot", Some(&less), "").await.status, 200, "it may look");
    let minted = vault.as_admin("POST", "/tokens/bot", "").await.json();
    assert_eq!(minted["permissions"], json!(["admin", "read", "trade"]), "an administrator may");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_key_is_no_service_and_the_edge_names_what_it_verified() {
    let vault = Vault::start().await;
    let bot = claims(&vault.token("bot", &["read"]).await);
    let proof =
        format!("x-internal-proof: {} {} {}\r\n", bot["iat"], bot["exp"], bot["jti"].as_str().unwrap());
    let foreign = claims(&vault.token("data", &["read"]).await);
    let foreign = format!("x-internal-proof: 0 9999999999 {}\r\n", foreign["jti"].as_str().unwrap());
    let told = |method: &str, rest: &str| {
        format!("x-user: bot\r\nx-permissions: read\r\nx-auth-method: {method}\r\n{rest}")
    };
    let paths = [
        ("/credentials/bot", ""),
        ("/tokens/refresh", ""),
        ("/tokens/bot", r#"{"permissions":["read"]}"#),
        ("/acme/external-accounts", r#"{"service_name":"bot"}"#),
        ("/tokens/revoke", r#"{"service":"bot"}"#),
    ];
    for (path, body) in paths {
        for less in [told("api_key", &proof), told("token", ""), told("token", &foreign), told("control", "")]
        {
            let reply = vault.vouched(&less, "POST", path, body).await;
            assert_eq!(reply.status, 403, "{path} {less}: {reply:?}");
        }
        let reply = vault.vouched(&told("token", &proof), "POST", path, body).await;
        assert!(reply.status < 300, "{path}: {reply:?}");
    }
    let session = "x-user: user:alice\r\nx-permissions: read\r\nx-auth-method: api_key\r\n";
    assert_eq!(vault.vouched(session, "POST", "/auth/refresh", "").await.status, 403);
}
