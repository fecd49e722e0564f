//! The end of a connection of HTTP/2, frame by frame: a stream is answered whole, or beyond the last number.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::h2_client::{
    ACK, DATA, END_STREAM, GOAWAY, Got, HEADERS, PING, RESET, Raw, WINDOW_UPDATE, frame, read_outcome,
};
use crate::harness::{Edge, Setup, Upstream, eventually, ok, reply, service};

/// The highest number of a stream.
const HIGHEST: u32 = 0x7fff_ffff;
/// What lingering keeps a connection open for, and a little less.
const LINGERS: Duration = Duration::from_millis(700);
/// Longer than a parting waits for an answer to its ping, a goodbye and the lingering together.
const SLOW: Duration = Duration::from_secs(4);

fn edge(upstream: &Upstream) -> Edge {
    let text = service("api", "/api", &[upstream.url()], "auth_required = false\nrate_limit = 0");
    Setup::new("[drain]\nlame_duck = \"2s\"\ndeadline = \"20s\"\n").service("api", &text).start()
}

/// A connection on which a request was answered.
fn used(edge: &Edge) -> Raw {
    let mut raw = Raw::to(edge);
    raw.get(1, "/api").flush();
    assert_eq!(raw.outcome(1), Some(200));
    raw
}

/// The next ping that wants an answer; the GOAWAYs before it named the highest number.
fn ping(raw: &mut Raw) -> Got {
    let mut told = 0;
    let ping = raw.until(|got| {
        if got.kind == GOAWAY {
            assert_eq!((got.word(0), got.word(4)), (HIGHEST, 0));
            told += 1;
        }
        got.kind == PING && got.flags & ACK == 0
    });
    assert_eq!(told, 1, "a GOAWAY goes before its ping");
    ping.expect("a ping")
}

#[test]
fn what_a_client_writes_behind_its_answer_to_the_ping_is_answered() {
    let upstream = Upstream::start(ok);
    let mut edge = edge(&upstream);
    let mut raw = used(&edge);
    edge.begin_drain();
    // A client may answer pings before it writes what it had queued when it heard of the end.
    let first = ping(&mut raw);
    raw.frame(PING, ACK, 0, &first.payload).get(3, "/api").flush();
    assert_eq!(raw.outcome(3), Some(200));
    // Before the answer, and without one.
    raw.get(5, "/api").flush();
    assert_eq!(raw.outcome(5), Some(200));
    let second = ping(&mut raw);
    raw.get(7, "/api").frame(PING, ACK, 0, &second.payload).get(9, "/api").flush();
    let (mut seen, mut last) = (HashMap::new(), None);
    while let Some(got) = raw.next() {
        match got.kind {
            HEADERS | RESET => drop(seen.insert(got.stream, read_outcome(&got))),
            GOAWAY => last = Some((got.word(0), got.word(4))),
            _ => {}
        }
    }
    // The ninth came behind two goodbyes: the last one tells that nothing was done with it.
    assert_eq!((seen, last), (HashMap::from([(7, 200)]), Some((7, 0))));
    assert_eq!(upstream.seen().len(), 4);
    edge.join();
}

#[test]
fn a_client_that_answers_no_ping_is_served_and_then_left() {
    let upstream = Upstream::start(ok);
    let mut edge = edge(&upstream);
    let mut raw = used(&edge);
    edge.begin_drain();
    ping(&mut raw);
    raw.get(3, "/api").flush();
    assert_eq!(raw.outcome(3), Some(200));
    let last = raw.until(|got| got.kind == GOAWAY && got.word(0) != HIGHEST).unwrap();
    assert_eq!((last.word(0), last.word(4)), (3, 0));
    assert!(raw.is_closed());
    edge.join();
}

/// Reads the last GOAWAY and the end behind it, then writes on; whether the line bears that. `None` where that took
/// longer than the edge lingers.
fn writes_on(edge: &Edge) -> Option<bool> {
    let mut raw = used(edge);
    edge.begin_drain();
    for _ in 0..2 {
        let asked = ping(&mut raw);
        raw.frame(PING, ACK, 0, &asked.payload).flush();
    }
    raw.until(|got| got.kind == GOAWAY && got.word(0) == 1).expect("the last goodbye");
    let begun = Instant::now();
    // A request that has crossed it.
    let late = frame(HEADERS, 5, 3, &[0x82, 0x86, 0x84]);
    let mut bears = raw.socket.write_all(&late).is_ok() && matches!(raw.socket.read(&mut [0; 64]), Ok(0));
    for _ in 0..20 {
        bears &= raw.socket.write_all(&late).is_ok();
        std::thread::yield_now();
    }
    (begun.elapsed() < LINGERS).then_some(bears)
}

#[test]
fn what_crosses_the_last_goodbye_does_not_reset_the_line() {
    let upstream = Upstream::start(ok);
    let bears = eventually("a round in time", || writes_on(&edge(&upstream)));
    assert!(bears, "a reset takes the answers before it along");
}

/// Asks on a hundred streams with all windows open, and reads nothing.
fn ask_and_wait(edge: &Edge, upstream: &Upstream) -> Raw {
    let mut raw = Raw::greeting(edge.http, &[(1, 0), (4, HIGHEST)]);
    raw.frame(WINDOW_UPDATE, 0, 0, &(HIGHEST - 65_535).to_be_bytes());
    for at in 0..100 {
        raw.get(at * 2 + 1, "/api");
    }
    raw.flush();
    eventually("all are under way", || (upstream.seen().len() == 100).then_some(()));
    raw
}

/// A client that reads nothing for longer than a parting waits takes all answers of `BYTES` nevertheless.
fn takes_whole<const BYTES: usize>() {
    let upstream =
        Upstream::start(|_, wire| wire.write_all(reply("200 OK", &"z".repeat(BYTES)).as_bytes()).is_ok());
    let mut edge = edge(&upstream);
    let mut raw = ask_and_wait(&edge, &upstream);
    edge.begin_drain();
    eventually("the lame duck is over", || TcpStream::connect(edge.http).is_err().then_some(()));
    let begun = Instant::now();
    eventually("the line is slow", || (begun.elapsed() > SLOW).then_some(()));
    let (mut bytes, mut whole) = (HashMap::<u32, usize>::new(), 0);
    while whole < 100 {
        let Some(got) = raw.next() else { break };
        match got.kind {
            DATA => *bytes.entry(got.stream).or_default() += got.payload.len(),
            RESET => panic!("{} was reset", got.stream),
            PING if got.flags & ACK == 0 => drop(raw.frame(PING, ACK, 0, &got.payload).flush()),
            GOAWAY => assert!([HIGHEST, 199].contains(&got.word(0)), "{got:?}"),
            _ => {}
        }
        if matches!(got.kind, DATA | HEADERS) && got.flags & END_STREAM != 0 {
            whole += 1;
        }
    }
    assert_eq!((whole, bytes.values().filter(|bytes| **bytes == BYTES).count()), (100, 100));
    edge.join();
}

#[test]
fn answers_that_a_slow_line_has_still_to_take_are_taken_whole() {
    // All together more than the kernels hold; each of them little enough to be handed over whole before it is sent.
    takes_whole::<48_000>();
}

#[test]
fn answers_that_wait_in_the_kernel_are_taken_whole() {
    // The edge is done with them; the client's answer to its ping comes long after that.
    takes_whole::<16_000>();
}
