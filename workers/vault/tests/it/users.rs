//! Users: who makes them, how they log in, how guessing ends.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_wire::role::Role;

use crate::harness::{Reply, Setup, Vault, bytes_below};

const PASSWORD: &str = "canary-horse-battery-1";

/// A vault with a role `desk`.
async fn start() -> Vault {
    let mut setup = Setup::default();
    setup.config.auth.roles.insert("desk".into(), vec!["read".into(), "trade".into()]);
    let vault = setup.start();
    vault.ready().await;
    vault
}

async fn make(vault: &Vault, name: &str, password: &str, roles: &[&str]) -> Reply {
    let body = json!({ "password": password, "roles": roles }).to_string();
    vault.as_admin("PUT", &format!("/auth/users/{name}"), &body).await
}

async fn login(vault: &Vault, name: &str, password: &str) -> Reply {
    vault
        .call("POST", "/auth/login", None, &json!({ "username": name, "password": password }).to_string())
        .await
}

/// A login as the edge hands it on from an address.
async fn login_from(vault: &Vault, source: &str, name: &str, password: &str) -> Reply {
    let headers = format!("{}x-forwarded-for: {source}\r\n", vault.proof(Role::Edge));
    let body = json!({ "username": name, "password": password }).to_string();
    vault.internal("POST", "/auth/login", &headers, &body).await
}

async fn is_good(vault: &Vault, token: &str) -> bool {
    vault.call("GET", "/auth/verify", Some(token), "").await.status == 200
}

fn token(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_logs_in_with_what_its_roles_allow_until_it_is_changed_or_removed() {
    let vault = start().await;
    login(&vault, "alice", PASSWORD).await.is(404, "login_disabled");
    assert_eq!(make(&vault, "Alice", PASSWORD, &["desk"]).await.status, 201);
    let session = login(&vault, "alice", PASSWORD).await;
    let told = session.json();
    assert_eq!((&told["user"], &told["roles"]), (&json!("alice"), &json!(["desk"])));
    assert_eq!((&told["permissions"], &told["token_type"]), (&json!(["read", "trade"]), &json!("Bearer")));
    assert!(told["expires_at"].as_str().unwrap() > "2026", "{told}");
    assert!(session.head.contains("cache-control: no-store"));
    let first = token(&session);
    let verified = vault.call("POST", "/auth/verify", Some(&first), "").await.json();
    assert_eq!((&verified["valid"], &verified["service_name"]), (&json!(true), &json!("user:alice")));
    assert_eq!(
        vault.call("GET", "/secrets/services/alice/x", Some(&first), "").await.status,
        403,
        "no service"
    );
    let refreshed = vault.call("POST", "/auth/refresh", Some(&first), r#"{"ttl":"10m"}"#).await;
    assert_eq!(refreshed.json()["expires_in"], 600);
    let second = token(&refreshed);
    vault.call("GET", "/auth/verify", None, "").await.is(401, "invalid_token");
    vault.call("GET", "/auth/verify", Some("x.y.z"), "").await.is(401, "invalid_token");
    let service = vault.token("bot", &["read"]).await;
    assert_eq!(vault.call("POST", "/auth/refresh", Some(&service), "").await.status, 403);

    // Other roles end what the old ones opened, and the next session has the new ones at once.
    let changed = vault.as_admin("PUT", "/auth/users/alice", r#"{"roles":["admin"]}"#).await;
    assert_eq!((changed.status, &changed.json()["roles"]), (200, &json!(["admin"])));
    assert!(!is_good(&vault, &first).await && !is_good(&vault, &second).await);
    let admin = token(&login(&vault, "ALICE", PASSWORD).await);
    let listed = vault.call("GET", "/auth/users", Some(&admin), "").await.json();
    assert_eq!((&listed["count"], &listed["users"][0]["user"]), (&json!(1), &json!("alice")));
    assert!(listed["users"][0].get("password").is_none(), "{listed}");
    assert_eq!(vault.call("DELETE", "/auth/users/alice", Some(&admin), "").await.status, 204);
    assert!(!is_good(&vault, &admin).await);
    login(&vault, "alice", PASSWORD).await.is(404, "login_disabled");
    vault.as_admin("GET", "/auth/users/alice", "").await.is(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_administrators_manage_users_and_every_wish_has_bounds() {
    let vault = start().await;
    make(&vault, "alice", PASSWORD, &["desk"]).await;
    let alice = token(&login(&vault, "alice", PASSWORD).await);
    let minter = vault.token("ci", &["tokens:mint", "secrets:admin"]).await;
    for caller in [&alice, &minter] {
        for (method, body) in [("PUT", r#"{"roles":["admin"]}"#), ("GET", ""), ("DELETE", "")] {
            let reply = vault.call(method, "/auth/users/alice", Some(caller), body).await;
            reply.is(403, "insufficient_scope");
        }
    }
    assert_eq!(vault.call("GET", "/auth/users", None, "").await.status, 401);
    let long = "x".repeat(1_025);
    for (name, body) in [
        ("bob", json!({ "roles": ["desk"] })),
        ("bob", json!({ "password": "short" })),
        ("bob", json!({ "password": long })),
        ("bobby-the-trader", json!({ "password": "Bobby-the-Trader" })),
        ("bob", json!({ "password": PASSWORD, "roles": ["none"] })),
        ("bob", json!({ "password": PASSWORD, "roles": vec!["desk"; 33] })),
        ("b%20b", json!({ "password": PASSWORD })),
        ("-bob", json!({ "password": PASSWORD })),
        ("bob", json!({ "password": PASSWORD, "admin": true })),
    ] {
        let reply = vault.as_admin("PUT", &format!("/auth/users/{name}"), &body.to_string()).await;
        assert_eq!(reply.status, 400, "{name} {body}: {reply:?}");
    }
    let wrong = vault.as_admin("PUT", "/auth/users/bob", r#"{"password":4711081500}"#).await;
    assert!(wrong.status == 400 && !wrong.text.contains("4711"), "{wrong:?}");
    let body = format!(r#"{{"username":"alice","password":"{}"}}"#, "x".repeat(9_000));
    vault.call("POST", "/auth/login", None, &body).await.is(413, "body_too_large");
    login(&vault, "alice", &long).await.is(401, "invalid_token");
    // A user without roles opens no session.
    make(&vault, "carol", PASSWORD, &[]).await;
    login(&vault, "carol", PASSWORD).await.is(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_wrong_passwords_shut_out_that_user_from_that_address_alone() {
    let vault = start().await;
    make(&vault, "alice", PASSWORD, &["desk"]).await;
    let (known, unknown) =
        (login(&vault, "alice", "wrong-one").await, login(&vault, "nobody", "wrong-one").await);
    assert_eq!((known.status, &known.json()["detail"]), (401, &unknown.json()["detail"]));
    for name in ["alice", "nobody"] {
        for _ in 0..4 {
            login(&vault, name, "wrong-one").await.is(401, "invalid_token");
        }
        let shut = login(&vault, name, PASSWORD).await;
        shut.is(429, "too_many_auth_failures");
        let wait = shut.head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
        assert!((880..=900).contains(&wait.parse::<i32>().unwrap()), "{shut:?}");
    }
    // From elsewhere, and after the administrator has set another password.
    assert_eq!(login_from(&vault, "203.0.113.9", "alice", PASSWORD).await.status, 200);
    assert_eq!(login_from(&vault, "127.0.0.1", "alice", PASSWORD).await.status, 429, "the same address");
    make(&vault, "alice", "another-password", &["desk"]).await;
    assert_eq!(login(&vault, "alice", "another-password").await.status, 200);
    let metrics = vault.call("GET", "/metrics", None, "").await.text;
    for line in [r#"outcome="locked_out"} 3"#, r#"outcome="wrong"} 10"#, r#"outcome="granted"} 2"#] {
        assert!(
            metrics.contains(&format!("sluice_vault_logins_total{{{line}")) || metrics.contains(line),
            "{line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_changes_its_own_password_and_nothing_of_it_is_ever_written_down() {
    let vault = start().await;
    make(&vault, "alice", PASSWORD, &["desk"]).await;
    let before = token(&login(&vault, "alice", PASSWORD).await);
    let wish = |password: &str, new: &str| {
        json!({ "username": "alice", "password": password, "new_password": new }).to_string()
    };
    let new = "canary-second-password";
    vault.call("POST", "/auth/password", None, &wish("wrong-one", new)).await.is(401, "invalid_token");
    vault.call("POST", "/auth/password", None, &wish(PASSWORD, "short")).await.is(400, "bad_request");
    assert_eq!(vault.call("POST", "/auth/password", None, &wish(PASSWORD, new)).await.status, 200);
    assert!(!is_good(&vault, &before).await);
    login(&vault, "alice", PASSWORD).await.is(401, "invalid_token");
    token(&login(&vault, "alice", new).await);
    login(&vault, "canary-typed-into-the-wrong-field", "x").await.is(401, "invalid_token");
    for (name, password) in [("alice", "wrong-one"), ("nobody", PASSWORD)] {
        let refused = login(&vault, name, password).await.json();
        assert_eq!(refused["detail"], "the name or the password is wrong", "{name}: not which of them");
    }
    let (dir, ended) = vault.stop().await;
    ended.unwrap();
    for (path, bytes) in bytes_below(dir.path()) {
        let text = String::from_utf8_lossy(&bytes);
        for canary in [PASSWORD, new, "canary-typed"] {
            assert!(!text.contains(canary), "{canary} in {}", path.display());
        }
        assert!(!text.contains("memory_kib"), "a hash in {}", path.display());
        if path.extension().is_some_and(|end| end == "jsonl") {
            assert!(text.contains("auth/users/alice") && text.contains("auth/users/?"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_logins_is_turned_away_and_nobody_else_waits_for_it() {
    let vault = start().await;
    make(&vault, "alice", PASSWORD, &["desk"]).await;
    let bot = vault.token("bot", &["read"]).await;
    let check = json!({ "token": bot }).to_string();
    let flood = async {
        let tries = (0..160_u32).map(|n| async move {
            let source = format!("198.51.{}.{}", n / 250, n % 250);
            (n, source)
        });
        let all = tries.map(|one| async {
            let (n, source) = one.await;
            login_from(&vault, &source, &format!("user{n}"), "wrong-one").await
        });
        futures_util::future::join_all(all).await
    };
    let others = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let began = Instant::now();
            let reply = vault.call("POST", "/tokens/validate", None, &check).await;
            assert_eq!(reply.json()["valid"], true);
            slowest = slowest.max(began.elapsed());
        }
        slowest
    };
    let (answers, slowest) = tokio::join!(flood, others);
    let busy: Vec<&Reply> = answers.iter().filter(|reply| reply.status == 503).collect();
    assert!(!busy.is_empty() && busy.iter().all(|reply| reply.head.contains("retry-after: ")), "{busy:?}");
    assert!(answers.iter().all(|reply| [401, 503].contains(&reply.status)));
    assert!(slowest < Duration::from_secs(1), "a validation took {slowest:?}");
    assert_eq!(login(&vault, "alice", PASSWORD).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_user_takes_as_long_as_a_wrong_password() {
    let vault = start().await;
    make(&vault, "alice", PASSWORD, &["desk"]).await;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for n in 0..24 {
        for (name, times) in [("alice", &mut known), ("nobody", &mut unknown)] {
            let source = format!("203.0.113.{n}");
            let began = Instant::now();
            assert_eq!(login_from(&vault, &source, name, "wrong-one").await.status, 401);
            times.push(began.elapsed());
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    let (known, unknown) = (median(&mut known), median(&mut unknown));
    println!("known {:.3} ms, unknown {:.3} ms", known * 1e3, unknown * 1e3);
    // Medians of a busy machine; without its hash the one would be a hundredth of the other.
    assert!((known - unknown).abs() < 0.4 * known.max(unknown), "{known} s and {unknown} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_vaults_api_get_policies_and_cannot_reach_those_with_roles() {
    let vault = start().await;
    let root = std::fs::read_to_string(vault.dir.path().join("vault-token")).unwrap();
    let v1 = async |token: &str, method: &str, path: &str, body: Value| {
        let header = if token.is_empty() { String::new() } else { format!("x-vault-token: {token}\r\n") };
        vault.raw(method, &format!("/v1/{path}"), &header, &body.to_string()).await
    };
    let users = r#"path "auth/userpass/users/*" { capabilities = ["create", "update", "delete"] }"#;
    assert_eq!(v1(&root, "PUT", "sys/policies/acl/helpdesk", json!({ "policy": users })).await.status, 204);
    let made = json!({ "password": "p1", "token_policies": "helpdesk", "token_ttl": "1h" });
    assert_eq!(v1(&root, "POST", "auth/userpass/users/Hank", made).await.status, 204);
    let session = v1("", "POST", "auth/userpass/login/hank", json!({ "password": "p1" })).await.json();
    assert_eq!(session["auth"]["policies"], json!(["default", "helpdesk"]));
    assert_eq!(session["auth"]["metadata"]["username"], "hank");
    let hank = session["auth"]["client_token"].as_str().unwrap().to_owned();

    assert_eq!(make(&vault, "alice", PASSWORD, &["admin"]).await.status, 201);
    for (method, path, body) in [
        ("POST", "auth/userpass/users/alice/password", json!({ "password": "taken-over" })),
        ("POST", "auth/userpass/users/alice", json!({ "password": "taken-over" })),
        ("POST", "auth/userpass/users/alice", json!({ "token_policies": "helpdesk" })),
        ("DELETE", "auth/userpass/users/alice", json!({})),
    ] {
        let reply = v1(&hank, method, path, body).await;
        assert!([400, 403].contains(&reply.status), "{method} {path}: {reply:?}");
    }
    token(&login(&vault, "alice", PASSWORD).await);
    login(&vault, "hank", "p1").await.is(403, "forbidden");

    // The password is one: setting it ends tokens of both kinds.
    assert_eq!(
        v1(&hank, "POST", "auth/userpass/users/hank/password", json!({ "password": "p2" })).await.status,
        204
    );
    assert_eq!(v1(&hank, "GET", "auth/token/lookup-self", json!({})).await.status, 403);
    // With the token that has ended still in the header, as clients have it.
    let again = v1(&hank, "PUT", "auth/userpass/login/hank", json!({ "password": "p2" })).await.json();
    let hank = again["auth"]["client_token"].as_str().unwrap().to_owned();
    assert_eq!(v1(&hank, "GET", "auth/token/lookup-self", json!({})).await.status, 200);
    for _ in 0..5 {
        let reply = v1("", "POST", "auth/userpass/login/hank", json!({ "password": "wrong" })).await;
        assert_eq!((reply.status, &reply.json()["errors"]), (400, &json!(["invalid username or password"])));
    }
    assert_eq!(v1("", "POST", "auth/userpass/login/hank", json!({ "password": "p2" })).await.status, 403);
    assert_eq!(v1(&root, "DELETE", "auth/userpass/users/hank", json!({})).await.status, 204);
    assert_eq!(v1(&hank, "GET", "auth/token/lookup-self", json!({})).await.status, 403);
}
