//! The end of a request: metrics, one line of the access log, its spans, and whoever looks on.

use std::cell::RefCell;
use std::time::Duration;

use http::HeaderMap;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource};
use serde_json::{Map, Value, json};
use sluice_policy::hedge::Verdict;
use sluice_policy::tap::Seen;
use sluice_policy::{redact, sample};
use sluice_wire::id::RequestId;

use crate::access_log::{Line, member};
use crate::clock;
use crate::ctx::{Exchange, Target};
use crate::fields::{Fields, List};
use crate::head::Refusal;
use crate::meters::Meters;
use crate::spans;
use crate::state::Shared;

/// Status of a request whose client left before an answer began, for log and metric only.
const CLIENT_LEFT: u16 = 499;
/// LIMIT: header fields that the tap names.
const FIELDS_MAX: usize = 64;

thread_local! {
    static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
}

/// Accounts for a request that Pingora ran.
pub(crate) fn finish(shared: &Shared, session: &Session, x: &Exchange, error: Option<&Error>) {
    let written =
        session.response_written().filter(|head| head.status.as_u16() == 101 || head.status.as_u16() >= 200);
    let failed = error.is_some_and(|error| *error.esource() != ErrorSource::Unset && x.refusal.is_none());
    ended(shared, x, &session.req_header().headers, written, failed);
}

/// Accounts for a request whose fields, and those of its answer, are at hand. `failed`: it came to no good end.
pub(crate) fn ended(
    shared: &Shared,
    x: &Exchange,
    asked: &HeaderMap,
    written: Option<&ResponseHeader>,
    failed: bool,
) {
    let status = written.map(|head| head.status.as_u16());
    count(shared, x, x.refused.or(status));
    Ending {
        asked: Some(asked),
        answered: written.map(|head| Answered::Map(&head.headers)),
        ..Ending::of(x, status, written.is_some() && failed)
    }
    .tell(shared);
}

/// Counts a request that was answered with `written`, or whose client left before. It ends at this moment.
pub(crate) fn count(shared: &Shared, x: &Exchange, written: Option<u16>) {
    clock::look();
    let ending = Ending::of(x, written, false);
    x.meters().answered(x.arrival.method, ending.status, ending.took.as_secs_f64());
    ending.count(&shared.meters);
}

/// Tells of a request that has ended: in the access log, to its trace and to who looks on. `cut_short`: its
/// answer did not come to its end.
pub(crate) fn line(shared: &Shared, x: &Exchange, written: Option<u16>, cut_short: bool) {
    Ending::of(x, written, cut_short).tell(shared);
}

/// The same, with the fields of both heads for who looks on.
pub(crate) fn told(
    shared: &Shared,
    x: &Exchange,
    written: Option<u16>,
    cut_short: bool,
    asked: &HeaderMap,
    answered: Option<&List<'_>>,
) {
    let answered = answered.map(Answered::List);
    Ending { asked: Some(asked), answered, ..Ending::of(x, written, cut_short) }.tell(shared);
}

/// How a request ended.
pub(crate) struct Ending<'a> {
    /// The request.
    pub(crate) x: &'a Exchange,
    /// The status the client got, 499 where it left first.
    pub(crate) status: u16,
    /// From its first byte to now.
    pub(crate) took: Duration,
    cut_short: bool,
    asked: Option<&'a HeaderMap>,
    answered: Option<Answered<'a>>,
}

/// The fields of an answer, as they are kept.
#[derive(Clone, Copy)]
enum Answered<'a> {
    Map(&'a HeaderMap),
    List(&'a List<'a>),
}

impl<'a> Ending<'a> {
    fn of(x: &'a Exchange, written: Option<u16>, cut_short: bool) -> Self {
        let (status, took) = (written.unwrap_or(CLIENT_LEFT), clock::instant() - x.arrival.started);
        Self { x, status, took, cut_short, asked: None, answered: None }
    }

    fn tell(&self, shared: &Shared) {
        let x = self.x;
        let (id, share) = (x.request_id.as_str(), x.generation.config.log.sample);
        if shared.access_log.is_on() && sample::keeps(id, self.status, self.cut_short, share) {
            self.log(shared);
        }
        if shared.tap.is_watched() {
            let (route, method) = (self.route(), Some(x.arrival.method));
            let seen = Seen { route, status: self.status, client: x.client, method };
            shared.tap.offer(&seen, || self.shown().to_string().into_bytes());
        }
        if x.is_recorded() {
            shared.spans.push(spans::count(self), || spans::of(self));
        }
    }

    fn count(&self, meters: &Meters) {
        let x = self.x;
        let stage = |meter: &prometheus::Histogram, took: Option<Duration>| {
            if let Some(took) = took {
                meter.observe(took.as_secs_f64());
            }
        };
        stage(&meters.head_seconds, Some(self.head()));
        stage(&meters.admit_seconds, x.admitted);
        stage(&meters.connect_seconds, self.connect());
        stage(&meters.upstream_seconds, x.first_byte);
        meters.spoken(self.protocol(), self.tls());
    }

    /// Whether its answer broke off.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.cut_short
    }

    /// Its header fields, where they are still at hand.
    pub(crate) fn asked(&self) -> Option<&'a HeaderMap> {
        self.asked
    }

    /// Name of its route: the service, the worker's role, or `edge`.
    pub(crate) fn route(&self) -> &str {
        match &self.x.target {
            Target::Service(route) => route.service.name.as_str(),
            Target::Worker(worker) => worker.role.as_str(),
            Target::Page => "edge",
        }
    }

    /// What decided its answer.
    pub(crate) fn decision(&self) -> &'static str {
        if self.cut_short && self.x.decision == "forwarded" { "cut_short" } else { self.x.decision }
    }

    /// The version of HTTP, or `ws` once it was upgraded.
    pub(crate) fn protocol(&self) -> &'static str {
        if self.status == 101 { "ws" } else { self.x.arrival.protocol.as_str() }
    }

    /// Version of TLS the client used.
    fn tls(&self) -> Option<&'static str> {
        self.x.arrival.conn.tls.as_ref().map(|tls| tls.version)
    }

    /// SPIFFE id in the certificate that the client showed.
    fn client_id(&self) -> Option<String> {
        let client = self.x.arrival.conn.tls.as_ref()?.client.as_ref()?;
        Some(client.spiffe.as_ref()?.to_string())
    }

    /// The instance that was asked last.
    pub(crate) fn upstream(&self) -> Option<&str> {
        let endpoint = self.x.attempt.as_ref()?.endpoint.as_ref()?;
        Some(endpoint.label.as_str())
    }

    fn user(&self) -> Option<&str> {
        self.x.identity.as_ref().map(|identity| identity.claims.sub.as_str())
    }

    fn head(&self) -> Duration {
        self.x.arrival.headed - self.x.arrival.started
    }

    /// Time to a new connection of the last try; `None` on one that stood already.
    fn connect(&self) -> Option<Duration> {
        self.x.attempt.as_ref()?.connected
    }

    fn log(&self, shared: &Shared) {
        let x = self.x;
        LINE.with_borrow_mut(|buffer| {
            let line = Line::start(buffer, clock::timestamp())
                .word(member!("request_id"), x.request_id.as_str())
                .word(member!("message"), "request")
                .word(member!("trace_id"), x.trace.id())
                .word(member!("method"), x.arrival.method.as_str())
                .text(member!("path"), &redact::path(&x.arrival.path))
                .text(member!("host"), &x.arrival.host)
                .number(member!("status"), u64::from(self.status))
                .text(member!("route"), self.route())
                .maybe_text(
                    member!("split_of"),
                    x.shape.split_of.as_ref().map(|asked| asked.service.name.as_str()),
                )
                .word(member!("decision"), self.decision())
                .address(member!("client"), x.client)
                .word(member!("protocol"), self.protocol())
                .maybe_text(member!("tls"), self.tls())
                .maybe_text(member!("client_id"), self.client_id().as_deref())
                .maybe_text(member!("user"), self.user())
                .maybe_text(member!("upstream"), self.upstream())
                .number(member!("attempts"), u64::from(x.attempts))
                .maybe_text(member!("hedge"), x.hedge.map(Verdict::as_str))
                .number(member!("bytes_in"), x.body_bytes)
                .number(member!("bytes_out"), x.answer_bytes)
                .number(member!("duration_us"), micros(self.took))
                .number(member!("head_us"), micros(self.head()))
                .maybe_number(member!("admit_us"), x.admitted.map(micros))
                .maybe_number(member!("connect_us"), self.connect().map(micros))
                .maybe_number(member!("upstream_us"), x.first_byte.map(micros));
            shared.access_log.push(line.end());
        });
    }

    /// The request as the tap shows it, without anything secret.
    fn shown(&self) -> Value {
        let x = self.x;
        json!({
            "time": clock::timestamp(),
            "request_id": x.request_id.as_str(),
            "trace_id": x.trace.id(),
            "client": x.client,
            "method": x.arrival.method.as_str(),
            "host": redact::target(&x.arrival.host, None),
            "route": self.route(),
            "path": redact::target(&x.arrival.path, x.arrival.query.as_deref()),
            "status": self.status,
            "decision": self.decision(),
            "user": self.user(),
            "upstream": self.upstream(),
            "attempts": x.attempts,
            "hedge": x.hedge.map(Verdict::as_str),
            "stages_us": {
                "head": micros(self.head()),
                "admit": x.admitted.map(micros),
                "connect": self.connect().map(micros),
                "first_byte": x.first_byte.map(micros),
                "total": micros(self.took),
            },
            "bytes_in": x.body_bytes,
            "bytes_out": x.answer_bytes,
            "protocol": self.protocol(),
            "tls": self.tls(),
            "client_id": self.client_id(),
            "request_headers": self.asked.map(shown_fields),
            "response_headers": self.answered.map(|answered| match answered {
                Answered::Map(fields) => shown_fields(fields),
                Answered::List(fields) => shown_fields(fields),
            }),
        })
    }
}

/// Names of fields with the values that may be shown; `null` for the others.
fn shown_fields(fields: &impl Fields) -> Value {
    let mut shown = Map::new();
    for (name, value) in fields.each() {
        if shown.len() == FIELDS_MAX {
            break;
        }
        let value = value.to_str().ok().and_then(|value| redact::field(name.as_str(), value));
        let name = redact::target(name.as_str(), None);
        // Of several the first is shown.
        shown.entry(name).or_insert(value.map_or(Value::Null, |value| Value::String(value.into_owned())));
    }
    Value::Object(shown)
}

/// Accounts for a head that was refused before Pingora saw it.
pub(crate) fn refused(shared: &Shared, client: std::net::IpAddr, id: &RequestId, refusal: &Refusal) {
    shared.meters.framing_refused(refusal.reason);
    let took = refusal.started.elapsed();
    let status = refusal.code.status();
    let client = client.to_canonical();
    shared.generation.load().pages.refused(status, took.as_secs_f64());
    if shared.tap.is_watched() {
        shared.tap.offer(&Seen { route: "edge", status, client, method: None }, || {
            let line = json!({
                "time": clock::timestamp(),
                "request_id": id.as_str(),
                "client": client,
                "route": "edge",
                "status": status,
                "decision": refusal.reason,
                "stages_us": { "total": micros(took) },
            });
            line.to_string().into_bytes()
        });
    }
    if !shared.access_log.is_on() {
        return;
    }
    LINE.with_borrow_mut(|buffer| {
        let line = Line::start(buffer, clock::timestamp())
            .word(member!("request_id"), id.as_str())
            .word(member!("message"), "request refused")
            .number(member!("status"), u64::from(status))
            .word(member!("route"), "edge")
            .word(member!("decision"), refusal.reason)
            .address(member!("client"), client)
            .number(member!("duration_us"), micros(took));
        shared.access_log.push(line.end());
    });
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
