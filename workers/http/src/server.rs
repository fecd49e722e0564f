//! Accepting connections, and draining them at the end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::{Method, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt as _;

use crate::direct::{Direct, Directly};
use crate::doors::{Door, Listener, Peer};
use crate::health::HealthSource;
use crate::layer::{Outer, around};
use crate::start::Start;
use crate::stop::Stop;
use crate::takeover::{Claimed, Slot, Taken};
use crate::tls::{Entered, Tls};
use crate::verified::Shown;

/// Most connections one door holds at a time; more wait in the kernel's queue.
pub(crate) const CONNECTIONS_MAX: usize = 8_192;
/// Time a request head may take.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest request head, bytes.
pub(crate) const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Most fields in a request head: the edge lets 100 of a client's pass and adds its own.
pub(crate) const HEADER_COUNT_MAX: usize = 160;

/// A role could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket could not be used.
    #[error("door `{door}` cannot be used")]
    Door {
        /// Its name.
        door: String,
        /// Why.
        source: io::Error,
    },
    /// No socket was given.
    #[error("role {0} was given no door")]
    NoDoor(sluice_wire::role::Role),
}

/// Serves a role's routes on every door it was given, prints the ready line, and returns when the
/// process is to end and its requests are answered (or the drain deadline has passed).
pub async fn serve(start: &Start, routes: Router, health: Arc<dyn HealthSource>) -> Result<(), ServeError> {
    serve_with(start, routes, None, health).await
}

/// The same with calls that are answered without the router.
pub async fn serve_with(
    start: &Start,
    routes: Router,
    direct: Option<Arc<dyn Direct>>,
    health: Arc<dyn HealthSource>,
) -> Result<(), ServeError> {
    serve_doors(start, routes, direct, None, health).await
}

/// The same, by TLS too at doors of TCP, where other machines speak nothing else ([`Tls`]).
pub async fn serve_by_tls(
    start: &Start,
    routes: Router,
    tls: Arc<Tls>,
    health: Arc<dyn HealthSource>,
) -> Result<(), ServeError> {
    serve_doors(start, routes, None, Some(tls), health).await
}

async fn serve_doors(
    start: &Start,
    routes: Router,
    direct: Option<Arc<dyn Direct>>,
    tls: Option<Arc<Tls>>,
    health: Arc<dyn HealthSource>,
) -> Result<(), ServeError> {
    let outer = Arc::new(Outer::new(start));
    let router = around(&outer, start, routes, health);
    let app = App { router, direct: direct.map(|calls| Arc::new(Directly { calls, outer })) };
    let addresses = start.doors().addresses();
    let doors: BTreeMap<String, Listener> = start.doors().take_all();
    if doors.is_empty() {
        return Err(ServeError::NoDoor(start.role));
    }
    let mut serving = Vec::new();
    for (name, listener) in doors {
        let bound = Bound::new(listener).map_err(|source| ServeError::Door { door: name, source })?;
        let (stop, deadline) = (start.stop.clone(), start.config.drain.deadline);
        serving.push(accept(bound, app.clone(), tls.clone(), stop, deadline));
    }
    start.ready(addresses);
    futures_util::future::join_all(serving).await;
    Ok(())
}

/// Serves one socket; the returned future ends after the drain.
pub fn serve_listener(
    listener: Listener,
    app: Router,
    stop: Stop,
    deadline: Duration,
) -> io::Result<impl Future<Output = ()> + Send> {
    Ok(accept(Bound::new(listener)?, app.into(), None, stop, deadline))
}

/// Serves one TCP socket by mutual TLS, and by plain HTTP to this machine alone ([`Tls`] says why); the
/// returned future ends after the drain.
pub fn serve_secured(
    listener: Listener,
    tls: Arc<Tls>,
    app: Router,
    stop: Stop,
    deadline: Duration,
) -> io::Result<impl Future<Output = ()> + Send> {
    Ok(accept(Bound::new(listener)?, app.into(), Some(tls), stop, deadline))
}

/// What answers requests.
#[derive(Clone)]
struct App {
    router: Router,
    direct: Option<Arc<Directly>>,
}

impl From<Router> for App {
    fn from(router: Router) -> Self {
        Self { router, direct: None }
    }
}

impl App {
    async fn answer(self, request: Request<Incoming>, from: Arc<(Peer, Shown)>) -> Response {
        if let Some(direct) = self.direct
            && let Some(limit) = direct.takes(&request)
        {
            return direct.answer(request, (&from.0, &from.1), limit).await;
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(from.0.clone());
        // Boxed: its state is many times that of a direct call, and would be moved with it.
        let answer: BoxFuture<'_, _> = Box::pin(self.router.oneshot(request));
        answer.await.unwrap_or_else(|never| match never {})
    }
}

async fn accept(bound: Bound, app: App, tls: Option<Arc<Tls>>, stop: Stop, deadline: Duration) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = tokio::select! {
            () = stop.wait() => break,
            permit = Arc::clone(&room).acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        tokio::select! {
            () = stop.wait() => break,
            accepted = bound.accept() => match accepted {
                Ok((stream, peer)) => {
                    let ends = Ends { stop: stop.clone(), _watcher: graceful.watcher(), _permit: permit };
                    tokio::spawn(attend(stream, peer, app.clone(), tls.clone(), ends));
                }
                // Out of descriptors, or the peer is gone already: a pause lets others finish.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
    drop(bound);
    let _open_connections_are_cut = tokio::time::timeout(deadline, graceful.shutdown()).await;
}

enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Bound {
    fn new(listener: Listener) -> io::Result<Self> {
        match listener {
            Listener::Tcp(tcp) => {
                tcp.set_nonblocking(true)?;
                TcpListener::from_std(tcp).map(Self::Tcp)
            }
            Listener::Unix(unix) => {
                unix.set_nonblocking(true)?;
                UnixListener::from_std(unix).map(Self::Unix)
            }
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Peer { door: Door::Api, address: Some(address), client: None }))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                // The file mode already keeps others out; this holds even if it was changed.
                if stream.peer_cred()?.uid() != rustix::process::getuid().as_raw() {
                    return Err(io::Error::from(io::ErrorKind::PermissionDenied));
                }
                Ok((Stream::Unix(stream), Peer { door: Door::Internal, address: None, client: None }))
            }
        }
    }
}

/// What ends a connection, and what its end gives back.
struct Ends {
    stop: Stop,
    /// The drain waits until it is dropped.
    _watcher: Watcher,
    _permit: OwnedSemaphorePermit,
}

/// One connection, from its first byte to its end.
async fn attend(stream: Stream, mut peer: Peer, app: App, tls: Option<Arc<Tls>>, ends: Ends) {
    let (stream, tls) = match (stream, tls) {
        (Stream::Unix(stream), _) => return converse(stream, peer, app, ends).await,
        (Stream::Tcp(stream), None) => return converse(stream, peer, app, ends).await,
        (Stream::Tcp(stream), Some(tls)) => (stream, tls),
    };
    let address = peer.address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
    let entered = tokio::select! {
        () = ends.stop.wait() => return,
        entered = tls.enter(stream, address) => entered,
    };
    match entered {
        Ok(Entered::Plain(stream)) => converse(stream, peer, app, ends).await,
        Ok(Entered::Secured(stream, client)) => {
            peer.client = client;
            converse(stream, peer, app, ends).await;
        }
        Err(error) => tracing::debug!(
            component = "tls",
            error = &error as &dyn std::error::Error,
            "a connection came to nothing"
        ),
    }
}

async fn converse<S>(stream: S, peer: Peer, app: App, ends: Ends)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let slot = Slot::default();
    let claims = slot.clone();
    let from = Arc::new((peer, Shown::default()));
    let service = service_fn(move |request: Request<Incoming>| {
        let (app, from, slot, version) = (app.clone(), Arc::clone(&from), slot.clone(), request.version());
        // Whoever asks for a head gets that.
        let head_only = request.method() == Method::HEAD;
        async move {
            let response = app.answer(request, from).await;
            Ok::<_, Infallible>(slot.pass(version, head_only, response).await)
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADER_COUNT_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let claimed = {
        let mut stop = pin!(ends.stop.wait());
        let mut stopping = false;
        poll_fn(|cx| {
            if !stopping && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            // A client that breaks off mid-request is its own business.
            let polled = Pin::new(&mut connection).poll(cx).map(|_client_gone| None);
            claims.take().map_or(polled, |claimed| Poll::Ready(Some(claimed)))
        })
        .await
    };
    if let Some(claimed) = claimed {
        let parts = connection.into_parts();
        carry(parts.io.into_inner(), parts.read_buf, claimed, ends).await;
    }
}

/// A connection that its answer has taken over. It counts as open, and the drain waits for it.
async fn carry<S>(mut stream: S, early: bytes::Bytes, claimed: Claimed, ends: Ends)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Claimed { head, chunked, work } = claimed;
    let written = tokio::time::timeout(HEADER_TIMEOUT, stream.write_all(&head)).await;
    if matches!(written, Ok(Ok(()))) {
        let streamed = work(Taken { io: Box::new(stream), early, chunked });
        // A task of its own, and nothing in it but that: this one has room for a whole HTTP connection.
        tokio::spawn(async move {
            streamed.await;
            drop(ends);
        });
    }
}
