//! Rates and budgets, counted anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sluice_policy::Nanos;
use sluice_policy::limit::lease::LATE;
use sluice_policy::limit::{Limit, Verdict};
use sluice_policy::method::Method;
use sluice_policy::retry::{Failed, Verdict as Retried, WINDOW};
use sluice_schema::{Balance, Hedge, Retry};

use super::super::request::Request;
use super::{At, Oracle};

/// What passed each limit.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// By edge, service and account.
    rates: BTreeMap<(usize, usize, usize), Rate>,
    budgets: BTreeMap<At, Budget>,
    /// Of all edges together, by service and account.
    joint: BTreeMap<(usize, usize), Rate>,
    /// Edges whose limits have changed: what callers owe by the old ones counts on.
    changed: BTreeSet<usize>,
}

/// Requests of one caller that passed. With `n` the number of one and `t` its moment, `n × per - requests × t` may
/// never exceed its least value by more than the burst: the rule for every span of time at once.
#[derive(Debug, Default)]
struct Rate {
    passed: i128,
    least: Option<i128>,
    /// The store decides about them.
    waiting: i128,
}

#[derive(Debug, Default)]
struct Budget {
    requests: VecDeque<Nanos>,
    retries: VecDeque<Nanos>,
}

impl Limits {
    pub(super) fn forget(&mut self, edge: usize) {
        self.forget_rates(edge);
        self.changed.remove(&edge);
        self.budgets.retain(|(at, _), _| *at != edge);
    }

    /// What callers owe goes along; a budget begins anew.
    pub(super) fn hand_over(&mut self, edge: usize, old: usize) {
        super::hand_over(&mut self.budgets, edge, old);
    }

    pub(super) fn forget_rates(&mut self, edge: usize) {
        self.rates.retain(|(at, ..), _| *at != edge);
        self.changed.insert(edge);
    }
}

impl Oracle {
    pub(crate) fn limited(
        &mut self,
        now: Nanos,
        asks: &Request,
        limit: &Limit,
        verdict: Verdict,
        by_others: bool,
    ) {
        let owes = self.limits.changed.contains(&asks.edge);
        let rate = self.limits.rates.entry((asks.edge, asks.asked, asks.account)).or_default();
        let (per, requests) = (limit.per.as_nanos() as i128, i128::from(limit.requests));
        let burst =
            asks.conf.services[asks.asked].rate_limit.as_ref().map_or(1, |rate| i128::from(rate.burst));
        let place = rate.passed * per - requests * i128::from(now.0);
        let least = rate.least.map_or(place, |least| least.min(place));
        let used = place - least + per;
        let faulty = if verdict.decision.allowed {
            (rate.passed, rate.least) = (rate.passed + 1, Some(least));
            used > burst * per
        } else {
            !owes && !by_others && limit.hard.is_none() && used <= (burst - 1) * per
        };
        if faulty {
            let (account, service, allowed) = (asks.account, asks.asked, verdict.decision.allowed);
            let used = used / per;
            self.fail(
                now,
                format!(
                    "rate of account {account} at service {service}: allowed={allowed} at {used} of {burst}"
                ),
            );
        }
    }

    /// A limit that edges share was asked, and its store has always answered: nobody is refused whose bucket has been
    /// whole for a moment. What all of them admit is counted in [`Oracle::lent`].
    pub(crate) fn limited_by_all(
        &mut self,
        now: Nanos,
        asks: &Request,
        limit: &Limit,
        verdict: Verdict,
        refused: bool,
    ) {
        let rate = self.limits.joint.entry((asks.asked, asks.account)).or_default();
        let (per, requests) = (i128::from(limit.soft_terms.per_us), i128::from(limit.soft_terms.requests));
        let place = rate.passed * per - requests * i128::from(now.0 / 1_000);
        // As many may wait as an edge's own bucket holds, which judges first and may be smaller than the shared one.
        let burst =
            asks.conf.services[asks.asked].rate_limit.as_ref().map_or(1, |rate| i128::from(rate.burst));
        let spoken_for = rate.waiting >= burst.min(i128::from(limit.soft_terms.capacity));
        let known = rate.least.unwrap_or(i128::MAX);
        if verdict.decision.allowed {
            (rate.passed, rate.least) = (rate.passed + 1, Some(known.min(place)));
        } else if refused && !spoken_for && known.saturating_sub(place) > requests * LATE.as_micros() as i128
        {
            // The store counts a request when it hears of it.
            let (account, service, waiting) = (asks.account, asks.asked, rate.waiting);
            self.fail(
                now,
                format!("all edges, account {account} at service {service}: refused, and nothing is in use ({waiting} wait of {})", limit.soft_terms.capacity),
            );
        }
    }

    /// A request waits for the store of shared limits, or does so no longer.
    pub(crate) fn limit_waits(&mut self, asks: &Request, waits: bool) {
        let rate = self.limits.joint.entry((asks.asked, asks.account)).or_default();
        rate.waiting += if waits { 1 } else { -1 };
    }

    pub(crate) fn budget_request(&mut self, now: Nanos, edge: usize, service: usize) {
        self.limits.budgets.entry((edge, service)).or_default().requests.push_back(now);
    }

    /// A second try begins beside a first one.
    pub(crate) fn hedged(
        &mut self,
        world: Nanos,
        at: At,
        request: usize,
        asks: &Request,
        retry: &Retry,
        now: Nanos,
    ) {
        let (spent, room) = self.charge(at, retry, now);
        let conf = &asks.conf.services[asks.service];
        let silent = now.since(asks.try_began);
        let what = if spent as f64 > room {
            format!("hedges exceed the budget of retries: {spent} of {room}")
        } else if asks.tries != 1 || retry.attempts < 2 {
            format!("request {request} is hedged after {} tries", asks.tries)
        } else if asks.method != Method::Get || asks.has_body() || asks.streams {
            format!("request {request} ({}) is sent twice at once", asks.method)
        } else if conf.balance == Balance::Sticky {
            format!("request {request} of a bound caller is sent twice")
        } else if matches!(conf.retry.hedge, Hedge::After(after) if silent < after) {
            format!("request {request} is hedged after {silent:?}")
        } else if asks.conf.services[asks.asked].fallback.stale.is_some() {
            format!("request {request} is hedged on the general way")
        } else if conf.retry.hedge == Hedge::Off || silent < Duration::from_millis(5) {
            format!("request {request} is hedged at once")
        } else {
            return;
        };
        self.fail(world, what);
    }

    /// Retries of the present window with this one, and how many there may be.
    fn charge(&mut self, at: At, retry: &Retry, now: Nanos) -> (usize, f64) {
        let budget = self.limits.budgets.entry(at).or_default();
        budget.retries.push_back(now);
        let since = |list: &VecDeque<Nanos>, span: Duration| {
            list.iter().rev().take_while(|one| now.since(**one) <= span).count()
        };
        // The edge's window is nine to ten tenths of this.
        let (retries, requests) = (since(&budget.retries, WINDOW * 9 / 10), since(&budget.requests, WINDOW));
        (retries, retry.budget * requests as f64 + f64::from(retry.min_per_second) * WINDOW.as_secs_f64())
    }

    /// A failed try was judged.
    #[expect(clippy::too_many_arguments, reason = "an oracle is told everything")]
    pub(crate) fn decided(
        &mut self,
        world: Nanos,
        at: At,
        request: usize,
        asks: &Request,
        failed: &Failed,
        verdict: Retried,
        retry: &Retry,
        now: Nanos,
    ) {
        let Retried::Again(delay) = verdict else { return };
        let (retries, room) = self.charge(at, retry, now);
        let is_half = failed.keyed_part && asks.key.is_some() && !asks.handed;
        let what = if retries as f64 > room {
            format!("retries exceed their budget: {retries} of {room}")
        } else if failed.tries >= retry.attempts {
            format!("request {request} is tried more than {} times", retry.attempts)
        } else if asks.sent && !asks.method.is_safe() && !is_half {
            format!("request {request} ({}) is sent again", asks.method)
        } else if failed.left.is_some_and(|left| delay >= left) {
            format!("request {request} is tried again beyond its deadline")
        } else {
            return;
        };
        self.fail(world, what);
    }
}
