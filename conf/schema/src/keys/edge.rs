//! Keys of the edge process.

use super::worker::YEAR;
use super::{secret, span, tls};
use crate::form::{ACCESS, ADDRESS, COLLECTOR, HOST, NETWORK, REDIS_URL, SYMBOL_HEADER, ZONE};
use crate::kind::{Choice, Duration, Flag, Kind, List, Maybe, Number, Parsed, Size, count};
use crate::model::{
    Control, Drain, Edge, EdgeAudit, Keys, KillSwitch, Limits, Log, LogLevel, MetricsAccess, Otlp, RedisTls,
    RedisUrl, Registry,
};
use crate::table::Table;

/// The words of `[log] level`; the seeds' upper-case ones too.
pub(crate) const LEVEL: Choice<LogLevel> = Choice {
    words: &[
        ("trace", LogLevel::Trace),
        ("debug", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("warn", LogLevel::Warn),
        ("error", LogLevel::Error),
        ("warning", LogLevel::Warn),
        ("critical", LogLevel::Error),
    ],
    planned: &[],
};

pub(super) fn edge(t: &mut Table<'_, '_>, edge: &mut Edge) {
    t.table("edge", "The public listener.", |t| {
        t.key("listen", "Address of the public listener.", ADDRESS, &mut edge.listen);
        t.key("threads", "Edge threads; 0 means one a core.", count(0..=1024), &mut edge.threads);
        let doc = "Zone this edge runs in: instances of the same zone are preferred.";
        t.key("zone", doc, ZONE, &mut edge.zone);
        let doc = "Networks whose X-Forwarded-* headers are believed.";
        t.key("trusted_proxies", doc, List::of(NETWORK), &mut edge.trusted_proxies);
        let doc = "Whether connections of trusted proxies start with a PROXY protocol header.";
        t.key("proxy_protocol", doc, Flag, &mut edge.proxy_protocol);
        let doc = "Whether secrets travel in clear text beyond this machine.";
        t.key("plain_secrets", doc, Flag, &mut edge.plain_secrets);
        tls::edge(t, &mut edge.tls);
        t.table("limits", "What one client may send and hold.", |t| limits(t, &mut edge.limits));
        t.table("audit", "How much of the edge's audit log is kept.", |t| audit(t, &mut edge.audit));
    });
}

fn audit(t: &mut Table<'_, '_>, audit: &mut EdgeAudit) {
    let doc = "Size of the log's files about which the oldest goes, after a record that names its end.";
    t.key("keep_bytes", doc, Size(64 << 10..=1 << 50), &mut audit.keep_bytes);
    let doc =
        "How long ago a file's last record was made when it is removed; unset, its age does not matter.";
    t.key("keep_age", doc, Maybe(span(1_000, 100 * YEAR)), &mut audit.keep_age);
}

fn limits(t: &mut Table<'_, '_>, limits: &mut Limits) {
    let doc = "Request head at most, request line included.";
    t.key("header_bytes", doc, Size(1 << 10..=1 << 20), &mut limits.header_bytes);
    let doc = "Header fields of a request at most.";
    t.key("header_count", doc, count(1..=1000), &mut limits.header_count);
    let doc = "Request target at most.";
    t.key("uri_bytes", doc, Size(256..=64 << 10), &mut limits.uri_bytes);
    let doc = "Request body at most where a service names no limit.";
    t.key("body_bytes", doc, Size(0..=1 << 40), &mut limits.body_bytes);
    let doc = "Time from the first byte of a request to the end of its head.";
    t.key("header_timeout", doc, span(100, 600_000), &mut limits.header_timeout);
    let doc = "Time a keep-alive connection may wait for its next request.";
    t.key("idle_timeout", doc, span(100, 3_600_000), &mut limits.idle_timeout);
    let doc = "Open connections in all.";
    t.key("connections", doc, count(1..=10_000_000), &mut limits.connections);
    let doc = "Open connections of one address; trusted proxies do not count.";
    t.key("connections_per_ip", doc, count(1..=10_000_000), &mut limits.connections_per_ip);
}

pub(super) fn control(t: &mut Table<'_, '_>, control: &mut Control) {
    t.table("control", "The control listener: breakers, admin calls, dashboard.", |t| {
        t.key("listen", "Address of the control listener.", ADDRESS, &mut control.listen);
        let doc = "Networks that may read without a token.";
        t.key("read_allow", doc, List::of(NETWORK), &mut control.read_allow);
        let doc = "Host names answered beside loopback; others get 421.";
        t.key("hosts", doc, List::of(HOST), &mut control.hosts);
    });
}

pub(super) fn registry(t: &mut Table<'_, '_>, registry: &mut Registry) {
    t.table("registry", "Services registered over POST /api/register.", |t| {
        let doc = "Networks a registered instance may lie in; empty refuses every registration.";
        t.key("allow", doc, List::of(NETWORK), &mut registry.allow);
        t.key("max", "Registered services at most.", count(0..=10_000), &mut registry.max);
        let doc = "Lease of a registration that names none; 0s keeps it until it is deleted.";
        t.key("ttl", doc, ZeroIsNone(span(0, 31_536_000_000)), &mut registry.ttl);
    });
}

pub(super) fn kill_switch(t: &mut Table<'_, '_>, kill: &mut KillSwitch) {
    t.table("kill_switch", "What is stopped by hand.", |t| {
        let doc = "Header in which a request names its symbols.";
        t.key("symbol_header", doc, SYMBOL_HEADER, &mut kill.symbol_header);
        let doc = "Where the key is that edges and vault share: env:NAME or file:PATH. Over Redis edges obey each other and the vault only with it.";
        secret(t, "kill_switch", "secret", doc, &mut kill.secret);
    });
}

pub(super) fn keys(t: &mut Table<'_, '_>, keys: &mut Keys) {
    t.table("idempotency", "Requests that must not be executed twice; see service.idempotency.", |t| {
        let doc = "How long an Idempotency-Key and the answer to its request are kept.";
        t.key("ttl", doc, span(1_000, 2_592_000_000), &mut keys.ttl);
    });
}

pub(super) fn redis(t: &mut Table<'_, '_>, redis: &mut Option<RedisUrl>, tls: &mut RedisTls) {
    t.table("redis", "The store that several edges share.", |t| {
        let doc = "Its address; it keeps the idempotency keys then. Without one, or with a cluster or sentinels, each edge keeps its own.";
        t.key("url", doc, Maybe(REDIS_URL), redis);
        tls::redis(t, tls);
    });
}

pub(super) fn drain(t: &mut Table<'_, '_>, drain: &mut Drain) {
    t.table("drain", "How a process ends on SIGTERM.", |t| {
        let doc = "Time /readyz answers 503 before the listener closes.";
        t.key("lame_duck", doc, span(0, 600_000), &mut drain.lame_duck);
        let doc = "Time the requests in flight have in all.";
        t.key("deadline", doc, span(0, 3_600_000), &mut drain.deadline);
    });
}

pub(super) fn log(t: &mut Table<'_, '_>, log: &mut Log) {
    t.table("log", "Process log and access log.", |t| {
        t.key("level", "Lowest level written.", LEVEL, &mut log.level);
        t.key("access", "Access log: stderr, file:PATH or off.", ACCESS, &mut log.access);
        let doc = "Share of 2xx and 3xx lines kept in the access log; the others are always kept.";
        t.key("sample", doc, Number { least: 0.0, most: 1.0 }, &mut log.sample);
    });
}

pub(super) fn otlp(t: &mut Table<'_, '_>, otlp: &mut Otlp) {
    t.table("otlp", "Where traces go.", |t| {
        let doc = "Address of an OTLP receiver over HTTP; without one nothing is exported.";
        t.key("endpoint", doc, Maybe(COLLECTOR), &mut otlp.endpoint);
    });
}

pub(super) fn metrics(t: &mut Table<'_, '_>, metrics: &mut MetricsAccess) {
    t.table("metrics", "Who may read /metrics.", |t| {
        t.key("enabled", "Whether /metrics is there at all.", Flag, &mut metrics.enabled);
        let doc = "Networks that may read without a token.";
        t.key("allow", doc, List::of(NETWORK), &mut metrics.allow);
    });
}

/// A duration of which zero means none.
struct ZeroIsNone(Duration);

impl Kind for ZeroIsNone {
    type Out = Option<std::time::Duration>;

    fn parse(&self, value: &toml::Spanned<toml::de::DeValue<'_>>) -> Parsed<Self::Out> {
        self.0.parse(value).map(|duration| (!duration.is_zero()).then_some(duration))
    }

    fn show(&self, value: &Self::Out) -> serde_json::Value {
        self.0.show(&value.unwrap_or_default())
    }

    fn schema(&self) -> schemars::Schema {
        self.0.schema()
    }
}
