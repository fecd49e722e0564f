//! How tunnels end: by either end, by time, by the edge.

use std::io::{Read as _, Write as _};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_wire::feed::{Change, Delta, Message};

use super::{BINARY, CLOSE, Raw, TEXT, Ws, close, edge_at, frame, metric, setup};
use crate::harness::{Setup, eventually, service};

/// Answers a close with the same, as RFC 6455 wants it; masks are zeros.
fn answering(socket: &mut std::net::TcpStream) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = socket.read(&mut piece) {
        all.extend_from_slice(&piece[..count]);
        if all.first() == Some(&(0x80 | CLOSE)) && all.len() >= 6 + usize::from(all[1] & 0x7f) {
            drop(socket.write_all(&frame(CLOSE, &all[6..], false)));
            return all;
        }
    }
    all
}

#[test]
fn close_codes_and_reasons_pass_both_ways() {
    let upstream = Raw::switching(|socket| drop(answering(socket)));
    let edge = edge_at(&upstream, "");
    for (code, reason) in [(1000, "done"), (1001, ""), (3000, "library"), (4999, "application")] {
        let mut ws = Ws::open(&edge);
        ws.write(&close(code, reason, true));
        assert_eq!(ws.closed(), (code, reason.to_owned()));
        assert!(ws.has_ended());
    }
    let first = Raw::switching(|socket| {
        socket.write_all(&close(4001, "go", false)).unwrap();
        drop(socket.read(&mut [0; 64]));
    });
    let edge = edge_at(&first, "");
    let mut ws = Ws::open(&edge);
    assert_eq!(ws.closed(), (4001, "go".to_owned()));
    ws.write(&close(4001, "", true));
    assert!(ws.has_ended());
}

#[test]
fn an_end_that_breaks_off_takes_the_other_with_it() {
    let upstream = Raw::echoing();
    let edge = edge_at(&upstream, "");
    let ws = Ws::open(&edge);
    eventually("it is open", || (upstream.open() == 1).then_some(()));
    let left = Instant::now();
    drop(ws);
    eventually("the upstream hears of it", || (upstream.open() == 0).then_some(()));
    assert!(left.elapsed() < Duration::from_secs(1));
    let leaving = Raw::switching(|socket| drop(socket.read(&mut [0; 1])));
    let edge = edge_at(&leaving, "");
    let mut ws = Ws::open(&edge);
    // Unread bytes make the upstream's end a reset.
    ws.write(&frame(BINARY, &[0; 10_000], true));
    assert!(ws.has_ended());
    eventually("nothing is left open", || (metric(&edge, "sluice_tunnels ") == Some(0.0)).then_some(()));
}

#[test]
fn a_quiet_tunnel_ends_after_the_idle_timeout_and_a_lively_one_does_not() {
    let upstream = Raw::echoing();
    let edge = edge_at(
        &upstream,
        "timeouts = { connect = \"100ms\", first_byte = \"200ms\", total = \"400ms\", idle = \"600ms\" }",
    );
    let mut ws = Ws::open(&edge);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        ws.write(&frame(TEXT, b"alive", true));
        assert_eq!(ws.frame().unwrap().1, b"alive");
        std::thread::sleep(Duration::from_millis(50));
    }
    let quiet = Instant::now();
    assert_eq!(ws.closed(), (1001, "idle".to_owned()));
    assert!(quiet.elapsed() >= Duration::from_millis(500), "{:?}", quiet.elapsed());
    ws.write(&close(1001, "", true));
    assert!(ws.has_ended());
    eventually("the upstream's end is closed", || (upstream.open() == 0).then_some(()));
}

#[test]
fn a_drain_says_goodbye_between_two_frames() {
    let (release, gate) = mpsc::sync_channel::<()>(1);
    let (told, heard) = mpsc::sync_channel::<Vec<u8>>(1);
    let gate = Mutex::new(gate);
    let upstream = Raw::switching(move |socket| {
        // Half a frame is under way when the drain begins.
        let message = frame(TEXT, b"half and half", false);
        let (first, second) = message.split_at(6);
        socket.write_all(first).unwrap();
        gate.lock().unwrap().recv().unwrap();
        socket.write_all(second).unwrap();
        socket.write_all(&frame(TEXT, b"too late", false)).unwrap();
        let mut all = Vec::new();
        drop(socket.read_to_end(&mut all));
        told.send(all).unwrap();
    });
    let text = service("ws", "/ws", &[format!("http://{}", upstream.address)], "auth_required = false");
    let conf = "[drain]\nlame_duck = \"10ms\"\ndeadline = \"10s\"\n";
    let mut edge = Setup::new(conf).service("ws", &text).start();
    let mut ws = Ws::open(&edge);
    let half = ws.bytes(6);
    edge.begin_drain();
    // The listener is gone: the drain has reached the tunnels.
    eventually("closing", || std::net::TcpStream::connect(edge.http).is_err().then_some(()));
    release.send(()).unwrap();
    let message = [half, ws.bytes(9)].concat();
    assert_eq!(message, frame(TEXT, b"half and half", false));
    assert_eq!(ws.closed(), (1012, "service restart".to_owned()), "nothing comes in between");
    let answer = close(1012, "", true);
    ws.write(&answer);
    assert!(ws.has_ended());
    assert_eq!(heard.recv().unwrap(), answer, "the client's own close ends the upstream");
    let begun = Instant::now();
    edge.join();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_client_that_does_not_answer_the_goodbye_is_not_waited_for() {
    let (told, heard) = mpsc::sync_channel::<Vec<u8>>(1);
    let upstream = Raw::switching(move |socket| {
        let mut all = Vec::new();
        drop(socket.read_to_end(&mut all));
        told.send(all).unwrap();
    });
    let text = service("ws", "/ws", &[format!("http://{}", upstream.address)], "auth_required = false");
    let conf = "[drain]\nlame_duck = \"10ms\"\ndeadline = \"20s\"\n";
    let mut edge = Setup::new(conf).service("ws", &text).start();
    let mut ws = Ws::open(&edge);
    edge.begin_drain();
    assert_eq!(ws.closed().0, 1012);
    let seen = heard.recv().unwrap();
    assert_eq!((seen[0], seen[1] & 0x80), (0x80 | CLOSE, 0x80), "a masked close: {seen:?}");
    let code: Vec<u8> = seen[6..8].iter().zip(&seen[2..4]).map(|(byte, mask)| byte ^ mask).collect();
    assert_eq!(code, 1001_u16.to_be_bytes());
    let begun = Instant::now();
    edge.join();
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[test]
fn an_expired_or_revoked_caller_is_cut_off() {
    let (told, heard) = mpsc::sync_channel::<Vec<u8>>(4);
    let upstream = Raw::switching(move |socket| {
        let mut all = Vec::new();
        drop(socket.read_to_end(&mut all));
        told.send(all).unwrap();
    });
    let mut start = setup(&upstream, "");
    start.main = "[auth]\nleeway = \"0s\"\n".to_owned();
    let edge = start.start();
    let now = jiff::Timestamp::now().as_second();
    let token = |sub: &str, exp: i64| {
        edge.issuer.sign(&json!({
            "iss": "https://sluice.internal", "sub": sub, "aud": ["sluice"], "jti": sub,
            "iat": now - 1, "exp": exp, "scope": "",
        }))
    };
    let open = |token: &str| Ws::open_as(&edge, &format!("Authorization: Bearer {token}\r\n"));
    let mut short = open(&token("short", now + 2));
    let mut revoked = open(&token("revoked", now + 600));
    let mut good = open(&token("good", now + 600));
    assert_eq!(short.closed(), (1008, "credential expired".to_owned()));
    let change = Change::Jti { jti: "revoked".to_owned() };
    let begun = Instant::now();
    edge.trust.apply(&Message::Delta(Delta { epoch: "e".into(), seq: 2, change }));
    assert_eq!(revoked.closed(), (1008, "credential revoked".to_owned()));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    // What it says now goes nowhere.
    drop(revoked.socket.write_all(&frame(TEXT, b"one more order", true)));
    for _ in 0..2 {
        let seen = heard.recv().unwrap();
        assert_eq!((seen[0], seen.len()), (0x80 | CLOSE, 6 + usize::from(seen[1] & 0x7f)), "{seen:?}");
    }
    good.write(&frame(TEXT, b"still here", true));
    drop(good);
    assert_eq!(heard.recv().unwrap(), frame(TEXT, b"still here", true));
}
