//! Bounds that no caller passes, whatever it may do otherwise.

use serde_json::{Value, json};

use sluice_schema::Quota;

use crate::harness::{Reply, Setup, Vault};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merging_makes_no_secret_larger_than_one_request() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read", "write"]).await;
    let path = "secret/data/services/bot/grown";
    let piece = |name: &str| json!({ "data": { name: "x".repeat(900 << 10) } });
    assert_eq!(vault.v1(&bot, "POST", path, &piece("a")).await.status, 200);
    let told = vault.v1(&bot, "PATCH", path, &piece("b")).await.errors(413);
    assert!(told.contains("1843") && told.contains("at most 1048576"), "{told}");
    let kept = vault.v1(&bot, "GET", path, &Value::Null).await.json();
    assert_eq!(kept["data"]["metadata"]["version"], 1);
    // What it replaces makes room.
    let swap = json!({ "data": { "a": null, "b": "y" } });
    assert_eq!(vault.v1(&bot, "PATCH", path, &swap).await.status, 200);
}

/// A vault in which an identity may hold little.
fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.config.vault.quota = Quota {
        tokens: 3,
        certificates: 2,
        vault_tokens: 3,
        wrapped_bytes: 6_000,
        secrets: 2,
        secret_bytes: 8_192,
        ..Quota::default()
    };
    setup
}

/// Asserts that a quota is reached, and which.
fn full(reply: &Reply, limit: &str) {
    assert_eq!(reply.status, 429, "{reply:?}");
    assert!(reply.text.contains(&format!("[vault.quota] {limit}")), "{reply:?}");
    assert!(reply.head.contains("retry-after: 30"), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_the_store_from_the_others() {
    let vault = setup().start();
    vault.ready().await;
    let bot = vault.token("bot", &["read", "write"]).await;
    let mint = |service: &'static str, token: &str| {
        let (vault, token) = (&vault, token.to_owned());
        async move { vault.call("POST", &format!("/tokens/{service}"), Some(&token), "{}").await }
    };
    assert_eq!(mint("bot", &bot).await.status, 200);
    assert_eq!(mint("bot", &bot).await.status, 200);
    mint("bot", &bot).await.is(429, "rate_limited");
    full(&mint("bot", &bot).await, "tokens");
    let ci = vault.token("ci", &["read", "tokens:mint"]).await;
    for service in ["a1", "a2"] {
        assert_eq!(mint(service, &ci).await.status, 200);
    }
    full(&mint("a3", &ci).await, "tokens");

    for _ in 0..2 {
        assert_eq!(vault.call("POST", "/credentials/bot", Some(&bot), "{}").await.status, 200);
    }
    full(&vault.call("POST", "/credentials/bot", Some(&bot), "{}").await, "certificates");
    assert_eq!(vault.call("POST", "/credentials/ci", Some(&ci), "{}").await.status, 200);

    let wrap = |text: String| {
        let (vault, headers) = (&vault, format!("x-vault-token: {bot}\r\nx-vault-wrap-ttl: 60\r\n"));
        let body = json!({ "a": text }).to_string();
        async move { vault.raw("POST", "/v1/sys/wrapping/wrap", &headers, &body).await }
    };
    assert_eq!(wrap("x".repeat(3_000)).await.status, 200);
    full(&wrap("x".repeat(3_000)).await, "wrapped_bytes");
    let small = wrap("x".into()).await;
    assert_eq!((small.status, wrap("x".into()).await.status), (200, 200));
    full(&wrap("x".into()).await, "vault_tokens");
    let opener = small.json()["wrap_info"]["token"].as_str().unwrap().to_owned();
    assert_eq!(vault.v1(&opener, "POST", "sys/wrapping/unwrap", &Value::Null).await.status, 200);
    assert_eq!(wrap("x".into()).await.status, 200, "what was opened makes room");

    let put = |name: &'static str, bytes: usize| {
        let (vault, bot) = (&vault, &bot);
        let body = json!({ "data": { "v": "x".repeat(bytes) } }).to_string();
        async move { vault.call("PUT", &format!("/secrets/services/bot/{name}"), Some(bot), &body).await }
    };
    assert_eq!((put("a", 3_000).await.status, put("b", 3_000).await.status), (200, 200));
    full(&put("c", 1).await, "secrets");
    full(&put("a", 3_000).await, "secret_bytes");
    let destroyed = vault.call("POST", "/secrets/services/bot/b?destroy=1", Some(&bot), "").await;
    assert_eq!((destroyed.status, put("a", 3_000).await.status), (200, 200), "{destroyed:?}");
    let body = r#"{"data":{"v":1}}"#;
    assert_eq!(vault.call("PUT", "/secrets/services/ci/a", Some(&ci), body).await.status, 403);
    assert_eq!(vault.as_admin("PUT", "/secrets/services/ci/a", body).await.status, 200);

    // What was counted is counted after a restart.
    let (dir, ended) = vault.stop().await;
    ended.unwrap();
    let vault = Setup { dir, ..setup() }.start();
    vault.ready().await;
    let again = |path: &'static str| vault.call("POST", path, Some(&bot), "{}");
    full(&again("/tokens/bot").await, "tokens");
    full(&again("/credentials/bot").await, "certificates");
    full(&vault.call("PUT", "/secrets/services/bot/d", Some(&bot), body).await, "secrets");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_an_approle_ends_after_five_tries() {
    let vault = Vault::start().await;
    let root = std::fs::read_to_string(vault.dir.path().join("vault-token")).unwrap();
    let empty = json!({});
    for name in ["r", "s"] {
        let made = vault.v1(&root, "POST", &format!("auth/approle/role/{name}"), &empty).await;
        assert_eq!(made.status, 204, "{made:?}");
    }
    let id = async |name: &str, what: &str, method: &str| {
        let told = vault.v1(&root, method, &format!("auth/approle/role/{name}/{what}"), &Value::Null).await;
        told.json()["data"][what.replace('-', "_")].as_str().unwrap().to_owned()
    };
    let (role, other) = (id("r", "role-id", "GET").await, id("s", "role-id", "GET").await);
    let (secret, others) = (id("r", "secret-id", "POST").await, id("s", "secret-id", "POST").await);
    let login = |role: &str, secret: &str| {
        let (vault, body) = (&vault, json!({ "role_id": role, "secret_id": secret }));
        async move { vault.v1("", "POST", "auth/approle/login", &body).await }
    };
    assert_eq!(login(&role, &secret).await.status, 200);
    for _ in 0..5 {
        login(&role, "a guess").await.errors(400);
    }
    let shut = login(&role, &secret).await;
    assert_eq!(shut.status, 429, "{shut:?}");
    assert!(shut.head.contains("retry-after: "), "{shut:?}");
    assert_eq!(login(&other, &others).await.status, 200, "another role is not shut out");
    let log = vault.as_admin("GET", "/audit?limit=500", "").await.text;
    assert!(log.contains("auth/approle/role/r") && !log.contains("a guess"), "{log}");

    let short = json!({ "secret_id": "fifteen-letters" });
    let told = vault.v1(&root, "POST", "auth/approle/role/r/custom-secret-id", &short).await.errors(400);
    assert!(told.contains("at least 16"), "{told}");
    let long = json!({ "secret_id": "sixteen--letters" });
    assert_eq!(vault.v1(&root, "POST", "auth/approle/role/r/custom-secret-id", &long).await.status, 200);
}
