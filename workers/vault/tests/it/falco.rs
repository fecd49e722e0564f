//! Alerts of Falco: who may send them, what becomes of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_schema::{FalcoAction, FalcoPriority, FalcoResponse, KillScope, Secret};

use crate::feed::batches_at;
use crate::harness::{PATIENCE, Reply, Setup, Vault};

const PATH: &str = "/falco/alerts/a-path-that-nobody-guesses-0123456789";

fn alert(rule: &str, process: &str) -> String {
    json!({
        "time": "2026-11-22T11:00:00.000000001Z", "rule": rule, "priority": "Critical", "source": "syscall",
        "hostname": "liar", "output": "it happened", "tags": ["sluice"],
        "output_fields": { "proc.name": process, "container.id": "c1" },
    })
    .to_string()
}

fn response(rule: &str, identity: &str, quorum: u64, dry_run: bool) -> FalcoResponse {
    FalcoResponse {
        rule: rule.into(),
        priority: FalcoPriority::Critical,
        action: FalcoAction::Quarantine,
        identity: Some(identity.into()),
        scope: None,
        target: None,
        ttl: Duration::from_mins(10),
        quorum,
        dry_run,
    }
}

/// A vault with a secret path, a short memory and a low rate.
fn setup() -> Setup {
    let mut setup = Setup::default();
    let falco = &mut setup.config.falco;
    falco.secret = Some(Secret::new(PATH.rsplit('/').next().unwrap()));
    falco.dedup_window = Duration::from_hours(1);
    falco.rate = 4;
    falco.responses = vec![
        response("Shell started by Sluice", "bot", 1, false),
        response("Secrets of Sluice read", "data", 2, false),
        response("Memory of Sluice read", "data", 1, true),
        response("Memory of Sluice read", "nobody", 1, false),
    ];
    setup
}

async fn send(vault: &Vault, body: &str) -> Reply {
    vault.raw("POST", PATH, "content-type: application/json\r\n", body).await
}

async fn sent(vault: &Vault, body: &str) -> Value {
    let reply = send(vault, body).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()
}

async fn figures(vault: &Vault) -> String {
    vault.call("GET", "/metrics", None, "").await.text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_decides_what_is_told_and_done() {
    let vault = setup().start();
    vault.ready().await;
    let token = vault.token("bot", &["read"]).await;
    assert_eq!(vault.as_admin("POST", "/credentials/bot", "").await.status, 200);
    vault.token("data", &["read"]).await;

    let shell = alert("Shell started by Sluice", "sh");
    for process in ["cat", "less"] {
        let one = sent(&vault, &alert("Secrets of Sluice read", process)).await;
        let told = (&one["accepted"], &one["responses"]);
        assert_eq!(told, (&json!(1), &json!([])), "a quorum is of hosts, whatever names one gives");
    }
    let second = sent(&vault, &shell).await;
    assert_eq!(sent(&vault, &shell).await["repeated"], 1);
    let done = json!([{ "action": "quarantine", "identity": "bot", "rule": "Shell started by Sluice", "result": "done" }]);
    assert_eq!(second["responses"], done);
    let third = sent(&vault, &alert("Memory of Sluice read", "gdb")).await;
    let results: Vec<&Value> =
        third["responses"].as_array().unwrap().iter().map(|response| &response["result"]).collect();
    assert_eq!(results, ["dry_run", "unknown_identity"]);

    let verdict = vault.call("POST", "/tokens/validate", None, &json!({ "token": token }).to_string()).await;
    assert_eq!(verdict.json()["reason"], "revoked");
    for path in ["/tokens/bot", "/credentials/bot"] {
        vault.as_admin("POST", path, "").await.is(403, "forbidden");
    }
    let certificate = vault.as_admin("GET", "/credentials/bot", "").await.json();
    assert!(certificate["revoked_at"].is_string(), "{certificate}");
    assert_eq!(vault.as_admin("POST", "/tokens/data", "").await.status, 200, "a dry run does nothing");
    let listed = vault.as_admin("GET", "/falco/quarantine", "").await.json();
    assert_eq!((&listed["count"], &listed["quarantines"][0]["service"]), (&json!(1), &json!("bot")));
    assert_eq!(listed["quarantines"][0]["host"], "localhost", "not the name an alert gives itself");

    let text = figures(&vault).await;
    let line = r#"falco_alerts_total{priority="critical",rule="Shell started by Sluice"} 2"#;
    assert!(text.contains(line), "{text}");
    let log = vault.as_admin("GET", "/audit?limit=500", "").await.text;
    for path in ["falco/localhost/1", "falco/quarantine/bot"] {
        assert!(log.contains(path), "{path}: {log}");
    }

    let stranger = vault.token("ci", &["tokens:mint", "read"]).await;
    let release = "/falco/quarantine/bot/release";
    vault.call("POST", release, Some(&stranger), "").await.is(403, "insufficient_scope");
    assert_eq!(vault.as_admin("POST", release, "").await.status, 204);
    vault.as_admin("POST", release, "").await.is(404, "not_found");
    assert_eq!(vault.as_admin("POST", "/tokens/bot", "").await.status, 200);
    assert_eq!(vault.as_admin("POST", "/credentials/bot", "").await.status, 200);
}

/// A kill switch over everything, or over a service.
fn kill(rule: &str, target: Option<&str>, quorum: u64, dry_run: bool) -> FalcoResponse {
    FalcoResponse {
        action: FalcoAction::KillSwitch,
        identity: None,
        scope: Some(if target.is_some() { KillScope::Service } else { KillScope::All }),
        target: target.map(str::to_owned),
        ..response(rule, "", quorum, dry_run)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_switch_stops_what_the_configuration_names_until_it_is_released() {
    let mut setup = setup();
    setup.config.falco.rate = 100;
    setup.config.falco.responses =
        vec![kill("one", Some("orders"), 1, false), kill("one", None, 2, false), kill("one", None, 1, true)];
    let vault = setup.start();
    vault.ready().await;
    let told = sent(&vault, &alert("one", "a")).await;
    let stops = json!({ "scope": "service", "target": "orders" });
    assert_eq!(
        told["responses"],
        json!([
            { "action": "kill_switch", "stop": stops, "rule": "one", "result": "done" },
            { "action": "kill_switch", "stop": { "scope": "all" }, "rule": "one", "result": "dry_run" },
        ])
    );
    let again = sent(&vault, &alert("one", "b")).await;
    assert_eq!(again["responses"], json!([]), "it rests, and one host is no quorum of two");
    let on = vault.as_admin("GET", "/falco/kill-switch", "").await.json();
    assert_eq!((&on["count"], &on["switches"][0]["scope"]), (&json!(1), &json!("service")), "{on}");
    assert_eq!(
        (&on["switches"][0]["target"], &on["switches"][0]["host"]),
        (&json!("orders"), &json!("localhost"))
    );

    let release = "/falco/kill-switch/release";
    vault.call("GET", "/falco/kill-switch", None, "").await.is(401, "invalid_token");
    vault.call("POST", release, None, &stops.to_string()).await.is(401, "invalid_token");
    let stranger = vault.token("ci", &["tokens:mint", "events:publish"]).await;
    vault.call("POST", release, Some(&stranger), &stops.to_string()).await.is(403, "insufficient_scope");
    vault.as_admin("POST", release, r#"{"scope":"all"}"#).await.is(404, "not_found");
    assert_eq!(vault.as_admin("POST", release, r#"{"scope":"all","on":true}"#).await.status, 400);
    assert_eq!(vault.as_admin("POST", release, &stops.to_string()).await.status, 204);
    vault.as_admin("POST", release, &stops.to_string()).await.is(404, "not_found");
    assert_eq!(vault.as_admin("GET", "/falco/kill-switch", "").await.json()["count"], 0);
    assert_eq!(sent(&vault, &alert("one", "c")).await["responses"][0]["result"], "done", "armed again");
    let log = vault.as_admin("GET", "/audit?limit=500", "").await.text;
    for of in ["kill_switch_on", "kill_switch_off", "falco/kill-switch/service:orders", "falco/response/all"]
    {
        assert!(log.contains(of), "{of}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_counted_and_told_no_faster_than_the_rate() {
    let vault = setup().start();
    vault.ready().await;
    let many: Vec<String> = (0..200).map(|number| alert(&format!("made up {number}"), "x")).collect();
    let receipt = sent(&vault, &many.join("\n")).await;
    assert_eq!((&receipt["accepted"], &receipt["limited"]), (&json!(4), &json!(196)));
    let text = figures(&vault).await;
    assert!(text.contains(r#"falco_alerts_total{priority="critical",rule="other"} 200"#), "{text}");
    assert!(!text.contains("made up"), "a sender makes no series");
    let log = vault.as_admin("GET", "/audit?limit=500", "").await.text;
    assert_eq!(log.matches("falco/localhost/4").count(), 1, "one record a request: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_are_taken_from_nobody_else() {
    let vault = setup().start();
    vault.ready().await;
    let body = alert("Shell started by Sluice", "sh");
    vault.call("POST", "/falco/alerts", None, &body).await.is(401, "invalid_token");
    vault.as_admin("POST", "/falco/alerts", &body).await.is(403, "forbidden");
    let guess = vault.call("POST", "/falco/alerts/a-guess", None, &body).await;
    guess.is(404, "not_found");
    assert_eq!(guess.json()["instance"], "/falco/alerts/***");
    let proof = vault.proof(sluice_wire::role::Role::Edge);
    for path in ["/falco/alerts", PATH] {
        vault.internal("POST", path, &proof, &body).await.is(404, "not_found");
    }
    vault.call("GET", "/falco/quarantine", None, "").await.is(401, "invalid_token");
    for (body, status) in
        [("", 400), ("not json", 400), ("[]", 400), ("[{}]", 400), (&"[".repeat(300_000), 413)]
    {
        let reply = send(&vault, body).await;
        assert_eq!(reply.status, status, "{body:.20}");
        assert!(!reply.text.contains("a-path-that-nobody-guesses"), "{reply:?}");
    }
    let closed = Vault::start().await;
    send(&closed, &body).await.is(404, "not_found");
    let log = vault.as_admin("GET", "/audit?limit=500", "").await.text;
    assert!(!log.contains("a-path-that-nobody-guesses"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_goes_gravest_first_and_nothing_is_lost() {
    let setup = setup();
    let socket = setup.dir.path().join("events.sock");
    let mut setup = Setup { events: Some(socket.clone()), ..setup };
    setup.config.falco.rate = 10_000;
    setup.config.falco.responses = vec![kill("last", None, 1, false)];
    let vault = setup.start();
    vault.ready().await;
    // More than one batch, told while nobody listens; what matters most comes last.
    let notice = |number: usize| alert(&format!("rule {number}"), "p").replace("Critical", "Notice");
    let many: Vec<String> = (0..300).map(notice).collect();
    let headers = "content-type: application/json\r\n";
    for body in [many[..150].join("\n"), many[150..].join("\n"), alert("last", "p")] {
        assert_eq!(vault.raw("POST", PATH, headers, &body).await.status, 202);
    }
    let seen = batches_at(&socket, vault.peer_keys(), 2);
    let began = Instant::now();
    // 301 alerts, of which one is critical; the response and its switch.
    while seen.lock().unwrap().len() < 304 {
        assert!(began.elapsed() < PATIENCE, "{}", seen.lock().unwrap().len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seen = seen.lock().unwrap().clone();
    let kinds: Vec<&str> = seen.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(kinds[..2], ["kill_switch", "risk_alert"]);
    assert_eq!(seen[2].data["kind"], "falco_response");
    let rules: Vec<String> =
        seen[3..].iter().map(|event| event.data["rule"].as_str().unwrap().into()).collect();
    let told = (0..300).map(|number| format!("rule {number}")).chain(["last".to_owned()]);
    assert_eq!(rules, told.collect::<Vec<String>>(), "the others in their order");
    let ids: std::collections::BTreeSet<_> = seen.iter().map(|event| event.event_id).collect();
    assert_eq!(ids.len(), seen.len(), "each once");
    let (switch, data) = (&seen[0], &seen[0].data);
    assert_eq!((switch.source.as_str(), &data["scope"], &data["on"]), ("vault", &json!("all"), &json!(true)));
}
