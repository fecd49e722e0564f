//! Nobody makes more of a credential than he was given with it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sluice_schema::{FalcoAction, FalcoPriority, FalcoResponse, Secret};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_registers_clients_ends_no_tokens_but_theirs() {
    let vault = Vault::start().await;
    let ci = vault.token("ci", &["tokens:mint", "read"]).await;
    let trading = vault.token("trading", &["read"]).await;
    let wish = r#"{"client_id":"trading","scope":"read"}"#;
    let made = vault.call("POST", "/oauth2/clients", Some(&ci), wish).await;
    assert_eq!(made.status, 201, "{made:?}");
    let secret = made.json()["client_secret"].as_str().unwrap().to_owned();
    let proof = format!("{FORM}authorization: Basic {}\r\n", STANDARD.encode(format!("trading:{secret}")));
    let issued = granted(&vault, &proof, "grant_type=client_credentials").await;
    let narrowed = granted(&vault, &proof, &format!("{EXCHANGE}&subject_token={issued}")).await;
    assert_eq!(vault.call("DELETE", "/oauth2/clients/trading", Some(&ci), "").await.status, 204);
    assert!(!is_good(&vault, &issued).await && !is_good(&vault, &narrowed).await, "the client's own end");
    assert!(is_good(&vault, &trading).await, "the service's other tokens stay");

    let strong = client(&vault, "desk", "read trade").await;
    let removed = vault.call("DELETE", "/oauth2/clients/desk", Some(&ci), "").await;
    assert_eq!(removed.status, 403, "who could not give `trade` takes it from nobody: {removed:?}");
    let issued = granted(&vault, &strong, "grant_type=client_credentials").await;
    assert_eq!(vault.as_admin("DELETE", "/oauth2/clients/desk", "").await.status, 204);
    assert!(!is_good(&vault, &issued).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_kinds_of_tokens_open_secrets_at_both_doors() {
    let vault = Vault::start().await;
    let root = std::fs::read_to_string(vault.dir.path().join("vault-token")).unwrap();
    let shown = |token: &str| format!("x-vault-token: {token}\r\ncontent-type: application/json\r\n");
    let v1 = async |path: &str, body: Value| {
        vault.raw("POST", &format!("/v1/{path}"), &shown(&root), &body.to_string()).await
    };
    let policy = r#"path "secret/data/p/*" { capabilities = ["create", "read"] }
        path "secret/data/p/no" { capabilities = ["deny"] } path "secret/metadata/p" { capabilities = ["list"] }"#;
    assert_eq!(v1("sys/policies/acl/p", json!({ "policy": policy })).await.status, 204);
    let token = async |uses: u64| {
        let made = v1("auth/token/create", json!({ "policies": ["p"], "num_uses": uses })).await;
        made.json()["auth"]["client_token"].as_str().unwrap().to_owned()
    };
    let held = token(0).await;
    for (method, target, body, status) in [
        ("PUT", "/secrets/p/a", r#"{"v":1}"#, 200),
        ("GET", "/secrets/p/a", "", 200),
        ("PUT", "/secrets/p/a", r#"{"v":2}"#, 403),
        ("DELETE", "/secrets/p/a", "", 403),
        ("POST", "/secrets/p/a?destroy=1", "", 403),
        ("GET", "/secrets/p/a?metadata", "", 403),
        ("GET", "/secrets/p?list=true", "", 200),
        ("GET", "/secrets/p/no", "", 403),
        ("GET", "/secrets/p/none", "", 404),
        ("GET", "/secrets/services/bot/a", "", 403),
        ("GET", "/secrets?list=true", "", 403),
        ("GET", "/security/secrets/retrieve?path=p/a", "", 200),
    ] {
        let reply = vault.raw(method, target, &shown(&held), body).await;
        assert_eq!(reply.status, status, "{method} {target}: {reply:?}");
    }
    assert_eq!(vault.raw("GET", "/secrets/services/x/y", &shown(&root), "").await.status, 404);
    let once = token(1).await;
    assert_eq!(vault.raw("GET", "/secrets/p/a", &shown(&once), "").await.status, 200);
    vault.raw("GET", "/secrets/p/a", &shown(&once), "").await.is(401, "invalid_token");
    vault.raw("GET", "/secrets/p/a", &shown("hvs.nobody"), "").await.is(401, "invalid_token");
    vault.raw("POST", "/tokens/bot", &shown(&root), "").await.is(401, "invalid_token");
    let two = format!("{}authorization: Bearer {held}\r\n", shown(&held));
    vault.raw("GET", "/secrets/p/a", &two, "").await.is(401, "invalid_token");
    let log = vault.as_admin("GET", "/audit?limit=500", "").await.text;
    assert!(log.contains("token/token/") && !log.contains(&held), "who it was, and never the token: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_name_the_clients_address_as_the_edge_tells_it() {
    let vault = Vault::start().await;
    let told = "x-user: bot\r\nx-permissions: read\r\nx-forwarded-for: 203.0.113.9\r\n";
    vault.vouched(told, "GET", "/secrets/services/bot/by-edge", "").await;
    vault.vouched("x-forwarded-for: 203.0.113.8\r\n", "GET", "/v1/secret/data/by-nobody", "").await;
    let other = format!("{}x-forwarded-for: 203.0.113.7\r\n", vault.proof(sluice_wire::role::Role::Calc));
    vault.internal("GET", "/secrets/services/bot/by-calc", &other, "").await;
    let spoofed = "x-forwarded-for: 203.0.113.6\r\n";
    vault.raw("GET", "/secrets/services/bot/by-anybody", spoofed, "").await;
    let log = vault.as_admin("GET", "/audit?limit=500", "").await.json();
    let remote = |path: &str| {
        let records = log["records"].as_array().unwrap();
        let found = records.iter().find(|record| record["path"].as_str().unwrap_or("").ends_with(path));
        found.unwrap_or_else(|| panic!("{path} in {log}"))["remote"].as_str().unwrap().to_owned()
    };
    assert_eq!(remote("by-edge"), "203.0.113.9");
    assert_eq!(remote("by-nobody"), "203.0.113.8");
    assert_eq!(remote("by-calc"), "internal", "only the edge has clients");
    assert!(remote("by-anybody").starts_with("127.0.0.1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_role_of_a_user_comes_with_a_password() {
    let vault = Vault::start().await;
    let made = vault.as_admin("PUT", "/auth/users/eve", r#"{"password":"of her own choice"}"#).await;
    assert_eq!(made.status, 201, "{made:?}");
    vault.as_admin("PUT", "/auth/users/eve", r#"{"roles":["admin"]}"#).await.is(400, "bad_request");
    let both = r#"{"roles":["admin"],"password":"one that she does not know"}"#;
    assert_eq!(vault.as_admin("PUT", "/auth/users/eve", both).await.status, 200);
    assert_eq!(vault.as_admin("PUT", "/auth/users/eve", r#"{"roles":["admin"]}"#).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_quarantine_exchanges_nobodys_tokens() {
    let secret = "a-path-that-nobody-guesses-0123456789";
    let mut setup = Setup::default();
    setup.config.falco.secret = Some(Secret::new(secret));
    setup.config.falco.responses = vec![FalcoResponse {
        rule: "Shell started by Sluice".into(),
        priority: FalcoPriority::Critical,
        action: FalcoAction::Quarantine,
        identity: Some("gate".into()),
        scope: None,
        target: None,
        ttl: Duration::from_mins(10),
        quorum: 1,
        dry_run: false,
    }];
    let vault = setup.start();
    vault.ready().await;
    let gate = client(&vault, "gate", "read tokens:exchange").await;
    let bot = vault.token("bot", &["read"]).await;
    let exchange = format!("{EXCHANGE}&subject_token={bot}");
    granted(&vault, &gate, &exchange).await;
    let alert = json!({
        "time": "2026-11-22T11:00:00.000000001Z", "rule": "Shell started by Sluice", "priority": "Critical",
        "source": "syscall", "hostname": "h", "output": "it happened", "tags": [],
        "output_fields": { "proc.name": "sh" },
    });
    let path = format!("/falco/alerts/{secret}");
    let sent = vault.raw("POST", &path, "content-type: application/json\r\n", &alert.to_string()).await;
    assert_eq!((sent.status, &sent.json()["responses"][0]["result"]), (202, &json!("done")), "{sent:?}");
    let refused = vault.raw("POST", "/oauth2/token", &gate, &exchange).await;
    assert!(refused.status >= 400 && refused.json().get("access_token").is_none(), "{refused:?}");
    assert!(is_good(&vault, &bot).await, "the token's own service is not meant");
}
