//! A stream as Pingora sees it: its `Session` over a [`Body`] and a [`Reply`].
//!
//! While a request runs Pingora always waits for the client too, for more of its body or for its leave; that
//! wait ends with the deadline that the hooks have set in the [`Link`], as in HTTP/1.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::Stream;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::request::Parts;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, Result};
use sluice_policy::framing::BodyFraming;

use super::body::{Body, BodyError};
use super::grpc;
use super::reply::Reply;
use crate::ctx::Exchange;
use crate::direct;
use crate::link::Link;
use crate::service::Intake;
use crate::stall::Stall;
use crate::stream::StreamTimes;

/// What comes with a stream's request to Pingora.
pub(crate) enum Known {
    /// It has just arrived.
    Intake(Intake),
    /// It is a call that was admitted, or refused, and is not carried beside Pingora.
    Exchange(Box<Exchange>),
}

/// What the loop hands to a request's first hook, inside its head.
#[derive(Clone)]
pub(crate) struct Handed(Arc<Mutex<Option<Known>>>);

impl Handed {
    /// To be taken once.
    pub(super) fn new(known: Known) -> Self {
        Self(Arc::new(Mutex::new(Some(known))))
    }

    /// Takes it.
    pub(crate) fn take(&self) -> Option<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A stream whose head was judged.
pub(crate) struct Asked {
    /// The head, as HTTP/1 would have it.
    pub(crate) head: RequestHeader,
    /// The request's side.
    pub(crate) body: Body,
    /// The answer's side.
    pub(crate) reply: Reply,
}

/// The same before it is known which way its request goes.
pub(super) struct Taken {
    parts: Parts,
    body: Body,
    reply: Reply,
}

impl Taken {
    /// The two sides of a stream.
    pub(super) fn new(
        parts: Parts,
        (body, framing): (RecvStream, BodyFraming),
        respond: SendResponse<Bytes>,
        times: StreamTimes,
        link: &Arc<Link>,
    ) -> Self {
        // A call of gRPC may be silent as long as its answer goes on: its deadlines alone end it.
        let patience = (!grpc::is_call(&parts.headers)).then_some(times.body);
        let head_only = parts.method == http::Method::HEAD;
        let stall = Stall::new(times.stalls, times.write);
        Self {
            body: Body::new(body, framing, patience, Arc::clone(link)),
            reply: Reply::new(respond, head_only, stall, Arc::clone(link)),
            parts,
        }
    }

    /// The request as it goes the direct way, with the fields of its head; `None` where it goes another one.
    pub(super) fn goes_direct(&mut self, intake: &mut Intake) -> Option<direct::Asked> {
        // One that is told to have no body, and has not ended, is empty when its end has come.
        let told_empty = intake.arrival.body == BodyFraming::Length(0) && !self.body.is_done();
        if told_empty || grpc::is_call(&self.parts.headers) {
            return None;
        }
        direct::wanted_of_stream(intake, &mut self.parts.headers)
    }

    /// The request's side and the answer's.
    pub(super) fn into_sides(self) -> (Body, Reply) {
        (self.body, self.reply)
    }

    /// The request as the framework has it.
    pub(super) fn into_asked(self) -> Asked {
        let Self { parts, body, reply } = self;
        Asked { head: RequestHeader::from(parts), body, reply }
    }
}

/// A stream with its request.
pub(super) struct Session {
    head: RequestHeader,
    body: Body,
    reply: Reply,
    link: Arc<Link>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

impl Session {
    /// A stream, and what is known of its request.
    pub(super) fn new(asked: Asked, known: Known, link: Arc<Link>) -> Self {
        let Asked { mut head, body, reply } = asked;
        head.extensions_mut().insert(Handed::new(known));
        Self { head, body, reply, link, read_timeout: None, write_timeout: None, drain_timeout: None }
    }

    /// Waits until the client leaves or time is up.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        match self.reply.poll_left(cx) {
            Poll::Ready(()) if !self.link.stays() => Poll::Ready(BodyError::Reset),
            _ => self.body.poll_due(cx, false),
        }
    }

    /// Tells the hooks why the request ends.
    fn failed<T>(&self, error: BodyError) -> Result<T> {
        error.fail(&self.link)
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        let read = poll_fn(|cx| self.poll_read(cx)).await;
        read.or_else(|error| self.failed(error))
    }

    /// The next piece of the body, once the upstream has taken those before.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        if self.body.is_done() || self.link.backlog().poll_room(cx).is_ready() {
            return self.body.poll_next(cx);
        }
        match self.reply.poll_left(cx) {
            Poll::Ready(()) => Poll::Ready(Err(BodyError::Reset)),
            Poll::Pending => self.body.poll_behind(cx).map(Err),
        }
    }

    /// Passes one piece of the answer on; says whether it was the last one.
    async fn write(&mut self, task: HttpTask) -> Result<bool> {
        let (written, end) = match task {
            HttpTask::Header(head, end) => (self.reply.head(head, end), end),
            HttpTask::Body(data, end) => (self.reply.body(data.unwrap_or_default(), end).await, end),
            HttpTask::Trailer(Some(trailers)) => (self.reply.trailers(*trailers), true),
            HttpTask::Trailer(None) | HttpTask::Done => (self.reply.finish(), true),
            HttpTask::UpgradedBody(..) => return Error::e_explain(ErrorType::InternalError, "upgraded body"),
            // The upstream's own fault stays the upstream's.
            HttpTask::Failed(error) => return Err(error),
        };
        written.map_err(Error::into_down)?;
        Ok(end)
    }
}

#[async_trait]
impl CustomSession for Session {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read().await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if !no_body_expected && !self.body.is_done() {
            if self.reply.is_over() {
                return self.failed(BodyError::Answered);
            }
            return self.read().await;
        }
        let left = poll_fn(|cx| self.poll_idle(cx)).await;
        self.failed(left)
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        let most = self.drain_timeout;
        let drain = async {
            while self.read().await?.is_some() {}
            Ok(())
        };
        match most {
            None => drain.await,
            Some(most) => match tokio::time::timeout(most, drain).await {
                Ok(drained) => drained,
                Err(_) => Error::e_explain(ErrorType::ReadTimedout, "the body takes too long to drop"),
            },
        }
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.reply.head(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.reply.head(Box::new(head.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.reply.body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.reply.trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ended = false;
        for task in tasks {
            ended |= self.write(task).await?;
        }
        if ended {
            self.reply.finish().map_err(Error::into_down)?;
        }
        Ok(ended)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.head.method, self.head.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.reply.written()
    }

    async fn shutdown(&mut self, code: u32, _: &str) {
        self.reply.abandon(if code == 0 { Reason::INTERNAL_ERROR } else { Reason::from(code) });
    }

    async fn abandon(&mut self, _: &str) {
        self.reply.abandon(Reason::INTERNAL_ERROR);
    }

    fn is_body_done(&mut self) -> bool {
        self.body.is_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.reply.finish()
    }

    fn is_body_empty(&mut self) -> bool {
        self.body.is_empty()
    }

    fn body_bytes_sent(&self) -> usize {
        self.reply.bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.body.bytes_read()
    }

    // Peer and times are in the arrival, where the edge looks for them.
    fn digest(&self) -> Option<&Digest> {
        None
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        let mut wire = BytesMut::new();
        wire.put_slice(self.head.method.as_str().as_bytes());
        wire.put_u8(b' ');
        wire.put_slice(self.head.raw_path());
        wire.put_slice(b" HTTP/1.1\r\n");
        self.head.header_to_h1_wire(&mut wire);
        wire.put_slice(b"\r\n");
        wire.freeze()
    }

    fn enable_retry_buffering(&mut self) {
        self.body.keep();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.body.is_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.body.kept()
    }

    // There are no messages beside the request and its answer.
    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
