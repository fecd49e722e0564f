//! What the edge keeps about each upstream: instances, breaker, choice of instance.
//!
//! It lives by name: a reload that names the service again finds breaker, in-flight counts, health and
//! averages as they were. Locks are held for one decision of sluice-policy each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use sluice_policy::balance::{Ask, Field, Flight, SharedMemory, Table};
use sluice_policy::breaker::{Breaker, Opened, Outcome, Permit, Rejected, Settings, Transition};
use sluice_policy::hedge::{self, Late, Latencies, Refused, Watch};
use sluice_policy::outlier::Outliers;
use sluice_policy::retry::{Budget, Failed, Stop, Verdict};
use sluice_policy::time::Nanos;
use sluice_schema::{Hedge, Service};

use crate::carry::Known;
use crate::endpoint::{Endpoint, Secure};
use crate::meters::RouteMeters;
use crate::upstream_tls::OwnIdentity;
use crate::{clock, ids};

/// A probe's place in a half-open breaker outlives the longest request by this.
const LEASE_SLACK: Duration = Duration::from_secs(5);

/// Told of every change of a breaker's state.
pub(crate) trait BreakerWatch: Send + Sync {
    /// A breaker changed.
    fn moved(&self, upstream: &Upstream, transition: Transition);
}

/// One upstream: a `[[service]]`, a registration or a worker.
pub(crate) struct Upstream {
    /// Its name.
    pub(crate) name: String,
    /// Its metrics.
    pub(crate) meters: Arc<RouteMeters>,
    /// Its instances now.
    roster: ArcSwap<Roster>,
    breaker: Mutex<Breaker>,
    /// Settings of its breaker from the configuration, so that a reload leaves settings that an operator
    /// changed at run time alone unless the file changed.
    configured: Mutex<sluice_schema::Breaker>,
    /// What can be picked, until something changes.
    field: ArcSwap<Field>,
    memory: SharedMemory,
    budget: Mutex<Budget>,
    outliers: Mutex<Outliers>,
    /// Of first tries that may be hedged, where what is usual says when.
    latencies: Mutex<Latencies>,
    watch: Arc<dyn BreakerWatch>,
}

/// The instances of an upstream in one configuration.
#[derive(Default)]
pub(crate) struct Roster {
    table: Table,
    endpoints: Vec<Arc<Endpoint>>,
}

/// Leave of the breaker; counts as neutral when dropped without an outcome.
pub(crate) struct BreakerLeave {
    upstream: Arc<Upstream>,
    permit: Option<Permit>,
}

impl Upstream {
    /// An upstream that is seen for the first time.
    pub(crate) fn new(service: &Service, meters: Arc<RouteMeters>, watch: Arc<dyn BreakerWatch>) -> Self {
        Self {
            name: service.name.clone(),
            meters,
            roster: ArcSwap::default(),
            breaker: Mutex::new(Breaker::new(settings(service, service.breaker.clone()))),
            configured: Mutex::new(service.breaker.clone()),
            field: ArcSwap::default(),
            memory: SharedMemory::default(),
            budget: Mutex::new(Budget::new(&service.retry)),
            outliers: Mutex::new(Outliers::new(service.outlier.clone(), [])),
            latencies: Mutex::default(),
            watch,
        }
    }

    /// Takes the settings of a new generation, for an edge in this zone; state stays.
    pub(crate) fn configure(&self, service: &Service, zone: &str, secure: &Secure<'_>) {
        let mut configured = lock(&self.configured);
        let mut breaker = self.breaker();
        let conf = if *configured == service.breaker {
            breaker.settings().conf.clone()
        } else {
            configured.clone_from(&service.breaker);
            service.breaker.clone()
        };
        breaker.configure(settings(service, conf));
        drop((breaker, configured));
        lock(&self.budget).configure(&service.retry);
        let roster = self.roster.load().reconcile(service, zone, secure);
        let mut outliers = lock(&self.outliers);
        outliers.configure(&service.outlier);
        outliers.reconcile(roster.endpoints.iter().map(|endpoint| endpoint.instance.id));
        drop(outliers);
        self.roster.store(Arc::new(roster));
    }

    /// Its instances now.
    pub(crate) fn roster(&self) -> Arc<Roster> {
        self.roster.load_full()
    }

    /// Takes the vault's present identity for its connections from now on.
    pub(crate) fn dress(&self, own: Option<&OwnIdentity>) {
        for endpoint in self.roster.load().endpoints.iter().filter(|endpoint| endpoint.follows_vault()) {
            endpoint.dress(own);
            if own.is_some() {
                endpoint.wait_no_longer();
            }
        }
    }

    /// Lets requests wait for the vault no longer.
    pub(crate) fn wait_no_longer(&self) {
        let roster = self.roster.load();
        roster.endpoints.iter().filter(|endpoint| endpoint.follows_vault()).for_each(|e| e.wait_no_longer());
    }

    /// Its breaker, locked for one decision.
    pub(crate) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        lock(&self.breaker)
    }

    /// Does something to the breaker and tells of a change of its state.
    pub(crate) fn with_breaker<T>(&self, act: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breaker = self.breaker();
        let result = act(&mut breaker);
        let moved = breaker.take_transition();
        drop(breaker);
        if let Some(transition) = moved {
            self.watch.moved(self, transition);
        }
        result
    }

    /// Asks the breaker for leave.
    pub(crate) fn acquire(self: &Arc<Self>) -> Result<BreakerLeave, Rejected> {
        let now = clock::now();
        let granted = self.with_breaker(|breaker| {
            let granted = breaker.try_acquire(now, ids::random());
            (granted, breaker.state())
        });
        match granted {
            (Ok(permit), state) => {
                self.meters.breaker_requests[usize::from(state.gauge())].inc();
                Ok(BreakerLeave { upstream: Arc::clone(self), permit: Some(permit) })
            }
            (Err(rejected), state) => {
                self.meters.breaker_requests[usize::from(state.gauge())].inc();
                self.meters.breaker_rejected.inc();
                Err(rejected)
            }
        }
    }

    /// Picks an instance; `key` is what the request is placed by, `tried` are the ids used for it.
    pub(crate) fn pick(&self, key: u64, tried: &[u32]) -> Option<(Arc<Endpoint>, Flight)> {
        let (roster, now) = (self.roster.load(), clock::now());
        let ask = Ask { seed: ids::random(), key, tried };
        let index = self.field(&roster.table, now).pick(&ask, now, &self.memory)?;
        let endpoint = roster.endpoints.get(index)?;
        Some((Arc::clone(endpoint), endpoint.instance.begin()))
    }

    /// What can be picked now: as it was, or made anew by the first that finds it changed.
    fn field(&self, table: &Table, now: Nanos) -> Guard<Arc<Field>> {
        loop {
            let field = self.field.load();
            if field.holds(table, now) {
                return field;
            }
            let next = Arc::new(field.next(table, now));
            let _first = self.field.compare_and_swap(&*field, next);
        }
    }

    /// Counts a first try in the retry budget.
    pub(crate) fn count_request(&self) {
        lock(&self.budget).request(clock::now());
    }

    /// Decides whether a failed try is made again, and when.
    pub(crate) fn decide_retry(&self, failed: &Failed) -> Option<Duration> {
        let verdict = lock(&self.budget).decide(failed, clock::now(), ids::random());
        match verdict {
            Verdict::Again(delay) => Some(delay),
            Verdict::Stop(stop) => {
                if stop == Stop::Budget {
                    self.meters.retry_budget.inc();
                }
                None
            }
        }
    }

    /// How a try of a request is watched for being silent.
    pub(crate) fn watch(&self, hedge: Hedge, ask: hedge::Ask) -> Watch {
        hedge::watch(hedge, &ask, || lock(&self.latencies).p95())
    }

    /// Notes the time to the head of a first try that was watched, or that it had.
    pub(crate) fn note_head(&self, took: Duration) {
        lock(&self.latencies).record(took);
    }

    /// Decides about a second try beside a silent one, and charges it.
    pub(crate) fn decide_hedge(&self, tries: u32, left: Duration) -> bool {
        let late = Late { tries, breaker: self.breaker().state(), left };
        let decided = lock(&self.budget).hedge(&late, clock::now());
        if decided == Err(Refused::Budget) {
            self.meters.retry_budget.inc();
        }
        decided.is_ok()
    }

    /// Counts how a try at an instance ended, and after what time; enough failures in a row leave it alone for a
    /// while.
    pub(crate) fn judge(&self, endpoint: &Endpoint, outcome: Outcome, took: Duration) {
        let now = clock::now();
        match outcome {
            Outcome::Failure => endpoint.instance.observe_failure(took, now),
            Outcome::Success | Outcome::Neutral => endpoint.instance.observe(took, now),
        }
        let ejection = lock(&self.outliers).record(endpoint.instance.id, outcome, now, ids::random());
        if let Some(ejection) = ejection {
            endpoint.instance.eject_until(ejection.until);
            self.meters.ejections.inc();
            tracing::warn!(
                component = "upstream",
                service = self.name.as_str(),
                instance = %endpoint.instance.url,
                for_ms = ejection.until.since(now).as_millis() as u64,
                "instance ejected"
            );
        }
    }

    /// Counts a probe that began at a moment: good ones take an ejected instance back before its time.
    pub(crate) fn probed(&self, endpoint: &Endpoint, good: bool, began: Nanos, needed: u32) {
        let now = clock::now();
        if lock(&self.outliers).probed(endpoint.instance.id, good, began, needed, now) {
            endpoint.instance.eject_until(now);
            tracing::info!(
                component = "upstream",
                service = self.name.as_str(),
                instance = %endpoint.instance.url,
                "instance back early: its probes are good"
            );
        }
    }

    /// What is known of its instances.
    pub(crate) fn known(&self) -> Vec<Known> {
        let (roster, outliers, now) = (self.roster.load(), lock(&self.outliers), clock::now());
        let known = |endpoint: &Arc<Endpoint>| {
            let instance = &endpoint.instance;
            let (left, ejections) = outliers.ejection(instance.id, now);
            Known {
                url: instance.url.to_string(),
                healthy: instance.is_healthy(),
                ejected_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                ejections,
                ewma_us: u64::try_from(instance.ewma().as_micros()).unwrap_or(u64::MAX),
            }
        };
        roster.endpoints.iter().map(known).collect()
    }

    /// Takes what a predecessor knew of its instances.
    pub(crate) fn recall(&self, known: &[Known]) {
        let (roster, now) = (self.roster.load(), clock::now());
        for Endpoint { instance, .. } in roster.endpoints.iter().map(AsRef::as_ref) {
            let url = instance.url.to_string();
            let Some(known) = known.iter().find(|known| known.url == url) else { continue };
            // What this process has found out itself is newer.
            instance.mark_healthy(known.healthy && instance.is_healthy(), now);
            if instance.ewma().is_zero() && known.ewma_us > 0 {
                instance.average(Duration::from_micros(known.ewma_us));
            }
            let left = Duration::from_millis(known.ejected_ms);
            let ejected = lock(&self.outliers).restore(instance.id, left, known.ejections, now);
            if let Some(until) = ejected {
                instance.eject_until(until);
            }
        }
        self.publish_health();
    }

    /// Opens its breaker as a predecessor had it.
    pub(crate) fn reopen(&self, opened: &Opened) {
        let state = self.with_breaker(|breaker| {
            breaker.reopen(opened, clock::now());
            breaker.state()
        });
        self.meters.breaker_state.set(state.gauge().into());
    }

    /// Sets the gauge of healthy services.
    pub(crate) fn publish_health(&self) {
        let roster = self.roster.load();
        let healthy = roster.endpoints.iter().any(|endpoint| endpoint.serves());
        self.meters.health.set(i64::from(healthy));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settings(service: &Service, conf: sluice_schema::Breaker) -> Settings {
    Settings { conf, probe_lease: service.timeouts.total + LEASE_SLACK }
}

impl Roster {
    fn reconcile(&self, service: &Service, zone: &str, secure: &Secure<'_>) -> Self {
        let table = self.table.reconcile(service, zone, clock::now());
        let endpoints = table
            .instances()
            .iter()
            .map(|instance| {
                let known = self.endpoints.iter().find(|known| known.instance.id == instance.id);
                Arc::new(Endpoint::new(Arc::clone(instance), service, secure, known.map(AsRef::as_ref)))
            })
            .collect();
        Self { table, endpoints }
    }

    /// The instances, in file order.
    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }
}

impl BreakerLeave {
    /// Whether another try may still be made with it.
    pub(crate) fn stands(&self) -> bool {
        let breaker = self.upstream.breaker();
        self.permit.as_ref().is_some_and(|permit| breaker.stands(permit, clock::now()))
    }

    /// Tells the breaker how the call ended.
    pub(crate) fn record(mut self, outcome: Outcome, latency: Duration) {
        let Some(permit) = self.permit.take() else { return };
        if outcome == Outcome::Failure {
            self.upstream.meters.breaker_failures.inc();
        }
        let now = clock::now();
        self.upstream.with_breaker(|breaker| breaker.record(permit, outcome, latency, now, ids::random()));
    }
}

impl Drop for BreakerLeave {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.upstream.with_breaker(|breaker| breaker.cancel(permit, clock::now()));
        }
    }
}
