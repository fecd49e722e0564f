//! Edge threads: each accepts connections on duplicates of the listening sockets and runs them to their end.
//!
//! One current-thread runtime a thread with its own pool of upstream connections, so a request never
//! leaves its thread.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pingora::apps::HttpServerApp as _;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::calls::Lines;
use crate::caps::{ConnectionCaps, Full};
use crate::connection::{self, Accepted};
use crate::direct::Pool;
use crate::drain::{self, Phase};
use crate::service::Edge;
use crate::state::Shared;

/// Upstream connections kept idle by one edge thread.
const POOL_PER_THREAD: usize = 256;
/// More tries than any configuration allows, each address of an instance counted as one; the real count is
/// decided by policy.
const TRIES_MAX: usize = 64;
/// Pause after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What one edge thread reaches its upstreams by.
pub(crate) struct App {
    /// Pingora, with connections of its own.
    pub(crate) pingora: Arc<HttpProxy<Edge>>,
    /// Connections for calls that are carried beside it.
    pub(crate) lines: Lines,
    /// Idle connections of requests that go without it.
    pub(crate) pool: Pool,
}

/// What a listening socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Plain HTTP.
    Plain,
    /// TLS.
    Tls,
}

/// Starts the edge threads on listening sockets. They end when the drain has.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    listeners: Vec<(Door, StdListener)>,
    threads: usize,
) -> io::Result<Vec<JoinHandle<()>>> {
    for (_, listener) in &listeners {
        listener.set_nonblocking(true)?;
    }
    (0..threads.max(1))
        .map(|number| {
            let shared = Arc::clone(shared);
            let duplicate = |(door, listener): &(Door, StdListener)| Ok((*door, listener.try_clone()?));
            let listeners: Vec<_> = listeners.iter().map(duplicate).collect::<io::Result<_>>()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new()
                .name(format!("edge-{number}"))
                .spawn(move || runtime.block_on(serve(shared, listeners)))
        })
        .collect()
}

async fn serve(shared: Arc<Shared>, listeners: Vec<(Door, StdListener)>) {
    let pingora = Arc::new(http_proxy(&conf(), Edge { shared: Arc::clone(&shared) }));
    let app = Arc::new(App { pingora, lines: Lines::new(POOL_PER_THREAD), pool: Pool::default() });
    let sweeping = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.pool.sweep().await }
    });
    let connections = TaskTracker::new();
    let accepting =
        listeners.into_iter().map(|(door, listener)| accept(&shared, &app, &connections, door, listener));
    futures_util::future::join_all(accepting).await;
    connections.close();
    let mut phase = shared.drain.phase();
    tokio::select! {
        () = connections.wait() => {}
        () = drain::cut_off(&mut phase) => {
            tracing::warn!(component = "drain", open = connections.len(), "connections cut off at the deadline");
        }
    }
    sweeping.abort();
    app.pingora.http_cleanup().await;
}

fn conf() -> Arc<ServerConf> {
    Arc::new(ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: POOL_PER_THREAD,
        max_retries: TRIES_MAX,
        // Roots are named by each service: none are loaded here, and a machine without any starts.
        ca_file: Some("/dev/null".to_owned()),
        ..ServerConf::default()
    })
}

/// Accepts on one socket until the drain closes it.
async fn accept(
    shared: &Arc<Shared>,
    app: &Arc<App>,
    connections: &TaskTracker,
    door: Door,
    listener: StdListener,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(component = "listener", %error, "listening socket cannot be used");
            return;
        }
    };
    let mut phase = shared.drain.phase();
    loop {
        let now = *phase.borrow_and_update();
        if matches!(now, Phase::Closing { .. }) {
            return;
        }
        tokio::select! {
            changed = phase.changed() => if changed.is_err() { return },
            accepted = listener.accept(), if now.accepts() => match accepted {
                Ok((socket, peer)) => take(shared, app, connections, door, socket, peer),
                Err(error) => {
                    tracing::warn!(component = "listener", %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Admits one accepted socket and starts its task.
fn take(
    shared: &Arc<Shared>,
    app: &Arc<App>,
    connections: &TaskTracker,
    door: Door,
    socket: TcpStream,
    direct: SocketAddr,
) {
    let generation = shared.generation.load();
    let edge = &generation.config.edge;
    let ip = direct.ip();
    let caps = ConnectionCaps { total: edge.limits.connections, per_ip: shared.cap_of(edge, ip) };
    let permit = match shared.connections.admit(ip, caps) {
        Ok(permit) => permit,
        Err(full) => {
            // Closed without an answer: writing one would cost what the cap is there to save.
            shared.meters.connection_refused(match full {
                Full::Total => "total",
                Full::PerIp => "per_ip",
            });
            return;
        }
    };
    let Ok(local) = socket.local_addr() else { return };
    // Without it an answer of two segments waits for the client's delayed acknowledgement.
    drop(socket.set_nodelay(true));
    let accepted = Accepted { door, socket, direct, local, permit };
    connections.spawn(connection::run(Arc::clone(shared), Arc::clone(app), accepted));
}
