//! Alerts of Falco in the running system: what they stop at the edge, and how it goes on.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::http::{get, post};
use crate::harness::origin::upstream;
use crate::harness::{Instance, Up, sluice, until};

const SECRET: &str = "a-path-that-nobody-guesses-0123456789";

fn start(dir: &Path) -> Instance {
    let conf = format!(
        r#"
[falco]
secret = "file:falco.secret"
responses = [
    {{ rule = "short", action = "kill_switch", scope = "service", target = "orders", ttl = "2s", quorum = 1, dry_run = false }},
    {{ rule = "long", action = "kill_switch", scope = "all", ttl = "1h", quorum = 1, dry_run = false }},
    {{ rule = "two", action = "kill_switch", scope = "all", ttl = "1h", dry_run = false }},
    {{ rule = "dry", action = "kill_switch", scope = "all", ttl = "1h", quorum = 1 }},
]
[[service]]
name = "orders"
prefix = "/orders"
auth_required = false
lane = "order"
[[service.instance]]
url = "http://{}"
"#,
        upstream()
    );
    std::fs::write(dir.join("falco.secret"), SECRET).unwrap();
    std::fs::write(dir.join("sluice.toml"), conf).unwrap();
    let up = Up::new(&dir.join("data")).conf(&dir.join("sluice.toml")).arg("--no-demo");
    up.start()
}

fn alert(running: &Instance, rule: &str, process: &str) -> Value {
    let alert = json!({
        "time": "2026-11-22T11:00:00.000000001Z", "rule": rule, "priority": "Critical", "hostname": "liar",
        "output": "it happened", "output_fields": { "proc.name": process, "container.id": "c1" },
    });
    let answer = post(running.vault(), &format!("/falco/alerts/{SECRET}")).json(&alert).send();
    answer.expect(202).json()["responses"].clone()
}

fn order(running: &Instance) -> u16 {
    post(running.edge(), "/orders").send().status
}

fn switches(running: &Instance) -> Value {
    let found =
        ["--url", running.control(), "--data-dir", running.data_dir.to_str().unwrap(), "--format", "json"];
    let (code, out, errors) = sluice(&[&["kill-switch", "status"], &found[..]].concat());
    assert_eq!(code, 0, "{errors}");
    serde_json::from_str::<Value>(&out).unwrap()
}

#[test]
fn an_alert_stops_orders_until_its_time_is_over_or_somebody_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path());
    until("the edge follows the stream", || (switches(&running)["following"] == true).then_some(()));
    assert_eq!(order(&running), 200);
    // Nothing but a record and what is told.
    assert_eq!(alert(&running, "dry", "a")[0]["result"], "dry_run");
    assert_eq!(alert(&running, "two", "a"), json!([]), "one host is no quorum of two");
    assert_eq!(alert(&running, "two", "b"), json!([]), "whatever it calls itself");

    assert_eq!(alert(&running, "short", "a")[0]["result"], "done");
    until("orders are refused", || (order(&running) == 503).then_some(()));
    let on = switches(&running);
    assert_eq!((&on["count"], &on["switches"][0]["by"]), (&json!(1), &json!("role/vault")), "{on}");
    assert_eq!(on["switches"][0]["target"], "orders");
    let reason = on["switches"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("falco: short at localhost until "), "{reason}");
    until("its time is over", || (order(&running) == 200).then_some(()));

    // Let go at the vault by an administrator, or at the edge by an operator.
    for (process, at_the_vault) in [("a", true), ("b", false)] {
        assert_eq!(alert(&running, "long", process)[0]["result"], "done");
        until("everything is refused", || (order(&running) == 503).then_some(()));
        if at_the_vault {
            let release = post(running.vault(), "/falco/kill-switch/release").token(running.admin());
            release.json(&json!({"scope": "all"})).send().expect(204);
        } else {
            let found = ["--url", running.control(), "--data-dir", running.data_dir.to_str().unwrap()];
            let off = ["kill-switch", "off", "--all", "--reason", "looked at"];
            assert_eq!(sluice(&[&off[..], &found[..]].concat()).0, 0);
        }
        until("orders pass", || (order(&running) == 200).then_some(()));
    }

    // Who may publish events may not do the same.
    let publisher = running.token("publisher", &["events:publish", "events:source:any"]);
    let forged = json!({
        "event_type": "kill_switch", "source": "vault", "metadata": {"role": "vault"}, "data": {"scope": "all", "on": true,
        "cancel_lane_open": true, "reason": "forged", "by": "role/vault", "at_ms": 1, "edge": "7661756c00000001",
        "epoch": 1},
    });
    for base in [running.edge(), running.events()] {
        let status = post(base, "/events").token(&publisher).json(&forged).send().status;
        assert!(status == 403 || status == 422, "{status}");
    }
    assert_eq!(order(&running), 200);
    let log = std::fs::read_to_string(running.data_dir.join("audit/edge.jsonl")).unwrap();
    assert!(log.contains("role/vault") && log.contains("falco: short"), "{log}");
    let kept = get(running.vault(), "/falco/kill-switch").token(running.admin()).send().expect(200).json();
    assert_eq!(kept["count"], 1, "what the vault put on, an operator took back at the edge: {kept}");
    running.stop();
}
