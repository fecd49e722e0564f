//! Tries at an upstream: which instance, how long, and what to do when one fails.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use pingora::protocols::http::v2::client::PING_TIMEDOUT;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::tls::SslDigest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use sluice_policy::breaker::Outcome;
use sluice_policy::ending::{self, Failure, Sent};
use sluice_policy::retry::Failed;
use sluice_schema::RetryCause;
use sluice_wire::code::Code;
use sluice_wire::problem::Problem;

use crate::ctx::{Attempt, Exchange, Target};
use crate::endpoint::Reached;
use crate::generation::ServiceRoute;
use crate::idempotency;
use crate::link::Fault;
use crate::respond::Answer;
use crate::state::Shared;
use crate::upstream::BreakerLeave;
use crate::{clock, shortage};

/// `Host` for workers, which answer on Unix sockets.
static LOCALHOST: HeaderValue = HeaderValue::from_static("localhost");

/// A body of this size fits into the buffers of the upstream's socket, so that writing it never blocks.
const FITS_BYTES: u64 = 64 << 10;

/// Our own reason inside a Pingora error; the answer lies in the exchange.
pub(crate) const REFUSED: ErrorType = ErrorType::Custom("refused by the edge");
/// An upstream status that is tried again.
pub(crate) const RETRY_STATUS: ErrorType = ErrorType::Custom("upstream status tried again");

/// The instance showed a certificate that the vault has revoked.
pub(crate) const REVOKED: ErrorType = ErrorType::Custom("the instance's certificate was revoked");

/// A connection to an instance stands, new or from the pool: nothing is sent to one that shows a certificate
/// which the vault has revoked.
pub(crate) fn check_instance(
    shared: &Shared,
    x: &Exchange,
    peer: &HttpPeer,
    shown: Option<&SslDigest>,
) -> Result<(), Box<Error>> {
    let endpoint = x.attempt.as_ref().and_then(|attempt| attempt.endpoint.as_ref());
    match endpoint {
        Some(endpoint) if !endpoint.believes(peer, shown, &shared.trust) => Err(Error::new_up(REVOKED)),
        _ => Ok(()),
    }
}

/// The upstream of the next try. An error carries the answer in `x.refusal`.
pub(crate) async fn choose(x: &mut Exchange) -> Result<Chosen, Box<Error>> {
    if !x.retry_after.is_zero() {
        Box::pin(tokio::time::sleep(std::mem::take(&mut x.retry_after))).await;
    }
    if !may_try_again(x) {
        let problem = Problem::new(Code::BreakerOpen)
            .detail("the service failed meanwhile and is given time to recover")
            .retry_after_s(1);
        return refuse(x, problem);
    }
    let Some(connect) = x.deadline().and_then(|deadline| deadline.connect(clock::now())) else {
        let problem = Problem::new(Code::UpstreamTimeout).detail("no time is left for this request");
        return refuse(x, problem);
    };
    x.arrival.link.clear_fault();
    idempotency::begins_again(x);
    // Another try reads the body from its start.
    x.body_bytes = 0;
    x.upstream_blocks = false;
    x.await_body_of_request();
    // A call may be silent on both sides as long as its route's `idle` allows.
    let patience = x.timeouts().map(|timeouts| timeouts.first_byte).filter(|_| !x.call);
    x.arrival.link.backlog().set_patience(patience);
    let reached = match &x.target {
        Target::Service(route) => {
            let route = Arc::clone(route);
            place(x, &route, connect).await
        }
        Target::Worker(worker) => {
            let reached = worker.peer.clone().map(Reached::by);
            x.attempts += 1;
            x.begin(Attempt::at_worker());
            reached.ok_or_else(worker_away)
        }
        Target::Page => Err(Problem::new(Code::Internal)),
    };
    match reached {
        Ok(reached) => Ok(Chosen { reached, connect }),
        Err(problem) => refuse(x, problem),
    }
}

/// Where a try goes.
pub(crate) struct Chosen {
    reached: Reached,
    /// How long a connection may take.
    pub(crate) connect: Duration,
}

impl Chosen {
    /// The address.
    pub(crate) fn address(&self) -> PeerAddress {
        self.reached.address()
    }

    /// The same for the framework.
    pub(crate) fn peer(&self, x: &Exchange) -> Box<HttpPeer> {
        let mut peer = Box::new(self.reached.peer());
        peer.options.connection_timeout = Some(self.connect);
        peer.options.total_connection_timeout = Some(self.connect);
        bound_body(x, &mut peer);
        peer
    }
}

/// Keeps a request whose body may not fit into the pipe to an HTTP/2 instance within its total. While the
/// framework writes there it waits for nothing else, so the request's own deadline is not looked at: the
/// connection's timeouts have to end it, first the blocked write, then the wait for an early answer.
fn bound_body(x: &Exchange, peer: &mut HttpPeer) {
    let fits = x.call || x.announced().is_some_and(|bytes| bytes <= FITS_BYTES);
    let Some(left) = x.left().filter(|_| !fits && peer.options.alpn.get_max_http_version() == 2) else {
        return;
    };
    let options = &mut peer.options;
    let write = options.write_timeout.unwrap_or(left).min(left / 2);
    options.write_timeout = Some(write);
    options.read_timeout = options.read_timeout.map(|read| read.min(left.saturating_sub(write)));
}

/// Where the next try goes: on at the next address of the instance after a failed connect, else to the
/// instance that the balancer picks. Instances that cannot be reached at all are passed over.
async fn place(x: &mut Exchange, route: &ServiceRoute, connect: Duration) -> Result<Reached, Problem> {
    if std::mem::take(&mut x.another_address)
        && let Some(endpoint) = x.attempt.as_ref().and_then(|attempt| attempt.endpoint.clone())
        && let Ok(reached) = endpoint.reach(route, &mut x.addresses_tried)
    {
        return Ok(reached);
    }
    x.attempts += 1;
    let mut unreachable = None;
    // A second look at each instance: those tried before come up again once no other is left.
    for _ in 0..=2 * route.upstream.roster().endpoints().len() {
        let Some((endpoint, flight)) = route.upstream.pick(x.affinity, &x.tried) else { break };
        if !x.tried.contains(&endpoint.instance.id) {
            x.tried.push(endpoint.instance.id);
            endpoint.looked_up(connect).await;
        }
        match endpoint.reach(route, &mut x.addresses_tried) {
            Ok(reached) => {
                x.begin(Attempt::at(endpoint, flight));
                return Ok(reached);
            }
            Err(reason) => unreachable = Some(reason),
        }
    }
    let detail = match unreachable {
        Some(reason) => format!("the service cannot be reached: {reason}"),
        None => "no instance of the service is healthy".to_owned(),
    };
    Err(Problem::new(Code::NoHealthyInstance).detail(detail).retry_after_s(1))
}

/// The `Host` of the present try.
pub(crate) fn host(x: &Exchange) -> &HeaderValue {
    x.attempt
        .as_ref()
        .and_then(|attempt| attempt.endpoint.as_ref())
        .map_or(&LOCALHOST, |endpoint| &endpoint.host)
}

fn worker_away() -> Problem {
    Problem::new(Code::WorkerUnavailable).detail("the worker of this path is not running").retry_after_s(1)
}

/// Refuses a try; the answer is in `x.refusal`.
pub(crate) fn refuse<T>(x: &mut Exchange, problem: Problem) -> Result<T, Box<Error>> {
    let code = problem.code;
    x.refusal = Some(Answer::problem(outcome(x, problem)));
    x.failure = Some(Failure::refused(x.failure, code));
    x.decision = code.word();
    Err(Error::new_in(REFUSED))
}

/// No connection was made: nothing was sent. Says whether to try again.
pub(crate) fn connect_failed(x: &mut Exchange, error: &Error) -> bool {
    if shortage::is_own(error) {
        // Neither another address nor another instance helps, and none of them is to blame.
        shortage::tell(error);
        fail(x, Failure { code: Code::Overloaded, counts: false });
        return false;
    }
    if let Some(endpoint) = x.attempt.as_ref().and_then(|attempt| attempt.endpoint.as_ref())
        && endpoint.connect_failed(&x.addresses_tried)
    {
        // The same try at another address of the instance: nothing was sent, so it costs no retry.
        x.another_address = true;
        return true;
    }
    let timed_out = matches!(error.etype(), ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout);
    let code = if timed_out { Code::UpstreamTimeout } else { Code::UpstreamRefused };
    fail(x, Failure { code, counts: true });
    retries(x, RetryCause::Connect, true, None)
}

/// A try failed after the connection stood. `replayable`: nothing was answered and the body, if any, is
/// still at hand. Says whether to try again.
pub(crate) fn attempt_failed(x: &mut Exchange, error: &Error, answered: bool, replayable: bool) -> bool {
    if *error.etype() == RETRY_STATUS {
        return true;
    }
    if x.answered {
        // The upstream has done its part; what ended is the rest of a body that nobody wants.
        return false;
    }
    let fault = x.arrival.link.fault();
    // A deadline that passes while the client still sends is the client's, unless the upstream does not take
    // what was sent.
    let from_client = *error.esource() == ErrorSource::Downstream
        && match fault {
            Fault::Blocked => false,
            Fault::Deadline => !(x.received || x.upstream_blocks),
            _ => true,
        };
    if from_client || x.refusal.is_some() {
        return false;
    }
    if *error.esource() == ErrorSource::Upstream && (*error.etype() == REVOKED || was_not_processed(error)) {
        if let Some(attempt) = &mut x.attempt {
            attempt.sent = false;
        }
        idempotency::was_not_processed(x);
        fail(x, Failure { code: Code::UpstreamRefused, counts: true });
        return !answered && replayable && retries(x, RetryCause::Connect, true, None);
    }
    let (code, cause) = match error.etype() {
        _ if matches!(fault, Fault::Deadline | Fault::Blocked) => {
            (Code::UpstreamTimeout, RetryCause::Status(504))
        }
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => {
            (Code::UpstreamTimeout, RetryCause::Status(504))
        }
        kind if *kind == PING_TIMEDOUT => (Code::UpstreamTimeout, RetryCause::Status(504)),
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::InvalidH2 => {
            (Code::UpstreamInvalid, RetryCause::Status(502))
        }
        _ if *error.esource() == ErrorSource::Upstream => (Code::UpstreamRefused, RetryCause::Reset),
        _ => (Code::Internal, RetryCause::Reset),
    };
    fail(x, Failure { code, counts: code != Code::Internal });
    !answered && retries(x, cause, replayable, None)
}

/// Whether the other end of an HTTP/2 connection says that it has done nothing with the request: it refused
/// the stream, asked for HTTP/1.1, or left for good before the stream's number.
fn was_not_processed(error: &Error) -> bool {
    let Some(fault) = error.root_cause().downcast_ref::<h2::Error>() else { return false };
    let said = |reason| fault.is_remote() && fault.reason() == Some(reason);
    (fault.is_reset() && (said(h2::Reason::REFUSED_STREAM) || said(h2::Reason::HTTP_1_1_REQUIRED)))
        || (fault.is_go_away() && said(h2::Reason::NO_ERROR))
}

/// The upstream answered with this status. Says whether the route tries it again.
pub(crate) fn retries_status(
    x: &mut Exchange,
    status: u16,
    replayable: bool,
    wait: Option<Duration>,
) -> bool {
    if status < 500 || !retries(x, RetryCause::Status(status), replayable, wait) {
        return false;
    }
    x.upstream_status = None;
    true
}

fn fail(x: &mut Exchange, failure: Failure) {
    x.failure = Some(failure);
    x.decision = failure.code.word();
    if let (Target::Service(route), Some(attempt)) = (&x.target, &x.attempt)
        && let Some(endpoint) = &attempt.endpoint
        && failure.counts
    {
        route.upstream.judge(endpoint, Outcome::Failure, attempt.started.elapsed());
    }
}

/// Whether the breaker, which let the first try through, still does: others may have opened it meanwhile.
fn may_try_again(x: &Exchange) -> bool {
    x.attempts == 0 || x.leave.as_ref().is_none_or(BreakerLeave::stands)
}

/// Whether another try is made; `sluice_policy::retry` has the rules.
fn retries(x: &mut Exchange, cause: RetryCause, replayable: bool, retry_after: Option<Duration>) -> bool {
    let Target::Service(route) = &x.target else { return false };
    if !may_try_again(x) {
        return false;
    }
    let failed = Failed {
        method: x.arrival.method,
        tries: x.attempts,
        cause,
        sent: was_sent(x),
        keyed_part: idempotency::is_part(x),
        replayable,
        // What an answer's first byte has left: a try that could not get one would only cost its delay.
        left: x.deadline().map(|deadline| deadline.first_byte(clock::now()).unwrap_or_default()),
        retry_after,
    };
    let Some(delay) = route.upstream.decide_retry(&failed) else { return false };
    let route = Arc::clone(route);
    if failed.sent {
        idempotency::leaves_part(x);
    }
    route.upstream.meters.retried(match cause {
        RetryCause::Connect => "connect",
        RetryCause::Reset => "reset",
        RetryCause::Status(504) => "timeout",
        RetryCause::Status(_) => "status",
    });
    x.retry_after = delay;
    true
}

/// The answer for a request that the upstream did not answer.
pub(crate) fn answer(x: &Exchange, failure: Failure) -> Answer {
    let is_worker = matches!(x.target, Target::Worker(_));
    let problem = match failure.code {
        Code::UpstreamRefused if is_worker && !was_sent(x) => worker_away(),
        Code::UpstreamRefused => {
            Problem::new(failure.code).detail("the upstream refused or broke the connection")
        }
        Code::UpstreamTimeout => Problem::new(failure.code).detail("the upstream did not answer in time"),
        Code::UpstreamInvalid => Problem::new(failure.code).detail("the upstream answered with invalid HTTP"),
        Code::Overloaded => {
            Problem::new(failure.code).detail("the edge can open no more connections").retry_after_s(1)
        }
        code => Problem::new(code),
    };
    Answer::problem(outcome(x, problem))
}

/// Whether any byte of the present try was sent.
pub(crate) fn was_sent(x: &Exchange) -> bool {
    x.attempt.as_ref().is_some_and(|attempt| attempt.sent)
}

/// Adds, for methods with effects, whether the upstream may have acted.
fn outcome(x: &Exchange, problem: Problem) -> Problem {
    let sent = Sent { present: was_sent(x), parted: idempotency::has_left_part(x) };
    ending::outcome(x.arrival.method, sent).into_iter().fold(problem, Problem::outcome)
}
