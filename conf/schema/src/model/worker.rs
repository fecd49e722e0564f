//! The workers behind the edge and the demo.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sluice_wire::symbol::Timeframe;

use super::edge::loopback;
use super::value::{InstanceUrl, Secret};

/// `[events]`: the event worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Events {
    /// Address of its API port.
    pub listen: SocketAddr,
    /// Where events are stored; `None`: in Redis where `redis.url` is set, else in the worker itself.
    pub store: Option<EventStore>,
    /// What becomes of a publish while Redis takes none.
    pub on_redis_down: OnRedisDown,
    /// Name of the stream, `[A-Za-z0-9._-]{1,64}`.
    pub stream: String,
    /// Consumer group that is made together with a stream in Redis, named like a stream.
    pub group: String,
    /// When a publish is acknowledged.
    pub fsync: Fsync,
    /// What is kept.
    pub retention: Retention,
    /// A repeated `event_id` inside this time is a duplicate; zero: never.
    pub dedup_window: Duration,
    /// What happens to types outside the catalogue.
    pub unknown_types: UnknownTypes,
    /// Events a second that one caller may publish. `None`: no limit.
    pub publish_rate: Option<u64>,
    /// Live subscriptions open at a time.
    pub subscriptions: usize,
    /// How events are divided.
    pub partitions: Partitions,
    /// Size of one log segment in bytes.
    pub segment_bytes: u64,
    /// Whether full segments are compressed.
    pub compress: bool,
    /// Whether what is written to the log is encrypted.
    pub encrypt: bool,
    /// Keys of a worker that runs without the vault: a file with 64 hexadecimal digits a line, the last one in use.
    pub key_file: Option<PathBuf>,
    /// Where full segments are copied to.
    pub archive_dir: Option<PathBuf>,
    /// Candles made of trades.
    pub candles: Candles,
}

/// `[events.candles]`: candles made of the trades among the market data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candles {
    /// Their lengths, each a divisor of a day; none: no candles.
    pub timeframes: Vec<Timeframe>,
    /// How much later than its candle's end a trade may come and still count.
    pub lateness: Duration,
}

/// Where events are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventStore {
    /// In the event worker's own log.
    Embedded,
    /// In the Redis of `redis.url`, where several event workers share them.
    Redis,
}

/// What becomes of a publish while Redis takes none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRedisDown {
    /// It is refused.
    #[default]
    Reject,
    /// It is kept in a log of the worker until Redis has it.
    Spool,
}

/// When a publish is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// After its bytes were synced.
    #[default]
    Always,
    /// At once; the log is synced this often (`interval:50ms`).
    Interval(Duration),
}

/// What the event log keeps; the oldest segments go when any bound is passed. `None`: unbounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Age of the newest event in a segment.
    pub age: Option<Duration>,
    /// Bytes of the whole log.
    pub bytes: Option<u64>,
    /// Events in the whole log.
    pub count: Option<u64>,
}

/// `[events.partitions]`: orders of their own that the events of a stream are numbered in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions {
    /// What an event's partition is found by.
    pub by: PartitionBy,
    /// How many there are, 1 to 64.
    pub count: u8,
}

/// What an event's partition is found by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartitionBy {
    /// There is one.
    #[default]
    None,
    /// Its type.
    Type,
    /// Its symbol.
    Symbol,
}

/// What happens to event types outside the catalogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownTypes {
    /// Taken when well-formed.
    #[default]
    Accept,
    /// Refused.
    Refuse,
}

/// `[vault]`: the vault worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Vault {
    /// Address of its API port.
    pub listen: SocketAddr,
    /// Names under which clients of that port know it, beside `localhost` and its role's.
    pub names: Vec<String>,
    /// `iss` of its tokens, an `https` URL.
    pub issuer: String,
    /// `aud` of its tokens, at least one.
    pub audience: Vec<String>,
    /// How it opens.
    pub seal: Seal,
    /// Life of a token whose request names none, and of a legacy token at most.
    pub token_ttl: Duration,
    /// Life of a leaf certificate whose request names none.
    pub leaf_ttl: Duration,
    /// SPIFFE trust domain, a lower-case DNS name.
    pub trust_domain: String,
    /// `[vault.external]`: the server that keeps the secrets in its stead.
    pub external: ExternalVault,
    /// How much of its store one identity may hold.
    pub quota: Quota,
    /// How much of its audit log is kept.
    pub audit: VaultAudit,
}

/// `[vault.audit]`: how much of the vault's audit log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultAudit {
    /// Bytes of all files.
    pub keep_bytes: u64,
    /// Time since a file's last record; unset, its age does not matter.
    pub keep_age: Option<Duration>,
    /// What happens when there is as much as is kept.
    pub when_full: WhenFull,
}

/// What happens to an audit log that has as much as it may keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest file goes.
    #[default]
    Retire,
    /// Nothing is answered any more.
    Refuse,
}

impl Default for VaultAudit {
    fn default() -> Self {
        Self { keep_bytes: 4 << 30, keep_age: None, when_full: WhenFull::default() }
    }
}

/// `[vault.external]`: a HashiCorp Vault or OpenBao that keeps the secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalVault {
    /// Whether it does; then `url` is there, and `token` where this process is handed it.
    pub enabled: bool,
    /// Its address, `http` or `https`: the only one that is connected to.
    pub url: Option<InstanceUrl>,
    /// What the vault worker proves itself with there.
    pub token: Option<Secret>,
    /// Who signs its certificate, PEM; `None`: whom this system believes.
    pub ca: Option<PathBuf>,
    /// Where its KV engine, version 2, is mounted.
    pub mount: String,
    /// Time for one call.
    pub timeout: Duration,
}

/// `[vault.quota]`: how much of the vault's store one identity may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Sluice tokens that have not ended.
    pub tokens: u64,
    /// Certificates that have not ended.
    pub certificates: u64,
    /// Tokens of Vault's API, wrapped answers among them.
    pub vault_tokens: u64,
    /// Wrapped answers, bytes.
    pub wrapped_bytes: u64,
    /// Secrets.
    pub secrets: u64,
    /// All kept versions of its secrets, bytes.
    pub secret_bytes: u64,
    /// Used assertions of an OAuth client that have not ended.
    pub assertions: u64,
}

/// How the vault opens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seal {
    /// By a key file in the data directory under `--dev`; otherwise it stays sealed.
    #[default]
    Auto,
    /// By shares of the root key, given while it runs (`shamir`).
    Shamir,
    /// By this key file (`file:PATH`), outside the data directory, mode 0400.
    File(PathBuf),
}

/// `[calc]`: the calculation worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Calc {
    /// Address of its API port.
    pub listen: SocketAddr,
    /// Request body at most, in bytes.
    pub body_bytes: u64,
    /// Rows of data in one request at most.
    pub rows: usize,
    /// Threads of its compute pool; 0 means one a core.
    pub threads: usize,
    /// Stored series, all together, at most, in bytes.
    pub series_bytes: u64,
    /// The event worker, `http`; `None`: the one beside it, if there is one.
    pub events_url: Option<InstanceUrl>,
    /// File of the token for it.
    pub events_token_file: Option<PathBuf>,
}

/// `[demo]`: the stand-in services and the market tape.
#[derive(Clone, Debug, PartialEq)]
pub struct Demo {
    /// Bars of the tape played a second, 0.01 to 10000.
    pub speed: f64,
    /// Address of the stand-in data service.
    pub data_listen: SocketAddr,
    /// Address of the stand-in backtesting service.
    pub backtesting_listen: SocketAddr,
    /// Address of the stand-in trading bot.
    pub trading_bot_listen: SocketAddr,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            listen: loopback(8011),
            store: None,
            on_redis_down: OnRedisDown::default(),
            stream: "tradpal_events".to_owned(),
            group: "tradpal_consumers".to_owned(),
            fsync: Fsync::default(),
            retention: Retention::default(),
            dedup_window: Duration::from_secs(600),
            unknown_types: UnknownTypes::default(),
            publish_rate: None,
            subscriptions: 4_096,
            partitions: Partitions::default(),
            segment_bytes: 64 << 20,
            candles: Candles::default(),
            compress: true,
            encrypt: true,
            key_file: None,
            archive_dir: None,
        }
    }
}

impl Default for Partitions {
    fn default() -> Self {
        Self { by: PartitionBy::None, count: 1 }
    }
}

impl Default for Candles {
    fn default() -> Self {
        let minute = Timeframe::parse("1m").expect("a timeframe");
        Self { timeframes: vec![minute], lateness: Duration::from_secs(2) }
    }
}

impl Default for Vault {
    fn default() -> Self {
        Self {
            listen: loopback(8009),
            names: Vec::new(),
            issuer: "https://sluice.internal".to_owned(),
            audience: vec!["sluice".to_owned()],
            seal: Seal::default(),
            token_ttl: Duration::from_secs(24 * 3600),
            leaf_ttl: Duration::from_secs(24 * 3600),
            trust_domain: "sluice.internal".to_owned(),
            external: ExternalVault::default(),
            quota: Quota::default(),
            audit: VaultAudit::default(),
        }
    }
}

impl Default for ExternalVault {
    fn default() -> Self {
        Self {
            enabled: false,
            url: None,
            token: None,
            ca: None,
            mount: "secret".to_owned(),
            timeout: Duration::from_secs(5),
        }
    }
}

/// A tenth of what the store holds of each.
impl Default for Quota {
    fn default() -> Self {
        Self {
            tokens: 100_000,
            certificates: 50_000,
            vault_tokens: 20_000,
            wrapped_bytes: 64 << 20,
            secrets: 100_000,
            secret_bytes: 1 << 30,
            assertions: 20_000,
        }
    }
}

impl Default for Calc {
    fn default() -> Self {
        Self {
            listen: loopback(8013),
            body_bytes: 64 << 20,
            rows: 1_000_000,
            threads: 0,
            series_bytes: 8 << 30,
            events_url: None,
            events_token_file: None,
        }
    }
}

impl Default for Demo {
    fn default() -> Self {
        Self {
            speed: 4.0,
            data_listen: loopback(8001),
            backtesting_listen: loopback(8002),
            trading_bot_listen: loopback(8003),
        }
    }
}
