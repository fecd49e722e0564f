//! The edge process: listeners, limits, logs, registry, drain.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::tls::EdgeTls;
use super::value::Secret;

/// `[edge]`: the public HTTP listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// Address of the public listener.
    pub listen: SocketAddr,
    /// Edge threads; 0 means one a core.
    pub threads: usize,
    /// The zone it runs in, compared with those of instances; empty: none.
    pub zone: String,
    /// Peers whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections from trusted proxies start with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Whether secrets travel in clear text beyond this machine.
    pub plain_secrets: bool,
    /// `[edge.tls]`: the TLS listener; `None`: there is none.
    pub tls: Option<EdgeTls>,
    /// `[edge.limits]`.
    pub limits: Limits,
    /// `[edge.audit]`.
    pub audit: EdgeAudit,
}

/// `[edge.audit]`: how much of the edge's audit log is kept. The oldest file goes when there is more: an edge that
/// stopped taking records would be one whose kill switch is not let go of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeAudit {
    /// Bytes of all files.
    pub keep_bytes: u64,
    /// Time since a file's last record; unset, its age does not matter.
    pub keep_age: Option<Duration>,
}

impl Default for EdgeAudit {
    fn default() -> Self {
        Self { keep_bytes: 4 << 30, keep_age: None }
    }
}

/// `[edge.limits]`: what one client may send and hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Request head in bytes, request line included.
    pub header_bytes: u64,
    /// Header fields in a request.
    pub header_count: usize,
    /// Request target in bytes.
    pub uri_bytes: u64,
    /// Request body in bytes where a service names no limit of its own.
    pub body_bytes: u64,
    /// Time from the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// Time a keep-alive connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Open connections in all.
    pub connections: usize,
    /// Open connections of one address; trusted proxies do not count.
    pub connections_per_ip: usize,
}

/// `[control]`: the control listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Address of the control listener.
    pub listen: SocketAddr,
    /// Addresses that may read without a token.
    pub read_allow: Vec<IpNet>,
    /// Host names accepted in `Host` beside loopback, lower case, without port.
    pub hosts: Vec<String>,
}

/// `[registry]`: services registered over `POST /api/register`.
#[derive(Clone, Debug, PartialEq)]
pub struct Registry {
    /// Networks a registered instance may lie in; empty refuses every registration.
    pub allow: Vec<IpNet>,
    /// Registered services at most.
    pub max: usize,
    /// Lease of a registration that names none; `None` keeps it until it is deleted.
    pub ttl: Option<Duration>,
}

/// `[kill_switch]`: what is stopped by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillSwitch {
    /// Header in which a request names its symbols; lower case.
    pub symbol_header: String,
    /// Key by which edges know each other's switches; at least 32 bytes outside `--dev`. `None`: by the event
    /// worker's word, and not at all over Redis.
    pub secret: Option<Secret>,
}

/// `[idempotency]`: the keys of requests that must not be executed twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// How long a key and the answer to its request are kept, at least 1 s.
    pub ttl: Duration,
}

impl Default for Keys {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(24 * 60 * 60) }
    }
}

/// `[drain]`: how a process ends on SIGTERM.
#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// `/readyz` answers 503 this long before the listener closes.
    pub lame_duck: Duration,
    /// Requests in flight may run this long in all.
    pub deadline: Duration,
}

/// `[log]`: process log and access log.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Lowest level written.
    pub level: LogLevel,
    /// Where the access log goes.
    pub access: AccessLog,
    /// Share of 2xx and 3xx lines kept in the access log, 0 to 1; the others are always kept.
    pub sample: f64,
}

/// `[otlp]`: where traces go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Otlp {
    /// Address of an OTLP receiver (`http://host:4318`); `None`: nothing is exported.
    pub endpoint: Option<String>,
}

/// Levels of the process log, most talkative first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// What a developer asks for.
    Debug,
    /// What an operator wants to know.
    #[default]
    Info,
    /// Odd, but served.
    Warn,
    /// Failed.
    Error,
}

/// Where the access log goes, one JSON object a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// `stderr`.
    #[default]
    Stderr,
    /// `file:PATH`, relative to the working directory.
    File(PathBuf),
    /// `off`.
    Off,
}

/// `[metrics]`: who may read `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsAccess {
    /// False answers 404 to everybody.
    pub enabled: bool,
    /// Addresses that may read without a token.
    pub allow: Vec<IpNet>,
}

impl LogLevel {
    /// The word in the file: `trace`, `debug`, `info`, `warn`, `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8000),
            threads: 0,
            zone: String::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            plain_secrets: false,
            tls: None,
            limits: Limits::default(),
            audit: EdgeAudit::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 << 10,
            header_count: 100,
            uri_bytes: 8 << 10,
            body_bytes: 1 << 20,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            connections: 10_000,
            connections_per_ip: 256,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::default(), access: AccessLog::default(), sample: 1.0 }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { listen: loopback(8012), read_allow: loopback_networks(), hosts: Vec::new() }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self { allow: vec![loopback_networks()[0]], max: 1000, ttl: None }
    }
}

impl Default for KillSwitch {
    fn default() -> Self {
        Self { symbol_header: "x-symbol".to_owned(), secret: None }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { lame_duck: Duration::from_secs(5), deadline: Duration::from_secs(30) }
    }
}

impl Default for MetricsAccess {
    fn default() -> Self {
        Self { enabled: true, allow: loopback_networks() }
    }
}

/// `127.0.0.1` with this port: where every listener but the public one opens by default.
pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn loopback_networks() -> Vec<IpNet> {
    ["127.0.0.0/8", "::1/128"].map(|text| text.parse().expect("a constant network")).to_vec()
}
