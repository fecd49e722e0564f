//! The client's side of a request that goes the direct way: a connection of HTTP/1.1, or a stream of HTTP/2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::head::{Head, answer_bytes, interim_bytes};
use super::pump::HEAD_ROOM;
use crate::stream::Downstream;

/// How the client's connection goes on behind an answer, and how the answer's body ends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framed {
    /// Its length is not known before its end.
    pub(crate) unsized_body: bool,
    /// There is none.
    pub(crate) bodiless: bool,
    /// Another request may follow.
    pub(crate) stays: bool,
}

/// Who asks.
pub(crate) trait Client: Send {
    /// Whether the data of a body without a told length is written in chunks, with the last one behind it.
    const CHUNKS: bool;

    /// Reads bytes of the request's body; none when the client ends it early.
    fn poll_body(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;

    /// Ready when the client of a request that is all here has left, or the request's time is over.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;

    /// The same while the upstream takes no more of the body.
    fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;

    /// Writes an interim head.
    fn interim(&mut self, head: &Head);

    /// Writes the head of the answer.
    fn head(&mut self, head: &Head, framed: Framed) -> io::Result<()>;

    /// Where the body is written; it leaves with the next flush, or before the next wait.
    fn out(&mut self) -> &mut Vec<u8>;

    /// All of the body is written.
    fn end(&mut self);

    /// Ready once so little waits to be sent that more may be written.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Sends what is written, all of it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Drops what of an answer was not sent: nobody takes it.
    fn forget(&mut self);
}

impl Client for Downstream {
    const CHUNKS: bool = true;

    fn poll_body(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_read(cx, into)
    }

    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut none = [0];
        let left = ready!(Pin::new(self).poll_read(cx, &mut ReadBuf::new(&mut none)));
        Poll::Ready(left.err().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()))
    }

    fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        Self::poll_behind(self, cx)
    }

    fn interim(&mut self, head: &Head) {
        interim_bytes(head, self.answer());
    }

    fn head(&mut self, head: &Head, framed: Framed) -> io::Result<()> {
        let out = self.answer();
        out.reserve(HEAD_ROOM);
        answer_bytes(head, framed.unsized_body, framed.stays, out);
        Ok(())
    }

    fn out(&mut self) -> &mut Vec<u8> {
        self.answer()
    }

    fn end(&mut self) {}

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_answer_room(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(cx)
    }

    fn forget(&mut self) {
        self.forget_answer();
    }
}
