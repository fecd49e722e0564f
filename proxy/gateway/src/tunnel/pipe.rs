//! One direction of a tunnel.
//!
//! Bytes are read into a buffer of the thread and written at once; only what the other side does not take
//! is kept, and nothing more is read until it has gone. So a tunnel that is idle, or whose ends keep up,
//! holds no buffer. LIMIT: [`BUFFER_BYTES`] and one close frame a direction.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prometheus::IntCounter;
use sluice_policy::websocket::Frames;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// LIMIT: bytes read and not yet written.
const BUFFER_BYTES: usize = 16 << 10;
/// Reads in a row before the other direction has its turn.
const TURNS: usize = 16;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

/// What happens to bytes that are read.
#[derive(Debug)]
enum Flow {
    /// They go on.
    Open,
    /// The frame under way goes on, then this.
    Ending(Vec<u8>),
    /// They are dropped.
    Ended,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Pipe {
    flow: Flow,
    frames: Frames,
    held: Vec<u8>,
    sent: usize,
    unflushed: bool,
    read_ended: bool,
    done: bool,
    moved: bool,
    bytes: u64,
    counter: IntCounter,
}

impl Pipe {
    /// A direction whose first bytes have been read already. They count in `counter`, as all others do.
    pub(super) fn new(first: &[u8], counter: IntCounter) -> Self {
        let mut pipe = Self {
            flow: Flow::Open,
            frames: Frames::default(),
            held: Vec::new(),
            sent: 0,
            unflushed: false,
            read_ended: false,
            done: false,
            moved: false,
            bytes: 0,
            counter,
        };
        pipe.frames.follow(first);
        pipe.hold(first);
        pipe
    }

    /// The same, with `head` sent first; it counts nowhere.
    pub(super) fn behind(mut self, mut head: Vec<u8>) -> Self {
        head.append(&mut self.held);
        self.held = head;
        self
    }

    /// Bytes that have come.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the reading side has ended.
    pub(super) fn has_read_all(&self) -> bool {
        self.read_ended
    }

    /// Whether all was passed on, its end included.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether a close frame came from the reading side.
    pub(super) fn is_closed(&self) -> bool {
        self.frames.is_closed()
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_drained(&self) -> bool {
        self.held.is_empty() && !self.unflushed
    }

    /// Whether the last frame that is to pass has been taken up.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.flow, Flow::Ended)
    }

    /// Whether a byte moved since the last call.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Lets the frame under way pass, then `close`, then nothing more. After a close frame of the reading
    /// side's own nothing is added.
    pub(super) fn end_with(&mut self, close: Vec<u8>) {
        self.flow = if self.frames.is_closed() {
            Flow::Ended
        } else if self.frames.is_at_boundary() {
            self.held.extend(close);
            Flow::Ended
        } else {
            Flow::Ending(close)
        };
    }

    /// Moves what can be moved; ready when the direction has come to its end.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURNS {
            ready!(self.poll_held(cx, to))?;
            if self.read_ended {
                ready!(self.poll_flush(cx, to))?;
                ready!(Pin::new(to).poll_shutdown(cx))?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            if self.poll_turn(cx, from, to)?.is_pending() {
                ready!(self.poll_flush(cx, to))?;
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is held; nothing is read any more.
    pub(super) fn poll_rest<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx, to))?;
        self.poll_flush(cx, to)
    }

    /// Reads once and writes what the other side takes at once.
    fn poll_turn<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> io::Result<Poll<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        BUFFER.with_borrow_mut(|buffer| {
            let mut room = ReadBuf::new(buffer);
            match Pin::new(from).poll_read(cx, &mut room) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(read) => read?,
            }
            match room.filled() {
                [] => self.read_ended = true,
                bytes => self.take(cx, bytes, to)?,
            }
            Ok(Poll::Ready(()))
        })
    }

    fn take<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        to: &mut W,
    ) -> io::Result<()> {
        self.moved = true;
        self.bytes += bytes.len() as u64;
        self.counter.inc_by(bytes.len() as u64);
        let pass = match &self.flow {
            Flow::Open => {
                self.frames.follow(bytes);
                bytes.len()
            }
            Flow::Ended => {
                self.frames.follow(bytes);
                return Ok(());
            }
            Flow::Ending(_) => self.frames.finish_frame(bytes),
        };
        let mut written = 0;
        while written < pass {
            match Pin::new(&mut *to).poll_write(cx, &bytes[written..pass]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => written += count?,
                Poll::Pending => break,
            }
            self.unflushed = true;
        }
        self.held.extend_from_slice(&bytes[written..pass]);
        if matches!(self.flow, Flow::Ending(_)) && self.frames.is_at_boundary() {
            let Flow::Ending(close) = std::mem::replace(&mut self.flow, Flow::Ended) else { return Ok(()) };
            if !self.frames.is_closed() {
                self.held.extend(close);
            }
            self.frames.follow(&bytes[pass..]);
        }
        Ok(())
    }

    fn poll_held<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        while self.sent < self.held.len() {
            match ready!(Pin::new(&mut *to).poll_write(cx, &self.held[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
            (self.unflushed, self.moved) = (true, true);
        }
        if self.sent > 0 {
            (self.held, self.sent) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        self.counter.inc_by(bytes.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn counter() -> IntCounter {
        IntCounter::new("bytes", "bytes").unwrap()
    }

    #[tokio::test]
    async fn what_is_not_taken_is_kept_within_the_bound_and_nothing_more_is_read() {
        let (mut source, mut from) = tokio::io::duplex(1 << 20);
        let (mut to, mut sink) = tokio::io::duplex(1000);
        source.write_all(&vec![7; 200_000]).await.unwrap();
        drop(source);
        let mut pipe = Pipe::new(b"first", counter());
        let stuck = poll_fn(|cx| Poll::Ready(pipe.poll(cx, &mut from, &mut to))).await;
        assert!(stuck.is_pending() && pipe.held.len() <= BUFFER_BYTES, "{}", pipe.held.len());
        assert!(pipe.bytes() as usize <= 1000 + BUFFER_BYTES + 5, "{}", pipe.bytes());
        let mut all = Vec::new();
        let moving = async {
            poll_fn(|cx| pipe.poll(cx, &mut from, &mut to)).await.unwrap();
            drop(to);
        };
        let ((), read) = tokio::join!(moving, sink.read_to_end(&mut all));
        read.unwrap();
        assert_eq!((all.len(), &all[..6]), (200_005, &b"first\x07"[..]));
        assert!(pipe.is_done() && pipe.is_drained() && pipe.held.capacity() == 0);
    }

    #[tokio::test]
    async fn an_end_comes_between_two_frames() {
        let (mut source, mut from) = tokio::io::duplex(4096);
        let (mut to, mut sink) = tokio::io::duplex(4096);
        // Half a frame is through when the end is wanted; a frame behind it must not follow.
        let mut pipe = Pipe::new(&[0x81, 4, b'a'], counter());
        pipe.end_with(vec![0x88, 0]);
        assert!(!pipe.has_ended());
        source.write_all(b"bcd\x81\x01x\x88\x00").await.unwrap();
        let pending = poll_fn(|cx| Poll::Ready(pipe.poll(cx, &mut from, &mut to))).await;
        assert!(pending.is_pending() && pipe.has_ended() && pipe.is_drained());
        assert!(pipe.is_closed(), "what is dropped is still followed");
        drop(to);
        let mut all = Vec::new();
        sink.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"\x81\x04abcd\x88\x00");
    }

    #[tokio::test]
    async fn nothing_follows_a_close_of_the_other_sides_own() {
        let mut pipe = Pipe::new(&[0x88, 2, 3, 0xe8], counter());
        pipe.end_with(vec![0x88, 0]);
        assert_eq!(pipe.held, [0x88, 2, 3, 0xe8]);
    }
}
