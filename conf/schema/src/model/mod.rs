//! The checked configuration. Whoever holds one of these values need not check it again:
//! only the loader (and [`Config::service`] for registrations) makes them from outside text.

mod acme;
mod auth;
mod edge;
mod falco;
mod lane;
mod notify;
mod redis;
mod retry;
mod service;
mod shape;
mod tls;
mod value;
mod worker;

use std::net::SocketAddr;

use thiserror::Error;

pub use acme::Acme;
pub use auth::{ApiKey, Auth};
pub use edge::{
    AccessLog, Control, Drain, Edge, EdgeAudit, Keys, KillSwitch, Limits, Log, LogLevel, MetricsAccess, Otlp,
    Registry,
};
pub use falco::{Falco, FalcoAction, FalcoPriority, FalcoResponse, KillScope};
pub use lane::{Concurrency, ConcurrencyLimit, Lane};
pub use notify::{Notify, NotifyKind, NotifyLevel};
pub use redis::{RedisPem, RedisTls, RedisUrl};
pub use retry::{Hedge, Retry, RetryCause};
pub use service::{
    Balance, Breaker, HEADER_MATCHES_MAX, HashOn, HeaderEdits, Health, Idempotency, Instance, METHODS,
    Outlier, PREFIX_SHARED_MAX, Permissions, RESERVED_PREFIXES, RateKey, RateLimit, RateStore, Service,
    Source, Timeouts,
};
pub use shape::{
    Arm, Cors, FALLBACK_BYTES_MAX, Fallback, Piece, REWRITE_BYTES_MAX, Rewrite, RewriteFault,
    check_replacement, is_origin, rewrite_pattern, rewrite_pieces,
};
pub use tls::{Authority, Certificate, ClientAuth, ClientCertificate, EdgeTls, KeyPairFiles, UpstreamTls};
pub(crate) use value::is_host;
pub use value::{InstanceUrl, Scheme, Secret, UNIX_PATH_BYTES_MAX, UrlError};
pub use worker::{
    Calc, Candles, Demo, EventStore, Events, ExternalVault, Fsync, OnRedisDown, PartitionBy, Partitions,
    Quota, Retention, Seal, UnknownTypes, Vault, VaultAudit, WhenFull,
};

/// Everything an operator can set, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[edge]`: the public listener.
    pub edge: Edge,
    /// `[control]`: the control listener.
    pub control: Control,
    /// `[auth]`: how callers are believed.
    pub auth: Auth,
    /// `[rate_limit] default`: the limit of a service that names none. `None`: no limit.
    pub rate_limit: Option<RateLimit>,
    /// `[rate_limit] shared`: who counts what callers have used; `Redis` only where `redis` is there.
    pub rate_store: RateStore,
    /// The breaker of a service that names none; only `FAILURE_THRESHOLD` and `RECOVERY_TIMEOUT` change it.
    pub breaker: Breaker,
    /// `[registry]`: services registered over the API.
    pub registry: Registry,
    /// `[kill_switch]`: what is stopped by hand.
    pub kill_switch: KillSwitch,
    /// `[idempotency]`: how long keys are kept.
    pub keys: Keys,
    /// `[redis] url`: the store that several edges share; `None`: each keeps its own.
    pub redis: Option<RedisUrl>,
    /// `[redis]` beside it: what counts where the address is `rediss`.
    pub redis_tls: RedisTls,
    /// `[drain]`: how a process ends.
    pub drain: Drain,
    /// `[log]`: process log and access log.
    pub log: Log,
    /// `[otlp]`: where traces go.
    pub otlp: Otlp,
    /// `[metrics]`: who may read `/metrics`.
    pub metrics: MetricsAccess,
    /// `[events]`: the event worker.
    pub events: Events,
    /// `[vault]`: the vault worker.
    pub vault: Vault,
    /// `[calc]`: the calculation worker.
    pub calc: Calc,
    /// `[demo]`: the stand-in services and the market tape.
    pub demo: Demo,
    /// `[falco]`: alerts of Falco.
    pub falco: Falco,
    /// `[acme]`: certificates for services that speak ACME.
    pub acme: Acme,
    /// `[[notify]]`: who is told of alerts.
    pub notify: Vec<Notify>,
    /// `ENABLE_MTLS`: whether services show the edge's own certificate unless they say otherwise.
    pub mtls: bool,
    /// Every `[[service]]`, in file order, the disabled ones too. Names are unique.
    pub services: Vec<Service>,
}

/// A port offset that would push a listener past port 65535.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("port offset {offset} moves {key} from {address} past port 65535")]
pub struct PortOffsetError {
    /// Key of the listener, such as `edge.listen`.
    pub key: &'static str,
    /// Its configured address.
    pub address: SocketAddr,
    /// The offset asked for.
    pub offset: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            edge: Edge::default(),
            control: Control::default(),
            auth: Auth::default(),
            rate_limit: Some(RateLimit::per_minute(1000)),
            rate_store: RateStore::default(),
            breaker: Breaker::default(),
            registry: Registry::default(),
            kill_switch: KillSwitch::default(),
            keys: Keys::default(),
            redis: None,
            redis_tls: RedisTls::default(),
            drain: Drain::default(),
            log: Log::default(),
            otlp: Otlp::default(),
            metrics: MetricsAccess::default(),
            events: Events::default(),
            vault: Vault::default(),
            calc: Calc::default(),
            demo: Demo::default(),
            falco: Falco::default(),
            acme: Acme::default(),
            notify: Vec::new(),
            mtls: true,
            services: Vec::new(),
        }
    }
}

impl Config {
    /// The Redis that events are stored in; `None`: they are stored by the event worker itself.
    pub fn event_redis(&self) -> Option<RedisUrl> {
        let url = self.redis.as_ref().filter(|_| self.events.store != Some(EventStore::Embedded));
        url.map(|url| url.with(&self.redis_tls))
    }

    /// The Redis that edges share: one server, for a cluster and what sentinels name hold events alone.
    pub fn edge_redis(&self) -> Option<RedisUrl> {
        self.redis.as_ref().filter(|url| url.is_single()).map(|url| url.with(&self.redis_tls))
    }

    /// Everything but the services, of which there may be many.
    #[must_use]
    pub fn without_services(&self) -> Self {
        Self {
            edge: self.edge.clone(),
            control: self.control.clone(),
            auth: self.auth.clone(),
            rate_limit: self.rate_limit.clone(),
            rate_store: self.rate_store,
            breaker: self.breaker.clone(),
            registry: self.registry.clone(),
            kill_switch: self.kill_switch.clone(),
            keys: self.keys.clone(),
            redis: self.redis.clone(),
            redis_tls: self.redis_tls.clone(),
            drain: self.drain.clone(),
            log: self.log.clone(),
            otlp: self.otlp.clone(),
            metrics: self.metrics.clone(),
            events: self.events.clone(),
            vault: self.vault.clone(),
            calc: self.calc.clone(),
            demo: self.demo.clone(),
            falco: self.falco.clone(),
            acme: self.acme.clone(),
            notify: self.notify.clone(),
            mtls: self.mtls,
            services: Vec::new(),
        }
    }

    /// A service with this configuration's defaults, as a registration over the API starts from.
    pub fn service(&self, name: impl Into<String>, prefix: impl Into<String>) -> Service {
        let client_cert = if self.mtls { ClientCertificate::Auto } else { ClientCertificate::Off };
        Service {
            name: name.into(),
            prefix: prefix.into(),
            rate_limit: self.rate_limit.clone(),
            breaker: self.breaker.clone(),
            body_bytes: self.edge.limits.body_bytes,
            tls: UpstreamTls { client_cert, ..UpstreamTls::default() },
            ..Service::default()
        }
    }

    /// The services that route: those with `enabled = true`.
    pub fn enabled_services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(|service| service.enabled)
    }

    /// Every address Sluice itself opens, by key.
    pub fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let mut listeners = vec![
            ("edge.listen", self.edge.listen),
            ("control.listen", self.control.listen),
            ("events.listen", self.events.listen),
            ("vault.listen", self.vault.listen),
            ("calc.listen", self.calc.listen),
            ("demo.data_listen", self.demo.data_listen),
            ("demo.backtesting_listen", self.demo.backtesting_listen),
            ("demo.trading_bot_listen", self.demo.trading_bot_listen),
        ];
        listeners.extend(self.edge.tls.as_ref().map(|tls| ("edge.tls.listen", tls.listen)));
        listeners
    }

    /// Adds `offset` to the port of every own listener; port 0 stays 0. Instance URLs stay.
    ///
    /// # Errors
    /// The first listener whose port would pass 65535; then nothing has changed.
    pub fn port_offset(&mut self, offset: u16) -> Result<(), PortOffsetError> {
        for (key, address) in self.listeners() {
            if address.port().checked_add(offset).is_none() {
                return Err(PortOffsetError { key, address, offset });
            }
        }
        for address in self.listeners_mut() {
            if address.port() != 0 {
                address.set_port(address.port() + offset);
            }
        }
        Ok(())
    }

    fn listeners_mut(&mut self) -> Vec<&mut SocketAddr> {
        let mut listeners = vec![
            &mut self.edge.listen,
            &mut self.control.listen,
            &mut self.events.listen,
            &mut self.vault.listen,
            &mut self.calc.listen,
            &mut self.demo.data_listen,
            &mut self.demo.backtesting_listen,
            &mut self.demo.trading_bot_listen,
        ];
        listeners.extend(self.edge.tls.as_mut().map(|tls| &mut tls.listen));
        listeners
    }
}
