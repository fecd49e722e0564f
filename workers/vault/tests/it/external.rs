//! Secrets kept by an external vault: what is asked of it, what is decided and recorded here, and what becomes of
//! callers while it is away. What a real one makes of the calls is in `tests/vault.py`.

mod fake;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_schema::Secret;

use crate::harness::{Setup, Vault, bytes_below};
use fake::{Answer, Asked, Fake, authority, calm};

const TOKEN: &str = "s.canary-of-the-external-token";
const STATE: &str = "2026-11-22T10:00:00.000000001Z";

fn state(version: u64) -> Value {
    json!({ "created_time": STATE, "custom_metadata": null, "deletion_time": "", "destroyed": false, "version": version })
}

/// A vault whose secrets this server keeps.
fn setup_at(fake: &Fake) -> Setup {
    let mut setup = Setup::default();
    let external = &mut setup.config.vault.external;
    external.enabled = true;
    external.url = Some(format!("http://{}", fake.address).parse().unwrap());
    external.token = Some(Secret::new(TOKEN));
    setup
}

async fn start(fake: &Fake) -> Vault {
    let vault = setup_at(fake).start();
    vault.ready().await;
    vault
}

impl Vault {
    async fn external(&self) -> Value {
        self.as_admin("GET", "/health", "").await.json()["components"]["external"].clone()
    }

    /// Waits until it knows that the external vault is there.
    async fn is_well(&self) {
        let began = Instant::now();
        while self.external().await["status"] != "healthy" {
            assert!(began.elapsed() < Duration::from_secs(10), "{}", self.external().await);
        }
    }

    fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("audit/vault.jsonl")).unwrap();
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.filter(|record| ["secret", "v1"].contains(&record["type"].as_str().unwrap_or(""))).collect()
    }
}

fn sealed(_: &Asked) -> Answer {
    Answer::Json(503, json!({ "errors": ["Vault is sealed"] }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_decides_where_secrets_are_and_how_it_is_asked() {
    let dir = tempfile::TempDir::new().unwrap();
    let (ca, tls) = authority(dir.path(), "right");
    let (other_ca, _) = authority(dir.path(), "wrong");
    let answers = |asked: &Asked| match asked.line.as_str() {
        "GET /v1/kv/trading/data/services/bot/db" => {
            Answer::Json(200, json!({ "data": { "data": { "n": 1 }, "metadata": state(3) } }))
        }
        "GET /v1/kv/trading/data/services/bot/slow" => Answer::Silence,
        _ => calm(asked),
    };
    let fake = Fake::start_with(Some(tls), answers).await;
    let setup = |ca| {
        let mut setup = setup_at(&fake);
        let external = &mut setup.config.vault.external;
        external.url = Some(format!("https://{}", fake.address).parse().unwrap());
        external.ca = Some(ca);
        external.mount = "kv/trading".into();
        external.timeout = Duration::from_secs(1);
        setup
    };
    let mut misnamed = setup(ca.clone());
    let vault = setup(ca).start();
    vault.ready().await;
    let read = vault.as_admin("GET", "/secrets/services/bot/db", "").await;
    assert_eq!((read.status, &read.json()["data"]), (200, &json!({ "n": 1 })), "{read:?}");
    let asked = fake.asked("/data/services/bot/db").remove(0);
    assert!(asked.head.contains(&format!("x-vault-token: {TOKEN}\r\n")), "{asked:?}");
    let began = Instant::now();
    vault.as_admin("GET", "/secrets/services/bot/slow", "").await.is(503, "vault_unavailable");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    let stranger = setup(other_ca).start();
    stranger.ready().await;
    stranger.as_admin("GET", "/secrets/services/bot/db", "").await.is(503, "vault_unavailable");
    assert_eq!(fake.asked("/data/services/bot/db").len(), 1, "nothing was said to a stranger");

    // Its authority is believed, but the certificate is of another name.
    let elsewhere = format!("https://localhost:{}", fake.address.port());
    misnamed.config.vault.external.url = Some(elsewhere.parse().unwrap());
    let misnamed = misnamed.start();
    misnamed.ready().await;
    misnamed.as_admin("GET", "/secrets/services/bot/db", "").await.is(503, "vault_unavailable");
    assert_eq!(fake.asked("/data/services/bot/db").len(), 1, "nothing was said to another name");

    let mut local = setup_at(&fake);
    local.config.vault.external.enabled = false;
    let local = local.start();
    local.ready().await;
    local.as_admin("GET", "/secrets/services/bot/db", "").await.is(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_said_in_the_words_of_the_engine() {
    let fake = Fake::start(|asked| {
        let data = |data: Value| Answer::Json(200, json!({ "data": data }));
        let version = |destroyed: bool| {
            json!({ "created_time": STATE, "deletion_time": if destroyed { "" } else { STATE }, "destroyed": destroyed })
        };
        match asked.line.as_str() {
            "POST /v1/secret/data/services/bot/db" if asked.body.contains("\"cas\":7") => Answer::Json(
                400,
                json!({ "errors": ["check-and-set parameter did not match the current version"] }),
            ),
            "POST /v1/secret/data/services/bot/db" => data(state(4)),
            "GET /v1/secret/data/services/bot/db?version=2" => {
                Answer::Json(404, json!({ "data": { "data": null, "metadata": {
                    "created_time": STATE, "deletion_time": STATE, "destroyed": false, "version": 2 } } }))
            }
            "GET /v1/secret/metadata/services/bot/db" => data(json!({
                "created_time": STATE, "updated_time": STATE, "current_version": 4, "max_versions": 0,
                "versions": { "2": version(false), "3": version(true), "4": version(false) },
            })),
            "GET /v1/secret/metadata/services/bot/?list=true" => data(json!({ "keys": ["db", "a/", "b"] })),
            line if ["/delete/", "/undelete/", "/destroy/"].iter().any(|word| line.contains(word)) => {
                Answer::Text(204, "")
            }
            _ => calm(asked),
        }
    })
    .await;
    let vault = start(&fake).await;
    let bot = vault.token("bot", &["read", "write"]).await;
    let call = |method: &'static str, query: &str, body: &'static str| {
        let target = format!("/secrets/services/bot/db{query}");
        let (vault, bot) = (&vault, &bot);
        async move { vault.call(method, &target, Some(bot), body).await }
    };
    let written = call("PUT", "", r#"{"data":{"n":1.50},"cas":3}"#).await;
    assert_eq!(
        written.json(),
        json!({ "status": "success", "path": "services/bot/db", "version": 4, "created_at": STATE })
    );
    let sent = fake.asked("POST /v1/secret/data/").remove(0);
    assert_eq!(sent.body, r#"{"data":{"n":1.50},"options":{"cas":3}}"#);
    assert!(sent.head.contains("content-type: application/json\r\n"), "{sent:?}");
    call("PUT", "", r#"{"data":{"n":2},"cas":7}"#).await.is(409, "version_conflict");
    call("PUT", "", "[1]").await.is(400, "invalid_json");
    call("GET", "", "").await.is(404, "not_found");
    let deleted = call("GET", "?version=2", "").await;
    deleted.is(404, "not_found");
    assert!(deleted.text.contains("version 2 was deleted"), "{deleted:?}");

    let history = call("GET", "?metadata", "").await.json();
    assert_eq!(
        (&history["current_version"], &history["versions"]["3"]["destroyed"]),
        (&json!(4), &json!(true))
    );
    assert_eq!(call("DELETE", "", "").await.json()["versions"], json!([4]));
    assert_eq!(call("POST", "?undelete=2,4", "").await.json()["versions"], json!([2, 4]));
    assert_eq!(call("POST", "?destroy=3", "").await.status, 200);
    call("POST", "?undelete=3", "").await.is(409, "conflict");
    call("DELETE", "?versions=9", "").await.is(404, "not_found");
    let told = |word| fake.asked(word).iter().map(|asked| asked.body.clone()).collect::<Vec<_>>();
    assert_eq!(told("/secret/delete/"), [r#"{"versions":[4]}"#]);
    assert_eq!(told("/secret/undelete/"), [r#"{"versions":[2,4]}"#]);
    assert_eq!(told("/secret/destroy/"), [r#"{"versions":[3]}"#]);

    let listed = vault.call("LIST", "/secrets/services/bot", Some(&bot), "").await.json();
    assert_eq!(listed["keys"], json!(["a/", "b", "db"]));
    let listed = vault.call("GET", "/secrets/services/bot?list=true&cursor=a/", Some(&bot), "").await.json();
    assert_eq!(listed["keys"], json!(["b", "db"]));
    vault.call("LIST", "/secrets/services/bot/none", Some(&bot), "").await.is(404, "not_found");
    let older = r#"{"path":"services/bot/db","data":{"k":"v"}}"#;
    assert_eq!(vault.call("POST", "/security/secrets/store", Some(&bot), older).await.json()["version"], 4);
    assert!(fake.connections() <= 2, "connections are kept: {}", fake.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_and_records_stay_here() {
    let fake = Fake::start(|asked| match asked.line.as_str() {
        "GET /v1/secret/data/services/bot/db" => Answer::Json(
            200,
            json!({ "data": { "data": { "p": "canary-of-a-value" }, "metadata": state(1) } }),
        ),
        _ => calm(asked),
    })
    .await;
    let vault = start(&fake).await;
    let bot = vault.token("bot", &["read"]).await;
    let refused = [
        ("GET", "/secrets/services/other/db"),
        ("PUT", "/secrets/services/bot/db"),
        ("GET", "/secrets?list=true"),
        ("DELETE", "/secrets/services/bot/db"),
        ("GET", "/v1/secret/data/services/other/db"),
        ("LIST", "/v1/secret/metadata/services"),
    ];
    for (method, target) in refused {
        assert_eq!(vault.call(method, target, Some(&bot), "{}").await.status, 403, "{method} {target}");
    }
    for target in
        ["/secrets/services/bot/..", "/secrets/services/bot%2fdb", "/v1/secret/data/services/bot/.."]
    {
        assert_eq!(vault.call("GET", target, Some(&bot), "").await.status, 400, "{target}");
    }
    let wish = r#"{"policies":["default"]}"#;
    let default = vault.as_admin("POST", "/v1/auth/token/create", wish).await.json();
    let default = default["auth"]["client_token"].as_str().unwrap();
    for target in ["/secrets/services/bot/db", "/v1/secret/data/services/bot/db"] {
        assert_eq!(vault.call("PUT", target, Some(default), r#"{"data":{}}"#).await.status, 403, "{target}");
    }
    assert!(fake.asked("/v1/secret").is_empty(), "nothing of this goes out");
    let read = vault.call("GET", "/secrets/services/bot/db", Some(&bot), "").await;
    assert!(read.text.contains("canary-of-a-value"));
    vault.call("GET", "/secrets/services/bot/none", Some(&bot), "").await.is(404, "not_found");
    let records = vault.records();
    let told = |path: &str| -> Vec<&str> {
        let of = records.iter().filter(|record| record["path"] == path && record["actor"] == "bot");
        of.map(|record| record["decision"].as_str().unwrap()).collect()
    };
    assert_eq!(told("services/other/db"), ["deny"]);
    assert_eq!(told("services/bot/none"), ["allow", "error"]);
    assert_eq!(told("services/bot/db").iter().filter(|decision| **decision == "allow").count(), 1);
    for needle in [TOKEN, "canary-of-a-value"] {
        for (path, bytes) in bytes_below(vault.dir.path()) {
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{needle} in {}", path.display());
        }
    }
    // Whether a write would be a creation is asked there: recorded before, too.
    let policy = r#"{"policy":"path \"secret/data/new/*\" { capabilities = [\"create\"] }"}"#;
    assert_eq!(vault.as_admin("PUT", "/v1/sys/policies/acl/new", policy).await.status, 204);
    let maker = vault.as_admin("POST", "/v1/auth/token/create", r#"{"policies":["new"]}"#).await.json();
    let maker = maker["auth"]["client_token"].as_str().unwrap();
    for target in ["/secrets/new/a", "/v1/secret/data/new/b"] {
        vault.call("PUT", target, Some(maker), r#"{"data":{}}"#).await;
    }
    assert_eq!(fake.asked("GET /v1/secret/metadata/new/").len(), 2);
    let asked = fake.asked("/v1/secret").len();
    std::fs::remove_file(vault.dir.path().join("audit/vault.jsonl")).unwrap();
    for target in ["/secrets/services/bot/db", "/v1/secret/data/services/bot/db"] {
        assert_eq!(vault.call("GET", target, Some(&bot), "").await.status, 503, "{target}");
    }
    for target in ["/secrets/new/a", "/v1/secret/data/new/b"] {
        assert_eq!(vault.call("PUT", target, Some(maker), r#"{"data":{}}"#).await.status, 503, "{target}");
    }
    assert_eq!(fake.asked("/v1/secret").len(), asked, "nothing is asked that cannot be recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_is_away_or_sealed_callers_are_told_when_to_come_back() {
    let fake = Fake::start(calm).await;
    let vault = start(&fake).await;
    let admin = vault.admin();
    vault.is_well().await;
    fake.answer(sealed);
    let before = fake.asked("/secret/data").len();
    for _ in 0..5 {
        let away = vault.call("GET", "/secrets/a", Some(&admin), "").await;
        away.is(503, "vault_unavailable");
        assert!(away.head.contains("retry-after: 1\r\n"), "{away:?}");
    }
    // It is left alone now, and whoever asks is told so at once.
    let away = vault.call("PUT", "/secrets/a", Some(&admin), "{}").await;
    away.is(503, "vault_unavailable");
    let v1 = vault.call("GET", "/v1/secret/data/a", Some(&admin), "").await;
    assert_eq!(v1.status, 503, "{v1:?}");
    assert!(v1.head.contains("retry-after: ") && v1.json()["errors"].is_array(), "{v1:?}");
    assert_eq!(fake.asked("/secret/data").len(), before + 5);
    assert_eq!(vault.external().await["status"], "degraded");
    // What does not need it goes on.
    assert_eq!(vault.call("GET", "/readyz", None, "").await.status, 200);
    vault.token("bot", &["read"]).await;
    fake.answer(calm);
    let began = Instant::now();
    while vault.call("GET", "/secrets/a", Some(&admin), "").await.status != 404 {
        assert!(began.elapsed() < Duration::from_secs(10), "it is asked again once it is back");
        tokio::task::yield_now().await;
    }
    fake.answer(|asked| if asked.line.starts_with("POST") { Answer::Close } else { calm(asked) });
    let unknown = vault.call("PUT", "/secrets/a", Some(&admin), r#"{"x":1}"#).await;
    unknown.is(503, "vault_unavailable");
    assert!(unknown.text.contains("whether it was done there is not known"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_answers_are_never_taken_for_a_secret() {
    let fake = Fake::start(calm).await;
    let vault = start(&fake).await;
    let huge = "{\"data\":{\"data\":{\"a\":1}},\"x\":\"".to_owned() + &"y".repeat(5 << 20);
    let huge: &'static str = huge.leak();
    for answer in [
        Answer::Text(200, "<html>welcome</html>"),
        Answer::Text(200, ""),
        Answer::Text(200, huge),
        Answer::Json(200, json!({ "data": null })),
        Answer::Text(204, ""),
        Answer::Json(301, json!({})),
        Answer::Json(307, json!({})),
        Answer::Json(403, json!({ "errors": ["permission denied"] })),
        Answer::Json(
            404,
            json!({ "errors": ["no handler for route \"secret/data/a\". route entry not found."] }),
        ),
        Answer::Json(412, json!({ "errors": [] })),
        Answer::Json(429, json!({ "errors": ["quota"] })),
        Answer::Close,
    ] {
        let shown = format!("{answer:?}").chars().take(80).collect::<String>();
        fake.answer(move |asked| if asked.line.contains("/data/") { answer.clone() } else { calm(asked) });
        let reply = vault.as_admin("GET", "/secrets/a", "").await;
        assert_eq!((reply.status, reply.code().as_str()), (503, "vault_unavailable"), "{shown}: {reply:?}");
        // One good answer between, so that the circuit stays out of it.
        fake.answer(calm);
        vault.as_admin("GET", "/secrets/a", "").await.is(404, "not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_token_is_renewed_while_it_can_be() {
    let life = |ttl: u64| json!({ "data": { "ttl": ttl, "creation_ttl": 90, "renewable": true } });
    let fake = Fake::start(move |asked| match asked.line.as_str() {
        "GET /v1/auth/token/lookup-self" => Answer::Json(200, life(30)),
        "POST /v1/auth/token/renew-self" => Answer::Json(200, json!({ "auth": { "lease_duration": 90 } })),
        _ => calm(asked),
    })
    .await;
    let vault = start(&fake).await;
    fake.was_asked("renew-self", 1).await;
    assert_eq!(fake.asked("renew-self")[0].body, "{}");
    vault.is_well().await;

    let refusing = Fake::start(|asked| match asked.line.as_str() {
        line if line.contains("/auth/token/") => {
            Answer::Json(403, json!({ "errors": ["permission denied"] }))
        }
        _ => calm(asked),
    })
    .await;
    let vault = start(&refusing).await;
    refusing.was_asked("lookup-self", 2).await;
    let told = vault.external().await;
    assert_eq!(
        (&told["status"], &told["detail"]),
        (&json!("degraded"), &json!("the external vault refuses the token"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_the_other_api_are_handed_on() {
    let fake = Fake::start(|asked| {
        let found = |data: Value| {
            Answer::Json(
                200,
                json!({ "request_id": "theirs", "data": data, "warnings": ["mind"], "auth": null }),
            )
        };
        match asked.line.as_str() {
            "GET /v1/secret/data/a?version=2" => found(json!({ "data": { "n": 1 }, "metadata": state(2) })),
            "PATCH /v1/secret/data/a" | "POST /v1/secret/data/a" => found(state(3)),
            "GET /v1/secret/subkeys/a?depth=1" => found(json!({ "subkeys": {} })),
            "GET /v1/secret/metadata/?after=b%2F&list=true" => found(json!({ "keys": ["c"] })),
            "GET /v1/secret/metadata/a" | "POST /v1/secret/destroy/a" | "DELETE /v1/secret/metadata/a" => {
                Answer::Text(204, "")
            }
            "POST /v1/secret/config" => Answer::Json(400, json!({ "errors": ["no"] })),
            _ => calm(asked),
        }
    })
    .await;
    let vault = start(&fake).await;
    let admin = vault.admin();
    let v1 = async |method: &str, path: &str, body: &str| {
        vault.call(method, &format!("/v1/secret/{path}"), Some(&admin), body).await
    };
    let read = v1("GET", "data/a?version=2", "").await;
    assert_eq!((read.status, &read.json()["data"]["data"]), (200, &json!({ "n": 1 })), "{read:?}");
    assert_ne!(read.json()["request_id"], "theirs");
    assert_eq!(read.json()["warnings"], json!(["mind"]));
    assert_eq!(
        v1("PUT", "data/a", r#"{"data":{"a":1},"options":{"cas":2}}"#).await.json()["data"]["version"],
        3
    );
    assert_eq!(v1("PATCH", "data/a", r#"{"data":{"a":null}}"#).await.status, 200);
    assert!(fake.asked("PATCH")[0].head.contains("content-type: application/merge-patch+json\r\n"));
    assert_eq!(v1("GET", "subkeys/a?depth=1", "").await.status, 200);
    assert_eq!(v1("LIST", "metadata?after=b%2F", "").await.json()["data"]["keys"], json!(["c"]));
    assert_eq!(v1("POST", "destroy/a", r#"{"versions":["2"]}"#).await.status, 204);
    assert_eq!(fake.asked("destroy")[0].body, r#"{"versions":["2"]}"#);
    assert_eq!(v1("DELETE", "metadata/a", "").await.status, 204);
    assert_eq!(v1("GET", "data/none", "").await.status, 404);
    assert_eq!(v1("POST", "config", "{}").await.json()["errors"], json!(["no"]));
    assert_eq!(v1("GET", "nothing/a", "").await.status, 404);
    assert_eq!(v1("PATCH", "destroy/a", "{}").await.status, 405);
    assert!(fake.asked("/secret/nothing").is_empty());
}
