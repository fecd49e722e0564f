//! What the edge knows about one request while it runs.
//!
//! Everything that must be given back (breaker leave, in-flight counts) is a guard in here: when the
//! client leaves and Pingora drops the request, the guards drop with it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::upstreams::peer::HttpPeer;
use sluice_http::client_ip;
use sluice_policy::balance::Flight;
use sluice_policy::deadline::Deadline;
use sluice_policy::ending::Failure;
use sluice_policy::event_stream::Events;
use sluice_policy::framing::BodyFraming;
use sluice_policy::hedge::Verdict;
use sluice_policy::method::Method;
use sluice_policy::time::Nanos;
use sluice_schema::Timeouts;
use sluice_wire::id::RequestId;
use tokio::time::Instant;

use crate::clock;
use crate::conn::{Conn, Protocol, is_within};
use crate::endpoint::Endpoint;
use crate::generation::{Generation, ServiceRoute, WorkerRoute};
use crate::idempotency::Held;
use crate::ids::{self, Trace};
use crate::jwt_cache::Verified;
use crate::lanes::Pass;
use crate::link::Link;
use crate::meters::{InFlight, RouteMeters};
use crate::respond::Answer;
use crate::shape::Shape;
use crate::standing::Place;
use crate::upstream::BreakerLeave;

/// LIMIT: how long a client may go on sending a body after the end of the answer to it.
const EARLY_ANSWER_MAX: Duration = Duration::from_secs(1);

/// A request whose head is complete, well framed and in its one form.
pub(crate) struct Arrival {
    /// The connection it came on.
    pub(crate) conn: Arc<Conn>,
    /// When its first byte came.
    pub(crate) started: Instant,
    /// When its head was whole.
    pub(crate) headed: Instant,
    /// The same, as decisions see it.
    pub(crate) arrived: Nanos,
    /// Its method.
    pub(crate) method: Method,
    /// Its normalised path.
    pub(crate) path: String,
    /// Its query, as sent.
    pub(crate) query: Option<String>,
    /// Host name it asks for, without port.
    pub(crate) host: String,
    /// The version of HTTP it came in.
    pub(crate) protocol: Protocol,
    /// How its body is framed.
    pub(crate) body: BodyFraming,
    /// It asks for a WebSocket.
    pub(crate) websocket: bool,
    /// The stream below it.
    pub(crate) link: Arc<Link>,
    /// Number of the route that takes it, where that was looked up before its admission.
    pub(crate) route: Option<usize>,
}

/// Who answers, resolved.
pub(crate) enum Target {
    /// An upstream service.
    Service(Arc<ServiceRoute>),
    /// A worker.
    Worker(Arc<WorkerRoute>),
    /// The edge itself.
    Page,
}

/// One try at an upstream.
pub(crate) struct Attempt {
    /// The instance, for services.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// When it began.
    pub(crate) started: Instant,
    /// Whether any byte of the request was written to the upstream.
    pub(crate) sent: bool,
    /// Time to a new connection; `None` on one that stood already, or before there is one.
    pub(crate) connected: Option<Duration>,
    /// When the upstream had done its part.
    pub(crate) ended: Option<Instant>,
    /// The upstream's status.
    pub(crate) status: Option<u16>,
    /// Our span that makes it; the request's own where the trace is not recorded.
    pub(crate) span: u64,
    flight: Option<Flight>,
}

impl Attempt {
    /// A try at an instance of a service.
    pub(crate) fn at(endpoint: Arc<Endpoint>, flight: Flight) -> Self {
        Self { endpoint: Some(endpoint), flight: Some(flight), ..Self::at_worker() }
    }

    /// The upstream has done its part: it is no longer busy with this.
    pub(crate) fn is_over(&mut self) {
        self.flight = None;
        self.ended.get_or_insert_with(clock::instant);
    }

    /// A try at a worker.
    pub(crate) fn at_worker() -> Self {
        Self {
            endpoint: None,
            started: clock::instant(),
            sent: false,
            connected: None,
            ended: None,
            status: None,
            span: 0,
            flight: None,
        }
    }
}

/// One request.
pub(crate) struct Exchange {
    /// As it arrived.
    pub(crate) arrival: Box<Arrival>,
    /// The configuration it runs under.
    pub(crate) generation: Arc<Generation>,
    /// Its id.
    pub(crate) request_id: RequestId,
    /// Its trace.
    pub(crate) trace: Trace,
    /// The client, behind trusted proxies the one they name.
    pub(crate) client: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub(crate) peer_trusted: bool,
    /// Who answers.
    pub(crate) target: Target,
    /// Path to forward; `None` where it is the whole path.
    pub(crate) forward_path: Option<String>,
    /// The verified caller.
    pub(crate) identity: Option<Arc<Verified>>,
    /// Whether credential fields reach the upstream.
    pub(crate) keeps_credentials: bool,
    /// Whether a worker judges its credential in the edge's place: one that is none counts here all the same.
    pub(crate) judged_behind: bool,
    /// Header fields about the rate limit, for every answer.
    pub(crate) limit_headers: Vec<(HeaderName, HeaderValue)>,
    /// Request body at most, bytes.
    pub(crate) body_bytes_max: u64,
    /// Request body bytes so far.
    pub(crate) body_bytes: u64,
    /// Whether the whole request has come.
    pub(crate) received: bool,
    /// Whether the upstream had not taken all of the body when the try ended.
    pub(crate) upstream_blocks: bool,
    /// Answer body bytes so far.
    pub(crate) answer_bytes: u64,
    /// What the balancer places it by, where it does.
    pub(crate) affinity: u64,
    /// Its place at the upstream.
    pub(crate) pass: Option<Pass>,
    /// The idempotency key that it holds.
    pub(crate) key: Option<Box<Held>>,
    /// Leave of the breaker.
    pub(crate) leave: Option<BreakerLeave>,
    /// The present try.
    pub(crate) attempt: Option<Attempt>,
    /// The tries before it, where the trace is recorded.
    pub(crate) past: Vec<(Attempt, Option<Failure>)>,
    /// How many tries there were.
    pub(crate) attempts: u32,
    /// Ids of the instances tried.
    pub(crate) tried: Vec<u32>,
    /// Addresses tried of instances that have several.
    pub(crate) addresses_tried: Vec<SocketAddr>,
    /// Whether the present try goes on at another address of its instance.
    pub(crate) another_address: bool,
    /// Where its next try goes, where that was settled already.
    pub(crate) chosen: Option<Box<HttpPeer>>,
    /// What became of its second try beside a silent one, where there was one.
    pub(crate) hedge: Option<Verdict>,
    /// How long to wait before the next try.
    pub(crate) retry_after: Duration,
    /// Whether it is a gRPC call over HTTP/2.
    pub(crate) call: bool,
    /// How long its caller is willing to wait, where it said so.
    pub(crate) patience: Option<Duration>,
    /// Whether the answer is a stream without end.
    pub(crate) streaming: bool,
    /// The symbols it names, where its answer goes on for long.
    pub(crate) symbols: Vec<HeaderValue>,
    /// Its place among the answers that go on for long.
    pub(crate) standing: Option<Place>,
    /// Where its events end, where it consists of events.
    pub(crate) events: Option<Events>,
    /// Time from the start of the last try to the upstream's head.
    pub(crate) first_byte: Option<Duration>,
    /// The same from the end of the request's body, which the client takes its time for; `None` where the answer
    /// came first.
    pub(crate) worked: Option<Duration>,
    /// When the whole of a request with a body had come.
    pub(crate) received_at: Option<Instant>,
    /// Time in admission.
    pub(crate) admitted: Option<Duration>,
    /// The upstream's status.
    pub(crate) upstream_status: Option<u16>,
    /// Why no answer came from the upstream.
    pub(crate) failure: Option<Failure>,
    /// An answer decided in a hook that cannot send it.
    pub(crate) refusal: Option<Answer>,
    /// The status of the edge's refusal of a gRPC call, which goes out as 200.
    pub(crate) refused: Option<u16>,
    /// One word for the access log: what decided the answer.
    pub(crate) decision: &'static str,
    /// Whether the whole answer is under way.
    pub(crate) answered: bool,
    /// Interim answers of the upstream so far.
    pub(crate) interim: u8,
    /// What its shaping has come to.
    pub(crate) shape: Shape,
    in_flight: Option<InFlight>,
}

impl Exchange {
    /// A request at the start of admission, with the head that Pingora has read.
    pub(crate) fn new(arrival: Box<Arrival>, generation: Arc<Generation>, headers: &HeaderMap) -> Self {
        let trusted = &generation.config.edge.trusted_proxies;
        let peer = arrival.conn.peer.ip().to_canonical();
        Self {
            client: client_ip(peer, headers, trusted),
            peer_trusted: is_within(peer, trusted),
            request_id: ids::request_id(headers),
            trace: Trace::of(headers, generation.config.otlp.endpoint.is_some()),
            arrival,
            generation,
            target: Target::Page,
            forward_path: None,
            identity: None,
            keeps_credentials: false,
            judged_behind: false,
            limit_headers: Vec::new(),
            body_bytes_max: 0,
            body_bytes: 0,
            received: false,
            upstream_blocks: false,
            answer_bytes: 0,
            affinity: 0,
            pass: None,
            key: None,
            leave: None,
            attempt: None,
            past: Vec::new(),
            attempts: 0,
            tried: Vec::new(),
            addresses_tried: Vec::new(),
            another_address: false,
            chosen: None,
            hedge: None,
            retry_after: Duration::ZERO,
            call: false,
            patience: None,
            streaming: false,
            symbols: Vec::new(),
            standing: None,
            events: None,
            first_byte: None,
            worked: None,
            received_at: None,
            admitted: None,
            upstream_status: None,
            failure: None,
            refusal: None,
            refused: None,
            decision: "forwarded",
            answered: false,
            interim: 0,
            shape: Shape::default(),
            in_flight: None,
        }
    }

    /// The metrics of its route.
    pub(crate) fn meters(&self) -> &Arc<RouteMeters> {
        match &self.target {
            Target::Service(route) => &route.upstream.meters,
            Target::Worker(worker) => &worker.meters,
            Target::Page => &self.generation.pages,
        }
    }

    /// Sets who answers and counts it there as under way.
    pub(crate) fn enter(&mut self, target: Target) {
        self.target = target;
        self.in_flight = Some(self.meters().enter());
    }

    /// Whether its spans are exported.
    pub(crate) fn is_recorded(&self) -> bool {
        self.trace.is_sampled() && self.generation.config.otlp.endpoint.is_some()
    }

    /// A try begins.
    pub(crate) fn begin(&mut self, mut attempt: Attempt) {
        attempt.span = self.next_span();
        if let Some(earlier) = self.attempt.replace(attempt) {
            self.set_aside(earlier, self.failure);
        }
    }

    /// A try is over that is not the answer.
    pub(crate) fn set_aside(&mut self, mut attempt: Attempt, failure: Option<Failure>) {
        attempt.is_over();
        if self.is_recorded() {
            self.past.push((attempt, failure));
        }
    }

    /// The span of its next try.
    pub(crate) fn next_span(&self) -> u64 {
        if self.is_recorded() { ids::span_id_of_ours() } else { self.trace.span() }
    }

    /// The deadlines of its route.
    pub(crate) fn timeouts(&self) -> Option<&Timeouts> {
        match &self.target {
            Target::Service(route) => Some(&route.service.timeouts),
            Target::Worker(worker) => Some(&worker.timeouts),
            Target::Page => None,
        }
    }

    /// Its deadlines, counted from its arrival; without a total once the answer is a stream. What the caller of
    /// a method is willing to wait counts to the end, what a reader of events is to the head.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let deadline = Deadline::new(self.arrival.arrived, self.timeouts()?);
        let deadline = if self.streaming { deadline.endless() } else { deadline };
        let patience = self.patience.filter(|_| self.call || !self.streaming);
        Some(patience.map_or(deadline, |most| deadline.within(most)))
    }

    /// Time it has left; zero when it is over, `None` where it has no end.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.left_at(clock::now())
    }

    fn left_at(&self, now: Nanos) -> Option<Duration> {
        self.deadline()?.total(now).unwrap_or(Some(Duration::ZERO))
    }

    /// Lets the stream end the request when its total time is over.
    pub(crate) fn await_body_of_request(&self) {
        let now = clock::now();
        self.arrival.link.set_deadline(self.left_at(now).map(|left| now.plus(left)));
    }

    /// Expects the upstream's head: `first_byte` from the arrival, or from the end of a request body that
    /// took its time, within the total.
    pub(crate) fn await_head(&self) {
        let (Some(timeouts), Some(deadline)) = (self.timeouts(), self.deadline()) else { return };
        let now = clock::now();
        let within = match self.arrival.body {
            BodyFraming::None => deadline.first_byte(now).unwrap_or_default(),
            _ => self.left_at(now).map_or(timeouts.first_byte, |left| left.min(timeouts.first_byte)),
        };
        self.arrival.link.set_deadline(Some(now.plus(within)));
    }

    /// Expects the next piece of the answer within `idle` and the total.
    pub(crate) fn await_answer(&self) {
        let Some(timeouts) = self.timeouts() else { return };
        let now = clock::now();
        let left = self.left_at(now);
        let within = left.map_or(timeouts.idle, |left| left.min(timeouts.idle));
        self.arrival.link.set_deadline(Some(now.plus(within)));
        self.arrival.link.set_end(left.map(|left| now.plus(left)));
    }

    /// The whole request has come.
    pub(crate) fn note_received(&mut self) {
        if !std::mem::replace(&mut self.received, true) && self.arrival.body != BodyFraming::None {
            self.received_at = Some(clock::instant());
        }
    }

    /// The whole answer is under way. A client that still sends its body has been told that the connection
    /// closes; it is given a moment to see that.
    pub(crate) fn end_answer(&mut self) {
        self.answered = true;
        if !self.received {
            self.arrival.link.set_deadline(Some(clock::now().plus(EARLY_ANSWER_MAX)));
        }
    }

    /// Body bytes the client has announced; `None` for a chunked body.
    pub(crate) fn announced(&self) -> Option<u64> {
        match self.arrival.body {
            BodyFraming::None => Some(0),
            BodyFraming::Length(bytes) => Some(bytes),
            BodyFraming::Chunked => None,
        }
    }
}

/// Pingora's per-request context.
#[derive(Default)]
pub(crate) struct Ctx {
    /// Set before any hook runs.
    pub(crate) exchange: Option<Box<Exchange>>,
}
