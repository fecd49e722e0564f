//! The kill switch in the running system: the command, a killed edge, a handover, a disk that is full.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::http::{get, post};
use crate::harness::{Instance, Up, binary, is_alive, signal, sluice, until};
use crate::server::RedisServer;

/// An upstream that answers everything.
fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                while stream.read(&mut head).is_ok_and(|bytes| bytes > 0) {
                    drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
                }
            });
        }
    });
    url
}

/// A configuration with one service of orders.
fn conf(dir: &Path) -> PathBuf {
    let conf = dir.join("sluice.toml");
    let service = format!(
        "[[service]]\nname = \"orders\"\nprefix = \"/orders\"\nauth_required = false\nlane = \"order\"\n\
         [[service.instance]]\nurl = \"{}\"\n",
        upstream()
    );
    std::fs::write(&conf, service).unwrap();
    conf
}

fn at(running: &Instance, arguments: &[&str]) -> (i32, String, String) {
    let found = ["--url", running.control(), "--data-dir", running.data_dir.to_str().unwrap()];
    sluice(&[arguments, &found].concat())
}

fn order(running: &Instance) -> u16 {
    post(running.edge(), "/orders").send().status
}

#[test]
fn what_is_stopped_stays_so_over_kill_9_and_a_handover() {
    let dir = tempfile::tempdir().unwrap();
    let running = Up::new(&dir.path().join("data")).conf(&conf(dir.path())).arg("--no-demo").start();
    assert_eq!(order(&running), 200);
    let on = ["kill-switch", "on", "--service", "orders", "--reason", "flash crash"];
    let (code, out, errors) = at(&running, &on);
    assert_eq!((code, out.as_str(), errors.as_str()), (0, "service orders is stopped; cancels pass\n", ""));
    post(running.edge(), "/orders").send().problem(503, "kill_switch");
    let (code, out, _) = at(&running, &["kill-switch", "status", "--format", "json"]);
    let list: Value = serde_json::from_str(&out).unwrap();
    let switch = &list["switches"][0];
    assert_eq!((code, &list["following"]), (0, &true.into()), "{list}");
    assert_eq!((&switch["persisted"], &switch["broadcast"]), (&true.into(), &"delivered".into()), "{list}");
    let told = get(running.edge(), "/events?event_type=kill_switch")
        .token(running.admin())
        .send()
        .expect(200)
        .json();
    let event = &told["events"][0];
    assert_eq!(
        (&event["metadata"]["role"], &event["data"]["target"]),
        (&"edge".into(), &"orders".into()),
        "{told}"
    );

    let edge = running.role_pid("proxy").unwrap();
    signal(edge, "KILL");
    // The first that is answered is refused already.
    let first = until("the edge answers again", || (!is_alive(edge)).then(|| order(&running)));
    assert_eq!(first, 503);

    let data_dir = running.data_dir.to_str().unwrap().to_owned();
    let upgrading = std::thread::spawn(move || sluice(&["upgrade", "edge", "--data-dir", &data_dir]));
    while !upgrading.is_finished() {
        assert_eq!(order(&running), 503);
    }
    let (code, out, errors) = upgrading.join().unwrap();
    assert_eq!(code, 0, "{out}{errors}");
    assert_eq!(order(&running), 503);

    let (code, _, errors) =
        at(&running, &["kill-switch", "off", "--all", "--service", "orders", "--reason", "r"]);
    assert!(code == 2 && errors.contains("cannot be used with"), "{errors}");
    let off = ["kill-switch", "off", "--service", "orders", "--reason", "over"];
    let (code, out, errors) = at(&running, &off);
    assert_eq!((code, out.as_str()), (0, "service orders goes on\n"), "{errors}");
    assert_eq!(at(&running, &off).1, "service orders was not stopped\n");
    assert_eq!(order(&running), 200);
    assert_eq!(at(&running, &["kill-switch", "status"]).1, "nothing is stopped\n");
    let strange =
        ["kill-switch", "on", "--all", "--reason", "r", "--url", running.control(), "--data-dir", "/nowhere"];
    assert_eq!(sluice(&strange).0, 2, "without a token");
    assert_eq!(sluice(&["kill-switch", "status", "--url", "http://127.0.0.1:1"]).0, 4);
    let (code, out, _) = sluice(&["audit", "verify", "--data-dir", running.data_dir.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}");
    running.stop();
}

/// Sets how large the files may become that a process writes.
fn limit_files(pid: u32, bytes: &str) {
    let done =
        Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--fsize={bytes}:")]).status();
    assert!(done.unwrap().success());
}

#[test]
fn a_full_disk_stops_nobody_from_stopping() {
    let dir = tempfile::tempdir().unwrap();
    // A write beyond the limit is to fail as on a full disk, and not to end the process.
    let program = dir.path().join("sluice");
    std::fs::write(&program, format!("#!/bin/sh\ntrap '' XFSZ\nexec '{}' \"$@\"\n", binary().display()))
        .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let running =
        Up::new(&dir.path().join("data")).conf(&conf(dir.path())).program(&program).arg("--no-demo").start();
    let edge = running.role_pid("proxy").unwrap();
    limit_files(edge, "1");
    let (code, out, errors) =
        at(&running, &["kill-switch", "on", "--all", "--reason", "disk full", "--format", "json"]);
    let done: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &done["on"], &done["persisted"]), (0, &true.into(), &false.into()), "{done}{errors}");
    assert!(errors.contains("not on the disk yet"), "{errors}");
    post(running.edge(), "/orders").send().problem(503, "kill_switch");
    let off = ["kill-switch", "off", "--all", "--reason", "over"];
    let (code, _, errors) = at(&running, &off);
    assert!(code == 1 && errors.contains("audit_unavailable"), "{code} {errors}");
    assert_eq!(order(&running), 503);
    // There is room again: what was done is written by itself.
    limit_files(edge, "unlimited");
    until("it is on the disk", || {
        let (_, out, _) = at(&running, &["kill-switch", "status", "--format", "json"]);
        let list: Value = serde_json::from_str(&out).unwrap();
        (list["switches"][0]["persisted"] == true).then_some(())
    });
    signal(edge, "KILL");
    let first = until("the edge answers again", || (!is_alive(edge)).then(|| order(&running)));
    assert_eq!(first, 503);
    until("off", || (at(&running, &off).0 == 0).then_some(()));
    assert_eq!(order(&running), 200);
    let log = std::fs::read_to_string(running.data_dir.join("audit/edge.jsonl")).unwrap();
    assert!(log.contains("kill_switch_on") && log.contains("disk full"), "{log}");
    let (code, out, _) = sluice(&["audit", "verify", "--data-dir", running.data_dir.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}");
    running.stop();
}

/// Two systems that share a Redis and a key, as on two machines; both follow the stream.
fn two_systems(dir: &Path, redis: &RedisServer) -> [Instance; 2] {
    let conf = conf(dir);
    std::fs::write(dir.join("edges.key"), "what two edges share, and nobody else\n").unwrap();
    let shared = format!("[redis]\nurl = \"{}\"\n[kill_switch]\nsecret = \"file:edges.key\"\n", redis.url());
    std::fs::write(&conf, std::fs::read_to_string(&conf).unwrap() + &shared).unwrap();
    let systems = ["one", "other"].map(|name| Up::new(&dir.join(name)).conf(&conf).arg("--no-demo").start());
    for running in &systems {
        until("it follows the stream", || {
            let told = at(running, &["kill-switch", "status", "--format", "json"]).1;
            let status: Value = serde_json::from_str(&told).unwrap();
            (status["following"] == true).then_some(())
        });
        assert_eq!(order(running), 200);
    }
    systems
}

#[test]
fn what_one_system_stops_stops_in_the_other_over_redis() {
    let (dir, redis) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let systems = two_systems(dir.path(), &redis);
    let [one, other] = &systems;
    for (who, whom, change, answer) in [(one, other, "on", 503), (other, one, "off", 200)] {
        let (code, out, errors) =
            at(who, &["kill-switch", change, "--service", "orders", "--reason", "crash"]);
        let begun = Instant::now();
        assert_eq!((code, errors.as_str()), (0, ""), "{out}");
        until("the other system hears of it", || (order(whom) == answer).then_some(()));
        eprintln!("{change}: heard {:?} after it was answered", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(1), "{change}: {:?}", begun.elapsed());
        assert_eq!(order(who), answer);
    }
    for running in systems {
        running.stop();
    }
}

/// The answer of `redis-cli` to a command, one word a line.
fn redis_cli(redis: &RedisServer, words: &[&str]) -> Vec<String> {
    let port = redis.port.to_string();
    let output = Command::new("redis-cli").args(["-p", &port]).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Puts an event into the stream as the worker would, past the worker: a copy of the newest switch, with other data.
fn forge(redis: &RedisServer, event_id: &str, change: impl FnOnce(&mut Value)) {
    const STREAM: &str = "tradpal_events";
    let newest = redis_cli(redis, &["XREVRANGE", STREAM, "+", "-", "COUNT", "100"]);
    // An id and eight fields each.
    let mut entries = newest.chunks_exact(17);
    let is_switch = |entry: &&[String]| entry.windows(2).any(|pair| pair == ["type", "kill_switch"]);
    let mut fields = entries.find(is_switch).expect("a switch in the stream")[1..].to_vec();
    let seq = redis_cli(redis, &["HGET", "{tradpal_events}:meta", "seq"])[0].parse::<u64>().unwrap() + 1;
    for pair in fields.chunks_exact_mut(2) {
        match pair[0].as_str() {
            "seq" => pair[1] = seq.to_string(),
            "event_id" => event_id.clone_into(&mut pair[1]),
            _ => {}
        }
    }
    let event = fields.iter().position(|name| name == "event").unwrap() + 1;
    let mut forged: Value = serde_json::from_str(&fields[event]).unwrap();
    change(&mut forged["data"]);
    fields[event] = forged.to_string();
    let words: Vec<&str> =
        ["XADD", STREAM, "*"].into_iter().chain(fields.iter().map(String::as_str)).collect();
    let id = redis_cli(redis, &words)[0].clone();
    redis_cli(redis, &["HSET", "{tradpal_events}:meta", "seq", &seq.to_string(), "id", &id]);
}

#[test]
fn a_switch_that_no_edge_made_is_obeyed_by_neither_over_redis() {
    let (dir, redis) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let systems = two_systems(dir.path(), &redis);
    let [one, other] = &systems;
    // What is copied: an OFF that every edge believes.
    for change in ["on", "off"] {
        assert_eq!(at(one, &["kill-switch", change, "--service", "orders", "--reason", "drill"]).0, 0);
    }
    until("the other system goes on", || (order(other) == 200).then_some(()));
    let refused = |running: &Instance, reason: &str| -> f64 {
        let text = get(running.edge(), "/metrics").send().expect(200).body;
        let name = format!("sluice_kill_switch_events_ignored_total{{reason=\"{reason}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0.0, |count| count.parse().unwrap())
    };
    let stop = |data: &mut Value| {
        (data["on"], data["epoch"]) = (true.into(), (data["epoch"].as_u64().unwrap() + 1_000).into());
    };
    forge(&redis, "000000000000000000000000000000a1", |data| {
        stop(data);
        data.as_object_mut().unwrap().remove("mac");
    });
    // A seal of the right form, of no key.
    forge(&redis, "000000000000000000000000000000a2", |data| {
        stop(data);
        data["mac"] = "ab".repeat(32).into();
    });
    for running in &systems {
        until("both were heard", || {
            (refused(running, "unsigned") == 1.0 && refused(running, "signature") == 1.0).then_some(())
        });
        assert_eq!(order(running), 200);
        let (_, told, _) = at(running, &["kill-switch", "status", "--format", "json"]);
        assert!(!told.contains("\"on\":true"), "{told}");
    }
    // Those of an edge still count, in both directions.
    for (who, whom) in [(one, other), (other, one)] {
        for (change, answer) in [("on", 503), ("off", 200)] {
            assert_eq!(at(who, &["kill-switch", change, "--service", "orders", "--reason", "crash"]).0, 0);
            until("the other system hears of it", || (order(whom) == answer).then_some(()));
        }
    }
    for running in systems {
        running.stop();
    }
}
