//! A second instance beside a silent first one: two tries of one read, of which the first good head counts.
//!
//! Both are futures that know nothing of the client, beside the wait for the client and the deadline. Whoever is
//! given up is dropped with its connection. The head stays in the buffer of its connection: what follows is the
//! same as with one try. `sluice_policy::hedge` decides.

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::ACCEPT;
use pingora::{Error, ErrorType, Result};
use sluice_policy::breaker::Outcome;
use sluice_policy::ending::Failure;
use sluice_policy::hedge::{Ask, Came, Next, Race, Try, Verdict, Watch, wants_stream};
use sluice_schema::{Balance, Hedge};
use sluice_wire::code::Code;
use tokio::time::Instant;

use super::client::Client;
use super::head::{invalid, read_answer};
use super::pool::{Place, Pool, Upstream};
use super::pump::{HEAD_BYTES, from_client, from_upstream};
use super::{Call, Failed, last, write_head};
use crate::ctx::{Attempt, Exchange, Target};
use crate::generation::ServiceRoute;
use crate::peer::{Chosen, attempt_failed, connect_failed};
use crate::state::Shared;
use crate::{clock, kill, shortage};

/// Room for most heads.
const REQUEST_ROOM: usize = 1 << 10;

/// A try that is watched.
pub(super) struct Watched {
    route: Arc<ServiceRoute>,
    /// A second one is made after this time of silence, if ever.
    after: Option<Duration>,
}

/// A connection with a head to be read.
struct Answered {
    upstream: Upstream,
    /// Time to the connection, where it is new.
    connected: Option<Duration>,
    status: u16,
}

/// Why there is none.
enum Broken {
    /// No connection.
    Unconnected(Box<Error>),
    /// The connection broke, or said what is no head.
    Later(Box<Error>),
}

type Heard = Result<Answered, Broken>;

/// How the present try is watched; `None`: it is made as any other.
pub(super) fn watched(x: &Exchange, fields: &HeaderMap) -> Option<Watched> {
    let Target::Service(route) = &x.target else { return None };
    let hedge = route.service.retry.hedge;
    if hedge == Hedge::Off {
        return None;
    }
    let ask = Ask {
        method: x.arrival.method,
        has_body: x.announced() != Some(0),
        wants_stream: fields.get_all(ACCEPT).iter().any(|value| wants_stream(value.as_bytes())),
        is_bound: route.service.balance == Balance::Sticky,
        tries: x.attempts,
    };
    let after = match route.upstream.watch(hedge, ask) {
        Watch::Not => return None,
        Watch::Measured => None,
        Watch::After(time) => Some(time),
    };
    Some(Watched { route: Arc::clone(route), after })
}

/// Makes the first try, and one beside it where it is silent. Gives the connection whose head counts.
pub(super) async fn race<C: Client>(
    call: &mut Call<'_, C>,
    chosen: &Chosen,
    watched: Watched,
) -> Result<Upstream, Failed> {
    let Call { shared, pool, client, x, fields, .. } = call;
    let nowhere = || last(Error::explain(ErrorType::InternalError, "an address without a path"));
    let place = Place::of(chosen.address()).ok_or_else(nowhere)?;
    let mut request = Vec::with_capacity(REQUEST_ROOM);
    write_head(shared, x, fields, &mut request).map_err(last)?;
    x.note_received();
    x.await_head();
    let mut first = pin!(ask(pool, place, chosen.connect, request));
    let mut second: Option<Pin<Box<dyn Future<Output = Heard> + Send + '_>>> = None;
    let mut silence = pin!(silence(watched.after));
    let mut was_silent = false;
    let mut tries = Tries::new(x, watched.route);
    let ended = loop {
        let (one, heard) = tokio::select! {
            biased;
            left = poll_fn(|cx| client.poll_left(cx)) => break Err(tries.failed(Broken::Later(from_client(left)))),
            heard = &mut first, if tries.race.is_running(Try::First) => (Try::First, heard),
            heard = running(&mut second), if tries.race.is_running(Try::Second) => (Try::Second, heard),
            () = &mut silence, if !was_silent => {
                was_silent = true;
                if let Some((place, within, request)) = tries.begin_second(shared, fields) {
                    second = Some(Box::pin(ask(pool, place, within, request)));
                }
                continue;
            }
        };
        if let Some(ended) = tries.came(one, heard) {
            break ended;
        }
    };
    tries.end();
    ended
}

async fn silence(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => pending().await,
    }
}

async fn running(second: &mut Option<Pin<Box<dyn Future<Output = Heard> + Send + '_>>>) -> Heard {
    match second {
        Some(second) => second.await,
        None => pending().await,
    }
}

/// Asks an instance until a head of its answer is whole.
async fn ask(pool: &Pool, place: Place, within: Duration, request: Vec<u8>) -> Heard {
    let begun = Instant::now();
    let (mut upstream, connected) = if let Some(upstream) = pool.take(&place) {
        (upstream, None)
    } else {
        let upstream = Upstream::connect(place, within).await.map_err(Broken::Unconnected)?;
        (upstream, Some(begun.elapsed()))
    };
    let status = status(&mut upstream, &request).await.map_err(Broken::Later)?;
    Ok(Answered { upstream, connected, status })
}

/// The status of the head with which a request is answered; the head is left to be read.
async fn status(upstream: &mut Upstream, request: &[u8]) -> Result<u16> {
    let mut sent = 0;
    while sent < request.len() {
        match poll_fn(|cx| upstream.poll_write(cx, &request[sent..])).await.map_err(from_upstream)? {
            0 => return Err(from_upstream(io::ErrorKind::WriteZero.into())),
            count => sent += count,
        }
    }
    loop {
        if let Some(came) = read_answer(upstream.inbound.filled())? {
            return Ok(came.head.status.as_u16());
        }
        if upstream.inbound.filled().len() >= HEAD_BYTES {
            return Err(invalid());
        }
        if poll_fn(|cx| upstream.poll_fill(cx)).await.map_err(from_upstream)? == 0 {
            return Err(from_upstream(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// The tries of one request. One of them is the request's present one.
struct Tries<'a> {
    x: &'a mut Exchange,
    route: Arc<ServiceRoute>,
    race: Race,
    present: Try,
    /// The other one, while it runs.
    aside: Option<Attempt>,
    /// Where the first one went, where its instance has several addresses.
    address: Option<SocketAddr>,
}

impl<'a> Tries<'a> {
    fn new(x: &'a mut Exchange, route: Arc<ServiceRoute>) -> Self {
        let address = x.addresses_tried.last().copied();
        Self { x, route, race: Race::default(), present: Try::First, aside: None, address }
    }

    /// Where a second try goes, how long its connection may take, and what it sends; `None` where there is none.
    fn begin_second(&mut self, shared: &Shared, fields: &HeaderMap) -> Option<(Place, Duration, Vec<u8>)> {
        let Self { x, route, .. } = self;
        let (deadline, now) = (x.deadline()?, clock::now());
        let within = deadline.connect(now)?;
        if kill::stops(shared, x, fields) {
            return None;
        }
        let (endpoint, flight) = route.upstream.pick(x.affinity, &x.tried)?;
        let id = endpoint.instance.id;
        if x.tried.contains(&id) {
            return None;
        }
        let reached = endpoint.reach(route, &mut x.addresses_tried).ok()?;
        let place = Place::of(reached.address())?;
        if !route.upstream.decide_hedge(x.attempts, deadline.first_byte(now).unwrap_or_default()) {
            return None;
        }
        let mut second = Attempt::at(endpoint, flight);
        second.span = x.next_span();
        // A head is written for the exchange's present try.
        let first = x.attempt.replace(second);
        let mut request = Vec::with_capacity(REQUEST_ROOM);
        let written = write_head(shared, x, fields, &mut request);
        let second = std::mem::replace(&mut x.attempt, first);
        written.ok()?;
        x.attempts += 1;
        x.tried.push(id);
        self.aside = second;
        self.race.begin_second();
        Some((place, within, request))
    }

    /// Takes what a try came to; what the request comes to, where that is known now.
    fn came(&mut self, one: Try, heard: Heard) -> Option<Result<Upstream, Failed>> {
        self.note(one, &heard);
        let came = heard.as_ref().map_or(Came::Failure, |answered| Came::Head(answered.status));
        match self.race.came(one, came) {
            Next::Waits => {
                self.give_up(one, &heard);
                None
            }
            Next::Ends => {
                self.make_present(one);
                Some(match heard {
                    Ok(answered) => Ok(answered.upstream),
                    Err(broken) => Err(self.failed(broken)),
                })
            }
        }
    }

    /// Notes what is known of a try's connection, and how long a first one took.
    fn note(&mut self, one: Try, heard: &Heard) {
        let attempt = if one == self.present { &mut self.x.attempt } else { &mut self.aside };
        let Some(attempt) = attempt else { return };
        attempt.sent = !matches!(heard, Err(Broken::Unconnected(_)));
        if let Ok(answered) = heard {
            attempt.connected = answered.connected;
            if one == Try::First {
                let took = attempt.started.elapsed();
                self.note_head(took);
            }
        }
    }

    fn note_head(&self, took: Duration) {
        if self.route.service.retry.hedge == Hedge::P95 {
            self.route.upstream.note_head(took);
        }
    }

    fn make_present(&mut self, one: Try) {
        if self.present != one {
            std::mem::swap(&mut self.x.attempt, &mut self.aside);
            self.present = one;
        }
    }

    /// A try has failed while the other one runs: its instance hears of it as of any failure.
    fn give_up(&mut self, one: Try, heard: &Heard) {
        self.make_present(if one == Try::First { Try::Second } else { Try::First });
        let Some(mut attempt) = self.aside.take() else { return };
        let (outcome, failure) = match heard {
            Ok(answered) => {
                attempt.status = Some(answered.status);
                (Some(Outcome::of_status(answered.status)), None)
            }
            Err(Broken::Unconnected(error) | Broken::Later(error)) if shortage::is_own(error) => {
                shortage::tell(error);
                (None, Some(Failure { code: Code::Overloaded, counts: false }))
            }
            Err(Broken::Unconnected(error) | Broken::Later(error)) => {
                let code = match error.etype() {
                    ErrorType::ConnectTimedout => Code::UpstreamTimeout,
                    ErrorType::InvalidHTTPHeader => Code::UpstreamInvalid,
                    _ => Code::UpstreamRefused,
                };
                (Some(Outcome::Failure), Some(Failure { code, counts: true }))
            }
        };
        if let (Some(endpoint), Some(outcome)) = (&attempt.endpoint, outcome) {
            self.route.upstream.judge(endpoint, outcome, attempt.started.elapsed());
            let address =
                if one == Try::First { self.address } else { self.x.addresses_tried.last().copied() };
            if matches!(heard, Err(Broken::Unconnected(_))) {
                let _others_are_not_tried = endpoint.connect_failed(address.as_slice());
            }
        }
        self.x.set_aside(attempt, failure);
    }

    /// The present try has failed, and no other one runs.
    fn failed(&mut self, broken: Broken) -> Failed {
        match broken {
            Broken::Unconnected(error) => Failed { again: connect_failed(self.x, &error), error },
            Broken::Later(error) => Failed { again: attempt_failed(self.x, &error, false, true), error },
        }
    }

    /// Gives the other try back, where it still runs, and tells what became of the second.
    fn end(mut self) {
        let Some(verdict) = self.race.verdict() else { return };
        self.x.hedge = Some(verdict);
        self.route.upstream.meters.hedged(verdict.as_str());
        let other = self.aside.take();
        let overtaken = other.as_ref().filter(|_| self.present == Try::Second);
        let unanswered =
            self.x.attempt.as_ref().filter(|_| self.present == Try::First && verdict == Verdict::Unanswered);
        if let Some(first) = overtaken.or(unanswered) {
            self.note_head(first.started.elapsed());
        }
        if let Some((first, endpoint)) = overtaken.and_then(|first| Some((first, first.endpoint.as_ref()?))) {
            // For the balancer it took so long at least; its ejection hears nothing.
            endpoint.instance.observe(first.started.elapsed(), clock::now());
        }
        if let Some(other) = other {
            self.x.set_aside(other, None);
        }
    }
}
