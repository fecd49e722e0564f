//! A request of HTTP/1.1, or of a stream of HTTP/2, to an instance that speaks HTTP/1.1 in clear text, without the
//! framework in between.
//!
//! It is the way that nearly all requests take, and it costs a third of what the framework's general one does.
//! The decisions are the same, in the same order; what differs is who moves the bytes. Bodies of chunks,
//! `Expect`, HTTP/1.0, gRPC, and TLS or HTTP/2 to the instance go the general way (`service.rs`).

mod answer;
mod client;
mod head;
mod hedge;
mod pool;
mod pump;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{EXPECT, VARY};
use http::{HeaderMap, StatusCode, Version};
use pingora::{Error, ErrorType, Result};
use sluice_policy::framing::BodyFraming;
use sluice_policy::method::Method;
use sluice_wire::code::Code;
use tokio::io::ReadBuf;

use self::answer::AnswerBody;
use self::head::{Came, drop_nominated, fields_of_try, request_bytes, says_close};
use self::pool::{Place, Upstream};
use self::pump::{Pump, Sending, from_client};
use crate::conn::Protocol;
use crate::ctx::{Arrival, Exchange};
use crate::enter::{Turned, Waits, enter};
use crate::failed::{ends_stream, failed_answer, last_words};
use crate::fields::{Fields as _, List};
use crate::forward::{
    answer_begins, dress, head_came, is_sent, is_stream, prepare_fields, retry_after, settle,
};
use crate::headers::STAY_ENCRYPTED;
use crate::idempotency::{self, Whole};
use crate::peer::{Chosen, REFUSED, RETRY_STATUS, attempt_failed, connect_failed, retries_status};
use crate::respond::{Answer, DRAIN_BYTES, DRAIN_TIME};
use crate::service::Intake;
use crate::state::Shared;
use crate::{account, admit, clock, kill, shape};

pub(crate) use self::client::{Client, Framed};
pub(crate) use self::head::Head;
pub(crate) use self::pool::Pool;

/// The request as it goes this way; `None` where it goes the general one.
pub(crate) fn wanted(intake: &mut Intake, mut fields: HeaderMap) -> Option<Asked> {
    let arrival = &mut intake.arrival;
    let protocol = arrival.protocol == Protocol::Http11;
    if !protocol || arrival.body == BodyFraming::Chunked || fields.contains_key(EXPECT) {
        return None;
    }
    let stays = !says_close(&fields);
    // Routed by what is passed on.
    drop_nominated(&mut fields);
    admit::goes_direct(&intake.generation, arrival, &fields).then_some(Asked { fields, stays })
}

/// The same of a stream's request, whose fields are taken where it goes this way.
pub(crate) fn wanted_of_stream(intake: &mut Intake, fields: &mut HeaderMap) -> Option<Asked> {
    let arrival = &mut intake.arrival;
    let chunked = arrival.body == BodyFraming::Chunked;
    if chunked || fields.contains_key(EXPECT) || !admit::goes_direct(&intake.generation, arrival, fields) {
        return None;
    }
    Some(Asked { fields: std::mem::take(fields), stays: true })
}

/// A request that goes this way.
pub(crate) struct Asked {
    /// Its fields but those that its `Connection` named.
    fields: HeaderMap,
    /// Whether its client leaves the connection open.
    stays: bool,
}

/// Why a try came to nothing, and whether another one is made.
struct Failed {
    error: Box<Error>,
    again: bool,
}

/// One request.
struct Call<'a, C> {
    shared: &'a Arc<Shared>,
    pool: &'a Pool,
    client: &'a mut C,
    x: Box<Exchange>,
    fields: HeaderMap,
    sending: Sending,
    /// The head that the client was sent.
    answered: Option<Head>,
    /// Whether the client's connection stays open.
    stays: bool,
}

/// Runs one request to its end. Says whether the connection may carry another one.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    pool: &Pool,
    client: &mut impl Client,
    intake: Intake,
    asked: Asked,
) -> bool {
    let Intake { arrival, generation } = intake;
    let Asked { fields, stays } = asked;
    let x = Box::new(Exchange::new(arrival, generation, &fields));
    let sending = Sending::new(x.announced().unwrap_or(0));
    let mut call = Call { shared, pool, client, x, fields, sending, answered: None, stays };
    call.run().await
}

/// Who asks, while its request waits or is read.
struct Caller<'a, C> {
    fields: &'a HeaderMap,
    client: &'a mut C,
    sending: &'a mut Sending,
}

impl<C: Client> Whole for Caller<'_, C> {
    fn fields(&self) -> &HeaderMap {
        self.fields
    }

    async fn body(&mut self, x: &mut Exchange, most: u64) -> Result<Option<Bytes>> {
        x.await_body_of_request();
        while !self.sending.is_received() {
            let more = poll_fn(|cx| self.sending.poll_more(cx, self.client)).await.map_err(from_client)?;
            if more == 0 {
                return Err(from_client(io::ErrorKind::UnexpectedEof.into()));
            }
            x.body_bytes += more as u64;
        }
        Ok((x.body_bytes <= most).then(|| Bytes::copy_from_slice(self.sending.kept())))
    }
}

impl<C: Client> Waits for Caller<'_, C> {
    fn headers(&self) -> &HeaderMap {
        self.fields
    }

    /// Nothing is read of a request that has a body: whether its client has left is seen by its upstream.
    async fn left(&mut self, x: &Exchange) {
        if x.arrival.body != BodyFraming::None {
            return std::future::pending().await;
        }
        // There is no body, so whatever ends this is an end.
        poll_fn(|cx| self.client.poll_left(cx)).await;
    }
}

impl<C: Client> Call<'_, C> {
    async fn run(&mut self) -> bool {
        let entered = self.enter().await;
        self.x.admitted = Some(clock::look().0 - self.x.arrival.headed);
        let ended = match entered {
            Err(error) => Err(error),
            Ok(Ok(())) => {
                shape::copy(self.shared, &self.x, &self.fields);
                self.tries().await
            }
            // Boxed, here and below: what seldom happens makes no room in every request.
            Ok(Err(Turned::Away(answer))) => Box::pin(self.reply(answer)).await,
            Ok(Err(Turned::Left)) => Err(from_client(io::ErrorKind::ConnectionReset.into())),
        };
        let ended = match ended {
            Err(error) => Box::pin(self.fail(&error)).await.and(Err(error)),
            done => done,
        };
        settle(&mut self.x);
        self.account(ended.as_ref().err().map(AsRef::as_ref));
        self.stays && ended.is_ok()
    }

    /// Lets the request in: admitted, its key claimed, its turn come. The outer error is a body that did not come.
    async fn enter(&mut self) -> Result<Result<(), Turned>> {
        let Self { shared, x, fields, client, sending, .. } = self;
        let mut caller = Caller { fields, client: &mut **client, sending };
        if let Err(turned) = admit::admit(shared, x, &mut caller).await {
            return Ok(Err(turned));
        }
        if idempotency::honoured(x)
            && let Err(answer) = Box::pin(idempotency::claim(shared, &mut caller, x)).await?
        {
            return Ok(Err(Turned::Away(answer)));
        }
        Ok(enter(shared, x, &mut caller).await)
    }

    async fn tries(&mut self) -> Result<()> {
        loop {
            match self.once().await {
                Err(Failed { again: true, .. }) => {}
                Err(Failed { error, .. }) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Makes one try.
    async fn once(&mut self) -> Result<(), Failed> {
        let chosen = kill::choose(self.shared, &mut self.x, &self.fields).await.map_err(last)?;
        let upstream = if let Some(watched) = hedge::watched(&self.x, &self.fields) {
            // Boxed: every connection would have room for it.
            Box::pin(hedge::race(self, &chosen, watched)).await?
        } else {
            let upstream = self.connect(&chosen).await?;
            self.head().map_err(last)?;
            upstream
        };
        self.x.body_bytes = self.sending.read();
        if self.sending.is_received() {
            self.x.note_received();
            self.x.await_head();
        }
        let mut pump = Pump::new(self.client, &mut self.x, &mut self.sending, upstream);
        let came = match pump.final_head().await {
            Ok(came) => came,
            Err(error) => {
                pump.note_blocked();
                return Err(self.failed(error, false));
            }
        };
        let (replayable, status) = (pump.sending.is_replayable(), came.head.status.as_u16());
        head_came(pump.x, status);
        if retries_status(pump.x, status, replayable, retry_after(&came.head.fields)) {
            return Err(Failed { error: Error::new_up(RETRY_STATUS), again: true });
        }
        if let Some(answer) = shape::replacement(self.shared, pump.x, &self.fields, status) {
            pump.x.refusal = Some(answer);
            return Err(last(Error::new_up(REFUSED)));
        }
        let upstream = pump.into_upstream();
        self.answer(upstream, came).await
    }

    /// The head of the present try, and behind it what is known of the body.
    fn head(&mut self) -> Result<()> {
        let Self { shared, x, fields, .. } = self;
        self.sending.begin(|out| write_head(shared, x, fields, out))?;
        is_sent(&mut self.x);
        Ok(())
    }

    /// Passes the upstream's answer on.
    async fn answer(&mut self, upstream: Upstream, came: Came) -> Result<(), Failed> {
        let mut response = came.head;
        let x = &mut *self.x;
        let mut body = AnswerBody::of(&response, x.arrival.method).map_err(last)?;
        if is_stream(&response.fields) {
            x.symbols = kill::symbols(x, &self.fields);
        }
        answer_begins(self.shared, x, response.status, &response.fields);
        dress(x, &mut response.fields).map_err(last)?;
        idempotency::head_goes(x, response.status, &response.fields, body.is_done());
        // A client that still sends cannot be told where its next request would begin.
        self.stays &= x.received && !self.shared.drain.closes_answers();
        let framed = Framed { unsized_body: body.is_chunked(), bodiless: body.is_done(), stays: self.stays };
        let written = self.client.head(&response, framed).map_err(from_client);
        self.answered = Some(response);
        written.map_err(last)?;
        let mut pump = Pump::new(self.client, x, &mut self.sending, upstream);
        let done = pump.answer(&mut body).await;
        let reusable = came.stays && body.is_done() && pump.is_whole();
        let upstream = pump.into_upstream();
        if let Err(error) = done {
            return Err(self.failed(error, true));
        }
        if reusable && let Some(within) = self.x.timeouts().map(|timeouts| timeouts.idle) {
            self.pool.put(upstream, within);
        }
        Ok(())
    }

    async fn connect(&mut self, chosen: &Chosen) -> Result<Upstream, Failed> {
        let nowhere = || last(Error::explain(ErrorType::InternalError, "an address without a path"));
        let address = Place::of(chosen.address()).ok_or_else(nowhere)?;
        if let Some(upstream) = self.pool.take(&address) {
            return Ok(upstream);
        }
        let connecting = Box::pin(Upstream::connect(address, chosen.connect));
        let upstream = connecting.await.map_err(|error| {
            let again = connect_failed(&mut self.x, &error);
            Failed { error, again }
        })?;
        if let Some(attempt) = &mut self.x.attempt {
            attempt.connected = Some(clock::instant() - attempt.started);
        }
        Ok(upstream)
    }

    fn failed(&mut self, error: Box<Error>, answered: bool) -> Failed {
        let again = attempt_failed(&mut self.x, &error, answered, self.sending.is_replayable());
        Failed { error, again }
    }

    /// Tells the client of a request that came to no good end.
    async fn fail(&mut self, error: &Error) -> Result<()> {
        self.stays = false;
        if self.answered.is_some() || self.x.answered {
            idempotency::release(&mut self.x);
        }
        if self.answered.is_some() {
            let Some(draining) = ends_stream(&mut self.x) else { return Ok(()) };
            return self.end_stream(draining).await;
        }
        if self.x.answered {
            return Ok(());
        }
        match failed_answer(&mut self.x, error) {
            Some(answer) => {
                settle(&mut self.x);
                self.reply(answer.closing()).await
            }
            None => Ok(()),
        }
    }

    /// Ends a stream without end as if the upstream had; see [`crate::failed::end_stream`].
    async fn end_stream(&mut self, hints: bool) -> Result<()> {
        let words = last_words(&mut self.x, hints);
        let out = self.client.out();
        if let Some(words) = words {
            if C::CHUNKS {
                out.extend_from_slice(format!("{:x}\r\n", words.len()).as_bytes());
            }
            out.extend_from_slice(&words);
            if C::CHUNKS {
                out.extend_from_slice(b"\r\n");
            }
        }
        if C::CHUNKS {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        self.client.end();
        self.flush().await
    }

    /// Answers without an upstream.
    async fn reply(&mut self, answer: Answer) -> Result<()> {
        if answer.close && answer.status == Code::RateLimited.status() {
            // A caller far above its limit: HTTP/1 ends with the answer, HTTP/2 with its streams.
            self.x.arrival.link.set_last();
        }
        idempotency::release(&mut self.x);
        let answer = shape::stand_in(self.shared, &mut self.x, &self.fields, answer);
        let left = self.x.announced().map_or(0, |bytes| bytes - self.x.body_bytes.min(bytes));
        self.stays &= !answer.close && left <= DRAIN_BYTES && !self.shared.drain.closes_answers();
        let secure = self.x.arrival.conn.is_tls().then_some(STAY_ENCRYPTED);
        let answer = answer.with_all(std::mem::take(&mut self.x.limit_headers)).with_all(secure);
        let answer = answer.with_all(shape::fields(&self.x));
        let (status, fields, body) = answer.into_parts(&self.x.arrival.path, &self.x.request_id);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response =
            Head { status, version: Version::HTTP_11, fields: List::with_capacity(fields.len()) };
        for (name, value) in fields {
            if name == VARY {
                response.fields.add(name, value)?;
            } else {
                response.fields.set(name, value)?;
            }
        }
        let bodiless = self.x.arrival.method == Method::Head || body.is_empty();
        let framed = Framed { unsized_body: false, bodiless, stays: self.stays };
        let written = self.client.head(&response, framed).map_err(from_client);
        self.answered = Some(response);
        written?;
        if !bodiless {
            self.client.out().extend_from_slice(&body);
            self.x.answer_bytes = body.len() as u64;
        }
        self.client.end();
        self.flush().await?;
        // The rest of a stream need not be read before the next one.
        if C::CHUNKS && self.stays && left > 0 {
            self.stays = self.discard(left).await;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| self.client.poll_flush(cx)).await.map_err(from_client)
    }

    /// Reads the rest of a small body that nobody wants, so that its client need not connect again.
    async fn discard(&mut self, mut left: u64) -> bool {
        self.x.arrival.link.set_deadline(Some(clock::now().plus(DRAIN_TIME)));
        let mut piece = [0; 4096];
        while left > 0 {
            let most = piece.len().min(usize::try_from(left).unwrap_or(piece.len()));
            let mut read = ReadBuf::new(&mut piece[..most]);
            match poll_fn(|cx| self.client.poll_body(cx, &mut read)).await {
                Ok(()) if !read.filled().is_empty() => left -= read.filled().len() as u64,
                _ => return false,
            }
        }
        true
    }

    fn account(&self, error: Option<&Error>) {
        let status = self.answered.as_ref().map(|head| head.status.as_u16());
        account::count(self.shared, &self.x, status);
        let cut_short = status.is_some() && error.is_some();
        let answered = self.answered.as_ref().map(|head| &head.fields);
        account::told(self.shared, &self.x, status, cut_short, &self.fields, answered);
    }
}

/// Writes the head of the present try.
fn write_head(shared: &Shared, x: &Exchange, asked: &HeaderMap, out: &mut Vec<u8>) -> Result<()> {
    let mut fields = fields_of_try(asked);
    prepare_fields(shared, x, &mut fields)?;
    let Arrival { method, path, query, .. } = &*x.arrival;
    let path = x.forward_path.as_deref().unwrap_or(path);
    request_bytes(method.as_str(), path, query.as_deref(), &fields, out);
    Ok(())
}

/// A failure after which nothing is tried again.
fn last(error: Box<Error>) -> Failed {
    Failed { error, again: false }
}
