//! The end of a request: metrics and one line of the access log.

use std::cell::RefCell;
use std::time::Duration;

use pingora::proxy::Session;
use pingora::{Error, ErrorSource};
use sluice_wire::id::RequestId;

use crate::access_log::Line;
use crate::ctx::{Exchange, Target};
use crate::head::Refusal;
use crate::state::Shared;

/// Status of a request whose client left before an answer began, for log and metric only.
const CLIENT_LEFT: u16 = 499;

thread_local! {
    static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
}

/// Accounts for a request that Pingora ran.
pub(crate) fn finish(shared: &Shared, session: &Session, x: &Exchange, error: Option<&Error>) {
    let written = session.response_written().map(|head| head.status.as_u16()).filter(|status| *status >= 200);
    let cut_short = written.is_some()
        && error.is_some_and(|error| *error.esource() != ErrorSource::Unset && x.refusal.is_none());
    count(shared, x, written);
    line(shared, x, written, cut_short);
}

/// Counts a request that was answered with `written`, or whose client left before.
pub(crate) fn count(shared: &Shared, x: &Exchange, written: Option<u16>) {
    let took = x.arrival.started.elapsed();
    x.meters().answered(x.arrival.method, written.unwrap_or(CLIENT_LEFT), took.as_secs_f64());
    if let Some(admitted) = x.admitted {
        shared.meters.admit_seconds.observe(admitted.as_secs_f64());
    }
}

/// Writes the line of a request that has ended. `cut_short`: its answer did not come to its end.
pub(crate) fn line(shared: &Shared, x: &Exchange, written: Option<u16>, cut_short: bool) {
    if !shared.access_log.is_on() {
        return;
    }
    let (status, took) = (written.unwrap_or(CLIENT_LEFT), x.arrival.started.elapsed());
    LINE.with_borrow_mut(|buffer| {
        let upstream = x.attempt.as_ref().and_then(|attempt| attempt.endpoint.as_ref());
        let service = match &x.target {
            Target::Service(route) => route.service.name.as_str(),
            Target::Worker(worker) => worker.role.as_str(),
            Target::Page => "edge",
        };
        let mut line = Line::start(buffer, jiff::Timestamp::now())
            .text("request_id", x.request_id.as_str())
            .text("message", "request")
            .text("trace_id", x.trace.id())
            .text("method", x.arrival.method.as_str())
            .text("path", &x.arrival.path)
            .text("host", &x.arrival.host)
            .text("protocol", x.arrival.protocol.as_str())
            .number("status", u64::from(status))
            .text("route", service)
            .text("decision", if cut_short && x.decision == "forwarded" { "cut_short" } else { x.decision })
            .plain("client", x.client)
            .maybe_text("user", x.identity.as_ref().map(|identity| identity.claims.sub.as_str()))
            .maybe_text("upstream", upstream.map(|endpoint| endpoint.label.as_str()))
            .number("attempts", u64::from(x.attempts))
            .number("bytes_in", x.body_bytes)
            .number("bytes_out", x.answer_bytes)
            .number("duration_us", micros(took))
            .number("head_us", micros(x.arrival.headed - x.arrival.started));
        if let Some(admitted) = x.admitted {
            line = line.number("admit_us", micros(admitted));
        }
        if let Some(first_byte) = x.first_byte {
            line = line.number("upstream_us", micros(first_byte));
        }
        shared.access_log.push(line.end());
    });
}

/// Accounts for a head that was refused before Pingora saw it.
pub(crate) fn refused(shared: &Shared, client: std::net::IpAddr, id: &RequestId, refusal: &Refusal) {
    shared.meters.framing_refused(refusal.reason);
    let took = refusal.started.elapsed();
    shared.generation.load().pages.refused(refusal.code.status(), took.as_secs_f64());
    if !shared.access_log.is_on() {
        return;
    }
    LINE.with_borrow_mut(|buffer| {
        let line = Line::start(buffer, jiff::Timestamp::now())
            .text("request_id", id.as_str())
            .text("message", "request refused")
            .number("status", u64::from(refusal.code.status()))
            .text("route", "edge")
            .text("decision", refusal.reason)
            .plain("client", client.to_canonical())
            .number("duration_us", micros(took));
        shared.access_log.push(line.end());
    });
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
