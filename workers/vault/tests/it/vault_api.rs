//! Vault's API under `/v1/`: its shapes, who may do what, bounds, records. What its own clients do is in
//! `tests/vault.py`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{Reply, Setup, Vault};

impl Vault {
    fn root(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("vault-token")).unwrap()
    }

    /// A call with a token in the header that Vault's clients use.
    pub(crate) async fn v1(&self, token: &str, method: &str, path: &str, body: &Value) -> Reply {
        let headers = format!("x-vault-token: {token}\r\n");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(method, &format!("/v1/{path}"), &headers, &body).await
    }

    async fn policy_token(&self, name: &str, policy: &str) -> String {
        let root = self.root();
        let reply =
            self.v1(&root, "PUT", &format!("sys/policies/acl/{name}"), &json!({ "policy": policy })).await;
        assert_eq!(reply.status, 204, "{reply:?}");
        let made = self.v1(&root, "POST", "auth/token/create", &json!({ "policies": [name] })).await;
        made.json()["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    fn audited(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("audit/vault.jsonl")).unwrap()
    }
}

impl Reply {
    pub(crate) fn errors(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.head.contains("content-type: application/json\r\n"), "{self:?}");
        assert!(self.head.contains("cache-control: no-store"), "{self:?}");
        self.json()["errors"]
            .as_array()
            .unwrap_or_else(|| panic!("{self:?}"))
            .iter()
            .map(|e| e.as_str().unwrap())
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_doors_open_one_store() {
    let vault = Vault::start().await;
    let root = vault.root();
    let written = vault.as_admin("PUT", "/secrets/services/bot/db", r#"{"data":{"n":1.50}}"#).await;
    assert_eq!(written.status, 200, "{written:?}");
    let read = vault.v1(&root, "GET", "secret/data/services/bot/db", &Value::Null).await;
    assert!(read.text.contains(r#""data":{"n":1.50}"#), "{read:?}");
    let patched =
        vault.v1(&root, "PATCH", "secret/data/services/bot/db", &json!({ "data": { "m": 2 } })).await;
    assert_eq!(patched.json()["data"]["version"], 2, "{patched:?}");
    let seen = vault.as_admin("GET", "/secrets/services/bot/db", "").await;
    assert_eq!(seen.json()["data"], json!({ "m": 2, "n": 1.5 }));
    let gone = vault.v1(&root, "DELETE", "secret/data/services/bot/db", &Value::Null).await;
    assert_eq!((gone.status, gone.text.as_str()), (204, ""));
    let told = vault.v1(&root, "GET", "secret/data/services/bot/db", &Value::Null).await;
    assert_eq!((told.status, &told.json()["data"]["data"]), (404, &Value::Null));
    assert_eq!(vault.as_admin("GET", "/secrets/services/bot/db", "").await.status, 404);
    assert_eq!(vault.v1(&root, "GET", "secret/data/none", &Value::Null).await.errors(404), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sluice_tokens_keep_their_own_part_of_the_tree() {
    let vault = Vault::start().await;
    let (bot, admin) = (vault.token("bot", &["read", "write"]).await, vault.admin());
    let value = json!({ "data": { "a": 1 } });
    assert_eq!(vault.v1(&bot, "POST", "secret/data/services/bot/a", &value).await.status, 200);
    assert_eq!(vault.v1(&bot, "GET", "secret/data/services/bot/a", &Value::Null).await.status, 200);
    for (method, path) in [
        ("GET", "secret/data/services/other/a"),
        ("GET", "secret/metadata/services/other/a"),
        ("LIST", "secret/metadata"),
        ("LIST", "secret/metadata/services"),
        ("POST", "secret/data/a"),
        ("POST", "secret/destroy/services/other/a"),
        ("GET", "secret/config"),
        ("GET", "sys/mounts"),
        ("PUT", "sys/policies/acl/x"),
        ("POST", "auth/token/create"),
        ("LIST", "auth/token/accessors"),
        ("POST", "auth/approle/role/x"),
    ] {
        let refused = vault.v1(&bot, method, path, &value).await.errors(403);
        assert!(refused.contains("permission denied"), "{method} {path}");
    }
    assert_eq!(vault.v1(&bot, "GET", "auth/token/lookup-self", &Value::Null).await.status, 200);
    // A token that a Sluice token made ends with it.
    let made = vault.v1(&admin, "POST", "auth/token/create", &json!({ "policies": ["default"] })).await;
    let made = made.json()["auth"]["client_token"].as_str().unwrap().to_owned();
    assert_eq!(vault.v1(&made, "GET", "auth/token/lookup-self", &Value::Null).await.status, 200);
    let body = json!({ "token": admin }).to_string();
    assert_eq!(vault.as_admin("POST", "/tokens/revoke", &body).await.status, 200);
    vault.v1(&made, "GET", "auth/token/lookup-self", &Value::Null).await.errors(403);
    vault.v1(&admin, "GET", "auth/token/lookup-self", &Value::Null).await.errors(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_policy_does_not_give_is_refused_and_recorded() {
    let vault = Vault::start().await;
    let policy = r#"path "secret/data/p/*" { capabilities = ["create", "read"] } path "secret/data/p/no" { capabilities = ["deny"] }
        path "auth/token/create" { capabilities = ["update"] } path "auth/token/create-orphan" { capabilities = ["update"] }"#;
    let token = vault.policy_token("p", policy).await;
    let value = json!({ "data": { "k": "canary-value" } });
    assert_eq!(vault.v1(&token, "POST", "secret/data/p/a", &value).await.status, 200);
    for (method, path) in [
        ("POST", "secret/data/p/a"),
        ("GET", "secret/data/p/no"),
        ("GET", "secret/data/q"),
        ("DELETE", "secret/data/p/a"),
        ("POST", "auth/token/create-orphan"),
        ("GET", "sys/policies/acl/p"),
    ] {
        vault.v1(&token, method, path, &value).await.errors(403);
    }
    for wish in [
        json!({ "policies": ["root"] }),
        json!({ "policies": ["other"] }),
        json!({ "no_parent": true }),
        json!({ "period": "1h" }),
        json!({ "id": "x" }),
    ] {
        vault.v1(&token, "POST", "auth/token/create", &wish).await.errors(400);
    }
    let log = vault.audited();
    let denied = |path: &str| {
        log.lines().any(|line| line.contains(path) && line.contains("deny") && line.contains("token/token/"))
    };
    assert!(
        denied("secret/data/p/no") && denied("secret/data/q") && denied("auth/token/create-orphan"),
        "{log}"
    );
    vault.v1("hvs.forged", "GET", "secret/data/p/a", &Value::Null).await.errors(403);
    assert!(vault.audited().contains("unverified"));
    let secret = token.trim_start_matches("hvs.");
    for (path, bytes) in crate::harness::bytes_below(vault.dir.path()) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("canary-value") && !text.contains(secret), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrapped_answers_and_counted_secrets_open_once_under_concurrency() {
    let vault = Arc::new(Vault::start().await);
    let root = vault.root();
    let headers = format!("x-vault-token: {root}\r\nx-vault-wrap-ttl: 60\r\n");
    let wrapped = vault.raw("POST", "/v1/sys/wrapping/wrap", &headers, r#"{"a":"b"}"#).await.json();
    let token = wrapped["wrap_info"]["token"].as_str().unwrap().to_owned();
    assert_eq!(
        vault.v1(&token, "GET", "secret/data/a", &Value::Null).await.status,
        403,
        "it opens nothing else"
    );
    assert_eq!(vault.v1(&root, "POST", "sys/wrapping/lookup", &json!({ "token": token })).await.status, 200);
    let unwrap = |vault: Arc<Vault>, token: String| async move {
        vault.v1(&token, "POST", "sys/wrapping/unwrap", &Value::Null).await.status
    };
    let tries: Vec<_> = (0..16).map(|_| tokio::spawn(unwrap(Arc::clone(&vault), token.clone()))).collect();
    let mut opened = 0;
    for one in tries {
        opened += usize::from(one.await.unwrap() == 200);
    }
    assert_eq!(opened, 1);
    let role = json!({ "token_policies": "default", "secret_id_num_uses": 1 });
    assert_eq!(vault.v1(&root, "POST", "auth/approle/role/r", &role).await.status, 204);
    let role_id =
        vault.v1(&root, "GET", "auth/approle/role/r/role-id", &Value::Null).await.json()["data"]["role_id"]
            .clone();
    let secret = vault.v1(&root, "POST", "auth/approle/role/r/secret-id", &Value::Null).await.json()["data"]
        ["secret_id"]
        .clone();
    let login = |vault: Arc<Vault>, body: Value| async move {
        vault.raw("POST", "/v1/auth/approle/login", "", &body.to_string()).await.status
    };
    let body = json!({ "role_id": role_id, "secret_id": secret });
    let tries: Vec<_> = (0..16).map(|_| tokio::spawn(login(Arc::clone(&vault), body.clone()))).collect();
    let mut entered = 0;
    for one in tries {
        entered += usize::from(one.await.unwrap() == 200);
    }
    assert_eq!(entered, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_are_refused_in_the_shape_of_vault() {
    let vault = Vault::start().await;
    let root = vault.root();
    let long = "a".repeat(2_000);
    let words: Vec<_> = (0..65).map(|n| n.to_string()).collect();
    for (method, path, body) in [
        ("GET", "secret/data/../a".to_owned(), Value::Null),
        ("GET", "secret/data/a%2fb".to_owned(), Value::Null),
        ("GET", "secret/data//a".to_owned(), Value::Null),
        ("GET", format!("secret/data/{long}"), Value::Null),
        ("GET", "secret/data/a?version=abc".to_owned(), Value::Null),
        ("GET", "secret/data/a?version=-1".to_owned(), Value::Null),
        ("POST", "secret/data/a".to_owned(), json!([1])),
        ("POST", "secret/data/a".to_owned(), json!({ "data": 1 })),
        ("POST", "secret/data/a".to_owned(), json!({ "data": {}, "options": { "cas": -1 } })),
        ("POST", "secret/metadata/a".to_owned(), json!({ "max_versions": 101 })),
        ("POST", "secret/destroy/a".to_owned(), json!({ "versions": ["0"] })),
        ("POST", "secret/destroy/a".to_owned(), json!({ "versions": words })),
        ("PUT", "sys/policies/acl/x".to_owned(), json!({ "policy": "#".repeat(70_000) })),
        ("PUT", "sys/policies/acl/root".to_owned(), json!({ "policy": "path \"a\" {}" })),
        ("PUT", format!("sys/policies/acl/{}", "p".repeat(200)), json!({ "policy": "path \"a\" {}" })),
        ("POST", "auth/token/create".to_owned(), json!({ "policies": words })),
        ("POST", "auth/token/create".to_owned(), json!({ "policies": ["a b"] })),
        ("POST", "auth/token/create".to_owned(), json!({ "ttl": "1 fortnight" })),
        ("POST", "auth/token/create".to_owned(), json!({ "num_uses": -1 })),
        ("POST", "auth/approle/role/r".to_owned(), json!({ "bind_secret_id": false })),
        ("POST", "sys/wrapping/wrap".to_owned(), json!({})),
    ] {
        assert!(!vault.v1(&root, method, &path, &body).await.errors(400).is_empty(), "{method} {path}");
    }
    let big = json!({ "data": { "a": "x".repeat(1 << 20) } });
    vault.v1(&root, "POST", "secret/data/a", &big).await.errors(413);
    let namespace = format!("x-vault-token: {root}\r\nx-vault-namespace: team\r\n");
    vault.raw("GET", "/v1/secret/data/a", &namespace, "").await.errors(400);
    let wrap = format!("x-vault-token: {root}\r\nx-vault-wrap-ttl: 9000h\r\n");
    vault.raw("GET", "/v1/sys/mounts", &wrap, "").await.errors(400);
    let twice = format!("x-vault-token: {root}\r\nauthorization: Bearer {root}\r\n");
    vault.raw("GET", "/v1/sys/mounts", &twice, "").await.errors(403);
    assert!(
        vault.v1(&root, "GET", "nothing/x", &Value::Null).await.errors(404).contains("no handler for route")
    );
    assert!(
        vault
            .v1(&root, "DELETE", "auth/token/create", &Value::Null)
            .await
            .errors(405)
            .contains("unsupported operation")
    );
    // A chain of tokens has an end.
    let mut last = root;
    let mut made = 0;
    loop {
        let reply = vault.v1(&last, "POST", "auth/token/create", &json!({ "ttl": "1h" })).await;
        if reply.status != 200 {
            assert!(reply.errors(400).contains("too many tokens above"));
            break;
        }
        made += 1;
        last = reply.json()["auth"]["client_token"].as_str().unwrap().to_owned();
    }
    assert!((16..=40).contains(&made), "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_vault_says_so_to_clients_of_vault() {
    let vault = Setup { dev: false, ..Setup::default() }.start();
    assert_eq!(vault.raw("GET", "/v1/secret/data/a", "", "").await.errors(503), "Vault is sealed");
    let status = vault.raw("GET", "/v1/sys/seal-status", "", "").await;
    assert_eq!((status.status, &status.json()["sealed"]), (200, &json!(true)));
    let health = vault.raw("GET", "/v1/sys/health", "", "").await;
    assert!([501, 503].contains(&health.status), "{health:?}");
    assert_eq!(vault.raw("GET", "/v1/sys/health?sealedcode=299&uninitcode=299", "", "").await.status, 299);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_vault_make_open_and_close_it() {
    let mut setup = Setup { dev: false, ..Setup::default() };
    setup.config.vault.seal = sluice_schema::Seal::Shamir;
    let vault = setup.start();
    let health = vault.raw("GET", "/v1/sys/health", "", "").await;
    assert_eq!((health.status, &health.json()["initialized"]), (501, &json!(false)));
    let none = Value::Null;
    let split = json!({ "secret_shares": 3, "secret_threshold": 2 });
    vault.v1("", "PUT", "sys/init", &json!({ "secret_shares": 3, "secret_threshold": 4 })).await.errors(400);
    let made = vault.v1("", "PUT", "sys/init", &split).await;
    assert_eq!(made.status, 200, "{made:?}");
    let (made, again) = (made.json(), vault.v1("", "PUT", "sys/init", &split).await);
    again.errors(400);
    let root = made["root_token"].as_str().unwrap();
    assert_eq!(vault.v1(root, "GET", "secret/data/a", &none).await.errors(503), "Vault is sealed");
    let share = |at: usize| json!({ "key": made["keys_base64"][at] });
    vault.v1("", "PUT", "sys/unseal", &json!({ "key": "no share" })).await.errors(400);
    let first = vault.v1("", "PUT", "sys/unseal", &share(0)).await.json();
    assert_eq!((&first["sealed"], &first["progress"], &first["t"]), (&json!(true), &json!(1), &json!(2)));
    let reset = vault.v1("", "PUT", "sys/unseal", &json!({ "reset": true })).await.json();
    assert_eq!(reset["progress"], 0);
    vault.v1("", "PUT", "sys/unseal", &share(2)).await;
    assert_eq!(vault.v1("", "POST", "sys/unseal", &share(1)).await.json()["sealed"], false);
    let written = vault.v1(root, "POST", "secret/data/a", &json!({ "data": { "a": 1 } })).await;
    assert_eq!(written.status, 200, "{written:?}");
    let weak = vault.v1(root, "POST", "auth/token/create", &json!({ "policies": ["default"] })).await.json();
    let weak = weak["auth"]["client_token"].as_str().unwrap();
    vault.v1(weak, "PUT", "sys/seal", &none).await.errors(403);
    vault.v1("", "PUT", "sys/seal", &none).await.errors(403);
    assert_eq!(vault.v1(root, "PUT", "sys/seal", &none).await.status, 204);
    assert_eq!(vault.v1(root, "GET", "secret/data/a", &none).await.errors(503), "Vault is sealed");
    for at in [0, 1] {
        vault.v1("", "PUT", "sys/unseal", &share(at)).await;
    }
    assert_eq!(vault.v1(root, "GET", "secret/data/a", &none).await.json()["data"]["data"], json!({ "a": 1 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_alone_is_told_which_refusals_are_of_a_credential() {
    let vault = Vault::start().await;
    let narrow = vault.policy_token("narrow", r#"path "secret/data/own" { capabilities = ["read"] }"#).await;
    let foreign = format!("x-vault-token: {narrow}\r\n");
    let (guess, jwt) = ("x-vault-token: hvs.AAAAAAAAAAAAAAAAAAAAAAAA\r\n", "x-vault-token: a.b.c\r\n");
    let role = r#"{"role_id":"none","secret_id":"none-of-that-length"}"#;
    for (headers, method, path, body, told) in [
        (guess, "GET", "secret/data/own", "", true),
        (jwt, "GET", "secret/data/own", "", true),
        ("", "POST", "auth/approle/login", role, true),
        ("", "POST", "auth/userpass/login/nobody", r#"{"password":"none"}"#, true),
        ("", "POST", "auth/jwt/login", r#"{"jwt":"a.b.c","role":"r"}"#, true),
        ("", "PUT", "sys/wrapping/unwrap", r#"{"token":"hvs.AAAAAAAAAAAAAAAAAAAAAAAA"}"#, true),
        (&foreign, "GET", "secret/data/foreign", "", false),
        (&foreign, "GET", "secret/data/own", "", false),
        ("", "GET", "secret/data/own", "", false),
        ("", "POST", "auth/approle/login", "{}", false),
    ] {
        let target = format!("/v1/{path}");
        let inside = vault.vouched(headers, method, &target, body).await;
        let outside = vault.raw(method, &target, headers, body).await;
        assert!(inside.status >= 400 && inside.status == outside.status, "{target}: {inside:?} {outside:?}");
        assert_eq!(inside.head.contains("x-internal-refused: credential\r\n"), told, "{target}: {inside:?}");
        assert!(!outside.head.contains("x-internal"), "{target}: {outside:?}");
        assert_eq!(inside.text, outside.text, "{target}");
    }
}
