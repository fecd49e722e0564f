//! What each breaker should do, by what its calls came to.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_policy::Nanos;
use sluice_policy::breaker::{
    Breaker, Metrics, OPEN_MAX, Opened, Outcome, Permit, Reason, Rejected, State, Transition,
};

use super::super::World;
use super::super::request::Request;
use super::{At, Oracle};

/// One breaker as its calls make it.
#[derive(Debug)]
pub(crate) struct Shadow {
    state: State,
    /// Counts changes of state, and resets.
    epoch: u64,
    /// Failures in a row of this epoch's calls.
    row: u32,
    /// Calls of this epoch that count.
    calls: u32,
    retry_at: Nanos,
    reopened: u32,
    /// Permits out, by request.
    permits: BTreeMap<usize, Granted>,
    /// A probe has failed, so it has to be open.
    must_open: bool,
    /// The call that ended last counted: the row was looked at.
    looked: bool,
}

#[derive(Clone, Copy, Debug)]
struct Granted {
    epoch: u64,
    probe: bool,
    /// Of a probe: until when it has its place.
    until: Nanos,
}

impl Default for Shadow {
    fn default() -> Self {
        Self {
            state: State::Closed,
            epoch: 0,
            row: 0,
            calls: 0,
            retry_at: Nanos::ZERO,
            reopened: 0,
            permits: BTreeMap::new(),
            must_open: false,
            looked: false,
        }
    }
}

impl Shadow {
    fn probes(&self, now: Nanos) -> u32 {
        let live = |granted: &&Granted| granted.probe && granted.epoch == self.epoch && now < granted.until;
        self.permits.values().filter(live).count() as u32
    }

    fn lets_all_through(&self) -> bool {
        matches!(self.state, State::Closed | State::ForcedClosed | State::Disabled)
    }

    fn enter(&mut self, state: State) {
        (self.state, self.row, self.calls) = (state, 0, 0);
        self.epoch += 1;
    }
}

impl Oracle {
    fn breaker(&mut self, at: At) -> &mut Shadow {
        self.breakers.entry(at).or_default()
    }

    /// A call was granted.
    pub(crate) fn permitted(
        &mut self,
        world: Nanos,
        at: At,
        request: usize,
        permit: &Permit,
        breaker: &Breaker,
        now: Nanos,
    ) {
        let settings = breaker.settings();
        let (most, until) = (settings.conf.half_open_max.max(1), now.plus(settings.probe_lease));
        let shadow = self.breaker(at);
        let (state, probes) = (shadow.state, shadow.probes(now));
        let good =
            shadow.lets_all_through() || (state == State::HalfOpen && permit.is_probe() && probes < most);
        shadow.permits.insert(request, Granted { epoch: shadow.epoch, probe: permit.is_probe(), until });
        if !good {
            self.fail(
                world,
                format!(
                    "request {request} got leave of a breaker that is {state:?} with {probes} probes out"
                ),
            );
        }
    }

    /// A call was refused.
    pub(crate) fn rejected(
        &mut self,
        world: Nanos,
        at: At,
        rejected: Rejected,
        breaker: &Breaker,
        now: Nanos,
    ) {
        let most = breaker.settings().conf.half_open_max.max(1);
        let shadow = self.breaker(at);
        let due = shadow.state == State::Open && now >= shadow.retry_at;
        let free = shadow.state == State::HalfOpen && shadow.probes(now) < most;
        if rejected.state != shadow.state || shadow.lets_all_through() || due || free {
            let state = shadow.state;
            self.fail(world, format!("a breaker that is {state:?} refused (due={due}, free probe={free})"));
        }
    }

    /// It changed its state.
    pub(crate) fn moved(
        &mut self,
        world: Nanos,
        at: At,
        moved: Transition,
        metrics: &Metrics,
        conf: &sluice_schema::Breaker,
    ) {
        let clean = self.is_clean;
        let shadow = self.breaker(at);
        let mut fault = (moved.from != shadow.state)
            .then(|| format!("a breaker left {:?}, which it was not in", moved.from));
        match moved.reason {
            Reason::Consecutive if shadow.row < conf.failure_threshold => {
                fault = Some(format!("a breaker opened after {} failures in a row", shadow.row));
            }
            Reason::FailureRate | Reason::SlowRate if shadow.calls < conf.min_calls => {
                fault = Some(format!("a breaker opened by a rate of {} calls", shadow.calls));
            }
            Reason::RecoveryDue if moved.at < shadow.retry_at => {
                fault = Some("a breaker probes early".to_owned());
            }
            Reason::ProbeFailed => shadow.reopened += 1,
            Reason::Recovered | Reason::Reset => shadow.reopened = 0,
            _ => {}
        }
        shadow.enter(moved.to);
        if moved.to == State::Open {
            shadow.must_open = false;
            shadow.retry_at = metrics.retry_at.unwrap_or(Nanos::ZERO);
            let base = conf.recovery_timeout;
            let time = base.saturating_mul(1 << shadow.reopened.min(16)).min(base.max(OPEN_MAX));
            let (open, tenth) = (shadow.retry_at.since(moved.at), time / 10 + Duration::from_nanos(100));
            if open + tenth < time || open > time + tenth {
                fault = Some(format!("a breaker stays open for {open:?} where {time:?} is due"));
            }
            // A rate still counts what failed before, and is looked at when any call ends.
            if clean && matches!(moved.reason, Reason::Consecutive | Reason::ProbeFailed) {
                fault = Some(format!("a breaker opened with nothing wrong: {:?}", moved.reason));
            }
        }
        if let Some(fault) = fault {
            self.fail(world, fault);
        }
    }

    /// An operator reset or forced it; a change of state was told already.
    pub(crate) fn handled(&mut self, at: At, state: State) {
        let shadow = self.breaker(at);
        shadow.enter(state);
        shadow.must_open = false;
        if state == State::Closed {
            shadow.reopened = 0;
        }
    }

    /// A successor took over an open breaker, as long as it would have been open.
    pub(crate) fn resumed(&mut self, world: Nanos, at: At, breaker: &Breaker, opened: &Opened, now: Nanos) {
        let (state, retry_at) = (breaker.state(), breaker.metrics(now).retry_at.unwrap_or(Nanos::ZERO));
        let shadow = self.breaker(at);
        shadow.enter(state);
        (shadow.retry_at, shadow.reopened) = (retry_at, opened.reopened);
        if state != State::Open || retry_at != now.plus(opened.retry_in) {
            self.fail(world, format!("a successor's breaker is {state:?} and was to be open"));
        }
    }

    /// A try begins: the breaker still lets this request through, and no switch stops it.
    pub(crate) fn begins(&mut self, world: Nanos, request: usize, asks: &Request, stopped: bool, now: Nanos) {
        let shadow = self.breaker((asks.edge, asks.service));
        let live = shadow
            .permits
            .get(&request)
            .is_some_and(|granted| granted.epoch == shadow.epoch && now < granted.until);
        let (state, tries) = (shadow.state, asks.tries);
        if !(shadow.lets_all_through() || (state == State::HalfOpen && live)) {
            self.fail(
                world,
                format!(
                    "request {request} is sent to a service whose breaker is {state:?}, after {tries} tries"
                ),
            );
        }
        if stopped {
            self.fail(world, format!("request {request} is sent, and a switch stops it"));
        }
        let late = asks.patience.is_some_and(|patience| now.since(asks.arrived) >= patience);
        if late || asks.deadline.total(now).is_err() {
            self.fail(world, format!("request {request} is tried beyond its deadline"));
        }
    }

    /// A permit goes back.
    pub(crate) fn settled(&mut self, at: At, request: usize, call: Outcome, now: Nanos) {
        let shadow = self.breaker(at);
        shadow.looked = false;
        let Some(granted) = shadow.permits.remove(&request) else { return };
        if granted.epoch != shadow.epoch || (granted.probe && now >= granted.until) {
            return;
        }
        match (shadow.state, call) {
            (State::Closed, Outcome::Failure) => {
                (shadow.row, shadow.calls, shadow.looked) = (shadow.row + 1, shadow.calls + 1, true);
            }
            (State::Closed, Outcome::Success) => (shadow.row, shadow.calls) = (0, shadow.calls + 1),
            (State::HalfOpen, Outcome::Failure) => shadow.must_open = true,
            _ => {}
        }
    }

    /// After it.
    pub(crate) fn after_settled(&mut self, world: Nanos, at: At, breaker: &Breaker) {
        let threshold = breaker.settings().conf.failure_threshold;
        let shadow = self.breaker(at);
        let (row, state) = (shadow.row, shadow.state);
        // A reload may have set the threshold below a row that is there: the next failure finds it.
        if state == State::Closed && row >= threshold.max(1) && shadow.looked {
            self.fail(world, format!("a breaker is closed after {row} failures in a row"));
        } else if shadow.must_open {
            self.fail(world, format!("a probe failed, and the breaker is {state:?}"));
        } else if breaker.state() != state {
            let real = breaker.state();
            self.fail(world, format!("a breaker is {real:?} and told of {state:?}"));
        }
    }
}

impl World {
    /// When the breakers that are not closed will be at the latest, if nothing goes wrong any more.
    pub(crate) fn recovery_due(&self) -> Nanos {
        let mut due = self.now;
        for edge in &self.edges {
            for (service, way) in edge.ways.iter().enumerate() {
                let conf = &edge.conf.services[service];
                let now = edge.clock(self.now);
                let health = conf.health.interval * 2 * (conf.health.healthy + 1);
                let retry_at = way.breaker.metrics(now).retry_at.unwrap_or(now).max(now.plus(health));
                let probes = Duration::from_millis(250) * (conf.breaker.success_threshold + 4);
                due = due.max(edge.world(retry_at).plus(probes));
            }
        }
        due
    }
}
