//! One account at fifty times the load of the others.
//!
//! Time is counted in ticks, and a tick is over when the edge has done all it can: every request sent is at the
//! upstream, waits, or was answered. Each request stays at the upstream for [`WORK`] ticks. So what is measured is
//! the order in which the edge lets requests through, whatever else this machine does meanwhile.

use std::io::ErrorKind;

use super::{Desk, begin, gate};
use crate::harness::{Client, Edge, Setup, eventually};

/// Ticks that a request stays at the upstream.
const WORK: usize = 8;
const TICKS: usize = 80;
/// Accounts that send now and then.
const LIGHT: usize = 10;

struct Request {
    client: Client,
    light: bool,
    sent: usize,
}

struct Run<'a> {
    edge: &'a Edge,
    desk: &'a Desk,
    open: Vec<Request>,
    sent: usize,
    ended: usize,
    /// Tick in which each request came to the upstream.
    came: Vec<usize>,
    /// Ticks of the light accounts' requests from client to answer.
    took: Vec<usize>,
}

impl Run<'_> {
    fn send(&mut self, account: &str, tick: usize) {
        let client = begin(self.edge, "GET", "/api/x", &format!("X-Account: {account}\r\n"));
        client.socket.set_nonblocking(true).unwrap();
        self.sent += 1;
        self.open.push(Request { client, light: account != "greedy", sent: tick });
    }

    /// Reads what was answered.
    fn collect(&mut self, tick: usize) {
        let mut open = Vec::new();
        for mut request in std::mem::take(&mut self.open) {
            let mut byte = [0];
            match request.client.socket.peek(&mut byte) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => open.push(request),
                peeked => {
                    assert_eq!(peeked.unwrap(), 1, "the edge closed without an answer");
                    request.client.socket.set_nonblocking(false).unwrap();
                    let status = request.client.reply().status;
                    self.ended += 1;
                    assert!(status == 200 || (status == 503 && !request.light), "{status}");
                    if request.light {
                        self.took.push(tick - request.sent);
                    }
                }
            }
        }
        self.open = open;
    }

    /// Waits until nothing moves any more.
    fn settle(&mut self, tick: usize, let_go: usize) {
        eventually("every request has its place", || {
            self.collect(tick);
            let inside = self.desk.came().len() - let_go;
            let shown = gate(self.edge, "api");
            let waiting = shown["waiting"].as_u64().unwrap() as usize;
            let at_rest = shown["running"] == inside && inside + waiting + self.ended == self.sent;
            at_rest.then_some(())
        });
        self.came.resize(self.desk.came().len(), tick);
    }
}

/// Ticks that the requests of light accounts took beside one that sends `times` as much, sorted.
fn light_ticks(times: usize) -> Vec<usize> {
    let desk = Desk::open();
    let more = "fair_key = \"header:x-account\"\nconcurrency = { limit = 8, queue = 64, queue_timeout = \"10s\" }\n\
                timeouts = { first_byte = \"30s\", total = \"30s\" }";
    let edge = Setup::new("").service("api", &desk.service("api", more)).start();
    let (open, came, took) = (Vec::new(), Vec::new(), Vec::new());
    let mut run = Run { edge: &edge, desk: &desk, open, sent: 0, ended: 0, came, took };
    let (mut let_go, mut owed) = (0, 0);
    for tick in 0..TICKS + 20 * WORK {
        let due = run.came.iter().filter(|came| tick >= **came + WORK).count() - let_go;
        let_go += due;
        desk.let_go(due);
        if tick < TICKS {
            // A light account sends every fourth tick; the greedy one as often as one of them, times so much.
            if tick % 4 == 0 {
                run.send(&format!("light-{}", tick / 4 % LIGHT), tick);
            }
            owed += times;
            while owed >= 4 * LIGHT {
                owed -= 4 * LIGHT;
                run.send("greedy", tick);
            }
        } else if run.open.is_empty() {
            break;
        }
        run.settle(tick, let_go);
    }
    assert!(run.open.is_empty(), "{} never came to an end", run.open.len());
    run.took.sort_unstable();
    run.took
}

#[test]
fn an_account_at_fifty_times_the_load_leaves_the_others_alone() {
    let p99 = |ticks: &[usize]| ticks[ticks.len() * 99 / 100];
    // All together they use a third of the upstream; the greedy one alone then asks for more than all of it.
    let (calm, beside) = (light_ticks(1), light_ticks(50));
    assert_eq!((calm.len(), beside.len()), (TICKS / 4, TICKS / 4), "none of the others is turned away");
    assert!(2 * p99(&beside) <= 3 * p99(&calm), "{beside:?} against {calm:?} ticks");
}
