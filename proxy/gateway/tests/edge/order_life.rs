//! Instances that die at every byte of a request's life.
//!
//! Each case breaks the connection after the nth byte that an instance has read, or has written, for every n. What is
//! checked each time: how many requests reached any instance, what the client is told (status, code, outcome), and
//! that the next request arrives to the byte.

mod desk;
mod streams;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::desk::{Arrived, BODY, Cut, Desk, head_bytes};
use crate::harness::{Client, Reply, Setup, service};

/// Clients at once, each with instances of its own.
const LANES: usize = 16;

/// Nothing but the tries of a single request decides.
const ALONE: &str = "auth_required = false\nrate_limit = 0\nbalance = \"hash\"\nhash_on = \"ip\"\nslow_start = \"0s\"\n\
     health = { interval = \"24h\" }\noutlier = { consecutive = 1000000 }\n\
     retry = { attempts = 3, budget = 1.0, min_per_second = 100000, on = [\"connect\", \"reset\", \"502\", \"503\", \"504\"] }\n\
     breaker = { failure_threshold = 1000000, failure_rate = 1.0, min_calls = 1000000 }\n";

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Get,
    Post,
    /// In chunks, which takes the general way whatever the service is.
    Chunks,
    /// With a key that is honoured on the general way only.
    Keyed,
    Put,
    Delete,
}

const KINDS: [Kind; 6] = [Kind::Get, Kind::Post, Kind::Keyed, Kind::Put, Kind::Delete, Kind::Chunks];

/// How requests get to the instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Moved by the edge itself.
    Direct,
    /// Through the framework, with keys that are honoured.
    General,
}

/// One case.
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: Kind,
    way: Way,
    cut: Cut,
    /// On a connection that has served before.
    pooled: bool,
    /// How many tries break.
    strikes: usize,
}

impl Kind {
    fn request(self, path: &str, number: usize) -> String {
        let (method, fields, body) = match self {
            Self::Get => ("GET", "", ""),
            Self::Post | Self::Keyed => ("POST", "Content-Length: 7\r\n", "{\"q\":1}"),
            Self::Chunks => ("POST", "Transfer-Encoding: chunked\r\n", "7\r\n{\"q\":1}\r\n0\r\n\r\n"),
            Self::Put => ("PUT", "Content-Length: 7\r\n", "{\"q\":1}"),
            Self::Delete => ("DELETE", "", ""),
        };
        let key =
            if self == Self::Keyed { format!("Idempotency-Key: n-{number:06}\r\n") } else { String::new() };
        format!(
            "{method} {path}/orders HTTP/1.1\r\nHost: edge\r\nX-Number: {number:06}\r\n{key}{fields}\r\n{body}"
        )
    }

    const fn is_order(self) -> bool {
        matches!(self, Self::Post | Self::Chunks | Self::Keyed)
    }
}

/// One client's place.
struct Lane<'a> {
    edge: SocketAddr,
    path: String,
    desk: &'a Desk,
    client: Client,
    number: &'a AtomicUsize,
}

impl Lane<'_> {
    fn ask(&mut self, kind: Kind) -> Reply {
        let number = self.number.fetch_add(1, Ordering::SeqCst);
        self.client.exchange(&kind.request(&self.path, number))
    }

    /// Sends a GET that nothing disturbs; the connections it leaves are as the next case wants them.
    fn next(&mut self, stays: bool) {
        self.desk.disarm(stays);
        self.client.socket.set_nonblocking(true).unwrap();
        if self.client.socket.peek(&mut [0]).is_ok() {
            self.client = Client::to(self.edge);
        }
        self.client.socket.set_nonblocking(false).unwrap();
        let reply = self.ask(Kind::Get);
        let arrived = self.desk.disarm(stays);
        assert_eq!((reply.status, reply.text().as_str()), (201, BODY), "the next request is answered");
        assert!(arrived.len() == 1 && is_intact(&arrived[0]), "the next request is intact: {arrived:?}");
    }

    fn run(&mut self, case: Case) {
        self.next(case.pooled);
        // Connections end in turn by a reset and in an orderly way.
        let orderly = self.number.load(Ordering::SeqCst).is_multiple_of(2);
        self.desk.arm(case.cut, case.strikes, orderly);
        let mut reply = self.ask(case.kind);
        let arrived = self.desk.disarm(case.pooled);
        let cut_short = reply.status == 201 && reply.text() != BODY;
        if cut_short {
            assert!(self.client.is_closed(), "{case:?}: an answer that broke off never looks whole");
        }
        if cut_short || reply.status != 201 {
            self.client = Client::to(self.edge);
        }
        for one in arrived.iter().filter(|one| one.whole) {
            assert!(is_intact(one), "{case:?}: {one:?}");
        }
        judge(case, &mut reply, &arrived, cut_short);
    }
}

/// A request that is nothing but itself.
fn is_intact(arrived: &Arrived) -> bool {
    let text = String::from_utf8_lossy(&arrived.bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let line = head.lines().next().unwrap_or_default();
    let body_of = |method: &str| match method {
        "POST" | "PUT" => ["{\"q\":1}", "7\r\n{\"q\":1}\r\n0\r\n\r\n"].contains(&body),
        _ => body.is_empty(),
    };
    line.split_once(' ').is_some_and(|(method, rest)| rest == "/orders HTTP/1.1" && body_of(method))
}

/// Whether what happened is what has to.
fn judge(case: Case, reply: &mut Reply, arrived: &[Arrived], cut_short: bool) {
    let whole = arrived.iter().filter(|one| one.whole).count();
    let told = if reply.status >= 500 {
        let outcome = reply.json().get("outcome").map(|word| word.as_str().unwrap().to_owned());
        Some((reply.status, reply.code(), outcome))
    } else {
        None
    };
    let broke =
        |outcome: Option<&str>| Some((502, "upstream_refused".to_owned(), outcome.map(str::to_owned)));
    let connections = usize::from(case.cut != Cut::Accepted);
    let context = format!("{case:?}: {told:?} {} {}", reply.status, arrived.len());
    let (begun, head) = match case.cut {
        Cut::Written(bytes) => (true, bytes >= head_bytes(case.pooled)),
        Cut::Read(_) | Cut::Accepted => (false, false),
    };
    if case.cut == Cut::Accepted && reply.status == 201 {
        // The edge has seen the reset before it sent anything, so whoever asked may be served elsewhere.
        assert!(matches!(arrived, [one] if one.whole), "{context}");
        return;
    }
    if let Some(one) = arrived.first() {
        assert_eq!(one.first, !case.pooled, "{context}: on a connection of the kind that was meant");
    }
    if head {
        // The answer had begun: whoever asked has its status, and nobody asks again.
        assert_eq!((reply.status, cut_short, arrived.len(), whole), (201, true, 1, 1), "{context}");
        return;
    }
    match case.kind {
        Kind::Get if case.strikes == 1 => {
            assert_eq!((reply.status, cut_short), (201, false), "{context}");
            assert_eq!((arrived.len(), whole), (connections + 1, 1 + usize::from(begun)), "{context}");
            if let [one, two] = arrived {
                assert_ne!(one.instance, two.instance, "{context}: the other instance is tried");
            }
        }
        Kind::Get => {
            assert_eq!(told, broke(None), "{context}");
            assert_eq!(arrived.len(), 3 * connections, "{context}");
        }
        Kind::Put | Kind::Delete => {
            assert_eq!(told, broke(None), "{context}");
            assert_eq!((arrived.len(), whole), (connections, usize::from(begun)), "{context}");
        }
        // Half an order is tried again under its key, as long as the rest of it has not been handed on.
        Kind::Keyed if case.way == Way::General && reply.status == 201 => {
            assert!(whole == 1 && arrived.len() <= 2 && !begun, "{context}");
        }
        Kind::Post | Kind::Chunks | Kind::Keyed => {
            assert_eq!(told, broke(Some("unknown")), "{context}");
            assert_eq!((arrived.len(), whole), (connections, usize::from(begun)), "{context}");
        }
    }
}

/// Every case of a way, for connections that break at bytes below these.
fn cases(way: Way, bytes: impl Fn(Kind, bool) -> usize) -> Vec<Case> {
    let mut all = Vec::new();
    // Chunks take the general way, which has a pool of its own.
    let kinds = if way == Way::Direct { &KINDS[..5] } else { &KINDS };
    for (row, kind) in kinds.iter().copied().enumerate() {
        for pooled in [false, true] {
            let reads = (0..bytes(kind, pooled)).map(Cut::Read);
            let writes = (0..desk::answer(pooled).len()).map(Cut::Written);
            let accepted = (!pooled).then_some(Cut::Accepted);
            for (at, cut) in accepted.into_iter().chain(reads).chain(writes).enumerate() {
                // Orders break at each byte on both kinds of connection, the others in turn on one of them.
                if kind.is_order() || (at + row).is_multiple_of(2) == pooled {
                    let strikes = if kind == Kind::Get && at.is_multiple_of(4) { 3 } else { 1 };
                    all.push(Case { kind, way, cut, pooled, strikes });
                }
            }
        }
    }
    all
}

fn every_byte(way: Way) {
    let desks: Vec<Desk> = (0..LANES).map(|_| Desk::open()).collect();
    let more = match way {
        Way::Direct => ALONE.to_owned(),
        Way::General => format!("{ALONE}compress = true\nidempotency = \"optional\"\n"),
    };
    let text: String = desks
        .iter()
        .enumerate()
        .map(|(lane, desk)| service(&format!("lane{lane}"), &format!("/lane{lane}"), &desk.urls(), &more))
        .collect();
    // One thread: its pool is the only one.
    let edge = Setup::new("[edge]\nthreads = 1\n").service("lanes", &text).start();
    let number = AtomicUsize::new(0);
    let lane = |at: usize| Lane {
        edge: edge.http,
        path: format!("/lane{at}"),
        desk: &desks[at],
        client: Client::to(edge.http),
        number: &number,
    };
    let bytes = |kind: Kind, pooled: bool| {
        let mut lane = lane(0);
        lane.desk.disarm(pooled);
        assert_eq!(lane.ask(kind).status, 201);
        lane.desk.disarm(pooled)[0].bytes.len()
    };
    let cases = cases(way, bytes);
    assert!(cases.len() > 2500, "{}", cases.len());
    std::thread::scope(|scope| {
        for at in 0..LANES {
            let (mut lane, cases) = (lane(at), &cases);
            scope.spawn(move || {
                for case in cases.iter().skip(at).step_by(LANES) {
                    lane.run(*case);
                }
                lane.next(false);
            });
        }
    });
}

#[test]
fn at_any_byte_on_the_direct_way() {
    every_byte(Way::Direct);
}

#[test]
fn at_any_byte_on_the_general_way() {
    every_byte(Way::General);
}
