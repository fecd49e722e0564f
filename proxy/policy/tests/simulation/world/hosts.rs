//! Instances, and the connections to them: what they receive, work on, answer, and how they fail.
//!
//! An instance executes a request at the moment in which its last byte is there, whatever follows. That is the worst
//! that an upstream can do to whoever sends again.

use std::collections::VecDeque;
use std::time::Duration;

use super::World;
use super::agenda::Event;

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Well,
    /// Nobody listens.
    Down,
    /// Connections are neither taken nor refused.
    Dark,
    /// Breaks so many percent of the connections at this point: 0 to 3 pieces received, 4 with the answer's head out,
    /// 5 in place of an answer.
    Breaks(u8, u64),
    /// Answers so many percent of the requests never.
    Hangs(u64),
    /// Works so many times as long.
    Slow(u32),
    /// Answers so many percent of the requests with this status.
    Fails(u16, u64),
    /// Works, but so many percent of its probes fail.
    Sick(u64),
}

/// One instance.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) mode: Mode,
    /// Counts its restarts.
    pub(crate) epoch: u32,
    work: Duration,
    at_once: u32,
    working: u32,
    queue: VecDeque<usize>,
    open: Vec<usize>,
}

/// One connection for one try.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) request: usize,
    pub(crate) group: usize,
    pub(crate) host: usize,
    /// Instance as the edge numbers it.
    pub(crate) id: u32,
    /// Pieces that make the whole request, its head included.
    pub(crate) pieces: u8,
    /// It stands, as its edge knows.
    pub(crate) stands: bool,
    /// The execution of what came over it.
    pub(crate) tag: Option<u64>,
    /// The edge's end, the instance's end.
    pub(crate) held: bool,
    pub(crate) taken: bool,
    got: u8,
}

/// Requests that an instance holds at once; one more gets 503.
const BACKLOG_MAX: usize = 200;

impl Host {
    pub(crate) fn new(work: Duration, at_once: u32) -> Self {
        Self {
            mode: Mode::Well,
            epoch: 0,
            work,
            at_once,
            working: 0,
            queue: VecDeque::new(),
            open: Vec::new(),
        }
    }
}

impl Conn {
    pub(crate) fn new(request: usize, at: (usize, usize), id: u32, pieces: u8) -> Self {
        let (group, host) = at;
        Self { request, group, host, id, pieces, stands: false, tag: None, held: true, taken: false, got: 0 }
    }
}

impl World {
    fn host_of(&mut self, conn: usize) -> &mut Host {
        let Conn { group, host, .. } = self.conns[conn];
        &mut self.hosts[group][host]
    }

    pub(crate) fn knock(&mut self, conn: usize) {
        let host = self.host_of(conn);
        match host.mode {
            Mode::Dark => {}
            Mode::Down => self.later(Event::Refused { conn }),
            _ => {
                host.open.push(conn);
                self.conns[conn].taken = true;
                self.later(Event::Connected { conn });
            }
        }
    }

    /// A piece arrives.
    pub(crate) fn gets(&mut self, conn: usize, step: u8) {
        if !self.conns[conn].taken {
            return;
        }
        let mode = self.host_of(conn).mode;
        let at = &mut self.conns[conn];
        at.got += 1;
        let (whole, request) = (at.got == at.pieces, at.request);
        self.trace.note(
            self.now,
            "gets",
            &[("conn", conn as u64), ("request", request as u64), ("step", step.into())],
        );
        self.oracle.touched(conn, request);
        if let Mode::Breaks(point, percent) = mode
            && point <= step
            && point < 4
            && self.chance.is(percent)
        {
            // The last byte may have been there a moment before.
            if whole && self.chance.is(50) {
                self.execute(conn);
            }
            return self.break_off(conn);
        }
        if whole {
            self.execute(conn);
            let host = self.host_of(conn);
            if host.queue.len() >= BACKLOG_MAX {
                return self.answer(conn, 503);
            }
            host.queue.push_back(conn);
            self.work(conn);
        }
    }

    fn execute(&mut self, conn: usize) {
        let request = self.conns[conn].request;
        self.conns[conn].tag = Some(self.oracle.executed(self.now, request, &self.requests[request]));
    }

    /// Goes on with the next request in line.
    fn work(&mut self, of: usize) {
        let Conn { group, host: at, .. } = self.conns[of];
        loop {
            let host = &mut self.hosts[group][at];
            if host.working >= host.at_once {
                return;
            }
            let Some(conn) = host.queue.pop_front() else { return };
            host.working += 1;
            let (work, mode, epoch) = (host.work, host.mode, host.epoch);
            let jitter = self.chance.between(70, 130) as u32;
            let mut work = work * jitter / 100;
            match mode {
                Mode::Slow(times) => work *= times,
                Mode::Hangs(percent) if self.chance.is(percent) => work = Duration::from_secs(20),
                _ => {}
            }
            self.agenda.add(self.now.plus(work), Event::Worked { conn, epoch });
        }
    }

    pub(crate) fn worked(&mut self, conn: usize, epoch: u32) {
        let host = self.host_of(conn);
        if host.epoch != epoch {
            return;
        }
        host.working -= 1;
        let mode = host.mode;
        if self.conns[conn].taken {
            match mode {
                Mode::Fails(status, percent) if self.chance.is(percent) => self.answer(conn, status),
                Mode::Breaks(5, percent) if self.chance.is(percent) => self.break_off(conn),
                _ => self.answer(conn, 200),
            }
        }
        self.work(conn);
    }

    /// The answer leaves: its head, and later the rest of it.
    fn answer(&mut self, conn: usize, status: u16) {
        self.later(Event::Head { conn, status });
        let mode = self.host_of(conn).mode;
        let breaks = matches!(mode, Mode::Breaks(4, percent) if self.chance.is(percent));
        let rest = if self.chance.is(10) { self.chance.ms(5, 120) } else { Duration::ZERO };
        let at = self.now.plus(self.plan.net + self.plan.net + rest);
        self.agenda.add(at, if breaks { Event::Broke { conn } } else { Event::Tail { conn } });
        self.close(conn);
    }

    /// The instance's end of a connection is gone, and its edge learns of it.
    fn break_off(&mut self, conn: usize) {
        self.close(conn);
        self.later(Event::Broke { conn });
    }

    fn close(&mut self, conn: usize) {
        self.conns[conn].taken = false;
        self.host_of(conn).open.retain(|open| *open != conn);
    }

    /// Everything that an instance was doing is gone.
    pub(crate) fn restart_host(&mut self, group: usize, host: usize) {
        let host = &mut self.hosts[group][host];
        host.epoch += 1;
        host.working = 0;
        host.queue.clear();
        for conn in std::mem::take(&mut host.open) {
            self.conns[conn].taken = false;
            self.later(Event::Broke { conn });
        }
    }

    /// A probe's way to an instance and back.
    pub(crate) fn probe(&mut self, edge: usize, run: u64, service: usize, id: u32) {
        let process = &self.edges[edge];
        if !process.up || process.run != run || self.is_over {
            return;
        }
        let conf = &process.conf.services[service];
        let now = process.clock(self.now);
        let instances = process.ways[service].table.instances();
        let Some(instance) = instances.iter().find(|instance| instance.id == id) else { return };
        let (group, host) = (process.conf.group[service], super::plan::host_of(&instance.url));
        let (timeout, next) =
            (conf.health.timeout, sluice_policy::health::next_probe(&conf.health, self.chance.word()));
        let mode = self.hosts[group][host].mode;
        let (good, took) = match mode {
            Mode::Well | Mode::Slow(_) | Mode::Fails(..) => (true, self.plan.net * 2),
            Mode::Down => (false, self.plan.net * 2),
            Mode::Dark => (false, timeout),
            Mode::Breaks(_, percent) | Mode::Hangs(percent) | Mode::Sick(percent) => {
                (!self.chance.is(percent), self.plan.net * 2)
            }
        };
        self.agenda.add(self.now.plus(took), Event::Probed { edge, run, service, id, good, began: now });
        self.agenda.add(self.now.plus(next), Event::Probe { edge, run, service, id });
    }
}
