//! WebSockets: a request that asks for one is answered here, never in Pingora's proxy loop.
//!
//! That loop can take an upstream's immediate 101 for the end of the connection: it waits for the answer
//! and for its own empty request body at once, and whichever is handled first decides. So the head is
//! read, admitted and given to an instance as every request's is, with the same decisions; what follows
//! the 101 is copied.
//!
//! - Bytes that a client sends before the 101 wait here: an upstream that does not switch must not take
//!   them for a second request. LIMIT: [`EARLY_BYTES`].
//! - Frames pass as they are; only their ends are followed, so that the edge can end a tunnel between two
//!   of them: 1012 when it drains, 1008 when the caller's credential expires or is revoked, 1001 when
//!   nothing passed for `timeouts.idle`.
//! - An answer other than 101 is relayed, then the connection closes.

mod carry;
mod goodbye;
mod handshake;
mod open;
mod pipe;
mod relay;
mod tries;

use std::sync::Arc;

use http::HeaderMap;
use pingora::http::RequestHeader;
use sluice_wire::code::Code;

use crate::ctx::Exchange;
use crate::enter::{Turned, Waits, enter};
use crate::forward::{head_came, retry_after, settle, tell_breaker};
use crate::peer::{self, attempt_failed, connect_failed, retries_status};
use crate::respond::Answer;
use crate::service::Intake;
use crate::state::Shared;
use crate::stream::Downstream;
use crate::{account, admit, kill};
use tries::{Answered, Failed};

pub(crate) use open::{Tunnels, watch};

/// LIMIT: bytes of a client that wait for the 101.
const EARLY_BYTES: usize = 16 << 10;

/// The head of a request that is to be tunnelled.
pub(crate) struct Asked {
    head: RequestHeader,
    bytes: usize,
}

/// The head of a request that is to be tunnelled; `None` where the wish for a WebSocket is ignored because
/// the edge itself answers, or a worker at a call that is none.
pub(crate) fn wanted(stream: &Downstream, intake: &Intake) -> Option<Asked> {
    if !intake.arrival.websocket {
        return None;
    }
    let fields_max = intake.generation.config.edge.limits.header_count;
    let (head, bytes) = handshake::read_request(stream.buffered(), fields_max)?;
    let asked = Asked { head, bytes };
    admit::may_tunnel(&intake.generation, &intake.arrival, &asked.head.headers).then_some(asked)
}

/// What a request for a WebSocket came to.
enum Reached {
    /// The edge answers.
    Refused(Answer),
    /// The client left first.
    Left,
    /// The upstream answered.
    Answered(Box<Answered>),
}

/// Who asks, until somebody has answered.
struct Caller<'a> {
    head: &'a RequestHeader,
    stream: &'a mut Downstream,
    kept_max: usize,
}

impl Waits for Caller<'_> {
    fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    async fn left(&mut self, _: &Exchange) {
        let never = std::future::pending::<()>();
        tries::while_present(self.stream, self.kept_max, never).await;
    }
}

/// Runs a request for a WebSocket, and the WebSocket, to the end of the connection.
pub(crate) async fn run(shared: Arc<Shared>, mut stream: Box<Downstream>, intake: Intake, asked: Asked) {
    let Intake { arrival, generation } = intake;
    let Asked { head, bytes } = asked;
    let mut x = Box::new(Exchange::new(arrival, generation, &head.headers));
    x.received = true;
    x.symbols = kill::symbols(&x, &head.headers);
    // Boxed, so that an open tunnel holds no room for its own beginning.
    let reached = Box::pin(reach(&shared, &mut stream, &mut x, head)).await;
    match reached {
        Reached::Refused(answer) => refuse(&shared, stream, x, answer).await,
        Reached::Left => {
            settle(&mut x);
            account::count(&shared, &x, None);
            account::line(&shared, &x, None, false);
        }
        Reached::Answered(answered) if answered.head.status == http::StatusCode::SWITCHING_PROTOCOLS => {
            tell_breaker(&mut x);
            Box::pin(carry::run(shared, stream, bytes, x, answered)).await;
        }
        Reached::Answered(answered) => Box::pin(relay::run(&shared, stream, x, answered)).await,
    }
}

/// Admission and tries, until somebody has answered.
async fn reach(
    shared: &Shared,
    stream: &mut Downstream,
    x: &mut Exchange,
    mut head: RequestHeader,
) -> Reached {
    let kept_max = stream.buffered().len() + EARLY_BYTES;
    let entered = let_in(shared, x, &mut Caller { head: &head, stream, kept_max }).await;
    x.admitted = Some(x.arrival.headed.elapsed());
    match entered {
        Err(Turned::Away(answer)) => return Reached::Refused(answer),
        Err(Turned::Left) => return Reached::Left,
        Ok(()) => {}
    }
    handshake::drop_nominated(&mut head);
    loop {
        match tries::while_present(stream, kept_max, tries::once(shared, x, &head)).await {
            None => {
                x.decision = "client_left";
                return Reached::Left;
            }
            Some(Ok(answered)) => {
                let status = answered.head.status.as_u16();
                head_came(x, status);
                if !retries_status(x, status, true, retry_after(&answered.head)) {
                    return Reached::Answered(answered);
                }
            }
            Some(Err(failed)) if again(x, &failed) => {}
            Some(Err(_)) => return Reached::Refused(failure(x)),
        }
    }
}

/// Admission, and its turn.
async fn let_in(shared: &Shared, x: &mut Exchange, caller: &mut Caller<'_>) -> Result<(), Turned> {
    handshake::check(&caller.head.headers).inspect_err(|_| x.decision = "websocket_handshake")?;
    admit::admit(shared, x, caller).await?;
    enter(shared, x, caller).await
}

/// Notes how a try failed; says whether another is made.
fn again(x: &mut Exchange, failed: &Failed) -> bool {
    match failed {
        Failed::Refused => false,
        Failed::Connect(error) => connect_failed(x, error),
        Failed::Upstream(error) => attempt_failed(x, error, false, true),
    }
}

/// The answer after the last try.
fn failure(x: &mut Exchange) -> Answer {
    match (x.refusal.take(), x.failure) {
        (Some(refusal), _) => refusal,
        (None, Some(failure)) => peer::answer(x, failure),
        (None, None) => Answer::refuse(Code::Internal, "the request could not be processed"),
    }
}

async fn refuse(shared: &Shared, stream: Box<Downstream>, mut x: Box<Exchange>, answer: Answer) {
    settle(&mut x);
    let status = answer.status;
    let answer = answer.with_all(std::mem::take(&mut x.limit_headers));
    let wire = answer.into_wire(&x.arrival.path, &x.request_id, false);
    x.answer_bytes =
        wire.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| wire.len() - at - 4) as u64;
    account::count(shared, &x, Some(status));
    account::line(shared, &x, Some(status), false);
    stream.answer_and_close(&wire).await;
}
