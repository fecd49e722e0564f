//! Deadlines that callers name: read at admission, told to upstreams with each try.

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::{ErrorType::InvalidHTTPHeader, OrErr as _, Result};
use sluice_policy::deadline::{DeadlineFault, USEFUL_MIN, read_grpc, read_ms, tell_grpc, tell_ms};
use sluice_wire::code::Code;
use sluice_wire::problem::Problem;

use std::time::Duration;

use crate::admit::{decided, not_sent};
use crate::ctx::Exchange;
use crate::fields::{Fields, name};
use crate::respond::Answer;

/// Notes what the caller is willing to wait, where it says so; whether it says it well is seen by [`take`].
pub(crate) fn note(x: &mut Exchange, headers: &HeaderMap) {
    if let Ok(patience) = named(x, headers) {
        x.patience = patience;
    }
}

/// Takes what the caller is willing to wait. One that leaves no time for an answer is refused before any
/// upstream hears of it.
pub(crate) fn take(x: &mut Exchange, headers: &HeaderMap) -> Result<(), Answer> {
    x.patience = match named(x, headers) {
        Ok(None) => return Ok(()),
        Ok(patience) => patience,
        Err(fault) => {
            let answer = Answer::refuse(Code::InvalidDeadline, fault.to_string());
            return Err(decided(x, Code::InvalidDeadline.word(), answer));
        }
    };
    if x.left().is_none_or(|left| left >= USEFUL_MIN) {
        return Ok(());
    }
    Err(over(x))
}

fn named(x: &Exchange, headers: &HeaderMap) -> Result<Option<Duration>, DeadlineFault> {
    let asked = one(headers, &name::DEADLINE, read_ms)?;
    let called = if x.call { one(headers, &name::GRPC_TIMEOUT, read_grpc)? } else { None };
    Ok(asked.into_iter().chain(called).min())
}

/// The answer to a request whose caller waits no longer.
pub(crate) fn over(x: &mut Exchange) -> Answer {
    let problem = Problem::new(Code::UpstreamTimeout).detail("no time is left for this request");
    let answer = Answer::problem(not_sent(x, problem));
    decided(x, "deadline", answer)
}

fn one(
    headers: &HeaderMap,
    name: &HeaderName,
    read: fn(&[u8]) -> Result<Duration, DeadlineFault>,
) -> Result<Option<Duration>, DeadlineFault> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    if headers.get_all(name).iter().nth(1).is_some() {
        return Err(DeadlineFault::Repeated);
    }
    read(value.as_bytes()).map(Some)
}

/// Tells the upstream of the present try what is left of its caller's time. Where a caller named none, nothing is
/// said: the route's own total does not hold for streams, and nobody knows yet whether this is one.
pub(crate) fn tell(x: &Exchange, fields: &mut impl Fields) -> Result<()> {
    if x.patience.is_none() {
        return Ok(());
    }
    let left = x.left().unwrap_or_default();
    if x.call && fields.has(&name::GRPC_TIMEOUT) {
        fields.set(
            name::GRPC_TIMEOUT,
            HeaderValue::try_from(tell_grpc(left)).or_err(InvalidHTTPHeader, "digits")?,
        )?;
    }
    if fields.has(&name::DEADLINE) {
        fields.set(name::DEADLINE, HeaderValue::from(tell_ms(left)))?;
    }
    Ok(())
}
