//! Tokens: who gets them, what they may carry, how they end.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::Vault;

fn part(token: &str, index: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

async fn verdict(vault: &Vault, token: &str) -> Value {
    let reply = vault.call("POST", "/tokens/validate", None, &json!({ "token": token }).to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_generations_of_paths_mint_the_same_token() {
    let vault = Vault::start().await;
    let body = r#"{"service_name":"trading_service","permissions":["read","write"]}"#;
    for (path, body) in [
        ("/security/tokens/generate", body),
        ("/tokens/generate", body),
        ("/tokens/trading_service", r#"{"permissions":["read","write"],"ttl":"1h"}"#),
    ] {
        let reply = vault.as_admin("POST", path, body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.head.contains("cache-control: no-store"), "{reply:?}");
        let answer = reply.json();
        assert_eq!(answer["token_type"], "Bearer");
        assert_eq!(answer["service_name"], "trading_service");
        assert_eq!(answer["permissions"], json!(["read", "write"]));
        let token = answer["token"].as_str().unwrap();
        let (header, claims) = (part(token, 0), part(token, 1));
        let keys = vault.call("GET", "/.well-known/jwks.json", None, "").await.json();
        assert_eq!(header["alg"], "ES256");
        assert_eq!(header["typ"], "at+jwt");
        assert!(keys["keys"].as_array().unwrap().iter().any(|key| key["kid"] == header["kid"]));
        assert_eq!(keys["keys"].as_array().unwrap().len(), 2, "the next key is published early");
        assert_eq!(claims["iss"], "https://sluice.internal");
        assert_eq!(claims["sub"], "trading_service");
        assert_eq!(claims["service"], "trading_service");
        assert_eq!(claims["client_id"], "trading_service");
        assert_eq!(claims["aud"], json!(["sluice"]));
        assert_eq!(claims["scope"], "read write");
        assert_eq!(claims["permissions"], json!(["read", "write"]));
        assert_eq!(claims["jti"], answer["jti"]);
        let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        assert_eq!(life, if path == "/tokens/trading_service" { 3_600 } else { 86_400 });
        let good = verdict(&vault, token).await;
        assert_eq!((&good["valid"], &good["service_name"]), (&json!(true), &json!("trading_service")));
    }
    let defaulted = vault.as_admin("POST", "/tokens/bot", "").await.json();
    assert_eq!(defaulted["permissions"], json!(["read"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minting_needs_a_credential_and_never_widens() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read"]).await;
    let ci = vault.token("ci", &["tokens:mint", "read"]).await;
    vault.call("POST", "/tokens/bot", None, "").await.is(401, "invalid_token");
    let ask = |permissions: &str| format!("{{\"permissions\":{permissions}}}");
    let cases = [
        (&bot, "/tokens/bot", ask(r#"["read"]"#), 200),
        (&bot, "/tokens/bot", ask(r#"["write"]"#), 403),
        (&bot, "/tokens/bot", ask(r#"["admin"]"#), 403),
        (&bot, "/tokens/bot", ask(r#"["read","tokens:mint"]"#), 403),
        (&bot, "/tokens/other", ask(r#"["read"]"#), 403),
        (&ci, "/tokens/other", ask(r#"["read"]"#), 200),
        (&ci, "/tokens/other", ask(r#"["admin"]"#), 403),
        (&ci, "/tokens/other", ask(r#"["write"]"#), 403),
        (&ci, "/tokens/other", r#"{"ttl":"31d"}"#.to_owned(), 400),
        (&bot, "/tokens/bot", r#"{"ttl":0}"#.to_owned(), 400),
        (&bot, "/tokens/bot", r#"{"permissions":["a b"]}"#.to_owned(), 400),
        (&bot, "/tokens/bot", r#"{"permisions":["read"]}"#.to_owned(), 400),
        (&bot, "/tokens/bot", r#"{"service_name":"other"}"#.to_owned(), 400),
        (&bot, "/tokens/bot", r#"{"permissions":["read"],"permissions":["admin"]}"#.to_owned(), 400),
    ];
    for (token, path, body, status) in cases {
        let reply = vault.call("POST", path, Some(token), &body).await;
        assert_eq!(reply.status, status, "{path} {body}: {reply:?}");
    }
    for reserved in ["edge", "vault", "supervisor", "issue", "admin", "Bot", "a.b"] {
        let reply = vault.as_admin("POST", &format!("/tokens/{reserved}"), "").await;
        reply.is(400, "bad_request");
    }
    for permission in ["anything:new", "admin"] {
        let body = json!({ "permissions": [permission] }).to_string();
        assert_eq!(vault.as_admin("POST", "/tokens/bot", &body).await.status, 200, "{permission}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_may_not_mint_but_the_edges_clients_may() {
    let vault = Vault::start().await;
    let proof = vault.proof(sluice_wire::role::Role::Calc);
    assert_eq!(vault.internal("POST", "/tokens/bot", &proof, "").await.status, 403);
    let bot = part(&vault.token("bot", &["read"]).await, 1);
    let told = format!(
        "x-user: bot\r\nx-permissions: read\r\nx-auth-method: token\r\nx-internal-proof: {} {} {}\r\n",
        bot["iat"],
        bot["exp"],
        bot["jti"].as_str().unwrap()
    );
    assert_eq!(vault.vouched(&told, "POST", "/tokens/bot", "").await.status, 200);
    assert_eq!(vault.vouched(&told, "POST", "/tokens/other", "").await.status, 403);
    let spoofed = vault.raw("POST", "/tokens/bot", "x-user: bot\r\nx-permissions: admin\r\n", "").await;
    assert_eq!(spoofed.status, 401, "identity headers mean nothing at the API port");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_tokens_are_invalid_and_open_nothing() {
    let vault = Vault::start().await;
    let good = vault.token("bot", &["read", "write"]).await;
    let parts: Vec<&str> = good.split('.').collect();
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let mut claims = part(&good, 1);
    claims["scope"] = json!("admin");
    claims["permissions"] = json!(["admin"]);
    let none = encode(&json!({ "alg": "none", "typ": "at+jwt" }));
    let forged = [
        format!("{none}.{}.", parts[1]),
        format!("{none}.{}.{}", encode(&claims), parts[2]),
        format!("{}.{}.{}", parts[0], encode(&claims), parts[2]),
        format!("{}.{}.{}", encode(&json!({ "alg": "HS256" })), parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        good[..good.len() - 2].to_owned(),
        String::new(),
        ".".repeat(10_000),
    ];
    for token in &forged {
        let verdict = verdict(&vault, token).await;
        assert_eq!(verdict, json!({ "valid": false, "reason": "invalid" }), "{token}");
        let reply = vault.call("GET", "/secrets/services/bot/x", Some(token), "").await;
        assert_eq!(reply.status, 401, "{token}");
    }
    let header = format!("authorization: Bearer {good}\r\n");
    let by_header = vault.raw("POST", "/security/tokens/validate", &header, "").await.json();
    assert_eq!(by_header["valid"], true);
    vault.call("POST", "/tokens/validate", None, "").await.is(400, "bad_request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_tokens_end_at_once() {
    let vault = Vault::start().await;
    let one = vault.token("bot", &["read"]).await;
    let two = vault.token("bot", &["read"]).await;
    let other = vault.token("other", &["read"]).await;
    let jti = part(&one, 1)["jti"].clone();
    let by_jti = json!({ "jti": jti }).to_string();
    assert_eq!(vault.call("POST", "/tokens/revoke", Some(&other), &by_jti).await.status, 403);
    vault.call("POST", "/tokens/revoke", None, &by_jti).await.is(401, "invalid_token");
    let revoked = vault.as_admin("POST", "/tokens/revoke", &by_jti).await;
    assert_eq!(revoked.json()["revoked"], 1, "{revoked:?}");
    assert_eq!(verdict(&vault, &one).await["reason"], "revoked");
    assert_eq!(verdict(&vault, &two).await["valid"], true);
    assert_eq!(vault.call("GET", "/credentials", Some(&one), "").await.status, 401);

    // A token for somebody else is the vault's to end all the same.
    let for_calc = json!({ "permissions": ["read"], "audience": "calc" }).to_string();
    let for_calc = vault.as_admin("POST", "/tokens/bot", &for_calc).await.json()["token"].clone();
    let by_token = json!({ "token": for_calc }).to_string();
    for revoked in [1, 0] {
        let told = vault.call("POST", "/tokens/revoke", None, &by_token).await;
        assert_eq!(told.json()["revoked"], revoked, "{told:?}");
    }

    let by_service = json!({ "service": "bot" }).to_string();
    assert_eq!(vault.call("POST", "/tokens/revoke", Some(&other), &by_service).await.status, 403);
    assert_eq!(vault.call("POST", "/tokens/revoke", Some(&two), &by_service).await.status, 200);
    assert_eq!(verdict(&vault, &two).await["reason"], "revoked");
    let next = vault.token("bot", &["read"]).await;
    assert_eq!(verdict(&vault, &next).await["valid"], true, "a token made after the revocation is good");
    assert_eq!(verdict(&vault, &other).await["valid"], true);

    for bad in [json!({}), json!({ "jti": "a", "service": "b" }), json!({ "token": "x" })] {
        vault.as_admin("POST", "/tokens/revoke", &bad.to_string()).await.is(400, "bad_request");
    }
    vault.as_admin("POST", "/tokens/revoke", &json!({ "jti": "a" }).to_string()).await.is(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_gives_a_like_token_and_list_shows_who_has_what() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read", "trade"]).await;
    let refreshed = vault.call("POST", "/tokens/refresh", Some(&bot), r#"{"ttl":"30m"}"#).await.json();
    assert_eq!(refreshed["permissions"], json!(["read", "trade"]));
    assert_eq!(refreshed["service_name"], "bot");
    assert_eq!(refreshed["expires_in"], 1_800);
    vault.call("POST", "/tokens/refresh", None, "").await.is(401, "invalid_token");
    assert_eq!(vault.call("POST", "/tokens/refresh", Some(&bot), r#"{"ttl":"2d"}"#).await.status, 400);

    vault.token("other", &["read"]).await;
    let own = vault.call("GET", "/tokens", Some(&bot), "").await.json();
    assert_eq!(own["count"], 2);
    assert!(own["tokens"].as_array().unwrap().iter().all(|token| token["service_name"] == "bot"));
    assert!(!own.to_string().contains(&bot), "a list shows no token");
    vault.call("GET", "/tokens?service=other", Some(&bot), "").await.is(403, "insufficient_scope");
    let all = vault.as_admin("GET", "/tokens", "").await.json();
    assert_eq!(all["count"], 4, "{all}");
    let first = vault.as_admin("GET", "/tokens?limit=3", "").await.json();
    let cursor = first["next"].as_str().unwrap();
    let rest = vault.as_admin("GET", &format!("/tokens?limit=3&cursor={cursor}"), "").await.json();
    assert_eq!((first["count"].as_i64(), rest["count"].as_i64()), (Some(3), Some(1)));
    vault.as_admin("GET", "/tokens?limt=3", "").await.is(400, "bad_query");
    vault
        .call("POST", "/auth/login", None, r#"{"username":"admin","password":"admin"}"#)
        .await
        .is(404, "login_disabled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_already_is_not_counted_again() {
    let vault = Vault::start().await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(vault.token("bot", &["read"]).await);
    }
    vault.token("other", &["read"]).await;
    let one = json!({ "token": tokens[0] }).to_string();
    let revoked = async |body: &str| {
        vault.as_admin("POST", "/tokens/revoke", body).await.json()["revoked"].as_i64().unwrap()
    };
    assert_eq!((revoked(&one).await, revoked(&one).await), (1, 0));
    let all = r#"{"service":"bot"}"#;
    assert_eq!((revoked(all).await, revoked(all).await), (2, 0));
    vault.token("bot", &["read"]).await;
    assert_eq!(revoked(all).await, 1, "one that was made since");
}
