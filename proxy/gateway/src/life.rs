//! The edge's life: prepared, serving, yielded, and one of two ends.
//!
//! ```text
//!  start ──► prepared ──go──► serving ──stop──► drained, ended
//!    └────── nobody to follow ──►│  ▲
//!                          yield │  │ resume
//!                                ▼  │
//!                              yielded ──retire──► drained beside the successor, ended
//! ```
//!
//! A successor is prepared when it knows the keys, revocations and workers as its predecessor does: no
//! request may fare worse because it came to the new process.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use sluice_http::{Listener, Start, Stopper, serve_listener};
use sluice_policy::breaker::{Force, State};
use sluice_schema::Drain as DrainTimes;
use sluice_wire::role::Role;
use sluice_wire::start::{CARRIED_MAX, Carried, Forced, Order};

use crate::GatewayError;
use crate::books::{Books, blocking};
use crate::control::Control;
use crate::drain::fit;
use crate::server::{self, Door};
use crate::state::Shared;
use crate::{carry, clock};
use crate::{kept, kill};

/// How long a successor waits for the vault's feed and the workers' health before it goes on without.
const ACQUAINTED_WITHIN: Duration = Duration::from_secs(3);
/// For the control port to end, once the ingress has.
const PORT_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(10);

/// The listening sockets, kept until the end: after a failed handover they are accepted from again.
pub(crate) struct EdgeDoors {
    /// Public ingress.
    pub(crate) http: TcpListener,
    /// The same over TLS, where it is configured.
    pub(crate) tls: Option<TcpListener>,
    /// The control port.
    pub(crate) control: TcpListener,
}

impl EdgeDoors {
    /// Takes the doors that this process was given.
    pub(crate) fn take(start: &Start) -> Result<Self, GatewayError> {
        let tls = start.config.edge.tls.is_some().then(|| tcp(start, "tls")).transpose()?;
        Ok(Self { http: tcp(start, "http")?, tls, control: tcp(start, "control")? })
    }

    /// Their addresses.
    pub(crate) fn own(&self) -> Vec<SocketAddr> {
        self.named().filter_map(|(_, door)| door.local_addr().ok()).collect()
    }

    fn addresses(&self) -> BTreeMap<String, String> {
        self.named()
            .filter_map(|(name, door)| Some((name.to_owned(), door.local_addr().ok()?.to_string())))
            .collect()
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &TcpListener)> {
        let tls = self.tls.iter().map(|door| ("tls", door));
        [("http", &self.http), ("control", &self.control)].into_iter().chain(tls)
    }

    fn ingress(&self) -> std::io::Result<Vec<(Door, TcpListener)>> {
        let plain = Ok((Door::Plain, self.http.try_clone()?));
        let tls = self.tls.iter().map(|door| Ok((Door::Tls, door.try_clone()?)));
        std::iter::once(plain).chain(tls).collect()
    }
}

fn tcp(start: &Start, name: &'static str) -> Result<TcpListener, GatewayError> {
    let door = start.doors().take(name);
    match door {
        Some(Listener::Tcp(door)) => Ok(door),
        _ => Err(GatewayError::NoDoor(name)),
    }
}

/// What a life needs.
pub(crate) struct Life {
    pub(crate) start: Start,
    pub(crate) doors: EdgeDoors,
    pub(crate) shared: Arc<Shared>,
    pub(crate) control: Arc<Control>,
    pub(crate) books: Arc<Books>,
}

/// How serving ended.
enum Turn {
    /// This process is to end.
    Stop,
    /// Its predecessor serves again, or its successor failed: as before.
    Resume,
    /// Its successor serves.
    Retire(Duration),
}

/// The control port while it is served.
struct ControlPort {
    stopper: Stopper,
    serving: tokio::task::JoinHandle<()>,
}

impl Life {
    /// Lives it; returns when nothing is open any more.
    pub(crate) async fn live(self) -> Result<(), GatewayError> {
        let mut carried = Carried::default();
        if self.start.handover.is_successor() {
            self.acquainted().await;
            // Before the moment in which connections wait: it syncs.
            self.note_address();
            self.start.prepared();
            match self.told_to_go().await {
                Some(passed_on) => carried = passed_on,
                None => return Ok(()),
            }
        } else {
            self.note_address();
        }
        let mut threads = Vec::new();
        let routes = self.control.router(&self.start);
        self.books.open().await?;
        if self.start.handover.is_successor() {
            // What the predecessor took meanwhile holds here too, from the first request on.
            self.shared.catch_up().await;
        }
        loop {
            self.take(std::mem::take(&mut carried)).await;
            self.shared.drain.serve();
            if threads.is_empty() {
                threads = self.threads()?;
            }
            let port = self.control_port(routes.clone())?;
            self.start.ready(self.doors.addresses());
            let yielded = tokio::select! {
                () = self.start.stop.wait() => false,
                () = self.told_to_yield() => true,
            };
            let turn = if yielded { self.yielded(&port).await } else { Turn::Stop };
            match turn {
                Turn::Resume => {
                    self.books.reopen().await;
                    self.shared.keys.resume();
                    self.note_address();
                }
                Turn::Stop => return self.end(threads, port).await,
                Turn::Retire(within) => {
                    self.shared.keys.relay();
                    return self.retire(threads, port, within).await;
                }
            }
        }
    }

    fn note_address(&self) {
        kept::note_address(&self.start.data_dir, &self.doors.control);
    }

    /// Waits until keys, revocations and workers are known, for a bounded time.
    async fn acquainted(&self) {
        let known = async {
            let feed = self.start.sockets.contains_key(&Role::Vault);
            while feed && (self.shared.trust.age_ms().is_none() || !self.shared.has_keys()) {
                tokio::time::sleep(LOOK).await;
            }
            while !self.shared.workers.are_known()
                || (self.doors.tls.is_some() && !self.shared.tls.is_ready())
            {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(ACQUAINTED_WITHIN, known).await.is_err() {
            tracing::warn!(component = "start", "prepared without having heard from every worker");
        }
    }

    /// What the predecessor passes on; `None` when this process is to end instead.
    async fn told_to_go(&self) -> Option<Carried> {
        loop {
            let order = tokio::select! {
                () = self.start.stop.wait() => return None,
                order = self.start.handover.next() => order,
            };
            match order {
                Order::Go(carried) => return Some(carried),
                other => passed_over(&other),
            }
        }
    }

    async fn told_to_yield(&self) {
        loop {
            match self.start.handover.next().await {
                Order::Yield => return,
                other => passed_over(&other),
            }
        }
    }

    /// What lives in memory and must not be lost: an operator's word about a breaker.
    fn carried(&self) -> Carried {
        let generation = self.shared.generation();
        let forced = generation.services.iter().filter_map(|route| {
            let state = route.upstream.breaker().state();
            let forced = match state {
                State::ForcedOpen => Forced::Open,
                State::ForcedClosed => Forced::Closed,
                State::Disabled => Forced::Disabled,
                State::Closed | State::Open | State::HalfOpen => return None,
            };
            Some((route.service.name.clone(), forced))
        });
        let switches = kill::carried(&self.shared);
        Carried { forced: forced.take(CARRIED_MAX).collect(), switches, ..Carried::default() }
    }

    /// The same with what was learnt, which lies in a file.
    async fn carried_with_state(&self, keys: &[u64]) -> Carried {
        let (shared, data_dir) = (Arc::clone(&self.shared), self.start.data_dir.clone());
        let state = blocking(move || carry::pack(&shared, &data_dir)).await;
        Carried { state, keys: keys.to_vec(), ..self.carried() }
    }

    async fn take(&self, carried: Carried) {
        if let Err(error) = self.shared.keys.adopt(&carried.keys) {
            tracing::warn!(
                component = "start",
                %error,
                "what the predecessor's requests with idempotency keys come to will be unknown"
            );
        }
        if let Some(word) = carried.state {
            let (shared, data_dir) = (Arc::clone(&self.shared), self.start.data_dir.clone());
            blocking(move || carry::unpack(&shared, &data_dir, &word)).await;
        }
        kill::take(&self.shared, &carried.switches);
        let generation = self.shared.generation();
        for (name, forced) in &carried.forced {
            let Some(route) = generation.service(name) else { continue };
            let force = match forced {
                Forced::Open => Force::Open,
                Forced::Closed => Force::Closed,
                Forced::Disabled => Force::Disabled,
            };
            route.upstream.with_breaker(|breaker| breaker.force(force, clock::now()));
            tracing::info!(component = "start", service = name.as_str(), ?forced, "breaker held as before");
        }
    }

    /// Accepts no more, closes the books, says so; returns when it is known what follows.
    async fn yielded(&self, port: &ControlPort) -> Turn {
        self.shared.drain.yield_doors();
        port.stopper.stop();
        let keys = self.shared.keys.clone();
        let keys = blocking(move || keys.yield_up()).await;
        self.books.close().await;
        self.start.yielded(self.carried_with_state(&keys).await);
        loop {
            let order = tokio::select! {
                () = self.start.stop.wait() => return Turn::Stop,
                order = self.start.handover.next() => order,
            };
            match order {
                Order::Resume => return Turn::Resume,
                Order::Retire { within_ms } => return Turn::Retire(Duration::from_millis(within_ms)),
                Order::Yield => self.start.yielded(self.carried_with_state(&keys).await),
                Order::Go(_) => passed_over(&order),
            }
        }
    }

    fn threads(&self) -> Result<Vec<JoinHandle<()>>, GatewayError> {
        let failed = |source| GatewayError::Io { what: "start the edge threads", source };
        let count = match self.shared.generation().config.edge.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        };
        server::spawn(&self.shared, self.doors.ingress().map_err(failed)?, count).map_err(failed)
    }

    fn control_port(&self, routes: Router) -> Result<ControlPort, GatewayError> {
        let failed = |source| GatewayError::Io { what: "serve the control port", source };
        let door = Listener::Tcp(self.doors.control.try_clone().map_err(failed)?);
        let (stopper, stop) = Stopper::new();
        let deadline = self.shared.generation().config.drain.deadline;
        let serving = serve_listener(door, routes, stop, deadline).map_err(failed)?;
        Ok(ControlPort { stopper, serving: tokio::spawn(serving) })
    }

    /// Ends without a successor: SIGTERM, or whoever gave the orders is gone.
    async fn end(self, threads: Vec<JoinHandle<()>>, port: ControlPort) -> Result<(), GatewayError> {
        let times = self.end_times();
        tracing::info!(
            component = "drain",
            // Not always the configured ones: a supervisor may grant less.
            lame_duck_ms = times.lame_duck.as_millis() as u64,
            deadline_ms = times.deadline.as_millis() as u64,
            "draining"
        );
        self.shared.drain.run(&times).await;
        let Self { doors, shared, books, .. } = self;
        // Nobody accepts any more: where nobody else has the sockets, connecting is refused from now on.
        drop(doors);
        wind_up(&shared, &books, threads, port).await;
        Ok(())
    }

    /// Ends beside the successor; a stop in between shortens it.
    async fn retire(
        self,
        threads: Vec<JoinHandle<()>>,
        port: ControlPort,
        within: Duration,
    ) -> Result<(), GatewayError> {
        tracing::info!(component = "drain", "the successor serves, draining");
        let times = fit(&self.shared.generation().config.drain, Some(within));
        self.shared.drain.retire(&times);
        let hastened = {
            let (stop, shared, times) = (self.start.stop.clone(), Arc::clone(&self.shared), self.end_times());
            tokio::spawn(async move {
                stop.wait().await;
                shared.drain.run(&times).await;
            })
        };
        let Self { doors, shared, books, .. } = self;
        drop(doors);
        wind_up(&shared, &books, threads, port).await;
        hastened.abort();
        Ok(())
    }

    fn end_times(&self) -> DrainTimes {
        fit(&self.shared.generation().config.drain, self.start.handover.end_within())
    }
}

/// Threads end when their connections have, or at the deadline; then everything else.
async fn wind_up(shared: &Shared, books: &Books, threads: Vec<JoinHandle<()>>, port: ControlPort) {
    blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
    port.stopper.stop();
    drop(tokio::time::timeout(PORT_WITHIN, port.serving).await);
    shared.keys.settle(PORT_WITHIN).await;
    let keys = shared.keys.clone();
    blocking(move || drop(keys.yield_up())).await;
    books.close().await;
    let log = shared.access_log.clone();
    blocking(move || log.close()).await;
    tracing::info!(component = "drain", "ended");
}

fn passed_over(order: &Order) {
    tracing::warn!(component = "start", ?order, "an order that does not fit is passed over");
}
