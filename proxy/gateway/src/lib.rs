//! The edge: public ingress and control port, built on Pingora used as a library.
//!
//! Knows: sockets, Pingora's hooks, which pure decision of `sluice-policy` is asked when, what is shared
//! between threads, how a configuration comes into force. Must not know: how any decision is made, what
//! workers do with a request, how the dashboard looks.
//!
//! The life of a request is told in `proxy/DESIGN.md`; in code it runs `server` (connection) → `head`
//! (framing) → `service` (Pingora's hooks) → `admit` (may it go on) → `peer` (tries at an upstream) →
//! `account` (metrics, access log, tap, spans).

mod access_log;
mod account;
mod admit;
mod api_keys;
mod authenticate;
mod backlog;
mod books;
mod calls;
mod caps;
mod carry;
mod chunks;
mod clock;
mod conn;
mod connection;
mod control;
mod ctx;
mod digits;
mod direct;
mod drain;
mod due;
mod endpoint;
mod enter;
mod failed;
mod fields;
mod forbidden;
mod forward;
mod generation;
mod greeting;
mod h2;
mod head;
mod headers;
mod history;
mod holds;
mod idempotency;
mod ids;
mod inbound;
mod jwt_cache;
mod kept;
mod kill;
mod lanes;
mod life;
mod limits;
mod linger;
mod link;
mod local;
mod meters;
mod names;
mod otlp;
mod outbound;
mod pages;
mod peer;
mod probes;
mod publish;
mod reframe;
mod register;
mod reload;
mod remaining;
mod resolver;
mod respond;
mod rollback;
mod server;
mod service;
mod shape;
mod shortage;
mod socket;
mod spans;
mod stall;
mod standing;
mod state;
mod stream;
mod tap;
mod throttle;
mod timer;
mod tls;
mod traffic;
mod tunnel;
mod upstream;
mod upstream_tls;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use sluice_http::{Asset, Start};
use sluice_ledger::{Keys, Ledger};
use sluice_wire::role::Role;
use tokio::task::JoinSet;

use crate::access_log::AccessLog;
use crate::books::{Books, Chain};
use crate::caps::Connections;
use crate::control::Control;
use crate::drain::Drain;
use crate::forbidden::Forbidden;
use crate::generation::Upstreams;
use crate::life::{EdgeDoors, Life};
use crate::meters::Meters;
use crate::publish::{Announcer, Outbox};
use crate::register::Registrations;
use crate::reload::ReloadState;
use crate::state::Shared;
use crate::tls::Tls;
use crate::tls::identity::EdgeIdentity;
use crate::workers::Workers;

pub use crate::access_log::AccessLogError;
pub use crate::generation::GenerationError;
pub use crate::resolver::{Lookup, Resolve, SystemResolver};
pub use crate::tls::{CertificateFault, TlsFault};

/// The edge could not start or serve.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A door was not given, or is not a TCP socket.
    #[error("the edge was given no TCP door `{0}`")]
    NoDoor(&'static str),
    /// A socket or thread could not be used.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The access log cannot be opened.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// The registry cannot be opened.
    #[error("the edge's ledger cannot be used")]
    Ledger(#[from] sluice_ledger::LedgerError),
    /// The audit log cannot be opened.
    #[error("the edge's audit log cannot be used")]
    Audit(#[from] sluice_audit::OpenError),
    /// The routes do not fit together.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The TLS listener's settings cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// The shared store cannot be used.
    #[error("the store of `redis.url` cannot be used")]
    Redis(#[source] sluice_ledger::redis::RedisError),
    /// The internal key is no header value.
    #[error("the internal key is not text")]
    Key,
}

/// Runs the edge until it is to end: public ingress on door `http`, control port on door `control`. Takes
/// over from a predecessor and hands over to a successor as `start.handover` says.
///
/// # Errors
/// [`GatewayError`], before it serves.
pub async fn run(start: Start, assets: fn(&str) -> Option<Asset>) -> Result<(), GatewayError> {
    run_with(start, assets, Arc::new(SystemResolver::default())).await
}

/// The same with another way to look names of instances up.
///
/// # Errors
/// [`GatewayError`], before it serves.
pub async fn run_with(
    start: Start,
    assets: fn(&str) -> Option<Asset>,
    resolver: Arc<dyn Resolve>,
) -> Result<(), GatewayError> {
    let doors = EdgeDoors::take(&start)?;
    let (shared, outbox) = open(&start, doors.own(), resolver)?;
    let chain = Arc::clone(&shared.chain);
    let control = Control::new(Arc::clone(&shared), Arc::clone(&chain), assets);
    let mut tasks = background(&shared, &control, outbox);
    let books = Arc::new(Books::new(Arc::clone(&shared), chain));
    let lived = Life { start, doors, shared: Arc::clone(&shared), control, books }.live().await;
    tasks.shutdown().await;
    otlp::finish(&shared).await;
    lived
}

/// Everything the threads share, with the first generation in force.
fn open(
    start: &Start,
    own: Vec<SocketAddr>,
    resolver: Arc<dyn Resolve>,
) -> Result<(Arc<Shared>, Outbox), GatewayError> {
    let (reload, config, number) = ReloadState::new(start);
    let meters = Meters::new(&start.registry);
    let (announcer, outbox) = Announcer::new(meters.events_dropped.clone());
    // A worker whose port moved in the files listens at the old one until it starts again.
    let listeners = start.config.listeners().into_iter().filter(|(key, _)| !key.starts_with("demo."));
    let own = own.into_iter().chain(listeners.map(|(_, address)| address)).collect();
    let forbidden = Forbidden::new(own, config.redis.as_ref().map(sluice_schema::RedisUrl::expose));
    let registrations =
        Registrations::new(Ledger::closed(&start.data_dir)?, forbidden, Arc::clone(&resolver));
    registrations.adopt(&config);
    let failed = |source| GatewayError::Io { what: "start the writer of idempotency keys", source };
    let handle = tokio::runtime::Handle::current();
    let keys = Keys::start(registrations.ledger(), ids::random(), clock::unix_ms, handle).map_err(failed)?;
    keys.keep_in(config.edge_redis().as_ref()).map_err(GatewayError::Redis)?;
    let joint = limits::Joint::new(tokio::runtime::Handle::current(), meters.limits.clone());
    joint.configure(&config).map_err(GatewayError::Redis)?;
    let upstreams =
        Upstreams::new(&meters, start.sockets.clone(), Arc::clone(&announcer) as _, registrations.in_force());
    // What is registered joins with the books.
    let generation = upstreams.build(&meters, config, &[], number, None)?;
    let access_log = AccessLog::open(&start.config.log.access, meters.access_dropped.clone())?;
    meters.generation.set(number as i64);
    meters.reload_ok.set(1);
    let mut internal_key = HeaderValue::from_str(start.keys.own()).map_err(|_| GatewayError::Key)?;
    internal_key.set_sensitive(true);
    let audit_fill = meters.audit_fill.clone();
    let spans = spans::Spans::new(meters.spans_dropped.clone());
    let tap = tap::Tap::new(meters.tap_viewers.clone(), meters.tap_lost.clone());
    let shared = Shared {
        dev: start.dev,
        started: jiff::Timestamp::now(),
        generation: arc_swap::ArcSwap::from_pointee(generation),
        upstreams,
        announcer,
        resolver,
        registrations,
        reload,
        trust: start.trust.clone(),
        tls: Tls::new(start.trust.clone()),
        identity: EdgeIdentity::open(&start.role_dir()),
        tokens: jwt_cache::JwtCache::default(),
        throttle: throttle::AuthThrottle::default(),
        limiter: state::limiter(),
        joint,
        keys,
        keyer: std::sync::OnceLock::new(),
        kill: kill::Kill::new(),
        tunnels: tunnel::Tunnels::new(),
        shaped: shape::Shaped::new(),
        stalls: Arc::default(),
        connections: Arc::new(Connections::of_this_process(start.config.edge.limits.connections)),
        standing: standing::Standing::new(),
        meters,
        registry: start.registry.clone(),
        access_log,
        chain: Arc::new(Chain::closed(&start.data_dir, &start.config.edge.audit, audit_fill)),
        spans,
        tap,
        drain: Drain::default(),
        workers: Workers::new(&start.sockets, start.keys.own()),
        internal_key,
        sockets: start.sockets.clone(),
    };
    shared.apply_tls(&start.config)?;
    Ok((Arc::new(shared), outbox))
}

/// The tasks beside the edge threads.
fn background(shared: &Arc<Shared>, control: &Arc<Control>, outbox: Outbox) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(outbox.run(shared.workers.client(Role::Events), shared.meters.events_dropped.clone()));
    tasks.spawn(never(names::run(Arc::clone(shared))));
    tasks.spawn(never(probes::run(Arc::clone(shared))));
    tasks.spawn(never(tls::identity::keep(Arc::clone(shared))));
    tasks.spawn(never(tls::replaced::run(Arc::clone(shared))));
    tasks.spawn(never(tunnel::watch(Arc::clone(shared))));
    tasks.spawn(never(kill::keep(Arc::clone(shared))));
    tasks.spawn(never(kill::tell(Arc::clone(shared))));
    tasks.spawn(never(kill::follow(Arc::clone(shared))));
    tasks.spawn(never(register::expire(Arc::clone(shared))));
    tasks.spawn(never(otlp::run(Arc::clone(shared))));
    tasks.spawn(reload::on_hangup(Arc::clone(shared)));
    tasks.spawn(never(reload::on_change(Arc::clone(shared))));
    tasks.spawn(never(control::run_snapshots(Arc::clone(control))));
    let workers = Arc::clone(shared);
    tasks.spawn(async move { workers.workers.watch().await });
    tasks
}

/// A task that ends only by being shut down.
async fn never(task: impl Future<Output = std::convert::Infallible>) {
    match task.await {}
}
