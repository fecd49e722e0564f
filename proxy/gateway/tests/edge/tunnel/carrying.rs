//! What passes through an open tunnel.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{BINARY, Raw, TEXT, Ws, edge_at, frame, metric, stalled};
use crate::harness::{Setup, eventually, service};

/// Megabytes of the bulk test.
fn bulk_mb() -> usize {
    if std::env::var_os("SLUICE_LONG").is_some() { 100 } else { 20 }
}

/// Bytes that differ everywhere.
fn pattern(seed: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| ((at + seed).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn megabytes_echo_intact() {
    let upstream = Raw::echoing();
    let edge = edge_at(&upstream, "");
    let mut ws = Ws::open(&edge);
    let message = frame(BINARY, &pattern(1, 1 << 20), true);
    let begun = Instant::now();
    let mut writer = ws.socket.try_clone().unwrap();
    let sent = message.clone();
    let sending = std::thread::spawn(move || (0..bulk_mb()).for_each(|_| writer.write_all(&sent).unwrap()));
    for _ in 0..bulk_mb() {
        assert!(ws.bytes(message.len()) == message);
    }
    sending.join().unwrap();
    println!("{} MB echoed in {:?}", bulk_mb(), begun.elapsed());
    let bytes = (message.len() * bulk_mb()) as f64;
    assert_eq!(metric(&edge, "sluice_tunnels "), Some(1.0));
    for direction in ["in", "out"] {
        let name = format!("sluice_tunnel_bytes_total{{direction=\"{direction}\"}} ");
        assert_eq!(metric(&edge, &name), Some(bytes));
    }
}

#[test]
fn a_slow_reader_stalls_the_writer_in_both_directions() {
    let written = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    let upstream = Raw::switching(move |socket| {
        let mut piece = [0; 1];
        let piece_of = frame(BINARY, &vec![7; 60_000], false);
        // It sends without end and reads nothing until it is told.
        socket.set_nonblocking(true).unwrap();
        loop {
            match socket.write(&piece_of) {
                Ok(count) => _ = counted.fetch_add(count, Ordering::SeqCst),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(_) => return,
            }
            if matches!(socket.peek(&mut piece), Ok(0)) {
                return;
            }
        }
    });
    let edge = edge_at(&upstream, "");
    let ws = Ws::open(&edge);
    ws.socket.set_nonblocking(true).unwrap();
    let mut writer = ws.socket.try_clone().unwrap();
    let mut sent = 0;
    let piece = vec![7; 60_000];
    let down = stalled(&mut || written.load(Ordering::SeqCst));
    let up = stalled(&mut || {
        sent += writer.write(&piece).unwrap_or(0);
        sent
    });
    // Four socket buffers and ours; the kernel's alone grow to some megabytes each.
    assert!(down < 48 << 20 && up < 48 << 20, "{down} {up}");
}

#[test]
fn a_half_close_is_passed_on_and_the_other_half_goes_on() {
    let upstream = Raw::switching(|socket| {
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        socket.write_all(&frame(TEXT, format!("{} bytes", all.len()).as_bytes(), false)).unwrap();
    });
    let edge = edge_at(&upstream, "");
    let mut ws = Ws::open(&edge);
    ws.write(&frame(TEXT, &[b'x'; 10], true));
    ws.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(ws.frame(), Some((TEXT, b"16 bytes".to_vec())));
    assert!(ws.has_ended());
}

#[test]
fn tunnels_count_as_load_while_they_live_and_leave_one_line() {
    let upstreams = [Raw::echoing(), Raw::echoing()];
    let urls: Vec<String> = upstreams.iter().map(|raw| format!("http://{}", raw.address)).collect();
    let more = "auth_required = false\nbalance = \"least_connections\"";
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let main = format!("[log]\naccess = \"file:{}\"\n", log.display());
    let edge = Setup::new(&main).service("ws", &service("ws", "/ws", &urls, more)).start();
    let in_flight = || {
        let services = edge.get("/services").json();
        let instances = services["services"][0]["instances"].as_array().unwrap().clone();
        instances.iter().map(|one| one["in_flight"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let tunnels: Vec<Ws> = (0..4).map(|_| Ws::open(&edge)).collect();
    assert_eq!(in_flight(), [2, 2], "least connections sees open tunnels");
    assert_eq!(metric(&edge, "sluice_tunnels "), Some(4.0));
    for mut ws in tunnels {
        ws.write(&frame(TEXT, b"hello", true));
        assert_eq!(ws.frame().unwrap().1, b"hello");
    }
    eventually("all ended", || (metric(&edge, "sluice_tunnels ") == Some(0.0)).then_some(()));
    assert_eq!(in_flight(), [0, 0]);
    let requests = metric(&edge, "api_gateway_requests_total{method=\"GET\",service=\"ws\",status=\"101\"} ");
    assert_eq!(requests, Some(4.0));
    let lines = eventually("four lines", || {
        let text = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &serde_json::Value| line["protocol"] == "ws")
            .collect();
        (lines.len() == 4).then_some(lines)
    });
    for line in lines {
        assert_eq!((line["status"].as_u64(), line["route"].as_str()), (Some(101), Some("ws")), "{line}");
        assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(11), Some(11)), "{line}");
        assert_eq!(line["decision"], "forwarded", "{line}");
    }
}
