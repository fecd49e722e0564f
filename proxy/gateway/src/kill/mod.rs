//! What an operator, or the vault for an alert, has stopped: judged for every request, changed at the control port, kept in the ledger,
//! told to the other edges.
//!
//! A request reads two atomics at most while nothing is on: whether anything is, before its caller is known and
//! after, and once more before each try, since it may have waited. Switches are about services alone: pages of
//! the edge, workers and the control port stay, so that operators can see and act.
//!
//! `desk` takes changes in and settles them, `wire` brings them to other edges and back, `seal` says whom to believe.

mod desk;
mod seal;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};
use sluice_policy::kill_switch::book::EdgeId;
use sluice_policy::kill_switch::{Ask, Stopped, Switches};
use sluice_schema::Lane;
use sluice_wire::code::Code;
use sluice_wire::problem::Problem;
use tokio::sync::{Notify, watch};

use crate::admit::{decided, not_sent, preflight};
use crate::ctx::{Exchange, Target};
use crate::failed::KILLED;
use crate::generation::ServiceRoute;
use crate::jwt_cache::Verified;
use crate::meters::Meters;
use crate::peer::{self, Chosen};
use crate::respond::Answer;
use crate::state::Shared;
use desk::Desk;

pub(crate) use desk::{
    Author, OffError, SWITCHES_PAGE_MAX, View, carried, keep, load, put_off, put_on, take, views,
};
pub(crate) use wire::{follow, is_unkeyed, tell};

/// The switches of this edge.
pub(crate) struct Kill {
    any: AtomicBool,
    switches: ArcSwap<Switches>,
    desk: Mutex<Desk>,
    /// Something changed: what goes on for long is looked at.
    thrown: Notify,
    /// Something is to be written.
    unsettled: Notify,
    /// Something is to be told.
    untold: Notify,
    /// One at a time writes what is to be written.
    settling: tokio::sync::Mutex<()>,
    /// Counts what was told, for those who wait for it.
    told: watch::Sender<u64>,
    /// The event stream is open.
    following: AtomicBool,
}

impl Kill {
    /// Nothing is stopped.
    pub(crate) fn new() -> Self {
        Self {
            any: AtomicBool::new(false),
            switches: ArcSwap::default(),
            desk: Mutex::new(Desk::new()),
            thrown: Notify::new(),
            unsettled: Notify::new(),
            untold: Notify::new(),
            settling: tokio::sync::Mutex::default(),
            told: watch::Sender::new(0),
            following: AtomicBool::new(false),
        }
    }

    /// Which edge this is, among those that share an event stream.
    pub(crate) fn edge(&self) -> EdgeId {
        self.desk().book.own()
    }

    /// The switches, where any is on.
    pub(crate) fn switches(&self) -> Option<Arc<Switches>> {
        self.any.load(Ordering::Acquire).then(|| self.switches.load_full())
    }

    /// Waits until a switch was thrown.
    pub(crate) async fn thrown(&self) {
        self.thrown.notified().await;
    }

    /// Whether the event stream is followed at this moment.
    pub(crate) fn is_following(&self) -> bool {
        self.following.load(Ordering::Relaxed)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges by what the desk knows from now on.
    fn put_in_force(&self, desk: &Desk, meters: &Meters) {
        let switches = desk.book.switches();
        let any = !switches.is_empty();
        for (scope, count) in switches.counts() {
            meters.kill_on(scope, count);
        }
        self.switches.store(Arc::new(switches));
        self.any.store(any, Ordering::Release);
        self.thrown.notify_one();
    }
}

/// Judges a request before its caller is known.
pub(crate) fn check(shared: &Shared, x: &mut Exchange, headers: &HeaderMap) -> Result<(), Answer> {
    let Some(switches) = shared.kill.switches() else { return Ok(()) };
    judge(&switches, x, headers).map_err(|stopped| refuse(shared, x, stopped))
}

/// Judges it again once its caller is known.
pub(crate) fn check_account(shared: &Shared, x: &mut Exchange, headers: &HeaderMap) -> Result<(), Answer> {
    let Some(switches) = shared.kill.switches() else { return Ok(()) };
    judge_account(&switches, x, headers).map_err(|stopped| refuse(shared, x, stopped))
}

/// Chooses where the next try goes, unless a switch was thrown since the request came: it may have waited. The
/// answer is in `x.refusal` then.
pub(crate) async fn choose(
    shared: &Shared,
    x: &mut Exchange,
    headers: &HeaderMap,
) -> pingora::Result<Chosen> {
    let sent = peer::was_sent(x);
    let chosen = peer::choose(x).await?;
    let Some(switches) = shared.kill.switches() else { return Ok(chosen) };
    let judged = judge(&switches, x, headers).and_then(|()| judge_account(&switches, x, headers));
    let Err(stopped) = judged else { return Ok(chosen) };
    shared.meters.kill_refused(stopped.word());
    if let Some(attempt) = &mut x.attempt {
        // Chosen and nothing more: what is known of the request is what the try before it did.
        attempt.is_over();
        attempt.sent = sent;
    }
    peer::refuse(x, problem(x, stopped))
}

/// Whether a switch was thrown since the request came, so that nothing more of it is sent.
pub(crate) fn stops(shared: &Shared, x: &Exchange, headers: &HeaderMap) -> bool {
    let Some(switches) = shared.kill.switches() else { return false };
    judge(&switches, x, headers).is_err() || judge_account(&switches, x, headers).is_err()
}

/// Judges it by the service that answers, and by the one that was asked where that one is split.
fn judge(switches: &Switches, x: &Exchange, headers: &HeaderMap) -> Result<(), Stopped> {
    let Target::Service(route) = &x.target else { return Ok(()) };
    let header = x.generation.config.kill_switch.symbol_header.as_str();
    for route in std::iter::once(route).chain(&x.shape.split_of) {
        let symbols = headers.get_all(header).iter().map(HeaderValue::as_bytes);
        let lane = lane(route, x, headers);
        switches.check(Ask { service: &route.service.name, lane, symbols })?;
    }
    Ok(())
}

fn judge_account(switches: &Switches, x: &Exchange, headers: &HeaderMap) -> Result<(), Stopped> {
    let (Target::Service(route), Some(caller)) = (&x.target, &x.identity) else { return Ok(()) };
    switches.check_account(lane(route, x, headers), account(caller))
}

/// The account that a caller acts for.
fn account(caller: &Verified) -> &str {
    caller.claims.account.as_deref().unwrap_or(&caller.claims.sub)
}

/// The lane in which a request is judged. What a browser asks before an order names no symbol and orders nothing.
fn lane(route: &ServiceRoute, x: &Exchange, headers: &HeaderMap) -> Lane {
    match route.service.lane {
        Lane::Order if preflight(x, headers) => Lane::Query,
        lane => lane,
    }
}

fn refuse(shared: &Shared, x: &mut Exchange, stopped: Stopped) -> Answer {
    shared.meters.kill_refused(stopped.word());
    let answer = Answer::problem(not_sent(x, problem(x, stopped)));
    let decision = if stopped == Stopped::SymbolRequired { Code::SymbolRequired.word() } else { KILLED };
    decided(x, decision, answer)
}

/// Why nothing is sent. Nobody knows when a switch goes off, so no time is named after which to ask again: what
/// would then come at once is what was to be kept away.
fn problem(x: &Exchange, stopped: Stopped) -> Problem {
    let by = |what: &str| Problem::new(Code::KillSwitch).detail(format!("the kill switch stops {what}"));
    match stopped {
        Stopped::By("service") => by("this service"),
        Stopped::By("account") => by("this account"),
        Stopped::By("symbol") => by("this symbol"),
        Stopped::By(_) => by("everything"),
        Stopped::SymbolRequired => {
            let header = &x.generation.config.kill_switch.symbol_header;
            let detail = format!("a symbol is stopped: an order names its own in `{header}`");
            Problem::new(Code::SymbolRequired).detail(detail)
        }
    }
}

/// The symbols that a request names, for what goes on for long.
pub(crate) fn symbols(x: &Exchange, headers: &HeaderMap) -> Vec<HeaderValue> {
    let header = x.generation.config.kill_switch.symbol_header.as_str();
    headers.get_all(header).iter().cloned().collect()
}

/// What an answer that goes on for long is about.
pub(crate) struct Subject {
    route: Arc<ServiceRoute>,
    /// The service that was asked, where that one answers for it.
    asked: Option<Arc<ServiceRoute>>,
    symbols: Vec<HeaderValue>,
}

impl Subject {
    /// What a request is about; `None` where no service answers it.
    pub(crate) fn of(x: &Exchange) -> Option<Self> {
        let Target::Service(route) = &x.target else { return None };
        let asked = x.shape.split_of.clone();
        Some(Self { route: Arc::clone(route), asked, symbols: x.symbols.clone() })
    }

    /// Whether it would be refused now. Orders that come over a connection name their symbols inside, where
    /// nobody looks: one that was opened for none is about all.
    pub(crate) fn is_stopped(&self, switches: &Switches, caller: Option<&Verified>) -> bool {
        let service = &self.route.service;
        let stopped = |route: &Arc<ServiceRoute>| {
            let symbols = self.symbols.iter().map(HeaderValue::as_bytes);
            switches.check(Ask { service: &route.service.name, lane: service.lane, symbols }).is_err()
        };
        let known =
            caller.is_some_and(|caller| switches.check_account(service.lane, account(caller)).is_err());
        known || stopped(&self.route) || self.asked.as_ref().is_some_and(stopped)
    }
}
