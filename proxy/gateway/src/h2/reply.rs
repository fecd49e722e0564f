//! The answer's side of a stream: head, body, trailers, and a client that does not take them.
//!
//! INVARIANT: the stream ends once, with the last of the answer. Dropped before that it is reset, so no
//! client takes a part for the whole.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONNECTION, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Response, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::date::get_cached_date;
use pingora::{Error, ErrorType, Result};

use super::grpc;
use crate::link::{Fault, Link};
use crate::stall::Stall;
use crate::timer::Timer;

/// An answer under way.
pub(crate) struct Reply {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    written: Option<Box<ResponseHeader>>,
    /// The request asks for no body.
    head_only: bool,
    ended: bool,
    sent: usize,
    stall: Stall,
    timer: Timer,
    link: Arc<Link>,
}

impl Reply {
    /// The answer to a request; `stall` says how long the client may take nothing.
    pub(crate) fn new(respond: SendResponse<Bytes>, head_only: bool, stall: Stall, link: Arc<Link>) -> Self {
        Self {
            respond,
            stream: None,
            written: None,
            head_only,
            ended: false,
            sent: 0,
            stall,
            timer: Timer::default(),
            link,
        }
    }

    /// Sends an interim head, or the head.
    pub(crate) fn head(&mut self, mut head: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.ended || self.written.is_some() {
            return Ok(());
        }
        strip(&mut head);
        if head.status.is_informational() {
            // A stream that is gone shows at the next write; there is no switching of protocols here.
            if head.status != StatusCode::SWITCHING_PROTOCOLS {
                drop(self.respond.send_informational(Response::from_parts(head.as_owned_parts(), ())));
            }
            return Ok(());
        }
        head.insert_header(DATE, get_cached_date())?;
        let bodiless = self.head_only || matches!(head.status.as_u16(), 204 | 304);
        let end = end || bodiless || grpc::is_trailers_only(&head);
        let response = Response::from_parts(head.as_owned_parts(), ());
        let stream = self.respond.send_response(response, end).or_else(|error| broken(&error))?;
        self.stream = Some(stream);
        self.written = Some(head);
        self.ended = end;
        Ok(())
    }

    /// Sends a head whose fields are all HTTP/2 has a place for.
    pub(super) fn plain_head(&mut self, status: StatusCode, mut fields: HeaderMap, end: bool) -> Result<()> {
        fields.insert(DATE, get_cached_date());
        let mut response = Response::new(());
        (*response.status_mut(), *response.headers_mut()) = (status, fields);
        let end = end || self.head_only || matches!(status.as_u16(), 204 | 304);
        self.stream = Some(self.respond.send_response(response, end).or_else(|error| broken(&error))?);
        self.ended = end;
        Ok(())
    }

    /// The same of an interim head. A stream that is gone shows at the next write; there is no switching of protocols.
    pub(super) fn interim(&mut self, status: StatusCode, fields: HeaderMap) {
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let mut response = Response::new(());
            (*response.status_mut(), *response.headers_mut()) = (status, fields);
            drop(self.respond.send_informational(response));
        }
    }

    /// Sends a piece of the body, as fast as the client takes it.
    pub(crate) async fn body(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        poll_fn(|cx| self.poll_body(cx, &mut data, end)).await
    }

    /// Sends of a piece what the client takes; ready when all of it was sent.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        end: bool,
    ) -> Poll<Result<()>> {
        while !data.is_empty() && !self.ended {
            let room = ready!(self.poll_room(cx, data.len()))?;
            let piece = data.split_to(room.min(data.len()));
            self.send(piece, end && data.is_empty())?;
        }
        Poll::Ready(if end { self.finish() } else { Ok(()) })
    }

    /// Ends the answer with trailers.
    pub(crate) fn trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let stream = self.stream()?;
        stream.send_trailers(trailers).or_else(|error| broken(&error))?;
        self.ended = true;
        Ok(())
    }

    /// Ends the answer, if its head was sent and it has not ended.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if self.ended || self.stream.is_none() {
            return Ok(());
        }
        self.send(Bytes::new(), true)
    }

    /// Whether the last of the answer was sent.
    pub(crate) const fn is_over(&self) -> bool {
        self.ended
    }

    /// Breaks the answer off.
    pub(crate) fn abandon(&mut self, reason: Reason) {
        if !self.ended {
            self.respond.send_reset(reason);
            self.ended = true;
        }
    }

    /// Ready when the client has reset the stream, or has gone.
    pub(crate) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match self.stream.as_mut() {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        // A reset, or an error of the connection: the client is gone either way.
        reset.map(drop)
    }

    /// The head that was sent.
    pub(crate) fn written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    /// Body bytes sent.
    pub(super) const fn bytes_sent(&self) -> usize {
        self.sent
    }

    fn stream(&mut self) -> Result<&mut SendStream<Bytes>> {
        let no_head = || Error::explain(ErrorType::InternalError, "body before its head");
        self.stream.as_mut().ok_or_else(no_head)
    }

    fn send(&mut self, piece: Bytes, end: bool) -> Result<()> {
        let stream = self.stream()?;
        let bytes = piece.len();
        stream.send_data(piece, end).or_else(|error| broken(&error))?;
        self.sent += bytes;
        self.ended = end;
        Ok(())
    }

    /// How many bytes the client takes now, of as many as wanted; pending until it takes one or is given up.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize>> {
        let stream = self.stream()?;
        stream.reserve_capacity(wanted);
        let room = stream.capacity();
        if room > 0 {
            self.stall.is_over();
            return Poll::Ready(Ok(room));
        }
        match stream.poll_capacity(cx) {
            Poll::Ready(Some(Ok(room))) => {
                self.stall.is_over();
                Poll::Ready(Ok(room))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(broken(&error)),
            Poll::Ready(None) => {
                Poll::Ready(Err(Error::explain(ErrorType::WriteError, "the stream is gone")))
            }
            Poll::Pending => self.poll_stall(cx).map(Err),
        }
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        self.link.lent().give_back();
        let due = self.stall.due();
        let due = self.link.end().map_or(due, |end| due.min(end));
        ready!(self.timer.poll(cx, due));
        self.link.set_fault(Fault::WriteTimeout);
        Poll::Ready(Error::explain(ErrorType::WriteTimedout, "the client takes nothing"))
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.abandon(Reason::INTERNAL_ERROR);
    }
}

/// Fields of the connection have no place in HTTP/2.
fn strip(head: &mut ResponseHeader) {
    head.remove_header(&TRANSFER_ENCODING);
    head.remove_header(&CONNECTION);
    head.remove_header(&UPGRADE);
    head.remove_header("keep-alive");
    head.remove_header("proxy-connection");
}

fn broken<T>(error: &h2::Error) -> Result<T> {
    Error::e_explain(ErrorType::WriteError, error.to_string())
}
