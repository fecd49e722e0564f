//! Upstreams that die at every byte of an order's life.
//!
//! An upstream resets its connection after the nth byte of a request it has read, or of the answer it writes, for each
//! n. Whatever it does, at most one whole order is ever executed, and what the client is told is true.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier, Mutex};

use super::{REQUIRED, coded, edge_at, order};
use crate::harness::{Client, Reply, Seen, Setup, Upstream, Wire, eventually, find, service};

const ANSWER: &str = "HTTP/1.1 201 Created\r\nContent-Length: 8\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nexecuted";
/// Clients at once, each with an upstream of its own.
const LANES: usize = 6;

/// When the connection breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    /// After so many bytes of the request.
    Read(usize),
    /// After so many bytes of the answer.
    Written(usize),
    Never,
}

struct Desk {
    address: SocketAddr,
    cut: Arc<Mutex<Cut>>,
    /// Whole orders by now, and the bytes of the last one.
    executed: Arc<Mutex<(usize, usize)>>,
}

impl Desk {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, executed) = (Arc::new(Mutex::new(Cut::Never)), Arc::new(Mutex::new((0, 0))));
        let (at, count) = (Arc::clone(&cut), Arc::clone(&executed));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                serve(socket, &at, &count);
            }
        });
        Self { address, cut, executed }
    }

    fn executed(&self) -> usize {
        self.executed.lock().unwrap().0
    }
}

/// One connection with one order.
fn serve(mut socket: TcpStream, cut: &Mutex<Cut>, executed: &Mutex<(usize, usize)>) {
    let mut first = [0];
    if socket.peek(&mut first).is_ok_and(|count| count == 1) && first == *b"G" {
        // A probe.
        drop(socket.read(&mut [0; 4096]));
        drop(socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        return;
    }
    let cut = *cut.lock().unwrap();
    let most = if let Cut::Read(bytes) = cut { bytes } else { usize::MAX };
    let mut request = Vec::new();
    while !is_whole(&request) {
        if request.len() >= most {
            return reset(&socket);
        }
        let mut byte = [0];
        match socket.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    {
        let mut executed = executed.lock().unwrap();
        *executed = (executed.0 + 1, request.len());
    }
    match cut {
        Cut::Written(bytes) => {
            drop(socket.write_all(&ANSWER.as_bytes()[..bytes]));
            reset_after(&socket, bytes);
        }
        _ => drop(socket.write_all(ANSWER.as_bytes())),
    }
}

fn is_whole(request: &[u8]) -> bool {
    let Some(head) = find(request, b"\r\n\r\n") else { return false };
    request.len() >= head + 4 + 2
}

/// Half of the time without a word, else with an orderly end.
fn reset_after(socket: &TcpStream, bytes: usize) {
    if bytes.is_multiple_of(2) {
        reset(socket);
    }
}

fn reset(socket: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO)).unwrap();
}

fn ask(edge: SocketAddr, lane: usize, key: &str) -> Reply {
    let request = order(key, "{}").replace("/api/", &format!("/lane{lane}/"));
    Client::to(edge).exchange(&request)
}

/// What a client is told about a single order is true.
fn check(first: &Reply, executed: usize, cut: Cut) {
    assert!(executed <= 1, "{cut:?}: executed {executed} times");
    match first.status {
        201 => assert_eq!(executed, 1, "{cut:?}"),
        502..=504 => {
            let outcome = first.json()["outcome"].as_str().unwrap_or_default().to_owned();
            match outcome.as_str() {
                "not_sent" => assert_eq!(executed, 0, "{cut:?}: {}", first.text()),
                "unknown" => {}
                _ => panic!("{cut:?}: outcome {outcome:?}"),
            }
        }
        status => panic!("{cut:?}: {status} {}", first.text()),
    }
    if matches!(cut, Cut::Read(_)) {
        // A request shorter than the cut is answered.
        assert_eq!((executed == 1, executed == 0), (first.status == 201, first.status >= 500), "{cut:?}");
    }
}

/// A second copy learns the same, and nothing is executed again unless nothing was before.
fn check_again(first: &Reply, again: &Reply, executed: (usize, usize), cut: Cut) {
    let (before, after) = executed;
    match first.status {
        201 => {
            assert_eq!(
                (again.status, again.field("idempotency-replayed"), after),
                (201, "true", before),
                "{cut:?}"
            );
        }
        _ if first.json()["outcome"] == "not_sent" => assert_eq!((again.status, after), (201, 1), "{cut:?}"),
        _ => {
            assert_eq!(coded(again), (409, "outcome_unknown".to_owned()), "{cut:?}");
            assert_eq!(after, before, "{cut:?}");
        }
    }
}

#[test]
fn an_upstream_that_dies_at_any_byte_executes_an_order_at_most_once() {
    let desks: Vec<Desk> = (0..LANES).map(|_| Desk::open()).collect();
    let more = "auth_required = false\nidempotency = \"optional\"\nrate_limit = 0\nhealth = { interval = \"24h\" }\n\
        retry = { attempts = 3, budget = 1.0, min_per_second = 100000, on = [\"connect\", \"reset\", \"502\", \"503\", \"504\"] }\n\
        breaker = { failure_threshold = 1000000, failure_rate = 1.0, min_calls = 1000000 }";
    let text: String = desks
        .iter()
        .enumerate()
        .map(|(lane, desk)| {
            service(
                &format!("lane{lane}"),
                &format!("/lane{lane}"),
                &[format!("http://{}", desk.address)],
                more,
            )
        })
        .collect();
    let edge = Setup::new("").service("lanes", &text).start();
    assert_eq!(ask(edge.http, 0, "lane-0-100").status, 201);
    let bytes = desks[0].executed.lock().unwrap().1;
    let cuts: Vec<Cut> = (0..bytes).map(Cut::Read).chain((0..ANSWER.len()).map(Cut::Written)).collect();
    assert!(cuts.len() > 300, "{}", cuts.len());
    let address = edge.http;
    std::thread::scope(|scope| {
        for (lane, desk) in desks.iter().enumerate() {
            let cuts = cuts.iter().skip(lane).step_by(LANES);
            scope.spawn(move || {
                for (n, cut) in cuts.enumerate() {
                    let set = |cut: Cut| *desk.cut.lock().unwrap() = cut;
                    let start = desk.executed();
                    set(*cut);
                    let bare = ask(address, lane, "");
                    check(&bare, desk.executed() - start, *cut);
                    let start = desk.executed();
                    let key = format!("lane-{lane}-{n}");
                    let first = ask(address, lane, &key);
                    let before = desk.executed() - start;
                    check(&first, before, *cut);
                    set(Cut::Never);
                    let again = ask(address, lane, &key);
                    check_again(&first, &again, (before, desk.executed() - start), *cut);
                }
            });
        }
    });
}

#[test]
fn an_answer_that_its_client_left_is_known_to_its_end() {
    let half = "x".repeat(100_000);
    for chunked in [false, true] {
        let (hold, gone) = (half.clone(), Arc::new(Barrier::new(2)));
        let inside = Arc::clone(&gone);
        let upstream = Upstream::start(move |_: &Seen, wire: &mut dyn Wire| {
            let (framing, before, behind) = if chunked {
                ("Transfer-Encoding: chunked".to_owned(), format!("{:x}\r\n", hold.len()), "\r\n")
            } else {
                (format!("Content-Length: {}", 2 * hold.len()), String::new(), "")
            };
            let first = format!("HTTP/1.1 201 Created\r\n{framing}\r\n\r\n{before}{hold}{behind}");
            let sent = wire.write_all(first.as_bytes()).is_ok();
            inside.wait();
            let end = if chunked { "0\r\n\r\n" } else { "" };
            sent && wire.write_all(format!("{before}{hold}{behind}{end}").as_bytes()).is_ok()
        });
        let edge = edge_at(upstream.url(), REQUIRED);
        let mut client = edge.connect();
        client.send(&order("k", "{}"));
        client.read_bytes(1000);
        drop(client);
        gone.wait();
        let again = eventually("all of it is there", || {
            Some(edge.send(&order("k", "{}"))).filter(|one| one.status == 201)
        });
        assert_eq!(again.field("idempotency-replayed"), "true", "{chunked}");
        assert_eq!(again.text().len(), 2 * half.len(), "{chunked}: {}", again.head);
        assert_eq!(upstream.seen().len(), 1);
    }
}
