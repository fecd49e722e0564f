//! A new configuration under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Client, Edge, Setup, Upstream, edge_for, eventually, ok, reply, service};

fn write(edge: &Edge, name: &str, text: &str) {
    let beside = edge.conf.join("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, edge.conf.join("services.d").join(name)).unwrap();
}

fn generation(edge: &Edge) -> u64 {
    edge.get("/health").json()["config"]["generation"].as_u64().unwrap()
}

#[test]
fn a_changed_file_takes_effect_and_a_bad_one_changes_nothing() {
    let [one, two] = [Upstream::start(ok), Upstream::start(ok)];
    let edge = edge_for(&one, "");
    assert_eq!(edge.get("/two").status, 404);
    write(&edge, "two.toml", &service("two", "/two", &[two.url()], "auth_required = false"));
    eventually("the new service routes", || Some(edge.get("/two")).filter(|reply| reply.status == 200));
    assert_eq!(generation(&edge), 2);
    write(&edge, "two.toml", "[[service]]\nname = \"two\"\nprefx = \"/two\"\n");
    let health = eventually("the bad file is noticed", || {
        let health = edge.get("/health").json();
        (health["config"]["last_reload"]["result"] == "refused").then_some(health)
    });
    assert!(health["config"]["last_reload"]["error"].as_str().unwrap().contains("prefx"), "{health}");
    assert_eq!(health["config"]["generation"], 2);
    // Where on this machine the file is, and what stands in it, the control port alone says.
    let said = health["config"]["last_reload"]["error"].as_str().unwrap();
    assert!(said.contains("E0101 in two.toml:3: unknown key `prefx`"), "{said}");
    let place = edge.data.parent().unwrap().to_str().unwrap();
    assert!(!health.to_string().contains(place), "{health}");
    let token = edge.issuer.token_of("operator", "control:read");
    let history = edge.admin("GET", "/admin/config", Some(&token), None).json()["history"].clone();
    assert!(history[0]["error"].as_str().unwrap().contains(place), "{history}");
    assert_eq!(edge.get("/two").status, 200);
    let metrics = edge.get("/metrics").text();
    assert!(metrics.contains("sluice_config_last_reload_success 0"), "{metrics}");
    std::fs::remove_file(edge.conf.join("services.d/two.toml")).unwrap();
    eventually("the service is gone", || Some(edge.get("/two")).filter(|reply| reply.status == 404));
    eventually("what files changed is in the audit chain", || {
        let chain = std::fs::read_to_string(edge.data.join("audit/edge.jsonl")).ok()?;
        let of_files = |line: &&str| line.contains(r#""op":"reload""#) && line.contains(r#""actor":"file""#);
        let decisions: Vec<&str> = chain
            .lines()
            .filter(of_files)
            .map(|line| if line.contains(r#""decision":"error""#) { "error" } else { "allow" })
            .collect();
        (decisions == ["allow", "error", "allow"]).then_some(())
    });
}

#[test]
fn what_somebody_reloaded_is_not_reloaded_again() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let token = edge.issuer.token("control:write control:read");
    let history = || {
        let config = edge.admin("GET", "/admin/config", Some(&token), None).json();
        let all = config["history"].as_array().unwrap().iter();
        all.map(|one| format!("{} {}", one["trigger"].as_str().unwrap(), one["result"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    let looks = |times: u32| {
        let began = Instant::now();
        let passed = || (began.elapsed() > times * Duration::from_millis(500)).then_some(());
        eventually("the files are looked at", passed);
    };
    let two = service("two", "/two", &[upstream.url()], "auth_required = false");
    write(&edge, "two.toml", &two);
    assert_eq!(edge.admin("POST", "/admin/reload", Some(&token), None).status, 200);
    looks(3);
    assert_eq!(history(), ["admin accepted", "start accepted"]);
    write(&edge, "two.toml", &two);
    looks(3);
    assert_eq!(history(), ["admin accepted", "start accepted"], "a file that says the same is no reload");
    write(&edge, "two.toml", "[[service]]");
    assert_eq!(edge.admin("POST", "/admin/reload", Some(&token), None).status, 422);
    write(&edge, "two.toml", &two);
    eventually("the good file is taken again", || (history()[0] == "file accepted").then_some(()));
    assert_eq!(edge.get("/two").status, 200);
}

#[test]
fn state_survives_and_no_request_fails_while_generations_change() {
    let upstream = Upstream::start(|seen, wire| {
        let bad = seen.line().contains("/bad");
        wire.write_all(reply(if bad { "502 Bad Gateway" } else { "200 OK" }, "x").as_bytes()).is_ok()
    });
    let fragile = service(
        "fragile",
        "/fragile",
        &[upstream.url()],
        "auth_required = false\nbreaker = { failure_threshold = 1, recovery_timeout = \"60s\" }\nretry = { attempts = 1 }\n\
         rate_limit = { requests = 5, per = \"1h\" }",
    );
    let api = service("api", "/api", &[upstream.url()], "auth_required = false\nrate_limit = 1000000");
    let edge = Setup::new("").service("api", &api).service("fragile", &fragile).start();
    assert_eq!(edge.get("/fragile/bad").status, 502);
    assert_eq!(edge.get("/fragile/x").code(), "breaker_open");

    let ended = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (ended, to) = (Arc::clone(&ended), edge.http);
            std::thread::spawn(move || {
                let mut client = Client::to(to);
                let mut answered = 0_u32;
                while !ended.load(Ordering::SeqCst) {
                    let reply = client.exchange("GET /api/x HTTP/1.1\r\nHost: edge\r\n\r\n");
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let token = edge.issuer.token("control:write control:read");
    for round in 0..20 {
        let extra = service(&format!("extra{round}"), &format!("/extra{round}"), &[upstream.url()], "");
        write(&edge, "extra.toml", &extra);
        let reply = edge.admin("POST", "/admin/reload", Some(&token), None);
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    ended.store(true, Ordering::SeqCst);
    let answered: u32 = load.into_iter().map(|thread| thread.join().expect("no request failed")).sum();
    assert!(answered > 100, "{answered}");
    assert!(generation(&edge) >= 21);
    assert_eq!(edge.get("/fragile/x").code(), "breaker_open", "the breaker is as it was");
    let shown = edge.admin("GET", "/circuit-breakers/fragile", None, None).json();
    assert_eq!(shown["metrics"]["total_failures"], 1);
}

#[test]
fn who_may_read_metrics_changes_on_both_ports_at_once() {
    let edge = Setup::new("").start();
    let token = edge.issuer.token("control:write control:read");
    let both = || [edge.get("/metrics").status, edge.admin("GET", "/metrics", None, None).status];
    assert_eq!(both(), [200, 200]);
    let main = edge.conf.join("sluice.toml");
    let written = std::fs::read_to_string(&main).unwrap();
    for (metrics, status) in [("allow = []", 401), ("enabled = false", 404)] {
        std::fs::write(&main, format!("{written}\n[metrics]\n{metrics}\n")).unwrap();
        let done = edge.admin("POST", "/admin/reload", Some(&token), None);
        assert_eq!(done.status, 200, "{}", done.text());
        assert_eq!(both(), [status, status], "{metrics}");
    }
}

#[test]
fn a_refused_reload_by_call_says_why() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    write(&edge, "bad.toml", "[[service]]\nname = \"bad\"\nprefix = \"/events\"\n");
    let token = edge.issuer.token("control:write");
    let reply = edge.admin("POST", "/admin/reload", Some(&token), None);
    assert_eq!((reply.status, reply.code().as_str()), (422, "unprocessable"));
    assert!(reply.json()["detail"].as_str().unwrap().contains("bad.toml"), "{}", reply.text());
    assert_eq!(edge.get("/api").status, 200);
}
