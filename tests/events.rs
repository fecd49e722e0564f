//! `sluice events` against a running worker.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::http::{get, post};
use crate::harness::{Instance, Up, binary, is_alive, repository, shared, signal, sluice, until};

/// The command with what finds the worker: the address that it noted below its data directory.
fn command(running: &Instance, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("events").args(arguments).arg("--data-dir").arg(&running.data_dir).current_dir(repository());
    command
}

fn run(running: &Instance, arguments: &[&str]) -> (i32, String, String) {
    fed(running, arguments, "")
}

/// Runs it with a standard input.
fn fed(running: &Instance, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = command(running, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    // A command that was refused reads nothing.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn json_of(shown: &(i32, String, String), code: i32) -> Value {
    assert_eq!(shown.0, code, "{shown:?}");
    serde_json::from_str(&shown.1).unwrap_or_else(|error| panic!("{error}: {shown:?}"))
}

/// Events of a type, a line each, a second of market time apart.
fn lines(kind: &str, count: u32) -> String {
    let event = |n: u32| {
        let symbol = ["BTC/USDT", "ETH/USDT"][n as usize % 2];
        let data = json!({"symbol": symbol, "n": n});
        let time = format!("2026-11-21T{:02}:{:02}:{:02}Z", n / 3_600, n / 60 % 60, n % 60);
        json!({"event_type": kind, "timestamp": time, "source": "cli_test", "data": data}).to_string() + "\n"
    };
    (0..count).map(event).collect()
}

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Stored events of a type, as the worker counts them.
fn stored(running: &Instance, kind: &str) -> u64 {
    let stats = get(running.events(), "/events/stats").token(running.admin()).send().expect(200).json();
    stats["types"][kind].as_u64().unwrap_or_default()
}

fn numbers(text: &str) -> Vec<u64> {
    let number = |line: &str| serde_json::from_str::<Value>(line).unwrap()["data"]["n"].as_u64().unwrap();
    text.lines().map(number).collect()
}

#[test]
fn files_are_published_and_a_repeat_stores_nothing_twice() {
    let (running, dir) = (shared(), tempfile::tempdir().unwrap());
    let path = file(dir.path(), "many.ndjson", &lines("cli_many", 2_500));
    let publish = ["publish", path.to_str().unwrap(), "--key", "cli-many", "--format", "json"];
    let done = json_of(&run(running, &publish), 0);
    assert_eq!(
        (&done["published"], &done["failed"], &done["complete"]),
        (&json!(2_500), &json!(0), &json!(true))
    );
    assert_eq!(done["durability"], "fsync");
    assert_eq!(done["next"], 2_500);
    let again = json_of(&run(running, &publish), 0);
    assert_eq!((&again["published"], &again["duplicates"]), (&json!(0), &json!(2_500)));
    let rest = json_of(&run(running, &[&publish[..], &["--skip", "2400", "--batch", "7"]].concat()), 0);
    assert_eq!(
        (&rest["duplicates"], &rest["next"]),
        (&json!(100), &json!(2_500)),
        "the place gives the same ids"
    );
    assert_eq!(stored(running, "cli_many"), 2_500);
    let (code, out, errors) = run(running, &["publish", path.to_str().unwrap(), "--quiet", "--skip", "2499"]);
    assert_eq!((code, out.as_str(), errors.as_str()), (0, "", ""));
    assert_eq!(stored(running, "cli_many"), 2_501, "without a key an event is a new one");
}

#[test]
fn every_form_is_read_and_what_is_refused_is_named() {
    let running = shared();
    let one = "{\n \"event_type\": \"cli_forms\",\n \"data\": {\"text\": \"}\"}\n}";
    let (code, out, errors) = fed(running, &["publish"], one);
    assert!(code == 0 && out.starts_with("published 1 event (fsync) in "), "{out}{errors}");
    let list = format!("[{one}, {one},\n{{\"event_type\": \"kill_switch\"}}]");
    let shown = fed(running, &["publish", "-", "--format", "json"], &list);
    let done = json_of(&shown, 3);
    assert_eq!((&done["published"], &done["failed"]), (&json!(2), &json!(1)));
    assert_eq!(
        (&done["failures"][0]["line"], &done["failures"][0]["code"]),
        (&json!(8), &json!("reserved_type"))
    );
    assert!(shown.2.starts_with("line 8: reserved_type at /event_type: "), "{}", shown.2);
    let mixed =
        "{\"event_type\":\"cli_forms\"}\nno json\n\n{\"event_type\":\"cli_forms\"}\n{\"event_type\":7}\n";
    let shown = fed(running, &["publish"], mixed);
    assert_eq!(shown.0, 3, "{shown:?}");
    assert!(shown.1.contains("published 2 events") && shown.1.contains("; 2 refused"), "{shown:?}");
    assert!(
        shown.2.contains("line 2: invalid_json: ") && shown.2.contains("line 5: invalid_event"),
        "{shown:?}"
    );
    assert_eq!(stored(running, "cli_forms"), 5);
    // All or nothing.
    let (code, _, errors) = fed(running, &["publish", "--atomic"], mixed);
    assert!(code == 2 && errors.contains("nothing was published"), "{errors}");
    let (code, _, errors) = fed(running, &["publish", "--atomic", "--batch", "2"], &lines("cli_forms", 3));
    assert!(code == 2 && errors.contains("at most 2 events"), "{errors}");
    let broken = "{\"event_type\":\"cli_forms\"}\n{\"event_type\":\"security_alert\"}\n";
    assert_eq!(fed(running, &["publish", "--atomic"], broken).0, 2);
    assert_eq!(stored(running, "cli_forms"), 5);
    // An input that ends in the middle is told after what stood before it.
    let (code, out, errors) = fed(running, &["publish"], &format!("[{one},{one},{{"));
    assert!(code == 1 && out.contains("published 2 events"), "{out}{errors}");
    assert!(errors.contains("the input ends in the middle") && errors.contains("--skip 2"), "{errors}");
}

#[test]
fn who_cannot_is_told_why() {
    let (running, dir) = (shared(), tempfile::tempdir().unwrap());
    let empty = dir.path().to_str().unwrap();
    let (code, _, errors) = sluice(&["events", "replay", "--url", running.events(), "--data-dir", empty]);
    assert!(code == 2 && errors.contains("--token"), "{code} {errors}");
    for command in [&["tail"][..], &["replay"], &["publish", "README.md"]] {
        let nowhere = ["--url", "http://127.0.0.1:1", "--data-dir", empty];
        let (code, _, errors) = sluice(&[&["events"][..], command, &nowhere].concat());
        // The text of a README is no event, whoever is there.
        assert_eq!(code, if command.len() == 2 { 1 } else { 4 }, "{command:?}: {errors}");
    }
    assert_eq!(run(running, &["publish", "no/such/file"]).0, 2);
    assert_eq!(run(running, &["publish", "--batch", "0"]).0, 2);
    assert_eq!(run(running, &["tail", "--from", "nonsense"]).0, 2);
    assert_eq!(run(running, &["replay", "--speed", "0"]).0, 2);
    assert_eq!(run(running, &["replay", "--into", "stream:x", "--count"]).0, 2);
    let narrow = running.token("reader", &["events:read:cli_narrow"]);
    let (code, _, errors) = fed(running, &["publish", "--token", &narrow], &lines("cli_narrow", 1));
    assert!(code == 3 && errors.contains("insufficient_scope"), "{code} {errors}");
}

/// A tail whose lines are read one by one.
struct Tail {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Tail {
    fn new(running: &Instance, arguments: &[&str]) -> Self {
        let mut command = command(running, &[&["tail", "--format", "json"], arguments].concat());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.out.read_line(&mut line).unwrap() > 0, "the tail has ended");
        serde_json::from_str(&line).unwrap()
    }

    fn ends(mut self) -> Option<i32> {
        until("the tail ends", || self.child.try_wait().unwrap()).code()
    }
}

#[test]
fn the_stream_is_followed_by_filter_and_ends_cleanly() {
    let running = shared();
    assert_eq!(fed(running, &["publish", "--quiet"], &lines("cli_tail", 10)).0, 0);
    let filter = ["--type", "cli_tail", "--symbol", "BTC/USDT", "--source", "cli_test", "--from", "earliest"];
    let (code, out, errors) =
        run(running, &[&["tail", "--count", "5", "--format", "json"], &filter[..]].concat());
    assert_eq!((code, numbers(&out)), (0, vec![0, 2, 4, 6, 8]), "{errors}");
    let (code, out, _) = run(running, &[&["tail", "--count", "1"], &filter[..]].concat());
    assert!(
        code == 0 && out.contains(" cli_tail               BTC/USDT     cli_test       {\"n\":0}\n"),
        "{out}"
    );

    let mut tail = Tail::new(running, &filter);
    let first = tail.next();
    assert_eq!(first["data"]["n"], 0);
    signal(tail.child.id(), "INT");
    let pid = tail.child.id();
    assert_eq!(tail.ends(), Some(130));
    assert!(!is_alive(pid));

    // Behind an id, then nobody reads any more while nothing comes.
    let mut tail =
        Tail::new(running, &["--type", "cli_tail", "--from", first["message_id"].as_str().unwrap()]);
    for n in 1..10 {
        assert_eq!(tail.next()["data"]["n"], n);
    }
    let Tail { child, out } = tail;
    drop(out);
    let mut child = child;
    assert_eq!(until("the unread tail ends", || child.try_wait().unwrap()).code(), Some(0));
}

#[test]
fn stored_events_are_replayed_at_once_by_time_and_into_a_stream() {
    let running = shared();
    assert_eq!(fed(running, &["publish", "--quiet"], &lines("cli_replay", 3_000)).0, 0);
    let of = |more: &[&str]| run(running, &[&["replay", "--type", "cli_replay"], more].concat());
    let (code, out, errors) = of(&["--format", "json"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_eq!(numbers(&out), (0..3_000).collect::<Vec<u64>>());
    assert!(out.lines().all(|line| line.contains("\"replay\":true")));
    let window = ["--start", "2026-11-21T00:00:10Z", "--end", "2026-11-21T00:00:19Z"];
    let (code, out, errors) = of(&[&["--symbol", "ETH/USDT"], &window[..]].concat());
    assert_eq!((code, out.lines().count()), (0, 5), "{out}");
    assert!(errors.starts_with("replayed 5 events in "), "{errors}");
    assert_eq!(of(&["--count"]).1, "3,000 events\n");

    // Nine seconds of market time at thirty times its speed.
    let begun = Instant::now();
    let (code, out, _) = of(&[&["--speed", "30", "--format", "json"], &window[..]].concat());
    assert_eq!((code, numbers(&out)), (0, (10..20).collect::<Vec<u64>>()));
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());

    let into = ["--into", "stream:cli_copy", "--format", "json"];
    let done = json_of(&of(&into), 0);
    assert_eq!((&done["events_replayed"], &done["duplicates"]), (&json!(3_000), &json!(0)));
    assert_eq!(json_of(&of(&into), 0)["duplicates"], 3_000);
    let (code, out, _) = of(&["--into", "stream:cli_copy"]);
    assert!(code == 0 && out.starts_with("stored 3,000 events in stream:cli_copy in "), "{out}");
    assert!(out.ends_with("; 3,000 were there\n"), "{out}");
    // Sessions are given back.
    until("no session is left", || {
        let metrics = get(running.events(), "/metrics").send().expect(200).body;
        metrics.contains("sluice_events_replay_sessions 0").then_some(())
    });
}

#[test]
fn a_worker_that_dies_costs_no_event_and_no_order() {
    let dir = tempfile::tempdir().unwrap();
    let running = Up::new(&dir.path().join("data")).arg("--no-demo").start();
    let mut tail = Tail::new(&running, &["--type", "cli_order", "--from", "earliest"]);
    let count: u32 = 20_000;
    let path = file(dir.path(), "order.ndjson", &lines("cli_order", count));
    let mut command =
        command(&running, &["publish", path.to_str().unwrap(), "--batch", "50", "--format", "json"]);
    let publish = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(tail.next()["data"]["n"], 0, "it is under way");
    let worker = running.role_pid("worker events").unwrap();
    signal(worker, "KILL");
    let output = publish.wait_with_output().unwrap();
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{done} {}", String::from_utf8_lossy(&output.stderr));
    let figure = |name: &str| done[name].as_u64().unwrap();
    // A batch that was stored unheard is told as stored before.
    assert_eq!(
        (figure("published") + figure("duplicates"), figure("failed")),
        (u64::from(count), 0),
        "{done}"
    );
    for n in 1..count {
        assert_eq!(tail.next()["data"]["n"], n);
    }
    assert_ne!(running.role_pid("worker events"), Some(worker));
    assert_eq!(stored(&running, "cli_order"), u64::from(count));
    post(running.events(), "/events")
        .token(running.admin())
        .json(&json!({"event_type": "cli_order", "data": {"n": count}}))
        .send()
        .expect(200);
    assert_eq!(tail.next()["data"]["n"], count);
    signal(tail.child.id(), "INT");
    assert_eq!(tail.ends(), Some(130));
    running.stop();
}
