//! The operator's commands against configurations and a running edge.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::http::get;
use crate::harness::{Instance, Up, binary, is_alive, repository, shared, signal, sluice, until};

/// A configuration folder of its own with one service that answers nothing.
fn folder(dir: &Path) -> PathBuf {
    let conf = dir.join("conf");
    std::fs::create_dir_all(conf.join("services.d")).unwrap();
    std::fs::write(conf.join("sluice.toml"), "[log]\naccess = \"off\"\n").unwrap();
    conf
}

fn service(conf: &Path, name: &str, prefix: &str) {
    let text = format!(
        "[[service]]\nname = \"{name}\"\nprefix = \"{prefix}\"\nauth_required = false\nretry = {{ attempts = 1 }}\n\
         [[service.instance]]\nurl = \"http://127.0.0.1:9\"\n"
    );
    std::fs::write(conf.join("new"), text).unwrap();
    std::fs::rename(conf.join("new"), conf.join("services.d").join(format!("{name}.toml"))).unwrap();
}

fn generation(running: &Instance) -> u64 {
    get(running.edge(), "/health").send().json()["config"]["generation"].as_u64().unwrap()
}

/// Runs a command with the arguments that find the instance.
fn at(running: &Instance, conf: &Path, arguments: &[&str]) -> (i32, String, String) {
    let data_dir = running.data_dir.to_str().unwrap();
    let common = ["--url", running.control(), "--data-dir", data_dir, "--conf", conf.to_str().unwrap()];
    sluice(&[arguments, &common].concat())
}

fn instances_are_held_and_taken_back(running: &Instance, main: &Path) {
    let upstream = |arguments: &[&str]| at(running, main, &[&["upstream"][..], arguments].concat());
    assert_eq!(get(running.edge(), "/one").send().status, 502);
    let (code, out, errors) = upstream(&["maint", "one", "http://127.0.0.1:9", "--reason", "a new kernel"]);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(out, "http://127.0.0.1:9 of one is maint, 0 request(s) in flight\n");
    assert_eq!(get(running.edge(), "/one").send().status, 503);
    let (code, out, _) = upstream(&["list"]);
    assert!(code == 0 && out.contains(" maint ") && out.ends_with(": a new kernel\n"), "{out}");
    let (code, out, errors) = upstream(&["drain", "one", "127.0.0.1:9", "--format", "json"]);
    assert!(code == 0 && out.contains(r#""state":"draining""#), "{out}{errors}");
    assert_eq!(upstream(&["ready", "one", "127.0.0.1:9"]).0, 0);
    assert_eq!(get(running.edge(), "/one").send().status, 502);
    assert_eq!(upstream(&["ready", "one", "127.0.0.1:10"]).0, 2);
}

#[test]
fn a_running_edge_is_compared_reloaded_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let conf = folder(dir.path());
    service(&conf, "one", "/one");
    let running = Up::new(&dir.path().join("data")).conf(&conf.join("sluice.toml")).arg("--no-demo").start();
    let main = conf.join("sluice.toml");
    let (code, out, errors) = at(&running, &main, &["diff", "--running"]);
    assert_eq!((code, out.as_str()), (0, "no difference\n"), "{errors}");
    instances_are_held_and_taken_back(&running, &main);

    let other = dir.path().join("other");
    std::fs::create_dir_all(other.join("services.d")).unwrap();
    std::fs::write(other.join("sluice.toml"), "[edge]\nthreads = 3\n").unwrap();
    let (code, out, errors) = at(&running, &main, &["diff", "--running", other.to_str().unwrap()]);
    assert_eq!(code, 0, "{errors}");
    assert!(
        out.contains("- service one\n") && out.contains("(restarts edge)") && out.contains("\nrestarts edge"),
        "{out}"
    );
    let (_, out, _) =
        at(&running, &main, &["diff", "--running", other.to_str().unwrap(), "--format", "json"]);
    let difference: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&difference["removed"][0], &difference["equal"]), (&"one".into(), &false.into()));
    let old_new = [main.to_str().unwrap(), other.to_str().unwrap()];
    let (code, out, errors) = sluice(&["diff", old_new[0], old_new[1]]);
    assert!(code == 0 && out.contains("~ edge.threads: 0 -> 3"), "{out}{errors}");

    service(&conf, "two", "/two");
    let (code, out, errors) = at(&running, &main, &["reload"]);
    assert_eq!(code, 0, "{out}{errors}");
    assert!(out.starts_with("reloaded: generation 2 "), "{out}");
    assert_eq!(get(running.edge(), "/two").send().status, 502);

    std::fs::write(conf.join("services.d/two.toml"), "[[service]]\nprefx = 1\n").unwrap();
    let (code, _, errors) = at(&running, &main, &["reload"]);
    assert_eq!(code, 2);
    assert!(errors.contains("error[E") && errors.contains("two.toml:2:1"), "{errors}");
    // Without --url: the configuration cannot be read, but the edge noted where it listens.
    let data_dir = running.data_dir.to_str().unwrap();
    let find = ["--data-dir", data_dir, "--conf", main.to_str().unwrap()];
    let (code, out, errors) = sluice(&[&["rollback"][..], &find].concat());
    assert_eq!(code, 0, "{out}{errors}");
    // The files were not what is in force: that comes back first.
    assert!(out.starts_with("rolled back to generation 2: generation 2 "), "{out}");
    assert!(std::fs::read_to_string(conf.join("services.d/two.toml")).unwrap().contains("prefix = \"/two\""));
    assert_eq!(get(running.edge(), "/two").send().status, 502);
    let (code, out, errors) = sluice(&[&["rollback"][..], &find].concat());
    assert_eq!(code, 0, "{out}{errors}");
    assert!(out.starts_with("rolled back to generation 1: generation 3 "), "{out}");
    assert!(!conf.join("services.d/two.toml").exists());
    assert_eq!(get(running.edge(), "/two").send().status, 404);
    assert_eq!(at(&running, &main, &["check", main.to_str().unwrap()]).0, 2, "check takes no such arguments");
    let (code, out, _) = at(&running, &main, &["rollback", "--list"]);
    assert!(code == 0 && out.contains("by rollback, as generation 1, in force\n"), "{out}");
    assert_eq!(out.lines().count(), 3, "{out}");
    let (code, out, _) = at(&running, &main, &["rollback", "--generation", "2", "--format", "json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()["restored"].as_u64()), (0, Some(2)));
    assert_eq!(at(&running, &main, &["rollback", "--generation", "99"]).0, 2);
    until("the fourth generation", || (generation(&running) == 4).then_some(()));

    let nowhere = ["--url", "http://127.0.0.1:1", "--data-dir", data_dir, "--conf", main.to_str().unwrap()];
    assert_eq!(sluice(&[&["reload"][..], &nowhere].concat()).0, 4);
    let strange = ["--url", running.control(), "--data-dir", dir.path().to_str().unwrap()];
    let (code, _, errors) = sluice(&[&["reload"][..], &strange].concat());
    assert!(code == 2 && errors.contains("--token"), "{code} {errors}");
    running.stop();
}

#[test]
fn the_tap_follows_until_it_is_interrupted() {
    let running = shared();
    let mut child = Command::new(binary())
        .args(["tap", "--format", "json", "--status", "404", "--url", running.control(), "--data-dir"])
        .arg(&running.data_dir)
        .current_dir(repository())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (give, take) = std::sync::mpsc::sync_channel(64);
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| give.send(line)));
    let line = until("a line of the tap", || {
        get(running.edge(), "/nowhere/at/all?password=CANARY").send().expect(404);
        take.try_iter().find(|line| line.contains("/nowhere/at/all"))
    });
    let shown: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(shown["path"], "/nowhere/at/all?password=***");
    assert_eq!((&shown["decision"], &shown["status"]), (&"no_route".into(), &404.into()));
    signal(child.id(), "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!is_alive(child.id()));
    assert_eq!(sluice(&["tap", "--status", "7xx"]).0, 2);
    assert_eq!(sluice(&["tap", "--url", "http://127.0.0.1:1"]).0, 4);
}

#[test]
fn requests_are_explained_from_the_files() {
    let (code, out, errors) = sluice(&["explain", "GET", "/api/data/BTC/USDT?limit=5", "--dev"]);
    assert_eq!(code, 0, "{out}{errors}");
    assert!(out.contains("data_service") && out.contains("conf/services.d/data_service.toml:"), "{out}");
    let (code, out, _) = sluice(&["explain", "GET", "/api/../..", "--dev", "--format", "json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["code"], &told["reason"]), (3, &"bad_path".into(), &"above_root".into()));
    assert_eq!(sluice(&["explain", "GET", "/", "-H", "no colon", "--dev"]).0, 2);
}

#[test]
fn checks_speak_to_programs_and_strict_counts_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let conf = folder(dir.path());
    std::fs::write(conf.join("services.d/a.toml"), "[[service]]\nname = \"a\"\nprefix = \"/a\"\n").unwrap();
    let main = conf.join("sluice.toml");
    let main = main.to_str().unwrap();
    let (code, out, _) = sluice(&["check", "--format", "json", "--dev", main]);
    let findings: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &findings[0]["severity"], &findings[0]["line"]), (0, &"warning".into(), &2.into()));
    assert_eq!(sluice(&["check", "--strict", "--dev", main]).0, 3);
    std::fs::write(conf.join("sluice.toml"), "[edge]\nlisten = 7\n[log]\nlevl = \"info\"\n").unwrap();
    let (code, out, _) = sluice(&["check", "--strict", "--format", "json", "--dev", main]);
    let findings: Value = serde_json::from_str(&out).unwrap();
    let errors = findings.as_array().unwrap().iter().filter(|one| one["severity"] == "error").count();
    assert_eq!((code, errors), (2, 2), "{findings}");
}

#[test]
fn every_value_shown_tells_its_origin() {
    let dir = tempfile::tempdir().unwrap();
    let conf = folder(dir.path());
    service(&conf, "one", "/one");
    std::fs::write(
        conf.join("sluice.toml"),
        "[log]\nsample = 0.5\n[otlp]\nendpoint = \"http://127.0.0.1:4318\"\n[edge]\nproxy_protocol = true\ntrusted_proxies = [\"10.0.0.0/8\"]\n",
    )
    .unwrap();
    let main = conf.join("sluice.toml");
    let output = Command::new(binary())
        .args(["config", "show", "--origin", "--dev", "--conf"])
        .arg(&main)
        .env("SLUICE__EDGE__THREADS", "2")
        .current_dir(repository())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    let values = shown.lines().filter(|line| line.contains(" = ") || line.contains(" is set"));
    for line in values {
        let (_, origin) = line.rsplit_once("  # ").unwrap_or_else(|| panic!("no origin: {line}"));
        let known = origin == "default"
            || origin.starts_with("env ")
            || origin.rsplit_once(':').is_some_and(|(_, number)| number.parse::<u32>().is_ok());
        assert!(known, "{line}");
    }
    for (key, origin) in [
        ("sample = 0.5", "sluice.toml:2"),
        ("endpoint = \"http://127.0.0.1:4318\"", "sluice.toml:4"),
        ("proxy_protocol = true", "sluice.toml:6"),
        ("threads = 2", "env SLUICE__EDGE__THREADS"),
        ("prefix = \"/one\"", "one.toml:3"),
    ] {
        let line =
            shown.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {shown}"));
        assert!(line.ends_with(origin), "{line}");
    }
}
