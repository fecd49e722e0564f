//! What a client is told of a request that came to no good end.

use bytes::Bytes;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType, Result};
use sluice_policy::event_stream::retry_hint;
use sluice_wire::code::Code;

use crate::ctx::Exchange;
use crate::ids;
use crate::link::Fault;
use crate::peer::answer;
use crate::respond::Answer;

/// A client of an event stream is told to come back after this, or up to twice as long.
const RETRY_MS: u64 = 1000;
/// The decision where a long answer ends with its caller's credential.
const CREDENTIAL_ENDED: &str = "credential_ended";
/// The decision where an operator's switch ends it.
pub(crate) const KILLED: &str = "kill_switch";

/// The answer to a failed request; `None` where nobody is there to read one.
pub(crate) fn failed_answer(x: &mut Exchange, e: &Error) -> Option<Answer> {
    if let Some(refusal) = x.refusal.take() {
        return Some(refusal);
    }
    match x.arrival.link.fault() {
        Fault::BodyFraming => {
            x.decision = "bad_framing";
            return Some(Answer::refuse(Code::BadFraming, "the body is not well framed"));
        }
        Fault::BodyTimeout => {
            x.decision = "body_timeout";
            return Some(Answer::refuse(Code::RequestTimeout, "the body stopped arriving"));
        }
        Fault::WriteTimeout => {
            x.decision = "client_stalled";
            return None;
        }
        Fault::Deadline if !(x.received || x.upstream_blocks) => {
            x.decision = "body_timeout";
            return Some(Answer::refuse(Code::RequestTimeout, "the body did not arrive in time"));
        }
        Fault::Credential => {
            x.decision = CREDENTIAL_ENDED;
            return None;
        }
        Fault::Killed => {
            x.decision = KILLED;
            return None;
        }
        Fault::Deadline | Fault::Blocked | Fault::Draining | Fault::None => {}
    }
    if let Some(failure) = x.failure {
        return Some(answer(x, failure));
    }
    match (e.esource(), e.etype()) {
        (ErrorSource::Downstream, ErrorType::InvalidHTTPHeader) => {
            x.decision = "bad_framing";
            Some(Answer::refuse(Code::BadFraming, "a header field is not acceptable"))
        }
        (ErrorSource::Downstream, _) => {
            x.decision = "client_left";
            None
        }
        _ => {
            x.decision = "internal";
            Some(Answer::refuse(Code::Internal, "the request could not be processed"))
        }
    }
}

/// Whether an answer to a call that ended early did so by its deadline, with nothing in it that waits for its client:
/// then its trailers say so. A client takes a reset for a fault of the server.
pub(crate) fn ends_late(x: &Exchange) -> bool {
    let timed_out = matches!(x.arrival.link.fault(), Fault::Deadline | Fault::Blocked)
        || x.failure.is_some_and(|failure| failure.code == Code::UpstreamTimeout);
    x.call && timed_out
}

/// Ends a stream without end as if the upstream had: its clients come back, to a process that stays or with
/// another credential. Event streams are told when (`hints`), where the last event is whole; spread out, as they
/// all go at once.
pub(crate) async fn end_stream(session: &mut Session, x: &mut Exchange, hints: bool) -> Result<()> {
    let hint = last_words(x, hints);
    session.write_response_body(hint, true).await
}

/// The last piece of an answer that is ended so; `None` where nothing is said.
pub(crate) fn last_words(x: &mut Exchange, hints: bool) -> Option<Bytes> {
    let between = hints && x.events.is_some_and(|events| events.are_between());
    let hint = between.then(|| Bytes::from(retry_hint(RETRY_MS + ids::random() % RETRY_MS)));
    x.answer_bytes += hint.as_ref().map_or(0, |hint| hint.len() as u64);
    hint
}

/// Whether a request that ended early had an answer without end, which is ended as if the upstream had. Says
/// whether the edge goes, rather than its caller's credential or what an operator stopped.
pub(crate) fn ends_stream(x: &mut Exchange) -> Option<bool> {
    let decision = match x.arrival.link.fault() {
        Fault::Draining => "draining",
        Fault::Credential => CREDENTIAL_ENDED,
        Fault::Killed => KILLED,
        _ => return None,
    };
    if !x.arrival.link.streams() {
        return None;
    }
    x.decision = decision;
    Some(decision == "draining")
}
