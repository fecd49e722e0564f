//! Every access leaves a record before it is answered.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_audit::{CheckpointKey, verify_signed};
use sluice_schema::WhenFull;

use crate::harness::{PATIENCE, Setup, Vault};

async fn records(vault: &Vault, query: &str) -> Vec<Value> {
    let reply = vault.as_admin("GET", &format!("/audit{query}"), "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["records"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allowed_and_denied_accesses_are_recorded_without_values() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read", "write"]).await;
    vault.call("PUT", "/secrets/services/bot/db", Some(&bot), r#"{"password":"hunter2"}"#).await;
    vault
        .raw(
            "GET",
            "/secrets/services/bot/db",
            &format!("authorization: Bearer {bot}\r\nx-request-id: req-0001\r\n"),
            "",
        )
        .await;
    vault.call("GET", "/secrets/services/other/db", Some(&bot), "").await;
    vault.call("GET", "/secrets/services/bot/none", Some(&bot), "").await;
    vault.call("GET", "/secrets/services/bot/db", None, "").await;
    vault.call("GET", "/secrets/services/bot/db", Some("x.y.z"), "").await;
    vault.call("POST", "/credentials/bot", Some(&bot), "").await;
    vault.call("POST", "/tokens/bot", Some(&bot), r#"{"permissions":["admin"]}"#).await;
    let seen: Vec<_> = records(&vault, "")
        .await
        .iter()
        .map(|record| {
            let word = |name: &str| record[name].as_str().unwrap().to_owned();
            format!("{} {} {} {}", word("type"), word("op"), word("actor"), word("decision"))
        })
        .collect();
    for expected in [
        "token mint role/vault allow",
        "token mint dev-admin allow",
        "secret write bot allow",
        "secret read bot allow",
        "secret read bot deny",
        "secret read bot error",
        "secret read anonymous deny",
        "auth get unverified deny",
        "credential issue bot allow",
        "token mint bot deny",
    ] {
        assert!(seen.iter().any(|line| line == expected), "{expected} in {seen:#?}");
    }
    let read = records(&vault, "?actor=bot&path=services/bot/db").await;
    assert_eq!(read.len(), 2);
    assert_eq!(read[1]["request_id"], "req-0001");
    assert!(read[1]["remote"].as_str().unwrap().starts_with("127.0.0.1:"));
    let text = fs::read_to_string(vault.dir.path().join("audit/vault.jsonl")).unwrap();
    assert!(!text.contains("hunter2") && !text.contains(&bot));
    let page = vault.as_admin("GET", "/audit?limit=2", "").await.json();
    assert_eq!((page["count"].as_u64(), page["next"].as_u64()), (Some(2), Some(2)));
    assert_eq!(records(&vault, "?since=2&limit=1").await[0]["seq"], 3);
    assert!(sluice_audit::verify(&vault.dir.path().join("audit")).unwrap().is_whole());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_the_log_needs_its_permission() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read"]).await;
    vault.call("GET", "/audit", Some(&bot), "").await.is(403, "insufficient_scope");
    vault.call("GET", "/audit", None, "").await.is(401, "invalid_token");
    let auditor = vault.token("auditor", &["audit:read"]).await;
    assert_eq!(vault.call("GET", "/audit?since=2020-01-01T00:00:00Z", Some(&auditor), "").await.status, 200);
    vault.call("GET", "/audit?since=yesterday", Some(&auditor), "").await.is(400, "bad_query");
    assert!(
        records(&vault, "")
            .await
            .iter()
            .any(|record| record["op"] == json!("read") && record["decision"] == "deny")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_unknown_callers_is_counted_not_recorded_one_by_one() {
    let vault = Vault::start().await;
    let path = vault.dir.path().join("audit/vault.jsonl");
    let before = fs::read_to_string(&path).unwrap().lines().count();
    let began = Instant::now();
    for n in 0..300 {
        let token = (n % 2 == 0).then_some("x.y.z");
        let target = if n % 3 == 0 { "/v1/secret/data/services/bot/db" } else { "/secrets/services/bot/db" };
        let refused = vault.call("GET", target, token, "").await;
        assert!([401, 403].contains(&refused.status), "{refused:?}");
    }
    let allowed = 65 + began.elapsed().as_secs() as usize * 8 + 8;
    let text = fs::read_to_string(&path).unwrap();
    let lines = text.lines().skip(before).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let (counts, single): (Vec<Value>, Vec<Value>) = lines.partition(|record| record["op"] == "refused");
    assert!(single.len() >= 64 && single.len() <= allowed, "{} of {allowed}", single.len());
    let counted = |record: &Value| -> usize {
        record["path"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    let counted: usize = counts.iter().map(counted).sum();
    assert!(single.len() + counted <= 300, "{} and {counted}", single.len());
    // Of a caller who is known as many are recorded, beside the others'.
    let loud = vault.token("loud", &["read"]).await;
    for _ in 0..150 {
        vault.call("GET", "/secrets/services/other/db", Some(&loud), "").await.is(403, "forbidden");
    }
    let told = records(&vault, "?actor=loud&limit=500").await.len();
    assert!((64..150).contains(&told), "{told}");
    // Another one is recorded all the same.
    let bot = vault.token("bot", &["read"]).await;
    vault.call("GET", "/secrets/services/other/db", Some(&bot), "").await.is(403, "forbidden");
    assert!(!records(&vault, "?actor=bot").await.is_empty());
    assert!(sluice_audit::verify(&vault.dir.path().join("audit")).unwrap().is_whole());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_keeps_as_much_as_it_is_told_and_says_so() {
    let mut setup = Setup::default();
    setup.config.vault.audit.keep_bytes = 64 << 10;
    setup.config.vault.audit.when_full = WhenFull::Refuse;
    let vault = setup.start();
    vault.ready().await;
    vault.as_admin("PUT", "/secrets/a", r#"{"x":1}"#).await;
    let admin = vault.admin();
    let mut answered = 0;
    let refused = loop {
        let reply = vault.call("GET", "/secrets/a", Some(&admin), "").await;
        if reply.status != 200 {
            break reply;
        }
        answered += 1;
        assert!(answered < 2_000, "it never refuses");
    };
    refused.is(503, "audit_unavailable");
    assert!(answered > 50 && vault.call("GET", "/readyz", None, "").await.status == 503, "{answered}");
    let (dir, ended) = vault.stop().await;
    ended.unwrap();

    // The same log with files that end by their age: the oldest are gone, whatever room there is.
    let mut setup = Setup { dir, ..Setup::default() };
    setup.config.vault.audit.keep_bytes = 1 << 20;
    setup.config.vault.audit.keep_age = Some(Duration::from_secs(1));
    let vault = setup.start();
    vault.ready().await;
    let fill = vault.call("GET", "/metrics", None, "").await.text;
    let fill = fill.lines().find_map(|line| line.strip_prefix("sluice_vault_audit_fill_ratio "));
    assert!(fill.unwrap().parse::<f64>().unwrap() > 0.05, "{fill:?}");
    let folder = vault.dir.path().join("audit");
    let oldest = || {
        let names = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name());
        names.filter_map(|name| name.into_string().ok()).filter(|name| name.matches('.').count() == 2).min()
    };
    let (first, began, admin) = (oldest(), Instant::now(), vault.admin());
    while oldest() == first {
        assert_eq!(vault.call("GET", "/secrets/a", Some(&admin), "").await.status, 200);
        assert!(began.elapsed() < PATIENCE, "{first:?} stays");
    }
    assert!(sluice_audit::verify(&folder).unwrap().is_whole());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_answered_that_cannot_be_recorded() {
    let vault = Vault::start().await;
    let admin = vault.admin();
    vault.as_admin("PUT", "/secrets/a", r#"{"x":1}"#).await;
    fs::remove_file(vault.dir.path().join("audit/vault.jsonl")).unwrap();
    for (method, target, body) in [
        ("GET", "/secrets/a", ""),
        ("PUT", "/secrets/a", "{}"),
        ("POST", "/tokens/bot", ""),
        ("POST", "/credentials/bot", ""),
        ("GET", "/audit", ""),
    ] {
        vault.call(method, target, Some(&admin), body).await.is(503, "audit_unavailable");
    }
    vault.call("GET", "/secrets/a", None, "").await.is(503, "audit_unavailable");
    assert_eq!(vault.call("GET", "/readyz", None, "").await.status, 503);
    assert_eq!(vault.call("GET", "/health", None, "").await.status, 503);
    assert_eq!(vault.call("GET", "/livez", None, "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_signed_by_a_key_that_stays_with_the_store() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read"]).await;
    vault.call("GET", "/audit/key", Some(&bot), "").await.is(403, "insufficient_scope");
    let key = async |vault: &Vault| vault.as_admin("GET", "/audit/key", "").await.json();
    let jwk = key(&vault).await;
    let public: sluice_wire::feed::Jwk = serde_json::from_value(jwk.clone()).unwrap();
    let public = sluice_identity::jwk::PublicKey::try_from(&public).unwrap();
    let public = CheckpointKey { role: "vault".into(), point: public.point().to_vec() };
    let report =
        |vault: &Vault| verify_signed(&vault.dir.path().join("audit"), &public).unwrap().logs.remove(0);
    let first = report(&vault);
    assert!(first.fault.is_none() && first.signed_upto > Some(0), "{first:?}");
    let (dir, ended) = vault.stop().await;
    ended.unwrap();
    let vault = Setup { dir, ..Setup::default() }.start();
    vault.ready().await;
    assert_eq!(key(&vault).await, jwk);
    let second = report(&vault);
    assert!(second.fault.is_none() && second.signed_upto > Some(first.records), "{second:?}");
}
