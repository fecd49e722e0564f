//! Breakers: how soon a service that healed is back, what its probes survive, and who is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_wire::role::Role;

use crate::harness::{Edge, Setup, Upstream, eventually, reply, service};

/// Time the breakers of these tests stay open, give or take a tenth.
const RECOVERY: Duration = Duration::from_secs(1);

fn more(rest: &str) -> String {
    format!(
        "auth_required = false\nrate_limit = 0\nretry = {{ attempts = 1 }}\noutlier = {{ consecutive = 1000000 }}\n\
         breaker = {{ failure_threshold = 3, recovery_timeout = \"1s\", {rest} }}"
    )
}

/// An upstream that fails while the switch is on.
fn failing(switch: &Arc<AtomicBool>) -> Upstream {
    let switch = Arc::clone(switch);
    Upstream::start(move |_, wire| {
        let status = if switch.load(Ordering::SeqCst) { "502 Bad Gateway" } else { "200 OK" };
        wire.write_all(reply(status, "x").as_bytes()).is_ok()
    })
}

fn shown(edge: &Edge) -> Value {
    edge.admin("GET", "/circuit-breakers/api", None, None).json()
}

fn alert(edge: &Edge) -> Option<Value> {
    let alerts = edge.admin("GET", "/alerts", None, None).json();
    alerts["alerts"].as_array().unwrap().iter().find(|alert| alert["service"] == "api").cloned()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    later.duration_since(earlier).try_into().unwrap()
}

fn published() -> impl Fn(&crate::harness::Seen, &mut dyn crate::harness::Wire) -> bool + Send + Sync {
    |_, wire| {
        let body = json!({"message_id": "1-0", "event_id": "018f3e5a-7c1e-7b5a-8c1e-7b5a8c1e7b5a",
            "status": "published", "durability": "fsync", "duplicate": false});
        wire.write_all(reply("201 Created", &body.to_string()).as_bytes()).is_ok()
    }
}

/// The states that the event stream was told of.
fn told(events: &Upstream) -> Vec<String> {
    let of = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["data"]["state"].clone();
    let posts = events.seen().into_iter().filter(|seen| seen.line().starts_with("POST /events "));
    posts.map(|seen| of(&seen.body).as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_service_that_healed_is_back_within_its_time_and_a_tenth() {
    let failing_now = Arc::new(AtomicBool::new(true));
    let upstream = failing(&failing_now);
    let mut setup = Setup::new("");
    let events = Upstream::start_unix(&setup.door(Role::Events), published());
    let text = service("api", "/api", &[upstream.url()], &more("success_threshold = 2, half_open_max = 1"));
    let edge = setup.service("api", &text).start();
    for _ in 0..3 {
        assert_eq!(edge.get("/api").status, 502);
    }
    let open = shown(&edge);
    assert_eq!(open["state"], "open");
    let (opened_at, retry_at) = (time(&open["opened_at"]), time(&open["retry_at"]));
    let wait = between(opened_at, retry_at);
    assert!(wait >= RECOVERY * 9 / 10 && wait <= RECOVERY * 11 / 10, "{wait:?}");
    let told_of = alert(&edge).unwrap();
    assert_eq!(
        (told_of["level"].as_str(), told_of["message"].as_str()),
        (Some("critical"), Some("breaker open"))
    );
    // Two readings of the clock lie between the two texts of one moment.
    let since = time(&told_of["since"]);
    assert!(between(opened_at.min(since), opened_at.max(since)) < Duration::from_millis(50), "{told_of}");
    failing_now.store(false, Ordering::SeqCst);
    // Nobody does anything but ask again.
    let (mut last_refused, mut good) = (Timestamp::now(), Vec::new());
    eventually("it is closed", || {
        let answer = edge.get("/api");
        match answer.status {
            503 => {
                assert!(good.is_empty(), "once it has probed it goes on");
                last_refused = Timestamp::now();
                assert_eq!(answer.code(), "breaker_open");
            }
            status => {
                assert_eq!(status, 200);
                good.push(Timestamp::now());
                if good.len() == 1 {
                    assert_eq!(alert(&edge).unwrap()["message"], "breaker half open: probing");
                }
            }
        }
        (shown(&edge)["state"] == "closed").then_some(())
    });
    assert_eq!((upstream.seen().len(), good.len()), (3 + 2, 2), "an open breaker touches no upstream");
    // The first request after its time was the first probe: no earlier one was let through, no later one refused.
    assert!(
        last_refused < retry_at + Duration::from_millis(100) && good[0] >= retry_at,
        "{last_refused} {good:?}"
    );
    assert!(alert(&edge).is_none());
    let metrics = edge.get("/metrics").text();
    assert!(metrics.contains("circuit_breaker_state{service=\"api\"} 0"), "{metrics}");
    for to in ["open", "half_open", "closed"] {
        let line = format!("circuit_breaker_transitions_total{{service=\"api\",to=\"{to}\"}} 1");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    let states = eventually("all of it was published", || Some(told(&events)).filter(|told| told.len() == 3));
    assert_eq!(states, ["open", "half_open", "closed"]);
}

#[test]
fn a_probe_whose_client_leaves_gives_its_place_to_the_next() {
    let mode = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start({
        let mode = Arc::clone(&mode);
        move |_, wire| match mode.load(Ordering::SeqCst) {
            0 => wire.write_all(reply("502 Bad Gateway", "x").as_bytes()).is_ok(),
            1 => {
                let _until_it_leaves = wire.read(&mut [0; 1]);
                false
            }
            _ => wire.write_all(reply("200 OK", "x").as_bytes()).is_ok(),
        }
    });
    let text = service("api", "/api", &[upstream.url()], &more("success_threshold = 1, half_open_max = 1"));
    let edge = Setup::new("").service("api", &text).start();
    for _ in 0..3 {
        assert_eq!(edge.get("/api").status, 502);
    }
    mode.store(1, Ordering::SeqCst);
    let probe = eventually("a probe is let through", || {
        let mut client = edge.connect();
        client.send("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
        let until = Instant::now() + Duration::from_millis(20);
        client.socket.set_nonblocking(true).unwrap();
        while Instant::now() < until && upstream.seen().len() == 3 {
            std::thread::yield_now();
        }
        (upstream.seen().len() == 4).then_some(client)
    });
    assert_eq!(shown(&edge)["state"], "half_open");
    let refused = edge.get("/api");
    assert_eq!((refused.status, refused.code().as_str()), (503, "breaker_open"), "its place is taken");
    mode.store(2, Ordering::SeqCst);
    drop(probe);
    eventually("the next one probes", || Some(edge.get("/api")).filter(|answer| answer.status == 200));
    let shown = shown(&edge);
    assert_eq!((&shown["state"], &shown["metrics"]["total_failures"]), (&json!("closed"), &json!(3)));
}

#[test]
fn a_result_of_before_changes_nothing_any_more() {
    let (held, arrived) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let upstream = Upstream::start({
        let (held, arrived) = (Arc::clone(&held), Arc::clone(&arrived));
        move |seen, wire| {
            if seen.line().contains("/slow") {
                arrived.fetch_add(1, Ordering::SeqCst);
                eventually("it is let go", || (!held.load(Ordering::SeqCst)).then_some(()));
                return wire.write_all(reply("200 OK", "late").as_bytes()).is_ok();
            }
            wire.write_all(reply("502 Bad Gateway", "x").as_bytes()).is_ok()
        }
    });
    let text = service("api", "/api", &[upstream.url()], &more("success_threshold = 1, half_open_max = 1"));
    let edge = Setup::new("").service("api", &text).start();
    let mut slow = edge.connect();
    slow.send("GET /api/slow HTTP/1.1\r\nHost: edge\r\n\r\n");
    eventually("it waits upstream", || (arrived.load(Ordering::SeqCst) == 1).then_some(()));
    for _ in 0..3 {
        assert_eq!(edge.get("/api").status, 502);
    }
    assert_eq!(shown(&edge)["state"], "open");
    held.store(false, Ordering::SeqCst);
    assert_eq!(slow.reply().text(), "late");
    let after = shown(&edge);
    assert_eq!((&after["state"], &after["metrics"]["total_successes"]), (&json!("open"), &json!(1)));
}
