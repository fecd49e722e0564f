//! What the edge keeps about each upstream: instances, breaker, choice of instance.
//!
//! It lives by name: a reload that names the service again finds breaker, in-flight counts, health and
//! averages as they were. Locks are held for one decision of sluice-policy each.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::upstreams::peer::{H1UpgradePolicy, HttpPeer};
use sluice_policy::addresses::Addresses;
use sluice_policy::balance::{Flight, Instance, Picker, Table};
use sluice_policy::breaker::{Breaker, Outcome, Permit, Rejected, Settings, Transition};
use sluice_policy::outlier::{Outliers, Settings as OutlierSettings};
use sluice_policy::retry::{Budget, Failed, Stop, Verdict};
use sluice_policy::time::Nanos;
use sluice_schema::{InstanceUrl, Scheme, Service, Timeouts};
use tokio::sync::watch;

use crate::generation::ServiceRoute;
use crate::meters::RouteMeters;
use crate::upstream_tls::{OwnIdentity, UpstreamTls};
use crate::{clock, ids};

/// A probe's place in a half-open breaker outlives the longest request by this.
const LEASE_SLACK: Duration = Duration::from_secs(5);

/// Streams on one HTTP/2 connection to an instance.
const H2_STREAMS: usize = 128;
/// What an instance may send ahead on one stream. All streams together fit into the connection's window, so a
/// client that reads slowly never stalls the others.
const H2_STREAM_WINDOW: u32 = 256 << 10;
/// Between two looks whether the other end of an HTTP/2 connection is still there.
const H2_PING: Duration = Duration::from_secs(15);

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
    picker: Mutex<Picker>,
    budget: Mutex<Budget>,
    outliers: Mutex<Outliers>,
    watch: Arc<dyn BreakerWatch>,
}

/// The instances of an upstream in one configuration.
#[derive(Default)]
pub(crate) struct Roster {
    table: Table,
    endpoints: Vec<Arc<Endpoint>>,
}

/// What TLS to the instances of a service takes.
pub(crate) struct Secure<'a> {
    /// The service's own settings; `None` where no instance speaks TLS.
    pub(crate) tls: Option<&'a Arc<UpstreamTls>>,
    /// The edge's identity, where the vault has given one.
    pub(crate) own: Option<&'a OwnIdentity>,
}

/// Where one instance is reached, and what its probes said.
pub(crate) struct Endpoint {
    /// Its state, kept over reloads.
    pub(crate) instance: Arc<Instance>,
    /// Its address as it is shown.
    pub(crate) label: String,
    /// `Host` for it.
    pub(crate) host: HeaderValue,
    /// A connection to it but for address and key material.
    bare: HttpPeer,
    /// How it is called over TLS; `None` in clear text.
    tls: Option<Arc<UpstreamTls>>,
    /// A connection to it but for the address; `None` until the vault has given what it takes.
    template: ArcSwapOption<HttpPeer>,
    /// Its addresses; `None` until its name is resolved, and when none of them is allowed.
    addresses: ArcSwapOption<Addresses>,
    /// Whether what it takes to reach it was looked up at all.
    looked_up: watch::Sender<bool>,
    last_probe: ArcSwapOption<Probe>,
}

/// Why an endpoint cannot be connected to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreachable {
    /// Its name stands for no address.
    #[error("its name does not resolve to an allowed address")]
    Unresolved,
    /// Its addresses may not be reached.
    #[error("its address is not allowed")]
    NotAllowed,
    /// The authority that its certificate is verified against is not there yet.
    #[error("the vault has not given the authority yet")]
    NoAuthority,
}

/// The last active probe of an instance.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// When.
    pub(crate) at: Nanos,
    /// Whether it answered well.
    pub(crate) ok: bool,
    /// Time to its answer; `None` when nothing answered.
    pub(crate) took: Option<Duration>,
    /// Status or what failed.
    pub(crate) detail: String,
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
            picker: Mutex::new(Picker::new(service.balance, service.panic_threshold)),
            budget: Mutex::new(Budget::new(&service.retry)),
            outliers: Mutex::new(Outliers::new(OutlierSettings::default(), [])),
            watch,
        }
    }

    /// Takes the settings of a new generation; state stays.
    pub(crate) fn configure(&self, service: &Service, secure: &Secure<'_>) {
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
        lock(&self.picker).configure(service.balance, service.panic_threshold);
        lock(&self.budget).configure(&service.retry);
        let roster = self.roster.load().reconcile(service, secure);
        lock(&self.outliers).reconcile(roster.endpoints.iter().map(|endpoint| endpoint.instance.id));
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

    /// Picks an instance; `tried` are the ids used for this request.
    pub(crate) fn pick(&self, tried: &[u32]) -> Option<(Arc<Endpoint>, Flight)> {
        let roster = self.roster.load();
        let pick = lock(&self.picker).pick(&roster.table, clock::now(), ids::random(), tried)?;
        let endpoint = roster.endpoints.get(pick.index)?;
        Some((Arc::clone(endpoint), endpoint.instance.begin()))
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

    /// Counts how a try at an instance ended; enough failures in a row leave it alone for a while.
    pub(crate) fn judge(&self, endpoint: &Endpoint, outcome: Outcome) {
        let ejection =
            lock(&self.outliers).record(endpoint.instance.id, outcome, clock::now(), ids::random());
        if let Some(ejection) = ejection {
            endpoint.instance.eject_until(ejection.until);
            self.meters.ejections.inc();
            tracing::warn!(
                component = "upstream",
                service = self.name.as_str(),
                instance = %endpoint.instance.url,
                for_ms = ejection.until.since(clock::now()).as_millis() as u64,
                "instance ejected"
            );
        }
    }

    /// Sets the gauge of healthy services.
    pub(crate) fn publish_health(&self) {
        let roster = self.roster.load();
        let healthy = roster.endpoints.iter().any(|endpoint| endpoint.instance.is_healthy());
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
    fn reconcile(&self, service: &Service, secure: &Secure<'_>) -> Self {
        let table = self.table.reconcile(&service.instances);
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

impl Endpoint {
    fn new(instance: Arc<Instance>, service: &Service, secure: &Secure<'_>, known: Option<&Self>) -> Self {
        let url = &instance.url;
        let written = url.ip().map(|ip| SocketAddr::new(ip, url.port));
        let (addresses, resolved) = match (written, known) {
            (Some(address), _) => (Addresses::new(&[address]).map(Arc::new), true),
            // A name resolved before stays resolved until the resolver says otherwise.
            (None, Some(known)) => (known.addresses(), *known.looked_up.borrow()),
            (None, None) => (None, url.scheme == Scheme::Unix),
        };
        let host = HeaderValue::from_str(&url.authority());
        let endpoint = Self {
            label: url.to_string(),
            host: host.unwrap_or_else(|_| HeaderValue::from_static("localhost")),
            bare: bare_peer(url, &service.timeouts),
            tls: secure.tls.filter(|_| url.scheme == Scheme::Https).map(Arc::clone),
            template: ArcSwapOption::empty(),
            addresses: ArcSwapOption::from(addresses),
            looked_up: watch::Sender::new(false),
            last_probe: ArcSwapOption::new(known.and_then(|known| known.last_probe.load_full())),
            instance,
        };
        endpoint.dress(secure.own);
        let awaits_vault = endpoint.follows_vault() && secure.own.is_none() && known.is_none();
        endpoint.looked_up.send_replace(resolved && !awaits_vault);
        endpoint
    }

    /// Takes the vault's present identity. Without one there is no template where it is needed.
    fn dress(&self, own: Option<&OwnIdentity>) {
        let mut peer = self.bare.clone();
        let dressed = self.tls.as_ref().is_none_or(|tls| tls.dress(&mut peer, own));
        self.template.store(dressed.then(|| Arc::new(peer)));
    }

    /// Its addresses now; `None` until its name is resolved, and when none of them is allowed.
    pub(crate) fn addresses(&self) -> Option<Arc<Addresses>> {
        self.addresses.load_full()
    }

    /// Takes what a lookup of its name led to.
    pub(crate) fn keep_addresses(&self, addresses: Option<Addresses>) {
        self.addresses.store(addresses.map(Arc::new));
        self.looked_up.send_replace(true);
    }

    fn follows_vault(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.follows_vault())
    }

    /// Requests wait for the vault no longer, only for its name while that was never looked up.
    fn wait_no_longer(&self) {
        if self.instance.url.scheme == Scheme::Unix || self.addresses.load().is_some() {
            self.looked_up.send_replace(true);
        }
    }

    /// Waits until its name was looked up once; a request that comes sooner is the first after the start
    /// or a reload. At once in every other case.
    pub(crate) async fn looked_up(&self, within: Duration) {
        if *self.looked_up.borrow() {
            return;
        }
        let mut looked_up = self.looked_up.subscribe();
        drop(tokio::time::timeout(within, looked_up.wait_for(|done| *done)).await);
    }

    /// How to reach it now, at an address that is none of `tried` while there is one; the address is added
    /// to them where there are several. The route's rules judge it: this is the moment before the connection.
    pub(crate) fn reach(
        &self,
        route: &ServiceRoute,
        tried: &mut Vec<SocketAddr>,
    ) -> Result<HttpPeer, Unreachable> {
        let template = self.template.load();
        let mut peer = template.as_deref().ok_or(Unreachable::NoAuthority)?.clone();
        if self.instance.url.scheme == Scheme::Unix {
            return Ok(peer);
        }
        let addresses = self.addresses.load();
        let addresses = addresses.as_ref().ok_or(Unreachable::Unresolved)?;
        let allowed = |address: &SocketAddr| route.may_reach(*address);
        let address = if addresses.count() == 1 {
            addresses.iter().next().filter(allowed)
        } else {
            let now = clock::now();
            if !addresses.has_untried(tried) {
                tried.retain(|tried| !addresses.iter().any(|address| address == *tried));
            }
            std::iter::from_fn(|| {
                let address = addresses.pick(now, tried)?;
                tried.push(address);
                Some(address)
            })
            .find(allowed)
        };
        peer._address = PeerAddress::Inet(address.ok_or(Unreachable::NotAllowed)?);
        Ok(peer)
    }

    /// A connect to the last address of `tried` failed. Says whether another one is left.
    pub(crate) fn connect_failed(&self, tried: &[SocketAddr]) -> bool {
        let Some(addresses) = self.addresses() else { return false };
        if addresses.count() == 1 {
            return false;
        }
        if let Some(last) = tried.last() {
            addresses.failed(*last, clock::now());
        }
        addresses.has_untried(tried)
    }

    /// A connect to an address of it succeeded.
    pub(crate) fn connect_succeeded(&self, tried: &[SocketAddr]) {
        if let (Some(addresses), Some(last)) = (self.addresses(), tried.last()) {
            addresses.succeeded(*last);
        }
    }

    /// The last active probe.
    pub(crate) fn last_probe(&self) -> Option<Arc<Probe>> {
        self.last_probe.load_full()
    }

    /// Keeps the result of a probe.
    pub(crate) fn keep_probe(&self, probe: Probe) {
        self.last_probe.store(Some(Arc::new(probe)));
    }
}

/// A connection to an instance but for address and key material.
fn bare_peer(url: &InstanceUrl, timeouts: &Timeouts) -> HttpPeer {
    if url.scheme == Scheme::Unix
        && let Some(peer) = door_peer(Path::new(&url.path), timeouts)
    {
        return peer;
    }
    let mut peer = HttpPeer::new((Ipv4Addr::UNSPECIFIED, 0), url.scheme == Scheme::Https, String::new());
    set_timeouts(&mut peer, timeouts);
    match url.scheme {
        Scheme::Http | Scheme::Unix => {}
        Scheme::H2c => peer.options.set_http_version(2, 2),
        Scheme::Https => peer.options.set_http_version(2, 1),
    }
    if matches!(url.scheme, Scheme::H2c | Scheme::Https) {
        peer.options.max_h2_streams = H2_STREAMS;
        peer.options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
        peer.options.h2_connection_window_size = Some(H2_STREAM_WINDOW * H2_STREAMS as u32);
        peer.options.h2_ping_interval = Some(H2_PING);
    }
    peer
}

/// The peer of a worker's internal door; `None` where the path cannot be a socket address.
pub(crate) fn door_peer(path: &Path, timeouts: &Timeouts) -> Option<HttpPeer> {
    let mut peer = HttpPeer::new_uds(path.to_str()?, false, String::new()).ok()?;
    set_timeouts(&mut peer, timeouts);
    Some(peer)
}

/// Every timeout of a peer, always. Reading is bounded more closely by the request's own deadline; the
/// value here is the backstop.
fn set_timeouts(peer: &mut HttpPeer, timeouts: &Timeouts) {
    let options = &mut peer.options;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.first_byte.max(timeouts.idle));
    options.write_timeout = Some(timeouts.idle);
    options.idle_timeout = Some(timeouts.idle);
    // Upgrades are not forwarded in this version: the request goes on as plain HTTP.
    options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::Deny;
}

impl BreakerLeave {
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
