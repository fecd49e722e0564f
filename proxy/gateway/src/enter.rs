//! What an admitted request needs before it goes to its upstream: an arm where its service is split, a fresh enough
//! word of the vault for an order, its turn at the upstream's gate, leave of the service's breaker.

use std::future::pending;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use pingora::proxy::Session;
use sluice_policy::deadline::USEFUL_MIN;
use sluice_policy::framing::BodyFraming;
use sluice_policy::gate::Lane;
use sluice_policy::limit::Who;
use sluice_wire::code::Code;
use sluice_wire::problem::Problem;
use sluice_wire::role::Role;

use crate::admit::{decided, not_sent};
use crate::clock;
use crate::ctx::{Exchange, Target};
use crate::due;
use crate::forward::ending;
use crate::idempotency::check_call;
use crate::lanes::{Came, Refused, Waiting};
use crate::respond::Answer;
use crate::shape;
use crate::state::Shared;

/// Scope of the keys by which accounts are told apart at a gate.
const ACCOUNTS: &str = "lanes";
/// A client that was turned away comes back after this.
const RETRY_S: u64 = 1;

/// Whoever waits for an answer.
pub(crate) trait Waits: Send {
    /// The fields of its request.
    fn headers(&self) -> &HeaderMap;

    /// Ends when it has left; may never end. Nothing of the request is lost by dropping it.
    fn left(&mut self, x: &Exchange) -> impl Future<Output = ()> + Send;
}

impl Waits for Session {
    fn headers(&self) -> &HeaderMap {
        &self.req_header().headers
    }

    /// Nothing is read of a request that has a body: whether its client has left is seen by its upstream.
    async fn left(&mut self, x: &Exchange) {
        if x.arrival.body != BodyFraming::None {
            return pending().await;
        }
        // Only an error ends it: there is no body.
        while self.as_mut().read_body_or_idle(true).await.is_ok() {}
    }
}

/// Why a request does not go to its upstream.
pub(crate) enum Turned {
    /// The answer that says so; the upstream is not touched.
    Away(Answer),
    /// Nobody is there to read one.
    Left,
}

impl From<Answer> for Turned {
    fn from(answer: Answer) -> Self {
        Self::Away(answer)
    }
}

/// Lets an admitted request in, when it is its turn.
pub(crate) async fn enter(shared: &Shared, x: &mut Exchange, client: &mut impl Waits) -> Result<(), Turned> {
    check_call(x)?;
    shape::place(x);
    trust_order(shared, x)?;
    if let Some(waiting) = ask_gate(shared, x, client.headers())? {
        // Boxed: who goes at once has no room for a wait.
        let turn = Box::pin(waiting.turn(client.left(x))).await;
        x.pass = Some(turn.map_err(|refused| turned(x, refused))?);
    }
    ask_breaker(x).inspect_err(|_| x.pass = None)?;
    if let Target::Service(route) = &x.target {
        route.upstream.count_request();
    }
    Ok(())
}

/// An order on the word of a caller that may have been revoked meanwhile is not passed on.
fn trust_order(shared: &Shared, x: &mut Exchange) -> Result<(), Answer> {
    let is_order = matches!(&x.target, Target::Service(route) if route.service.lane == Lane::Order);
    if !is_order || x.identity.is_none() {
        return Ok(());
    }
    let is_old = match shared.trust.age_ms() {
        Some(age_ms) => Duration::from_millis(age_ms) > x.generation.config.auth.feed_max_age,
        // Where there is no vault there is nothing to be heard.
        None => shared.sockets.contains_key(&Role::Vault),
    };
    if !is_old {
        return Ok(());
    }
    let detail = "revocations were not heard of lately, so orders are not passed on";
    let problem = Problem::new(Code::AuthStale).detail(detail).retry_after_s(RETRY_S);
    let answer = Answer::problem(not_sent(x, problem));
    Err(decided(x, Code::AuthStale.word(), answer))
}

/// Takes a place at the upstream, or one in its queue.
fn ask_gate(shared: &Shared, x: &mut Exchange, headers: &HeaderMap) -> Result<Option<Waiting>, Turned> {
    let approach = match &x.target {
        Target::Service(route) => &route.approach,
        Target::Worker(worker) => match &worker.approach {
            Some(approach) => approach,
            None => return Ok(None),
        },
        Target::Page => return Ok(None),
    };
    let subject = x.identity.as_ref().map(|identity| identity.claims.sub.as_str());
    let header = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let who = Who::of(&approach.fair_key, subject, x.client, header);
    match approach.come(shared.keyer().short_key(ACCOUNTS, who), x.left()) {
        Came::Goes(pass) => {
            x.pass = Some(pass);
            Ok(None)
        }
        Came::Waits(waiting) => Ok(Some(waiting)),
        Came::Shed => Err(turned(x, Refused::Full)),
    }
}

fn turned(x: &mut Exchange, refused: Refused) -> Turned {
    let (decision, detail) = match refused {
        Refused::Full => ("shed", "the service has more requests than it can take"),
        Refused::Late if x.left().is_some_and(|left| left < USEFUL_MIN) => {
            return Turned::Away(due::over(x));
        }
        Refused::Late => ("queue_timeout", "the service did not get to this request in time"),
        Refused::Left => {
            x.decision = "client_left";
            return Turned::Left;
        }
    };
    let problem = Problem::new(Code::Overloaded).detail(detail).retry_after_s(RETRY_S);
    let answer = Answer::problem(not_sent(x, problem));
    Turned::Away(decided(x, decision, answer))
}

/// Asks the service's breaker; an open one answers without touching the upstream.
fn ask_breaker(x: &mut Exchange) -> Result<(), Answer> {
    let Target::Service(route) = &x.target else { return Ok(()) };
    match route.upstream.acquire() {
        Ok(leave) => {
            x.leave = Some(leave);
            Ok(())
        }
        Err(rejected) => {
            let problem = Problem::new(Code::BreakerOpen)
                .detail("the service failed lately and is given time to recover")
                .retry_after_s(clock::retry_after_s(rejected.retry_after));
            let answer = Answer::problem(not_sent(x, problem));
            Err(decided(x, "breaker_open", answer))
        }
    }
}

/// A long answer begins: from now on its client can keep it waiting, and must not keep others from the upstream.
pub(crate) fn lend(x: &mut Exchange) {
    if let Some(pass) = x.pass.take() {
        x.arrival.link.lent().put(pass, ending(x).for_gate());
    }
}

/// Gives the place at the upstream back: it has done its part, or its answer turned out to be a stream.
pub(crate) fn leave(x: &mut Exchange) {
    if let Some(pass) = x.pass.take().or_else(|| x.arrival.link.lent().take()) {
        pass.left(ending(x).for_gate());
    }
}
