//! Both directions of a call, one task: either moves as far as its two ends let it, whatever the other does.
//!
//! A deadline passes, the client leaves, or a credential ends at any moment: each turn looks for them. While the
//! answer waits for its client, only the client's own patience counts, not the pause between pieces.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::v2::client::Http2Session;
use pingora::{Error, ErrorType, Result};
use sluice_policy::method::Method;

use crate::ctx::Exchange;
use crate::forward::{answer_begins, answer_piece, dress, head_came, request_piece, retry_after};
use crate::h2::{Asked, BodyError};
use crate::headers::clean_trailers;
use crate::peer::{RETRY_STATUS, retries_status};
use crate::reframe::frame_anew;
use crate::state::Shared;

/// LIMIT: pieces of an answer in one turn, before others have theirs.
const TURN_PIECES: usize = 64;

/// A call under way.
pub(super) struct Flow<'a> {
    shared: &'a Arc<Shared>,
    asked: &'a mut Asked,
    x: &'a mut Exchange,
    instance: &'a mut Http2Session,
    up: Up,
    down: Down,
}

/// From the client to the instance.
struct Up {
    stream: SendStream<Bytes>,
    /// Waits for the instance's window.
    piece: Bytes,
    rest: Rest,
    /// It waits for the instance, not for the client.
    blocked: bool,
}

/// What follows the piece at hand.
enum Rest {
    /// More, or the end.
    Comes,
    /// The end, or fields and the end.
    Ends(Option<HeaderMap>),
    /// Nothing: all was sent, or the instance takes no more.
    Over,
}

/// From the instance to the client.
struct Down {
    stage: Stage,
    /// Waits for the client's window; whether it is the last one.
    piece: Option<(Bytes, bool)>,
}

#[derive(Clone, Copy)]
enum Stage {
    Head,
    Body,
    Trailers,
}

impl<'a> Flow<'a> {
    /// A call whose head was sent; `bodiless` where that was all of it. What was read of its body for an earlier
    /// try goes first.
    pub(super) fn new(
        shared: &'a Arc<Shared>,
        asked: &'a mut Asked,
        x: &'a mut Exchange,
        instance: &'a mut Http2Session,
        stream: SendStream<Bytes>,
        bodiless: bool,
    ) -> Result<Self> {
        let mut piece = asked.body.kept();
        if piece.is_some() {
            request_piece(x, &mut piece, false)?;
        }
        let rest = if bodiless { Rest::Over } else { Rest::Comes };
        let up = Up { stream, piece: piece.unwrap_or_default(), rest, blocked: false };
        Ok(Self { shared, asked, x, instance, up, down: Down { stage: Stage::Head, piece: None } })
    }

    /// Moves both directions; ready when the answer is with the client, or the call has failed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let upward = self.poll_up(cx);
        self.x.upstream_blocks = self.up.blocked;
        // The whole answer counts, whatever became of the rest of the call.
        if let Poll::Ready(answered) = self.poll_down(cx) {
            return Poll::Ready(answered);
        }
        upward?;
        if self.asked.reply.poll_left(cx).is_ready() {
            return Poll::Ready(self.fail(BodyError::Reset));
        }
        let due = if self.up.blocked {
            ready!(self.asked.body.poll_behind(cx))
        } else {
            ready!(self.asked.body.poll_due(cx, false))
        };
        Poll::Ready(self.fail(due))
    }

    /// Tells the instance that nobody waits for it any more.
    pub(super) fn cancel(&mut self) {
        self.up.stream.send_reset(Reason::CANCEL);
    }

    fn fail(&self, error: BodyError) -> Result<()> {
        error.fail(&self.x.arrival.link)
    }

    /// Moves the request until it waits for one of its ends.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<()> {
        loop {
            self.up.blocked = true;
            match self.up.poll_send(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(()) if !matches!(self.up.rest, Rest::Comes) => {
                    self.up.blocked = false;
                    return Ok(());
                }
                Poll::Ready(()) => {}
            }
            if self.x.arrival.link.backlog().poll_room(cx).is_pending() {
                return Ok(());
            }
            self.up.blocked = false;
            if self.poll_piece(cx)?.is_pending() {
                return Ok(());
            }
        }
    }

    /// Takes the next piece from the client.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>> {
        let body = &mut self.asked.body;
        let Poll::Ready(next) = body.poll_next(cx) else { return Ok(Poll::Pending) };
        let mut piece = next.or_else(|error| error.fail(&self.x.arrival.link))?;
        if body.is_done() {
            // Where they are not at hand by now there are none.
            let trailers = match body.poll_trailers(cx) {
                Poll::Ready(trailers) => trailers.or_else(|error| error.fail(&self.x.arrival.link))?,
                Poll::Pending => None,
            };
            self.up.rest = Rest::Ends(trailers.map(clean_trailers).filter(|left| !left.is_empty()));
        }
        request_piece(self.x, &mut piece, body.is_done())?;
        self.up.piece = piece.unwrap_or_default();
        Ok(Poll::Ready(()))
    }

    /// Moves the answer until it waits for one of its ends; ready with its last part.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        for _ in 0..TURN_PIECES {
            ready!(self.poll_deliver(cx))?;
            if self.asked.reply.is_over() {
                return Poll::Ready(Ok(()));
            }
            match self.down.stage {
                Stage::Head => {
                    let read = pin!(self.instance.read_response_header()).poll(cx);
                    ready!(read).map_err(Error::into_up)?;
                    self.take_head()?;
                }
                Stage::Body => {
                    let read = pin!(self.instance.read_response_body()).poll(cx);
                    match ready!(read).map_err(Error::into_up)? {
                        Some(piece) => self.take_piece(piece)?,
                        None => self.down.stage = Stage::Trailers,
                    }
                }
                Stage::Trailers => {
                    let read = pin!(self.instance.read_trailers()).poll(cx);
                    let trailers = ready!(read).map_err(Error::into_up)?;
                    answer_piece(self.x, None, true);
                    let reply = &mut self.asked.reply;
                    let ended = match trailers {
                        Some(trailers) => reply.trailers(trailers),
                        None => reply.finish(),
                    };
                    return Poll::Ready(ended.map_err(Error::into_down));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Hands the piece at hand to the client.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some((piece, last)) = &mut self.down.piece else { return Poll::Ready(Ok(())) };
        let Poll::Ready(sent) = self.asked.reply.poll_body(cx, piece, *last) else {
            self.x.arrival.link.set_deadline(None);
            return Poll::Pending;
        };
        if !*last {
            self.x.await_answer();
        }
        self.down.piece = None;
        Poll::Ready(sent.map_err(Error::into_down))
    }

    /// The instance's final head: another try, or the answer.
    fn take_head(&mut self) -> Result<()> {
        let head = self.instance.response_header().cloned();
        let mut head = head.ok_or_else(|| Error::new_up(ErrorType::InvalidHTTPHeader))?;
        // A stream that broke behind its head says so when its body is read.
        let ends = self.instance.check_response_end_or_error().unwrap_or(false);
        if ends && self.x.arrival.method != Method::Head && misses_body(&head) {
            return Err(Error::explain(ErrorType::H2Error, "a length without a body").into_up());
        }
        frame_anew(&mut head)?;
        let status = head.status.as_u16();
        head_came(self.x, status);
        if retries_status(self.x, status, !self.asked.body.is_truncated(), retry_after(&head)) {
            return Err(Error::new_up(RETRY_STATUS));
        }
        answer_begins(self.shared, self.x, head.status, &head);
        self.asked.body.forget();
        dress(self.x, &mut head)?;
        if ends {
            answer_piece(self.x, None, true);
        }
        self.down.stage = Stage::Body;
        self.asked.reply.head(Box::new(head), ends).map_err(Error::into_down)
    }

    fn take_piece(&mut self, piece: Bytes) -> Result<()> {
        let last = self.instance.check_response_end_or_error().map_err(Error::into_up)?;
        if last || !piece.is_empty() {
            answer_piece(self.x, Some(&piece), last);
            self.down.piece = Some((piece, last));
        }
        Ok(())
    }
}

impl Up {
    /// Sends what is at hand as the instance's window allows. An instance that takes no more is sent nothing
    /// else; what that means, its answer tells.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.piece.is_empty() {
            self.stream.reserve_capacity(self.piece.len());
            let room = match self.stream.capacity() {
                0 => ready!(self.stream.poll_capacity(cx)).and_then(std::result::Result::ok),
                room => Some(room),
            };
            let part = room.map(|room| self.piece.split_to(room.min(self.piece.len())));
            let ends = self.piece.is_empty() && matches!(self.rest, Rest::Ends(None));
            if part.is_none_or(|part| self.stream.send_data(part, ends).is_err()) {
                self.piece.clear();
                self.rest = Rest::Over;
            } else if ends {
                self.rest = Rest::Over;
            }
        }
        if let Rest::Ends(trailers) = &mut self.rest {
            // Where it is gone, its answer tells.
            drop(match trailers.take() {
                Some(trailers) => self.stream.send_trailers(trailers),
                None => self.stream.send_data(Bytes::new(), true),
            });
            self.rest = Rest::Over;
        }
        Poll::Ready(())
    }
}

/// Whether a head that ends its answer promised more.
fn misses_body(head: &ResponseHeader) -> bool {
    !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        && head
            .headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
}
