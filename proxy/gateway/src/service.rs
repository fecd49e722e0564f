//! Pingora's hooks, kept thin: each one calls the decision and performs it.

use std::any::Any;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use sluice_policy::framing::BodyFraming;
use sluice_wire::code::Code;

use crate::backlog::counted;
use crate::conn::Protocol;
use crate::ctx::{Arrival, Ctx, Exchange, Target};
use crate::enter::enter;
use crate::failed::{CREDENTIAL_ENDED, end_stream, failed_answer};
use crate::forward::{
    answers_call, dress, events, has_no_body, head_came, is_stream, prepare, retry_after, settle,
    tell_breaker,
};
use crate::generation::Generation;
use crate::h2::{Handed, grpc};
use crate::headers::{STAY_ENCRYPTED, check_nominations};
use crate::link::Fault;
use crate::peer::{RETRY_STATUS, attempt_failed, check_instance, choose, connect_failed, retries_status};
use crate::reframe::{frame_anew, interim};
use crate::respond::{Answer, go_on, send, suit_version};
use crate::standing::Place;
use crate::state::Shared;
use crate::{account, admit, pages, shape};

/// What the connection loop hands to a request.
pub(crate) struct Intake {
    /// The request as it arrived.
    pub(crate) arrival: Arrival,
    /// The configuration it runs under.
    pub(crate) generation: Arc<Generation>,
}

/// The proxy logic of one edge thread.
pub(crate) struct Edge {
    /// What all threads share.
    pub(crate) shared: Arc<Shared>,
}

fn of(ctx: &mut Ctx) -> Result<&mut Exchange> {
    let missing = || Error::explain(ErrorType::InternalError, "request without arrival");
    ctx.exchange.as_deref_mut().ok_or_else(missing)
}

impl Edge {
    /// Answers a request without an upstream.
    async fn reply(&self, session: &mut Session, x: &mut Exchange, answer: Answer) -> Result<()> {
        if answer.close && answer.status == Code::RateLimited.status() {
            // A caller far above its limit: HTTP/1 ends with the answer, HTTP/2 with its streams.
            x.arrival.link.set_last();
        }
        x.refused = Some(answer.status).filter(|status| x.call && *status >= 400);
        let left = x.announced().map(|bytes| bytes - x.body_bytes.min(bytes));
        let secure = x.arrival.conn.is_tls().then_some(STAY_ENCRYPTED);
        let answer = answer.with_all(std::mem::take(&mut x.limit_headers)).with_all(secure);
        let answer = answer.with_all(shape::fields(x));
        x.answer_bytes =
            send(session, answer, &x.arrival.path, &x.request_id, x.arrival.method, left).await?;
        Ok(())
    }
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::default()
    }

    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    fn on_connection_reuse(&self, session: &mut Session, ctx: &mut Ctx, intake: Box<dyn Any + Send + Sync>) {
        if let Ok(intake) = intake.downcast::<Intake>() {
            let Intake { arrival, generation } = *intake;
            suit_version(session, arrival.protocol);
            let headers = &session.req_header().headers;
            ctx.exchange = Some(Box::new(Exchange::new(arrival, generation, headers)));
        }
    }

    /// A stream of HTTP/2 brings its intake in its head.
    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        let request = session.req_header_mut();
        if let Some(handed) = request.extensions_mut().remove::<Handed>()
            && let Some(Intake { arrival, generation }) = handed.take()
        {
            let mut exchange = Exchange::new(arrival, generation, &request.headers);
            exchange.call = grpc::is_call(&request.headers);
            exchange.call_timeout = grpc::call_timeout(&request.headers);
            ctx.exchange = Some(Box::new(exchange));
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let x = of(ctx)?;
        let admitted = admit::admit(&self.shared, x, &session.req_header().headers).and_then(|()| enter(x));
        x.admitted = Some(x.arrival.headed.elapsed());
        let answer = match admitted {
            Err(refusal) => refusal,
            Ok(()) if matches!(x.target, Target::Page) => {
                x.decision = "page";
                pages::answer(&self.shared, session, x).await
            }
            Ok(()) => {
                check_nominations(session.req_header_mut())?;
                go_on(session, x.arrival.body).await?;
                end_of_nothing(session, x).await?;
                return Ok(false);
            }
        };
        self.reply(session, x, answer).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        choose(of(ctx)?).await
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        _: RawFd,
        digest: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let x = of(ctx)?;
        if let Some(attempt) = x.attempt.as_mut().filter(|_| !reused) {
            attempt.connected = Some(attempt.started.elapsed());
        }
        check_instance(&self.shared, x, peer, digest.and_then(|digest| digest.ssl_digest.as_deref()))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        prepare(&self.shared, of(ctx)?, request)
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let x = of(ctx)?;
        x.body_bytes += body.as_ref().map_or(0, |piece| piece.len() as u64);
        if x.body_bytes > x.body_bytes_max {
            x.refusal = Some(admit::too_large(x.body_bytes_max));
            x.decision = "body_too_large";
            return Err(Error::new_down(crate::peer::REFUSED));
        }
        x.received |= end_of_stream;
        if !end_of_stream && let Some(piece) = body.take_if(|piece| !piece.is_empty()) {
            *body = Some(counted(&x.arrival.link, piece));
        }
        if x.streaming && !x.answered {
            // What a call sends while its answer goes on shows that it is alive.
            x.await_answer();
        } else if end_of_stream && x.upstream_status.is_none() {
            x.await_head();
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let x = of(ctx)?;
        if response.status.is_informational() {
            x.interim = x.interim.saturating_add(1);
            return interim(x.interim, response, x.request_id.as_str());
        }
        frame_anew(response)?;
        let status = response.status.as_u16();
        head_came(x, status);
        let replayable = is_replayable(session);
        if retries_status(x, status, replayable, retry_after(response)) {
            return Err(Error::new_up(RETRY_STATUS));
        }
        let stream = is_stream(response);
        x.streaming = stream || answers_call(x, response);
        if x.streaming {
            // A call cannot be ended as if its instance had: that would take its status.
            x.arrival.link.set_streams(stream);
            x.events = events(response);
            x.standing = Place::take(&self.shared, x);
            tell_breaker(x);
        }
        x.await_answer();
        if !x.streaming && has_no_body(x, response) {
            settle(x);
            x.end_answer();
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let x = of(ctx)?;
        if response.status.is_informational() {
            return Ok(());
        }
        dress(x, response)?;
        if x.arrival.protocol == Protocol::Http10 {
            // HTTP/1.0 knows no chunks: without a length the body ends with the connection.
            response.remove_header(&TRANSFER_ENCODING);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        let x = of(ctx)?;
        if let Some(piece) = body {
            x.answer_bytes += piece.len() as u64;
            if let Some(events) = &mut x.events {
                events.follow(piece);
            }
        }
        x.await_answer();
        if end_of_stream {
            settle(x);
            x.end_answer();
        }
        Ok(None)
    }

    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, ctx: &mut Ctx, mut e: Box<Error>) -> Box<Error> {
        let retry = ctx.exchange.as_deref_mut().is_some_and(|x| connect_failed(x, &e));
        e.set_retry(retry);
        e
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut e: Box<Error>,
        ctx: &mut Ctx,
        _: bool,
    ) -> Box<Error> {
        let answered = session.response_written().is_some_and(|head| !head.status.is_informational());
        let replayable = is_replayable(session);
        if let (Some(x), Some(sent)) = (ctx.exchange.as_deref_mut(), session.upstream_body_bytes_sent()) {
            x.upstream_blocks = (sent as u64) < x.body_bytes;
        }
        let retry = ctx.exchange.as_deref_mut().is_some_and(|x| attempt_failed(x, &e, answered, replayable));
        e.set_retry(retry);
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Ctx) -> FailToProxy {
        let Some(x) = ctx.exchange.as_deref_mut() else {
            return FailToProxy { error_code: 500, can_reuse_downstream: false };
        };
        let answered = session.response_written().is_some_and(|head| !head.status.is_informational());
        let fault = x.arrival.link.fault();
        if answered && x.arrival.link.streams() && matches!(fault, Fault::Draining | Fault::Credential) {
            x.decision = if fault == Fault::Draining { "draining" } else { CREDENTIAL_ENDED };
            // The client may be gone by now: then there is nobody to send away.
            drop(end_stream(session, x, fault == Fault::Draining).await);
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        if x.answered {
            // It has all it is to get; what ended was only its own sending.
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let Some(answer) = failed_answer(x, e).filter(|_| !answered) else {
            if answered && x.arrival.protocol == Protocol::Http10 {
                // Its body ends with the connection, so how that ends must tell that this is not the end.
                x.arrival.link.break_off();
            }
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        };
        let status = answer.status;
        settle(x);
        // The client may be gone by now; the access log says what was meant for it.
        drop(self.reply(session, x, answer.closing()).await);
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Ctx) {
        let Some(mut x) = ctx.exchange.take() else { return };
        settle(&mut x);
        account::finish(&self.shared, session, &x, e);
    }

    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Ctx, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

/// Waits for the end of a stream whose body was told to be empty. To an instance of HTTP/1 its head alone is a
/// whole request, so it must not leave before no byte can follow any more.
async fn end_of_nothing(session: &mut Session, x: &Exchange) -> Result<()> {
    if x.arrival.protocol == Protocol::Http2 && x.arrival.body == BodyFraming::Length(0) {
        x.await_body_of_request();
        while session.as_mut().read_request_body().await?.is_some() {}
    }
    Ok(())
}

/// Whether the request's body, if any, could be sent again.
fn is_replayable(session: &Session) -> bool {
    !session.as_ref().retry_buffer_truncated()
}
