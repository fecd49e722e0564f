//! Keys of one `[[service]]`.

use std::collections::BTreeMap;

use schemars::Schema;
use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::{ENTRIES_MAX, PerMinute, rate, span};
use crate::check;
use crate::form::{
    HASH_ON, HEADER_NAME, HEADER_VALUE, HEALTH_PATH, HEDGE, MATCH_NAME, MATCH_VALUE, METHOD, NETWORK,
    PERMISSION, PREFIX, RATE_KEY, RETRY_CAUSE, SERVICE_NAME, URL, WILD_HOST, ZONE,
};
use crate::kind::{
    Choice, Count, Dict, Duration, Flag, Kind, List, Maybe, Number, Parsed, Size, Text, count,
};
use crate::mask::names_a_secret;
use crate::model::{
    Balance, Breaker, HEADER_MATCHES_MAX, HeaderEdits, Health, Idempotency, Instance, InstanceUrl, Outlier,
    RateLimit, Retry, Service, Source, Timeouts,
};
use crate::table::Table;

/// LIMIT: instances of one service.
const INSTANCES_MAX: usize = 1000;

const BALANCE: Choice<Balance> = Choice {
    words: &[
        ("round_robin", Balance::RoundRobin),
        ("weighted", Balance::Weighted),
        ("least_connections", Balance::LeastConnections),
        ("peak_ewma", Balance::PeakEwma),
        ("hash", Balance::Hash),
        ("sticky", Balance::Sticky),
    ],
    planned: &[],
};

const IDEMPOTENCY: Choice<Idempotency> = Choice {
    words: &[
        ("off", Idempotency::Off),
        ("optional", Idempotency::Optional),
        ("required", Idempotency::Required),
    ],
    planned: &[],
};

/// Counts of calls and failures.
pub(crate) const THRESHOLD: Count<u32> = count(1..=1_000_000);
/// How long a breaker stays open.
pub(crate) const RECOVERY_TIMEOUT: Duration = span(1, 86_400_000);
/// A share that opens something: zero would open it at once.
const SHARE: Number = Number { least: 0.001, most: 1.0 };

pub(super) fn service(t: &mut Table<'_, '_>, service: &mut Service) {
    t.require("name", "a service");
    t.require("prefix", "a service");
    matching(t, service);
    access(t, service);
    balance(t, service);
    let doc = "Requests a minute per client (0: no limit), or a table.";
    t.either("rate_limit", doc, PerMinute, &mut service.rate_limit, rate_limit);
    super::lane::lane(t, service);
    t.table("timeouts", "Deadlines of one request.", |t| timeouts(t, &mut service.timeouts));
    t.table("retry", "When and how often a request is tried again.", |t| retry(t, &mut service.retry));
    t.table("breaker", "When the service is left alone.", |t| breaker(t, &mut service.breaker));
    t.table("outlier", "When one instance is left alone.", |t| outlier(t, &mut service.outlier));
    t.table("health", "Active probes of the instances.", |t| health(t, &mut service.health));
    let doc = "Changes to the headers of a request.";
    t.table("request_headers", doc, |t| header_edits(t, &mut service.request_headers));
    let doc = "Changes to the headers of a response.";
    t.table("response_headers", doc, |t| header_edits(t, &mut service.response_headers));
    super::shape::shape(t, service);
    let doc = "Request body at most; without it, edge.limits.body_bytes.";
    t.key("body_bytes", doc, Size(0..=1 << 40), &mut service.body_bytes);
    let doc = "Whether POST and PATCH with an Idempotency-Key are executed once: off, optional or required.";
    t.key("idempotency", doc, IDEMPOTENCY, &mut service.idempotency);
    let doc = "Whether the caller's credentials reach the upstream.";
    t.key("forward_authorization", doc, Flag, &mut service.forward_authorization);
    super::tls::upstream(t, &mut service.tls);
    t.key("enabled", "Whether it routes.", Flag, &mut service.enabled);
    instances(t, service);
    if !t.describing() {
        if let Some(header) = t.header() {
            let (path, line) = t.reader.locate(&header);
            service.source = Source::File { path, line };
        }
        check::service(t, service);
    }
}

fn balance(t: &mut Table<'_, '_>, service: &mut Service) {
    let doc = "How an instance is picked.";
    t.key("balance", doc, BALANCE, &mut service.balance);
    let doc = "For hash and sticky, what a request is placed by: sub, ip or header:NAME.";
    t.key("hash_on", doc, HASH_ON, &mut service.hash_on);
    let doc = "Time in which an instance that is back takes up its share; 0s: at once.";
    t.key("slow_start", doc, span(0, 3_600_000), &mut service.slow_start);
    let doc = "Share of healthy instances below which all of them are used; 0 never does.";
    t.key("panic_threshold", doc, Number { least: 0.0, most: 1.0 }, &mut service.panic_threshold);
}

fn matching(t: &mut Table<'_, '_>, service: &mut Service) {
    t.key("name", "Unique name.", SERVICE_NAME, &mut service.name);
    let doc = "Path prefix; matches on segment borders, the longest wins.";
    t.key("prefix", doc, PREFIX, &mut service.prefix);
    t.key(
        "hosts",
        "Host names it is limited to; *.domain for all below.",
        List::of(WILD_HOST),
        &mut service.hosts,
    );
    t.key("methods", "Methods it is limited to.", List::of(METHOD), &mut service.methods);
    let doc = "Header fields a request must have: a name to its exact value, or \"*\" for any.";
    t.key("headers", doc, Fields(MATCHES), &mut service.headers);
    let doc = "Whether the prefix is cut off before forwarding.";
    t.key("strip_prefix", doc, Flag, &mut service.strip_prefix);
}

fn access(t: &mut Table<'_, '_>, service: &mut Service) {
    t.key("auth_required", "Whether a valid identity is needed.", Flag, &mut service.auth_required);
    let doc = "Permissions by method, all of them needed; a method without an entry needs every one.";
    let permissions = Dict { key: METHOD, value: List::of(PERMISSION), most: ENTRIES_MAX };
    t.key("permissions", doc, permissions, &mut service.permissions);
    let doc = "Client networks that may call it; empty means all.";
    t.key("allow", doc, List::of(NETWORK), &mut service.allow);
    let doc = "Client networks that may not; wins over allow.";
    t.key("deny", doc, List::of(NETWORK), &mut service.deny);
}

fn rate_limit(t: &mut Table<'_, '_>, limit: &mut Option<RateLimit>) {
    let mut rate_limit = limit.clone().unwrap_or_else(|| RateLimit::per_minute(1000));
    let doc = "Requests per period.";
    t.key("requests", doc, count(rate()), &mut rate_limit.requests);
    t.key("per", "The period.", span(1, 86_400_000), &mut rate_limit.per);
    // What is not written follows `requests`, so the default is not filled in before it is known.
    let mut burst = t.describing().then_some(rate_limit.burst);
    let doc = "Requests that may come at once; without it, as many as requests.";
    t.key("burst", doc, Maybe(count(rate())), &mut burst);
    rate_limit.burst = burst.unwrap_or(rate_limit.requests);
    let doc = "Who shares a bucket: client, ip, service, sub or header:NAME.";
    t.key("key", doc, RATE_KEY, &mut rate_limit.key);
    let doc = "Requests per period past which the connection closes.";
    t.key("hard", doc, Maybe(count(rate())), &mut rate_limit.hard);
    if !t.describing() {
        check::rate_limit(t, &rate_limit);
        *limit = Some(rate_limit);
    }
}

fn timeouts(t: &mut Table<'_, '_>, timeouts: &mut Timeouts) {
    // Nothing is sent with less than 10 ms left, so a shorter deadline would refuse every request.
    let (least, hour) = (10, 3_600_000);
    t.key("connect", "Until the connection of one try stands.", span(least, hour), &mut timeouts.connect);
    t.key("first_byte", "Until the first byte of the answer.", span(least, hour), &mut timeouts.first_byte);
    t.key("total", "Until the last byte of the answer.", span(least, hour), &mut timeouts.total);
    t.key("idle", "Between two bytes, and of a pooled connection.", span(1, hour), &mut timeouts.idle);
}

fn retry(t: &mut Table<'_, '_>, retry: &mut Retry) {
    let doc = "Tries in all, the first counted; 1 never retries.";
    t.key("attempts", doc, count(1..=10), &mut retry.attempts);
    let doc = "Retries as a share of requests.";
    t.key("budget", doc, Number { least: 0.0, most: 1.0 }, &mut retry.budget);
    let doc = "Retries a second that the budget always allows.";
    t.key("min_per_second", doc, count(0..=1_000_000), &mut retry.min_per_second);
    let doc = "What is tried again: connect, reset, statuses from 500 to 599.";
    t.key("on", doc, List::of(RETRY_CAUSE), &mut retry.on);
    let doc = "When a silent GET is also sent to another instance, within the budget: off, p95 or a time. \
               For clients of HTTP/1.1 and instances in clear text.";
    t.key("hedge", doc, HEDGE, &mut retry.hedge);
}

fn breaker(t: &mut Table<'_, '_>, breaker: &mut Breaker) {
    let doc = "Failures in a row that open it.";
    t.key("failure_threshold", doc, THRESHOLD, &mut breaker.failure_threshold);
    t.key("failure_rate", "Share of failures that opens it.", SHARE, &mut breaker.failure_rate);
    t.key("slow_call", "A call this long is slow.", span(1, 3_600_000), &mut breaker.slow_call);
    t.key("slow_rate", "Share of slow calls that opens it.", SHARE, &mut breaker.slow_rate);
    t.key("window", "Time over which the shares count.", span(1_000, 3_600_000), &mut breaker.window);
    t.key("min_calls", "Calls before a share counts.", THRESHOLD, &mut breaker.min_calls);
    let doc = "Time it stays open before it probes.";
    t.key("recovery_timeout", doc, RECOVERY_TIMEOUT, &mut breaker.recovery_timeout);
    let doc = "Probes in a row that close it.";
    t.key("success_threshold", doc, count(1..=1000), &mut breaker.success_threshold);
    let doc = "Probes at once while half open.";
    t.key("half_open_max", doc, count(1..=1000), &mut breaker.half_open_max);
}

fn outlier(t: &mut Table<'_, '_>, outlier: &mut Outlier) {
    let doc = "Failures in a row that eject an instance.";
    t.key("consecutive", doc, THRESHOLD, &mut outlier.consecutive);
    let doc = "Length of a first ejection; each further one is twice as long, up to 300s.";
    t.key("base_ejection", doc, span(10, 300_000), &mut outlier.base_ejection);
    let doc = "Share of the instances that may be ejected at once; one always may.";
    t.key("max_ejected", doc, Number { least: 0.0, most: 1.0 }, &mut outlier.max_ejected);
}

fn health(t: &mut Table<'_, '_>, health: &mut Health) {
    t.key("path", "Path asked with GET.", HEALTH_PATH, &mut health.path);
    t.key("interval", "Time between two probes.", span(10, 86_400_000), &mut health.interval);
    t.key("timeout", "Time an answer may take.", span(1, 3_600_000), &mut health.timeout);
    t.key("healthy", "Good probes in a row that make it healthy.", count(1..=100), &mut health.healthy);
    t.key("unhealthy", "Bad probes in a row that make it unhealthy.", count(1..=100), &mut health.unhealthy);
}

fn header_edits(t: &mut Table<'_, '_>, edits: &mut HeaderEdits) {
    t.key("set", "Replaces every field of the name.", Fields(FIELDS), &mut edits.set);
    t.key("add", "Adds a field beside those there.", Fields(FIELDS), &mut edits.add);
    t.key("remove", "Removes every field of the name.", List::of(HEADER_NAME), &mut edits.remove);
}

/// Header fields. Values of fields that carry credentials are not shown.
struct Fields(Dict<Text<String>>);

const FIELDS: Dict<Text<String>> = Dict { key: HEADER_NAME, value: HEADER_VALUE, most: ENTRIES_MAX };
/// Header fields a route asks for.
const MATCHES: Dict<Text<String>> = Dict { key: MATCH_NAME, value: MATCH_VALUE, most: HEADER_MATCHES_MAX };

impl Kind for Fields {
    type Out = BTreeMap<String, String>;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<Self::Out> {
        self.0.parse(value)
    }

    fn show(&self, fields: &Self::Out) -> Value {
        let show = |(name, value): (&String, &String)| {
            let hidden = names_a_secret(name);
            (name.clone(), Value::from(if hidden { "***" } else { value.as_str() }))
        };
        Value::Object(fields.iter().map(show).collect())
    }

    fn schema(&self) -> Schema {
        self.0.schema()
    }
}

fn instances(t: &mut Table<'_, '_>, service: &mut Service) {
    let nowhere = || Instance { url: InstanceUrl::nowhere(), weight: 1, zone: String::new() };
    let doc = "One address of the service.";
    t.items("instance", doc, INSTANCES_MAX, &mut service.instances, nowhere, |t, instance| {
        t.require("url", "an instance");
        t.key("url", "Its address: http, https or h2c://host:port, or unix:/path.", URL, &mut instance.url);
        let doc = "Share of requests relative to its siblings.";
        t.key("weight", doc, count(1..=65_535), &mut instance.weight);
        let doc = "Zone it runs in: edges of the same zone prefer it.";
        t.key("zone", doc, ZONE, &mut instance.zone);
    });
}
