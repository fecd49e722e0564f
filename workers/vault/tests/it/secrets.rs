//! Secrets: versions, isolation, hostile paths, and that nothing shows in the clear.

use std::sync::{LazyLock, Mutex};

use serde_json::{Value, json};
use tracing::field::{Field, Visit};

use crate::harness::{Vault, bytes_below};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_written_read_deleted_and_destroyed() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read", "write"]).await;
    let call = |method: &'static str, query: &str, body: &'static str| {
        let target = format!("/secrets/services/bot/db{query}");
        let (vault, bot) = (&vault, &bot);
        async move { vault.call(method, &target, Some(bot), body).await }
    };
    let first = call("PUT", "", r#"{"data":{"password":"one"},"cas":0}"#).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.json()["version"], 1);
    assert_eq!(first.json()["status"], "success");
    call("POST", "", r#"{"data":{"password":"x"},"cas":0}"#).await.is(409, "version_conflict");
    assert_eq!(call("POST", "", r#"{"password":"two"}"#).await.json()["version"], 2);
    assert_eq!(call("GET", "", "").await.json()["data"], json!({ "password": "two" }));
    assert_eq!(call("GET", "?version=1", "").await.json()["data"]["password"], "one");
    call("GET", "?version=3", "").await.is(404, "not_found");
    for bad in ["0", "-1", "1e3", "9223372036854775808", "1,2", ""] {
        call("GET", &format!("?version={bad}"), "").await.is(400, "bad_query");
    }
    call("GET", "?versoin=1", "").await.is(400, "bad_query");
    call("PUT", "?version=1", "{}").await.is(400, "bad_query");

    assert_eq!(call("DELETE", "", "").await.json()["versions"], json!([2]));
    call("GET", "", "").await.is(404, "not_found");
    assert_eq!(call("POST", "?undelete=2", "").await.status, 200);
    assert_eq!(call("GET", "", "").await.json()["version"], 2);
    assert_eq!(call("POST", "?destroy=1", "").await.status, 200);
    call("GET", "?version=1", "").await.is(404, "not_found");
    call("POST", "?undelete=1", "").await.is(409, "conflict");
    for whole in ["?metadata=true", "?metadata=1"] {
        assert_eq!(call("GET", whole, "").await.json()["current_version"], 2, "{whole}");
    }
    for value in ["?metadata=false", "?metadata=0&version=2"] {
        assert_eq!(call("GET", value, "").await.json()["version"], 2, "{value}");
    }
    call("GET", "?metadata=perhaps", "").await.is(400, "bad_query");
    let history = call("GET", "?metadata", "").await.json();
    assert_eq!(history["current_version"], 2);
    assert_eq!(history["versions"]["1"]["destroyed"], true);

    for n in 3..=12 {
        assert_eq!(call("PUT", "", r#"{"n":1}"#).await.json()["version"], n);
    }
    call("GET", "?version=2", "").await.is(404, "not_found");
    call("PATCH", "", "{}").await.is(405, "method_not_allowed");
    call("PUT", "", "[1]").await.is(400, "invalid_json");
    call("PUT", "", "{\"a\":1,\"a\":2}").await.is(400, "invalid_json");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_calls_reach_the_same_store() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read", "write"]).await;
    let body = r#"{"path":"services/bot/api","data":{"key":"k"}}"#;
    let stored = vault.call("POST", "/security/secrets/store", Some(&bot), body).await;
    assert_eq!((stored.status, &stored.json()["status"]), (200, &json!("success")));
    for path in [
        "/security/secrets/retrieve?path=services/bot/api",
        "/security/secrets/retrieve?path=services%2Fbot%2Fapi&version=1",
        "/security/secrets/retrieve/services/bot/api",
        "/secrets/services/bot/api",
    ] {
        let read = vault.call("GET", path, Some(&bot), "").await;
        assert_eq!(read.json()["data"]["key"], "k", "{path}");
    }
    vault.call("GET", "/security/secrets/retrieve", Some(&bot), "").await.is(400, "bad_query");
    let not_object = r#"{"path":"services/bot/api","data":[1]}"#;
    vault.call("POST", "/security/secrets/store", Some(&bot), not_object).await.is(400, "invalid_json");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_see_their_own_secrets_and_learn_nothing_of_others() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read", "write"]).await;
    let reader = vault.token("bot", &["read"]).await;
    vault.as_admin("PUT", "/secrets/services/other/db", r#"{"a":1}"#).await;
    vault.as_admin("PUT", "/secrets/services/bot_x/db", r#"{"a":1}"#).await;
    let strip = |text: &str| {
        let mut body: Value = serde_json::from_str(text).unwrap();
        body["request_id"] = json!("");
        body["instance"] = json!("");
        body
    };
    let there = vault.call("GET", "/secrets/services/other/db", Some(&bot), "").await;
    there.is(403, "forbidden");
    let absent = vault.call("GET", "/secrets/services/other/none", Some(&bot), "").await;
    assert_eq!((absent.status, strip(&absent.text)), (there.status, strip(&there.text)));
    for (method, path) in [
        ("GET", "/secrets/services/bot_x/db"),
        ("GET", "/secrets/services/other/db?metadata"),
        ("GET", "/secrets/services?list=true"),
        ("LIST", "/secrets/services/other"),
        ("GET", "/secrets?list=true"),
        ("PUT", "/secrets/services/other/db"),
        ("DELETE", "/secrets/services/other/db"),
        ("POST", "/secrets/shared?undelete=1"),
        ("GET", "/security/secrets/retrieve?path=services/other/db"),
    ] {
        let reply = vault.call(method, path, Some(&bot), "{}").await;
        assert_eq!(reply.status, 403, "{method} {path}: {reply:?}");
    }
    assert_eq!(vault.call("PUT", "/secrets/services/bot/db", Some(&reader), "{}").await.status, 403);
    vault.call("GET", "/secrets/services/bot/db", None, "").await.is(401, "invalid_token");
    vault.call("GET", "/secrets/services/bot/db", Some(&bot), "").await.is(404, "not_found");
    let keeper = vault.token("keeper", &["secrets:admin"]).await;
    assert_eq!(vault.call("GET", "/secrets/services/other/db", Some(&keeper), "").await.status, 200);
    assert_eq!(vault.via_edge("bot", "read", "GET", "/secrets/services/other/db").await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_paths_are_refused_before_policy() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read", "write"]).await;
    let long = format!("/secrets/{}", "a".repeat(1_025));
    let deep = format!("/secrets/{}", vec!["a"; 33].join("/"));
    for target in [
        "/secrets/services/bot/../other/db",
        "/secrets/services/bot/%2e%2e/other/db",
        "/secrets/services/bot/%2E%2E/other/db",
        "/secrets/services%2fother%2fdb",
        "/secrets/services/bot%252fdb",
        "/secrets/services//db",
        "/secrets//services/bot/db",
        "/secrets/services/bot/db/",
        "/secrets/services/bot/db;x",
        "/secrets/services/bot/db%00",
        "/secrets/services/bot/db%0a",
        "/secrets/services/bot/db.",
        "/secrets/services/bot/.",
        "/secrets/services/bot/d~b",
        "/secrets/services/bot/%c0%ae",
        "/secrets/services/bot/%ef%bc%8f",
        "/secrets/services/bot/%zz",
        &long,
        &deep,
    ] {
        for token in [&bot, &vault.admin()] {
            let reply = vault.call("GET", target, Some(token), "").await;
            assert_eq!((reply.status, reply.code().as_str()), (400, "bad_path"), "{target}");
        }
    }
    let query = "/security/secrets/retrieve?path=services/bot/../other/db";
    vault.call("GET", query, Some(&bot), "").await.is(400, "bad_path");
    vault.call("PUT", "/secrets/services/bot/a%40b", Some(&bot), r#"{"x":1}"#).await;
    assert_eq!(vault.call("GET", "/secrets/services/bot/a@b", Some(&bot), "").await.status, 200);
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    vault.call("PUT", "/secrets/services/bot/db", Some(&bot), &large).await.is(413, "body_too_large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_shows_names_and_folders_page_by_page() {
    let vault = Vault::start().await;
    for path in ["a", "a-b", "a/b/c", "a/d", "a.x", "z"] {
        assert_eq!(vault.as_admin("PUT", &format!("/secrets/{path}"), "{}").await.status, 200, "{path}");
    }
    let keys = |reply: crate::harness::Reply| reply.json()["keys"].clone();
    let root = keys(vault.as_admin("GET", "/secrets?list=true", "").await);
    assert_eq!(root, json!(["a", "a-b", "a.x", "a/", "z"]));
    assert_eq!(keys(vault.as_admin("LIST", "/secrets/", "").await), root);
    assert_eq!(keys(vault.as_admin("LIST", "/secrets/a/", "").await), json!(["b/", "d"]));
    assert_eq!(keys(vault.as_admin("GET", "/secrets/a?list=true&cursor=b/", "").await), json!(["d"]));
    vault.as_admin("GET", "/secrets/none?list=true", "").await.is(404, "not_found");
    vault.as_admin("GET", "/secrets/", "").await.is(400, "bad_path");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_racing_writers_wins() {
    let vault = Vault::start().await;
    let admin = vault.admin();
    let race = (0..24).map(|n| {
        let body = format!("{{\"data\":{{\"n\":{n}}},\"cas\":0}}");
        let (vault, admin) = (&vault, &admin);
        async move { vault.call("PUT", "/secrets/race", Some(admin), &body).await.status }
    });
    let statuses = futures_util::future::join_all(race).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 23);
}

/// What this process has logged, all tests together.
static LOGGED: LazyLock<Mutex<String>> = LazyLock::new(Mutex::default);

struct Capture;

impl tracing::Subscriber for Capture {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        attributes.record(&mut Text);
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Text);
    }

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Text);
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Text;

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write as _;
        writeln!(LOGGED.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_token_or_key_lies_or_travels_in_the_clear() {
    tracing::subscriber::set_global_default(Capture).unwrap();
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read", "write"]).await;
    let canary = "canary-7f3a9c51-plain";
    let body = format!("{{\"data\":{{\"password\":\"{canary}\"}}}}");
    assert_eq!(vault.call("PUT", "/secrets/services/bot/db", Some(&bot), &body).await.status, 200);
    assert!(vault.call("GET", "/secrets/services/bot/db", Some(&bot), "").await.text.contains(canary));
    let mut refusals = String::new();
    for (target, token) in [
        ("/secrets/services/other/db", Some(bot.as_str())),
        ("/secrets/services/bot/..", Some(bot.as_str())),
        ("/secrets/services/bot/db", None),
        ("/security/secrets/store", Some(bot.as_str())),
    ] {
        let method = if target.ends_with("store") { "POST" } else { "PUT" };
        let refused = vault.call(method, target, token, &body).await;
        assert!((400..500).contains(&refused.status), "{refused:?}");
        refusals += &refused.text;
    }
    let issued = vault.as_admin("POST", "/credentials/bot", "").await.json();
    let key = issued["private_key"].as_str().unwrap();
    let key_line = key.lines().nth(1).unwrap().to_owned();
    let others = other_secrets(&vault).await;
    let metrics = vault.call("GET", "/metrics", None, "").await.text;
    let admin = vault.admin();
    let needles = [canary, key_line.as_str(), bot.as_str(), admin.as_str()];
    for needle in needles.into_iter().chain(others.iter().map(String::as_str)) {
        assert!(!metrics.contains(needle) && !refusals.contains(needle));
        assert!(!LOGGED.lock().unwrap().contains(needle), "in the log");
        for (path, bytes) in bytes_below(vault.dir.path()) {
            if path.ends_with("token") {
                continue;
            }
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "in {}", path.display());
        }
    }
    assert!(LOGGED.lock().unwrap().contains("ready"), "the capture sees lines");
}

/// Has the vault make and keep what else is secret; all of it.
async fn other_secrets(vault: &Vault) -> Vec<String> {
    let root = std::fs::read_to_string(vault.dir.path().join("vault-token")).unwrap();
    let client = r#"{"client_id":"desk","scope":"read"}"#;
    let client = vault.as_admin("POST", "/oauth2/clients", client).await.json();
    assert_eq!(vault.v1(&root, "POST", "auth/approle/role/r", &json!({})).await.status, 204);
    let secret_id = vault.v1(&root, "POST", "auth/approle/role/r/secret-id", &json!({})).await.json();
    let headers = format!("x-vault-token: {root}\r\nx-vault-wrap-ttl: 60\r\n");
    let wrapped = "canary-5d1e-wrapped";
    let body = json!({ "key": wrapped }).to_string();
    let opener = vault.raw("POST", "/v1/sys/wrapping/wrap", &headers, &body).await.json();
    assert_eq!(vault.v1(&root, "POST", "transit/keys/k", &json!({})).await.status / 100, 2);
    // "canary-88ab-transit" in base64.
    let plain = "Y2FuYXJ5LTg4YWItdHJhbnNpdA==";
    let sealed = vault.v1(&root, "POST", "transit/encrypt/k", &json!({ "plaintext": plain })).await.json();
    let sealed = sealed["data"]["ciphertext"].as_str().unwrap();
    let opened = vault.v1(&root, "POST", "transit/decrypt/k", &json!({ "ciphertext": sealed })).await.json();
    assert_eq!(opened["data"]["plaintext"], plain);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    vec![
        text(&client["client_secret"]),
        text(&secret_id["data"]["secret_id"]),
        text(&opener["wrap_info"]["token"]),
        wrapped.to_owned(),
        plain.to_owned(),
        "canary-88ab-transit".to_owned(),
    ]
}
