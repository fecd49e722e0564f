//! Calls of gRPC to instances that speak HTTP/2: carried both ways at once, beside Pingora's proxy loop.
//!
//! That loop writes a piece of a request to an instance of HTTP/2 and looks at nothing else meanwhile. An
//! instance that answers many times what it reads, and reads no more before its answer is taken, would wait
//! for the edge and the edge for it. So such a call is admitted and given to an instance as every request is,
//! with the same decisions, and what follows is one task that moves either direction as far as it goes.
//!
//! ```text
//!  h2/connection.rs ── wanted? ── mod.rs ── admit, enter ── tries.rs ── flow.rs ── both directions
//!                        │ no       │ refused, failed, an instance of HTTP/1
//!                        └──────────┴──────► Pingora's hooks, with what is known of it
//! ```
//!
//! LIMIT: memory of one call: 256 KiB of the answer ahead of the client (the window of its stream,
//! `endpoint.rs`), one piece of it of 64 KiB at most, and what `h2/mod.rs` says of every stream: 32 KiB for the
//! client's socket, 64 KiB of the request sent ahead. Towards the instance: three pieces of the request of
//! 16 KiB and one that waits for its window (`backlog.rs`), and until the answer begins 64 KiB of it for
//! another try.

mod flow;
mod lines;
mod tries;

use std::future::poll_fn;
use std::sync::Arc;

use h2::Reason;
use http::{HeaderMap, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, Result};
use sluice_policy::deadline::USEFUL_MIN;

use crate::ctx::Exchange;
use crate::enter::{Turned, Waits, enter};
use crate::failed::{ends_late, ends_stream, failed_answer, last_words};
use crate::forward::settle;
use crate::h2::{Asked, Reply, grpc};
use crate::headers::check_nominations;
use crate::peer::{attempt_failed, connect_failed};
use crate::respond::waits_to_go_on;
use crate::service::{Intake, exchange};
use crate::state::Shared;
use crate::{account, admit, kill};
use tries::{Failed, once};

pub(crate) use lines::Lines;

/// Whether a request is a call for a service with an instance that speaks HTTP/2.
pub(crate) fn wanted(intake: &Intake, head: &RequestHeader) -> bool {
    grpc::is_call(&head.headers)
        && admit::service_of(&intake.generation, &intake.arrival, &head.headers).is_some_and(|route| {
            route.upstream.roster().endpoints().iter().any(|endpoint| endpoint.speaks_http2())
        })
}

/// Runs a call to its end. What comes back goes on through Pingora: one with an answer of the edge in its
/// exchange, or one that the balancer gave to an instance of HTTP/1.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    lines: &Lines,
    mut asked: Asked,
    intake: Intake,
) -> Option<(Asked, Box<Exchange>)> {
    let mut x = Box::new(exchange(intake, &asked.head.headers));
    x.symbols = kill::symbols(&x, &asked.head.headers);
    let entered = match admit::admit(shared, &mut x, &mut asked).await {
        Ok(()) => enter(shared, &mut x, &mut asked).await,
        turned => turned,
    };
    x.admitted = Some(x.arrival.headed.elapsed());
    match entered {
        Ok(()) => {}
        Err(Turned::Away(answer)) => {
            x.refusal = Some(answer);
            return Some((asked, x));
        }
        Err(Turned::Left) => {
            account::ended(shared, &x, &asked.head.headers, None, true);
            return None;
        }
    }
    let carried = match begin(&mut asked, &x) {
        Ok(()) => carry(shared, lines, &mut asked, &mut x).await,
        Err(error) => Err(error),
    };
    let failed = match carried {
        Ok(Carried::Whole) => false,
        Ok(Carried::Elsewhere) => return Some((asked, x)),
        Err(error) => {
            if let Some(answer) = broke(&mut asked.reply, &mut x, &error).await {
                settle(&mut x);
                x.refusal = Some(answer.closing());
                return Some((asked, x));
            }
            !x.answered
        }
    };
    settle(&mut x);
    account::ended(shared, &x, &asked.head.headers, asked.reply.written(), failed);
    None
}

impl Waits for Asked {
    fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    async fn left(&mut self, _: &Exchange) {
        poll_fn(|cx| self.reply.poll_left(cx)).await;
    }
}

/// What became of a call that did not fail.
enum Carried {
    /// Its answer has gone to the client.
    Whole,
    /// It is Pingora's; the exchange says where it goes.
    Elsewhere,
}

/// Makes a call ready for its tries.
fn begin(asked: &mut Asked, x: &Exchange) -> Result<()> {
    check_nominations(&mut asked.head)?;
    if waits_to_go_on(&asked.head.headers, x.arrival.body) {
        asked.reply.head(Box::new(ResponseHeader::build(StatusCode::CONTINUE, None)?), false)?;
    }
    asked.body.keep();
    Ok(())
}

/// Tries, until an instance has answered or none is asked any more.
async fn carry(shared: &Arc<Shared>, lines: &Lines, asked: &mut Asked, x: &mut Exchange) -> Result<Carried> {
    loop {
        let (error, again) = match once(shared, lines, asked, x).await {
            Ok(()) => return Ok(Carried::Whole),
            Err(Failed::Plain(peer)) => {
                x.chosen = Some(peer);
                return Ok(Carried::Elsewhere);
            }
            Err(Failed::Refused(error)) => (error, false),
            Err(Failed::Connect(error)) => {
                let again = connect_failed(x, &error);
                (error, again)
            }
            Err(Failed::Under(error)) => {
                let answered = asked.reply.written().is_some();
                let replayable = !asked.body.is_truncated();
                let again = attempt_failed(x, &error, answered, replayable);
                (error, again)
            }
        };
        if !again {
            return Err(error);
        }
    }
}

/// The end of a call that came to no good one: the edge's answer, or none where a part of the instance's was
/// sent, whose end the client then hears as the edge did.
async fn broke(reply: &mut Reply, x: &mut Exchange, error: &Error) -> Option<crate::respond::Answer> {
    let answered = reply.written().is_some();
    if answered && let Some(draining) = ends_stream(x) {
        let words = last_words(x, draining).unwrap_or_default();
        // The client may be gone by now: then there is nobody to send away.
        drop(reply.body(words, true).await);
        return None;
    }
    if x.answered {
        // It has all it is to get; what ended was only its own sending.
        return None;
    }
    let answer = failed_answer(x, error);
    if !answered {
        return answer;
    }
    let reset = tries::reset_of(error);
    if ends_late(x) || (reset == Some(Reason::CANCEL) && is_due(x)) {
        // The client may be gone by now.
        drop(reply.trailers(grpc::late_trailers()));
    } else if let Some(reason) = reset {
        reply.abandon(reason);
    } else if is_due(x) {
        // Its client takes nothing: no part of it may pass for the whole.
        reply.abandon(Reason::CANCEL);
    }
    None
}

/// Whether the time is over that the caller of a method gave. An instance that was told it counts as it does, and
/// may cancel a moment before the edge's own look.
fn is_due(x: &Exchange) -> bool {
    x.patience.is_some() && x.left().is_some_and(|left| left < USEFUL_MIN)
}
