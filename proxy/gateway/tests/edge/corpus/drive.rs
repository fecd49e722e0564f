//! Runs cases: each one alone on its lane, several lanes at once, all through one edge.
//!
//! A lane is a prefix with an upstream of its own, so that what a case leaves behind in the pool of
//! upstream connections meets the very next request. After each case two more requests are made: one on
//! the same connection where that stays open, one on a new connection. Both must arrive to the byte.

use std::time::Instant;

use super::case::{Case, Step, Writes};
use super::origin::{Arrived, Origin, echo};
use super::wire::{Answer, Wire};
use crate::harness::{Edge, PATIENCE, Setup, service};

/// Lanes run at once; one digit names one.
const LANES: usize = 6;

pub struct Lane {
    number: usize,
    origin: Origin,
}

/// One edge on one thread, and the lanes behind it.
pub struct Course {
    pub edge: Edge,
    pub lanes: Vec<Lane>,
}

impl Course {
    pub fn start(body_bytes: usize) -> Self {
        let lanes: Vec<Lane> =
            (0..LANES).map(|number| Lane { number, origin: Origin::start(echo) }).collect();
        let more = format!(
            "auth_required = false\nbody_bytes = \"{body_bytes}B\"\nrate_limit = 1000000\nretry = {{ attempts = 1 }}\n"
        );
        let mut setup = Setup::new("[edge]\nthreads = 1\n");
        for lane in &lanes {
            let (name, prefix) = (format!("lane{}", lane.number), format!("/ln{}", lane.number));
            let text = service(&name, &prefix, &[lane.origin.url()], &more);
            setup = setup.service(&name, &text);
        }
        Self { edge: setup.start(), lanes }
    }

    /// Runs all cases; what went wrong, a line each.
    pub fn run(&self, cases: &[Case]) -> Vec<String> {
        let mut faults: Vec<String> = std::thread::scope(|scope| {
            let lanes = self.lanes.iter().map(|lane| scope.spawn(|| self.run_lane(lane, cases)));
            let running: Vec<_> = lanes.collect();
            running.into_iter().flat_map(|lane| lane.join().expect("a lane panicked")).collect()
        });
        for lane in &self.lanes {
            faults.extend(lane.check_history(cases));
        }
        faults
    }

    fn run_lane(&self, lane: &Lane, cases: &[Case]) -> Vec<String> {
        let mine = cases.iter().enumerate().filter(|(at, _)| at % LANES == lane.number);
        mine.filter_map(|(at, case)| {
            let run = Run { lane, edge: &self.edge, case, tag: tag(at), probe: format!("p{at:04}") };
            run.whole().err().map(|fault| format!("{}: {fault}", case.name))
        })
        .collect()
    }
}

/// No hexadecimal digit comes first: ids and traces hold anything of those.
fn tag(at: usize) -> String {
    format!("z{at:04}")
}

impl Lane {
    /// After all cases: nothing odd on any connection, and no trace of what was refused.
    fn check_history(&self, cases: &[Case]) -> Vec<String> {
        let mut faults = Vec::new();
        let histories = self.origin.connections();
        for history in &histories {
            if let Some(why) = history.wrong {
                faults
                    .push(format!("lane {}: the upstream got bytes that are no request: {why}", self.number));
            }
        }
        let cut = histories.iter().filter(|history| history.bytes.len() > history.used).count();
        let mine = || cases.iter().enumerate().filter(|(at, _)| at % LANES == self.number);
        let cut_cases = mine().filter(|(_, case)| case.cut).count();
        if cut != cut_cases {
            faults.push(format!("lane {}: {cut} requests were cut off, not {cut_cases}", self.number));
        }
        let refused = mine().filter(|(_, case)| case.seen.is_empty() && !case.cut);
        for (at, case) in refused {
            if self.origin.saw(&tag(at)).is_some() {
                faults.push(format!("{}: the upstream got some of it later", case.name));
            }
        }
        faults
    }
}

struct Run<'a> {
    lane: &'a Lane,
    edge: &'a Edge,
    case: &'a Case,
    tag: String,
    probe: String,
}

impl Run<'_> {
    fn whole(&self) -> Result<(), String> {
        let mark = self.lane.origin.mark();
        let mut client = Wire::to(self.edge.http);
        self.exchange(&mut client)?;
        let mut probes = Vec::new();
        if self.case.closes {
            client.ends()?;
        } else {
            probes.push(self.ask(&mut client, "same")?);
        }
        drop(client);
        self.ask_until_pooled(mark, &mut probes)?;
        let arrived = self.lane.origin.since(mark);
        let (seen, after) =
            arrived.split_at_checked(self.case.seen.len()).ok_or("the upstream saw too little")?;
        if after.len() != probes.len() {
            return Err(format!("the upstream saw {:?}", lines(&arrived)));
        }
        self.check_seen(seen)?;
        for (arrived, expected) in after.iter().zip(&probes) {
            check_probe(arrived, expected)?;
        }
        self.check_rest(after)
    }

    /// Asks on new connections until the upstream gets it on one that was used before. The edge may answer
    /// before it has put its upstream connection back, so the first need not.
    fn ask_until_pooled(&self, mark: usize, probes: &mut Vec<Probe>) -> Result<(), String> {
        for _ in 0..20 {
            probes.push(self.ask(&mut Wire::to(self.edge.http), "pool")?);
            if self.lane.origin.since(mark).last().is_some_and(|arrived| arrived.place > 0) {
                return Ok(());
            }
        }
        Err("no upstream connection is used twice".to_owned())
    }

    fn exchange(&self, client: &mut Wire) -> Result<(), String> {
        let mut answers = self.case.answers.iter();
        for step in &self.case.steps {
            match step {
                Step::Send(bytes) => self.send(client, &self.local(bytes)),
                Step::Arrived => {
                    wait("the head at the upstream", || self.lane.origin.saw(&self.tag).is_some())?;
                }
                Step::Finish => client.finish(),
                Step::Answer => {
                    let expected = answers.next().ok_or("no answer is expected")?;
                    self.answer(client, *expected)?;
                }
            }
        }
        for expected in answers {
            let answer = self.answer(client, *expected)?;
            if !answer.text().is_empty() || self.case.bodiless {
                continue;
            }
            return Err("the answer is empty".to_owned());
        }
        Ok(())
    }

    fn send(&self, client: &mut Wire, bytes: &[u8]) {
        match self.case.writes {
            Writes::One => client.send(bytes),
            Writes::Two(at) => {
                client.send(&bytes[..at]);
                client.send(&bytes[at..]);
            }
            Writes::Each => bytes.chunks(1).for_each(|byte| client.send(byte)),
        }
    }

    fn answer(&self, client: &mut Wire, (status, code): (u16, &str)) -> Result<Answer, String> {
        let answer =
            client.answer(self.case.bodiless).map_err(|missing| format!("no answer: {missing:?}"))?;
        if (answer.status, answer.code().as_str()) != (status, code) {
            return Err(format!(
                "answered {} {:?}, not {status} {code:?}: {}",
                answer.status,
                answer.code(),
                answer.text()
            ));
        }
        let stays = if answer.status < 200 { "" } else { "keep-alive" };
        let last = self.case.closes && self.case.answers.last() == Some(&(status, code));
        if answer.status >= 400 && answer.field("x-request-id").is_empty() {
            return Err("no request id".to_owned());
        }
        match answer.field("connection") {
            "close" if last => {}
            other if other == stays && !(last && self.case.answers.len() == 1) => {}
            other => return Err(format!("Connection: {other}")),
        }
        Ok(answer)
    }

    /// A good request; what must arrive of it.
    fn ask(&self, client: &mut Wire, kind: &str) -> Result<Probe, String> {
        let (lane, probe) = (self.lane.number, &self.probe);
        let (raw, line, body) = match kind {
            "same" => (
                format!(
                    "POST /ln{lane}/{kind}/{probe} HTTP/1.1\r\nHost: edge\r\nContent-Length: 5\r\n\r\n{probe}"
                ),
                format!("POST /{kind}/{probe} HTTP/1.1"),
                probe.as_str(),
            ),
            _ => (
                format!("GET /ln{lane}/{kind}/{probe} HTTP/1.1\r\nHost: edge\r\n\r\n"),
                format!("GET /{kind}/{probe} HTTP/1.1"),
                "",
            ),
        };
        client.send(raw.as_bytes());
        let answer = client
            .answer(false)
            .map_err(|missing| format!("no answer to the next on {kind}: {missing:?}"))?;
        let expected = format!("/{kind}/{probe} {}", body.len());
        if (answer.status, answer.text()) != (200, expected.clone()) {
            return Err(format!("the next on {kind} got {} {}", answer.status, answer.text()));
        }
        let length = if body.is_empty() { "" } else { "Content-Length: 5\r\n" };
        let address = self.lane.origin.address;
        let head = format!(
            "{line}\r\nHost: {address}\r\n{length}X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Host: edge\r\n\r\n"
        );
        Ok(Probe { head, body: body.as_bytes().to_vec() })
    }

    fn check_seen(&self, seen: &[Arrived]) -> Result<(), String> {
        for (arrived, (line, body)) in seen.iter().zip(&self.case.seen) {
            let line = String::from_utf8_lossy(&self.local(line.as_bytes())).into_owned();
            if arrived.line() != line {
                return Err(format!("the upstream saw {:?}, not {line:?}", arrived.line()));
            }
            if arrived.request.body != self.local(body) {
                return Err(format!("the upstream got the body {}", arrived.request.body.escape_ascii()));
            }
            for name in &self.case.lacks {
                if !arrived.request.values(name).is_empty() {
                    return Err(format!("{name} reached the upstream"));
                }
            }
        }
        for (name, value) in &self.case.has {
            let values = seen.first().map(|arrived| arrived.request.values(name)).unwrap_or_default();
            if values != [value.as_bytes()] {
                return Err(format!("{name} arrived as {values:?}"));
            }
        }
        Ok(())
    }

    /// What is left of a request that was cut off is never completed, and its connection not used again.
    fn check_rest(&self, after: &[Arrived]) -> Result<(), String> {
        let saw = self.lane.origin.saw(&self.tag);
        match saw {
            Some(connection) if self.case.cut => {
                wait("the end of the upstream's connection", || self.lane.origin.is_closed(connection))?;
                if after.iter().any(|arrived| arrived.connection == connection) {
                    return Err("the cut connection was used again".to_owned());
                }
                Ok(())
            }
            None if self.case.cut => Err("nothing reached the upstream".to_owned()),
            Some(_) if self.case.seen.is_empty() => Err("the upstream got some of it".to_owned()),
            _ => Ok(()),
        }
    }

    /// The bytes as this lane sends or sees them; their length stays.
    fn local(&self, bytes: &[u8]) -> Vec<u8> {
        let lane = self.lane.number;
        let pairs =
            [("/api", format!("/ln{lane}")), ("%61pi", format!("%6cn{lane}")), ("TAG00", self.tag.clone())];
        let mut out = bytes.to_vec();
        for (from, to) in pairs {
            assert_eq!(from.len(), to.len());
            while let Some(at) = crate::harness::find(&out, from.as_bytes()) {
                out[at..at + from.len()].copy_from_slice(to.as_bytes());
            }
        }
        out
    }
}

struct Probe {
    /// Without the fields that differ each time.
    head: String,
    body: Vec<u8>,
}

/// A request after a case arrived exactly so, byte for byte but for id and trace.
fn check_probe(arrived: &Arrived, expected: &Probe) -> Result<(), String> {
    let (random, plain): (Vec<&str>, Vec<&str>) = arrived.head.split_inclusive("\r\n").partition(|line| {
        let lower = line.to_ascii_lowercase();
        lower.starts_with("x-request-id: ") || lower.starts_with("traceparent: ")
    });
    let head = plain.concat();
    if random.len() != 2
        || !head.eq_ignore_ascii_case(&expected.head)
        || arrived.request.body != expected.body
    {
        return Err(format!("the next request arrived as {:?}", arrived.head));
    }
    Ok(())
}

fn lines(arrived: &[Arrived]) -> Vec<&str> {
    arrived.iter().map(Arrived::line).collect()
}

fn wait(what: &str, mut done: impl FnMut() -> bool) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > until {
            return Err(format!("waited in vain for {what}"));
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(())
}
