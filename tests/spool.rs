//! Redis is away, events wait in the worker, and the worker is killed.

use serde_json::{Value, json};

use crate::harness::http::{get, post};
use crate::harness::{Instance, Up, signal, until};
use crate::server::RedisServer;

fn event(n: usize) -> Value {
    json!({
        "event_type": "risk_alert", "event_id": format!("0192d3a0-0000-7000-8000-{n:012}"), "source": "desk",
        "data": {"n": n},
    })
}

/// Publishes an event until it is acknowledged; how durably.
fn published(running: &Instance, n: usize) -> String {
    until("an event is acknowledged", || {
        let mut connection = post(running.edge(), "/events").token(running.admin()).json(&event(n)).open();
        let answer = connection.answer()?;
        (answer.status == 200).then(|| answer.json()["durability"].as_str().unwrap().to_owned())
    })
}

#[test]
fn what_waits_for_redis_outlives_kill_9_in_order_and_under_its_ids() {
    let dir = tempfile::tempdir().unwrap();
    let mut redis = RedisServer::start();
    let conf = dir.path().join("sluice.toml");
    let text = format!("[redis]\nurl = \"{}\"\n[events]\non_redis_down = \"spool\"\n", redis.url());
    std::fs::write(&conf, text).unwrap();
    let running = Up::new(&dir.path().join("data")).conf(&conf).arg("--no-demo").start();
    assert_eq!(published(&running, 0), "aof_always");
    redis.kill();
    for n in 1..=300 {
        published(&running, n);
        if n % 100 == 0 {
            let before = running.role_pid("worker events").unwrap();
            signal(before, "KILL");
            until("another worker runs", || running.role_pid("worker events").filter(|pid| *pid != before));
        }
    }
    redis.again();
    let expected: Vec<Value> = (0..=300).map(event).collect();
    let list = until("everything is stored", || {
        let request = get(running.edge(), "/events?event_type=risk_alert&limit=1000");
        let answer = request.token(running.admin()).open().answer()?;
        (answer.status == 200).then(|| answer.json()).filter(|list| list["count"] == 301)
    });
    for (stored, expected) in list["events"].as_array().unwrap().iter().zip(&expected) {
        assert_eq!((&stored["event_id"], &stored["data"]), (&expected["event_id"], &expected["data"]));
    }
    // And what reads Redis streams finds the same.
    let entries = redis.ask("XLEN tradpal_events");
    assert!(entries.trim_start_matches(':').trim().parse::<usize>().unwrap() >= 301, "{entries}");
    running.stop();
}
