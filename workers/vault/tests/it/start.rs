//! Opening, staying sealed, restarting.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use sluice_schema::{Config, Seal};
use tempfile::TempDir;

use crate::harness::{Setup, Vault};

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let errors = std::iter::successors(Some(error), |error| error.source());
    errors.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vault_without_a_seal_stays_sealed() {
    let vault = Setup { dev: false, ..Setup::default() }.start();
    assert_eq!(vault.call("GET", "/livez", None, "").await.status, 200);
    assert_eq!(vault.call("GET", "/readyz", None, "").await.status, 503);
    assert_eq!(vault.call("GET", "/health", None, "").await.status, 503);
    for (method, path) in [
        ("GET", "/ca/certificate"),
        ("GET", "/secrets/a"),
        ("POST", "/tokens/bot"),
        ("GET", "/.well-known/jwks.json"),
        ("GET", "/audit"),
        ("GET", "/credentials"),
    ] {
        vault.call(method, path, None, "").await.is(503, "sealed");
    }
    let forged = vault.call("POST", "/security/tokens/generate", Some("x.y.z"), "not json").await;
    forged.is(503, "sealed");
    let metrics = vault.call("GET", "/metrics", None, "").await.text;
    assert!(metrics.contains("\nsluice_vault_sealed 1\n"), "{metrics}");
    assert!(!vault.dir.path().join("token").exists());
    vault.stop().await.1.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_dumps_no_core_and_locks_its_keys() {
    use rustix::process::{DumpableBehavior, dumpable_behavior};
    let vault = Vault::start().await;
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    let line = |text: &str, name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        found.unwrap().split_whitespace().find_map(|word| word.parse::<u64>().ok()).unwrap_or(u64::MAX)
    };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let (locked, allowed) = (line(&status, "VmLck:"), line(&limits, "Max locked memory"));
    assert!(locked >= 12 || allowed < 64 << 10, "{locked} KiB locked of {allowed} bytes allowed");
    vault.stop().await.1.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_opens_by_a_key_file_and_writes_no_token() {
    let keys = TempDir::new().unwrap();
    let key = keys.path().join("root.key");
    fs::write(&key, "5a".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    let mut config = Config::default();
    config.vault.seal = Seal::File(key.clone());
    let dir = Arc::new(TempDir::new().unwrap());
    let setup = || Setup { dir: Arc::clone(&dir), config: config.clone(), dev: false, events: None };
    let vault = setup().start();
    vault.ready().await;
    assert!(!dir.path().join("token").exists());
    assert!(!dir.path().join("vault/unseal.key").exists());
    vault.stop().await.1.unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "5b".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(setup().start().ended().await.is_err(), "another key must not open the store");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o440)).unwrap();
    assert!(setup().start().ended().await.is_err(), "a key others may read is refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_survives_a_restart() {
    let vault = Vault::start().await;
    let token_mode = fs::metadata(vault.dir.path().join("token")).unwrap().permissions().mode();
    let key_mode = fs::metadata(vault.dir.path().join("vault/unseal.key")).unwrap().permissions().mode();
    assert_eq!((token_mode & 0o777, key_mode & 0o777), (0o600, 0o600));
    let root = vault.call("GET", "/ca/certificate", None, "").await.text;
    let chain = vault.call("GET", "/ca/chain", None, "").await.text;
    let keys = vault.call("GET", "/.well-known/jwks.json", None, "").await.json();
    let kept = vault.token("bot", &["read", "write"]).await;
    let ended = vault.token("bot", &["read"]).await;
    let body = format!("{{\"token\":\"{ended}\"}}");
    assert_eq!(vault.call("POST", "/tokens/revoke", None, &body).await.status, 200);
    vault.call("PUT", "/secrets/services/bot/db", Some(&kept), r#"{"password":"x"}"#).await;
    let first_admin = vault.admin();
    let (dir, ended_well) = vault.stop().await;
    ended_well.unwrap();

    let vault = Setup { dir, ..Setup::default() }.start();
    vault.ready().await;
    assert_eq!(vault.call("GET", "/ca/certificate", None, "").await.text, root);
    assert_eq!(vault.call("GET", "/ca/chain", None, "").await.text, chain);
    assert_eq!(vault.call("GET", "/.well-known/jwks.json", None, "").await.json(), keys);
    assert_ne!(vault.admin(), first_admin);
    let read = vault.call("GET", "/secrets/services/bot/db", Some(&kept), "").await;
    assert_eq!(read.json()["data"]["password"], "x");
    let verdict = vault.call("POST", "/tokens/validate", None, &body).await.json();
    assert_eq!(verdict["reason"], "revoked");
    assert!(sluice_audit::verify(&vault.dir.path().join("audit")).unwrap().is_whole());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_key_or_older_store_does_not_start() {
    let vault = Vault::start().await;
    let store = vault.dir.path().join("vault/store.redb");
    let (dir, _) = vault.stop().await;
    let older = fs::read(&store).unwrap();
    let vault = Setup { dir, ..Setup::default() }.start();
    vault.ready().await;
    let (dir, _) = vault.stop().await;
    fs::write(&store, older).unwrap();
    let setup = || Setup { dir: Arc::clone(&dir), ..Setup::default() };
    let text = chain(&setup().start().ended().await.unwrap_err());
    assert!(text.contains("rolled back"), "{text}");
    fs::remove_file(dir.path().join("vault/unseal.key")).unwrap();
    assert!(setup().start().ended().await.is_err());
    assert!(!dir.path().join("vault/unseal.key").exists(), "no new key is made over an existing store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_one_time_token_makes_the_first_administrator_and_no_second() {
    let keys = TempDir::new().unwrap();
    let key = keys.path().join("root.key");
    fs::write(&key, "5a".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    let mut config = Config::default();
    config.vault.seal = Seal::File(key.clone());
    let dir = Arc::new(TempDir::new().unwrap());
    let file = dir.path().join("bootstrap-token");
    let setup = || Setup { dir: Arc::clone(&dir), config: config.clone(), dev: false, events: None };
    let start = async || {
        let vault = setup().start();
        vault.ready().await;
        vault
    };
    let vault = start().await;
    let first = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    vault.stop().await.1.unwrap();
    let vault = start().await;
    assert_eq!(fs::read_to_string(&file).unwrap(), first, "the same until it is used");
    vault.stop().await.1.unwrap();
    fs::remove_file(&file).unwrap();
    let vault = start().await;
    let token = fs::read_to_string(&file).unwrap();
    assert_ne!(token, first, "a lost one is made anew");

    let ask = async |vault: &Vault, token: &str, user: &str, password: &str| {
        let body = serde_json::json!({ "token": token, "username": user, "password": password });
        vault.call("POST", "/auth/bootstrap", None, &body.to_string()).await
    };
    ask(&vault, &first, "root", "a long password").await.is(401, "invalid_token");
    ask(&vault, "", "root", "a long password").await.is(401, "invalid_token");
    ask(&vault, &token, "root", "short").await.is(400, "bad_request");
    let made = ask(&vault, &format!("{token}\n"), "root", "a long password").await;
    assert_eq!((made.status, &made.json()["roles"]), (200, &serde_json::json!(["admin"])));
    assert!(!file.exists());
    ask(&vault, &token, "eve", "a long password").await.is(401, "invalid_token");
    let session = made.json()["token"].as_str().unwrap().to_owned();
    let body = r#"{"password":"another long one","roles":["admin"]}"#;
    assert_eq!(vault.call("PUT", "/auth/users/second", Some(&session), body).await.status, 201);
    vault.stop().await.1.unwrap();

    // Nor where an administrator was made otherwise: by whom the store was developed with, say.
    let (dir_of_dev, _) = {
        let vault = Setup::default().start();
        vault.ready().await;
        assert_eq!(vault.as_admin("PUT", "/auth/users/dev", body).await.status, 201);
        vault.stop().await
    };
    let key_of_dev = fs::read(dir_of_dev.path().join("vault/unseal.key")).unwrap();
    let kept = keys.path().join("dev.key");
    fs::write(&kept, key_of_dev).unwrap();
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o400)).unwrap();
    let mut config = Config::default();
    config.vault.seal = Seal::File(kept);
    let vault = Setup { dir: dir_of_dev, config, dev: false, events: None }.start();
    vault.ready().await;
    let offered = vault.dir.path().join("bootstrap-token");
    assert!(!offered.exists(), "there is an administrator");
    vault.stop().await.1.unwrap();

    // Never again, also where a copy of the file comes back.
    fs::write(&file, &token).unwrap();
    let vault = start().await;
    assert!(!file.exists());
    ask(&vault, &token, "eve", "a long password").await.is(401, "invalid_token");
    let audit = fs::read_to_string(dir.path().join("audit/vault.jsonl")).unwrap();
    assert!(audit.contains(r#""op":"bootstrap""#) && !audit.contains(&token), "{audit}");
    vault.stop().await.1.unwrap();
}
