//! Taking a configuration back, and what is told of reloads.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::harness::{Edge, Reply, Setup, Upstream, edge_for, eventually, ok, service};

fn write(edge: &Edge, name: &str, text: &str) {
    let beside = edge.conf.join("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, edge.conf.join("services.d").join(name)).unwrap();
}

fn token(edge: &Edge) -> String {
    edge.issuer.token_of("operator", "control:write control:read")
}

fn reload(edge: &Edge) -> Value {
    let reply = edge.admin("POST", "/admin/reload", Some(&token(edge)), None);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn roll_back(edge: &Edge, to: Option<u64>) -> Reply {
    let body = to.map(|number| json!({ "generation": number }));
    edge.admin("POST", "/admin/rollback", Some(&token(edge)), body.as_ref())
}

fn config(edge: &Edge) -> Value {
    edge.admin("GET", "/admin/config", Some(&token(edge)), None).json()
}

#[test]
fn an_earlier_configuration_comes_back_for_good() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let two = |prefix: &str| service("two", prefix, &[upstream.url()], "auth_required = false");
    write(&edge, "two.toml", &two("/two"));
    let done = reload(&edge);
    assert_eq!(
        (&done["generation"], &done["changes"], &done["kept"]),
        (&json!(2), &json!(["+ service two"]), &json!(true))
    );
    write(&edge, "two.toml", &two("/other"));
    assert_eq!(reload(&edge)["generation"], 3);
    assert_eq!([edge.get("/two").status, edge.get("/other").status], [404, 200]);

    write(&edge, "two.toml", "[[service]]\nbroken");
    assert_eq!(edge.admin("POST", "/admin/reload", Some(&token(&edge)), None).status, 422);
    let mended = roll_back(&edge, None).json();
    assert_eq!(
        (&mended["restored"], &mended["generation"]),
        (&json!(3), &json!(3)),
        "what is in force comes first"
    );
    assert_eq!(std::fs::read_to_string(edge.conf.join("services.d/two.toml")).unwrap(), two("/other"));
    assert_eq!(edge.get("/health").json()["config"]["last_reload"]["result"], "accepted");
    assert_eq!([edge.get("/two").status, edge.get("/other").status], [404, 200]);

    let back = roll_back(&edge, None);
    assert_eq!(back.status, 200, "{}", back.text());
    let back = back.json();
    assert_eq!(
        (&back["status"], &back["restored"], &back["generation"]),
        (&json!("rolled_back"), &json!(2), &json!(4))
    );
    assert_eq!([edge.get("/two").status, edge.get("/other").status], [200, 404]);
    let written = std::fs::read_to_string(edge.conf.join("services.d/two.toml")).unwrap();
    assert_eq!(written, two("/two"));
    let saved = std::path::Path::new(back["saved"].as_str().unwrap()).join("services.d/two.toml");
    assert_eq!(std::fs::read_to_string(saved).unwrap(), two("/other"));
    assert_eq!(reload(&edge)["generation"], 4, "a reload sees the same");

    assert_eq!(roll_back(&edge, None).json()["restored"], 1, "back once more");
    assert_eq!(edge.get("/two").status, 404);
    assert!(!edge.conf.join("services.d/two.toml").exists());
    assert_eq!(roll_back(&edge, Some(3)).json()["generation"], 6);
    assert_eq!(edge.get("/other").status, 200);
    let edge = edge.restart();
    assert_eq!(edge.get("/other").status, 200, "a restart sees the same");
    assert_eq!(edge.get("/health").json()["config"]["generation"], 6, "and calls it the same");
    let audited = std::fs::read_to_string(edge.data.join("audit/edge.jsonl")).unwrap();
    assert!(audited.contains(r#""op":"rollback""#) && audited.contains("config: generation 3"), "{audited}");
}

#[test]
fn a_rollback_that_cannot_be_made_changes_nothing() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    assert_eq!((roll_back(&edge, None).status, roll_back(&edge, None).code()), (409, "conflict".to_owned()));
    assert_eq!(roll_back(&edge, Some(77)).code(), "not_found");
    let reader = edge.issuer.token("control:read");
    assert_eq!(edge.admin("POST", "/admin/rollback", Some(&reader), None).status, 403);
    assert_eq!(edge.admin("POST", "/admin/rollback", None, None).status, 401);
    let odd = edge.admin("POST", "/admin/rollback", Some(&token(&edge)), Some(&json!({"to": 1})));
    assert_eq!(odd.status, 400);

    write(&edge, "two.toml", &service("two", "/two", &[upstream.url()], "auth_required = false"));
    reload(&edge);
    let folder = edge.conf.join("services.d");
    let elsewhere = edge.conf.join("elsewhere.toml");
    std::fs::rename(folder.join("two.toml"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, folder.join("two.toml")).unwrap();
    let refused = roll_back(&edge, None);
    assert_eq!(refused.code(), "conflict");
    assert!(refused.json()["detail"].as_str().unwrap().contains("symbolic link"), "{}", refused.text());
    assert_eq!(edge.get("/two").status, 200);
}

#[test]
fn kept_files_are_private_and_hold_no_secret() {
    const CANARY: &str = "canary-0123456789-0123456789-0123456789";
    let upstream = Upstream::start(ok);
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, CANARY).unwrap();
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let main = format!("[auth]\nhs256_secret = \"file:{}\"\n", secret.display());
    let edge = Setup::new(&main).service("api", &text).start();
    let folder = edge.data.join("edge/generations");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let noted = edge.data.join("edge/control.addr");
    assert_eq!((std::fs::read_to_string(&noted).unwrap(), mode(&noted)), (edge.control.to_string(), 0o600));
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(files.len(), 1);
    assert_eq!(mode(&files[0]), 0o600);
    let kept = std::fs::read_to_string(&files[0]).unwrap();
    assert!(kept.contains("file:") && !kept.contains(CANARY), "{kept}");
    let shown = config(&edge).to_string();
    assert!(!shown.contains(CANARY));
}

#[test]
fn a_refused_reload_brings_its_whole_report() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    write(&edge, "bad.toml", "[[service]]\nname = \"bad\"\nprefx = \"/bad\"\n");
    let refused = edge.admin("POST", "/admin/reload", Some(&token(&edge)), None);
    assert_eq!((refused.status, refused.code().as_str()), (422, "unprocessable"));
    let problem = refused.json();
    let report = problem["report"].as_str().unwrap();
    assert!(
        report.contains("--> ") && report.contains("bad.toml:3:1") && report.contains("prefix"),
        "{report}"
    );
    let findings = problem["findings"].as_array().unwrap();
    assert!(findings.iter().any(|one| one["line"] == 3 && one["severity"] == "error"), "{problem}");
    std::fs::remove_file(edge.conf.join("services.d/bad.toml")).unwrap();
    std::fs::write(edge.conf.join("sluice.toml"), "[edge]\nthreads = 3\n[log]\naccess = \"off\"\n").unwrap();
    let done = reload(&edge);
    assert_eq!(done["restart"], json!(["edge"]));
    assert_eq!(done["changes"], json!(["~ edge.threads: 2 -> 3 (restarts edge)"]));

    let shown = config(&edge);
    let history = shown["history"].as_array().unwrap();
    let with = |trigger: &str, result: &str| {
        history.iter().find(|one| one["trigger"] == trigger && one["result"] == result)
    };
    assert!(with("start", "accepted").is_some());
    assert!(with("admin", "refused").unwrap()["error"].as_str().unwrap().contains("prefx"));
    assert_eq!(with("admin", "accepted").unwrap()["restart"], json!(["edge"]));
    assert_eq!((&shown["dev"], &shown["port_offset"]), (&json!(true), &json!(0)));
    assert_eq!(shown["effective"]["keys"]["edge.threads"], 3);
    assert_eq!(shown["effective"]["services"]["api"]["prefix"], "/api");
    let numbers: Vec<_> = shown["kept"].as_array().unwrap().iter().map(|one| one["number"].clone()).collect();
    assert_eq!(numbers, [1, 2]);
    let health = edge.get("/health").json();
    assert_eq!(health["config"]["last_reload"]["result"], "accepted");
}

#[test]
fn the_log_level_changes_at_run_time() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let put = |token: Option<&str>, level: &str| {
        edge.admin("PUT", "/admin/log-level", token, Some(&json!({ "level": level })))
    };
    assert_eq!(put(None, "debug").status, 401);
    let operator = token(&edge);
    for bad in ["DEBUG", "off", "sluice=trace", ""] {
        assert_eq!(put(Some(&operator), bad).code(), "unprocessable", "{bad}");
    }
    let done = put(Some(&operator), "debug").json();
    assert_eq!((&done["level"], &done["configured"]), (&json!("debug"), &json!("info")));
    let audited = eventually("the record", || {
        let text = std::fs::read_to_string(edge.data.join("audit/edge.jsonl")).ok()?;
        text.contains("log_level").then_some(text)
    });
    assert!(audited.contains(r#""path":"debug""#), "{audited}");
}
