//! Roles die, ports are busy, people press ctrl-C, machines restart.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::http::{get, post, request};
use crate::harness::{Up, children, is_alive, signal, sluice, until};

#[test]
fn a_killed_worker_is_back_within_two_seconds_also_six_times() {
    let dir = tempfile::tempdir().unwrap();
    let sluice = Up::new(&dir.path().join("data")).start();
    for _ in 0..6 {
        let before = until("the calc worker runs", || sluice.role_pid("worker calc"));
        signal(before, "KILL");
        let began = Instant::now();
        // The port never closes: the request waits in the queue for the next process.
        let answer = get(sluice.calc(), "/livez").send();
        assert_eq!(answer.status, 200);
        until("another process answers", || sluice.role_pid("worker calc").filter(|pid| *pid != before));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    for words in ["proxy", "worker events", "worker vault"] {
        let before = sluice.role_pid(words).unwrap();
        signal(before, "KILL");
        until("it is back", || sluice.role_pid(words).filter(|pid| *pid != before));
    }
    until("the edge serves again", || {
        (get(sluice.edge(), "/api/data/symbols").token(sluice.admin()).send().status == 200).then_some(())
    });
    sluice.stop();
}

#[test]
fn ctrl_c_ends_everything_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let mut sluice = Up::new(&dir.path().join("data")).start();
    let roles = children(sluice.pid);
    assert_eq!(roles.len(), 5);
    sluice.signal("INT");
    let began = Instant::now();
    assert_eq!(sluice.wait(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(roles.iter().all(|pid| !is_alive(*pid)), "a role was left behind");
}

#[test]
fn a_killed_supervisor_leaves_no_orphans() {
    let dir = tempfile::tempdir().unwrap();
    let mut sluice = Up::new(&dir.path().join("data")).start();
    let roles = children(sluice.pid);
    sluice.signal("KILL");
    assert_eq!(sluice.wait(), None);
    until("every role ends", || roles.iter().all(|pid| !is_alive(*pid)).then_some(()));
}

#[test]
fn a_busy_port_is_named_with_its_holder_and_a_way_out() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("sluice.toml");
    std::fs::write(&conf, format!("[edge]\nlisten = \"127.0.0.1:{port}\"\n")).unwrap();
    let up = Up::new(&dir.path().join("data")).conf(&conf);
    let output = up.command().output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&format!("port {port}")), "{errors}");
    assert!(errors.contains(&format!("pid {}", std::process::id())), "{errors}");
    assert!(errors.contains("--port-offset"), "{errors}");
}

#[test]
fn two_instances_do_not_share_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Up::new(&data).arg("--no-demo").start();
    let output = Up::new(&data).arg("--port-offset").arg("auto").command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--data-dir"));
    first.stop();
}

#[test]
fn state_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Up::new(&data).arg("--no-demo").start();
    let event = json!({"event_type": "order_executed", "event_id": "0192bbbb-0000-7000-8000-000000000001", "source": "s"});
    let published = post(first.edge(), "/events").token(first.admin()).json(&event).send().expect(200).json();
    let secret = json!({"data": {"k": "v"}});
    request("PUT", first.edge(), "/secrets/services/a/b")
        .token(first.admin())
        .json(&secret)
        .send()
        .expect(200);
    let backend = json!({"name": "kept", "url": "http://127.0.0.1:9", "prefix": "/api/kept"});
    post(first.edge(), "/api/register").token(first.admin()).json(&backend).send().expect(201);
    let ca = get(first.edge(), "/ca/certificate").send().expect(200).body;
    let token = first.admin().to_owned();
    first.stop();

    let second = Up::new(&data).arg("--no-demo").start();
    let again = post(second.edge(), "/events").token(second.admin()).json(&event).send().expect(200).json();
    assert_eq!((again["duplicate"].as_bool(), &again["message_id"]), (Some(true), &published["message_id"]));
    let read = get(second.edge(), "/secrets/services/a/b").token(second.admin()).send().expect(200).json();
    assert_eq!(read["data"]["k"], "v");
    assert_eq!(get(second.edge(), "/ca/certificate").send().expect(200).body, ca);
    let services = get(second.edge(), "/services").send().expect(200).body;
    assert!(services.contains("\"kept\""), "{services}");
    get(second.edge(), "/events/stats").token(&token).send().expect(200);
    let (code, out, _) = sluice(&["audit", "verify", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}");
    second.stop();
}

#[test]
fn a_changed_audit_log_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let running = Up::new(&data).arg("--no-demo").start();
    for n in 0..5 {
        let body = json!({"data": {"n": n}});
        request("PUT", running.edge(), &format!("/secrets/services/a/{n}"))
            .token(running.admin())
            .json(&body)
            .send()
            .expect(200);
    }
    let key = dir.path().join("audit-key.json");
    let jwk = get(running.edge(), "/audit/key").token(running.admin()).send().expect(200);
    std::fs::write(&key, jwk.body).unwrap();
    running.stop();
    let (data_dir, key) = (data.to_str().unwrap(), key.to_str().unwrap());
    let (code, out, _) = sluice(&["audit", "verify", "--data-dir", data_dir, "--key", key]);
    assert!(code == 0 && out.contains("signed up to"), "{code} {out}");
    let path = data.join("audit/vault.jsonl");
    let log = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, log.replacen("services/a/2", "services/a/9", 1)).unwrap();
    let (code, out, _) = sluice(&["audit", "verify", "--data-dir", data_dir]);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("BROKEN") && out.contains("vault"), "{out}");
}

#[test]
fn a_reload_takes_effect_and_a_bad_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("sluice.toml");
    std::fs::write(&conf, "").unwrap();
    let running = Up::new(&dir.path().join("data")).conf(&conf).arg("--no-demo").start();
    let services = dir.path().join("services.d");
    std::fs::create_dir(&services).unwrap();
    let service = "[[service]]\nname = \"late\"\nprefix = \"/api/late\"\nauth_required = false\n\n[[service.instance]]\nurl = \"http://127.0.0.1:9\"\n";
    std::fs::write(services.join("late.toml"), service).unwrap();
    until("the new service routes", || {
        (get(running.edge(), "/api/late/x").send().status == 502).then_some(())
    });
    std::fs::write(services.join("bad.toml"), "[[service]]\nname = 7\n").unwrap();
    until("the failure is told", || {
        let health = get(running.edge(), "/health").send().json();
        (health["config"]["last_reload"]["result"] == "refused").then_some(())
    });
    assert_eq!(get(running.edge(), "/api/late/x").send().status, 502, "the old configuration serves on");
    running.stop();
}
