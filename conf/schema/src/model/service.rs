//! One upstream service: how it is matched, who may call it, how its instances are called.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::lane::{Concurrency, Lane};
use super::retry::Retry;
use super::shape::{Arm, Cors, Fallback, Rewrite};
use super::tls::UpstreamTls;
use super::value::InstanceUrl;

/// Methods a service can be matched by; HEAD goes with GET.
pub const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// LIMIT: header fields one service can be matched by.
pub const HEADER_MATCHES_MAX: usize = 8;

/// LIMIT: services that share one prefix and one host: a request asks them one by one.
pub const PREFIX_SHARED_MAX: usize = 64;

/// Prefixes the edge serves itself or hands to a worker; no service may lie at or below one.
pub const RESERVED_PREFIXES: [&str; 27] = [
    "/health",
    "/livez",
    "/readyz",
    "/metrics",
    "/services",
    "/auth",
    "/api/services",
    "/api/register",
    "/events",
    "/groups",
    "/schemas",
    "/state",
    "/security",
    "/tokens",
    "/credentials",
    "/secrets",
    "/ca",
    "/v1",
    "/oauth2",
    "/.well-known",
    "/acme",
    "/falco",
    "/calculations",
    "/series",
    "/audit",
    "/docs",
    "/openapi.json",
];

/// Method (upper case) to the permissions it needs, all of them.
pub type Permissions = BTreeMap<String, Vec<String>>;

/// `[[service]]`: one upstream.
///
/// A request goes to the service with the longest matching prefix; among equal prefixes one that
/// names the host wins over `*.domain` and that over none, then the one with more `headers`, then the
/// one with fewer methods. The loader refuses two that could tie.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Unique name, `[A-Za-z0-9_.-]{1,64}`; the label of its metrics and its breaker.
    pub name: String,
    /// Absolute path prefix without trailing slash (`/` alone is the last resort); matches on segment borders. Empty
    /// for a service that only others name in `split` or `mirror`: it has no route of its own.
    pub prefix: String,
    /// Host names (lower case, no port, `*.domain` for all below) it is limited to; empty: every host.
    pub hosts: Vec<String>,
    /// Methods (upper case, without HEAD, which goes with GET) it is limited to; empty: every method.
    pub methods: Vec<String>,
    /// Header fields (lower-case name to exact value, `*` for any) a request must have; empty: none.
    pub headers: BTreeMap<String, String>,
    /// Whether the prefix is cut off before the request is forwarded.
    pub strip_prefix: bool,
    /// Whether a valid identity is needed.
    pub auth_required: bool,
    /// Permissions by method; see [`Service::permissions_for`].
    pub permissions: Permissions,
    /// How an instance is picked.
    pub balance: Balance,
    /// For `hash` and `sticky`: what a request is placed by.
    pub hash_on: HashOn,
    /// Time in which an instance that becomes available takes up its share; zero: at once.
    pub slow_start: Duration,
    /// Its rate limit, the default filled in; `None`: no limit.
    pub rate_limit: Option<RateLimit>,
    /// How much its requests matter.
    pub lane: Lane,
    /// What its instances take at once.
    pub concurrency: Concurrency,
    /// Who counts as one account in the queue of its lane.
    pub fair_key: RateKey,
    /// Deadlines of one request.
    pub timeouts: Timeouts,
    /// When and how often a request is tried again.
    pub retry: Retry,
    /// When the service as a whole is left alone.
    pub breaker: Breaker,
    /// When a single instance is left alone.
    pub outlier: Outlier,
    /// Active probes of its instances.
    pub health: Health,
    /// Changes to the request's headers on the way to the upstream.
    pub request_headers: HeaderEdits,
    /// Changes to the response's headers on the way to the client.
    pub response_headers: HeaderEdits,
    /// How the path is written for the upstream.
    pub rewrite: Rewrite,
    /// Which web pages may call it.
    pub cors: Cors,
    /// Whether text is compressed for clients that take it.
    pub compress: bool,
    /// What clients get where it gave no answer.
    pub fallback: Fallback,
    /// The service that gets a copy of its GET requests; empty: none.
    pub mirror: String,
    /// Shares of its callers that other services answer.
    pub split: Vec<Arm>,
    /// Client networks that may call it; empty: all that `deny` leaves.
    pub allow: Vec<IpNet>,
    /// Client networks that may not; wins over `allow`.
    pub deny: Vec<IpNet>,
    /// Request body at most, in bytes.
    pub body_bytes: u64,
    /// Whether `Idempotency-Key` is honoured.
    pub idempotency: Idempotency,
    /// Whether `Authorization`, `X-API-Key` and `X-Vault-Token` reach the upstream.
    pub forward_authorization: bool,
    /// Below this share of healthy instances all of them are used, 0 to 1; 0 never panics.
    pub panic_threshold: f64,
    /// How `https` instances are called.
    pub tls: UpstreamTls,
    /// False: it is listed and checked but routes nothing.
    pub enabled: bool,
    /// Its instances, in file order; URLs are unique.
    pub instances: Vec<Instance>,
    /// Where it was defined.
    pub source: Source,
}

/// `[[service.instance]]`: one address of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Where it listens.
    pub url: InstanceUrl,
    /// Share of requests relative to its siblings, 1 to 65535.
    pub weight: u32,
    /// Where it is, compared with the edge's own zone; empty: nowhere in particular.
    pub zone: String,
}

/// How an instance is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// Random by weight.
    Weighted,
    /// Fewest requests in flight per weight.
    LeastConnections,
    /// The cheaper of two by latency and requests in flight.
    PeakEwma,
    /// By a key alone; no memory.
    Hash,
    /// By a key, and then the same instance for as long as it is there.
    Sticky,
}

/// What a request is placed by; without it, by the client's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashOn {
    /// The caller's account: claim `account`, else the subject.
    #[default]
    Subject,
    /// The client's address (IPv6 by /64).
    Ip,
    /// The value of this header (lower case).
    Header(String),
}

/// Whether a service honours `Idempotency-Key` on POST and PATCH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idempotency {
    /// No: the field is forwarded like any other.
    #[default]
    Off,
    /// Where one is sent.
    Optional,
    /// Every POST and PATCH needs one.
    Required,
}

/// A request rate.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Requests per `per`, 1 to 10^9.
    pub requests: u64,
    /// The period, at least 1 ms.
    pub per: Duration,
    /// Requests that may come at once, 1 to 10^9.
    pub burst: u64,
    /// Who shares one bucket.
    pub key: RateKey,
    /// Requests per `per` past which the connection closes; never below `requests`.
    pub hard: Option<u64>,
}

/// Who counts what callers have used of their limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateStore {
    /// Each edge by itself.
    #[default]
    Local,
    /// All edges together, in the Redis of `redis.url`.
    Redis,
}

/// Who shares one bucket of a rate limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RateKey {
    /// The token's `sub`, else the address (IPv6 by /64).
    #[default]
    Client,
    /// The address (IPv6 by /64).
    Ip,
    /// Everybody.
    Service,
    /// The token's `sub`; callers without one share a bucket.
    Subject,
    /// The value of this header (lower case); callers without it share a bucket.
    Header(String),
}

/// Deadlines of one request, 10 ms or more; `first_byte` and `total` count from its arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    /// Until the connection of one try stands; at most `first_byte`.
    pub connect: Duration,
    /// Until the first byte of the answer; at most `total`.
    pub first_byte: Duration,
    /// Until the last byte of the answer; streams have none.
    pub total: Duration,
    /// Between two bytes, and of a pooled connection.
    pub idle: Duration,
}

/// When a service as a whole is left alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    /// Failures in a row that open it.
    pub failure_threshold: u32,
    /// Share of failures in the window that opens it, above 0 to 1.
    pub failure_rate: f64,
    /// A call at least this long is slow.
    pub slow_call: Duration,
    /// Share of slow calls in the window that opens it, above 0 to 1.
    pub slow_rate: f64,
    /// Length of the window, at least 1 s.
    pub window: Duration,
    /// Calls in the window before a rate counts.
    pub min_calls: u32,
    /// Time it stays open before it probes.
    pub recovery_timeout: Duration,
    /// Probes in a row that close it.
    pub success_threshold: u32,
    /// Probes in flight at once while half open.
    pub half_open_max: u32,
}

/// When a single instance is left alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// Failures in a row that eject it.
    pub consecutive: u32,
    /// Length of a first ejection; each further one is twice as long.
    pub base_ejection: Duration,
    /// Share of the instances that may be ejected at once, 0 to 1; one always may.
    pub max_ejected: f64,
}

/// Active probes of the instances.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Path asked with GET, absolute.
    pub path: String,
    /// Time between two probes of one instance.
    pub interval: Duration,
    /// Time an answer may take; below `interval`.
    pub timeout: Duration,
    /// Good probes in a row that make it healthy.
    pub healthy: u32,
    /// Bad probes in a row that make it unhealthy.
    pub unhealthy: u32,
}

/// Changes to headers: `remove` first, then `set`, then `add`. Names are lower case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    /// Replaces every field of the name.
    pub set: BTreeMap<String, String>,
    /// Adds a field beside those already there.
    pub add: BTreeMap<String, String>,
    /// Removes every field of the name.
    pub remove: Vec<String>,
}

/// Where a service was defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// Line of its `[[service]]`, from 1.
        line: usize,
    },
    /// By registration.
    Api,
}

impl Service {
    /// Permissions `method` needs: its own entry (HEAD reads GET's), every listed one where it has none.
    pub fn permissions_for(&self, method: &str) -> Vec<&str> {
        let method = if method == "HEAD" { "GET" } else { method };
        let mut needed: Vec<&str> = match self.permissions.get(method) {
            Some(words) => words.iter().map(String::as_str).collect(),
            None => self.permissions.values().flatten().map(String::as_str).collect(),
        };
        needed.sort_unstable();
        needed.dedup();
        needed
    }
}

impl HeaderEdits {
    /// True where nothing changes.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

impl Balance {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Weighted => "weighted",
            Self::LeastConnections => "least_connections",
            Self::PeakEwma => "peak_ewma",
            Self::Hash => "hash",
            Self::Sticky => "sticky",
        }
    }
}

impl Balance {
    /// Whether a request is placed by a key.
    pub fn is_keyed(self) -> bool {
        matches!(self, Self::Hash | Self::Sticky)
    }
}

impl HashOn {
    /// The word in the file: `sub`, `ip`, `header:NAME`.
    pub fn word(&self) -> String {
        match self {
            Self::Subject => "sub".to_owned(),
            Self::Ip => "ip".to_owned(),
            Self::Header(name) => format!("header:{name}"),
        }
    }
}

impl RateStore {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Redis => "redis",
        }
    }
}

impl RateLimit {
    /// `requests` a minute, burst `requests`, one bucket a client: what an integer in the file means.
    pub fn per_minute(requests: u64) -> Self {
        Self { requests, per: Duration::from_secs(60), burst: requests, key: RateKey::Client, hard: None }
    }
}

impl Default for Service {
    fn default() -> Self {
        Self {
            name: String::new(),
            prefix: String::new(),
            hosts: Vec::new(),
            methods: Vec::new(),
            headers: BTreeMap::new(),
            strip_prefix: true,
            auth_required: true,
            permissions: Permissions::new(),
            balance: Balance::default(),
            hash_on: HashOn::default(),
            slow_start: Duration::from_secs(30),
            rate_limit: Some(RateLimit::per_minute(1000)),
            lane: Lane::default(),
            concurrency: Concurrency::default(),
            fair_key: RateKey::Subject,
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            breaker: Breaker::default(),
            outlier: Outlier::default(),
            health: Health::default(),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            rewrite: Rewrite::default(),
            cors: Cors::default(),
            compress: false,
            fallback: Fallback::default(),
            mirror: String::new(),
            split: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            body_bytes: 1 << 20,
            idempotency: Idempotency::default(),
            forward_authorization: false,
            panic_threshold: 0.5,
            tls: UpstreamTls::default(),
            enabled: true,
            instances: Vec::new(),
            source: Source::Api,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            first_byte: Duration::from_secs(5),
            total: Duration::from_secs(15),
            idle: Duration::from_secs(60),
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            failure_rate: 0.5,
            slow_call: Duration::from_secs(2),
            slow_rate: 0.8,
            window: Duration::from_secs(10),
            min_calls: 20,
            recovery_timeout: Duration::from_secs(60),
            success_threshold: 3,
            half_open_max: 3,
        }
    }
}

impl Default for Outlier {
    fn default() -> Self {
        Self { consecutive: 5, base_ejection: Duration::from_secs(10), max_ejected: 0.5 }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: "/health".to_owned(),
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            healthy: 2,
            unhealthy: 3,
        }
    }
}
