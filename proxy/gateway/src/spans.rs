//! What a request did, as spans of its trace.
//!
//! A request whose trace is sampled leaves one server span, and one client span for each try at an upstream.
//! They are put into one bounded list under a short lock; a task takes them from there ([`crate::otlp`]), so
//! no edge thread ever waits for a collector, and none while another's spans are made. LIMIT: [`QUEUE_MAX`] spans
//! wait; more are dropped and counted.
//! Unsampled requests, and all of them while no collector is configured, cost one comparison.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::IntCounter;
use sluice_policy::ending::Failure;
use sluice_policy::redact;
use sluice_schema::Scheme;
use tokio::time::Instant;

use crate::account::Ending;
use crate::ctx::{Attempt, Target};
use crate::headers::trace_state;
use crate::ids::span_text;

/// LIMIT: spans that wait for the exporter.
pub(crate) const QUEUE_MAX: usize = 8_192;

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// We were called.
    Server,
    /// We called.
    Client,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

/// One span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Trace, 32 hex digits.
    pub(crate) trace_id: String,
    /// Itself, 16 hex digits.
    pub(crate) own_id: String,
    /// The span it belongs to; `None` for the first of a trace.
    pub(crate) parent_id: Option<String>,
    /// What tracing systems keep beside the trace.
    pub(crate) state: Option<String>,
    /// Server or client.
    pub(crate) kind: Kind,
    /// What it did: method and route.
    pub(crate) name: String,
    /// Start and end, unix nanoseconds.
    pub(crate) from_to_ns: (u64, u64),
    /// What it was about, by the names of the semantic conventions.
    pub(crate) attributes: Vec<(&'static str, Attribute)>,
    /// Whether it failed.
    pub(crate) failed: bool,
}

/// The spans that wait.
pub(crate) struct Spans {
    waiting: Mutex<VecDeque<Span>>,
    dropped: IntCounter,
}

impl Spans {
    /// Nothing waits.
    pub(crate) fn new(dropped: IntCounter) -> Self {
        Self { waiting: Mutex::default(), dropped }
    }

    /// Takes the spans of one request; they are made only where there is room.
    ///
    /// `count` is how many they are.
    pub(crate) fn push(&self, count: usize, spans: impl FnOnce() -> Vec<Span>) {
        let has_room = |waiting: &VecDeque<Span>| waiting.len() + count <= QUEUE_MAX;
        if has_room(&self.waiting()) {
            let spans = spans();
            let mut waiting = self.waiting();
            if has_room(&waiting) {
                waiting.extend(spans);
                return;
            }
        }
        self.dropped.inc_by(count as u64);
    }

    /// Up to `count` of those that wait, oldest first.
    pub(crate) fn take(&self, count: usize) -> Vec<Span> {
        let mut waiting = self.waiting();
        let count = count.min(waiting.len());
        waiting.drain(..count).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many spans [`of`] makes.
pub(crate) fn count(ending: &Ending<'_>) -> usize {
    1 + ending.x.past.len() + ending.x.attempt.iter().len()
}

/// The spans of a request that has ended.
pub(crate) fn of(ending: &Ending<'_>) -> Vec<Span> {
    let clock = Clock { wall: SystemTime::now(), now: Instant::now() };
    let last = ending.x.attempt.iter().map(|attempt| (attempt, ending.x.failure));
    let past = ending.x.past.iter().map(|(attempt, failure)| (attempt, *failure));
    let mut attempts: Vec<_> = past.chain(last).collect();
    // Of two at once the one that began later may have ended sooner.
    attempts.sort_by_key(|(attempt, _)| attempt.started);
    let attempts = attempts.into_iter().enumerate();
    let attempts =
        attempts.map(|(number, (attempt, failure))| client(ending, &clock, number, attempt, failure));
    std::iter::once(server(ending, &clock)).chain(attempts).collect()
}

/// Two readings of now, to tell wall time of what was measured monotonically.
struct Clock {
    wall: SystemTime,
    now: Instant,
}

impl Clock {
    fn unix_ns(&self, at: Instant) -> u64 {
        let wall = self.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let since = wall.saturating_sub(self.now.saturating_duration_since(at));
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn text(name: &'static str, value: impl Into<String>) -> (&'static str, Attribute) {
    (name, Attribute::Text(value.into()))
}

fn server(ending: &Ending<'_>, clock: &Clock) -> Span {
    let x = ending.x;
    let route = match &x.target {
        Target::Service(route) => route.service.prefix.as_str(),
        Target::Worker(_) | Target::Page => ending.route(),
    };
    let method = x.arrival.method.as_str();
    let mut attributes = vec![
        text("http.request.method", method),
        text("url.scheme", if x.arrival.conn.tls.is_some() { "https" } else { "http" }),
        text("url.path", redact::target(&x.arrival.path, None)),
        text("http.route", route),
        text("server.address", redact::target(&x.arrival.host, None)),
        text("client.address", x.client.to_string()),
        text("network.protocol.name", ending.protocol()),
        ("http.response.status_code", Attribute::Number(i64::from(ending.status))),
        text("sluice.request_id", x.request_id.as_str()),
        text("sluice.route", ending.route()),
        text("sluice.decision", ending.decision()),
    ];
    let failed = ending.status >= 500 || ending.is_cut_short();
    if failed {
        attributes.push(text("error.type", ending.decision()));
    }
    Span {
        trace_id: x.trace.id().to_owned(),
        own_id: span_text(x.trace.span()),
        parent_id: x.trace.parent().map(str::to_owned),
        state: x.trace.parent().and_then(|_| trace_state(ending.asked()?)),
        kind: Kind::Server,
        name: format!("{method} {route}"),
        from_to_ns: (clock.unix_ns(x.arrival.started), clock.unix_ns(clock.now)),
        attributes,
        failed,
    }
}

fn client(
    ending: &Ending<'_>,
    clock: &Clock,
    number: usize,
    attempt: &Attempt,
    failure: Option<Failure>,
) -> Span {
    let x = ending.x;
    let method = x.arrival.method.as_str();
    let mut attributes = vec![text("http.request.method", method)];
    match attempt.endpoint.as_ref().map(|endpoint| &endpoint.instance.url) {
        Some(url) if url.scheme == Scheme::Unix => attributes.push(text("server.address", url.path.as_str())),
        Some(url) => {
            attributes.push(text("server.address", url.host.as_str()));
            attributes.push(("server.port", Attribute::Number(i64::from(url.port))));
        }
        None => attributes.push(text("server.address", ending.route())),
    }
    if let Some(status) = attempt.status {
        attributes.push(("http.response.status_code", Attribute::Number(i64::from(status))));
    }
    if number > 0 {
        attributes.push(("http.request.resend_count", Attribute::Number(number as i64)));
    }
    let failure = failure.filter(|_| attempt.status.is_none());
    if let Some(failure) = failure {
        attributes.push(text("error.type", failure.code.word()));
    }
    Span {
        trace_id: x.trace.id().to_owned(),
        own_id: span_text(attempt.span),
        parent_id: Some(span_text(x.trace.span())),
        state: None,
        kind: Kind::Client,
        name: method.to_owned(),
        from_to_ns: (clock.unix_ns(attempt.started), clock.unix_ns(attempt.ended.unwrap_or(clock.now))),
        attributes,
        failed: failure.is_some() || attempt.status.is_some_and(|status| status >= 400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_and_keeps_its_order() {
        let dropped = IntCounter::new("dropped", "test").unwrap();
        let spans = Spans::new(dropped.clone());
        let span = |number: usize| Span {
            trace_id: String::new(),
            own_id: number.to_string(),
            parent_id: None,
            state: None,
            kind: Kind::Server,
            name: String::new(),
            from_to_ns: (0, 0),
            attributes: Vec::new(),
            failed: false,
        };
        for number in 0..QUEUE_MAX + 3 {
            spans.push(1, || vec![span(number)]);
        }
        assert_eq!(dropped.get(), 3);
        spans.push(2, || panic!("made although there is no room"));
        assert_eq!(dropped.get(), 5, "each span counts");
        let taken: Vec<String> = spans.take(2).into_iter().map(|span| span.own_id).collect();
        assert_eq!(taken, ["0", "1"]);
        assert_eq!(spans.take(usize::MAX).len(), QUEUE_MAX - 2);
    }
}
