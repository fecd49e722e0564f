//! Clients that take their time.

use std::io::Read as _;
use std::time::{Duration, Instant};

use crate::harness::{Upstream, edge_for, eventually};

const BODY: usize = 64 << 20;

/// Far more than the kernel's buffers hold.
fn endless() -> Upstream {
    Upstream::start(|_, wire| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
        let piece = vec![b'x'; 1 << 16];
        let mut written = wire.write_all(head.as_bytes());
        for _ in 0..BODY / piece.len() {
            written = written.and_then(|()| wire.write_all(&piece));
        }
        written.is_ok()
    })
}

#[test]
fn a_slow_reader_is_held_to_the_total_time() {
    let upstream = endless();
    let edge = edge_for(&upstream, "timeouts = { first_byte = \"1s\", total = \"1500ms\" }");
    let mut client = edge.connect();
    let begun = Instant::now();
    client.send("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
    // A byte now and then is progress, so no write timeout ends it.
    let mut read = 0;
    eventually("the edge gives up", || {
        let count = client.socket.read(&mut [0; 64]).unwrap_or(0);
        read += count;
        let gone = edge.get("/metrics").text().contains("api_gateway_active_connections 1\n");
        (count == 0 || (gone && begun.elapsed() > Duration::from_secs(1))).then_some(())
    });
    assert!(begun.elapsed() >= Duration::from_millis(1400), "{:?}", begun.elapsed());
    assert!(read < BODY);
}

#[test]
fn a_steady_reader_of_a_long_answer_gets_all_of_it() {
    let upstream = endless();
    let edge = edge_for(&upstream, "timeouts = { total = \"60s\" }");
    let answer = edge.connect().exchange("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
    assert_eq!(answer.body.len(), BODY);
}
