//! `sluice-bench load` as a user runs it: against a server that somebody else started.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its stage has failed")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_sluice-bench");

/// The bench's own origin, as any server; ends with its standard input.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start() -> Self {
        let mut child = Command::new(BENCH)
            .args(["origin", "--bytes", "64"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap();
        Self { url: format!("http://{address}/"), child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed by the test.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn load(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(BENCH);
    command.arg("load").args(words).args(["--seconds", "0.4", "--warmup-seconds", "0.05", "-c", "4"]);
    command.args(["--send-lag-max", "60000"]).arg("--out").arg(dir).stdin(Stdio::null());
    command.output().unwrap()
}

fn report(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("load.json")).unwrap()).unwrap()
}

#[test]
fn servers_are_measured_at_rates_in_the_closed_loop_and_up_to_the_knee() {
    let (one, two, dir) = (Server::start(), Server::start(), tempfile::tempdir().unwrap());
    let (first, second) = (format!("one={}", one.url), format!("two={}", two.url));
    let (pid, other) = (one.child.id().to_string(), two.child.id().to_string());
    let output = load(
        dir.path(),
        &[
            &first,
            &second,
            "--rate",
            "100",
            "--closed",
            "--repeats",
            "3",
            "--sweep",
            "100..200",
            "--sweep-steps",
            "2",
            "--sweep-p99-max",
            "60000",
            "--expect-bytes",
            "64",
            "--pid",
            &pid,
            "--pid",
            &other,
        ],
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report = report(dir.path());
    let cells = report["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 4);
    assert!(
        cells.iter().all(|cell| cell["failed"] == 0 && cell["rss_bytes"]["median"].as_f64().unwrap() > 0.0)
    );
    assert!(
        cells[0]["over_time"].as_array().unwrap().iter().any(|moment| moment["per_s"].as_f64() > Some(0.0))
    );
    assert_eq!(report["sweeps"][1]["knee_per_s"]["median"], 200.0);
    assert!(
        std::fs::read_to_string(dir.path().join("load.html")).unwrap().contains("99th percentile by rate")
    );
}

#[test]
fn a_server_that_dies_is_told_by_kind_and_fails_nothing_that_was_asked_for() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let death = format!("0.2 kill -9 {}", server.child.id());
    let output = load(dir.path(), &[&server.url, "--rate", "200", "--at", &death]);
    assert_eq!(output.status.code(), Some(3), "it does not keep the rate");
    let failures = &report(dir.path())["cells"][0]["failures"];
    assert!(failures["refused"].as_u64() > Some(10), "{failures}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains(" refused") && told.contains("kill -9"), "{told}");
}

#[test]
fn wrong_answers_end_with_3_and_wrong_words_with_2() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let output = load(dir.path(), &[&server.url, "--rate", "100", "--status", "404"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(report(dir.path())["cells"][0]["failures"]["status"]["200"].as_u64() > Some(10));
    for (words, expected) in [
        (&["ftp://127.0.0.1/"][..], "http://"),
        (&[&server.url, "--ca", "/no/such/file"], ""),
        (&["https://127.0.0.1:1/", "--ca", "/no/such/file"], "/no/such/file"),
        (&[&server.url, "--sweep", "5..6"], "goes up"),
        (&[&server.url, "--pid", "1", "--pid", "2"], "--pid"),
    ] {
        let output = load(dir.path(), words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = if expected.is_empty() { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(expected), "{words:?}: {said}");
    }
}
