//! What operators see: metrics, logs, files.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::http::get;
use crate::harness::{Up, repository, shared};

#[test]
fn promtool_accepts_every_exposition() {
    let running = shared();
    for base in [running.edge(), running.control(), running.events(), running.vault(), running.calc()] {
        let text = get(base, "/metrics").send().expect(200).body;
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{base}: {said}");
    }
}

#[test]
fn logs_are_json_lines_without_secrets() {
    let running = shared();
    get(running.edge(), "/api/data/symbols").token(running.admin()).send().expect(200);
    let log = std::fs::read_to_string(running.data_dir.with_extension("log")).unwrap();
    let signature = running.admin().rsplit_once('.').unwrap().1;
    assert!(!log.contains(signature) && !log.contains("PRIVATE KEY"), "a secret is in the log");
    let lines: Vec<Value> = log
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(!lines.is_empty());
    for line in lines {
        for member in ["timestamp", "level", "service", "component", "message"] {
            assert!(line[member].is_string(), "{member} is missing in {line}");
        }
    }
}

#[test]
fn the_data_directory_is_private() {
    let running = shared();
    let mode =
        |path: &str| std::fs::metadata(running.data_dir.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("."), 0o700);
    assert_eq!(mode("token"), 0o600);
    for socket in ["run/vault.sock", "run/events.sock", "run/calc.sock"] {
        if running.data_dir.join(socket).exists() {
            assert_eq!(mode(socket), 0o600, "{socket}");
        }
    }
}

#[test]
fn secrets_travel_by_pipe_and_are_found_nowhere() {
    const CANARY: &str = "canary-0123456789-0123456789-0123456789";
    let dir = tempfile::tempdir().unwrap();
    let running = Up::new(&dir.path().join("data")).arg("--no-demo").env("JWT_SECRET_KEY", CANARY).start();
    for (role, pid) in running.banner["pids"].as_object().unwrap() {
        for file in ["environ", "cmdline"] {
            let bytes = match std::fs::read(format!("/proc/{pid}/{file}")) {
                // The vault's are root's alone to read.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    assert_eq!(role, "vault", "{error}");
                    continue;
                }
                bytes => bytes.unwrap(),
            };
            assert!(!String::from_utf8_lossy(&bytes).contains(CANARY), "{role} shows the secret in {file}");
        }
    }
    let metrics = get(running.edge(), "/metrics").send().expect(200).body;
    let config = get(running.control(), "/admin/config").token(running.admin()).send().expect(200).body;
    let log = std::fs::read_to_string(dir.path().join("data.log")).unwrap();
    assert!(![metrics, config, log].iter().any(|text| text.contains(CANARY)));
    running.stop();
}

#[test]
fn the_project_speaks_of_itself_alone() {
    let output = Command::new("git").args(["ls-files"]).current_dir(repository()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(listed.lines().count() > 100, "{listed}");
    for file in
        listed.lines().filter(|file| !file.starts_with("conf/demo/LICENSE") && *file != "tests/observe.rs")
    {
        let Ok(text) = std::fs::read_to_string(repository().join(file)) else { continue };
        for word in [concat!("TO", "DO"), concat!("FIX", "ME")] {
            assert!(!text.contains(word), "{file} has a {word}");
        }
    }
}
