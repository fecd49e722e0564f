//! Clients: who asks for what, sends it again, and leaves.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use sluice_policy::Nanos;
use sluice_policy::deadline::{Deadline, read_ms};
use sluice_policy::method::Method;
use sluice_policy::split::caller;
use sluice_schema::Idempotency;
use sluice_wire::code::Code;
use sluice_wire::problem::Outcome;

use super::World;
use super::agenda::Event;
use super::plan::{CANARY, CANCELS, MONITOR, ORDERS, QUOTES, READER, REPORTS, SERVICES};
use super::race::Tries;
use super::request::{Phase, Request, Told, subject};

/// Symbols that are traded.
pub(crate) const SYMBOLS: [&str; 2] = ["BTC/USDT", "ETH/USDT"];
/// So often an order is sent again, where its client does not know what became of it.
const REPEATS_MAX: u32 = 3;

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) account: usize,
    pub(crate) every: Duration,
    /// It asks fifty times as often in this time.
    pub(crate) flood: Option<(Nanos, Nanos)>,
    last_key: Option<usize>,
}

impl Client {
    pub(crate) fn new(account: usize, every: Duration) -> Self {
        Self { account, every, flood: None, last_key: None }
    }
}

impl World {
    /// A client makes its next request, and plans the one after it.
    pub(crate) fn ask(&mut self, client: usize) {
        if self.is_healed {
            return;
        }
        let Client { account, every, flood, last_key } = self.clients[client];
        let floods = flood.is_some_and(|(from, to)| (from..to).contains(&self.now));
        let pause = if floods { every / 50 } else { every };
        let pause = pause * self.chance.between(20, 180) as u32 / 100;
        self.agenda.add(self.now.plus(pause), Event::Ask { client });
        if let Some(known) = last_key.filter(|_| self.chance.is(8)) {
            return self.again(known);
        }
        let asked = match self.chance.below(100) {
            0..35 => ORDERS,
            35..47 => CANCELS,
            47..85 => QUOTES,
            _ => REPORTS,
        };
        let method = match asked {
            ORDERS if self.chance.is(92) => Method::Post,
            CANCELS => self.chance.of(&[Method::Post, Method::Delete]),
            _ => Method::Get,
        };
        let honoured = self.conf.services[asked].idempotency != Idempotency::Off && method == Method::Post;
        let key = (honoured && self.chance.is(65)).then(|| self.chance.word());
        let request = self.request(account, asked, method);
        let symbol = self.chance.is(80).then(|| self.chance.of(&SYMBOLS));
        let made = &mut self.requests[request];
        (made.key, made.symbol) = (key, symbol);
        // For a stream it would end with the head.
        if !made.streams && self.chance.is(12) {
            let ms = self.chance.between(1, 400).to_string();
            made.patience = Some(read_ms(ms.as_bytes()).expect("a number of milliseconds"));
        }
        self.agenda.add(self.now, Event::Arrive { request });
        if key.is_none() {
            return self.maybe_leave(request);
        }
        self.clients[client].last_key = Some(request);
        for _ in 0..self.chance.below(3) {
            if self.chance.is(20) {
                let at = self.now.plus(self.chance.ms(0, 6));
                self.agenda.add(at, Event::Again { request });
            }
        }
        self.maybe_leave(request);
    }

    fn maybe_leave(&mut self, request: usize) {
        if self.chance.is(8) {
            let at = self.now.plus(self.chance.ms(0, 120));
            self.agenda.add(at, Event::Leave { request });
        }
    }

    /// A request that nobody has sent yet.
    pub(crate) fn request(&mut self, account: usize, asked: usize, method: Method) -> usize {
        let pinned = !self.plan.shared && method == Method::Post;
        let edge = if pinned {
            account % self.plan.edges
        } else {
            self.chance.below(self.plan.edges as u64) as usize
        };
        let pieces = if method == Method::Post { 1 + self.chance.between(1, 3) as u8 } else { 1 };
        let piece_gap = if self.chance.is(10) { self.chance.ms(5, 200) } else { Duration::ZERO };
        self.requests.push(Request {
            edge,
            run: 0,
            account,
            asked,
            service: asked,
            method,
            symbol: None,
            key: None,
            variant: 0,
            sent_before: 0,
            pieces,
            piece_gap,
            conf: Rc::clone(&self.conf),
            arrived: Nanos::ZERO,
            deadline: Deadline::new(Nanos::ZERO, &self.conf.services[asked].timeouts),
            patience: None,
            phase: Phase::New,
            word: None,
            lease: None,
            holds_key: false,
            ticket: None,
            waits_since: Nanos::ZERO,
            seat: None,
            permit: None,
            tries: 0,
            tried: Vec::new(),
            conn: None,
            flight: None,
            try_began: Nanos::ZERO,
            hedged: Tries::default(),
            sent: false,
            handed: false,
            parted: false,
            first_byte: Duration::ZERO,
            worked: None,
            received_at: None,
            status: None,
            failure: None,
            alone: false,
            went_on: false,
            streams: method == Method::Get && self.chance.is(5),
        });
        self.requests.len() - 1
    }

    /// The same order under the same key, once more; now and then another one, by mistake.
    pub(crate) fn again(&mut self, known: usize) {
        let Request { account, asked, method, key, symbol, variant, sent_before, pieces, .. } =
            self.requests[known];
        let request = self.request(account, asked, method);
        let differs = self.chance.is(5);
        let made = &mut self.requests[request];
        (made.key, made.symbol, made.pieces) = (key, symbol, pieces);
        made.sent_before = sent_before + 1;
        made.variant = if differs { variant + 1 } else { variant };
        self.agenda.add(self.now, Event::Arrive { request });
    }

    /// A client hears what became of its request.
    pub(crate) fn hears(&mut self, request: usize, told: Told) {
        let word = match told {
            Told::Answer(status, _) => ("status", status.into()),
            Told::Replay(status, _) => ("replayed", status.into()),
            Told::Stale(_) => ("stale", 0),
            Told::Refused(code, None) => (code.word(), 0),
            Told::Refused(code, Some(outcome)) => (code.word(), 1 + outcome as u64),
            Told::Nothing => ("nothing", 0),
        };
        self.trace.note(self.now, "told", &[("request", request as u64), word]);
        let heard = &self.requests[request];
        let edge_now = self.edges[heard.edge].clock(self.now);
        self.oracle.told(self.now, request, heard, told, edge_now);
        let is_open = match told {
            Told::Nothing => !heard.alone,
            Told::Refused(code, outcome) => {
                outcome.is_some_and(|outcome| outcome != Outcome::Rejected)
                    || code == Code::IdempotencyInFlight
            }
            Told::Answer(status, _) => status >= 500,
            Told::Replay(..) | Told::Stale(_) => false,
        };
        if is_open && heard.key.is_some() && heard.sent_before < REPEATS_MAX {
            let at = self.now.plus(self.chance.ms(20, 400));
            self.agenda.add(at, Event::Again { request });
        }
    }

    /// A client closes its connection.
    pub(crate) fn leaves(&mut self, request: usize) {
        let leaving = &mut self.requests[request];
        match leaving.phase {
            Phase::New | Phase::Over => {}
            // From the claim on it goes on without its client.
            _ if leaving.holds_key || leaving.phase == Phase::Claiming => {
                leaving.alone = true;
                self.trace.note(self.now, "left_alone", &[("request", request as u64)]);
            }
            _ => {
                leaving.alone = true;
                self.trace.note(self.now, "client_leaves", &[("request", request as u64)]);
                self.end(request, Told::Nothing);
            }
        }
    }

    /// Somebody asks each service at each edge, until all are well again.
    pub(crate) fn monitor(&mut self) {
        if self.is_quiet() || self.oracle.fault.is_some() {
            self.is_over = true;
            return self.agenda.add(self.now.plus(Duration::from_secs(30)), Event::Quiet);
        }
        for edge in 0..self.plan.edges {
            for service in 0..SERVICES {
                let Some((account, asked)) = self.visitor(service) else { continue };
                let request = self.request(account, asked, Method::Get);
                (self.requests[request].edge, self.requests[request].streams) = (edge, false);
                self.agenda.add(self.now, Event::Arrive { request });
            }
        }
        self.agenda.add(self.now.plus(Duration::from_millis(250)), Event::Monitor);
    }

    /// Whose request for which service is answered by this one.
    pub(crate) fn visitor(&self, service: usize) -> Option<(usize, usize)> {
        let asked = if service == CANARY { QUOTES } else { service };
        let arm = (service == CANARY).then_some(0);
        let split = &self.conf.splits[asked];
        let place = |account: &usize| {
            let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, *account as u8));
            split.arm(caller(Some(subject(*account)), address)) == arm
        };
        let placed = (MONITOR..self.plan.accounts).filter(place);
        let mut known = placed.filter(|account| self.conf.key_of(*account).is_none_or(|key| key.rights > 0));
        known.next().map(|account| (account, asked))
    }

    /// Whether an account may do more than read.
    pub(crate) fn may_trade(account: usize) -> bool {
        account != READER && account != MONITOR
    }
}
