//! Pingora's hooks, kept thin: each one calls the decision and performs it.

use std::any::Any;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::header::TRANSFER_ENCODING;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use sluice_policy::framing::BodyFraming;
use sluice_wire::code::Code;

use crate::conn::Protocol;
use crate::ctx::{Arrival, Ctx, Exchange, Target};
use crate::enter::{Turned, enter};
use crate::failed::{end_stream, ends_late, ends_stream, failed_answer};
use crate::forward::{
    answer_begins, answer_piece, dress, has_no_body, head_came, is_stream, prepare, request_piece,
    retry_after, settle,
};
use crate::generation::Generation;
use crate::h2::{Handed, Known, grpc};
use crate::headers::{STAY_ENCRYPTED, check_nominations};
use crate::peer::{REFUSED, RETRY_STATUS, attempt_failed, check_instance, connect_failed, retries_status};
use crate::reframe::{frame_anew, interim};
use crate::respond::{Answer, go_on, send, suit_version};
use crate::state::Shared;
use crate::{account, admit, clock, idempotency, kill, pages, shape};

/// What the connection loop hands to a request.
pub(crate) struct Intake {
    /// The request as it arrived.
    pub(crate) arrival: Box<Arrival>,
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

/// The exchange of a stream of HTTP/2.
pub(crate) fn exchange(intake: Intake, headers: &HeaderMap) -> Exchange {
    let mut exchange = Exchange::new(intake.arrival, intake.generation, headers);
    exchange.call = grpc::is_call(headers);
    exchange
}

impl Edge {
    /// Answers a request without an upstream.
    async fn reply(&self, session: &mut Session, x: &mut Exchange, answer: Answer) -> Result<()> {
        if answer.close && answer.status == Code::RateLimited.status() {
            // A caller far above its limit: HTTP/1 ends with the answer, HTTP/2 with its streams.
            x.arrival.link.set_last();
        }
        idempotency::release(x);
        let answer = shape::stand_in(&self.shared, x, &session.req_header().headers, answer);
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
        let handed = request.extensions_mut().remove::<Handed>();
        if let Some(known) = handed.and_then(|handed| handed.take()) {
            ctx.exchange = Some(match known {
                Known::Intake(intake) => Box::new(exchange(intake, &request.headers)),
                Known::Exchange(exchange) => exchange,
            });
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let x = of(ctx)?;
        let known = x.admitted.is_some();
        let admitted = if known {
            // A call that came with its exchange: refused before, or left to go on from here.
            x.refusal.take().map_or(Ok(()), |refusal| Err(Turned::Away(refusal)))
        } else {
            match admit::admit(&self.shared, x, session).await {
                Ok(()) => match idempotency::claim(&self.shared, session, x).await? {
                    Ok(()) => enter(&self.shared, x, session).await,
                    Err(answer) => Err(Turned::Away(answer)),
                },
                turned => turned,
            }
        };
        x.admitted.get_or_insert_with(|| clock::look().0 - x.arrival.headed);
        let answer = match admitted {
            Err(Turned::Away(refusal)) => refusal,
            Err(Turned::Left) => return Err(Error::new_down(ErrorType::ConnectionClosed)),
            Ok(()) if matches!(x.target, Target::Page) => {
                x.decision = "page";
                pages::answer(&self.shared, session, x).await
            }
            Ok(()) => {
                check_nominations(session.req_header_mut())?;
                if !known {
                    shape::copy(&self.shared, x, &session.req_header().headers);
                }
                if !known && !x.received {
                    go_on(session, x.arrival.body).await?;
                }
                end_of_nothing(session, x).await?;
                return Ok(false);
            }
        };
        self.reply(session, x, answer).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let x = of(ctx)?;
        if let Some(peer) = x.chosen.take() {
            return Ok(peer);
        }
        let chosen = kill::choose(&self.shared, x, &session.req_header().headers).await?;
        Ok(chosen.peer(x))
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
            attempt.connected = Some(clock::instant() - attempt.started);
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
        request_piece(of(ctx)?, body, end_of_stream)
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
        let version = response.version;
        frame_anew(response)?;
        let status = response.status.as_u16();
        head_came(x, status);
        let replayable = is_replayable(session);
        if retries_status(x, status, replayable, retry_after(response)) {
            return Err(Error::new_up(RETRY_STATUS));
        }
        if let Some(answer) = shape::replacement(&self.shared, x, &session.req_header().headers, status) {
            x.refusal = Some(answer);
            return Err(Error::new_up(REFUSED));
        }
        if is_stream(response) || x.call {
            x.symbols = kill::symbols(x, &session.req_header().headers);
        }
        answer_begins(&self.shared, x, response.status, response);
        shape::collect(&self.shared, x, &session.req_header().headers, response, version);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let x = of(ctx)?;
        if response.status.is_informational() {
            return Ok(());
        }
        dress(x, response)?;
        if self.shared.drain.closes_answers() {
            // The framework looked when the request began.
            session.set_keepalive(None);
        }
        shape::begin_squeeze(&self.shared, x, &session.req_header().headers, response)?;
        if x.arrival.protocol == Protocol::Http10 {
            // HTTP/1.0 knows no chunks: without a length the body ends with the connection.
            response.remove_header(&TRANSFER_ENCODING);
        }
        let last = has_no_body(x, response.status, response);
        idempotency::head_goes(x, response.status, response, last);
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
        shape::follow(&self.shared, x, body.as_ref(), end_of_stream);
        shape::squeeze(&self.shared, x, body, end_of_stream)?;
        answer_piece(x, body.as_ref(), end_of_stream);
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        _: &mut HeaderMap,
        ctx: &mut Ctx,
    ) -> Result<Option<Bytes>> {
        shape::end_squeeze(&self.shared, of(ctx)?)
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
        if answered || x.answered {
            idempotency::release(x);
        }
        if answered && let Some(draining) = ends_stream(x) {
            // The client may be gone by now: then there is nobody to send away.
            drop(end_stream(session, x, draining).await);
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        if x.answered {
            // It has all it is to get; what ended was only its own sending.
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        if answered && ends_late(x) {
            let trailers = HttpTask::Trailer(Some(Box::new(grpc::late_trailers())));
            drop(session.as_mut().response_duplex_vec(vec![trailers]).await);
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
