//! The client's socket below HTTP/2: what passes is counted, a little at a time, and must make progress.
//!
//! - **Floods**: the heads of all frames are read as they pass, in both directions; `sluice_policy::flood`
//!   judges them before `h2` sees them. What comes after the verdict is not read any more.
//! - **Turns**: at most [`TURN_BYTES`] are read before the loop above has taken what they opened. So no
//!   client fills memory with heads that nobody has judged, and none keeps the thread to itself.
//! - **Progress**: a socket that takes nothing for the write timeout ends the connection.
//! - **Dropping** leaves the socket of a client that has not left itself for lingering: closed at once, it would
//!   be reset by what the client is still sending, and the reset would overtake the goodbye in the client's kernel.
//! - **The first word** of an end (`parting.rs`) is written here, between two frames.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use sluice_policy::flood::{Flood, FloodGuard, Frame, FrameScanner};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::parting::FIRST_WORD;
use crate::caps::ConnectionPermit;
use crate::clock;
use crate::linger::{Patience, linger};
use crate::socket::Socket;
use crate::timer::Timer;

/// LIMIT: bytes read before the loop above had its turn.
pub(super) const TURN_BYTES: usize = 32 << 10;
/// The client's greeting, before its first frame.
const GREETING_BYTES: u64 = 24;

/// What the socket tells the loop above it.
#[derive(Debug)]
pub(super) struct Watch(Mutex<State>);

#[derive(Debug)]
struct State {
    guard: FloodGuard,
    verdict: Option<Flood>,
    turn: usize,
    spent: bool,
    greet_by: Option<Instant>,
    block: Option<Instant>,
    /// Bytes of the first word that were written, where it is to be said.
    first_word: Option<usize>,
    /// What is left of a connection that was dropped.
    left: Option<Left>,
}

/// A socket whose connection is over, with its place among the open ones.
#[derive(Debug)]
struct Left {
    socket: Socket,
    permit: Option<ConnectionPermit>,
}

impl Watch {
    /// A connection that begins now and greets within `greeting`.
    pub(super) fn new(greeting: Duration) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            guard: FloodGuard::new(clock::now()),
            verdict: None,
            turn: TURN_BYTES,
            spent: false,
            greet_by: Some(Instant::now() + greeting),
            block: None,
            first_word: None,
            left: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new turn begins.
    pub(super) fn begin_turn(&self) {
        let mut state = self.state();
        (state.turn, state.spent) = (TURN_BYTES, false);
    }

    /// Whether more could be read, had the turn not been over.
    pub(super) fn is_spent(&self) -> bool {
        self.state().spent
    }

    /// What the client sent too much of.
    pub(super) fn verdict(&self) -> Option<Flood> {
        self.state().verdict
    }

    /// Has the client told to begin nothing more, as soon as a frame may stand there.
    pub(super) fn say_first_word(&self) {
        self.state().first_word.get_or_insert(0);
    }

    /// Waits for the client to leave the connection that was dropped, should it still be there.
    pub(super) async fn linger(&self, patience: Patience) {
        let left = self.state().left.take();
        if let Some(Left { socket, permit }) = left {
            linger(socket, Vec::new(), permit, patience).await;
        }
    }

    /// Counts a stream that was refused as malformed.
    pub(super) fn malformed(&self) {
        let mut state = self.state();
        let verdict = state.guard.malformed();
        state.judge(verdict);
    }

    /// When the client must have sent its settings or the rest of a header block; `header_timeout` from its
    /// beginning.
    pub(super) fn due(&self, block: Duration) -> Option<Instant> {
        let state = self.state();
        let block = state.block.map(|begun| begun + block);
        state.greet_by.into_iter().chain(block).min()
    }
}

impl State {
    fn judge(&mut self, verdict: Result<(), Flood>) {
        if let Err(flood) = verdict {
            self.verdict.get_or_insert(flood);
        }
    }
}

/// A client's socket, guarded.
pub(super) struct Guarded {
    /// `None` only while dropping.
    socket: Option<Socket>,
    ahead: Vec<u8>,
    ahead_read: usize,
    incoming: FrameScanner,
    outgoing: FrameScanner,
    watch: Arc<Watch>,
    stalled: Option<Instant>,
    timer: Timer,
    write: Duration,
    permit: Option<ConnectionPermit>,
    /// The client has closed its side, or the line is broken.
    ended: bool,
}

impl Guarded {
    /// Guards a socket of which `read` was read already; `write` is how long it may take nothing.
    pub(super) fn new(
        socket: Socket,
        read: Vec<u8>,
        watch: Arc<Watch>,
        write: Duration,
        permit: Option<ConnectionPermit>,
    ) -> Self {
        Self {
            socket: Some(socket),
            ahead: read,
            ahead_read: 0,
            incoming: FrameScanner::after(GREETING_BYTES),
            outgoing: FrameScanner::default(),
            watch,
            stalled: None,
            timer: Timer::default(),
            write,
            permit,
            ended: false,
        }
    }

    /// Reads once, from what was read ahead first.
    fn poll_more(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = &self.ahead[self.ahead_read..];
        if !rest.is_empty() {
            let count = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..count]);
            self.ahead_read += count;
            if self.ahead_read == self.ahead.len() {
                (self.ahead, self.ahead_read) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = match self.socket.as_mut() {
            Some(socket) => ready!(Pin::new(socket).poll_read(cx, buf)),
            None => Ok(()),
        };
        self.ended |= read.is_err() || buf.filled().len() == before;
        Poll::Ready(read)
    }

    /// Counts the frames among bytes that came.
    fn count_incoming(&mut self, bytes: &[u8]) -> Result<(), Flood> {
        let now = clock::now();
        let mut state = self.watch.state();
        state.turn = state.turn.saturating_sub(bytes.len());
        let State { guard, greet_by, .. } = &mut *state;
        let verdict = self.incoming.scan(bytes, |frame| {
            if frame.kind == Frame::SETTINGS {
                *greet_by = None;
            }
            guard.received(frame, now)
        });
        state.judge(verdict);
        if self.incoming.is_in_block() {
            state.block.get_or_insert_with(Instant::now);
        } else {
            state.block = None;
        }
        verdict
    }

    /// Counts the frames among bytes that went.
    fn count_outgoing<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>, mut count: usize) {
        let now = clock::now();
        let mut state = self.watch.state();
        for piece in pieces {
            let piece = &piece[..piece.len().min(count)];
            count -= piece.len();
            let verdict = self.outgoing.scan(piece, |frame| state.guard.sent(frame, now));
            state.judge(verdict);
        }
        self.stalled = None;
    }

    /// Says the first word of an end, where it is to be said and a frame may stand here.
    fn poll_first_word(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(at) = self.watch.state().first_word else { return Poll::Ready(Ok(())) };
            if at == FIRST_WORD.len() || (at == 0 && !self.outgoing.is_between()) {
                return Poll::Ready(Ok(()));
            }
            match self.socket()?.poll_write(cx, &FIRST_WORD[at..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.watch.state().first_word = Some(at + count);
                    self.stalled = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_stall(cx).map(Err),
            }
        }
    }

    /// The socket takes nothing: pending until the write timeout.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let due = *self.stalled.get_or_insert_with(Instant::now) + self.write;
        self.timer.poll(cx, due).map(|()| io::ErrorKind::TimedOut.into())
    }

    fn socket(&mut self) -> io::Result<Pin<&mut Socket>> {
        self.socket.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        {
            let mut state = this.watch.state();
            // The loop above looks at both as soon as this poll is over.
            if state.verdict.is_some() {
                return Poll::Pending;
            }
            if state.turn == 0 {
                state.spent = true;
                return Poll::Pending;
            }
        }
        let before = buf.filled().len();
        ready!(this.poll_more(cx, buf))?;
        if this.count_incoming(&buf.filled()[before..]).is_err() {
            buf.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_first_word(cx))?;
        match this.socket()?.poll_write(cx, buf) {
            Poll::Ready(Ok(count)) => {
                this.count_outgoing(std::iter::once(buf), count);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.poll_stall(cx).map(Err),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_first_word(cx))?;
        match this.socket()?.poll_write_vectored(cx, bufs) {
            Poll::Ready(Ok(count)) => {
                this.count_outgoing(bufs.iter().map(|piece| &**piece), count);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.poll_stall(cx).map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_first_word(cx))?;
        match this.socket()?.poll_flush(cx) {
            Poll::Pending => this.poll_stall(cx).map(Err),
            flushed @ Poll::Ready(_) => flushed,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.socket()?.poll_shutdown(cx) {
            Poll::Pending => this.poll_stall(cx).map(Err),
            closed @ Poll::Ready(_) => closed,
        }
    }
}

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take().filter(|_| !self.ended) {
            let left = Left { socket, permit: self.permit.take() };
            self.watch.state().left = Some(left);
        }
    }
}
