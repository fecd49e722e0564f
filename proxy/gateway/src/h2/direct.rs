//! A stream whose request goes the direct way.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::ReadBuf;

use super::SEND_BYTES;
use super::body::{Body, BodyError};
use super::reply::Reply;
use crate::direct::{Client, Framed, Head};
use crate::link::Link;

/// Both sides of a stream, without the framework's view of them.
pub(super) struct Stream {
    body: Body,
    reply: Reply,
    link: Arc<Link>,
    /// A piece of the request that was not wanted whole.
    held: Bytes,
    out: Vec<u8>,
    /// What of the answer waits for the client's window.
    sending: Bytes,
    /// Nothing will be written any more.
    ended: bool,
}

impl Stream {
    pub(super) fn new(body: Body, reply: Reply, link: Arc<Link>) -> Self {
        Self { body, reply, link, held: Bytes::new(), out: Vec::new(), sending: Bytes::new(), ended: false }
    }

    /// The hooks learn from the link why a request ends.
    fn broken(&self, error: BodyError) -> io::Error {
        error.note(&self.link);
        match error {
            BodyError::Reset | BodyError::Answered => io::ErrorKind::ConnectionReset.into(),
            BodyError::Framing => io::ErrorKind::InvalidData.into(),
            BodyError::Due(_) => io::ErrorKind::TimedOut.into(),
        }
    }

    /// Sends what is written, as far as the client takes it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.sending.is_empty() {
                if self.out.is_empty() {
                    break;
                }
                self.sending = Bytes::from(std::mem::take(&mut self.out));
            }
            let last = self.ended && self.out.is_empty();
            ready!(self.reply.poll_body(cx, &mut self.sending, last)).map_err(io::Error::other)?;
        }
        if self.ended {
            self.reply.finish().map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what was held back, as nothing more is at hand; the error that ends the wait before it begins.
    fn before_waiting(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        if self.out.is_empty() && self.sending.is_empty() {
            return None;
        }
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Some(error),
            _ => None,
        }
    }
}

impl Client for Stream {
    const CHUNKS: bool = false;

    fn poll_body(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.before_waiting(cx) {
            return Poll::Ready(Err(error));
        }
        if self.held.is_empty() {
            if !self.body.is_done() && self.link.backlog().poll_room(cx).is_pending() {
                return self.poll_behind(cx).map(Err);
            }
            match ready!(self.body.poll_next(cx)) {
                Ok(piece) => self.held = piece.unwrap_or_default(),
                Err(error) => return Poll::Ready(Err(self.broken(error))),
            }
        }
        let piece = self.held.split_to(self.held.len().min(into.remaining()));
        into.put_slice(&piece);
        Poll::Ready(Ok(()))
    }

    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(error) = self.before_waiting(cx) {
            return Poll::Ready(error);
        }
        if self.reply.poll_left(cx).is_ready() && !self.link.stays() {
            return Poll::Ready(self.broken(BodyError::Reset));
        }
        self.body.poll_due(cx, false).map(|error| self.broken(error))
    }

    fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(error) = self.before_waiting(cx) {
            return Poll::Ready(error);
        }
        if self.reply.poll_left(cx).is_ready() {
            return Poll::Ready(self.broken(BodyError::Reset));
        }
        self.body.poll_behind(cx).map(|error| self.broken(error))
    }

    fn interim(&mut self, head: &Head) {
        self.reply.interim(head.status, head.plain_fields());
    }

    fn head(&mut self, head: &Head, framed: Framed) -> io::Result<()> {
        self.ended |= framed.bodiless;
        let mut fields = head.plain_fields();
        if framed.unsized_body {
            fields.remove(http::header::CONTENT_LENGTH);
        }
        self.reply.plain_head(head.status, fields, framed.bodiless).map_err(io::Error::other)
    }

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.len() + self.sending.len() < SEND_BYTES {
            Poll::Ready(Ok(()))
        } else {
            self.poll_send(cx)
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn forget(&mut self) {
        self.out.clear();
        self.sending = Bytes::new();
    }
}
