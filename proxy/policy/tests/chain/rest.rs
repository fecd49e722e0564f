//! What a request meets beside the usual: a trace and a deadline of its caller's, a page's origin, an API key, a
//! canary, a limit that edges share, a second try, and what is said of its end.

use std::net::IpAddr;
use std::time::Duration;

use sluice_policy::api_key::Keys;
use sluice_policy::cors::Cors;
use sluice_policy::deadline::{self, Deadline};
use sluice_policy::ending::{Ending, worked};
use sluice_policy::hedge::{self, Latencies, Watch};
use sluice_policy::idempotency::honours;
use sluice_policy::limit::lease::{Granted, Taken};
use sluice_policy::limit::leases::Leases;
use sluice_policy::limit::{Key, Limit, Threshold};
use sluice_policy::method::Method;
use sluice_policy::mirror;
use sluice_policy::split::{self, Split};
use sluice_policy::{Nanos, framing::BodyFraming, redact, sample, trace};
use sluice_schema::{Hedge, Idempotency};

const ORIGIN: &str = "https://desk.example";

/// The states of all that.
pub(crate) struct Rest {
    cors: Cors,
    keys: Keys<&'static str>,
    split: Split,
    leases: Leases,
    latencies: Latencies,
}

impl Rest {
    pub(crate) fn new() -> Self {
        let conf = sluice_schema::Cors { origins: vec![ORIGIN.to_owned()], credentials: true };
        Self {
            cors: Cors::new(&conf),
            keys: (0..100).map(|number| ([number; 32], "desk")).collect(),
            split: Split::new("s0007", [5, 5]),
            leases: Leases::new(1024),
            latencies: Latencies::default(),
        }
    }

    /// Who asks and how; the deadline that its caller gives it. What digests a key is no part of this crate.
    pub(crate) fn admit(&self, deadline: Deadline, client: IpAddr) -> Option<Deadline> {
        let parent = trace::parent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")?;
        let caller = self.keys.find(b"a key that a desk sends", |_| [17; 32])?;
        let page = self.cors.allowed(ORIGIN.as_bytes())?;
        let arm = self.split.arm(split::caller(Some(caller), client));
        let given = deadline::read_ms(b"5000").ok()?;
        let plain = !honours(Idempotency::Optional, Method::Get, false);
        let copied = mirror::copies(Method::Get, BodyFraming::None);
        (parent.flags == trace::SAMPLED && page.credentials && arm.is_none() && plain && copied)
            .then(|| deadline.within(given))
    }

    /// The word of the limit that edges share.
    pub(crate) fn lease(
        &self,
        key: Key,
        threshold: Threshold,
        limit: &Limit,
        here: u64,
        now: Nanos,
    ) -> Option<Taken> {
        self.leases.take(key, threshold, &limit.soft_terms, here, now, || [7; 16], |_| ())
    }

    /// What one task does beside the requests: the calls that leases ask for, answered by a store that has enough.
    pub(crate) fn round(&self, now: Nanos) {
        for due in self.leases.due(512) {
            let Some((_, ask)) = self.leases.ask(&due, now) else { continue };
            self.leases.answer(&due, Granted::new(ask.want, 0), now);
        }
    }

    /// How its try is watched, and what is told of the time left.
    pub(crate) fn begin(&self, deadline: &Deadline, now: Nanos) -> bool {
        let ask = hedge::Ask {
            method: Method::Get,
            has_body: false,
            wants_stream: hedge::wants_stream(b"application/json"),
            is_bound: false,
            tries: 1,
        };
        let watched = hedge::watch(Hedge::P95, &ask, || self.latencies.p95());
        let left = deadline.total(now).ok().flatten();
        watched != Watch::Not && left.is_some_and(|left| deadline::tell_ms(left) > 0)
    }

    /// What is said of its end, and whether its line in the log is kept as it is.
    pub(crate) fn end(&mut self, took: Duration) -> Option<Ending> {
        self.latencies.record(took);
        let logged = sample::keeps("request-1234", 200, false, 1.0);
        let shown = redact::path("/s0007/orders/17");
        (logged && shown == "/s0007/orders/17").then(|| Ending {
            failure: None,
            status: Some(200),
            streams: false,
            worked: worked(false, took, None),
        })
    }
}
