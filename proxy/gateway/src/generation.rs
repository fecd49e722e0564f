//! One configuration in force: an immutable snapshot that requests look things up in.
//!
//! A request takes the present generation once and keeps it to its end. What must outlive a reload
//! (breakers, counts, health) lies in [`Upstreams`] by name and is only referred to from here.

mod hash;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use ipnet::IpNet;
use jiff::Timestamp;
use pingora::upstreams::peer::HttpPeer;
use sluice_ledger::{Ledger, LedgerError};
use sluice_policy::authorize::Access;
use sluice_policy::limit::Limit;
use sluice_policy::limit::header::{policy, quoted};
use sluice_policy::registry::AddressRules;
use sluice_policy::reserved::{RESERVED, lane_of};
use sluice_policy::route::{Rule, Table};
use sluice_schema::{Config, Instance, Scheme, Service, Source, Timeouts};
use sluice_wire::role::Role;

use crate::api_keys::ApiKeys;
use crate::endpoint::{Secure, door_peer};
use crate::headers::Edits;
use crate::holds::Holds;
use crate::lanes::{Approach, Gates};
use crate::meters::{Meters, RouteMeters};
use crate::shape::{self, Shaping};
use crate::upstream::{BreakerWatch, Upstream};
use crate::upstream_tls::{OwnIdentity, UpstreamTls};

/// Roles that the edge forwards to.
pub(crate) const WORKERS: [Role; 3] = [Role::Events, Role::Vault, Role::Calc];

/// LIMIT: calls of the event worker at once.
const EVENT_CALLS_MAX: u32 = 1024;
/// LIMIT: calls of the calculation worker at once; each may hold a body of 64 MiB there.
const CALCULATIONS_MAX: u32 = 64;

/// A configuration that cannot be put in force.
#[derive(Debug, thiserror::Error)]
#[error("the configuration cannot be put in force: {}", faults.join("; "))]
pub struct GenerationError {
    /// One text a fault.
    pub faults: Vec<String>,
}

/// One configuration in force.
pub(crate) struct Generation {
    /// 1 at start, one more with each accepted reload.
    pub(crate) number: u64,
    /// 12 hexadecimal digits of the effective configuration, registrations included.
    pub(crate) hash: String,
    /// Hashes of the configuration's services, in their order.
    hashes: Vec<hash::ServiceHash>,
    /// When it came into force.
    pub(crate) loaded_at: Timestamp,
    /// The configuration itself.
    pub(crate) config: Arc<Config>,
    /// Where requests go; a [`sluice_policy::route::Target::Service`] is an index of [`Self::services`].
    pub(crate) table: Table,
    /// The services that route.
    pub(crate) services: Vec<Arc<ServiceRoute>>,
    /// Callers known by a key.
    pub(crate) api_keys: ApiKeys,
    workers: BTreeMap<Role, Arc<WorkerRoute>>,
    /// Limits of reserved prefixes, by prefix.
    guards: BTreeMap<&'static str, Arc<RouteLimit>>,
    /// Metrics of the edge's own pages.
    pub(crate) pages: Arc<RouteMeters>,
}

/// A service with everything a request needs, prepared.
pub(crate) struct ServiceRoute {
    /// Its checked configuration.
    pub(crate) service: Service,
    /// Its state.
    pub(crate) upstream: Arc<Upstream>,
    /// Its way to the gate of its instances.
    pub(crate) approach: Arc<Approach>,
    /// Its rate limit.
    pub(crate) limit: Option<Arc<RouteLimit>>,
    /// Changes to requests.
    pub(crate) request_edits: Edits,
    /// Changes to answers.
    pub(crate) response_edits: Edits,
    /// What it asks of its callers.
    pub(crate) access: Access,
    /// What else is done to its traffic.
    pub(crate) shaping: Shaping,
    /// Client networks that may not call it.
    pub(crate) deny: Vec<IpNet>,
    /// Client networks that may, where there are any.
    pub(crate) allow: Vec<IpNet>,
    /// For registered services: which addresses may be connected to.
    pub(crate) rules: Option<Arc<ArcSwap<AddressRules>>>,
}

/// A worker behind its internal door.
pub(crate) struct WorkerRoute {
    /// The role.
    pub(crate) role: Role,
    /// Its metrics.
    pub(crate) meters: Arc<RouteMeters>,
    /// How to reach it; `None` where this process was given no door of it.
    pub(crate) peer: Option<Arc<HttpPeer>>,
    /// Its way to the worker's gate; `None` where there is none.
    pub(crate) approach: Option<Arc<Approach>>,
    /// Deadlines.
    pub(crate) timeouts: Timeouts,
}

/// A limit with the header value that names its policy.
pub(crate) struct RouteLimit {
    /// Name in headers, as it is written there.
    pub(crate) quoted: String,
    /// Scope of its keys: no service has that of a path of the edge.
    pub(crate) scope: String,
    /// The limit.
    pub(crate) limit: Limit,
    /// Value of `RateLimit-Policy`.
    pub(crate) policy: HeaderValue,
    /// Value of `X-RateLimit-Limit`.
    pub(crate) requests: HeaderValue,
}

impl RouteLimit {
    fn new(name: &str, scope: &str, limit: Limit) -> Arc<Self> {
        let quoted = quoted(name);
        let policy = HeaderValue::try_from(policy(&quoted, &limit));
        let policy = policy.unwrap_or_else(|_| HeaderValue::from_static(""));
        let requests = HeaderValue::from(limit.requests);
        Arc::new(Self { quoted, scope: scope.to_owned(), limit, policy, requests })
    }
}

impl ServiceRoute {
    fn new(
        service: &Service,
        upstream: Arc<Upstream>,
        approach: Arc<Approach>,
        auth_enabled: bool,
        rules: &Arc<ArcSwap<AddressRules>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            rules: (service.source == Source::Api).then(|| Arc::clone(rules)),
            upstream,
            approach,
            limit: service
                .rate_limit
                .as_ref()
                .map(|conf| RouteLimit::new(&service.name, &service.name, Limit::new(conf))),
            request_edits: Edits::new(&service.request_headers),
            response_edits: Edits::new(&service.response_headers),
            access: Access::of_service(service, auth_enabled),
            shaping: Shaping::new(service),
            deny: service.deny.clone(),
            allow: service.allow.clone(),
            service: service.clone(),
        })
    }

    /// Whether an address of it may be connected to: what a file names always, what is registered by rules.
    pub(crate) fn may_reach(&self, address: SocketAddr) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.load().check(address).is_ok())
    }

    /// Whether its requests may be moved by `direct`: all its instances speak HTTP/1.1 in clear text, and nobody
    /// keeps or compresses their answers.
    pub(crate) fn is_plain(&self) -> bool {
        let plain = |instance: &Instance| matches!(instance.url.scheme, Scheme::Http | Scheme::Unix);
        self.service.instances.iter().all(plain)
            && !self.service.compress
            && self.service.fallback.stale.is_none()
            && self.shaping.arms().iter().all(|arm| arm.is_plain())
    }

    /// Whether a client of this address may call it. `deny` wins.
    pub(crate) fn admits(&self, ip: std::net::IpAddr) -> bool {
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&ip));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

impl Generation {
    /// The route of a worker.
    pub(crate) fn worker(&self, role: Role) -> Option<&Arc<WorkerRoute>> {
        self.workers.get(&role)
    }

    /// Every worker's route.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &Arc<WorkerRoute>> {
        self.workers.values()
    }

    /// The limit of a reserved prefix.
    pub(crate) fn guard(&self, prefix: &str) -> Option<&Arc<RouteLimit>> {
        self.guards.get(prefix)
    }

    /// The service of this name.
    pub(crate) fn service(&self, name: &str) -> Option<&Arc<ServiceRoute>> {
        self.services.iter().find(|route| route.service.name == name)
    }
}

/// The state of all upstreams by name, kept over reloads.
pub(crate) struct Upstreams {
    by_name: Mutex<BTreeMap<String, Arc<Upstream>>>,
    gates: Gates,
    roles: BTreeMap<Role, Arc<RouteMeters>>,
    /// Ways to the workers' gates.
    approaches: BTreeMap<Role, Arc<Approach>>,
    sockets: BTreeMap<Role, PathBuf>,
    pages: Arc<RouteMeters>,
    /// What operators hold back.
    pub(crate) holds: Holds,
    watch: Arc<dyn BreakerWatch>,
    rules: Arc<ArcSwap<AddressRules>>,
    /// The edge's identity for TLS to instances.
    own: ArcSwapOption<OwnIdentity>,
    /// Key material as it was last read.
    secured: ArcSwapOption<Secured>,
}

/// Key material of a configuration's services, in their order. Building the same configuration again, for a
/// registration or a lease, reads no file: one that is gone by then must not keep it from being built.
struct Secured {
    config: Arc<Config>,
    services: Vec<Option<Arc<UpstreamTls>>>,
}

impl Secured {
    /// Reads what each service takes.
    fn read(config: &Arc<Config>) -> Result<Self, GenerationError> {
        let (mut services, mut faults) = (Vec::new(), Vec::new());
        for service in config.enabled_services() {
            match UpstreamTls::load(service) {
                Ok(tls) => services.push(tls.map(Arc::new)),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                    faults.push(format!("service `{}`: {error}{}", service.name, cause.unwrap_or_default()));
                }
            }
        }
        if faults.is_empty() {
            Ok(Self { config: Arc::clone(config), services })
        } else {
            Err(GenerationError { faults })
        }
    }
}

impl Upstreams {
    /// No upstreams yet; `sockets` are the workers' internal doors, `rules` judge registered addresses.
    pub(crate) fn new(
        meters: &Meters,
        sockets: BTreeMap<Role, PathBuf>,
        watch: Arc<dyn BreakerWatch>,
        rules: Arc<ArcSwap<AddressRules>>,
    ) -> Self {
        Self {
            rules,
            holds: Holds::default(),
            own: ArcSwapOption::empty(),
            secured: ArcSwapOption::empty(),
            by_name: Mutex::default(),
            gates: Gates::default(),
            approaches: WORKERS
                .into_iter()
                .filter_map(|role| Some((role, approach(role, meters)?)))
                .collect(),
            roles: WORKERS.into_iter().map(|role| (role, meters.route(role.as_str()))).collect(),
            sockets,
            pages: meters.route(Role::Edge.as_str()),
            watch,
        }
    }

    /// Builds the generation of a configuration and the registered services. Nothing changes when it
    /// fails; when it succeeds, upstreams have taken their new settings and it only has to be stored. `before` is
    /// the generation in force.
    pub(crate) fn build(
        &self,
        meters: &Meters,
        config: Arc<Config>,
        registered: &[Service],
        number: u64,
        before: Option<&Generation>,
    ) -> Result<Generation, GenerationError> {
        let services: Vec<&Service> = config.enabled_services().chain(registered).collect();
        // A service without a prefix is there for the splits of others.
        let routed = services.iter().enumerate().filter(|(_, service)| !service.prefix.is_empty());
        let rules = routed.map(|(index, service)| Rule::of_service(index, service));
        let table = Table::for_edge(rules)
            .map_err(|faults| GenerationError { faults: faults.iter().map(ToString::to_string).collect() })?;
        let known = self.secured.load_full().filter(|known| Arc::ptr_eq(&known.config, &config));
        let secured = known.map_or_else(|| Secured::read(&config).map(Arc::new), Ok)?;
        let approaches = self.gates.assign(&services, meters);
        // Registered services come after those of the files and never speak TLS.
        let routes = services.iter().zip(approaches).enumerate().map(|(index, (service, approach))| {
            let tls = secured.services.get(index).and_then(Option::as_ref);
            let upstream = self.take(meters, service, &config.edge.zone, tls);
            ServiceRoute::new(service, upstream, approach, config.auth.enabled, &self.rules)
        });
        let guards = RESERVED.iter().filter_map(|reserved| {
            let limit = Limit::per_ip_minute(reserved.per_ip_minute?);
            let name = reserved.prefix.trim_matches('/').replace('/', "-");
            Some((reserved.prefix, RouteLimit::new(&name, reserved.prefix, limit)))
        });
        let mut routes: Vec<_> = routes.collect();
        shape::join(&mut routes);
        self.secured.store(Some(secured));
        let hashes = hash::of_services(&config, before);
        Ok(Generation {
            number,
            hash: hash::of_all(registered, &config, &hashes),
            hashes,
            loaded_at: Timestamp::now(),
            table,
            services: routes,
            api_keys: ApiKeys::new(&config.auth.api_keys),
            workers: WORKERS.into_iter().filter_map(|role| Some((role, self.worker(role)?))).collect(),
            guards: guards.collect(),
            pages: Arc::clone(&self.pages),
            config,
        })
    }

    /// The state of a service, new or as it was, with these settings.
    fn take(
        &self,
        meters: &Meters,
        service: &Service,
        zone: &str,
        tls: Option<&Arc<UpstreamTls>>,
    ) -> Arc<Upstream> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let upstream = by_name.entry(service.name.clone()).or_insert_with(|| {
            Arc::new(Upstream::new(service, meters.route(&service.name), Arc::clone(&self.watch)))
        });
        let upstream = Arc::clone(upstream);
        drop(by_name);
        let own = self.own.load();
        upstream.configure(service, zone, &Secure { tls, own: own.as_deref() });
        self.holds.apply(&upstream);
        upstream.publish_health();
        upstream
    }

    /// Takes what operators hold back from the ledger, in place of what was known.
    pub(crate) async fn load_holds(&self, ledger: Arc<Ledger>) -> Result<(), LedgerError> {
        self.holds.load(ledger).await?;
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.values().for_each(|upstream| self.holds.apply(upstream));
        Ok(())
    }

    /// Forgets upstreams that a generation no longer names.
    pub(crate) fn retain(&self, meters: &Meters, generation: &Generation) {
        let names: BTreeSet<&str> =
            generation.services.iter().map(|route| route.service.name.as_str()).collect();
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<String> =
            by_name.keys().filter(|name| !names.contains(name.as_str())).cloned().collect();
        by_name.retain(|name, _| names.contains(name.as_str()));
        meters.forget(&gone.iter().map(String::as_str).collect());
    }

    /// Reads the key material of a configuration again, for generations that are built of it from now on.
    /// Nothing changes when it fails.
    pub(crate) fn reread(&self, config: &Arc<Config>) -> Result<(), GenerationError> {
        self.secured.store(Some(Arc::new(Secured::read(config)?)));
        Ok(())
    }

    /// The identity that instances are called with.
    pub(crate) fn identity(&self) -> Option<Arc<OwnIdentity>> {
        self.own.load_full()
    }

    /// Calls instances with this identity from now on.
    pub(crate) fn identify(&self, own: OwnIdentity) {
        self.own.store(Some(Arc::new(own)));
    }

    fn worker(&self, role: Role) -> Option<Arc<WorkerRoute>> {
        let timeouts = worker_timeouts();
        let peer = self.sockets.get(&role).and_then(|socket| door_peer(socket, &timeouts));
        let meters = Arc::clone(self.roles.get(&role)?);
        let approach = self.approaches.get(&role).cloned();
        Some(Arc::new(WorkerRoute { role, meters, peer: peer.map(Arc::new), approach, timeouts }))
    }
}

/// The way to a worker's gate. A worker knows itself when it is full and says so; its gate only keeps one caller,
/// or one kind of call, from taking all the edge can carry. So its limit is set: calculations differ in length by
/// orders of magnitude and publishes share their commits, and neither's latency tells how full the worker is.
fn approach(role: Role, meters: &Meters) -> Option<Arc<Approach>> {
    let at_once = if role == Role::Calc { CALCULATIONS_MAX } else { EVENT_CALLS_MAX };
    Some(Gates::worker(role.as_str(), lane_of(role)?, at_once, meters))
}

/// Deadlines of a worker's calls: long enough for the largest calculation, streams apart.
fn worker_timeouts() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(1),
        first_byte: Duration::from_secs(30),
        total: Duration::from_secs(60),
        idle: Duration::from_secs(60),
    }
}
