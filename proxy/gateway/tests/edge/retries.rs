//! Tries after the first: when there is none.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Upstream, edge_for, eventually};

#[test]
fn a_retry_does_not_knock_at_a_breaker_that_has_opened_since() {
    let busy = Upstream::start(|_, wire| {
        let head = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy";
        wire.write_all(head.as_bytes()).is_ok()
    });
    let edge = edge_for(&busy, "retry = { attempts = 3, min_per_second = 10 }");
    let answer = std::thread::scope(|scope| {
        let waits = scope.spawn(|| edge.get("/api"));
        eventually("the first try", || (busy.seen().len() == 1).then_some(()));
        let force = json!({"state": "open", "reason": "the first try failed"});
        let token = edge.issuer.token("control:write");
        assert_eq!(edge.admin("POST", "/circuit-breakers/api/force", Some(&token), Some(&force)).status, 200);
        waits.join().unwrap()
    });
    assert_eq!((answer.status, answer.code().as_str()), (503, "breaker_open"));
    assert_eq!(busy.seen().len(), 1, "an open breaker touches no upstream");
}

#[test]
fn no_retry_is_waited_for_that_could_get_no_answer() {
    let silent = Upstream::start(|_, _| {
        std::thread::sleep(Duration::from_secs(2));
        false
    });
    let times = "timeouts = { connect = \"100ms\", first_byte = \"300ms\", total = \"9s\" }";
    let edge = edge_for(&silent, &format!("{times}\nretry = {{ attempts = 3, min_per_second = 10 }}"));
    assert_eq!(edge.get("/api").status, 504);
    let metrics = edge.get("/metrics").text();
    let retried = "sluice_edge_retries_total{reason=\"timeout\",service=\"api\"}";
    let count = metrics.lines().find_map(|line| line.strip_prefix(retried)).unwrap_or("0").trim();
    assert_eq!(count, "0", "the first byte is due once, however often it is tried: {metrics}");
}
