//! Clients of HTTP/2 that send what costs them little: cut early, with a reason, while others are served.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::h2_client::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING, PRIORITY, Proper,
    RESET, Raw, SETTINGS, WINDOW_UPDATE, block, frame, request, run,
};
use crate::harness::{Edge, Setup, Upstream, edge_for, eventually, ok, reply, service};

/// Sends copies of `unit` until the edge says goodbye; at most `most` of them. Another client is served
/// before, meanwhile and after. Returns the reason.
fn flood(edge: &Edge, raw: &mut Raw, kind: &str, most: usize, mut unit: impl FnMut(usize) -> Vec<u8>) {
    let before = counted(edge, kind);
    let bytes: Vec<u8> = (0..most).flat_map(&mut unit).collect();
    let begun = Instant::now();
    for piece in bytes.chunks(4096) {
        if raw.socket.write_all(piece).is_err() {
            break;
        }
    }
    assert_eq!(edge.get("/api").status, 200, "{kind}: others are served");
    assert_eq!(raw.goodbye(), Some(ENHANCE_YOUR_CALM), "{kind}");
    assert!(raw.is_closed(), "{kind}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{kind}: {:?}", begun.elapsed());
    eventually("it is counted", || (counted(edge, kind) == before + 1).then_some(()));
}

fn counted(edge: &Edge, kind: &str) -> u64 {
    let text = edge.get("/metrics").text();
    let line = format!("sluice_h2_floods_total{{kind=\"{kind}\"}} ");
    text.lines().find_map(|text| text.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

#[test]
fn cheap_frames_are_cut_at_their_limit() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let open = |edge: &Edge| {
        let mut raw = Raw::to(edge);
        raw.head(1, 0, &request("POST", "/api")).flush();
        raw
    };
    let stream = |at: usize| u32::try_from(at).unwrap() * 2 + 3;
    // Each unit is one frame more than its limit allows within a second, and then some.
    let mut raw = open(&edge);
    flood(&edge, &mut raw, "ping", 400, |_| frame(PING, 0, 0, &[7; 8]));
    let mut raw = open(&edge);
    flood(&edge, &mut raw, "settings", 200, |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]));
    let mut raw = open(&edge);
    flood(&edge, &mut raw, "empty_data", 400, |_| frame(DATA, 0, 1, b""));
    let mut raw = open(&edge);
    flood(&edge, &mut raw, "empty_data", 400, |_| frame(DATA, 8, 1, &[2, 0, 0]));
    let mut raw = open(&edge);
    flood(&edge, &mut raw, "tiny_data", 4_000, |_| frame(DATA, 0, 1, b"x"));
    let mut raw = open(&edge);
    flood(&edge, &mut raw, "priority", 400, |at| frame(PRIORITY, 0, stream(at), &[0, 0, 0, 0, 7]));
    let mut raw = open(&edge);
    flood(&edge, &mut raw, "window_update", 4_000, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
    let mut raw = open(&edge);
    flood(&edge, &mut raw, "unknown", 400, |_| frame(0x42, 0, 0, b"abc"));
    let mut raw = open(&edge);
    flood(&edge, &mut raw, "continuation", 40, |at| {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        frame(kind, 0, 3, &block(&[("x", "y")]))
    });
    let mut raw = open(&edge);
    let head = block(&request("GET", "/api"));
    flood(&edge, &mut raw, "reset", 300, |at| {
        let stream = stream(at);
        [frame(HEADERS, END_HEADERS | END_STREAM, stream, &head), frame(RESET, 0, stream, &[0, 0, 0, 8])]
            .concat()
    });
    let seen = upstream.seen().len();
    assert!(seen < 260, "{seen} requests of one second's resets at most, and those of the others");
}

#[test]
fn malformed_streams_end_it_at_the_thirty_second() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let bad = block(&[request("GET", "/api"), vec![("content-length", "x")]].concat());
    let worse = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "edge"), (":path", "/%zz")]);
    for fields in [bad, worse] {
        let mut raw = Raw::to(&edge);
        for at in 0..31_u32 {
            raw.frame(HEADERS, END_HEADERS | END_STREAM, at * 2 + 1, &fields).flush();
            assert!(matches!(raw.outcome(at * 2 + 1), Some(-1 | 400)), "{at}");
        }
        raw.get(63, "/api").flush();
        assert_eq!(raw.outcome(63), Some(200), "thirty-one are forgiven");
        raw.frame(HEADERS, END_HEADERS | END_STREAM, 65, &fields).flush();
        assert_eq!(raw.goodbye(), Some(ENHANCE_YOUR_CALM));
    }
    assert_eq!(counted(&edge, "malformed"), 2);
}

#[test]
fn a_header_bomb_bursts_small() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let before = rss();
    // A long value is put into the table once and then named by one byte, again and again.
    let mut bomb = block(&request("GET", "/api"));
    bomb.extend_from_slice(&[0x40, 1, b'x', 127, 0xa1, 0x1e]);
    bomb.extend_from_slice(&[b'y'; 4_000]);
    bomb.extend_from_slice(&[0xbe; 11_000]);
    let mut raw = Raw::to(&edge);
    raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb).flush();
    assert_eq!(raw.goodbye(), Some(ENHANCE_YOUR_CALM), "four times too much");
    // Below that it is refused alone: first by the sum of its bytes, then by the number of its fields.
    let mut raw = Raw::to(&edge);
    let mut large = block(&request("GET", "/api"));
    large.extend_from_slice(&[0x40, 1, b'x', 127, 0xa1, 0x1e]);
    large.extend_from_slice(&[b'y'; 4_000]);
    large.extend_from_slice(&[0xbe; 12]);
    raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &large).flush();
    assert_eq!(raw.outcome(1), Some(431));
    let mut many = block(&request("GET", "/api"));
    many.extend_from_slice(&[0x40, 1, b'a', 1, b'b']);
    many.extend_from_slice(&[0xbe; 101]);
    raw.frame(HEADERS, END_HEADERS | END_STREAM, 3, &many).flush();
    assert_eq!(raw.outcome(3), Some(431));
    raw.get(5, "/api").flush();
    assert_eq!(raw.outcome(5), Some(200));
    assert!(upstream.only().fields("x").is_empty());
    let grown = rss().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes more");
}

/// What goes the direct way: what is held for the socket, what one read brings, the buffer of the instance's
/// connection, and what the kernel holds.
#[test]
fn a_hundred_streams_without_a_window_hold_bounded_memory_and_end() {
    let name = "h2_floods::a_hundred_streams_without_a_window_hold_bounded_memory_and_end";
    alone(name, || streams_without_a_window("", 3 * (64 << 10) + (256 << 10), 32 << 20));
}

/// What goes through the framework: ten pieces and one being read, and what the kernel holds.
#[test]
fn a_hundred_of_the_general_way_hold_bounded_memory_and_end() {
    let name = "h2_floods::a_hundred_of_the_general_way_hold_bounded_memory_and_end";
    // The arithmetic of the module says 70 MiB; the upstream's threads are in this process too.
    alone(name, || streams_without_a_window("compress = true", 11 * (64 << 10) + (256 << 10), 80 << 20));
}

/// Runs a test in a process of its own, whose memory is that of nothing else.
fn alone(name: &str, test: impl FnOnce()) {
    const ALONE: &str = "SLUICE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let output = alone.args(["--exact", name]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Asks a service with these `policies` a hundred times for more than a client takes that grants nothing; of one answer
/// the instance gets rid of less than `held`, and the edge grows by less than `grown`.
fn streams_without_a_window(policies: &str, held: usize, grown: usize) {
    let counters: Arc<[AtomicUsize; 3]> = Arc::default();
    let counted = Arc::clone(&counters);
    let limits = "[edge]\nthreads = 1\n[edge.limits]\nidle_timeout = \"2s\"\n";
    let setup = Setup::new(limits);
    // What waits in the kernel is little then: some 200 KiB.
    let door = setup.dir.path().join("instance.sock");
    let upstream = Upstream::start_unix(&door, move |seen, wire| {
        if seen.line().contains("/small") {
            return wire.write_all(reply("200 OK", "ok").as_bytes()).is_ok();
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n";
        let sent = wire.write_all(head.as_bytes());
        let pieces = (0..1_250).take_while(|_| wire.write_all(&[b'z'; 16_000]).is_ok()).count();
        let [ended, most, all] = &*counted;
        most.fetch_max(pieces * 16_000, Ordering::SeqCst);
        all.fetch_add(pieces * 16_000, Ordering::SeqCst);
        ended.fetch_add(1, Ordering::SeqCst);
        sent.is_ok() && pieces == 1_250
    });
    let text = service(
        "api",
        "/api",
        &[format!("unix:{}", door.display())],
        &format!("auth_required = false\n{policies}"),
    );
    let edge = setup.service("api", &text).start();
    let before = rss();
    // SETTINGS_INITIAL_WINDOW_SIZE 0: no byte of a body may be sent.
    let mut raw = Raw::greeting(edge.http, &[(1, 0), (4, 0)]);
    for at in 0..100_u32 {
        raw.get(at * 2 + 1, "/api/large");
    }
    raw.flush();
    eventually("all are under way", || (upstream.seen().len() >= 100).then_some(()));
    assert_eq!(edge.get("/api/small").status, 200);
    let mut peak = 0;
    let (mut heads, mut resets) = (0, 0);
    while resets < 100 {
        peak = peak.max(rss().saturating_sub(before));
        match raw.next().expect("all of them end").kind {
            HEADERS => heads += 1,
            RESET => resets += 1,
            DATA => panic!("no window was given"),
            _ => {}
        }
    }
    assert_eq!((heads, resets), (100, 100));
    assert!(peak < grown, "{peak} bytes more");
    let [ended, most, all] = &*counters;
    eventually("the instance is rid of them", || (ended.load(Ordering::SeqCst) == 100).then_some(()));
    let (most, all) = (most.load(Ordering::SeqCst), all.load(Ordering::SeqCst));
    assert!(most > 0 && most < held, "{most} of one answer, {all} of all");
    assert_eq!(edge.get("/api/small").status, 200);
}

#[test]
fn a_client_that_cancels_now_and_then_is_served_on() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    run(async {
        let mut client = Proper::to(&edge).await;
        for round in 0..4 {
            for _ in 0..20 {
                let get = client.request("GET", "/api").body(()).unwrap();
                client.send = client.send.clone().ready().await.unwrap();
                let (answer, mut stream) = client.send.send_request(get, true).unwrap();
                stream.send_reset(h2::Reason::CANCEL);
                drop(answer);
            }
            assert_eq!(client.get("/api").await.status, 200, "{round}");
        }
    });
    assert_eq!(counted(&edge, "reset"), 0);
}

#[test]
fn pushes_and_streams_of_the_wrong_side_end_the_connection() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    for (kind, flags, stream, payload) in [
        (5_u8, END_HEADERS, 1, &[0, 0, 0, 2][..]),
        (HEADERS, END_HEADERS | END_STREAM, 2, &[0x82, 0x86, 0x84]),
        (HEADERS, END_HEADERS, 0, &[0x82]),
        (DATA, 0, 0, b"x"),
        (SETTINGS, 0, 1, b""),
        (PING, 0, 0, b"short"),
        (CONTINUATION, END_HEADERS, 1, b""),
        (WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0]),
        (WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        (RESET, 0, 9, &[0, 0, 0, 8]),
    ] {
        let mut raw = Raw::to(&edge);
        raw.frame(kind, flags, stream, payload).flush();
        let reason = raw.goodbye();
        assert!(reason.is_some_and(|reason| reason != 0), "{kind} on {stream}: {reason:?}");
        assert!(raw.is_closed());
    }
    let mut raw = Raw::to(&edge);
    let oversized = frame(DATA, 0, 1, &vec![0; 16_385]);
    raw.head(1, 0, &request("POST", "/api"));
    raw.flush();
    drop(raw.socket.write_all(&oversized));
    assert_eq!(raw.until(|got| got.kind == GOAWAY).map(|got| got.word(4)), Some(6), "FRAME_SIZE_ERROR");
    assert_eq!(upstream.seen().iter().filter(|seen| seen.whole).count(), 0);
}

/// Memory of this process, bytes.
fn rss() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
