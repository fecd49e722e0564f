//! Edge threads: accepting connections and running each of them to its end.
//!
//! One current-thread runtime a thread, each with its own accept task on a duplicate of the listening
//! socket and its own pool of upstream connections, so a request never leaves its thread. Between
//! requests the connection is ours; for a request it is handed to Pingora and comes back.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pingora::apps::HttpServerApp as _;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::caps::{ConnectionCaps, Full};
use crate::drain::Phase;
use crate::head::{self, Next, Refusal, unless};
use crate::respond::Answer;
use crate::service::{Edge, Intake};
use crate::state::Shared;
use crate::stream::{Downstream, StreamTimes};
use crate::{account, ids};

/// Upstream connections kept idle by one edge thread.
const POOL_PER_THREAD: usize = 256;
/// More tries than any configuration allows; the real count is decided by policy.
const TRIES_MAX: usize = 16;
/// Pause after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Between two bytes of a request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

type App = HttpProxy<Edge>;

/// Starts the edge threads on a listening socket. They end when the drain has.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    listener: StdListener,
    threads: usize,
) -> io::Result<Vec<JoinHandle<()>>> {
    listener.set_nonblocking(true)?;
    (0..threads.max(1))
        .map(|number| {
            let (shared, listener) = (Arc::clone(shared), listener.try_clone()?);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new()
                .name(format!("edge-{number}"))
                .spawn(move || runtime.block_on(serve(shared, listener)))
        })
        .collect()
}

async fn serve(shared: Arc<Shared>, listener: StdListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(component = "listener", %error, "listening socket cannot be used");
            return;
        }
    };
    let app = Arc::new(http_proxy(&conf(), Edge { shared: Arc::clone(&shared) }));
    let connections = TaskTracker::new();
    let mut phase = shared.drain.phase();
    loop {
        tokio::select! {
            changed = phase.wait_for(|phase| matches!(phase, Phase::Closing { .. })) => {
                drop(changed);
                break;
            }
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => take(&shared, &app, &connections, socket, peer),
                Err(error) => {
                    tracing::warn!(component = "listener", %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let phase = *phase.borrow();
    let deadline = match phase {
        Phase::Closing { deadline } => deadline,
        _ => Instant::now(),
    };
    connections.close();
    if tokio::time::timeout_at(deadline, connections.wait()).await.is_err() {
        tracing::warn!(component = "drain", open = connections.len(), "connections cut off at the deadline");
    }
    app.http_cleanup().await;
}

fn conf() -> Arc<ServerConf> {
    Arc::new(ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: POOL_PER_THREAD,
        max_retries: TRIES_MAX,
        // Upstreams are plain HTTP in this version: no roots are loaded, and a machine without any starts.
        ca_file: Some("/dev/null".to_owned()),
        ..ServerConf::default()
    })
}

/// Admits one accepted socket and starts its task.
fn take(
    shared: &Arc<Shared>,
    app: &Arc<App>,
    connections: &TaskTracker,
    socket: TcpStream,
    peer: SocketAddr,
) {
    let generation = shared.generation.load();
    let edge = &generation.config.edge;
    let ip = peer.ip().to_canonical();
    let exempt = (shared.dev && ip.is_loopback()) || edge.trusted_proxies.iter().any(|net| net.contains(&ip));
    let caps = ConnectionCaps {
        total: edge.limits.connections,
        per_ip: (!exempt).then_some(edge.limits.connections_per_ip),
    };
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
    let times = StreamTimes { body: BODY_TIMEOUT, write: edge.limits.idle_timeout };
    let stream = Downstream::new(socket, peer, local, times, permit);
    connections.spawn(run(Arc::clone(shared), Arc::clone(app), Box::new(stream), peer));
}

/// One connection from its first byte to its last.
async fn run(shared: Arc<Shared>, app: Arc<App>, mut stream: Box<Downstream>, peer: SocketAddr) {
    shared.meters.connections.inc();
    let counted = shared.meters.connections.clone();
    let _leaves = Leaves(counted);
    let closing = shared.drain.shutdown_watch();
    let mut phase = shared.drain.phase();
    let ended = async move {
        drop(phase.wait_for(|phase| matches!(phase, Phase::Closing { .. })).await);
    };
    tokio::pin!(ended);
    let mut first = true;
    loop {
        let generation = shared.generation.load_full();
        let limits = &generation.config.edge.limits;
        let next = unless(ended.as_mut(), head::next(&mut stream, peer, limits, first)).await;
        let arrival = match next {
            None | Some(Next::Closed) => return,
            Some(Next::Refused(refusal)) => return refuse(&shared, stream, peer, refusal).await,
            Some(Next::Request(arrival)) => arrival,
        };
        first = false;
        let intake = Intake { arrival: *arrival, generation: shared.generation.load_full() };
        match request(&app, stream, intake, &closing).await {
            Some(back) => stream = back,
            None => return,
        }
        // It came back, so the client was told that it stays open: a drain that has begun meanwhile lets it
        // ask once more.
        if !stream.end() {
            return;
        }
    }
}

/// Runs one request through Pingora; the stream comes back when another may follow.
async fn request(
    app: &Arc<App>,
    stream: Box<Downstream>,
    intake: Intake,
    closing: &watch::Receiver<bool>,
) -> Option<Box<Downstream>> {
    let mut session = ServerSession::new_http1(stream);
    // Time between requests is kept by us, not by Pingora; reading and writing too, by the stream.
    session.set_keepalive(Some(0));
    session.set_read_timeout(None);
    session.set_connection_user_context(Some(Box::new(intake)));
    let reused = app.process_new_http(session, closing).await?;
    let (stream, _) = reused.consume();
    stream.into_any().downcast().ok()
}

async fn refuse(shared: &Shared, stream: Box<Downstream>, peer: SocketAddr, refusal: Refusal) {
    let id = ids::mint();
    account::refused(shared, peer.ip(), &id, &refusal);
    let answer = Answer::refuse(refusal.code, format!("the request is not acceptable: {}", refusal.reason));
    stream.answer_and_close(&answer.into_wire("/", &id, false)).await;
}

struct Leaves(prometheus::IntGauge);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.dec();
    }
}
