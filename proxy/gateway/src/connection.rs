//! One client connection from its first byte to its last: who it is, what it speaks, its requests.
//!
//! Between requests the connection is ours; for a request it is handed to Pingora and comes back.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ipnet::IpNet;
use pingora::apps::HttpServerApp as _;
use pingora::protocols::http::ServerSession;
use sluice_policy::proxy_protocol::Origin;
use sluice_schema::Limits;
use sluice_wire::code::Code;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::caps::ConnectionPermit;
use crate::conn::{Conn, is_within};
use crate::drain;
use crate::greeting;
use crate::head::{self, Next, Refusal, unless};
use crate::linger::{Patience, linger};
use crate::link::Link;
use crate::server::{App, Door};
use crate::service::Intake;
use crate::socket::Socket;
use crate::state::Shared;
use crate::stream::{Downstream, StreamTimes};
use crate::{account, clock, direct, h2, ids, tunnel};

/// A socket just accepted and counted.
pub(crate) struct Accepted {
    /// What its listener speaks.
    pub(crate) door: Door,
    /// The socket.
    pub(crate) socket: TcpStream,
    /// Its other end.
    pub(crate) direct: SocketAddr,
    /// Its own end.
    pub(crate) local: SocketAddr,
    /// Its place among the open connections.
    pub(crate) permit: ConnectionPermit,
}

/// Runs a connection to its end.
pub(crate) async fn run(shared: Arc<Shared>, app: Arc<App>, accepted: Accepted) {
    shared.meters.connections.inc();
    let _leaves = Leaves(shared.meters.connections.clone());
    // Boxed: what it takes to shake hands is not kept for the life of the connection.
    let greeted = Box::pin(greet(&shared, accepted)).await;
    let (socket, conn, permit) = match greeted {
        Ok(greeted) => greeted,
        Err(reason) => return shared.meters.connection_refused(reason),
    };
    let conn = Arc::new(conn);
    if conn.tls.as_ref().is_some_and(|tls| tls.http2) {
        return Box::pin(h2::serve(shared, app, socket, Vec::new(), conn, Some(permit))).await;
    }
    let times = StreamTimes::of(&shared.generation.load().config.edge.limits, &shared.stalls);
    let stream = Box::new(Downstream::new(socket, conn, times, permit));
    requests(&shared, &app, stream).await;
}

/// Learns who a connection is from: PROXY protocol where a trusted proxy speaks it, then TLS. The error is
/// a fixed word for metrics; nobody is answered, as no request was read.
async fn greet(
    shared: &Shared,
    accepted: Accepted,
) -> Result<(Socket, Conn, ConnectionPermit), &'static str> {
    let Accepted { door, mut socket, direct, local, mut permit } = accepted;
    let config = Arc::clone(&shared.generation.load().config);
    let edge = &config.edge;
    let deadline = Instant::now() + edge.limits.header_timeout;
    let mut peer = direct;
    let proxied = edge.proxy_protocol && is_within(direct.ip(), &edge.trusted_proxies);
    if proxied && let Origin::Client(client) = greeting::origin(&mut socket, deadline).await? {
        if let Some(cap) = shared.cap_of(edge, client.ip()) {
            permit.count(client.ip(), cap).map_err(|_| "per_ip")?;
        }
        peer = client;
    }
    if door == Door::Plain {
        return Ok((Socket::Plain(socket), Conn::new(peer, direct, local, None), permit));
    }
    match shared.tls.handshake(socket, deadline).await {
        Ok((stream, session)) => {
            shared.meters.handshake("done");
            Ok((Socket::Tls(stream), Conn::new(peer, direct, local, Some(session)), permit))
        }
        Err(fault) => {
            shared.meters.handshake(fault.reason);
            if let Some(socket) = fault.told {
                // The client is still sending, its request most likely: it is to read why that is the end.
                linger(Socket::Plain(socket), Vec::new(), Some(permit), Patience::SHORT).await;
            }
            Err("handshake")
        }
    }
}

/// The requests of a connection that speaks HTTP/1, one after another.
async fn requests(shared: &Arc<Shared>, app: &Arc<App>, mut stream: Box<Downstream>) {
    let closing = shared.drain.shutdown_watch();
    let ended = shared.drain.closes();
    tokio::pin!(ended);
    let (mut first, mut closing_now) = (true, false);
    loop {
        let generation = shared.generation.load_full();
        let limits = &generation.config.edge.limits;
        let mut next = None;
        if !closing_now {
            next = unless(ended.as_mut(), head::next(&mut stream, limits, first)).await;
        }
        if next.is_none() {
            if !std::mem::replace(&mut closing_now, true) {
                // This one is used up; a request may still follow that asks it.
                ended.set(shared.drain.closes());
            }
            next = Box::pin(last_head(shared, &mut stream, limits, first)).await;
        }
        let (arrival, fields) = match next {
            None | Some(Next::Closed) => return,
            Some(Next::Http2) => {
                if is_internal(stream.conn(), &generation.config.edge.trusted_proxies) {
                    let conn = Arc::clone(stream.conn());
                    let Some((socket, read, permit)) = stream.into_parts() else { return };
                    let (shared, app) = (Arc::clone(shared), Arc::clone(app));
                    return Box::pin(h2::serve(shared, app, socket, read, conn, permit)).await;
                }
                let started = Instant::now();
                let refusal = Refusal { code: Code::VersionNotSupported, reason: "h2c", started };
                return refuse(shared, stream, refusal).await;
            }
            Some(Next::Refused(refusal)) => return refuse(shared, stream, refusal).await,
            Some(Next::Request(arrival, fields)) => (arrival, fields),
        };
        first = false;
        let mut intake = Intake { arrival, generation: shared.generation.load_full() };
        if let Some(asked) = tunnel::wanted(&stream, &intake) {
            return Box::pin(tunnel::run(Arc::clone(shared), stream, intake, asked)).await;
        }
        let link = Arc::clone(stream.link());
        if let Some(fields) = fields.and_then(|fields| direct::wanted(&mut intake, fields)) {
            stream.skip_head();
            let running = Box::pin(direct::run(shared, &app.pool, &mut *stream, intake, fields));
            let stays = stopping(running, ended.as_mut(), &link).await;
            if !stays || link.is_stopped() || !stream.end() {
                // The client may be gone; the end was all that was left to say.
                drop(stream.shutdown().await);
                return;
            }
            continue;
        }
        // Boxed, so that a connection that waits holds no room for a request.
        let running = Box::pin(request(app, stream, intake, &closing));
        match stopping(running, ended.as_mut(), &link).await {
            Some(back) if !link.is_stopped() => stream = back,
            _ => return,
        }
        // It came back, so the client was told that it stays open: a drain that has begun meanwhile lets it
        // ask once more.
        if !stream.end() {
            return;
        }
    }
}

/// Whether a client may speak HTTP/2 without TLS: one on this machine, or a trusted proxy.
fn is_internal(conn: &Conn, trusted: &[IpNet]) -> bool {
    let ip = conn.direct.ip();
    ip.to_canonical().is_loopback() || is_within(ip, trusted)
}

/// The next request on a connection that closes when it is idle: who is just sending is not cut off.
async fn last_head(
    shared: &Shared,
    stream: &mut Box<Downstream>,
    limits: &Limits,
    first: bool,
) -> Option<Next> {
    let (mut phase, quiet_since) = (shared.drain.phase(), Instant::now());
    let idle = drain::idle_may_close(&mut phase, quiet_since);
    tokio::pin!(idle);
    match unless(idle, head::next(stream, limits, first)).await {
        // Half a head is no idleness; it has its own deadline.
        None if !stream.buffered().is_empty() => Some(head::next(stream, limits, first).await),
        next => next,
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
    let reused = app.pingora.process_new_http(session, closing).await?;
    let (stream, _) = reused.consume();
    stream.into_any().downcast().ok()
}

/// Runs a request; an answer without end is stopped when the drain closes connections, and one that goes on
/// for long when its caller's credential ends.
pub(crate) async fn stopping<T>(
    mut running: Pin<Box<impl Future<Output = T> + ?Sized>>,
    mut ended: Pin<&mut impl Future<Output = ()>>,
    link: &Link,
) -> T {
    let mut poll = move |cx: &mut Context<'_>| clock::one_poll(|| running.as_mut().poll(cx));
    poll_fn(|cx| {
        if let Poll::Ready(done) = poll(cx) {
            return Poll::Ready(done);
        }
        if link.is_ended(cx.waker()) {
            return poll(cx);
        }
        // Looked at by streams alone: the watch is shared by all threads.
        if link.streams() && !link.is_stopped() && ended.as_mut().poll(cx).is_ready() {
            link.stop();
            return poll(cx);
        }
        Poll::Pending
    })
    .await
}

async fn refuse(shared: &Shared, stream: Box<Downstream>, refusal: Refusal) {
    let id = ids::mint();
    account::refused(shared, stream.conn().peer.ip(), &id, &refusal);
    // The head is still in the buffer. What asks for no body is answered without one even when refused.
    let head = stream.buffered();
    let head_only = head.strip_prefix(b"\r\n").unwrap_or(head).starts_with(b"HEAD ");
    let answer = refusal.answer().into_wire("/", &id, head_only);
    stream.answer_and_close(&answer).await;
}

struct Leaves(prometheus::IntGauge);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.dec();
    }
}
