//! What must hold, judged by somebody who sees everything: every byte that an instance got, every word that a client
//! was told, every decision of every edge. It keeps its own naive books and believes none of the edge's.

mod breakers;
mod gates;
mod joint;
mod limits;
mod picks;

use std::collections::BTreeMap;

use sluice_policy::Nanos;
use sluice_policy::hedge::{Came, Next};
use sluice_policy::method::Method;
use sluice_policy::route::Target;
use sluice_wire::code::Code;
use sluice_wire::problem::Outcome;

use super::World;
use super::keys::Id;
use super::plan::{ATTEMPTS_MAX, Conf, SERVICES};
use super::request::{Request, Told};

/// An edge and one of its services, or one of its gates.
pub(crate) type At = (usize, usize);

/// What is known of everybody.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// The first thing that should not have been, and when.
    pub(crate) fault: Option<(Nanos, String)>,
    /// All is well, and what went wrong before is forgotten by all.
    pub(crate) is_clean: bool,
    seen: Vec<Seen>,
    /// Requests whose last byte arrived at an instance, in that order.
    executions: Vec<(usize, Id, u8)>,
    claims: BTreeMap<(usize, Id), Vec<Claim>>,
    /// When whole answers went out that may be shown again, by execution.
    kept: BTreeMap<u64, Nanos>,
    arms: BTreeMap<(u64, usize), Option<usize>>,
    limits: limits::Limits,
    joint: joint::Joint,
    gates: BTreeMap<At, gates::Seen>,
    breakers: BTreeMap<At, breakers::Shadow>,
    picks: picks::Picks,
}

/// What instances got of one request.
#[derive(Clone, Debug, Default)]
struct Seen {
    conns: Vec<usize>,
    whole: u32,
    /// A head has come that is its answer.
    answered: bool,
}

/// A key that a request got.
#[derive(Debug)]
struct Claim {
    request: usize,
    at_ms: u64,
    expires_at_ms: u64,
    executed: bool,
}

/// What is known of an edge's parts, from now on by another number.
fn hand_over<V>(known: &mut BTreeMap<At, V>, from: usize, to: usize) {
    for part in 0..SERVICES {
        if let Some(value) = known.remove(&(from, part)) {
            known.insert((to, part), value);
        }
    }
}

impl Oracle {
    pub(crate) fn fail(&mut self, now: Nanos, what: String) {
        self.fault.get_or_insert((now, what));
    }

    /// How many requests instances have executed.
    pub(crate) fn executions(&self) -> u64 {
        self.executions.len() as u64
    }

    fn seen(&mut self, request: usize) -> &mut Seen {
        if self.seen.len() <= request {
            self.seen.resize(request + 1, Seen::default());
        }
        &mut self.seen[request]
    }

    pub(crate) fn routed(&mut self, asked: usize, target: Target) {
        if target != Target::Service(asked) {
            self.fail(Nanos::ZERO, format!("a request for service {asked} was routed to {target:?}"));
        }
    }

    /// A caller meets the same arm at every edge.
    pub(crate) fn placed(&mut self, asks: &Request, arm: Option<usize>) {
        let known = *self.arms.entry((asks.conf.number, asks.account * 8 + asks.asked)).or_insert(arm);
        if known != arm {
            self.fail(Nanos::ZERO, format!("account {} met arm {known:?} and {arm:?}", asks.account));
        }
    }

    /// An instance got a byte.
    pub(crate) fn touched(&mut self, conn: usize, request: usize) {
        let conns = &mut self.seen(request).conns;
        if !conns.contains(&conn) {
            conns.push(conn);
        }
    }

    /// A try came to something. The first head below 500 is the answer; short of one, the last failure is.
    /// `other`: there is a try beside this one.
    pub(crate) fn raced(&mut self, now: Nanos, request: usize, came: Came, next: Next, other: bool) {
        let seen = self.seen(request);
        let good = matches!(came, Came::Head(..500));
        let again = std::mem::replace(&mut seen.answered, good);
        let due = if good || !other { Next::Ends } else { Next::Waits };
        if again {
            self.fail(now, format!("request {request} was answered, and its tries went on"));
        } else if next != due {
            self.fail(
                now,
                format!("a try of request {request} came to {came:?}: {next:?}, another: {other}"),
            );
        }
    }

    /// An instance got the last byte, and executes it; the number of the execution.
    pub(crate) fn executed(&mut self, now: Nanos, request: usize, asks: &Request) -> u64 {
        let seen = self.seen(request);
        seen.whole += 1;
        let (whole, touched) = (seen.whole, seen.conns.len());
        let (id, safe) = (asks.key_id(), asks.method.is_safe());
        if touched > ATTEMPTS_MAX as usize {
            self.fail(now, format!("request {request} reached instances over {touched} connections"));
        }
        if !safe && whole > 1 {
            self.fail(now, format!("request {request} ({}) was executed {whole} times", asks.method));
        }
        if !safe && asks.key.is_none() && touched > 1 {
            self.fail(
                now,
                format!("request {request} without a key reached instances over {touched} connections"),
            );
        }
        let known = asks.conf.key_of(asks.account);
        if known.is_some_and(|key| key.rights == 0 || (!safe && key.rights == 1)) {
            self.fail(now, format!("request {request} was executed by a key without rights"));
        }
        if !safe && !World::may_trade(asks.account) {
            self.fail(now, format!("request {request} was executed without permission"));
        }
        let claims = self.claims.iter_mut().find(|((_, known), claims)| {
            *known == id && asks.key.is_some() && claims.iter().any(|claim| claim.request == request)
        });
        let mut twice = None;
        if let Some((_, claims)) = claims {
            let own = claims.iter().position(|claim| claim.request == request).unwrap_or(0);
            claims[own].executed = true;
            // The later claim has to come after the time of the earlier one, whichever is executed first.
            let holds = |at: usize| {
                let (first, second) = (&claims[own.min(at)], &claims[own.max(at)]);
                at != own && claims[at].executed && second.at_ms < first.expires_at_ms
            };
            twice = (0..claims.len()).find(|at| holds(*at)).map(|at| claims[at].request);
        }
        if let Some(other) = twice {
            self.fail(now, format!("requests {other} and {request} of one key were both executed"));
        }
        self.executions.push((request, id, asks.variant));
        self.executions.len() as u64 - 1
    }

    /// A request got its key.
    pub(crate) fn claimed(&mut self, store: usize, request: usize, id: Id, at_ms: u64, expires_at_ms: u64) {
        let claim = Claim { request, at_ms, expires_at_ms, executed: false };
        self.claims.entry((store, id)).or_default().push(claim);
    }

    /// The answer of an execution went out whole, and may be shown again.
    pub(crate) fn kept(&mut self, tag: u64, now: Nanos) {
        self.kept.insert(tag, now);
    }

    /// Whether an older answer is one to the same question, not too old, and to somebody who changes nothing.
    fn may_stand_in(&self, now: Nanos, asks: &Request, tag: u64) -> bool {
        let within = asks.conf.services[asks.asked].fallback.stale;
        let fresh = self.kept.get(&tag).is_some_and(|at| within.is_some_and(|most| now.since(*at) <= most));
        let same = self
            .executions
            .get(tag as usize)
            .is_some_and(|(_, (account, asked, _), _)| (*account, *asked) == (asks.account, asks.asked));
        fresh && same && asks.method == Method::Get
    }

    /// A client is told what became of its request.
    pub(crate) fn told(&mut self, now: Nanos, request: usize, asks: &Request, told: Told, edge_now: Nanos) {
        let touched = !self.seen(request).conns.is_empty();
        if asks.tries == 0 && touched {
            self.fail(now, format!("request {request} reached an instance without a try"));
        }
        let waited = edge_now.since(asks.arrived);
        if let Some(patience) = asks.patience.filter(|patience| asks.tries > 0 && waited > *patience) {
            self.fail(
                now,
                format!("request {request} is told after {waited:?}, and {patience:?} was all it had"),
            );
        }
        let of = |oracle: &Self, tag: u64| oracle.executions.get(tag as usize).copied();
        match told {
            Told::Refused(code, Some(Outcome::NotSent)) if touched => {
                self.fail(now, format!("request {request} was told not_sent ({}), and it was", code.word()));
            }
            Told::Refused(Code::RateLimited | Code::Overloaded | Code::InsufficientScope, _) if touched => {
                self.fail(now, format!("request {request} was refused, and sent"));
            }
            Told::Stale(tag) if !self.may_stand_in(now, asks, tag) => {
                self.fail(
                    now,
                    format!("request {request} was shown the answer of another, or too old a one"),
                );
            }
            Told::Answer(_, Some(tag)) if of(self, tag).is_none_or(|(by, ..)| by != request) => {
                self.fail(now, format!("request {request} got the answer of another"));
            }
            Told::Replay(_, Some(tag))
                if of(self, tag)
                    .is_none_or(|(_, id, variant)| id != asks.key_id() || variant != asks.variant) =>
            {
                self.fail(now, format!("request {request} was replayed the answer to another order"));
            }
            _ => {}
        }
    }

    /// A stream came to its end: nobody has taken its caller's key meanwhile.
    pub(crate) fn went_on(&mut self, now: Nanos, request: usize, asks: &Request, present: &Conf) {
        if asks.conf.key_of(asks.account) != present.key_of(asks.account) {
            self.fail(now, format!("stream {request} goes on by a key that is no longer as it was"));
        }
    }

    /// An edge gave way to its successor: what is under way is the old process's, what callers owe the new one's.
    pub(crate) fn handed_over(&mut self, edge: usize, old: usize) {
        hand_over(&mut self.gates, edge, old);
        hand_over(&mut self.breakers, edge, old);
        self.limits.hand_over(edge, old);
        self.picks.hand_over(edge, old);
    }

    /// The process of an edge is gone: what it knew counts no more.
    pub(crate) fn crashed(&mut self, edge: usize) {
        self.limits.forget(edge);
        self.gates.retain(|(at, _), _| *at != edge);
        self.breakers.retain(|(at, _), _| *at != edge);
        self.picks.forget(edge);
    }

    /// An edge has another configuration.
    pub(crate) fn reloaded(&mut self, edge: usize) {
        self.limits.forget_rates(edge);
    }
}
