//! New keys for the vault by its API: who may, what is answered, and that nobody else notices. What real clients make of
//! it is in `tests/vault.py`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Reply, Vault};

impl Vault {
    fn key(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("vault/unseal.key")).unwrap().trim_end().to_owned()
    }

    async fn sys(&self, token: &str, method: &str, path: &str, body: Value) -> Reply {
        let headers = if token.is_empty() { String::new() } else { format!("x-vault-token: {token}\r\n") };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(method, &format!("/v1/sys/{path}"), &headers, &body).await
    }

    /// A root token by the key file alone.
    async fn root_by_key(&self) -> String {
        let begun = self.sys("", "PUT", "generate-root/attempt", json!({})).await.json();
        let given = json!({ "nonce": begun["nonce"], "key": self.key() });
        let made = self.sys("", "PUT", "generate-root/update", given).await.json();
        assert_eq!((&made["complete"], &made["data"]["complete"]), (&json!(true), &json!(true)), "{made}");
        let veiled = STANDARD_NO_PAD.decode(made["encoded_root_token"].as_str().unwrap()).unwrap();
        let pad = begun["otp"].as_str().unwrap().bytes();
        veiled.iter().zip(pad).map(|(a, b)| char::from(a ^ b)).collect()
    }
}

fn refused(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert!(reply.json()["errors"].is_array(), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_under_load_and_no_request_fails() {
    let vault = Arc::new(Vault::start().await);
    let root = std::fs::read_to_string(vault.dir.path().join("vault-token")).unwrap();
    for n in 0..40 {
        vault.as_admin("PUT", &format!("/secrets/kept/{n}"), r#"{"a":"kept"}"#).await;
    }
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let mut busy = Vec::new();
    for task in 0..3 {
        let (vault, stop, calls) = (Arc::clone(&vault), Arc::clone(&stop), Arc::clone(&calls));
        busy.push(tokio::spawn(async move {
            for n in 0.. {
                let own = format!("/secrets/busy/{task}");
                let written = vault.as_admin("PUT", &own, &format!(r#"{{"n":{n}}}"#)).await;
                assert_eq!(written.status, 200, "{written:?}");
                let read = vault.as_admin("GET", &own, "").await;
                assert_eq!((read.status, &read.json()["data"]["n"]), (200, &json!(n)), "{read:?}");
                let kept = vault.as_admin("GET", &format!("/secrets/kept/{}", n % 40), "").await;
                assert_eq!(kept.status, 200, "{kept:?}");
                calls.fetch_add(3, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        }));
    }
    for (term, path) in ["rotate", "rotate/keyring", "rotate"].into_iter().enumerate() {
        let before = calls.load(Ordering::Relaxed);
        assert_eq!(vault.sys(&root, "POST", path, Value::Null).await.status, 204);
        let status = vault.sys(&root, "GET", "key-status", Value::Null).await.json();
        assert_eq!(
            (&status["term"], &status["data"]["term"]),
            (&json!(term + 2), &json!(term + 2)),
            "{status}"
        );
        assert!(status["install_time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        while calls.load(Ordering::Relaxed) < before + 12 {
            tokio::task::yield_now().await;
        }
    }
    let begun = vault.sys(&root, "PUT", "rekey/init", json!({ "seal": "file" })).await.json();
    let given = json!({ "nonce": begun["nonce"], "key": vault.key() });
    let made = vault.sys(&root, "PUT", "rekey/update", given).await;
    assert_eq!((made.status, &made.json()["complete"]), (200, &json!(true)), "{made:?}");
    stop.store(true, Ordering::Relaxed);
    for task in busy {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_administrators_rekey_and_every_step_is_recorded() {
    let vault = Vault::start().await;
    let root = std::fs::read_to_string(vault.dir.path().join("vault-token")).unwrap();
    let made = vault
        .raw(
            "POST",
            "/v1/auth/token/create",
            &format!("x-vault-token: {root}\r\n"),
            r#"{"policies":["default"]}"#,
        )
        .await;
    let weak = made.json()["auth"]["client_token"].as_str().unwrap().to_owned();
    let bot = vault.token("bot", &["read", "write"]).await;
    for token in [weak.as_str(), bot.as_str(), "", "hvs.none"] {
        for (method, path) in [
            ("PUT", "rotate"),
            ("PUT", "rotate/keyring"),
            ("GET", "rekey/init"),
            ("PUT", "rekey/init"),
            ("DELETE", "rekey/init"),
            ("PUT", "rekey/update"),
            ("PUT", "rekey/verify"),
            ("PUT", "rotate/root/init"),
        ] {
            refused(&vault.sys(token, method, path, json!({})).await, 403);
        }
    }
    let idle = vault.sys(&root, "GET", "rekey/init", Value::Null).await.json();
    assert_eq!((&idle["started"], &idle["nonce"], &idle["required"]), (&json!(false), &json!(""), &json!(1)));
    refused(&vault.sys(&root, "GET", "rekey/verify", Value::Null).await, 400);
    for body in [
        json!({ "secret_shares": 3, "secret_threshold": 1 }),
        json!({ "secret_shares": 0, "secret_threshold": 0 }),
        json!({ "secret_shares": 3, "secret_threshold": 2, "pgp_keys": ["x"] }),
        json!({ "secret_shares": 3, "secret_threshold": 2, "backup": true }),
        json!({ "seal": "paper" }),
    ] {
        refused(&vault.sys(&root, "PUT", "rekey/init", body).await, 400);
    }
    // By both names of the calls.
    let asked = json!({ "secret_shares": 3, "secret_threshold": 2, "require_verification": true });
    let begun = vault.sys(&root, "PUT", "rotate/root/init", asked.clone()).await.json();
    assert_eq!(
        (&begun["data"]["n"], &begun["t"], &begun["required"]),
        (&json!(3), &json!(2), &json!(1)),
        "{begun}"
    );
    refused(&vault.sys(&root, "PUT", "rekey/init", asked).await, 400);
    for given in [
        json!({ "nonce": "bad", "key": vault.key() }),
        json!({ "nonce": uuid::Uuid::new_v4(), "key": vault.key() }),
        json!({ "nonce": begun["nonce"], "key": "no key" }),
        json!({ "nonce": begun["nonce"], "key": "00".repeat(32) }),
        json!({ "nonce": begun["nonce"] }),
    ] {
        refused(&vault.sys(&root, "PUT", "rekey/update", given).await, 400);
    }
    let given = json!({ "nonce": begun["nonce"], "key": vault.key() });
    let made = vault.sys(&root, "PUT", "rekey/update", given).await.json();
    assert_eq!((made["keys"].as_array().unwrap().len(), &made["verification_required"]), (3, &json!(true)));
    let verify = |nonce: &Value, at: usize| {
        let body = json!({ "nonce": nonce, "key": made["keys_base64"][at] });
        let (vault, root) = (&vault, &root);
        async move { vault.sys(root, "PUT", "rekey/verify", body).await.json() }
    };
    assert_eq!(verify(&made["verification_nonce"], 2).await["progress"], 1);
    let anew = vault.sys(&root, "DELETE", "rekey/verify", Value::Null).await.json();
    assert_eq!((&anew["progress"], &anew["started"]), (&json!(0), &json!(true)), "{anew}");
    verify(&anew["nonce"], 0).await;
    assert_eq!(verify(&anew["nonce"], 1).await["complete"], true);
    let status = vault.sys("", "GET", "seal-status", Value::Null).await.json();
    assert_eq!((&status["seal"], &status["n"], &status["t"]), (&json!("shamir"), &json!(3), &json!(2)));
    assert_eq!(vault.sys(&root, "PUT", "seal", Value::Null).await.status, 204);
    for at in [2, 0] {
        vault.sys("", "PUT", "unseal", json!({ "key": made["keys"][at] })).await;
    }
    assert_eq!(vault.sys(&root, "GET", "key-status", Value::Null).await.json()["term"], 2);
    let text = std::fs::read_to_string(vault.dir.path().join("audit/vault.jsonl")).unwrap();
    let of = |op: &str| text.lines().filter(|line| line.contains(&format!(r#""op":"{op}""#))).count();
    assert_eq!((of("rekey_begin"), of("rekey_restart"), of("rekey_done")), (2, 1, 1), "{text}");
    for secret in [&made["keys"][0], &made["keys_base64"][0]] {
        assert!(!text.contains(secret.as_str().unwrap()), "a share is in the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_administrator_forgot_the_password() {
    let vault = Vault::start().await;
    let made = r#"{"password":"first password","roles":["admin"]}"#;
    let made = vault.as_admin("PUT", "/auth/users/alice", made).await;
    assert!(made.status < 300, "{made:?}");
    let root = vault.root_by_key().await;
    let body = r#"{"password":"second password"}"#;
    let set =
        vault.raw("POST", "/v1/auth/userpass/users/alice", &format!("x-vault-token: {root}\r\n"), body).await;
    assert_eq!(set.status, 204, "{set:?}");
    let login = |password: &str| format!(r#"{{"username":"alice","password":"{password}"}}"#);
    assert_eq!(vault.call("POST", "/auth/login", None, &login("first password")).await.status, 401);
    let login = vault.call("POST", "/auth/login", None, &login("second password")).await;
    assert_eq!((login.status, &login.json()["roles"]), (200, &json!(["admin"])), "{login:?}");
    let given = json!({ "nonce": uuid::Uuid::new_v4(), "key": vault.key() });
    refused(&vault.sys("", "PUT", "generate-root/update", given).await, 400);
    let short = vault.sys("", "PUT", "generate-root-token/attempt", json!({ "otp": "short" })).await;
    refused(&short, 400);
    vault.sys("", "PUT", "generate-root-token/attempt", json!({})).await;
    refused(&vault.sys("", "PUT", "generate-root/attempt", json!({})).await, 400);
    assert_eq!(vault.sys("", "DELETE", "generate-root/attempt", Value::Null).await.status, 204);
    assert_eq!(vault.sys("", "GET", "generate-root/attempt", Value::Null).await.json()["started"], false);
}
