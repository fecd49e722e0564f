//! The client's connection as Pingora sees it: an own `IO` type over a plain or encrypted socket.
//!
//! It exists because Pingora has no hook before a head is parsed and no total deadline:
//! - **Reading** hands out only bytes that belong to the request in hand and that passed the framing
//!   check. What the client sent beyond it (pipelining) stays here, so the next request is intact, and
//!   no more than one buffer of it is read ahead.
//! - **Deadlines** run on one timer a connection. While a request is under way Pingora always has a read
//!   pending here (it waits for the client to leave), so a deadline the request set in its [`Link`]
//!   ends it from here, whatever the upstream does. The timer is moved lazily: a later deadline costs
//!   nothing until the earlier one fires.
//! - **Writing** is buffered, so head and body leave in one `send`; what is held back goes out as soon as
//!   Pingora has nothing more at hand, so nothing that an upstream sent waits for what it has not sent.
//! - **Dropping** with an unread body lingers: the write side is closed and input discarded for a moment,
//!   or the reset would overtake the answer in the client's kernel.

mod behind;
mod session;

use std::io;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::SocketDigest;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use sluice_policy::framing::BodyFraming;
use sluice_schema::Limits;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use crate::caps::ConnectionPermit;
use crate::chunks::ChunkFault;
use crate::conn::Conn;
use crate::inbound::Inbound;
use crate::linger::{Patience, linger};
use crate::link::{Fault, Link};
use crate::outbound::Outbound;
use crate::remaining::Remaining;
use crate::socket::Socket;
use crate::stall::{Stall, Stalls};
use crate::timer::Timer;

/// LIMIT: input read ahead of the request in hand.
const AHEAD_BYTES: usize = 4 << 10;
/// LIMIT: input buffered while a body is checked chunk by chunk.
const CHUNK_BYTES: usize = 32 << 10;

/// Between two bytes of a request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Times the stream itself enforces.
#[derive(Clone, Debug)]
pub(crate) struct StreamTimes {
    /// Between two body bytes.
    pub(crate) body: Duration,
    /// Without the client taking a byte.
    pub(crate) write: Duration,
    /// What shortens that where many clients do so.
    pub(crate) stalls: Arc<Stalls>,
}

impl StreamTimes {
    /// The times under these limits.
    pub(crate) fn of(limits: &Limits, stalls: &Arc<Stalls>) -> Self {
        Self { body: BODY_TIMEOUT, write: limits.idle_timeout, stalls: Arc::clone(stalls) }
    }
}

/// A client connection.
pub(crate) struct Downstream {
    /// `None` only while dropping.
    socket: Option<Socket>,
    inbound: Inbound,
    remaining: Remaining,
    out: Outbound,
    stall: Stall,
    last_body_byte: Option<Instant>,
    wrote: bool,
    timer: Timer,
    times: StreamTimes,
    link: Arc<Link>,
    conn: Arc<Conn>,
    digest: Arc<SocketDigest>,
    permit: Option<ConnectionPermit>,
}

impl Downstream {
    /// Wraps an accepted socket. Peer and local address are known here once, so that no request pays a
    /// `getpeername`.
    pub(crate) fn new(socket: Socket, conn: Arc<Conn>, times: StreamTimes, permit: ConnectionPermit) -> Self {
        let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
        digest.peer_addr.get_or_init(|| Some(PeerAddr::Inet(conn.peer)));
        digest.local_addr.get_or_init(|| Some(PeerAddr::Inet(conn.local)));
        Self {
            socket: Some(socket),
            inbound: Inbound::default(),
            remaining: Remaining::nothing(),
            out: Outbound::default(),
            stall: Stall::new(Arc::clone(&times.stalls), times.write),
            last_body_byte: None,
            wrote: false,
            timer: Timer::default(),
            times,
            link: Arc::new(Link::new()),
            conn,
            digest: Arc::new(digest),
            permit: Some(permit),
        }
    }

    /// The connection.
    pub(crate) const fn conn(&self) -> &Arc<Conn> {
        &self.conn
    }

    /// Takes the socket back, with what was read and not handed out, for another protocol on it.
    pub(crate) fn into_parts(mut self) -> Option<(Socket, Vec<u8>, Option<ConnectionPermit>)> {
        let read = self.inbound.filled().to_vec();
        self.remaining = Remaining::nothing();
        Some((self.socket.take()?, read, self.permit.take()))
    }

    /// What request and stream share.
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Bytes read and not yet given to a request.
    pub(crate) fn buffered(&self) -> &[u8] {
        self.inbound.filled()
    }

    /// Reads once. `Ok(0)`: the client is done. `Err(TimedOut)`: `deadline` passed. Buffers at most
    /// `limit` bytes.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
        deadline: Option<Instant>,
    ) -> Poll<io::Result<usize>> {
        match self.poll_socket(cx, limit) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => match deadline {
                Some(at) => self.timer.poll(cx, at).map(|()| Err(timed_out())),
                None => Poll::Pending,
            },
        }
    }

    /// Starts a request whose head is the first `head_bytes` of [`Self::buffered`]. A fault among body
    /// bytes that came along is seen here.
    pub(crate) fn begin(&mut self, head_bytes: usize, body: BodyFraming) -> Result<(), ChunkFault> {
        self.link.begin();
        self.last_body_byte = None;
        self.wrote = false;
        self.remaining = Remaining::of(head_bytes, body, &self.inbound.filled()[head_bytes..])?;
        Ok(())
    }

    /// Ends a request; false where bytes of it are still to come, so that no new head can follow.
    pub(crate) fn end(&mut self) -> bool {
        let Some(unwanted) = self.remaining.end() else { return false };
        self.inbound.consume(unwanted);
        self.inbound.shrink();
        self.out.shrink();
        self.link.set_deadline(None);
        self.wrote = false;
        true
    }

    /// Drops the head of the request in hand: it was read from [`Self::buffered`].
    pub(crate) fn skip_head(&mut self) {
        let head = self.remaining.head();
        self.inbound.consume(head);
        self.remaining.hand_out(head);
    }

    /// Drops `count` buffered bytes: empty lines before a head.
    pub(crate) fn skip(&mut self, count: usize) {
        self.inbound.consume(count);
    }

    /// Where an answer is written that leaves with the next flush, or before the next wait.
    pub(crate) fn answer(&mut self) -> &mut Vec<u8> {
        self.out.room()
    }

    /// Ready once so little waits to be sent that more may be written.
    pub(crate) fn poll_answer_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_full() { self.poll_send(cx, &[]).map_ok(drop) } else { Poll::Ready(Ok(())) }
    }

    /// Drops what of an answer was not sent: nobody takes it.
    pub(crate) fn forget_answer(&mut self) {
        self.out.forget();
    }

    /// Writes `answer`, then closes. For requests that Pingora never sees.
    pub(crate) async fn answer_and_close(mut self, answer: &[u8]) {
        let written = tokio::time::timeout(self.times.write, async {
            self.write_all(answer).await?;
            self.flush().await
        });
        // The client may be gone; there is nobody left to tell.
        drop(written.await);
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        if !self.inbound.make_room(limit) {
            return Poll::Ready(Err(io::Error::other("input buffer is full")));
        }
        let Some(socket) = self.socket.as_mut() else { return Poll::Ready(Ok(0)) };
        let mut room = ReadBuf::new(self.inbound.room());
        ready!(Pin::new(socket).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        self.inbound.filled_more(count);
        Poll::Ready(Ok(count))
    }

    /// Bytes of the input buffer that may be handed out now.
    fn available(&mut self) -> io::Result<usize> {
        self.remaining.available(self.inbound.filled()).map_err(|fault| {
            self.link.set_fault(Fault::BodyFraming);
            io::Error::new(io::ErrorKind::InvalidData, fault)
        })
    }

    /// Sends what was held back; the error that ends the wait before it begins, where there is one.
    fn before_waiting(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        if !self.out.is_flushed()
            && let Poll::Ready(Err(error)) = self.poll_send(cx, &[])
        {
            return Some(error);
        }
        let fault = self.link.halt()?;
        self.link.set_fault(fault);
        Some(timed_out())
    }

    /// Waiting for the client: the earliest of the request's deadline and the body timeout. Pingora waits
    /// here whenever nothing more is at hand, so this is the moment to send what was held back.
    fn poll_request_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.before_waiting(cx) {
            return Poll::Ready(Err(error));
        }
        let body_due = self
            .remaining
            .awaits_bytes()
            .then(|| *self.last_body_byte.get_or_insert_with(Instant::now) + self.times.body);
        let (deadline, fault) = match (self.link.deadline(), body_due) {
            (Some(at), Some(due)) if due < at => (due, Fault::BodyTimeout),
            (Some(at), _) => (at, Fault::Deadline),
            (None, Some(due)) => (due, Fault::BodyTimeout),
            (None, None) => return Poll::Pending,
        };
        ready!(self.timer.poll(cx, deadline));
        self.link.set_fault(fault);
        Poll::Ready(Err(timed_out()))
    }

    /// A read after the whole request was handed out: it ends when the client leaves or time is up.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Bytes of the next request may be here already. They are read up to the bound, so that the end
        // behind them is seen.
        while self.inbound.filled().len() < AHEAD_BYTES {
            match self.poll_socket(cx, AHEAD_BYTES) {
                Poll::Ready(Ok(0) | Err(_)) if self.link.stays() => break,
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        self.poll_request_deadline(cx)
    }

    /// Called when the socket takes nothing: pending until the write timeout, or until the request must
    /// be over. A client that reads its answer a byte now and then holds it no longer than that.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.link.lent().give_back();
        let due = self.stall.due();
        let due = self.link.end().map_or(due, |end| due.min(end));
        ready!(self.timer.poll(cx, due));
        self.link.set_fault(Fault::WriteTimeout);
        Poll::Ready(timed_out())
    }

    /// Sends what is held back together with `more`; returns how much of `more` went.
    fn poll_send(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        let Self { socket, out, stall, wrote, .. } = self;
        let Some(socket) = socket.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let progress = || {
            stall.is_over();
            *wrote = true;
        };
        match out.poll_send(socket, cx, more, progress) {
            Poll::Pending => self.poll_stall(cx).map(Err),
            sent @ Poll::Ready(_) => sent,
        }
    }
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

impl AsyncRead for Downstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.remaining.is_in_body() && this.link.backlog().poll_room(cx).is_pending() {
            return this.poll_behind(cx).map(Err);
        }
        loop {
            let count = this.available()?.min(buf.remaining());
            if count > 0 {
                buf.put_slice(&this.inbound.filled()[..count]);
                this.inbound.consume(count);
                this.remaining.hand_out(count);
                return Poll::Ready(Ok(()));
            }
            if !this.remaining.awaits_bytes() {
                return this.poll_idle(cx);
            }
            if this.inbound.is_empty() && this.remaining.awaits_plain(buf.remaining()) {
                // A long body goes straight into Pingora's buffer.
                return this.poll_read_through(cx, buf);
            }
            match this.poll_socket(cx, CHUNK_BYTES) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => this.last_body_byte = Some(Instant::now()),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return this.poll_request_deadline(cx),
            }
        }
    }
}

impl Downstream {
    fn poll_read_through(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Some(socket) = self.socket.as_mut() else { return Poll::Ready(Ok(())) };
        match Pin::new(socket).poll_read(cx, buf) {
            Poll::Ready(read) => read?,
            Poll::Pending => return self.poll_request_deadline(cx),
        }
        let count = buf.filled().len() - before;
        if count > 0 {
            self.last_body_byte = Some(Instant::now());
            self.remaining.hand_out(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.out.hold(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        self.poll_send(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx, &[]).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        if self.link.breaks_off() {
            // An orderly end would say that this was all.
            return Poll::Ready(Ok(()));
        }
        match self.socket.as_mut() {
            Some(socket) => Pin::new(socket).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl std::fmt::Debug for Downstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Downstream").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        if self.link.breaks_off()
            && let Some(socket) = self.socket.take()
        {
            return socket.reset();
        }
        let unread = !self.remaining.is_done();
        let answered = self.wrote || !self.out.unsent().is_empty();
        if !(unread && answered) {
            return;
        }
        if let (Some(socket), Ok(runtime)) = (self.socket.take(), tokio::runtime::Handle::try_current()) {
            let unsent = self.out.unsent().to_vec();
            runtime.spawn(linger(socket, unsent, self.permit.take(), Patience::SHORT));
        }
    }
}
