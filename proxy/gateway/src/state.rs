//! What all threads of the edge share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::HeaderValue;
use sluice_http::TrustCell;
use sluice_ledger::Keys;
use sluice_policy::limit::table::KEYS_MAX;
use sluice_policy::limit::{Keyer, Table as Limiter};
use sluice_schema::Edge;
use sluice_wire::role::Role;

use crate::access_log::AccessLog;
use crate::books::Chain;
use crate::caps::Connections;
use crate::conn::is_within;
use crate::drain::Drain;
use crate::generation::{Generation, Upstreams};
use crate::ids;
use crate::jwt_cache::JwtCache;
use crate::kill::Kill;
use crate::limits::Joint;
use crate::meters::Meters;
use crate::publish::Announcer;
use crate::register::Registrations;
use crate::reload::ReloadState;
use crate::resolver::Resolve;
use crate::shape::Shaped;
use crate::spans::Spans;
use crate::stall::Stalls;
use crate::standing::Standing;
use crate::tap::Tap;
use crate::throttle::AuthThrottle;
use crate::tls::Tls;
use crate::tls::identity::EdgeIdentity;
use crate::tunnel::Tunnels;
use crate::workers::Workers;

/// What all threads of the edge share. Read-mostly: what changes is behind atomics or short locks.
pub(crate) struct Shared {
    /// Relaxed start-up rules.
    pub(crate) dev: bool,
    /// When this process started.
    pub(crate) started: jiff::Timestamp,
    /// The configuration in force.
    pub(crate) generation: ArcSwap<Generation>,
    /// State of all upstreams.
    pub(crate) upstreams: Upstreams,
    /// Tells the event stream what changes.
    pub(crate) announcer: Arc<Announcer>,
    /// Looks names of instances up.
    pub(crate) resolver: Arc<dyn Resolve>,
    /// Registered services.
    pub(crate) registrations: Registrations,
    /// What the last reload did.
    pub(crate) reload: ReloadState,
    /// Keys and revocations.
    pub(crate) trust: TrustCell,
    /// TLS towards clients.
    pub(crate) tls: Tls,
    /// The edge's own certificate.
    pub(crate) identity: EdgeIdentity,
    /// Verified tokens.
    pub(crate) tokens: JwtCache,
    /// Failed authentications by address.
    pub(crate) throttle: AuthThrottle,
    /// Rates by caller.
    pub(crate) limiter: Limiter,
    /// Rates that other edges count too.
    pub(crate) joint: Joint,
    /// Idempotency keys.
    pub(crate) keys: Keys,
    /// Makes the limiter's keys; the predecessor's, where there is one.
    pub(crate) keyer: OnceLock<Keyer>,
    /// What an operator has stopped.
    pub(crate) kill: Kill,
    /// Open tunnels.
    pub(crate) tunnels: Tunnels,
    /// Answers that go on for long.
    pub(crate) standing: Standing,
    /// What shaping keeps.
    pub(crate) shaped: Shaped,
    /// Open connections.
    pub(crate) connections: Arc<Connections>,
    /// Answers that stand still.
    pub(crate) stalls: Arc<Stalls>,
    /// Metrics.
    pub(crate) meters: Meters,
    /// Their registry.
    pub(crate) registry: prometheus::Registry,
    /// The access log.
    pub(crate) access_log: AccessLog,
    /// The edge's audit chain.
    pub(crate) chain: Arc<Chain>,
    /// Spans on their way to a collector.
    pub(crate) spans: Spans,
    /// Who looks at live traffic.
    pub(crate) tap: Arc<Tap>,
    /// How far the end has come.
    pub(crate) drain: Drain,
    /// The workers as their health pages tell.
    pub(crate) workers: Workers,
    /// Proof of this role to workers.
    pub(crate) internal_key: HeaderValue,
    /// The workers' internal doors.
    pub(crate) sockets: BTreeMap<Role, PathBuf>,
}

impl Shared {
    /// The configuration in force.
    pub(crate) fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// How many connections an address may hold; `None` for trusted proxies, and for this machine in development.
    pub(crate) fn cap_of(&self, edge: &Edge, ip: IpAddr) -> Option<usize> {
        let near = self.dev && ip.to_canonical().is_loopback();
        let exempt = near || is_within(ip, &edge.trusted_proxies);
        (!exempt).then_some(edge.limits.connections_per_ip)
    }

    /// Brings the gauges that nobody else sets up to date, before they are read.
    pub(crate) fn refresh_gauges(&self) {
        if let Some(age_ms) = self.trust.age_ms() {
            self.meters.feed_age.set(age_ms as f64 / 1000.0);
        }
        let generation = self.generation.load();
        generation.services.iter().for_each(|route| route.approach.publish());
        generation.workers().filter_map(|route| route.approach.as_ref()).for_each(|way| way.publish());
        self.meters.idempotency_records.set(self.keys.records() as i64);
        let evicted = self.limiter.evicted();
        let counted = self.meters.limiter_evicted.get();
        self.meters.limiter_evicted.inc_by(evicted.saturating_sub(counted));
    }

    /// Makes the limiter's keys.
    pub(crate) fn keyer(&self) -> &Keyer {
        self.keyer.get_or_init(|| Keyer::new([ids::random(), ids::random()]))
    }

    /// Makes them as the predecessor did; false where some were made otherwise already.
    pub(crate) fn adopt_keyer(&self, keyer: Keyer) -> bool {
        self.keyer.set(keyer).is_ok()
    }

    /// Whether the edge can take requests that need a verified caller.
    pub(crate) fn has_keys(&self) -> bool {
        self.trust.load().has_keys()
    }
}

/// A limiter that knows nobody.
pub(crate) fn limiter() -> Limiter {
    Limiter::new(KEYS_MAX)
}
