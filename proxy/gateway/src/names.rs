//! Keeps what endpoints need for a connection fresh: the addresses of their names, the vault's identity.
//!
//! Each name is looked up when its endpoint first appears and then at its service's probe interval, at
//! most every [`INTERVAL_MAX`], whatever its probes say. An answer replaces the set; a lookup that fails
//! or finds nothing keeps the last good one and is repeated after [`RETRY`]. The addresses of a registered
//! service are judged by the address rules each time: one that is no longer allowed is dropped, even
//! where no other is left. (Requests and probes judge again before each connection.)
//!
//! A certificate that the vault has renewed reaches all endpoints here. While there is none yet, first
//! requests to what needs one wait for it, for [`VAULT_GRACE`] after the start.
//!
//! The machine's own addresses, and the store's, which no registration may name, are read at the same
//! pace.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_policy::addresses::Addresses;
use sluice_policy::random::jitter;
use sluice_wire::role::Role;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::endpoint::Endpoint;
use crate::generation::{Generation, ServiceRoute};
use crate::ids;
use crate::resolver::{name_of, resolve};
use crate::state::Shared;
use crate::upstream_tls::OwnIdentity;

/// How finely lookups are timed, and how soon a new generation is seen.
const TICK: Duration = Duration::from_millis(25);
/// The longest time between two lookups of a name.
const INTERVAL_MAX: Duration = Duration::from_secs(30);
/// After a lookup that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Share by which an interval is moved, in percent, so that many names are not looked up in step.
const JITTER_PERCENT: u32 = 10;
/// LIMIT: lookups under way.
const AT_ONCE: usize = 64;

/// How long first requests wait for the vault's first certificate, from the start.
const VAULT_GRACE: Duration = Duration::from_secs(5);

/// A service's name and its instance's number.
type Key = (String, u32);
/// A lookup's end; `None`: it failed or found nothing.
type Found = (Key, Option<Vec<SocketAddr>>);

/// One name and when it is looked up next.
struct Plan {
    route: Arc<ServiceRoute>,
    endpoint: Arc<Endpoint>,
    due: Instant,
    under_way: bool,
}

/// Follows the names of all instances for ever.
pub(crate) async fn run(shared: Arc<Shared>) -> Infallible {
    let mut plans: HashMap<Key, Plan> = HashMap::new();
    let mut planned: Option<Arc<Generation>> = None;
    let mut lookups: JoinSet<Found> = JoinSet::new();
    let mut own_due = Instant::now();
    let mut identity = Identity::new(&shared);
    loop {
        let generation = shared.generation();
        let is_new = !planned.as_ref().is_some_and(|known| Arc::ptr_eq(known, &generation));
        identity.follow(&shared, &generation, is_new);
        if is_new {
            plans = plan(plans, &generation);
            planned = Some(generation);
        }
        if own_due <= Instant::now() {
            own_due = Instant::now() + INTERVAL_MAX;
            shared.registrations.refresh(&shared.generation().config).await;
        }
        start_due(&shared, &mut plans, &mut lookups);
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            Some(done) = lookups.join_next() => {
                if let Ok((key, found)) = done {
                    take(&mut plans, &key, found);
                }
            }
        }
    }
}

/// How far the vault's identity has come.
struct Identity {
    /// Number of the last one that was looked at.
    seen: Option<u64>,
    /// When requests wait for the first one no longer.
    patience: Instant,
    impatient: bool,
}

impl Identity {
    fn new(shared: &Shared) -> Self {
        let grace = if shared.sockets.contains_key(&Role::Vault) { VAULT_GRACE } else { Duration::ZERO };
        Self { seen: None, patience: Instant::now() + grace, impatient: false }
    }

    /// Lets instances be called with the edge's present certificate.
    fn follow(&mut self, shared: &Shared, generation: &Generation, is_new: bool) {
        let present = shared.identity.current();
        let number = present.as_ref().map(|present| present.generation);
        let changed = number != self.seen;
        if let Some(present) = present.filter(|_| changed) {
            self.seen = number;
            match OwnIdentity::new(&present.chain, &present.key(), &present.roots) {
                Some(own) => shared.upstreams.identify(own),
                None => {
                    tracing::error!(
                        component = "tls",
                        "the vault's certificate cannot be shown to instances"
                    );
                }
            }
        }
        // Also for a new generation: it may have been built while the identity changed.
        if changed || is_new {
            let own = shared.upstreams.identity();
            for route in &generation.services {
                route.upstream.dress(own.as_deref());
            }
        }
        let overdue = self.seen.is_none() && Instant::now() >= self.patience;
        if overdue && (is_new || !self.impatient) {
            self.impatient = true;
            for route in &generation.services {
                route.upstream.wait_no_longer();
            }
        }
    }
}

/// The plans of a generation; names already followed keep theirs.
fn plan(mut known: HashMap<Key, Plan>, generation: &Generation) -> HashMap<Key, Plan> {
    let now = Instant::now();
    let mut plans = HashMap::new();
    for route in &generation.services {
        for endpoint in route.upstream.roster().endpoints() {
            if name_of(&endpoint.instance.url).is_none() {
                continue;
            }
            let key = (route.service.name.clone(), endpoint.instance.id);
            let (due, under_way) = match known.remove(&key) {
                Some(plan) => (plan.due.min(now + interval(route)), plan.under_way),
                None => (now, false),
            };
            let (route, endpoint) = (Arc::clone(route), Arc::clone(endpoint));
            plans.insert(key, Plan { route, endpoint, due, under_way });
        }
    }
    plans
}

fn interval(route: &ServiceRoute) -> Duration {
    route.service.health.interval.min(INTERVAL_MAX)
}

fn start_due(shared: &Arc<Shared>, plans: &mut HashMap<Key, Plan>, lookups: &mut JoinSet<Found>) {
    let now = Instant::now();
    for (key, plan) in plans.iter_mut().filter(|(_, plan)| !plan.under_way && plan.due <= now) {
        if lookups.len() >= AT_ONCE {
            return;
        }
        plan.under_way = true;
        let (key, shared, endpoint) = (key.clone(), Arc::clone(shared), Arc::clone(&plan.endpoint));
        lookups.spawn(async move {
            let url = &endpoint.instance.url;
            (key, resolve(&*shared.resolver, &url.host, url.port).await)
        });
    }
}

/// Takes the end of a lookup.
fn take(plans: &mut HashMap<Key, Plan>, key: &Key, found: Option<Vec<SocketAddr>>) {
    let Some(plan) = plans.get_mut(key) else { return };
    plan.under_way = false;
    let wait = if found.is_some() { interval(&plan.route) } else { RETRY.min(interval(&plan.route)) };
    plan.due = Instant::now() + jitter(wait, JITTER_PERCENT, ids::random());
    let (service, instance) = (key.0.as_str(), plan.endpoint.label.as_str());
    let present = plan.endpoint.addresses();
    // A failed lookup keeps the last good set, as far as it is still allowed.
    let failed = found.is_none();
    let listed: Vec<SocketAddr> =
        found.unwrap_or_else(|| present.as_ref().map(|set| set.iter().collect()).unwrap_or_default());
    let allowed: Vec<SocketAddr> =
        listed.iter().copied().filter(|address| plan.route.may_reach(*address)).collect();
    let next = match &present {
        Some(set) => set.followed_by(&allowed),
        None => Addresses::new(&allowed),
    };
    match (&present, &next) {
        (Some(old), Some(new)) if old.is_same_set(new) => {}
        (None, None) if failed => {
            tracing::debug!(component = "names", service, instance, "name does not resolve");
        }
        (_, None) => {
            tracing::warn!(component = "names", service, instance, "name has no allowed address");
        }
        (_, Some(set)) => {
            let addresses: Vec<String> = set.iter().map(|address| address.to_string()).collect();
            tracing::info!(
                component = "names",
                service,
                instance,
                addresses = addresses.join(" "),
                "name resolved"
            );
        }
    }
    plan.endpoint.keep_addresses(next);
}
