//! Rates and budgets, counted anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sluice_policy::Nanos;
use sluice_policy::limit::{Limit, Verdict};
use sluice_policy::retry::{Failed, Verdict as Retried, WINDOW};
use sluice_schema::Retry;

use super::super::request::Request;
use super::{At, Oracle};

/// What passed each limit.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// By edge, service and account.
    rates: BTreeMap<(usize, usize, usize), Rate>,
    budgets: BTreeMap<At, Budget>,
    /// Edges whose limits have changed: what callers owe by the old ones counts on.
    changed: BTreeSet<usize>,
}

/// Requests of one caller that passed. With `n` the number of one and `t` its moment, `n × per - requests × t` may
/// never exceed its least value by more than the burst: the rule for every span of time at once.
#[derive(Debug, Default)]
struct Rate {
    passed: i128,
    least: Option<i128>,
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

    pub(super) fn forget_rates(&mut self, edge: usize) {
        self.rates.retain(|(at, ..), _| *at != edge);
        self.changed.insert(edge);
    }
}

impl Oracle {
    pub(crate) fn limited(&mut self, now: Nanos, asks: &Request, limit: &Limit, verdict: Verdict) {
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
            !owes && limit.hard.is_none() && used <= (burst - 1) * per
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

    pub(crate) fn budget_request(&mut self, now: Nanos, edge: usize, service: usize) {
        self.limits.budgets.entry((edge, service)).or_default().requests.push_back(now);
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
        let budget = self.limits.budgets.entry(at).or_default();
        budget.retries.push_back(now);
        let since = |list: &VecDeque<Nanos>, span: Duration| {
            list.iter().rev().take_while(|one| now.since(**one) <= span).count()
        };
        // The edge's window is nine to ten tenths of this.
        let (retries, requests) = (since(&budget.retries, WINDOW * 9 / 10), since(&budget.requests, WINDOW));
        let room = retry.budget * requests as f64 + f64::from(retry.min_per_second) * WINDOW.as_secs_f64();
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
