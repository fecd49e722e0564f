//! The request's side of a stream: its body, piece by piece, and how long it may take.
//!
//! A body of told length is handed on without its last piece until the stream has ended: should it turn out
//! longer, no upstream has seen a whole request. Frames without data are not handed on: as a piece they would
//! end a body of chunks.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;
use pingora::{Error, ErrorType, Result};
use sluice_policy::framing::BodyFraming;
use tokio::time::Instant;

use crate::link::{Fault, Link};
use crate::timer::Timer;

/// LIMIT: body bytes kept for another try.
const RETRY_BYTES: usize = 64 << 10;

/// Why no more of a body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client has left.
    #[error("the client has reset the stream")]
    Reset,
    /// The answer is over; nobody wants the rest.
    #[error("the answer is over")]
    Answered,
    /// It is not as long as was told.
    #[error("the body is not well framed")]
    Framing,
    /// It, or the request, took too long.
    #[error("time is up")]
    Due(Fault),
}

impl BodyError {
    /// As the hooks read it: the client's error, with the reason in the request's link.
    pub(crate) fn fail<T>(self, link: &Link) -> Result<T> {
        self.note(link);
        let kind = match self {
            Self::Reset | Self::Answered => ErrorType::H2Error,
            Self::Framing => ErrorType::ReadError,
            Self::Due(_) => ErrorType::ReadTimedout,
        };
        Err(Error::explain(kind, self.to_string()).into_down())
    }

    /// Tells the request's link the reason, where it has one for it.
    pub(super) fn note(self, link: &Link) {
        match self {
            Self::Reset | Self::Answered => {}
            Self::Framing => link.set_fault(Fault::BodyFraming),
            Self::Due(fault) => link.set_fault(fault),
        }
    }
}

/// A request's body.
pub(crate) struct Body {
    stream: RecvStream,
    /// Nothing came with the head, and nothing will.
    empty: bool,
    ended: bool,
    /// Bytes to come of a told length.
    left: Option<u64>,
    held: Option<Bytes>,
    trailers: Option<HeaderMap>,
    read: usize,
    retry: Retry,
    last: Option<Instant>,
    /// Between two bytes; `None` for bodies that may pause.
    patience: Option<Duration>,
    timer: Timer,
    link: Arc<Link>,
}

#[derive(Default)]
struct Retry {
    on: bool,
    truncated: bool,
    bytes: BytesMut,
}

impl Body {
    /// The body of a stream whose head was judged.
    pub(super) fn new(
        stream: RecvStream,
        framing: BodyFraming,
        patience: Option<Duration>,
        link: Arc<Link>,
    ) -> Self {
        let ended = stream.is_end_stream();
        let left = match framing {
            BodyFraming::Length(bytes) => Some(bytes),
            BodyFraming::None | BodyFraming::Chunked => None,
        };
        Self {
            stream,
            empty: ended,
            ended,
            left,
            held: None,
            trailers: None,
            read: 0,
            retry: Retry::default(),
            last: None,
            patience,
            timer: Timer::default(),
            link,
        }
    }

    /// The next piece, never an empty one; `None` at the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        match self.poll_piece(cx) {
            Poll::Pending => self.poll_due(cx, true).map(Err),
            Poll::Ready(Ok(piece)) => {
                self.last = Some(Instant::now());
                if let Some(piece) = &piece {
                    self.read += piece.len();
                    self.retry.keep(piece);
                }
                Poll::Ready(Ok(piece))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    /// What follows a body that was handed out whole, each time it is asked for.
    pub(crate) fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, BodyError>> {
        if self.trailers.is_none() {
            self.trailers = ready!(self.stream.poll_trailers(cx)).map_err(|_| BodyError::Reset)?;
        }
        Poll::Ready(Ok(self.trailers.clone()))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        loop {
            let piece = match ready!(self.stream.poll_data(cx)) {
                Some(Ok(piece)) => piece,
                Some(Err(error)) if error.is_reset() && error.is_library() => {
                    return Poll::Ready(Err(BodyError::Framing));
                }
                Some(Err(_)) => return Poll::Ready(Err(BodyError::Reset)),
                None => {
                    self.ended = true;
                    return Poll::Ready(Ok(self.held.take()));
                }
            };
            // Only what is held already is without a window now: at most one frame.
            drop(self.stream.flow_control().release_capacity(piece.len()));
            if piece.is_empty() {
                continue;
            }
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(piece.len() as u64);
                if *left == 0 && !self.stream.is_end_stream() {
                    self.held = Some(piece);
                    continue;
                }
            }
            self.ended = self.stream.is_end_stream();
            return Poll::Ready(Ok(Some(piece)));
        }
    }

    /// Ready when the request must end: its deadline, or the body's own patience while it is waited for.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>, awaited: bool) -> Poll<BodyError> {
        if let Some(fault) = self.link.halt() {
            return Poll::Ready(BodyError::Due(fault));
        }
        let body_due = self
            .patience
            .filter(|_| awaited)
            .map(|patience| *self.last.get_or_insert_with(Instant::now) + patience);
        let (deadline, fault) = match (self.link.deadline(), body_due) {
            (Some(at), Some(due)) if due < at => (due, Fault::BodyTimeout),
            (Some(at), _) => (at, Fault::Deadline),
            (None, Some(due)) => (due, Fault::BodyTimeout),
            (None, None) => return Poll::Pending,
        };
        self.timer.poll(cx, deadline).map(|()| BodyError::Due(fault))
    }

    /// Ready when the request must end though the upstream has not taken its body so far.
    pub(crate) fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if let Some(fault) = self.link.halt() {
            return Poll::Ready(BodyError::Due(fault));
        }
        match self.link.deadline().into_iter().chain(self.link.backlog().due()).min() {
            Some(due) => self.timer.poll(cx, due).map(|()| BodyError::Due(Fault::Blocked)),
            None => Poll::Pending,
        }
    }

    /// Whether all of it was handed out.
    pub(crate) const fn is_done(&self) -> bool {
        self.ended
    }

    /// Whether there is none. Where a body was announced this is known at its end.
    pub(crate) const fn is_empty(&self) -> bool {
        self.empty || (self.ended && self.read == 0)
    }

    /// Bytes handed out.
    pub(super) const fn bytes_read(&self) -> usize {
        self.read
    }

    /// Keeps what is handed out from now on, for another try.
    pub(crate) fn keep(&mut self) {
        self.retry.on = true;
    }

    /// Keeps nothing any more: there will be no other try.
    pub(crate) fn forget(&mut self) {
        self.retry = Retry { on: false, truncated: true, bytes: BytesMut::new() };
    }

    /// Whether it is too long to be sent again.
    pub(crate) const fn is_truncated(&self) -> bool {
        self.retry.truncated
    }

    /// What was handed out so far, to be sent again.
    pub(crate) fn kept(&self) -> Option<Bytes> {
        (!self.retry.truncated && !self.retry.bytes.is_empty()).then(|| self.retry.bytes.clone().freeze())
    }
}

impl Retry {
    fn keep(&mut self, piece: &Bytes) {
        if !self.on || self.truncated {
            return;
        }
        if self.bytes.len() + piece.len() > RETRY_BYTES {
            (self.bytes, self.truncated) = (BytesMut::new(), true);
            return;
        }
        self.bytes.extend_from_slice(piece);
    }
}
